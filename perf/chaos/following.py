"""Reads both logs and their lanes for the checker, straight from the broker.

So no fault of the network blinds it.
"""

import asyncio
import time

from engine.errors import FailedDependency, LogFault
from perf.chaos.checker import Checker
from perf.chaos.keeping import Lines
from persistence.ports import COMMANDS, DECISIONS, DELTAS, Log, Logs, Record

READ_RECORDS = 1000
READ_WAIT_MS = 300


class Heard:
    """When a decision was heard, by shard and second; and how long deltas waited for theirs."""

    def __init__(self, shards: int) -> None:
        self.decisions: list[dict[int, int]] = [{} for _ in range(shards)]
        self.waits: dict[int, int] = {}  # second -> longest from a delta's append to its decision's
        self.longest_silence_ms = [0] * shards
        self._last_ms = [0] * shards

    def mark(self, shard: int, appended_ms: int) -> None:
        """Note an accepted record."""
        second = appended_ms // 1000
        self.decisions[shard][second] = self.decisions[shard].get(second, 0) + 1
        if self._last_ms[shard]:
            silence_ms = appended_ms - self._last_ms[shard]
            self.longest_silence_ms[shard] = max(self.longest_silence_ms[shard], silence_ms)
        self._last_ms[shard] = appended_ms


class Following:
    """The checker's own readers, one a log."""

    def __init__(self, checker: Checker, logs: Logs, lines: Lines | None = None) -> None:
        self.heard = Heard(len(checker.truths))
        self._checker = checker
        self._logs = logs
        self._lines = lines or Lines(None)
        self._delta_ms: list[dict[int, int]] = [{} for _ in checker.truths]

    async def decisions(self, shard: int) -> None:
        """Read a shard's decisions until cancelled."""
        log = await _open(self._logs, DECISIONS, shard)
        truth = self._checker.truths[shard]
        try:
            while True:
                for record in await self._read(log, DECISIONS, truth.offset, shard):
                    before = truth.last_delta
                    if self._checker.logged(shard, record):
                        self.heard.mark(shard, record.appended_ms)
                        self._note_wait(shard, before, truth.last_delta, record.appended_ms)
        finally:
            await log.close()

    async def deltas(self, shard: int) -> None:
        """Read a shard's deltas until cancelled."""
        log, after = await _open(self._logs, DELTAS, shard), -1
        try:
            while True:
                for record in await self._read(log, DELTAS, after, shard):
                    after = record.offset
                    self._delta_ms[shard][record.offset] = record.appended_ms
                    self._checker.delta_logged(shard, record)
        finally:
            await log.close()

    async def commands(self, shard: int) -> None:
        """Read a shard's commands until cancelled."""
        log, after = await _open(self._logs, COMMANDS, shard), -1
        try:
            while True:
                for record in await self._read(log, COMMANDS, after, shard):
                    after = record.offset
                    self._checker.command_logged(shard, record)
        finally:
            await log.close()

    def _note_wait(self, shard: int, before: int, through: int, appended_ms: int) -> None:
        times = self._delta_ms[shard]
        waits = self.heard.waits
        for offset in range(before + 1, through + 1):
            sent_ms = times.pop(offset, None)
            if sent_ms is not None:
                second = appended_ms // 1000
                waits[second] = max(waits.get(second, 0), appended_ms - sent_ms)

    async def _read(self, log: Log, topic: str, after: int, shard: int) -> list[Record]:
        try:
            records = await log.read(after, limit=READ_RECORDS, wait_ms=READ_WAIT_MS)
            self._lines.note(topic, shard, records)
            return records
        except FailedDependency:
            await asyncio.sleep(0.1)
        except LogFault as fault:
            self._checker.found("decision_lost", f"shard {shard}, behind offset {after}: {fault}")
            await asyncio.sleep(1)
        return []


async def _open(logs: Logs, topic: str, shard: int) -> Log:
    """Open a log as soon as the broker answers and the topic is there."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return await logs.open(topic, shard)
        except FailedDependency:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
