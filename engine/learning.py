"""Learning inside ``apply``: periods close, rows learn, and some of them decide anew.

A retailer's period ends in the first microbatch whose time reaches his next midnight (UTC), after
its facts are applied and before its prices are decided. So sales that arrive belong to the price
that was in force while they happened, whether a shop streams them or a simulation hands over a day
at once. A close walks the retailer's rows in slices of at most ``SLICE_ROWS`` a microbatch, three
times: what all sold against what was foreseen, then what each row learns from its own surprise,
then which rows decide. Nothing here knows a clock; nothing is added up across rows but in their
order, in float64.
"""

import numpy as np
from msgspec import Struct

from engine.approvals import hard_bounds
from engine.arms import may_decide, policies_of
from engine.attributes import factors_of
from engine.cannibalisation import earned_by_category, gained_elsewhere
from engine.decided import State
from engine.deliveries import asked_to_last, lasted, note_close, restocked, scarce_log
from engine.evidence import (
    categories_of,
    draft,
    effective_cost_ratio,
    evidence_of,
    hidden_of,
    is_fitted_by_steps,
    markups,
    refit,
    restated,
    tested_of,
)
from engine.forms import (
    choose_forms,
    curvature_of,
    forget_forms,
    shown_forms,
    take_form,
    try_forms,
)
from engine.kinks import choose_kink, forget_kink, priced_curvature, try_kink
from engine.learnt import (
    BEGUN,
    DAY_MS,
    DECIDING,
    IDLE,
    LASTED,
    LASTS,
    LEARNT_DTYPE,
    OTHERS,
    OUT_OF_STOCK,
    SUMMING,
    TOLD_AHEAD,
    UPDATING,
    RetailerLearning,
)
from engine.legal import chosen_logs, coarse
from engine.listing_table import REMOVED, RETURNS, copied, put
from engine.memory import Memory, Work
from engine.objectives import counted_cost
from engine.promotion import informed_rows, judge, prediction_of, weigh
from engine.proven import barred_above, prove
from engine.quotes import reference_of
from engine.rationed import put_off
from engine.seasons import clear, sells_through, sold_through_log
from engine.stated import own_word, stated_of
from engine.stock import stock_of
from kernels import choice, hierarchy
from kernels.choice import Place, best_log, dither_size, pinned, profit_bend
from kernels.elasticities import moments
from kernels.hierarchy import posterior
from kernels.hyperparameters import (
    ASKED_LOG,
    CATEGORY_SD,
    DISPERSION_STEP_MAX,
    FACTOR_SD,
    FLOOR_DISTANCE,
    LEVEL_SD,
    MOMENTS_KEPT,
    MOVE_MAX_LOG,
    MOVE_MIN_LOG,
    SEASON_LEVEL_SD,
    SUMS_MEMORY_DAYS,
    WARM_DAYS,
)
from kernels.kinks import distances, held_logs
from kernels.prediction import informed_belief
from kernels.whitening import SUMS, Belief, Foreseen, Level, Seen, factor, foresee, learn, totals

SLICE_ROWS = 16_384
"""Most rows that one phase of a close walks in one microbatch."""

DECIDED_ROWS = 2_048
"""Most rows that decide in one microbatch; the next goes on with the rest."""


def warm() -> None:
    """Compile every padded shape that learning needs: some seconds, spent where nobody waits."""
    hierarchy.warm()
    choice.warm()


def compiled_shapes() -> int:
    """Return how many shapes of learning's kernels are compiled: constant after :func:`warm`."""
    return hierarchy.compiled_shapes() + choice.compiled_shapes()


def close_periods(memory: Memory, work: Work) -> None:
    """Go on with what is periodic for every retailer who learns."""
    for number in sorted(memory.learnt.retailers):
        held = memory.learnt.retailers[number]
        if held.phase != IDLE:
            _go_on(memory, work, number, held)
        if held.phase == IDLE and work.now_ms >= held.next_ms:
            _begin_close(held, work.now_ms)
            _go_on(memory, work, number, held)
        elif held.phase == IDLE and held.live_day < 0 and _is_live(memory, number):
            # The first prices come at once, not at the next midnight.
            held.phase, held.cursor = DECIDING, 0
            _go_on(memory, work, number, held)


