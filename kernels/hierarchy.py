"""A table over elasticities: what categories, status quo and experiments say together.

Every belief about an elasticity is a row of weights over a fixed grid. A listing's own sales give a
Gaussian likelihood on it; the price found at import gives another, because whoever set it was not
stupid: ``log(p0/c) = log(e/(1+e)) + bias + N(0, sigma^2)``. Categories have means and biases of
their own. How far managers are to be trusted, how alike the listings of a category are, and which
family their elasticities come from is chosen by the marginal likelihood of the whole retailer.

Given a category's mean and bias its listings are independent, so a listing's posterior is the
mixture over both, weighted by what the category says: no listing counts twice.
"""

from typing import NamedTuple

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
SIGMAS = (0.05, 0.08, 0.12, 0.16, 0.22, 0.3, 0.45)
SPREADS = (0.3, 0.5, 0.7, 0.95, 1.25)
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


def family_priors(family: str, spread: float) -> np.ndarray:
    """Return float64[means, elasticities], each row sums to one."""
    grid = ELASTICITIES
    edges = np.concatenate([[-1.0], 0.5 * (grid[1:] + grid[:-1]), [grid[-1] - 0.4]])
    if family == "lognormal":
        scale = spread / np.abs(MEANS)
        centre = np.log(np.abs(MEANS)) - 0.5 * np.square(scale)
        place = (np.log(np.abs(edges))[None, :] - centre[:, None]) / scale[:, None]
        mass = np.diff(_normal_below(place), axis=1)
    else:
        place = (edges[None, :] - MEANS[:, None]) / spread
        mass = -np.diff(_normal_below(place), axis=1)
        if family == "floor":
            flat = grid > FLOOR
            at = int(np.flatnonzero(~flat)[0])
            above = mass[:, flat].sum(axis=1) + 1.0 - _normal_below((-1.0 - MEANS) / spread)
            mass[:, flat] = 0.0
            mass[:, at] += above
    mass = mass + 1e-6
    return np.asarray(mass / mass.sum(axis=1, keepdims=True))


def _normal_below(place: np.ndarray) -> np.ndarray:
    """Return the normal distribution function, by a fixed formula (Abramowitz, Stegun 26.2.17)."""
    size = np.abs(place)
    t = 1.0 / (1.0 + 0.2316419 * size)
    series = t * (
        0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)))
    )
    tail = np.exp(-0.5 * np.square(size)) / np.sqrt(2.0 * np.pi) * series
    return np.asarray(np.where(place >= 0.0, 1.0 - tail, tail))


def sales_likelihood(evidence: Evidence) -> np.ndarray:
    """Return float64[rows, elasticities], largest one in each row."""
    grid = ELASTICITIES[None, :]
    log = grid * evidence.moment[:, None] - 0.5 * np.square(grid) * evidence.slope[:, None]
    return np.asarray(np.exp(log - log.max(axis=1, keepdims=True)))


def markup_likelihood(evidence: Evidence, sigma: float, bias: float) -> np.ndarray:
    """Return float64[rows, elasticities]; one where the markup is no evidence."""
    off = (evidence.markup[:, None] - IMPLIED[None, :] - bias) / sigma
    density = np.exp(-0.5 * np.square(off)) / sigma + 1e-4
    bounded = _normal_below(off)
    known = np.isfinite(evidence.markup)[:, None]
    weighed = np.where(evidence.one_sided[:, None], bounded, density)
    return np.asarray(np.where(known, weighed, 1.0))


def fit(evidence: Evidence, category: np.ndarray, categories: int, kept: int = 1) -> Table:
    """Return the likeliest configurations of a retailer, and his categories' means and biases.

    Args:
        category: int[rows], below ``categories``.
        kept: how many configurations to average over.
    """
    sales = sales_likelihood(evidence)
    priors = {(f, s): family_priors(f, s) for f in FAMILIES for s in SPREADS}
    keys = list(priors)
    stacked = np.concatenate([priors[key] for key in keys]).T
    mean_log = -0.5 * np.square((MEANS - MEAN) / MEAN_SD)
    mean_log = mean_log - np.log(np.exp(mean_log).sum())
    scores: dict[Config, float] = {}
    logs: dict[tuple[float, tuple[str, float]], np.ndarray] = {}
    for sigma in SIGMAS:
        by_bias = np.empty((len(BIASES), categories, stacked.shape[1]))
        for at, bias in enumerate(BIASES):
            weighed = (sales * markup_likelihood(evidence, sigma, bias)) @ stacked
            by_bias[at] = _summed(np.log(np.maximum(weighed, 1e-300)), category, categories)
        shaped = by_bias.reshape(len(BIASES), categories, len(keys), len(MEANS))
        for index, key in enumerate(keys):
            log = shaped[:, :, index, :].transpose(1, 0, 2) + mean_log
            logs[sigma, key] = log
            for bias_sd in BIAS_SDS:
                joint = log + _bias_log(bias_sd)[None, :, None]
                score = float(_log_sum(joint.reshape(categories, -1)).sum())
                scores[Config(sigma, key[1], key[0], bias_sd)] = score
    ordered = sorted(scores, key=lambda config: -scores[config])[:kept]
    weights = np.exp(np.array([scores[config] - scores[ordered[0]] for config in ordered]))
    parts = []
    for config in ordered:
        joint = logs[config.sigma, (config.family, config.spread)]
        joint = joint + _bias_log(config.bias_sd)[None, :, None]
        top = joint.max(axis=(1, 2), keepdims=True)
        mass = np.exp(joint - top)
        parts.append(mass / mass.sum(axis=(1, 2), keepdims=True))
    return Table(tuple(ordered), weights / weights.sum(), np.stack(parts))


