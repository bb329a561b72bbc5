"""From what rows have learnt to evidence on elasticities, and a retailer's table fitted to it."""

from typing import NamedTuple

import numpy as np
from msgspec import Struct

from engine.attributes import attributes_of, factors_of, learnt_effects
from engine.forms import curvature_of, make_room, take_form
from engine.learnt import RetailerLearning, sums_of
from engine.memory import Memory
from engine.promotion import informed_learnt
from engine.stated import Stated, own_word, roots_of, stated_of
from kernels.attributes import NO_EFFECTS, Effects, observed
from kernels.choice import hidden_variance
from kernels.elasticities import Evidence, Roots, Table, implied, mean_sd, moments
from kernels.hierarchy import fit, pooled, posterior
from kernels.hyperparameters import (
    ALARM_SD,
    ALIKE_LOG,
    ALIKE_MIN,
    ALIKE_SHARE,
    CONFIG_ROWS,
    CONFIGS,
    CONFIGS_MOST,
    FIT_DAYS,
    FIT_DAYS_LATER,
    FOLLOW_PRIOR,
    MEANS,
    NARROW_LOG,
    NARROW_REACH,
    OTHERS_TESTED_SHARE,
    PILED_LOG,
    PILED_MOST,
    PILED_SHARE,
    POOLED_ROWS,
    ROUNDED_STEPS,
    ROWS_A_CATEGORY,
    ROWS_FITTED,
    RULE_LOG_LEAST,
    RULE_SD_LOG,
    STRAYS_LOG,
    TOLD_LEAST,
)
from kernels.limits import PRICE_MINOR_MAX
from kernels.whitening import SUMS, lead_score


def categories_of(memory: Memory, held: RetailerLearning, listings: np.ndarray) -> np.ndarray:
    """Return int64[rows], each row's category, numbered as the retailer's categories appeared."""
    return numbered(memory, held, listings["group"])


def numbered(memory: Memory, held: RetailerLearning, group: np.ndarray) -> np.ndarray:
    """Return int64[rows], the category of each row's group, a new one numbered as the next."""
    groups, inverse = np.unique(group, return_inverse=True)
    numbers = {name: at for at, name in enumerate(held.categories)}
    found = np.empty(len(groups), dtype=np.int64)
    for at, number in enumerate(groups.tolist()):
        name = memory.groups.category_of(number)
        if name not in numbers:
            numbers[name] = len(held.categories)
            held.categories.append(name)
        found[at] = numbers[name]
    missing = len(held.categories) - held.sums.shape[1]
    if missing > 0:
        held.sums = np.pad(held.sums, ((0, 0), (0, missing)))
    make_room(held)
    return np.asarray(found[inverse])


class Wishes(Struct, frozen=True, eq=False):
    """What learning asks for, one element a row of ``at``."""

    at: np.ndarray  # positions among the rows asked about
    minor: np.ndarray  # int64
    elasticity: np.ndarray
    elasticity_sd: np.ndarray
    dithered: np.ndarray  # bool
    waiting: np.ndarray  # positions of live rows that have not decided yet: their prices stay


def learnt_wishes(
    memory: Memory, rows: np.ndarray, listings: np.ndarray, held: np.ndarray | None
) -> Wishes | None:
    """Return the prices that learning asks for, ``None`` where nobody learns.

    Args:
        held: prices at which an experiment's arm holds rows, 0: none; learning has no say there.
    """
    if not memory.learnt.any:
        return None
    learnt = memory.learnt.rows.take(rows)
    mine, decided = learns(memory, listings["retailer"]), np.isfinite(learnt["anchor"])
    if held is not None:
        mine &= held == 0
    at = np.flatnonzero(decided & mine)
    # Until its first decision a live price stays: the first model knows less than will be known.
    live = memory.retailers.table["live"][listings["retailer"]] != 0
    waiting = np.flatnonzero(~decided & mine & live & (listings["in_force_minor"] > 0))
    of = informed_learnt(memory, rows[at], learnt.take(at))
    asked = of["anchor"].astype(np.float64) + of["dither"]
    minor = np.clip(np.rint(listings["status_quo_minor"][at] * np.exp(asked)), 1, PRICE_MINOR_MAX)
    strayed = np.abs(of["dither"]) > STRAYS_LOG
    return Wishes(at, minor, of["elasticity"], of["elasticity_sd"], strayed, waiting)


def learns(memory: Memory, retailer: np.ndarray) -> np.ndarray:
    """Return which rows belong to a retailer who learns."""
    return np.isin(retailer, sorted(memory.learnt.retailers))


