"""The judge is judged: against the text taken literally, as sets of prices, on small numbers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perf import oracle

HIGHEST = 3_000
"""The literal judge lists every price there is, so there may not be many."""

small = st.integers(1, 400)
maybe = st.one_of(st.just(0), small)
share = st.integers(0, 10_000).map(lambda parts: parts / 10_000)

CASES = st.fixed_dictionaries(
    {
        "cost_minor": st.integers(-1, 300),
        "in_force_minor": maybe,
        "rrp_minor": maybe,
        "map_minor": maybe,
        "ceiling_minor": maybe,
        "explicit_floor_minor": maybe,
        "rival_minor": maybe,
        "changes_last_hour": st.integers(0, 2),
        "changes_per_hour_max": st.integers(0, 2),
        "fixed_fee_minor": st.integers(0, 30),
        "minimum_fee_minor": st.integers(0, 30),
        "kvi": st.booleans(),
        "floor_known": st.sampled_from([True, True, True, False]),
        "min_margin": st.integers(0, 6_000).map(lambda parts: parts / 10_000),
        "max_discount": share,
        "step_max": share,
        "kvi_rival_ratio_max": st.integers(1, 20_000).map(lambda parts: parts / 10_000),
        "vat": st.sampled_from([0.0, 0.07, 0.2]),
        "commission": st.sampled_from([0.0, 0.08, 0.1525, 0.9]),
        "endings": st.sampled_from([(), (), ("9",), ("99",), ("95", "49"), ("499",), ("0", "5")]),
        "wish_minor": maybe,
    }
)
Case = dict[str, object]


def as_columns(cases: list[Case]) -> dict[str, np.ndarray]:
    columns = {
        name: np.array([case[name] for case in cases]) for name in cases[0] if name != "endings"
    }
    columns["endings"] = np.empty(len(cases), dtype=object)
    columns["endings"][:] = [case["endings"] for case in cases]
    return columns


def literal(case: dict[str, int], endings: tuple[str, ...]) -> int:
    """Return the price that the text allows, by listing prices and crossing them out."""

    def exact(name: str, places: int) -> Fraction:
        return Fraction(round(case[name] * 10**places), 10**places)

    def earns(price: int) -> bool:
        net = price / (1 + exact("vat", 6))
        fee = max(exact("commission", 6) * price, Fraction(case["minimum_fee_minor"]))
        profit = net - fee - case["fixed_fee_minor"] - case["cost_minor"]
        return profit >= exact("min_margin", 4) * net

    def floor(price: int) -> bool:
        return price >= case["explicit_floor_minor"] and earns(price)

    def legal(price: int) -> bool:
        return price >= case["map_minor"]

    def ceiling(price: int) -> bool:
        return price <= case["ceiling_minor"] or not case["ceiling_minor"]

    def discount(price: int) -> bool:
        return price >= case["rrp_minor"] * (1 - exact("max_discount", 4))

    def step(price: int) -> bool:
        before = case["in_force_minor"]
        return not before or abs(price - before) <= exact("step_max", 4) * before

    def rate(price: int) -> bool:
        spent = case["changes_last_hour"] >= case["changes_per_hour_max"]
        return not case["in_force_minor"] or not spent or price == case["in_force_minor"]

    def kvi(price: int) -> bool:
        most = exact("kvi_rival_ratio_max", 4) * case["rival_minor"]
        return not case["kvi"] or not case["rival_minor"] or price <= most

    def ending(price: int) -> bool:
        return not endings or any(str(price).zfill(4).endswith(digits) for digits in endings)

    everything = range(1, HIGHEST + 1)
    if case["cost_minor"] < 0 or not case["floor_known"] or not case["wish_minor"]:
        return 0
    if not any(legal(p) and floor(p) and ceiling(p) for p in everything):
        return 0
    left = list(everything)
    for rule in (legal, floor, ceiling, discount, step, rate, kvi, ending):
        wanted = [price for price in everything if rule(price)] or [0]
        kept = [price for price in left if rule(price)]
        if not kept:  # it yields: the end nearest to what it wanted, of two the lower
            ends = (left[0], left[-1])
            kept = [min(ends, key=lambda end: min(abs(end - price) for price in wanted))]
        left = kept
    wish = min(max(case["wish_minor"], 1), HIGHEST)
    return min(left, key=lambda price: (abs(price - wish), price))


@settings(deadline=None, max_examples=150)
@given(st.lists(CASES, min_size=1, max_size=4))
def test_the_judge_demands_what_the_text_says(cases: list[Case]) -> None:
    columns = as_columns(cases)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oracle, "HIGHEST", HIGHEST)
        found = oracle.expected(columns).price_minor
    assert found.tolist() == [literal(case, case["endings"]) for case in cases]  # type: ignore[arg-type]


USUAL: Case = {
    "cost_minor": 100,
    "in_force_minor": 200,
    "rrp_minor": 0,
    "map_minor": 0,
    "ceiling_minor": 0,
    "explicit_floor_minor": 0,
    "rival_minor": 0,
    "changes_last_hour": 0,
    "changes_per_hour_max": 10,
    "fixed_fee_minor": 0,
    "minimum_fee_minor": 0,
    "kvi": False,
    "floor_known": True,
    "min_margin": 0.05,
    "max_discount": 1.0,
    "step_max": 0.2,
    "kvi_rival_ratio_max": 1.05,
    "vat": 0.0,
    "commission": 0.0,
    "endings": (),
    "wish_minor": 210,
}


@pytest.mark.parametrize(
    ("given", "price", "blamed"),
    [
        ({}, 210, None),
        ({}, 211, "not_nearest"),
        ({}, 0, "undecided"),
        ({}, 241, "step"),
        ({"map_minor": 220}, 219, "legal"),
        ({"explicit_floor_minor": 220}, 219, "floor"),
        ({"vat": 0.2, "min_margin": 0.5}, 239, "floor"),
        ({"ceiling_minor": 205}, 206, "ceiling"),
        ({"rrp_minor": 250, "max_discount": 0.1}, 224, "max_discount"),
        ({"changes_last_hour": 10}, 210, "rate"),
        ({"kvi": True, "rival_minor": 190}, 200, "kvi"),
        ({"endings": ("99",)}, 210, "ending"),
        ({"endings": ("99",)}, 199, None),
        ({"cost_minor": -1}, 210, "decided_no_cost"),
        ({"floor_known": False}, 210, "decided_no_floor"),
        ({"ceiling_minor": 100}, 100, "decided_infeasible"),
        ({"wish_minor": 0}, 200, "decided_model_invalid"),
    ],
)
def test_each_violation_is_blamed_on_one_rule(given: Case, price: int, blamed: str | None) -> None:
    found = oracle.judge(as_columns([{**USUAL, **given}]), np.array([price]))
    assert [kind for kind, rows in found.items() if rows[0]] == ([blamed] if blamed else [])
