"""Tests that may be looked at as often as one likes, on an estimate and its variance.

**YEAST** (Kurennoy, Dodin, Gurbanov, Peleteiro Ramallo, 2024, arXiv 2406.16523) turns Levy's
inequality round: the largest value that a sum of independent symmetric terms takes on the way
crosses a bound at most twice as often as the sum at the planned end. So one bound, the normal
quantile at ``1 - alpha / 2`` times the standard deviation of the sum at the end, holds for every
look. It has nearly the power of one look at the end, and needs to know when the end is.

**mSPRT** (Robbins 1970; Johari, Koomen, Pekelis, Walsh 2017, "Peeking at A/B tests") mixes the
likelihood ratio over effects ``N(0, tau^2)``. It needs no end and sees large effects sooner, so it
is what stops harm, and its inversion is the interval that holds at every look.

**Sample ratio** (Lindon, Malek 2022, "Anytime-valid inference for multinomial count data"): a
Bayes factor of arms' counts against the shares that were asked for.

All numbers are float64, of any shape that broadcasts.
"""

from math import lgamma
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()


def normal_quantile(probability: float) -> float:
    """Return the value below which a standard normal falls so often."""
    return _NORMAL.inv_cdf(probability)


def normal_of_student(t: np.ndarray, freedom: np.ndarray | float) -> np.ndarray:
    """Return the normal value as rare as Student's ``t`` (Wallace 1959); freedom >= 1."""
    scale = (8.0 * freedom + 1.0) / (8.0 * freedom + 3.0)
    return np.asarray(np.sign(t) * scale * np.sqrt(freedom * np.log1p(np.square(t) / freedom)))


def student_of_normal(z: float, freedom: float) -> float:
    """Return Student's value as rare as the normal ``z``: the same turned round."""
    scale = (8.0 * freedom + 3.0) / (8.0 * freedom + 1.0)
    return float(np.sign(z) * np.sqrt(freedom * np.expm1((z * scale) ** 2 / freedom)))


def yeast_statistic(estimate: np.ndarray, variance: np.ndarray, fraction: np.ndarray) -> np.ndarray:
    """Return the sum so far in standard deviations of the sum at the planned end.

    Args:
        estimate: of the effect, its sign such that better is larger.
        variance: of the estimate, above 0.
        fraction: of the information of the whole experiment that is in, 0 to 1.
    """
    return np.asarray(estimate / np.sqrt(variance) * np.sqrt(fraction))


def yeast_bound(alpha: float) -> float:
    """Return what :func:`yeast_statistic` exceeds at some look with probability <= alpha."""
    return normal_quantile(1.0 - alpha / 2.0)


def mixture_evidence(estimate: np.ndarray, variance: np.ndarray, tau: float) -> np.ndarray:
    """Return the log likelihood ratio of effects ``N(0, tau^2)`` against none."""
    wide = variance + tau * tau
    exponent = np.square(estimate) * tau * tau / (2.0 * variance * wide)
    return np.asarray(exponent + 0.5 * np.log(variance / wide))


def is_harm(estimate: np.ndarray, variance: np.ndarray, tau: float, alpha: float) -> np.ndarray:
    """Return where the effect is negative beyond doubt; wrong at any look at most ``alpha`` often.

    The mixture is symmetric, so the two-sided test at ``2 alpha`` errs on either side alike.
    """
    beyond = mixture_evidence(estimate, variance, tau) >= -np.log(2.0 * alpha)
    return np.asarray((estimate < 0.0) & beyond)


def mixture_margin(variance: np.ndarray, tau: float, alpha: float) -> np.ndarray:
    """Return how far to either side of its estimate an effect may lie, valid at every look."""
    wide = variance + tau * tau
    inside = np.log(wide / variance) - 2.0 * np.log(alpha)
    return np.asarray(np.sqrt(variance * wide / (tau * tau) * inside))


def ratio_evidence(first: int, second: int, share: float, weight: float = 100.0) -> float:
    """Return the log evidence that two arms' counts do not come by ``share`` of the first.

    It is at least ``-log(alpha)`` at any look with probability at most ``alpha``, if they do.

    Args:
        weight: how closely another share is thought to lie to the one asked for, in counts.
    """
    a, b = weight * share, weight * (1.0 - share)
    beta = lgamma(a + first) + lgamma(b + second) - lgamma(weight + first + second)
    beta -= lgamma(a) + lgamma(b) - lgamma(weight)
    return beta - first * float(np.log(share)) - second * float(np.log(1.0 - share))


def ratio_evidence_path(is_first: np.ndarray, share: float, weight: float = 100.0) -> np.ndarray:
    """Return :func:`ratio_evidence` after each unit along the last axis, units in their order."""
    seen = np.cumsum(is_first, axis=-1) - is_first
    before = np.arange(is_first.shape[-1])
    of_first = (weight * share + seen) / (weight + before)
    foreseen = np.where(is_first, of_first / share, (1.0 - of_first) / (1.0 - share))
    return np.asarray(np.cumsum(np.log(foreseen), axis=-1))