def effective_cost_ratio(memory: Memory, listings: np.ndarray) -> np.ndarray:
    """Return float64[rows], today's cost, VAT and fees counted in, over the reference price."""
    price = np.where(
        listings["in_force_minor"] > 0, listings["in_force_minor"], listings["status_quo_minor"]
    )
    return _effective(memory, listings, listings["cost_minor"], price)


def markups(memory: Memory, listings: np.ndarray) -> np.ndarray:
    """Return float64[rows], log of the price found at import over its cost; NaN: no evidence."""
    known = (listings["status_quo_cost_minor"] > 0) & (listings["status_quo_minor"] > 0)
    ratio = _effective(
        memory, listings, listings["status_quo_cost_minor"], listings["status_quo_minor"]
    )
    sound = known & (ratio > 0.0) & (ratio < 1.0)
    return np.asarray(np.where(sound, -np.log(np.where(sound, ratio, 1.0)), np.nan))


def _effective(
    memory: Memory, listings: np.ndarray, cost_minor: np.ndarray, price_minor: np.ndarray
) -> np.ndarray:
    fees = memory.groups.table.take(listings["group"])
    net = 1.0 / (1.0 + fees["vat"])
    minimum = fees["minimum_fee_minor"] > fees["commission"] * price_minor
    share = np.where(minimum, net, net - fees["commission"])
    owed = np.maximum(cost_minor, 0).astype(np.float64) + fees["fixed_fee_minor"]
    owed = owed + np.where(minimum, fees["minimum_fee_minor"], 0)
    reference = np.maximum(listings["status_quo_minor"], 1).astype(np.float64)
    effective = np.where(share > 0.0, owed / np.where(share > 0.0, share, 1.0), 1e9)
    return np.asarray(effective / reference)


def evidence_of(
    held: RetailerLearning,
    learnt: np.ndarray,
    markup: np.ndarray,
    said: Stated,
    own: tuple[np.ndarray, np.ndarray],
) -> Evidence:
    """Return what rows say of elasticities, curvature and rivals taken out.

    Args:
        said: what the retailer's policy says of the rows.
        own: slope and moment of what it says of some that it does not of their categories.
    """
    sums = sums_of(held, learnt)
    moment = sums["bx"] + curvature_of(held, learnt) * sums["xk"] - held.rival * sums["xc"]
    piled = np.isfinite(markup) & (markup <= held.piled_log)
    told = np.where(_is_ruled(held, markup, said), np.nan, markup)
    return Evidence(sums["xx"] + own[0], moment + own[1], told, piled, said.error)


def tested_of(memory: Memory, held: RetailerLearning, mine: np.ndarray) -> np.ndarray:
    """Return float64[categories], the precision that moves of prices gave each one's slopes.

    What other categories were tested counts for a share: who prices one too dear prices others so.

    Args:
        mine: all rows of the retailer.
    """
    category = numbered(memory, held, memory.listings.listings["group"][mine])
    # One column and no whole rows: it is asked each day of all that a retailer sells.
    place = SUMS.index("xx")
    told = memory.learnt.rows["own"][:, place][mine].astype(np.float64)
    if held.history_trusted:
        told += memory.learnt.rows["history"][:, place][mine]
    own = np.bincount(category, told, len(held.categories))
    return np.asarray(own + OTHERS_TESTED_SHARE * (own.sum() - own))


def hidden_of(
    held: RetailerLearning, said: Stated, category: np.ndarray, mean: np.ndarray
) -> np.ndarray:
    """Return float64[rows], what a bias that a row's whole category shares may hide of its slope.

    Args:
        said: of each row by its own policy: who knows one listing's demand is not asked of it.
        mean: of what is believed of each row's elasticity.
    """
    assert held.table is not None
    sd = mean_sd(np.minimum(held.table.roots.sd[category], said.sd))
    return hidden_variance(mean, held.tested[category], said.error, sd)


class _Told(NamedTuple):
    """What a fit is told: some rows of each category, and what is said of them."""

    rows: np.ndarray
    learnt: np.ndarray  # copies
    category: np.ndarray
    markup: np.ndarray
    said: Stated
    own: tuple[np.ndarray, np.ndarray]
    few: np.ndarray  # positions among the rows: by these configurations are told apart
    roots: Roots  # of all rows
    rules: np.ndarray
    kept: int

    def evidence(self, held: RetailerLearning) -> Evidence:
        """Return what the rows say, by the curvature and the pull of rivals that are held."""
        return evidence_of(held, self.learnt, self.markup, self.said, self.own)

    def fitted(self, evidence: Evidence, by_others: np.ndarray | None) -> Table:
        """Return a table fitted to the few."""
        part = Evidence(*(column[self.few] for column in evidence))
        count = len(self.roots.mean)
        category = self.category[self.few]
        return fit(part, category, count, self.kept, self.roots, self.rules, by_others)


