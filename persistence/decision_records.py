"""The bytes of a decision record: a fixed mark, and rows only if there are any.

The mark is ``MARK_BYTES`` long, little-endian, and says everything a reader needs to decide whether
a record counts; a heartbeat is a mark alone. Behind it stand the quotes as they lie in memory
(``QUOTE_DTYPE``, fixed by ``FORMAT_VERSION``) and the few small things as MessagePack. The mark's
checksum covers the mark, the body's stands in the mark: one flipped bit anywhere is noticed.

Change nothing here without a new ``FORMAT_VERSION``: the files in ``tests/golden/`` must stay
readable for ever.
"""

import struct
from typing import Literal
from zlib import crc32

import msgspec
import numpy as np
from msgspec import Struct

from engine.decided import QUOTE_DTYPE, CatalogueChange, Decided, Outcome, no_quotes
from engine.errors import CorruptRecord
from engine.microbatch import Refusal
from kernels.limits import ROWS_PER_DECISION_MAX

CONTENT_TYPE = "application/vnd.repricer.decision"
"""The content type of every record of the decision log."""

FORMAT_VERSION = 1
MAGIC = b"RPDR"
DECIDED, EPOCH_STARTED, TRYING = 1, 2, 3

# magic, checksum of what follows in the mark, version, kind, model's length, nothing, shard,
# generation, log_id, owner, epoch, seq, last_command, last_delta, decided_ms, digest, model,
# quotes, bytes of the body, checksum of the body
_MARK = struct.Struct("<4sI BBBB II 16s16s qqqqq Q 24s III")
MARK_BYTES = _MARK.size
assert MARK_BYTES <= 160
_CHECKED_FROM = 8  # magic is compared, the checksum cannot cover itself

NO_ID = bytes(16)


class Stamp(Struct, frozen=True):
    """Who decided, put on by the actor when it appends; not part of what was decided."""

    log_id: bytes  # 16 bytes, random, written in the first EpochStarted and carried on
    generation: int
    shard: int
    epoch: int
    owner: bytes  # 16 bytes, random, one a start


class EpochStarted(Struct, frozen=True):
    """The seal of a reign, repeated at each checkpoint so that retention never removes it."""

    stamp: Stamp
    started_ms: int
    replay_domain: str
    clock: Literal["wall", "event"]
    from_offset: int  # offset of the decision that the owner started from, -1: none
    from_seq: int
    first_offset: int  # -1 in the first of this epoch, else that one's offset
    partitions: int


class Trying(Struct, frozen=True):
    """How far the microbatch reaches that a cautious owner is about to try."""

    stamp: Stamp
    last_command: int
    last_delta: int


class DecisionRecord(Struct, frozen=True):
    """One decided, stamped."""

    stamp: Stamp
    decided: Decided


class LogPosition(Struct, frozen=True):
    """A place in the decision log at which a reader may begin; cursors and checkpoints hold it."""

    log_id: bytes
    offset: int
    epoch: int
    owner: bytes
    seq: int


class Mark(Struct, frozen=True):
    """The head of any record of the decision log. What a kind does not have is 0."""

    kind: int  # DECIDED, EPOCH_STARTED or TRYING
    stamp: Stamp
    seq: int = 0
    last_command: int = -1
    last_delta: int = -1
    decided_ms: int = 0
    digest: int = 0
    model: str = ""
    quotes: int = 0
    body_bytes: int = 0
    body_checksum: int = 0


class _Sealed(Struct, frozen=True, array_like=True):
    """The body of an ``EpochStarted``."""

    started_ms: int
    replay_domain: str
    clock: Literal["wall", "event"]
    from_offset: int
    from_seq: int
    first_offset: int
    partitions: int


