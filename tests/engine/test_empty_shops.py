"""A retailer without any listing lives as others do, and a category may come at any moment."""

import pytest

from engine import learning
from engine.replay import Agreement
from engine.shard import Shard
from repricer import batch_of
from tests.engine.builders import DAY, World

SKUS = [f"S{number}" for number in range(9)]


def restored(world: World) -> World:
    """Return a world that goes on from a checkpoint of this one."""
    other = World()
    other.shard = Shard.restore([world.shard.checkpoint_close()])
    other.now_ms = world.now_ms
    return other


@pytest.mark.parametrize("mode", ["live", "shadow"])
def test_a_retailer_without_a_listing_crosses_midnights(mode: str) -> None:
    """He learns, holds out and ranks nothing; what then comes is learnt as in a shop of others."""
    world = World(mode=mode)
    world.send(world.policy(learning=True, holdout_share=0.3, realtime_share=0.5))
    for _ in range(3):
        assert not len(world.send(after_ms=DAY).quotes)
        world.drain()
    other = restored(world)
    for each in (world, other):
        assert each.shard.listings == 0
        assert each.shard.learning("acme") is not None
        (holdout,) = each.shard.experiments("acme")
        assert holdout["lift"] is None
        each.send(after_ms=2 * DAY)
        each.drain()
        each.send(*(each.listing(sku, category="tea", price_minor=1500) for sku in SKUS))
        for number in range(4):
            sold = (each.sold(5, sku, source=sku, source_seq=number) for sku in SKUS)
            each.send(*sold, after_ms=DAY)
            each.drain()
    assert other.shard.digest == world.shard.digest
    told = [world.shard.learnt(world.key(sku)) or {} for sku in SKUS]
    assert any(each["decided"] for each in told) == (mode == "live")


@pytest.mark.parametrize("at", range(8))
def test_a_category_may_come_at_any_moment_of_a_close(
    at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, between and behind the slices of a close; its listing decides with the next fit."""
    monkeypatch.setattr(learning, "SLICE_ROWS", 2)
    monkeypatch.setattr(learning, "DECIDED_ROWS", 3)
    world = World()
    world.send(world.policy(learning=True, holdout_share=0.0))
    world.send(*(world.listing(sku, category="tea", price_minor=1500) for sku in SKUS))
    world.drain()
    for number in range(2):
        sold = (world.sold(6, sku, source=sku, source_seq=number) for sku in SKUS)
        world.send(*sold, after_ms=DAY)
        if number == 0:
            world.drain()
    for _ in range(at):
        world.send()
    late = world.listing("late", category="wine", price_minor=2500)
    replayed = restored(world)
    decided = []
    first = batch_of([late, world.listing("odd", price_minor=900)], after=world.shard)
    world.now_ms += 1
    decided.append((first, world.shard.apply(first, world.now_ms)))
    world.shard.record(decided[-1][1])
    for deltas in ([world.cost(1100, "late")], [world.sold(3, "late", event_id="one")], [], []):
        batch = batch_of(deltas, after=world.shard)
        world.now_ms += 1
        decided.append((batch, world.shard.apply(batch, world.now_ms)))
        world.shard.record(decided[-1][1])
    assert world.shard.learnt(world.key("late")) is not None
    assert world.shard.learning("acme") is not None
    for _ in range(2):
        while world.shard.backlog:
            batch = batch_of([], after=world.shard)
            world.now_ms += 1
            decided.append((batch, world.shard.apply(batch, world.now_ms)))
            world.shard.record(decided[-1][1])
        batch = batch_of([world.sold(2, "S1", event_id=str(len(decided)))], after=world.shard)
        world.now_ms += 8 * DAY
        decided.append((batch, world.shard.apply(batch, world.now_ms)))
        world.shard.record(decided[-1][1])
    for batch, each in decided:
        assert replayed.shard.replay(batch, each) is Agreement.EXACT
    world.drain()
    told = world.shard.learnt(world.key("late"))
    assert told is not None and told["decided"]
