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
from operator import attrgetter
from typing import Any

import numpy as np
from msgspec import UNSET, Struct
from msgspec.structs import astuple

from engine.deltas import (
    CompetitorPriced,
    CostChanged,
    Name,
    RetailerId,
    StockCounted,
    UnitsSold,
)
from engine.errors import RejectedInput
from engine.microbatch import (
    COMPETITOR_PRICED,
    COST_CHANGED,
    STOCK_COUNTED,
    UNITS_SOLD,
    FactColumns,
    ObjectDelta,
    Position,
    Refusal,
)
from engine.routing import ROUTING_SLOT, key64, keys_under, name64, routing_key, slots_of
from persistence.json_documents import (
    decode_document,
)
from persistence.json_templates import ALIKE_MIN, Judges, Templates
from persistence.lanes import Lanes
from persistence.lean_facts import KINDS, by_type, decode_lean, flags_of, twice
from persistence.names import is_valid
from persistence.ports import Record
from persistence.remembered_names import (
    AlikeNames,
    Remembered,
    admit_currency,
    admit_name,
    unsigned,
)

REMEMBERED_MAX = 262_144
"""Most names of one sort that a decoder remembers."""

SCOPES_MAX = 65_536
"""Most pairs of a key and a retailer's channel whose routing a decoder remembers."""

SKU_CHARACTERS_MAX = 200
"""Longest SKU, as ``engine.deltas.Name`` has it."""

_OFFSET, _KEY, _VALUE = attrgetter("offset"), attrgetter("key"), attrgetter("value")

_Scope = tuple[int, Callable[[Iterable[bytes]], np.ndarray]]

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

_KIND_OF_FACT: dict[type, int] = {
    CompetitorPriced: COMPETITOR_PRICED,
    StockCounted: STOCK_COUNTED,
    UnitsSold: UNITS_SOLD,
    CostChanged: COST_CHANGED,
}


class _Aside(Struct, frozen=True):
    """Sets aside places of a block, named by their index among the facts of one kind."""

    aside: set[int]
    places: Sequence[int]

    def __call__(self, index: int) -> None:
        self.aside.add(self.places[index])


