"""Frames come from outside: whatever is wrong with one, its reader says so and lives."""

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.microbatch import FactColumns, Microbatch, Position
from engine.routing import name64, partition_of
from persistence.frames import (
    FRAME_BYTES_MAX,
    FRAME_FACTS_MAX,
    PRICED_SCHEMA,
    RETAILER_KEY,
    SCHEMA,
    VERSION_KEY,
)
from persistence.ports import Record
from persistence.wire import FRAME, Decoder, FrameColumns, encode_frame, read_facts
from tests.golden import examples

ACME = partition_of("acme", 2)
METADATA = {RETAILER_KEY: b"acme", VERSION_KEY: b"1"}


def decode(value: bytes, *, key: bytes | None = b"acme", spreads: Any = None) -> Microbatch:
    record = Record(3, 0, key, value, FRAME)
    shard = ACME if key is None else partition_of(key.decode(), 2)
    return Decoder(shard, 2, spreads or {}).decode([], [record], last_command=-1, last_delta=-1)


def reason(value: bytes) -> str:
    """Return why the whole frame is refused."""
    batch = decode(value)
    assert batch.runs == ()
    assert batch.deltas == 1
    (refused,) = batch.refusals
    assert (refused.verdict, refused.position) == ("undecodable", Position(1, 3, 0))
    assert read_facts(Record(3, 0, b"acme", value, FRAME)) == []
    return refused.reason


def stream(batch: pa.RecordBatch, copies: int = 1, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for _ in range(copies):
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def golden_batch() -> pa.RecordBatch:
    return pa.ipc.open_stream(encode_frame("acme", examples.frame())).read_next_batch()


def facts(count: int, **columns: Any) -> FrameColumns:
    """Return stock counts, with some columns changed."""
    plain: dict[str, Any] = {
        "kind": np.full(count, 2, np.uint8),
        "listing": np.arange(count, dtype=np.uint64),
        "amount": np.ones(count, np.int64),
        "observed_ms": np.ones(count, np.int64),
        "rival": np.full(count, -1, np.int32),
        "shipping_minor": np.zeros(count, np.int32),
        "currency": np.zeros(count, np.uint32),
        "flags": np.zeros(count, np.uint8),
        "source": np.full(count, -1, np.int32),
        "source_seq": np.full(count, -1, np.int64),
        "event": np.zeros(count, np.uint64),
    }
    return FrameColumns(**{**plain, **columns})


def test_a_full_frame_fits_its_limit() -> None:
    value = encode_frame("acme", facts(FRAME_FACTS_MAX))
    assert len(value) < FRAME_BYTES_MAX
    assert decode(value).deltas == FRAME_FACTS_MAX


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_buffers_are_refused_before_they_are_unpacked(codec: str) -> None:
    assert "compressed" in reason(stream(golden_batch(), compression=codec))


def test_a_small_bomb_is_refused() -> None:
    """A gigabyte of one letter, as the name of a rival, in a frame below the limit."""
    bomb = "r" * 100_000_000
    batch = golden_batch()
    names = pa.DictionaryArray.from_arrays(batch.column("rival").indices, pa.array([bomb, bomb]))
    columns = [names if field.name == "rival" else batch.column(field.name) for field in SCHEMA]
    value = stream(pa.RecordBatch.from_arrays(columns, schema=batch.schema), compression="zstd")
    assert len(value) < FRAME_BYTES_MAX
    assert "compressed" in reason(value)


def test_extension_types_are_not_even_looked_at() -> None:
    field = SCHEMA.field(0).with_metadata({"ARROW:extension:name": "ray.data.arrow_pickled_object"})
    batch = golden_batch()
    schema = pa.schema([field, *list(SCHEMA)[1:]], metadata=METADATA)
    value = stream(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
    assert "extension types are not read" in reason(value)


def with_schema(schema: pa.Schema) -> bytes:
    batch = golden_batch()
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return stream(pa.RecordBatch.from_arrays(columns, schema=schema))


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (SCHEMA.with_metadata({**METADATA, VERSION_KEY: b"3"}), "/repricer.version: "),
        (SCHEMA.with_metadata({**METADATA, VERSION_KEY: b"2"}), "column 11 is 'None'"),
        (PRICED_SCHEMA.with_metadata(METADATA), "12 columns, wanted 11"),
        (SCHEMA.with_metadata({RETAILER_KEY: b"acme"}), "/repricer.version: "),
        (SCHEMA.with_metadata({VERSION_KEY: b"1"}), "/repricer.retailer: "),
        (SCHEMA.with_metadata({**METADATA, RETAILER_KEY: b"\xff"}), "/repricer.retailer: "),
        (SCHEMA.with_metadata({**METADATA, RETAILER_KEY: b"a b"}), "/repricer.retailer: "),
        (SCHEMA.with_metadata(None), "/repricer.version: "),
        (SCHEMA.remove(10).with_metadata(METADATA), "column 10 is 'None'"),
        (SCHEMA.append(pa.field("more", pa.int8())).with_metadata(METADATA), "12 columns, wanted"),
        (
            SCHEMA.set(2, pa.field("amount", pa.float64(), nullable=False)).with_metadata(METADATA),
            "column 2 is",
        ),
    ],
)
def test_another_schema_is_refused(schema: pa.Schema, says: str) -> None:
    assert says in reason(with_schema(schema))


