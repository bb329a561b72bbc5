"""A person's word on a price counts, within legal, floor and ceiling, until the world moves on."""

from collections.abc import Callable
from typing import Any

import pytest

from engine.decided import Cause, Decided, State, quote_id
from engine.deltas import (
    CostChanged,
    ModeChanged,
    PriceApproved,
    PricePinned,
    PriceRejected,
    PriceReported,
    PriceUnpinned,
    PublishingHalted,
    PublishingResumed,
)
from tests.engine.builders import DAY, HOUR, MINUTE, World, moved, only


def manual(**policy: Any) -> World:
    world = World()
    world.send(world.policy(approval="manual", **policy))
    world.send(world.listing())
    return world


def answer(decided: Decided) -> tuple[str, str]:
    outcome = decided.outcomes[0]
    return outcome.status, outcome.detail


def say(world: World, kind: type[Any], **fields: Any) -> Decided:
    return world.send(world.about(kind, command_id=f"c{world.now_ms}", **fields), lane=0)


def test_in_manual_mode_a_proposal_waits() -> None:
    world = manual()
    assert world.state() is State.PENDING
    assert (world.price(), world.live()["proposed_minor"]) == (2000, 1871)
    assert "needs_approval" in world.live()["reasons"]


def test_an_approval_puts_the_proposal_in_force() -> None:
    world = manual()
    decided = say(world, PriceApproved)
    assert answer(decided) == ("done", "")
    assert decided.outcomes[0].price_minor == 1871
    assert (world.state(), world.price()) == (State.LIVE, 1871)
    # It stays when the world confirms it, and a new proposal waits again.
    world.send(world.stock(5))
    assert world.price() == 1871
    world.send(world.cost(1200))
    assert (world.state(), world.price()) == (State.PENDING, 1871)


def test_an_edited_approval_stands_until_the_engine_proposes_something_else() -> None:
    world = manual()
    say(world, PriceApproved, price_minor=1950)
    assert (world.state(), world.price()) == (State.LIVE, 1950)
    world.send(world.stock(5))
    assert world.price() == 1950
    world.send(world.cost(1300))
    assert (world.state(), world.price()) == (State.PENDING, 1950)


def test_an_edited_price_also_stands_in_auto_mode() -> None:
    world = World()
    world.send(world.listing())
    say(world, PriceApproved, price_minor=1950)
    world.send(world.stock(5))
    assert world.price() == 1950
    world.send(world.cost(1300))
    assert world.price() not in (1950, 1871)


@pytest.mark.parametrize(
    ("price", "bound"), [(1052, "floor"), (2600, "ceiling"), (1199, "legal minimum")]
)
@pytest.mark.parametrize("kind", [PriceApproved, PricePinned])
def test_a_persons_price_keeps_within_the_bounds(kind: type[Any], price: int, bound: str) -> None:
    world = World()
    world.send(world.policy(ceiling_minor=2500))
    world.send(world.listing(map_minor=1200 if bound == "legal minimum" else None))
    status, detail = answer(say(world, kind, price_minor=price))
    assert status == "refused"
    assert detail.startswith("/price_minor")
    assert bound in detail
    assert world.price() == 1871


def test_a_person_is_not_bound_by_step_and_rate() -> None:
    world = World()
    world.send(world.policy(step_max=0.01, changes_per_hour_max=1))
    world.send(world.listing())
    say(world, PriceApproved, price_minor=1300)
    assert world.price() == 1300


def test_without_a_cost_there_is_no_floor_and_no_word_of_a_person_counts() -> None:
    world = World()
    world.send(world.listing(cost_minor=None))
    assert world.state() is State.UNPUBLISHABLE
    status, detail = answer(say(world, PricePinned, price_minor=1900))
    assert status == "refused"
    assert "CostChanged" in detail


def test_an_approval_of_an_older_quote_is_a_conflict() -> None:
    world = manual()
    seq, index = world.live()["quote"]
    world.send(world.cost(1100))
    status, detail = answer(say(world, PriceApproved, quote_id=quote_id(0, 0, seq, index)))
    assert status == "conflict"
    assert "look again" in detail
    assert world.price() == 2000
    seq, index = world.live()["quote"]
    status, _ = answer(say(world, PriceApproved, quote_id=quote_id(0, 0, seq, index)))
    assert status == "done"
    assert world.price() == world.live()["proposed_minor"] != 2000


