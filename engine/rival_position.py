"""Where a retailer wants a listing to stand against its reference rival, and how it gets there.

A *position* is a ratio of the reference: at 1.0 a listing matches its rival, at .99 it stands one
per cent below. It replaces the wish of the model or of learnt demand, never a guardrail. Who goes
all the way at every answer of a bot falls with it within seconds, so a listing goes by *steps*: one
leaves ``rival_damping`` of the gap, in logarithms, and the next comes ten minutes after a change of
price, by the listing's own timer. Steps make a fall slower and do not stop it; that is the business
of ``engine.brake``.

All of it follows from the price in force, its changes and the reference: a position has no state.
"""

import numpy as np
from msgspec import Struct

from engine import pricing
from engine.brake import limit_minor
from engine.legal import neighbours
from engine.listing_table import NEVER, SLOT_MS
from engine.policy import BASIS_POINTS
from kernels import reasons
from kernels.hyperparameters import REST_LOG, REST_MINOR


class Positions(Struct, frozen=True, eq=False):
    """The rows that a position holds, one element a row of ``at``."""

    at: np.ndarray  # places among the rows asked about
    goal_minor: np.ndarray  # float64, where the listing shall stand, as the brake lets it
    asked_minor: np.ndarray  # float64, where this look may bring it
    unbraked_minor: np.ndarray  # float64, where it would without the brake
    doubted: np.ndarray  # bool, its rival may be ourselves, so it stays


def asks(policy: np.ndarray, held_minor: np.ndarray | None) -> np.ndarray:
    """Return bool[rows], whose policy names a position; an arm that holds a price goes before it.

    Args:
        policy: POLICY_DTYPE[rows].
        held_minor: int64[rows], see :class:`engine.arms.Arms`; ``None``: there are no arms.
    """
    asked = policy["rival_position_bp"] > 0
    return np.asarray(asked if held_minor is None else asked & (held_minor == 0))


def pull_bp(asked: np.ndarray, kvi: np.ndarray, policy: np.ndarray) -> np.ndarray:
    """Return int64[rows], the ratio at which a rival pulls a price along, 0: none does.

    Of a key value item with a position both may, and the lower one does.
    """
    if not np.count_nonzero(asked | kvi):
        return np.zeros(len(asked), dtype=np.int64)
    bound = np.where(kvi, policy["kvi_rival_ratio_bp"], BASIS_POINTS * BASIS_POINTS)
    position = np.where(asked, policy["rival_position_bp"], BASIS_POINTS * BASIS_POINTS)
    return np.where(asked | kvi, np.minimum(bound, position), 0).astype(np.int64)


def positions_of(
    listings: np.ndarray,
    policy: np.ndarray,
    asked: np.ndarray,
    rival_minor: np.ndarray,
    braked_minor: np.ndarray,
    now_ms: int,
) -> Positions | None:
    """Return what positions ask for, ``None`` where they hold no row: without a rival none does.

    Args:
        listings: LISTING_DTYPE[rows], their counts of changes brought to ``now_ms``.
        policy: POLICY_DTYPE[rows].
        asked: bool[rows], see :func:`asks`.
        rival_minor: int32[rows], the reference, 0: none.
        braked_minor: int32[rows], see ``engine.brake``; 0: off.
    """
    if not np.count_nonzero(asked):
        return None
    at = (asked & (rival_minor > 0)).nonzero()[0]
    if not len(at):
        return None
    price = listings["in_force_minor"][at].astype(np.float64)
    unbraked = limit_minor(rival_minor[at], policy["rival_position_bp"][at]).astype(np.float64)
    goal = np.maximum(unbraked, braked_minor[at])
    damping, endings = policy["rival_damping_bp"][at] / BASIS_POINTS, policy["endings"][at]
    doubted = listings["own"][at] == 0
    unknown = np.flatnonzero(doubted)
    doubted[unknown] = under_way(price[unknown], goal[unknown], endings[unknown])
    stays = doubted | _lately(listings, at, now_ms)
    to = np.where(stays, price, stepped(price, goal, damping, endings))
    free = to.copy()
    braked = np.flatnonzero((goal > unbraked) & ~stays)
    if len(braked):
        free[braked] = stepped(price[braked], unbraked[braked], damping[braked], endings[braked])
    return Positions(at, goal, to, free, doubted)


