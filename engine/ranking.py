"""Which of a retailer's listings earn enough to be priced in real time, found anew each midnight.

Of the listings whose tier is ``auto``, the share ``realtime_share`` that earn most are in front. A
ranking begins in the first microbatch whose time reaches midnight (UTC), and when the share is set;
one retailer after another, so many rows a microbatch. What a listing earns is the feature
``revenue_rate``: the newest sales that a row remembers anyway, whether its retailer learns or not.
"""

import math

import numpy as np

from engine.hourly import AUTO, tiers_of
from engine.listing_table import BEHIND
from engine.memory import Memory, Work
from engine.tiers import DAY_MS, Walk
from engine.velocity import velocity_of

RANKED_ROWS_MAX = 16_384
"""Most rows that a ranking walks in one microbatch."""


def set_share(memory: Memory, work: Work, number: int) -> None:
    """Have a retailer's listings ranked from now on, or no more, as his policy says now."""
    tiers = memory.tiers
    if tiers.walk is not None and tiers.walk.retailer == number:
        tiers.walk = None
    tiers.next_ms.pop(number, None)
    if _share(memory, number) < 1.0:
        tiers.next_ms[number] = work.now_ms
        return
    rows = memory.rows_of(number)
    _tell(memory, work, rows, np.zeros(len(rows), dtype=bool))


def rank(memory: Memory, work: Work) -> None:
    """Begin or go on with the ranking of one retailer."""
    tiers = memory.tiers
    if tiers.walk is None:
        due = [number for number, next_ms in tiers.next_ms.items() if work.now_ms >= next_ms]
        if not due:
            return
        number = min(due)
        tiers.next_ms[number] = (work.now_ms // DAY_MS + 1) * DAY_MS
        tiers.walk = _begun(memory.rows_of(number), number, work.now_ms)
    walk, room = tiers.walk, RANKED_ROWS_MAX
    if walk.taken < len(walk.rows):
        room -= _take_revenue(memory, walk, room)
        if walk.taken == len(walk.rows):
            _draw_the_line(walk, _share(memory, walk.retailer))
    if walk.taken == len(walk.rows):
        part = slice(walk.told, walk.told + room)
        _tell(memory, work, walk.rows[part], _is_behind(walk, part))
        walk.told = min(walk.told + room, len(walk.rows))
        if walk.told == len(walk.rows):
            tiers.walk = None


def revenue_of(listings: np.ndarray, now_ms: int) -> np.ndarray:
    """Return float64[rows], minor units a day at the price in force, by the sales remembered.

    Args:
        listings: LISTING_DTYPE[rows].
    """
    return np.asarray(velocity_of(listings, now_ms) * np.maximum(listings["in_force_minor"], 0))


def _share(memory: Memory, number: int) -> float:
    return memory.groups.book.retailer_policy(memory.retailers.ids[number]).realtime_share


def _begun(rows: np.ndarray, number: int, now_ms: int) -> Walk:
    return Walk(
        retailer=number,
        at_ms=now_ms,
        rows=rows,
        keys=np.zeros(len(rows), dtype=np.uint64),
        revenue=np.zeros(len(rows)),
        auto=np.zeros(len(rows), dtype=bool),
    )


def _take_revenue(memory: Memory, walk: Walk, rows_max: int) -> int:
    """Take the revenue of the next rows; return how many they are."""
    part = slice(walk.taken, walk.taken + rows_max)
    rows = walk.rows[part]
    listings = memory.listings.listings.take(rows)
    walk.keys[part] = listings["key"]
    walk.revenue[part] = revenue_of(listings, walk.at_ms)
    walk.auto[part] = tiers_of(memory, rows) == AUTO
    walk.taken += len(rows)
    return len(rows)


def _draw_the_line(walk: Walk, share: float) -> None:
    """Find the last listing in real time, by revenue and then by key."""
    revenue = walk.revenue[walk.auto]
    # A share of a tenth has one listing of ten, whatever a tenth is in binary.
    front = math.ceil(share * len(revenue) - 1e-9)
    if front <= 0:
        walk.least, walk.last_key = float("inf"), 0
        return
    walk.least = float(np.partition(revenue, len(revenue) - front)[len(revenue) - front])
    tied = walk.keys[walk.auto][revenue == walk.least]
    place = front - int((revenue > walk.least).sum()) - 1
    walk.last_key = int(np.partition(tied, place)[place])


def _is_behind(walk: Walk, part: slice) -> np.ndarray:
    """Return bool[rows], which stand behind the line; also where policy says another tier now."""
    revenue, keys = walk.revenue[part], walk.keys[part]
    front = (revenue == walk.least) & (keys <= np.uint64(walk.last_key))
    return np.asarray(~(front | (revenue > walk.least)))


def _tell(memory: Memory, work: Work, rows: np.ndarray, behind: np.ndarray) -> None:
    flags = memory.listings.listings["flags"]
    changed = ((flags[rows] & BEHIND) != 0) != behind
    moved = rows[changed]
    if len(moved):
        flags[moved] ^= BEHIND
        memory.unsaved[moved] = True
        work.changed.append(moved.tobytes())
