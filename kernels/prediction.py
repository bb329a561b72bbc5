"""A trained model's word, added to what is believed by its precision.

Two Gaussian beliefs of one thing, each with its variance, become one: the surer of both counts
more. A model that claims little hardly moves anything; one that claims much and is wrong is
noticed by its errors.
"""

from typing import NamedTuple

import numpy as np

from kernels.hyperparameters import ELASTICITIES


class Prediction(NamedTuple):
    """What a model says, float64[rows] each; ``known`` says of which rows it says anything."""

    known: np.ndarray  # bool
    level: np.ndarray  # log units of an average day at the filtered price
    level_variance: np.ndarray
    elasticity: np.ndarray
    elasticity_variance: np.ndarray
    season: np.ndarray  # log of the period's days over average days


def informed_belief(belief: np.ndarray, said: Prediction) -> np.ndarray:
    """Return float64[rows, elasticities], the belief with the model's as another likelihood."""
    off = ELASTICITIES[None, :] - said.elasticity[:, None]
    log = -0.5 * np.square(off) / said.elasticity_variance[:, None]
    weighed = belief * np.exp(log - log.max(axis=1, keepdims=True))
    total = weighed.sum(axis=1, keepdims=True)
    # Where both exclude each other nothing is left to weigh, and what sold counts alone.
    usable = said.known & (total[:, 0] > 1e-200)
    return np.asarray(np.where(usable[:, None], weighed / np.maximum(total, 1e-300), belief))


def informed(
    mean: np.ndarray, variance: np.ndarray, said: np.ndarray, of: np.ndarray, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance after a model's word ``said`` with variance ``of``, where known."""
    weight = variance / (variance + of)
    return (
        np.asarray(np.where(known, mean + weight * (said - mean), mean)),
        np.asarray(np.where(known, (1.0 - weight) * variance, variance)),
    )


def units_with(
    units: np.ndarray,
    price_moved: np.ndarray,
    level: tuple[np.ndarray, np.ndarray],
    elasticity: tuple[np.ndarray, np.ndarray],
    said: Prediction,
) -> np.ndarray:
    """Return float64[rows], what is foreseen with the model, given what is foreseen without it.

    Args:
        price_moved: the price's innovation, in logs.
        level: mean and variance in the stream, as are those of ``elasticity``.
    """
    with_level, _ = informed(*level, said.level, said.level_variance, said.known)
    slope, _ = informed(*elasticity, said.elasticity, said.elasticity_variance, said.known)
    moved = with_level - level[0] + (slope - elasticity[0]) * price_moved
    moved = np.where(said.known, moved + said.season, 0.0)
    return np.asarray(units * np.exp(np.clip(moved, -8.0, 8.0)))
