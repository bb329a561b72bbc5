"""Deliveries are seen in counts, and where they bring too little, stock is made to last."""

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from engine.checkpoint import merge_parts
from engine.decided import Decided
from engine.deliveries import Shelf, by_calendar, lasts_log, sure_days, taken
from engine.deltas import AnyDelta, ListingRemoved, PricePinned, UnitsSold
from engine.learnt import DAY_MS, DELIVERY_DTYPE, LASTED, LASTS, LEARNT_DTYPE, Learnt, new_learnt
from engine.listing_table import new_row
from engine.replay import Agreement
from engine.shard import Shard
from kernels.clearing import lasting_log
from kernels.hyperparameters import UNSURE_SHARE
from repricer import batch_of
from tests.engine.builders import DAY, HOUR, World

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


def learnt_of(world: World) -> np.ndarray:
    memory = world.shard._memory
    return memory.learnt.rows[[memory.listings.live_row(world.key(sku)) for sku in SKUS]]


def flags(world: World) -> np.ndarray:
    return np.asarray(learnt_of(world)["flags"])


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
        return Shelf(*(np.array([each]) for each in (*told, True)))

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
    world.now_ms += HOUR
    world.send(*(world.stock(int(shelves.stock[at]), sku) for at, sku in enumerate(SKUS)))
    np.testing.assert_array_equal(deliveries(world)["came"], before)
    shelves.stock += 200
    at_ms = world.now_ms - 1  # of the count before: this one corrects it
    told = [world.stock(int(shelves.stock[at]), sku) for at, sku in enumerate(SKUS)]
    world.send(*(replace(each, observed_ms=at_ms) for each in told))
    np.testing.assert_array_equal(deliveries(world)["came"], before)


def test_deliveries_are_seen_where_only_they_are_counted() -> None:
    world, shelves = shop(), Shelves(100, counted=False)
    for day in range(22):
        lived(world, shelves, 1, day)
        if day % 7 == 0:
            world.send(*(world.stock(int(shelves.stock[at]), sku) for at, sku in enumerate(SKUS)))
    assert (deliveries(world)["came"] == 3).all()
    assert (np.abs(deliveries(world)["units"] - 100) < 25).all()


class FilledUp(Shelves):
    """Each delivery fills shelves up to a level."""

    def day(self, world: World, day: int) -> list[AnyDelta]:
        # What comes is added to nothing: a delivery takes away what it is less for.
        if day % self.every == 0:
            self.stock = np.zeros(len(SKUS), dtype=int)
        return super().day(world, day)


def streamed(world: World, told: list[AnyDelta]) -> None:
    """Let a till tell of the day's sales an hour before the shelves are counted.

    Nobody says anything in the night, and the period closes on time.
    """
    sales = [each for each in told if isinstance(each, UnitsSold)]
    ends_ms = world.now_ms
    world.now_ms = ends_ms - DAY + 2 * HOUR
    world.send(after_ms=0)
    world.now_ms = ends_ms - HOUR
    if sales:
        world.send(*(replace(each, observed_ms=world.now_ms) for each in sales), after_ms=0)
    world.now_ms = ends_ms
    world.send(*(each for each in told if not isinstance(each, UnitsSold)), after_ms=0)


def told_as(world: World, told: list[AnyDelta], *, together: bool) -> None:
    """Tell of a day in one microbatch, or as a till streams it."""
    if together:
        world.send(*told, after_ms=0)
    else:
        streamed(world, told)


@pytest.mark.parametrize("together", [True, False])
def test_what_a_delivery_brings_does_not_hang_on_how_facts_are_cut(together: bool) -> None:
    """A till streams and shelves are counted at night: sales of what nobody had counted yet."""
    world, shelves = shop(), Shelves(60)
    for day in range(50):
        world.now_ms += DAY
        told_as(world, shelves.day(world, day), together=together)
    assert (deliveries(world)["came"] == 7).all()
    np.testing.assert_allclose(deliveries(world)["units"], 60.0)
    assert (deliveries(world)["full"] < 63.0).all()


