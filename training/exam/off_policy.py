"""The off-policy check on Dominick's juice: what would the shard's prices have earned?

Nobody sold at the prices that the shard proposes for weeks 121 to 160 (``training.exam.shelves``),
so three judges say what they would have earned, each from those weeks alone. None of them is a
model of ours.

* A regression of another kind: log sales on log prices of all brands, deal, feature and store
  effects, a brand at a time; at all proposals together, and at one of them at a time.
* Self-normalised inverse propensities: weeks in which a store happened to ask about the proposed
  price count for those in which it did not. No model of demand, and much noise.
* Doubly robust: the regression, fitted on the other folds of weeks, corrected by what it missed
  where the price was about the proposed one.

Intervals are bootstraps over weeks, for all stores share a week's chance. Nothing was tuned here.
"""

from collections.abc import Callable

import numpy as np
from msgspec import Struct

from training.exam.juice import BRANDS
from training.exam.shelves import Shelves

BUCKET_LOG, PRIOR_WEEKS, PROPENSITY_LEAST = 0.08, 4.0, 0.02
"""How wide a bucket of prices is; so many weeks of the brand's habit stand behind a store's; and
the least propensity that is divided by."""

DRAWS, FOLDS = 100, 5
EXTRAPOLATED_GOAL, RED_FLAG = 0.2, 0.1
"""More proposals outside of what a store asked, and nobody can judge; and a gain beyond belief."""


class OffPolicy(Struct, frozen=True, kw_only=True):
    """What the judges say. A gain is over what was earned, as a share of it."""

    cells: int
    mean_move: float  # mean |log(proposed / asked)|
    extrapolated_share: float  # of proposals outside of the prices that the store asked
    judge: float  # the regression, all proposals together
    judge_low: float  # a 90 % interval
    judge_high: float
    alone: float  # the same, one proposal at a time: what the next two say as well
    doubly_robust: float
    doubly_robust_low: float
    doubly_robust_high: float
    propensity: float  # self-normalised
    propensity_low: float
    propensity_high: float
    matched_share: float  # of cells whose price was in the bucket of the proposed one
    unsupported_share: float  # of cells whose store never asked in that bucket under such a deal
    effective_cells: float  # of the propensities' weights, (sum w)^2 / sum w^2


