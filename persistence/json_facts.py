"""JSON records to blocks of facts, fast: half a microsecond a delta where many are written alike.

Records that are written alike are read as a table of bytes (``json_templates``). Of the others the
common one is a fact under a key already seen. It is decoded into a lean struct that
checks structure and numbers; names are looked up in bounded memories of what was checked before;
a whole block becomes arrays at once. Whatever is unusual (another type, an error, a command, a
name seen first, a backslash, a colon too many) takes the slow way of ``json_documents``, whose
word is final, so the outcome never depends on what happens to be remembered or on how records
are cut into blocks.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, field
from msgspec.structs import astuple

from engine.deltas import (
    CompetitorPriced,
    CostChanged,
    CostMinor,
    Currency,
    ListingDelta,
    Millis,
    Name,
    PriceMinor,
    RetailerDelta,
    RetailerId,
    StockCounted,
    Units,
    UnitsSold,
    UnsupportedDelta,
)
from engine.errors import RejectedInput
from engine.microbatch import (
    COMPETITOR_PRICED,
    COST_CHANGED,
    FLAG_CONDITION_NEW,
    FLAG_IN_STOCK,
    STOCK_COUNTED,
    UNITS_SOLD,
    FactColumns,
    ObjectDelta,
    Position,
    Refusal,
    currency_code,
)
from engine.routing import key64, name64, routing_key
from persistence.json_documents import (
    DECODE_ERRORS,
    JSON_BYTES_MAX,
    decode_document,
    has_duplicate_keys,
)
from persistence.json_templates import ALIKE_MIN, Judges, Templates
from persistence.lanes import Lanes
from persistence.name_tables import NameTable
from persistence.names import is_valid
from persistence.ports import Record

REMEMBERED_MAX = 262_144
"""Most names of one sort that a decoder remembers."""

SCOPES_MAX = 65_536
"""Most pairs of a key and a retailer's channel whose routing a decoder remembers."""

COLUMNS: dict[str, Any] = {
    "kind": np.uint8,
    "listing": np.uint64,
    "amount": np.int64,
    "observed_ms": np.int64,
    "rival": np.uint64,
    "shipping_minor": np.int32,
    "currency": np.uint32,
    "flags": np.uint8,
    "source": np.uint64,
    "source_seq": np.int64,
    "event": np.uint64,
    "lane": np.uint8,
    "offset": np.int64,
    "index": np.int32,
}
"""The columns of a block and their types."""

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


_KINDS: dict[type, int] = {
    _LeanCompetitor: COMPETITOR_PRICED,
    _LeanStock: STOCK_COUNTED,
    _LeanSold: UNITS_SOLD,
    _LeanCost: COST_CHANGED,
}
_KIND_OF_FACT: dict[type, int] = {
    CompetitorPriced: COMPETITOR_PRICED,
    StockCounted: STOCK_COUNTED,
    UnitsSold: UNITS_SOLD,
    CostChanged: COST_CHANGED,
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
    for lean, kind in _KINDS.items()
}
"""For each kind: the places of the fields that may be left out, and the sign that they were."""


class Remembered:
    """A bounded memory from names to numbers: the newer half is kept when it is full."""

    def __init__(self, admit: Callable[[Any], int | None], limit: int, known: dict[Any, int]):
        self._admit = admit
        self._half = limit // 2
        self._known = known
        self._young: dict[Any, int] = dict(known)
        self._old: dict[Any, int] = {}

    def find(self, names: Sequence[Any], refused: Callable[[int], None]) -> list[int | None]:
        """Return each name's number; call ``refused`` with the index of each that has none."""
        found: list[int | None] = list(map(self._young.get, names))
        if None in found:
            for index, number in enumerate(found):
                if number is None:
                    found[index] = self._look(names[index])
                    if found[index] is None:
                        found[index] = 0
                        refused(index)
        return found

    def _look(self, name: Any) -> int | None:
        number = self._young.get(name)  # it may have come earlier in this very block
        if number is None:
            number = self._old.get(name)
            if number is None:
                number = self._admit(name)
            if number is not None:
                if len(self._young) >= self._half:
                    self._old, self._young = self._young, dict(self._known)
                self._young[name] = number
        return number


class _Aside(Struct, frozen=True):
    """Sets aside places of a block, named by their index among the facts of one kind."""

    aside: set[int]
    places: Sequence[int]

    def __call__(self, index: int) -> None:
        self.aside.add(self.places[index])


