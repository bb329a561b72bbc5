"""What beliefs are held against: coverage finds intervals that are too narrow, and drifts."""

import numpy as np
import pytest

from training.exam.calibration import (
    Calibration,
    Watch,
    by_tercile,
    calibration_page,
    calibration_plot,
    calibration_verdicts,
    cells,
    inside,
    reliability,
)
from training.exam.driving import Driven
from training.worlds.priced import PricedWorld
from training.worlds.settings import SCENARIOS


@pytest.mark.parametrize("mean", [0.6, 8.0, 90.0, 2_000.0])
def test_counts_that_scatter_as_foreseen_are_covered_as_said(mean: float) -> None:
    """Few or many; and half of the variance covers too few of them."""
    draw, count = np.random.default_rng(3), 20_000
    rate = mean * draw.gamma(1 / 0.2, 0.2, count)
    units, foreseen = draw.poisson(rate).astype(np.float64), np.full(count, mean)
    exact, whole = inside(foreseen, np.full(count, 0.2), units)
    assert exact.mean() == pytest.approx(0.9, abs=0.02)
    assert whole.mean() >= exact.mean()
    narrow, _ = inside(foreseen, np.full(count, 0.05), units)
    assert narrow.mean() < exact.mean() - (0.005 if mean < 1 else 0.08)
    if mean > 1:  # one count of so few tells little
        high, _ = inside(foreseen * 2.0, np.full(count, 0.2), units)
        assert high.mean() < exact.mean() - 0.02


def test_intervals_of_whole_numbers_cover_more_than_they_say() -> None:
    units = np.random.default_rng(5).poisson(0.4, 20_000).astype(np.float64)
    exact, whole = inside(np.full(20_000, 0.4), np.full(20_000, 1e-9), units)
    assert exact.mean() == pytest.approx(0.9, abs=0.01)
    assert whole.mean() > 0.94


def test_quotes_fall_into_tenths_by_their_confidence() -> None:
    stated = np.linspace(0.5, 0.99, 100)[::-1]
    bins = reliability(stated, stated - 0.1, stated > 0.7)
    assert [each.count for each in bins] == [10] * 10
    assert bins[0].low == 0.5 and bins[-1].high == 0.99
    assert all(each.came == pytest.approx(each.stated - 0.1) for each in bins)
    assert bins[0].better == 0.0 and bins[-1].better == 1.0


def test_terciles_are_by_volume() -> None:
    volume, held = np.array([5.0, 1.0, 9.0]), np.array([0.5, 0.0, 1.0])
    assert by_tercile(volume, held) == (0.0, 0.5, 1.0)


def watched(driven: Driven, days: int) -> Calibration:
    watch = Watch()
    for _ in range(days):
        watch.before(driven)
        watch.after(driven, driven.day())
    found = watch.calibration()
    assert found is not None
    return found


def test_a_shop_that_is_watched_prices_as_if_it_were_not() -> None:
    """Reading beliefs changes nothing, and what is foreseen is near what sells."""
    driven, alone = (Driven(PricedWorld(SCENARIOS["S1"], 3, 80, 14)) for _ in range(2))
    driven.open()
    alone.open()
    found = watched(driven, 14)
    for _ in range(14):
        alone.day()
    np.testing.assert_array_equal(driven.price, alone.price)
    assert driven.shard.digest == alone.shard.digest
    assert found.forecasts == 160
    assert 0.75 < found.demand <= 1.0 and 0.75 < found.elasticity <= 1.0
    assert abs(found.demand_bias) < 0.5
    assert found.confidence_error < 0.1
    goals = calibration_verdicts([("S1", found)])
    assert len(goals) == 3
    page = calibration_page([("S1", found)], "beliefs.svg")
    assert page.count("| S1 |") == 11 and "beliefs.svg" in page
    assert "S1" in calibration_plot([("S1", found)])


def test_what_misses_its_bounds_is_marked() -> None:
    good = {
        "forecasts": 9,
        "demand": 0.9,
        "demand_by_volume": (0.9, 0.9, 0.9),
        "demand_whole": 0.9,
        "demand_given_shop": 0.9,
        "demand_given_shop_by_volume": (0.9, 0.9, 0.9),
        "demand_bias": 0.0,
        "elasticity": 0.9,
        "elasticity_by_volume": (0.9, 0.9, 0.9),
        "elasticity_scatter": 1.0,
        "confidence_error": 0.01,
        "bins": (),
    }
    right = Calibration(**good)
    assert all(reached for _, reached in calibration_verdicts([("S1", right)]))
    assert not any("!" in cell for cell in cells("S1", right))
    for wrong in (
        {"demand": 0.87},
        {"demand_by_volume": (0.9, 0.9, 0.96)},
        {"elasticity": 0.93},
        {"elasticity_by_volume": (0.84, 0.9, 0.9)},
        {"confidence_error": 0.03},
    ):
        missed = Calibration(**{**good, **wrong})
        assert sum(reached for _, reached in calibration_verdicts([("S1", missed)])) == 2, wrong
        assert sum("!" in cell for cell in cells("S1", missed)) == 1, wrong


def test_before_a_week_has_passed_nothing_is_said() -> None:
    assert Watch().calibration() is None
