"""The filter finds slopes that it is given, and the lead test those who follow demand."""

import numpy as np
import pytest

from kernels.whitening import (
    SUMS,
    Belief,
    Level,
    Seen,
    factor,
    foresee,
    lead_score,
    learn,
    totals,
)

ROWS = 400


def fresh() -> Level:
    zero = np.zeros(ROWS)
    return Level(
        days=zero,
        level=zero - 1.0,
        variance=zero + 4.0,
        price=zero,
        square=zero,
        rival=zero + np.nan,
        unexplained=zero,
        moved=zero,
    )


def history(
    seed: int, follow: float = 0.0, days: int = 60
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return sums, the lead test's sums, and the true elasticities of a simulated history."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(-2.6, 0.6, ROWS).clip(-5, -1.3)
    volume = 3.0 * np.exp(draw.normal(0, 1.0, ROWS))
    level, shock = fresh(), np.zeros(ROWS)
    sums, leads = {name: np.zeros(ROWS) for name in SUMS}, np.zeros((5, ROWS))
    belief = Belief(np.full(ROWS, -2.0), 0.0, 0.0, 0.2)
    part = np.zeros(ROWS, dtype=np.int64)
    price = np.zeros(ROWS)
    for day in range(days):
        if day % 7 == 0:
            price = draw.normal(0, 0.08, ROWS) + follow * shock
        shock = 0.9 * shock + draw.normal(0, 0.12, ROWS)
        weekday = 0.3 * (day % 7 == 5)
        rate = volume * np.exp(shock + truth * price + weekday) * draw.gamma(5, 0.2, ROWS)
        seen = Seen(
            draw.poisson(rate).astype(float),
            price,
            np.full(ROWS, np.nan),
            np.zeros(ROWS, dtype=bool),
            np.zeros(ROWS, dtype=bool),
        )
        ahead = foresee(level, belief, seen)
        counted = level.days >= 3
        total = totals(seen.units, ahead, 0.2, counted, part, 1)
        common = factor(total[:, part], seen.units, ahead, 0.2, counted, np.zeros(ROWS), 0.5)
        taught = learn(level, belief, seen, ahead, common)
        level = taught.level
        for name in SUMS:
            sums[name] += taught.sums[name]
        leads += taught.lead
    return sums, leads.sum(axis=1), truth


def test_the_slope_is_found_without_bias() -> None:
    """A belief that is off by half does not pull the slope towards itself."""
    apart = []
    for seed in (1, 2, 3):
        sums, _, truth = history(seed)
        pooled = sums["bx"].sum() / sums["xx"].sum()
        apart.append(pooled - (sums["xx"] * truth).sum() / sums["xx"].sum())
    # The standard error of one is about 0.09.
    assert abs(np.mean(apart)) < 0.17


def foreseen_of_sold(growth: float) -> float:
    """Return what a shop foresees over what it sells, after half a year of growth a day."""
    draw = np.random.default_rng(5)
    volume = 3.0 * np.exp(draw.normal(0, 1.0, ROWS))
    level, nothing = fresh(), np.zeros(ROWS)
    belief = Belief(nothing - 2.0, 0.0, 0.0, 0.2)
    part, never = np.zeros(ROWS, dtype=np.int64), np.zeros(ROWS, dtype=bool)
    ratios = []
    for day in range(180):
        rate = volume * np.exp(growth * day) * draw.gamma(5, 0.2, ROWS)
        units = draw.poisson(rate).astype(float)
        seen = Seen(units, nothing, nothing + np.nan, never, never)
        ahead = foresee(level, belief, seen)
        counted = level.days >= 3
        total = totals(units, ahead, 0.2, counted, part, 1)
        common = factor(total[:, part], units, ahead, 0.2, counted, nothing, 0.5)
        level = learn(level, belief, seen, ahead, common).level
        ratios.append(ahead.units.sum() / units.sum())
    return float(np.mean(ratios[-28:]))


def test_a_shops_levels_stay_with_what_it_sells() -> None:
    """Their common factor is taken out of what each learns, and so nothing else would hold them."""
    assert foreseen_of_sold(0.0) == pytest.approx(1.0, abs=0.07)
    assert foreseen_of_sold(0.002) == pytest.approx(1.0, abs=0.15)


def test_prices_that_follow_demand_are_noticed() -> None:
    assert abs(lead_score(history(4)[1])) < 4.0
    assert abs(lead_score(history(4, follow=0.5, days=120)[1])) > 4.0


def test_a_row_is_left_out_of_its_own_factor() -> None:
    """Of two rows the one's surge is the other's factor and not its own."""
    level = Level(*(np.array([30.0, 30.0]) * 0 + of for of in (30, 3, 0.05, 0, 0, np.nan, 0, 0)))
    seen = Seen(
        np.array([200.0, 20.0]),
        np.zeros(2),
        np.full(2, np.nan),
        np.zeros(2, dtype=bool),
        np.zeros(2, dtype=bool),
    )
    ahead = foresee(level, Belief(np.full(2, -2.0), 0.0, 0.0, 0.05), seen)
    part, counted = np.zeros(2, dtype=np.int64), np.ones(2, dtype=bool)
    total = totals(seen.units, ahead, 0.05, counted, part, 1)
    common = factor(total[:, part], seen.units, ahead, 0.05, counted, np.zeros(2), 0.5)
    assert abs(common[0]) < 0.15
    assert common[1] > 0.5


def test_what_sold_out_teaches_only_good_news() -> None:
    level = Level(*(np.zeros(1) + of for of in (30, 3, 0.05, 0, 0, np.nan, 0, 0)))
    flags = np.ones(1, dtype=bool)
    seen = Seen(np.array([2.0]), np.zeros(1), np.full(1, np.nan), flags, ~flags)
    ahead = foresee(level, Belief(np.full(1, -2.0), 0.0, 0.0, 0.05), seen)
    taught = learn(level, Belief(np.full(1, -2.0), 0.0, 0.0, 0.05), seen, ahead, np.zeros(1))
    assert taught.level.level[0] == pytest.approx(3.0)
    absent = seen._replace(absent=flags)
    taught = learn(level, Belief(np.full(1, -2.0), 0.0, 0.0, 0.05), absent, ahead, np.zeros(1))
    assert taught.level.days[0] == 30
    assert all(taught.sums[name][0] == 0.0 for name in SUMS)