@pytest.mark.parametrize("together", [True, False])
def test_a_shelf_is_not_empty_for_what_was_sold_of_a_delivery(together: bool) -> None:
    """Filled up each week with hardly more than a day's sales left, shelves are seldom empty."""
    world, shelves = shop(), FilledUp(190)
    for day in range(100):
        world.now_ms += DAY
        told_as(world, shelves.day(world, day), together=together)
        assert not (flags(world) & LASTS).any()
    assert (deliveries(world)["came"] == 14).all()
    assert (deliveries(world)["emptied"] < 0.25).all()


@pytest.mark.parametrize("together", [True, False])
def test_a_delivery_that_is_sold_out_before_it_is_counted_has_come(together: bool) -> None:
    world = shop()
    world.send(*(world.stock(0, sku) for sku in SKUS))
    for day in range(1, 30):
        world.now_ms += DAY
        sold = [world.sold(30, sku, source=f"till {sku}", source_seq=day) for sku in SKUS]
        told = [*sold, *(world.stock(0, sku) for sku in SKUS)]
        if day % 7 == 0:
            if together:
                world.send(*told, after_ms=0)
            else:
                streamed(world, list(told))
    assert (deliveries(world)["came"] == 4).all()
    np.testing.assert_allclose(deliveries(world)["units"], 30.0)


@pytest.mark.parametrize("single", [4, 40])
def test_a_late_count_behind_sales_that_are_forgotten_tells_of_no_delivery(single: int) -> None:
    world = shop()
    world.send(world.stock(100, "S0"))
    counted_ms = world.now_ms + 1000
    for number in range(single):
        world.send(world.sold(1, "S0", event_id=f"{number}"), after_ms=60_000)
    world.send(world.stock(100, "S0", observed_ms=counted_ms), after_ms=1000)
    assert (deliveries(world)["came"] == 0).all()


def test_a_first_delivery_that_was_none_is_forgotten_with_what_really_comes() -> None:
    told, regular = np.zeros(1, dtype=DELIVERY_DTYPE), np.zeros(3)
    yes, no = np.ones(1, dtype=bool), np.zeros(1, dtype=bool)

    def shelf(day: int, more: float) -> Shelf:
        counted = (day * DAY_MS, 0, 0.0, more, True)
        return Shelf(*(np.array([each]) for each in counted))

    regular = taken(told, regular, shelf(1, 0.0), yes, no)
    for day, more in ((2, 12.0), (3, 8.0), (7, 100.0)):
        regular = taken(told, regular, shelf(day, more), no, yes)
    assert told["came"][0] == 1 and told["days"][0] == 0.0
    assert told["units"][0] == told["full"][0] == 100.0
    for day, more in ((14, 110.0), (21, 90.0), (28, 400.0)):
        regular = taken(told, regular, shelf(day, more), no, yes)
    assert told["came"][0] == 4 and told["days"][0] == pytest.approx(7.0)


def test_learning_that_begins_after_stock_was_counted_misses_no_delivery() -> None:
    world = World()
    world.send(*(world.listing(sku, price_minor=PRICE, cost_minor=COST) for sku in SKUS))
    shelves = Shelves(100)
    lived(world, shelves, 20)
    world.send(world.policy(learning=True, dither=0.0))
    lived(world, shelves, 30, 20)
    assert (deliveries(world)["came"] == 5).all(), "on the days 21, 28, 35, 42 and 49"
    np.testing.assert_allclose(deliveries(world)["days"], 7.0)


