"""When a listing's next delivery is due, and the price at which its stock lasts until then.

Where deliveries bring less than is wanted, a unit sold now is missing before the next one comes,
and the best price without regard to stock sells what cannot be had. Nobody tells how often
deliveries come and how much they bring, but counts do: stock beyond what sales had left was
delivered. So each listing remembers its last delivery, the days between them, how far those
scatter, what they bring, and whether they found its shelf empty: a clock beside what is learnt,
and none where nobody learns.

Only deliveries by a calendar are waited for. Where a shop orders what has run out, a dearer price
brings the next one later, and whoever asks more for it to last would ask ever more. Such a shelf is
empty for as long each time, whenever it ran out; by a calendar intervals are the more alike of the
two: they scatter by themselves, and gaps by them and by what was sold.

A delivery is relied on for the days that it is nearly sure to take, and where deliveries come at
random there is none to wait for: nobody knows until when stock must last.
"""

from typing import NamedTuple

import numpy as np

from engine.arms import policies_of
from engine.learnt import DAY_MS, LASTED, LASTS, RetailerLearning
from engine.listing_table import put
from engine.memory import Counts, Memory, Work
from engine.objectives import UNITS
from engine.stock import left_of, stock_of
from kernels.clearing import lasting_log
from kernels.hyperparameters import (
    ASKED_LOG,
    DELIVERIES_KEPT,
    DELIVERY_SHARE,
    EMPTY_SHARE,
    FALSE_STARTS,
    GAPS_LEAST,
    HALF_DAY,
    INTERVALS_LEAST,
    LAPSED_TIMES,
    LEVEL_LEAST,
    RAN_OUT_SHARE,
    RECOUNT_SHARE,
    RHYTHM_SCATTER,
    SCATTER_PRIOR,
    SEASON_SLOPE_MAX,
    SHOPS_KEPT,
    SHOPS_WORTH,
    UNSURE_SHARE,
)


def note_counts(
    memory: Memory,
    work: Work,
    counts: Counts,
    tells: np.ndarray,
    more: np.ndarray,
) -> None:
    """Take what counts tell of deliveries: stock found beyond what sales had left.

    Args:
        counts: of rows that are distinct; retailers' who do not learn tell nothing.
        tells: bool[n], which are looked at: those that sales do not explain.
        more: int64[n], what was found and sold beyond what was known to be there.
    """
    learnt = memory.learnt
    tells = tells & (counts.rows < len(learnt.deliveries))
    counts, more = Counts(*(column[tells] for column in counts)), more[tells]
    rows = counts.rows
    listings = memory.listings.listings
    retailers = listings["retailer"][rows]
    for number in np.unique(retailers).tolist():
        held = learnt.retailers.get(number)
        if held is None:
            continue
        at = np.flatnonzero(retailers == number)
        told = learnt.deliveries.take(rows[at])
        counted_ms = listings["stock_ms"][rows[at]]
        new_units = more[at].astype(np.float64)
        found = counts.found[at].astype(np.float64)
        a_day = np.exp(learnt.rows["level"][rows[at]].astype(np.float64))
        # Sales since the last close may be of what came: what stood there then came before it.
        left = np.maximum(np.maximum(told["stood"], counts.before[at]), 0)
        new = ~counts.unknown[at] & counts.sure[at]
        new &= new_units > RECOUNT_SHARE * np.maximum(found - new_units, 0.0)
        new &= new_units >= np.maximum(DELIVERY_SHARE * told["units"], a_day)
        first = counts.unknown[at] | ((told["came_ms"] == 0) & ~new)
        if not (first | new).any():
            continue
        days_left = left / np.maximum(a_day, LEVEL_LEAST)
        known = counted_ms > learnt.rows["closed_ms"][rows[at]]
        told["stood"][first | new] = np.maximum(counts.found[at], 0)[first | new]
        shelf = Shelf(counted_ms, left, days_left, new_units, known)
        held.regular = taken(told, held.regular, shelf, first, new)
        changed = at[first | new]
        put(learnt.deliveries, rows[changed], told[first | new])
        memory.unsaved[rows[changed]] = True
        work.delivered.append(rows[at[new]])
        work.changed += [told[first | new].tobytes(), held.regular.tobytes()]


class Shelf(NamedTuple):
    """What a count tells, one element a row."""

    counted_ms: np.ndarray
    left: np.ndarray  # what stood there before
    days_left: np.ndarray  # for how many days that would have lasted
    more: np.ndarray  # float64, what came
    known: np.ndarray  # bool: whether ``left`` is from before it came


