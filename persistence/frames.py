"""Columnar frames: many facts of one retailer as one Arrow IPC stream.

A frame is one of two schemas, at most two dictionaries (rivals' and sources' names) and one record
batch of at most ``FRAME_FACTS_MAX`` rows, uncompressed: a megabyte that unpacks to thirty gigabytes
kills its reader. The retailer stands in the schema's metadata; listings are named by 64-bit keys.
Bytes come from outside, so nothing of a frame is looked at before Arrow has validated it whole.
"""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct

from engine.deltas import Name, RetailerId
from engine.errors import RejectedInput
from engine.microbatch import (
    COMPETITOR_PRICED,
    COST_CHANGED,
    STOCK_COUNTED,
    UNITS_SOLD,
    FactColumns,
    Position,
    Refusal,
)
from engine.routing import name64
from kernels.limits import PRICE_MINOR_MAX
from persistence.lanes import Lanes
from persistence.names import is_valid
from persistence.ports import Record

FRAME = "application/vnd.apache.arrow.stream"
FRAME_FACTS_MAX = 2048
FRAME_BYTES_MAX = 1_048_576
RETAILER_KEY, VERSION_KEY = b"repricer.retailer", b"repricer.version"

_NAMES = pa.dictionary(pa.int32(), pa.utf8())
SCHEMA = pa.schema(
    [
        pa.field("kind", pa.uint8(), nullable=False),
        pa.field("listing", pa.uint64(), nullable=False),
        pa.field("amount", pa.int64(), nullable=False),
        pa.field("observed_ms", pa.int64(), nullable=False),
        pa.field("rival", _NAMES),  # null: none
        pa.field("shipping_minor", pa.int32(), nullable=False),
        pa.field("currency", pa.uint32(), nullable=False),
        pa.field("flags", pa.uint8(), nullable=False),
        pa.field("source", _NAMES),  # null: none
        pa.field("source_seq", pa.int64(), nullable=False),  # -1: none
        pa.field("event", pa.uint64(), nullable=False),  # engine.routing.name64, 0: none
    ]
)
"""The columns of a frame, in this order; they mean what those of ``FactColumns`` mean."""

PRICED_SCHEMA = SCHEMA.append(pa.field("sold_minor", pa.int32(), nullable=False))  # 0: none
"""Those of a frame that tells at which price units were sold, which history keeps.

Written only where a sale tells it: who has not learnt to read it refuses the whole frame.
"""

SCHEMAS = {b"1": SCHEMA, b"2": PRICED_SCHEMA}
"""By the version in the schema's metadata."""

DTYPES: dict[str, np.dtype[Any]] = {
    field.name: np.dtype("uint64" if field.type == _NAMES else str(field.type))
    for field in PRICED_SCHEMA
}
"""What the columns of a block are; of names the keys."""

_FIX = "send the documented schema, uncompressed"
_AMOUNTS = {
    COMPETITOR_PRICED: (1, PRICE_MINOR_MAX),
    STOCK_COUNTED: (0, 2**31 - 1),
    UNITS_SOLD: (0, 2**31 - 1),
    COST_CHANGED: (0, PRICE_MINOR_MAX),
}
AMOUNTS_LEAST, AMOUNTS_MOST = (
    np.array([_AMOUNTS.get(kind, nothing)[end] for kind in range(256)], dtype=np.int64)
    for end, nothing in enumerate(((1, 0), (1, 0)))
)
"""The bounds of an amount by the kind's code; into those of an unknown kind nothing fits."""

OBSERVED_MS_MAX, SOURCE_SEQ_MAX = 2**53, 2**62
EXTENSION = b"ARROW:extension"
"""Marks a schema with types of somebody's own; bytes that hold it anywhere are not read."""


class FrameColumns(Struct, frozen=True, eq=False, kw_only=True):
    """What a feed hands over: arrays of one length, names as indexes into tuples of names."""

    kind: np.ndarray  # uint8, a code of engine.microbatch
    listing: np.ndarray  # uint64, engine.routing.key64
    amount: np.ndarray  # int64: price_minor, units or cost_minor by kind
    observed_ms: np.ndarray  # int64
    rival: np.ndarray  # int32, index in rival_names, -1: none
    rival_names: tuple[str, ...] = ()
    shipping_minor: np.ndarray  # int32
    currency: np.ndarray  # uint32, currency_code, 0: the listing's own
    flags: np.ndarray  # uint8
    source: np.ndarray  # int32, index in source_names, -1: none
    source_names: tuple[str, ...] = ()
    source_seq: np.ndarray  # int64, -1: none
    event: np.ndarray  # uint64, name64 of the event's id, 0: none
    sold_minor: np.ndarray | None = (
        None  # int32, the price of units sold, 0: not told; None: of none
    )


