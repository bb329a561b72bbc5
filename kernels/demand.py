"""Profit and the most profitable price under constant-elasticity demand, with fees and VAT.

Everything here is a pure function of arrays. Elasticity is dimensionless and negative: at -2.0, a
price 1 % higher sells about 2 % fewer units. With VAT ``v`` and commission ``r``, a sale at gross
price ``p`` earns ``k*p - (c + f)`` where ``k = 1/(1+v) - r``; where the marketplace's minimum fee
``m`` exceeds ``r*p``, it earns ``p/(1+v) - (c + f + m)``. All of it in float32: what is computed
here is a wish, and the bounds that are a promise are kept in integers elsewhere.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels.limits import PRICE_MINOR_MAX


class Sale(NamedTuple):
    """What a sale keeps and costs, float32[rows] each."""

    net_share: jax.Array  # 1 / (1 + vat)
    commission: jax.Array
    cost_minor: jax.Array  # unit cost and fixed fee
    minimum_fee_minor: jax.Array


def unit_profit(price_minor: jax.Array, sale: Sale) -> jax.Array:
    """Return what one sale at this gross price earns, in minor units, float32[rows]."""
    fee = jnp.maximum(sale.commission * price_minor, sale.minimum_fee_minor)
    return sale.net_share * price_minor - fee - sale.cost_minor


def effective_cost(price_minor: jax.Array, sale: Sale) -> jax.Array:
    """Return the cost at which a shop without fees and VAT would see this price as we do.

    Unit profit is ``k * (price - effective cost)``, on the side of the minimum fee where the price
    lies. Not positive ``k`` gives infinity: no price earns anything.
    """
    minimum = sale.minimum_fee_minor > sale.commission * price_minor
    share = jnp.where(minimum, sale.net_share, sale.net_share - sale.commission)
    cost = sale.cost_minor + jnp.where(minimum, sale.minimum_fee_minor, 0.0)
    return jnp.where(share > 0, cost / jnp.where(share > 0, share, 1.0), jnp.inf)


def best_price(elasticity: jax.Array, sale: Sale) -> jax.Array:
    """Return the gross price at which profit peaks, float32[rows] in minor units, in [1, 2**30].

    Profit is the lower of two single-peaked curves, one for each kind of fee, which meet at
    ``m / r``; so its peak is the one curve's, the other's, or the meeting point.

    Args:
        elasticity: float32[rows], below -1; NaN gives NaN.
        sale: what a sale keeps and costs.
    """
    markup = elasticity / (1.0 + elasticity)
    kept = sale.net_share - sale.commission
    proportional = jnp.where(
        kept > 0, sale.cost_minor / jnp.where(kept > 0, kept, 1.0) * markup, PRICE_MINOR_MAX
    )
    minimum = (sale.cost_minor + sale.minimum_fee_minor) / sale.net_share * markup
    charged = sale.commission > 0
    meeting = jnp.where(
        charged, sale.minimum_fee_minor / jnp.where(charged, sale.commission, 1.0), jnp.inf
    )
    # Below the meeting point the minimum fee holds, above it the commission.
    meeting = jnp.where(sale.minimum_fee_minor > 0, meeting, 0.0)
    best = jnp.where(
        proportional >= meeting, proportional, jnp.where(minimum <= meeting, minimum, meeting)
    )
    return jnp.where(jnp.isnan(markup), markup, jnp.clip(best, 1.0, PRICE_MINOR_MAX))


def demand_ratio(
    price_minor: jax.Array, before_minor: jax.Array, elasticity: jax.Array
) -> jax.Array:
    """Return units sold at the new price for each one sold at the old, float32[rows]."""
    return jnp.exp(elasticity * (jnp.log(price_minor) - jnp.log(before_minor)))
