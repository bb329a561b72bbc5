"""Whatever drives a price is told in its receipt, and nothing that does not."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from engine.drivers import DRIVERS, ListingFacts
from engine.explanation import Explanation, explain
from engine.forms import take_form
from engine.live_drivers import LIVE_DRIVERS
from engine.shard import Shard
from kernels.forms import FORMS
from tests.engine import test_brake, test_leash, test_models
from tests.engine.builders import DAY, T, World
from tests.engine.receipts import driver, receipt
from tests.engine.test_objectives import SKUS, START, UNITS_A_DAY, Shop

SEASON = {"season_end_ms": T + 50 * DAY, "step_max": 1.0, "learning_step": 0.2}
TOO_MUCH = int(UNITS_A_DAY * 130)


@cache
def cleared() -> World:
    """Return a shop in the middle of a season in which it has far too much to sell."""
    return Shop(TOO_MUCH, **SEASON).live(26).world


@cache
def sold_through() -> World:
    return Shop(TOO_MUCH, objective="sell_through", **SEASON).live(26).world


@cache
def usual() -> World:
    """Return a shop that learns and has neither season, stock nor budget."""
    return Shop(dither=0.06, decision_days=7).live(26).world


def successor_of(world: World) -> Shard:
    """Return a shard restored from a whole checkpoint."""
    world.shard.checkpoint_restart()
    return Shard.restore([world.shard.checkpoint_close()])


def cut(world: World) -> Explanation:
    told = [receipt(world, sku) for sku in SKUS]
    return next(each for each in told if "learnt" in each.reasons and each.in_force_minor < START)


def strays(world: World) -> Explanation:
    told = [receipt(world, sku) for sku in SKUS]
    return next(each for each in told if "dithered" in each.reasons)


def test_a_clearance_is_told_with_its_days_its_stock_and_its_plan() -> None:
    told = cut(cleared())
    assert ", which is to clear its stock by the season's end, in few cuts" in told.text
    assert "greatest expected profit" not in told.text
    season, stock, plan = (driver(told, name) for name in ("season", "stock", "season_plan"))
    assert season is not None and stock is not None and plan is not None
    assert season.value is not None and 24.0 <= season.value < 50.0
    assert (
        f"with {stock.value} in stock then: its stock is cleared by at most 3 cuts" in season.text
    )
    assert (season.as_of, plan.as_of) == ("decision", "now")
    assert plan.value is not None and 0 < plan.value < START
    assert "cuts are made" in plan.text
    objective = driver(told, "objective")
    assert objective is not None and "clearing its stock goes before that" in objective.text


def test_a_stock_to_be_sold_through_is_told_as_such() -> None:
    told = cut(sold_through())
    assert "a step towards the price at which its stock is expected to last" in told.text
    plan = driver(told, "season_plan")
    assert plan is not None and "they last just so long at" in plan.text
    assert "cuts" not in plan.text
    objective = driver(told, "objective")
    assert objective is not None
    assert objective.text == "What it is to achieve is sell-through, by the retailer's policy."


def test_without_a_season_none_is_told() -> None:
    told = strays(usual())
    assert driver(told, "season") is driver(told, "season_plan") is None
    assert "a step towards the greatest expected profit" in told.text
    objective = driver(told, "objective")
    assert objective is not None and "is profit, by the engine's default" in objective.text


def test_after_a_season_its_shop_sells_for_profit_again() -> None:
    world, sku = cleared(), SKUS[0]
    told = [receipt(world, sku) for sku in SKUS]
    sku = SKUS[next(at for at, each in enumerate(told) if "learnt" in each.reasons)]
    quote = world.shard.quote(world.key(sku))
    assert quote is not None
    winners = world.shard._memory.groups.book.winners("acme", "shop", "", (), f"shop\x1f{sku}")
    facts = ListingFacts(channel="shop", sku=sku, currency="EUR", policy=winners)
    ended = explain(quote, facts, T + 51 * DAY)
    assert driver(ended, "season") is None
    assert "greatest expected profit" in ended.text


def test_what_exploring_costs_is_told_in_money_and_as_a_share_of_its_budget() -> None:
    free = driver(strays(usual()), "exploration")
    assert free is not None and free.value is not None and free.value > 0.0
    assert "exploring has no budget but what pays back" in free.text
    budget = Shop(dither=0.06, decision_days=7, exploration_budget_minor=900).live(26).world
    told = driver(strays(budget), "exploration")
    assert told is not None and told.value is not None and told.value < free.value
    assert "of the 9.00 EUR that the retailer gives to exploring" in told.text
    world = Shop(dither=0.0).live(26).world
    assert all(driver(receipt(world, sku), "exploration") is None for sku in SKUS)


def test_what_exploring_costs_is_what_the_retailers_share_counts() -> None:
    """A day's cost over all listings is what the close of that day adds to the share's sum."""
    shop = Shop(dither=0.06, decision_days=7).live(26)
    shard = shop.world.shard
    told = [shard.live_facts(shop.world.key(sku)) for sku in SKUS]
    cost = sum(each.exploration.cost_minor for each in told if each and each.exploration)
    before = shard._memory.learnt.retailers[0].explored[0]
    shop.live(1)
    assert cost > 0.0
    assert shard._memory.learnt.retailers[0].explored[0] - before == pytest.approx(cost, rel=0.3)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("pooled", "to change with the price as all listings'"),
        ("constant", "to be the same at every price (curvature 0.00)"),
        ("exponential", "Each cent is taken to cost the same share of its sales"),
    ],
)
def test_the_form_of_demand_is_told_with_its_curvature(form: str, said: str) -> None:
    told = strays(usual())
    lived = driver(told, "demand_form")
    assert lived is not None and "to change with the price" in lived.text
    successor = successor_of(usual())
    held = successor._memory.learnt.retailers[0]
    held.forms = [FORMS.index(form)] * len(held.forms)
    category = np.zeros(len(SKUS), dtype=np.int64)
    take_form(held, successor._memory.learnt.rows[: len(SKUS)], category)
    facts = successor.live_facts(usual().key(SKUS[0]))
    assert facts is not None and facts.demand is not None and facts.demand.form == form
    quote = successor.quote(usual().key(SKUS[0]))
    assert quote is not None
    found = explain(quote, ListingFacts(channel="", sku="", currency="EUR"), 1, facts)
    chosen = driver(found, "demand_form")
    assert chosen is not None and said in chosen.text
    assert chosen.value == pytest.approx(facts.demand.curvature, abs=1e-4)


def test_the_model_that_speaks_is_named_and_why_none_does() -> None:
    """Rules, the stream alone, a canary, a champion, one that is taken back, one that knows not."""
    rules = World()
    rules.send(rules.listing())
    told = driver(receipt(rules), "model")
    assert told is not None and told.text.startswith("No demand is learnt")

    world = test_models.shop()
    assert "No trained model was promoted" in _model(world, test_models.SKUS[0])
    model = test_models.artefact()
    canary = test_models.promoted(world, model, stage="canary", share=0.3, canary_days=40)
    test_models.given(world, canary, model)
    test_models.lived(world, 2)
    said = [_model(world, sku) for sku in test_models.SKUS[:20]]
    mine = [each for each in said if "The trained model m-1 (canary) is counted beside" in each]
    others = [each for each in said if "m-1 is a canary and serves other listings" in each]
    assert mine and others and len(mine) + len(others) == 20

    champion = test_models.promoted(world, model, stage="champion")
    test_models.given(world, champion, model)
    assert "The trained model m-1 (champion)" in _model(world, test_models.SKUS[0])
    world.send(world.listing("new", category="c0", price_minor=1500))
    test_models.lived(world, 10)
    assert "m-1 says nothing of this listing" in _model(world, "new")
    world.send(world.whole(test_models.ModelPromoted, model="rules"), after_ms=DAY)
    assert "was taken back" in _model(world, test_models.SKUS[0])


def _model(world: World, sku: str) -> str:
    told = driver(receipt(world, sku), "model")
    assert told is not None, sku
    return told.text


def test_rivals_pull_is_told_where_there_are_rivals() -> None:
    world = Shop(dither=0.06, decision_days=7).world
    for _ in range(26):
        world.now_ms += DAY
        world.send(*(world.rival(1490, sku=sku) for sku in SKUS[:4]))
    told = [driver(receipt(world, sku), "rival_pull") for sku in SKUS]
    assert all(each is not None and "one percent cheaper" in each.text for each in told[:4])
    assert told[4:] == [None] * (len(SKUS) - 4)


def test_a_taut_leash_is_told_and_a_loose_one_is_not() -> None:
    world = test_leash.followed(("a",))
    assert driver(receipt(world), "leash") is None
    test_leash.say(world, {"a": 1500})
    told = driver(receipt(world), "leash")
    assert told is not None and told.value == 1500
    assert "at most 1 % a day and stands at 15.99 EUR" in told.text


def test_a_brake_is_told_with_its_end_until_it_ends() -> None:
    world = test_brake.bound()
    assert driver(receipt(world), "brake_time") is None
    test_brake.fought(world, test_brake.undercut(0.01), 8)
    told = driver(receipt(world), "brake_time")
    assert told is not None and told.value == world.price()
    assert "second half: its rival pulls the price no lower than" in told.text
    world.send(after_ms=8 * DAY)
    assert driver(receipt(world), "brake_time") is None


def test_an_ending_that_demand_chose_is_told_with_the_price_perceived() -> None:
    by_demand = {"left_digit_bias": 0.2, "endings": ["99", "49"], "objective": "revenue"}
    world = Shop(**by_demand).live(12).world
    told = next(each for sku in SKUS if "learnt" in (each := receipt(world, sku)).reasons)
    ending = driver(told, "ending")
    assert ending is not None and ending.value == pytest.approx(0.2)
    seen = told.target_minor - 0.2 * (told.target_minor % 100)
    assert f"sells as {round(seen) / 100:.2f} EUR would" in ending.text
    assert "end in 99 or 49" in ending.text
    assert driver(strays(usual()), "ending") is None


def test_a_price_that_waits_for_learning_says_so() -> None:
    world = World()
    world.send(world.policy(learning=True))
    world.send(world.listing())
    told = receipt(world)
    assert "it is the price that was in force before." in told.text
    assert driver(told, "waits") is not None
    assert "profit peaks" not in told.text
    shadow = World(mode="shadow")
    shadow.send(shadow.policy(learning=True))
    shadow.send(shadow.listing())
    assert driver(receipt(shadow), "waits") is None


def test_a_price_that_ended_its_sales_is_told_as_barred() -> None:
    world = usual()
    assert driver(strays(world), "barred") is None
    successor = successor_of(world)
    memory = successor._memory
    row = memory.listings.index.row(world.key(SKUS[0]))
    day = memory.learnt.retailers[0].day
    memory.learnt.rows["proven"][row] = np.log(1.05)
    memory.learnt.rows["barred_day"][row] = day + 9
    facts = successor.live_facts(world.key(SKUS[0]))
    assert facts is not None and facts.barred is not None
    assert (facts.barred.above_minor, facts.barred.days) == (round(START * 1.05), 9)


def test_a_quote_of_before_a_decision_tells_what_was_decided_since() -> None:
    """A quote is made where a price changes: a decision that leaves it is told as of now."""
    world = Shop(int(UNITS_A_DAY * 50), **SEASON).live(26).world
    told = [receipt(world, sku) for sku in SKUS]
    stayed = [each for each in told if "learnt" not in each.reasons]
    assert stayed, "the stock is just right, so some prices never moved"
    for each in stayed:
        decided = driver(each, "decided")
        assert decided is not None and "which is to clear its stock" in decided.text


@pytest.mark.parametrize("world", [cleared, sold_through, usual])
def test_a_replayed_shard_tells_the_same(world: Callable[[], World]) -> None:
    lived = world()
    successor = successor_of(lived)
    for sku in SKUS:
        facts = lived.shard.live_facts(lived.key(sku))
        assert facts is not None
        assert successor.live_facts(lived.key(sku)) == facts


def test_asking_changes_nothing() -> None:
    world = test_brake.bound()
    test_brake.fought(world, test_brake.undercut(0.01), 8)
    before = world.shard._memory.listings.listings.tobytes()
    world.shard.live_facts(world.key())
    assert world.shard._memory.listings.listings.tobytes() == before
    assert world.shard.live_facts(world.key("nobody")) is None


def test_drivers_come_in_the_order_that_is_told() -> None:
    worlds = [(cleared(), SKUS[0]), (sold_through(), SKUS[0]), (usual(), SKUS[0])]
    order = (*DRIVERS, *LIVE_DRIVERS)
    for world, sku in worlds:
        places = [order.index(each.name) for each in receipt(world, sku).drivers]
        assert places == sorted(places)
        only_kept = receipt(world, sku, live=False).drivers
        assert all(each.as_of == "decision" for each in only_kept)
