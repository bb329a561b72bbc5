"""A trained model knows what made the sales, is monotone in price, and the same twice."""

from hashlib import sha256

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.artefact import read_artefact, sound
from engine.errors import RejectedInput
from tests.training.shops import WEEK, shop
from training.demand_head import _slope, _weights
from training.fitting import train


def test_a_model_recovers_elasticities_levels_and_the_week() -> None:
    data, elasticity = shop()
    trained = train(data)
    found = read_artefact(trained.artefact, sha256(trained.artefact).hexdigest())
    order = np.argsort(data.keys)
    assert found.keys.tolist() == data.keys[order].tolist()
    said = found.predictions
    assert sound(said).all()
    assert np.corrcoef(said["elasticity"], elasticity[order])[0, 1] > 0.9
    assert np.sqrt(np.mean(np.square(said["elasticity"] - elasticity[order]))) < 0.6
    off = (said["elasticity"] - elasticity[order]) / said["elasticity_sd"].astype(np.float64)
    assert 0.2 < np.std(off) < 2.0, "it knows how sure it is"
    week = np.exp(said["season"].astype(np.float64)).mean(axis=0)
    assert np.abs(np.log(week) - np.log(WEEK / WEEK.mean())).max() < 0.12
    assert trained.scores["wape"] < trained.scores["wape_without_price"]
    assert trained.scores["wape"] < 0.9 * trained.scores["wape_naive"]
    assert abs(trained.scores["bias"]) < 0.1


def test_the_same_data_and_seed_give_the_same_bytes() -> None:
    data, _ = shop(listings=24, days=60)
    first, again, other = train(data), train(data), train(data, seed=2)
    assert first.artefact == again.artefact
    assert first.version == again.version
    assert first.artefact != other.artefact


def test_no_weights_sell_more_at_a_higher_price() -> None:
    """Not of a trained head but of any: monotone by construction."""
    for seed in range(20):
        key = jax.random.key(seed)
        weights = {
            name: 5.0 * jax.random.normal(key, value.shape)
            for name, value in _weights(key, 9, 3).items()
        }
        seen = jax.random.normal(key, (50, 2)) * 10.0
        category, listing = jnp.arange(50) % 3, jnp.arange(50) % 9
        assert float(_slope(weights, seen, category, listing).min()) >= 0.0


def test_too_little_to_learn_from_is_refused() -> None:
    data, _ = shop(listings=4, days=20)
    with pytest.raises(RejectedInput, match="listing-days"):
        train(data)