def is_fitted_by_steps(mine: np.ndarray) -> bool:
    """Return whether a retailer's fit takes more than the microbatch that finds it due."""
    return len(mine) > POOLED_ROWS


def draft(memory: Memory, held: RetailerLearning, mine: np.ndarray) -> None:
    """Do the first half of a fit; the next :func:`refit` goes on from there."""
    told = _told(memory, held, mine)
    held.draft = told.fitted(told.evidence(held), None)


def refit(memory: Memory, held: RetailerLearning, mine: np.ndarray) -> None:
    """Choose anew how a retailer's catalogue is thought to have come about."""
    told = _told(memory, held, mine)
    learnt, category, roots = told.learnt, told.category, told.roots
    held.effects, factor, by_others = NO_EFFECTS, None, None
    for turn in range(2):
        evidence = told.evidence(held)
        # What he says of his categories may have changed since it was drafted.
        if turn == 0 and held.draft is not None and _alike(held.draft.roots, roots):
            held.table = held.draft
        else:
            held.table = told.fitted(evidence, by_others)
        blind = evidence._replace(slope=told.own[0], moment=told.own[1])
        mean, variance = moments(posterior(held.table, blind, category, factor))
        curvature, rival, covariance = pooled(sums_of(held, learnt), mean, variance)
        held.curvature, held.rival = curvature, rival
        held.curvature_sd = float(np.sqrt(covariance[0, 0]))
        if turn == 0:
            part = Evidence(*(column[told.few] for column in evidence))
            of = told.rows[told.few], category[told.few]
            held.effects, by_others = _effects_of(memory, held.table, part, *of)
            factor = factors_of(memory, held.effects, told.rows)
    assert held.table is not None
    held.draft = None
    parts, means = held.table.parts[0].sum(axis=1), MEANS * roots.shift[:, None]
    centre = (parts * means).sum(axis=1)
    square = (parts * np.square(means)).sum(axis=1)
    held.pooled_sd = np.sqrt(np.maximum(square - np.square(centre), 0.0))
    held.follow = followed(held.follows)
    held.fits += 1
    held.refit_day = held.day
    later = held.fits > len(FIT_DAYS)
    held.fit_day = held.day + (FIT_DAYS_LATER if later else FIT_DAYS[held.fits - 1])


