"""Whether demand has a kink at the price that customers know: dearer loses more than cheaper wins.

Who compares a price with the usual one feels a loss above it and a gain below, and losses weigh
more (Winer 1986; Hardie, Johnson, Fader 1993). Demand then falls by ``e (1 + k)`` above the usual
price and by ``e (1 - k)`` below it: ``log demand = e (x + k |x|)``, ``x`` against the price found
at import, ``k`` the kink. Moves that are made both ways show the mean slope ``e``, and each sells
less than that slope promises. An interval of prices around the usual one is then best left alone,
and no belief about elasticities says so.

So what no belief foresaw of a day's sales is regressed on what a kink would have made of its price,
over all listings of a retailer, beside what is left of slope and curvature: a smooth bend is none.
Both models, with a kink and without, are given their marginal likelihood. Days are foreseen before
they happen, so their ratio is a bet against there being none, and Ville's inequality bounds how
often it ever wins where there is none, however long one looks.

Everything is a pure function of arrays, in float64.
"""

import math
from typing import NamedTuple

import numpy as np

from kernels.forms import Shown, exponential
from kernels.hyperparameters import (
    CURVATURE_PRIOR,
    CURVATURE_PRIOR_SD,
    KINK_BEND_SD,
    KINK_MAX,
    KINK_SD,
    KINK_SHARE,
    PRICE_OFFSETS,
    TRIAL_LOG_MAX,
    TRIAL_SLOPE_SD,
)
from kernels.whitening import Level

REGRESSORS = 4
"""What unforeseen sales are explained by: a kink; then a slope that is off, a curvature, and a bend
that grows with the slope as that of exponential demand does."""

PRODUCTS = REGRESSORS * (REGRESSORS + 1)
"""Sums that are kept: of each regressor's products with all of them and with what it explains."""

SDS_MOST = 30.0
"""Further off no normal distribution has a logarithm, and nothing is in doubt."""

NATS_MOST = 500.0
"""More no exponential bears, and nothing is in doubt."""

_SDS = np.array([KINK_SD, TRIAL_SLOPE_SD, CURVATURE_PRIOR_SD, KINK_BEND_SD])


def distances(price_log: np.ndarray, level: Level) -> np.ndarray:
    """Return float64[rows], innovations of the price's distance from the usual one, ``|x|``.

    The filter remembers mean and mean square of past prices and not their mean distance. So they
    are taken for a price like today's and one other, with the shares that have these two moments:
    right after any single change, nearly right after several, and no byte a listing.

    Args:
        level: the filter's state before the day.
    """
    away = level.price - price_log
    spread = np.maximum(
        level.square - 2.0 * price_log * level.price + np.square(price_log), np.square(away)
    )
    moved = np.abs(away) > 1e-6
    share = np.where(moved, np.square(away) / np.where(moved, spread, 1.0), 0.0)
    other = price_log + np.where(moved, spread / np.where(moved, away, 1.0), 0.0)
    found = share * (np.abs(price_log) - np.abs(other))
    return np.asarray(np.where(level.days > 0, found, 0.0))


def products(shown: Shown, distance: np.ndarray) -> np.ndarray:
    """Return float64[PRODUCTS, rows], what a day says of a kink, to be added up.

    Args:
        distance: of the day, as :func:`distances` returns it.
    """
    foreseen = np.clip(shown.shift * shown.price, -TRIAL_LOG_MAX, TRIAL_LOG_MAX)
    rate = np.maximum(shown.expected, 1e-6) * np.exp(foreseen)
    variance = shown.scatter + shown.variance * np.square(shown.price) + 1.0 / rate
    weight = np.where(shown.counts, 1.0 / variance, 0.0)
    bend = exponential(shown.elasticity)
    explains = np.stack(
        [shown.elasticity * distance, shown.price, -shown.square, -bend * shown.square]
    )
    # What is in use beside has its own curvature, by form and fit: it is given back.
    unforeseen = shown.units / rate - 1.0 - (shown.curvature - CURVATURE_PRIOR) * shown.square
    explained = np.concatenate([explains, unforeseen[None]])
    pairs = (explains * weight)[:, None] * explained[None]
    return np.asarray(pairs.reshape(PRODUCTS, -1))


class Judged(NamedTuple):
    """What sums say of a kink."""

    nats: float  # by which a kink explains sales better than none does
    likely: float  # the probability that there is one
    kink: float  # how large it then is
    curvature: float  # that is left beside it
    bend: float  # and so much of that of exponential demand


def judged(sums: np.ndarray) -> Judged:
    """Return what sums say, float64[PRODUCTS]."""
    of = sums.reshape(REGRESSORS, REGRESSORS + 1)
    gram, moment = of[:, :REGRESSORS], of[:, REGRESSORS]
    nats, likeliest = 0.0, np.zeros(REGRESSORS)
    for sign, first in ((-1.0, 1), (1.0, 0)):  # without a kink, and with one
        prior = np.diag(1.0 / np.square(_SDS[first:]))
        precision = gram[first:, first:] + prior
        likeliest = np.linalg.solve(precision, moment[first:])
        volume = np.linalg.slogdet(precision)[1] - np.linalg.slogdet(prior)[1]
        nats += sign * 0.5 * float(likeliest @ moment[first:] - volume)
    kink, _, curvature, bend = likeliest.tolist()
    # Nobody gains by a loss: of the normal prior only the half above nothing is one.
    sds = kink / float(np.sqrt(np.linalg.inv(precision)[0, 0]))
    nats += math.log(math.erfc(-max(sds, -SDS_MOST) / math.sqrt(2.0)))
    likely = 1.0 / (1.0 + (1.0 / KINK_SHARE - 1.0) * math.exp(-max(nats, -NATS_MOST)))
    return Judged(nats, likely, min(max(kink, 0.0), KINK_MAX), CURVATURE_PRIOR + curvature, bend)


def believed(told: Judged, before: float) -> float:
    """Return the kink to price by, as much of it as is likely, 0 for none.

    It must be likelier than not, and from then on likelier than it was before any day was seen.

    Args:
        before: what was believed until now.
    """
    enough = told.likely >= 0.5 or (before > 0.0 and told.likely > KINK_SHARE)
    return told.likely * told.kink if enough else 0.0


def held_logs(wish: np.ndarray, kinked: np.ndarray) -> np.ndarray:
    """Return float64[rows], log prices that are best: exactly the usual one where they are next it.

    Prices are looked at in steps, and profit falls off a kink on both sides from the first cent on.

    Args:
        wish: float64[rows], the best of the prices that were looked at.
        kinked: bool[rows].
    """
    step = PRICE_OFFSETS[1] - PRICE_OFFSETS[0]
    return np.asarray(np.where(kinked & (np.abs(wish) < step), 0.0, wish))
