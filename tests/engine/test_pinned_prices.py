"""A promotion that a person pins has an end that is his, too: no experiment, no alarm."""

import warnings
from typing import Any

import numpy as np
import pytest

from engine.deltas import AnyDelta
from repricer import (
    ListingChanged,
    Overlooked,
    PolicyChanged,
    PricePinned,
    PriceReported,
    PriceUnpinned,
    PublishingHalted,
    PublishingResumed,
    RetailerAdded,
    Shard,
    UnitsSold,
    decide,
    key64,
)

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
LISTINGS, DAYS, ELASTICITY, LIFT = 30, 84, -2.0, 0.6
SELLER = {"retailer": "shop", "channel": "web"}


def promoted(lift: float) -> Shard:
    """Return a shard whose listings sell ``exp(lift)`` times as much while pinned."""
    draw, shard = np.random.default_rng(11), Shard()
    skus = [f"s{number}" for number in range(LISTINGS)]
    keys = [key64("shop", "web", sku) for sku in skus]
    terms = {"learning": True, "holdout_share": 0.0}
    opening: list[AnyDelta] = [
        RetailerAdded(retailer="shop", currency="EUR", mode="live", observed_ms=0),
        PolicyChanged(retailer="shop", scope="retailer", fields=terms, observed_ms=0),
    ]
    opening += [
        ListingChanged(
            **SELLER, sku=sku, category="c", price_minor=1000, cost_minor=500, observed_ms=0
        )
        for sku in skus
    ]
    decide(shard, opening, 0)
    for day in range(DAYS):
        morning_ms, night_ms = day * DAY_MS, (day + 1) * DAY_MS
        chosen = np.arange(LISTINGS) % 6 == day // 7 % 6 if day >= 14 else np.zeros(LISTINGS, bool)
        if day >= 14 and day % 7 == 0:
            pins: list[AnyDelta] = [
                PricePinned(
                    **SELLER,
                    sku=skus[n],
                    price_minor=850,
                    until_ms=morning_ms + 7 * DAY_MS,
                    observed_ms=morning_ms + 1,
                )
                for n in np.flatnonzero(chosen)
            ]
            decide(shard, pins, morning_ms + 1)
        states = [shard.live(key) for key in keys]
        price = np.array([state["in_force_minor"] if state else 0 for state in states])
        expected = 60 * (price / 1000) ** ELASTICITY * np.exp(lift * chosen)
        sales: list[AnyDelta] = [
            UnitsSold(**SELLER, sku=sku, units=n, source=sku, source_seq=day, observed_ms=night_ms)
            for sku, n in zip(skus, draw.poisson(expected).tolist(), strict=True)
        ]
        decide(shard, sales, night_ms)
    return shard


def test_what_ends_with_a_pin_is_not_taken_for_elasticity() -> None:
    """The price rises by a sixth as the lift ends: taken for ours, that would look like -5."""
    told = promoted(LIFT).learning("shop")
    assert told is not None
    (category,) = told["categories"]
    assert -2.35 < category["from_own_prices"]["elasticity"] < -1.7
    assert category["from_history"]["elasticity"] < -4.0
    assert category["alarm"]


