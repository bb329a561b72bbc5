"""Facts that come twice, late and in any order leave the state of unique facts in order."""

from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.deltas import AnyDelta
from tests.engine.builders import HOUR, T, World

SKUS = ("A", "B", "C")
FACTS = st.lists(
    st.tuples(
        st.sampled_from(["rival", "stock", "sold", "cost"]),
        st.sampled_from(SKUS),
        st.integers(0, 40),
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda fact: fact,
)


def opened() -> World:
    world = World()
    world.send(*(world.listing(sku, kvi=True, own_rival_names=("us",)) for sku in SKUS))
    world.now_ms = T + 2 * HOUR
    return world


def delta(world: World, kind: str, sku: str, tick: int) -> AnyDelta:
    """Return a fact that follows from kind, listing and time alone: nothing contradicts itself."""
    at: dict[str, Any] = {"observed_ms": T + HOUR + tick * 1000}
    if kind == "rival":
        return world.rival(1500 + tick, sku=sku, rival=f"r{tick % 3}", **at)
    if kind == "stock":
        return world.stock(100 + tick, sku, **at)
    if kind == "cost":
        return world.cost(1000 + tick, sku, **at)
    return world.sold(1 + tick % 3, sku, event_id=f"{sku}{tick}", **at)


def state(world: World) -> list[Any]:
    """Return what is known of all listings, and how they stand: not when or why it was decided."""
    found: list[Any] = []
    for sku in SKUS:
        row = world.shard._memory.listings.index.row(world.key(sku))
        listing = world.shard._memory.listings.listings[row]
        found += [
            int(listing[name])
            for name in ("cost_minor", "cost_ms", "counted", "stock_ms", "sold_since", "units_sold")
        ]
        found += [world.live(sku)["stock"]]
        offers = world.shard._memory.rivals.offers_of(np.array([row]))[0]
        names = ["rival", "observed_ms", "landed_minor", "flags"]
        found.append(sorted(offers[offers["flags"] > 0][names].tolist()))
    return found


@settings(deadline=None, max_examples=60)
@given(
    facts=FACTS,
    shuffle=st.randoms(use_true_random=False),
    repeats=st.lists(st.integers(0, 39), max_size=12),
    cuts=st.sets(st.integers(1, 50), max_size=8),
)
def test_duplicates_and_disorder_change_nothing(
    facts: list[tuple[str, str, int]], shuffle: Any, repeats: list[int], cuts: set[int]
) -> None:
    """Sales may be as late as the four newest of a listing that a count subtracts again."""
    straight, mixed = opened(), opened()
    sold: dict[str, int] = {}
    kept = []
    for fact in sorted(facts, key=lambda fact: fact[2]):
        sold[fact[1]] = sold.get(fact[1], 0) + (fact[0] == "sold")
        if fact[0] != "sold" or sold[fact[1]] <= 4:
            kept.append(fact)
    for fact in kept:
        straight.send(delta(straight, *fact), after_ms=0)
    disorder = kept + [kept[number % len(kept)] for number in repeats]
    shuffle.shuffle(disorder)
    bounds = [0, *sorted(cut for cut in cuts if cut < len(disorder)), len(disorder)]
    for start, stop in pairwise(bounds):
        mixed.send(*(delta(mixed, *fact) for fact in disorder[start:stop]), after_ms=0)
    assert state(mixed) == state(straight)
    # Every fact that changed nothing because of that is told.
    told = [refusal for decided in mixed.decided[2:] for refusal in decided.exceptions]
    assert {refusal.verdict for refusal in told} <= {"duplicate", "late"}
    assert len(told) >= len(disorder) - len(kept)


def test_a_late_count_subtracts_the_sales_that_came_before_it() -> None:
    world = opened()
    t = T + HOUR
    world.send(world.stock(10, observed_ms=t), after_ms=0)
    world.send(world.sold(2, event_id="x", observed_ms=t + 3000), after_ms=0)
    world.send(world.stock(9, observed_ms=t + 1000), after_ms=0)
    assert world.live()["stock"] == 7
    world.send(world.stock(5, observed_ms=t + 4000), after_ms=0)
    assert world.live()["stock"] == 5
    world.send(world.sold(1, event_id="y", observed_ms=t + 2000), after_ms=0)  # counted already
    assert world.live()["stock"] == 5


def test_sales_beyond_what_a_column_holds_leave_no_stock_whichever_came_first() -> None:
    """Summed without a limit they wrapped round, and a listing that was sold out had stock."""
    first, last = opened(), opened()
    most = 2**31 - 1
    sales = [
        first.sold(most, event_id=name, observed_ms=T + HOUR + tick)
        for tick, name in enumerate("xyz", start=1)
    ]
    counted = first.stock(5, observed_ms=T + HOUR)
    first.send(counted)
    first.send(*sales)
    last.send(*sales)
    last.send(counted)
    assert state(first) == state(last)
    assert last.live("A")["stock"] == 0
