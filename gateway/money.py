"""Money and time as the API writes them: exact decimals with a currency, and RFC 3339 in UTC."""

import re
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from msgspec import Struct

from engine.amounts import amount_text, exponent_of
from engine.errors import RejectedInput
from kernels.limits import PRICE_MINOR_MAX

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AMOUNT = re.compile(r"^(0|[1-9][0-9]{0,12})(?:\.([0-9]{1,6}))?$", re.ASCII)


class Money(Struct, frozen=True):
    """An exact amount: a decimal as a string, with as many places as the currency has."""

    EXAMPLE: ClassVar[str] = '{"amount": "10.49", "currency": "EUR"}'

    amount: str
    currency: str


def money(minor: int, currency: str) -> Money:
    """Return ``minor`` units of ``currency`` as the API writes them."""
    return Money(amount_text(minor, currency), currency)


def price_minor(given: Money, currency: str, pointer: str) -> int:
    """Return a price that somebody sent in minor units, exactly; never rounded.

    Raises:
        RejectedInput: another currency, more places than it has, or out of range.
    """
    if given.currency != currency:
        raise RejectedInput(
            f"{pointer}/currency", f"this listing is priced in {currency}", f"send {currency}"
        )
    match = _AMOUNT.match(given.amount)
    if match is None:
        raise RejectedInput(
            f"{pointer}/amount", "not a decimal number", 'send a string such as "19.99"'
        )
    exponent = exponent_of(currency)
    whole, places = match.group(1), match.group(2) or ""
    if len(places.rstrip("0")) > exponent:
        raise RejectedInput(
            f"{pointer}/amount", f"{currency} has {exponent} decimal places", "send no more"
        )
    minor = int(whole + places[:exponent].ljust(exponent, "0"))
    if not 0 < minor <= PRICE_MINOR_MAX:
        raise RejectedInput(
            f"{pointer}/amount",
            "out of range",
            f"between {amount_text(1, currency)} and {amount_text(PRICE_MINOR_MAX, currency)}",
        )
    return minor


def rfc3339(unix_ms: int) -> str:
    """Return unix milliseconds as RFC 3339 in UTC, with milliseconds."""
    seconds, rest_ms = divmod(unix_ms, 1000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ms:03d}Z"


def unix_ms(text: str, pointer: str) -> int:
    """Return an RFC 3339 moment as unix milliseconds.

    Raises:
        RejectedInput: not RFC 3339, or without an offset from UTC.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or "T" not in text:
        raise RejectedInput(
            pointer, "not a moment in RFC 3339", 'send one such as "2026-01-31T12:00:00Z"'
        )
    return (moment - _EPOCH) // timedelta(milliseconds=1)
