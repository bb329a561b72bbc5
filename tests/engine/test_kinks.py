"""Customers who hold a price against the usual one are recognised, and their prices left alone."""

from typing import Any

import numpy as np
import pytest

from engine.checkpoint import merge_parts
from engine.decided import Decided
from engine.deltas import AnyDelta, ModeChanged, PriceReported
from engine.kinks import told_kink
from engine.learnt import RetailerLearning
from engine.replay import Agreement
from engine.shard import Shard
from kernels.kinks import PRODUCTS
from repricer import batch_of
from tests.engine.builders import DAY, World

SKUS = [f"S{number}" for number in range(24)]
COSTS = np.rint(1071 * np.exp(np.tile([-0.1, -0.04, 0.04, 0.1], 6))).astype(int)
"""Of -3.5 the best prices lie from 1357 to 1658; of -2 below 1500 and -5 above, it is 1500."""
HISTORY, LIVE = 45, 10
KINK = 3 / 7


def shop() -> World:
    world = World(mode="shadow")
    world.send(world.policy(learning=True))
    world.send(
        *(
            world.listing(sku, category="food", price_minor=1500, cost_minor=int(cost))
            for sku, cost in zip(SKUS, COSTS, strict=True)
        )
    )
    return world


def facts(world: World, day: int, kink: float) -> list[AnyDelta]:
    """Return a day's prices and sales."""
    draw = np.random.default_rng([7, day // 4])
    reported = np.rint(1500 * np.exp(np.clip(draw.normal(0, 0.1, len(SKUS)), -0.25, 0.25)))
    draw = np.random.default_rng([8, day])
    deltas: list[AnyDelta] = []
    for at, sku in enumerate(SKUS):
        price = int(reported[at]) if day < HISTORY - 1 else 1500
        if day >= HISTORY:
            price = world.price(sku)
        else:
            deltas.append(world.about(PriceReported, sku, price_minor=price))
        x = np.log(price / 1500.0)
        units = int(draw.poisson(60.0 * np.exp(-3.5 * (x + kink * abs(x)))))
        deltas.append(world.sold(units, sku, source=f"till {sku}", source_seq=day))
    if day == HISTORY:
        deltas.append(world.whole(ModeChanged, mode="live"))
    return deltas


def lived(world: World, days: range, kink: float = KINK) -> list[tuple[Any, Decided]]:
    batches: list[tuple[Any, Decided]] = []
    for day in days:
        deltas = facts(world, day, kink)
        world.now_ms += DAY
        batch = batch_of(deltas, after=world.shard)
        decided = world.shard.apply(batch, world.now_ms)
        world.shard.record(decided)
        batches.append((batch, decided))
    return batches


def told(world: World) -> dict[str, float]:
    found = world.shard.learning("acme")
    assert found is not None
    kink: dict[str, float] = found["kink"]
    return kink


def held(world: World) -> RetailerLearning:
    (found,) = world.shard._memory.learnt.retailers.values()
    return found


@pytest.fixture(scope="module")
def kinked() -> tuple[World, list[tuple[Any, Decided]]]:
    world = shop()
    return world, lived(world, range(HISTORY + LIVE))


def test_the_usual_price_is_kept_where_both_slopes_say_so(
    kinked: tuple[World, list[tuple[Any, Decided]]],
) -> None:
    world, _ = kinked
    assert told(world)["likely"] > 0.9
    assert told(world)["believed"] == pytest.approx(KINK, abs=0.15)
    prices = np.array([world.price(sku) for sku in SKUS]).reshape(-1, 4)
    assert (prices[:, :3] == 1500).all()
    # The dearest quarter lies about where the interval ends: hardly a step, where the best
    # without a kink is a tenth away.
    assert (np.abs(np.log(prices[:, 3] / 1500.0)) < 0.03).all()


def test_without_a_kink_prices_move() -> None:
    world = shop()
    lived(world, range(HISTORY + LIVE), kink=0.0)
    assert told(world)["believed"] == 0.0
    off = [abs(np.log(world.price(sku) / 1500.0)) for sku in SKUS]
    assert np.mean(off) > 0.03


def test_replay_is_exact(kinked: tuple[World, list[tuple[Any, Decided]]]) -> None:
    world, batches = kinked
    again = shop()
    for batch, decided in batches:
        assert again.shard.replay(batch, decided) is Agreement.EXACT
    assert again.shard.digest == world.shard.digest


def test_a_checkpoint_holds_what_speaks_for_it() -> None:
    world = shop()
    lived(world, range(HISTORY + 2))
    assert told(world)["believed"] > 0.0
    other = World()
    other.shard = Shard.restore(merge_parts([world.shard.checkpoint_close()]))
    other.now_ms = world.now_ms
    assert told(other) == told(world)
    for each in (world, other):
        lived(each, range(HISTORY + 2, HISTORY + 5))
    assert other.shard.digest == world.shard.digest


def test_a_state_from_before_kinks_is_read() -> None:
    world = shop()
    lived(world, range(20))
    state = held(world).state()
    del state["arrays"]["kink_sums"], state["plain"]["kink"], state["plain"]["kink_bend"]
    again = RetailerLearning.restore(state)
    assert again.kink == 0.0
    np.testing.assert_array_equal(again.kink_sums, np.zeros((2, PRODUCTS)))


def test_what_speaks_for_it_is_in_the_digest() -> None:
    """A difference that has moved no price yet must be seen at the next close."""
    worlds = shop(), shop()
    for world in worlds:
        lived(world, range(20))
    assert worlds[0].shard.digest == worlds[1].shard.digest
    held(worlds[1]).kink_sums += 1e-9
    for world in worlds:
        lived(world, range(20, 21))
    assert worlds[0].shard.digest != worlds[1].shard.digest


def test_history_that_is_not_trusted_says_nothing_of_it(
    kinked: tuple[World, list[tuple[Any, Decided]]],
) -> None:
    world, _ = kinked
    of = RetailerLearning.restore(held(world).state())
    of.history_trusted = False
    own = RetailerLearning.restore(held(world).state())
    own.kink_sums[0] = 0.0
    assert told_kink(of) == told_kink(own) != told(world)
