"""Rivals' offers from a block of facts: found their place, screened, stored."""

import numpy as np
from msgspec import Struct

from engine.currencies import NO_ROOM, currencies_used_up
from engine.deduplication import FEW_CELLS, last_of, newest, stable_order
from engine.listing_table import put, taken
from engine.memory import Memory, Work
from engine.microbatch import FactColumns
from engine.narrow import alike
from engine.rivals import (
    OFFER_DTYPE,
    OFFER_IN_STOCK,
    OFFER_NEW,
    OFFER_UNPROVEN,
    OFFER_USED,
    OFFERS_MAX,
    converted,
    median,
    tenured,
    unseen_offers,
)
from engine.screening import WHY, Evidence, bare, release, screen
from kernels.limits import PRICE_MINOR_MAX

ROUNDS = 3
"""How often, in one block, an offer that is quarantined gives way to the one before it."""


UNJUDGED = (
    f"/price_minor: came in one block with {ROUNDS} later prices of this rival and source that "
    "were quarantined; send what it asks now"
)
"""Why an offer behind too many quarantined ones is not looked at."""


class Applied(Struct, frozen=True, eq=False):
    """What became of the offers of a block."""

    late: np.ndarray  # boolean, an element an offer
    duplicate: np.ndarray
    touched: np.ndarray  # positions in the block of the facts that changed what we believe
    refused: list[tuple[np.ndarray, str, str]]  # positions in the block, verdict, reason


def apply_offers(
    memory: Memory, work: Work, facts: FactColumns, rows: np.ndarray, which: np.ndarray
) -> Applied:
    """Apply the rivals' prices among ``facts`` that stand at ``which``."""
    listings = memory.listings.listings
    row, rival, observed = (column.take(which) for column in (rows, facts.rival, facts.observed_ms))
    sources, currencies = facts.source.take(which), facts.currency.take(which)
    retailer = np.zeros(len(row), dtype=np.int64)  # of offers that name neither nobody asks
    if np.count_nonzero(sources) or np.count_nonzero(currencies):
        retailer = listings["retailer"][row].astype(np.int64)
    source = memory.rivals.source_numbers(retailer, sources, memory.sources_max)
    landed = facts.amount.take(which) + facts.shipping_minor.take(which)
    possible = landed <= PRICE_MINOR_MAX
    # What is refused gives no currency a number, for there are few and all retailers share them.
    codes = np.where(possible, currencies, 0)
    currency = memory.currencies.numbers_of_codes(retailer, codes)
    if np.count_nonzero(currency):
        currency = np.where(currency == listings["currency"][row], 0, currency)
    flags = facts.flags.take(which) & (OFFER_IN_STOCK | OFFER_NEW)
    refused: list[tuple[np.ndarray, str, str]] = []

    if np.count_nonzero(possible) < len(possible):
        reason = "/shipping_minor: price and shipping together are more than a price may be"
        refused.append((which[~possible], "rejected", reason))
    nameless = currency == NO_ROOM
    if np.count_nonzero(nameless):
        reason = currencies_used_up()
        refused.append((which[nameless], "rejected", reason))
        possible &= ~nameless
    offers = memory.rivals.offers_of(row)
    at = memory.rivals.find(offers, rival, source)
    stood = at >= 0
    full, displaced = np.zeros(len(at), dtype=bool), False
    if np.count_nonzero(stood) < len(stood):
        full, displaced = _make_places(memory, at, row, rival, source, possible, work.now_ms)
    if np.count_nonzero(full):
        reason = f"/rival: the listing has {OFFERS_MAX} fresh offers already; send fewer rivals"
        refused.append((which[full], "rejected", reason))

    if displaced:
        held = _held(memory.rivals.offers_of(row), at)
    else:
        held = _held(offers, np.where(stood, at, -1))
        begun = ((at >= 0) & ~stood).nonzero()[0]
        if len(begun):
            put(held, begun, unseen_offers(rival[begun], source[begun]))
    cells = np.where((at >= 0) & possible, row * OFFERS_MAX + at, -1 - np.arange(len(at)))
    judged = newest(
        cells,
        observed,
        _said(landed, currency, flags),
        held["observed_ms"],
        _said(held["landed_minor"], held["currency"], held["flags"]),
    )
    usable = (at >= 0) & possible
    # What is older than another of its block is late only if that other one is believed.
    overtaken = judged.late & (observed > held["observed_ms"])
    candidates = (judged.effective | overtaken) & usable
    late = judged.late & ~overtaken
    order = stable_order(observed)
    touched = []
    for _ in range(ROUNDS):
        last = np.sort(order[last_of(cells[order], candidates[order])])
        if not len(last):
            break
        fresh = np.zeros(len(last), dtype=OFFER_DTYPE)
        fresh["rival"], fresh["source"] = rival[last], source[last]
        fresh["observed_ms"], fresh["landed_minor"] = observed[last], landed[last]
        fresh["currency"], fresh["flags"] = currency[last], flags[last] | OFFER_USED
        why = _screen_and_store(memory, work, row[last], at[last], fresh)
        believed = why == 0
        touched.append(last[believed])
        for code in sorted(set(why[~believed].tolist())):
            refused.append((which[last[why == code]], "quarantined", _reason(code)))
        # An offer before the quarantined one, in the same block, may be believed instead.
        candidates[last] = False
        rest = candidates.nonzero()[0]
        if not len(rest):
            break
        # Each that is left has the last of its cell behind it: all settled where all are believed.
        settled = rest
        if np.count_nonzero(believed) < len(believed):
            settled = rest[np.isin(cells[rest], cells[last[believed]])]
        late[settled] |= overtaken[settled]
        candidates[settled] = False
    if np.count_nonzero(candidates):
        refused.append((which[candidates], "quarantined", UNJUDGED))
    if len(touched) > 1:  # each piece is in order by itself
        touched = [np.sort(np.concatenate(touched))]
    return Applied(
        late & usable,
        judged.duplicate & usable,
        which[touched[0]] if touched else which[:0],
        refused,
    )


