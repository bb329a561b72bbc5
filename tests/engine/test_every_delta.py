"""Every kind of delta matters: two worlds that differ only there are decided differently.

A row names the world before, the delta, and what must show: a state, a reason bit, or the verdict
of an exception. A kind of delta without a row fails.
"""

from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest

from engine.decided import Decided, State
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    ExperimentStarted,
    ExperimentStopped,
    FeesChanged,
    ListingChanged,
    ListingRemoved,
    ModeChanged,
    ModelPromoted,
    PlanApplied,
    PolicyChanged,
    PriceApproved,
    PricePinned,
    PriceRejected,
    PriceReported,
    PriceUnpinned,
    PromotionScheduled,
    PublishingHalted,
    PublishingResumed,
    RateChanged,
    RetailerAdded,
    ScopeChange,
    StockCounted,
    UnitsSold,
)
from kernels import reasons
from tests.engine.builders import DAY, World, only, verdicts

Prepare = Callable[[World], Any]
Make = Callable[[World], AnyDelta]
Shows = Callable[[World, Decided], bool]


def nothing(world: World) -> None:
    world.send(world.listing())


def as_kvi(world: World) -> None:
    world.send(world.listing(kvi=True, own_rival_names=("us",)))


def counted(world: World) -> None:
    world.send(world.listing())
    world.send(world.stock(1))


def manual(world: World) -> None:
    world.send(world.policy(approval="manual"))
    world.send(world.listing())


def pinned(world: World) -> None:
    world.send(world.listing())
    world.send(world.about(PricePinned, price_minor=1777))


def halted(world: World) -> None:
    world.send(world.listing())
    world.send(world.whole(PublishingHalted))


def foreign(world: World) -> None:
    world.send(world.listing(kvi=True, own_rival_names=("us",)))
    world.send(world.rival(1500, currency="USD"))


def trying(world: World) -> None:
    world.send(world.listing())
    fields = {"experiment": "e", "price_ratio": 1.1}
    world.send(world.whole(ExperimentStarted, fields=fields))


def tried(status: str) -> Shows:
    return lambda world, decided: any(
        change.what == "experiment" and change.fields["status"] == status
        for change in decided.catalogue
    )


def told(what: str) -> Shows:
    return lambda world, decided: any(change.what == what for change in decided.catalogue)


def state(expected: State) -> Shows:
    return lambda world, decided: bool((decided.quotes["state"] == expected).any())


def reason(bit: int) -> Shows:
    return lambda world, decided: bool(((decided.quotes["reasons"] & bit) != 0).any())


def verdict(expected: str) -> Shows:
    return lambda world, decided: verdicts(decided) == [expected]


def quoted(field: str, value: int) -> Shows:
    return lambda world, decided: bool((decided.quotes[field] == value).any())


ROWS: list[tuple[type[Any], Prepare, Make, Shows]] = [
    (CompetitorPriced, as_kvi, lambda w: w.rival(1600), reason(1 << reasons.KVI)),
    (StockCounted, nothing, lambda w: w.stock(0), quoted("stock", 0)),
    (UnitsSold, counted, lambda w: w.sold(1, event_id="e"), quoted("stock", 0)),
    (CostChanged, nothing, lambda w: w.cost(1300), quoted("cost_minor", 1300)),
    (ListingChanged, nothing, lambda w: w.listing(map_minor=2300), reason(1 << reasons.LEGAL)),
    (ListingRemoved, nothing, lambda w: w.about(ListingRemoved), state(State.REMOVED)),
    (
        FeesChanged,
        nothing,
        lambda w: w.whole(FeesChanged, channel="shop", vat=0.25, commission=0.3),
        lambda world, decided: bool((decided.quotes["floor_minor"] > 2100).any()),
    ),
    (
        RateChanged,
        foreign,
        lambda w: w.whole(RateChanged, currency="USD", into="EUR", rate=1.1),
        quoted("rival_minor", 1650),
    ),
    (
        RetailerAdded,
        nothing,
        lambda w: w.whole(RetailerAdded, currency="USD"),
        verdict("rejected"),
    ),
    (ModeChanged, nothing, lambda w: w.whole(ModeChanged, mode="shadow"), state(State.SHADOW)),
    (
        PolicyChanged,
        nothing,
        lambda w: w.policy(floor_minor=2100),
        reason(1 << reasons.FLOOR),
    ),
    (
        PlanApplied,
        nothing,
        lambda w: w.whole(
            PlanApplied, changes=(ScopeChange(fields={"floor_minor": 2100}),), anyway=True
        ),
        reason(1 << reasons.FLOOR),
    ),
    (PriceApproved, manual, lambda w: w.about(PriceApproved), reason(reasons.APPROVED)),
    (PriceRejected, manual, lambda w: w.about(PriceRejected), reason(reasons.REJECTED)),
    (
        PricePinned,
        nothing,
        lambda w: w.about(PricePinned, price_minor=1777),
        quoted("in_force_minor", 1777),
    ),
    (PriceUnpinned, pinned, lambda w: w.about(PriceUnpinned), state(State.LIVE)),
    (
        PriceReported,
        nothing,
        lambda w: w.about(PriceReported, price_minor=1500),
        reason(1 << reasons.STEP),
    ),
    (PublishingHalted, nothing, lambda w: w.whole(PublishingHalted), state(State.HALTED)),
    (PublishingResumed, halted, lambda w: w.whole(PublishingResumed), state(State.LIVE)),
    *(
        (kind, nothing, lambda w, kind=kind: w.whole(kind), verdict("not_supported"))
        for kind in (PromotionScheduled,)
    ),
    (
        ExperimentStarted,
        nothing,
        lambda w: w.whole(ExperimentStarted, fields={"experiment": "e", "price_ratio": 1.1}),
        tried("waiting"),
    ),
    (ExperimentStopped, trying, lambda w: w.whole(ExperimentStopped), tried("stopped")),
    (ModelPromoted, nothing, lambda w: w.whole(ModelPromoted, model="rules"), told("model")),
]


