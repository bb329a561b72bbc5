"""Data sets: what a retailer's listings sold a day, at which price. From history or from a file.

A data set is dense, a row a listing and a column a day: training looks at days before and after.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
from msgspec import Struct

from engine.errors import RejectedInput
from engine.routing import key64
from kernels.hyperparameters import PRICE_LOOK_HOURS
from persistence.ports import SeriesStore

DAY_MS = 86_400_000
RETAILER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

LISTINGS_MAX, DAYS_MAX = 200_000, 800


class DailySales(Struct, frozen=True, kw_only=True, eq=False):
    """One retailer's days."""

    retailer: str
    keys: np.ndarray  # uint64[listings], engine.routing.key64
    category: np.ndarray  # int64[listings], index in ``categories``
    categories: tuple[str, ...]
    first_day: int  # days since 1970
    units: np.ndarray  # float64[listings, days], NaN: not for sale, or nothing is known
    price: np.ndarray  # float64[listings, days], minor units, NaN: unknown

    @property
    def days(self) -> int:
        """Return how many days there are."""
        return int(self.units.shape[1])

    def until(self, day: int) -> "DailySales":
        """Return the same without what is known from a day (counted from the first) on."""
        return msgspec.structs.replace(
            self, units=self.units[:, :day].copy(), price=self.price[:, :day].copy()
        )


async def from_history(
    series: SeriesStore, retailer: str, *, first_ms: int, until_ms: int
) -> DailySales:
    """Read the history store: prices in force and accepted sales, day by day (UTC).

    Raises:
        RejectedInput: the retailer's name is none, nothing is known of him, or he sold nothing.
    """
    if RETAILER.fullmatch(retailer) is None:
        raise RejectedInput("/retailer", f"{retailer!r} is no retailer's id", "name one")
    first, last = first_ms // DAY_MS, until_ms // DAY_MS
    listings = await series.fetch(
        "select listing, category, removed from listings "
        f"where retailer = '{retailer}' order by ts, seq"
    )
    newest = {int(row["listing"]): row for row in listings}
    kept = sorted(key for key, row in newest.items() if not row["removed"])
    if not kept or last <= first:
        raise RejectedInput("/retailer", f"history knows no listing of {retailer}", "feed sales")
    names = [str(newest[key]["category"] or "") for key in kept]
    row_of = {key: at for at, key in enumerate(kept)}
    shape = _checked(len(kept), int(last - first))
    # History holds every retailer's rows: without the join the others' would all be fetched, too.
    his = f"join (select distinct listing from listings where retailer = '{retailer}') l on "
    prices = await series.fetch(
        "select p.listing, p.decided_ms, p.in_force_minor from prices p "
        f"{his} p.listing = l.listing where p.decided_ms < {until_ms} "
        "and p.in_force_minor > 0 order by p.decided_ms"
    )
    # The same sale may be there twice only under another position: its key makes it one row.
    sales = await series.fetch(
        "select s.listing, s.observed_ms, s.units from sales_metrics s "
        f"{his} s.listing = l.listing where s.verdict = 'accepted' "
        f"and s.observed_ms >= {first * DAY_MS} and s.observed_ms < {last * DAY_MS}"
    )
    price = _in_force(prices, row_of, first, shape)
    units = _sold(sales, row_of, first, np.where(np.isfinite(price), 0.0, np.nan))
    if sales and not np.isfinite(units).any():
        problem = f"{len(sales)} sales of {retailer} lie before the first price decided for him"
        fix = "`repricer train FILE` takes what was sold before; see docs/models.md"
        raise RejectedInput("/days", problem, fix)
    if not np.nansum(units) > 0.0:
        # A model of nothing but zeros would be sure of it, and serve.
        problem = f"{retailer} sold nothing in these days, as far as history knows"
        raise RejectedInput("/days", problem, "train on more days, or on a file")
    return _made(
        retailer, np.array(kept, dtype=np.int64).view(np.uint64), names, first, units, price
    )


