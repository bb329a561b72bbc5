"""Experiments inside a shard: who is in which arm, what it does to prices, and what is found."""

from typing import Any

import msgspec
import numpy as np
import pytest

from engine import experiment_days
from engine.decided import Decided
from engine.deltas import (
    AnyDelta,
    ExperimentStarted,
    ExperimentStopped,
    ListingRemoved,
    ModeChanged,
)
from engine.experiments import EXPERIMENT, HOLDOUT
from engine.replay import Agreement
from engine.routing import key64
from engine.shard import Shard
from kernels.assignment import TREATED
from repricer import batch_of
from tests.engine.builders import DAY, World, only, verdicts

SKUS = [f"S{number}" for number in range(120)]
FREE = {"step_max": 1.0, "breaker_moved_share": 1.0, "breaker_floor_share": 1.0, "min_margin": 0.01}
"""A small shop in which an arm may move at once."""


def shop(**policy: Any) -> World:
    world = World()
    world.send(world.policy(**{**FREE, **policy}))
    world.send(*(world.listing(sku, category=f"c{at % 3}") for at, sku in enumerate(SKUS)))
    world.drain()
    return world


def started(world: World, **fields: Any) -> Decided:
    fields = {"experiment": "e1", "price_ratio": 1.1, **fields}
    decided = world.send(world.whole(ExperimentStarted, fields=fields))
    assert not decided.exceptions, decided.exceptions
    return decided


def day(world: World, draw: np.random.Generator, lift: float = 0.0, mean: float = 6.0) -> None:
    """Let a day end: sales of every listing, more of what is treated by ``lift``."""
    deltas: list[AnyDelta] = []
    for at, sku in enumerate(SKUS):
        arm = world.shard.arm(world.key(sku))
        if arm is None:
            continue
        size = mean * np.exp(0.6 * np.sin(at))
        if "treated" in world.live(sku)["reasons"]:
            size *= 1.0 + lift
        units = int(draw.poisson(size))
        number = len(world.decided)
        deltas.append(world.sold(units, sku, source=f"till {sku}", source_seq=number))
    world.send(*deltas, after_ms=DAY)
    world.drain()