@pytest.mark.parametrize("learning", [False, True])
def test_the_end_of_many_pins_is_no_alarm_and_leads_back(learning: bool) -> None:
    """Forty promotions of four tenths off end at midnight; prices return, by steps, to what we ask.

    Some decisions fall due while their price is pinned: they go on from our price, not the pin's.
    """
    shard, skus = Shard(), [f"s{number}" for number in range(60)]
    opening: list[AnyDelta] = [
        RetailerAdded(retailer="shop", currency="EUR", mode="live", observed_ms=0),
        PolicyChanged(
            retailer="shop",
            scope="retailer",
            fields={"learning": learning, "dither": 0.0, "holdout_share": 0.0},
            observed_ms=0,
        ),
    ]
    opening += [
        ListingChanged(**SELLER, sku=sku, price_minor=1000, cost_minor=400, observed_ms=0)
        for sku in skus
    ]
    decide(shard, opening, 0)

    def close(day: int) -> np.ndarray:
        sales = [
            UnitsSold(
                **SELLER, sku=sku, units=5, source=sku, source_seq=day, observed_ms=day * DAY_MS
            )
            for sku in skus
        ]
        decide(shard, sales, day * DAY_MS)
        states = [shard.live(key64("shop", "web", sku)) for sku in skus]
        return np.array([state["in_force_minor"] if state else 0 for state in states])

    before = [close(day) for day in range(1, 3)][-1]
    pins = [
        PricePinned(
            **SELLER,
            sku=sku,
            price_minor=600,
            until_ms=9 * DAY_MS,
            observed_ms=2 * DAY_MS + 1,
        )
        for sku in skus[:40]
    ]
    decide(shard, pins, 2 * DAY_MS + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a halt would be warned of
        after = [close(day) for day in range(3, 13)]
    assert (after[0][:40] == 600).all()
    assert (after[6][:40] == 720).all()  # a step of a fifth
    assert (after[7][:40] == 864).all()
    assert (after[-1][:40] > 0.95 * before[:40]).all()


SKUS = [f"s{number}" for number in range(60)]


def pinned(terms: dict[str, Any], price_minor: int = 500) -> Shard:
    """Return a shard of sixty listings at 1,000, all pinned until the end of the first day."""
    shard = Shard()
    told: list[AnyDelta] = [
        RetailerAdded(retailer="shop", currency="EUR", mode="live", observed_ms=0),
        PolicyChanged(retailer="shop", scope="retailer", fields=terms, observed_ms=0),
    ]
    told += [
        ListingChanged(**SELLER, sku=sku, price_minor=1000, cost_minor=400, observed_ms=0)
        for sku in SKUS
    ]
    decide(shard, told, 0)
    pins = [
        PricePinned(**SELLER, sku=sku, price_minor=price_minor, until_ms=DAY_MS, observed_ms=60_000)
        for sku in SKUS
    ]
    decide(shard, pins, 60_000)
    return shard


def prices(shard: Shard) -> set[int]:
    """Return the prices in force."""
    live = [shard.live(key64("shop", "web", sku)) for sku in SKUS]
    return {each["in_force_minor"] if each else 0 for each in live}


def hours(shard: Shard, first: int, last: int) -> list[set[int]]:
    """Return the prices in force after each hour of the second day."""
    found = []
    for hour in range(first, last):
        decide(shard, [], DAY_MS + hour * HOUR_MS)
        found.append(prices(shard))
    return found


@pytest.mark.filterwarnings("error")
def test_a_way_back_that_waits_for_its_hour_is_no_alarm_either() -> None:
    shard = pinned({"changes_per_hour_max": 1})
    found = hours(shard, 0, 24)
    assert found[0] == {600}
    assert min(found[-1]) > 900


@pytest.mark.filterwarnings("error")
def test_a_pin_that_a_person_lifts_leads_back_without_an_alarm() -> None:
    shard = pinned({})
    lifted = [PriceUnpinned(**SELLER, sku=sku, observed_ms=120_000) for sku in SKUS]
    decide(shard, lifted, 120_000)
    assert prices(shard) == {600}
    assert min(hours(shard, 0, 12)[-1]) > 900


@pytest.mark.filterwarnings("error")
def test_a_pin_that_ends_under_a_halt_leads_back_when_that_ends() -> None:
    shard = pinned({})
    decide(shard, [PublishingHalted(retailer="shop", observed_ms=120_000)], 120_000)
    assert hours(shard, 0, 2)[-1] == {500}
    resumed_ms = DAY_MS + 2 * HOUR_MS
    decide(shard, [PublishingResumed(retailer="shop", observed_ms=resumed_ms)], resumed_ms)
    assert prices(shard) == {600}
    assert min(hours(shard, 3, 15)[-1]) > 900


@pytest.mark.parametrize("withheld", ["halt", "manual"])
def test_what_withholds_a_price_does_not_make_the_pins_ours(withheld: str) -> None:
    """A decision falls due while the pin's price stays in force for another reason."""
    terms = {"learning": True, "dither": 0.0, "holdout_share": 0.0, "decision_days": 1}
    shard = pinned(terms | ({"approval": "manual"} if withheld == "manual" else {}))
    if withheld == "halt":
        decide(shard, [PublishingHalted(retailer="shop", observed_ms=120_000)], 120_000)
    for day in range(1, 5):
        decide(shard, [], day * DAY_MS)
    assert prices(shard) == {500}
    proposed = [shard.live(key64("shop", "web", sku)) for sku in SKUS]
    assert min(each["proposed_minor"] if each else 0 for each in proposed) >= 600


def test_a_price_that_the_channel_reports_is_no_step_of_the_way_back() -> None:
    shard = pinned({})
    decide(shard, [], DAY_MS)
    assert prices(shard) == {600}
    reported_ms = DAY_MS + 60_000
    low = [
        PriceReported(**SELLER, sku=sku, price_minor=100, observed_ms=reported_ms) for sku in SKUS
    ]
    with pytest.warns(Overlooked, match="the breaker halted shop"):
        decide(shard, low, reported_ms)


def test_a_pin_excuses_its_own_end_and_nothing_after_it() -> None:
    shard = pinned({}, price_minor=900)
    decide(shard, [], DAY_MS)
    low = [
        PriceReported(**SELLER, sku=sku, price_minor=700, observed_ms=2 * DAY_MS) for sku in SKUS
    ]
    with pytest.warns(Overlooked, match="the breaker halted shop"):
        decide(shard, low, 2 * DAY_MS)
