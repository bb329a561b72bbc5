"""The largest discount off RRP bounds the price from below."""

from kernels.limits import PRICE_MINOR_MAX
from kernels.rules import max_discount
from tests.kernels.rows import ANY_PRICE, interval, one_row, plain


def test_the_discount_is_measured_from_rrp_and_rounded_up() -> None:
    # 30 % off 9.99 is 6.993: 6.99 would be more than 30 %.
    found = max_discount.narrow(
        one_row(rrp_minor=999, max_discount_bp=3_000), ANY_PRICE, interval()
    )
    assert plain(found) == (700, PRICE_MINOR_MAX, False)


def test_it_yields_to_a_ceiling_below_it() -> None:
    found = max_discount.narrow(
        one_row(rrp_minor=999, max_discount_bp=3_000), ANY_PRICE, interval(1, 650)
    )
    assert plain(found) == (650, 650, True)


def test_without_rrp_it_says_nothing() -> None:
    found = max_discount.narrow(one_row(max_discount_bp=0), ANY_PRICE, interval())
    assert plain(found) == (1, PRICE_MINOR_MAX, False)
