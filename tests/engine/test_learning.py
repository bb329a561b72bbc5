"""Demand is learnt inside ``apply``: pure, replayable, kept in checkpoints, and silent when off."""

from typing import Any

import numpy as np
import pytest

from engine import learning
from engine.checkpoint import merge_parts
from engine.decided import Decided
from engine.deltas import AnyDelta, ModeChanged
from engine.evidence import followed
from engine.learnt import (
    BEFORE_PROVEN,
    BEFORE_SEASONS,
    LEARNT_DTYPE,
    RetailerLearning,
    learnt_of,
)
from engine.replay import Agreement
from engine.shard import Shard
from kernels import reasons
from repricer import batch_of
from tests.engine.builders import DAY, T, World

SKUS = [f"S{number}" for number in range(12)]
ELASTICITIES = np.linspace(-1.8, -4.0, len(SKUS))


def shop(mode: str = "live", **policy: Any) -> World:
    """Return a world whose first listings are there, and which learns."""
    world = World(mode=mode)
    world.send(world.policy(**{"learning": True, **policy}))
    world.send(
        *(
            world.listing(sku, category=f"c{at % 2}", price_minor=1500)
            for at, sku in enumerate(SKUS)
        )
    )
    return world


def test_nothing_compiles_after_warming() -> None:
    learning.warm()
    compiled = learning.compiled_shapes()
    world = shop()
    lived(world, 24)  # with fits and decisions of several days
    assert world.shard.learning("acme") is not None
    assert learning.compiled_shapes() == compiled


def sales(world: World, day: int, draw: np.random.Generator) -> list[AnyDelta]:
    """Return a day's sales at the prices in force."""
    deltas: list[AnyDelta] = []
    for at, sku in enumerate(SKUS):
        ratio = world.price(sku) / 1500.0
        units = int(draw.poisson(60.0 * ratio ** ELASTICITIES[at]))
        if units:
            deltas.append(world.sold(units, sku, source=f"till {sku}", source_seq=day))
    return deltas


def lived(world: World, days: int, first: int = 0) -> list[Decided]:
    """Let days pass; return what was decided."""
    decided = []
    for day in range(first, first + days):
        draw = np.random.default_rng(day)
        decided.append(world.send(*sales(world, day, draw), after_ms=DAY))
    return decided


def test_a_row_keeps_its_budget() -> None:
    assert LEARNT_DTYPE.itemsize <= 192


def test_nothing_is_learnt_unless_it_is_asked_for() -> None:
    world = shop(learning=False)
    decided = lived(world, 10)
    assert not any((of.quotes["reasons"] & reasons.LEARNT).any() for of in decided)
    assert world.shard.learnt(world.key("S0")) is None
    assert world.shard.learning("acme") is None


def test_learnt_prices_move_and_keep_their_step() -> None:
    world = shop(dither=0.0, prior_elasticity=-2.0, prior_elasticity_sd=0.2)
    before = {sku: world.price(sku) for sku in SKUS}
    moves = 0
    for day in range(40):
        lived(world, 1, day)
        for sku in SKUS:
            ratio = world.price(sku) / before[sku]
            assert abs(np.log(ratio)) <= 0.131
            moves += ratio != 1.0
            before[sku] = world.price(sku)
    assert 0 < moves < 40 / 7 * len(SKUS) * 2


def test_steeper_demand_is_found_steeper() -> None:
    world = shop(dither=0.1)
    lived(world, 150)
    found = [world.shard.learnt(world.key(sku)) for sku in SKUS]
    means = np.array([of["elasticity"] for of in found if of is not None])
    assert np.corrcoef(means, ELASTICITIES)[0, 1] > 0.35
    assert (means < -1.0).all()
    sds = np.array([of["elasticity_sd"] for of in found if of is not None])
    # Twelve listings hardly tell how much they differ, so single ones may be drawn far.
    assert np.mean(np.abs(means - ELASTICITIES) / sds) < 1.6


