"""The breaker: stops a retailer whose prices move too much at once, before anything is appended.

Our own engine pricing at a default is the dominant risk, so what is counted is what *would* happen.
Counts run over a window in slots, a little longer than the window rather than shorter. Each listing
counts once in its own window, against the price at the window's beginning, so that many small moves
weigh as much as one large.

Exempt are first prices, what a person approved, pinned or released, and moves of the size of an
accepted change of cost, fee or rate.
"""

import numpy as np

from engine.listing_table import put, taken
from engine.memory import Memory
from engine.retailers import COUNTS, WINDOW_SLOTS
from kernels.hyperparameters import COSTS_TRUSTED_MS, EXPLAINED_SLACK_LOG, RELEASE_SLACK, USUAL_GAIN

COUNTED_MOVED, COUNTED_FLOORED = 1, 2
"""Bits of ``window_flags``."""


def judge(
    memory: Memory,
    rows: np.ndarray,
    listings: np.ndarray,
    wanted_minor: np.ndarray,
    floor_minor: np.ndarray,
    exempt: np.ndarray,
    seen: np.ndarray,
    paced: np.ndarray,
    now_ms: int,
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Count the moves of a microbatch and say which retailers trip, and why.

    Args:
        listings: LISTING_DTYPE[n], copies; their breaker windows are brought up to date.
        wanted_minor: int32[n], the price that would be put in force; equal to the price in force
            where nothing would move.
        floor_minor: int32[n], the margin floor.
        exempt: boolean[n].
        seen: boolean[n], priced because of big work, so that the rest of it can be foreseen.
        paced: boolean[n], moves that come by a decision every few days, a whole catalogue at once:
            their size counts, their number says nothing.

    Returns:
        Retailers' numbers that trip (int64), and (number, reason) of each.
    """
    before = listings["in_force_minor"]
    changing = ((wanted_minor != before) & (before > 0)).nonzero()[0]
    if not len(changing):
        return np.empty(0, dtype=np.int64), []
    table = memory.retailers.table
    # What is usual counts every change, exempt ones too; what is judged does not.
    numbers, inverse = _distinct(listings["retailer"][changing])
    count = len(numbers)
    for number in numbers.tolist():
        _advance(table[number], now_ms)
    retailers = taken(table, numbers)  # copies; written back at the end
    unpaced = np.bincount(inverse, weights=~paced[changing], minlength=count)
    retailers["in_window"] += unpaced.astype(np.int32)
    counted = ~exempt[changing]
    moving, inverse = changing[counted], inverse[counted]
    window_ms, window_minor = listings["window_ms"][moving], listings["window_minor"][moving]
    # A row's own window begins with its first move.
    anew = now_ms - window_ms >= retailers["breaker_window_ms"][inverse]
    anew |= window_minor <= 0
    start = np.where(anew, before[moving], window_minor)
    flags = np.where(anew, 0, listings["window_flags"][moving])
    wanted = wanted_minor[moving]
    ratio = np.abs(wanted / start - 1.0)
    moved = (ratio > retailers["breaker_move"][inverse]) & (flags & COUNTED_MOVED == 0)
    floored = (wanted <= floor_minor[moving]) & (flags & COUNTED_FLOORED == 0)
    flags = flags | COUNTED_MOVED * moved | COUNTED_FLOORED * floored
    listings["window_minor"][moving] = start
    listings["window_ms"][moving] = np.where(anew, now_ms, window_ms)
    listings["window_flags"][moving] = flags

    counts = {
        "moved": np.bincount(inverse[moved], minlength=count),
        "floored": np.bincount(inverse[floored], minlength=count),
        "decided": np.bincount(inverse[~paced[moving]], minlength=count),
    }
    for name, added in counts.items():
        retailers[name][:, 0] += added.astype(np.int32)
    put(table, numbers, retailers)
    priced: np.ndarray = np.zeros(count)
    if np.count_nonzero(seen):
        priced = np.bincount(
            np.searchsorted(numbers, listings["retailer"][seen]).clip(max=count - 1),
            weights=np.isin(listings["retailer"][seen], numbers),
            minlength=count,
        )
    return _tripped(retailers, numbers, counts, priced, now_ms)


def _distinct(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct numbers, ascending, and which of them each is; mostly there is one."""
    if np.count_nonzero(numbers == numbers[0]) == len(numbers):
        return numbers[:1].copy(), np.zeros(len(numbers), dtype=np.int64)
    distinct, inverse = np.unique(numbers, return_inverse=True)
    return distinct, inverse


def _tripped(
    retailers: np.ndarray,
    numbers: np.ndarray,
    counts: dict[str, np.ndarray],
    priced: np.ndarray,
    now_ms: int,
) -> tuple[np.ndarray, list[tuple[int, str]]]:
    reasons: list[tuple[int, str]] = []
    listings = retailers["listings"].astype(np.float64)
    least = retailers["breaker_listings_min"].astype(np.float64)
    for name, share_name, says in (
        ("moved", "breaker_moved_share", "would move by more than breaker_move"),
        ("floored", "breaker_floor_share", "would go to their floors"),
    ):
        total = retailers[name].sum(axis=1).astype(np.float64)
        if not np.count_nonzero(total > least):
            continue
        # What big work has shown of its part is expected of the part that still waits.
        ahead = np.where(priced > 0, counts[name] / np.maximum(priced, 1), 0.0)
        total_ahead = total + ahead * retailers["waiting"]
        limit = np.maximum(retailers[share_name] * listings, least)
        for at in ((total_ahead > limit) & (total > least)).nonzero()[0].tolist():
            reasons.append(
                (
                    int(numbers[at]),
                    f"{int(total_ahead[at])} of {int(listings[at])} listings {says} within "
                    f"breaker_window_ms; {share_name} allows {int(limit[at])}",
                )
            )
    total = retailers["decided"].sum(axis=1).astype(np.float64)
    old = (retailers["history_ms"] >= 0) & (total > least)
    old &= now_ms - retailers["history_ms"] >= retailers["breaker_history_ms"]
    if np.count_nonzero(old):
        usual = retailers["breaker_rate_factor"] * retailers["usual"]
        limit = np.maximum(np.maximum(usual, retailers["breaker_moved_share"] * listings), least)
        ahead = np.where(priced > 0, counts["decided"] / np.maximum(priced, 1), 0.0)
        total_ahead = total + ahead * retailers["waiting"]
        for at in (old & (total_ahead > limit)).nonzero()[0].tolist():
            reasons.append(
                (
                    int(numbers[at]),
                    f"{int(total_ahead[at])} prices would change within breaker_window_ms; usual "
                    f"are {retailers['usual'][at]:.1f}, breaker_rate_factor allows "
                    f"{int(limit[at])}",
                )
            )
    if not reasons:
        return np.empty(0, dtype=np.int64), reasons
    reasons.sort()
    return np.unique(np.array([number for number, _ in reasons], dtype=np.int64)), reasons


def explained(
    wanted_minor: np.ndarray, before_minor: np.ndarray, now: np.ndarray, then: np.ndarray
) -> np.ndarray:
    """Return which moves go the way of their cause and no further than it, a little slack granted.

    Args:
        now, then: float[n], what caused the move (a unit cost, a rate), 0: unknown.
    """
    known = (now > 0.0) & (then > 0.0) & (before_minor > 0) & (wanted_minor > 0)
    if not np.count_nonzero(known):
        return known
    cause = np.log(np.where(known, now, 1.0) / np.where(known, then, 1.0))
    move = np.log(np.where(known, wanted_minor, 1) / np.where(known, before_minor, 1))
    same_way = np.sign(cause) == np.sign(move)
    moved = np.abs(cause) > 1e-6
    near = np.abs(move) <= np.abs(cause) + EXPLAINED_SLACK_LOG
    return np.asarray(known & moved & same_way & near)


def like_held(price_minor: np.ndarray, held_minor: np.ndarray) -> np.ndarray:
    """Return which prices are about what was held back."""
    return np.asarray(np.abs(price_minor - held_minor) <= RELEASE_SLACK * held_minor)


def costs_shocked(
    memory: Memory, rows: np.ndarray, cost_minor: np.ndarray, now_ms: int
) -> np.ndarray:
    """Return which costs must not be taken: too many of a retailer's change too much at once."""
    table = memory.retailers.table
    listings = memory.listings.listings.take(rows)
    retailer, before = listings["retailer"], listings["cost_minor"]
    shocked = np.zeros(len(rows), dtype=bool)
    known = before > 0
    ratio = np.abs(cost_minor / np.where(known, before, 1) - 1.0)
    large = np.flatnonzero(known & (ratio > table["cost_shock_move"][retailer]))
    if not len(large):
        return shocked
    numbers, inverse = np.unique(retailer[large], return_inverse=True)
    for number in numbers.tolist():
        _advance_costs(table[number], now_ms)
    table["shocked"][numbers, 0] += np.bincount(inverse).astype(np.int32)
    of = table.take(numbers)
    limit = np.maximum(of["cost_shock_share"] * of["costs"], of["breaker_listings_min"])
    over = (of["shocked"].sum(axis=1) > limit) & (now_ms >= of["costs_trusted_until_ms"])
    shocked[large[over[inverse]]] = True
    return shocked


def costs_doubted(
    memory: Memory, rows: np.ndarray, cost_minor: np.ndarray, now_ms: int
) -> np.ndarray:
    """Return which costs must not be taken: each by itself moves too far to be no slip.

    A floor follows its cost past every limit on steps, so a point lost on the way, or a case taken
    for a piece, would be a price ten times as high. The last cost that was believed stays.
    """
    listings = memory.listings.listings
    retailer, before = listings["retailer"][rows], listings["cost_minor"][rows]
    trusted_ms = memory.retailers.table["costs_trusted_until_ms"][retailer]
    moved = (before > 0) & (cost_minor != before) & (now_ms >= trusted_ms)
    factor = np.full(len(rows), np.inf)
    for number in np.unique(retailer[moved]).tolist():
        policy = memory.groups.book.retailer_policy(memory.retailers.ids[number])
        factor[retailer == number] = policy.cost_shock_factor
    # A cost of nothing counts as half a unit.
    cost, was = (np.maximum(of.astype(np.float64), 0.5) for of in (cost_minor, before))
    size = np.abs(np.log(cost / was))
    return np.asarray(moved & (size > np.log(factor) + 1e-9))


def reset(memory: Memory, number: int, now_ms: int) -> None:
    """Begin a retailer's windows anew: a person resumed, and his word covers costs for a while."""
    row = memory.retailers.table[number]
    for name in COUNTS:
        row[name] = 0
    row["tripped"] = 0
    row["costs_trusted_until_ms"] = now_ms + COSTS_TRUSTED_MS


def _advance(retailer: np.void, now_ms: int) -> None:
    """Bring a retailer's windows to the present slot."""
    window_ms = int(retailer["breaker_window_ms"])
    slot = now_ms * WINDOW_SLOTS // window_ms
    passed = slot - int(retailer["slot"])
    if passed:
        retailer["slot"] = slot
        for name in ("moved", "floored", "decided"):
            _shift(retailer[name], passed)
    window = now_ms // window_ms
    if window != retailer["window"]:
        if retailer["in_window"] > 0:
            usual, count = float(retailer["usual"]), float(retailer["in_window"])
            retailer["usual"] = count if usual == 0.0 else usual + USUAL_GAIN * (count - usual)
        retailer["window"], retailer["in_window"] = window, 0
    if retailer["history_ms"] < 0:
        retailer["history_ms"] = now_ms


def _advance_costs(retailer: np.void, now_ms: int) -> None:
    slot = now_ms * WINDOW_SLOTS // int(retailer["cost_shock_window_ms"])
    passed = slot - int(retailer["cost_slot"])
    if passed:
        retailer["cost_slot"] = slot
        _shift(retailer["shocked"], passed)


def _shift(counts: np.ndarray, slots: int) -> None:
    """Let ``slots`` pass: the newest stands first."""
    slots = min(slots, len(counts))
    counts[slots:] = counts[: len(counts) - slots].copy()
    counts[:slots] = 0
