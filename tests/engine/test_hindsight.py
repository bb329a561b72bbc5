"""Each horizon is foreseen from the level that missed it least, and as widely as it was missed."""

import numpy as np
import pytest

from engine.demand import Demand, fit_demand

WEEKS, ITEMS = 120, 40


def fitted(log: np.ndarray, units: np.ndarray | None = None) -> tuple[Demand, list[str]]:
    """Fit on all but the last eight weeks of ``log`` (float64[weeks, items], logs of sales)."""
    names = [f"i{number}" for number in range(ITEMS)]
    sold = np.exp(log) if units is None else units
    weeks = len(log) - 8
    prices = 3.0 * np.exp(np.random.default_rng(0).normal(0, 0.1, (weeks, ITEMS)))
    demand = fit_demand(
        names * weeks, np.repeat(np.arange(weeks), ITEMS), prices.ravel(), sold[:weeks].ravel()
    )
    return demand, names


def ahead(demand: Demand, names: list[str], weeks: int) -> np.ndarray:
    """Return float64[4, items]: units, mean, low and high so many weeks ahead."""
    found = demand.forecast(names, np.full(ITEMS, WEEKS - 9 + weeks), np.full(ITEMS, 3.0))
    return np.stack([found.units, found.mean, found.low, found.high])


def returning(seed: int) -> np.ndarray:
    """Return logs of sales that come back: a shock lasts some weeks."""
    draw = np.random.default_rng(seed)
    shock = np.zeros((WEEKS, ITEMS))
    for week in range(1, WEEKS):
        shock[week] = 0.7 * shock[week - 1] + draw.normal(0, 0.5, ITEMS)
    return 6.0 + shock


def test_what_returns_is_foreseen_to_return() -> None:
    off, wide = [], []
    for seed in range(3):
        log = returning(seed)
        demand, names = fitted(log)
        near, far = ahead(demand, names, 1), ahead(demand, names, 8)
        last = log[WEEKS - 9] - 6.0
        for found in (near, far):
            off.append(np.polyfit(last, np.log(found[0]) - 6.0, 1)[0])
        wide.append(
            ((np.exp(log[WEEKS - 1]) >= far[2]) & (np.exp(log[WEEKS - 1]) <= far[3])).mean()
        )
    assert np.mean(off[0::2]) > 0.3  # of a shock that will last for .7
    assert np.mean(off[1::2]) < 0.15  # of one of which .06 is left
    assert 0.8 <= np.mean(wide) <= 0.98


def test_an_item_that_is_noisier_has_wider_intervals() -> None:
    draw = np.random.default_rng(1)
    noise = np.where(np.arange(ITEMS) % 2, 0.6, 0.1)
    log = 6.0 + noise * draw.normal(size=(WEEKS, ITEMS))
    demand, names = fitted(log)
    low, high = np.log(ahead(demand, names, 2)[2:])
    calm, wild = (high - low)[::2], (high - low)[1::2]
    assert wild.mean() / calm.mean() == pytest.approx(6.0, rel=0.25)
    held = (log[WEEKS - 7] >= low) & (log[WEEKS - 7] <= high)
    assert held[::2].mean() >= 0.75
    assert held[1::2].mean() >= 0.75


def test_the_mean_of_what_runs_out_is_no_log_normals() -> None:
    """One week in twelve the shelf is empty: that makes logs scatter, and no week better."""
    draw = np.random.default_rng(2)
    stocked = draw.random((WEEKS, ITEMS)) > 1 / 12
    units = np.where(stocked, draw.poisson(60.0, (WEEKS, ITEMS)), 0).astype(float)
    demand, names = fitted(np.zeros((WEEKS, ITEMS)), units)
    found = ahead(demand, names, 3)
    assert found[1].mean() == pytest.approx(55.0, rel=0.1)


def test_even_shocks_leave_one_level() -> None:
    """Where nothing returns, nothing is gained by another level, and widths grow a little."""
    draw = np.random.default_rng(3)
    walk = np.cumsum(draw.normal(0, 0.1, (WEEKS, ITEMS)), axis=0)
    demand, names = fitted(6.0 + walk + draw.normal(0, 0.2, (WEEKS, ITEMS)))
    near, far = ahead(demand, names, 1), ahead(demand, names, 8)
    assert np.abs(np.log(far[0] / near[0])).mean() < 0.06
    assert 1.1 < np.log(far[3] / far[2]).mean() / np.log(near[3] / near[2]).mean() < 2.0


def test_a_young_item_is_less_sure() -> None:
    draw = np.random.default_rng(4)
    weeks = np.tile(np.arange(WEEKS), ITEMS)
    names = np.repeat([f"i{number}" for number in range(ITEMS)], WEEKS)
    kept = (names != "i0") | (weeks >= WEEKS - 2)
    units = np.exp(6.0 + draw.normal(0, 0.3, len(weeks)))
    prices = 3.0 * np.exp(draw.normal(0, 0.1, len(weeks)))
    demand = fit_demand(names[kept], weeks[kept], prices[kept], units[kept])
    found = demand.forecast(["i0", "i1"], np.full(2, WEEKS), np.full(2, 3.0))
    young, old = np.log(found.high / found.low)
    assert 1.1 < young / old < 1.5


def test_three_rows_an_item_tell_their_noise() -> None:
    """Two surprises of each, whose variance the first level's own error has not doubled."""
    wide = []
    for seed in range(4):
        draw = np.random.default_rng(seed)
        demand = fit_demand(
            [f"i{number}" for number in range(300)] * 3,
            np.repeat(np.arange(3), 300),
            3.0 * np.exp(draw.normal(0, 0.02, 900)),
            np.exp(6.0 + draw.normal(0, 0.3, 900)),
        )
        found = demand.forecast(["i0"], np.array([3]), np.array([3.0]))
        wide.append(float(np.log(found.high / found.low)[0]) / (2.0 * 1.645))
    assert np.mean(wide) == pytest.approx(0.3 * np.sqrt(4 / 3), rel=0.12)