class JsonFacts:
    """Decodes runs of JSON records for one shard; remembers what it has checked."""

    def __init__(self, lanes: Lanes, remembered_max: int = REMEMBERED_MAX) -> None:
        self._lanes = lanes
        self._listings = Remembered(self._admit_listing, remembered_max, {})
        self._rivals = Remembered(admit_name, remembered_max, {})
        self._sources = Remembered(admit_name, remembered_max, {UNSET: 0, None: 0})
        self._currencies = Remembered(admit_currency, remembered_max, {UNSET: 0, None: 0})
        self._scopes: dict[tuple[bytes | None, str, str], _Scope] = {}
        self._alike = AlikeNames(self._admit_listing, self._admit_skus, remembered_max)
        self._templates = Templates(_kind_of, Judges(self._alike.listings, self._alike.names))

    def decode(
        self, lane: int, records: Sequence[Record]
    ) -> tuple[list[FactColumns | ObjectDelta], list[Refusal]]:
        """Return the runs and the refusals of consecutive JSON records, each in order."""
        block: dict[str, np.ndarray] = {
            name: np.zeros(len(records), dtype) for name, dtype in COLUMNS.items()
        }
        block["lane"][:] = lane
        block["offset"] = np.fromiter(map(_OFFSET, records), np.int64, len(records))
        others: list[int] | range = range(len(records))
        if len(records) >= ALIKE_MIN:
            self._alike.begin(list(map(_KEY, records)))
            filled = self._templates.fill(block, list(map(_VALUE, records)))
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
        leans = decode_lean([records[place].value for place in others])
        for lean_type, indexes in by_type(leans).items():
            places = [others[index] for index in indexes]
            if lean_type not in KINDS:
                aside.update(places)
                continue
            every = len(places) == len(records)
            where: Any = slice(None) if every else np.array(places)
            self._fill(
                block,
                where,
                KINDS[lean_type],
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
        spread, _ = self._scope(key, retailer, channel)
        # What is printable holds no control character; of the rest the type itself judges.
        plain = sku.isprintable() and 0 < len(sku) <= SKU_CHARACTERS_MAX
        if not spread or not (plain or is_valid(sku, Name)):
            return None
        if spread > 1 and routing_key(retailer, sku, spread).encode() != key:
            return None
        return key64(retailer, channel, sku)

    def _admit_skus(
        self, keys: Sequence[bytes | None], retailer: str, channel: str, skus: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Judge SKUs of one channel as :meth:`_admit_listing` does, each under its record's key.

        ``skus`` is uint8[n, bytes] of ASCII. Returns uint64[n], their numbers, and boolean[n],
        which have one.
        """
        count, length = skus.shape
        scopes = {key: self._scope(key, retailer, channel) for key in set(keys)}
        ours = {key: scope for key, scope in scopes.items() if key is not None and scope[0]}
        if not ours or not 0 < length <= SKU_CHARACTERS_MAX:
            return np.zeros(count, dtype=np.uint64), np.zeros(count, dtype=bool)
        raw = skus.tobytes()
        names = [raw[at : at + length] for at in range(0, len(raw), length)]
        # Of what cannot be printed the type itself judges, name by name.
        has = np.asarray(((skus >= ord(" ")) & (skus <= ord("~"))).all(axis=1))
        for one in np.flatnonzero(~has).tolist():
            has[one] = is_valid(names[one].decode("ascii"), Name)
        spread, keys_of = next(iter(ours.values()))
        slots = dict.fromkeys(scopes, -1)  # of a key under which nothing of the retailer belongs
        for key in ours:
            # Its scope says that it ends in a slot where the retailer has several.
            slots[key] = int(key.rpartition(ROUTING_SLOT.encode())[2]) if spread > 1 else 0
        has &= np.array([slots[key] for key in keys]) == slots_of(skus, spread)
        return keys_of(names), has

    def _scope(self, key: bytes | None, retailer: str, channel: str) -> _Scope:
        """Return the retailer's spread, 0 if nothing of him belongs here; and his SKUs' keys."""
        scope = (key, retailer, channel)
        known = self._scopes.get(scope)
        if known is None:
            if len(self._scopes) >= SCOPES_MAX:
                self._scopes = {}
            spread = self._spread_of(key, retailer, channel)
            # Of what is no retailer and channel of ours nothing is hashed: it may not even encode.
            named = (retailer, channel) if spread else ("", "")
            known = self._scopes[scope] = (spread, keys_under(*named))
        return known

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
        block["listing"][where] = unsigned(self._listings.find(names, refused))
        block["observed_ms"][where] = observed_ms
        block["amount"][where] = amounts
        block["source_seq"][where] = -1
        texts = [retailers, channels, skus]
        if kind == COMPETITOR_PRICED:
            rivals, shipping_minor, currencies, conditions, in_stock, sources = own
            block["rival"][where] = unsigned(self._rivals.find(rivals, refused))
            block["shipping_minor"][where] = np.maximum(shipping_minor, 0)
            block["currency"][where] = self._currencies.find(currencies, refused)
            block["flags"][where] = flags_of(conditions, in_stock)
            block["source"][where] = unsigned(self._sources.find(sources, refused))
            texts += [rivals, sources]
        elif kind == UNITS_SOLD:
            sources, source_seqs, events, _ = own
            block["source"][where] = unsigned(self._sources.find(sources, refused))
            block["source_seq"][where] = [-1 if seq is None else seq for seq in source_seqs]
            block["event"][where] = unsigned([name64(event) if event else 0 for event in events])
            texts += [sources, events]
        for index in twice(kind, [record.value for record in records], columns, texts):
            refused(index)


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