def _make_places(
    memory: Memory,
    at: np.ndarray,
    row: np.ndarray,
    rival: np.ndarray,
    source: np.ndarray,
    possible: np.ndarray,
    now_ms: int,
) -> tuple[np.ndarray, bool]:
    """Write into ``at`` where offers that stand nowhere shall stand.

    Returns which find no room, and whether any may have displaced another.
    """
    wanted = ((at < 0) & possible).nonzero()[0]
    if len(wanted) == 1:  # nothing to put in order
        places = memory.rivals.take_places(row[wanted], rival[wanted], source[wanted])
        at[wanted] = places
        return _crowded(memory, at, row, rival, source, wanted, now_ms)
    order = wanted  # by row, rival and source; equal ones stay in the order of the log
    if len(wanted) <= FEW_CELLS:
        order = order[np.lexsort((source[order], rival[order], row[order]))]
    else:
        for of in (source, rival):
            named = of[order]
            if np.count_nonzero(named[1:] != named[:-1]):
                order = order[np.argsort(named, kind="stable")]
        order = order[stable_order(row[order])]
    begins = np.zeros(len(order), dtype=bool)
    begins[:1] = True
    for of in (row, rival, source):
        named = of[order]
        begins[1:] |= named[1:] != named[:-1]
    # Facts of one offer share its place; the first of them says in which order places are given.
    offer = np.empty(len(at), dtype=np.int64)
    offer[order] = begins.cumsum() - 1
    firsts = order[begins]
    by_row = (row[firsts] * len(at) + firsts).argsort()
    places = np.empty(len(firsts), dtype=np.int64)
    firsts = firsts[by_row]
    places[by_row] = memory.rivals.take_places(row[firsts], rival[firsts], source[firsts])
    at[wanted] = places[offer[wanted]]
    return _crowded(memory, at, row, rival, source, wanted, now_ms)


def _crowded(
    memory: Memory,
    at: np.ndarray,
    row: np.ndarray,
    rival: np.ndarray,
    source: np.ndarray,
    wanted: np.ndarray,
    now_ms: int,
) -> tuple[np.ndarray, bool]:
    """Return what :func:`_make_places` does, of those that ``wanted`` a place and may have none."""
    full = np.zeros(len(at), dtype=bool)
    crowded = wanted[at[wanted] < 0]
    if len(crowded):
        full[crowded] = _displace(memory, at, row, rival, source, crowded, now_ms)
    return full, len(crowded) > 0


def _displace(
    memory: Memory,
    at: np.ndarray,
    row: np.ndarray,
    rival: np.ndarray,
    source: np.ndarray,
    crowded: np.ndarray,
    now_ms: int,
) -> np.ndarray:
    """Place offers of listings that are full, one by one: each may displace the oldest stale one.

    Returns which of ``crowded`` find no room.
    """
    stale_ms = memory.groups.policy["rival_stale_ms"]
    made: dict[tuple[int, int, int], int] = {}
    for one in crowded.tolist():
        key = (int(row[one]), int(rival[one]), int(source[one]))
        if key not in made:
            group = memory.listings.listings["group"][key[0]]
            place = memory.rivals.room(key[0], now_ms - int(stale_ms[group]))
            made[key] = place
            if place >= 0:
                unseen = unseen_offers(rival[one : one + 1], source[one : one + 1])
                memory.rivals.put(np.array([key[0]]), np.array([place]), unseen)
        at[one] = made[key]
    return np.asarray(at[crowded] < 0)