def taken(
    told: np.ndarray, regular: np.ndarray, shelf: Shelf, first: np.ndarray, new: np.ndarray
) -> np.ndarray:
    """Take deliveries into DELIVERY_DTYPE[rows], copies; return what the shop's intervals tell.

    Args:
        regular: float64[3], intervals of the whole shop that could be held against a mean, and the
            sums of their and of their gaps' squared deviations, as shares of it.
        first: bool[rows], counted for the first time, or after its stock was unknown.
        new: bool[rows], got a delivery.
    """
    counted_ms, left, more = shelf.counted_ms, shelf.left, shelf.more
    interval = np.maximum(counted_ms - told["came_ms"], 1) / DAY_MS
    before = told["days"].astype(np.float64)
    # One of twice what a few brought shows that those were none: returns, or late sales.
    false = new & (told["came"] < FALSE_STARTS) & (more * DELIVERY_SHARE > told["units"])
    came = np.where(false, 0.0, told["came"].astype(np.float64))
    # The first delivery ends no interval: what was there before it, somebody had not counted.
    between, known = new & (came >= 1), new & (came >= 2)
    gain = 1.0 / np.minimum(np.maximum(came, 1.0), DELIVERIES_KEPT)
    days = np.where(came >= 2, before + gain * (interval - before), interval)
    # An interval is off its mean by more than it is off the truth, the fewer the mean is of.
    off = np.square(interval / np.maximum(before, 1e-6) - 1.0) * (1.0 - gain)
    off = np.minimum(off, 4.0)
    slow = 1.0 / np.minimum(np.maximum(came - 1.0, 1.0), DELIVERIES_KEPT)
    scatter = told["scatter"] + slow * (off - told["scatter"])
    each = 1.0 / np.minimum(came + 1.0, DELIVERIES_KEPT)
    # It was empty for half a day less than closes saw it, give or take another half.
    dark = np.maximum(told["empty_days"] - HALF_DAY, 0.0)
    gap = np.where(left > 0, -np.minimum(shelf.days_left, 2.0 * interval), dark)
    apart = np.square((gap - told["gap"]) / np.maximum(before, 1e-6)) * (1.0 - gain)
    apart = np.minimum(apart, 4.0) - np.square(HALF_DAY / np.maximum(before, HALF_DAY))
    gap_scatter = told["gap_scatter"] + slow * (apart - told["gap_scatter"])
    told["gap_scatter"] = np.where(known, gap_scatter, told["gap_scatter"])
    gaps = np.where(came >= 2, told["gap"] + gain * (gap - told["gap"]), gap)
    told["gap"] = np.where(between, gaps, told["gap"])
    empty = np.where(shelf.known & (left <= EMPTY_SHARE * more), 1.0, 0.0)
    told["days"] = np.where(between, days, told["days"])
    told["scatter"] = np.where(known, scatter, told["scatter"])
    told["units"] = np.where(new, told["units"] + each * (more - told["units"]), told["units"])
    emptied = told["emptied"] + each * (empty - told["emptied"])
    full = told["full"] + each * (left + more - told["full"])
    told["full"] = np.where(new, full, told["full"])
    told["emptied"] = np.where(new, emptied, told["emptied"])
    told["days"] = np.where(false, 0.0, told["days"])
    told["came"] = np.where(new, np.minimum(came + 1, 2**16 - 1), told["came"])
    told["came_ms"] = np.where(first | new, counted_ms, told["came_ms"])
    told["empty_days"] = np.where(first | new, 0.0, told["empty_days"])
    sums = (known.astype(np.float64), np.where(known, off, 0.0), np.where(known, apart, 0.0))
    found = np.stack(sums).sum(axis=1)
    every = regular + found
    return np.asarray(every * min(1.0, SHOPS_KEPT / max(every[0], 1.0)))


def note_close(memory: Memory, rows: np.ndarray, listings: np.ndarray, days: float) -> None:
    """Note what stands on shelves as a period closes, and for how long the empty ones were.

    Where more was sold than was counted something came already, and nobody knows how much.
    """
    left = left_of(listings)
    known = (listings["counted"] >= 0) & (left >= 0)
    deliveries = memory.learnt.deliveries
    deliveries["stood"][rows[known]] = left[known]
    deliveries["empty_days"][rows[known & (left == 0)]] += np.float32(days)


def sure_days(told: np.ndarray, regular: np.ndarray) -> np.ndarray:
    """Return float64[rows], how long there is surely no delivery after one; 0: nobody knows.

    A listing's own intervals are few, so what the shop's are like counts as some more of them; and
    before those tell, intervals are taken for as irregular as can be.
    """
    scatter = _with_prior(told, regular)
    unsure = UNSURE_SHARE * np.sqrt(scatter) * (1.0 - told["emptied"])
    return np.asarray(told["days"] * np.maximum(1.0 - unsure, 0.0))


def by_calendar(told: np.ndarray, regular: np.ndarray) -> np.ndarray:
    """Return bool[rows], whose deliveries have a rhythm, and one that is not their shelf's."""
    if regular[0] < INTERVALS_LEAST:
        return np.zeros(len(told), dtype=bool)
    intervals = _scatter(told, "scatter", regular[1] / regular[0])
    gaps = _scatter(told, "gap_scatter", regular[2] / regular[0])
    return np.asarray(
        (_with_prior(told, regular) < RHYTHM_SCATTER) & (gaps > intervals + GAPS_LEAST)
    )


