"""What the sinks share: how much they write at once, and how values become a store's values."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from engine.decided import QUOTE_DTYPE
from persistence.checksums import Tally
from persistence.decision_reader import Accepted
from persistence.decision_records import LogPosition

IDLE_MS = 5_000
"""Records without rows move the stored cursor at most this often, by the log's own time."""

QUOTE_COLUMNS = tuple(
    name for name in QUOTE_DTYPE.names or () if name not in ("listing", "cause_index")
)
"""What the stores call as a quote does; a listing's key and the cause's index have other names."""

PAGE_ROWS = 20_000
WRITE_ROWS_MAX = 20_000
"""Rows of one transaction, as far as whole decisions allow."""


NOT_BEGUN = LogPosition(b"", -2, -1, b"", -1)
"""No place in any log."""


class Summary(Struct, frozen=True):
    """What a sink holds of one shard, to be compared with the log."""

    seq: int
    prices: Tally
    audit: int = 0


def signed(key: int) -> int:
    """Return an unsigned 64-bit listing key as the signed number that stores hold."""
    return key - 2**64 if key >= 2**63 else key


def plain_json(value: object) -> str:
    """Return canonical JSON: the same value always gives the same text."""
    return msgspec.json.encode(value, order="deterministic").decode()


def bounded(accepted: Sequence[Accepted]) -> Sequence[Accepted]:
    """Return the longest start of ``accepted`` that holds few enough rows for one write."""
    rows = 0
    for index, each in enumerate(accepted):
        decided = each.decided
        if decided is not None:
            rows += len(decided.quotes) + len(decided.catalogue) + len(decided.outcomes)
        if rows > WRITE_ROWS_MAX and index > 0:
            return accepted[:index]
    return accepted


def numbers(column: np.ndarray) -> list[Any]:
    """Return a column as Python numbers; what is no number is nothing."""
    values: list[Any] = column.tolist()
    if column.dtype.kind == "f":
        return [value if math.isfinite(value) else None for value in values]
    return values


def storable(value: Any) -> Any:
    """Return text without NUL, which Postgres refuses and a stranger may send."""
    return value.replace("\x00", "\ufffd") if isinstance(value, str) else value
