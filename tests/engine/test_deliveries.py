"""Deliveries are seen in counts, and where they bring too little, stock is made to last."""

from typing import Any

import numpy as np
import pytest

from engine.checkpoint import merge_parts
from engine.decided import Decided
from engine.deliveries import Shelf, by_calendar, lasts_log, sure_days, taken
from engine.deltas import AnyDelta
from engine.learnt import DAY_MS, DELIVERY_DTYPE, LASTED, LASTS, LEARNT_DTYPE, Learnt, new_learnt
from engine.listing_table import new_row
from engine.replay import Agreement
from engine.shard import Shard
from kernels.clearing import lasting_log
from kernels.hyperparameters import DELIVERIES_KEPT, SCATTER_PRIOR, UNSURE_SHARE
from repricer import batch_of
from tests.engine.builders import DAY, World

SKUS = [f"S{number}" for number in range(8)]
WANTED, ELASTICITY = 20.0, -2.5
"""Units a day at the price found at import, which is the best one without regard to stock."""

PRICE, COST = 2000, 1200


def shop(**policy: Any) -> World:
    world = World()
    world.send(world.policy(learning=True, dither=0.0, **policy))
    world.send(*(world.listing(sku, price_minor=PRICE, cost_minor=COST) for sku in SKUS))
    return world


class Shelves:
    """What lies in the shop of a test, and how it is refilled."""

    def __init__(self, units: int, every: int = 7, counted: bool = True) -> None:
        self.units, self.every, self.counted = units, every, counted
        self.stock = np.full(len(SKUS), units)

    def day(self, world: World, day: int) -> list[AnyDelta]:
        """Let a day pass: a delivery in the morning, what is wanted and there is sold, a count."""
        if day % self.every == 0:
            self.stock = self.stock + self.units
        draw = np.random.default_rng(day)
        told: list[AnyDelta] = []
        for at, sku in enumerate(SKUS):
            wanted = WANTED * (world.price(sku) / PRICE) ** ELASTICITY
            units = min(int(draw.poisson(wanted)), int(self.stock[at]))
            self.stock[at] -= units
            if units:
                told.append(world.sold(units, sku, source=f"till {sku}", source_seq=day))
            if self.counted:
                told.append(world.stock(int(self.stock[at]), sku))
        return told


def lived(world: World, shelves: Shelves, days: int, first: int = 0) -> list[Decided]:
    decided = []
    for day in range(first, first + days):
        world.now_ms += DAY
        decided.append(world.send(*shelves.day(world, day), after_ms=0))
    return decided


def prices(world: World) -> np.ndarray:
    return np.array([world.price(sku) for sku in SKUS])


def deliveries(world: World) -> np.ndarray:
    memory = world.shard._memory
    return memory.learnt.deliveries[[memory.listings.live_row(world.key(sku)) for sku in SKUS]]


def flags(world: World) -> np.ndarray:
    memory = world.shard._memory
    return memory.learnt.rows["flags"][[memory.listings.live_row(world.key(sku)) for sku in SKUS]]


# ----- what counts tell --------------------------------------------------------------------------