class Frame(Struct, frozen=True, eq=False):
    """A frame taken apart and validated by Arrow, its values not yet judged."""

    retailer: str
    columns: FrameColumns
    batch: pa.RecordBatch


def encode_frame(retailer: str, facts: FrameColumns) -> bytes:
    """Return at most ``FRAME_FACTS_MAX`` facts of one routing key as a record."""
    assert 0 < len(facts.kind) <= FRAME_FACTS_MAX
    priced = facts.sold_minor is not None and bool(facts.sold_minor.any())
    version, schema = (b"2", PRICED_SCHEMA) if priced else (b"1", SCHEMA)
    arrays = [
        _name_array(getattr(facts, field.name), getattr(facts, f"{field.name}_names"))
        if field.type == _NAMES
        else pa.array(getattr(facts, field.name), type=field.type)
        for field in schema
    ]
    schema = schema.with_metadata({RETAILER_KEY: retailer.encode(), VERSION_KEY: version})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return bytes(sink.getvalue())


def decode_frame(
    lane: int, record: Record, lanes: Lanes, opened: Callable[[Record, Frame], None] | None = None
) -> tuple[FactColumns, list[Refusal]]:
    """Return the frame's sound facts as a block, and a refusal for each other one, or for all.

    ``opened`` is told of the frame if Arrow has validated it and it belongs to this shard.
    """
    nothing = Position(lane, record.offset, 0)
    try:
        frame = open_frame(record.value)
    except RejectedInput as error:
        return _block(lane, record, None), [Refusal(nothing, "undecodable", str(error))]
    stray = lanes.stray_retailer(record.key, frame.retailer)
    if stray:
        reason = str(RejectedInput("/retailer", stray))
        return _block(lane, record, None), [Refusal(nothing, "wrong_shard", reason)]
    if opened is not None:
        opened(record, frame)
    problems = judge_rows(frame.columns)
    refusals = [
        Refusal(
            Position(lane, record.offset, index),
            "undecodable",
            str(RejectedInput(f"/{field}/{index}", "value out of bounds", fix)),
            int(frame.columns.listing[index]),
        )
        for index, (field, fix) in sorted(problems.items())
    ]
    block = _block(lane, record, frame.columns)
    if refusals:
        keep = np.ones(len(block), dtype=bool)
        keep[list(problems)] = False
        block = FactColumns(
            **{name: getattr(block, name)[keep] for name in FactColumns.__struct_fields__}
        )
    return block, refusals


def open_frame(value: bytes) -> Frame:
    """Return the frame's columns, validated by Arrow.

    Raises:
        RejectedInput: it is no such frame; no other exception comes out.
    """
    if len(value) > FRAME_BYTES_MAX:
        problem = f"{len(value)} bytes are over the limit of {FRAME_BYTES_MAX}"
        raise RejectedInput("", problem, f"send at most {FRAME_FACTS_MAX} facts a frame")
    if EXTENSION in value:
        raise RejectedInput("", "extension types are not read", _FIX)
    try:
        batch = _read_batch(value)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        problem = f"not an Arrow IPC stream: {str(error)[:200]}"
        raise RejectedInput("", problem, _FIX) from error
    except MemoryError as error:
        raise RejectedInput("", "its lengths are absurd", _FIX) from error
    metadata = batch.schema.metadata or {}
    if metadata.get(VERSION_KEY) not in SCHEMAS:
        raise RejectedInput(f"/{VERSION_KEY.decode()}", "version missing or unknown", _FIX)
    retailer = metadata.get(RETAILER_KEY, b"").decode(errors="replace")
    if not is_valid(retailer, RetailerId):
        fix = "put the retailer's id into the schema's metadata"
        raise RejectedInput(f"/{RETAILER_KEY.decode()}", "no valid retailer's id", fix)
    return Frame(retailer, _columns(batch), batch)


