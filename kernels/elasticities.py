"""The grid of elasticities and what lies on it: beliefs, priors, and how a catalogue came about.

Imports no jax, so that whoever reads a checkpoint pays for none.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

ELASTICITIES = -np.exp(np.linspace(np.log(1.08), np.log(8.5), 44))
"""The grid. Flatter than -1.08 no price is best; steeper than -8.5 none of them differ."""

FLOOR = -1.25
"""The flattest elasticity that a retailer's category has in the family with a floor."""

MEANS = np.array([-1.5, -1.8, -2.1, -2.35, -2.6, -2.85, -3.1, -3.4, -3.8, -4.3, -5.0])
MEAN, MEAN_SD = -2.6, 0.8
"""Of categories' means: 1,851 published estimates average -2.62."""

BIASES = np.array([-0.35, -0.26, -0.18, -0.12, -0.06, 0.0, 0.06, 0.12, 0.18, 0.26, 0.35])
BIAS_SDS = (0.03, 0.12)
SIGMAS = (0.025, 0.05, 0.08, 0.12, 0.16, 0.22, 0.3, 0.45)
SPREADS = (0.15, 0.3, 0.5, 0.7, 0.95, 1.25)
"""Both begin small enough for a catalogue whose markups are nearly alike. Where no configuration
scatters so little, steep elasticities explain it instead, because they move markups least: 60
listings at half above cost, five percent apart, were thought to have -3.4 to -4.1 and not -3."""

SPREAD, SPREAD_SD_LOG = 0.7, 0.9
"""Of the spread itself: without it a dozen listings that sold little were thought to be alike."""

FAMILIES = ("floor", "normal", "lognormal")

IMPLIED = np.log(ELASTICITIES / (1.0 + ELASTICITIES))
"""What the logarithm of price over cost is at the best price."""


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


class Table(NamedTuple):
    """What a retailer's data say of configurations and of categories."""

    configs: tuple[Config, ...]  # likeliest first
    weights: np.ndarray  # [configs]
    parts: np.ndarray  # [configs, categories, biases, means]


@cache
def family_priors(family: str, spread: float) -> np.ndarray:
    """Return float64[means, elasticities], each row sums to one. Nobody writes to it."""
    grid = ELASTICITIES
    edges = np.concatenate([[-1.0], 0.5 * (grid[1:] + grid[:-1]), [grid[-1] - 0.4]])
    if family == "lognormal":
        scale = spread / np.abs(MEANS)
        centre = np.log(np.abs(MEANS)) - 0.5 * np.square(scale)
        place = (np.log(np.abs(edges))[None, :] - centre[:, None]) / scale[:, None]
        mass = np.diff(normal_below(place), axis=1)
    else:
        place = (edges[None, :] - MEANS[:, None]) / spread
        mass = -np.diff(normal_below(place), axis=1)
        if family == "floor":
            flat = grid > FLOOR
            at = int(np.flatnonzero(~flat)[0])
            above = mass[:, flat].sum(axis=1) + 1.0 - normal_below((-1.0 - MEANS) / spread)
            mass[:, flat] = 0.0
            mass[:, at] += above
    mass = mass + 1e-6
    return np.asarray(mass / mass.sum(axis=1, keepdims=True))


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
