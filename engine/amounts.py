"""Amounts and ratios as people write them. Imports nothing of the project."""

from collections.abc import Mapping

DIGITS: Mapping[str, int] = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG"), 0),
    **dict.fromkeys(("RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
"""Decimals of a currency's minor unit, where they are not two."""


def exponent_of(currency: str) -> int:
    """Return how many decimal places the currency has."""
    return DIGITS.get(currency, 2)


def amount_text(minor: int, currency: str) -> str:
    """Return ``minor`` units as a decimal with the currency's places: 1999 EUR is ``19.99``."""
    exponent = exponent_of(currency)
    if exponent == 0:
        return str(minor)
    sign, digits = ("-", -minor) if minor < 0 else ("", minor)
    text = str(digits).rjust(exponent + 1, "0")
    return f"{sign}{text[:-exponent]}.{text[-exponent:]}"


def money_text(minor: int, currency: str) -> str:
    """Return an amount with its currency: ``19.99 EUR``, ``1999 JPY``; without one, ``19.99``."""
    return f"{amount_text(minor, currency)} {currency}".strip()


def percent(ratio: float) -> str:
    """Return a ratio as people write it: ``20 %``, ``4.25 %``."""
    return f"{round(ratio * 100, 2):g} %"
