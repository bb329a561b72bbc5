"""An explanation names the rule, its figure, whose it is, and what the price would be without."""

import json
import re

import numpy as np
import pytest

from engine.amounts import DIGITS, money_text, percent
from engine.decided import QUOTE_DTYPE, Cause, State
from engine.drivers import ListingFacts
from engine.explanation import SETTING, explain
from engine.policy import FIELDS, PolicyBook
from kernels import reasons
from kernels.reasons import BINDING_NONE, BINDINGS, RULES


def quote(**values: float) -> np.void:
    """Return a usual quote: 15.00 wished, 15.00 in force, but as given."""
    usual: dict[str, float] = {
        "state": State.LIVE,
        "in_force_minor": 1500,
        "previous_minor": 1400,
        "proposed_minor": 1500,
        "target_minor": 1500,
        "floor_minor": 1120,
        "ceiling_minor": 1680,
        "cost_minor": 1000,
        "binding": BINDING_NONE,
        "elasticity": -3.0,
        "elasticity_sd": 0.5,
        "stock": -1,
        "confidence": 0.9,
        "profit_change": 12.5,
    }
    row = np.zeros((), dtype=QUOTE_DTYPE)
    for name, value in {**usual, **values}.items():
        row[name] = value
    return row[()]


def policy() -> PolicyBook:
    book = PolicyBook()
    book.change(
        "r",
        "retailer",
        "",
        {"max_discount": 0.3, "step_max": 0.125, "changes_per_hour_max": 7, "ceiling_minor": 1300},
    )
    book.change("r", "category", "juice", {"min_margin": 0.0825, "kvi_rival_ratio_max": 1.1})
    book.change("r", "tag", "cents", {"endings": ["99", "95"]})
    return book


def listing(**values: object) -> ListingFacts:
    usual: dict[str, object] = {
        "channel": "shop",
        "sku": "A1",
        "currency": "EUR",
        "rrp_minor": 1800,
        "map_minor": 1700,
        "policy": policy().winners("r", "shop", "juice", ("cents",), "shop\x1fA1"),
    }
    return ListingFacts(**{**usual, **values})  # type: ignore[arg-type]


def moved_by(rule: str, price: int, target: int = 1500, **values: float) -> np.void:
    """Return a quote whose price ``rule`` has set."""
    index = RULES.index(rule)
    return quote(
        **{
            "in_force_minor": price,
            "proposed_minor": price,
            "target_minor": target,
            "binding": index,
            "reasons": 1 << index,
            "without_minor": target,
            "rival_minor": 1250,
            "rivals": 3,
            **values,
        }
    )


WITHOUT = "; without it the price would be 15.00 EUR."


@pytest.mark.parametrize(
    ("rule", "price", "said"),
    [
        ("legal", 1700, "The minimum advertised price raised it to 17.00 EUR"),
        (
            "floor",
            1600,
            "The floor for a margin of 8.25 %, set by the policy of category juice, raised it to"
            " 16.00 EUR",
        ),
        ("ceiling", 1300, "The ceiling, set by the retailer's policy, lowered it to 13.00 EUR"),
        (
            "max_discount",
            1260,
            "The largest discount of 30 % off the RRP of 18.00 EUR, set by the retailer's policy,"
            " lowered it to 12.60 EUR",
        ),
        (
            "step",
            1575,
            "The largest step of 12.5 % from 14.00 EUR, set by the retailer's policy, raised it to"
            " 15.75 EUR",
        ),
        (
            "rate",
            1400,
            "The limit of 7 on changes within an hour, set by the retailer's policy, kept it at"
            " 14.00 EUR",
        ),
        (
            "kvi",
            1375,
            "As a key value item it may cost at most 110 % of its rival's 12.50 EUR, set by the"
            " policy of category juice, which lowered it to 13.75 EUR",
        ),
        (
            "ending",
            1499,
            "Prices end in 99 or 95, set by the policy of tag cents, which lowered it to 14.99 EUR",
        ),
    ],
)
def test_the_binding_rule_is_told_with_figure_and_scope(rule: str, price: int, said: str) -> None:
    found = explain(moved_by(rule, price), listing())
    assert f" {said}{WITHOUT}" in found.text
    assert found.binding is not None
    assert found.binding.rule == rule
    assert (found.binding.price_minor, found.binding.without_minor) == (price, 1500)
    assert found.moved_by == (rule,)
    if rule != "legal":
        winner = listing().policy[SETTING[rule]]
        assert (found.binding.setting, found.binding.value) == (SETTING[rule], winner.value)
        assert found.binding.set_by == str(winner)
    else:
        assert (found.binding.setting, found.binding.value) == ("map_minor", 1700)
        assert found.binding.set_by == "the listing"
        unknown = explain(moved_by(rule, price), ListingFacts(channel="", sku="", currency="EUR"))
        assert unknown.binding is not None
        assert unknown.binding.value is None


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("floor", "The floor raised it to 16.00 EUR"),
        ("ceiling", "The ceiling raised it to 16.00 EUR"),
        ("max_discount", "The largest discount off the RRP of 18.00 EUR raised it to 16.00 EUR"),
        ("step", "The largest step from 14.00 EUR raised it to 16.00 EUR"),
        ("rate", "The limit on changes within an hour kept it at 16.00 EUR"),
        (
            "kvi",
            "As a key value item it may cost at most its rival's 12.50 EUR which raised it to"
            " 16.00 EUR",
        ),
        ("ending", "Prices end in certain digits which raised it to 16.00 EUR"),
    ],
)
def test_without_the_policy_the_rule_is_told_all_the_same(rule: str, said: str) -> None:
    found = explain(moved_by(rule, 1600), listing(policy={}))
    assert f" {said}{WITHOUT}" in found.text
    assert found.binding is not None
    assert (found.binding.value, found.binding.set_by) == (None, "")


