"""The breaker stops an engine that runs away, and a feed of wrong costs, in time."""

from typing import Any

import numpy as np
import pytest

from engine import pricing
from engine.decided import Decided, State
from engine.deltas import FeesChanged, ModeChanged, PublishingResumed, RateChanged
from tests.engine.builders import HOUR, MINUTE, World, moved, only, verdicts

LISTINGS = 200


def shop(listings: int = LISTINGS, **fields: Any) -> World:
    """Return a world with listings that were priced some time ago, one at a time."""
    world = World()
    world.send(world.policy(step_max=1.0, endings=[]))
    for start in range(0, listings, 500):
        world.send(
            *(
                world.listing(f"S{number}", price_minor=1871, cost_minor=1000, **fields)
                for number in range(start, min(start + 500, listings))
            )
        )
    world.send(after_ms=20 * MINUTE)
    return world


def breaker_told(decided: Decided) -> list[str]:
    return [
        reason
        for change in decided.catalogue
        if change.what == "breaker"
        for reason in change.fields["reasons"]
    ]


def count(decided: Decided, state: State) -> int:
    return int((decided.quotes["state"] == state).sum())


def test_a_mass_move_is_held_and_the_retailer_halted() -> None:
    world = shop()
    before = {number: world.price(f"S{number}") for number in range(LISTINGS)}
    decided = world.send(world.policy(ceiling_minor=1300))
    assert not len(moved(decided))
    assert count(decided, State.HELD) == LISTINGS
    assert "breaker_moved_share" in breaker_told(decided)[0]
    assert (decided.quotes["proposed_minor"] == 1300).all()
    world.drain()
    assert {number: world.price(f"S{number}") for number in range(LISTINGS)} == before
    # Nothing moves while he is halted, whatever is heard.
    decided = world.send(world.cost(1200, "S1"), after_ms=HOUR)
    assert not len(moved(decided))
    assert world.state("S1") is State.HALTED


def test_a_resume_lets_pass_what_was_held_and_no_more() -> None:
    world = shop()
    world.send(world.policy(ceiling_minor=1300))
    world.drain()
    decided = world.send(world.whole(PublishingResumed))
    assert len(moved(decided)) == LISTINGS
    assert (decided.quotes["state"] == State.LIVE).all()
    # The next mass move is held again: the word of a person covers what he saw.
    decided = world.send(world.policy(ceiling_minor=1000, floor_minor=900), after_ms=MINUTE)
    assert not len(moved(decided))


def test_a_resume_does_not_cover_another_move_than_the_one_that_was_held() -> None:
    world = shop()
    world.send(world.policy(ceiling_minor=1500))
    world.drain()
    world.send(world.policy(ceiling_minor=1100))
    world.drain()
    decided = world.send(world.whole(PublishingResumed))
    assert not len(moved(decided))
    assert count(decided, State.HELD) == LISTINGS


def test_few_listings_may_do_as_they_like() -> None:
    """The shares count only above 20 listings."""
    world = shop(20)
    decided = world.send(world.policy(ceiling_minor=1300))
    assert len(moved(decided)) == 20


def test_small_moves_in_one_window_add_up() -> None:
    """Three moves of 7 % within five minutes weigh as one of 20 %."""
    world = shop()
    ceilings = (1740, 1620, 1500)
    decided = [world.send(world.policy(ceiling_minor=c), after_ms=MINUTE) for c in ceilings]
    assert [len(moved(one)) for one in decided] == [LISTINGS, LISTINGS, 0]
    assert count(decided[2], State.HELD) == LISTINGS


def test_the_same_moves_an_hour_apart_pass() -> None:
    world = shop()
    ceilings = (1740, 1620, 1500)
    decided = [world.send(world.policy(ceiling_minor=c), after_ms=HOUR) for c in ceilings]
    assert [len(moved(one)) for one in decided] == [LISTINGS] * 3


def test_a_trickle_is_stopped_at_the_threshold() -> None:
    """Where rows trickle, no more than 2 % (or 20) move before the retailer is stopped."""
    world = shop()
    for number in range(LISTINGS):
        key = f"shop\x1fS{number}"
        world.send(world.policy(scope="listing", key=key, ceiling_minor=1300), after_ms=500)
        if world.shard._memory.retailers.table["tripped"][0]:
            break
    moved_far = [n for n in range(LISTINGS) if world.price(f"S{n}") == 1300]
    assert len(moved_far) == 20


