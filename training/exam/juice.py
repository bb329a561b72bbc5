"""Dominick's orange juice as the exam reads it, and regressions that check the reading.

The table is read from a path that the caller gives; it is never part of the repository.
"""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from msgspec import Struct

Table = dict[str, np.ndarray]
"""The file's columns by name, one element a row."""

BRANDS = 11

WEEKS_MIN = 20
"""A store with fewer weeks tells no slope of its own."""


class Juice(Struct, frozen=True, eq=False):
    """The table, one element a row, sorted by week."""

    item: list[str]
    brand: np.ndarray
    week: np.ndarray
    units: np.ndarray
    price: np.ndarray  # an ounce
    covariates: np.ndarray
    exact: np.ndarray  # exp(logmove), unrounded


def read_table(path: Path) -> Table:
    """Read the table once for all that look at it: its columns, by week, store and brand."""
    table = pq.read_table(path)
    column = {name: table.column(name).to_numpy() for name in table.column_names}
    order = np.lexsort((column["brand"], column["store"], column["week"]))
    return {name: values[order] for name, values in column.items()}


def juice_of(table: Table) -> Juice:
    """Return the table as forecasts and regressions look at it."""
    prices = np.stack([table[f"price_per_oz_{n + 1}"] for n in range(BRANDS)], axis=1)
    brand = table["brand"].astype(np.int64)
    logs = np.log(np.maximum(prices, 1e-4))
    rows = np.arange(len(brand))
    own = logs[rows, brand - 1]
    others = logs.copy()
    others[rows, brand - 1] = 0.0
    extra = np.stack([table["deal"], table["feat"]], axis=1).astype(np.float64)
    store = table["store"]
    exact = np.exp(table["logmove"])
    return Juice(
        item=[f"{s}-{b}" for s, b in zip(store.tolist(), brand.tolist(), strict=True)],
        brand=brand,
        week=table["week"].astype(np.int64),
        units=np.round(exact),
        price=np.exp(own),
        covariates=np.concatenate([extra, others], axis=1),
        exact=exact,
    )


def plain_slope(juice: Juice, brand: int) -> float:
    """Return the slope of log sales on the log price of a brand, all stores together."""
    rows = juice.brand == brand
    price, sales = np.log(juice.price[rows]), np.log(juice.exact[rows])
    off = price - price.mean()
    return float((off * (sales - sales.mean())).sum() / np.square(off).sum())


def within_slope(juice: Juice, brand: int) -> float:
    """Return a brand's own slope beside all other prices, deal and feature, within stores."""
    rows = np.flatnonzero(juice.brand == brand)
    _, store = np.unique([juice.item[row] for row in rows.tolist()], return_inverse=True)
    count = np.bincount(store)

    def within(columns: np.ndarray) -> np.ndarray:
        sums = np.stack([np.bincount(store, weights=column) for column in columns.T], axis=1)
        return np.asarray(columns - (sums / count[:, None])[store])

    sales = np.log(juice.exact[rows])[:, None]
    return float(_slopes(within(_design(juice, rows)), within(sales)[:, 0])[0])


def own_spread(juice: Juice, brand: int) -> float:
    """Return the standard deviation of a brand's slopes in the same regression, a store alone."""
    rows = np.flatnonzero(juice.brand == brand)
    of: dict[str, list[int]] = {}
    for row in rows.tolist():
        of.setdefault(juice.item[row], []).append(row)
    slopes = []
    for mine in of.values():
        if len(mine) >= WEEKS_MIN:
            design, sales = _design(juice, np.array(mine)), np.log(juice.exact[mine])
            slopes.append(_slopes(design - design.mean(axis=0), sales - sales.mean())[0])
    return float(np.std(slopes)) if slopes else 0.0


def _design(juice: Juice, rows: np.ndarray) -> np.ndarray:
    own = np.log(juice.price[rows])[:, None]
    return np.concatenate([own, juice.covariates[rows]], axis=1)


def _slopes(design: np.ndarray, sales: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.lstsq(design, sales, rcond=None)[0])