def _is_live(memory: Memory, number: int) -> bool:
    return bool(memory.retailers.table["live"][number])


def _begin_close(held: RetailerLearning, now_ms: int) -> None:
    crossed = 1 + (now_ms - held.next_ms) // DAY_MS
    held.period_days = float(crossed)
    held.next_ms += crossed * DAY_MS
    held.day += crossed
    held.phase, held.cursor, held.sold = SUMMING, 0, False
    held.draft = None  # of a fit that nobody went on with: a retailer may leave off being live
    held.sums = np.zeros((3, len(held.categories)))


def _go_on(memory: Memory, work: Work, number: int, held: RetailerLearning) -> None:
    """Walk as far as one microbatch may, phase by phase."""
    mine = memory.rows_of(number)
    follows = {SUMMING: UPDATING, UPDATING: DECIDING, DECIDING: IDLE}
    left, room = 3 * SLICE_ROWS, DECIDED_ROWS
    while held.phase != IDLE and left > 0 and room > 0:
        if held.cursor == 0 and not _begin_phase(memory, number, held, mine):
            break  # a large retailer's fit takes a microbatch of its own for each of its halves
        rows = mine[mine >= held.cursor][:SLICE_ROWS]
        if len(rows):
            if held.phase == SUMMING:
                _sum(memory, work, held, rows)
            elif held.phase == UPDATING:
                _update(memory, work, held, rows)
            else:
                walked, decided = _decide(memory, work, held, rows, room)
                rows, room = rows[:walked], room - decided
            held.cursor = int(rows[-1]) + 1
            left -= len(rows)
        if not len(mine) or held.cursor > mine[-1]:
            if held.phase == UPDATING and held.sold:
                # Not slice by slice: all of them are foreseen with what was known before the day.
                held.dispersion = _dispersion(held)
                if memory.serving.of(number):
                    judge(memory, work, number, held.period_days)
            held.phase, held.cursor = follows[held.phase], 0
    work.changed.append(repr(held.state()["plain"]).encode())
    for array in (held.form_scores, held.form_moments, held.form_precisions, held.kink_sums):
        work.changed.append(array.tobytes())
    if len(held.effects.names):
        work.changed += [column.tobytes() for column in held.effects]
    if held.draft is not None:
        work.changed.append(held.draft.parts.tobytes())


def _begin_phase(memory: Memory, number: int, held: RetailerLearning, mine: np.ndarray) -> bool:
    """Do what comes before a phase's first row; return whether rows may follow in the microbatch.

    Where they may not, the next one begins the phase again and finds what is done already.
    """
    fitted = False
    if held.phase == UPDATING:
        # A period in which nobody sold anything is one of which nothing was told.
        held.sold = bool(held.sums[0].sum() > 0.0)
        held.moments *= MOMENTS_KEPT
        forget_forms(held)
        forget_kink(held)
    if held.phase == DECIDING:
        held.large_moves = 0
    if held.phase == DECIDING and _is_live(memory, number):
        if held.live_day < 0:
            held.live_day = held.fit_day = held.day
        # Once a day's close: of a catalogue that is being told, each microbatch says another thing.
        due = len(mine) > 0 and held.refit_day != held.day
        if due and (held.day >= held.fit_day or restated(memory, held, mine)):
            if is_fitted_by_steps(mine) and held.draft is None:
                draft(memory, held, mine)
                return False
            refit(memory, held, mine)
            fitted = is_fitted_by_steps(mine)
            budget = memory.groups.book.retailer_policy(memory.retailers.ids[number])
            held.dither_scale = _dither_scale(memory, held, mine, budget.exploration_budget_minor)
        held.tested = tested_of(memory, held, mine)
        held.earned = earned_by_category(memory, held, mine)
        if not fitted:
            choose_forms(held)
            choose_kink(held)
    return not fitted