def test_replay_is_exact_with_learning_on() -> None:
    """Every microbatch again, from the same deltas, is decided the same, digests included."""
    world = shop(mode="shadow")
    batches: list[tuple[Any, Decided]] = []
    for day in range(30):
        deltas = sales(world, day, np.random.default_rng(day))
        if day == 10:
            deltas.append(world.whole(ModeChanged, mode="live"))
        world.now_ms += DAY
        batch = batch_of(deltas, after=world.shard)
        decided = world.shard.apply(batch, world.now_ms)
        world.shard.record(decided)
        batches.append((batch, decided))
    again = shop(mode="shadow")
    for batch, decided in batches:
        assert again.shard.replay(batch, decided) is Agreement.EXACT
    assert again.shard.digest == world.shard.digest


@pytest.mark.parametrize("merged", [False, True])
def test_a_checkpoint_holds_what_was_learnt(merged: bool) -> None:
    world = shop()
    lived(world, 12)
    parts: list[bytes] = []
    while (part := world.shard.checkpoint_slice(5)) is not None:
        parts.append(part)
    parts.append(world.shard.checkpoint_close())
    lived(world, 1, 12)
    parts.append(world.shard.checkpoint_close())
    other = World()
    other.shard = Shard.restore(merge_parts(parts) if merged else parts)
    other.now_ms = world.now_ms
    for sku in SKUS:
        assert other.shard.learnt(world.key(sku)) == world.shard.learnt(world.key(sku))
    lived(world, 10, 13)
    lived(other, 10, 13)
    assert other.shard.digest == world.shard.digest


def test_a_new_cost_is_answered_at_once() -> None:
    world = shop(dither=0.0)
    lived(world, 9)
    before = world.price("S3")
    world.send(world.cost(1150, "S3"))
    assert world.price("S3") > before
    assert "learnt" in world.live("S3")["reasons"]


def test_a_budget_in_money_bounds_exploring() -> None:
    free, poor = shop(), shop(exploration_budget_minor=10)
    for world in (free, poor):
        lived(world, 30)
    rich, bound = (world.shard.learning("acme") for world in (free, poor))
    assert rich is not None and bound is not None
    assert bound["exploration_share"] < 0.2 * rich["exploration_share"]


def test_invented_sales_of_some_do_not_end_the_exploration_of_all() -> None:
    world = shop()
    lived(world, 40)

    def dispersion() -> float:
        told = world.shard.learning("acme")
        assert told is not None
        return float(told["dispersion"])

    first = before = dispersion()
    for day in range(40, 48):
        invented = [
            world.sold(5000, sku, source=f"liar {sku}", source_seq=day) for sku in SKUS[::2]
        ]
        draw = np.random.default_rng(day)
        world.send(*sales(world, day, draw), *invented, after_ms=DAY)
        assert dispersion() / before < 1.1001
        before = dispersion()
    assert before / first > 1.2, "it goes where it is told, a step a day"


def test_endogenous_history_is_not_believed() -> None:
    """Managers who follow demand: the lead test throws their prices' teaching away."""
    world = World(mode="shadow")
    world.send(world.policy(learning=True))
    world.send(*(world.listing(sku, price_minor=1500) for sku in SKUS))
    draw = np.random.default_rng(1)
    shock = np.zeros(len(SKUS))
    for day in range(120):
        deltas: list[AnyDelta] = []
        for at, sku in enumerate(SKUS):
            price = int(1500 * np.exp(0.5 * shock[at]))
            deltas.append(world.about(_reported(), sku, price_minor=price))
            shock[at] = 0.9 * shock[at] + draw.normal(0, 0.12)
            units = int(draw.poisson(60 * np.exp(shock[at]) * (price / 1500) ** -2.5))
            deltas.append(world.sold(units, sku, source=f"till {sku}", source_seq=day))
        world.send(*deltas, after_ms=DAY)
    world.send(world.whole(ModeChanged, mode="live"), after_ms=DAY)
    learning = world.shard.learning("acme")
    assert learning is not None
    assert not learning["history_trusted"]