def test_who_tells_no_price_of_a_sale_is_read_by_those_of_before() -> None:
    """An owner of before this column would refuse the whole frame."""
    plain = encode_frame("acme", facts(3))
    assert encode_frame("acme", facts(3, sold_minor=np.zeros(3, np.int32))) == plain
    assert pa.ipc.open_stream(plain).schema.metadata[VERSION_KEY] == b"1"


def test_more_than_a_frame_is_refused() -> None:
    batch = golden_batch()
    assert "one record batch" in reason(stream(batch, copies=2))
    assert "one record batch" in reason(stream(batch, copies=0))
    many = pa.ipc.open_stream(encode_frame("acme", facts(2_000))).read_next_batch()
    indices = pa.array(np.zeros(FRAME_FACTS_MAX + 1, np.int32))
    assert "at most 2048" in reason(stream(many.take(indices)))
    assert "over the limit of 1048576" in reason(encode_frame("acme", facts(5)) + bytes(2**20))


def test_nulls_are_refused_where_none_belong() -> None:
    batch = golden_batch()
    columns = [
        pa.array([None] * batch.num_rows, pa.int64())
        if field.name == "amount"
        else batch.column(field.name)
        for field in SCHEMA
    ]
    value = stream(pa.RecordBatch.from_arrays(columns, schema=batch.schema))
    assert "column amount holds nulls" in reason(value)


NAMED = {"kind": np.array([1, 1], np.uint8), "rival": np.array([0, 1], np.int32)}


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"kind": np.array([2, 0], np.uint8)}, "kind"),
        ({"kind": np.array([2, 5], np.uint8)}, "kind"),
        ({"kind": np.array([2, 255], np.uint8)}, "kind"),
        ({"amount": np.array([0, -1], np.int64)}, "amount"),
        ({"amount": np.array([2**31 - 1, 2**31], np.int64)}, "amount"),
        ({**NAMED, "rival_names": ("a", "b"), "amount": np.array([1, 0])}, "amount"),
        ({**NAMED, "rival_names": ("a", "b"), "amount": np.array([2**30, 2**30 + 1])}, "amount"),
        ({"observed_ms": np.array([0, -1], np.int64)}, "observed_ms"),
        ({"observed_ms": np.array([2**53, 2**53 + 1], np.int64)}, "observed_ms"),
        ({**NAMED, "rival": np.array([0, -1], np.int32), "rival_names": ("a",)}, "rival"),
        ({"rival": np.array([-1, 0], np.int32), "rival_names": ("a",)}, "rival"),
        ({**NAMED, "rival_names": ("a", "")}, "rival"),
        ({**NAMED, "rival_names": ("a", "b\n")}, "rival"),
        ({**NAMED, "rival_names": ("a", "b" * 201)}, "rival"),
        ({"shipping_minor": np.array([0, 1], np.int32)}, "shipping_minor"),
        (
            {
                **NAMED,
                "rival_names": ("a", "b"),
                "shipping_minor": np.array([2**30, -1], np.int32),
            },
            "shipping_minor",
        ),
        ({"currency": np.array([0, 0x455552], np.uint32)}, "currency"),
        (
            {
                **NAMED,
                "rival_names": ("a", "b"),
                "currency": np.array([0x455552, 0x455572], np.uint32),
            },
            "currency",
        ),
        (
            {
                **NAMED,
                "rival_names": ("a", "b"),
                "currency": np.array([0x455552, 0x01455552], np.uint32),
            },
            "currency",
        ),
        ({"flags": np.array([0, 1], np.uint8)}, "flags"),
        ({**NAMED, "rival_names": ("a", "b"), "flags": np.array([3, 4], np.uint8)}, "flags"),
        ({"source": np.array([-1, 0], np.int32), "source_names": ("s",)}, "source"),
        ({"source_seq": np.array([-1, 0], np.int64)}, "source_seq"),
        ({"kind": np.array([3, 3], np.uint8), "source_seq": np.array([0, -2])}, "source_seq"),
        ({"event": np.array([0, 1], np.uint64)}, "event"),
        ({"sold_minor": np.array([0, 1], np.int32)}, "sold_minor"),
        ({"kind": np.array([3, 3], np.uint8), "sold_minor": np.array([1, -1])}, "sold_minor"),
    ],
)
def test_one_bad_fact_is_refused_and_its_neighbours_are_not(columns: Any, field: str) -> None:
    value = encode_frame("acme", facts(2, **columns))
    batch = decode(value)
    (block,) = batch.runs
    assert isinstance(block, FactColumns)
    assert block.index.tolist() == [0]
    (refused,) = batch.refusals
    assert refused.position == Position(1, 3, 1)
    assert refused.listing == 1
    assert refused.reason.startswith(f"/{field}/1: value out of bounds (")
    assert batch.deltas == 2
    assert [fact.index for fact in read_facts(Record(3, 0, b"acme", value, FRAME))] == [0]


