"""The best price is where profit peaks, with fees and VAT, on either side of the minimum fee."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.demand import Sale, best_price, demand_ratio, effective_cost, unit_profit


def sale(cost: float, vat: float = 0.0, commission: float = 0.0, minimum: float = 0.0) -> Sale:
    return Sale(
        *(jnp.array([part], jnp.float32) for part in (1 / (1 + vat), commission, cost, minimum))
    )


def one(value: float) -> jnp.ndarray:
    return jnp.array([value], jnp.float32)


def test_without_fees_it_is_the_textbook_markup() -> None:
    assert float(best_price(one(-3.0), sale(1000))[0]) == pytest.approx(1500)


def test_vat_and_commission_raise_the_cost() -> None:
    """At 20 % VAT and 15 % commission, a gross euro keeps 0.6833: the cost is as if 1463.4."""
    found = float(best_price(one(-3.0), sale(1000, 0.2, 0.15))[0])
    assert found == pytest.approx(1000 / (1 / 1.2 - 0.15) * 1.5, rel=1e-5)


@settings(deadline=None, max_examples=200)
@given(
    st.floats(-8.0, -1.2),
    st.floats(10, 1e6),
    st.sampled_from([0.0, 0.07, 0.2]),
    st.sampled_from([0.0, 0.08, 0.15, 0.3]),
    st.floats(0.0, 0.5),
)
def test_no_other_price_earns_more(
    elasticity: float, cost: float, vat: float, commission: float, minimum_share: float
) -> None:
    terms = sale(cost, vat, commission, cost * minimum_share)
    best = best_price(one(elasticity), terms)
    others = best * jnp.exp(jnp.linspace(-0.7, 0.7, 141))
    earned = unit_profit(others, terms) * demand_ratio(others, best, one(elasticity))
    at_best = float(unit_profit(best, terms)[0])
    assert at_best > 0
    assert float(earned.max()) <= at_best * (1 + 1e-4)


def test_a_commission_that_eats_the_price_asks_for_the_highest() -> None:
    assert float(best_price(one(-3.0), sale(1000, 0.2, 0.9))[0]) == 2**30


def test_an_elasticity_that_is_no_number_stays_visible() -> None:
    assert np.isnan(float(best_price(one(np.nan), sale(1000))[0]))


def test_the_effective_cost_turns_fees_into_cost() -> None:
    terms = sale(1000, 0.2, 0.1, 300)
    for price in (2000.0, 4000.0):  # below and above the meeting point at 3000
        share = 1 / 1.2 - (0.1 if price > 3000 else 0.0)
        cost = float(effective_cost(one(price), terms)[0])
        assert share * (price - cost) == pytest.approx(float(unit_profit(one(price), terms)[0]))