class AlikeNames:
    """Looks up the names of records that are written alike, as blocks of bytes."""

    def __init__(
        self, admit: Callable[[tuple[bytes | None, str, str, str]], int | None], limit: int
    ) -> None:
        self._admit = admit
        self._limit = limit
        self._listings = NameTable(limit)
        self._tables = {b"rival": NameTable(limit), b"source": NameTable(limit)}
        self._key_numbers: dict[bytes | None, int] = {}
        self._keys: list[bytes | None] = []
        self._block_keys = np.empty(0, dtype=np.uint32)

    def begin(self, keys: list[bytes | None]) -> None:
        """Take the records' keys of the block whose names will be asked for."""
        if len(self._key_numbers) > self._limit:
            self._key_numbers, self._listings = {}, NameTable(self._limit)
        self._keys = keys
        numbers = list(map(self._key_numbers.get, keys))
        if None in numbers:
            known = self._key_numbers
            numbers = [known.setdefault(key, len(known)) for key in keys]
        self._block_keys = np.array(numbers, dtype=np.uint32)

    def listings(
        self, shape: tuple[int, ...], names: np.ndarray, places: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return each listing's key, and which have none; ``shape``: lengths of the three names."""
        keys = self._block_keys[places].view(np.uint8).reshape(-1, 4)
        channel, sku = shape[0], shape[0] + shape[1]

        def admit(rows: Sequence[int]) -> list[int | None]:
            texts = [names[row].tobytes().decode() for row in rows]
            return [
                self._admit((self._keys[place], text[:channel], text[channel:sku], text[sku:]))
                for place, text in zip(places[rows].tolist(), texts, strict=True)
            ]

        return self._listings.find(shape, np.hstack((names, keys)), admit)

    def names(self, field: bytes, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of rivals, sources or events, and which have none."""
        length = names.shape[1]
        if field == b"event_id":  # each comes once, so there is nothing to remember
            known = 0 < length <= 200
            texts = [row.tobytes().decode() for row in names] if known else [""] * len(names)
            return _unsigned([name64(text) for text in texts]), np.full(len(names), not known)
        return self._tables[field].find(
            length, names, lambda rows: [_admit_name(names[row].tobytes().decode()) for row in rows]
        )


class JsonFacts:
    """Decodes runs of JSON records for one shard; remembers what it has checked."""

    def __init__(self, lanes: Lanes, remembered_max: int = REMEMBERED_MAX) -> None:
        self._lanes = lanes
        self._listings = Remembered(self._admit_listing, remembered_max, {})
        self._rivals = Remembered(_admit_name, remembered_max, {})
        self._sources = Remembered(_admit_name, remembered_max, {UNSET: 0, None: 0})
        self._currencies = Remembered(_admit_currency, remembered_max, {UNSET: 0, None: 0})
        self._scopes: dict[tuple[bytes | None, str, str], int] = {}
        self._alike = AlikeNames(self._admit_listing, remembered_max)
        self._templates = Templates(_kind_of, Judges(self._alike.listings, self._alike.names))

    def decode(
        self, lane: int, records: Sequence[Record]
    ) -> tuple[list[FactColumns | ObjectDelta], list[Refusal]]:
        """Return the runs and the refusals of consecutive JSON records, each in order."""
        block: dict[str, np.ndarray] = {
            name: np.zeros(len(records), dtype) for name, dtype in COLUMNS.items()
        }
        block["lane"][:] = lane
        block["offset"][:] = [record.offset for record in records]
        others: list[int] | range = range(len(records))
        if len(records) >= ALIKE_MIN:
            self._alike.begin([record.key for record in records])
            filled = self._templates.fill(block, [record.value for record in records])
            others = np.flatnonzero(~filled).tolist()
        aside: set[int] = set()  # places of what the slow way must judge
        if others:
            self._fill_others(block, records, others, aside)
        if not aside:
            return [FactColumns(**block)], []
        return self._with_slow(lane, records, block, sorted(aside))

    def _fill_others(
        self,
        block: dict[str, np.ndarray],
        records: Sequence[Record],
        others: Sequence[int],
        aside: set[int],
    ) -> None:
        """Fill the places of records read one by one; add to ``aside`` what must be judged."""
        leans = _decode_lean([records[place].value for place in others])
        for lean_type, indexes in _by_type(leans).items():
            places = [others[index] for index in indexes]
            if lean_type not in _KINDS:
                aside.update(places)
                continue
            every = len(places) == len(records)
            where: Any = slice(None) if every else np.array(places)
            self._fill(
                block,
                where,
                _KINDS[lean_type],
                [leans[index] for index in indexes],
                [records[place] for place in places],
                _Aside(aside, places),
            )

    def judge(self, lane: int, record: Record) -> ObjectDelta | Refusal:
        """Return one record's delta as an object, or why it is refused: the slow way."""
        position = Position(lane, record.offset, 0)
        try:
            delta = decode_document(record.value)
        except RejectedInput as error:
            return Refusal(position, "undecodable", str(error))
        stray = self._lanes.stray(record.key, delta)
        if stray:
            return Refusal(position, "wrong_shard", str(RejectedInput("/retailer", stray)))
        return ObjectDelta(position, delta)

    def _admit_listing(self, names: tuple[bytes | None, str, str, str]) -> int | None:
        key, retailer, channel, sku = names
        scope = (key, retailer, channel)
        spread = self._scopes.get(scope)
        if spread is None:
            if len(self._scopes) >= SCOPES_MAX:
                self._scopes = {}
            spread = self._scopes[scope] = self._spread_of(key, retailer, channel)
        # What is printable holds no control character; of the rest the type itself judges.
        plain = sku.isprintable() and 0 < len(sku) <= 200
        if not spread or not (plain or is_valid(sku, Name)):
            return None
        if spread > 1 and routing_key(retailer, sku, spread).encode() != key:
            return None
        return key64(retailer, channel, sku)

    def _spread_of(self, key: bytes | None, retailer: str, channel: str) -> int:
        """Return the retailer's spread if records under this key may belong here, else 0."""
        if key is None or not is_valid(retailer, RetailerId) or not is_valid(channel, Name):
            return 0
        return 0 if self._lanes.stray_retailer(key, retailer) else self._lanes.spread(retailer)

    def _with_slow(
        self,
        lane: int,
        records: Sequence[Record],
        block: dict[str, np.ndarray],
        aside: list[int],
    ) -> tuple[list[FactColumns | ObjectDelta], list[Refusal]]:
        runs: list[FactColumns | ObjectDelta] = []
        refusals: list[Refusal] = []
        keep = np.ones(len(records), dtype=bool)
        keep[aside] = False
        begun = 0
        for place in aside:
            judged = self.judge(lane, records[place])
            if isinstance(judged, Refusal):
                refusals.append(judged)
                continue
            _add_block(runs, block, keep, begun, place)
            runs.append(judged)
            begun = place
        _add_block(runs, block, keep, begun, len(records))
        return runs, refusals

    def _fill(
        self,
        block: dict[str, np.ndarray],
        where: Any,
        kind: int,
        leans: list[Any],
        records: Sequence[Record],
        refused: Callable[[int], None],
    ) -> None:
        """Fill the rows ``where`` of the block with facts of one kind."""
        columns = list(zip(*map(astuple, leans), strict=True))
        retailers, channels, skus, observed_ms, _, _, amounts, *own = columns
        names = list(zip([r.key for r in records], retailers, channels, skus, strict=True))
        block["kind"][where] = kind
        block["listing"][where] = _unsigned(self._listings.find(names, refused))
        block["observed_ms"][where] = observed_ms
        block["amount"][where] = amounts
        block["source_seq"][where] = -1
        texts = [retailers, channels, skus]
        if kind == COMPETITOR_PRICED:
            rivals, shipping_minor, currencies, conditions, in_stock, sources = own
            block["rival"][where] = _unsigned(self._rivals.find(rivals, refused))
            block["shipping_minor"][where] = np.maximum(shipping_minor, 0)
            block["currency"][where] = self._currencies.find(currencies, refused)
            block["flags"][where] = _flags(conditions, in_stock)
            block["source"][where] = _unsigned(self._sources.find(sources, refused))
            texts += [rivals, sources]
        elif kind == UNITS_SOLD:
            sources, source_seqs, events, _ = own
            block["source"][where] = _unsigned(self._sources.find(sources, refused))
            block["source_seq"][where] = [-1 if seq is None else seq for seq in source_seqs]
            block["event"][where] = _unsigned([name64(event) if event else 0 for event in events])
            texts += [sources, events]
        for index in _twice(kind, [record.value for record in records], columns, texts):
            refused(index)


def _twice(
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


def _flags(conditions: tuple[Any, ...], in_stock: tuple[Any, ...]) -> np.ndarray:
    flags = np.fromiter(map(_CONDITION_FLAGS.__getitem__, conditions), np.uint8, len(conditions))
    return flags | np.where(np.array(in_stock, dtype=np.uint8) != 0, FLAG_IN_STOCK, 0)


_CONDITION_FLAGS = {_LEFT_OUT: FLAG_CONDITION_NEW, "new": FLAG_CONDITION_NEW} | dict.fromkeys(
    ("used", "refurbished"), 0
)


def _unsigned(numbers: list[Any]) -> np.ndarray:
    return np.fromiter(numbers, np.uint64, len(numbers))


def _by_type(leans: list[Any]) -> dict[type, list[int]]:
    """Return the places of each type of value."""
    types = list(map(type, leans))
    places: dict[type, list[int]] = {lean_type: [] for lean_type in dict.fromkeys(types)}
    for place, lean_type in enumerate(types):
        places[lean_type].append(place)
    return places


def _decode_lean(values: list[bytes]) -> list[Any]:
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


def _add_block(
    runs: list[FactColumns | ObjectDelta],
    block: dict[str, np.ndarray],
    keep: np.ndarray,
    start: int,
    stop: int,
) -> None:
    """Add the kept rows from ``start`` to ``stop`` as one block, if there are any."""
    kept = np.flatnonzero(keep[start:stop]) + start
    if len(kept):
        runs.append(FactColumns(**{name: column[kept] for name, column in block.items()}))


def _kind_of(value: bytes) -> int | None:
    """Return the kind of a document that is a plain fact, by the slow way's word."""
    try:
        delta = decode_document(value)
    except RejectedInput:
        return None
    plain = delta.command_id is None and delta.actor is None
    return _KIND_OF_FACT.get(type(delta)) if plain else None


def _admit_name(name: Any) -> int | None:
    return name64(name) if is_valid(name, Name) else None


def _admit_currency(name: Any) -> int | None:
    return currency_code(name) if is_valid(name, Currency) else None