def test_the_first_frame_imports_nothing() -> None:
    """Pandas or Arrow's compute functions take a second to import: too much for a microbatch."""
    code = (
        "import sys; from persistence.wire import FRAME, Decoder, Record;"
        "value = open('tests/golden/frame_v1.arrow', 'rb').read(); before = set(sys.modules);"
        f"record = Record(3, 0, b'acme', value, FRAME); decoder = Decoder({ACME}, 2, {{}});"
        "batch = decoder.decode([], [record], last_command=-1, last_delta=-1);"
        "print(len(batch.runs), sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1 []"


def test_names_are_found_by_index_and_none_where_it_is_null() -> None:
    names = ("r0", "r1", "r2")
    rival = np.arange(1_001, dtype=np.int32) % 4 - 1
    columns = facts(
        1_001,
        kind=np.where(rival >= 0, 1, 2).astype(np.uint8),
        flags=np.where(rival >= 0, 3, 0).astype(np.uint8),
        rival=rival,
        rival_names=names,
    )
    (block,) = decode(encode_frame("acme", columns)).runs
    assert isinstance(block, FactColumns)
    keys = [*map(name64, names), 0]
    assert block.rival.tolist() == [keys[index] for index in rival.tolist()]


def test_a_stray_frame_is_refused_whole() -> None:
    value = encode_frame("acme", facts(5))
    for key in (b"bolt", None, b"acme#0", b"*"):
        batch = decode(value, key=key)
        assert batch.runs == ()
        assert [refused.verdict for refused in batch.refusals] == ["wrong_shard"]
    for slot in range(4):
        batch = decode(value, key=b"acme#%d" % slot, spreads={"acme": 4})
        assert batch.deltas == 5
        assert batch.refusals == ()
    assert len(decode(value, key=b"acme#4", spreads={"acme": 4}).refusals) == 1


def test_three_thousand_damaged_frames_hurt_nobody() -> None:
    examples_of_ours = (examples.frame(), facts(100), examples.priced_frame())
    sources = [encode_frame("acme", each) for each in examples_of_ours]
    random = np.random.default_rng(5)
    refused = 0
    for number in range(3_000):
        damaged = bytearray(sources[number % 3])
        for _ in range(int(random.integers(1, 6))):
            place = int(random.integers(0, len(damaged)))
            match int(random.integers(0, 4)):
                case 0:
                    damaged[place] ^= 1 << int(random.integers(0, 8))
                case 1:
                    damaged[place : place + 4] = random.bytes(4)
                case 2:
                    extreme = int(random.choice([-1, 0, 1, 2**31, 2**62, -(2**63)]))
                    start = place - place % 8
                    damaged[start : start + 8] = extreme.to_bytes(8, "little", signed=True)
                case _:
                    del damaged[place:]
                    damaged += b"\0"
        batch = decode(bytes(damaged))
        assert batch.runs or batch.refusals
        refused += not batch.runs
        read_facts(Record(3, 0, b"acme", bytes(damaged), FRAME))
    assert 1_000 < refused < 3_000
