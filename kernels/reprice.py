"""The one fused kernel: from two packed arrays to two packed arrays, row by row.

No reduction runs across rows, so a row's result depends neither on its neighbours nor on the
padding. The rules run twice: once for the price, once without the rule that set it, which gives
the price that the explanation compares with.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from kernels import reasons
from kernels.bounds import Bounds, all_prices, choose
from kernels.columns import Floats, Integers, PricedFloats, PricedIntegers
from kernels.demand import Sale, demand_ratio, effective_cost, unit_profit
from kernels.limits import PRICE_MINOR_MAX
from kernels.models import constant_elasticity as model
from kernels.rules import RULES, kvi


class Ruled(NamedTuple):
    """What the rules made of a wish, int32[rows] each but for ``bounds``."""

    price_minor: jax.Array
    bounds: Bounds  # after all rules but the ending, which leaves a single price
    moved: jax.Array  # bit k: rule k moved the price
    binding: jax.Array
    overridden: jax.Array  # bool[rows]


@jax.jit
def reprice(integers: jax.Array, floats: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the decided prices and all that explains them.

    Args:
        integers: int32[len(Integers), rows].
        floats: float32[len(Floats), rows].

    Returns:
        int32[len(PricedIntegers), rows] and float32[len(PricedFloats), rows]. A price of 0 means
        that nothing is decided: no cost or floor, no price allowed, or an invalid model.
    """
    columns, ratios = Integers(*integers), Floats(*floats)
    sale = _sale(columns, ratios)
    state = model.update(model.init(_evidence(columns, ratios, sale)))
    wish = model.propose(state, sale)
    # Who knows better than the model says so: learnt demand, or an arm that holds the price.
    wish = jnp.where(ratios.asked_minor > 0.0, ratios.asked_minor, wish)
    valid = jnp.isfinite(wish) & (wish > 0) & jnp.isfinite(state.elasticity_sd)
    # Clamp before the cast, which is undefined beyond int32; the rules clamp again in integers.
    bounded = jnp.clip(jnp.where(valid, wish, 1.0), 1.0, PRICE_MINOR_MAX)
    target = jnp.minimum(jnp.rint(bounded).astype(jnp.int32), PRICE_MINOR_MAX)

    ruled = apply_rules(columns, target, jnp.full_like(target, reasons.BINDING_NONE))
    # Also where the brake lets the whole wish through, and no rule moves the price.
    braked = (ruled.binding == reasons.KVI) | (ruled.binding == reasons.BINDING_NONE)
    braked &= (columns.braked_minor > 0) & (ruled.price_minor > kvi.limit(columns))
    binding = jnp.where(braked, reasons.BRAKE, ruled.binding)
    released = columns._replace(braked_minor=jnp.where(braked, 0, columns.braked_minor))
    without = apply_rules(released, target, binding)
    no_cost, no_floor = columns.cost_minor < 0, columns.floor_minor <= 0
    least, most = jnp.maximum(columns.map_minor, columns.floor_minor), _ceiling(columns)
    infeasible = least > most
    decided = valid & ~no_cost & ~no_floor & ~infeasible

    mask = jnp.where(decided, ruled.moved, 0)
    for condition, bit in (
        (decided & ruled.overridden, reasons.OVERRIDDEN),
        (infeasible & ~no_cost & ~no_floor, reasons.INFEASIBLE),
        (no_cost, reasons.NO_COST),
        (no_floor, reasons.NO_FLOOR),
        (~valid, reasons.MODEL_INVALID),
        (decided & (columns.in_force_minor <= 0), reasons.FIRST_PRICE),
        (state.status_quo_used, reasons.STATUS_QUO_USED),
    ):
        mask = mask | jnp.where(condition, bit, 0)

    price = jnp.where(decided, ruled.price_minor, 0)
    counted = PricedIntegers(
        price_minor=price,
        target_minor=jnp.where(valid, target, 0),
        # Of an infeasible row the two that contradict each other, for the explanation.
        floor_minor=jnp.where(infeasible, least, ruled.bounds.low),
        ceiling_minor=jnp.where(infeasible, most, ruled.bounds.high),
        reasons=mask,
        binding=jnp.where(decided, binding, reasons.BINDING_NONE),
        without_minor=jnp.where(decided, without.price_minor, 0),
    )
    weighed = PricedFloats(
        elasticity=state.elasticity,
        elasticity_sd=state.elasticity_sd,
        confidence=jnp.where(decided, model.confidence(state), 0.0),
        profit_change=_profit_change(price, columns, state.elasticity, sale),
    )
    return jnp.stack(counted), jnp.stack(weighed)


