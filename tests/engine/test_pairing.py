"""Sales are paired with the price that was in force meanwhile, however a day is told."""

import numpy as np
import pytest

from engine.deltas import AnyDelta
from repricer import (
    ListingChanged,
    ModeChanged,
    PolicyChanged,
    PriceReported,
    RetailerAdded,
    Shard,
    UnitsSold,
    decide,
    key64,
)

DAY_MS = 86_400_000
LISTINGS, DAYS, ELASTICITY = 20, 60, -4.0
SELLER = {"retailer": "shop", "channel": "web"}


def learnt(telling: str) -> tuple[float, float]:
    """Return the mean elasticity and evidence after days of prices drawn anew, told so."""
    draw, shard = np.random.default_rng(5), Shard()
    skus = [f"s{number}" for number in range(LISTINGS)]
    price = np.full(LISTINGS, 1000)
    opening: list[AnyDelta] = [
        RetailerAdded(retailer="shop", currency="EUR", observed_ms=0),
        PolicyChanged(retailer="shop", scope="retailer", fields={"learning": True}, observed_ms=0),
    ]
    opening += [
        ListingChanged(
            **SELLER, sku=sku, category="c", price_minor=1000, cost_minor=600, observed_ms=0
        )
        for sku in skus
    ]
    decide(shard, opening, 0)

    def told(prices: np.ndarray, at_ms: int) -> list[AnyDelta]:
        return [
            PriceReported(**SELLER, sku=sku, price_minor=p, observed_ms=at_ms)
            for sku, p in zip(skus, prices.tolist(), strict=True)
        ]

    for day in range(1, DAYS + 1):
        now_ms = day * DAY_MS
        units = draw.poisson(60 * (price / 1000) ** ELASTICITY)
        sales: list[AnyDelta] = [
            UnitsSold(**SELLER, sku=sku, units=n, source=sku, source_seq=day, observed_ms=now_ms)
            for sku, n in zip(skus, units.tolist(), strict=True)
            if n
        ]
        if day == DAYS:
            sales.append(ModeChanged(retailer="shop", mode="live", observed_ms=now_ms))
        following = draw.choice([850, 1000, 1150], LISTINGS) if day < DAYS else price
        match telling:
            case "the day's own price and its sales":
                decide(shard, told(price, now_ms) + sales, now_ms)
            case "the day's sales and the next price":
                decide(shard, sales + told(following, now_ms), now_ms)
            case "the next price a second later":
                decide(shard, sales, now_ms)
                decide(shard, told(following, now_ms + 1000), now_ms + 1000)
            case "the day's own price in the morning":
                decide(shard, told(price, now_ms - DAY_MS + 1) + sales, now_ms)
        price = following
    beliefs = [shard.learnt(key64("shop", "web", sku)) for sku in skus]
    assert all(beliefs)
    return (
        float(np.mean([belief["elasticity"] for belief in beliefs if belief])),
        float(np.mean([belief["evidence"] for belief in beliefs if belief])),
    )


@pytest.mark.parametrize(
    "telling",
    [
        "the day's own price and its sales",
        "the day's sales and the next price",
        "the next price a second later",
        "the day's own price in the morning",
    ],
)
def test_however_a_day_is_told_its_sales_teach_the_same(telling: str) -> None:
    elasticity, evidence = learnt(telling)
    assert elasticity == pytest.approx(ELASTICITY, abs=0.3)
    assert evidence > 10.0