def days(world: World, count: int, seed: int = 0, lift: float = 0.0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    for _ in range(count):
        day(world, draw, lift)
    return experiment(world)


def experiment(world: World, kind: str = "experiment") -> dict[str, Any]:
    return next(each for each in world.shard.experiments("acme") if each["kind"] == kind)


def treated(world: World) -> set[str]:
    of = {sku: world.shard.arm(world.key(sku)) or {} for sku in SKUS}
    return {sku for sku, arm in of.items() if arm.get("experiment") == "treated"}


# ----- arms and prices ---------------------------------------------------------------------------


def test_nothing_differs_before_the_baseline_is_over_and_then_the_treated_do() -> None:
    world = shop()
    before = {sku: world.price(sku) for sku in SKUS}
    started(world, baseline_days=3)
    days(world, 3)
    assert experiment(world)["status"] == "baseline"
    assert {sku: world.price(sku) for sku in SKUS} == before
    days(world, 1)
    assert experiment(world)["status"] == "running"
    some = treated(world)
    assert 40 < len(some) < 80
    for sku in SKUS:
        ratio = 1.1 if sku in some else 1.0
        assert world.price(sku) == pytest.approx(before[sku] * ratio, abs=1.0)
        assert ("treated" in world.live(sku)["reasons"]) == (sku in some)


def test_a_treatment_is_a_policy_and_guardrails_hold_it() -> None:
    world = shop()
    started(world, baseline_days=0, price_ratio=None, treatment={"ceiling_minor": 1500})
    days(world, 1)
    for sku in SKUS:
        assert (world.price(sku) <= 1500) == (sku in treated(world))
    world.send(world.policy(scope="category", key="c1", floor_minor=1490, ceiling_minor=2500))
    world.drain()
    held = [sku for at, sku in enumerate(SKUS) if at % 3 == 1 and sku in treated(world)]
    assert held and all(1490 <= world.price(sku) <= 1500 for sku in held)


def test_arms_do_not_change_when_listings_come_or_go() -> None:
    world = shop()
    started(world, baseline_days=0)
    days(world, 1)
    before = treated(world)
    world.send(*(world.listing(f"N{number}") for number in range(30)))
    world.send(world.about(ListingRemoved, "S5"))
    days(world, 2)
    assert treated(world) == before - {"S5"}
    # Who comes when the arms have parted takes no part.
    assert world.shard.arm(world.key("N1")) == {}


@pytest.mark.parametrize("design", ["crossover", "switchback"])
def test_blocks_of_time_change_arms(design: str) -> None:
    world = shop()
    started(world, design=design, block_days=2, washout_days=1, days=16)
    days(world, 1)
    first = treated(world)
    days(world, 2, seed=1)
    second = treated(world)
    assert first | second == set(SKUS) and not first & second
    assert len(first) in ((0, 120) if design == "switchback" else range(40, 80))
    for sku in SKUS:
        assert ("treated" in world.live(sku)["reasons"]) == (sku in second)


def test_an_experiments_calendar_does_not_trip_the_breaker_and_its_large_moves_do() -> None:
    gentle, rough = {"treatment": {"ceiling_minor": 1750}}, {"price_ratio": 1.4}
    for tried, trips in ((gentle, False), (rough, True)):
        world = World()
        world.send(world.policy(step_max=1.0, breaker_rate_factor=1.0))
        world.send(*(world.listing(sku) for sku in SKUS))
        world.drain()
        for _ in range(6):  # an hour of history, in which few prices change
            world.send(world.cost(1000 + len(world.decided), "S1"), after_ms=DAY // 4)
        terms = {"price_ratio": None, "block_days": 1, "washout_days": 0, "days": 8, **tried}
        started(world, design="crossover", **terms)
        days(world, 4)
        told = [change.what for decided in world.decided for change in decided.catalogue]
        assert ("breaker" in told) == trips
        assert bool(treated(world))


def test_a_scope_bounds_an_experiment() -> None:
    world = shop()
    started(world, baseline_days=0, scope="category", key="c2")
    days(world, 1)
    assert treated(world) and treated(world) <= {sku for at, sku in enumerate(SKUS) if at % 3 == 2}


# ----- what is found -----------------------------------------------------------------------------


def test_harm_stops_an_experiment_and_its_prices_go_back() -> None:
    world = shop()
    started(world, baseline_days=4, days=60)
    found = days(world, 40, lift=-0.35)
    assert (found["status"], found["verdict"]) == ("stopped", "harmful")
    assert found["day"] < 30
    assert found["high"] < 0.0
    assert {world.price(sku) for sku in SKUS} == {world.price(SKUS[0])}
    told = [change for each in world.decided for change in each.catalogue]
    assert any(change.what == "experiment" and change.fields == found for change in told)


def test_an_experiment_that_works_is_found_and_its_lift_measured() -> None:
    world = shop()
    started(world, baseline_days=7, days=21, metric="units", price_ratio=1.02)
    found = days(world, 29, lift=0.25)
    assert (found["status"], found["verdict"]) == ("ended", "better")
    assert found["end_low"] < 0.25 < found["end_high"]
    assert found["low"] < found["end_low"] < found["end_high"] < found["high"]
    assert found["sample_ratio_ok"]
    # The log gives it back as JSON does; what comes back otherwise would be a difference in replay.
    assert msgspec.json.decode(msgspec.json.encode(found)) == found


@pytest.mark.parametrize("design", ["crossover", "switchback"])
def test_designs_in_time_measure_a_lift(design: str) -> None:
    world = shop()
    terms = {"block_days": 2, "washout_days": 1, "days": 32, "metric": "units"}
    started(world, design=design, price_ratio=1.02, **terms)
    found = days(world, 33, seed=4, lift=0.2)
    assert found["status"] == "ended"
    assert found["end_low"] < 0.2 < found["end_high"]
    assert found["units"] == (8 if design == "switchback" else 8 * len(SKUS))


def test_without_an_effect_nothing_is_found() -> None:
    """Of twenty shops one may be wrong; that six are is one chance in three thousand."""
    verdicts_of = []
    for seed in range(20):
        world = shop()
        started(world, experiment=f"e{seed}", baseline_days=3, days=9, price_ratio=1.01)
        verdicts_of.append(days(world, 13, seed=seed)["verdict"])
    assert verdicts_of.count("better") <= 5
    assert verdicts_of.count("undecided") >= 13


def test_looks_know_how_far_the_experiment_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """YEAST's bound is of the planned end: told another fraction, looks would err far more."""
    told: list[tuple[float, float]] = []

    def noted(estimate: np.ndarray, variance: np.ndarray, fraction: np.ndarray) -> np.ndarray:
        told.append((float(estimate), float(fraction)))
        return np.asarray(estimate / np.sqrt(variance) * np.sqrt(fraction))

    monkeypatch.setattr(experiment_days, "yeast_statistic", noted)
    world = shop()
    started(world, baseline_days=1, days=8, price_ratio=1.01)
    found = days(world, 10)
    assert [fraction for _, fraction in told] == [day / 8 for day in range(1, 9)]
    assert all(abs(normal) < 4.0 for normal, _ in told)
    # The mutation: a bound that is crossed by all calls anything better.
    monkeypatch.setattr(experiment_days, "yeast_bound", lambda alpha: -9.0)
    world = shop()
    started(world, baseline_days=1, days=8, price_ratio=1.01)
    assert days(world, 10)["verdict"] == "better" != found["verdict"]


def test_shares_that_do_not_come_as_drawn_alarm_and_silence_the_verdict() -> None:
    """The treatment's ceiling lies below what a unit costs: nobody of it is ever live."""
    world = shop()
    treatment = {"ceiling_minor": 900}
    started(world, baseline_days=0, days=40, price_ratio=None, treatment=treatment)
    found = days(world, 12, lift=0.4)
    assert not found["sample_ratio_ok"]
    assert found["verdict"] == "open"
    assert found["listings"][1] == 0


# ----- the holdout -------------------------------------------------------------------------------


def learner(**fields: Any) -> World:
    world = World(mode="shadow")
    world.send(world.policy(**{**FREE, "learning": True, "holdout_share": 0.2, **fields}))
    world.send(*(world.listing(sku, price_minor=1500, category="c") for sku in SKUS))
    days_of(world, 20)
    world.send(world.whole(ModeChanged, mode="live"))
    world.drain()
    return world


def days_of(world: World, count: int, seed: int = 9) -> None:
    draw = np.random.default_rng([seed, len(world.decided)])
    for _ in range(count):
        day(world, draw)


def test_prices_that_are_held_out_stay_and_the_others_move() -> None:
    world = learner()
    days_of(world, 21)
    out = [sku for sku in SKUS if (world.shard.arm(world.key(sku)) or {})["holdout"] == "control"]
    assert 10 < len(out) < 40
    assert {world.price(sku) for sku in out} == {1500}
    assert all("held_out" in world.live(sku)["reasons"] for sku in out)
    moved = [sku for sku in SKUS if sku not in out and world.price(sku) != 1500]
    assert len(moved) > 0.7 * (len(SKUS) - len(out))
    impact = experiment(world, "holdout")
    assert impact["status"] == "running" and impact["lift"] is not None
    assert impact["low"] < impact["end_low"] < impact["lift"] < impact["end_high"]


def test_a_guardrail_moves_what_is_held_out_and_it_returns() -> None:
    world = learner()
    out = next(s for s in SKUS if (world.shard.arm(world.key(s)) or {})["holdout"] == "control")
    world.send(world.cost(1600, out))
    assert world.price(out) > 1600
    world.send(world.cost(1000, out))
    assert world.price(out) == 1500


def test_whoever_learns_has_a_holdout_and_nobody_else() -> None:
    world = shop()
    assert world.shard.experiments("acme") == []
    assert world.shard.arm(world.key("S1")) == {}
    world.send(world.policy(learning=True))
    assert [each["kind"] for each in world.shard.experiments("acme")] == ["holdout"]
    world.send(world.policy(holdout_share=0.0))
    assert world.shard.experiments("acme") == []


def test_a_larger_share_holds_out_the_same_listings_and_more() -> None:
    drawn = []
    for share in (0.1, 0.3):
        world = learner(holdout_share=share)
        arm = {sku: (world.shard.arm(world.key(sku)) or {})["holdout"] for sku in SKUS}
        drawn.append({sku for sku, name in arm.items() if name == "control"})
    assert drawn[0] < drawn[1]


# ----- replay ------------------------------------------------------------------------------------


@pytest.mark.parametrize("design", ["product", "crossover", "switchback"])
def test_a_successor_repeats_an_experiment(design: str) -> None:
    """From a checkpoint taken in the middle, walks cut into slices: the same digests to the end."""
    world = shop(learning=True, holdout_share=0.1)
    terms = {"block_days": 2, "washout_days": 1, "days": 16, "baseline_days": 2}
    started(world, design=design, **terms)
    days(world, 7)
    parts = [world.shard.checkpoint_close()]
    successor = Shard.restore(parts)
    assert successor.experiments("acme") == world.shard.experiments("acme")
    draw = np.random.default_rng(3)
    for number in range(7):
        deltas = [
            world.sold(int(draw.poisson(5)), sku, source=f"till {sku}", source_seq=10_000 + number)
            for sku in SKUS
        ]
        world.now_ms += DAY
        for batch_deltas in (deltas, [], []):
            batch = batch_of(batch_deltas, after=world.shard)
            decided = world.shard.apply(batch, world.now_ms)
            world.shard.record(decided)
            assert successor.replay(batch, decided) is Agreement.EXACT
    assert successor.digest == world.shard.digest
    for shard in (successor, world.shard):
        shard.checkpoint_restart()
    assert successor.checkpoint_close() == world.shard.checkpoint_close()


def test_a_successor_repeats_an_experiment_that_is_older_than_the_holdout() -> None:
    """Sales go through both in one order, whichever began first: their sums are in the digest."""
    world = shop()
    started(world, baseline_days=0)
    days(world, 1)
    world.send(world.policy(learning=True, holdout_share=0.5))
    world.drain()
    successor = Shard.restore([world.shard.checkpoint_close()])
    sales = [world.sold(3, sku, source=f"till {sku}", source_seq=10_000) for sku in SKUS]
    world.now_ms += 1
    batch = batch_of(sales, after=world.shard)
    decided = world.shard.apply(batch, world.now_ms)
    world.shard.record(decided)
    assert successor.replay(batch, decided) is Agreement.EXACT


def test_slices_change_how_far_a_microbatch_walks_and_not_where_it_arrives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for rows in (7, 16_384):
        monkeypatch.setattr(experiment_days, "SLICE_ROWS", rows)
        world = shop()
        started(world, baseline_days=2, days=8)
        told = days(world, 8)
        found.append((told, {sku: world.price(sku) for sku in SKUS}, treated(world)))
    assert msgspec.json.encode(found[0][1]) == msgspec.json.encode(found[1][1])
    assert found[0][2] == found[1][2]
    for name in ("verdict", "day", "units", "listings", "status"):
        assert found[0][0][name] == found[1][0][name]
    assert found[0][0]["lift"] == pytest.approx(found[1][0]["lift"], rel=1e-9)


def test_sums_are_in_the_digest() -> None:
    worlds = [shop(), shop()]
    for world in worlds:
        started(world, baseline_days=0)
        days(world, 2)
    one, other = worlds
    rows = other.shard._memory.experiments.rows[EXPERIMENT]
    at = int(np.flatnonzero(rows["arm"] == TREATED)[0])
    rows["sums"][at] += 1.0
    for world in worlds:
        days(world, 1)
    assert one.shard.digest != other.shard.digest
    assert not other.shard._memory.experiments.rows[HOLDOUT]["arm"].any()


# ----- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"price_ratio": None}, "/fields/treatment"),
        ({"price_ratio": 9.0}, "/fields/price_ratio"),
        ({"days": 1}, "/fields/days"),
        ({"treatment": {"learning": True}}, "/fields/treatment/learning"),
        ({"treatment": {"floor_minor": None}}, "/fields/treatment"),
        ({"treatment": {"nonsense": 1}}, "/fields/nonsense"),
        ({"scope": "category"}, "/fields/key"),
        ({"design": "crossover", "washout_days": 4}, "/fields/washout_days"),
        ({"design": "switchback", "days": 30}, "/fields/days"),
        ({"visitors": 0.5}, "/fields"),
        ({"experiment": ""}, "/fields/experiment"),
    ],
)
def test_terms_that_make_no_experiment_are_refused(fields: dict[str, Any], pointer: str) -> None:
    world = shop()
    fields = {"experiment": "e1", "price_ratio": 1.1, **fields}
    refusal = only(world.send(world.whole(ExperimentStarted, fields=fields)).exceptions)
    assert refusal.verdict == "rejected"
    assert refusal.reason.startswith(pointer), refusal.reason


