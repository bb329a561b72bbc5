"""Rivals' prices that do not fit the evidence wait; genuine ones are released, and seldom wait."""

import math

import numpy as np
import pytest

from engine.decided import Decided
from tests.engine.builders import DAY, HOUR, MINUTE, World, only, verdicts

WEEK = 7 * DAY


def watched(rivals: dict[str, int] | None = None, **policy: object) -> World:
    """Return a world with one KVI that follows its rivals, who were seen several times."""
    world = World()
    world.send(world.policy(kvi_rival_ratio_max=1.0, step_max=1.0, **policy))
    world.send(world.listing(kvi=True, own_rival_names=("us",)))
    for _ in range(5):
        for rival, price in (rivals or {"bob": 1800}).items():
            world.send(world.rival(price, rival=rival), after_ms=HOUR)
    return world


def reference(world: World) -> int:
    """Return the rival that a fresh decision would look at."""
    world.send(world.stock(int(world.now_ms % 1000) + 1))
    return int(world.shard.quote(world.key())["rival_minor"])  # type: ignore[index]


def seen(world: World, price: int, after_ms: int = HOUR, **fields: object) -> Decided:
    world.now_ms += after_ms
    return world.send(world.rival(price, **fields))


@pytest.mark.parametrize("price", [1, 17, 850, 3700, 180_000])
def test_what_lies_outside_the_band_is_quarantined(price: int) -> None:
    """A penny, a unit swap, half, double, cents taken for units."""
    world = watched()
    before = world.price()
    refusal = only(seen(world, price).exceptions)
    assert refusal.verdict == "quarantined"
    assert refusal.reason.startswith("/price_minor")
    assert refusal.listing == world.key()
    assert world.price() == before


def test_a_first_offer_far_from_all_others_is_quarantined() -> None:
    """A ghost seller has no history, so what others say is the measure."""
    world = watched({"bob": 1800, "eve": 1850})
    assert verdicts(seen(world, 300, rival="ghost")) == ["quarantined"]
    assert verdicts(seen(world, 310, rival="ghost", after_ms=5 * MINUTE)) == ["quarantined"]
    assert world.price() == 1800


def test_a_repeated_price_is_believed_the_second_time() -> None:
    world = watched()
    assert verdicts(seen(world, 1200)) == ["quarantined"]
    assert verdicts(seen(world, 1200)) == []
    assert world.price() == 1200


def test_the_same_report_twice_is_no_repetition() -> None:
    world = watched()
    offer = world.rival(1200)
    assert verdicts(world.send(offer)) == ["quarantined"]
    assert verdicts(world.send(offer, after_ms=HOUR)) == ["quarantined"]
    assert world.price() == 1800


def test_what_was_seen_before_the_suspect_has_waited_for_nothing() -> None:
    """Of one block the newest is judged first, so an older word of it repeats nothing."""
    world = watched()
    world.now_ms += 2 * MINUTE
    offers = [world.rival(800, observed_ms=world.now_ms - ago) for ago in (2 * MINUTE, MINUTE, 0)]
    assert verdicts(world.send(*offers)) == ["quarantined"] * 3
    assert verdicts(seen(world, 800, after_ms=2 * MINUTE)) == ["quarantined"]
    assert world.price() == 1800
    # The suspect was first seen with the earliest word of it: an hour after that one is enough.
    assert verdicts(seen(world, 800, after_ms=56 * MINUTE)) == ["quarantined"]
    assert verdicts(seen(world, 800, after_ms=60 * MINUTE)) == []


def test_an_offer_before_a_quarantined_one_is_believed_in_either_order() -> None:
    for backwards in (False, True):
        world = watched()
        offers = [
            world.rival(price, observed_ms=world.now_ms + ago)
            for price, ago in ((1780, MINUTE), (800, 2 * MINUTE))
        ]
        world.now_ms += HOUR
        decided = world.send(*(reversed(offers) if backwards else offers))
        assert verdicts(decided) == ["quarantined"]
        assert world.price() == 1780


def test_an_offer_behind_a_believed_one_of_its_block_is_late() -> None:
    world = watched()
    offers = [
        world.rival(price, observed_ms=world.now_ms + ago)
        for price, ago in ((1780, 2 * MINUTE), (1790, MINUTE))
    ]
    world.now_ms += HOUR
    assert verdicts(world.send(*offers)) == ["late"]
    assert world.price() == 1780


