"""Blocks of facts into the listing table: rivals' prices, counts, sales and costs, all at once.

A block is judged as if its facts had come one by one: which are late, which repeat what is known.
Of what is left the last of a cell wins and sales add up. What is refused says where and why.
"""

from collections.abc import Callable

import numpy as np

from engine.arms import note_sales
from engine.breaker import costs_doubted, costs_shocked
from engine.deduplication import NO_ROOM, SEEN, TOO_OLD, distinct_of, last_of, newest
from engine.deliveries import note_counts
from engine.listing_table import SALES_KEPT
from engine.memory import Counts, Memory, Work
from engine.microbatch import (
    COMPETITOR_PRICED,
    COST_CHANGED,
    STOCK_COUNTED,
    UNITS_SOLD,
    FactColumns,
    ObjectDelta,
    Position,
    facts_of,
)
from engine.offers import apply_offers
from kernels.hyperparameters import RECOUNT_SHARE
from kernels.limits import PRICE_MINOR_MAX

FUTURE_MS_MAX = 300_000
"""How far ahead of the shard's clock a fact may be observed; a later one would shut out others."""

UNITS_MAX = 2**31 - 1

COSTS_SHOCKED = (
    "/cost_minor: too many of the retailer's costs change too much at once; if they are right, "
    "send PublishingResumed and then these costs again"
)

COST_DOUBTED = (
    "/cost_minor: becomes more than cost_shock_factor times what it was, or less than that part of "
    "it; if it is right, send PublishingResumed and then this cost again"
)

AMOUNT_FIELDS = {
    COMPETITOR_PRICED: "price_minor",
    STOCK_COUNTED: "units",
    UNITS_SOLD: "units",
    COST_CHANGED: "cost_minor",
}
"""What a fact's amount is called in its delta, by kind."""

_LEAST_AMOUNT = np.zeros(256, dtype=np.int64)
_LEAST_AMOUNT[COMPETITOR_PRICED] = 1
_MOST_AMOUNT = np.full(256, PRICE_MINOR_MAX, dtype=np.int64)
_MOST_AMOUNT[[STOCK_COUNTED, UNITS_SOLD]] = UNITS_MAX
"""What an amount lies between, by kind, of whatever number a kind is."""


def apply_facts(memory: Memory, work: Work, facts: FactColumns) -> None:
    """Apply a block of facts, and note rows touched and facts refused."""
    if not len(facts):
        return
    rows = memory.listings.live_rows(facts.listing).astype(np.int64)
    sound = _sound(memory, work, facts, rows)
    touched = np.zeros(len(facts), dtype=bool)
    counts = np.bincount(facts.kind, minlength=256)  # mostly of one or two kinds
    for kind, apply in _KINDS:
        if counts[kind]:
            which = (sound & (facts.kind == kind)).nonzero()[0]
            if len(which):
                touched[apply(memory, work, facts, rows, which)] = True
    if work.counts is not None:
        _note_recounts(memory, work, work.counts, facts, rows, touched)
        work.counts = None
    which = touched.nonzero()[0]
    if len(which):
        work.touch(
            rows[which],
            facts.lane[which],
            facts.offset[which],
            facts.index[which],
            urgent=facts.kind[which] == COST_CHANGED,  # a floor may have moved
        )


def refuse(
    work: Work,
    facts: FactColumns,
    which: np.ndarray,
    verdict: str,
    reason: str | Callable[[int], str],
) -> None:
    """Refuse the facts ``which``, with one reason or one for each."""
    for fact in which.tolist():
        work.refuse(
            Position(int(facts.lane[fact]), int(facts.offset[fact]), int(facts.index[fact])),
            verdict,
            reason if isinstance(reason, str) else reason(fact),
            int(facts.listing[fact]),
        )


def without_skipped(
    work: Work, run: ObjectDelta | FactColumns, skipped: frozenset[Position]
) -> ObjectDelta | FactColumns:
    """Take out what killed two owners, and say so. An index of -1 names a whole record."""
    reason = "isolated: two owners fell while they applied it"
    if isinstance(run, ObjectDelta):
        position = run.position
        whole = Position(position.lane, position.offset, -1)
        if position in skipped or whole in skipped:
            work.refuse(position, "skipped", reason)
            return facts_of([])
        return run
    keep = np.ones(len(run), dtype=bool)
    for lane, offset, index in ((of.lane, of.offset, of.index) for of in sorted(skipped)):
        hit = (run.lane == lane) & (run.offset == offset)
        keep &= ~(hit & ((run.index == index) | (index < 0)))
    for fact in np.flatnonzero(~keep).tolist():
        position = Position(int(run.lane[fact]), int(run.offset[fact]), int(run.index[fact]))
        work.refuse(position, "skipped", reason, int(run.listing[fact]))
    return FactColumns(**{name: getattr(run, name)[keep] for name in run.__struct_fields__})