def apply_rules(columns: Integers, target_minor: jax.Array, absent: jax.Array) -> Ruled:
    """Narrow by each rule in order but the row's ``absent`` one, and note which moved the price."""
    bounds, price = all_prices(target_minor), target_minor
    before_ending, at_ending = bounds, price
    moved, binding = jnp.zeros_like(price), jnp.full_like(price, reasons.BINDING_NONE)
    for index, narrow in enumerate(RULES):
        before_ending, at_ending = bounds, price
        bounds = choose(absent == index, bounds, narrow(columns, price, bounds))
        price = jnp.clip(price, bounds.low, bounds.high)
        changed = price != at_ending
        moved = moved | jnp.where(changed, 1 << index, 0)
        if index != reasons.ENDING:
            binding = jnp.where(changed, index, binding)
    # The ending moves nearly every price by a little: it is what binds only where it moved more
    # than the rule before it.
    rounded, pulled = jnp.abs(price - at_ending), jnp.abs(at_ending - target_minor)
    binding = jnp.where(rounded > pulled, reasons.ENDING, binding)
    return Ruled(price, before_ending, moved, binding, bounds.overridden)


def _sale(columns: Integers, ratios: Floats) -> Sale:
    # Summed in float: two amounts of 2**30 do not fit into int32 together.
    cost = jnp.maximum(columns.cost_minor, 0).astype(jnp.float32)
    return Sale(
        net_share=1.0 / (1.0 + ratios.vat),
        commission=ratios.commission,
        cost_minor=cost + columns.fixed_fee_minor.astype(jnp.float32),
        minimum_fee_minor=columns.minimum_fee_minor.astype(jnp.float32),
    )


def _evidence(columns: Integers, ratios: Floats, sale: Sale) -> model.Evidence:
    price = columns.status_quo_minor.astype(jnp.float32)
    known = columns.status_quo_cost_minor >= 0
    then = columns.status_quo_cost_minor.astype(jnp.float32)
    then = then + columns.fixed_fee_minor.astype(jnp.float32)
    cost = effective_cost(price, sale._replace(cost_minor=then))
    return model.Evidence(
        elasticity=ratios.prior_elasticity,
        elasticity_sd=ratios.prior_elasticity_sd,
        status_quo_minor=price,
        status_quo_cost_minor=jnp.where(known, cost, -1.0),
        status_quo_sigma=ratios.status_quo_sigma,
    )


def _ceiling(columns: Integers) -> jax.Array:
    return jnp.where(columns.ceiling_minor > 0, columns.ceiling_minor, PRICE_MINOR_MAX)


def _profit_change(
    price_minor: jax.Array, columns: Integers, elasticity: jax.Array, sale: Sale
) -> jax.Array:
    """Return the expected gain over the price in force, for each unit that sells today.

    Zero where nothing is decided or nothing is in force: there is nothing to compare.
    """
    compared = (price_minor > 0) & (columns.in_force_minor > 0)
    now = jnp.where(compared, price_minor, 1).astype(jnp.float32)
    before = jnp.where(compared, columns.in_force_minor, 1).astype(jnp.float32)
    gain = unit_profit(now, sale) * demand_ratio(now, before, elasticity)
    gain = gain - unit_profit(before, sale)
    return jnp.where(compared & jnp.isfinite(gain), gain, 0.0)


INTEGER_COLUMNS = len(Integers._fields)
FLOAT_COLUMNS = len(Floats._fields)

__all__ = ["FLOAT_COLUMNS", "INTEGER_COLUMNS", "Ruled", "apply_rules", "reprice"]
