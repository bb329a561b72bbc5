"""Slopes of alike items, drawn towards their group's mean as far as the data say they are alike.

Every item brings the sums of a weighted regression of its own (gram, moment); a group has a mean
and a spread for each slope, found by a few rounds of expectation and maximisation. Slopes are
prices' (the elasticity) first, then one a covariate.
"""

import numpy as np
from msgspec import Struct

from kernels.hyperparameters import (
    COVARIATE_SD,
    GROUP_ELASTICITY,
    GROUP_ELASTICITY_SD,
    SCATTER_LEAST,
    SCATTER_ROWS,
    SLOPE_ROUNDS,
    SPREAD_SDS,
)


class Regressions(Struct, eq=False):
    """Each item's own sums, an element an item."""

    gram: np.ndarray  # float64[items, width, width]
    moment: np.ndarray  # float64[items, width]
    square: np.ndarray  # float64[items], of surprises
    told: np.ndarray  # float64[items], degrees of freedom they leave
    known: np.ndarray  # bool[items]: the noise is 1 and in the sums already (counts)


class Slopes(Struct, eq=False):
    """What is believed of items' slopes and of groups' means."""

    items: np.ndarray  # float64[items, width]
    covariance: np.ndarray  # float64[items, width, width]
    means: np.ndarray  # float64[groups, width]
    mean_variance: np.ndarray  # float64[groups, width]
    noise: np.ndarray  # float64[groups], variance of a surprise where it is not known
    scatter: np.ndarray  # float64[items], an item's variance as a share of its group's


def fit_slopes(sums: Regressions, group: np.ndarray, groups: int) -> Slopes:
    """Return slopes, given each item's group (int64[items])."""
    gram, moment = sums.gram, sums.moment
    count, width = moment.shape
    prior = np.zeros(width)
    prior[0] = GROUP_ELASTICITY
    prior_precision = np.full(width, 1.0 / COVARIATE_SD**2)
    prior_precision[0] = 1.0 / GROUP_ELASTICITY_SD**2
    spread = np.full((groups, width), SPREAD_SDS[1] ** 2)
    spread[:, 0] = SPREAD_SDS[0] ** 2
    start = spread.copy()
    noise = np.full(groups, 0.2)
    means = np.tile(prior, (groups, 1))
    weight = np.maximum(by_group(np.where(sums.known, 0.0, sums.told), group, groups), 1.0)
    members = np.maximum(by_group(np.ones(count), group, groups), 1.0)
    eye = np.eye(width)
    scatter = np.ones(count)
    for _ in range(SLOPE_ROUNDS):
        of_noise = np.where(sums.known, 1.0, noise[group] * scatter)
        of_spread = spread[group]
        inverse = eye[None] / of_spread[:, :, None]
        covariance = np.linalg.inv(gram / of_noise[:, None, None] + inverse)
        # The group's mean, items' own slopes integrated out.
        shrink = inverse - inverse @ covariance @ inverse
        pull = (inverse @ covariance @ (moment / of_noise[:, None])[:, :, None])[:, :, 0]
        precision = by_group(shrink.reshape(count, -1), group, groups)
        precision = precision.reshape(groups, width, width) + np.diag(prior_precision)
        total = by_group(pull, group, groups) + prior * prior_precision
        mean_covariance = np.linalg.inv(precision)
        means = (mean_covariance @ total[:, :, None])[:, :, 0]
        own = moment / of_noise[:, None] + means[group] / of_spread
        slopes = (covariance @ own[:, :, None])[:, :, 0]
        off = np.square(slopes - means[group])
        off = off + np.diagonal(covariance, axis1=1, axis2=2)
        # A few items' worth of what was thought before, so that no spread collapses.
        spread = (by_group(off, group, groups) + 3.0 * start) / (members + 3.0)[:, None]
        fitted = (slopes * moment).sum(axis=1) * 2.0
        fitted = fitted - np.einsum("ni,nij,nj->n", slopes, gram, slopes)
        left = sums.square - fitted + np.einsum("nij,nij->n", gram, covariance)
        left = np.where(sums.known, 0.0, np.maximum(left, 0.0))
        noise = np.maximum(np.maximum(by_group(left, group, groups), 1e-6) / weight, 1e-4)
        # What sells little, or irregularly, is noisier than its group.
        own = left / np.maximum(sums.told, 1.0) / noise[group]
        share = np.where(sums.told > 0.0, sums.told / (sums.told + SCATTER_ROWS), 0.0)
        scatter = np.clip(own, SCATTER_LEAST, 1.0 / SCATTER_LEAST) ** share
    # An item is drawn to a mean that is itself known only so well. What prices and covariates do
    # alike (a promotion that always comes with the cut) cannot be told apart, in no item.
    drawn = covariance / of_spread[:, None, :]
    covariance = covariance + drawn @ mean_covariance[group] @ drawn.transpose(0, 2, 1)
    of_means = np.diagonal(mean_covariance, axis1=1, axis2=2).copy()
    return Slopes(slopes, covariance, means, of_means, noise, scatter)


def by_group(columns: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Add up rows by group, in the order of the rows."""
    total = np.zeros((groups, *columns.shape[1:]))
    np.add.at(total, group, columns)
    return total
