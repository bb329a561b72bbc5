"""Each category gets the form of demand that foresaw its sales, and keeps it through everything."""

from typing import Any

import numpy as np
import pytest

from engine.checkpoint import merge_parts
from engine.decided import Decided
from engine.deltas import AnyDelta, ModeChanged, PriceReported
from engine.learnt import RetailerLearning
from engine.replay import Agreement
from engine.shard import Shard
from kernels.forms import exponential, slopes
from repricer import batch_of
from tests.engine.builders import DAY, World

SKUS = [f"S{number}" for number in range(24)]
ELASTICITIES = np.tile([-2.2, -2.6, -3.0, -3.4], 6)
HISTORY = 50
LIVE = 16


def shop() -> World:
    """Return a world in shadow that learns; every other listing is a drink."""
    world = World(mode="shadow")
    world.send(world.policy(learning=True))
    world.send(
        *(
            world.listing(sku, category=("food", "drink")[at % 2], price_minor=1500)
            for at, sku in enumerate(SKUS)
        )
    )
    return world


def facts(world: World, day: int, spread: float = 0.25) -> list[AnyDelta]:
    """Return a day's prices and sales: food of constant elasticity, drinks exponential."""
    draw = np.random.default_rng([7, day // 4])
    reported = np.rint(1500 * np.exp(np.clip(draw.normal(0, spread, len(SKUS)), -0.6, 0.6)))
    draw = np.random.default_rng([8, day])
    deltas: list[AnyDelta] = []
    for at, sku in enumerate(SKUS):
        price = int(reported[at])
        if day >= HISTORY:
            price = world.price(sku)
        else:
            deltas.append(world.about(PriceReported, sku, price_minor=price))
        step = price / 1500.0 - 1.0 if at % 2 else np.log(price / 1500.0)
        units = int(draw.poisson(400.0 * np.exp(ELASTICITIES[at] * step)))
        deltas.append(world.sold(units, sku, source=f"till {sku}", source_seq=day))
    if day == HISTORY:
        deltas.append(world.whole(ModeChanged, mode="live"))
    return deltas


def lived(world: World, days: range, spread: float = 0.25) -> None:
    for day in days:
        world.send(*facts(world, day, spread), after_ms=DAY)


def forms(world: World) -> dict[str, str]:
    told = world.shard.learning("acme")
    assert told is not None
    return {name: of["form"] for name, of in told["forms"].items()}


def test_each_category_gets_the_form_that_its_sales_have() -> None:
    world = shop()
    lived(world, range(HISTORY))
    assert forms(world) == {"food": "pooled", "drink": "pooled"}, "in shadow nobody decides"
    lived(world, range(HISTORY, HISTORY + LIVE))
    assert forms(world) == {"food": "constant", "drink": "exponential"}
    told = [world.shard.learnt(world.key(sku)) for sku in SKUS]
    assert [of and of["form"] for of in told] == ["constant", "exponential"] * 12


def test_prices_rest_on_the_form() -> None:
    """The same evidence under another form gives other curvatures, and so other prices."""
    worlds = shop(), shop()
    for world in worlds:
        lived(world, range(HISTORY))
    held = worlds[1].shard._memory.learnt.retailers
    for learning in held.values():
        learning.form_scores[:] = 0.0  # nothing speaks for any form
        learning.form_moments[:] = 0.0
    for world in worlds:
        lived(world, range(HISTORY, HISTORY + LIVE))
    assert forms(worlds[1]) == {"food": "pooled", "drink": "pooled"}
    prices = [[world.price(sku) for sku in SKUS[1::2]] for world in worlds]
    assert prices[0] != prices[1]


def test_without_moving_prices_nothing_is_chosen() -> None:
    world = shop()
    lived(world, range(HISTORY + 1), spread=0.0)
    told = world.shard.learning("acme")
    assert told is not None
    for of in told["forms"].values():
        assert of == {"form": "pooled", "constant": 0.0, "exponential": 0.0}


def test_replay_is_exact_while_forms_are_chosen() -> None:
    world, again = shop(), shop()
    batches: list[tuple[Any, Decided]] = []
    for day in range(HISTORY + LIVE):
        deltas = facts(world, day)
        world.now_ms += DAY
        batch = batch_of(deltas, after=world.shard)
        decided = world.shard.apply(batch, world.now_ms)
        world.shard.record(decided)
        batches.append((batch, decided))
    assert set(forms(world).values()) == {"constant", "exponential"}
    for batch, decided in batches:
        assert again.shard.replay(batch, decided) is Agreement.EXACT
    assert again.shard.digest == world.shard.digest


def test_a_checkpoint_holds_forms_and_what_spoke_for_them() -> None:
    world = shop()
    lived(world, range(HISTORY + 4))
    assert set(forms(world).values()) == {"constant", "exponential"}
    other = World()
    other.shard = Shard.restore(merge_parts([world.shard.checkpoint_close()]))
    other.now_ms = world.now_ms
    assert other.shard.learning("acme") == world.shard.learning("acme")
    for days in (range(HISTORY + 4, HISTORY + LIVE),):
        lived(world, days)
        lived(other, days)
    assert other.shard.learning("acme") == world.shard.learning("acme")
    assert other.shard.digest == world.shard.digest


def test_slices_of_a_day_do_not_teach_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a large retailer's rows are foreseen with what was known before the day."""
    told: list[RetailerLearning] = []
    for slice_rows in (len(SKUS), len(SKUS) // 2):
        monkeypatch.setattr("engine.learning.SLICE_ROWS", slice_rows)
        world = shop()
        for day in range(24):
            world.send(*facts(world, day, 0.5), after_ms=DAY)
            world.drain()
        told += world.shard._memory.learnt.retailers.values()
    whole, sliced = told
    assert np.abs(whole.form_scores).max() > 0.1
    # Half of the rows were walked a millisecond later, and sums are added in another order.
    for name in ("form_scores", "form_moments", "form_slopes", "dispersion"):
        assert np.allclose(getattr(whole, name), getattr(sliced, name), rtol=1e-5, atol=1e-7), name


def test_a_close_goes_on_after_a_checkpoint_with_the_slopes_of_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.learning.SLICE_ROWS", len(SKUS) // 2)
    world = shop()
    for day in range(24):
        world.send(*facts(world, day, 0.5), after_ms=DAY)
        if day < 23:
            world.drain()
    (held,) = world.shard._memory.learnt.retailers.values()
    assert held.phase == "updating" and held.cursor > 0
    other = World()
    other.shard = Shard.restore(merge_parts([world.shard.checkpoint_close()]))
    other.now_ms = world.now_ms
    for each in (world, other):
        each.drain()
    assert other.shard.digest == world.shard.digest


def test_a_state_from_before_slopes_were_kept_is_read() -> None:
    world = shop()
    lived(world, range(24))
    (held,) = world.shard._memory.learnt.retailers.values()
    state = held.state()
    del state["arrays"]["form_slopes"]
    again = RetailerLearning.restore(state)
    assert np.array_equal(again.form_slopes, slopes(held.form_moments, held.form_precisions))


def test_evidence_on_forms_is_in_the_digest() -> None:
    """A difference that has moved no price yet must be seen at the next close."""
    worlds = shop(), shop()
    for world in worlds:
        lived(world, range(20))
    assert worlds[0].shard.digest == worlds[1].shard.digest
    for learning in worlds[1].shard._memory.learnt.retailers.values():
        learning.form_scores += 1e-9
    for world in worlds:
        lived(world, range(20, 21))
    assert worlds[0].shard.digest != worlds[1].shard.digest


def test_exponential_demand_bends_with_its_slope() -> None:
    """Against the true logarithm of demand: the second order is right, to the third."""
    slope, step = np.array([-2.0, -4.0]), 0.1
    true = slope * np.expm1(step)
    assert np.allclose(slope * step - exponential(slope) * step**2, true, atol=1e-3)
