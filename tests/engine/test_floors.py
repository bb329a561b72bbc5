"""The floor is the least price with the margin asked for, to the cent."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.floors import FLOOR_NONE, FLOOR_UNREACHABLE, floor_minor
from kernels.limits import PRICE_MINOR_MAX


def floor(
    cost: int,
    margin_bp: int = 0,
    vat: float = 0.0,
    commission: float = 0.0,
    fixed: int = 0,
    minimum: int = 0,
    explicit: int = 0,
) -> int:
    def one(value: float) -> np.ndarray:
        return np.array([value])

    found = floor_minor(
        one(cost),
        one(margin_bp),
        one(vat),
        one(commission),
        one(fixed),
        one(minimum),
        one(explicit),
    )
    assert found.dtype == np.int32
    return int(found[0])


def earns(
    price: int, cost: int, margin_bp: int, vat: float, commission: float, fixed: int, minimum: int
) -> bool:
    """Say in exact fractions whether a sale at ``price`` earns the margin."""
    gross = 1 + Fraction(round(vat * 10**6), 10**6)
    taken = max(Fraction(round(commission * 10**6), 10**6) * price, Fraction(minimum))
    profit = price / gross - taken - fixed - cost
    return profit >= Fraction(margin_bp, 10_000) * price / gross


@pytest.mark.parametrize(
    ("given", "least"),
    [
        ({"cost": 1000}, 1000),
        ({"cost": 1000, "margin_bp": 2_000}, 1250),
        ({"cost": 1000, "vat": 0.2}, 1200),
        ({"cost": 1000, "vat": 0.2, "margin_bp": 500}, 1264),  # 1263.16
        ({"cost": 1000, "commission": 0.15}, 1177),  # 1176.47
        ({"cost": 1000, "commission": 0.15, "fixed": 35}, 1218),  # 1217.65
        ({"cost": 100, "commission": 0.15, "minimum": 50}, 150),
        ({"cost": 1000, "commission": 0.15, "minimum": 50}, 1177),
        ({"cost": 1000, "explicit": 1500}, 1500),
        ({"cost": 1000, "explicit": 900}, 1000),
        ({"cost": 0}, 1),
        ({"cost": -1}, FLOOR_NONE),
        ({"cost": -1, "explicit": 900}, FLOOR_NONE),  # no cost, no price, whatever else is said
        ({"cost": 1000, "vat": 0.25, "commission": 0.8}, FLOOR_UNREACHABLE),
        ({"cost": 1000, "vat": 0.25, "commission": 0.9}, FLOOR_UNREACHABLE),
        ({"cost": PRICE_MINOR_MAX, "margin_bp": 1}, FLOOR_UNREACHABLE),
        ({"cost": PRICE_MINOR_MAX}, PRICE_MINOR_MAX),
    ],
)
def test_it_is_the_figure_worked_out_by_hand(given: dict[str, float], least: int) -> None:
    assert floor(**given) == least  # type: ignore[arg-type]


@settings(deadline=None, max_examples=400)
@given(
    st.one_of(st.integers(0, 200), st.integers(0, 2**30)),
    st.integers(0, 9_500),
    st.sampled_from([0.0, 0.055, 0.07, 0.19, 0.2, 0.255, 0.333333]),
    st.sampled_from([0.0, 0.029, 0.08, 0.1525, 0.3, 0.7]),
    st.one_of(st.just(0), st.integers(0, 5_000)),
    st.one_of(st.just(0), st.integers(0, 5_000)),
)
def test_it_earns_the_margin_and_one_less_does_not(
    cost: int, margin_bp: int, vat: float, commission: float, fixed: int, minimum: int
) -> None:
    terms = (cost, margin_bp, vat, commission, fixed, minimum)
    found = floor(*terms)
    if found == FLOOR_UNREACHABLE:
        assert not earns(PRICE_MINOR_MAX, *terms)
        return
    assert earns(found, *terms)
    assert found == 1 or not earns(found - 1, *terms)


def test_a_float_alone_would_have_missed_the_cent() -> None:
    """The reason for the integers: round figures put the quotient exactly on a cent."""
    draw = np.random.default_rng(3)
    prices = draw.integers(1, 2**30, 2_000)
    for price in prices.tolist():
        cost = price * 7 // 10
        if cost * 10 == price * 7:
            assert floor(cost, margin_bp=3_000) == price