def _sound(memory: Memory, work: Work, facts: FactColumns, rows: np.ndarray) -> np.ndarray:
    """Return which facts concern a listing we know and hold possible numbers."""
    known = rows >= 0
    early = facts.observed_ms <= work.now_ms + FUTURE_MS_MAX
    possible = (facts.amount >= _LEAST_AMOUNT[facts.kind]) & (
        facts.amount <= _MOST_AMOUNT[facts.kind]
    )
    sound = known & early & possible
    if np.count_nonzero(sound) < len(sound):
        refuse(
            work,
            facts,
            np.flatnonzero(~known),
            "unknown_listing",
            "/sku: no such listing on this channel; send ListingChanged first",
        )
        refuse(
            work,
            facts,
            np.flatnonzero(known & ~early),
            "rejected",
            lambda fact: (
                f"/observed_ms: {int(facts.observed_ms[fact])} lies more than five minutes ahead "
                f"of {work.now_ms}; send the time at which it was observed"
            ),
        )
        refuse(
            work,
            facts,
            np.flatnonzero(known & early & ~possible),
            "rejected",
            lambda fact: (
                f"/{AMOUNT_FIELDS[int(facts.kind[fact])]}: {int(facts.amount[fact])} is not "
                "possible; send a positive price, or units and costs of 0 and more (what comes "
                "back is no sale: tell the stock by StockCounted)"
            ),
        )
    return _within_quota(memory, work, facts, rows, sound)


def _within_quota(
    memory: Memory, work: Work, facts: FactColumns, rows: np.ndarray, sound: np.ndarray
) -> np.ndarray:
    """Refuse what a retailer sends beyond the quota that he was given."""
    table = memory.retailers.table
    if not np.count_nonzero(table["quota"][: len(memory.retailers.ids)]):
        return sound
    retailer = memory.listings.listings["retailer"][rows]
    second = work.now_ms // 1000
    within = sound.copy()
    for number in np.unique(retailer[sound]).tolist():
        row = table[number]
        if row["quota"] == 0:
            continue
        if row["quota_second"] != second:
            row["quota_second"], row["quota_used"] = second, 0
        mine = np.flatnonzero(sound & (retailer == number))
        room = max(int(row["quota"]) - int(row["quota_used"]), 0)
        row["quota_used"] = min(int(row["quota_used"]) + len(mine), 2**31 - 1)
        if len(mine) > room:
            within[mine[room:]] = False
            refuse(
                work,
                facts,
                mine[room:],
                "rejected",
                f"the retailer's delta_quota_per_s of {int(row['quota'])} is used up; send slower",
            )
    return within


def _refuse_old(
    work: Work, facts: FactColumns, which: np.ndarray, late: np.ndarray, duplicate: np.ndarray
) -> None:
    if np.count_nonzero(late):
        refuse(
            work,
            facts,
            which[late],
            "late",
            lambda fact: (
                f"/observed_ms: {int(facts.observed_ms[fact])} is older than what is known; "
                "nothing to do"
            ),
        )
    if np.count_nonzero(duplicate):
        refuse(work, facts, which[duplicate], "duplicate", "says what is known; nothing to do")


def _set_stock(
    memory: Memory, work: Work, facts: FactColumns, rows: np.ndarray, which: np.ndarray
) -> np.ndarray:
    listings = memory.listings.listings
    row = rows[which]
    observed, units = facts.observed_ms[which], facts.amount[which]
    judged = newest(row, observed, units, listings["stock_ms"][row], listings["counted"][row])
    _refuse_old(work, facts, which, judged.late, judged.duplicate)
    last = last_of(row, judged.effective)
    row, observed = row[last], observed[last]
    unknown, since_ms = listings["counted"][row] < 0, listings["stock_ms"][row]
    before = _left(listings, row)
    listings["counted"][row] = units[last]
    listings["stock_ms"][row] = observed
    # Sales later than the count may have come before it; those we remember are subtracted again.
    sale_ms = listings["sale_ms"][row]
    later = sale_ms > observed[:, None]
    if np.count_nonzero(later):
        since = (listings["sale_units"][row] * later).sum(axis=1, dtype=np.int64)
        listings["sold_since"][row] = np.minimum(since, UNITS_MAX)
    else:
        listings["sold_since"][row] = 0
    found = _left(listings, row)
    # A count of the same moment corrects the one before it.
    sure = (sale_ms.min(axis=1) <= observed) & (observed > since_ms)
    work.counts = Counts(row, before, found, since_ms, unknown, sure)
    return np.asarray(which[last])


