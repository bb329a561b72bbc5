"""Amounts and ratios as people write them. Imports nothing of the project."""

from collections.abc import Mapping

DIGITS: Mapping[str, int] = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG"), 0),
    **dict.fromkeys(("RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
"""Decimals of a currency's minor unit, where they are not two."""


def money(minor: int, currency: str) -> str:
    """Return an amount as people write it: ``19.99 EUR``, ``1999 JPY``."""
    digits = DIGITS.get(currency, 2)
    sign, text = "-" if minor < 0 else "", str(abs(minor)).zfill(digits + 1)
    whole, rest = text[: len(text) - digits], text[len(text) - digits :]
    return f"{sign}{whole}{'.' + rest if rest else ''} {currency}".strip()


def percent(ratio: float) -> str:
    """Return a ratio as people write it: ``20 %``, ``4.25 %``."""
    return f"{round(ratio * 100, 2):g} %"
