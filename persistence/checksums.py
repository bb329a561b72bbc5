"""Counts and checksums by which a follower's rows are compared with the decision log.

A checksum is the sum, modulo 2**64, of one 64-bit hash a row. So it does not depend on the order of
rows, can be kept incrementally, can be added up over shards, and sees a row that is lost, doubled
or changed. It is no signature: it finds accidents, not forgers.

The hash of a row starts at ``SEED`` and takes the row's fields in the order of the tuples below,
each as a 64-bit two's complement integer: ``h = mix(h ^ field)``, where ``mix`` is the finaliser of
splitmix64. No SQL is involved: rows are fetched and added up here, the same for every store.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

SEED = 0x9E3779B97F4A7C15
MASK = 2**64 - 1
NULL_LONG = -(2**63)
"""The one 64-bit number that QuestDB cannot tell from null: a null listing is this key."""

PRICE_FIELDS = (
    "generation",
    "shard",
    "seq",
    "item",
    "listing",
    "state",
    "in_force_minor",
    "proposed_minor",
    "floor_minor",
    "ceiling_minor",
    "reasons",
)
"""What a price row's hash covers; ``item`` is the quote's index in its decision."""

FACT_FIELDS = (
    "generation",
    "shard",
    "lane",
    "log_offset",
    "item",
    "listing",
    "amount",
    "observed_ms",
)
"""What the hash of a fact covers; ``amount`` is a price, a count of units or units sold."""


class Tally(Struct, frozen=True):
    """How many rows, and their checksum."""

    rows: int = 0
    checksum: int = 0

    def plus(self, other: "Tally") -> "Tally":
        """Return the tally of both sets of rows together."""
        return Tally(self.rows + other.rows, (self.checksum + other.checksum) & MASK)


def mix(values: np.ndarray) -> np.ndarray:
    """Return splitmix64's output function of each element.

    Args:
        values: uint64[rows].
    """
    state = values + np.uint64(SEED)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(state ^ (state >> np.uint64(31)), dtype=np.uint64)


def as_uint64(values: Any, rows: int) -> np.ndarray:
    """Return integers, signed or not, as uint64[rows] in two's complement.

    Accepts an array, a single number for all rows, or a list that may hold both signs and
    unsigned keys above 2**63.
    """
    if isinstance(values, int | np.integer):
        return np.full(rows, int(values) & MASK, dtype=np.uint64)
    if isinstance(values, np.ndarray):
        if values.dtype == np.uint64:
            return values
        return values.astype(np.int64).view(np.uint64)
    return np.fromiter((int(value) & MASK for value in values), dtype=np.uint64, count=rows)


def tally(fields: Sequence[Any], rows: int) -> Tally:
    """Return the tally of rows given as columns, in the order that defines the hash."""
    if rows == 0:
        return Tally()
    state = np.full(rows, SEED, dtype=np.uint64)
    for column in fields:
        state = mix(state ^ as_uint64(column, rows))
    return Tally(rows, int(np.add.reduce(state, dtype=np.uint64)))


def tally_quotes(generation: int, shard: int, seq: int, quotes: np.ndarray) -> Tally:
    """Return the tally of one decision's quotes.

    Args:
        quotes: ``engine.decided.QUOTE_DTYPE``[rows], in the order of the decision.
    """
    rows = len(quotes)
    given: dict[str, Any] = {"generation": generation, "shard": shard, "seq": seq}
    given["item"] = np.arange(rows, dtype=np.int64)
    columns = [given[name] if name in given else quotes[name] for name in PRICE_FIELDS]
    return tally(columns, rows)


def price_checksum(quotes: np.ndarray, seq: int, *, generation: int, shard: int) -> int:
    """Return the checksum alone of one decision's quotes."""
    return tally_quotes(generation, shard, seq, quotes).checksum


def tally_rows(rows: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> Tally:
    """Return the tally of fetched rows; a null counts as ``NULL_LONG``."""
    kept = list(rows)
    columns = [
        [NULL_LONG if row[name] is None else int(row[name]) for row in kept] for name in fields
    ]
    return tally(columns, len(kept))
