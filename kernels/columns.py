"""The columns that the kernel reads, and how they lie in the two packed arrays it is given.

Dispatching some forty arrays costs more than the arithmetic on them, so the caller stacks all
integers into one ``int32[columns, rows]`` and all floats into one ``float32[columns, rows]``.
"""

from typing import NamedTuple

import jax

ENDINGS_MAX = 8
"""Most legal endings a row may have; ``engine.policy`` refuses more."""


class Integers(NamedTuple):
    """int32[rows] each, money in minor units, ratios in basis points; 0 means none but for cost."""

    cost_minor: jax.Array  # -1: unknown
    in_force_minor: jax.Array
    status_quo_minor: jax.Array
    status_quo_cost_minor: jax.Array  # -1: unknown
    rrp_minor: jax.Array
    map_minor: jax.Array
    floor_minor: jax.Array  # PRICE_MINOR_MAX + 1: no price earns the margin
    ceiling_minor: jax.Array
    rival_minor: jax.Array
    changes_last_hour: jax.Array
    kvi: jax.Array
    fixed_fee_minor: jax.Array
    minimum_fee_minor: jax.Array
    max_discount_bp: jax.Array
    step_max_bp: jax.Array
    changes_per_hour_max: jax.Array
    kvi_rival_ratio_bp: jax.Array
    braked_minor: jax.Array  # up to here a brake lets a KVI go, whatever its rival asks; 0: none
    ending_0: jax.Array  # digits * 10,000 + value; 0: none
    ending_1: jax.Array
    ending_2: jax.Array
    ending_3: jax.Array
    ending_4: jax.Array
    ending_5: jax.Array
    ending_6: jax.Array
    ending_7: jax.Array

    @property
    def endings(self) -> tuple[jax.Array, ...]:
        """The codes of all legal endings."""
        return self[-ENDINGS_MAX:]


class Floats(NamedTuple):
    """float32[rows] each, dimensionless."""

    vat: jax.Array
    commission: jax.Array
    prior_elasticity: jax.Array
    prior_elasticity_sd: jax.Array
    status_quo_sigma: jax.Array
    asked_minor: jax.Array  # what is asked for instead of the model's wish, 0: nothing


class PricedIntegers(NamedTuple):
    """int32[rows] each; what the kernel returns, see ``engine.pricing.PRICED_DTYPE``."""

    price_minor: jax.Array
    target_minor: jax.Array
    floor_minor: jax.Array
    ceiling_minor: jax.Array
    reasons: jax.Array
    binding: jax.Array
    without_minor: jax.Array


class PricedFloats(NamedTuple):
    """float32[rows] each."""

    elasticity: jax.Array
    elasticity_sd: jax.Array
    confidence: jax.Array
    profit_change: jax.Array