class Judged(Struct, frozen=True, eq=False):
    """The rows that are judged, of one element each."""

    shelves: Shelves
    proposed: np.ndarray  # price of a package

    def design(self, own: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return float64[rows, brands + 2], regressors at moves of own and others' log prices.

        Args:
            own: float64[rows], log of the price over the one that was asked.
            others: float64[rows, brands], the same of all brands in the store and week.
        """
        moved = self.shelves.ounce_log + others
        rows = np.arange(len(own))
        moved[rows, self.shelves.brand] = self.shelves.ounce_log[rows, self.shelves.brand] + own
        return np.concatenate([moved, self.shelves.promotion], axis=1)


def judge(shelves: Shelves, proposed: np.ndarray, seed: int) -> OffPolicy:
    """Return what the judges say of prices proposed for some rows; NaN: none is."""
    rows = np.flatnonzero(np.isfinite(proposed))
    of = Judged(_rows(shelves, rows), proposed[rows])
    move = np.log(of.proposed / of.shelves.price)
    earned = (of.shelves.price - of.shelves.cost) * of.shelves.packages
    together, alone = _together(of, move), np.zeros((len(rows), BRANDS))
    weeks, week = np.unique(of.shelves.week, return_inverse=True)
    draw = np.random.default_rng([seed, 9])
    picks = [
        np.bincount(draw.integers(0, len(weeks), len(weeks)), minlength=len(weeks))[week]
        for _ in range(DRAWS)
    ]
    ones = np.ones(len(rows))
    gain = [_gain(of, move, together, weight.astype(np.float64)) for weight in (ones, *picks)]
    # Each fold of weeks is foreseen by what was fitted on the others.
    fold = week * FOLDS // len(weeks)
    at_ours, at_theirs = np.zeros(len(rows)), np.zeros(len(rows))
    for number in range(FOLDS):
        ours, theirs = _expected(of, move, alone, np.where(fold == number, 0.0, 1.0))
        at_ours = np.where(fold == number, ours, at_ours)
        at_theirs = np.where(fold == number, theirs, at_theirs)
    weight, supported = _weights(of, move)
    scale = np.bincount(of.shelves.item, weights=earned)[of.shelves.item]
    scale = scale / np.bincount(of.shelves.item)[of.shelves.item]
    missed = weight * (earned - at_theirs)

    def propensity(pick: np.ndarray) -> float:
        by = (pick * weight * earned).sum() / max((pick * weight * scale).sum(), 1e-9)
        return float(by * (pick * scale).sum() / (pick * earned).sum() - 1.0)

    def robust(pick: np.ndarray) -> float:
        return float((pick * (at_ours + missed)).sum() / (pick * earned).sum() - 1.0)

    by_propensity = [propensity(pick) for pick in (ones, *picks)]
    by_both = [robust(pick) for pick in (ones, *picks)]
    low, high = _observed(of.shelves)
    outside = (of.proposed < low - 0.005) | (of.proposed > high + 0.005)
    return OffPolicy(
        cells=len(rows),
        mean_move=float(np.abs(move).mean()),
        extrapolated_share=float(outside.mean()),
        judge=gain[0],
        judge_low=float(np.quantile(gain[1:], 0.05)),
        judge_high=float(np.quantile(gain[1:], 0.95)),
        alone=_gain(of, move, alone, ones),
        doubly_robust=by_both[0],
        doubly_robust_low=float(np.quantile(by_both[1:], 0.05)),
        doubly_robust_high=float(np.quantile(by_both[1:], 0.95)),
        propensity=by_propensity[0],
        propensity_low=float(np.quantile(by_propensity[1:], 0.05)),
        propensity_high=float(np.quantile(by_propensity[1:], 0.95)),
        matched_share=float((weight > 0.0).mean()),
        unsupported_share=float(1.0 - supported.mean()),
        effective_cells=float(np.square(weight.sum()) / max(np.square(weight).sum(), 1e-9)),
    )


def _rows(shelves: Shelves, rows: np.ndarray) -> Shelves:
    return Shelves(*(getattr(shelves, name)[rows] for name in Shelves.__struct_fields__))


def _together(of: Judged, move: np.ndarray) -> np.ndarray:
    """Return float64[rows, brands], moves of all brands' log prices in each row's cell."""
    _, cell = np.unique(of.shelves.cell, return_inverse=True)
    moves = np.zeros((int(cell.max()) + 1, BRANDS))
    moves[cell, of.shelves.brand] = move
    return np.asarray(moves[cell])


def _gain(of: Judged, move: np.ndarray, others: np.ndarray, weight: np.ndarray) -> float:
    ours, theirs = _expected(of, move, others, weight)
    return float((weight * ours).sum() / (weight * theirs).sum() - 1.0)


def _expected(
    of: Judged, move: np.ndarray, others: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the profit expected at the proposals and at the prices asked, float64[rows] each.

    Args:
        weight: float64[rows], how often a row counts in the regression, a brand at a time.
    """
    shelves = of.shelves
    asked = of.design(np.zeros(len(move)), np.zeros_like(others))
    shift = of.design(move, others) - asked
    ours, theirs = np.zeros(len(move)), np.zeros(len(move))
    for brand in np.unique(shelves.brand):
        at = np.flatnonzero(shelves.brand == brand)
        _, item = np.unique(shelves.item[at], return_inverse=True)
        sales, part = np.log(np.maximum(shelves.packages[at], 0.5)), weight[at]
        mean_of = _item_means(item, part)
        x, y = asked[at] - mean_of(asked[at]), sales - mean_of(sales[:, None])[:, 0]
        # A little ridge: in a half of the weeks a rare brand's price may never have moved.
        gram = (x * part[:, None]).T @ x + 1e-3 * np.eye(x.shape[1])
        slopes = np.linalg.solve(gram, (x * part[:, None]).T @ y)
        level = mean_of(sales[:, None])[:, 0] + x @ slopes
        rest = np.exp(np.clip(sales - level, -4.0, 4.0))
        smear = (part * rest).sum() / max(part.sum(), 1e-9)
        units = smear * np.exp(level)
        theirs[at] = (shelves.price[at] - shelves.cost[at]) * units
        lifted = units * np.exp(np.clip(shift[at] @ slopes, -5.0, 5.0))
        ours[at] = (of.proposed[at] - shelves.cost[at]) * lifted
    return ours, theirs


def _item_means(item: np.ndarray, weight: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return what gives each row its item's weighted mean; that of all where it counts nowhere."""
    total = np.bincount(item, weights=weight)

    def mean_of(columns: np.ndarray) -> np.ndarray:
        sums = [np.bincount(item, weights=weight * column) for column in columns.T]
        means = np.stack(sums, axis=1) / np.maximum(total, 1e-9)[:, None]
        whole = (weight[:, None] * columns).sum(axis=0) / max(weight.sum(), 1e-9)
        return np.asarray(np.where(total[:, None] > 0.0, means, whole)[item])

    return mean_of


def _weights(of: Judged, move: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return inverse propensities where the price was about the proposed one, else 0.

    The second is bool[rows]: the store asked such a price at all, under as much of a deal. How a
    store draws its prices is counted by deal, drawn towards what its chain does with the brand.
    """
    shelves = of.shelves
    usual = np.log(_medians(shelves.item, shelves.price))
    asked = np.rint((np.log(shelves.price) - usual) / BUCKET_LOG).astype(np.int64)
    wanted = np.rint((np.log(shelves.price) + move - usual) / BUCKET_LOG).astype(np.int64)
    deal = (shelves.promotion[:, 0] > 0).astype(np.int64)
    own, chain = shelves.item * 2 + deal, shelves.brand * 2 + deal
    own_share, own_count = _shares(own, asked, wanted)
    chain_share, _ = _shares(chain, asked, wanted)
    propensity = (own_share * own_count + PRIOR_WEEKS * chain_share) / (own_count + PRIOR_WEEKS)
    weight = np.where(asked == wanted, 1.0 / np.maximum(propensity, PROPENSITY_LEAST), 0.0)
    return weight, own_share > 0.0


def _shares(of: np.ndarray, asked: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how often whom ``of`` names asked in the wanted bucket, and how many rows he has."""
    base, span = min(asked.min(), wanted.min()), 1 + int(max(asked.max(), wanted.max()))
    span -= int(base)
    counts = np.bincount(of * span + asked - base, minlength=(int(of.max()) + 1) * span)
    rows = np.bincount(of)[of]
    return counts[of * span + wanted - base] / rows, rows.astype(np.float64)


def _medians(item: np.ndarray, price: np.ndarray) -> np.ndarray:
    found = np.zeros(len(item))
    for each in np.unique(item):
        at = item == each
        found[at] = np.median(price[at])
    return found


def _observed(shelves: Shelves) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the greatest price that each row's store asked for its brand."""
    size = int(shelves.item.max()) + 1
    low, high = np.full(size, np.inf), np.zeros(size)
    np.minimum.at(low, shelves.item, shelves.price)
    np.maximum.at(high, shelves.item, shelves.price)
    return low[shelves.item], high[shelves.item]


def off_policy_verdicts(of: OffPolicy) -> list[tuple[str, bool]]:
    """Return the goals of the off-policy check, and whether they are reached.

    Prices were near their best: a small gain is expected, a large one is a claim to be doubted.
    """
    judged = [
        (
            f"off-policy: {of.extrapolated_share:.3f} of proposals outside of observed prices <= "
            f"{EXTRAPOLATED_GOAL}",
            of.extrapolated_share <= EXTRAPOLATED_GOAL,
        ),
        (
            f"off-policy: gain {of.judge:+.3f} ({of.judge_low:+.3f} to {of.judge_high:+.3f}), no "
            f"sure loss, and below the red flag of {RED_FLAG}",
            of.judge_high >= 0.0 and of.judge < RED_FLAG,
        ),
    ]
    for name, gain, low, high in (
        ("doubly robust", of.doubly_robust, of.doubly_robust_low, of.doubly_robust_high),
        ("propensities", of.propensity, of.propensity_low, of.propensity_high),
    ):
        told = f"off-policy, {name}: gain {gain:+.3f} ({low:+.3f} to {high:+.3f}) agrees with "
        judged.append((f"{told}{of.alone:+.3f} of the regression", low <= of.alone <= high))
    return judged
