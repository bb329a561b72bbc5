"""A brake on spirals: a listing whose rival answers every cut does not follow him to ruin.

The rule for key value items (KVIs) follows a rival wherever he goes, and so does a position
(``engine.rival_position``; what is said of the rule here holds for both). A rival's bot that always
asks one percent less than we do goes where we go: together they fall to the floor. Three things
tell such a rival from one who is merely cheap. A *war*: we followed him down, he cut again, we
followed, again and again, and he never regained where his last cut had found us. A *fall*: twice is
enough where the cuts are deep. *Oscillation*: deep cuts that are taken back and made again.

Then the brake is on for a while: the rule gives back a share of its way from what it allows to the
price at which the war began, never more. A rival who stays one percent below us draws us one
percent down by that, and not one percent a day: what pulls with a slope below one comes to rest.
The brake goes by cuts and by the clock alone. It does not ask whether the rival raises his price,
so it rewards nobody for raising it. In the second half of its time it eases until the rule holds in
full; whoever answers the first cut that comes of it finds the brake on again at once.
"""

import numpy as np

from engine.listing_table import put
from engine.policy import BASIS_POINTS
from kernels.hyperparameters import (
    DEEP_FALL_LOG,
    DEEP_ROUNDS,
    TURN,
    TURNS,
    WAR_FALL_LOG,
    WAR_ROUNDS,
    WAR_WINDOW_SLOTS,
    WAY,
)
from kernels.limits import PRICE_MINOR_MAX

SLOT_MS = 600_000
"""Wars and brakes are timed in slots of ten minutes."""

SLOT_MAX = 2**31 - 1


