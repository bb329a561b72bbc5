"""Hourly listings hear facts at once and are priced at the full hour; rank says who they are."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import hourly, ranking, tiers
from engine.checkpoint import Part
from engine.decided import Cause, Decided
from engine.deltas import (
    AnyDelta,
    ExperimentStarted,
    FeesChanged,
    ListingRemoved,
    ModeChanged,
    PlanApplied,
    PolicyChanged,
    PriceApproved,
    PricePinned,
    PriceRejected,
    PriceReported,
    PriceUnpinned,
    PublishingHalted,
    PublishingResumed,
    RateChanged,
    ScopeChange,
)
from engine.foresight import plan
from engine.listing_table import BEHIND, WAITS
from engine.replay import Agreement
from engine.shard import Shard
from repricer import batch_of
from tests.engine.builders import DAY, HOUR, MINUTE, T, World, moved, verdicts
from tests.engine.test_recovery import cut, decided_all, history

FREE = {"step_max": 1.0, "changes_per_hour_max": 255, "breaker_listings_min": 1_000_000}
"""Nothing that goes by the path of a price."""


def hourly_world(**policy: Any) -> World:
    """Return a world with one KVI that is looked at hourly."""
    world = World()
    world.send(world.policy(tier="hourly", **FREE, **policy))
    world.send(world.listing(kvi=True, own_rival_names=("us",)))
    return world


def to_the_hour(world: World) -> list[Decided]:
    """Decide at the next full hour until its looks are over."""
    world.now_ms = (world.now_ms // HOUR + 1) * HOUR - 1
    decided = [world.send()]
    while world.shard.due(world.now_ms):
        decided.append(world.send())
    return decided


def waiting(world: World) -> list[int]:
    """Return the rows that wait, which must be as many as the shard has counted."""
    memory = world.shard._memory
    used = memory.listings.listings[: memory.listings.rows]
    rows = np.flatnonzero(used["flags"] & WAITS).tolist()
    assert memory.tiers.waiting == len(rows)
    return rows


def behind(world: World, skus: list[str]) -> list[str]:
    """Return which listings are behind the share priced in real time."""
    memory = world.shard._memory
    rows = [memory.listings.live_row(world.key(sku)) for sku in skus]
    flags = memory.listings.listings["flags"][rows] & BEHIND
    return [sku for sku, flag in zip(skus, flags.tolist(), strict=True) if flag]


# ----- what waits --------------------------------------------------------------------------------


def test_facts_are_heard_at_once_and_priced_at_the_full_hour() -> None:
    world = hourly_world()
    before = world.price()
    assert not len(world.send(world.rival(1500), world.stock(7)).quotes)
    assert not len(world.send(world.sold(2, event_id="e")).quotes)
    assert (world.price(), world.live()["stock"]) == (before, 5)
    world.now_ms = (world.now_ms // HOUR + 1) * HOUR - 2
    assert not world.shard.due(world.now_ms + 1)
    assert not len(world.send().quotes)
    assert world.shard.due(world.now_ms + 1)
    decided = world.send()
    assert decided.quotes["cause_kind"].tolist() == [Cause.HOUR]
    assert world.price() == 1575
    assert not world.shard.due(world.now_ms + DAY // 2)
    assert not waiting(world)


def test_nobody_waits_where_no_tier_is_set() -> None:
    world = World()
    world.send(world.listing(kvi=True, own_rival_names=("us",)))
    assert len(world.send(world.rival(1500)).quotes) == 1
    world.send(world.policy(tier="hourly"))
    world.drain()
    assert not len(world.send(world.rival(1450)).quotes)
    assert len(world.send(world.policy(tier=None)).quotes) == 1
    assert len(world.send(world.rival(1400)).quotes) == 1


def test_a_fact_in_the_hours_first_microbatch_still_counts() -> None:
    world = hourly_world()
    world.send(world.rival(1500))
    world.now_ms = (world.now_ms // HOUR + 1) * HOUR
    world.send(world.rival(1400))
    assert world.price() == 1470
    assert not waiting(world)


Said = Callable[[World], AnyDelta]

URGENT: dict[str, Said] = {
    "cost": lambda world: world.cost(1100),
    "fees": lambda world: world.whole(FeesChanged, channel="shop", vat=0.19, commission=0.1),
    "rate": lambda world: world.whole(RateChanged, currency="USD", into="EUR", rate=0.9),
    "listing": lambda world: world.listing(map_minor=1400),
    "removal": lambda world: world.about(ListingRemoved),
    "report": lambda world: world.about(PriceReported, price_minor=1900),
    "pin": lambda world: world.about(PricePinned, price_minor=1700),
    "approval": lambda world: world.about(PriceApproved, price_minor=1650),
    "policy": lambda world: world.policy(min_margin=0.1),
    "plan": lambda world: world.whole(
        PlanApplied,
        changes=(ScopeChange(fields={"min_margin": 0.1}),),
        command_id="c",
        anyway=True,
    ),
    "mode": lambda world: world.whole(ModeChanged, mode="shadow"),
    "halt": lambda world: world.whole(PublishingHalted),
    "resumption": lambda world: world.whole(PublishingResumed),
}


@pytest.mark.parametrize("said", URGENT)
def test_what_is_urgent_does_not_wait(said: str) -> None:
    world = hourly_world()
    world.send(world.rival(1500))
    assert waiting(world) == [0]
    decided = world.send(URGENT[said](world), world.rival(1490))
    assert not decided.exceptions or said == "removal", decided.exceptions
    assert not waiting(world)
    assert world.shard.backlog == 0
    assert not world.shard._memory.tiers.due(world.now_ms + HOUR)


def test_answers_to_a_proposal_do_not_wait() -> None:
    for kind in (PriceApproved, PriceRejected):
        world = hourly_world(approval="manual")
        world.send(world.rival(1500))
        to_the_hour(world)
        assert world.live()["proposed_minor"] == 1575
        world.send(world.rival(1400))
        world.send(world.about(kind))
        assert not waiting(world)
    world = hourly_world()
    world.send(world.about(PricePinned, price_minor=1700))
    world.send(world.rival(1500))
    assert waiting(world) == [0]
    world.send(world.about(PriceUnpinned))
    assert world.price() == 1575


def test_a_timer_falls_due_as_ever() -> None:
    world = hourly_world(rival_stale_ms=20 * MINUTE)
    world.send(world.about(PricePinned, price_minor=1700, until_ms=world.now_ms + 10 * MINUTE))
    world.send(world.rival(1500))
    decided = world.send(after_ms=11 * MINUTE)
    assert decided.quotes["cause_kind"].tolist() == [Cause.TIMER]
    assert world.price() == 1575
    assert not waiting(world)
    decided = world.send(after_ms=10 * MINUTE)
    assert decided.quotes["cause_kind"].tolist() == [Cause.TIMER]
    assert "stale_rivals" in world.live()["reasons"]


def test_a_listing_without_a_price_does_not_wait() -> None:
    world = World()
    world.send(world.policy(tier="hourly"))
    world.send(world.listing(kvi=True, price_minor=None, cost_minor=None))
    world.send(world.rival(1500))
    assert not waiting(world)


def test_what_marked_a_row_does_not_wait_for_its_hour() -> None:
    """A dirty row is priced when facts touch it: its place in the backlog goes by its sales."""
    world = World()
    world.send(world.policy(tier="hourly"))
    skus = [f"S{number}" for number in range(4200)]
    for start in range(0, len(skus), 3000):
        world.send(*(world.listing(sku) for sku in skus[start : start + 3000]))
    world.send(world.policy(min_margin=0.3))
    row = int(np.flatnonzero(world.shard._memory.backlog.dirty)[0])
    world.send(world.sold(3, skus[row], event_id="e"))
    assert not world.shard._memory.backlog.dirty[row]
    assert not waiting(world)


def test_a_listing_that_goes_and_comes_at_once_waits_no_more() -> None:
    world = hourly_world()
    world.send(world.rival(1500))
    world.send(world.about(ListingRemoved))
    assert not waiting(world)
    world.send(world.listing(), after_ms=2)
    world.send(world.rival(1500))
    gone = world.about(ListingRemoved)
    world.now_ms += 5
    world.send(gone, world.listing())
    assert not waiting(world)


def test_an_arm_may_be_hourly() -> None:
    world = World()
    skus = [f"S{number}" for number in range(20)]
    world.send(*(world.listing(sku, kvi=True, own_rival_names=("us",)) for sku in skus))
    terms = {
        "experiment": "e",
        "treatment": {"tier": "hourly"},
        "share": 0.5,
        "days": 14,
        "baseline_days": 0,
    }
    decided = world.send(world.whole(ExperimentStarted, fields=terms), lane=0)
    assert not verdicts(decided)
    for _ in range(3):
        world.send(after_ms=DAY)
        world.drain()
    treated = [
        sku
        for sku in skus
        if (world.shard.arm(world.key(sku)) or {}).get("experiment") == "treated"
    ]
    assert 0 < len(treated) < 20
    decided = world.send(*(world.rival(1500, sku=sku) for sku in skus))
    assert set(decided.quotes["listing"].tolist()) == {
        world.key(sku) for sku in skus if sku not in treated
    }
    assert len(waiting(world)) == len(treated)


# ----- the full hour comes -----------------------------------------------------------------------


def shop(count: int, **policy: Any) -> World:
    """Return a world with ``count`` hourly listings that all wait, and another retailer's one."""
    world = World()
    world.send(world.policy(tier="hourly", **FREE, **policy))
    world.send(*(world.listing(f"S{n}", kvi=True, own_rival_names=("us",)) for n in range(count)))
    world.send(*(world.rival(1500 + n % 50, sku=f"S{n}") for n in range(count)))
    world.retailer = "other"
    world.add_retailer("other")
    world.send(world.listing("mine", kvi=True, own_rival_names=("us",)))
    return world


