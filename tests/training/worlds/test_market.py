"""The market repeats by seed and answers the prices it is given."""

from collections import Counter
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from engine.deltas import AnyDelta, CompetitorPriced, PolicyChanged, StockCounted, UnitsSold
from engine.policy import decode_fields
from engine.routing import key64
from training.worlds.market import DAY_MS, MARKETPLACE, SHOP, Market, Temper, World


def days(market: Market, count: int, prices: dict[int, int] | None = None) -> list[AnyDelta]:
    """Let some days pass in steps of eight hours."""
    told: list[AnyDelta] = []
    start = market.world.start_ms
    for step in range(1, 3 * count + 1):
        told += market.advance(prices or {}, start + step * DAY_MS // 3)
    return told


def test_a_market_is_a_function_of_its_seed() -> None:
    first, again, other = Market(1, 40), Market(1, 40), Market(2, 40)
    assert first.opening() == again.opening() != other.opening()
    assert days(first, 3) == days(again, 3)


def test_what_it_tells_is_what_a_shard_can_read() -> None:
    market = Market(1, 40)
    told = market.opening() + days(market, 3)
    decoder = msgspec.json.Decoder(AnyDelta)  # type: ignore[var-annotated]
    assert [decoder.decode(msgspec.json.encode(delta)) for delta in told] == told
    for delta in told:
        if isinstance(delta, PolicyChanged):
            decode_fields(delta.fields, delta.scope)


def test_the_opening_names_every_listing_with_price_cost_and_rivals() -> None:
    market = Market(1, 41, World(rivals=2))
    kinds = Counter(type(delta).__name__ for delta in market.opening())
    assert kinds == {
        "RetailerAdded": 1,
        "PolicyChanged": 1,
        "FeesChanged": 2,
        "ListingChanged": 41,
        "StockCounted": 41,
        "CompetitorPriced": 82,
    }
    assert set(market.keys) == set(market.prices())
    assert key64("demo", "shop", "SKU-000000") == market.keys[0]
    assert key64("demo", "marketplace", "SKU-000000") == market.keys[1]


def test_dearer_sells_less() -> None:
    def sold(factor: float) -> int:
        market = Market(3, 200, World(rivals=0))
        prices = {key: int(price * factor) for key, price in market.prices().items()}
        return sum(d.units for d in days(market, 20, prices) if isinstance(d, UnitsSold))

    assert sold(1.2) < 0.8 * sold(1.0) < 0.8 * sold(0.9)


def test_sales_are_numbered_and_never_exceed_what_was_counted() -> None:
    market = Market(4, 60)
    told = [*market.opening(), *days(market, 30)]
    sales = [delta for delta in told if isinstance(delta, UnitsSold)]
    numbers = [sale.source_seq for sale in sales]
    assert len(set(numbers)) == len(numbers)
    full = {(d.channel, d.sku): d.units for d in told if isinstance(d, StockCounted)}
    assert min(full.values()) >= 0


def test_stock_runs_out_and_is_refilled() -> None:
    market = Market(4, 60, World(stock_days=3.0))
    counts: dict[str, list[int]] = {}
    for delta in [*market.opening(), *days(market, 40)]:
        if isinstance(delta, StockCounted) and delta.channel == "shop":
            counts.setdefault(delta.sku, []).append(delta.units)
    refilled = [
        sku
        for sku, units in counts.items()
        if any(before == 0 < after for before, after in pairwise(units))
    ]
    assert len(refilled) > 10


def test_rivals_answer_by_their_temper() -> None:
    """Ask 20 % more: who follows comes up, who undercuts stays right below us."""
    market = Market(5, 150, World(rivals=16))
    before = {
        (d.channel, d.sku, d.rival): d.price_minor
        for d in market.opening()
        if isinstance(d, CompetitorPriced)
    }
    ours = {key: int(price * 1.2) for key, price in market.prices().items()}
    after = dict(before)
    for delta in days(market, 10, ours):
        if isinstance(delta, CompetitorPriced):
            after[delta.channel, delta.sku, delta.rival] = delta.price_minor
    rise: dict[int, list[float]] = {}
    for (channel, sku, rival), price in after.items():
        temper = int(market._temper[0, int(rival.removeprefix("rival-")) - 1])
        change = price / before[channel, sku, rival]
        rise.setdefault(temper, []).append(change)
    mean = {temper: float(np.mean(changes)) for temper, changes in rise.items()}
    assert set(mean) == set(Temper)
    assert mean[Temper.UNDERCUTTER] > 1.15
    assert 1.05 < mean[Temper.FOLLOWER] < 1.15
    assert 0.95 < mean[Temper.STEADY] < 1.05
    assert 0.95 < mean[Temper.RANDOMISER] < 1.05


def test_undercutters_stop_at_their_floor() -> None:
    market = Market(5, 50, World(rivals=8))
    homes = market._rival_home.copy()
    days(market, 10, dict.fromkeys(market.keys, 1))
    assert (market._rival >= np.rint(homes * 0.75) - 1).all()


def test_the_status_quo_is_good_and_can_be_bettered() -> None:
    market = Market(6, 2_000)
    share = market.expected_profit({}) / market.expected_profit(market.best_prices())
    assert 0.90 < share < 0.98


def test_fees_enter_the_cost_behind_the_price() -> None:
    cheap, dear = (Market(7, 400, World(channels=(channel,))) for channel in (SHOP, MARKETPLACE))
    assert cheap.prices().values() != dear.prices().values()
    assert cheap._cost.mean() > 1.1 * dear._cost.mean()


def test_a_poisoned_feed_lies_by_a_factor_of_a_hundred() -> None:
    honest, poisoned = (Market(8, 50, World(poisoned_share=share)) for share in (0.0, 0.2))
    lies = [
        delta
        for delta in poisoned.opening()
        if isinstance(delta, CompetitorPriced) and delta.price_minor < 30
    ]
    assert len(lies) > 5
    assert all(d.price_minor > 30 for d in honest.opening() if isinstance(d, CompetitorPriced))


def test_time_does_not_run_backwards() -> None:
    market = Market(1, 2)
    with pytest.raises(AssertionError):
        market.advance({}, market.world.start_ms - 1)