def test_no_offer_of_a_block_is_lost_behind_quarantined_ones() -> None:
    """Good, then three far off: what is not judged is refused, and never only dropped."""
    world = watched()
    offers = [
        world.rival(price, observed_ms=world.now_ms + ago * MINUTE)
        for ago, price in enumerate((1780, 700, 500, 400), start=1)
    ]
    world.now_ms += HOUR
    refused = world.send(*offers).exceptions
    assert [one.verdict for one in refused] == ["quarantined"] * 4
    assert sum("send what it asks now" in one.reason for one in refused) == 1
    assert len({one.position for one in refused}) == 4
    assert world.price() == 1800


def test_another_source_confirms_at_once() -> None:
    world = watched()
    world.send(world.rival(1800, source="feed"))
    assert verdicts(seen(world, 500, source="feed", after_ms=1000)) == ["quarantined"]
    assert verdicts(seen(world, 500, source="crawler", after_ms=1000)) == []
    world.send(world.stock(1))
    assert world.price() == world.live()["floor_minor"]  # never through the floor
    assert world.live()["rival_minor"] == 500


def test_an_offer_without_a_rate_confirms_nothing() -> None:
    """It has no figure in the listing's currency, so it neither agrees nor disagrees."""
    world = watched()
    world.send(world.rival(1800, source="feed"))
    world.send(world.rival(1800, source="abroad", currency="USD"))
    assert verdicts(seen(world, 500, source="feed", after_ms=1000)) == ["quarantined"]
    seen(world, 600, source="abroad", currency="USD", after_ms=1000)
    assert world.live()["rival_minor"] != 500


def test_a_far_price_is_believed_after_three_sightings_an_hour_apart() -> None:
    world = watched()
    found = [verdicts(seen(world, 800, after_ms=2 * HOUR)) for _ in range(4)]
    assert found == [["quarantined"], ["quarantined"], [], []]


def test_a_tenth_of_the_price_is_never_believed_for_being_repeated() -> None:
    world = watched()
    for _ in range(50):
        assert verdicts(seen(world, 170, after_ms=2 * HOUR)) == ["quarantined"]
        assert world.price() >= 1800


def test_of_several_sources_one_alone_moves_nothing() -> None:
    world = watched()
    world.send(world.rival(1800, source="a"), world.rival(1800, source="b"))
    for _ in range(5):
        assert verdicts(seen(world, 1600, source="a")) == ["quarantined"]
    assert verdicts(seen(world, 1610, source="b")) == []
    assert reference(world) in (1600, 1610)


def test_a_small_move_needs_no_second_source() -> None:
    world = watched()
    world.send(world.rival(1800, source="a"), world.rival(1800, source="b"))
    assert verdicts(seen(world, 1740, source="a")) == []


def test_a_fast_slope_is_stopped() -> None:
    """Two per cent a minute: each step is small, the sum is not."""
    world = watched()
    price, refused = 1800.0, 0
    for _ in range(60):
        price *= 0.98
        refused += len(seen(world, round(price), after_ms=MINUTE).exceptions)
    assert refused > 20
    assert world.price() > 1800 * 0.98**60 * 1.3


def test_of_many_rivals_one_far_below_the_others_is_no_reference() -> None:
    world = watched({"a": 1800, "b": 1820, "c": 1850, "d": 1790, "e": 1810})
    for _ in range(4):
        seen(world, 1000, rival="low", after_ms=2 * HOUR)
    for name, price in {"a": 1800, "b": 1820, "c": 1850, "d": 1790}.items():
        seen(world, price, rival=name, after_ms=1000)
    assert reference(world) == 1790


def test_flapping_between_two_prices_ends_at_neither_extreme() -> None:
    """A liar who alternates moves the price by no more than what he was seen at before."""
    world = watched()
    lowest = 1800
    for number in range(40):
        seen(world, 20 if number % 2 else 1800)
        lowest = min(lowest, world.price())
    assert lowest == 1800


def test_a_used_or_sold_out_offer_proves_nothing_about_a_new_one() -> None:
    world = watched()
    assert verdicts(seen(world, 400, rival="u", condition="used")) == []
    assert verdicts(seen(world, 400, rival="s", in_stock=False)) == []
    assert world.price() == 1800
    assert verdicts(seen(world, 400, rival="s")) == ["quarantined"]
    assert world.price() == 1800


def test_ourselves_among_the_rivals_are_no_rival() -> None:
    world = watched()
    seen(world, 1500, rival="us")
    assert world.price() == 1800


