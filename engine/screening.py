"""Which rivals' prices are believed at once, and which must be seen again first.

A price that does not fit the evidence is quarantined: it changes nothing, and is remembered beside
the offer that is believed. It is released when another source says the same, or when the same
source repeats it; the further it lies off, the longer that takes, and a price ten times off is
never believed for being repeated. A move is a difference of logarithms, so halving and doubling
weigh the same.
"""

import numpy as np
from msgspec import Struct

from engine.listing_table import copied, put, taken
from engine.rivals import OFFER_UNPROVEN, OFFER_USED
from kernels.hyperparameters import (
    ABSURD_LOG,
    REPEAT_FAR_MINUTES,
    REPEAT_FAR_TIMES,
    REPEAT_LOG,
    REPEAT_MINUTES,
    REPEAT_SLOPE_MINUTES,
    SAME_LOG,
    SPREAD_GAIN,
    SPREAD_START,
)

BELIEVED, BAND, SPREAD, SLOPE, SOURCES = range(5)
"""Why a price is not believed; the later ones are looked at only if the earlier ones pass."""

WHY = (
    "",
    "lies outside screening_low to screening_high of what is known",
    "moves further than this rival usually does (screening_mad_factor)",
    "moves faster than screening_slope_per_hour allows",
    "moves more than screening_sources_move and no other source confirms it",
)

SPREAD_UNIT = 200.0
"""A rival's usual move is kept in a byte, in two-hundredths of a logarithm."""

HOUR_MS = 3_600_000.0
MINUTES_MODULO = 65_536


class Screened(Struct, frozen=True, eq=False):
    """What became of some offers, one element an offer."""

    why: np.ndarray  # uint8, BELIEVED or the check that failed
    offers: np.ndarray  # OFFER_DTYPE, to be stored either way
    confirms: np.ndarray  # int64, column of another source's suspect that this offer confirms, -1


class Evidence(Struct, frozen=True, eq=False):
    """What is known beside the offers themselves, one element an offer; money as float64."""

    held: np.ndarray  # OFFER_DTYPE, the offer that is believed so far; not USED: none
    held_minor: np.ndarray  # its landed price in the listing's currency
    held_fresh: np.ndarray  # boolean
    level_minor: np.ndarray  # what others say it is worth, 0: nobody; asked of :func:`bare` ones
    others: np.ndarray  # OFFER_DTYPE[n, offers], all offers of the listing
    others_minor: np.ndarray  # float64[n, offers], in the listing's currency
    dissent: np.ndarray  # boolean[n, offers], fresh, of the same rival and another source
    policy: np.ndarray  # POLICY_DTYPE[n]


