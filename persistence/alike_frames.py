"""Frames that are laid out alike are read without Arrow, many at once.

What a feed sends differs from frame to frame in the numbers alone: schema, names and the place of
every buffer are the same bytes. Such a frame needs no second validation, only what Arrow and
``judge_rows`` look at in the numbers themselves. That is asked of all rows of a run of frames
together, and where the answer is not plainly "sound", each of them goes the slow way, whose word
is final. It decides nothing: the same bytes become the same facts and the same refusals.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct

from engine.microbatch import COMPETITOR_PRICED, UNITS_SOLD, FactColumns, Refusal
from kernels.limits import PRICE_MINOR_MAX
from persistence.frames import (
    AMOUNTS_LEAST,
    AMOUNTS_MOST,
    DTYPES,
    EXTENSION,
    OBSERVED_MS_MAX,
    SOURCE_SEQ_MAX,
    Frame,
    are_bad,
    are_currencies,
    decode_frame,
    name_keys,
    null_counts_at,
)
from persistence.lanes import Lanes
from persistence.ports import Record

HEAD_BYTES_MAX = 65_536
LAYOUTS_MAX = 64
"""So many layouts are remembered, and none with longer lists of names: at most 4 MiB."""

NAMES = ("rival", "source")


class Layout(Struct, frozen=True, eq=False):
    """Where everything lies in frames that are alike, and the bytes they share."""

    key: bytes | None  # the routing key under which the retailer's frame belonged here
    rows: int
    fixed: tuple[tuple[int, int, bytes], ...]  # begin, end and bytes of what may not differ
    values_at: dict[str, int]  # where a column's numbers (of names: indexes) begin
    validity_at: dict[str, int]  # where the bits begin that tell names from nulls
    nulls_at: dict[str, int]  # where the frame says how many nulls there are
    name_keys: dict[str, np.ndarray]  # uint64[names + 1], name64 of each name, and 0 for none


class AlikeFrames:
    """Decodes frames, and remembers how those were laid out that were sound."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._layouts: dict[tuple[bytes | None, int], Layout] = {}

    def decode(
        self, lane: int, records: Sequence[Record]
    ) -> tuple[list[FactColumns], list[Refusal]]:
        """Return the frames' sound facts as blocks, in order, and refusals of all others."""
        blocks: list[FactColumns] = []
        refusals: list[Refusal] = []
        begun = 0
        while begun < len(records):
            layout = self._layout_of(records[begun])
            end = begun + 1
            while layout is not None and end < len(records):
                if not _shares(records[end], layout):
                    break
                end += 1
            block = None if layout is None else read_alike(lane, records[begun:end], layout)
            if block is not None:
                blocks.append(block)
            else:
                for record in records[begun:end]:
                    found, refused = decode_frame(lane, record, self._lanes, self._remember)
                    if len(found):
                        blocks.append(found)
                    refusals += refused
            begun = end
        return blocks, refusals

    def _layout_of(self, record: Record) -> Layout | None:
        layout = self._layouts.get((record.key, len(record.value)))
        return layout if layout is not None and _shares(record, layout) else None

    def _remember(self, record: Record, frame: Frame) -> None:
        """Take note of how a frame lies that Arrow has validated and that belongs to this shard."""
        layout = _layout(record, frame)
        if layout is None:
            return
        if len(self._layouts) >= LAYOUTS_MAX:
            self._layouts.clear()
        self._layouts[record.key, len(record.value)] = layout


def _shares(record: Record, layout: Layout) -> bool:
    """Return whether a record is laid out so, its numbers apart."""
    value = record.value
    if record.key != layout.key or len(value) != layout.fixed[-1][1]:
        return False
    same = all(value[begin:end] == wanted for begin, end, wanted in layout.fixed)
    return same and EXTENSION not in value


def read_alike(lane: int, records: Sequence[Record], layout: Layout) -> FactColumns | None:
    """Return the facts of frames of one layout, ``None`` where any of them may not be sound."""
    own: dict[str, Any] = {
        name: np.concatenate(
            [np.frombuffer(record.value, dtype, layout.rows, at) for record in records]
        )
        for name, at in layout.values_at.items()
        for dtype in (np.dtype(np.int32) if name in NAMES else DTYPES[name],)
    }
    for name in NAMES:
        if name in layout.validity_at:
            said = _given(records, layout, name)
            if said is None:
                return None
            found = np.where(said, own[name], np.int32(-1))
            if ((found >= 0) != said).any():
                return None
            own[name] = found
        elif own[name].min() < 0:
            return None
        if own[name].max() >= len(layout.name_keys[name]) - 1:
            return None
    sold_minor = own.pop("sold_minor", None)  # no owner asks for it
    if not _sound(own, sold_minor):
        return None
    for name in NAMES:
        own[name] = layout.name_keys[name].take(own[name])  # -1 finds the zero at the end
    count = layout.rows * len(records)
    return FactColumns(
        **own,
        lane=np.full(count, lane, np.uint8),
        offset=np.repeat(np.array([record.offset for record in records], np.int64), layout.rows),
        index=np.tile(np.arange(layout.rows, dtype=np.int32), len(records)),
    )


