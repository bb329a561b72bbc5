"""A promotion that a person pins has an end that is his, too: no experiment, no alarm."""

import warnings

import numpy as np
import pytest

from engine.deltas import AnyDelta
from repricer import (
    ListingChanged,
    Overlooked,
    PolicyChanged,
    PricePinned,
    PriceReported,
    RetailerAdded,
    Shard,
    UnitsSold,
    decide,
    key64,
)

DAY_MS = 86_400_000
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


def test_a_pin_excuses_its_own_end_and_nothing_after_it() -> None:
    shard, skus = Shard(), [f"s{number}" for number in range(60)]
    told: list[AnyDelta] = [
        RetailerAdded(retailer="shop", currency="EUR", mode="live", observed_ms=0)
    ]
    told += [
        ListingChanged(**SELLER, sku=sku, price_minor=1000, cost_minor=600, observed_ms=0)
        for sku in skus
    ]
    decide(shard, told, 0)
    pins = [
        PricePinned(**SELLER, sku=sku, price_minor=900, until_ms=DAY_MS, observed_ms=1)
        for sku in skus
    ]
    decide(shard, pins, 1)
    decide(shard, [], DAY_MS)
    low = [
        PriceReported(**SELLER, sku=sku, price_minor=700, observed_ms=2 * DAY_MS) for sku in skus
    ]
    with pytest.warns(Overlooked, match="the breaker halted shop"):
        decide(shard, low, 2 * DAY_MS)
