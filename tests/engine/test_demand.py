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


def test_an_item_stands_once_in_a_period() -> None:
    demand = Demand(["a"], ["g"])
    with pytest.raises(RejectedInput, match="twice"):
        demand.observe(["a", "a"], 1, np.ones(2), np.ones(2))