def test_the_category_whose_history_followed_demand_is_named() -> None:
    """In one managers follow demand, in the other they set prices by lot; then the engine does."""
    world = World(mode="shadow")
    policy = {"dither": 0.1, "holdout_share": 0.0, "decision_days": 1, "step_max": 1.0}
    world.send(world.policy(learning=True, **policy))
    world.send(
        *(
            world.listing(sku, category=f"c{at % 2}", price_minor=1500)
            for at, sku in enumerate(SKUS)
        )
    )
    draw = np.random.default_rng(4)  # apart by 5.5 sd; seeds 3, 5, 6: 3.0 to 3.8
    shock = np.zeros(len(SKUS))
    for day in range(300):
        deltas: list[AnyDelta] = []
        if day == 120:
            world.send(world.whole(ModeChanged, mode="live"))
        for at, sku in enumerate(SKUS):
            if day < 120:
                moved = 0.5 * shock[at] if at % 2 == 0 else draw.normal(0.0, 0.08)
                price = int(1500 * np.exp(moved))
                deltas.append(world.about(_reported(), sku, price_minor=price))
            price = price if day < 120 else world.price(sku)
            shock[at] = 0.9 * shock[at] + draw.normal(0, 0.12)
            units = int(draw.poisson(60 * np.exp(shock[at]) * (price / 1500) ** -2.5))
            deltas.append(world.sold(units, sku, source=f"till {sku}", source_seq=day))
        world.send(*deltas, after_ms=DAY)
    told = world.shard.learning("acme", fit=False)
    assert told is not None
    followed, drawn = told["categories"]
    assert (followed["category"], followed["listings"]) == ("c0", 6)
    assert followed["alarm"]
    assert followed["apart_sd"] > 3.0, "demand that is high at high prices looks inelastic"
    assert followed["from_history"]["elasticity"] > followed["from_own_prices"]["elasticity"]
    assert abs(followed["from_own_prices"]["elasticity"] + 2.5) < 0.8
    assert not drawn["alarm"]


def _reported() -> type[Any]:
    from engine.deltas import PriceReported

    return PriceReported


def test_the_first_close_waits_for_midnight() -> None:
    world = shop()
    world.send(after_ms=1)
    learning = world.shard.learning("acme")
    assert learning is not None and learning["day"] == 0
    world.send(after_ms=DAY)
    learning = world.shard.learning("acme")
    assert learning is not None and learning["day"] == 1
    assert world.now_ms > T + DAY