def names(rows: list[tuple[type[Any], Prepare, Make, Shows]]) -> list[str]:
    return [row[0].__name__ for row in rows]


def two_worlds(prepare: Prepare) -> tuple[World, World]:
    worlds = World(), World()
    for world in worlds:
        prepare(world)
        world.now_ms += 60_000
    return worlds


@pytest.mark.parametrize(("kind", "prepare", "make", "shows"), ROWS, ids=names(ROWS))
def test_a_delta_changes_what_is_decided(
    kind: type[Any], prepare: Prepare, make: Make, shows: Shows
) -> None:
    without, with_it = two_worlds(prepare)
    delta = make(with_it)
    assert type(delta) is kind
    assert not shows(without, without.send())
    decided = with_it.send(delta)
    assert shows(with_it, decided)
    assert with_it.shard.digest != without.shard.digest


@pytest.mark.parametrize("kind", get_args(AnyDelta))
def test_every_kind_of_delta_has_a_row(kind: type[Any]) -> None:
    assert kind in {row[0] for row in ROWS}


@pytest.mark.parametrize(("kind", "prepare", "make", "shows"), ROWS, ids=names(ROWS))
def test_a_delta_about_what_is_not_known_is_refused_with_a_reason(
    kind: type[Any], prepare: Prepare, make: Make, shows: Shows
) -> None:
    """Nothing is known: every kind but a retailer's first is refused, naming field and fix."""
    world = World()
    world.retailer = "stranger"
    decided = world.send(make(world))
    if kind is RetailerAdded:
        assert not decided.exceptions
    else:
        refusal = only(decided.exceptions)
        assert refusal.verdict in ("unknown_listing", "rejected", "not_supported")
        assert refusal.reason.startswith("/")


SET_TYPE = [
    row
    for row in ROWS
    if row[0]
    not in (
        UnitsSold,
        RetailerAdded,
        PromotionScheduled,
    )
]


@pytest.mark.parametrize(("kind", "prepare", "make", "shows"), SET_TYPE, ids=names(SET_TYPE))
def test_an_older_fact_never_overwrites_a_newer(
    kind: type[Any], prepare: Prepare, make: Make, shows: Shows
) -> None:
    world = World()
    prepare(world)
    world.now_ms += DAY
    newer = make(world)
    world.now_ms -= DAY // 2
    older = make(world)
    world.now_ms += DAY // 2
    world.send(newer)
    refusal = only(world.send(older).exceptions)
    if kind is PriceReported:
        assert refusal.verdict == "late"  # our own decision is newer, too
    elif kind in (ListingRemoved,):
        assert refusal.verdict == "unknown_listing"
    else:
        assert refusal.verdict == "late", refusal
    assert "/observed_ms" in refusal.reason or kind is ListingRemoved


@pytest.mark.parametrize(("kind", "prepare", "make", "shows"), ROWS, ids=names(ROWS))
def test_a_command_is_answered_and_answered_alike_again(
    kind: type[Any], prepare: Prepare, make: Make, shows: Shows
) -> None:
    world = World()
    prepare(world)
    world.now_ms += 60_000
    delta = msgspec.structs.replace(make(world), command_id="c1", actor="ann")
    first = world.send(delta, lane=0).outcomes
    again = world.send(delta, lane=0)
    assert len(first) == 1
    assert (first[0].command_id, first[0].actor, first[0].kind) == ("c1", "ann", kind.__name__)
    refused = kind in (RetailerAdded, PromotionScheduled)
    assert (first[0].status == "done") is not refused
    assert again.outcomes[0] == msgspec.structs.replace(
        first[0], position=again.outcomes[0].position
    )
    assert verdicts(again) == ["duplicate"]
    # Whoever repeats a command later means the same one; another body under its id is a mistake.
    later = msgspec.structs.replace(delta, observed_ms=delta.observed_ms + 1)
    assert world.send(later, lane=0).outcomes[0].status == first[0].status
    other = msgspec.structs.replace(delta, actor="bob")
    assert world.send(other, lane=0).outcomes[0].status == "conflict"


@pytest.mark.parametrize(("kind", "prepare", "make", "shows"), ROWS, ids=names(ROWS))
def test_a_fact_from_the_future_is_refused(
    kind: type[Any], prepare: Prepare, make: Make, shows: Shows
) -> None:
    world = World()
    prepare(world)
    now_ms = world.now_ms
    world.now_ms += DAY
    delta = make(world)
    world.now_ms = now_ms
    refusal = only(world.send(delta).exceptions)
    assert refusal.verdict in ("rejected", "not_supported")
    if refusal.verdict == "rejected":
        assert refusal.reason.startswith("/observed_ms")
