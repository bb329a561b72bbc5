"""Whatever the world sends, what a shard remembers of it has a limit."""

import numpy as np
import pytest

from engine import groups, rivals
from engine.deltas import PriceReported, PublishingHalted, PublishingResumed
from engine.errors import RejectedInput
from engine.policy import CHANGES_MAX, decode_fields
from engine.rivals import RivalTable
from engine.shard import Shard
from tests.engine.builders import World, only


def test_a_policy_allows_no_more_changes_than_are_counted() -> None:
    with pytest.raises(RejectedInput) as refused:
        decode_fields({"changes_per_hour_max": CHANGES_MAX + 1})
    assert refused.value.pointer == "/fields/changes_per_hour_max"
    world = World()
    world.send(world.policy(changes_per_hour_max=CHANGES_MAX, step_max=1.0))
    world.send(world.listing())
    changes = int(world.price() != 2000)
    for turn in range(CHANGES_MAX + 20):
        said = 1500 + turn
        quotes = world.send(world.about(PriceReported, price_minor=said), after_ms=1000).quotes
        changes += int((quotes["in_force_minor"] != said).sum())
    assert changes == CHANGES_MAX


def test_sources_beyond_the_most_share_a_number_and_are_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rivals, "SOURCES_MAX", 5)
    table = RivalTable()
    names = np.arange(100, 200, dtype=np.uint64)
    nobody = np.zeros(len(names), dtype=np.int64)
    numbers = table.source_numbers(nobody, names)
    assert numbers.tolist() == [1, 2, 3, 4] + [5] * 96
    assert table.sources() == [(0, [100, 101, 102, 103])]
    assert table.source_numbers(nobody[:4] + 1, names[:4]).tolist() == [1, 2, 3, 4]
    restored = RivalTable()
    restored.restore_sources(table.sources())
    assert restored.source_numbers(nobody, names).tolist() == numbers.tolist()


def test_a_listing_of_few_rivals_has_no_place_for_many() -> None:
    table = RivalTable()
    rows, names = np.zeros(5, dtype=np.int64), np.arange(1, 6, dtype=np.uint64)
    table.take_places(rows[:4], names[:4], rows[:4])
    assert table.blocks_of(np.array([0, 1])).tolist() == [[1], [0]]
    at = table.take_places(rows[4:], names[4:], rows[4:])
    assert at.tolist() == [4]
    assert table.blocks_of(np.array([1, 0])).tolist() == [[0, 0], [1, 2]]
    assert table.blocks_of(np.array([1])).shape == (1, 0)
    assert table.known(np.array([1, 0])).tolist() == [False, True]
    assert table.offers_of(np.array([0]))["rival"].tolist() == [[1, 2, 3, 4, 5, 0, 0, 0]]
    table.fit(1000)
    table.clear(0)
    assert table.offers_of(np.array([0, 999])).shape == (2, 0)


def test_a_new_listings_text_is_kept_once() -> None:
    world = World()
    world.send(world.listing(title="A thing with a name", tags=("new",)))
    table = world.shard._memory.listings
    assert table.texts.buffer_bytes == sum(len(table.texts[row]) for row in range(table.rows))


@pytest.mark.parametrize("kind", [PublishingHalted, PublishingResumed])
def test_a_halt_of_a_channel_without_a_listing_is_refused(kind: type) -> None:
    world = World()
    world.send(world.listing())
    before = dict(world.shard._memory.retailers.channels)
    refusal = only(world.send(world.whole(kind, channel="shpo")).exceptions)
    assert refusal.verdict == "rejected"
    assert refusal.reason.startswith("/channel")
    assert world.shard._memory.retailers.channels == before
    assert not world.send(world.whole(kind, channel="shop")).exceptions


def test_groups_that_no_listing_is_in_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feed that writes the time into a tag makes a group a delta, for ever."""
    monkeypatch.setattr(groups, "SWEEP_MIN", 16)
    world = World()
    world.send(world.listing(), world.listing("B", tags=("sale",)))
    world.send(world.policy(scope="tag", key="sale", floor_minor=2500))
    world.drain()
    for turn in range(100):
        world.send(world.listing(tags=(f"seen-{turn}",)))
        if turn == 40:  # some numbers are free, some are taken
            restored = Shard.restore([world.shard.checkpoint_close()])
            assert restored._memory.groups.state() == world.shard._memory.groups.state()
            world.shard = restored
            twin = World()
            twin.shard, twin.now_ms = Shard.restore([restored_parts(restored)]), world.now_ms
        elif turn > 40:
            twin.send(twin.listing(tags=(f"seen-{turn}",)))
            assert twin.shard.digest == world.shard.digest
    memory = world.shard._memory
    assert len(memory.groups.table) == 16
    assert len(memory.groups.state()["groups"]) <= 16
    assert world.live("B")["floor_minor"] == 2500
    assert world.live()["floor_minor"] < 2500
    world.send(world.listing(tags=("sale",)))
    assert world.live()["floor_minor"] == 2500
    world.send(world.policy(scope="tag", key="sale", floor_minor=2600))
    world.drain()
    assert (world.live()["floor_minor"], world.live("B")["floor_minor"]) == (2600, 2600)


def restored_parts(shard: Shard) -> bytes:
    shard.checkpoint_restart()
    return shard.checkpoint_close()