def came(
    days: list[float], more: float = 100.0, left: int = 0, empty: list[float] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a listing remembers of deliveries so many days apart, and what its shop does.

    Each time its shelf was empty for so many days, by default three and one day in turn.
    """
    told, regular = np.zeros(1, dtype=DELIVERY_DTYPE), np.zeros(3)
    yes, no = np.ones(1, dtype=bool), np.zeros(1, dtype=bool)
    empty = empty or [3.0, 1.0] * len(days)

    def shelf(now_ms: int) -> Shelf:
        told = (now_ms, left, left / 20.0, more)
        return Shelf(*(np.array([each]) for each in told))

    now_ms = DAY_MS
    regular = taken(told, regular, shelf(now_ms), yes, no)
    for each, dark in zip([3.0, *days], [0.0, *empty], strict=False):
        now_ms += int(each * DAY_MS)
        told["empty_days"] = dark
        regular = taken(told, regular, shelf(now_ms), no, yes)
    return told, regular


def test_a_rhythm_is_a_mean_of_intervals_and_how_far_they_scatter() -> None:
    told, regular = came([7.0] * 5)
    assert told["came"][0] == 6 and told["days"][0] == pytest.approx(7.0)
    assert told["scatter"][0] == 0.0 and told["emptied"][0] == 1.0
    assert told["units"][0] == told["full"][0] == pytest.approx(100.0)
    np.testing.assert_allclose(regular[:2], [4.0, 0.0])
    assert regular[2] > 0.0 and told["empty_days"][0] == 0.0
    draw = np.random.default_rng(3)
    random, _ = came(draw.exponential(10.0, 400).tolist(), left=50)
    assert random["days"][0] == pytest.approx(10.0, rel=0.6) and random["scatter"][0] > 0.3
    assert random["emptied"][0] == 0.0 and random["full"][0] == pytest.approx(150.0)


def test_the_first_delivery_ends_no_interval() -> None:
    told, regular = came([])
    assert told["came"][0] == 1 and told["days"][0] == 0.0
    assert sure_days(told, regular)[0] == 0.0


def test_what_is_relied_on_grows_as_deliveries_prove_regular() -> None:
    """Those of the whole shop count, too; of quite irregular ones half of a mean is relied on."""
    unknown, few, many = (came([7.0] * number, left=50) for number in (1, 3, 12))
    assert sure_days(*unknown)[0] == pytest.approx(7.0 * (1.0 - UNSURE_SHARE))
    assert sure_days(*unknown)[0] < sure_days(*few)[0] < sure_days(*many)[0] < 7.0
    regular = np.array([500.0, 0.0, 100.0])
    assert sure_days(unknown[0], regular)[0] > 0.9 * 7.0
    wild = np.array([500.0, 500.0, 600.0])
    assert sure_days(unknown[0], wild)[0] == pytest.approx(7.0 * (1.0 - UNSURE_SHARE))


def test_where_every_delivery_finds_an_empty_shelf_its_mean_counts() -> None:
    told, regular = came([7.0, 3.0, 12.0, 5.0])
    assert told["emptied"][0] == 1.0
    assert sure_days(told, regular)[0] == pytest.approx(told["days"][0])


def test_deliveries_that_wait_for_an_empty_shelf_are_told_from_those_by_a_calendar() -> None:
    """A shelf that is refilled so long after it ran out tells nothing of a calendar."""
    draw = np.random.default_rng(5)
    sold_out = draw.uniform(4.0, 12.0, 12)
    ordered = came((sold_out + 2.0).tolist(), empty=[2.0] * 12)
    planned = came([14.0] * 12, empty=(14.0 - sold_out).tolist())
    irregular = draw.uniform(11.0, 17.0, 12)
    seldom = came(irregular.tolist(), empty=(irregular - sold_out).tolist())
    # A shop of twenty such listings.
    assert not by_calendar(ordered[0], 20 * ordered[1])[0]
    assert by_calendar(planned[0], 20 * planned[1])[0]
    assert by_calendar(seldom[0], 20 * seldom[1])[0]
    at_random = draw.exponential(14.0, 12)
    told, regular = came(at_random.tolist(), empty=np.maximum(at_random - 8.0, 0.0).tolist())
    assert not by_calendar(told, 20 * regular)[0], "nobody knows when the next one comes"
    assert not by_calendar(*came([]))[0], "nothing is known yet"


def test_a_return_and_a_miscount_are_no_deliveries() -> None:
    world, shelves = shop(), Shelves(100)
    lived(world, shelves, 22)
    before = deliveries(world)["came"].copy()
    assert (before == 3).all(), "on the days 7, 14 and 21; the first count tells of none"
    np.testing.assert_allclose(deliveries(world)["days"], 7.0)
    shelves.stock += 20
    world.send(*(world.stock(int(shelves.stock[at]), sku) for at, sku in enumerate(SKUS)))
    np.testing.assert_array_equal(deliveries(world)["came"], before)


def test_deliveries_are_seen_where_only_they_are_counted() -> None:
    world, shelves = shop(), Shelves(100, counted=False)
    for day in range(22):
        lived(world, shelves, 1, day)
        if day % 7 == 0:
            world.send(*(world.stock(int(shelves.stock[at]), sku) for at, sku in enumerate(SKUS)))
    assert (deliveries(world)["came"] == 3).all()
    assert (np.abs(deliveries(world)["units"] - 100) < 25).all()


# ----- the price at which stock lasts ------------------------------------------------------------


def lasting(**other: float) -> float:
    given = {
        "level": np.log(20.0),
        "stock": 100.0,
        "units": 100.0,
        "full": 100.0,
        "passed": 0.0,
        "between": 7.0,
        "elasticity": -2.5,
        **other,
    }
    return float(lasting_log(**{name: np.array([value]) for name, value in given.items()})[0])


def test_stock_and_deliveries_are_sold_just_until_the_next_one() -> None:
    assert 20.0 * np.exp(-2.5 * lasting()) * 7.0 == pytest.approx(100.0)
    assert 20.0 * np.exp(-2.5 * lasting(passed=2.0)) * 5.0 == pytest.approx(100.0 * 10 / 12)
    assert 20.0 * np.exp(-2.5 * lasting(stock=50.0)) * 7.0 == pytest.approx(50.0)


def test_what_is_left_over_lasts_for_the_next_interval_too() -> None:
    assert 20.0 * np.exp(-2.5 * lasting(stock=150.0)) * 14.0 == pytest.approx(250.0)


def test_an_empty_shelf_and_one_that_is_soon_refilled_ask_for_the_next_interval() -> None:
    for of in (lasting(stock=0.0, passed=3.0), lasting(stock=3.0, passed=6.5), lasting(passed=9.0)):
        assert of == pytest.approx(lasting())
    assert lasting(between=0.0) == -np.inf


def lasts(now_days: float, stock: int, left: int = 0) -> float:
    told, regular = came([7.0] * 8, left=left)
    regular[2] = 3.0  # the shop's gaps scatter, whatever this one's do
    listing, learnt = new_row(), new_learnt()
    listing["counted"] = stock
    learnt["level"], learnt["days"] = np.log(20.0), 50.0
    now_ms = int(told["came_ms"][0]) + int(now_days * DAY_MS)
    slope = np.array([-2.5])
    return float(lasts_log(now_ms, regular, told, listing, learnt, np.array([0.05]), slope)[0])


def test_nothing_is_asked_where_shelves_are_not_empty_or_deliveries_have_stopped() -> None:
    assert lasts(0.0, 100) > 0.05
    assert lasts(0.0, 100, left=50) == -np.inf
    assert lasts(13.9, 5) > -np.inf
    assert lasts(14.1, 5) == -np.inf
    assert lasts(0.0, -1) == -np.inf


def test_scarce_stock_is_dearer_and_sells_to_the_end() -> None:
    """Three tenths less a week than is wanted: prices rise by a seventh, to where it just lasts."""
    world, shelves = shop(), Shelves(100)
    lived(world, shelves, 42)
    asked = []
    for day in range(42, 70):
        lived(world, shelves, 1, day)
        asked.append(np.log(prices(world) / PRICE))
    steady = np.log(100.0 / (7.0 * WANTED)) / ELASTICITY
    assert abs(np.mean(asked) - steady) < 0.045
    assert np.abs(np.mean(asked, axis=0) - steady).max() < 0.08
    assert ((flags(world) & LASTS) != 0).all()
    told = world.shard.live_facts(world.key("S0"))
    assert told is not None and told.deliveries is not None
    assert told.deliveries.days == pytest.approx(7.0)


def test_a_shop_that_orders_what_has_run_out_is_not_asked_ever_more() -> None:
    world, shelves = shop(), Shelves(60, every=10**6)
    out = np.zeros(len(SKUS), dtype=int)
    for day in range(90):
        lived(world, shelves, 1, day + 1)
        out = np.where(shelves.stock == 0, out + 1, 0)
        come = out == 3
        shelves.stock[come] += 60
    assert (deliveries(world)["came"] >= 10).all() and (deliveries(world)["emptied"] > 0.9).all()
    assert not (flags(world) & LASTS).any()


def test_plenty_changes_nothing() -> None:
    """With counts that tell of plenty prices are those of a shop that counts nothing."""
    counted, silent = shop(), shop()
    lived(counted, Shelves(400), 60)
    lived(silent, Shelves(400, counted=False), 60)
    np.testing.assert_array_equal(prices(counted), prices(silent))
    assert (deliveries(counted)["came"] == 8).all()
    assert not (flags(counted) & LASTS).any()


def test_a_season_and_units_are_not_made_to_last() -> None:
    for policy in ({"objective": "units"}, {"season_end_ms": 2**52}):
        world = shop(**policy)
        lived(world, Shelves(60), 50)
        assert not (flags(world) & LASTS).any()


def test_prices_that_stock_asks_for_teach_nothing() -> None:
    world, shelves = shop(), Shelves(60)
    lived(world, shelves, 60)
    memory = world.shard._memory
    rows = [memory.listings.live_row(world.key(sku)) for sku in SKUS]
    assert ((flags(world) & (LASTS | LASTED)) == (LASTS | LASTED)).all()
    before = memory.learnt.rows["own"][rows].copy()
    lived(world, shelves, 10, 60)
    assert (np.abs(memory.learnt.rows["own"][rows]) <= np.abs(before)).all()


# ----- state -------------------------------------------------------------------------------------


def test_a_row_keeps_its_budget() -> None:
    assert DELIVERY_DTYPE.itemsize <= 48
    assert DELIVERIES_KEPT > 1 and SCATTER_PRIOR > 0


def test_replay_is_exact() -> None:
    world, shelves = shop(), Shelves(80)
    batches: list[tuple[Any, Decided]] = []
    for day in range(45):
        world.now_ms += DAY
        batch = batch_of(shelves.day(world, day), after=world.shard)
        decided = world.shard.apply(batch, world.now_ms)
        world.shard.record(decided)
        batches.append((batch, decided))
    assert (flags(world) & LASTS).any()
    again = shop()
    for batch, decided in batches:
        assert again.shard.replay(batch, decided) is Agreement.EXACT
    assert again.shard.digest == world.shard.digest


@pytest.mark.parametrize("merged", [False, True])
def test_a_checkpoint_holds_deliveries(merged: bool) -> None:
    world, shelves = shop(), Shelves(80)
    lived(world, shelves, 30)
    parts: list[bytes] = []
    while (part := world.shard.checkpoint_slice(5)) is not None:
        parts.append(part)
    parts.append(world.shard.checkpoint_close())
    lived(world, shelves, 7, 30)
    parts.append(world.shard.checkpoint_close())
    other = World()
    other.shard = Shard.restore(merge_parts(parts) if merged else parts)
    other.now_ms = world.now_ms
    np.testing.assert_array_equal(deliveries(other), deliveries(world))
    beside = Shelves(80)
    beside.stock = shelves.stock.copy()
    lived(world, shelves, 20, 37)
    lived(other, beside, 20, 37)
    assert (flags(world) & LASTS).any()
    assert other.shard.digest == world.shard.digest


def test_checkpoints_of_before_deliveries_are_read() -> None:
    learnt, rows = Learnt(), np.arange(3)
    before = np.repeat(new_learnt(), 3)
    before["level"] = [1.0, 2.0, 3.0]
    learnt.fill(rows, before.tobytes(), 8)
    np.testing.assert_array_equal(learnt.rows["level"][:3], [1.0, 2.0, 3.0])
    assert (learnt.deliveries[:3] == np.zeros(3, dtype=DELIVERY_DTYPE)).all()
    assert len(before.tobytes()) == 3 * LEARNT_DTYPE.itemsize


def test_a_listing_that_is_removed_forgets_its_deliveries() -> None:
    world, shelves = shop(), Shelves(80)
    lived(world, shelves, 15)
    memory = world.shard._memory
    memory.learnt.forget(0)
    assert memory.learnt.deliveries["came"][0] == 0 and memory.learnt.deliveries["came"][1] > 0