def test_arrivals_on_floors_trip_even_when_moves_are_small() -> None:
    world = shop(400)
    decided = world.send(world.policy(floor_minor=1900))
    assert not len(moved(decided))
    assert "breaker_floor_share" in breaker_told(decided)[0]


def test_moves_of_the_size_of_an_accepted_change_of_fees_pass() -> None:
    world = shop()
    decided = world.send(world.whole(FeesChanged, channel="shop", commission=0.35))
    assert len(moved(decided)) == LISTINGS
    assert (np.abs(decided.quotes["in_force_minor"] / 1871 - 1) > 0.15).all()
    assert not breaker_told(decided)


def test_moves_beyond_an_accepted_change_of_cost_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cost that rises by 10 % explains a move of 10 %, not one to double the price."""
    world = shop()
    honest = pricing.price

    def doubled(inputs: np.ndarray) -> np.ndarray:
        priced = honest(inputs)
        priced["price_minor"] *= 2
        return priced

    monkeypatch.setattr(pricing, "price", doubled)
    decided = world.send(*(world.cost(1100, f"S{number}") for number in range(LISTINGS)))
    assert not len(moved(decided))
    assert count(decided, State.HELD) == LISTINGS


def test_moves_with_a_rate_pass() -> None:
    world = World()
    policy = world.policy(step_max=1.0, kvi_rival_ratio_max=1.0, rate_stale_ms=30 * 24 * HOUR)
    assert not world.send(policy).exceptions
    world.send(world.whole(RateChanged, currency="USD", into="EUR", rate=1.0))
    skus = [f"S{number}" for number in range(100)]
    own: dict[str, Any] = {"kvi": True, "own_rival_names": ("us",)}
    world.send(*(world.listing(sku, price_minor=1800, **own) for sku in skus))
    world.send(
        *(world.rival(1800, sku=sku, currency="USD", rival="bob") for sku in skus), after_ms=HOUR
    )
    world.send(after_ms=20 * MINUTE)
    decided = world.send(world.whole(RateChanged, currency="USD", into="EUR", rate=0.75))
    assert len(moved(decided)) == 100
    assert (decided.quotes["in_force_minor"] < 0.85 * decided.quotes["previous_minor"]).all()
    assert not breaker_told(decided)


@pytest.mark.parametrize(("currency", "price"), [("USD", 1800), (None, 1350)])
def test_moves_with_a_reference_in_another_currency_do_not_pass(
    currency: str | None, price: int
) -> None:
    """A feed that calls euros dollars moves everything by a rate that nobody changed."""
    world = World()
    policy = world.policy(step_max=1.0, kvi_rival_ratio_max=1.0, rate_stale_ms=30 * 24 * HOUR)
    assert not world.send(policy).exceptions
    world.send(world.whole(RateChanged, currency="USD", into="EUR", rate=0.75))
    world.send(world.whole(RateChanged, currency="GBP", into="EUR", rate=1.25))
    skus = [f"S{number}" for number in range(100)]
    own: dict[str, Any] = {"kvi": True, "own_rival_names": ("us",)}
    world.send(*(world.listing(sku, price_minor=1800, **own) for sku in skus))
    world.send(*(world.rival(1440, sku=sku, currency="GBP") for sku in skus), after_ms=HOUR)
    world.send(after_ms=20 * MINUTE)
    decided = []
    for hour in range(4):
        # Some rate changes, too, but not from the old currency's to the new one's.
        world.now_ms += HOUR + MINUTE
        rate = world.whole(RateChanged, currency="USD", into="EUR", rate=0.751 + hour / 1000)
        offers = (world.rival(price, sku=sku, currency=currency) for sku in skus)
        decided.append(world.send(rate, *offers))
    assert not any(len(moved(one)) for one in decided)
    assert any(breaker_told(one) for one in decided)


def test_a_rate_explains_no_move_of_a_listing_that_follows_no_rival() -> None:
    world = shop(kvi=False)
    world.send(world.whole(RateChanged, currency="USD", into="EUR", rate=1.0))
    offers = [world.rival(1800, sku=f"S{n}", currency="USD") for n in range(LISTINGS)]
    world.send(*offers)
    world.send(*(world.cost(1001, f"S{number}") for number in range(LISTINGS)), after_ms=HOUR)
    world.send(after_ms=20 * MINUTE)
    rate = world.whole(RateChanged, currency="USD", into="EUR", rate=0.7)
    decided = [world.send(rate, world.policy(ceiling_minor=1400)), *world.drain()]
    assert any(breaker_told(one) for one in decided)
    assert all(world.price(f"S{number}") > 1700 for number in range(LISTINGS))


def test_an_accepted_cost_that_takes_several_steps_trips_nothing() -> None:
    """Forty costs rise by two thirds, and each price follows in steps of a fifth."""
    world = shop(400)
    world.send(world.policy(step_max=0.2))
    world.drain()
    world.send(after_ms=HOUR)
    decided = [world.send(*(world.cost(1700, f"S{number}") for number in range(40)))]
    assert not decided[0].exceptions
    for _ in range(6):
        decided.append(world.send(after_ms=10 * MINUTE))
    assert not any(breaker_told(one) for one in decided)
    assert world.price("S1") > 1.5 * 1871
    assert sum(len(moved(one)) for one in decided) > 80
    # What the cost explained is used up: another such move is nobody's word.
    decided = [world.send(world.policy(ceiling_minor=2000), after_ms=HOUR)]
    decided += world.drain()
    assert any(breaker_told(one) for one in decided)


def test_a_release_ends_where_the_move_is_no_longer_wanted() -> None:
    """A wrong ceiling trips, is taken back, and is resumed; a month later it is wrong again."""
    world = shop()
    world.send(world.policy(ceiling_minor=1300))
    world.drain()
    world.send(world.policy(ceiling_minor=None))
    world.drain()
    world.send(world.whole(PublishingResumed))
    world.drain()
    decided = [world.send(world.policy(ceiling_minor=1300), after_ms=30 * 24 * HOUR)]
    decided += world.drain()
    assert not any(len(moved(one)) for one in decided)
    assert any(breaker_told(one) for one in decided)


def test_a_release_that_was_not_used_within_an_hour_ends() -> None:
    world = shop()
    world.send(world.policy(ceiling_minor=1300))
    world.drain()
    world.send(world.whole(ModeChanged, mode="shadow"))
    world.drain()
    world.send(world.whole(PublishingResumed))
    world.drain()
    decided = [world.send(world.whole(ModeChanged, mode="live"), after_ms=2 * HOUR)]
    decided += world.drain()
    assert not any(len(moved(one)) for one in decided)
    assert any(breaker_told(one) for one in decided)


def test_first_prices_pass_however_many() -> None:
    world = World()
    decided = world.send(*(world.listing(f"S{number}", price_minor=None) for number in range(300)))
    assert count(decided, State.LIVE) == 300
    assert not breaker_told(decided)


def test_one_retailer_trips_alone() -> None:
    world = shop()
    world.add_retailer("other")
    world.retailer = "other"
    world.send(world.listing("X", price_minor=1871))
    world.retailer = "acme"
    world.send(world.policy(ceiling_minor=1300))
    world.drain()
    world.retailer = "other"
    decided = world.send(world.cost(1400, "X"))
    assert len(moved(decided)) == 1


@pytest.mark.parametrize("window_ms", [MINUTE, 20 * MINUTE])
def test_a_window_of_another_length_begins_anew(window_ms: int) -> None:
    world = shop()
    world.send(world.policy(ceiling_minor=1850))
    world.send(world.policy(breaker_window_ms=window_ms))
    ceilings = (1740, 1620, 1500)
    decided = [world.send(world.policy(ceiling_minor=c), after_ms=MINUTE // 4) for c in ceilings]
    assert count(decided[-1], State.HELD) == LISTINGS


# ----- bugs of our own, injected -----------------------------------------------------------------


def divided_by_100(inputs: np.ndarray, priced: np.ndarray) -> None:
    priced["price_minor"] = np.maximum(priced["price_minor"] // 100, 1)


def times_100(inputs: np.ndarray, priced: np.ndarray) -> None:
    priced["price_minor"] *= 100


def at_the_floor(inputs: np.ndarray, priced: np.ndarray) -> None:
    priced["price_minor"] = inputs["floor_minor"]


def a_penny(inputs: np.ndarray, priced: np.ndarray) -> None:
    priced["price_minor"] = 1


def swapped_rows(inputs: np.ndarray, priced: np.ndarray) -> None:
    priced["price_minor"] = np.where(np.arange(len(priced)) % 2 == 0, 1200, 3000)


@pytest.mark.parametrize("bug", [divided_by_100, times_100, at_the_floor, a_penny, swapped_rows])
def test_an_injected_bug_meets_a_full_reprice_and_nothing_gets_out(
    bug: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundredth of a whole catalogue must not get a wrong price; here nothing does."""
    world = shop(600)
    honest = pricing.price

    def wrong(inputs: np.ndarray) -> np.ndarray:
        priced = honest(inputs)
        bug(inputs, priced)
        return priced

    monkeypatch.setattr(pricing, "price", wrong)
    decided = [world.send(world.policy(min_margin=0.06)), *world.drain()]
    assert sum(len(moved(one)) for one in decided) == 0
    assert any(breaker_told(one) for one in decided)