def posterior(table: Table, evidence: Evidence, category: np.ndarray) -> np.ndarray:
    """Return float64[rows, elasticities], what is believed of each listing."""
    sales = sales_likelihood(evidence)
    total = np.zeros_like(sales)
    for config, weight, parts in zip(table.configs, table.weights, table.parts, strict=True):
        prior = family_priors(config.family, config.spread)
        for at, bias in enumerate(BIASES):
            of_bias = parts[category, at]
            likelihood = sales * markup_likelihood(evidence, config.sigma, bias)
            evidence_of = np.maximum(likelihood @ prior.T, 1e-300)
            total += weight * likelihood * ((of_bias / evidence_of) @ prior)
    return np.asarray(total / np.maximum(total.sum(axis=1, keepdims=True), 1e-300))


def prior_of(table: Table, category: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's prior mean and variance by its category alone."""
    mean, square = np.zeros(len(category)), np.zeros(len(category))
    for config, weight, parts in zip(table.configs, table.weights, table.parts, strict=True):
        prior = family_priors(config.family, config.spread)
        mass = parts.sum(axis=1) @ prior
        mean += weight * (mass @ ELASTICITIES)[category]
        square += weight * (mass @ np.square(ELASTICITIES))[category]
    return mean, np.maximum(square - np.square(mean), 0.01)


def moments(belief: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of each row of weights."""
    mean = belief @ ELASTICITIES
    return mean, np.maximum(belief @ np.square(ELASTICITIES) - np.square(mean), 1e-4)


def _bias_log(bias_sd: float) -> np.ndarray:
    log = -0.5 * np.square(BIASES / bias_sd)
    return np.asarray(log - np.log(np.exp(log).sum()))


def _log_sum(logs: np.ndarray) -> np.ndarray:
    top = logs.max(axis=1, keepdims=True)
    return np.asarray((top + np.log(np.exp(logs - top).sum(axis=1, keepdims=True)))[:, 0])


def _summed(columns: np.ndarray, category: np.ndarray, categories: int) -> np.ndarray:
    """Add up rows by category, in the order of the rows."""
    total = np.zeros((categories, columns.shape[1]))
    np.add.at(total, category, columns)
    return total


def pooled(
    sums: dict[str, np.ndarray], mean: np.ndarray, variance: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """Return curvature and rival effect, pooled over rows, elasticities integrated out.

    They are integrated under their prior: under the posterior the same sales would count twice.
    Also returns the 2x2 covariance of both.
    """
    weight = 1.0 / (sums["xx"] + 1.0 / variance)
    price_moment = sums["bx"] + mean / variance
    # Regressors are -x^2 and c.
    kx, cx = -sums["xk"], sums["xc"]
    kk = sums["kk"] - kx * kx * weight
    kc = -sums["kc"] - kx * cx * weight
    cc = sums["cc"] - cx * cx * weight
    bk = -sums["bk"] - kx * price_moment * weight
    bc = sums["bc"] - cx * price_moment * weight
    precision = np.array([[kk.sum() + 1.0, kc.sum()], [kc.sum(), cc.sum() + 1.0 / RIVAL_SD**2]])
    moment = np.array([bk.sum() + CURVATURE / CURVATURE_SD**2, bc.sum() + RIVAL / RIVAL_SD**2])
    covariance = np.linalg.inv(precision)
    found = covariance @ moment
    curvature = float(np.clip(found[0], 0.0, 4.0))
    rival = float(np.clip(found[1], 0.0, 3.0))
    return curvature, rival, covariance


CURVATURE, CURVATURE_SD = 0.5, 1.0
RIVAL, RIVAL_SD = 0.2, 0.4
