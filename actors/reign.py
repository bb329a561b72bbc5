"""One owner's reign over a shard: the seal, and every append after it.

The decision log is sealed, not locked (docs/log-protocol.md). Nothing outside the log says who
owns a shard: an owner appends a start of a higher epoch, reads up to it, and reigns if readers say
so. From then on it knows at which offset each of its records must land, so it notices at its next
append, and before anybody sees its effect, that another came.
"""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from actors.clock import ClockKind, ClockWatch
from actors.patience import Patience
from engine.decided import Decided
from engine.errors import AppendInDoubt, FailedDependency, LogRegressed, StaleEpoch
from persistence.decision_reader import Accepted, DecisionReader
from persistence.decision_records import (
    CONTENT_TYPE,
    DecisionRecord,
    EpochStarted,
    LogPosition,
    Stamp,
    Trying,
    encode,
)
from persistence.ports import Appended, Appender, Log

Take = Callable[[Accepted], Awaitable[None]]
"""What is done with each record that counts, in order, while reading up to a seal."""

READ_RECORDS_MAX = 64
READ_WAIT_MS = 100


class Recorded(Struct, frozen=True):
    """Where a record of ours stands, and when the log says that it was appended."""

    position: LogPosition
    appended_ms: int


class Reign:
    """Appends for one owner, by the rules that make the log its own fence."""

    def __init__(
        self,
        log: Log,
        reader: DecisionReader,
        *,
        owner: bytes,
        partitions: int,
        replay_domain: str,
        clock: ClockKind,
        watch: ClockWatch,
    ) -> None:
        assert len(owner) == 16
        self.epoch = 0  # of our latest seal; 0 before the first
        self.doubts = 0  # appends and seals that were in doubt
        self.gaps = 0  # acknowledgements at a higher offset than expected
        self._log = log
        self._reader = reader
        self._owner = owner
        self._partitions = partitions
        self._replay_domain = replay_domain
        self._clock: ClockKind = clock
        self._watch = watch
        self._appender: Appender | None = None
        self._expected_offset = -1

    async def seal(self, take: Take) -> None:
        """Start an epoch above all that were seen, and hand what counts before it to ``take``.

        Raises:
            StaleEpoch: another start came first, or a higher epoch began meanwhile.
            LogRegressed: the log lost records that we have read.
            ClockFault: the log's clock says another time than ours.
        """
        await self._seal(self._reader.epoch + 1, take)

    async def append(self, decided: Decided) -> Recorded:
        """Append a decision and return where it stands, however often that takes.

        When this returns, the record is in the log once as readers count, and nobody reigned in
        between. When it raises, nobody may see what was decided.

        Raises:
            StaleEpoch: another owner reigns now; the caller stops at once, without tidying up.
            LogRegressed: the log lost acknowledged data.
            ClockFault: the log's clock says another time than ours.
        """
        ours = (decided.seq, decided.digest)
        return await self._append(
            lambda stamp: DecisionRecord(stamp, decided),
            lambda accepted: (
                accepted.decided is not None
                and (accepted.decided.seq, accepted.decided.digest) == ours
            ),
            decided.seq,
        )

    async def announce(self, last_command: int, last_delta: int) -> None:
        """Append that the microbatch up to these offsets is about to be tried."""
        await self._append(
            lambda stamp: Trying(stamp, last_command, last_delta),
            lambda accepted: (
                accepted.trying is not None
                and accepted.trying.last_command == last_command
                and accepted.trying.last_delta == last_delta
            ),
        )

    async def repeat_start(self) -> None:
        """Append this epoch's start again, so that retention never removes the reigning one."""
        first_offset = self._reader.first_offset
        epoch = self.epoch
        if first_offset < 0:
            return
        await self._append(
            lambda stamp: self._start(stamp, first_offset if stamp.epoch == epoch else -1),
            # A start that was in doubt was followed by a new one: that is repetition enough.
            lambda accepted: accepted.started is not None,
        )

    def abandon(self) -> None:
        """Drop the producer without flushing it; what is in flight may still arrive."""
        if self._appender is not None:
            self._appender.abandon()
            self._appender = None

    def _stamp(self, epoch: int) -> Stamp:
        reader = self._reader
        # The very first owner of a log names it; its own name is random enough.
        return Stamp(
            log_id=reader.log_id or self._owner,
            generation=reader.generation,
            shard=reader.shard,
            epoch=epoch,
            owner=self._owner,
        )

    def _start(self, stamp: Stamp, first_offset: int) -> EpochStarted:
        position = self._reader.position
        return EpochStarted(
            stamp=stamp,
            started_ms=self._watch.wall_ms(),
            replay_domain=self._replay_domain,
            clock=self._clock,
            from_offset=-1 if position is None else position.offset,
            from_seq=max(self._reader.seq, 0),
            first_offset=first_offset,
            partitions=self._partitions,
        )

    async def _seal(self, epoch: int, take: Take) -> None:
        patience = Patience()
        while True:
            value = encode(self._start(self._stamp(epoch), -1))
            try:
                if self._appender is None:
                    self._appender = await self._log.appender()
                sent_ms = self._watch.wall_ms()
                appended = await self._appender.append(value, content_type=CONTENT_TYPE)
                break
            except AppendInDoubt:
                # It may still arrive, at any time: only a higher epoch outranks it for certain.
                self.doubts += 1
                self.abandon()
                epoch = epoch + 1
            except FailedDependency:
                pass
            await patience.wait()
        if appended.offset <= self._reader.offset:
            raise LogRegressed(
                f"decision log: sealed at offset {appended.offset}, read up to "
                f"{self._reader.offset} before"
            )
        # Before the first decision: a clock that was wrong from the start never jumps.
        self._watch.compare(appended.appended_ms, sent_ms)
        await self._read_through(appended.offset, take)
        self._check_reigning(epoch)
        self.epoch = epoch
        self._expected_offset = appended.offset + 1

    async def _append(
        self,
        make: Callable[[Stamp], DecisionRecord | EpochStarted | Trying],
        is_ours: Callable[[Accepted], bool],
        seq: int | None = None,
    ) -> Recorded:
        assert self.epoch > 0, "seal before appending"
        patience = Patience()
        while True:
            assert self._appender is not None
            value = encode(make(self._stamp(self.epoch)))
            sent_ms = self._watch.wall_ms()
            try:
                appended = await self._appender.append(value, content_type=CONTENT_TYPE)
            except AppendInDoubt:
                found = await self._resolve_doubt(is_ours)
                if found is not None:
                    return found
                continue  # the very same decision, under the new epoch
            except FailedDependency:
                await patience.wait()
                continue
            recorded = await self._acknowledged(appended, is_ours, seq)
            self._watch.compare(appended.appended_ms, sent_ms)
            return recorded

    async def _resolve_doubt(self, is_ours: Callable[[Accepted], bool]) -> Recorded | None:
        """Seal again and look whether the append in doubt is in the log.

        With *our own* epoch + 1, not one above all: if we are a zombie, we must lose.
        """
        self.doubts += 1
        self.abandon()
        found: list[Recorded] = []
        await self._seal(self.epoch + 1, lambda accepted: self._look(accepted, is_ours, found))
        return found[0] if found else None

    async def _acknowledged(
        self, appended: Appended, is_ours: Callable[[Accepted], bool], seq: int | None
    ) -> Recorded:
        """Judge an acknowledgement by the offset that our record had to get."""
        if appended.offset < self._expected_offset:
            raise LogRegressed(
                f"decision log: acknowledged at offset {appended.offset}, expected "
                f"{self._expected_offset}: acknowledged records were lost"
            )
        found: list[Recorded] = []
        if appended.offset > self._expected_offset:
            self.gaps += 1
            await self._read_through(
                appended.offset - 1, lambda accepted: self._look(accepted, is_ours, found)
            )
            self._check_reigning(self.epoch)
        self._expected_offset = appended.offset + 1
        if found:  # the log holds it twice; readers take the first
            self._reader.skip(appended.offset)
            return found[0]
        position = self._reader.advance(appended.offset, seq)
        return Recorded(position, appended.appended_ms)

    async def _look(
        self, accepted: Accepted, is_ours: Callable[[Accepted], bool], found: list[Recorded]
    ) -> None:
        """Take note of our own record; stop if another has decided meanwhile.

        What bears our name and is not ours was decided by another, too: our start began twice.
        """
        if accepted.stamp.owner == self._owner and is_ours(accepted):
            found.append(Recorded(accepted.position, accepted.appended_ms))
        elif accepted.decided is not None:
            raise StaleEpoch(self._reader.shard, self.epoch, accepted.stamp.epoch)

    def _check_reigning(self, epoch: int) -> None:
        """Raise unless readers who stand where we stand hold us for the owner."""
        reader = self._reader
        if reader.epoch != epoch or reader.owner != self._owner:
            raise StaleEpoch(reader.shard, epoch, reader.epoch)

    async def _read_through(self, offset: int, take: Take) -> None:
        """Hand what counts up to and including ``offset`` to ``take``, in order."""
        patience = Patience()
        while self._reader.offset < offset:
            try:
                records = await self._log.read(
                    self._reader.offset, limit=READ_RECORDS_MAX, wait_ms=READ_WAIT_MS
                )
            except FailedDependency:
                await patience.wait()
                continue
            for record in records:
                if record.offset > offset:
                    return
                accepted = self._reader.accept(record)
                if accepted is not None:
                    await take(accepted)