def test_a_floor_of_ones_own_is_told_as_such() -> None:
    book = policy()
    book.change("r", "listing", "shop\x1fA1", {"floor_minor": 1600})
    won = book.winners("r", "shop", "juice", (), "shop\x1fA1")
    found = explain(moved_by("floor", 1600), listing(policy=won))
    assert ". The floor, set by the policy of listing shop / A1, raised it to 16.00" in found.text
    assert found.binding is not None
    assert (found.binding.setting, found.binding.value) == ("floor_minor", 1600)


def test_a_first_price_has_its_step_from_nothing_else_than_itself() -> None:
    found = explain(moved_by("step", 1575, previous_minor=0, in_force_minor=1400), listing())
    assert "from 14.00 EUR" in found.text


def test_a_price_that_another_rule_would_hold_as_well_says_so() -> None:
    found = explain(moved_by("floor", 1600, without_minor=1600), listing())
    assert "raised it to 16.00 EUR; without it another rule would" in found.text
    assert "another rule would leave the price where it is. " in found.text
    assert "without it the price would be" not in found.text


def test_a_price_that_no_rule_moved_is_the_models() -> None:
    found = explain(quote(), listing())
    assert found.binding is None
    assert found.moved_by == ()
    assert (
        " No rule moved it: it is the price at which the model expects most profit." in found.text
    )


def test_nothing_proposed_is_not_called_the_models_price() -> None:
    assert "No rule moved it" in explain(quote(proposed_minor=1), listing()).text
    for values in ({"proposed_minor": 0}, {"reasons": reasons.MODEL_INVALID}):
        assert "No rule moved it" not in explain(quote(**values), listing()).text


def test_a_binding_without_a_price_binds_nothing() -> None:
    assert explain(moved_by("floor", 0), listing()).binding is None
    pinned = explain(moved_by("floor", 0, in_force_minor=1600), listing()).binding
    assert pinned is not None
    assert pinned.price_minor == 1600
    shadow = explain(moved_by("floor", 1600, in_force_minor=1), listing()).binding
    assert shadow is not None
    assert shadow.price_minor == 1600


