"""Money is exact, in its own places, and never rounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.amounts import amount_text
from engine.errors import RejectedInput
from gateway.money import Money, money, price_minor, rfc3339, unix_ms
from kernels.limits import PRICE_MINOR_MAX


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (1999, "EUR", "19.99"),
        (5, "EUR", "0.05"),
        (1999, "JPY", "1999"),
        (1999, "BHD", "1.999"),
        (7, "KWD", "0.007"),
        (0, "EUR", "0.00"),
        (-150, "USD", "-1.50"),
    ],
)
def test_an_amount_has_the_places_of_its_currency(minor: int, currency: str, text: str) -> None:
    assert amount_text(minor, currency) == text


@given(st.integers(1, PRICE_MINOR_MAX), st.sampled_from(["EUR", "JPY", "BHD"]))
def test_what_is_written_is_read_again(minor: int, currency: str) -> None:
    assert price_minor(money(minor, currency), currency, "/price") == minor


@pytest.mark.parametrize(
    "amount",
    ["", " 1", "1 ", "+1", "1.", ".5", "01", "1,5", "1e2", "NaN", "0x1", "١", "1.999", "0", "0.00"],
)
def test_what_is_no_price_is_refused(amount: str) -> None:
    with pytest.raises(RejectedInput) as refused:
        price_minor(Money(amount, "EUR"), "EUR", "/price")
    assert refused.value.pointer == "/price/amount"


def test_zeros_behind_the_last_place_are_no_places() -> None:
    assert price_minor(Money("19.9900", "EUR"), "EUR", "") == 1999
    assert price_minor(Money("1999.0", "JPY"), "JPY", "") == 1999


@given(st.integers(0, 4_102_444_800_000))
def test_a_moment_is_read_again(ms: int) -> None:
    assert unix_ms(rfc3339(ms), "") == ms


def test_a_moment_without_an_offset_is_refused() -> None:
    assert unix_ms("2026-01-01T01:00:00+01:00", "") == unix_ms("2026-01-01T00:00:00Z", "")
    for text in ["2026-01-01", "2026-01-01T00:00:00", "tomorrow", "2026-13-01T00:00:00Z"]:
        with pytest.raises(RejectedInput):
            unix_ms(text, "/until")
