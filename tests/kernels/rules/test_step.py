"""The step bounds the move, measured against the price in force."""

from kernels.limits import PRICE_MINOR_MAX
from kernels.rules import step
from tests.kernels.rows import ANY_PRICE, interval, one_row, plain


def test_the_move_is_rounded_inwards_on_both_sides() -> None:
    # 20 % of 9.99 is 1.998: a move of 2.00 would be more.
    found = step.narrow(one_row(in_force_minor=999, step_max_bp=2_000), ANY_PRICE, interval())
    assert plain(found) == (800, 1198, False)


def test_a_first_price_has_nothing_to_be_measured_by() -> None:
    found = step.narrow(one_row(step_max_bp=0), ANY_PRICE, interval())
    assert plain(found) == (1, PRICE_MINOR_MAX, False)


def test_it_yields_to_a_floor_beyond_its_reach() -> None:
    found = step.narrow(one_row(in_force_minor=1000), ANY_PRICE, interval(1500, 3000))
    assert plain(found) == (1500, 1500, True)


def test_the_largest_price_may_take_the_largest_step() -> None:
    """In force and step together leave int32; a wrapped sum would put the bound below zero."""
    found = step.narrow(
        one_row(in_force_minor=PRICE_MINOR_MAX, step_max_bp=10_000), ANY_PRICE, interval()
    )
    assert plain(found) == (1, PRICE_MINOR_MAX, False)