def test_what_a_part_of_big_work_shows_is_expected_of_the_rest() -> None:
    """Of 6,000 listings 5,400 may move, and the first 4,096 all would: that is told at once."""
    world = shop(6000)
    world.send(world.policy(breaker_moved_share=0.9, breaker_floor_share=1.0))
    decided = [world.send(world.policy(ceiling_minor=1300)), *world.drain()]
    assert sum(len(moved(one)) for one in decided) == 0
    assert "6000 of 6000" in breaker_told(decided[0])[0]


# ----- costs -------------------------------------------------------------------------------------


def test_a_feed_of_wrong_costs_is_quarantined() -> None:
    world = shop()
    decided = world.send(*(world.cost(10, f"S{number}") for number in range(LISTINGS)))
    assert verdicts(decided) == ["quarantined"] * LISTINGS
    assert "PublishingResumed" in decided.exceptions[0].reason
    assert world.live("S0")["cost_minor"] == 1000


def test_a_trickle_of_wrong_costs_is_quarantined_from_a_fifth_on() -> None:
    world = shop()
    refused = 0
    for start in range(0, LISTINGS, 10):
        costs = (world.cost(500, f"S{number}") for number in range(start, start + 10))
        refused += len(world.send(*costs, after_ms=1000).exceptions)
    assert refused == LISTINGS - LISTINGS // 5