def judge_rows(columns: FrameColumns) -> dict[int, tuple[str, str]]:
    """Return for each row with a value out of bounds the first such column and the fix."""
    kind, amount = columns.kind, columns.amount
    priced, sold = kind == COMPETITOR_PRICED, kind == UNITS_SOLD
    bad_rivals, bad_sources = are_bad(columns.rival_names), are_bad(columns.source_names)
    checks: list[tuple[str, str, Any]] = [
        ("kind", "send a code from 1 to 4", (kind < COMPETITOR_PRICED) | (kind > COST_CHANGED)),
        (
            "amount",
            "keep to the kind's bounds",
            _outside(amount, AMOUNTS_LEAST[kind], AMOUNTS_MOST[kind]),
        ),
        ("observed_ms", "send unix ms", _outside(columns.observed_ms, 0, OBSERVED_MS_MAX)),
        ("rival", "name a rival with each price, with no other", (columns.rival >= 0) != priced),
        ("rival", "send a name of 1 to 200 characters", bad_rivals[columns.rival]),
        ("shipping_minor", "send 0 to 2^30", _outside(columns.shipping_minor, 0, PRICE_MINOR_MAX)),
        ("shipping_minor", "only prices have it", ~priced & (columns.shipping_minor != 0)),
        ("currency", "send three letters as a number, or 0", ~are_currencies(columns.currency)),
        ("currency", "only prices have it", ~priced & (columns.currency != 0)),
        (
            "flags",
            "send bits 1 and 2 only, and with prices",
            columns.flags > np.where(priced, 3, 0),
        ),
        ("source", "send a name of 1 to 200 characters", bad_sources[columns.source]),
        ("source", "only prices and sales have it", (columns.source >= 0) & ~priced & ~sold),
        (
            "source_seq",
            "send 0 to 2^62, or -1",
            _outside(columns.source_seq, -1, SOURCE_SEQ_MAX),
        ),
        ("source_seq", "only sales have it", ~sold & (columns.source_seq != -1)),
        ("event", "only sales have it", ~sold & (columns.event != 0)),
    ]
    if columns.sold_minor is not None:
        price = columns.sold_minor
        checks += [
            ("sold_minor", "send 1 to 2^30, or 0", _outside(price, 0, PRICE_MINOR_MAX)),
            ("sold_minor", "only sales have it", ~sold & (price != 0)),
        ]
    problems: dict[int, tuple[str, str]] = {}
    for field, fix, broken in checks:
        for index in np.flatnonzero(broken):
            problems.setdefault(int(index), (field, fix))
    return problems


def _read_batch(value: bytes) -> pa.RecordBatch:
    """Return the one record batch; anything else raises ``ValueError`` or Arrow's own."""
    kinds = []
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(value)):
        kinds.append(message.type)
        if len(kinds) > 4:
            raise ValueError("more than one record batch")
        if message.type != "schema" and _is_compressed(message.metadata.to_pybytes()):
            raise ValueError("its buffers are compressed")
    if kinds.count("schema") != 1 or kinds.count("record batch") != 1 or kinds[0] != "schema":
        raise ValueError("it must hold one schema and one record batch")
    if kinds[-1] != "record batch":
        raise ValueError("the record batch must come last")
    with pa.ipc.open_stream(pa.BufferReader(value)) as reader:
        version = (reader.schema.metadata or {}).get(VERSION_KEY, b"1")
        wanted = SCHEMAS.get(version, SCHEMA)
        if not reader.schema.equals(wanted):
            raise ValueError(_difference(reader.schema, wanted))
        batch = reader.read_next_batch()
    batch.validate(full=True)
    if batch.num_rows > FRAME_FACTS_MAX:
        raise ValueError(f"{batch.num_rows} facts, at most {FRAME_FACTS_MAX} fit a frame")
    for column in batch.schema:
        if not column.nullable and batch.column(column.name).null_count:
            raise ValueError(f"column {column.name} holds nulls")
    return batch


def _difference(schema: pa.Schema, columns: pa.Schema) -> str:
    for place, wanted in enumerate(columns):
        found = schema.field(place) if place < len(schema) else None
        if found is None or not found.equals(wanted):
            return f"column {place} is {str(found)[:80]!r}, wanted {str(wanted)!r}"
    return f"{len(schema)} columns, wanted {len(columns)}"


def _is_compressed(metadata: bytes) -> bool:
    """Return whether a message's flatbuffer names a compression of its buffers.

    Arrow offers no way to ask before it unpacks. Message: field 1 is the header's type (2: a
    dictionary batch, 3: a record batch), field 2 the header. RecordBatch: field 3 is the
    compression. DictionaryBatch: field 1 is a RecordBatch. Arrow has verified the buffer's offsets
    when it made the message; one that leads outside raises ``ValueError`` here.
    """
    try:
        message = struct.unpack_from("<I", metadata, 0)[0]
        kind = metadata[_field(metadata, message, 1)]
        batch = _table(metadata, message, 2)
        if kind == 2:
            batch = _table(metadata, batch, 1)
        return _field(metadata, batch, 3) != 0
    except (struct.error, IndexError) as error:
        raise ValueError("its message headers are broken") from error


