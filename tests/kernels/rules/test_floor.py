"""The floor bounds the price from below."""

from kernels.limits import PRICE_MINOR_MAX
from kernels.rules import floor
from tests.kernels.rows import ANY_PRICE, interval, one_row, plain


def test_the_price_stays_at_or_above_the_floor() -> None:
    found = floor.narrow(one_row(floor_minor=700), ANY_PRICE, interval(600))
    assert plain(found) == (700, PRICE_MINOR_MAX, False)


def test_a_lower_floor_changes_nothing() -> None:
    found = floor.narrow(one_row(floor_minor=500), ANY_PRICE, interval(600))
    assert plain(found) == (600, PRICE_MINOR_MAX, False)


def test_an_unreachable_floor_yields_visibly() -> None:
    found = floor.narrow(one_row(floor_minor=PRICE_MINOR_MAX + 1), ANY_PRICE, interval())
    assert plain(found) == (PRICE_MINOR_MAX, PRICE_MINOR_MAX, True)