def _with_prior(told: np.ndarray, regular: np.ndarray) -> np.ndarray:
    """Return float64[rows], the scatter of intervals, at first taken for as large as at random."""
    return _scatter(told, "scatter", (SCATTER_PRIOR + regular[1]) / (SCATTER_PRIOR + regular[0]))


def _scatter(told: np.ndarray, name: str, shop: float) -> np.ndarray:
    """Return float64[rows], a mean square: a row's own, and the shop's as so many more of them."""
    own = np.clip(told["came"].astype(np.float64) - 2.0, 0.0, DELIVERIES_KEPT)
    return np.asarray((SHOPS_WORTH * shop + own * told[name]) / (SHOPS_WORTH + own))


def lasts_log(
    now_ms: int,
    regular: np.ndarray,
    told: np.ndarray,
    listings: np.ndarray,
    learnt: np.ndarray,
    filtered: np.ndarray,
    elasticity: np.ndarray,
) -> np.ndarray:
    """Return float64[rows], the log price at which stock lasts to the next delivery, else -inf.

    Where shelves are hardly ever empty when deliveries come, nothing is scarce; and where one has
    been due for long, its rhythm is no longer known.

    Args:
        regular: of the shop, as :func:`taken` keeps it.
        told: DELIVERY_DTYPE[rows].
        filtered: float64[rows], the log price that the level belongs to.
        elasticity: float64[rows], as believed.
    """
    stock = stock_of(listings)
    days = told["days"].astype(np.float64)
    passed = (now_ms - told["came_ms"]) / DAY_MS
    scarce = (told["came"] >= 2) & (told["emptied"] >= RAN_OUT_SHARE) & (stock >= 0)
    scarce &= by_calendar(told, regular)
    scarce &= (learnt["days"] > 0) & (passed < LAPSED_TIMES * days)
    wanted = lasting_log(
        learnt["level"].astype(np.float64),
        stock.astype(np.float64),
        told["units"].astype(np.float64),
        told["full"].astype(np.float64),
        passed,
        sure_days(told, regular),
        np.minimum(elasticity, SEASON_SLOPE_MAX),
    )
    return np.where(scarce, filtered + wanted, -np.inf)


def scarce_log(
    memory: Memory,
    work: Work,
    held: RetailerLearning,
    rows: np.ndarray,
    listings: np.ndarray,
    policy: np.ndarray,
    learnt: np.ndarray,
    filtered: np.ndarray,
    elasticity: np.ndarray,
) -> np.ndarray:
    """Return float64[rows], the log price below which stock does not last, -inf where any does.

    A season says itself until when, and who asks for units wants them sold at any price.
    """
    found = lasts_log(
        work.now_ms,
        held.regular,
        memory.learnt.deliveries.take(rows),
        listings,
        learnt,
        filtered,
        elasticity,
    )
    free = (policy["season_end_ms"] > work.now_ms) | (policy["objective"] == UNITS)
    return np.where(free, -np.inf, found)


def asked_to_last(learnt: np.ndarray, listings: np.ndarray) -> np.ndarray:
    """Return bool[rows], whose price in force is one that their stock asked for.

    A pin, an arm or a guardrail may have set another, which answers nothing that sold.
    """
    known = (listings["in_force_minor"] > 0) & (listings["status_quo_minor"] > 0)
    ratio = np.maximum(listings["in_force_minor"], 1) / np.maximum(listings["status_quo_minor"], 1)
    asked = learnt["anchor"].astype(np.float64) + learnt["dither"]
    near = np.abs(np.log(ratio) - asked) < ASKED_LOG  # of NaN, where nothing was decided, none is
    return np.asarray(known & near & ((learnt["flags"] & LASTS) != 0))


def lasted(
    learnt: np.ndarray, listings: np.ndarray, apart_log: np.ndarray, absent: np.ndarray
) -> np.ndarray:
    """Return which rows sold at, or are still compared with, a price that their stock asked for.

    It rises after good sales and falls after poor ones, and sales become usual again by themselves.

    Args:
        apart_log: float64[rows], how far the period's price is from what its sales are compared
            with.
        absent: bool[rows], nothing was told of the period.
    """
    apart = (np.abs(apart_log) >= ASKED_LOG) | absent
    return np.asarray(asked_to_last(learnt, listings) | (((learnt["flags"] & LASTED) != 0) & apart))


def restocked(memory: Memory, work: Work, rows: np.ndarray, listings: np.ndarray) -> np.ndarray:
    """Return bool[rows], whose stock is another than sales had left, where their price follows it:
    in a season, and at a delivery that stock was to last until.
    """
    found = np.zeros(len(rows), dtype=bool)
    if work.recounted:
        found = np.isin(rows, np.concatenate(work.recounted))
        at = np.flatnonzero(found)
        ends_ms = policies_of(memory, rows[at], listings.take(at))["season_end_ms"]
        found[at] = ends_ms > work.now_ms
    if work.delivered:
        was = (memory.learnt.rows["flags"][rows] & LASTS) != 0
        found |= was & np.isin(rows, np.concatenate(work.delivered))
    return found
