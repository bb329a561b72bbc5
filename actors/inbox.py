"""What a shard reads: both lanes, commands first, cut into microbatches.

Each lane is read ahead by a task of its own into a bounded buffer, so that the next microbatch is
at hand when the last is recorded. Nothing is acknowledged to anybody: how far a shard has come
stands in its own decisions.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable
from itertools import accumulate
from operator import attrgetter

from msgspec import Struct

from actors.pace import Pace
from actors.patience import Patience, patiently
from engine.errors import FailedDependency, LogRegressed
from engine.microbatch import Microbatch
from persistence.ports import Log, Record
from persistence.wire import Decoder

READ_WAIT_MS = 500
"""How long one read of a lane waits for news; it returns at once when there is some."""


AHEAD_BYTES_MAX = 8 * 1024 * 1024
"""So much of a lane is read ahead; a frame may be a hundred thousand bytes, a fact a hundred."""

MUCH_BYTES = 64 * 1024
"""Some five hundred JSON deltas. Where so much waits, what every microbatch pays is the lesser part
of its price, and to gather more would save little."""

RECORD_BYTES_FIRST = 128 * 1024
"""A record is taken for so big until one was seen."""

CANCEL_AGAIN_S = 0.1

_OFFSET = attrgetter("offset")


class InboxLimits(Struct, frozen=True):
    """How much one microbatch takes; a burst becomes a bigger batch, up to here."""

    commands_max: int = 64  # records of the commands lane
    deltas_max: int = 10_240  # of the deltas lane, where all they touch finds room: actors.pace
    batch_bytes_max: int = 1_024 * 1024  # of either lane, but one record at least


class Lane:
    """One lane, read ahead."""

    def __init__(self, log: Log, records_max: int, bytes_max: int, grown: asyncio.Event) -> None:
        self.consumed = -1  # offset of the last record taken
        self._log = log
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._grown = grown
        self._buffer: list[Record] = []
        self._sizes: list[int] = []
        self._next = 0  # what stands before it in the buffer was taken
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
        return len(self._buffer) - self._next

    def age_ms(self, now_ms: int) -> int:
        """Return the age of the oldest record at hand, 0 where none is.

        The broker wrote its time, and may be ahead of this machine.
        """
        return max(0, now_ms - self._buffer[self._next].appended_ms) if self.waiting() else 0

    def waiting_bytes(self) -> int:
        """Return how many bytes are at hand."""
        return self._buffered_bytes

    def take(self, records_max: int, through: int | None = None) -> list[Record]:
        """Take the next records, at most up to offset ``through``."""
        begin, end = self._next, min(self._next + records_max, len(self._buffer))
        if through is not None:
            end = bisect_right(self._buffer, through, begin, end, key=_OFFSET)
        size = sum(self._sizes[begin:end])
        if through is None and size > self._bytes_max:
            sizes = list(accumulate(self._sizes[begin:end]))
            end = begin + max(bisect_right(sizes, self._bytes_max), 1)
            size = sizes[end - begin - 1]
        if begin == end:
            return []
        taken = self._buffer[begin:end]
        self._next = end
        self._buffered_bytes -= size
        if 2 * end >= len(self._buffer):
            del self._buffer[:end], self._sizes[:end]
            self._next = 0
        self.consumed = taken[-1].offset
        self._taken.set()
        return taken

    async def close(self) -> None:
        """Stop reading ahead."""
        task = self._task
        if task is None:
            return
        while not task.done():
            # A library that waits with a deadline may swallow a cancellation that meets it.
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_AGAIN_S)
        if not task.cancelled():
            task.exception()  # what stopped it is of no interest any more

    async def end(self) -> int:
        """Return the offset that the lane's next record will get."""
        return await patiently(self._log.end)

    async def _read_ahead(self, after: int) -> None:
        patience = Patience()
        record_bytes = RECORD_BYTES_FIRST
        while True:
            if self.waiting() >= self._records_max or self._buffered_bytes >= AHEAD_BYTES_MAX:
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
                sizes = [len(record.value) for record in records]
                size = sum(sizes)
                self._buffer += records
                self._sizes += sizes
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
        self._pace = Pace(limits.deltas_max)
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

    def lag_ms(self, now_ms: int) -> int:
        """Return the age of the oldest record at hand, 0 where none is, be it for want of a log."""
        return max(self.commands.age_ms(now_ms), self.deltas.age_ms(now_ms))

    def is_quiet(self) -> bool:
        """Whether :meth:`read` would have to wait: nothing is at hand and nobody woke us."""
        return not (self._woken or self.commands.waiting() or self.deltas.waiting())

    async def gather(self, rest_ms: int) -> None:
        """Let deltas gather for so long, until they are many, a command came, or we are woken.

        Raises:
            LogFault: as :meth:`read`.
        """
        await self._wait(
            rest_ms,
            until=lambda: self.commands.waiting() > 0 or self.deltas.waiting_bytes() >= MUCH_BYTES,
        )

    async def read(
        self, *, wait_ms: int, records_max: int | None = None, room: bool = True
    ) -> Microbatch:
        """Return the next microbatch, empty if nothing came within ``wait_ms``.

        Whole records, commands before deltas. With ``records_max`` it holds at most so many, of one
        lane: a cautious owner's heir must know which records may have killed it. ``room`` tells
        whether the microbatch before left no row to a later one: then this may be bigger.

        Raises:
            LogFault: records that this shard still needs are gone.
        """
        if wait_ms > 0:
            await self._wait(
                wait_ms, until=lambda: self.commands.waiting() > 0 or self.deltas.waiting() > 0
            )
        self._woken = False
        self.commands.check()
        self.deltas.check()
        limits = self._limits
        if records_max is None:
            return self._read_whole(room)
        commands = self.commands.take(min(records_max, limits.commands_max))
        deltas = [] if commands else self.deltas.take(min(records_max, limits.deltas_max))
        return self._decode(commands, deltas)

    def _read_whole(self, room: bool) -> Microbatch:
        """Take of both lanes what the limits and the pace allow."""
        pace = self._pace
        if not room:
            pace.fall()
        commands = self.commands.take(self._limits.commands_max)
        deltas = self.deltas.take(pace.records_max())
        batch = self._decode(commands, deltas)
        pace.took(len(deltas), batch.deltas - len(commands))
        if room and self.deltas.waiting():
            pace.grow()
        return batch

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

    async def _wait(self, wait_ms: int, until: Callable[[], bool]) -> None:
        """Wait until something holds, somebody wakes us, or the time is over."""
        try:
            async with asyncio.timeout(wait_ms / 1000):
                while not (self._woken or until()):
                    self._grown.clear()
                    self.commands.check()
                    self.deltas.check()
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
