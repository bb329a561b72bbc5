"""The daily walk of experiments: exposure is counted, arms change, and what is known is judged.

A day of an experiment ends in the first microbatch whose time reaches midnight (UTC), after its
facts and before its prices, as a learner's period does. Then a walk over the retailer's rows, in
slices of at most ``SLICE_ROWS`` a microbatch, adds the day's exposure, lets arms change where a
block is over, and ends with a look. What was drawn is what is counted as one: a listing, a listing
in a pair of blocks, a pair of blocks.
"""

import numpy as np

from engine.decided import CatalogueChange, State
from engine.experiments import (
    BASELINE,
    ENDED,
    EXPERIMENT,
    HOLDOUT,
    RUNNING,
    STOPPED,
    WAITING,
    Experiment,
    Told,
)
from engine.learnt import DAY_MS
from engine.listing_table import put
from engine.memory import Memory, Work
from engine.microbatch import LANES, Position
from engine.retailers import RETAILERS_MAX
from kernels.assignment import CONTROL, PRODUCT, SWITCHBACK, TREATED, arms
from kernels.hyperparameters import (
    ALPHA,
    BEFORE_DAYS,
    FREEDOM_MIN,
    SAMPLE_RATIO_ALPHA,
    TAU,
    UNITS_MIN,
    WEIGHT_MIN,
)
from kernels.lift import SUMS, joined, lift_of, no_totals, totals
from kernels.sequential import (
    is_harm,
    mixture_margin,
    normal_quantile,
    ratio_evidence,
    student_of_normal,
    yeast_bound,
    yeast_statistic,
)

SLICE_ROWS = 16_384
"""Most rows that one walk takes in one microbatch."""


def close_days(memory: Memory, work: Work, seq: int) -> None:
    """Go on with what is daily for every experiment that goes on."""
    for (_, number), each in sorted(memory.experiments.of.items()):
        if not each.open:
            continue
        if each.cursor < 0:
            if work.now_ms < each.next_ms and not _at_once(memory, each, number):
                continue
            _begin_walk(memory, each, number, work.now_ms)
        _walk(memory, work, each, number, seq)


def _at_once(memory: Memory, each: Experiment, number: int) -> bool:
    """Whether a holdout must draw, or part, before learning decides, and not at midnight."""
    live = bool(memory.retailers.table["live"][number])
    drawn = each.status != WAITING
    return each.kind == HOLDOUT and (not drawn or (live and each.status == BASELINE))