class _Small(Struct, frozen=True, array_like=True):
    """What stands behind the quotes in the body of a decision."""

    catalogue: tuple[CatalogueChange, ...] = ()
    exceptions: tuple[Refusal, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


def encode(record: EpochStarted | Trying | DecisionRecord) -> bytes:
    """Return the record's bytes."""
    if isinstance(record, DecisionRecord):
        return _encode_decided(record)
    if isinstance(record, EpochStarted):
        body = msgspec.msgpack.encode(
            _Sealed(
                record.started_ms,
                record.replay_domain,
                record.clock,
                record.from_offset,
                record.from_seq,
                record.first_offset,
                record.partitions,
            )
        )
        return encode_mark(_with_body(EPOCH_STARTED, record.stamp, body)) + body
    mark = Mark(
        kind=TRYING,
        stamp=record.stamp,
        last_command=record.last_command,
        last_delta=record.last_delta,
    )
    return encode_mark(mark)


def decode(value: bytes) -> EpochStarted | Trying | DecisionRecord:
    """Return the record that ``value`` holds; its quotes are a read-only view of ``value``.

    Raises:
        CorruptRecord: a checksum, a length or the layout is wrong, or the version is unknown.
    """
    mark = decode_mark(value)
    body = memoryview(value)[MARK_BYTES:]
    if len(body) != mark.body_bytes:
        raise CorruptRecord(f"decision record: body of {len(body)} bytes, not {mark.body_bytes}")
    if crc32(body) != mark.body_checksum:
        raise CorruptRecord("decision record: the body's checksum is wrong")
    if mark.kind == TRYING:
        if body:
            raise CorruptRecord("decision record: a trial has no body")
        return Trying(mark.stamp, mark.last_command, mark.last_delta)
    try:
        if mark.kind == EPOCH_STARTED:
            sealed = msgspec.msgpack.decode(body, type=_Sealed)
            return EpochStarted(
                stamp=mark.stamp,
                started_ms=sealed.started_ms,
                replay_domain=sealed.replay_domain,
                clock=sealed.clock,
                from_offset=sealed.from_offset,
                from_seq=sealed.from_seq,
                first_offset=sealed.first_offset,
                partitions=sealed.partitions,
            )
        return DecisionRecord(mark.stamp, _decode_decided(mark, value))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CorruptRecord(f"decision record: layout is wrong: {error}") from error


def encode_mark(mark: Mark) -> bytes:
    """Return the mark's ``MARK_BYTES`` bytes."""
    stamp, model = mark.stamp, mark.model.encode()
    assert len(stamp.log_id) == 16
    assert len(stamp.owner) == 16
    assert len(model) <= 24, f"model version {mark.model!r} is over 24 bytes"
    packed = bytearray(
        _MARK.pack(
            MAGIC,
            0,
            FORMAT_VERSION,
            mark.kind,
            len(model),
            0,
            stamp.shard,
            stamp.generation,
            stamp.log_id,
            stamp.owner,
            stamp.epoch,
            mark.seq,
            mark.last_command,
            mark.last_delta,
            mark.decided_ms,
            mark.digest,
            model,
            mark.quotes,
            mark.body_bytes,
            mark.body_checksum,
        )
    )
    struct.pack_into("<I", packed, 4, crc32(memoryview(packed)[_CHECKED_FROM:]))
    return bytes(packed)


def decode_mark(value: bytes) -> Mark:
    """Return the head of a record without looking at its body.

    Raises:
        CorruptRecord: it is too short, its checksum is wrong, or its version is unknown.
    """
    if len(value) < MARK_BYTES or value[:4] != MAGIC:
        raise CorruptRecord("decision record: it does not begin with a mark")
    # The checksum stands in the same place in every version, so it can be judged first.
    if crc32(memoryview(value)[_CHECKED_FROM:MARK_BYTES]) != _MARK.unpack_from(value)[1]:
        raise CorruptRecord("decision record: the mark's checksum is wrong")
    (_, _, version, kind, model_bytes, _, shard, generation, log_id, owner, *numbers) = (
        _MARK.unpack_from(value)
    )
    if version != FORMAT_VERSION:
        raise CorruptRecord(
            f"decision record: format version {version}, this engine reads {FORMAT_VERSION}"
        )
    if kind not in (DECIDED, EPOCH_STARTED, TRYING):
        raise CorruptRecord(f"decision record: kind {kind} is unknown")
    epoch, seq, last_command, last_delta, decided_ms, digest, model, *body = numbers
    return Mark(
        kind=kind,
        stamp=Stamp(log_id, generation, shard, epoch, owner),
        seq=seq,
        last_command=last_command,
        last_delta=last_delta,
        decided_ms=decided_ms,
        digest=digest,
        model=model[:model_bytes].decode(errors="replace"),
        quotes=body[0],
        body_bytes=body[1],
        body_checksum=body[2],
    )


def _with_body(kind: int, stamp: Stamp, body: bytes) -> Mark:
    return Mark(kind=kind, stamp=stamp, body_bytes=len(body), body_checksum=crc32(body))


def _encode_decided(record: DecisionRecord) -> bytes:
    decided = record.decided
    assert decided.quotes.dtype == QUOTE_DTYPE
    assert len(decided.quotes) <= ROWS_PER_DECISION_MAX
    body = b""
    if decided.has_rows:
        small = _Small(decided.catalogue, decided.exceptions, decided.outcomes)
        body = decided.quotes.tobytes() + msgspec.msgpack.encode(small)
    mark = Mark(
        kind=DECIDED,
        stamp=record.stamp,
        seq=decided.seq,
        last_command=decided.last_command,
        last_delta=decided.last_delta,
        decided_ms=decided.decided_ms,
        digest=decided.digest,
        model=decided.model,
        quotes=len(decided.quotes),
        body_bytes=len(body),
        body_checksum=crc32(body),
    )
    return encode_mark(mark) + body


def _decode_decided(mark: Mark, value: bytes) -> Decided:
    quotes, small = no_quotes(), _Small()
    if mark.quotes and not mark.body_bytes:
        raise ValueError("quotes are announced and none are there")
    if mark.body_bytes:
        if mark.quotes:
            quotes = np.frombuffer(value, QUOTE_DTYPE, mark.quotes, MARK_BYTES)
        behind = MARK_BYTES + mark.quotes * QUOTE_DTYPE.itemsize
        small = msgspec.msgpack.decode(memoryview(value)[behind:], type=_Small)
    return Decided(
        seq=mark.seq,
        last_command=mark.last_command,
        last_delta=mark.last_delta,
        decided_ms=mark.decided_ms,
        model=mark.model,
        digest=mark.digest,
        quotes=quotes,
        catalogue=small.catalogue,
        exceptions=small.exceptions,
        outcomes=small.outcomes,
    )
