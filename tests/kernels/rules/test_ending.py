"""The nearest legal ending within the bounds, or the end nearest to one."""

import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.policy import ending_code
from kernels.columns import Integers
from kernels.rules import ending
from tests.kernels.rows import interval, one_row, plain


def with_endings(*endings: str) -> Integers:
    return one_row(**{f"ending_{place}": ending_code(text) for place, text in enumerate(endings)})


@pytest.mark.parametrize(
    ("price", "endings", "chosen"),
    [
        (1040, ("99",), 999),
        (1060, ("99",), 1099),
        (1049, ("99",), 999),  # 50 below and 50 above: the lower
        (1060, ("99", "49"), 1049),
        (1094, ("9",), 1089),  # 5 below and 5 above: the lower
        (1095, ("9",), 1099),
        (1400, ("999",), 999),  # 599 above, 401 below
        (1003, ("00",), 1000),
        (5, ("99",), 99),  # nothing below: prices begin at 1
    ],
)
def test_the_nearest_ending_is_chosen(price: int, endings: tuple[str, ...], chosen: int) -> None:
    found = ending.narrow(with_endings(*endings), jnp.array([price], jnp.int32), interval())
    assert plain(found) == (chosen, chosen, False)


def test_an_ending_outside_the_bounds_is_not_taken() -> None:
    found = ending.narrow(with_endings("99"), jnp.array([1010], jnp.int32), interval(1005, 1200))
    assert plain(found) == (1099, 1099, False)


@pytest.mark.parametrize(("low", "high", "end"), [(1005, 1040, 1005), (1030, 1090, 1090)])
def test_without_a_legal_ending_the_end_nearest_to_one_is_left(
    low: int, high: int, end: int
) -> None:
    found = ending.narrow(with_endings("99"), jnp.array([low + 1], jnp.int32), interval(low, high))
    assert plain(found) == (end, end, True)


def test_without_endings_nothing_happens() -> None:
    assert plain(ending.narrow(one_row(), jnp.array([7], jnp.int32), interval(5, 9))) == (
        5,
        9,
        False,
    )


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.from_regex("^[0-9]{1,3}$", fullmatch=True), min_size=1, max_size=8),
    st.tuples(st.integers(1, 2500), st.integers(1, 2500), st.integers(1, 2500)),
)
def test_it_agrees_with_trying_every_price(
    endings: list[str], corners: tuple[int, int, int]
) -> None:
    low, price, high = sorted(corners)
    found = plain(
        ending.narrow(with_endings(*endings), jnp.array([price], jnp.int32), interval(low, high))
    )
    legal = [p for p in range(1, 5000) if any(str(p).zfill(4).endswith(e) for e in endings)]
    inside = [p for p in legal if low <= p <= high]
    if inside:
        nearest = min(inside, key=lambda p: (abs(p - price), p))
        assert found == (nearest, nearest, False)
    else:
        end = min((low, high), key=lambda end: min(abs(p - end) for p in legal))
        assert found == (end, end, True)