def test_after_a_resume_right_costs_are_taken() -> None:
    world = shop()
    costs = [1300 for _ in range(LISTINGS)]
    world.send(*(world.cost(cost, f"S{n}") for n, cost in enumerate(costs)))
    world.send(world.whole(PublishingResumed))
    decided = world.send(*(world.cost(cost, f"S{n}") for n, cost in enumerate(costs)))
    assert not decided.exceptions
    assert world.live("S7")["cost_minor"] == 1300


def test_a_listing_that_brings_a_shocking_cost_changes_in_nothing() -> None:
    world = shop()
    world.send(*(world.cost(10, f"S{number}") for number in range(LISTINGS)))
    decided = world.send(world.listing("S1", cost_minor=10, title="new title"))
    assert verdicts(decided) == ["quarantined"]
    assert world.live("S1")["title"] == ""
    assert world.live("S1")["cost_minor"] == 1000


@pytest.mark.parametrize("cost_minor", [12_000, 120])
def test_a_cost_that_leaps_moves_no_price_until_a_person_resumes(cost_minor: int) -> None:
    """A point lost or gained on the way: the floor would carry the price past its step."""
    world = World()
    world.send(world.listing(price_minor=2000, cost_minor=1200))
    before = world.price()
    decided = world.send(world.cost(cost_minor))
    refused = only(decided.exceptions)
    assert refused.verdict == "quarantined"
    assert refused.reason.startswith("/cost_minor: ")
    assert "cost_shock_factor" in refused.reason
    assert (world.price(), world.live()["cost_minor"]) == (before, 1200)
    told = world.send(world.listing(cost_minor=cost_minor))
    assert only(told.exceptions).verdict == "quarantined"
    assert world.live()["cost_minor"] == 1200
    world.send(world.cost(1250))  # a usual one is heard meanwhile
    assert world.live()["cost_minor"] == 1250
    world.send(world.whole(PublishingResumed))
    world.send(world.cost(cost_minor))
    assert world.live()["cost_minor"] == cost_minor
    world.send(world.cost(1200), after_ms=2 * HOUR)
    assert world.live()["cost_minor"] == cost_minor


def test_costs_that_triple_are_believed() -> None:
    world = World()
    world.send(world.listing(price_minor=2000, cost_minor=500))
    world.send(world.cost(1500))
    assert world.live()["cost_minor"] == 1500
    world.send(world.cost(500))
    assert world.live()["cost_minor"] == 500
