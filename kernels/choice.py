"""The price to ask, given what is believed of demand, and how far to stray from it to learn.

Profit is expected over the whole belief, not at its mean: who is unsure of a steep elasticity asks
a little more, because demand is convex in it. A dither is a small move up and down around that
price, its sign drawn by hash. It costs ``h delta^2 / 2`` of profit, ``h = e (1 + e) + 2 kappa``,
and is worth it where what it teaches earns more.
"""

from typing import NamedTuple

import numpy as np

from kernels.hierarchy import ELASTICITIES

OFFSETS = np.linspace(-0.36, 0.36, 73)
"""Prices looked at around the anchor, in logs: one per cent apart."""

_DEMAND = np.exp(ELASTICITIES[:, None] * OFFSETS[None, :])


class Place(NamedTuple):
    """Where a listing stands, float64[rows] each, logs against its reference price."""

    anchor: np.ndarray
    filtered: np.ndarray  # the price that its level belongs to
    cost: np.ndarray  # effective cost over the reference price
    low: np.ndarray
    high: np.ndarray


def best_log(
    belief: np.ndarray, place: Place, curvature: np.ndarray, cut_pull: np.ndarray
) -> np.ndarray:
    """Return float64[rows], the log price of greatest expected profit within its bounds.

    Args:
        belief: float64[rows, elasticities].
        cut_pull: gamma times beta, demand that a rival who follows a cut takes back.
    """
    off = np.clip(place.anchor - place.filtered, -2.0, 2.0)
    weights = belief * np.exp(off[:, None] * ELASTICITIES[None, :])
    demand = weights @ _DEMAND
    x = place.anchor[:, None] + OFFSETS[None, :]
    x = np.clip(x, place.low[:, None], place.high[:, None])
    # A clipped point repeats the bound, with the demand there.
    inside = (place.anchor[:, None] + OFFSETS[None, :] >= place.low[:, None] - 0.005) & (
        place.anchor[:, None] + OFFSETS[None, :] <= place.high[:, None] + 0.005
    )
    pull = -curvature[:, None] * np.square(x) + cut_pull[:, None] * np.minimum(x, 0.0)
    gain = (np.exp(x) - place.cost[:, None]) * demand * np.exp(pull)
    scale = np.maximum(np.abs(gain).max(axis=1, keepdims=True), 1e-300)
    gain = np.where(inside, gain / scale, -np.inf)
    best = gain.argmax(axis=1)
    rows = np.arange(len(best))
    inner = np.clip(best, 1, len(OFFSETS) - 2)
    left, middle, right = (gain[rows, inner + step] for step in (-1, 0, 1))
    with np.errstate(invalid="ignore"):
        bend = left - 2.0 * middle + right
        shift = np.where(bend < -1e-12, 0.5 * (left - right) / bend, 0.0)
    shift = np.where(np.isfinite(shift) & (inner == best), np.clip(shift, -0.5, 0.5), 0.0)
    found = place.anchor + OFFSETS[best] + shift * (OFFSETS[1] - OFFSETS[0])
    # Where nothing is allowed near the anchor, walk towards what is.
    some = inside.any(axis=1)
    found = np.where(some, found, place.anchor)
    return np.asarray(np.clip(found, place.low, place.high))


def dither_size(
    mean: np.ndarray,
    variance: np.ndarray,
    noise: np.ndarray,
    curvature: np.ndarray,
    largest: np.ndarray,
) -> np.ndarray:
    """Return float64[rows], how far to stray in logs: as far as allowed where it pays twice.

    Where it pays once there is none, and between them it grows with the logarithm: a price must not
    hang on which side of a threshold a noisy figure falls.

    A dither of ``d`` costs ``h d^2 / 2`` of a day's profit and takes ``v^2 d^2 / R`` from the
    belief's variance ``v``, which costs ``v / 2h`` a day for as long as it lasts.

    Args:
        noise: R, the variance of a day's log sales.
        largest: what the policy allows.
    """
    bend = np.maximum(mean * (1.0 + mean) + 2.0 * curvature, 0.3)
    pays = HORIZON_DAYS * np.square(variance) / (np.square(bend) * noise)
    return np.asarray(largest * np.clip(np.log2(np.maximum(pays, 1.0)), 0.0, 1.0))


HORIZON_DAYS = 150.0
"""Within which a dither shall earn what it costs."""
