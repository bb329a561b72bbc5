"""The quotes of a microbatch as they are told: of rows whose price or state changed, and no others.

Most rows that are looked at neither move nor are news, so a quote is written only once it is known
to be told.
"""

import numpy as np
from msgspec import Struct

from engine.decided import QUOTE_DTYPE, State
from engine.listing_table import NEVER, put, taken
from engine.memory import Memory
from engine.rivals import Reference
from kernels import reasons


class Looked(Struct, frozen=True, eq=False):
    """The rows of a microbatch and why they are looked at, one element a row."""

    rows: np.ndarray  # int64
    kind: np.ndarray  # uint8, Cause
    lane: np.ndarray
    offset: np.ndarray
    index: np.ndarray


NOTHING = Looked(
    np.empty(0, dtype=np.int64),
    np.empty(0, dtype=np.uint8),
    np.empty(0, dtype=np.uint8),
    np.empty(0, dtype=np.int64),
    np.empty(0, dtype=np.int32),
)
"""No rows."""


_OF_PRICED = (
    "target_minor",
    "floor_minor",
    "ceiling_minor",
    "binding",
    "without_minor",
    "elasticity",
    "elasticity_sd",
    "confidence",
    "profit_change",
)


def written(
    looked: Looked,
    listings: np.ndarray,
    priced: np.ndarray,
    seen: Reference,
    which: np.ndarray,
    stock: np.ndarray,
    mask: np.ndarray,
    previous_minor: np.ndarray,
    in_force_minor: np.ndarray,
) -> np.ndarray:
    """Return QUOTE_DTYPE[m], the quotes of the looked at rows that stand at ``which``.

    Args:
        listings: LISTING_DTYPE[rows], as they are decided.
        priced: PRICED_DTYPE[rows].
        which: int64[m].
        stock, mask, previous_minor, in_force_minor: of all rows.
    """
    priced = taken(priced, which)
    quotes = np.empty(len(which), dtype=QUOTE_DTYPE)
    for name in _OF_PRICED:
        quotes[name] = priced[name]
    for name in ("state", "proposed_minor", "cost_minor"):
        quotes[name] = listings[name][which]
    quotes["listing"], quotes["reasons"] = listings["key"][which], mask[which]
    quotes["previous_minor"] = previous_minor[which]
    quotes["in_force_minor"] = in_force_minor[which]
    quotes["rival_minor"], quotes["rivals"] = seen.landed_minor[which], seen.rivals[which]
    quotes["stock"] = stock[which]
    quotes["cause_kind"], quotes["cause_lane"] = looked.kind[which], looked.lane[which]
    quotes["cause_offset"], quotes["cause_index"] = looked.offset[which], looked.index[which]
    return quotes


def removed_quotes(memory: Memory, looked: Looked, seq: int, index: int) -> np.ndarray:
    """Return the last quotes of rows that were removed, numbered from ``index``."""
    rows = looked.rows
    quotes = memory.listings.quotes.take(rows)
    quotes["listing"] = memory.listings.listings["key"][rows]
    quotes["previous_minor"] = memory.listings.listings["in_force_minor"][rows]
    quotes["state"], quotes["in_force_minor"], quotes["proposed_minor"] = State.REMOVED, 0, 0
    quotes["reasons"] = 0
    quotes["binding"] = reasons.BINDING_NONE
    quotes["cause_kind"], quotes["cause_lane"] = looked.kind, looked.lane
    quotes["cause_offset"], quotes["cause_index"] = looked.offset, looked.index
    put(memory.listings.quotes, rows, quotes)
    memory.listings.listings["quote_seq"][rows] = seq
    memory.listings.listings["quote_index"][rows] = index + np.arange(len(rows))
    memory.listings.listings["in_force_minor"][rows] = 0
    memory.timers.set(rows, np.full(len(rows), NEVER))
    return quotes