def screen(
    landed_minor: np.ndarray, observed_ms: np.ndarray, fresh: np.ndarray, evidence: Evidence
) -> Screened:
    """Judge offers, at most one for each place.

    Args:
        landed_minor: float64[n], price and shipping in the listing's currency; 0: the rate is
            unknown, then there is nothing to compare and the rate itself fails closed later.
        observed_ms: int64[n].
        fresh: OFFER_DTYPE[n], the offers as they would be stored; the bookkeeping is filled in.
    """
    policy, held = evidence.policy, evidence.held
    known = _known(held, evidence.held_minor)
    move = _log_ratio(landed_minor, evidence.held_minor, known)
    off, use_level = move.copy(), np.zeros(len(move), dtype=bool)
    # An offer that went stale is weaker evidence than what others say today: the nearer counts.
    at = bare(held, evidence.held_minor, evidence.held_fresh)
    if len(at):
        level = evidence.level_minor[at]
        from_level = _log_ratio(landed_minor[at], level, level > 0.0)
        nearer = (level > 0.0) & (np.abs(from_level) < np.abs(move[at]))
        use_level[at] = ~known[at] | (~evidence.held_fresh[at] & nearer)
        off[at] = np.where(use_level[at], from_level, move[at])
    size = np.abs(off)

    hours = np.maximum((observed_ms - held["observed_ms"]) / HOUR_MS, 0.0)
    slope = policy["screening_slope_per_hour"].astype(np.float64)
    spread = np.maximum(held["spread"] / SPREAD_UNIT, SPREAD_START)
    climbed = held["climb"].astype(np.float64)
    climb = np.sign(climbed) * np.maximum(np.abs(climbed) - slope * hours, 0.0) + move

    outside = (off < np.log(policy["screening_low"])) | (off > np.log(policy["screening_high"]))
    why = np.zeros(len(off), dtype=np.uint8)
    alone, agreeing, confirms = _other_sources(landed_minor, evidence)
    judged = known & ~use_level
    # The longer nobody looked, the further a price may have gone; what is stale bounds nothing.
    spread_limit = policy["screening_mad_factor"] * spread * (1.0 + np.minimum(hours / 672.0, 0.25))
    steepest = slope * np.maximum(hours, 1.0)
    contradicted = ~alone & (size > policy["screening_sources_move"])
    contradicted &= agreeing + 1 < policy["screening_sources"]
    why[contradicted] = SOURCES
    why[judged & (np.abs(climb) > steepest)] = SLOPE
    why[judged & evidence.held_fresh & (size > spread_limit)] = SPREAD
    why[outside] = BAND

    minute = observed_ms // 60_000 % MINUTES_MODULO
    suspected, same, again, first, times = _repeats(landed_minor, minute, why, outside, evidence)
    repeated = again & (times >= np.where(outside, REPEAT_FAR_TIMES, 2)) & (size < ABSURD_LOG)
    confirmed = (why != BELIEVED) & ((agreeing > 0) | (repeated & ~contradicted))
    why[confirmed] = BELIEVED
    believed = why == BELIEVED
    # What was confirmed may stay, but its climb is not forgotten at once.
    if np.count_nonzero(confirmed):
        climb = np.where(confirmed, np.clip(climb, -slope, slope), climb)

    offers = copied(held)
    replaced = (believed | ~known).nonzero()[0]
    put(offers, replaced, taken(fresh, replaced))
    # What is believed: learn how much this rival moves, and keep the suspect beside the new price.
    kept = believed & known & suspected & ~same
    offers["climb"] = np.where(believed, np.where(known, climb, 0.0), held["climb"])
    learnt = np.where(known, spread + SPREAD_GAIN * (np.abs(move) - spread), SPREAD_START)
    coded = np.minimum(np.rint(np.maximum(learnt, SPREAD_START) * SPREAD_UNIT), 255.0)
    offers["spread"] = np.where(believed, coded, held["spread"])
    # What is not: an offer that was never believed stands there unproven, its price the suspect's.
    offers["flags"] |= np.where(~believed & ~known, OFFER_UNPROVEN, 0).astype(np.uint8)
    offers["suspect"] = np.where(
        believed,
        np.where(kept, held["suspect"] - move, 0.0),
        np.where(known, np.where(same, held["suspect"], move), 0.0),
    )
    offers["suspect_times"] = np.where(believed, np.where(kept, held["suspect_times"], 0), times)
    # A suspect was first seen when the earliest word of it was; later sightings count from there.
    offers["suspect_minute"] = np.where(
        (believed & kept) | (~believed & same & ~again & ~first), held["suspect_minute"], minute
    )
    return Screened(why, offers, np.where(believed, confirms, -1))


def bare(held: np.ndarray, held_minor: np.ndarray, held_fresh: np.ndarray) -> np.ndarray:
    """Return int64[m], the offers for which it counts what others say: nothing known is fresh.

    Args:
        held, held_minor, held_fresh: as in :class:`Evidence`.
    """
    return np.asarray((~(_known(held, held_minor) & held_fresh)).nonzero()[0])


def _known(held: np.ndarray, held_minor: np.ndarray) -> np.ndarray:
    """Return boolean[n], for which offers a price is believed already that can be compared."""
    known = (held["flags"] & (OFFER_USED | OFFER_UNPROVEN)) == OFFER_USED
    return np.asarray(known & (held_minor > 0.0))


