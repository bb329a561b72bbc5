"""A neural head for the price slope, monotone by construction.

    log(units) = base + f(z) - softplus(g(z)) * (log price - log usual price)

``base`` is what the trees foresee, ``z`` describes a listing and a day. Whatever the weights are, a
higher price never sells more. ``g`` is a small network shared by all listings and an offset of each
listing's own, both drawn towards what a few thousand published estimates say: a listing whose price
never moved keeps the elasticity of its like.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from msgspec import Struct

from kernels.hyperparameters import (
    HEAD_BATCH_ROWS,
    HEAD_EMBEDDING,
    HEAD_LEVEL_SD,
    HEAD_OFFSET_SD,
    HEAD_RATE,
    HEAD_STEPS,
    HEAD_USUAL,
    HEAD_USUAL_SD,
    HEAD_WIDTH,
)
from training.rows import FEATURES, Rows

SEEN = [FEATURES.index(name) for name in ("recent_log", "usual_price_log")]
CATEGORY, WEEKDAY = FEATURES.index("category"), FEATURES.index("weekday")


class Head(Struct, frozen=True, eq=False):
    """A fitted head: its weights, and how it scales what it sees."""

    weights: Any
    centre: np.ndarray
    scale: np.ndarray
    dispersion: float  # 1/k

    def correction(self, seen: np.ndarray, category: np.ndarray, weekday: np.ndarray) -> np.ndarray:
        """Return float64[rows], f(z)."""
        scaled = (seen - self.centre) / self.scale
        found = _correction(
            self.weights, jnp.asarray(scaled), jnp.asarray(category), jnp.asarray(weekday)
        )
        return np.asarray(found, dtype=np.float64)

    def slope(self, seen: np.ndarray, category: np.ndarray, listing: np.ndarray) -> np.ndarray:
        """Return float64[rows], softplus(g(z)): the elasticity's size, never below 0."""
        scaled = (seen - self.centre) / self.scale
        return np.asarray(
            _slope(self.weights, jnp.asarray(scaled), jnp.asarray(category), jnp.asarray(listing)),
            dtype=np.float64,
        )


class _Batch(NamedTuple):
    seen: jax.Array  # [rows, 2], log recent sales and log usual price, scaled
    category: jax.Array
    weekday: jax.Array
    listing: jax.Array
    base: jax.Array
    moved: jax.Array
    units: jax.Array


def seen_of(features: np.ndarray) -> np.ndarray:
    """Return float32[rows, 2], what the head sees of a row beside its category and weekday."""
    return np.asarray(features[:, SEEN], dtype=np.float32)


def fit_head(rows: Rows, base: np.ndarray, listings: int, categories: int, seed: int) -> Head:
    """Fit the head to rows, given what the trees foresee of them."""
    import optax

    dispersion = _dispersion(rows.units, np.exp(base))
    seen = seen_of(rows.features)
    centre, scale = seen.mean(axis=0), np.maximum(seen.std(axis=0), 1e-3)
    whole = _Batch(
        seen=jnp.asarray((seen - centre) / scale),
        category=jnp.asarray(rows.features[:, CATEGORY].astype(np.int32)),
        weekday=jnp.asarray(rows.features[:, WEEKDAY].astype(np.int32)),
        listing=jnp.asarray(rows.listing.astype(np.int32)),
        base=jnp.asarray(base.astype(np.float32)),
        moved=jnp.asarray(rows.moved.astype(np.float32)),
        units=jnp.asarray(rows.units.astype(np.float32)),
    )
    weights = _weights(jax.random.key(seed), listings, categories)
    optimiser = optax.adam(optax.cosine_decay_schedule(HEAD_RATE, HEAD_STEPS))
    count = len(rows.units)
    size = min(count, HEAD_BATCH_ROWS)

    @jax.jit
    def step(weights: Any, state: Any, key: jax.Array) -> tuple[Any, Any]:
        at = jax.random.choice(key, count, (size,)) if size < count else jnp.arange(count)
        batch = _Batch(*(column[at] for column in whole))
        gradient = jax.grad(_loss)(weights, batch, dispersion, float(count))
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(weights, updates), state

    state = optimiser.init(weights)
    for key in jax.random.split(jax.random.key(seed + 1), HEAD_STEPS):
        weights, state = step(weights, state, key)
    return Head(weights, centre, scale, dispersion)