@pytest.mark.parametrize("wait_hours", [12, 30, 60])
def test_gaps_that_are_only_counted_in_days_make_no_calendar(wait_hours: int) -> None:
    """What is ordered as it runs out comes at any hour, and midnights count its wait unevenly."""
    world, draw = shop(), np.random.default_rng(1)
    stock = np.full(len(SKUS), 1000) + draw.integers(0, 500, len(SKUS))
    due, begin_ms = np.full(len(SKUS), -1), world.now_ms
    for hour in range(6, 60 * 24, 6):
        world.now_ms = begin_ms + hour * HOUR
        stock = np.where(due == hour, stock + 1000, stock)
        told: list[AnyDelta] = []
        for at, sku in enumerate(SKUS):
            units = min(int(draw.poisson(50.0)), int(stock[at]))
            stock[at] -= units
            if units:
                told.append(world.sold(units, sku, source=f"till {sku}", source_seq=hour))
            told.append(world.stock(int(stock[at]), sku))
        due = np.where((stock == 0) & (due < hour), hour + wait_hours // 6 * 6, due)
        world.send(*told, after_ms=0)
    assert (deliveries(world)["came"] >= 7).all() and (deliveries(world)["emptied"] > 0.2).all()
    regular = world.shard._memory.learnt.retailers[0].regular
    assert not by_calendar(deliveries(world), regular).any()


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
    lived(world, shelves, 75)
    assert ((flags(world) & (LASTS | LASTED)) == (LASTS | LASTED)).all()
    before = learnt_of(world)["own"].copy()
    lived(world, shelves, 10, 75)
    assert (np.abs(learnt_of(world)["own"]) <= np.abs(before)).all()


def test_a_pin_over_a_price_that_stock_asks_for_teaches_as_any_pin() -> None:
    world, shelves = shop(), Shelves(60)
    lived(world, shelves, 75)
    world.send(*(world.about(PricePinned, sku, price_minor=PRICE) for sku in SKUS))
    told = world.shard.live_facts(world.key("S0"))
    assert told is not None and told.deliveries is None, "stock is no reason of this price"
    before = learnt_of(world)["history"].copy()
    lived(world, shelves, 40, 75)
    assert ((flags(world) & LASTS) != 0).any() and not (flags(world) & LASTED).any()
    assert (learnt_of(world)["history"][:, 0] > before[:, 0]).all()


def test_the_day_before_a_delivery_that_ends_scarcity_teaches_nothing_either() -> None:
    """Its price was asked for by stock, and is another before the day is closed."""
    world, shelves = shop(), Shelves(100)
    for day in range(60):
        new = (flags(world) & (LASTS | LASTED)) == LASTS
        if new.any() and day > 20:
            break
        lived(world, shelves, 1, day)
    shelves.stock += 2000
    world.now_ms += HOUR
    world.send(*(world.stock(int(shelves.stock[at]), sku) for at, sku in enumerate(SKUS)))
    ended = new & ((flags(world) & LASTS) == 0)
    assert ended.any()
    assert ((flags(world)[ended] & LASTED) != 0).all()


def test_a_ceiling_below_what_is_best_leaves_stock_no_say() -> None:
    world, shelves = shop(ceiling_minor=1900), Shelves(100)
    lived(world, shelves, 91)
    regular = world.shard._memory.learnt.retailers[0].regular
    assert by_calendar(deliveries(world), regular).all(), "else nothing is tested"
    assert (prices(world) <= 1900).all()
    assert not (flags(world) & LASTS).any()


# ----- state -------------------------------------------------------------------------------------


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
    row = memory.listings.live_row(world.key("S0"))
    assert (deliveries(world)["came"] > 0).all()
    world.send(world.about(ListingRemoved, "S0"))
    world.now_ms += 2 * DAY
    world.send(world.listing("N", price_minor=PRICE, cost_minor=COST))
    assert memory.listings.live_row(world.key("N")) == row, "the row is used again"
    assert memory.learnt.deliveries[row] == np.zeros((), dtype=DELIVERY_DTYPE)
    assert (memory.learnt.deliveries["came"] > 0).sum() == len(SKUS) - 1
