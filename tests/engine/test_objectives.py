"""What a retailer asks for: profit, revenue, units, or a stock that is sold by a date."""

from typing import Any

import numpy as np
import pytest

from engine.deltas import AnyDelta
from engine.objectives import OBJECTIVES, PROFIT, REVENUE, UNITS, counted_cost
from engine.policy import Policy, policy_row
from kernels.choice import Place, best_log
from kernels.clearing import run_out_log
from kernels.hyperparameters import ELASTICITIES
from tests.engine.builders import DAY, T, World

SKUS = [f"S{number}" for number in range(8)]
SLOPES = np.linspace(-1.8, -3.5, len(SKUS))
START, COST, UNITS_A_DAY = 1500, 1000, 20.0
KNOWN: dict[str, Any] = {"holdout_share": 0.0, "dither": 0.0, "step_max": 1.0}


def test_every_objective_has_a_code() -> None:
    for code, name in enumerate(OBJECTIVES):
        assert policy_row(Policy(objective=name))["objective"] == code


def best(code: int, slope: float, curvature: float, cost: float, low: float = -1.0) -> float:
    """Return the price over the reference that an objective asks for, demand being known."""
    belief = np.zeros((1, len(ELASTICITIES)))
    belief[0, np.argmin(np.abs(ELASTICITIES - slope))] = 1.0
    flat = np.zeros(1)
    objective = np.array([code], dtype=np.uint8)
    counted = counted_cost(np.array([cost]), flat, objective)
    place = Place(flat, flat, counted, np.array([low]), np.ones(1))
    return float(np.exp(best_log(belief, place, np.array([curvature]), flat, flat)[0]))


@pytest.mark.parametrize("slope", [-1.2, -1.6, -2.0])
@pytest.mark.parametrize("cost", [0.5, 0.65])
def test_each_objective_asks_for_its_own_best_price(slope: float, cost: float) -> None:
    """Demand is log-quadratic: x to the slope, less 2 x^2; revenue then peaks inside."""
    slope = float(ELASTICITIES[np.argmin(np.abs(ELASTICITIES - slope))])
    curvature = 2.0
    x = np.linspace(-0.34, 0.34, 6_801)
    demand = np.exp(slope * x - curvature * np.square(x))
    worth = {PROFIT: np.exp(x) - cost, REVENUE: np.exp(x), UNITS: np.ones_like(x)}
    for code, of in worth.items():
        expected = float(np.exp(x[np.argmax(of * demand)]))
        assert best(code, slope, curvature, cost, low=-0.34) == pytest.approx(expected, abs=0.006)


def test_units_are_bounded_by_nothing_but_guardrails() -> None:
    assert best(UNITS, -2.0, 0.0, 0.6, low=-0.2) == pytest.approx(np.exp(-0.2), abs=1e-4)


def test_at_the_run_out_price_a_stock_just_lasts() -> None:
    level, stock, days, slope = np.log(12.0), 300.0, 40.0, -2.5
    price = float(run_out_log(*(np.array([of]) for of in (level, stock, days, slope)))[0])
    assert np.exp(level + slope * price) * days == pytest.approx(stock)


class Shop:
    """Eight listings that sell what their prices let them, as long as stock lasts."""

    def __init__(self, stock: int | None = None, **policy: Any) -> None:
        self.world = World(mode="live")
        self.world.send(self.world.policy(learning=True, **{**KNOWN, **policy}))
        self.world.send(
            *(self.world.listing(sku, price_minor=START, cost_minor=COST) for sku in SKUS)
        )
        self.left = np.full(len(SKUS), np.inf if stock is None else stock)
        if stock is not None:
            self.world.send(*(self.world.stock(stock, sku) for sku in SKUS))
        self.units = np.zeros(len(SKUS))
        self.revenue = np.zeros(len(SKUS))
        self._draw = np.random.default_rng(5)
        self._day = 0

    def live(self, days: int) -> "Shop":
        """Let days pass."""
        for _ in range(days):
            prices = np.array([self.world.price(sku) for sku in SKUS])
            wanted = self._draw.poisson(UNITS_A_DAY * (prices / START) ** SLOPES)
            sold = np.minimum(wanted, self.left)
            self.left -= sold
            self.units += sold
            self.revenue += sold * prices
            deltas: list[AnyDelta] = [
                self.world.sold(int(count), sku, source=f"till {sku}", source_seq=self._day)
                for sku, count in zip(SKUS, sold, strict=True)
                if count
            ]
            self.world.send(*deltas, after_ms=DAY)
            self._day += 1
        return self

    def prices(self) -> np.ndarray:
        return np.array([self.world.price(sku) for sku in SKUS])


def test_who_asks_for_revenue_earns_more_of_it_and_less_profit() -> None:
    profit, revenue = (Shop(objective=name).live(100) for name in ("profit", "revenue"))
    assert revenue.revenue.sum() > 1.05 * profit.revenue.sum()
    earned = [shop.revenue.sum() - COST * shop.units.sum() for shop in (profit, revenue)]
    assert earned[0] > 1.05 * earned[1]


