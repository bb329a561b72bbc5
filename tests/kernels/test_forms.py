"""The form of demand is recognised by what it foresaw, and by nothing else."""

import numpy as np
import pytest

from kernels.forms import (
    CONSTANT,
    EXPONENTIAL,
    POOLED,
    TRIALS,
    Shown,
    chosen,
    curvatures,
    leads,
    slopes,
    tried,
)
from kernels.hyperparameters import LEAD_NATS, TRIAL_CURVATURES
from kernels.whitening import Belief, Level, Seen, believable, foresee, learn

ROWS = 100
POOLED_CURVATURE = 0.6


def fresh() -> Level:
    zero = np.zeros(ROWS)
    return Level(zero, zero - 1.0, zero + 4.0, zero, zero, zero + np.nan, zero, zero)


def scores(
    form: int, seed: int, *, price_sd: float = 0.25, off: float = 0.0, centre: float = 0.0
) -> np.ndarray:
    """Return the trials' scores, one category, of 120 simulated days.

    Args:
        off: how far the belief's elasticities are off.
        centre: around which log price prices move.
    """
    draw = np.random.default_rng(seed)
    truth = draw.normal(-2.6, 0.3, ROWS)
    bend = curvatures(truth, POOLED_CURVATURE)[form]
    belief = Belief(truth + off, POOLED_CURVATURE, 0.0, 0.2)
    level, cross, price = fresh(), np.zeros(ROWS), np.zeros(ROWS)
    total, moment, precision = (np.zeros(TRIALS) for _ in range(3))
    for day in range(120):
        if day % 7 == 0:
            price = centre + draw.normal(0, price_sd, ROWS)
        demand = truth * price - bend * np.square(price)
        rate = 60.0 * np.exp(demand) * draw.gamma(5.0, 0.2, ROWS)
        none = np.zeros(ROWS, dtype=bool)
        seen = Seen(draw.poisson(rate).astype(float), price, np.full(ROWS, np.nan), none, none)
        ahead = foresee(level, belief, seen)
        shown = Shown(
            counts=level.days >= 14,
            units=believable(seen.units, ahead.units, ahead.variance, 0.2),
            expected=ahead.units,
            scatter=ahead.variance + 0.2,
            price=ahead.price,
            square=ahead.square,
            curvature=np.full(ROWS, POOLED_CURVATURE),
            elasticity=belief.elasticity,
            shift=np.zeros(ROWS),
            variance=np.full(ROWS, 0.05),
            cross=cross,
        )
        slope = np.repeat(slopes(moment, precision)[:, None], ROWS, axis=1)
        told = tried(shown, slope)
        total = total + told.score.sum(axis=1)
        moment = moment + told.moment.sum(axis=1)
        precision = precision + told.precision.sum(axis=1)
        taught = learn(level, belief, seen, ahead, np.zeros(ROWS))
        level, cross = taught.level, cross + taught.sums["xk"]
    return total[:, None]


def choice_of(total: np.ndarray) -> int:
    return int(chosen(leads(total, POOLED_CURVATURE), np.array([POOLED]))[0])


@pytest.mark.parametrize("form", [CONSTANT, EXPONENTIAL])
def test_data_of_each_form_are_recognised(form: int) -> None:
    assert [choice_of(scores(form, seed)) for seed in (1, 2, 3)] == [form] * 3


def test_what_bends_as_the_retailer_does_stays_pooled() -> None:
    assert [choice_of(scores(POOLED, seed)) for seed in range(4)] == [POOLED] * 4


def test_prices_that_do_not_move_choose_nothing() -> None:
    total = scores(CONSTANT, 1, price_sd=0.0)
    assert (total == 0.0).all()
    assert choice_of(total) == POOLED


@pytest.mark.parametrize("centre", [-0.15, 0.15])
@pytest.mark.parametrize("off", [-0.6, 0.6])
def test_a_slope_that_is_off_is_no_curvature(off: float, centre: float) -> None:
    """All prices lie on one side of the reference, where a wrong slope looks like a curve."""
    total = scores(POOLED, 5, price_sd=0.05, off=off, centre=centre)
    assert choice_of(total) == POOLED


def test_the_pooled_form_is_read_off_a_parabola() -> None:
    """At a trial's own curvature it is that trial, and in between what a parabola says."""
    total = np.array([[0.0], [5.0], [2.0], [4.0]])
    for trial, curvature in enumerate(TRIAL_CURVATURES):
        ahead = leads(total, curvature)
        assert ahead[CONSTANT, 0] == pytest.approx(-total[trial, 0])
        assert ahead[EXPONENTIAL, 0] == pytest.approx(4.0 - total[trial, 0])
        assert ahead[POOLED, 0] == 0.0
    bend, rise = -8.0 / 4.5, 10.0 / 1.5 - 2.0 / 3.0  # of k (rise + bend k)
    assert leads(total, 1.0)[CONSTANT, 0] == pytest.approx(-(rise + bend))


def test_a_form_needs_a_lead_and_loses_its_place_without_one() -> None:
    just, most = LEAD_NATS, LEAD_NATS - 0.1
    ahead = np.array([[0.0] * 6, [just, most, 0.1, -0.1, 4.0, 4.0], [-9.0, -9, -9, -9, 6.9, 7.0]])
    before = np.array([POOLED, POOLED, CONSTANT, CONSTANT, CONSTANT, CONSTANT])
    after = [CONSTANT, POOLED, CONSTANT, POOLED, CONSTANT, EXPONENTIAL]
    assert chosen(ahead, before).tolist() == after


def test_sales_that_nobody_believes_weigh_little() -> None:
    """One row's invented sales are cut where a surprise is: they choose no form."""
    one = np.ones(1)
    expected, variance = 20.0 * one, 0.05 * one
    units = believable(1e6 * one, expected, variance, 0.2)
    shown = Shown(
        one > 0, units, expected, variance + 0.2, -0.1 * one, 0.05 * one, 0.5 * one,
        -2.6 * one, 0.0 * one, 0.1 * one, 0.0 * one,
    )  # fmt: skip
    assert np.abs(tried(shown, np.zeros((TRIALS, 1))).score).max() < LEAD_NATS / 2
