"""An ordered, bounded run of deltas decided together.

The order of the log is kept: a microbatch is a tuple of *runs*, each either one delta as an object
(catalogue, policy, command: few) or a block of facts as columns (rivals' prices, stock, sales,
costs: many). In a block the last value of a cell wins and sales add up; across runs order holds.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from msgspec import Struct

from engine.deltas import AnyDelta, CompetitorPriced, CostChanged, Fact, StockCounted
from engine.routing import key64, name64

Lane = Literal["commands", "deltas"]
LANES: tuple[Lane, Lane] = ("commands", "deltas")
"""In this order a microbatch takes them: a kill switch never waits behind a flood of data."""

COMPETITOR_PRICED, STOCK_COUNTED, UNITS_SOLD, COST_CHANGED = 1, 2, 3, 4
"""Codes in ``FactColumns.kind``."""

FLAG_IN_STOCK, FLAG_CONDITION_NEW = 1, 2
"""Bits in ``FactColumns.flags``, of a rival's offer."""


class Position(Struct, frozen=True, array_like=True, order=True):
    """Where a delta stands: lane (index in ``LANES``), its record's offset, index in the record."""

    lane: int
    offset: int
    index: int


class Refusal(Struct, frozen=True, array_like=True):
    """A delta that changed nothing, or was set aside: where, verdict, why.

    ``reason`` is for people and names the field and the fix. ``listing`` is the 64-bit key where
    it is known, else 0.
    """

    position: Position
    verdict: str  # one of VERDICTS
    reason: str
    listing: int = 0


VERDICTS = (
    "duplicate",
    "late",
    "quarantined",
    "rejected",
    "wrong_shard",
    "unknown_listing",
    "skipped",
    "undecodable",
    "not_supported",
)


class FactColumns(Struct, frozen=True, eq=False):
    """A block of facts, one element a fact, all arrays of one length, in the order of the log."""

    kind: np.ndarray  # uint8, a code above
    listing: np.ndarray  # uint64, engine.routing.key64
    amount: np.ndarray  # int64: price_minor, units or cost_minor by kind
    observed_ms: np.ndarray  # int64
    rival: np.ndarray  # uint64, engine.routing.name64, 0 for other kinds
    shipping_minor: np.ndarray  # int32, 0 for other kinds
    currency: np.ndarray  # uint32, currency_code, 0: the listing's own
    flags: np.ndarray  # uint8
    source: np.ndarray  # uint64, name64 of the source, 0: none
    source_seq: np.ndarray  # int64, -1: none
    event: np.ndarray  # uint64, name64 of event_id, 0: none
    lane: np.ndarray  # uint8, index in LANES
    offset: np.ndarray  # int64
    index: np.ndarray  # int32

    def __len__(self) -> int:
        return len(self.kind)


class ObjectDelta(Struct, frozen=True):
    """One delta that is not a block of facts, with its place."""

    position: Position
    delta: AnyDelta


class Microbatch(Struct, frozen=True, kw_only=True):
    """Whole records of both lanes, commands first, and how far they reach."""

    runs: tuple[ObjectDelta | FactColumns, ...] = ()
    refusals: tuple[Refusal, ...] = ()  # what decoding refused: undecodable, wrong_shard
    last_command: int  # offset of the last record consumed in each lane, -1 before the first
    last_delta: int
    deltas: int = 0  # how many deltas the runs and refusals hold together


def currency_code(currency: str) -> int:
    """Return three letters as a number, ``A`` highest byte: comparable, reversible, never 0."""
    return (ord(currency[0]) << 16) | (ord(currency[1]) << 8) | ord(currency[2])


def currency_name(code: int) -> str:
    """Return the letters of :func:`currency_code`."""
    return chr(code >> 16) + chr((code >> 8) & 255) + chr(code & 255)


def facts_of(facts: Sequence[tuple[Position, Fact]]) -> FactColumns:
    """Return facts given one by one as a block; for tests, simulations and single commands."""
    rows = [_fact_row(position, fact) for position, fact in facts]
    columns = zip(*rows, strict=True) if rows else ((),) * len(_FACT_TYPES)
    return FactColumns(
        *(np.array(column, dtype=dtype) for column, dtype in zip(columns, _FACT_TYPES, strict=True))
    )


def microbatch_of(
    deltas: Iterable[AnyDelta], last_command: int = -1, last_delta: int = -1, *, lane: int = 1
) -> Microbatch:
    """Return deltas as a microbatch, one record each, that follows what was consumed.

    Facts that stand together become one block of columns, as they do when they come from a log.
    """
    first = 1 + (last_command if lane == 0 else last_delta)
    runs: list[ObjectDelta | FactColumns] = []
    facts: list[tuple[Position, Fact]] = []
    count = 0
    for delta in deltas:
        position = Position(lane, first + count, 0)
        count += 1
        if isinstance(delta, Fact) and delta.command_id is None:
            facts.append((position, delta))
            continue
        if facts:
            runs.append(facts_of(facts))
            facts = []
        runs.append(ObjectDelta(position, delta))
    if facts:
        runs.append(facts_of(facts))
    return Microbatch(
        runs=tuple(runs),
        last_command=last_command + (count if lane == 0 else 0),
        last_delta=last_delta + (count if lane == 1 else 0),
        deltas=count,
    )


_FACT_TYPES = (
    np.uint8,
    np.uint64,
    np.int64,
    np.int64,
    np.uint64,
    np.int32,
    np.uint32,
    np.uint8,
    np.uint64,
    np.int64,
    np.uint64,
    np.uint8,
    np.int64,
    np.int32,
)


def _fact_row(position: Position, fact: Fact) -> tuple[int, ...]:
    """Return one fact in the order of the columns of ``FactColumns``."""
    rival = shipping = currency = flags = source = event = 0
    source_seq = -1
    if isinstance(fact, CompetitorPriced):
        kind, amount = COMPETITOR_PRICED, fact.price_minor
        rival, shipping = name64(fact.rival), fact.shipping_minor
        currency = currency_code(fact.currency) if fact.currency else 0
        flags = FLAG_IN_STOCK * fact.in_stock + FLAG_CONDITION_NEW * (fact.condition == "new")
        source = name64(fact.source) if fact.source else 0
    elif isinstance(fact, StockCounted):
        kind, amount = STOCK_COUNTED, fact.units
    elif isinstance(fact, CostChanged):
        kind, amount = COST_CHANGED, fact.cost_minor
    else:
        kind, amount = UNITS_SOLD, fact.units
        source = name64(fact.source) if fact.source else 0
        source_seq = -1 if fact.source_seq is None else fact.source_seq
        event = name64(fact.event_id) if fact.event_id else 0
    listing = key64(fact.retailer, fact.channel, fact.sku)
    place = (position.lane, position.offset, position.index)
    offered = (rival, shipping, currency, flags, source, source_seq, event)
    return (kind, listing, amount, fact.observed_ms, *offered, *place)
