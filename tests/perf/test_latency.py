"""The latency command charges every delta from the moment it was meant to be sent."""

import time
from argparse import Namespace
from collections.abc import Mapping
from math import inf

import numpy as np
import pytest

from cluster.feeding import Router
from engine.deltas import CostChanged, PolicyChanged, StockCounted, UnitsSold
from perf.bench import COMMANDS
from perf.latency import (
    PROBED_COST,
    RETAILER,
    WARM_S,
    background,
    name_of,
    now_ms,
    opening,
    probing,
    whole_p99_ms,
)
from perf.open_loop import OpenLoop, Planned, Sent
from perf.probes import Probe, Recorded, judged
from persistence.memory_log import MemoryLogs
from persistence.ports import DELTAS
from persistence.wire import read_facts
from repricer import Shard, State, decide


def counted(sku: str, units: int) -> StockCounted:
    return StockCounted(retailer="r", channel="web", sku=sku, units=units, observed_ms=units)


async def test_everything_planned_is_sent_in_order_and_probes_are_found() -> None:
    logs = MemoryLogs()
    await logs.create({DELTAS: 2}, retention_ms=10**9)
    load = OpenLoop(logs, Router(2, {"r": 2}), linger_s=0.001)
    load.plan(
        [Planned(n / 5_000, counted(f"s{n % 7}", n), n if n % 50 == 0 else -1) for n in range(500)]
    )
    await load.run(time.monotonic() + 0.02)
    assert load.sent == 500 == sum(load.planned().values())
    assert sorted(load.probes) == list(range(0, 500, 50))
    seen = []
    for partition in range(2):
        log = await logs.open(DELTAS, partition)
        records = await log.read(-1, limit=1_000, wait_ms=0)
        units = [fact.amount for record in records for fact in read_facts(record)]
        assert units == sorted(units)
        seen += units
        for name, sent in load.probes.items():
            if sent.partition == partition:
                assert units[sent.offset] == name
    assert sorted(seen) == list(range(500))


async def test_what_could_not_be_sent_in_time_is_sent_all_the_same_and_said_to_be_late() -> None:
    logs = MemoryLogs()
    await logs.create({DELTAS: 1}, retention_ms=10**9)
    load = OpenLoop(logs, Router(1, {}), linger_s=0.0, warm_s=0.025)
    load.plan([Planned(n / 1_000, counted("s", n)) for n in range(50)])
    await load.run(time.monotonic() - 0.2)
    assert load.sent == 50
    assert load.late_s >= 0.15, "a moment that has passed is charged from when it was"


def test_fates_tell_a_probe_without_news_from_one_that_was_never_readable() -> None:
    probes = [Probe(f"s{n}", n / 10) for n in range(5)]
    begin_ms = 1_000_000.0
    sent = {n: Sent(0, n, int(begin_ms + n * 100 + 2)) for n in range(5)}
    decisions: Mapping[int, Recorded] = {
        0: Recorded(1_000_004, 1_000_005, "q0"),
        1: Recorded(1_000_104, 1_000_105, ""),
        2: Recorded(1_000_204, 1_000_205, "", "late"),
        3: Recorded(1_000_304, 1_000_305, "q3"),
    }
    probes[0].seen_ms, probes[0].quote = begin_ms + 9, "q0"
    found = judged(probes, sent, decisions, {"q0": begin_ms + 20}, begin_ms)
    assert found["probes"] == {
        "readable": 1,
        "same_price": 1,
        "refused_late": 1,
        "never_readable": 1,
        "never_decided": 1,
    }
    assert found["max_ms"] == 9
    largest = {name: each["max_ms"] for name, each in found["stages_ms"].items()}
    assert largest == {"produced": 2, "decided": 2, "recorded": 1, "readable": 4, "streamed": 15}
    assert found["told_ms"]["max_ms"] == 20
    assert found["probes_lost"] == 2


def test_probes_of_a_later_run_set_other_costs_than_the_earlier_left() -> None:
    """A cost that is set again decides nothing, and its probe would be lost to the figure."""
    costs: dict[str, int] = {}
    before = 0
    for _ in range(5):
        planned, probes = probing(20, 10, 0, per_s=4.0, seconds=WARM_S + 2, before=before)
        assert len(probes) == len(planned) == 8
        for each in planned:
            delta = each.delta
            assert isinstance(delta, CostChanged)
            assert costs.get(delta.sku, PROBED_COST) != delta.cost_minor
            costs[delta.sku] = delta.cost_minor
        before += len(probes)


def test_a_run_that_lost_a_probe_keeps_no_limit() -> None:
    assert whole_p99_ms({"probes_lost": 0, "p99_ms": 12.5}) == 12.5
    assert whole_p99_ms({"probes_lost": 1, "p99_ms": 12.5}) == inf
    assert whole_p99_ms({"probes_lost": 0, "p99_ms": None}) == inf, "none decided anything new"


@pytest.mark.parametrize(
    ("words", "name"),
    [("", "latency"), ("--per-s 20000", "latency-20000"), ("--find-rate", "find-rate")],
)
def test_gates_go_by_the_load(words: str, name: str) -> None:
    """A promise about one load says nothing of another."""
    given = Namespace(find_rate="--find-rate" in words, per_s=20_000 if "20000" in words else 1000)
    assert name_of(given) == name
    (command,) = (each for each in COMMANDS if each.name == name)
    assert words.split() == [each for each in command.arguments if each in words.split()]


def test_its_retailer_is_served_by_both_shards() -> None:
    router = Router(2, {RETAILER: 2})
    assert {router.of_sku(RETAILER, f"sku-{number:06d}")[1] for number in range(50)} == {0, 1}


def test_where_demand_is_learnt_things_are_sold() -> None:
    def kinds(sales: float) -> list[type]:
        draw = np.random.default_rng(1)
        return [type(p.delta) for p in background(draw, 10, 1_000_000, 1_000, 2.0, sales=sales)]

    assert UnitsSold not in kinds(0.0)
    assert 100 < kinds(0.1).count(UnitsSold) < 300
    (named, *_) = opening(1, learning=True)
    told = [delta.fields for delta in named if isinstance(delta, PolicyChanged)]
    assert {"learning": True} in told
    assert not any(isinstance(delta, PolicyChanged) for delta in next(opening(1)))


@pytest.mark.parametrize("learning", [False, True], ids=["rules", "learning"])
def test_every_probe_moves_a_price_and_no_breaker_stops_it(learning: bool) -> None:
    shard = Shard()
    for piece in opening(200, 20, learning=learning):
        decided = decide(shard, piece, now_ms())
        assert not [each for each in decided.catalogue if each.what == "breaker"]
        assert set(decided.quotes["state"].tolist()) <= {State.LIVE}
    # Three rounds over all of the probed listings.
    planned, _ = probing(200, 20, now_ms(), 20, WARM_S + 3, learning=learning)
    assert len(planned) == 60
    for each in planned:
        (quote,) = decide(shard, [each.delta], shard.decided_ms + 1_000).quotes
        assert quote["in_force_minor"] != quote["previous_minor"]
        assert quote["state"] == State.LIVE