def _held(offers: np.ndarray, at: np.ndarray) -> np.ndarray:
    placed = (at >= 0).nonzero()[0]
    found = taken(offers.reshape(-1), placed * offers.shape[1] + at[placed])
    if len(placed) == len(at):
        return found
    held = np.zeros(len(at), dtype=OFFER_DTYPE)
    put(held, placed, found)
    return held


def _said(landed: np.ndarray, currency: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """Return int64, equal where two offers say the same."""
    said = landed.astype(np.int64) | currency.astype(np.int64) << 32
    return said | (flags & (OFFER_IN_STOCK | OFFER_NEW)).astype(np.int64) << 48


def _screen_and_store(
    memory: Memory, work: Work, row: np.ndarray, at: np.ndarray, fresh: np.ndarray
) -> np.ndarray:
    """Screen offers, at most one a place, and store them; return why each is not believed."""
    listings = memory.listings.listings
    policy = taken(memory.groups.policy, listings["group"][row])
    recent_ms = work.now_ms - policy["rival_stale_ms"]
    held = memory.rivals.held(row, at)
    held_minor = _minor(memory, row, held[:, None])[:, 0]
    held_fresh = held["observed_ms"] > recent_ms
    level = np.zeros(len(row))
    which = bare(held, held_minor, held_fresh)
    if len(which):
        level[which] = _level(memory, row[which], fresh["rival"][which], recent_ms[which])
    # What other sources say of a rival need not be looked for where nobody names one.
    offers = np.empty((len(row), 0), dtype=OFFER_DTYPE)
    if memory.rivals.sourced:
        offers = memory.rivals.offers_of(row)
    dissent = offers["rival"] == fresh["rival"][:, None]
    dissent &= offers["source"] != fresh["source"][:, None]
    dissent &= (offers["observed_ms"] > recent_ms[:, None]) & (offers["flags"] >= OFFER_USED)
    evidence = Evidence(
        held=held,
        held_minor=held_minor,
        held_fresh=held_fresh,
        level_minor=level,
        others=offers,
        others_minor=_minor(memory, row, offers),
        dissent=dissent,
        policy=policy,
    )
    landed = _minor(memory, row, fresh[:, None])[:, 0]
    screened = screen(landed, fresh["observed_ms"], fresh, evidence)
    why, stored = screened.why, screened.offers
    # What cannot be compared anyway (used, sold out) is kept as it is told, but proves nothing.
    comparable = (fresh["flags"] & (OFFER_IN_STOCK | OFFER_NEW)) == OFFER_IN_STOCK | OFFER_NEW
    kept = (why > 0) & ~comparable
    if np.count_nonzero(kept):
        put(stored, kept.nonzero()[0], fresh[kept])
        stored["flags"][kept] |= OFFER_UNPROVEN
        why[kept] = 0
    stored["flags"] = tenured(held, stored, why == 0, work.now_ms)
    memory.rivals.put(row, at, stored)
    memory.unsaved[row] = True
    work.changed.append(stored)
    for one in (screened.confirms >= 0).nonzero()[0].tolist():
        column = screened.confirms[one : one + 1]
        confirmed = release(memory.rivals.offers_of(row[one : one + 1])[0, column])
        memory.rivals.put(row[one : one + 1], column, confirmed)
        work.changed.append(confirmed.tobytes())
    return why


def _minor(memory: Memory, row: np.ndarray, offers: np.ndarray) -> np.ndarray:
    """Return float64[rows, offers], landed prices in the listing's currency; 0: without a rate."""
    if not np.count_nonzero(offers["currency"]):
        return np.asarray(offers["landed_minor"].astype(np.float64))
    listings = memory.listings.listings
    retailer, own = listings["retailer"][row], listings["currency"][row]
    return np.asarray(
        offers["landed_minor"] * converted(offers, memory.currencies, retailer, own)[0]
    )


def _level(memory: Memory, row: np.ndarray, rival: np.ndarray, recent_ms: np.ndarray) -> np.ndarray:
    """Return float64[rows], what others than ``rival`` say a listing is worth, else our own prices.

    Args:
        row: int64[rows], the listings, which may repeat.
        rival: uint64[rows].
        recent_ms: int64[rows], since when offers are fresh.
    """
    offers = memory.rivals.offers_of(row)
    minor = _minor(memory, row, offers)
    proven = (offers["flags"] & (OFFER_USED | OFFER_UNPROVEN)) == OFFER_USED
    proven &= (offers["observed_ms"] > alike(recent_ms)) & (offers["rival"] != rival[:, None])
    level = median(minor, proven & (minor > 0.0))
    for name in ("in_force_minor", "status_quo_minor", "rrp_minor"):
        nothing = (level <= 0.0).nonzero()[0]
        if not len(nothing):
            break
        level[nothing] = memory.listings.listings[name][row[nothing]]
    return level


def _reason(code: int) -> str:
    return (
        f"/price_minor: {WHY[code]}; quarantined until another source says the same or this one "
        "repeats it"
    )