def braked_minor(
    listings: np.ndarray,
    pull_bp: np.ndarray,
    rival_minor: np.ndarray,
    policy: np.ndarray,
    now_ms: int,
) -> np.ndarray:
    """Return int32[rows], up to which price a brake lets a row go, whatever its rival asks; 0: off.

    Brings what ``listings`` remember of wars up to now.

    Args:
        listings: LISTING_DTYPE[rows].
        pull_bp: int64[rows], the ratio of its rival's price at which the rule puts a row, 0: none.
        rival_minor: int32[rows], the reference rival, 0: none.
        policy: POLICY_DTYPE[rows].
    """
    braked = np.zeros(len(listings), dtype=np.int32)
    remembered = (listings["war_slot"] > 0) | (listings["brake_slot"] > 0)
    if not np.count_nonzero(remembered):
        return braked
    at = (remembered & (pull_bp > 0) & (policy["kvi_brake_bp"] > 0)).nonzero()[0]
    if not len(at):
        return braked
    war, terms, slot = listings.take(at), policy.take(at), slot_of(now_ms)
    pull = pull_bp[at]
    limit = limit_minor(rival_minor[at], pull)
    told = limit > 0
    _forget(war, slot - war["war_slot"] > WAR_WINDOW_SLOTS)
    _regain(war, pull, told & (limit >= war["war_before_minor"]))
    lasts = np.maximum(terms["kvi_brake_ms"] // SLOT_MS, 1)
    grip = _grip(war, lasts, slot)
    pressed = told & (limit < war["in_force_minor"])
    answered = pressed & (rival_minor[at] < war["war_rival_minor"])
    begins = answered & _is_war(war, slot) | pressed & _is_oscillation(war, slot)
    begins &= grip < 1.0
    war["brake_slot"][begins] = np.minimum(slot + lasts[begins], SLOT_MAX)
    _forget(war, begins)
    war["war_top_minor"][(war["war_slot"] == 0) & ~_was_braked(war, slot)] = 0
    share = np.where(begins, 1.0, grip) * terms["kvi_brake_bp"] / BASIS_POINTS
    back = np.floor(share * np.maximum(war["war_top_minor"] - limit, 0)).astype(np.int64)
    braked[at] = np.where(told & (back > 0), limit + back, 0)
    put(listings, at, war)
    return braked


def note_follows(
    listings: np.ndarray,
    followed: np.ndarray,
    before_minor: np.ndarray,
    after_minor: np.ndarray,
    rival_minor: np.ndarray,
    policy: np.ndarray,
    now_ms: int,
) -> None:
    """Count the cuts by which we followed a rival, of rows whose brake is off or eases.

    Several steps towards one price of his are one cut.

    Args:
        followed: boolean[rows], whether a rival has just lowered the price in force.
        before_minor, after_minor: int32[rows], the price in force before and after.
    """
    slot = slot_of(now_ms)
    counts = followed & (policy["kvi_brake_bp"] > 0)
    counts &= _grip(listings, np.maximum(policy["kvi_brake_ms"] // SLOT_MS, 1), slot) < 1.0
    counts &= (listings["war_rounds"] == 0) | (rival_minor < listings["war_rival_minor"])
    at = np.flatnonzero(counts)
    if not len(at):
        return
    war = listings.take(at)
    fell = np.log(before_minor[at] / np.maximum(after_minor[at], 1))
    # The first cut is the rival's word against ours; only what follows answers what we did.
    war["war_fall"] += np.where(war["war_rounds"] > 0, fell, 0.0)
    war["war_top_minor"] = _began(war, slot, before_minor[at], fell)
    war["war_rounds"] = np.minimum(war["war_rounds"].astype(np.int64) + 1, 255)
    war["war_slot"] = np.where(war["war_slot"] > 0, war["war_slot"], slot)
    war["war_before_minor"], war["war_rival_minor"] = before_minor[at], rival_minor[at]
    put(listings, at, war)


def _began(war: np.ndarray, slot: int, before_minor: np.ndarray, fell: np.ndarray) -> np.ndarray:
    """Return int64[rows], the price at which a war began, as the cut tells that was just made.

    Before its first cut; but where that took much more than the second one, it was the way to
    somebody cheaper and no part of a war, and no brake shall undo it.
    """
    top, before = war["war_top_minor"].astype(np.int64), before_minor.astype(np.int64)
    was_way = (war["war_rounds"] == 1) & ~_was_braked(war, slot)
    was_way &= np.log(np.maximum(top, 1) / np.maximum(before, 1)) > WAY * fell
    return np.asarray(
        np.where(war["war_rounds"] == 0, np.maximum(top, before), np.where(was_way, before, top))
    )


def brake_ends_ms(listings: np.ndarray) -> np.ndarray:
    """Return int64[rows], when the newest brake of each row ends or ended."""
    return np.asarray(listings["brake_slot"].astype(np.int64) * SLOT_MS)


def slot_of(now_ms: int) -> int:
    """Return the slot of a time; 0 is never returned, for it says that nothing is remembered."""
    return int(min(max(now_ms // SLOT_MS, 1), SLOT_MAX))


def _grip(war: np.ndarray, lasts: np.ndarray, slot: int) -> np.ndarray:
    """Return float64[rows], 1 in the first half of a brake's time, then less and less, 0: off."""
    left = war["brake_slot"].astype(np.int64) - slot
    return np.asarray(np.clip(2.0 * left / lasts, 0.0, 1.0))


def _is_war(war: np.ndarray, slot: int) -> np.ndarray:
    rounds, fall = war["war_rounds"], war["war_fall"]
    slow = (rounds >= WAR_ROUNDS) & (fall >= WAR_FALL_LOG)
    deep = (rounds >= DEEP_ROUNDS) & (fall >= DEEP_FALL_LOG)
    return np.asarray(slow | deep | _was_braked(war, slot) & (rounds > 0))


def _is_oscillation(war: np.ndarray, slot: int) -> np.ndarray:
    return np.asarray(war["war_turns"] >= np.where(_was_braked(war, slot), 1, TURNS))


def _was_braked(war: np.ndarray, slot: int) -> np.ndarray:
    """Return which rows' brake is on, or was lately."""
    return np.asarray((war["brake_slot"] > 0) & (slot - war["brake_slot"] <= WAR_WINDOW_SLOTS))


def _regain(war: np.ndarray, pull_bp: np.ndarray, regained: np.ndarray) -> None:
    """End the count where the rule allows again what it allowed before its last cut."""
    regained = regained & (war["war_rounds"] > 0)
    cut_to = np.maximum(limit_minor(war["war_rival_minor"], pull_bp), 1)
    deep = regained & (war["war_before_minor"] >= TURN * cut_to)
    war["war_turns"] = np.minimum(war["war_turns"].astype(np.int64) + deep, 255)
    for name in ("war_rounds", "war_fall", "war_before_minor", "war_rival_minor"):
        war[name][regained] = 0
    war["war_slot"][regained & (war["war_turns"] == 0)] = 0


def _forget(war: np.ndarray, rows: np.ndarray) -> None:
    for name in WAR:
        war[name][rows] = 0


WAR = (
    "war_slot",
    "war_rounds",
    "war_turns",
    "war_fall",
    "war_before_minor",
    "war_rival_minor",
)
"""What a listing remembers of a war's cuts; its brake and where it began outlive them."""


def limit_minor(rival_minor: np.ndarray, pull_bp: np.ndarray) -> np.ndarray:
    """Return int64[rows], what the rule asks for without a brake; 0: nothing, there is no rival."""
    limit = rival_minor.astype(np.int64) * pull_bp // BASIS_POINTS
    limit = np.clip(limit, 1, PRICE_MINOR_MAX)
    return np.asarray(np.where(rival_minor > 0, limit, 0))