def _told(memory: Memory, held: RetailerLearning, mine: np.ndarray) -> _Told:
    """Return what a fit is told, and hold what prices say by themselves.

    Of a large retailer some rows are asked, so that a fit takes no longer than others' do.

    Args:
        mine: all rows of the retailer.
    """
    category = numbered(memory, held, memory.listings.listings["group"][mine])
    count = len(held.categories)
    roots = _roots_of(memory, held, mine, count)
    held.history_trusted = _history_sound(held, memory.learnt.rows, mine)
    rows = mine
    if is_fitted_by_steps(mine):
        at = _some(category, _shares(category, count, POOLED_ROWS))
        rows, category = mine[at], category[at]
    listings = memory.listings.listings.take(rows)
    learnt = memory.learnt.rows.take(rows)
    take_form(held, learnt, category)
    markup = markups(memory, listings)
    held.piled_log = _piled(markup, category)
    said = stated_of(memory.groups.policy.take(listings["group"]))
    found = np.where(said.error == 0.0, markup, np.nan)
    each = max(min(ROWS_A_CATEGORY, ROWS_FITTED // max(count, 1)), 1)
    held.ruled = _rules_of_thumb(found, category, held.piled_log)
    return _Told(
        rows=rows,
        learnt=learnt,
        category=category,
        markup=markup,
        said=said,
        own=own_word(said, roots, category),
        few=_some(category, np.full(count, each)),
        roots=roots,
        rules=_said_by_rules(markup, _is_ruled(held, markup, said), category, roots),
        kept=min(max(CONFIGS, CONFIG_ROWS // len(mine)), CONFIGS_MOST),
    )


def _roots_of(memory: Memory, held: RetailerLearning, mine: np.ndarray, count: int) -> Roots:
    """Return what is said of the first ``count`` categories of a retailer."""
    groups, sizes = np.unique(memory.listings.listings["group"][mine], return_counts=True)
    category = numbered(memory, held, groups)
    known = category < count
    return roots_of(memory, groups[known], sizes[known], category[known], count)


def _alike(one: Roots, other: Roots) -> bool:
    return all(np.array_equal(of, its) for of, its in zip(one, other, strict=True))


def _effects_of(
    memory: Memory, table: Table, evidence: Evidence, rows: np.ndarray, category: np.ndarray
) -> tuple[Effects, np.ndarray | None]:
    """Return what the attributes of rows say, by a table that was fitted without them.

    Also returns by which factors others than a row foresee its mean; ``None``: it has no attribute.
    """
    attributes = attributes_of(memory, rows)
    if not attributes.any():
        return NO_EFFECTS, None
    count = len(table.roots.mean)
    nothing = np.zeros(count)
    blank = Evidence(nothing, nothing, nothing + np.nan, nothing > 0.0, nothing)
    centre, wide = moments(posterior(table, blank, np.arange(count)))
    belief = moments(posterior(table, evidence, category))
    config, error = table.configs[0], table.roots.error
    seen = observed(belief, (centre[category], wide[category]), evidence.slope, config.spread)
    stated = float(error[error > 0.0].min(initial=config.bias_sd))
    return learnt_effects(attributes, category, seen, min(config.bias_sd, stated))


def restated(memory: Memory, held: RetailerLearning, mine: np.ndarray) -> bool:
    """Return whether a retailer says something else of his categories than his table was told."""
    if held.table is None:
        return False
    now = _roots_of(memory, held, mine, len(held.table.roots.mean))
    return not _alike(now, held.table.roots)


def followed(sums: np.ndarray) -> float:
    """Return how much of our cuts rivals match: the slope of their moves on them, with a constant.

    Rivals stand where history's cuts had left them: without the constant a retailer whose managers
    had cut, too, was told of two thirds of it.
    """
    days, cuts, moves, square, product = (float(of) for of in sums)
    apart = max(days, 1.0)
    slope = (product - moves * cuts / apart) / (square - cuts * cuts / apart + FOLLOW_PRIOR)
    return float(np.clip(slope, 0.0, 1.0))


def _some(category: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return positions of some rows, evenly taken from each category, ascending.

    Args:
        shares: int64[categories], how many rows of each at most.
    """
    order = np.argsort(category, kind="stable")
    starts = np.searchsorted(category[order], np.arange(len(shares)))
    sizes = np.diff(np.append(starts, len(order)))
    taken = [
        order[start + np.unique(np.linspace(0, size - 1, min(size, share)).astype(np.int64))]
        for start, size, share in zip(starts.tolist(), sizes.tolist(), shares.tolist(), strict=True)
        if size > 0 and share > 0
    ]
    return np.sort(np.concatenate(taken))


def _shares(category: np.ndarray, count: int, most: int) -> np.ndarray:
    """Return int64[count], how many rows each category gives of ``most`` in all.

    Each gives as many as any other, or all that it has: what small ones leave, large ones give.
    Where there are more categories than rows to give, the largest give one each.
    """
    sizes = np.bincount(category, minlength=count)[:count]
    if len(category) <= most:
        return sizes
    ascending = np.sort(sizes)
    # With the k smallest giving all that they have, the others may give so many each.
    others = count - np.arange(count)
    each = (most - np.append(0, np.cumsum(ascending)[:-1])) // others
    level = int(each[each <= ascending].max(initial=0))
    if level > 0:
        return np.minimum(sizes, level)
    shares = np.zeros(count, dtype=np.int64)
    shares[np.argsort(-sizes, kind="stable")[:most]] = 1
    return np.minimum(sizes, shares)


def _history_sound(held: RetailerLearning, learnt: np.ndarray, mine: np.ndarray) -> bool:
    """Return whether history's prices may be learnt from: the lead test, and that of Hausman.

    Args:
        learnt: of all rows of the shard.
    """
    if abs(lead_score(held.lead)) > ALARM_SD:
        return False
    columns = SUMS.index("xx"), SUMS.index("bx")
    own, before = (learnt[of][mine][:, columns].astype(np.float64) for of in ("own", "history"))
    apart = float(hausman(own, before, np.zeros(len(own), dtype=np.int64))[0])
    return not abs(apart) > ALARM_SD  # NaN is no alarm


def hausman(own: np.ndarray, before: np.ndarray, part: np.ndarray, parts: int = 1) -> np.ndarray:
    """Return float64[parts], by how many standard deviations history's elasticities lie above ours.

    Prices drawn by lot are followed by nobody; where people's prices say something else, they
    followed demand (Hausman 1978). NaN where no listing of a part has both.

    Args:
        own: float64[rows, 2], sums of squares of price innovations and of their products with sales
            (``SUMS`` xx and bx), from prices that the engine drew.
        before: float64[rows, 2], the same from prices that people set.
        part: int64[rows], such as each row's category.
    """
    both = (own[:, 0] > TOLD_LEAST) & (before[:, 0] > TOLD_LEAST)
    own, before, part = own[both], before[both], part[both]
    apart = before[:, 1] / before[:, 0] - own[:, 1] / own[:, 0]
    weight = 1.0 / (1.0 / own[:, 0] + 1.0 / before[:, 0])
    summed = np.bincount(part, weights=apart * weight, minlength=parts)
    weights = np.bincount(part, weights=weight, minlength=parts)
    return np.where(weights > 0.0, summed / np.sqrt(np.maximum(weights, 1e-300)), np.nan)


def _piled(markup: np.ndarray, category: np.ndarray) -> float:
    """Return the markup up to which rows are piled up at the lowest one; -1: they are not."""
    known = np.isfinite(markup)
    if not known.any():
        return -1.0
    lowest = float(markup[known].min()) + PILED_LOG
    at = known & (markup <= lowest)
    enough = max(5, PILED_SHARE * known.sum()) <= at.sum() <= PILED_MOST * known.sum()
    return lowest if enough and len(np.unique(category[at])) > 1 else -1.0


def _rules_of_thumb(markup: np.ndarray, category: np.ndarray, piled_log: float) -> list[int]:
    """Return the markups, in steps of ``ALIKE_LOG``, that many rows of one category share.

    With their neighbours: a small cost is rounded to whole minor units, and its markup with it.
    """
    known = np.flatnonzero(np.isfinite(markup) & (markup > piled_log))
    step = np.rint(markup[known] / ALIKE_LOG).astype(np.int64)
    sizes = np.bincount(category[known], minlength=int(category.max(initial=0)) + 1)
    pairs, counts = np.unique(np.stack([category[known], step]), axis=1, return_counts=True)
    shared = counts >= np.maximum(ALIKE_MIN, ALIKE_SHARE * sizes[pairs[0]])
    near = np.arange(-ROUNDED_STEPS, ROUNDED_STEPS + 1)
    found = set((pairs[1][shared][:, None] + near).ravel().tolist())
    for at in np.flatnonzero(sizes >= ALIKE_MIN).tolist():
        found |= _narrow(markup[known][category[known] == at])
    return sorted(found)


def _narrow(markup: np.ndarray) -> set[int]:
    """Return the steps around a category's middle markup where half of them lie near it."""
    middle = float(np.median(markup))
    if np.median(np.abs(markup - middle)) > NARROW_LOG:
        return set()
    lowest, highest = (round((middle + side) / ALIKE_LOG) for side in (-NARROW_REACH, NARROW_REACH))
    return set(range(lowest, highest + 1))


def _is_ruled(held: RetailerLearning, markup: np.ndarray, said: Stated) -> np.ndarray:
    """Return which rows' prices follow a rule of thumb; whose are stated to be good do not."""
    if not held.ruled:
        return np.zeros(len(markup), dtype=bool)
    above = np.isfinite(markup) & (markup > held.piled_log) & (said.error == 0.0)
    step = np.rint(np.where(above, markup, -1.0) / ALIKE_LOG).astype(np.int64)
    return np.asarray(above & np.isin(step, held.ruled))


def _said_by_rules(
    markup: np.ndarray, ruled: np.ndarray, category: np.ndarray, roots: Roots
) -> np.ndarray:
    """Return float64[categories, means], what rules of thumb say of means, as logarithms.

    A rule tells nothing of the single listing. But who has lived by it has a category that is not
    far from it: one word a category, as much of one as it has listings under the rule.
    """
    log = np.zeros((len(roots.mean), len(MEANS)))
    for at in np.unique(category[ruled]).tolist():
        mine = (category == at) & np.isfinite(markup)
        off = np.median(markup[mine & ruled]) - implied(MEANS * roots.shift[at])
        word = np.maximum(-0.5 * np.square(off / RULE_SD_LOG), RULE_LOG_LEAST)
        log[at] = word * (mine & ruled).sum() / mine.sum()
    return log
