"""The grid of elasticities and what lies on it: beliefs, priors, and how a catalogue came about.

Imports no jax, so that whoever reads a checkpoint pays for none.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from kernels.hyperparameters import (
    BIASES,
    ELASTICITIES,
    ELASTICITY_SPREAD,
    FLAT_LOG,
    FLAT_SPREAD_MAX,
    FLOOR_ELASTICITY,
    MEAN,
    MEAN_SD,
    MEANS,
    RETAILER_OFF_LOG,
    RETAILER_OFF_SD,
    RETAILER_OFFS,
    SCALE_STEPS,
    SHIFT_STEP,
    TAIL_LOG,
)

FLAT_MEANS = MEANS > FLOOR_ELASTICITY

UNKNOWING = 99.0
"""Follows the biases: a category's prices came about without regard to demand. No elasticity above
-1 explains any price, so where demand is inelastic nothing else can be true."""

BIAS_COLUMNS = len(BIASES) + 1

BEFORE_FLAT = (slice(0, len(BIASES)), slice(4, 15))
"""Where the columns that tables of before inelastic demand had lie among today's."""

FAMILIES = ("floor", "normal", "lognormal")


def implied(elasticities: np.ndarray) -> np.ndarray:
    """Return the logarithm of price over cost at the best price; beyond all where none is best."""
    elastic = np.minimum(elasticities, -1.0001)
    return np.where(elasticities > -1.0, 30.0, np.log(elastic / (1.0 + elastic)))


IMPLIED = implied(ELASTICITIES)


class Config(NamedTuple):
    """How one retailer's catalogue is thought to have come about."""

    sigma: float  # how wrong managers are, in log price
    spread: float  # of elasticities in a category
    family: str
    bias_sd: float


class Evidence(NamedTuple):
    """What is known of some listings, [rows] each."""

    slope: np.ndarray  # sum of price innovations' squares: the likelihood's precision
    moment: np.ndarray  # sum of price times sales innovations, curvature and rivals taken out
    markup: np.ndarray  # log(p0/c), NaN: no evidence
    one_sided: np.ndarray  # bool: the markup is a bound that managers ran into
    error: np.ndarray  # how wrong managers are, in log price, where that is stated; 0: it is not


class Roots(NamedTuple):
    """What a retailer says of his categories' demand before it is learnt, [categories] each."""

    mean: np.ndarray  # of elasticities
    sd: np.ndarray  # how sure he is; ELASTICITY_SPREAD leaves the hierarchy as it is
    error: np.ndarray  # how wrong managers are, in log price; 0: to be found

    @property
    def shift(self) -> np.ndarray:
        """Factor on ``MEANS``, so that one of them is about the mean that is stated."""
        near = np.abs(np.log(self.mean[:, None] / MEANS)).argmin(axis=1)
        return np.asarray(np.round(self.mean / MEANS[near] / SHIFT_STEP) * SHIFT_STEP)

    @property
    def scale(self) -> np.ndarray:
        """Factor on ``SPREADS``: who is surer of the mean thinks its listings more alike."""
        steps = np.round(SCALE_STEPS * np.log2(self.sd / ELASTICITY_SPREAD))
        return np.asarray(np.minimum(np.exp2(steps / SCALE_STEPS), 1.0))

    def mean_logs(self) -> np.ndarray:
        """Return float64[offs, categories, means], logarithms of what is thought of each mean.

        Given how far all of the retailer's categories together lie off what is known of categories,
        by one of ``RETAILER_OFFS`` each. Of whose demand he is sure lies where he says.
        """
        means, sd = MEANS * self.shift[:, None], mean_sd(self.sd)
        unsure = self.sd >= ELASTICITY_SPREAD
        off = RETAILER_OFFS[:, None] * unsure
        left = np.sqrt(np.square(sd) - np.square(RETAILER_OFF_SD * unsure))
        log = -0.5 * np.square((means - (self.mean + off)[:, :, None]) / left[:, None])
        tail = TAIL_LOG * np.maximum(ELASTICITY_SPREAD / self.sd, 1.0)
        log = np.maximum(log, tail[:, None]) + np.where(FLAT_MEANS, FLAT_LOG, 0.0)
        return np.asarray(log - np.log(np.exp(log).sum(axis=2, keepdims=True)))


