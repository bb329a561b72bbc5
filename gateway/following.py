"""How the replica follows the decision logs: one task a shard, each from its own position.

It begins as a standby does, from the newest checkpoint if there is one, and reads on for ever. A
log that does not answer is asked again, more and more slowly. A log that contradicts itself stops
the shard's task loudly: its prices stay readable, marked stale, and ``/readyz`` says why.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from actors.clock import Clock
from actors.patience import Patience
from actors.pauses import Settling
from engine.errors import FailedDependency, LogFault, SettingsRefused
from gateway.opening import Opening
from gateway.replica import Replica
from persistence.decision_reader import DecisionReader
from persistence.decision_records import LogPosition
from persistence.ports import DECISIONS, Log, Logs

logger = logging.getLogger(__name__)
T = TypeVar("T")

READ_RECORDS = 256
READ_WAIT_MS = 500
PATIENCE_FIRST_MS = 50
PATIENCE_LONGEST_MS = 2000


ReadOpening = Callable[[int], Awaitable[Opening | None]]
"""Reads the newest checkpoint of a shard; ``None`` when there is none."""


async def follow_all(
    replica: Replica, logs: Logs, clock: Clock, opening: ReadOpening | None = None
) -> None:
    """Follow every shard's decision log until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for shard in range(len(replica.shards)):
            tasks.create_task(follow(replica, shard, logs, clock, opening))


async def follow(
    replica: Replica, shard: int, logs: Logs, clock: Clock, opening: ReadOpening | None = None
) -> None:
    """Follow one shard's decision log until cancelled, or until the log is found at fault."""
    view = replica.shards[shard]
    try:
        position = None
        begun = await opening(shard) if opening is not None else None
        if begun is not None:
            replica.begin(shard, begun)
            position = begun.position
        log = await _patiently(lambda: logs.open(DECISIONS, shard))
        try:
            await _follow_log(replica, shard, log, clock, position)
        finally:
            await log.close()
    except (LogFault, SettingsRefused) as fault:
        view.failure = f"{type(fault).__name__}: {fault}"
        logger.critical("shard %d: the replica stopped following: %s", shard, view.failure)


async def _follow_log(
    replica: Replica, shard: int, log: Log, clock: Clock, position: LogPosition | None
) -> None:
    view = replica.shards[shard]
    start = await _patiently(log.start)
    # Without a checkpoint a log whose head retention removed is read from its middle on.
    after = start - 1 if position is None and start > 0 else -1
    reader = DecisionReader(position, shard=shard, generation=replica.generation, after=after)
    view.target = await _patiently(log.end)
    view.caught_up = view.target <= reader.offset + 1
    patience = Patience(PATIENCE_FIRST_MS, PATIENCE_LONGEST_MS)
    settling = Settling()
    while True:
        try:
            records = await log.read(reader.offset, limit=READ_RECORDS, wait_ms=READ_WAIT_MS)
        except FailedDependency:
            await patience.wait()
            continue
        patience.renew()
        read_ms = clock.monotonic_ms()
        for record in records:
            accepted = reader.accept(record)
            if accepted is not None:
                replica.accept(shard, accepted, read_ms=read_ms)
        if records and records[-1].offset >= view.target - 1:
            view.caught_up = True  # also when the last ones did not count
        settling.note(len(replica.listings))
        await asyncio.sleep(0)  # answer somebody between two batches while catching up


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again, more and more slowly, until the log answers."""
    patience = Patience(PATIENCE_FIRST_MS, PATIENCE_LONGEST_MS)
    while True:
        try:
            return await ask()
        except FailedDependency:
            await patience.wait()
