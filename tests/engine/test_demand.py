"""Demand fitted on a table: known parameters are found, in one pass, and intervals cover."""

import numpy as np
import pytest

from engine.demand import Demand, fit_demand
from engine.errors import RejectedInput

WEEKS, ITEMS = 100, 30


def table(
    seed: int,
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    truth = draw.normal(-2.5, 0.4, ITEMS)
    items = [f"i{number}" for _ in range(WEEKS) for number in range(ITEMS)]
    times = np.repeat(np.arange(WEEKS), ITEMS)
    level = np.cumsum(draw.normal(0, 0.05, (WEEKS, ITEMS)), axis=0).ravel()
    moved = draw.normal(0, 0.12, WEEKS * ITEMS)
    promoted = (draw.random(WEEKS * ITEMS) < 0.15).astype(float)
    log = 4.0 + level + np.tile(truth, WEEKS) * moved + 0.4 * promoted
    units = draw.poisson(np.exp(log + draw.normal(0, 0.15, len(log)))).astype(float)
    return items, times, 3.0 * np.exp(moved), units, promoted, truth


def test_known_elasticities_are_found() -> None:
    items, times, prices, units, promoted, truth = table(1)
    demand = fit_demand(items, times, prices, units, covariates=promoted)
    found = demand.elasticities()
    assert np.sqrt(np.mean(np.square(found.mean - truth))) < 0.25
    assert ((found.low < truth) & (truth < found.high)).mean() >= 0.75
    assert demand.group_elasticities().mean[0] == pytest.approx(truth.mean(), abs=0.15)
    assert demand.effects()[:, 1].mean() == pytest.approx(0.4, abs=0.08)


def test_rows_may_come_in_any_order() -> None:
    items, times, prices, units, promoted, _ = table(2)
    mixed = np.random.default_rng(0).permutation(len(items))
    first = fit_demand(items, times, prices, units, covariates=promoted)
    second = fit_demand(
        [items[row] for row in mixed],
        times[mixed],
        prices[mixed],
        units[mixed],
        covariates=promoted[mixed],
    )
    order = [second.items.index(name) for name in first.items]
    np.testing.assert_allclose(
        second.elasticities().mean[order], first.elasticities().mean, rtol=1e-9
    )


def test_intervals_cover_what_then_happens() -> None:
    items, times, prices, units, promoted, _ = table(3)
    early = times < 70
    names = [item for item, kept in zip(items, early, strict=True) if kept]
    demand = fit_demand(
        names, times[early], prices[early], units[early], covariates=promoted[early]
    )
    hits = []
    for week in range(70, WEEKS):
        rows = np.flatnonzero(times == week)
        of = [items[row] for row in rows.tolist()]
        ahead = demand.forecast(of, times[rows], prices[rows], promoted[rows])
        hits.append((units[rows] >= ahead.low) & (units[rows] <= ahead.high))
        demand.calibrate(units[rows], ahead, of)
        demand.observe(of, week, prices[rows], units[rows], promoted[rows])
    assert 0.86 <= np.mean(hits) <= 0.94


def test_few_data_fall_back_to_the_group() -> None:
    items, times, prices, units, promoted, truth = table(4)
    items = [*items, "young", "young"]
    times = np.append(times, [98, 99])
    demand = fit_demand(
        items,
        times,
        np.append(prices, [3.0, 2.5]),
        np.append(units, [50.0, 500.0]),
        covariates=np.append(promoted, [0.0, 0.0]),
    )
    young = demand.elasticities().mean[demand.items.index("young")]
    assert young == pytest.approx(truth.mean(), abs=0.8)


@pytest.mark.parametrize("first", [0, 40, -3])
def test_periods_one_by_one_are_the_table(first: int) -> None:
    items, times, prices, units, promoted, _ = table(5)
    names = list(dict.fromkeys(items))
    streamed = Demand(names, ["all"] * ITEMS, ["promoted"])
    for week in range(WEEKS):
        rows = times == week
        streamed.observe(names, first + week, prices[rows], units[rows], promoted[rows])
    whole = fit_demand(items, times, prices, units, covariates=promoted)
    np.testing.assert_array_equal(streamed.elasticities().mean, whole.elasticities().mean)


def test_an_item_stands_once_in_a_period() -> None:
    demand = Demand(["a"], ["g"])
    with pytest.raises(RejectedInput, match="twice"):
        demand.observe(["a", "a"], 1, np.ones(2), np.ones(2))


def test_what_comes_together_is_not_told_apart() -> None:
    """A promotion that always comes with the cut: the interval holds the truth, and is wide."""
    draw = np.random.default_rng(9)
    items = [f"i{number}" for _ in range(WEEKS) for number in range(ITEMS)]
    promoted = (draw.random(len(items)) < 0.12).astype(float)
    prices = np.where(promoted > 0, 2.25, 3.0)
    units = draw.poisson(40 * (prices / 3.0) ** -2.0 * np.exp(0.5 * promoted)).astype(float)
    times = np.repeat(np.arange(WEEKS), ITEMS)
    demand = fit_demand(
        items, times, prices, units, covariates=promoted, covariate_names=["promoted"]
    )
    found = demand.elasticities()
    assert ((found.low < -2.0) & (found.high > -2.0)).all()
    assert (found.high - found.low).min() > 2.0
    # What they do together is known well: a promotion is forecast as closely as any week.
    names = list(demand.items)
    usual, cut = (
        demand.forecast(names, np.full(ITEMS, WEEKS), np.full(ITEMS, price), np.full(ITEMS, flag))
        for price, flag in ((3.0, 0.0), (2.25, 1.0))
    )
    assert np.median(cut.mean) == pytest.approx(40 * 0.75**-2.0 * np.exp(0.5), rel=0.05)
    assert np.median((cut.high - cut.low) / cut.units) < 1.2 * np.median(
        (usual.high - usual.low) / usual.units
    )


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4])
def test_the_unit_of_measure_changes_no_answer(scale: float) -> None:
    """Kilograms or tons: half a unit beside .03 tons drowned the price (-.15 for -2.5)."""
    items, times, prices, units, _, truth = table(6)
    kilograms = units * 0.37 + 0.01
    found, ahead = [], []
    for by in (1.0, scale):
        demand = fit_demand(items, times, prices, kilograms * by)
        found.append(demand.elasticities().mean)
        ahead.append(demand.forecast(["i0"], np.array([WEEKS]), np.array([3.0])).units[0] / by)
    assert np.sqrt(np.mean(np.square(found[1] - truth))) < 0.4
    np.testing.assert_allclose(found[1], found[0], atol=0.15)
    assert ahead[1] == pytest.approx(ahead[0], rel=0.05)


def test_tons_one_by_one_are_the_table() -> None:
    """Whatever was asked in between, and though the first rows were whole by chance."""
    items, times, prices, units, _, _ = table(7)
    tons = np.where(times < 3, 1.0, units * 1e-3)
    names = list(dict.fromkeys(items))
    streamed = Demand(names, ["all"] * ITEMS)
    for week in range(WEEKS):
        rows = times == week
        streamed.observe(names, week, prices[rows], tons[rows])
        if week % 9 == 0:
            streamed.elasticities()
    whole = fit_demand(items, times, prices, tons)
    np.testing.assert_array_equal(streamed.elasticities().mean, whole.elasticities().mean)