def _sold(
    sales: Sequence[Mapping[str, Any]], row_of: Mapping[int, int], first: int, units: np.ndarray
) -> np.ndarray:
    """Return each day's units with those of sales; a day whose price is unknown stays NaN."""
    for sale in sales:
        row = row_of.get(int(sale["listing"]))
        if row is not None:
            units[row, int(sale["observed_ms"]) // DAY_MS - first] += float(sale["units"])
    return units


def _in_force(
    rows: Sequence[Mapping[str, Any]], row_of: Mapping[int, int], first: int, shape: tuple[int, int]
) -> np.ndarray:
    """Return each day's mean price in force, NaN before the first is known."""
    told: dict[int, tuple[list[int], list[int]]] = {}
    for each in rows:
        row = row_of.get(int(each["listing"]))
        if row is not None:
            times, minors = told.setdefault(row, ([], []))
            times.append(int(each["decided_ms"]))
            minors.append(int(each["in_force_minor"]))
    price = np.full(shape, np.nan)
    days = (first + np.arange(shape[1])) * DAY_MS
    looks = days[:, None] + np.array(PRICE_LOOK_HOURS) * 3_600_000
    for row, (times, minors) in told.items():
        at = np.searchsorted(np.array(times), looks, side="right") - 1
        found = np.where(at >= 0, np.array(minors, dtype=np.float64)[np.maximum(at, 0)], np.nan)
        known = np.isfinite(found)
        mean = np.where(known, found, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        price[row] = np.where(known.any(axis=1), mean, np.nan)
    return price


def from_file(path: Path, retailer: str, channel: str = "shop") -> DailySales:
    """Read a table with columns sku, day, price_minor, units and perhaps category.

    CSV with a header, Parquet, or JSON: a list of objects. A day is a date (2026-11-24), or counted
    since 1970.

    Raises:
        RejectedInput: a column is missing or the file is none of these.
    """
    columns = _columns(path)
    for name in ("sku", "day", "price_minor", "units"):
        if name not in columns:
            raise RejectedInput(f"/{name}", f"{path} has no such column", "see docs/models.md")
    skus = [str(sku) for sku in columns["sku"]]
    kept = list(dict.fromkeys(skus))
    row_of = {sku: at for at, sku in enumerate(kept)}
    row = np.array([row_of[sku] for sku in skus], dtype=np.int64)
    day = np.array([_day(each) for each in columns["day"]], dtype=np.int64)
    if not len(day):
        raise RejectedInput("/day", f"{path} holds no rows", "name another file")
    first = int(day.min())
    shape = _checked(len(kept), int(day.max()) - first + 1)
    units, price = np.full(shape, np.nan), np.full(shape, np.nan)
    units[row, day - first] = np.asarray(columns["units"], dtype=np.float64)
    price[row, day - first] = np.asarray(columns["price_minor"], dtype=np.float64)
    if not (units[np.isfinite(units)] >= 0.0).all() or not (price[np.isfinite(price)] > 0.0).all():
        raise RejectedInput("/units", "units are below 0, or a price is not above", "mend the file")
    category = dict(zip(skus, columns.get("category", [""] * len(skus)), strict=True))
    keys = np.array([key64(retailer, channel, sku) for sku in kept], dtype=np.uint64)
    return _made(retailer, keys, [str(category[sku]) for sku in kept], first, units, price)


def _day(value: object) -> int:
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, date):  # a datetime is one, too
        return value.toordinal() - date(1970, 1, 1).toordinal()
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():  # of a column that lacked one somewhere
        return int(value)
    raise RejectedInput("/day", f"{value!r} is no day", "2026-11-24, or days since 1970")


TEXTS = csv.ConvertOptions(column_types=dict.fromkeys(("sku", "category"), pa.string()))
"""Names that look like numbers: ``0010`` is another listing than ``10``."""


def _columns(path: Path) -> dict[str, list[Any]]:
    if not path.is_file():
        raise RejectedInput("/file", f"{path} is no file", "name a CSV, Parquet or JSON file")
    if path.suffix in (".csv", ".parquet"):
        try:
            table = (
                csv.read_csv(path, convert_options=TEXTS)
                if path.suffix == ".csv"
                else pq.read_table(path)
            )
        except (pa.ArrowException, OSError) as error:
            raise RejectedInput("/file", f"{path}: {error}", "mend the file") from None
        return {name: table.column(name).to_pylist() for name in table.column_names}
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
    except msgspec.MsgspecError as error:
        raise RejectedInput("/file", f"{path}: {error}", "a list of objects") from None
    names = list(rows[0]) if rows else []
    try:
        return {name: [row[name] for row in rows] for name in names}
    except KeyError as error:
        raise RejectedInput("/file", f"{path}: a row lacks {error}", "give it") from None


def _checked(listings: int, days: int) -> tuple[int, int]:
    if listings > LISTINGS_MAX or days > DAYS_MAX:
        problem = f"{listings} listings by {days} days are over {LISTINGS_MAX} by {DAYS_MAX}"
        raise RejectedInput("/days", problem, "name fewer days")
    return listings, days


def _made(
    retailer: str,
    keys: np.ndarray,
    names: list[str],
    first: int,
    units: np.ndarray,
    price: np.ndarray,
) -> DailySales:
    categories = tuple(sorted(set(names)))
    number = {name: at for at, name in enumerate(categories)}
    return DailySales(
        retailer=retailer,
        keys=keys,
        category=np.array([number[name] for name in names], dtype=np.int64),
        categories=categories,
        first_day=int(first),
        units=units,
        price=price,
    )