def test_units_go_down_to_the_margin_in_steps_and_never_through_it() -> None:
    shop = Shop(objective="units", min_margin=0.2)
    floor = -(-COST * 10_000 // 8_000)
    lowest = shop.prices()
    for _ in range(60):
        shop.live(1)
        assert (shop.prices() >= floor).all()
        assert (shop.prices() > 0.85 * lowest).all(), "a step is a step"
        lowest = np.minimum(lowest, shop.prices())
    assert (lowest < 1.02 * floor).all()
    assert not shop.world.shard._memory.retailers.table["tripped"].any()


@pytest.mark.parametrize(
    ("days_of_stock", "dearer"), [(70, False), (28, True)], ids=["too much", "too little"]
)
def test_a_stock_is_sold_through_by_its_date_and_not_before(
    days_of_stock: int, dearer: bool
) -> None:
    """For fifty days, at the price found; too much of it goes cheaper, and too little dearer."""
    stock = int(UNITS_A_DAY * days_of_stock)
    by = {"season_end_ms": T + 50 * DAY, "decision_days": 28}
    shop = Shop(stock, objective="sell_through", **by).live(35)
    assert (shop.left > 0.1 * stock).all(), "not gone before"
    assert ((shop.prices() > START) == dearer).all()
    shop.live(15)
    assert (shop.left < 0.08 * stock).all(), "nor left over"
    usual = Shop(stock, objective="profit").live(50)
    if dearer:
        assert shop.revenue.sum() > 1.05 * usual.revenue.sum(), "as many, and dearer"
    else:
        assert usual.left.sum() > 3 * shop.left.sum()


def test_without_a_date_a_stock_is_sold_for_profit() -> None:
    stock = int(UNITS_A_DAY * 30)
    through, profit = (
        Shop(stock, objective=name).live(20).prices() for name in ("sell_through", "profit")
    )
    assert through.tolist() == profit.tolist()


def test_a_stock_that_nobody_counted_moves_no_price() -> None:
    shop = Shop(objective="sell_through", season_end_ms=T + 50 * DAY).live(30)
    assert (shop.prices() == shop.prices()[0]).all()
    assert abs(shop.prices()[0] / START - 1.0) < 0.3


def test_another_stock_than_was_left_is_answered_at_once() -> None:
    """A delivery in a season moves the price in its own microbatch, and what sales explain none."""
    stock, by = int(UNITS_A_DAY * 50), {"season_end_ms": T + 50 * DAY}
    shop = Shop(stock, objective="sell_through", **by).live(8)
    counted, delivered = SKUS[:2]
    before = shop.world.price(delivered)
    usual = shop.world.send(shop.world.stock(int(shop.left[0] * 0.95), counted))
    assert len(usual.quotes) == 0, "within what shops lose and find"
    decided = shop.world.send(shop.world.stock(int(shop.left[1] * 3), delivered))
    assert decided.quotes["listing"].tolist() == [shop.world.key(delivered)]
    assert shop.world.price(delivered) < 0.95 * before


def test_a_clearance_that_has_not_cut_yet_answers_a_delivery_at_once() -> None:
    shop = Shop(int(UNITS_A_DAY * 45), season_end_ms=T + 50 * DAY).live(12)
    at, sku = next((at, sku) for at, sku in enumerate(SKUS) if shop.prices()[at] == START)
    decided = shop.world.send(shop.world.stock(int(shop.left[at] * 5), sku))
    assert decided.quotes["listing"].tolist() == [shop.world.key(sku)]
    assert shop.world.price(sku) < 0.95 * START


@pytest.mark.parametrize("together", [True, False], ids=["one microbatch", "two"])
def test_a_count_that_knows_of_the_days_sales_is_no_delivery(together: bool) -> None:
    """Of a till that tells its sales and the count after them, at once."""
    stock, by = int(UNITS_A_DAY * 50), {"season_end_ms": T + 50 * DAY}
    shop = Shop(stock, objective="sell_through", **by).live(8)
    sku, many = SKUS[0], int(shop.left[0] * 0.4)
    sold = shop.world.sold(many, sku, source=f"till {sku}", source_seq=1_000)
    counted = shop.world.stock(int(shop.left[0]) - many, sku, observed_ms=sold.observed_ms + 1)
    turns = shop.world.shard._memory.learnt.rows["turns"][:1].copy()
    for deltas in [(sold, counted)] if together else [(sold,), (counted,)]:
        shop.world.send(*deltas)
    assert shop.world.shard._memory.learnt.rows["turns"][:1].tolist() == turns.tolist()


@pytest.mark.parametrize("asked", [{}, {"objective": "sell_through"}], ids=["profit", "no date"])
def test_without_a_date_stock_is_no_reason(asked: dict[str, Any]) -> None:
    shop = Shop(int(UNITS_A_DAY * 50), **asked).live(8)
    decided = shop.world.send(shop.world.stock(int(shop.left[0] * 3), SKUS[0]))
    assert len(decided.quotes) == 0