def _field(buffer: bytes, table: int, number: int) -> int:
    """Return where a flatbuffer table's field lies, 0 when it is absent."""
    vtable = table - int(struct.unpack_from("<i", buffer, table)[0])
    if vtable < 0:
        raise IndexError(vtable)
    (size,) = struct.unpack_from("<H", buffer, vtable)
    if 4 + 2 * number >= size:
        return 0
    (relative,) = struct.unpack_from("<H", buffer, vtable + 4 + 2 * number)
    return table + int(relative) if relative else 0


def _table(buffer: bytes, table: int, number: int) -> int:
    place = _field(buffer, table, number)
    if not place:
        raise IndexError(number)
    return place + int(struct.unpack_from("<I", buffer, place)[0])


def null_counts_at(value: bytes) -> dict[str, int]:
    """Return where in a validated frame each column's count of nulls stands, eight bytes each.

    RecordBatch: field 1 is a vector of structs, one a column: its length and its count of nulls.
    """
    base = pa.py_buffer(value).address
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(value)):
        if message.type == "record batch":
            metadata = message.metadata.to_pybytes()
            batch = _table(metadata, struct.unpack_from("<I", metadata, 0)[0], 2)
            nodes = message.metadata.address - base + _table(metadata, batch, 1) + 4
            return {name: nodes + 16 * at + 8 for at, name in enumerate(SCHEMA.names)}
    raise AssertionError("a frame that was validated holds no record batch")


def _columns(batch: pa.RecordBatch) -> FrameColumns:
    columns: dict[str, Any] = {}
    for field in batch.schema:
        column = batch.column(field.name)
        if field.type == _NAMES:
            columns[f"{field.name}_names"] = tuple(column.dictionary.to_pylist())
            columns[field.name] = _indexes(column.indices)
        else:
            columns[field.name] = _values(column, DTYPES[field.name])
    return FrameColumns(**columns)


def _values(array: pa.Array, dtype: Any) -> np.ndarray:
    """Return the values of a column of numbers; where it is null they mean nothing.

    Read from the buffer: ``to_numpy`` imports pandas where there is one, and ``fill_null`` imports
    Arrow's compute functions. Each would hold up the first microbatch with frames for a second.
    """
    if not len(array):
        return np.empty(0, dtype=dtype)
    start, stop = array.offset, array.offset + len(array)
    return np.frombuffer(array.buffers()[1], dtype=dtype, count=stop)[start:]


def _indexes(indices: pa.Array) -> np.ndarray:
    """Return int32[n], indexes into the names, -1 where there is none."""
    valid, found = indices.buffers()[0], _values(indices, np.int32)
    if valid is None:
        return found
    start, stop = indices.offset, indices.offset + len(indices)
    bits = np.unpackbits(np.frombuffer(valid, dtype=np.uint8), count=stop, bitorder="little")
    return np.where(bits[start:], found, np.int32(-1))


def _block(lane: int, record: Record, columns: FrameColumns | None) -> FactColumns:
    count = 0 if columns is None else len(columns.kind)
    own: dict[str, Any] = {}
    for field in SCHEMA:
        if columns is None:
            own[field.name] = np.empty(0, DTYPES[field.name])
        elif field.type == _NAMES:
            keys = name_keys(getattr(columns, f"{field.name}_names"))
            own[field.name] = keys[getattr(columns, field.name)]
        else:
            own[field.name] = getattr(columns, field.name)
    return FactColumns(
        **own,
        lane=np.full(count, lane, np.uint8),
        offset=np.full(count, record.offset, np.int64),
        index=np.arange(count, dtype=np.int32),
    )


def name_keys(names: tuple[str | None, ...]) -> np.ndarray:
    """Return uint64[names + 1], each name's ``name64``; index -1, which is none, finds a zero."""
    return np.array([*(name64(name or "") for name in names), 0], dtype=np.uint64)


def _name_array(indexes: np.ndarray, names: tuple[str, ...]) -> pa.DictionaryArray:
    indices = pa.array(indexes, type=pa.int32(), mask=indexes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, type=pa.utf8()))


def are_bad(names: tuple[str | None, ...]) -> np.ndarray:
    """Return for each name whether it is none we take, and ``False`` last, for index -1."""
    return np.array([*(not is_valid(name, Name) for name in names), False], dtype=bool)


def _outside(column: np.ndarray, least: int | np.ndarray, most: int | np.ndarray) -> np.ndarray:
    outside: np.ndarray = (column < least) | (column > most)
    return outside


def are_currencies(codes: np.ndarray) -> np.ndarray:
    """Return which numbers are codes of currencies, or 0."""
    letters = [(codes >> shift) & 255 for shift in (16, 8, 0)]
    named: np.ndarray = (codes >> 24) == 0
    for letter in letters:
        named &= (letter >= ord("A")) & (letter <= ord("Z"))
    named |= codes == 0
    return named