def stepped(
    price: np.ndarray, goal: np.ndarray, damping: np.ndarray, endings: np.ndarray
) -> np.ndarray:
    """Return float64[rows], where one step leads that leaves a share of the gap.

    A step is never so small that rounding undoes it, and takes along what would not be worth
    another. A first price has no gap.

    Args:
        price: float64[rows], the price in force, 0: none.
        goal: float64[rows].
        damping: float64[rows].
        endings: int32[rows, endings], codes of ``engine.policy``.
    """
    asked = np.where(price > 0.0, price, goal)
    at = np.flatnonzero(under_way(price, goal, endings))
    before, aim, ends = price[at], goal[at], endings[at]
    left = damping[at] * np.log(before / aim)
    to = aim * np.exp(left)
    lands = (np.abs(left) <= REST_LOG) | (np.abs(to - aim) <= REST_MINOR)
    to = np.where(lands, aim, to)
    # The least that is a move at all, where a step is rounded to the price in force.
    small = np.flatnonzero(nearest(to, ends) == before)
    if len(small):
        here, ends = before[small], ends[small]
        down, up = neighbours(here - 1.0, ends)[0], neighbours(here, ends)[1]
        to[small] = np.where(aim[small] < here, np.maximum(down, 1.0), up)
    asked[at] = to
    return asked


def under_way(price: np.ndarray, goal: np.ndarray, endings: np.ndarray) -> np.ndarray:
    """Return bool[rows], whether a price has still some way to go that rounding does not undo."""
    far = np.abs(np.log(np.maximum(price, 1.0) / goal)) > REST_LOG
    at = np.flatnonzero(far & (price > 0.0))
    found = np.zeros(len(price), dtype=bool)
    found[at] = nearest(goal[at], endings[at]) != price[at]
    return found


def nearest(price: np.ndarray, endings: np.ndarray) -> np.ndarray:
    """Return float64[rows], the legal price nearest to another; of two equally near the lower."""
    legal = np.maximum(np.rint(price), 1.0)
    at = np.flatnonzero((endings > 0).any(axis=1))
    if len(at):
        asked = legal[at]
        below, above = neighbours(asked, endings[at])
        legal[at] = np.where((below > 0.0) & (asked - below <= above - asked), below, above)
    return np.asarray(legal)


def next_step_ms(
    positions: Positions, listings: np.ndarray, policy: np.ndarray, now_ms: int
) -> np.ndarray:
    """Return int64[of positions], when each listing may take its next step; NEVER: it needs none.

    A listing that was free to step and did not move is kept by something else, which will wake it.

    Args:
        listings: LISTING_DTYPE[rows], with the price that is in force now.
        policy: POLICY_DTYPE[rows].
    """
    due_ms = np.full(len(positions.at), NEVER)
    waits = _lately(listings, positions.at, now_ms) & (listings["own"][positions.at] != 0)
    which = np.flatnonzero(waits)
    at = positions.at[which]
    price = listings["in_force_minor"][at].astype(np.float64)
    goes = under_way(price, positions.goal_minor[which], policy["endings"][at])
    # From then on no change is in the running slot or the one before it.
    slots = np.where(listings["changes"][at, 0] > 0, 2, 1)
    counted_out_ms = (listings["change_slot"][at].astype(np.int64) + slots) * SLOT_MS
    next_ms = np.minimum(listings["price_ms"][at] + SLOT_MS, counted_out_ms)
    due_ms[which] = np.where(goes, next_ms, NEVER)
    return due_ms


def _lately(listings: np.ndarray, at: np.ndarray, now_ms: int) -> np.ndarray:
    """Return bool[of ``at``], whose price we changed within ten minutes.

    By the newest word on the price, as long as our change is in the running slot or the one before
    it: a channel that confirms prices all the time must not keep them from ever moving.
    """
    changed = (listings["changes"][at, 0] > 0) | (listings["changes"][at, 1] > 0)
    return np.asarray(changed & (now_ms - listings["price_ms"][at] < SLOT_MS))


def note_brake(inputs: np.ndarray, priced: np.ndarray, positions: Positions) -> None:
    """Let the rows that only the brake keeps above their positions name it as what binds them.

    Args:
        inputs: PRICING_INPUT_DTYPE[rows].
        priced: PRICED_DTYPE[rows]; changed.
    """
    kept = positions.unbraked_minor < positions.asked_minor
    kept &= priced["binding"][positions.at] == reasons.BINDING_NONE
    kept &= priced["price_minor"][positions.at] > 0
    if not kept.any():
        return
    at = positions.at[kept]
    free = inputs.take(at)
    free["asked_minor"], free["braked_minor"] = positions.unbraked_minor[kept], 0
    without = pricing.price(free)["price_minor"]
    lower = (without > 0) & (without < priced["price_minor"][at])
    priced["binding"][at[lower]] = reasons.BRAKE
    priced["without_minor"][at[lower]] = without[lower]
