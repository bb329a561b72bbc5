"""MAP bounds the price from below."""

from kernels.limits import PRICE_MINOR_MAX
from kernels.rules import legal
from tests.kernels.rows import ANY_PRICE, interval, one_row, plain


def test_the_price_stays_at_or_above_map() -> None:
    found = legal.narrow(one_row(map_minor=700), ANY_PRICE, interval())
    assert plain(found) == (700, PRICE_MINOR_MAX, False)


def test_no_map_is_no_bound() -> None:
    assert plain(legal.narrow(one_row(), ANY_PRICE, interval())) == (1, PRICE_MINOR_MAX, False)
