"""A plain fact as a lean struct: structure and numbers checked, names and order still to be.

What is no plain fact, or brings a key twice, is told apart here and judged by ``json_documents``.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, field

from engine.checking import DECODE_ERRORS
from engine.deltas import (
    CostMinor,
    ListingDelta,
    Millis,
    PriceMinor,
    RetailerDelta,
    Units,
    UnsupportedDelta,
)
from engine.microbatch import (
    COMPETITOR_PRICED,
    COST_CHANGED,
    FLAG_CONDITION_NEW,
    FLAG_IN_STOCK,
    STOCK_COUNTED,
    UNITS_SOLD,
)
from persistence.json_documents import JSON_BYTES_MAX, has_duplicate_keys

# A field that was left out must show, to count what is present: its default is a value that JSON
# cannot bring. (The bounds hold when decoding, not for defaults.)
_LEFT_OUT: Any = UNSET
_NO_NUMBER: Any = -1
_NO_BOOL: Any = 2

_EventId = Annotated[str, Meta(min_length=1, max_length=200)]
_SourceSeq = Annotated[int, Meta(ge=0, le=2**62)]


class _Lean(Struct, kw_only=True, gc=False, tag_field="type", forbid_unknown_fields=True):
    """What every fact has; a fact that is a command goes the slow way, for it is answered."""

    retailer: str
    channel: str
    sku: str
    observed_ms: Millis
    command_id: None = _LEFT_OUT
    actor: None = _LEFT_OUT


class _LeanCompetitor(_Lean, kw_only=True, gc=False, tag="CompetitorPriced"):
    amount: PriceMinor = field(name="price_minor")
    rival: str
    shipping_minor: CostMinor = _NO_NUMBER
    currency: str | None = _LEFT_OUT
    condition: Literal["new", "used", "refurbished"] = _LEFT_OUT
    in_stock: bool = _NO_BOOL
    source: str | None = _LEFT_OUT


class _LeanStock(_Lean, kw_only=True, gc=False, tag="StockCounted"):
    amount: Units = field(name="units")


class _LeanSold(_Lean, kw_only=True, gc=False, tag="UnitsSold"):
    amount: Units = field(name="units")
    source: str | None = _LEFT_OUT
    source_seq: _SourceSeq | None = _NO_NUMBER
    event_id: _EventId | None = _LEFT_OUT
    price_minor: PriceMinor | None = _NO_NUMBER


class _LeanCost(_Lean, kw_only=True, gc=False, tag="CostChanged"):
    amount: CostMinor = field(name="cost_minor")


KINDS: dict[type, int] = {
    _LeanCompetitor: COMPETITOR_PRICED,
    _LeanStock: STOCK_COUNTED,
    _LeanSold: UNITS_SOLD,
    _LeanCost: COST_CHANGED,
}
# Objects are in the union so that they cost no exception; they are decoded once more, slowly.
_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    _LeanCompetitor
    | _LeanStock
    | _LeanSold
    | _LeanCost
    | ListingDelta
    | RetailerDelta
    | UnsupportedDelta
)

_OPTIONAL = {
    kind: [
        (at, fact_field.default)
        for at, fact_field in enumerate(msgspec.structs.fields(lean))
        if fact_field.default is not msgspec.NODEFAULT
    ]
    for lean, kind in KINDS.items()
}
"""For each kind: the places of the fields that may be left out, and the sign that they were."""


def by_type(leans: list[Any]) -> dict[type, list[int]]:
    """Return the places of each type of value."""
    types = list(map(type, leans))
    places: dict[type, list[int]] = {lean_type: [] for lean_type in dict.fromkeys(types)}
    for place, lean_type in enumerate(types):
        places[lean_type].append(place)
    return places


def decode_lean(values: list[bytes]) -> list[Any]:
    """Return each value as a lean fact or an object, ``None`` where that fails."""
    if max(map(len, values)) <= JSON_BYTES_MAX:
        try:
            return list(map(_DECODER.decode, values))
        except DECODE_ERRORS:
            pass  # one of them; the others must not pay for it
    return [_decode_one(value) for value in values]


def _decode_one(value: bytes) -> Any:
    if len(value) > JSON_BYTES_MAX:
        return None
    try:
        return _DECODER.decode(value)
    except DECODE_ERRORS:
        return None


def twice(
    kind: int,
    values: list[bytes],
    columns: list[tuple[Any, ...]],
    texts: list[tuple[Any, ...]],
) -> Iterable[int]:
    """Return the places of documents of one kind that may name a key twice.

    Counted over the whole block at once. Without a backslash a string reads as it is written, so
    a document's colons are one a key and those in its strings, the overwritten ones too: never
    fewer than its distinct keys and the colons of the strings that were decoded. When the sums
    over the block are equal, they are equal for each document, and no key came twice.
    """
    written = b"".join(values)
    if b"\\" not in written:
        colons = written.count(b":")
        left_out = sum(columns[at].count(sign) for at, sign in _OPTIONAL[kind])
        keys = (len(columns) + 1) * len(values) - left_out  # and ``type``
        if colons == keys:
            return ()
        if colons == keys + sum(_colons(column) for column in texts):
            return ()
    return (index for index, value in enumerate(values) if has_duplicate_keys(value))


def _colons(column: tuple[Any, ...]) -> int:
    try:
        return "".join(column).count(":")
    except TypeError:  # some are absent
        return "".join(name for name in column if isinstance(name, str)).count(":")


def flags_of(conditions: tuple[Any, ...], in_stock: tuple[Any, ...]) -> np.ndarray:
    flags = np.fromiter(map(_CONDITION_FLAGS.__getitem__, conditions), np.uint8, len(conditions))
    return flags | np.where(np.array(in_stock, dtype=np.uint8) != 0, FLAG_IN_STOCK, 0)


_CONDITION_FLAGS = {_LEFT_OUT: FLAG_CONDITION_NEW, "new": FLAG_CONDITION_NEW} | dict.fromkeys(
    ("used", "refurbished"), 0
)
