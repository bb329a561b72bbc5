"""What the gateway's documents and the delta lane's records say, read with the standard library."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any

Sale = tuple[str, str, int]
"""What names a sale: retailer, source, number within the source."""


def place_of(document: Mapping[str, Any]) -> tuple[int, int]:
    """Return (seq, index) of a document's quote, ``(0, -1)`` when it has none."""
    if document["quote_id"] is None:
        return (0, -1)
    _, _, seq, index = str(document["quote_id"])[1:].split("-")
    return int(seq), int(index)


def minor(money: Mapping[str, str] | None) -> int:
    """Return an amount of a currency with two places in minor units, 0 for none."""
    return 0 if money is None else int(Decimal(money["amount"]) * 100)


def unix_ms(text: str) -> int:
    """Return an RFC 3339 moment as unix milliseconds."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def digest(value: bytes) -> bytes:
    """Return what tells one record's bytes from another's."""
    return blake2b(value, digest_size=8).digest()


def sale_of(document: Mapping[str, Any]) -> Sale | None:
    """Return the identity of a sale, ``None`` when the record holds another fact."""
    if document.get("type") != "UnitsSold" or "source_seq" not in document:
        return None
    return document["retailer"], document["source"], int(document["source_seq"])
