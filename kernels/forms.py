"""The form of demand: how its slope changes with the price, and which form foresees sales best.

All forms agree at the reference price and have the same slope there; they differ in curvature,
``log demand = level + e x - kappa x^2``. Under ``constant`` elasticity kappa is 0. Under
``exponential`` demand, which falls by the same share for each cent, it is ``-e / 2`` to second
order. ``pooled`` lets the whole retailer's sales say it.

Each day's sales are foreseen under a few fixed forms, the *trials*: three curvatures and
exponential demand, from levels, elasticities and slopes of before that day. Only the factors by
which a retailer and a category sold more than foreseen are the day's own; they are found with the
belief in use and are the same for every trial. So what a trial's forecasts were worth is a
log-likelihood held out but for these factors. The pooled curvature changes from fit to fit, so what
it would have foreseen is read off the parabola through the three: a likelihood of one curvature is
a parabola, nearly.

Two things must not look like curvature. A listing's elasticity was found under one form: under
another the same sales say another one. And where all prices of a category lie on one side of the
reference, a slope that is off bends no less than a curve does: each trial has a slope of its own in
each category, learnt as it goes.

Everything is a pure function of arrays, in float64.
"""

from typing import NamedTuple

import numpy as np

from kernels.hyperparameters import (
    CURVATURE_MAX,
    LEAD_NATS,
    TRIAL_CURVATURES,
    TRIAL_LOG_MAX,
    TRIAL_SLOPE_SD,
)

FORMS = ("pooled", "constant", "exponential")
POOLED, CONSTANT, EXPONENTIAL = range(len(FORMS))

TRIALS = len(TRIAL_CURVATURES) + 1
"""How many trials there are; the last is exponential demand."""


class Shown(NamedTuple):
    """What a day shows of the forms, float64[rows] each if nothing else is said."""

    counts: np.ndarray  # bool: whether the day may tell anything of them
    units: np.ndarray  # sold; surprises are clipped
    expected: np.ndarray  # foreseen with the belief in use, common factors counted in
    scatter: np.ndarray  # variance of a day's log demand, without that of counting
    price: np.ndarray  # innovations
    square: np.ndarray
    curvature: np.ndarray  # of the belief in use
    elasticity: np.ndarray  # what is known of it today at that curvature
    shift: np.ndarray  # by how much that is more than what ``expected`` used
    variance: np.ndarray  # of the elasticity
    cross: np.ndarray  # sum of price times square innovations that it was found with


class Tried(NamedTuple):
    """What a day says of each trial, float64[trials, rows] each."""

    score: np.ndarray  # log-likelihood of what sold, less that under constant elasticity
    moment: np.ndarray  # for the category's slope
    precision: np.ndarray


def exponential(elasticity: np.ndarray) -> np.ndarray:
    """Return the curvature of exponential demand."""
    return np.clip(-0.5 * elasticity, 0.0, CURVATURE_MAX)


def curvatures(elasticity: np.ndarray, pooled: float) -> np.ndarray:
    """Return float64[forms, rows]."""
    each = np.full(len(elasticity), pooled), np.zeros(len(elasticity)), exponential(elasticity)
    return np.stack(each)


def tried(shown: Shown, slope: np.ndarray) -> Tried:
    """Return how each trial foresaw a day: negative binomial, of what the belief in use foresaw.

    Args:
        slope: float64[trials, rows], what each trial has learnt to add to its category's slopes.
    """
    fixed = [np.full(len(shown.price), curvature) for curvature in TRIAL_CURVATURES]
    apart = np.stack([*fixed, exponential(shown.elasticity)]) - shown.curvature
    # A belief's mean moves by its variance times what its moment moves: exact for any prior.
    tilt = shown.shift + apart * shown.cross * shown.variance + slope
    log = np.clip(tilt * shown.price - apart * shown.square, -TRIAL_LOG_MAX, TRIAL_LOG_MAX)
    rate = np.maximum(shown.expected, 1e-6) * np.exp(log)
    unsure = shown.scatter + shown.variance * np.square(shown.price)
    likelihood = shown.units * log - (shown.units + 1.0 / unsure) * np.log1p(unsure * rate)
    weight = np.where(shown.counts, shown.price / (unsure + 1.0 / rate), 0.0)
    return Tried(
        np.where(shown.counts, likelihood - likelihood[0], 0.0),
        weight * (shown.units / rate - 1.0 + slope * shown.price),
        weight * shown.price,
    )


def slopes(moment: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return what each trial has learnt of slopes, of the shape that both have."""
    return np.asarray(moment / (precision + 1.0 / TRIAL_SLOPE_SD**2))


def leads(scores: np.ndarray, pooled: float) -> np.ndarray:
    """Return float64[forms, categories], how many nats each form is ahead of the pooled one.

    Args:
        scores: float64[trials, categories].
        pooled: the retailer's curvature today.
    """
    straight, middle, bent, last = scores
    step = pooled / TRIAL_CURVATURES[1]
    rise, bend = middle - straight, bent - 2.0 * middle + straight
    at_pooled = straight + step * rise + 0.5 * step * (step - 1.0) * bend
    return np.stack([0.0 * straight, straight - at_pooled, last - at_pooled])


def chosen(ahead: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return int64[categories], each category's form.

    Another form takes over once it is :data:`LEAD_NATS` ahead; one that ``pooled`` has caught up
    with gives up at once.

    Args:
        ahead: float64[forms, categories], :func:`leads`.
        before: int64[categories], the forms in use.
    """
    at = np.arange(len(before))
    kept = np.where(ahead[before, at] > 0.0, before, POOLED)
    best = ahead.argmax(axis=0)
    return np.where(ahead[best, at] - ahead[kept, at] >= LEAD_NATS, best, kept)


assert TRIAL_CURVATURES[0] == 0.0 and TRIAL_CURVATURES[2] == 2.0 * TRIAL_CURVATURES[1]