def _repeats(
    landed_minor: np.ndarray,
    minute: np.ndarray,
    why: np.ndarray,
    outside: np.ndarray,
    evidence: Evidence,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return how offers stand to the suspects that wait beside what is believed.

    Boolean each: whether there is one, whether the offer says the same, whether it says so late
    enough to count, and whether it was observed before a suspect that was seen once; and int64, how
    often the suspect was seen, this time included.
    """
    held = evidence.held
    if not np.count_nonzero(held["suspect_times"]):  # mostly nothing is quarantined
        nothing = np.zeros(len(held), dtype=bool)
        return nothing, nothing, nothing, nothing, np.ones(len(held), dtype=np.int64)
    unproven = (held["flags"] & OFFER_UNPROVEN) != 0
    suspect_minor = evidence.held_minor * np.where(unproven, 1.0, np.exp(held["suspect"]))
    suspected = (held["suspect_times"] > 0) & (suspect_minor > 0.0)
    again_log = np.abs(_log_ratio(landed_minor, suspect_minor, suspected))
    same = suspected & (again_log <= REPEAT_LOG)
    waited = (minute - held["suspect_minute"]) % MINUTES_MODULO
    # What was observed before the suspect comes after it in a block: it has waited for nothing.
    earlier = waited > MINUTES_MODULO // 2
    waited = np.where(earlier, 0, waited)
    wait = np.where(why == SLOPE, REPEAT_SLOPE_MINUTES, REPEAT_MINUTES)
    again = same & (waited >= np.where(outside, REPEAT_FAR_MINUTES, wait))
    times = np.where(same, np.minimum(held["suspect_times"].astype(np.int64) + again, 255), 1)
    return suspected, same, again, earlier & (held["suspect_times"] == 1), times


def _other_sources(
    landed_minor: np.ndarray, evidence: Evidence
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return whether no other source speaks of the rival, how many agree, and a suspect confirmed.

    The last is a column of ``others``, -1: none.
    """
    count = len(landed_minor)
    if not np.count_nonzero(evidence.dissent):  # mostly one source speaks of a rival
        return np.ones(count, dtype=bool), np.zeros(count, np.int64), np.full(count, -1)
    # Without a rate there is no figure to compare: such an offer says nothing, for or against.
    dissent = evidence.dissent & (evidence.others_minor > 0.0) & (landed_minor > 0.0)[:, None]
    near = np.maximum(evidence.policy["screening_sources_move"], SAME_LOG)[:, None]
    landed = np.broadcast_to(landed_minor[:, None], dissent.shape)
    unproven = (evidence.others["flags"] & OFFER_UNPROVEN) != 0
    said = dissent & ~unproven
    agree = said & (np.abs(_log_ratio(landed, evidence.others_minor, said)) <= near)
    suspect_minor = evidence.others_minor * np.where(
        unproven, 1.0, np.exp(evidence.others["suspect"])
    )
    suspected = dissent & (evidence.others["suspect_times"] > 0)
    confirm = suspected & (np.abs(_log_ratio(landed, suspect_minor, suspected)) <= near)
    confirms = np.where(confirm.any(axis=1), confirm.argmax(axis=1), -1)
    return ~said.any(axis=1), (agree | confirm).sum(axis=1), confirms


def release(offers: np.ndarray) -> np.ndarray:
    """Return the offers with their suspects believed, because another source says the same."""
    released = copied(offers)
    unproven = (offers["flags"] & OFFER_UNPROVEN) != 0
    believed = offers["landed_minor"] * np.where(unproven, 1.0, np.exp(offers["suspect"]))
    released["landed_minor"] = np.maximum(np.rint(believed), 1.0)
    released["flags"] &= 255 - OFFER_UNPROVEN
    released["spread"] = np.maximum(offers["spread"], round(SPREAD_START * SPREAD_UNIT))
    released["suspect"], released["suspect_times"] = 0.0, 0
    return released


def _log_ratio(over: np.ndarray, under: np.ndarray, defined: np.ndarray) -> np.ndarray:
    defined = defined & (over > 0.0)
    return np.log(np.where(defined, over, 1.0) / np.where(defined, under, 1.0))