def _left(listings: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return :func:`engine.stock.left_of` of some rows of a table; only two columns are read."""
    return np.asarray(listings["counted"][rows].astype(np.int64) - listings["sold_since"][rows])


def _note_recounts(
    memory: Memory,
    work: Work,
    counts: Counts,
    facts: FactColumns,
    rows: np.ndarray,
    taken: np.ndarray,
) -> None:
    """Note the rows of a block that were counted at another stock than sales had left.

    Sales of the same block that the count knew of explain it, in whichever order they came.

    Args:
        taken: bool[facts], which were not refused.
    """
    if not len(counts.rows):
        return
    sold, sold_since = (np.zeros(len(counts.rows), dtype=np.int64) for _ in range(2))
    sales = (taken & (facts.kind == UNITS_SOLD)).nonzero()[0]
    row = rows[sales]
    known = (facts.observed_ms[sales] <= memory.listings.listings["stock_ms"][row]).nonzero()[0]
    if len(known):
        order = counts.rows.argsort()
        ordered, row = counts.rows[order], row[known]
        at = np.minimum(ordered.searchsorted(row), len(ordered) - 1)
        counted = (ordered[at] == row).nonzero()[0]
        at, sale = order[at[counted]], sales[known[counted]]
        np.add.at(sold, at, facts.amount[sale])
        # Those from before the last count were gone when it was made.
        new = facts.observed_ms[sale] > counts.since_ms[at]
        np.add.at(sold_since, at[new], facts.amount[sale[new]])
    left = np.maximum(np.maximum(counts.before, 0) - sold, 0)
    found = np.maximum(counts.found, 0)
    off = counts.unknown | (np.abs(found - left) > RECOUNT_SHARE * left)
    if np.count_nonzero(off):
        work.recounted.append(counts.rows[off])
    if memory.learnt.any:
        # What was sold beyond the stock that was known had come before it, in whichever microbatch.
        left = counts.before - sold_since
        more = counts.found - left
        tells = counts.unknown | (counts.sure & (more > RECOUNT_SHARE * np.maximum(left, 0)))
        tells |= off
        if np.count_nonzero(tells):
            note_counts(memory, work, counts, tells, more)


def _add_sales(
    memory: Memory, work: Work, facts: FactColumns, rows: np.ndarray, which: np.ndarray
) -> np.ndarray:
    which = _counted_once(memory, work, facts, rows, which)
    if not len(which):
        return which
    listings = memory.listings.listings
    row, observed = rows[which], facts.observed_ms[which]
    distinct, inverse = distinct_of(row)
    units = facts.amount[which]
    sold = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(sold, inverse, units)
    listings["units_sold"][distinct] += sold
    note_sales(memory, work, distinct, sold)
    since = listings["sold_since"][distinct].astype(np.int64)
    later = observed > listings["stock_ms"][row]
    np.add.at(since, inverse[later], units[later])
    listings["sold_since"][distinct] = np.minimum(since, UNITS_MAX)
    # The newest sales of each row, of those it knew and these.
    order = np.lexsort((units, -observed, inverse))
    ordered, each = inverse[order], np.arange(len(distinct))
    rank = np.arange(len(order)) - ordered.searchsorted(each)[ordered]
    kept = rank < SALES_KEPT
    order, rank = order[kept], rank[kept]
    sale_ms = np.full((len(distinct), 2 * SALES_KEPT), -1, dtype=np.int64)
    sale_units = np.zeros((len(distinct), 2 * SALES_KEPT), dtype=np.int64)
    sale_ms[:, :SALES_KEPT] = listings["sale_ms"][distinct]
    sale_units[:, :SALES_KEPT] = listings["sale_units"][distinct]
    sale_ms[inverse[order], SALES_KEPT + rank] = observed[order]
    sale_units[inverse[order], SALES_KEPT + rank] = units[order]
    best = np.lexsort((sale_units, -sale_ms), axis=1)[:, :SALES_KEPT]
    listings["sale_ms"][distinct] = sale_ms[each[:, None], best]
    listings["sale_units"][distinct] = sale_units[each[:, None], best]
    return which


def _counted_once(
    memory: Memory, work: Work, facts: FactColumns, rows: np.ndarray, which: np.ndarray
) -> np.ndarray:
    """Return the sales that were not counted before; refuse the others."""
    retailer = memory.listings.listings["retailer"][rows[which]].astype(np.int64)
    sequenced = (facts.source[which] != 0) & (facts.source_seq[which] >= 0)
    named = ~sequenced & (facts.event[which] != 0)
    fresh = np.zeros(len(which), dtype=bool)
    if np.count_nonzero(sequenced | named) < len(which):
        refuse(
            work,
            facts,
            which[~(sequenced | named)],
            "rejected",
            "/event_id: a sale is counted once only if it names event_id, or source and source_seq",
        )
    if np.count_nonzero(sequenced):
        mine = sequenced.nonzero()[0]
        sequences = facts.source_seq[which[mine]]
        fresh[mine], marks = memory.marks.take(
            retailer[mine], facts.source[which[mine]], sequences, memory.sources_max
        )
        old = mine[~fresh[mine] & (marks != NO_ROOM)]
        refuse(
            work,
            facts,
            which[old],
            "duplicate",
            lambda fact: (
                f"/source_seq: {int(facts.source_seq[fact])} is not above the highest taken from "
                "this source; a source counts upwards, in order"
            ),
        )
        refuse(
            work,
            facts,
            which[mine[marks == NO_ROOM]],
            "rejected",
            f"/source: the retailer has used up his share of {memory.sources_max} sources; use "
            "event_id",
        )
    for at in np.flatnonzero(named).tolist():
        fact = int(which[at])
        verdict = memory.events.take(
            int(retailer[at]), int(facts.event[fact]), int(facts.observed_ms[fact])
        )
        fresh[at] = verdict not in (SEEN, TOO_OLD)
        if verdict == SEEN:
            refuse(work, facts, which[at : at + 1], "duplicate", "/event_id: was counted before")
        elif verdict == TOO_OLD:
            refuse(
                work,
                facts,
                which[at : at + 1],
                "late",
                "/observed_ms: too old to tell from a duplicate; sales are taken for 24 hours",
            )
    taken = which[fresh]
    work.changed.append(facts.source_seq[taken].tobytes() + facts.event[taken].tobytes())
    return taken


def _set_costs(
    memory: Memory, work: Work, facts: FactColumns, rows: np.ndarray, which: np.ndarray
) -> np.ndarray:
    listings = memory.listings.listings
    row = rows[which]
    observed, cost = facts.observed_ms[which], facts.amount[which]
    judged = newest(row, observed, cost, listings["cost_ms"][row], listings["cost_minor"][row])
    _refuse_old(work, facts, which, judged.late, judged.duplicate)
    last = last_of(row, judged.effective)
    doubted = costs_doubted(memory, row[last], cost[last], work.now_ms)
    if doubted.any():
        refuse(work, facts, which[last[doubted]], "quarantined", COST_DOUBTED)
        last = last[~doubted]
    shocked = costs_shocked(memory, row[last], cost[last], work.now_ms)
    if shocked.any():
        refuse(
            work,
            facts,
            which[last[shocked]],
            "quarantined",
            COSTS_SHOCKED,
        )
        last = last[~shocked]
    set_cost(memory, row[last], cost[last], observed[last])
    return np.asarray(which[last])


def set_cost(memory: Memory, rows: np.ndarray, cost: np.ndarray, observed_ms: np.ndarray) -> None:
    """Set the cost of rows, and the status quo's where none was known."""
    listings = memory.listings.listings
    first = rows[listings["cost_minor"][rows] < 0]
    if len(first):
        np.add.at(memory.retailers.table["costs"], listings["retailer"][first], 1)
    listings["cost_minor"][rows] = cost
    listings["cost_ms"][rows] = observed_ms
    unset = rows[
        (listings["status_quo_cost_minor"][rows] < 0) & (listings["status_quo_minor"][rows] > 0)
    ]
    listings["status_quo_cost_minor"][unset] = listings["cost_minor"][unset]


def _set_offers(
    memory: Memory, work: Work, facts: FactColumns, rows: np.ndarray, which: np.ndarray
) -> np.ndarray:
    outcome = apply_offers(memory, work, facts, rows, which)
    _refuse_old(work, facts, which, outcome.late, outcome.duplicate)
    for refused, verdict, reason in outcome.refused:
        refuse(work, facts, refused, verdict, reason)
    return outcome.touched


_KINDS = (
    (COST_CHANGED, _set_costs),
    (STOCK_COUNTED, _set_stock),
    (UNITS_SOLD, _add_sales),
    (COMPETITOR_PRICED, _set_offers),
)
"""In this order a block's kinds are applied; no two of them set the same cell."""
