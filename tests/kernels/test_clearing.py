"""Cuts are few: what one must be worth, and how sure its level must be, depends on those left."""

import numpy as np

from kernels.clearing import clearing_log, least_cut_log, season_level

ALIKE = np.ones(3)
LEFT = np.array([1, 2, 5])


def wanted(**other: np.ndarray) -> np.ndarray:
    given = {
        "level": 0.0 * ALIKE,
        "variance": 0.09 * ALIKE,
        "stock": 80.0 * ALIKE,
        "days_left": 40.0 * ALIKE,
        "elasticity": -2.5 * ALIKE,
        "salvage": 0.05 * ALIKE,
        "cuts_left": LEFT,
        **other,
    }
    return clearing_log(**given)


def test_a_level_that_is_known_sells_the_stock_out_at_the_end() -> None:
    price = wanted(variance=0.0 * ALIKE)
    np.testing.assert_allclose(40.0 * np.exp(-2.5 * price), 80.0)


def test_the_last_cut_hopes_for_less_and_so_goes_deeper() -> None:
    last, before, first = wanted()
    assert last < before == first < wanted(variance=0.0 * ALIKE)[0] + 0.2


def test_nothing_is_cut_below_what_salvage_would_justify() -> None:
    worth = np.log(0.05 * -2.5 / (1 - 2.5))
    np.testing.assert_allclose(wanted(stock=1e6 * ALIKE), worth)


def test_the_fewer_cuts_are_left_and_the_longer_the_season_the_more_one_must_be_worth() -> None:
    least = least_cut_log(LEFT, 0.5 * ALIKE)
    assert least[0] > least[1] > least[2]
    assert (least_cut_log(LEFT, ALIKE) > least).all()
    assert least_cut_log(np.array([0]), np.zeros(1))[0] == least_cut_log(LEFT, 0.0 * ALIKE)[0]


def test_a_seasons_level_is_what_it_sold_over_what_its_prices_let_expect() -> None:
    level, variance = season_level(np.array([0.0, 200.0]), np.array([0.0, 100.0]))
    assert abs(np.exp(level[1]) - 2.0) < 0.02
    assert variance[0] == 2.0
    assert variance[1] == 1 / 200.5
