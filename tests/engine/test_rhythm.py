"""Sales of days repeat every week: found where they do, foreseen, and not imagined elsewhere."""

import numpy as np
import pytest

from engine.demand import Demand, fit_demand
from engine.errors import RejectedInput
from engine.rhythm import columns_of

DAYS, ITEMS = 140, 20


def table(seed: int, strength: float, base: float = 40.0) -> tuple[list[str], ...]:
    """Return names, times, prices and units; even and odd items have opposite weekdays."""
    draw = np.random.default_rng(seed)
    week = strength * np.sin(2.0 * np.pi * np.arange(DAYS) / 7.0)[:, None]
    sign = np.where(np.arange(ITEMS) % 2, 1.0, -1.0)
    prices = 3.0 * np.exp(draw.normal(0, 0.12, (DAYS, ITEMS)))
    units = draw.poisson(base * np.exp(week * sign) * (prices / 3.0) ** -2.0).astype(float)
    names = [f"i{number}" for _ in range(DAYS) for number in range(ITEMS)]
    return names, np.repeat(np.arange(DAYS), ITEMS), prices.ravel(), units.ravel()


def groups() -> list[str]:
    return ["odd" if number % 2 else "even" for number in range(ITEMS)] * DAYS


@pytest.mark.parametrize("base", [1.0, 40.0])
def test_weekdays_are_found_and_foreseen(base: float) -> None:
    names, times, prices, units = table(1, 0.5, base)
    early = times < DAYS - 7
    split = int(early.sum())
    columns = names[:split], times[early], prices[early], units[early]
    found = fit_demand(*columns, groups=groups()[:split])
    assert found.season == 7
    blind = fit_demand(*columns, groups=groups()[:split], season=1)
    sign = np.where(np.arange(ITEMS) % 2, 1.0, -1.0)
    week = 0.5 * np.sin(2.0 * np.pi * np.arange(DAYS - 7, DAYS) / 7.0)[:, None]
    rate = base * (np.exp(week * sign) * (prices[~early].reshape(7, ITEMS) / 3.0) ** -2.0).ravel()
    off = [
        np.abs(demand.forecast(names[split:], times[~early], prices[~early]).mean / rate - 1.0)
        for demand in (found, blind)
    ]
    assert off[0].mean() < 0.6 * off[1].mean()
    assert found.effects().shape == (ITEMS, 1)
    assert found.elasticities().mean.mean() == pytest.approx(-2.0, abs=0.25)


@pytest.mark.parametrize("seed", range(8))
def test_none_is_imagined(seed: int) -> None:
    names, times, prices, units = table(seed, 0.0)
    assert fit_demand(names, times, prices, units).season == 1


def test_a_rhythm_needs_some_weeks_and_survives_gaps() -> None:
    names, times, prices, units = table(2, 0.5)
    groups_of = np.array(groups())
    short = times < 27
    assert (
        fit_demand(
            np.array(names)[short],
            times[short],
            prices[short],
            units[short],
            groups=groups_of[short],
        ).season
        == 1
    )
    some = np.random.default_rng(3).random(len(times)) < 0.6
    found = fit_demand(
        np.array(names)[some], times[some], prices[some], units[some], groups=groups_of[some]
    )
    assert found.season == 7


def test_days_one_by_one_are_the_table() -> None:
    names, times, prices, units = table(4, 0.5)
    streamed = Demand(names[:ITEMS], groups()[:ITEMS], season=7)
    for day in range(DAYS):
        rows = times == day
        streamed.observe(names[:ITEMS], day + 3, prices[rows], units[rows])
    whole = fit_demand(names, times, prices, units, groups=groups())
    np.testing.assert_array_equal(streamed.elasticities().mean, whole.elasticities().mean)
    ask = np.full(ITEMS, 3.0)
    np.testing.assert_array_equal(
        streamed.forecast(names[:ITEMS], np.full(ITEMS, DAYS + 5), ask).units,
        whole.forecast(names[:ITEMS], np.full(ITEMS, DAYS + 2), ask).units,
    )


def test_weekdays_add_up_to_nothing() -> None:
    found = columns_of(np.arange(14), 7)
    assert found.shape == (14, 6)
    np.testing.assert_array_equal(found.sum(axis=0), 0.0)
    assert columns_of(np.arange(3), 1).shape == (3, 0)


@pytest.mark.parametrize("season", [0, 32, 7.5, True, "week"])
def test_a_rhythm_is_a_small_number(season: object) -> None:
    with pytest.raises(RejectedInput, match=r"/season: .* is no number of periods"):
        fit_demand(["a"], [0], [1.0], [1.0], season=season)
