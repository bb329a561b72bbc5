"""The real-data half of the exam: forecasts, price response and elasticities on Dominick's juice.

The table is read from a path that the caller gives; it is never part of the repository. The model
is ``engine.demand``, one pass, week by week: what is scored was forecast before it was seen. The
covariates are what the published boards use: deal, feature, and the other brands' prices.

Nothing is tuned on the rounds that are scored. Which point is scored: one forecast has a median
(least absolute error, for WAPE) and a point of least relative error (for MAPE, which rewards low
ones); the score of both is shown, and the one for MAPE is the entry, with its bias beside it.
"""

from collections.abc import Callable

import numpy as np
from msgspec import Struct

from engine.demand import Demand, Forecast
from training.exam.juice import Juice, own_spread, plain_slope, within_slope

FIRST_WEEK, ROUNDS = 40, tuple(range(135, 154, 2))
"""A round trains up to its week and forecasts the second and third after it."""

WARM_ROUNDS = tuple(range(95, 135, 2))
"""Rounds before the scored ones, on which intervals settle."""

MOVED_LOG, MEMORY_WEEKS = 0.10, 8
REFERENCE = (-2.78, -1.84, -3.33, -3.85, -2.91, -2.47, -3.63, -2.73, -4.09, -2.83, -1.00)
"""Store fixed effects with cross prices, brands 1 to 11: what elasticities are compared with."""

PLAIN: dict[int, float] = {10: -3.378, 5: -3.321, 1: -2.712}
"""Brands, and what plain least squares of log sales on the log price must give for them."""

MEAN_MAPE = 69.772
"""What the mean of each series must score, or the rows are not the published ones."""


class Board(Struct, frozen=True, kw_only=True):
    """Scores on the forecast rounds."""

    cells: int
    mape: float
    wape: float
    bias: float
    median_mape: float
    median_wape: float
    median_bias: float
    moved_cells: int
    moved_wape: float
    slope: float
    slope_up: float
    slope_down: float
    coverage: float
    coverage_by_volume: tuple[float, float, float]
    coverage_moved: float
    winkler: float  # mean score over mean units
    elasticities: tuple[float, ...]
    elasticity_rmse: float
    largest_elasticity: float  # of any store and brand, as the slope was fitted: before clipping
    positive_share: float  # of such slopes
    spread: tuple[float, ...]  # sd over a brand's stores of their elasticities
    own_spread: tuple[float, ...]  # the same of a regression of each store alone
    mean_mape: float  # the self-check
    plain_slopes: tuple[float, ...]  # a self-check: least squares, brands as PLAIN names them
    reference_off: float  # and another: how far our own regression is off REFERENCE at most


def sit_juice(
    juice: Juice,
    told: Callable[[], None] = lambda: None,
    kept: list[tuple[np.ndarray, Forecast]] | None = None,
) -> Board:
    """Stream the table, forecast each round before it is seen, and score.

    Args:
        kept: where each round's rows and forecast are put, for whoever compares others with them.
    """
    names = list(dict.fromkeys(juice.item))
    groups = dict(zip(juice.item, (f"brand {b}" for b in juice.brand.tolist()), strict=True))
    covariates = ["deal", "feature", *(f"price {n}" for n in range(1, 12))]
    demand = Demand(names, [groups[name] for name in names], covariates)
    scored: list[tuple[np.ndarray, Forecast]] = []
    for week in range(FIRST_WEEK, int(juice.week.max()) + 1):
        rows = np.flatnonzero(juice.week == week)
        if len(rows):
            demand.observe(
                _names(juice, rows),
                week,
                juice.price[rows],
                juice.units[rows],
                juice.covariates[rows],
            )
        if week in WARM_ROUNDS or week in ROUNDS:
            seen = np.isin(
                juice.item, [juice.item[row] for row in np.flatnonzero(juice.week <= week)]
            )
            ahead = np.flatnonzero(np.isin(juice.week, (week + 2, week + 3)) & seen)
            forecast = _ahead(demand, juice, ahead, juice.price[ahead])
            if week in ROUNDS:
                scored.append((ahead, forecast))
            demand.calibrate(juice.units[ahead], forecast, _names(juice, ahead))
        told()
    if kept is not None:
        kept.extend(scored)
    return _board(juice, demand, scored)