class _Period(Struct, frozen=True, eq=False):
    """A slice's rows in the period that closes."""

    learnt: np.ndarray  # copies
    listings: np.ndarray
    category: np.ndarray
    seen: Seen
    level: Level
    foreseen: Foreseen
    belief: Belief
    counted: np.ndarray
    clears: np.ndarray  # bool: its prices follow what sold, and teach nothing of elasticities
    positioned: np.ndarray  # bool: its policy names a position among its rivals


def _period(memory: Memory, work: Work, held: RetailerLearning, rows: np.ndarray) -> _Period:
    listings = memory.listings.listings.take(rows)
    learnt = memory.learnt.rows.take(rows)
    # Until its first decision a listing is foreseen with what its retailer says of it.
    young = np.flatnonzero(np.isnan(learnt["anchor"]))
    policy = memory.groups.policy.take(listings["group"][young])
    learnt["elasticity"][young] = policy["prior_elasticity"]
    learnt["elasticity_sd"][young] = policy["prior_elasticity_sd"]
    seen = _seen(memory, work, listings, learnt, rows)
    level = Level(*(learnt[name].astype(np.float64) for name in Level._fields))
    belief = Belief(
        learnt["elasticity"].astype(np.float64),
        curvature_of(held, learnt),
        held.rival,
        held.dispersion,
    )
    clears = memory.groups.policy["season_end_ms"][listings["group"]] > work.now_ms
    level_sd = np.where(clears, SEASON_LEVEL_SD, LEVEL_SD)
    foreseen = foresee(level, belief, seen, held.period_days, level_sd)
    counted = (level.days >= 3) & ~seen.sold_out & ~seen.absent
    category = categories_of(memory, held, listings)
    positioned = policies_of(memory, rows, listings)["rival_position_bp"] > 0
    return _Period(
        learnt,
        listings,
        category,
        seen,
        level,
        foreseen,
        belief,
        counted,
        clears,
        positioned,
    )


def _seen(
    memory: Memory, work: Work, listings: np.ndarray, learnt: np.ndarray, rows: np.ndarray
) -> Seen:
    """Return units, price and rival of the running period.

    Sales are paired with the price that was in force meanwhile, by the times of both. A price told
    with the very time at which the period ends is the one that its sales were made at where it came
    before them, and the next period's where it came after.
    """
    now_ms, start_ms = work.now_ms, learnt["closed_ms"]
    units = np.maximum(listings["units_sold"] - learnt["units_closed"], 0).astype(np.float64)
    status_quo = listings["status_quo_minor"].astype(np.float64)
    price, before = listings["in_force_minor"], learnt["started_minor"]
    known = (status_quo > 0) & (price > 0) & (start_ms >= 0)
    ahead = (listings["price_ms"] >= now_ms) & ((learnt["flags"] & TOLD_AHEAD) != 0)
    changed_ms = np.where(ahead, start_ms, listings["price_ms"])
    span = np.maximum(now_ms - start_ms, 1).astype(np.float64)
    late = np.clip((changed_ms - start_ms) / span, 0.0, 1.0)
    late = np.where((before > 0) & (before != price), late, 0.0)
    safe = np.where(known, status_quo, 1.0)
    now_log = np.log(np.where(known, price, 1) / safe)
    before_log = np.log(np.where(known & (before > 0), before, safe) / safe)
    price_log = np.where(late > 0.0, late * before_log + (1.0 - late) * now_log, now_log)
    landed = _rivals(memory, rows, listings, now_ms)
    rival_log = np.where(landed > 0, np.log(np.maximum(landed, 1) / safe), np.nan)
    empty = stock_of(listings) == 0
    was_empty = (learnt["flags"] & OUT_OF_STOCK) != 0
    absent = ~known | ((empty | was_empty) & (units == 0))
    return Seen(units, np.clip(price_log, -3.0, 3.0), rival_log, empty | was_empty, absent)


def _rivals(memory: Memory, rows: np.ndarray, listings: np.ndarray, now_ms: int) -> np.ndarray:
    policy = memory.groups.policy.take(listings["group"])
    return reference_of(memory, rows, listings, policy, now_ms).landed_minor


