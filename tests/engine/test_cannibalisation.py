"""Units that a dearer listing loses to others of the same retailer are not all lost."""

from typing import Any

import numpy as np
import pytest

from engine.checkpoint import merge_parts
from engine.objectives import PROFIT, REVENUE, UNITS, counted_cost
from engine.shard import Shard
from kernels.hyperparameters import CATEGORY_SLOPE_MAX
from tests.engine.builders import DAY, World

SKUS = [f"S{number}" for number in range(6)]
START, COST, BUYERS = 1500, 900, 300.0
STEEP = 2.75
"""Buyers choose among six and nothing by a logit: at the first price half of them buy, the
elasticity of each is -2.5, and of what it loses .45 goes to the others."""


def demand(prices: np.ndarray) -> np.ndarray:
    """Return float64[6], units a day."""
    worth = np.exp(STEEP * (1.0 - prices / START)) / len(prices)
    return BUYERS * worth / (1.0 + worth.sum())


def profit(prices: np.ndarray) -> float:
    return float(((prices - COST) * demand(prices)).sum())


def shop(days: int, **policy: Any) -> World:
    """Return a shop of six that sold by the logit for so many days."""
    world = World(mode="live")
    fields = {"holdout_share": 0.0, "step_max": 1.0, "prior_elasticity": -2.5, **policy}
    world.send(world.policy(learning=True, **fields))
    world.send(
        *(world.listing(sku, price_minor=START, cost_minor=COST, category="juice") for sku in SKUS)
    )
    draw = np.random.default_rng(1)
    for day in range(days):
        units = draw.poisson(demand(prices_of(world)))
        sold = [
            world.sold(int(count), sku, source=f"till {sku}", source_seq=day)
            for sku, count in zip(SKUS, units, strict=True)
            if count
        ]
        world.send(*sold, after_ms=DAY)
    return world


def prices_of(world: World) -> np.ndarray:
    return np.array([world.price(sku) for sku in SKUS], dtype=np.float64)


def test_who_says_how_many_stay_earns_what_the_whole_category_can() -> None:
    each = np.arange(1200.0, 2600.0, 5.0)
    best = max(profit(np.full(len(SKUS), price)) for price in each)
    blind, told = (profit(prices_of(shop(150, cannibalised_share=share))) for share in (0.0, 0.35))
    assert blind < 0.92 * best, "one by one they draw buyers from each other"
    assert told > 0.96 * best


@pytest.mark.parametrize("alone", [True, False])
def test_a_listing_gains_nothing_from_itself(alone: bool) -> None:
    """A category of one has nobody to send buyers to."""
    prices = []
    for share in (0.0, 0.6):
        world = World(mode="live")
        world.send(
            world.policy(learning=True, dither=0.0, holdout_share=0.0, cannibalised_share=share)
        )
        world.send(
            *(
                world.listing(sku, category=sku if alone else "juice", price_minor=START)
                for sku in SKUS
            )
        )
        for day in range(30):
            sold = [world.sold(9, sku, source=f"till {sku}", source_seq=day) for sku in SKUS]
            world.send(*sold, after_ms=DAY)
        prices.append(prices_of(world))
    assert (prices[0].tolist() == prices[1].tolist()) == alone


def test_a_share_that_would_make_a_category_inelastic_drives_no_price_up_for_ever() -> None:
    """Nine tenths stay, says the retailer: then no price would be dear enough."""
    world = shop(200, cannibalised_share=0.9, dither=0.0, prior_elasticity_sd=0.1)
    first = prices_of(world)
    most = COST * CATEGORY_SLOPE_MAX / (1.0 + CATEGORY_SLOPE_MAX)
    assert (first < most).all()


def test_only_profit_counts_what_others_earn() -> None:
    cost, gained = np.full(4, 0.6), np.full(4, 0.1)
    codes = np.array([PROFIT, REVENUE, UNITS, 3], dtype=np.uint8)
    counted = counted_cost(cost, gained, codes)
    np.testing.assert_allclose(counted[[0, 1, 3]], [0.7, 0.0, 0.7])
    assert counted[2] < -1e5


def test_a_successor_decides_by_the_same_earnings() -> None:
    world = shop(25, cannibalised_share=0.4)
    (held,) = world.shard._memory.learnt.retailers.values()
    assert held.earned.shape == (2, 1)
    assert held.earned.sum() > 0.0
    other = Shard.restore(merge_parts([world.shard.checkpoint_close()]))
    (restored,) = other._memory.learnt.retailers.values()
    assert restored.earned.tolist() == held.earned.tolist()
    assert other.digest == world.shard.digest
