"""A plan says exactly what applying it does; a fork never touches the shard it was taken from."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decided import State
from engine.deltas import PlanApplied, Planned, ScopeChange
from engine.errors import NotSupported, RejectedInput
from engine.foresight import Foreseen, plan, settle, told, what_if
from engine.shard import Shard
from engine.suppositions import Case, Selection
from kernels import reasons
from repricer import batch_of
from tests.engine.builders import DAY, HOUR, MINUTE, World, only
from tests.engine.test_recovery import cut, decided_all, history

CHANGES: list[tuple[ScopeChange, ...]] = [
    (ScopeChange(fields={"min_margin": 0.3}),),
    (ScopeChange(fields={"min_margin": 0.2, "step_max": 0.05, "endings": ["99"]}),),
    (ScopeChange(fields={"approval": "manual", "max_discount": 0.1}),),
    (ScopeChange(fields={"changes_per_hour_max": 1, "step_max": 1.0}),),
    (ScopeChange(fields={"prior_elasticity": -4.0}),),
    (ScopeChange(fields={"learning": True}),),
    (
        ScopeChange(scope="category", key="c1", fields={"ceiling_minor": 1700}),
        ScopeChange(scope="tag", key="sale", priority=3, fields={"min_margin": 0.4}),
    ),
    (ScopeChange(scope="listing", key="shop\x1fS3", fields={"floor_minor": 1900}),),
    (ScopeChange(fields={"publish": False}),),
]


def applied(seen: Foreseen, changes: tuple[ScopeChange, ...], now_ms: int) -> PlanApplied:
    return PlanApplied(
        retailer="acme",
        command_id="p-1",
        actor="ada",
        changes=changes,
        observed_ms=now_ms,
        planned=seen.planned,
    )


def apply(shard: Shard, delta: PlanApplied, now_ms: int) -> tuple[list[np.ndarray], str]:
    """Apply a plan in the commands lane and all work after it; return quotes and the status."""
    decided = shard.apply(batch_of([delta], after=shard, lane=0), now_ms)
    shard.record(decided)
    quotes, (outcome,) = [decided.quotes], decided.outcomes
    while shard.backlog:
        decided = shard.apply(batch_of([], after=shard), now_ms)
        shard.record(decided)
        quotes.append(decided.quotes)
    return quotes, outcome.status


def whole(shard: Shard) -> bytes:
    """Return the state as one part; the shard's next checkpoint will be a base."""
    shard.checkpoint_restart()
    return shard.checkpoint_close()


