"""The first model: one elasticity a row, from its category and from the price found at import.

It does not learn yet. Two sources say what the elasticity may be: the category's prior, and the
status quo, since whoever set the price before us was not stupid. If that price was the best one,
the elasticity was ``-p0 / (p0 - c0)``; managers err by ``sigma`` in log price, which makes an
error of ``sigma * e * (1 + e)`` in elasticity. Both are combined by their precision.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels.demand import Sale, best_price
from kernels.hyperparameters import IMPLIED_MAX, IMPLIED_MIN, IMPLIED_SD_MIN

VERSION = "constant-elasticity-1"


class Evidence(NamedTuple):
    """What is known of a row before it has sold anything, float32[rows] each."""

    elasticity: jax.Array  # the category's prior mean
    elasticity_sd: jax.Array
    status_quo_minor: jax.Array  # price found at import, 0: none
    status_quo_cost_minor: jax.Array  # its effective cost, negative or not finite: unknown
    status_quo_sigma: jax.Array  # how wrong managers are, in log price


class State(NamedTuple):
    """What the model believes of a row, float32[rows] each, and whether the status quo counted."""

    elasticity: jax.Array
    elasticity_sd: jax.Array
    status_quo_used: jax.Array  # bool[rows]


def init(evidence: Evidence) -> State:
    """Return the belief from the prior and the status quo.

    A price at or below its cost says nothing of elasticity, so it is no evidence.
    """
    price, cost = evidence.status_quo_minor, evidence.status_quo_cost_minor
    used = (price > 0) & (cost >= 0) & (cost < price)
    margin = jnp.where(used, price - cost, 1.0)
    implied = jnp.clip(-price / margin, IMPLIED_MIN, IMPLIED_MAX)
    implied_sd = jnp.maximum(
        evidence.status_quo_sigma * jnp.abs(implied * (1.0 + implied)), IMPLIED_SD_MIN
    )
    prior_weight = 1.0 / jnp.square(evidence.elasticity_sd)
    implied_weight = jnp.where(used, 1.0 / jnp.square(implied_sd), 0.0)
    weight = prior_weight + implied_weight
    mean = (prior_weight * evidence.elasticity + implied_weight * implied) / weight
    return State(mean, jnp.sqrt(1.0 / weight), used)


def update(state: State) -> State:
    """Return the belief after what was sold: unchanged, since this model does not learn yet."""
    return state


def propose(state: State, sale: Sale) -> jax.Array:
    """Return the most profitable gross price in minor units, float32[rows]; NaN where invalid."""
    valid = jnp.isfinite(state.elasticity) & (state.elasticity < -1.0)
    price = best_price(jnp.where(valid, state.elasticity, -2.0), sale)
    return jnp.where(valid, price, jnp.nan)


def confidence(state: State) -> jax.Array:
    """Return the expected share of attainable profit, 0..1: the loss is De^2 / (2 e (1 + e))."""
    slope = 2.0 * state.elasticity * (1.0 + state.elasticity)
    sure = 1.0 - jnp.square(state.elasticity_sd) / jnp.where(slope > 0, slope, 1.0)
    return jnp.where(slope > 0, jnp.clip(sure, 0.0, 1.0), 0.0)
