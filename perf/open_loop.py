"""Load that keeps its own timetable: every delta has a moment at which it is meant to be sent.

What is late because the sender, the broker or the engine was busy is charged from that moment on,
so a stall costs all who would have come in it, and not one (no coordinated omission). Records are
encoded before the first is due; sending is then only copying, and one core can offer 20,000 a
second beside what it measures. ``observed_ms`` is the moment meant, so it is planned, too.
"""

import asyncio
import time
from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from cluster.feeding import Router
from engine.deltas import AnyDelta
from persistence.ports import DELTAS, Appender, Logs
from persistence.wire import JSON, encode_delta

RECORDS_PER_APPEND_MAX = 2_000


class Planned(Struct, frozen=True):
    """One delta, the moment at which it is due, and what the prober knows it by."""

    due_s: float  # after the timetable's begin
    delta: AnyDelta
    name: int = -1  # of a probe; -1: none


class Sent(Struct, frozen=True):
    """Where a probe's delta came to stand in the log."""

    partition: int
    offset: int
    appended_ms: int


class Timetable:
    """Encoded records of one partition in the order of their moments."""

    def __init__(self) -> None:
        self.due_s: list[float] = []
        self.records: list[tuple[bytes | None, bytes, str]] = []
        self.names: list[int] = []


class OpenLoop:
    """Sends a timetable to every partition, on time or late, but never less."""

    def __init__(self, logs: Logs, router: Router, linger_s: float, warm_s: float = 0.0) -> None:
        self.sent = 0  # deltas acknowledged
        self.late_s = 0.0  # longest time by which one was sent after its moment, once warm
        self.probes: dict[int, Sent] = {}
        self._logs = logs
        self._router = router
        self._linger_s = linger_s
        self._warm_s = warm_s
        self._tables: dict[int, Timetable] = {}

    def plan(self, planned: Sequence[Planned]) -> None:
        """Encode what is to be sent; moments rise."""
        for each in planned:
            for key, partition in self._router.of_delta(each.delta):
                table = self._tables.setdefault(partition, Timetable())
                table.due_s.append(each.due_s)
                table.records.append((key.encode(), encode_delta(each.delta), JSON))
                table.names.append(each.name)

    def planned(self) -> dict[int, int]:
        """Return how many deltas each partition gets: a retailer's slots may all fall on one."""
        return {partition: len(table.due_s) for partition, table in sorted(self._tables.items())}

    async def run(self, begin_s: float) -> None:
        """Send everything; ``begin_s`` is the monotonic time of the timetable's begin."""
        await asyncio.gather(
            *(self._send(partition, begin_s) for partition in sorted(self._tables))
        )

    async def _send(self, partition: int, begin_s: float) -> None:
        log = await self._logs.open(DELTAS, partition)
        try:
            appender = await log.appender()
            try:
                await self._send_all(partition, begin_s, appender)
            finally:
                await appender.close()
        finally:  # whoever has seen enough cancels us
            await log.close()

    async def _send_all(self, partition: int, begin_s: float, appender: Appender) -> None:
        table = self._tables[partition]
        due = np.array(table.due_s)
        first_warm = int(np.searchsorted(due, self._warm_s))
        place = 0
        while place < len(due):
            wait_s = begin_s + due[place] + self._linger_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            now_s = time.monotonic() - begin_s
            until = int(np.searchsorted(due, now_s, side="right"))
            until = min(max(until, place + 1), place + RECORDS_PER_APPEND_MAX)
            counted = max(place, first_warm)
            if counted < until:
                self.late_s = max(self.late_s, now_s - due[counted])
            appended = await appender.append_many(table.records[place:until])
            for name, at in zip(table.names[place:until], appended, strict=True):
                if name >= 0:
                    self.probes[name] = Sent(partition, at.offset, at.appended_ms)
            self.sent += until - place
            place = until