STATES = [
    ({"previous_minor": 1500}, "15.00 EUR is in force."),
    ({"previous_minor": 0}, "15.00 EUR is in force."),
    ({}, "15.00 EUR is in force, 14.00 EUR was before."),
    ({"in_force_minor": 0}, "No price is in force yet."),
    (
        {"state": State.SHADOW, "in_force_minor": 1450},
        "In shadow mode nothing is put in force: 15.00 EUR is a proposal, 14.50 EUR stays in"
        " force.",
    ),
    (
        {"state": State.SHADOW, "in_force_minor": 0},
        "In shadow mode nothing is put in force: 15.00 EUR is a proposal, no price is in force.",
    ),
    (
        {"state": State.SHADOW, "reasons": reasons.UNPUBLISHED},
        "The policy says not to publish this listing: 15.00 EUR is a proposal, 15.00 EUR stays in"
        " force.",
    ),
    (
        {"state": State.PENDING, "in_force_minor": 1450},
        "15.00 EUR waits for a person to approve it; until then 14.50 EUR stays in force.",
    ),
    (
        {"state": State.PINNED, "in_force_minor": 1450},
        "A person pinned the price: 14.50 EUR stays in force.",
    ),
    (
        {"state": State.HELD, "in_force_minor": 1450},
        "The breaker holds back 15.00 EUR, because too many prices would have moved too far at"
        " once; 14.50 EUR stays in force until a person resumes.",
    ),
    (
        {"state": State.INFEASIBLE, "floor_minor": 1750, "ceiling_minor": 1300},
        "The floor of 17.50 EUR lies above the ceiling of 13.00 EUR, which leaves no price;"
        " 15.00 EUR stays in force.",
    ),
    (
        {"state": State.INFEASIBLE, "floor_minor": 1700, "ceiling_minor": 1300},
        "The minimum advertised price of 17.00 EUR lies above the ceiling of 13.00 EUR, which"
        " leaves no price; 15.00 EUR stays in force.",
    ),
    (
        {"state": State.INFEASIBLE, "floor_minor": 2**30 + 1},
        "No price earns the margin that the policy asks for, after VAT and fees; 15.00 EUR stays"
        " in force.",
    ),
    (
        {"state": State.INFEASIBLE, "reasons": reasons.PIN_OUT_OF_BOUNDS},
        "The pinned price now lies outside of what is legal, the floor and the ceiling; 15.00 EUR"
        " stays in force.",
    ),
    (
        {"state": State.INFEASIBLE, "floor_minor": 1300, "ceiling_minor": 1300},
        "The minimum advertised price, the floor and the ceiling leave no price; 15.00 EUR stays"
        " in force.",
    ),
    (
        {"state": State.UNPUBLISHABLE, "reasons": reasons.NO_COST | reasons.NO_FLOOR},
        "The cost is unknown, so no price may be published; 15.00 EUR stays in force.",
    ),
    (
        {"state": State.UNPUBLISHABLE, "reasons": reasons.NO_FLOOR},
        "There is no floor, so no price may be published; 15.00 EUR stays in force.",
    ),
    (
        {"state": State.UNPUBLISHABLE, "reasons": reasons.STALE_RATE, "in_force_minor": 0},
        "A currency rate that it needs is missing or too old, so no price may be published; no"
        " price is in force.",
    ),
    (
        {"state": State.UNPUBLISHABLE, "reasons": reasons.MODEL_INVALID},
        "The model gave no usable figure, so no price may be published; 15.00 EUR stays in force.",
    ),
    (
        {"state": State.UNPUBLISHABLE},
        "Nothing could be decided, so no price may be published; 15.00 EUR stays in force.",
    ),
    (
        {"state": State.HALTED},
        "Publishing is halted: 15.00 EUR stays in force until a person resumes.",
    ),
    (
        {"state": State.INFEASIBLE, "floor_minor": 2**30, "ceiling_minor": 1300},
        "The floor of 10737418.24 EUR lies above the ceiling of 13.00 EUR, which leaves no price;"
        " 15.00 EUR stays in force.",
    ),
    ({"in_force_minor": 1, "previous_minor": 1}, "0.01 EUR is in force."),
    (
        {"state": State.PINNED, "in_force_minor": 1},
        "A person pinned the price: 0.01 EUR stays in force.",
    ),
    ({"state": State.REMOVED}, "The listing was removed."),
]


@pytest.mark.parametrize(("values", "said"), STATES)
def test_every_state_is_told_in_a_sentence(values: dict[str, float], said: str) -> None:
    found = explain(quote(**values), listing())
    assert found.text.startswith(said + " ")
    assert found.state == State(int(values.get("state", State.LIVE))).name.lower()


