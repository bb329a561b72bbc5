"""Which records of a decision log count.

Everybody who reads decisions reads them through :class:`DecisionReader`: owners, standbys, gateway
replicas, followers and tools. It does no I/O: hand it the records in the order of the log, and it
says for each whether it counts. The log itself is thereby the fence: a replaced owner may append
what it likes, no reader takes it.

The rules (docs/log-protocol.md): a decision counts if it is of the highest epoch whose start was
seen, by the owner whose start came first for that epoch, and if its ``seq`` is the next.
"""

from msgspec import Struct

from engine.decided import Decided
from engine.errors import LogFault, SequenceGap, SettingsRefused
from persistence.decision_records import (
    EpochStarted,
    LogPosition,
    Stamp,
    Trying,
    decode,
)
from persistence.ports import Record

SEQ_UNKNOWN = -1
"""Of a reader that began in the middle of a log without a position: its first decision tells."""


class Accepted(Struct, frozen=True, kw_only=True):
    """A record that counts. One of ``decided``, ``started`` and ``trying`` is given."""

    position: LogPosition  # where a reader stands that has taken this record
    appended_ms: int
    stamp: Stamp
    decided: Decided | None = None
    started: EpochStarted | None = None
    trying: Trying | None = None

    @property
    def offset(self) -> int:
        """Return the record's offset in the decision log."""
        return self.position.offset


class DecisionReader:
    """Judges the records of one shard's decision log, in their order.

    ``position`` is where an earlier reader stopped; ``None`` begins with the first record of the
    log, ``seq`` 1. With ``after`` and no position it begins in the middle, takes the first start
    that it sees (owners repeat theirs at every checkpoint) and the first ``seq`` that follows.
    """

    def __init__(
        self, position: LogPosition | None, *, shard: int, generation: int, after: int = -1
    ) -> None:
        assert position is None or after == -1, "a position says where to begin"
        self.shard = shard
        self.generation = generation
        self.position = position
        self.started: EpochStarted | None = None  # the reign's start, as far as it was read
        if position is None:
            self.log_id = b""
            self.offset = after  # of the last record examined, whether it counted or not
            self.epoch = 0
            self.owner = b""
            self.seq = 0 if after == -1 else SEQ_UNKNOWN
            self.first_offset = -1
        else:
            self.log_id = position.log_id
            self.offset = position.offset
            self.epoch = position.epoch
            self.owner = position.owner
            self.seq = position.seq
            self.first_offset = -1  # its start lies before everything that is still to be read

    def accept(self, record: Record) -> Accepted | None:
        """Return what ``record`` means, or ``None`` if it does not count.

        It does not count when it is of a stale epoch, of the loser of a tie, or seen already.

        Raises:
            SequenceGap: decisions are missing before this one.
            CorruptRecord: its checksum or layout is wrong.
            SettingsRefused: it is of another shard or generation.
            LogFault: it is of another log, or of an epoch whose start is missing.
        """
        assert record.offset > self.offset, "records come in the order of the log"
        decoded = decode(record.value)
        stamp = decoded.stamp
        if stamp.generation != self.generation or stamp.shard != self.shard:
            raise SettingsRefused(
                f"decision log: record {record.offset} is of shard {stamp.shard}, generation "
                f"{stamp.generation}; shard {self.shard}, generation {self.generation} is read"
            )
        self.offset = record.offset
        if isinstance(decoded, EpochStarted):
            return self._accept_start(decoded, record)
        if self.log_id and stamp.log_id != self.log_id:
            raise LogFault(f"decision log: record {record.offset} is of another log")
        if stamp.epoch > self.epoch:
            if self.seq == SEQ_UNKNOWN:
                return None  # its start was removed by retention; the next repetition shows it
            raise LogFault(
                f"decision log: record {record.offset} is of epoch {stamp.epoch}, which never "
                f"started; epoch {self.epoch} reigns"
            )
        if self._is_stale(stamp):
            return None
        self.log_id = self.log_id or stamp.log_id
        if isinstance(decoded, Trying):
            return self._accepted(record, stamp, trying=decoded)
        decided = decoded.decided
        if self._is_seen(decided.seq):
            return None
        self._check_contiguous(decided.seq, record.offset)
        self.seq = decided.seq
        return self._accepted(record, stamp, decided=decided)

    def advance(self, offset: int, seq: int | None = None) -> LogPosition:
        """Take the reigning owner's own acknowledged record without decoding it again."""
        assert offset > self.offset
        self.offset = offset
        if seq is not None:
            assert seq == self.seq + 1
            self.seq = seq
        return self._place(offset)

    def skip(self, offset: int) -> None:
        """Pass over the reigning owner's own second copy of a record that was taken already."""
        assert offset > self.offset
        self.offset = offset

    def _is_stale(self, stamp: Stamp) -> bool:
        """Whether another reigned when this was appended."""
        return stamp.epoch < self.epoch or stamp.owner != self.owner

    def _is_seen(self, seq: int) -> bool:
        """Whether this decision was taken before: contiguous across epochs, so a number tells."""
        return seq <= self.seq

    def _check_contiguous(self, seq: int, offset: int) -> None:
        if self.seq != SEQ_UNKNOWN and seq != self.seq + 1:
            raise SequenceGap(
                f"decision log: record {offset} holds seq {seq}, expected {self.seq + 1}"
            )

    def _accept_start(self, started: EpochStarted, record: Record) -> Accepted | None:
        stamp = started.stamp
        # Two that start on an empty log at once both make up a name for it. The first start in the
        # log names it; one that had seen nothing may carry another name, and drops it.
        if self.log_id and stamp.log_id != self.log_id and started.from_offset >= 0:
            raise LogFault(f"decision log: record {record.offset} is of another log")
        first_offset = started.first_offset if started.first_offset >= 0 else record.offset
        if not self._reigns(stamp, first_offset):
            return None
        # In the middle of a log, who had seen nothing cannot be told from the one that named it.
        if not self.log_id and (self.seq != SEQ_UNKNOWN or started.from_offset >= 0):
            self.log_id = stamp.log_id
        if stamp.epoch != self.epoch or stamp.owner != self.owner:
            self.first_offset = first_offset
        self.epoch = stamp.epoch
        self.owner = stamp.owner
        self.started = started
        return self._accepted(record, stamp, started=started)

    def _reigns(self, stamp: Stamp, first_offset: int) -> bool:
        """Whether this start is, or stays, the one that counts: highest epoch, then first."""
        if stamp.epoch != self.epoch:
            return stamp.epoch > self.epoch
        if stamp.owner == self.owner:
            return True
        # The loser's start can be read before the winner's repetition only where retention took
        # the winner's own: its first offset still tells who came first.
        return first_offset < self.first_offset

    def _place(self, offset: int) -> LogPosition:
        place = LogPosition(self.log_id, offset, self.epoch, self.owner, max(self.seq, 0))
        if self.seq != SEQ_UNKNOWN:
            self.position = place
        return place

    def _accepted(
        self,
        record: Record,
        stamp: Stamp,
        *,
        decided: Decided | None = None,
        started: EpochStarted | None = None,
        trying: Trying | None = None,
    ) -> Accepted:
        return Accepted(
            position=self._place(record.offset),
            appended_ms=record.appended_ms,
            stamp=stamp,
            decided=decided,
            started=started,
            trying=trying,
        )