def shop(listings: int = 60, **policy: Any) -> World:
    world = World()
    world.send(world.policy(**{"step_max": 1.0, **policy}))
    world.send(
        *(
            world.listing(f"S{number}", price_minor=1900 + number, category=f"c{number % 3}")
            for number in range(listings)
        )
    )
    world.drain()
    world.send(after_ms=2 * HOUR)
    return world


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.2, 1.0),
    changes=st.sampled_from(CHANGES),
    waits=st.lists(st.integers(1, 5000), max_size=4),
)
def test_applying_does_exactly_what_the_plan_said(
    seed: int, share: float, changes: tuple[ScopeChange, ...], waits: list[int]
) -> None:
    """Bit for bit, though time passed and heartbeats were decided; and where not, it is refused.

    A history of every kind of delta goes before. The shard is compared with itself afterwards.
    """
    deltas = history(seed)
    pieces = cut(deltas[: int(share * len(deltas))], set(range(30, len(deltas), 30)))
    shard = Shard()
    decided_all(shard, pieces)
    seen = plan(shard.fork(), "acme", changes)
    settle(shard)  # the owner decides what waits, as the fork did
    now_ms = shard.decided_ms
    for wait_ms in waits:
        now_ms += wait_ms
        shard.record(shard.apply(batch_of([], after=shard), now_ms))
    before = whole(shard)
    quotes, status = apply(shard, applied(seen, changes, now_ms), now_ms)
    if now_ms < seen.planned.exact_until_ms:
        assert status == "done"
        assert np.concatenate(quotes).tobytes() == seen.quotes.tobytes()
    else:
        assert status == "conflict"
        assert Shard.restore([before]).seq == shard.seq - len(quotes)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 10_000),
    share=st.floats(0.1, 1.0),
    changes=st.sampled_from(CHANGES),
    ratio=st.floats(0.5, 2.0),
)
def test_a_fork_leaves_the_shard_as_it_was(
    seed: int, share: float, changes: tuple[ScopeChange, ...], ratio: float
) -> None:
    """Same digest, same state, same next increment of a checkpoint, same decisions afterwards."""
    deltas = history(seed)
    pieces = cut(deltas, set(range(25, len(deltas), 25)))
    stop = max(1, int(share * len(pieces)))
    shard, twin = Shard(), Shard()
    for each in (shard, twin):
        decided_all(each, pieces[: stop // 2])
        each.checkpoint_close()
        decided_all(each, pieces[stop // 2 : stop])
    digest = shard.digest
    fork = shard.fork()
    assert fork.digest == digest
    plan(fork, "acme", changes)
    assert fork.digest != digest
    case = Case(cost_ratio=ratio, rival_ratio=ratio, rival_minor=1400, changes=changes)
    try:
        what_if(shard.fork(), "acme", Selection(), case)
    except RejectedInput as error:
        assert error.pointer == "/listings"  # the history had removed them all
    assert shard.digest == digest
    assert shard.checkpoint_close() == twin.checkpoint_close()
    for each in (shard, twin):
        decided_all(each, pieces[stop:])
    assert shard.digest == twin.digest
    assert whole(shard) == whole(twin)


def test_a_delta_in_between_is_a_conflict_that_names_both_places() -> None:
    world = shop()
    changes = CHANGES[0]
    seen = plan(world.shard.fork(), "acme", changes)
    world.send(world.stock(5, "S1"))
    decided = world.send(applied(seen, changes, world.now_ms), lane=0)
    (outcome,) = decided.outcomes
    assert outcome.status == "conflict"
    assert f"delta {seen.planned.last_delta}" in outcome.detail
    assert f", {seen.planned.last_delta + 1}:" in outcome.detail
    assert not len(decided.quotes)
    # Said anyway, it is applied.
    anyway = PlanApplied(
        retailer="acme",
        command_id="p-2",
        changes=changes,
        observed_ms=world.now_ms,
        planned=seen.planned,
        anyway=True,
    )
    (outcome,) = world.send(anyway, lane=0).outcomes
    assert outcome.status == "done"


def test_a_delta_beside_it_is_a_conflict() -> None:
    world = shop()
    seen = plan(world.shard.fork(), "acme", CHANGES[0])
    decided = world.send(applied(seen, CHANGES[0], world.now_ms), world.stock(5, "S1"), lane=0)
    assert decided.outcomes[0].status == "conflict"


def test_an_old_plan_is_applied_by_nobody() -> None:
    world = shop()
    seen = plan(world.shard.fork(), "acme", CHANGES[0])
    for number, anyway in enumerate((False, True)):
        world.now_ms += HOUR
        delta = PlanApplied(
            retailer="acme",
            command_id=f"p-{number}",
            changes=CHANGES[0],
            observed_ms=world.now_ms,
            planned=seen.planned,
            anyway=anyway,
        )
        (outcome,) = world.send(delta, lane=0).outcomes
        assert outcome.status == "conflict"
        assert "an hour old" in outcome.detail


def test_a_time_at_which_prices_move_by_themselves_ends_a_plan() -> None:
    world = shop()
    world.send(world.listing("K", kvi=True, own_rival_names=("us",)))
    world.send(world.rival(1500, sku="K"))
    seen = plan(world.shard.fork(), "acme", CHANGES[0])
    assert world.now_ms < seen.planned.exact_until_ms <= world.now_ms + DAY
    world.send(after_ms=seen.planned.exact_until_ms - world.now_ms - 10)
    late = seen.planned.exact_until_ms - seen.planned.planned_ms > HOUR
    (outcome,) = world.send(applied(seen, CHANGES[0], world.now_ms), after_ms=20, lane=0).outcomes
    assert outcome.status == "conflict"
    assert ("an hour old" if late else "a time has come") in outcome.detail


def test_a_plan_is_set_whole_or_not_at_all() -> None:
    world = shop()
    wrong = (ScopeChange(fields={"min_margin": 0.3}), ScopeChange(scope="tag", key="", fields={}))
    decided = world.send(
        PlanApplied(
            retailer="acme",
            changes=wrong,
            observed_ms=world.now_ms,
            planned=Planned(
                last_command=world.shard.last_command,
                last_delta=world.shard.last_delta,
                planned_ms=world.now_ms,
                exact_until_ms=2**53,
            ),
        ),
        lane=0,
    )
    assert only(decided.exceptions).reason.startswith("/changes/1/key: ")
    assert not decided.catalogue
    assert plan(world.shard.fork(), "acme", wrong[:1]).asked == 60


@pytest.mark.parametrize(
    ("fields", "error"),
    [({"min_margn": 0.3}, RejectedInput), ({"experiments": 1}, NotSupported)],
)
def test_what_the_shard_would_refuse_cannot_be_planned(
    fields: dict[str, object], error: type[Exception]
) -> None:
    world = shop()
    with pytest.raises(error, match="/changes/0/fields/") as raised:
        plan(world.shard.fork(), "acme", (ScopeChange(fields=fields),))
    assert raised.type is error


def test_the_breaker_does_not_count_what_a_plan_moves() -> None:
    """The same change without a plan trips it; what was seen before is what was wanted."""
    changes = (ScopeChange(fields={"ceiling_minor": 1300}),)
    world, other = shop(200), shop(200)
    seen = plan(world.shard.fork(), "acme", changes)
    assert set(seen.after["state"]) == {State.LIVE}
    assert (seen.after["in_force_minor"] == 1300).all()
    quotes, status = apply(world.shard, applied(seen, changes, world.now_ms + 1), world.now_ms + 1)
    assert status == "done"
    assert (np.concatenate(quotes)["in_force_minor"] == 1300).all()
    assert State.HELD in other.send(other.policy(ceiling_minor=1300)).quotes["state"]
    # The exemption is for one look: what moves next is counted again.
    world.send(after_ms=MINUTE)
    world.send(world.policy(ceiling_minor=1080))
    assert world.state("S5") in (State.HELD, State.HALTED)


def test_a_plan_is_told_with_its_guardrails_and_its_largest_moves() -> None:
    world = shop()
    changes = (ScopeChange(scope="category", key="c1", fields={"ceiling_minor": 1700}),)
    fork = world.shard.fork()
    seen = plan(fork, "acme", changes)
    document = told(fork, seen, 5)
    assert document["listings"] == 20
    assert document["moved"] == document["in_force"] == document["lowered"] == 20
    assert document["guardrails"]["ceiling"] == 20
    assert document["states"] == {"live": 20}
    assert len(document["moves"]) == 5
    sizes = [abs(move["change"]) for move in document["moves"]]
    assert sizes == sorted(sizes, reverse=True)
    first = document["moves"][0]
    assert first["after_minor"] == 1700 == first["ceiling_minor"]
    assert first["guardrail"] == "ceiling"
    assert first["before_minor"] == world.price(first["sku"])


def test_a_plan_counts_whom_each_change_is_about() -> None:
    """Whether or not a price moves; a name that nobody has is about nobody."""
    world = shop()
    world.send(world.listing("T", tags=("new",), category="c1"))

    def counts(*places: tuple[str, str]) -> tuple[int, tuple[int, ...]]:
        changes = tuple(
            ScopeChange(scope=scope, key=key, fields={"publish": True})  # type: ignore[arg-type]
            for scope, key in places
        )
        seen = plan(world.shard.fork(), "acme", changes)
        return seen.asked, seen.concerned

    assert counts(("retailer", "")) == (61, (61,))
    assert counts(("category", "c1"), ("tag", "new")) == (21, (21, 1))
    assert counts(("channel", "shop"), ("listing", "shop\x1fT")) == (61, (61, 1))
    nobody = [(scope, "nope") for scope in ("category", "tag", "channel")]
    assert counts(*nobody, ("listing", "shop\x1fnope")) == (0, (0, 0, 0, 0))


def test_what_waits_for_a_person_is_told_as_proposed() -> None:
    world = shop(approval="manual")
    fork = world.shard.fork()
    document = told(fork, plan(fork, "acme", (ScopeChange(fields={"ceiling_minor": 1700}),)), 3)
    assert document["in_force"] == 0
    assert document["proposed"] == document["moved"] > 0


def test_dearer_costs_raise_prices_and_only_those_selected() -> None:
    world = shop()
    seen = what_if(
        world.shard.fork(), "acme", Selection(category="c2"), Case(name="dear", cost_ratio=1.3)
    )
    assert seen.asked == 20
    assert len(seen.rows) == 20
    assert (seen.after["in_force_minor"] > seen.before["in_force_minor"]).all()
    assert (seen.after["cost_minor"] == 1300).all()


def test_a_rival_at_a_price_binds_a_known_value_item() -> None:
    world = shop(10)
    world.send(world.listing("K", kvi=True, own_rival_names=("us",)))
    world.send(world.rival(2100, sku="K"), world.rival(2500, sku="K", rival="eve"))
    selection = Selection(skus=("K",))
    for case in (Case(rival_minor=1300), Case(rival_ratio=1300 / 2100)):
        seen = what_if(world.shard.fork(), "acme", selection, case)
        assert seen.after["rival_minor"].tolist() == [1300]
        assert seen.after["binding"].tolist() == [reasons.KVI]
    # One who had no rival gets one.
    lone = Selection(skus=("S1", "S2"))
    fork = world.shard.fork()
    what_if(fork, "acme", lone, Case(rival_minor=1500, cost_ratio=1.2))
    told_of = fork.live(world.key("S1"))
    assert told_of is not None
    assert (told_of["rival_minor"], told_of["rivals"]) == (1500, 1)


def test_a_what_if_of_nothing_moves_nothing() -> None:
    world = shop()
    assert not len(what_if(world.shard.fork(), "acme", Selection(), Case()).rows)


def test_a_selection_of_nothing_is_refused() -> None:
    world = shop()
    with pytest.raises(RejectedInput, match="selects no listing"):
        what_if(world.shard.fork(), "acme", Selection(channel="nowhere"), Case(cost_ratio=1.1))


def test_a_learnt_price_answers_a_dearer_cost() -> None:
    """With learning, a supposed cost makes rows decide anew, as a real one does."""
    world = shop(40, learning=True)
    for day in range(12):
        world.send(
            *(
                world.sold(3 + (number + day) % 4, f"S{number}", event_id=f"{day}-{number}")
                for number in range(40)
            ),
            after_ms=DAY,
        )
        world.drain()
    real = world.shard.fork()
    seen = what_if(world.shard.fork(), "acme", Selection(), Case(cost_ratio=1.1))
    world.shard = real
    world.send(*(world.cost(1100, f"S{number}") for number in range(40)), after_ms=0)
    world.drain()
    prices = {int(quote["listing"]): int(quote["in_force_minor"]) for quote in seen.after}
    assert len(prices) > 20
    for key, price in prices.items():
        live = world.shard.live(key)
        assert live is not None
        assert live["in_force_minor"] == price


def test_a_rival_of_another_retailer_is_never_touched() -> None:
    world = shop(5)
    world.add_retailer("other")
    mine = world.retailer
    world.retailer = "other"
    world.send(world.listing("S1"), world.rival(1700, sku="S1"))
    world.retailer = mine
    fork = world.shard.fork()
    what_if(fork, "acme", Selection(), Case(rival_minor=1000, cost_ratio=2.0))
    world.retailer = "other"
    before, after = world.live("S1"), fork.live(world.key("S1"))
    assert after is not None
    for name in ("rival_minor", "cost_minor", "in_force_minor"):
        assert after[name] == before[name]
