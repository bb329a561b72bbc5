"""The ceiling bounds the price from above."""

from kernels.limits import PRICE_MINOR_MAX
from kernels.rules import ceiling
from tests.kernels.rows import ANY_PRICE, interval, one_row, plain


def test_the_price_stays_at_or_below_the_ceiling() -> None:
    found = ceiling.narrow(one_row(ceiling_minor=700), ANY_PRICE, interval(600))
    assert plain(found) == (600, 700, False)


def test_no_ceiling_is_no_bound() -> None:
    assert plain(ceiling.narrow(one_row(), ANY_PRICE, interval())) == (1, PRICE_MINOR_MAX, False)