def off_log() -> np.ndarray:
    """Return float64[offs], logarithms of what is thought beforehand of ``RETAILER_OFFS``."""
    log = np.maximum(-0.5 * np.square(RETAILER_OFFS / RETAILER_OFF_SD), RETAILER_OFF_LOG)
    return np.asarray(log - np.log(np.exp(log).sum()))


def mean_sd(sd: np.ndarray) -> np.ndarray:
    """Return how far a category's mean may lie from what is said of it, by how sure it is said."""
    return np.asarray(MEAN_SD * sd / ELASTICITY_SPREAD)


def nothing_stated(categories: int) -> Roots:
    """Return the roots of a retailer who says nothing."""
    alike = np.ones(categories)
    return Roots(MEAN * alike, ELASTICITY_SPREAD * alike, 0.0 * alike)


class Table(NamedTuple):
    """What a retailer's data say of configurations and of categories."""

    configs: tuple[Config, ...]  # likeliest first
    weights: np.ndarray  # [configs]
    parts: np.ndarray  # [configs, categories, biases and unknowing, means]
    roots: Roots


@cache
def family_priors(family: str, spread: float, shift: float = 1.0) -> np.ndarray:
    """Return float64[means, elasticities], each row sums to one. Nobody writes to it.

    Elasticities of a category whose mean is elastic are all elastic. Where it is not they are
    log-normal in every family.

    Args:
        shift: factor on the means.
    """
    means = MEANS * shift
    elastic = np.flatnonzero(ELASTICITIES < -1.0)
    mass = np.zeros((len(MEANS), len(ELASTICITIES)))
    mass[:, elastic] = _elastic_mass(family, spread, means, ELASTICITIES[elastic])
    flat = means[FLAT_MEANS]
    spreads = np.minimum(spread, FLAT_SPREAD_MAX * np.abs(flat))
    mass[FLAT_MEANS] = _lognormal_mass(spreads, flat, _edges(ELASTICITIES, -0.3))
    mass = mass + 1e-6
    return np.asarray(mass / mass.sum(axis=1, keepdims=True))


def _edges(grid: np.ndarray, first: float) -> np.ndarray:
    return np.concatenate([[first], 0.5 * (grid[1:] + grid[:-1]), [grid[-1] - 0.4]])


def _elastic_mass(family: str, spread: float, means: np.ndarray, grid: np.ndarray) -> np.ndarray:
    edges = _edges(grid, -1.0)
    if family == "lognormal":
        return _lognormal_mass(spread, means, edges)
    place = (edges[None, :] - means[:, None]) / spread
    mass = -np.diff(normal_below(place), axis=1)
    if family == "floor":
        flat = grid > FLOOR_ELASTICITY
        at = int(np.flatnonzero(~flat)[0])
        above = mass[:, flat].sum(axis=1) + 1.0 - normal_below((-1.0 - means) / spread)
        mass[:, flat] = 0.0
        mass[:, at] += above
    return np.asarray(mass)


def _lognormal_mass(spread: float | np.ndarray, means: np.ndarray, edges: np.ndarray) -> np.ndarray:
    scale = spread / np.abs(means)
    centre = np.log(np.abs(means)) - 0.5 * np.square(scale)
    place = (np.log(np.abs(edges))[None, :] - centre[:, None]) / scale[:, None]
    return np.diff(normal_below(place), axis=1)


def normal_below(place: Any, of: Any = np) -> Any:
    """Return the normal distribution function, by a fixed formula (Abramowitz, Stegun 26.2.17).

    Args:
        of: the array library that ``place`` belongs to: numpy, or jax's.
    """
    size = of.abs(place)
    t = 1.0 / (1.0 + 0.2316419 * size)
    series = t * (
        0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)))
    )
    tail = of.exp(-0.5 * of.square(size)) / of.sqrt(2.0 * of.pi) * series
    return of.where(place >= 0.0, 1.0 - tail, tail)


def moments(belief: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of each row of weights."""
    mean = belief @ ELASTICITIES
    return mean, np.maximum(belief @ np.square(ELASTICITIES) - np.square(mean), 1e-4)
