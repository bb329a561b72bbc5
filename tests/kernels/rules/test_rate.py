"""A listing that has had its changes of the hour keeps its price."""

import pytest

from kernels.limits import PRICE_MINOR_MAX
from kernels.rules import rate
from tests.kernels.rows import ANY_PRICE, interval, one_row, plain


@pytest.mark.parametrize(
    ("changes", "found"), [(9, (1, PRICE_MINOR_MAX, False)), (10, (800, 800, False))]
)
def test_the_last_change_allowed_is_allowed(changes: int, found: tuple[int, int, bool]) -> None:
    row = one_row(in_force_minor=800, changes_last_hour=changes, changes_per_hour_max=10)
    assert plain(rate.narrow(row, ANY_PRICE, interval())) == found


def test_a_first_price_is_no_change() -> None:
    row = one_row(changes_last_hour=10, changes_per_hour_max=10)
    assert plain(rate.narrow(row, ANY_PRICE, interval())) == (1, PRICE_MINOR_MAX, False)


def test_it_yields_to_a_floor_above_the_price_in_force() -> None:
    row = one_row(in_force_minor=800, changes_last_hour=10)
    assert plain(rate.narrow(row, ANY_PRICE, interval(900))) == (900, 900, True)
