"""What a shard reads: both lanes, commands first, cut into microbatches.

Each lane is read ahead by a task of its own into a bounded buffer, so that the next microbatch is
at hand when the last is recorded. Nothing is acknowledged to anybody: how far a shard has come
stands in its own decisions.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

from msgspec import Struct

from actors.patience import Patience
from engine.errors import FailedDependency, LogRegressed
from engine.microbatch import Microbatch
from persistence.ports import Log, Record
from persistence.wire import Decoder

READ_WAIT_MS = 500
"""How long one read of a lane waits for news; it returns at once when there is some."""


AHEAD_BYTES_MAX = 8 * 1024 * 1024
"""So much of a lane is read ahead; a frame may be a hundred thousand bytes, a fact a hundred."""

RECORD_BYTES_FIRST = 128 * 1024
"""A record is taken for so big until one was seen."""


class InboxLimits(Struct, frozen=True):
    """How much one microbatch takes; a burst becomes a bigger batch, up to here."""

    commands_max: int = 64  # records of the commands lane
    deltas_max: int = 4_096  # records of the deltas lane
    batch_bytes_max: int = 640 * 1024  # of either lane, but one record at least


class Lane:
    """One lane, read ahead."""

    def __init__(self, log: Log, records_max: int, bytes_max: int, grown: asyncio.Event) -> None:
        self.consumed = -1  # offset of the last record taken
        self._log = log
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._grown = grown
        self._buffer: deque[Record] = deque()
        self._buffered_bytes = 0
        self._taken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self, after: int) -> None:
        """Read ahead from the record after offset ``after``."""
        assert self._task is None
        self.consumed = after
        self._task = asyncio.create_task(self._read_ahead(after))

    def check(self) -> None:
        """Raise what stopped the reading ahead, if anything did."""
        if self._task is not None and self._task.done():
            self._task.result()

    def waiting(self) -> int:
        """Return how many records are at hand."""
        return len(self._buffer)

    def take(self, records_max: int, through: int | None = None) -> list[Record]:
        """Take the next records, at most up to offset ``through``."""
        taken: list[Record] = []
        size = 0
        buffer = self._buffer
        everything = len(buffer) <= records_max and self._buffered_bytes <= self._bytes_max
        if through is None and everything:
            taken.extend(buffer)
            buffer.clear()
            self._buffered_bytes = 0
        while buffer and len(taken) < records_max:
            record = buffer[0]
            size += len(record.value)
            if through is None:
                if taken and size > self._bytes_max:
                    break
            elif record.offset > through:
                break
            taken.append(buffer.popleft())
            self._buffered_bytes -= len(record.value)
        if taken:
            self.consumed = taken[-1].offset
            self._taken.set()
        return taken

    async def close(self) -> None:
        """Stop reading ahead."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._task

    async def end(self) -> int:
        """Return the offset that the lane's next record will get."""
        patience = Patience()
        while True:
            try:
                return await self._log.end()
            except FailedDependency:
                await patience.wait()

    async def _read_ahead(self, after: int) -> None:
        patience = Patience()
        record_bytes = RECORD_BYTES_FIRST
        while True:
            if len(self._buffer) >= self._records_max or self._buffered_bytes >= AHEAD_BYTES_MAX:
                self._taken.clear()
                await self._taken.wait()
                continue
            limit = max(1, min(self._records_max, AHEAD_BYTES_MAX // record_bytes))
            try:
                records = await self._log.read(after, limit=limit, wait_ms=READ_WAIT_MS)
            except FailedDependency:
                await patience.wait()
                continue
            except BaseException:
                self._grown.set()  # whoever waits shall learn of it
                raise
            patience.renew()
            if records:
                after = records[-1].offset
                self._buffer.extend(records)
                size = sum(len(record.value) for record in records)
                self._buffered_bytes += size
                record_bytes = max(size // len(records), 1)
                self._grown.set()


class Inbox:
    """Cuts both lanes into microbatches: as they come, or exactly as a decision says."""

    def __init__(
        self, commands: Log, deltas: Log, decoder: Decoder, limits: InboxLimits | None = None
    ) -> None:
        limits = limits or InboxLimits()
        self._limits = limits
        self._decoder = decoder
        self._grown = asyncio.Event()
        self._woken = False
        self.commands = Lane(commands, limits.commands_max, limits.batch_bytes_max, self._grown)
        self.deltas = Lane(deltas, limits.deltas_max, limits.batch_bytes_max, self._grown)

    def begin(self, last_command: int, last_delta: int) -> None:
        """Read ahead from the records after these."""
        self.commands.begin(last_command)
        self.deltas.begin(last_delta)

    def wake(self) -> None:
        """Make :meth:`read` return at once, with what there is."""
        self._woken = True
        self._grown.set()

    async def read(self, *, wait_ms: int, records_max: int | None = None) -> Microbatch:
        """Return the next microbatch, empty if nothing came within ``wait_ms``.

        Whole records, commands before deltas. With ``records_max`` it holds at most so many, of one
        lane: a cautious owner's heir must know which records may have killed it.

        Raises:
            LogFault: records that this shard still needs are gone.
        """
        if wait_ms > 0 and not self._woken:
            await self._wait(wait_ms)
        self._woken = False
        self.commands.check()
        self.deltas.check()
        limits = self._limits
        if records_max is None:
            commands = self.commands.take(limits.commands_max)
            return self._decode(commands, self.deltas.take(limits.deltas_max))
        commands = self.commands.take(min(records_max, limits.commands_max))
        deltas = [] if commands else self.deltas.take(min(records_max, limits.deltas_max))
        return self._decode(commands, deltas)

    async def read_exactly(self, last_command: int, last_delta: int) -> Microbatch:
        """Return the microbatch that reaches to these offsets, however long reading it takes.

        Raises:
            LogRegressed: the record at one of the offsets does not exist.
            LogFault: records in between are gone.
        """
        commands = await self._take_through(self.commands, last_command)
        deltas = await self._take_through(self.deltas, last_delta)
        return self._decode(commands, deltas)

    async def close(self) -> None:
        """Stop reading ahead."""
        await self.commands.close()
        await self.deltas.close()

    async def _wait(self, wait_ms: int) -> None:
        if self.commands.waiting() or self.deltas.waiting():
            return
        self._grown.clear()
        self.commands.check()
        self.deltas.check()
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await self._grown.wait()
        except TimeoutError:
            pass

    async def _take_through(self, lane: Lane, through: int) -> list[Record]:
        taken: list[Record] = []
        while lane.consumed < through:
            records = lane.take(through - lane.consumed, through)
            taken.extend(records)
            if lane.consumed >= through:
                break
            if lane.waiting():
                raise LogRegressed(
                    f"a decision consumed offset {through} of a lane, which holds no such record"
                )
            self._grown.clear()
            lane.check()
            await self._grown.wait()
        return taken

    def _decode(self, commands: list[Record], deltas: list[Record]) -> Microbatch:
        return self._decoder.decode(
            commands,
            deltas,
            last_command=self.commands.consumed,
            last_delta=self.deltas.consumed,
        )


async def read_span(
    log: Log, after: int, through: int, *, limit: int = 1_000
) -> AsyncIterator[Record]:
    """Yield the records with ``after < offset <= through``; for followers, up to a mark.

    Raises:
        LogTruncated: some of them are gone.
        FailedDependency: the log did not answer; begin again after the last one yielded.
    """
    while after < through:
        records = await log.read(after, limit=limit, wait_ms=READ_WAIT_MS)
        for record in records:
            if record.offset > through:
                return
            after = record.offset
            yield record
