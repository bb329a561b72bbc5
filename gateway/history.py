"""How one listing's price came about over time: what a chart draws.

With a series store it is read from there; without one, or while the store is down, from the window
of recent decisions that the replica keeps anyway.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from msgspec import Struct

from engine.amounts import amount_text
from engine.errors import FailedDependency
from gateway.documents import STATE_NAMES, Listing, StateName
from gateway.money import rfc3339
from gateway.replica import Replica
from gateway.shard_view import Age

POINTS_MAX = 2000


class HistoryRow(Struct, frozen=True, kw_only=True):
    """One decided quote of a listing, as a series store remembers it; 0 or -1: none."""

    decided_ms: int
    state: int
    in_force_minor: int
    proposed_minor: int
    floor_minor: int
    ceiling_minor: int
    rival_minor: int
    stock: int


HistoryReader = Callable[[int, int, int], Awaitable[Sequence[HistoryRow]]]
"""Reads (listing, from_ms, to_ms), oldest first; raises ``FailedDependency``."""


class HistoryPoint(Struct, frozen=True, kw_only=True):
    """One decided quote. Amounts are decimals in the currency of the whole answer."""

    at: str
    state: StateName
    current: str | None
    recommended: str | None
    floor: str | None
    ceiling: str | None
    rival: str | None
    stock: int | None


class History(Struct, frozen=True, kw_only=True):
    """A listing's recent quotes, oldest first."""

    sku: str
    channel: str
    currency: str
    source: Literal["series", "window"]
    points: tuple[HistoryPoint, ...]
    as_of: str
    stale: bool


async def read_history(
    replica: Replica,
    reader: HistoryReader | None,
    listing: Listing,
    from_ms: int,
    to_ms: int,
    age: Age,
) -> History:
    """Return a listing's quotes decided in ``[from_ms, to_ms]``, the newest ``POINTS_MAX``.

    ``age`` is that of the window at the call. What the series store does not hold yet is added from
    there, so that the answer is no older, however far behind the store may be.
    """
    source: Literal["series", "window"] = "window"
    rows: Sequence[HistoryRow] = ()
    if reader is not None:
        try:
            rows = await reader(listing.key, from_ms, to_ms)
            source = "series"
        except FailedDependency:
            rows = ()
    if not rows:
        source = "window"
    stored_ms = rows[-1].decided_ms if rows else from_ms - 1
    newer = [
        row for row in _window_rows(replica, listing.key) if stored_ms < row.decided_ms <= to_ms
    ]
    rows = [*rows, *newer]
    return History(
        sku=listing.sku,
        channel=listing.channel,
        currency=listing.currency,
        source=source,
        points=tuple(_point(row, listing.currency) for row in rows[-POINTS_MAX:]),
        as_of=age.as_of,
        stale=age.stale,
    )


def _window_rows(replica: Replica, listing: int) -> list[HistoryRow]:
    found = replica.window.history(listing)
    quotes = found["quote"]
    columns = (
        found["decided_ms"],
        quotes["state"],
        quotes["in_force_minor"],
        quotes["proposed_minor"],
        quotes["floor_minor"],
        quotes["ceiling_minor"],
        quotes["rival_minor"],
        quotes["stock"],
    )
    names = HistoryRow.__struct_fields__
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [HistoryRow(**dict(zip(names, row, strict=True))) for row in rows]


def _point(row: HistoryRow, currency: str) -> HistoryPoint:
    def amount(minor: int) -> str | None:
        return amount_text(minor, currency) if minor > 0 else None

    return HistoryPoint(
        at=rfc3339(row.decided_ms),
        state=STATE_NAMES[row.state],
        current=amount(row.in_force_minor),
        recommended=amount(row.proposed_minor),
        floor=amount(row.floor_minor),
        ceiling=amount(row.ceiling_minor),
        rival=amount(row.rival_minor),
        stock=row.stock if row.stock >= 0 else None,
    )
