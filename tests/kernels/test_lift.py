"""A lift is estimated from what was drawn, and its variance is that of many experiments."""

import numpy as np

from kernels.lift import joined, lift_of, no_totals, totals


def shop(draw: np.random.Generator, lift: float) -> np.ndarray:
    """Return units of a shop: listings of very different size, whose days resemble each other."""
    size = np.exp(draw.normal(0, 0.8, 300))
    earned = size * np.exp(draw.normal(0, 0.3, 300))
    treated = draw.random(300) < 0.5
    earned = np.where(treated, earned * (1 + lift), earned)
    units = np.zeros((300, 4))
    units[treated, :2] = np.stack([earned, size], axis=1)[treated]
    units[~treated, 2:] = np.stack([earned, size], axis=1)[~treated]
    return units


def test_the_variance_is_what_many_experiments_show() -> None:
    draw = np.random.default_rng(1)
    found = [lift_of(totals(shop(draw, 0.1))) for _ in range(600)]
    lifts = np.array([of.lift for of in found if of is not None])
    claimed = np.mean([of.variance for of in found if of is not None])
    assert abs(lifts.mean() - 0.1) < 0.01
    assert 0.85 < claimed / lifts.var() < 1.15


def test_totals_add_up_in_pieces() -> None:
    units = shop(np.random.default_rng(2), 0.0)
    whole, parts = totals(units), no_totals()
    for start in range(0, 300, 70):
        parts = joined(parts, totals(units[start : start + 70]))
    np.testing.assert_allclose(parts.sums, whole.sums)
    np.testing.assert_allclose(parts.products, whole.products)
    assert parts.units == whole.units == 300


def test_without_a_control_there_is_no_lift() -> None:
    units = shop(np.random.default_rng(3), 0.0)
    units[:, 2:] = 0.0
    assert lift_of(totals(units)) is None
    assert lift_of(no_totals()) is None
