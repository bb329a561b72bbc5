"""A KVI may not be dearer than a ratio of its rival."""

import jax.numpy as jnp
import pytest

from kernels.columns import Integers
from kernels.limits import PRICE_MINOR_MAX
from kernels.rules import kvi
from tests.kernels.rows import ANY_PRICE, interval, one_row, plain


@pytest.mark.parametrize(
    ("rival", "ratio_bp", "most"),
    [
        (999, 10_000, 999),
        (999, 10_500, 1048),  # 1048.95
        (999, 9_500, 949),  # 949.05
        (999, 20_000, 1998),
        (PRICE_MINOR_MAX, 20_000, PRICE_MINOR_MAX),
    ],
)
def test_the_ratio_is_rounded_down(rival: int, ratio_bp: int, most: int) -> None:
    row = one_row(kvi=1, rival_minor=rival, kvi_rival_ratio_bp=ratio_bp)
    assert plain(kvi.narrow(row, ANY_PRICE, interval())) == (1, most, False)


@pytest.mark.parametrize("row", [one_row(rival_minor=999), one_row(kvi=1)])
def test_it_needs_a_kvi_and_a_rival(row: Integers) -> None:
    assert plain(kvi.narrow(row, ANY_PRICE, interval())) == (1, PRICE_MINOR_MAX, False)


def test_a_brake_lets_it_be_dearer_and_says_that_the_rule_gave_way() -> None:
    row = one_row(kvi=1, rival_minor=1000, braked_minor=1250)
    dear, within = jnp.array([1500], jnp.int32), jnp.array([990], jnp.int32)
    assert plain(kvi.narrow(row, dear, interval())) == (1, 1250, True)
    assert plain(kvi.narrow(row, within, interval())) == (1, 1250, False)


def test_a_brake_below_the_limit_takes_nothing() -> None:
    dear = jnp.array([1500], jnp.int32)
    row = one_row(kvi=1, rival_minor=1000, braked_minor=900)
    assert plain(kvi.narrow(row, dear, interval())) == (1, 1000, False)
    free = one_row(rival_minor=1000, braked_minor=1250)
    assert plain(kvi.narrow(free, dear, interval())) == (1, PRICE_MINOR_MAX, False)


def test_it_yields_to_the_floor() -> None:
    row = one_row(kvi=1, rival_minor=999)
    assert plain(kvi.narrow(row, ANY_PRICE, interval(1200, 3000))) == (1200, 1200, True)