def test_no_state_is_forgotten() -> None:
    assert {values.get("state", State.LIVE) for values, _ in STATES} == set(State)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"reasons": reasons.OVERRIDDEN},
            "Not every rule could be met; the stronger went before the weaker.",
        ),
        ({"reasons": reasons.FIRST_PRICE}, "It is the first price, so step and rate had no say."),
        ({"reasons": reasons.STALE_RIVALS}, "All rivals' prices are too old to count."),
        ({"reasons": reasons.APPROVED}, "A person approved it."),
        ({"reasons": reasons.REJECTED}, "A person rejected the proposal."),
        (
            {"reasons": reasons.UNKNOWN_OWN_IDENTITY},
            "It was not lowered, because a rival may be ourselves under another name.",
        ),
        (
            {"reasons": reasons.CLAMPED},
            "The engine corrected the kernel's figure, which is worth an alarm.",
        ),
        (
            {"reasons": reasons.MODEL_INVALID},
            "The model gave no usable figure, so nothing new is proposed.",
        ),
        ({"reasons": reasons.HALTED, "state": State.PINNED}, "Publishing is halted."),
        ({"stock": 0}, "It is out of stock."),
        ({"stock": 12}, "12 in stock."),
        ({"rival_minor": 1250, "rivals": 1}, "The reference of one rival stands at 12.50 EUR."),
        ({"rival_minor": 1250, "rivals": 4}, "The reference of 4 rivals stands at 12.50 EUR."),
        ({}, "A unit costs 10.00 EUR."),
        ({"cost_minor": 0}, "A unit costs 0.00 EUR."),
        ({"cost_minor": -1}, "Its cost is unknown."),
        (
            {},
            "With an elasticity of -3.00 (give or take 0.50), one percent dearer sells about 3.0 %"
            " less, and profit peaks at 15.00 EUR.",
        ),
    ],
)
def test_a_remark_is_made_where_it_applies_and_only_there(
    values: dict[str, float], said: str
) -> None:
    assert f" {said} " in f"{explain(quote(**values), listing()).text} "
    if values:
        assert said not in explain(quote(), listing()).text


def positioned(**fields: object) -> ListingFacts:
    book = PolicyBook()
    book.change("r", "category", "shoes", {"rival_position": 0.99, **fields})
    return listing(policy=book.winners("r", "shop", "shoes", (), "shop\x1fA1"))


@pytest.mark.parametrize(
    ("damping", "part"),
    [(None, "half of the way at a step"), (0.0, "all of the way"), (0.75, "25 % of the way")],
)
def test_a_position_is_told_with_figure_and_scope(damping: float | None, part: str) -> None:
    facts = positioned() if damping is None else positioned(rival_damping=damping)
    followed = quote(rival_minor=1950, rivals=2)
    found = explain(followed, facts)
    asks = f"It asks to stand at 99 % of its reference rival (19.50 EUR), {part}"
    assert asks in found.text and found.text.count(": the policy of category shoes.") == 1
    assert [each.value for each in found.drivers if each.name == "position"] == [0.99]
    # What it asks for is nobody's optimum.
    assert "profit peaks" not in found.text and "expects most profit" not in found.text
    assert "one percent dearer sells about 3.0 % less." in found.text
    doubted = quote(rival_minor=1950, rivals=2, reasons=reasons.UNKNOWN_OWN_IDENTITY)
    assert "It was not moved towards its rival, because" in explain(doubted, facts).text


@pytest.mark.parametrize(
    ("rival", "mask"), [(0, 0), (1950, reasons.HELD_OUT), (1950, reasons.LEARNT)]
)
def test_a_position_that_does_not_hold_is_not_told(rival: int, mask: int) -> None:
    found = explain(quote(rival_minor=rival, rivals=rival > 0, reasons=mask), positioned())
    assert "asks to stand" not in found.text
    assert "position" not in [driver.name for driver in found.drivers]
    none = explain(quote(rival_minor=1950, rivals=1), positioned(rival_position=0.0))
    assert "asks to stand" not in none.text


def test_what_the_state_says_is_not_said_twice() -> None:
    halted = explain(quote(state=State.HALTED, reasons=reasons.HALTED), listing()).text
    assert halted.count("halted") == 1
    invalid = quote(state=State.UNPUBLISHABLE, reasons=reasons.MODEL_INVALID)
    assert explain(invalid, listing()).text.count("usable figure") == 1


def test_drivers_are_what_the_model_had_to_look_at() -> None:
    bare = explain(quote(target_minor=0, cost_minor=-1), listing())
    assert [(driver.name, driver.value) for driver in bare.drivers] == [("cost", None)]
    free = explain(quote(target_minor=0, cost_minor=0), listing())
    assert [(driver.name, driver.value) for driver in free.drivers] == [("cost", 0)]
    full = explain(quote(rival_minor=1250, rivals=2, stock=0), listing())
    assert [(driver.name, driver.value) for driver in full.drivers] == [
        ("cost", 1000),
        ("elasticity", -3.0),
        ("rival", 1250),
        ("stock", 0),
    ]


def test_it_is_plain_json() -> None:
    found = explain(moved_by("floor", 1600), listing())
    plain = json.loads(json.dumps(found.as_dict()))
    assert plain["binding"]["rule"] == "floor"
    assert plain["drivers"][0]["name"] == "cost"
    assert plain["confidence"] == pytest.approx(0.9)
    assert plain["profit_change_minor"] == 12.5
    assert plain["reasons"] == ["floor"]
    figures = ("in_force", "previous", "proposed", "target", "floor", "ceiling")
    assert [plain[f"{name}_minor"] for name in figures] == [1600, 1400, 1600, 1500, 1120, 1680]
    assert json.loads(json.dumps(explain(quote(), listing()).as_dict()))["binding"] is None