def _names(juice: Juice, rows: np.ndarray) -> list[str]:
    return [juice.item[row] for row in rows.tolist()]


def _ahead(demand: Demand, juice: Juice, rows: np.ndarray, price: np.ndarray) -> Forecast:
    return demand.forecast(_names(juice, rows), juice.week[rows], price, juice.covariates[rows])


def _recent(juice: Juice, rows: np.ndarray, week: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean log price and log units of each row's item in the weeks before; NaN: none."""
    recent = np.flatnonzero((juice.week <= week) & (juice.week > week - MEMORY_WEEKS))
    number = {name: at for at, name in enumerate(dict.fromkeys(juice.item))}
    of_recent = np.array([number[name] for name in _names(juice, recent)])
    of_rows = np.array([number[name] for name in _names(juice, rows)])
    count = np.bincount(of_recent, minlength=len(number)).astype(np.float64)

    def mean(column: np.ndarray) -> np.ndarray:
        total = np.bincount(of_recent, weights=column[recent], minlength=len(number))
        return np.asarray(np.where(count > 0, total / np.maximum(count, 1.0), np.nan)[of_rows])

    return mean(np.log(juice.price)), mean(np.log(juice.units))


def _board(juice: Juice, demand: Demand, scored: list[tuple[np.ndarray, Forecast]]) -> Board:
    rows = np.concatenate([ahead for ahead, _ in scored])
    low, high, median, entry = (
        np.concatenate([getattr(forecast, name) for _, forecast in scored])
        for name in ("low", "high", "units", "least_relative")
    )
    actual = juice.units[rows]
    usual_log, sales_log = (
        np.concatenate(parts)
        for parts in zip(
            *(_recent(juice, ahead, week) for (ahead, _), week in zip(scored, ROUNDS, strict=True)),
            strict=True,
        )
    )
    move = np.log(juice.price[rows]) - usual_log
    moved = np.isfinite(move) & (np.abs(move) > MOVED_LOG)
    # Lift is against what the same item sold in the weeks before, actual and predicted alike.
    lift = np.log(actual) - sales_log
    predicted = np.log(np.maximum(median, 1.0)) - sales_log
    inside = (actual >= low) & (actual <= high)
    missed = np.maximum(low - actual, 0.0) + np.maximum(actual - high, 0.0)
    third = np.searchsorted(np.quantile(actual, [1 / 3, 2 / 3]), actual)

    def covered(part: int) -> float:
        return float(inside[third == part].mean())

    by_brand = demand.group_elasticities()
    found = dict(zip(by_brand.names, by_brand.mean.tolist(), strict=True))
    elasticities = tuple(found[f"brand {n}"] for n in range(1, 12))
    # What ``elasticities`` tells is clipped below zero; the slopes themselves may be anything.
    raw = demand.effects()[:, 0]
    brand = np.array([int(name.rpartition("-")[2]) for name in demand.items])
    within = np.array([within_slope(juice, n) for n in range(1, 12)])
    return Board(
        cells=len(rows),
        **_scores("", entry, actual),
        **_scores("median_", median, actual),
        moved_cells=int(moved.sum()),
        moved_wape=float(np.abs(median - actual)[moved].sum() / actual[moved].sum()),
        slope=_slope(predicted[moved], lift[moved]),
        slope_up=_slope(predicted[moved & (move > 0)], lift[moved & (move > 0)]),
        slope_down=_slope(predicted[moved & (move < 0)], lift[moved & (move < 0)]),
        coverage=float(inside.mean()),
        coverage_by_volume=(covered(0), covered(1), covered(2)),
        coverage_moved=float(inside[moved].mean()),
        winkler=float((high - low + 20.0 * missed).mean() / actual.mean()),
        elasticities=elasticities,
        elasticity_rmse=float(np.sqrt(np.mean(np.square(np.array(elasticities) - REFERENCE)))),
        largest_elasticity=float(raw.max()),
        positive_share=float((raw > 0.0).mean()),
        spread=tuple(float(raw[brand == n].std()) for n in range(1, 12)),
        own_spread=tuple(own_spread(juice, n) for n in range(1, 12)),
        mean_mape=_mean_mape(juice),
        plain_slopes=tuple(plain_slope(juice, n) for n in PLAIN),
        reference_off=float(np.abs(within - np.array(REFERENCE)).max()),
    )


def _scores(prefix: str, forecast: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    off = forecast - actual
    return {
        f"{prefix}mape": float(100.0 * (np.abs(off) / actual).mean()),
        f"{prefix}wape": float(np.abs(off).sum() / actual.sum()),
        f"{prefix}bias": float(off.sum() / actual.sum()),
    }


def _slope(predicted: np.ndarray, actual: np.ndarray) -> float:
    centred = predicted - predicted.mean()
    return float((centred * (actual - actual.mean())).sum() / np.square(centred).sum())


def _mean_mape(juice: Juice) -> float:
    """Return the MAPE of each series' mean log sales, for it must be the published one."""
    number = {name: at for at, name in enumerate(dict.fromkeys(juice.item))}
    of = np.array([number[name] for name in juice.item])
    errors = []
    for week in ROUNDS:
        seen = juice.week <= week
        total = np.bincount(of[seen], weights=np.log(juice.exact[seen]), minlength=len(number))
        mean = total / np.maximum(np.bincount(of[seen], minlength=len(number)), 1)
        ahead = np.isin(juice.week, (week + 2, week + 3))
        forecast = np.exp(mean[of[ahead]])
        errors.append(np.abs(forecast - juice.units[ahead]) / juice.units[ahead])
    return float(100.0 * np.concatenate(errors).mean())


def juice_verdicts(board: Board) -> list[tuple[str, bool]]:
    """Return every goal on real data, and whether it is reached."""
    low, high = min(board.coverage_by_volume), max(board.coverage_by_volume)
    slopes = (board.slope_up, board.slope_down)
    pairs = zip(board.spread, board.own_spread, strict=True)
    shrunk = sum(ours < alone for ours, alone in pairs)
    plain = ", ".join(f"{slope:.3f}" for slope in board.plain_slopes)
    apart = np.abs(np.array(board.plain_slopes) - list(PLAIN.values())).max()
    return [
        (
            f"self-check: mean scores {board.mean_mape:.3f}, published {MEAN_MAPE}",
            abs(board.mean_mape - MEAN_MAPE) < 0.01,
        ),
        (
            f"self-check: least squares gives {plain}, published "
            + ", ".join(f"{slope:.3f}" for slope in PLAIN.values()),
            bool(apart < 0.0006),
        ),
        (
            f"self-check: our regression is off the published elasticities by "
            f"{board.reference_off:.3f} at most < .01",
            board.reference_off < 0.01,
        ),
        (f"MAPE {board.mape:.2f} <= 35.97 (aim 34), bias {board.bias:+.3f}", board.mape <= 35.97),
        (f"WAPE {board.wape:.3f} <= .42 (aim .40)", board.wape <= 0.42),
        (f"moved cells: WAPE {board.moved_wape:.3f} <= .42", board.moved_wape <= 0.42),
        (f"moved cells: slope {board.slope:.2f} in .90 to 1.10", 0.9 <= board.slope <= 1.1),
        (
            f"moved cells: slopes up {slopes[0]:.2f} and down {slopes[1]:.2f} in .8 to 1.2",
            all(0.8 <= slope <= 1.2 for slope in slopes),
        ),
        (
            f"elasticity RMSE {board.elasticity_rmse:.3f} <= .5 (aim .35)",
            board.elasticity_rmse <= 0.5,
        ),
        (
            f"greatest slope of a store {board.largest_elasticity:.2f} < 0 (unclipped; "
            f"{board.positive_share:.4f} of them positive)",
            board.largest_elasticity < 0.0,
        ),
        (f"spread over stores shrinks for {shrunk} of 11 brands = 11", shrunk == len(board.spread)),
        (f"90 % intervals cover {board.coverage:.3f}, .88 to .92", 0.88 <= board.coverage <= 0.92),
        (f"by volume they cover {low:.3f} to {high:.3f}, .85 to .95", low >= 0.85 and high <= 0.95),
        (
            f"moved cells: they cover {board.coverage_moved:.3f}, .85 to .95",
            0.85 <= board.coverage_moved <= 0.95,
        ),
    ]
