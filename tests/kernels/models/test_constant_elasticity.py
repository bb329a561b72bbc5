"""The first model combines the category's prior with the price it found, and learns nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from kernels.demand import Sale
from kernels.models import MODELS
from kernels.models import constant_elasticity as model


def evidence(
    *,
    elasticity: float = -2.6,
    sd: float = 0.7,
    price: float = 0.0,
    cost: float = -1.0,
    sigma: float = 0.2,
) -> model.Evidence:
    return model.Evidence(
        *(jnp.array([value], jnp.float32) for value in (elasticity, sd, price, cost, sigma))
    )


def believed(**given: float) -> tuple[float, float, bool]:
    state = model.init(evidence(**given))
    return float(state.elasticity[0]), float(state.elasticity_sd[0]), bool(state.status_quo_used[0])


def test_without_a_status_quo_the_prior_stands() -> None:
    assert believed() == (pytest.approx(-2.6), pytest.approx(0.7), False)


def test_the_status_quo_counts_by_its_precision() -> None:
    """Bought at 10.00, sold at 15.00: implied -3, off by 0.2 * 3 * 2 = 1.2."""
    implied, implied_sd = -3.0, 1.2
    weight = 1 / 0.7**2 + 1 / implied_sd**2
    mean = (-2.6 / 0.7**2 + implied / implied_sd**2) / weight
    found = believed(price=1500, cost=1000)
    assert found == (pytest.approx(mean, rel=1e-5), pytest.approx(weight**-0.5, rel=1e-5), True)


def test_with_a_wide_prior_it_recovers_the_elasticity_behind_the_price() -> None:
    for elasticity in (-1.5, -2.0, -4.0, -8.0):
        price = 1000 * elasticity / (1 + elasticity)
        mean, _, used = believed(price=price, cost=1000, sd=1000.0)
        assert used
        assert mean == pytest.approx(elasticity, rel=1e-3)


@pytest.mark.parametrize(("price", "cost"), [(1000, 1000), (1000, 1200), (1000, -1), (0, 500)])
def test_a_price_that_says_nothing_is_no_evidence(price: float, cost: float) -> None:
    assert believed(price=price, cost=cost) == (pytest.approx(-2.6), pytest.approx(0.7), False)


def test_an_absurd_margin_is_not_believed_without_limit() -> None:
    """Found at 3.00 with a cost of one cent: the cost is wrong rather than the demand."""
    mean, sd, _ = believed(price=300, cost=1)
    assert -2.6 < mean <= model.IMPLIED_MAX
    assert sd >= 0.09


def test_a_better_founded_status_quo_counts_for_more() -> None:
    trusted, _, _ = believed(price=1200, cost=1000, sigma=0.05)
    doubted, _, _ = believed(price=1200, cost=1000, sigma=0.5)
    assert trusted < doubted < -2.6


def test_it_proposes_the_best_price_of_its_belief() -> None:
    terms = Sale(*(jnp.array([v], jnp.float32) for v in (1.0, 0.0, 1000.0, 0.0)))
    state = model.State(jnp.array([-2.0]), jnp.array([0.5]), jnp.array([False]))
    assert float(model.propose(model.update(state), terms)[0]) == pytest.approx(2000)


@pytest.mark.parametrize("elasticity", [np.nan, np.inf, -np.inf, -1.0, -0.5, 0.0, 2.6])
def test_an_impossible_belief_proposes_nothing(elasticity: float) -> None:
    terms = Sale(*(jnp.array([v], jnp.float32) for v in (1.0, 0.0, 1000.0, 0.0)))
    state = model.State(jnp.array([elasticity]), jnp.array([0.5]), jnp.array([False]))
    assert np.isnan(float(model.propose(state, terms)[0]))


@pytest.mark.parametrize(
    ("elasticity", "sd", "share"),
    [(-2.6, 0.7, 1 - 0.49 / (2 * 2.6 * 1.6)), (-2.6, 0.0, 1.0), (-1.1, 2.0, 0.0), (-0.9, 0.1, 0.0)],
)
def test_confidence_is_the_expected_share_of_attainable_profit(
    elasticity: float, sd: float, share: float
) -> None:
    state = model.State(jnp.array([elasticity]), jnp.array([sd]), jnp.array([False]))
    assert float(model.confidence(state)[0]) == pytest.approx(share, rel=1e-5)


def test_every_model_is_registered_under_its_version() -> None:
    assert [MODELS[version].VERSION for version in MODELS] == list(MODELS)
    assert model.VERSION in MODELS
    assert all(len(version.encode()) <= 24 for version in MODELS)
