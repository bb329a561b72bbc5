"""A shard is mute while a decision is pending, bounded in rows, and compiles nothing while live."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from engine import pricing
from engine.decided import Cause, Given, State
from engine.deltas import ListingRemoved, RateChanged, RetailerAdded
from engine.microbatch import Microbatch, Position, Refusal
from engine.shard import Shard, replay_domain
from kernels.limits import DUE_ROWS_MAX, ROWS_PER_DECISION_MAX
from repricer import batch_of
from tests.engine.builders import DAY, HOUR, MINUTE, World, moved, only, verdicts


def test_between_apply_and_record_it_is_mute() -> None:
    world = World()
    world.send(world.listing())
    shard = world.shard
    before = (shard.seq, shard.digest, shard.last_delta, shard.decided_ms)
    decided = shard.apply(batch_of([world.cost(1200)], after=shard), world.now_ms + 1)
    assert shard.pending is decided
    for ask in (
        lambda: shard.quote(world.key()),
        lambda: shard.live(world.key()),
        lambda: shard.checkpoint_slice(),
        lambda: shard.checkpoint_close(),
        lambda: shard.apply(batch_of([], after=shard), world.now_ms + 2),
    ):
        with pytest.raises(AssertionError):
            ask()
    assert (shard.seq, shard.digest, shard.last_delta, shard.decided_ms) == before
    shard.record(decided)
    assert shard.seq == before[0] + 1
    with pytest.raises(AssertionError):
        shard.record(decided)


def test_an_empty_batch_is_a_heartbeat() -> None:
    world = World()
    world.send(world.listing())
    digest = world.shard.digest
    decided = world.send()
    assert not decided.has_rows
    assert decided.seq == world.shard.seq
    assert decided.digest != digest


def test_time_does_not_run_backwards() -> None:
    world = World()
    world.send(world.listing())
    decided = world.shard.apply(batch_of([], after=world.shard), world.now_ms - DAY)
    assert decided.decided_ms == world.now_ms


def test_nothing_compiles_after_warm() -> None:
    world = World()
    world.shard.warm()
    compiled = pricing.compiled_shapes()
    for size in (1, 3, 63, 65, 300, 1100):
        world.send(*(world.listing(f"{size}-{number}") for number in range(size)))
    world.send(world.policy(min_margin=0.1))
    world.drain()
    assert pricing.compiled_shapes() == compiled


def test_a_big_reprice_is_many_bounded_decisions_in_order_of_revenue() -> None:
    world = World()
    count = ROWS_PER_DECISION_MAX + 1500
    for start in range(0, count, 4000):
        stop = min(start + 4000, count)
        world.send(*(world.listing(f"S{number}") for number in range(start, stop)))
    best = [f"S{number}" for number in range(count - 10, count)]
    world.send(*(world.sold(1000, sku, event_id=sku) for sku in best))
    decided = [world.send(world.policy(ceiling_minor=1860)), *world.drain()]
    assert [len(one.quotes) for one in decided] == [ROWS_PER_DECISION_MAX, 1500]
    assert (decided[0].quotes["cause_kind"] == Cause.REPRICE).all()
    assert set(decided[0].quotes["listing"][:10].tolist()) == {world.key(sku) for sku in best}
    assert not world.shard.due(world.now_ms)


def test_more_rows_than_a_decision_holds_wait_for_the_next() -> None:
    world = World()
    count = ROWS_PER_DECISION_MAX + 100
    decided = [
        world.send(*(world.listing(f"S{number}") for number in range(count))),
        *world.drain(),
    ]
    assert [len(one.quotes) for one in decided] == [ROWS_PER_DECISION_MAX, 100]
    assert world.price(f"S{count - 1}") == 1871


def test_timers_are_taken_by_a_bounded_number() -> None:
    world = World()
    count = DUE_ROWS_MAX + 100
    own: dict[str, Any] = {"kvi": True, "own_rival_names": ("us",)}
    world.send(*(world.listing(f"S{number}", **own) for number in range(count)))
    world.send(*(world.rival(1500, sku=f"S{number}") for number in range(count)))
    world.send(after_ms=HOUR)
    rates = [len(world.send(after_ms=DAY if n == 0 else 1).quotes) for n in range(3)]
    assert rates == [DUE_ROWS_MAX, 100, 0]


def test_a_rival_gone_stale_gives_the_price_back() -> None:
    world = World()
    world.send(world.listing(kvi=True, own_rival_names=("us",)))
    world.send(world.rival(1500))
    assert world.price() == 1575
    world.send(after_ms=10 * MINUTE)
    assert not world.shard.due(world.now_ms + HOUR)
    assert world.shard.due(world.now_ms + DAY)
    decided = world.send(after_ms=DAY)
    assert decided.quotes["cause_kind"].tolist() == [Cause.TIMER]
    assert world.price() == 1871
    assert "stale_rivals" in world.live()["reasons"]


def test_what_killed_two_owners_is_skipped_and_nothing_else() -> None:
    world = World()
    world.send(world.listing("A"), world.listing("B"))
    batch = batch_of(
        [world.cost(1200, "A"), world.cost(1300, "B"), world.listing("C")], after=world.shard
    )
    skipped = (Position(1, 3, 0), Position(1, 5, -1))
    decided = world.shard.apply(batch, world.now_ms + 1, Given(skipped=skipped))
    world.shard.record(decided)
    assert verdicts(decided) == ["skipped", "skipped"]
    assert [refusal.position.offset for refusal in decided.exceptions] == [3, 5]
    assert decided.quotes["listing"].tolist() == [world.key("B")]


def test_refusals_of_decoding_stand_in_the_decided() -> None:
    world = World()
    refusal = Refusal(Position(1, 7, 0), "undecodable", "/price_minor: is a string")
    batch = Microbatch(refusals=(refusal,), last_command=-1, last_delta=7, deltas=1)
    decided = world.shard.apply(batch, world.now_ms)
    assert decided.exceptions == (refusal,)


def test_without_cost_nothing_is_published() -> None:
    world = World()
    world.send(world.listing(cost_minor=None))
    assert (world.state(), world.price()) == (State.UNPUBLISHABLE, 2000)
    assert "no_cost" in world.live()["reasons"]
    world.send(world.listing("N", cost_minor=None, price_minor=None))
    assert world.price("N") == 0


def test_bounds_that_leave_nothing_are_infeasible_and_the_price_stays() -> None:
    world = World()
    world.send(world.policy(ceiling_minor=1010))
    world.send(world.listing())
    assert (world.state(), world.price()) == (State.INFEASIBLE, 2000)


def test_a_removed_listing_is_told_and_forgotten() -> None:
    world = World()
    world.send(world.listing(), world.rival(1500))
    decided = world.send(world.about(ListingRemoved))
    assert decided.quotes["state"].tolist() == [State.REMOVED]
    assert decided.quotes["in_force_minor"].tolist() == [0]
    assert world.shard.live(world.key()) is None
    assert verdicts(world.send(world.rival(1400))) == ["unknown_listing"]
    assert not len(world.send(after_ms=3 * DAY).quotes)
    world.send(world.listing(price_minor=1900))
    assert world.live()["rival_minor"] == 0


def test_a_listing_removed_in_the_microbatch_that_touched_it_is_removed() -> None:
    world = World()
    world.send(world.listing("A"), world.listing("B"))
    decided = world.send(world.cost(1100), world.cost(1100, "B"), world.about(ListingRemoved))
    states = dict(zip(decided.quotes["listing"].tolist(), decided.quotes["state"], strict=True))
    assert states == {world.key("A"): State.REMOVED, world.key("B"): State.LIVE}


def test_a_key_that_is_taken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.send(world.listing("A"))
    monkeypatch.setattr("engine.catalogue.key64", lambda *names: world.key("A"))
    refusal = only(world.send(world.listing("B")).exceptions)
    assert refusal.verdict == "rejected"
    assert "rename" in refusal.reason


def test_a_noisy_retailer_is_slowed_by_his_own_quota() -> None:
    world = World()
    world.send(
        RetailerAdded(
            retailer="acme", currency="EUR", observed_ms=world.now_ms, delta_quota_per_s=3
        )
    )
    world.add_retailer("calm")
    world.send(world.listing())
    world.now_ms = (world.now_ms // 1000 + 1) * 1000
    flood = [world.stock(number, observed_ms=world.now_ms + number) for number in range(5)]
    assert verdicts(world.send(*flood)) == ["rejected", "rejected"]
    assert verdicts(world.send(world.stock(9), after_ms=1)) == ["rejected"]
    world.now_ms += 1000
    assert verdicts(world.send(world.stock(9))) == []


def test_retailers_share_a_shard_and_nothing_else() -> None:
    """What one tells moves no price of the other, rates and names of sources included."""
    world = World()
    world.send(world.listing("A", kvi=True))
    world.add_retailer("other")
    world.retailer = "other"
    world.send(world.listing("A", kvi=True), world.policy(min_margin=0.9))
    world.send(world.sold(1, source="till", source_seq=9))
    world.retailer = "acme"
    world.send(world.stock(5))
    decided = world.send(world.sold(1, source="till", source_seq=3))
    assert not decided.exceptions
    assert world.price("A") == 1871


def test_one_retailers_rates_are_his_own() -> None:
    world = World()
    for retailer in ("acme", "other"):
        world.retailer = retailer
        if retailer == "other":
            world.add_retailer("other")
        rate = 0.5 if retailer == "other" else 1.0
        world.send(world.whole(RateChanged, currency="USD", into="EUR", rate=rate))
        world.send(world.listing(kvi=True, own_rival_names=("us",)))
    for retailer, rival in (("acme", 1500), ("other", 1000)):
        world.retailer = retailer
        fair = 1500 if retailer == "acme" else 2000
        world.send(world.rival(fair, currency="USD"))
        assert world.live()["rival_minor"] == rival


def test_the_domain_names_what_replay_depends_on() -> None:
    domain = replay_domain()
    for part in ("engine", "jaxlib", "numpy", "padding 64-256-1024-4096"):
        assert part in domain


def test_the_quote_carries_what_an_explanation_needs() -> None:
    world = World()
    world.send(world.listing(kvi=True, own_rival_names=("us",)), world.rival(1500), world.stock(7))
    quote: Any = world.shard.quote(world.key())
    assert quote["listing"] == world.key()
    assert quote["rival_minor"] == 1500
    assert quote["rivals"] == 1
    assert quote["stock"] == 7
    assert quote["cost_minor"] == 1000
    assert quote["elasticity"] < -1
    assert 0 < quote["confidence"] <= 1
    assert quote["without_minor"] > quote["in_force_minor"]
    assert (quote["cause_kind"], quote["cause_offset"]) == (Cause.DELTA, 3)
    assert world.shard.quote(1) is None


def test_what_an_applied_decision_returns_is_not_changed_by_the_next() -> None:
    world = World()
    first = world.send(world.listing())
    kept = first.quotes.copy()
    world.send(world.cost(1200))
    assert np.array_equal(first.quotes, kept)
    assert len(moved(first)) == 1


def test_settings_change_no_decision() -> None:
    batch = batch_of([RetailerAdded(retailer="a", currency="EUR", observed_ms=1)])
    digests = set()
    for number in range(2):
        shard = Shard(replace(Shard().settings, shard=number, generation=number))
        digests.add(shard.apply(batch, 5).digest)
    assert len(digests) == 1