def test_a_rejection_keeps_the_price_until_another_is_proposed() -> None:
    world = manual()
    status, _ = answer(say(world, PriceRejected))
    assert status == "done"
    assert (world.state(), world.price()) == (State.LIVE, 2000)
    assert "rejected" in world.live()["reasons"]
    world.send(world.stock(3))
    assert world.state() is State.LIVE
    world.send(world.cost(1200))
    assert world.state() is State.PENDING
    world = World()
    world.send(world.listing())
    assert answer(say(world, PriceRejected))[0] == "conflict"  # nothing waits


def test_a_proposal_that_waits_too_long_is_made_anew() -> None:
    world = manual(approval_valid_ms=HOUR)
    old = world.live()["quote"]
    assert not world.shard.due(world.now_ms + HOUR - MINUTE)
    decided = world.send(after_ms=HOUR)
    assert decided.quotes["cause_kind"].tolist() == [Cause.TIMER]
    assert world.state() is State.PENDING
    assert world.live()["quote"] != old
    assert not len(world.send(after_ms=MINUTE).quotes)


def test_a_pin_holds_and_expires() -> None:
    world = World()
    world.send(world.listing())
    say(world, PricePinned, price_minor=1500, until_ms=world.now_ms + HOUR)
    assert (world.state(), world.price()) == (State.PINNED, 1500)
    world.send(world.cost(1100))
    assert world.price() == 1500
    decided = world.send(after_ms=HOUR)
    assert world.state() is State.LIVE
    assert decided.quotes["cause_kind"].tolist() == [Cause.TIMER]
    assert world.price() == 1800  # a step of 20 % on its way up
    world.send(after_ms=10 * MINUTE)
    assert world.price() > 1800


def test_unpinning_gives_the_price_back() -> None:
    world = World()
    world.send(world.listing())
    assert answer(say(world, PriceUnpinned))[0] == "conflict"
    say(world, PricePinned, price_minor=1800)
    world.send(after_ms=30 * DAY)
    assert world.price() == 1800
    say(world, PriceUnpinned)
    assert (world.state(), world.price()) == (State.LIVE, 1871)


def test_a_pin_into_the_past_is_refused() -> None:
    world = World()
    world.send(world.listing())
    status, detail = answer(say(world, PricePinned, price_minor=1800, until_ms=world.now_ms))
    assert status == "refused"
    assert detail.startswith("/until_ms")


def test_a_pin_that_falls_out_of_bounds_is_infeasible_and_the_price_stays() -> None:
    world = World()
    world.send(world.listing())
    say(world, PricePinned, price_minor=1500)
    world.send(world.cost(1490))
    assert (world.state(), world.price()) == (State.INFEASIBLE, 1500)
    assert "pin_out_of_bounds" in world.live()["reasons"]
    world.send(world.cost(1000))
    assert (world.state(), world.price()) == (State.PINNED, 1500)


def test_in_shadow_nothing_is_put_in_force() -> None:
    world = World(mode="shadow")
    decided = world.send(world.listing())
    assert (world.state(), world.price()) == (State.SHADOW, 2000)
    assert world.live()["proposed_minor"] == 1871
    assert not len(moved(decided))
    for kind, fields in ((PriceApproved, {}), (PricePinned, {"price_minor": 1900})):
        status, detail = answer(say(world, kind, **fields))
        assert status == "conflict"
        assert "ModeChanged" in detail
    world.send(world.about(PriceReported, price_minor=1990))
    assert world.price() == 1990
    world.send(world.whole(ModeChanged, mode="live"))
    assert (world.state(), world.price()) == (State.LIVE, 1871)
    world.send(world.whole(ModeChanged, mode="shadow"))
    assert (world.state(), world.price()) == (State.SHADOW, 1871)


def test_a_halt_stops_one_channel_and_a_resume_of_all_ends_it() -> None:
    world = World()
    world.send(world.listing(), world.listing(channel="store"))
    world.send(world.whole(PublishingHalted, channel="store", reason="stocktaking"))
    for channel in ("shop", "store"):
        world.send(world.about(CostChanged, channel=channel, cost_minor=1200))
    assert world.price() != 1871
    assert world.live(channel="store")["state"] == "halted"
    assert world.live(channel="store")["in_force_minor"] == 1871
    decided = say(world, PriceApproved, channel="store")
    assert answer(decided)[0] == "conflict"
    world.send(world.whole(PublishingResumed))
    assert world.live(channel="store")["in_force_minor"] == 2245