def test_a_catalogues_hour_is_taken_in_portions_beside_what_is_urgent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hourly, "HOURLY_ROWS_MAX", 10)
    world = shop(64)
    pinned = world.about(PricePinned, "mine", price_minor=1700)
    pinned = msgspec.structs.replace(pinned, until_ms=(world.now_ms // HOUR + 1) * HOUR)
    world.send(pinned)
    world.now_ms = (world.now_ms // HOUR + 1) * HOUR - 1
    first = world.send()
    assert first.quotes["cause_kind"].tolist() == [Cause.TIMER] + [Cause.HOUR] * 10
    beside = world.send(world.rival(1500, sku="mine"))
    assert beside.quotes["cause_kind"].tolist() == [Cause.DELTA] + [Cause.HOUR] * 10
    sizes = []
    while world.shard.due(world.now_ms):
        sizes.append(len(world.send().quotes))
    assert sizes == [10, 10, 10, 10, 4]
    assert not waiting(world)


def test_looks_end_though_nobody_waits_behind_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hourly, "WALKED_ROWS_MAX", 7)
    world = shop(64)
    decided = to_the_hour(world)
    assert [len(of.quotes) for of in decided] == [7] * 9 + [1]
    assert not world.shard.due(world.now_ms)


def test_a_successor_takes_over_in_the_middle_of_an_hours_looks_and_of_a_ranking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A twin is restored after every microbatch, and each repeats the next one to the bit."""
    monkeypatch.setattr(hourly, "HOURLY_ROWS_MAX", 5)
    monkeypatch.setattr(hourly, "WALKED_ROWS_MAX", 9)
    monkeypatch.setattr(ranking, "RANKED_ROWS_MAX", 8)
    random = np.random.default_rng(3)
    world = World()
    world.send(world.policy(realtime_share=0.3, **FREE))
    skus = [f"S{number}" for number in range(40)]
    world.send(*(world.listing(sku, kvi=True, own_rival_names=("us",)) for sku in skus))
    parts, middles, mid_ranking = [world.shard.checkpoint_close()], 0, 0
    for step in range(160):
        sku = str(random.choice(skus))
        deltas: list[AnyDelta] = [world.rival(int(random.integers(1400, 1600)), sku=sku)]
        if random.random() < 0.5:
            deltas.append(world.sold(1, sku, event_id=f"e{step}"))
        if step % 7:
            deltas = []
        twin = Shard.restore(parts)
        batch = batch_of(deltas, after=world.shard)
        world.now_ms += int(random.choice([1, 1, 1, 20 * MINUTE, 5 * HOUR]))
        decided = world.shard.apply(batch, world.now_ms)
        world.shard.record(decided)
        assert twin.replay(batch, decided) is Agreement.EXACT
        assert twin._memory.tiers.state() == world.shard._memory.tiers.state()
        parts.append(world.shard.checkpoint_close())
        middles += world.shard._memory.tiers.cursor >= 0
        mid_ranking += world.shard._memory.tiers.walk is not None
    assert middles > 5 < mid_ranking


def test_what_waits_is_in_the_digest_at_once() -> None:
    digests = set()
    for units in (3, 4):
        world = hourly_world()
        digests.add(world.send(world.stock(units)).digest)
    assert len(digests) == 2
    world = hourly_world()
    twin = Shard.restore([world.shard.checkpoint_close()])
    twin._memory.tiers.waiting += 1
    batch = batch_of([], after=twin)
    assert twin.apply(batch, world.now_ms + 1).digest != world.send().digest


@settings(deadline=None, max_examples=8)
@given(
    seed=st.integers(0, 10_000),
    pieces_of=st.integers(1, 12),
    checkpoint_after=st.floats(0.1, 0.9),
)
def test_a_successor_repeats_every_decision_of_mixed_tiers(
    seed: int, pieces_of: int, checkpoint_after: float
) -> None:
    """The story of tests/engine/test_recovery.py, told to a retailer with all tiers."""
    random = np.random.default_rng(seed)
    policies: list[AnyDelta] = [
        PolicyChanged(retailer="acme", scope=scope, key=key, fields=fields, observed_ms=T)
        for scope, key, fields in (
            ("retailer", "", {"realtime_share": 0.3}),
            ("category", "c1", {"tier": "hourly"}),
            ("tag", "sale", {"tier": "realtime"}),
        )
    ]
    deltas = history(seed)
    deltas = [*deltas[:2], *policies, *deltas[2:]]
    cuts = set((np.cumsum(random.integers(1, 2 * pieces_of, 400)) + 10).tolist())
    pieces = cut(deltas, {at for at in cuts if at < len(deltas)})
    survives = int(checkpoint_after * len(pieces))
    shard = Shard()
    _, slices = decided_all(shard, pieces[:survives], {1, survives - 1})
    parts = [*slices, shard.checkpoint_close()]
    recorded, _ = decided_all(shard, pieces[survives:])
    successor = Shard.restore(parts)
    for batch, decided in recorded:
        assert successor.replay(batch, decided) is Agreement.EXACT
    for one in (shard, successor):
        one.checkpoint_restart()
    assert shard.checkpoint_close() == successor.checkpoint_close()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), hours=st.integers(1, 4), facts=st.integers(1, 40))
def test_after_the_full_hour_prices_are_those_of_real_time(
    seed: int, hours: int, facts: int
) -> None:
    """Where no price depends on the way to it, an hour late is an hour late and nothing else."""
    worlds = World(), World()
    free = {**FREE, "screening_low": 0.01, "screening_high": 100.0, "screening_mad_factor": 100.0}
    free |= {"screening_slope_per_hour": 100.0, "rival_stale_ms": 90 * MINUTE}
    skus = [f"S{number}" for number in range(6)]
    for world, share in zip(worlds, (1.0, 0.0), strict=True):
        world.send(world.policy(realtime_share=share, **free))
        world.send(
            *(
                world.listing(sku, kvi=number % 2 == 0, own_rival_names=("us",))
                for number, sku in enumerate(skus)
            )
        )
    for hour in range(hours):
        random = np.random.default_rng([seed, hour])
        moments = np.sort(random.integers(1, 40 * MINUTE, facts)).tolist()
        kinds = random.integers(0, 4, facts).tolist()
        chosen = random.choice(skus, facts).tolist()
        prices = random.integers(1200, 2200, facts).tolist()
        for world in worlds:
            began = world.now_ms
            for at, kind, sku, price in zip(moments, kinds, chosen, prices, strict=True):
                passed = max(began + at - world.now_ms, 1)
                fact = (
                    world.rival(price, sku=sku, rival=f"rival {price % 3}"),
                    world.stock(price % 4, sku),
                    world.sold(1, sku, event_id=f"{hour} {at}"),
                    world.cost(price // 2, sku),
                )[kind]
                world.send(fact, after_ms=passed)
            to_the_hour(world)
            world.drain()
        real, hourly_one = ([world.live(sku) for sku in skus] for world in worlds)
        for name in ("in_force_minor", "proposed_minor", "state", "stock"):
            assert [of[name] for of in real] == [of[name] for of in hourly_one], name


def test_the_number_of_an_hours_moves_says_nothing_of_a_fault() -> None:
    """One listing moves every few minutes and thirty at each full hour: nobody is stopped."""
    usual = {"breaker_rate_factor": 2.0, "breaker_moved_share": 0.02, "step_max": 1.0}
    world = World()
    world.send(world.policy(**usual), world.policy(scope="category", key="slow", tier="hourly"))
    slow = [f"S{number}" for number in range(30)]
    names = {"kvi": True, "own_rival_names": ("us",)}
    world.send(*(world.listing(sku, category="slow", **names) for sku in slow))
    world.send(world.listing("fast"))
    for hour in range(3):
        world.send(*(world.rival(1760 - 10 * hour, sku=sku) for sku in slow))
        for _ in range(7):
            world.send(world.cost(1000 + world.now_ms % 97, "fast"), after_ms=8 * MINUTE)
        decided = to_the_hour(world)
        assert sum(len(moved(of)) for of in decided) >= 30 * (hour > 0)
    assert not any(change.what == "breaker" for of in world.decided for change in of.catalogue)


# ----- plans -------------------------------------------------------------------------------------


def test_a_plan_is_exact_until_a_full_hour_that_moves_prices() -> None:
    world = hourly_world(rival_stale_ms=DAY)
    changes = (ScopeChange(fields={"min_margin": 0.1}),)
    assert plan(world.shard.fork(), "acme", changes).planned.exact_until_ms > world.now_ms + HOUR
    world.send(world.rival(1500))
    hour = (world.now_ms // HOUR + 1) * HOUR
    seen = plan(world.shard.fork(), "acme", (ScopeChange(scope="tag", key="t", fields={}),))
    assert seen.planned.exact_until_ms == hour


def test_a_plan_waits_until_the_hours_looks_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hourly, "HOURLY_ROWS_MAX", 5)
    world = shop(20)
    changes = (ScopeChange(fields={"min_margin": 0.1}),)
    world.now_ms = (world.now_ms // HOUR + 1) * HOUR - 1
    world.send()
    seen = plan(world.shard.fork(), "other", changes)
    command = PlanApplied(
        retailer="other",
        command_id="c",
        changes=changes,
        observed_ms=world.now_ms,
        planned=seen.planned,
    )
    decided = world.send(command, lane=0)
    assert "work is waiting" in decided.exceptions[0].reason


# ----- who is hourly -----------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_the_first_of_a_retailer_by_revenue_are_in_front(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    share = data.draw(st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.9, 1.0]))
    world = World()
    skus = [f"S{number}" for number in range(count)]
    tags = data.draw(
        st.lists(st.sampled_from(["", "", "fast", "slow"]), min_size=count, max_size=count)
    )
    world.send(
        world.policy(scope="tag", key="fast", tier="realtime"),
        world.policy(scope="tag", key="slow", tier="hourly"),
    )
    world.send(
        *(
            world.listing(sku, price_minor=1000 + 100 * (number % 3), tags=(tag,) if tag else ())
            for number, (sku, tag) in enumerate(zip(skus, tags, strict=True))
        )
    )
    sales = data.draw(
        st.lists(
            st.tuples(st.sampled_from(skus), st.integers(1, 3), st.integers(0, 3)), max_size=40
        )
    )
    for number, (sku, units, hours) in enumerate(sales):
        world.send(world.sold(units, sku, event_id=f"e{number}"), after_ms=1 + hours * HOUR)
    world.send(world.policy(realtime_share=share))
    told = world.shard.features([world.key(sku) for sku in skus])
    rates = [float((features or {})["revenue_rate"] or 0.0) for features in told]
    auto = [at for at in range(count) if not tags[at]]
    order = sorted(auto, key=lambda at: (-rates[at], world.key(skus[at])))
    front = order[: math.ceil(share * len(auto) - 1e-9)]
    found = behind(world, [skus[at] for at in auto])
    assert found == [skus[at] for at in auto if at not in front]
    world.drain()
    world.send(*(world.rival(1500, sku=sku) for sku in skus))
    memory = world.shard._memory
    rows = [memory.listings.live_row(world.key(sku)) for sku in skus]
    slow = [tags[at] == "slow" or (not tags[at] and at not in front) for at in range(count)]
    assert hourly.is_hourly(memory, np.array(rows)).tolist() == slow
    assert sorted(waiting(world)) == sorted(row for row, one in zip(rows, slow, strict=True) if one)


def test_ranks_are_found_anew_at_midnight() -> None:
    world = World()
    world.send(world.listing("A"), world.listing("B"))
    world.send(world.sold(1, "A", event_id="a"))
    world.send(world.policy(realtime_share=0.5))
    assert behind(world, ["A", "B"]) == ["B"]
    world.send(*(world.sold(9, "B", event_id=f"b{n}") for n in range(4)), after_ms=HOUR)
    assert behind(world, ["A", "B"]) == ["B"]
    midnight = (world.now_ms // DAY + 1) * DAY
    world.send(after_ms=midnight - 1 - world.now_ms)
    assert behind(world, ["A", "B"]) == ["B"]
    world.send()
    assert behind(world, ["A", "B"]) == ["A"]


def test_a_new_listing_ranks_last_until_midnight() -> None:
    world = World()
    world.send(world.policy(realtime_share=1.0))
    world.send(world.policy(realtime_share=0.5))
    world.send(world.listing("A"), world.listing("B"))
    assert behind(world, ["A", "B"]) == ["A", "B"]
    world.send(after_ms=DAY)
    assert len(behind(world, ["A", "B"])) == 1


def test_without_a_share_everybody_is_in_real_time_again() -> None:
    world = World()
    world.send(world.listing("A"), world.listing("B"))
    world.send(world.policy(realtime_share=0.0))
    assert behind(world, ["A", "B"]) == ["A", "B"]
    world.send(world.policy(realtime_share=None))
    assert behind(world, ["A", "B"]) == []
    assert world.shard._memory.tiers.state() == tiers.Tiers.restore({}).state() | {
        "hour": world.now_ms // HOUR
    }


def test_a_ranking_of_many_is_walked_and_begins_anew_with_another_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranking, "RANKED_ROWS_MAX", 10)
    world = World()
    skus = [f"S{number}" for number in range(45)]
    world.send(*(world.listing(sku) for sku in skus))
    world.retailer = "other"
    world.add_retailer("other")
    world.send(world.listing("mine"), world.policy(realtime_share=0.0))
    assert behind(world, ["mine"]) == ["mine"]
    world.retailer = "acme"
    world.send(world.policy(realtime_share=0.2))
    world.send()
    assert world.shard._memory.tiers.walk is not None
    world.send(world.policy(realtime_share=0.4))
    steps = 0
    while world.shard._memory.tiers.walk is not None:
        world.send()
        steps += 1
    assert len(behind(world, skus)) == 27
    assert steps == 8
    assert not world.shard.due(world.now_ms)


def test_a_checkpoint_of_before_tiers_is_read() -> None:
    world = World()
    world.send(world.listing())
    part = msgspec.msgpack.decode(world.shard.checkpoint_close(), type=Part)
    assert part.small is not None
    del part.small.retailers["tiers"]
    restored = Shard.restore([msgspec.msgpack.encode(part)])
    assert restored.live(world.key()) == world.live()
    assert not restored._memory.tiers.waiting