def _weights(key: jax.Array, listings: int, categories: int) -> dict[str, jax.Array]:
    keys = jax.random.split(key, 4)
    inputs = 2 + HEAD_EMBEDDING
    return {
        "category": 0.1 * jax.random.normal(keys[0], (categories, HEAD_EMBEDDING)),
        "level_in": jax.random.normal(keys[1], (inputs + 7, HEAD_WIDTH)) / np.sqrt(inputs + 7.0),
        "level_bias": jnp.zeros(HEAD_WIDTH),
        "level_out": jnp.zeros(HEAD_WIDTH),
        "slope_in": jax.random.normal(keys[2], (inputs, HEAD_WIDTH)) / np.sqrt(float(inputs)),
        "slope_bias": jnp.zeros(HEAD_WIDTH),
        "slope_out": jnp.zeros(HEAD_WIDTH),
        "slope_usual": jnp.asarray(np.log(np.expm1(HEAD_USUAL)), dtype=jnp.float32),
        "slope_own": jnp.zeros(listings),
    }


def _described(weights: dict[str, jax.Array], seen: jax.Array, category: jax.Array) -> jax.Array:
    return jnp.concatenate([seen, weights["category"][category]], axis=1)


def _correction(
    weights: dict[str, jax.Array], seen: jax.Array, category: jax.Array, weekday: jax.Array
) -> jax.Array:
    z = jnp.concatenate([_described(weights, seen, category), jax.nn.one_hot(weekday, 7)], axis=1)
    hidden = jnp.tanh(z @ weights["level_in"] + weights["level_bias"])
    return hidden @ weights["level_out"]


def _slope(
    weights: dict[str, jax.Array], seen: jax.Array, category: jax.Array, listing: jax.Array
) -> jax.Array:
    hidden = jnp.tanh(
        _described(weights, seen, category) @ weights["slope_in"] + weights["slope_bias"]
    )
    g = hidden @ weights["slope_out"] + weights["slope_usual"] + weights["slope_own"][listing]
    return jax.nn.softplus(g)


def _loss(
    weights: dict[str, jax.Array], batch: _Batch, dispersion: float, rows: float
) -> jax.Array:
    """Return the mean negative log likelihood (negative binomial) and what holds weights back."""
    correction = _correction(weights, batch.seen, batch.category, batch.weekday)
    slope = _slope(weights, batch.seen, batch.category, batch.listing)
    log_units = jnp.clip(batch.base + correction - slope * batch.moved, -12.0, 12.0)
    k = 1.0 / dispersion
    fit = (batch.units + k) * jnp.logaddexp(log_units, jnp.log(k)) - batch.units * log_units
    own = jnp.square(weights["slope_own"]).sum() / (2.0 * HEAD_OFFSET_SD**2)
    usual = weights["slope_usual"] - np.log(np.expm1(HEAD_USUAL))
    held = own + jnp.square(usual) / (2.0 * HEAD_USUAL_SD**2)
    held = held + jnp.square(correction).mean() / (2.0 * HEAD_LEVEL_SD**2)
    for name in ("level_out", "slope_out", "category"):
        held = held + jnp.square(weights[name]).sum() * 2.0
    return fit.mean() + held / rows


def _dispersion(units: np.ndarray, expected: np.ndarray) -> float:
    excess = np.square(units - expected) - expected
    found = float(excess.sum() / np.maximum(np.square(expected).sum(), 1e-9))
    return float(np.clip(found, 0.02, 2.0))
