"""The digest sees what decides later at the mark of its cause, not when it is next looked at."""

import numpy as np
import pytest

from engine.deltas import PublishingHalted, PublishingResumed
from engine.retailers import RETAILER_DTYPE
from engine.shard import Shard
from repricer import batch_of
from tests.engine.builders import World


def two() -> tuple[World, Shard]:
    """Return a world and its twin at the same mark."""
    world = World()
    world.send(*(world.listing(sku) for sku in "ABC"))
    world.send(world.policy(step_max=0.2), world.rival(1900))
    world.drain()
    return world, Shard.restore([world.shard.checkpoint_close()])


def digests(world: World, twin: Shard, *deltas: object) -> tuple[int, int]:
    """Return what both say after the same microbatch."""
    batch = batch_of(deltas, after=twin)  # type: ignore[arg-type]
    decided = twin.apply(batch, world.now_ms + 1)
    twin.record(decided)
    return world.send(*deltas).digest, decided.digest  # type: ignore[arg-type]


@pytest.mark.parametrize("field", RETAILER_DTYPE.names or ())
def test_any_counter_of_a_retailer_shows_at_once(field: str) -> None:
    """No row of his is looked at in the microbatch: an empty one shows the difference already."""
    world, twin = two()
    ours, theirs = digests(world, twin)
    assert ours == theirs
    counters = twin._memory.retailers.table[:1]
    counters[field] = counters[field] + 1
    ours, theirs = digests(world, twin)
    assert ours != theirs


def test_a_counter_that_no_row_shows_enters_when_it_changes() -> None:
    """A cost that leaps is counted, and no row shows how often."""
    world, twin = two()
    ours, theirs = digests(world, twin, world.cost(3000, "A"))
    assert ours == theirs
    changed = world.shard._memory.retailers.table["shocked"][0].sum()
    assert changed > 0


@pytest.mark.parametrize("memory", ["marks", "events", "commands", "currencies"])
def test_what_is_remembered_shows_at_once(memory: str) -> None:
    world, twin = two()
    other = twin._memory
    if memory == "marks":
        one = np.ones(1, dtype=np.int64)
        other.marks.take(one - 1, one.astype(np.uint64), one)
    elif memory == "events":
        other.events.take(0, 7, world.now_ms)
    elif memory == "commands":
        pin = world.whole(PublishingHalted, command_id="c", actor="ann")
        world.send(pin)
        twin.record(twin.apply(batch_of([pin], after=twin), world.now_ms))
        assert twin.digest == world.shard.digest
        other.commands._forget(("acme", "c"))
    else:
        other.currencies.number(0, "USD")
    ours, theirs = digests(world, twin)
    assert ours != theirs


def test_a_row_that_waits_shows_what_was_changed_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume releases what the breaker held; most rows are only looked at later."""
    world, twin = two()
    monkeypatch.setattr("engine.shard.ROWS_PER_DECISION_MAX", 1)
    row = twin._memory.listings.live_row(world.key("C"))
    twin._memory.listings.listings["held_minor"][row] = 1
    ours, theirs = digests(world, twin)
    assert ours == theirs, "nothing has looked at the row"
    ours, theirs = digests(world, twin, world.whole(PublishingResumed))
    assert twin.backlog == 2
    assert ours != theirs


def test_what_changed_of_a_row_in_the_backlog_is_in_the_next_increment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The row was copied when it was put there, and changed again before it was looked at."""
    world, _ = two()
    monkeypatch.setattr("engine.shard.ROWS_PER_DECISION_MAX", 1)
    world.send(world.whole(PublishingHalted))
    row = world.shard._memory.listings.live_row(world.key("C"))
    world.shard._memory.listings.listings["window_minor"][row] = 7
    world.shard.checkpoint_restart()
    base = world.shard.checkpoint_close()
    world.send(world.whole(PublishingResumed))
    assert world.shard.backlog
    restored = Shard.restore([base, world.shard.checkpoint_close()])
    assert restored._memory.listings.listings["window_minor"][row] == 0


def test_a_listing_heard_of_again_is_in_the_next_increment() -> None:
    """Its time is newer though nothing of it is, and later deltas are judged by that time."""
    world, _ = two()
    world.shard.checkpoint_restart()
    base = world.shard.checkpoint_close()
    world.now_ms += 1000
    before = world.shard.digest
    said = world.listing(price_minor=None, cost_minor=None)
    assert not len(world.send(said).quotes)
    assert world.shard.digest != before
    restored = Shard.restore([base, world.shard.checkpoint_close()])
    row = restored._memory.listings.live_row(world.key())
    assert restored._memory.listings.listings["listing_ms"][row] == said.observed_ms