def _given(records: Sequence[Record], layout: Layout, name: str) -> np.ndarray | None:
    """Return which names are given, boolean; ``None`` where a frame has miscounted its nulls."""
    given = []
    at, counted_at = layout.validity_at[name], layout.nulls_at[name]
    for record in records:
        bits = np.frombuffer(record.value, np.uint8, -(-layout.rows // 8), at)
        valid = np.unpackbits(bits, count=layout.rows, bitorder="little").view(bool)
        counted = record.value[counted_at : counted_at + 8]
        nulls = int.from_bytes(counted, "little", signed=True)
        if np.count_nonzero(valid) != layout.rows - nulls:
            return None
        given.append(valid)
    return np.concatenate(given)


def _sound(columns: dict[str, np.ndarray], sold_minor: np.ndarray | None) -> bool:
    """Return whether no row breaks what ``judge_rows`` demands."""
    kind, amount = columns["kind"], columns["amount"]
    priced, sold = kind == COMPETITOR_PRICED, kind == UNITS_SOLD
    unpriced, unsold = ~priced, ~sold
    currency, source_seq = columns["currency"], columns["source_seq"]
    broken = (amount < AMOUNTS_LEAST.take(kind)) | (amount > AMOUNTS_MOST.take(kind))
    broken |= (columns["rival"] >= 0) != priced
    broken |= (columns["source"] >= 0) & unpriced & unsold
    broken |= columns["flags"] > priced * np.uint8(3)
    broken |= (source_seq != -1) & unsold
    for name, others in (("shipping_minor", unpriced), ("currency", unpriced), ("event", unsold)):
        if columns[name].any():
            broken |= (columns[name] != 0) & others
    if sold_minor is not None:
        broken |= (sold_minor < 0) | (sold_minor > PRICE_MINOR_MAX) | ((sold_minor != 0) & unsold)
    if broken.any() or (currency.any() and not are_currencies(currency).all()):
        return False
    return bool(
        columns["observed_ms"].min() >= 0
        and columns["observed_ms"].max() <= OBSERVED_MS_MAX
        and columns["shipping_minor"].min() >= 0
        and columns["shipping_minor"].max() <= PRICE_MINOR_MAX
        and source_seq.min() >= -1
        and source_seq.max() <= SOURCE_SEQ_MAX
    )


def _layout(record: Record, frame: Frame) -> Layout | None:
    """Return how a frame lies, ``None`` where its like would have to be read the slow way."""
    value, batch = record.value, frame.batch
    names = {name: getattr(frame.columns, f"{name}_names") for name in NAMES}
    if not batch.num_rows or any(are_bad(of).any() for of in names.values()):
        return None
    base = pa.py_buffer(value).address
    values_at, validity_at, end = {}, {}, 0
    for name in batch.schema.names:
        column = batch.column(name)
        validity, values = (column.indices if name in NAMES else column).buffers()
        assert column.offset == 0
        values_at[name] = values.address - base
        end = max(end, values_at[name] + values.size)
        if name in NAMES and validity is not None:
            validity_at[name] = validity.address - base
    begin = min(*values_at.values(), *validity_at.values())
    if begin < 0 or begin > HEAD_BYTES_MAX or end > len(value):
        return None  # there are many names, or Arrow copied what it could not use where it lay
    nulls_at = {name: at for name, at in null_counts_at(value).items() if name in validity_at}
    fixed, at = [], 0
    for hole in sorted(nulls_at.values()):
        fixed.append((at, hole, value[at:hole]))
        at = hole + 8
    fixed += [(at, begin, value[at:begin]), (end, len(value), value[end:])]
    return Layout(
        key=record.key,
        rows=batch.num_rows,
        fixed=tuple(fixed),
        values_at=values_at,
        validity_at=validity_at,
        nulls_at=nulls_at,
        name_keys={name: name_keys(of) for name, of in names.items()},
    )