def _begin_walk(memory: Memory, each: Experiment, number: int, now_ms: int) -> None:
    crossed = max(0, 1 + (now_ms - each.next_ms) // DAY_MS)
    each.next_ms += crossed * DAY_MS
    # Before its first midnight it has seen part of a day, of which nothing was noted.
    each.elapsed = 0 if each.status == WAITING else crossed
    each.cursor, each.partial, each.together = 0, no_totals(), np.zeros(SUMS)
    if each.status == BASELINE:
        each.baseline_days += crossed
        arm = memory.experiments.rows["arm"][each.kind][memory.rows_of(number)]
        each.before_days += int(np.count_nonzero(arm)) * crossed
        each.mean = each.before / max(each.before_days, 1)
    if each.kind == HOLDOUT:
        ready = bool(memory.retailers.table["live"][number])
    else:
        ready = each.paired or each.baseline_days >= each.terms.baseline_days
    each.parts = each.status != RUNNING and ready


def _walk(memory: Memory, work: Work, each: Experiment, number: int, seq: int) -> None:
    mine = memory.rows_of(number)
    rows = mine[mine >= each.cursor][:SLICE_ROWS]
    if len(rows):
        _slice(memory, work, each, rows)
        each.cursor = int(rows[-1]) + 1
    if not len(mine) or each.cursor > mine[-1]:
        each.cursor = -1
        _end_walk(memory, work, each, number, seq)
    work.changed.append(repr(each.state()).encode())


def _slice(memory: Memory, work: Work, each: Experiment, rows: np.ndarray) -> None:
    listings = memory.listings.listings.take(rows)
    table = memory.experiments.rows[each.kind]
    records = table.take(rows)
    drawn = records["arm"].copy()
    taking = drawn > 0
    exposed = each.elapsed * records["weight"].astype(np.float64)
    if each.counting:
        records["sums"][:, 1] += np.where(drawn == TREATED, exposed, 0.0)
        records["sums"][:, 3] += np.where(drawn == CONTROL, exposed, 0.0)
        _count_shares(each, records, listings["state"])
    elif each.status == BASELINE:
        records["before_days"] += np.where(taking, each.elapsed, 0)
    after = each.run_days + (each.elapsed if each.status == RUNNING else 0)
    _collect(each, records, after)
    _draw(memory, each, rows, listings, records, after)
    if each.parts:
        fresh = records["before"] + BEFORE_DAYS * each.mean
        weight = fresh / (records["before_days"] + BEFORE_DAYS)
        known = each.mean > 0.0 and not each.paired
        records["weight"] = np.maximum(weight / each.mean, WEIGHT_MIN) if known else 1.0
        records["base_minor"] = listings["in_force_minor"]
    put(table, rows, records)
    memory.unsaved[rows] = True
    work.changed.append(records.tobytes())
    memory.mark(rows[(drawn != records["arm"]) & (each.status == RUNNING)])


def _count_shares(each: Experiment, records: np.ndarray, state: np.ndarray) -> None:
    """Count each row once for the sample-ratio check: when it first sells at its arm's price."""
    new = (records["arm"] > 0) & (records["counted"] == 0) & (state == State.LIVE)
    first = (records["arm"] == TREATED) ^ (each.block % 2 == 1)
    each.counts[0] += int((new & ~first).sum())
    each.counts[1] += int((new & first).sum())
    records["counted"][new] = 1


def _collect(each: Experiment, records: np.ndarray, after: int) -> None:
    """Add up what was drawn: cumulated sums of listings, or what a pair of blocks came to."""
    if not each.paired:
        each.partial = joined(each.partial, totals(records["sums"]))
    elif _pair(each, after) > _pair(each, each.run_days):
        if each.terms.design == SWITCHBACK:
            each.together = each.together + records["sums"].sum(axis=0)
        else:
            each.partial = joined(each.partial, totals(records["sums"]))
        records["sums"] = 0.0


def _pair(each: Experiment, day: int) -> int:
    return day // (2 * each.terms.block_days)


def _draw(
    memory: Memory,
    each: Experiment,
    rows: np.ndarray,
    listings: np.ndarray,
    records: np.ndarray,
    after: int,
) -> None:
    """Give arms to rows that take part. Who comes when arms have parted is in no experiment."""
    block = after // each.terms.block_days if each.paired else 0
    drawn = arms(each.terms.design, listings["key"], each.salt, each.terms.share, block)
    if each.kind == HOLDOUT:
        # What must be cleared by a date cannot be held.
        fits = memory.groups.policy["season_end_ms"][listings["group"]] == 0
        new = (records["arm"] == 0) & fits
        records["weight"][new] = 1.0
        records["base_minor"][new] = listings["in_force_minor"][new]
    elif each.status != RUNNING:
        out = memory.experiments.rows["arm"][HOLDOUT][rows] == CONTROL
        fits = _in_scope(memory, each, listings["group"]) & ~out
        new = (records["arm"] == 0) & fits
        records["weight"][new] = 1.0
    else:
        new = np.zeros(len(rows), dtype=bool)
    moves = new | ((records["arm"] > 0) & each.paired)
    records["arm"][moves] = drawn[moves]


def _in_scope(memory: Memory, each: Experiment, group: np.ndarray) -> np.ndarray:
    if each.terms.scope == "retailer":
        return np.ones(len(group), dtype=bool)
    known, inverse = np.unique(group, return_inverse=True)
    named = memory.groups.channel_of if each.terms.scope == "channel" else memory.groups.category_of
    fits = [named(number) == each.terms.key for number in known.tolist()]
    return np.asarray(np.array(fits, dtype=bool)[inverse])


def _end_walk(memory: Memory, work: Work, each: Experiment, number: int, seq: int) -> None:
    before = each.run_days
    if each.status == RUNNING:
        each.run_days += each.elapsed
    looks = each.status == RUNNING
    if looks and each.paired:
        looks = _pair(each, each.run_days) > _pair(each, before)
        whole = each.partial
        if each.terms.design == SWITCHBACK:
            whole = totals(each.together[None])
        each.known = joined(each.known, whole)
    elif looks:
        each.known = each.partial
    was = each.status
    if each.status == WAITING:
        each.status = BASELINE
    if each.parts:
        each.status, each.parts = RUNNING, False
        rows, differs = memory.rows_of(number), CONTROL if each.kind == HOLDOUT else TREATED
        memory.mark(rows[memory.experiments.rows["arm"][each.kind][rows] == differs])
    in_block = each.run_days % each.terms.block_days if each.paired else each.terms.washout_days
    each.counting = each.status == RUNNING and in_block >= each.terms.washout_days
    if looks:
        _look(each)
        if not each.open:
            end(memory, each, number)
    if looks or each.status != was:
        # Beside what the breaker tells of the same retailer.
        index = RETAILERS_MAX + 2 * number + each.kind
        tell(memory, work, each, number, Position(len(LANES), seq, index))


def end(memory: Memory, each: Experiment, number: int) -> None:
    """Let every listing of an experiment that is over be priced as all others."""
    rows = memory.rows_of(number)
    each.counting, each.cursor = False, -1
    memory.mark(rows[memory.experiments.rows["arm"][each.kind][rows] > 0])


def tell(memory: Memory, work: Work, each: Experiment, number: int, position: Position) -> None:
    """Tell followers how an experiment stands."""
    retailer = memory.retailers.ids[number]
    work.catalogue.append(CatalogueChange(position, "experiment", retailer, each.document()))


def _look(each: Experiment) -> None:
    """Judge what is known, and end what is over or does harm."""
    fraction = min(1.0, each.run_days / each.terms.days)
    over = each.kind == EXPERIMENT and fraction >= 1.0
    sound = each.told.sample_ratio_ok
    if each.terms.design != SWITCHBACK:
        share = each.terms.share if each.terms.design == PRODUCT else 0.5
        doubt = ratio_evidence(each.counts[1], each.counts[0], share)
        sound = sound and doubt < -np.log(SAMPLE_RATIO_ALPHA)
    told = Told(
        day=each.run_days,
        units=each.known.units,
        listings=(each.counts[0], each.counts[1]),
        sample_ratio_ok=bool(sound),
        verdict=each.told.verdict,
    )
    found = lift_of(each.known)
    if found is not None and found.units >= UNITS_MIN // (1 + each.paired):
        if found.freedom >= FREEDOM_MIN:
            told = _judged(each, told, found.lift, found.normal, found.sure_variance, fraction)
        margin = student_of_normal(normal_quantile(0.975), found.freedom)
        margin *= float(np.sqrt(found.variance))
        told = _with_interval(told, found.lift, margin, found.sure_variance)
        if each.kind == HOLDOUT and told.verdict == "open" and (told.low or 0.0) > 0.0:
            told = _replaced(told, verdict="better")  # no end is planned: the interval decides
    if told.verdict == "harmful" and each.kind == EXPERIMENT:
        each.status = STOPPED
    elif over:
        each.status = ENDED
        if told.verdict == "open":
            told = _replaced(told, verdict="undecided")
    each.told = told


def _judged(
    each: Experiment, told: Told, lift: float, normal: float, variance: float, fraction: float
) -> Told:
    """Return what is told with a verdict, if there is cause for one.

    Shares that do not come as they were drawn make every comparison worthless but that of harm.
    """
    if bool(is_harm(np.array(lift), np.array(variance), TAU, ALPHA)):
        return _replaced(told, verdict="harmful")
    planned = each.kind == EXPERIMENT and told.sample_ratio_ok
    statistic = yeast_statistic(np.array(normal), np.array(1.0), np.array(fraction))
    if planned and told.verdict == "open" and float(statistic) >= yeast_bound(ALPHA):
        return _replaced(told, verdict="better")
    return told


def _with_interval(told: Told, lift: float, margin: float, variance: float) -> Told:
    always = float(mixture_margin(np.array(variance), TAU, ALPHA))
    return _replaced(
        told,
        lift=lift,
        low=lift - always,
        high=lift + always,
        end_low=lift - margin,
        end_high=lift + margin,
    )


def _replaced(told: Told, **fields: object) -> Told:
    return Told(**({name: getattr(told, name) for name in told.__struct_fields__} | fields))
