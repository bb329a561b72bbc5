"""A decision record comes back as it was written, or is refused as corrupt: nothing between."""

import struct
from hashlib import sha256
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decided import QUOTE_DTYPE, CatalogueChange, Decided, Outcome
from engine.errors import CorruptRecord
from engine.microbatch import VERDICTS, Position, Refusal
from kernels.limits import ROWS_PER_DECISION_MAX
from persistence.decision_records import (
    MARK_BYTES,
    DecisionRecord,
    EpochStarted,
    Stamp,
    Trying,
    decode,
    decode_mark,
    encode,
    encode_mark,
)
from tests.golden import examples
from tests.persistence.alike import same_record

IDS = st.binary(min_size=16, max_size=16)
OFFSETS = st.integers(-1, 2**62)
SMALL = st.integers(0, 2**31 - 1)
U64 = st.integers(0, 2**64 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
STAMPS = st.builds(
    Stamp, log_id=IDS, generation=SMALL, shard=SMALL, epoch=st.integers(1, 2**62), owner=IDS
)
POSITIONS = st.builds(Position, st.integers(0, 1), OFFSETS, SMALL)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=6,
)


@st.composite
def quotes(draw: st.DrawFn) -> np.ndarray:
    rows = draw(st.integers(0, 5))
    return np.frombuffer(
        draw(st.binary(min_size=rows * QUOTE_DTYPE.itemsize, max_size=rows * QUOTE_DTYPE.itemsize)),
        QUOTE_DTYPE,
    )


DECIDEDS = st.builds(
    Decided,
    seq=st.integers(1, 2**62),
    last_command=OFFSETS,
    last_delta=OFFSETS,
    decided_ms=st.integers(0, 2**53),
    model=st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=24),
    digest=U64,
    quotes=quotes(),
    catalogue=st.lists(
        st.builds(CatalogueChange, POSITIONS, TEXT, TEXT, st.dictionaries(TEXT, PLAIN), U64),
        max_size=3,
    ).map(tuple),
    exceptions=st.lists(
        st.builds(Refusal, POSITIONS, st.sampled_from(VERDICTS), TEXT, U64), max_size=3
    ).map(tuple),
    outcomes=st.lists(
        st.builds(Outcome, TEXT, POSITIONS, TEXT, TEXT, TEXT, TEXT, TEXT, U64, SMALL), max_size=3
    ).map(tuple),
)
RECORDS = st.one_of(
    st.builds(DecisionRecord, STAMPS, DECIDEDS),
    st.builds(
        EpochStarted,
        stamp=STAMPS,
        started_ms=st.integers(0, 2**53),
        replay_domain=TEXT,
        clock=st.sampled_from(["wall", "event"]),
        from_offset=OFFSETS,
        from_seq=OFFSETS,
        first_offset=OFFSETS,
        partitions=SMALL,
    ),
    st.builds(Trying, STAMPS, OFFSETS, OFFSETS),
)
EXAMPLES = [
    encode(record)
    for record in (
        examples.EPOCH_STARTED,
        examples.TRYING,
        examples.heartbeat(),
        examples.decision(),
    )
]


@settings(deadline=None, max_examples=300)
@given(RECORDS)
def test_a_record_comes_back_as_it_was(record: Any) -> None:
    assert same_record(decode(encode(record)), record)


def test_a_full_decision_comes_back() -> None:
    rows = np.random.default_rng(1).integers(
        0, 256, ROWS_PER_DECISION_MAX * QUOTE_DTYPE.itemsize, np.uint8
    )
    example = examples.decision()
    record = DecisionRecord(
        example.stamp,
        Decided(
            **{
                name: getattr(example.decided, name)
                for name in Decided.__struct_fields__
                if name != "quotes"
            },
            quotes=np.frombuffer(rows.tobytes(), QUOTE_DTYPE),
        ),
    )
    assert same_record(decode(encode(record)), record)


def test_a_heartbeat_is_a_mark_alone() -> None:
    assert len(encode(examples.heartbeat())) == MARK_BYTES <= 160


def test_a_mark_tells_all_without_the_body() -> None:
    value = encode(examples.decision())
    mark = decode_mark(value[:MARK_BYTES] + b"whatever")
    decided = examples.decision().decided
    assert mark.stamp == examples.STAMP
    assert (mark.seq, mark.last_command, mark.last_delta) == (42, 13, 346)
    assert (mark.digest, mark.model, mark.quotes) == (decided.digest, decided.model, 2)
    assert encode_mark(mark) == value[:MARK_BYTES]


@pytest.mark.parametrize("value", EXAMPLES, ids=["epoch", "trying", "heartbeat", "decision"])
def test_every_flipped_bit_is_noticed(value: bytes) -> None:
    for bit in range(len(value) * 8):
        flipped = bytearray(value)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptRecord):
            decode(bytes(flipped))


@pytest.mark.parametrize("value", EXAMPLES, ids=["epoch", "trying", "heartbeat", "decision"])
def test_every_other_length_is_noticed(value: bytes) -> None:
    for length in range(len(value)):
        with pytest.raises(CorruptRecord):
            decode(value[:length])
    with pytest.raises(CorruptRecord):
        decode(value + b"\0")


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=600))
def test_no_bytes_raise_anything_else(value: bytes) -> None:
    with pytest.raises(CorruptRecord):
        decode(value)


@settings(deadline=None, max_examples=1_000)
@given(st.sampled_from(EXAMPLES), st.data())
def test_a_wrong_layout_under_right_checksums_is_corrupt(value: bytes, data: st.DataObject) -> None:
    """A writer with a bug has valid checksums: still a record or ``CorruptRecord``, no crash."""
    mark, body = bytearray(value[:MARK_BYTES]), bytearray(value[MARK_BYTES:])
    if body and data.draw(st.booleans(), label="body"):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place:] = data.draw(st.binary(max_size=40)) + body[place + 1 :]
    if data.draw(st.booleans(), label="mark"):
        place = data.draw(st.integers(8, MARK_BYTES - 1))
        mark[place] = data.draw(st.integers(0, 255))
    struct.pack_into("<II", mark, MARK_BYTES - 8, len(body), crc32(body))
    struct.pack_into("<I", mark, 4, crc32(mark[8:]))
    try:
        decode(bytes(mark + body))
    except CorruptRecord:
        return


def test_another_version_is_named() -> None:
    value = bytearray(EXAMPLES[2])
    value[8] = 9
    struct.pack_into("<I", value, 4, crc32(value[8:MARK_BYTES]))
    with pytest.raises(CorruptRecord, match="format version 9, this engine reads 1"):
        decode(bytes(value))


def test_the_layout_of_quotes_belongs_to_the_version() -> None:
    """Fails when ``QUOTE_DTYPE`` changes: then ``FORMAT_VERSION`` must, and old bytes be read."""
    layout = sha256(repr(QUOTE_DTYPE.descr).encode()).hexdigest()[:16]
    assert (QUOTE_DTYPE.itemsize, layout) == LAYOUT_OF_VERSION_1


LAYOUT_OF_VERSION_1 = (86, "199f1dc8956aa405")