def test_a_rival_who_may_be_ourselves_never_lowers_the_price() -> None:
    """Nobody told us our name, and somebody offers at our price or a coupon less: ourselves?"""
    world = World()
    world.send(world.policy(kvi_rival_ratio_max=0.98))
    world.send(world.listing(kvi=True))
    price = world.price()
    for coupon in (0, 0, 1, 1, 20, 20, 0):
        decided = seen(world, price - coupon, rival="who knows")
        assert world.price() == price
    assert not len(decided.quotes)
    world.send(world.listing(own_rival_names=("us",)))
    assert world.price() < price


def test_a_missing_or_stale_rate_fails_closed() -> None:
    world = watched()
    decided = seen(world, 1500, rival="abroad", currency="USD")
    assert world.live()["state"] == "unpublishable"
    assert "stale_rate" in world.live()["reasons"]
    assert decided.quotes["in_force_minor"].tolist() == [1800]


def test_the_number_of_offers_is_bounded_and_the_stalest_gives_way() -> None:
    world = watched({f"r{number}": 1800 for number in range(24)})
    for number in range(24):
        seen(world, 1800, rival=f"r{number}", after_ms=MINUTE)
    assert only(seen(world, 1790, rival="one more").exceptions).verdict == "rejected"
    assert not seen(world, 1790, rival="one more", after_ms=2 * DAY).exceptions


def supermarket(seed: int, weeks: int = 100, rivals: int = 10) -> list[list[int]]:
    """Return weekly prices of rivals: a shelf price that drifts, and deals of a week or two."""
    random = np.random.default_rng(seed)
    shelf = random.uniform(1500, 3000, rivals)
    deal = np.zeros(rivals, dtype=int)
    depth = np.ones(rivals)
    prices = []
    for _ in range(weeks):
        shelf *= np.where(random.random(rivals) < 0.05, random.uniform(0.93, 1.1, rivals), 1.0)
        begins = (deal == 0) & (random.random(rivals) < 0.15)
        depth = np.where(begins, random.uniform(0.65, 0.9, rivals), depth)
        deal = np.where(begins, random.integers(1, 3, rivals), np.maximum(deal - 1, 0))
        shown = np.where(deal > 0, shelf * depth, shelf)
        prices.append([math.floor(price) for price in shown])
    return prices


@pytest.mark.parametrize("seed", range(4))
def test_clean_weekly_prices_are_quarantined_in_at_most_one_of_a_hundred(seed: int) -> None:
    """Deals of up to a third that come and go are what supermarkets do."""
    world = World()
    world.send(world.listing(kvi=True, price_minor=2200, own_rival_names=("us",)))
    told = refused = 0
    for prices in supermarket(seed):
        world.now_ms += WEEK
        offers = [world.rival(price, rival=f"r{n}") for n, price in enumerate(prices)]
        refused += verdicts(world.send(*offers)).count("quarantined")
        told += len(offers)
    assert told == 1000
    assert refused <= told / 100


def test_clean_minutely_prices_are_quarantined_in_at_most_one_of_a_hundred() -> None:
    """Rivals who move by a few per cent now and then, looked at every ten minutes."""
    random = np.random.default_rng(5)
    world = watched({f"r{n}": 1800 for n in range(6)})
    prices = np.full(6, 1800.0)
    told = refused = 0
    for _ in range(300):
        moves = random.random(6) < 0.1
        prices *= np.where(moves, np.exp(random.normal(0, 0.03, 6)), 1.0)
        world.now_ms += 10 * MINUTE
        offers = [world.rival(round(price), rival=f"r{n}") for n, price in enumerate(prices)]
        refused += verdicts(world.send(*offers)).count("quarantined")
        told += 6
    assert refused <= told / 100


ATTACKS = {
    "one source lies by 30 %": lambda n: 1260,
    "a penny": lambda n: 1,
    "cents for units": lambda n: 18,
    "another currency": lambda n: 1980,
    "flapping": lambda n: 1800 if n % 2 else 1200,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_one_lying_source_of_three_displaces_the_price_by_at_most_three_per_cent(
    attack: str,
) -> None:
    world = watched()
    for source in ("a", "b", "c"):
        world.send(world.rival(1800, source=source), after_ms=HOUR)
    world.send(world.rival(1800, in_stock=False), after_ms=HOUR)
    before, worst = world.price(), 0.0
    for number in range(48):
        world.now_ms += 30 * MINUTE
        world.send(
            world.rival(ATTACKS[attack](number), source="a"),
            world.rival(1800, source="b"),
            world.rival(1800, source="c"),
        )
        worst = max(worst, abs(world.price() / before - 1))
    assert worst <= 0.03
