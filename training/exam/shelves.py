"""Dominick's juice as a shop that the production shard prices, and what it asks.

The shard hears weeks ``FIRST_WEEK`` to ``LAST_TAUGHT``, week by week and in shadow, and then prices
what follows to ``LAST_WEEK``: it is told each week's costs and no sales.

Units. Prices and costs of a package in dollars, as the table tells them; of deltas in cents.
"""

from collections.abc import Callable

import numpy as np
from msgspec import Struct

from engine.deltas import (
    AnyDelta,
    CostChanged,
    ListingChanged,
    ModeChanged,
    PolicyChanged,
    PriceReported,
    RetailerAdded,
    UnitsSold,
)
from engine.routing import key64
from engine.shard import Shard
from training.exam.juice import BRANDS, Table
from training.exam.seasonal import CHANNEL, DAY_MS, decisions

FIRST_WEEK, LAST_TAUGHT, LAST_WEEK = 40, 120, 160
"""What the shard hears ends with ``LAST_TAUGHT``; from there on it prices."""

RETAILER, WEEK_MS = "juice", 7 * DAY_MS
POLICY: dict[str, object] = {"learning": True, "min_margin": 0.05, "dither": 0.0}
"""The exam's, but without straying: nothing is learnt from what nobody buys."""

ABSURD_SHARE = 0.2
"""A cost below this share of the price is a slip of the books: the row is left out."""


class Shelves(Struct, frozen=True, eq=False):
    """The table, one element a row, sorted by week."""

    item: np.ndarray  # int64: store and brand
    brand: np.ndarray  # from 0
    cell: np.ndarray  # int64: store and week
    week: np.ndarray
    packages: np.ndarray
    price: np.ndarray  # of a package
    cost: np.ndarray
    ounce_log: np.ndarray  # [rows, brands], log prices an ounce
    promotion: np.ndarray  # [rows, 2], deal and feature


def shelves_of(table: Table) -> Shelves:
    """Return the table's packages; rows whose cost is a slip of the books are left out."""
    brand, week = table["brand"].astype(np.int64) - 1, table["week"].astype(np.int64)
    _, store = np.unique(table["store"], return_inverse=True)
    ounces = np.stack([table[f"price_per_oz_{n + 1}"] for n in range(BRANDS)], axis=1)
    sound = table["unit_cost"] > ABSURD_SHARE * table["price"]
    return Shelves(
        item=(store * BRANDS + brand)[sound],
        brand=brand[sound],
        cell=(store * (LAST_WEEK + 1) + week)[sound],
        week=week[sound],
        packages=np.round(np.exp(table["logmove"]) / table["oz"])[sound],
        price=table["price"][sound],
        cost=table["unit_cost"][sound],
        ounce_log=np.log(np.maximum(ounces, 1e-4))[sound],
        promotion=np.stack([table["deal"], table["feat"]], axis=1).astype(np.float64)[sound],
    )


def proposals(shelves: Shelves, told: Callable[[], None] = lambda: None) -> np.ndarray:
    """Return what the shard asks in each row of the weeks it prices, NaN elsewhere.

    A listing's price at import is the median of what was asked in the weeks that it hears.
    """
    taught = shelves.week <= LAST_TAUGHT
    shard, items = Shard(), frozenset(shelves.item[taught].tolist())
    rows_of = {week: np.flatnonzero(shelves.week == week) for week in range(1, LAST_WEEK + 1)}
    decisions(shard, _opening(shelves, taught), 0)
    asked: dict[int, int] = {}
    price_minor = np.rint(shelves.price * 100).astype(np.int64)
    for week in range(FIRST_WEEK, LAST_TAUGHT + 1):
        start_ms, end_ms = (week - FIRST_WEEK) * WEEK_MS, (week - FIRST_WEEK + 1) * WEEK_MS
        deltas: list[AnyDelta] = []
        for row in rows_of[week].tolist():
            item = int(shelves.item[row])
            sku = _sku(item)
            if asked.get(item) != price_minor[row]:
                asked[item] = int(price_minor[row])
                deltas.append(
                    PriceReported(
                        retailer=RETAILER,
                        channel=CHANNEL,
                        sku=sku,
                        price_minor=asked[item],
                        observed_ms=start_ms + 1,
                    )
                )
            deltas.append(_cost(shelves, row, start_ms + 1))
            deltas.append(
                UnitsSold(
                    retailer=RETAILER,
                    channel=CHANNEL,
                    sku=sku,
                    units=int(shelves.packages[row]),
                    source=sku,
                    source_seq=week,
                    observed_ms=end_ms,
                )
            )
        if week == LAST_TAUGHT:
            deltas.append(ModeChanged(retailer=RETAILER, mode="live", observed_ms=end_ms))
        decisions(shard, deltas, end_ms)
        told()
    keys = {item: key64(RETAILER, CHANNEL, _sku(item)) for item in items}
    found = np.full(len(shelves.item), np.nan)
    for week in range(LAST_TAUGHT + 1, LAST_WEEK + 1):
        now_ms = (week - FIRST_WEEK) * WEEK_MS
        rows = [row for row in rows_of[week].tolist() if int(shelves.item[row]) in items]
        costs: list[AnyDelta] = [_cost(shelves, row, now_ms) for row in rows]
        decisions(shard, costs, now_ms)
        for row in rows:
            quote = shard.quote(keys[int(shelves.item[row])])
            if quote is not None and quote["in_force_minor"] > 0:
                found[row] = float(quote["in_force_minor"]) / 100.0
        told()
    return found


def _sku(item: int) -> str:
    return f"s{item}"


def _cost(shelves: Shelves, row: int, at_ms: int) -> AnyDelta:
    return CostChanged(
        retailer=RETAILER,
        channel=CHANNEL,
        sku=_sku(int(shelves.item[row])),
        cost_minor=max(round(float(shelves.cost[row]) * 100), 1),
        observed_ms=at_ms,
    )


def _opening(shelves: Shelves, taught: np.ndarray) -> list[AnyDelta]:
    deltas: list[AnyDelta] = [
        RetailerAdded(retailer=RETAILER, currency="USD", mode="shadow", observed_ms=0),
        PolicyChanged(retailer=RETAILER, scope="retailer", key="", fields=POLICY, observed_ms=0),
    ]
    for item in np.unique(shelves.item[taught]).tolist():
        rows = np.flatnonzero(taught & (shelves.item == item))
        deltas.append(
            ListingChanged(
                retailer=RETAILER,
                channel=CHANNEL,
                sku=_sku(item),
                category=f"brand {int(shelves.brand[rows[0]]) + 1}",
                price_minor=round(float(np.median(shelves.price[rows])) * 100),
                cost_minor=max(round(float(np.median(shelves.cost[rows])) * 100), 1),
                own_rival_names=(RETAILER,),
                observed_ms=0,
            )
        )
    return deltas