def test_one_at_a_time_live_only_and_stopped_once() -> None:
    world = shop()
    started(world)
    again = world.whole(ExperimentStarted, fields={"experiment": "e2", "price_ratio": 1.1})
    assert "e1 is running" in only(world.send(again).exceptions).reason
    wrong = world.whole(ExperimentStopped, fields={"experiment": "e2"})
    assert verdicts(world.send(wrong)) == ["rejected"]
    assert not world.send(world.whole(ExperimentStopped)).exceptions
    assert experiment(world)["status"] == "stopped"
    world.now_ms += 1
    assert "over" in only(world.send(world.whole(ExperimentStopped)).exceptions).reason
    world.send(world.whole(ModeChanged, mode="shadow"))
    again = world.whole(ExperimentStarted, fields={"experiment": "e2", "price_ratio": 1.1})
    assert "shadow" in only(world.send(again).exceptions).reason


def test_an_arm_is_a_matter_of_names_and_of_nothing_else() -> None:
    """Two shards that never met draw alike; another experiment draws otherwise."""
    drawn = []
    for name in ("e1", "e1", "e2"):
        world = shop()
        started(world, experiment=name, baseline_days=0)
        days(world, 1)
        drawn.append(treated(world))
    assert drawn[0] == drawn[1] != drawn[2]
    assert world.shard.arm(key64("acme", "shop", "nobody")) is None
