"""The price to ask, given what is believed of demand, and how far to stray from it to learn.

Profit is expected over the whole belief, not at its mean: who is unsure of a steep elasticity asks
a little more, because demand is convex in it. A dither is a small move up and down around that
price, its sign drawn by hash. It costs ``h delta^2 / 2`` of profit, ``h = e (1 + e) + 2 kappa``,
and is worth it where what it teaches earns more.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.hyperparameters import (
    BEND_LEAST,
    ELASTICITIES,
    HIDDEN_BIAS_SD,
    HORIZON_DAYS,
    PRICE_OFFSETS,
)
from kernels.ladder import LADDER, compiled, padded, pieces, product

_OFFSETS_32 = PRICE_OFFSETS.astype(np.float32)
_ELASTICITIES_32 = ELASTICITIES.astype(np.float32)
_DEMAND_32 = np.exp(ELASTICITIES[:, None] * PRICE_OFFSETS[None, :]).astype(np.float32)


class Place(NamedTuple):
    """Where a listing stands, float64[rows] each, logs against its reference price."""

    anchor: np.ndarray
    filtered: np.ndarray  # the price that its level belongs to
    cost: np.ndarray  # effective cost over the reference price
    low: np.ndarray
    high: np.ndarray


def best_log(
    belief: np.ndarray,
    place: Place,
    curvature: np.ndarray,
    cut_pull: np.ndarray,
    kink: np.ndarray,
) -> np.ndarray:
    """Return float64[rows], the log price of greatest expected profit within its bounds.

    Args:
        belief: float64[rows, elasticities].
        cut_pull: gamma times beta, demand that a rival who follows a cut takes back.
        kink: demand that is lost on the way from the reference price, whichever way it leads.
    """
    columns = (*place, curvature, cut_pull, kink)
    found = np.empty(len(belief))
    for at, size in pieces(len(belief)):
        best = best_of(padded(belief[at], size), *(padded(column[at], size) for column in columns))
        found[at] = np.asarray(best)[: at.stop - at.start]
    return np.clip(found, place.low, place.high)


@jax.jit
def best_of(
    belief: jax.Array,
    anchor: jax.Array,
    filtered: jax.Array,
    cost: jax.Array,
    low: jax.Array,
    high: jax.Array,
    curvature: jax.Array,
    cut_pull: jax.Array,
    kink: jax.Array,
) -> jax.Array:
    """Return float32[rows], what :func:`best_log` asks for; everything is float32."""
    off = jnp.clip(anchor - filtered, -2.0, 2.0)
    demand = product(belief * jnp.exp(off[:, None] * _ELASTICITIES_32), jnp.asarray(_DEMAND_32))
    wished = anchor[:, None] + _OFFSETS_32
    # A clipped point repeats the bound, with the demand there.
    x = jnp.clip(wished, low[:, None], high[:, None])
    inside = (wished >= low[:, None] - 0.005) & (wished <= high[:, None] + 0.005)
    pull = -curvature[:, None] * jnp.square(x) + cut_pull[:, None] * jnp.minimum(x, 0.0)
    pull = pull - kink[:, None] * jnp.abs(x)
    gain = (jnp.exp(x) - cost[:, None]) * demand * jnp.exp(pull)
    scale = jnp.maximum(jnp.abs(gain).max(axis=1, keepdims=True), 1e-30)
    gain = jnp.where(inside, gain / scale, -jnp.inf)
    best = gain.argmax(axis=1)
    inner = jnp.clip(best, 1, len(PRICE_OFFSETS) - 2)
    left, middle, right = (
        jnp.take_along_axis(gain, (inner + step)[:, None], axis=1)[:, 0] for step in (-1, 0, 1)
    )
    bend = left - 2.0 * middle + right
    bent = jnp.isfinite(bend) & (bend < -1e-6) & (inner == best)
    shift = jnp.where(bent, 0.5 * (left - right) / jnp.where(bent, bend, 1.0), 0.0)
    step = PRICE_OFFSETS[1] - PRICE_OFFSETS[0]
    found = anchor + (best.astype(jnp.float32) - len(PRICE_OFFSETS) // 2) * step
    found = found + jnp.clip(shift, -0.5, 0.5) * step
    # Where nothing is allowed near the anchor, walk towards what is.
    return jnp.where(inside.any(axis=1), found, anchor)


def warm() -> None:
    """Compile for every size of the ladder."""
    for rows in LADDER:
        nothing = np.zeros(rows)
        alike = Place(nothing, nothing, nothing, nothing, nothing)
        best_log(np.zeros((rows, len(ELASTICITIES))), alike, nothing, nothing, nothing)


def compiled_shapes() -> int:
    """Return how many shapes are compiled: constant after :func:`warm`."""
    return compiled(best_of)


def profit_bend(elasticity: np.ndarray, curvature: np.ndarray | float) -> np.ndarray:
    """Return float64[rows], how profit bends around its best price: a dither costs half of it.

    Times the dither's square, as a share of the profit.
    """
    bend = elasticity * (1.0 + elasticity) + 2.0 * curvature
    return np.asarray(np.maximum(bend, BEND_LEAST))


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
    bend = profit_bend(mean, curvature)
    pays = HORIZON_DAYS * np.square(variance) / (np.square(bend) * noise)
    return np.asarray(largest * np.clip(np.log2(np.maximum(pays, 1.0)), 0.0, 1.0))


def hidden_variance(
    mean: np.ndarray, tested: np.ndarray, error: np.ndarray, sd: np.ndarray
) -> np.ndarray:
    """Return float64[rows], the variance of slopes that a bias shared by a category may hide.

    Where every price of a category is too dear by the same share its markups agree with each other,
    and no belief is in doubt: only moves of prices tell, of whichever of its listings. So this
    counts for how far prices stray, and for nothing else.

    Args:
        mean: of elasticities.
        tested: the precision that moves gave the category's slopes.
        error: how wrong managers are, in log price, where that is stated, else 0.
        sd: of what was thought of the category's mean beforehand: no more is hidden.
    """
    bias = np.where(error > 0.0, np.minimum(error, HIDDEN_BIAS_SD), HIDDEN_BIAS_SD)
    # What a bias of the best markup, log(e / (1 + e)), is as one of the elasticity.
    most = np.square(np.minimum(bias * np.abs(mean * (1.0 + mean)), sd))
    return np.asarray(1.0 / (1.0 / np.maximum(most, 1e-12) + tested))


def pinned(place: Place, asked: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return bool[rows], which prices lie at a bound, and would also if demand were a sd otherwise.

    There a dither goes one way only: it costs its whole size and not its square, and what it
    teaches changes no price.
    """
    steeper, flatter = mean - np.sqrt(variance), mean + np.sqrt(variance)
    dear = (asked >= place.high - 1e-3) & (_optimum_log(place, steeper) >= place.high)
    cheap = (asked <= place.low + 1e-3) & (_optimum_log(place, flatter) <= place.low)
    return np.asarray(dear | cheap)


def _optimum_log(place: Place, elasticity: np.ndarray) -> np.ndarray:
    best = np.minimum(elasticity, -1.0 - 1e-9)
    markup = np.log(best / (1.0 + best))
    optimum = np.log(np.maximum(place.cost, 1e-9)) + markup
    return np.where(elasticity < -1.0, optimum, np.inf)