def test_every_rule_but_map_has_a_setting_that_exists() -> None:
    assert set(SETTING) == set(BINDINGS) - {"legal"}
    assert set(SETTING.values()) <= set(FIELDS)


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (1999, "EUR", "19.99 EUR"),
        (5, "USD", "0.05 USD"),
        (0, "USD", "0.00 USD"),
        (1999, "JPY", "1999 JPY"),
        (1999, "KWD", "1.999 KWD"),
        (-250, "GBP", "-2.50 GBP"),
        (100, "", "1.00"),
    ],
)
def test_money_is_written_with_the_digits_of_its_currency(
    minor: int, currency: str, text: str
) -> None:
    assert money_text(minor, currency) == text


def test_the_currencies_without_two_decimals_are_these() -> None:
    none = re.findall("...", "BIFCLPDJFGNFISKJPYKMFKRWPYGRWFUGXVNDVUVXAFXOFXPF")
    three = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"]
    assert {**dict.fromkeys(none, 0), **dict.fromkeys(three, 3)} == DIGITS


def test_ratios_are_written_as_percents() -> None:
    assert [percent(ratio) for ratio in (0.2, 0.0425, 1.05, 0.0, 1 / 3)] == [
        "20 %",
        "4.25 %",
        "105 %",
        "0 %",
        "33.33 %",
    ]


def test_learnt_demand_says_where_it_comes_from() -> None:
    told = explain(quote(reasons=reasons.LEARNT | reasons.DITHERED), listing())
    assert "learnt from what sold" in told.text
    assert "strays a little" in told.text
    assert {"elasticity", "dither"} <= {driver.name for driver in told.drivers}
    assert {"learnt", "dithered"} <= set(told.reasons)
    plain = explain(quote(), listing())
    assert "learnt" not in plain.text
    assert "dither" not in {driver.name for driver in plain.drivers}


def of_tier(fields: dict[str, object], **own: object) -> ListingFacts:
    """Return a listing whose retailer, and whose category, say this of tiers."""
    book = PolicyBook()
    book.change("r", "retailer", "", fields)
    if own:
        book.change("r", "category", "juice", own)
    return listing(policy=book.winners("r", "shop", "juice", (), "shop\x1fA1"))


MOVES = "what rivals ask and what is sold moves it at each full hour."


@pytest.mark.parametrize(
    ("fields", "own", "cause", "said"),
    [
        (
            {},
            {"tier": "hourly"},
            Cause.DELTA,
            f"It is looked at hourly, set by the policy of category juice: {MOVES}",
        ),
        (
            {"tier": "hourly"},
            {},
            Cause.HOUR,
            f"It is looked at hourly, set by the retailer's policy: {MOVES}",
        ),
        (
            {"realtime_share": 0.2},
            {},
            Cause.HOUR,
            "It is looked at hourly, because by revenue it is not among the first 20 % of its"
            f" retailer's listings, which are priced in real time: {MOVES}",
        ),
        (
            {"realtime_share": 0.2},
            {},
            Cause.DELTA,
            "By revenue, the first 20 % of its retailer's listings are priced in real time and the"
            " others hourly.",
        ),
        (
            {"realtime_share": 0.0},
            {},
            Cause.DELTA,
            f"It is looked at hourly, like all of its retailer's listings: {MOVES}",
        ),
        ({}, {}, Cause.HOUR, "It was looked at hourly then."),
    ],
)
def test_it_says_that_a_listing_is_hourly_and_why(
    fields: dict[str, object], own: dict[str, object], cause: Cause, said: str
) -> None:
    text = explain(quote(cause_kind=cause), of_tier(fields, **own)).text
    assert f" {said} " in f"{text} "
    assert len(re.findall("hourly", text)) == 1


@pytest.mark.parametrize(
    ("fields", "own"),
    [({}, {}), ({"tier": "realtime"}, {}), ({"realtime_share": 0.2}, {"tier": "realtime"})],
)
def test_of_a_listing_in_real_time_nothing_is_said(
    fields: dict[str, object], own: dict[str, object]
) -> None:
    assert "hourly" not in explain(quote(cause_kind=Cause.DELTA), of_tier(fields, **own)).text
