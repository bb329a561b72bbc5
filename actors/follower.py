"""Carries a decision log into one sink, from the sink's own cursor.

A follower slows nobody: it reads at its own pace, and waits for its store for as long as that
takes. What it has written and how far it came is one thing to the sink: either one transaction, or
writing again what was written already changes nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from actors.patience import Patience
from engine.errors import CursorFenced, FailedDependency, WriteInDoubt
from persistence.decision_reader import Accepted, DecisionReader
from persistence.decision_records import LogPosition
from persistence.ports import Log, Record

LOGGER = logging.getLogger("repricer.follower")

READ_WAIT_MS = 500
GATHER_WAIT_MS = 20
AT_END_MS = 500
"""A follower whose newest record is no older has nothing to catch up with."""


class Sink(Protocol):
    """What a follower writes into."""

    name: str

    async def position(self, shard: int) -> LogPosition | None:
        """Return the cursor: how far this sink has come, ``None`` if it is empty."""
        ...

    async def write(
        self, shard: int, accepted: Sequence[Accepted], expected: LogPosition | None
    ) -> None:
        """Write what the records hold and move the cursor to the last one's position.

        Records without ``decided`` (a start, an attempt) only move the cursor.

        Raises:
            CursorFenced: the cursor is not at ``expected``: another follower writes here.
            WriteInDoubt: it may have been written; the cursor tells.
            FailedDependency: it was not written; the same may be tried again.
        """
        ...

    async def summary(self, shard: int) -> object:
        """Return what it holds of one shard, counted and not believed, for whoever compares.

        Raises:
            FailedDependency: the store did not say, or lost what was written.
        """
        ...


def check_cursor(found: LogPosition | None, expected: LogPosition | None) -> None:
    """Raise unless a cursor stands where its follower left it; for sinks without transactions.

    Raises:
        CursorFenced: another follower has moved it.
    """
    if found != expected:
        raise CursorFenced(f"the cursor stands at {found}, this follower left it at {expected}")


class Follower:
    """Follows one shard's decisions for one sink, for ever."""

    def __init__(
        self,
        shard: int,
        *,
        log: Log,
        sink: Sink,
        generation: int,
        records_max: int = 256,
        pace_ms: int = 0,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.failures = 0  # writes and reads that the sink or the log did not do, and were repeated
        self.doubts = 0
        self.accepted_ms = 0  # the log's time of the last decision written
        self.stopped_by = ""  # what ended it, for an operator
        self._shard = shard
        self._log = log
        self._sink = sink
        self._generation = generation
        self._records_max = records_max
        self._pace_ms = pace_ms
        self._hurried = asyncio.Event()
        self._wall_ms = wall_ms
        self._cursor: LogPosition | None = None
        self._reader: DecisionReader | None = None

    async def run(self) -> None:
        """Follow until the log or the sink says that this cannot go on.

        Raises:
            LogFault: the log contradicts what was read before.
            CursorFenced: another follower writes into this sink.
        """
        try:
            await self.begin()
            while True:
                began = time.monotonic()
                if await self.step():
                    await self._let_gather(began)
        except Exception as error:
            self.stopped_by = f"{type(error).__name__}: {error}"
            LOGGER.error("follower %s, shard %d: %s", self._sink.name, self._shard, self.stopped_by)
            raise

    def hurry(self) -> None:
        """Gather no more: what is decided now shall be written before the end."""
        self._hurried.set()

    async def begin(self) -> None:
        """Ask the sink where it stands."""
        self._cursor = await self._stored_cursor()
        self._reader = DecisionReader(self._cursor, shard=self._shard, generation=self._generation)

    async def step(self) -> int:
        """Read what comes next and write it; return how many records counted."""
        assert self._reader is not None
        try:
            records = await self._read(self._reader.offset)
        except FailedDependency:
            self.failures += 1
            await Patience().wait()
            return 0
        accepted = [one for one in map(self._reader.accept, records) if one is not None]
        if accepted:
            await self._write(accepted)
            self._cursor = accepted[-1].position
            self.accepted_ms = accepted[-1].appended_ms
        return len(accepted)

    async def _read(self, after: int) -> Sequence[Record]:
        """Read what comes next; a paced follower also what lies behind the first piece.

        A log reads ahead, so the first piece may be no more than what came just after the last
        read, a pace ago.
        """
        limit = self._records_max
        records = await self._log.read(after, limit=limit, wait_ms=READ_WAIT_MS)
        if not self._pace_ms or not records or len(records) >= limit:
            return records
        more = await self._log.read(
            records[-1].offset, limit=limit - len(records), wait_ms=GATHER_WAIT_MS
        )
        return [*records, *more]

    async def _let_gather(self, began: float) -> None:
        """At the log's end, wait until the last step began a pace ago.

        A write costs a store about the same for one decision as for a hundred, and reading the log
        record by record costs the broker, so a follower that keeps up must not take each alone. One
        that is behind goes on at once: a quiet log still has its heartbeats, so age tells.
        """
        rest_s = began + self._pace_ms / 1000 - time.monotonic()
        if rest_s > 0 and self.lag_ms() <= AT_END_MS:
            with suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._hurried.wait()

    def lag_ms(self) -> int:
        """Return the age of the newest record written; a quiet log still has its heartbeats."""
        return max(self._wall_ms() - self.accepted_ms, 0) if self.accepted_ms else 0

    def status(self) -> dict[str, Any]:
        """Return how far it has come."""
        cursor = self._cursor
        return {
            "follower": self._sink.name,
            "shard": self._shard,
            "offset": -1 if cursor is None else cursor.offset,
            "seq": 0 if cursor is None else cursor.seq,
            "lag_ms": self.lag_ms(),
            "failures": self.failures,
            "doubts": self.doubts,
            "stopped_by": self.stopped_by,
        }

    async def _write(self, accepted: Sequence[Accepted]) -> None:
        patience = Patience()
        while True:
            try:
                await self._sink.write(self._shard, accepted, self._cursor)
                return
            except WriteInDoubt:
                self.doubts += 1
                if await self._was_written(accepted[-1].position):
                    return
            except FailedDependency:
                self.failures += 1
            await patience.wait()

    async def _was_written(self, position: LogPosition) -> bool:
        """Whether a write in doubt took place: the cursor moved with it, or did not."""
        found = await self._stored_cursor()
        if found == position:
            return True
        check_cursor(found, self._cursor)
        return False

    async def _stored_cursor(self) -> LogPosition | None:
        patience = Patience()
        while True:
            try:
                return await self._sink.position(self._shard)
            except FailedDependency:
                self.failures += 1
            await patience.wait()