def test_large_retailers_close_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices change how much one microbatch walks, and not where a close arrives."""
    monkeypatch.setattr("engine.learning.SLICE_ROWS", 5)
    world = shop()
    world.send(*sales(world, 0, np.random.default_rng(0)), after_ms=DAY)
    for _ in range(6):
        world.send()
    learning = world.shard.learning("acme")
    assert learning is not None and learning["day"] == 1
    assert all(of is not None and of["decisions"] >= 1 for of in _all(world))


def test_a_days_dispersion_moves_by_a_day_however_many_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.learning.SLICE_ROWS", 2)
    world = shop()
    draw = np.random.default_rng(0)
    for day in range(8):
        (held,) = world.shard._memory.learnt.retailers.values()
        before = held.dispersion
        world.send(*sales(world, day, draw), after_ms=DAY)
        world.drain()
        assert abs(np.log(held.dispersion / before)) <= np.log(learning.DISPERSION_STEP_MAX) + 1e-9
    assert held.dispersion != 0.2


def _all(world: World) -> list[dict[str, Any] | None]:
    return [world.shard.learnt(world.key(sku)) for sku in SKUS]


def test_a_season_that_is_cleared_teaches_no_elasticity_and_is_counted() -> None:
    """Cuts answer poor sales, which recover by themselves: it would look like elasticity."""
    told = {}
    for name, season in {"usual": {}, "season": {"season_end_ms": T + 60 * DAY}}.items():
        world = shop(**season)
        for sku in SKUS:
            world.send(world.stock(4_000, sku))
        lived(world, 30)
        told[name] = world.shard._memory.learnt.rows[: len(SKUS)]
    evidence = {name: rows["own"][:, 0] + rows["history"][:, 0] for name, rows in told.items()}
    assert evidence["usual"].sum() > 0.1
    assert evidence["season"].sum() == 0.0
    assert (told["season"]["season_units"] > 500).all()
    assert (told["season"]["season_days"] >= 29).all()
    assert (told["season"]["season_demand"] > 20).all()
    assert told["usual"]["season_units"].sum() == 0.0


def test_what_rivals_follow_is_told_from_where_history_left_them() -> None:
    """Managers' cuts had drawn the rival down already, by as much for all."""
    draw = np.random.default_rng(4)
    cuts = np.minimum(draw.normal(0.0, 0.1, 5_000), 0.0)
    moves = 0.7 * cuts + 0.04 + draw.normal(0.0, 0.05, len(cuts))
    sums = np.array([len(cuts), cuts.sum(), moves.sum(), (cuts**2).sum(), (moves * cuts).sum()])
    assert abs(followed(sums) - 0.7) < 0.05
    assert (moves * cuts).sum() / (cuts**2).sum() < 0.55, "without a constant it is misjudged"
    assert followed(np.zeros(5)) == 0.0
    assert followed(np.array([100.0, 0.0, 3.0, 0.0, 0.0])) == 0.0, "who never cuts is told nothing"


def seasonal(days: int, stock: int) -> World:
    """Return a shop that lived for some days before its season, which has thirty days left."""
    world = shop()
    lived(world, days)
    world.send(*(world.stock(stock, sku) for sku in SKUS))
    world.send(world.policy(learning=True, season_end_ms=world.now_ms + 30 * DAY, step_max=1.0))
    return world


def test_no_cut_is_spent_before_a_season_has_been_watched() -> None:
    """Even where a cost changes, which has listings decide at once."""
    world = seasonal(6, 60 * 30)
    before = [world.price(sku) for sku in SKUS]
    world.send(*(world.cost(1010, sku) for sku in SKUS))
    assert [world.price(sku) for sku in SKUS] == before


def test_a_listing_that_decided_often_before_its_season_is_cleared_too() -> None:
    world = seasonal(60, 60 * 30 * 4)
    before = {sku: world.price(sku) for sku in SKUS}
    lived(world, 20, 60)
    assert all(world.price(sku) < before[sku] for sku in SKUS)


def test_a_silent_till_is_no_lack_of_demand() -> None:
    world = seasonal(0, 60 * 20)  # what the last days' level sells without a cut
    lived(world, 8)
    before = {sku: world.price(sku) for sku in SKUS}
    for _ in range(8):
        world.send(after_ms=DAY)
    assert {sku: world.price(sku) for sku in SKUS} == before


@pytest.mark.parametrize("before", [BEFORE_SEASONS, BEFORE_PROVEN])
def test_records_of_before_seasons_were_counted_are_read(before: np.dtype) -> None:
    world = shop()
    lived(world, 12)
    rows = world.shard._memory.learnt.rows[: len(SKUS)]
    old, expected = np.zeros(len(rows), dtype=before), np.zeros(len(rows), dtype=LEARNT_DTYPE)
    for name in before.names or ():
        old[name] = expected[name] = rows[name]
    read = learnt_of(old.tobytes(), len(rows))
    assert read.dtype == LEARNT_DTYPE
    assert read.tobytes() == expected.tobytes()
    assert learnt_of(rows.tobytes(), len(rows)).tobytes() == rows.tobytes()
    held = world.shard._memory.learnt.retailers[0]
    state = held.state()
    state["arrays"]["follows"] = np.ones(2).tobytes()
    assert RetailerLearning.restore(state).follows.tolist() == [0.0] * 5