def _sum(memory: Memory, work: Work, held: RetailerLearning, rows: np.ndarray) -> None:
    period = _period(memory, work, held, rows)
    held.sums = held.sums + totals(
        period.seen.units,
        period.foreseen,
        held.dispersion,
        period.counted,
        period.category,
        len(held.categories),
    )
    # A young shop counts nothing yet, but it has sold.
    if not period.counted.any():
        held.sums[0, 0] += 1e-9 * period.seen.units.sum()


def _update(memory: Memory, work: Work, held: RetailerLearning, rows: np.ndarray) -> None:
    period = _period(memory, work, held, rows)
    learnt, listings = period.learnt, period.listings
    if held.sold:
        if memory.serving.any:
            _weigh(memory, held, rows, period)
        _learn_rows(memory, held, period)
    _count_season(period, held)
    learnt["closed_ms"] = work.now_ms
    learnt["units_closed"] = listings["units_sold"]
    learnt["started_minor"] = listings["in_force_minor"]
    out = np.where(stock_of(listings) == 0, OUT_OF_STOCK, 0).astype(np.uint8)
    learnt["flags"] = (learnt["flags"] & (255 - OUT_OF_STOCK - TOLD_AHEAD)) | out
    put(memory.learnt.rows, rows, learnt)
    note_close(memory, rows, listings, held.period_days)
    memory.unsaved[rows] = True
    work.changed.append(learnt.tobytes())