def test_a_kill_switch_in_the_commands_lane_stops_what_comes_with_it() -> None:
    """Commands come first in a microbatch, so nothing of the flood behind gets out."""
    world = World()
    world.send(world.listing())
    world.send(world.whole(PublishingHalted, command_id="stop"), lane=0)
    decided = world.send(world.cost(1200))
    assert not len(moved(decided))
    assert world.state() is State.HALTED


def test_what_the_channel_reports_is_believed_after_our_last_change() -> None:
    world = World()
    world.send(world.listing())
    refusal = only(
        world.send(
            world.about(PriceReported, price_minor=2000, observed_ms=world.now_ms - 1)
        ).exceptions
    )
    assert refusal.verdict == "late"
    world.now_ms += MINUTE
    decided = world.send(world.about(PriceReported, price_minor=1860))
    quote = decided.quotes[0]
    assert (quote["previous_minor"], quote["in_force_minor"]) == (1860, 1871)  # and changed back


def unpublished(world: World) -> None:
    world.send(world.policy(publish=False))


def without_a_rate(world: World) -> None:
    world.send(world.listing(kvi=True, own_rival_names=("us",)))
    world.send(world.rival(1500, currency="USD"))
    assert world.state() is State.UNPUBLISHABLE


def pinned(world: World) -> None:
    say(world, PricePinned, price_minor=1777, until_ms=world.now_ms + 30 * DAY)


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (unpublished, "publish"),
        (without_a_rate, "unpublishable"),
        (pinned, "pinned at 1777"),
    ],
)
def test_an_approval_that_could_not_come_in_force_is_a_conflict(
    prepare: Callable[[World], None], why: str
) -> None:
    world = World()
    world.send(world.listing())
    prepare(world)
    world.drain()
    before = world.price()
    status, detail = answer(say(world, PriceApproved, price_minor=1900))
    assert status == "conflict"
    assert detail.startswith("/sku")
    assert why in detail
    assert world.price() == before


def test_an_infeasible_listing_takes_no_approval_before_it_is_decided_anew() -> None:
    world = World()
    world.send(world.listing())
    world.send(world.policy(ceiling_minor=1000))
    world.drain()
    assert world.state() is State.INFEASIBLE
    lifted, approved = (
        world.policy(ceiling_minor=5000),
        world.about(PriceApproved, price_minor=1900, command_id="c"),
    )
    status, detail = answer(world.send(lifted, approved))
    assert status == "conflict"
    assert "infeasible" in detail
    world.drain()
    assert answer(say(world, PriceApproved, price_minor=1900))[0] == "done"
    assert world.price() == 1900


def test_no_approval_outlives_a_pin() -> None:
    """Given while pinned, it would come in force when the pin expires, a month later."""
    world = World()
    world.send(world.listing())
    pinned(world)
    say(world, PriceApproved, price_minor=1500)
    world.send(after_ms=30 * DAY + MINUTE)
    assert world.state() is State.LIVE
    assert world.price() != 1500
    assert "approved" not in world.live()["reasons"]


def test_a_pin_that_expired_no_longer_stands_against_an_approval() -> None:
    world = World()
    world.send(world.listing())
    pinned(world)
    approved = world.about(PriceApproved, price_minor=1900, command_id="c")
    assert answer(world.send(approved, after_ms=30 * DAY + MINUTE))[0] == "done"
    assert world.price() == 1900


@pytest.mark.parametrize("approval", ["auto", "manual"])
def test_an_old_approval_does_not_count_again_when_the_channel_reports_another_price(
    approval: str,
) -> None:
    """Found by the state machine: in shadow nothing moves, and live the old word came back."""
    world = World()
    world.send(world.policy(approval=approval))
    world.send(world.listing())
    assert answer(say(world, PriceApproved, price_minor=1950))[0] == "done"
    world.send(world.whole(ModeChanged, mode="shadow"))
    world.send(world.about(PriceReported, price_minor=1500), after_ms=MINUTE)
    decided = world.send(world.whole(ModeChanged, mode="live"))
    assert "approved" not in world.live()["reasons"]
    if approval == "manual":
        assert (world.state(), world.price()) == (State.PENDING, 1500)
        assert not len(moved(decided))
    else:
        assert world.price() == 1800  # one step