def _weigh(memory: Memory, held: RetailerLearning, rows: np.ndarray, period: _Period) -> None:
    """Let the retailer's models be counted on what they foresaw of the period."""
    days = max(round(held.period_days), 1)
    weigh(
        memory,
        int(period.listings["retailer"][0]),
        rows,
        (period.foreseen.units, period.foreseen.price, period.foreseen.variance),
        period.level.level,
        period.level.price,
        (period.counted, period.seen.units),
        (held.next_ms // DAY_MS - 1 - days, days),
    )


def _learn_rows(memory: Memory, held: RetailerLearning, period: _Period) -> None:
    learnt, seen, counted = period.learnt, period.seen, period.counted
    whole = held.sums.sum(axis=1)[:, None]
    flat = np.zeros(len(learnt))
    day = factor(whole, seen.units, period.foreseen, held.dispersion, counted, flat, FACTOR_SD)
    beside = factor(
        held.sums[:, period.category],
        seen.units,
        period.foreseen,
        held.dispersion,
        counted,
        day,
        CATEGORY_SD,
    )
    common = day + beside
    taught = learn(period.level, period.belief, seen, period.foreseen, common, held.period_days)
    by_stock = lasted(learnt, period.listings, period.foreseen.price, seen.absent)
    follows = period.clears | by_stock
    others = _others(period)
    own = _is_own(memory, period) & ~others
    shown = shown_forms(
        held,
        learnt,
        period.foreseen,
        common,
        seen.units,
        counted & (period.level.days >= WARM_DAYS) & ~follows,
    )
    try_forms(held, period.category, own, shown)
    try_kink(held, own, shown, distances(seen.price_log, period.level))
    for name in Level._fields:
        learnt[name] = getattr(taught.level, name)
    forget = np.exp(-held.period_days / SUMS_MEMORY_DAYS)
    # A cut answers poor sales, which recover by themselves: that would look like elasticity. So
    # does a price at which stock lasts, and what sold.
    tells = np.where(follows, 0.0, 1.0)
    added = np.stack([taught.sums[name] for name in SUMS], axis=1) * tells[:, None]
    learnt["own"] = learnt["own"] * forget + np.where(own[:, None], added, 0.0)
    learnt["history"] = learnt["history"] * forget + np.where(own[:, None], 0.0, added)
    held.lead = held.lead + np.where(own | follows, 0.0, taught.lead).sum(axis=1)
    held.moments = held.moments + taught.moments.sum(axis=1)
    held.explored = held.explored + _explored(held, period, own)
    lain = ~seen.absent & ~seen.sold_out & ~period.clears
    prove(learnt, seen.price_log, seen.units, common, lain, held.period_days, held.day)
    begin = own & ((learnt["flags"] & BEGUN) == 0)
    learnt["rival_before"][begin] = learnt["rival"][begin]
    learnt["flags"][begin] |= BEGUN
    noted = np.where(others, OTHERS, 0) | np.where(by_stock, LASTED, 0)
    learnt["flags"] = (learnt["flags"] & (255 - OTHERS - LASTED)) | noted.astype(np.uint8)
    told = own & np.isfinite(learnt["rival_before"])
    under = np.where(told, np.minimum(taught.level.price, 0.0), 0.0)
    moved = np.where(told, taught.level.rival - learnt["rival_before"], 0.0)
    sums = (told, under, moved, np.square(under), moved * under)
    held.follows = held.follows + np.array([of.sum(dtype=np.float64) for of in sums])


def _count_season(period: _Period, held: RetailerLearning) -> None:
    """Count what a season sold, and its days by what their prices do to demand.

    A period of which nothing was told is none in which nothing was wanted.
    """
    learnt, seen = period.learnt, period.seen
    told = period.clears & ~seen.absent & ~seen.sold_out & held.sold
    # From its first day on a season's record counts cuts, and none was made yet.
    learnt["turns"][told & (learnt["season_days"] == 0.0)] = 0
    demand = np.exp(learnt["elasticity"].astype(np.float64) * seen.price_log)
    learnt["season_units"] += np.where(told, seen.units, 0.0)
    learnt["season_demand"] += np.where(told, held.period_days * demand, 0.0)
    learnt["season_days"] += np.where(told, held.period_days, 0.0)
    for name in ("season_units", "season_demand", "season_days"):
        learnt[name][~period.clears] = 0.0


def _dispersion(held: RetailerLearning) -> float:
    """Return how much a retailer's sales scatter, no further from before than a period may move."""
    told = float(np.clip(held.moments[0] / held.moments[1], 0.02, 2.0))
    step = DISPERSION_STEP_MAX**held.period_days
    return float(np.clip(told, held.dispersion / step, held.dispersion * step))


def _explored(held: RetailerLearning, period: _Period, own: np.ndarray) -> np.ndarray:
    """Return what a period's dithers cost, as expected, and what all of it earned."""
    listings, learnt = period.listings, period.learnt
    slope = learnt["elasticity"].astype(np.float64)
    bend = profit_bend(slope, period.belief.curvature)
    margin = np.maximum(listings["in_force_minor"] - np.maximum(listings["cost_minor"], 0), 0)
    profit = np.where(own, period.foreseen.units * margin, 0.0)
    return np.array([(0.5 * bend * np.square(learnt["dither"]) * profit).sum(), profit.sum()])


def _is_own(memory: Memory, period: _Period) -> np.ndarray:
    """Return which rows sold at the price that the engine asked: nobody chose it by their sales.

    Where a position may have set the price, rivals did, and they may know what sells.
    """
    learnt = period.learnt
    asked = learnt["anchor"].astype(np.float64) + learnt["dither"]
    own = (learnt["turns"] > 0) & (period.listings["state"] == State.LIVE) & ~period.positioned
    return np.asarray(own & (np.abs(period.seen.price_log - asked) < ASKED_LOG))


def _others(period: _Period) -> np.ndarray:
    """Return which rows sold at, or are still compared with, a price that others chose.

    A pin that ends is a large move of the price, and no draw: what came with the pin, a promotion
    say, ends with it. Until the filtered price has come as near to the price as to count for asked,
    such a row's sales count as history's do. Of history itself, before a row began to sell at
    prices of ours, nothing is asked: its end is where all of our moves begin.
    """
    listings, flags = period.listings, period.learnt["flags"]
    pinned = listings["pinned_minor"] > 0  # whatever its state: a halt keeps the pin in force
    theirs = pinned | (listings["state"] == State.SHADOW) | period.positioned
    apart = (np.abs(period.foreseen.price) >= ASKED_LOG) | period.seen.absent
    noted = (flags & OTHERS) != 0
    return np.asarray((theirs & ((flags & BEGUN) != 0)) | (noted & apart))


def _decide(
    memory: Memory, work: Work, held: RetailerLearning, rows: np.ndarray, room: int
) -> tuple[int, int]:
    """Let rows whose decision is due choose an anchor and a dither, and be priced for it.

    Returns how many rows were walked, and how many of them decided: at most ``room``.
    """
    if held.table is None or held.live_day < 0:
        return len(rows), 0
    listings, learnt = memory.listings.listings[rows], memory.learnt.rows[rows]
    # A row that began since the last fit has a category that the table does not know.
    category = categories_of(memory, held, listings)
    known = category < held.table.parts.shape[1]
    due = (learnt["due_day"] <= held.day) & (listings["status_quo_minor"] > 0) & known
    due &= (listings["cost_minor"] >= 0) & may_decide(memory, rows, listings)
    at = np.flatnonzero(due)
    walked = len(rows) if len(at) <= room else int(at[room])
    at = at[:room]
    if len(at):
        decide_rows(memory, work, held, rows[at], category[at])
    return walked, len(at)


def decide_rows(
    memory: Memory, work: Work, held: RetailerLearning, rows: np.ndarray, category: np.ndarray
) -> None:
    """Decide anew for some rows of one retailer, and mark them to be priced."""
    assert held.table is not None
    listings = memory.listings.listings.take(rows)
    learnt = memory.learnt.rows.take(rows)
    policy = policies_of(memory, rows, listings)
    cost = effective_cost_ratio(memory, listings)
    take_form(held, learnt, category)
    curvature = priced_curvature(held, learnt)
    stated = stated_of(policy)
    own = own_word(stated, held.table.roots, category)
    evidence = evidence_of(held, learnt, markups(memory, listings), stated, own)
    factor = factors_of(memory, held.effects, rows)
    belief = posterior(held.table, evidence, category, factor)
    anchor, place = _place(memory, rows, listings, learnt, cost, held.day)
    # A model lies over what is learnt and never in it: the record keeps the belief without it.
    learnt_mean, learnt_variance = moments(belief)
    said = prediction_of(memory, int(listings["retailer"][0]), rows, place.filtered)
    if said is not None:
        belief = informed_belief(belief, said[0])
    mean, variance = moments(belief)
    alike = np.ones(len(rows))
    # What the retailer asks for says what a sale is worth to him; everything else is the same.
    share = policy["cannibalised_share"].astype(np.float64)
    gained = gained_elsewhere(memory, held, listings, learnt, category, share, mean)
    place = place._replace(cost=counted_cost(cost, gained, policy["objective"]))
    # Demand falls by so much more than its slope says, whichever way a price leaves the usual one.
    kink = held.kink * np.abs(mean)
    best = best_log(belief, place, curvature, held.rival * held.follow * alike, kink)
    best = np.clip(held_logs(best, kink > 0.0), place.low, place.high)
    shifted = np.where(
        (learnt["turns"] > 0) & (learnt["cost"] > 0),
        np.abs(np.log(np.maximum(cost, 1e-6) / np.maximum(learnt["cost"], 1e-6))),
        0.0,
    )
    step = policy["learning_step"] + shifted
    sells = sells_through(work.now_ms, policy)
    cadence = policy["decision_days"].astype(np.int64)
    if sells.any():
        wanted, look_days = sold_through_log(work.now_ms, listings, policy, learnt, anchor, mean)
        best = np.where(sells, np.clip(wanted, place.low, place.high), best)
        step = np.where(sells, MOVE_MAX_LOG, step)
        cadence = np.where(sells, look_days, cadence)
    scarce = scarce_log(memory, work, held, rows, listings, policy, learnt, place.filtered, mean)
    scarce = np.clip(scarce, place.low, place.high)
    lasts = scarce > best + MOVE_MIN_LOG
    best = np.where(lasts, scarce, best)
    moved = np.clip(best - anchor, -step, step)
    # Next to a kink the last cent counts, too.
    small = (np.abs(moved) < MOVE_MIN_LOG) & ~((kink > 0.0) & (best == 0.0))
    moved = np.where(small, 0.0, moved)
    noise = np.exp(-learnt["level"].astype(np.float64)) + held.dispersion
    doubt = variance + hidden_of(held, stated, category, mean)
    size = dither_size(mean, doubt, noise, curvature, policy["dither"].astype(np.float64))
    # Prices that follow what sold teach nothing of elasticities, strayed or not.
    still = pinned(place, anchor + moved, mean, variance) | sells | lasts
    # Around a kink a dither costs its whole size, too.
    still |= (kink > 0.0) & (np.abs(anchor + moved) < size)
    size = np.where(still, 0.0, size)
    pair = learnt["turns"] // 2
    sign = np.where(_coin(listings["key"], pair), 1.0, -1.0) * np.where(
        learnt["turns"] % 2 == 0, 1.0, -1.0
    )
    dither = sign * size * held.dither_scale
    in_force = np.maximum(listings["in_force_minor"], 1)
    now_log = _standing(listings, learnt, in_force)
    wish = np.clip(anchor + moved + dither, place.low, place.high)
    limit = np.where(listings["in_force_minor"] > 0, MOVE_MAX_LOG + shifted, np.inf)
    wish = np.clip(wish, now_log - limit, now_log + limit)
    before = copied(learnt)
    learnt["anchor"] = np.clip(anchor + moved, place.low, place.high)
    learnt["dither"] = wish - learnt["anchor"]
    bias = policy["left_digit_bias"].astype(np.float64)
    apart = coarse(in_force.astype(np.float64), policy["endings"])
    apart |= (bias > 0.0) & (policy["endings"] > 0).any(axis=1)
    apart &= ~sells
    if apart.any():
        at = np.flatnonzero(apart)
        learnt["anchor"][at], learnt["dither"][at] = chosen_logs(
            (anchor + moved)[at],
            dither[at],
            listings["status_quo_minor"][at].astype(np.float64),
            policy["endings"][at],
            belief[at],
            Place(*(column[at] for column in place)),
            curvature[at],
            held.rival * held.follow * alike[at],
            kink[at],
            bias[at],
        )
    clears = (policy["season_end_ms"] > work.now_ms) & ~sells
    learnt["elasticity"], learnt["elasticity_sd"] = learnt_mean, np.sqrt(learnt_variance)
    learnt["cost"] = cost
    first = (learnt["turns"] == 0) & ~sells
    spread = _spread(listings["key"], cadence)
    learnt["due_day"] = held.day + np.where(first, (cadence + 1) // 2 + spread, cadence)
    learnt["turns"] += 1
    if clears.any():
        told = learnt if said is None else informed_rows(learnt, place.filtered, said[0])
        clear(work.now_ms, held, listings, policy, place, now_log, learnt, told, clears)
    # The running day's sales were made at the price that stock asked for until now.
    noted = np.where(lasts, LASTS, 0) | np.where(asked_to_last(before, listings), LASTED, 0)
    learnt["flags"] = (learnt["flags"] & (255 - LASTS)) | noted.astype(np.uint8)
    asked = learnt["anchor"].astype(np.float64) + learnt["dither"]
    moves = (listings["in_force_minor"] > 0) & (listings["pinned_minor"] == 0)
    move = np.where(moves, asked - now_log, 0.0)
    late = np.flatnonzero(put_off(memory, held, int(listings["retailer"][0]), move, shifted))
    if len(late):
        put(learnt, late, before.take(late))
        learnt["due_day"][late] = held.day + 1
    put(memory.learnt.rows, rows, learnt)
    memory.mark(rows)
    memory.unsaved[rows] = True
    work.changed.append(learnt.tobytes())


def _place(
    memory: Memory,
    rows: np.ndarray,
    listings: np.ndarray,
    learnt: np.ndarray,
    cost: np.ndarray,
    day: int,
) -> tuple[np.ndarray, Place]:
    """Return the anchor that a decision starts from, and the bounds it keeps.

    Where a person, a rule or the channel put another price than we asked, that price is the anchor.
    """
    status_quo = listings["status_quo_minor"].astype(np.float64)
    in_force = np.where(listings["in_force_minor"] > 0, listings["in_force_minor"], status_quo)
    now_log = _standing(listings, learnt, in_force)
    asked = learnt["anchor"].astype(np.float64) + learnt["dither"]
    off = ~np.isfinite(asked) | (np.abs(asked - now_log) > ASKED_LOG)
    anchor = np.where(off, now_log, learnt["anchor"])
    legal, floor, ceiling = hard_bounds(memory, rows)
    least = np.maximum(np.maximum(legal, floor), 1).astype(np.float64)
    low = np.log(np.maximum(least * (1.0 + FLOOR_DISTANCE), least + 1.0) / status_quo)
    high = np.log(np.maximum(ceiling, 1) / status_quo)
    high = np.maximum(np.minimum(high, barred_above(learnt, day)), low)
    filtered = np.where(learnt["days"] > 0, learnt["price"], anchor).astype(np.float64)
    return anchor, Place(anchor, filtered, cost, low, high)


def _standing(listings: np.ndarray, learnt: np.ndarray, in_force: np.ndarray) -> np.ndarray:
    """Return float64[rows], in logs of the status quo, the price that a decision moves from.

    A pin, and the steps back from its end, only cover the price that we ask, which goes on from
    where it was: promotions are pinned, and end.
    """
    now_log = np.log(in_force / listings["status_quo_minor"].astype(np.float64))
    asked = learnt["anchor"].astype(np.float64) + learnt["dither"]
    covered = (listings["pinned_minor"] > 0) | ((listings["flags"] & RETURNS) != 0)
    return np.where(covered & np.isfinite(asked), asked, now_log)


def redecide(memory: Memory, work: Work) -> None:
    """Let touched rows decide at once whose cost, fees or stock are others than they decided by.

    Stock counts where it is a price's reason: until a season's end, and after a delivery where
    a price made stock last until then.
    """
    rows = work.touched()[0]
    if not len(rows):
        return
    rows = rows[memory.listings.listings["flags"][rows] & REMOVED == 0]
    listings = memory.listings.listings["retailer"][rows]
    for number in np.unique(listings).tolist():
        held = memory.learnt.retailers.get(number)
        if held is None or held.table is None:
            continue
        mine = rows[listings == number]
        columns = memory.listings.listings.take(mine)
        learnt = memory.learnt.rows.take(mine)
        cost = effective_cost_ratio(memory, columns)
        # Decided before: in a season turns count cuts, of which there may be none yet.
        changed = np.isfinite(learnt["anchor"]) & (columns["cost_minor"] >= 0)
        changed &= may_decide(memory, mine, columns)
        changed &= (np.abs(cost - learnt["cost"]) > 0.005 * learnt["cost"]) | restocked(
            memory, work, mine, columns
        )
        category = categories_of(memory, held, columns)
        changed &= category < held.table.parts.shape[1]
        if changed.any():
            decide_rows(memory, work, held, mine[changed], category[changed])


def _dither_scale(
    memory: Memory, held: RetailerLearning, mine: np.ndarray, budget_minor: int
) -> float:
    """Return what a retailer's budget leaves of each dither: their cost goes by its square."""
    learnt, listings = memory.learnt.rows.take(mine), memory.listings.listings.take(mine)
    bend = profit_bend(learnt["elasticity"], curvature_of(held, learnt))
    units = np.exp(np.clip(learnt["level"].astype(np.float64), -12.0, 16.0))
    margin = np.maximum(listings["in_force_minor"] - np.maximum(listings["cost_minor"], 0), 0)
    largest = memory.groups.policy["dither"][listings["group"]]
    cost = float((0.5 * bend * np.square(largest) * units * margin).sum())
    return float(min(1.0, np.sqrt(budget_minor / cost))) if cost > 0.0 else 1.0


def _coin(key: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Return a boolean a row, fair and independent of everything but key and pair."""
    with np.errstate(over="ignore"):
        mixed = key ^ ((pair.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return np.asarray(mixed & np.uint64(1) == 1)


def _spread(key: np.ndarray, cadence: np.ndarray) -> np.ndarray:
    """Return int64[rows], below the cadence: on which of its days a row decides."""
    return np.asarray((key >> np.uint64(20)).astype(np.int64) % np.maximum(cadence, 1))


assert LEARNT_DTYPE.itemsize <= 192
