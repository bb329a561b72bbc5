"""Check a table of sales at the door: what comes in from outside is numbers, or refused by name.

One cell that is no number (a NaN, a None, a text) spoils every item of its group in silence, so the
whole table is looked at before anything is learnt. Every refusal is a ``RejectedInput`` that names
the column, the first bad row, what stands there and what to do about it.
"""

import reprlib
from collections.abc import Sequence
from decimal import Decimal
from numbers import Integral, Real

import numpy as np

from engine.errors import RejectedInput

NUMBER_MAX = 1e15
"""Largest price, units or covariate: anything beyond is a sentinel, not a measurement."""

HOW_TO_COUNT = (
    "number the periods with whole numbers, one a period: for dates of weeks, "
    'np.asarray(dates, "datetime64[D]").astype(int) // 7; of days, the same without // 7; '
    'of months, np.asarray(dates, "datetime64[M]").astype(int)'
)
"""Counted from 1970 and not from the table's first date, so that a forecast's dates count alike."""

AS_THEY_ARE = "if they are counted one by one indeed, say step=1"

CALENDARS = {"years and weeks": (53, 52), "years and months": (12, 12)}
"""Numbers such as 202352 and 202412: the last part's largest, and the least that a year ends at."""


def names_of(field: str, values: Sequence[str], rows: int | None = None) -> list[str]:
    """Return a column of names as a list; texts or whole numbers, one a row.

    Raises:
        RejectedInput: it is one text instead of a list, of another length, or a name is missing.
    """
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise RejectedInput(
            f"/{field}",
            f"{reprlib.repr(values)} is no list",
            f"give a list of names, such as [{reprlib.repr(values)}]",
        )
    listed = getattr(values, "tolist", None) or getattr(values, "to_pylist", None)
    found = list(values) if listed is None else listed()
    if not isinstance(found, list):
        raise RejectedInput(f"/{field}", f"{found!r} is no list", "give a list of names")
    _same_length(field, len(found), rows)
    if set(map(type, found)) <= {str, int}:
        return found
    for row, name in enumerate(found):
        if isinstance(name, bool) or not isinstance(name, str | Integral):
            raise RejectedInput(
                f"/{field}/{row}", f"{name!r} is no name", "give a text in every row, or drop it"
            )
    return found


def prices_of(field: str, values: object, rows: int | None = None) -> np.ndarray:
    """Return float64[rows], all positive."""
    found = _numbers(field, values, rows)
    _refuse(field, found, found > 0, "a price is positive: drop the row, or give the price paid")
    return found


def units_of(field: str, values: object, rows: int | None = None) -> np.ndarray:
    """Return float64[rows], none negative."""
    found = _numbers(field, values, rows)
    fix = "units sold are 0 or more: take returns out, and drop rows whose sales are unknown"
    _refuse(field, found, found >= 0, fix)
    return found


def covariates_of(values: object, names: Sequence[str], rows: int) -> np.ndarray:
    """Return float64[rows, len(names)]; a column alone may come as float[rows].

    Raises:
        RejectedInput: they are missing, of another shape, or a cell is no finite number.
    """
    if values is None:
        if names:
            fix = f"give one column each: {', '.join(map(str, names))}"
            raise RejectedInput("/covariates", "they are missing", fix)
        return np.zeros((rows, 0))
    table = _array("covariates", values)
    if table.ndim == 1 and len(names) == 1:
        table = table[:, None]
    if table.ndim != 2 or table.shape != (rows, len(names)):
        if table.ndim == 2 and table.shape[0] != rows == table.shape[1]:
            raise RejectedInput(
                "/covariates",
                f"their shape is {table.shape}: on their side, for there are {rows} rows",
                "give np.stack(columns, axis=1): a row for each row of the table",
            )
        raise RejectedInput(
            "/covariates",
            f"their shape is {table.shape}, and {(rows, len(names))} is needed",
            "a row for each row of the table, a column for each of covariate_names",
        )
    columns = [
        _numbers("covariates", table[:, at], rows, column=str(name))
        for at, name in enumerate(names)
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0))


def once_each(field: str, names: Sequence[str]) -> list[str]:
    """Return names as a list, each of which stands there once."""
    found = names_of(field, names)
    seen: set[str] = set()
    for row, name in enumerate(found):
        if name in seen:
            raise RejectedInput(
                f"/{field}/{row}", f"{name!r} stands there twice", "give every name once"
            )
        seen.add(name)
    return found


def covariate_names_of(names: Sequence[str], columns: object) -> list[str]:
    """Return covariates' names, made up where there are columns without."""
    found = once_each("covariate_names", names)
    if columns is None or found:
        return found
    if hasattr(columns, "columns") and hasattr(columns, "index"):  # a frame tells their names
        return once_each("covariate_names", [str(name) for name in columns.columns])
    table = _array("covariates", columns)
    return [f"covariate {at}" for at in range(1 if table.ndim < 2 else table.shape[1])]


def periods_of(field: str, values: object, rows: int | None = None) -> np.ndarray:
    """Return int64[rows], the numbers of periods; dates and texts are refused, with the recipe."""
    table = _array(field, values)
    if table.dtype.kind in "Mm":
        raise RejectedInput(f"/{field}/0", f"{table.flat[0]!r} is a date", HOW_TO_COUNT)
    found = _numbers(field, table, rows, HOW_TO_COUNT)
    _refuse(field, found, found == np.floor(found), HOW_TO_COUNT)
    return np.asarray(table if table.dtype.kind == "i" else found).astype(np.int64)


def step_of(times: np.ndarray, step: object) -> int:
    """Return by how much times step a period: as told, or else what all differences share.

    Where the commonest difference is more than that, times are no even count (months in days,
    local midnights in ms), and nobody but the caller knows what a period is.

    Raises:
        RejectedInput: times do not step by what was told, or not evenly.
    """
    apart = np.diff(np.unique(times))
    if step is not None:
        if isinstance(step, bool) or not isinstance(step, Integral) or int(step) < 1:
            raise RejectedInput("/step", f"{step!r} is no step", "give a whole number, 1 or more")
        off = np.flatnonzero((times - times.min()) % int(step))
        if len(off):
            raise RejectedInput(
                f"/times/{off[0]}",
                f"{times[off[0]]} is no multiple of {step} after {times.min()}",
                HOW_TO_COUNT,
            )
        return int(step)
    if not len(apart):
        return 1
    if (apart != apart[0]).any():
        _refuse_calendars(np.unique(times))
    shared = int(np.gcd.reduce(apart))
    sizes, counts = np.unique(apart, return_counts=True)
    commonest = int(sizes[np.argmax(counts)])
    if commonest > shared:
        raise RejectedInput(
            "/times",
            f"they step by {commonest} most often, yet not evenly: all are multiples of {shared} "
            "apart",
            f"{HOW_TO_COUNT}; or say what a period is, such as step={shared}",
        )
    return shared


def _refuse_calendars(times: np.ndarray) -> None:
    """Refuse 202352 followed by 202401: half a hundred weeks would be missing, and are not."""
    for kind, (largest, least) in CALENDARS.items():
        year, part = np.divmod(times, 100)
        turns = np.flatnonzero(np.diff(year) == 1)
        at_turns = (part[turns] >= least) & (part[turns + 1] == 1)
        if len(turns) and at_turns.all() and part.min() >= 1 and part.max() <= largest:
            turn = times[turns[0]]
            raise RejectedInput(
                "/times",
                f"they look like {kind}: {turn} is followed by {times[turns[0] + 1]}",
                f"{HOW_TO_COUNT}; {AS_THEY_ARE}",
            )
    year, month, day = times // 10_000, times // 100 % 100, times % 100
    dated = (
        (year >= 1900) & (year <= 2100) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    )
    if dated.all() and len(np.unique(month)) > 1:
        raise RejectedInput(
            "/times", f"they look like dates, such as {times[0]}", f"{HOW_TO_COUNT}; {AS_THEY_ARE}"
        )


def positions_of(items: Sequence[str], at: dict[str, int], field: str = "items") -> np.ndarray:
    """Return int64[rows], where each item stands in ``at``."""
    for row, name in enumerate(items):
        if name not in at:
            raise RejectedInput(
                f"/{field}/{row}", f"{name!r} was never seen", "ask about items of the table"
            )
    return np.array([at[name] for name in items], dtype=np.int64)


def groups_of(items: Sequence[str], groups: Sequence[str]) -> dict[str, str]:
    """Return each item's group.

    Raises:
        RejectedInput: an item stands in two.
    """
    of_item: dict[str, str] = {}
    for row, (item, group) in enumerate(zip(items, groups, strict=True)):
        if of_item.setdefault(item, group) != group:
            raise RejectedInput(
                f"/groups/{row}",
                f"item {item!r} is in group {group!r} here and in {of_item[item]!r} above",
                "give an item the same group in every row",
            )
    return of_item


def refuse_doubles(at: np.ndarray, times: np.ndarray, names: Sequence[str]) -> None:
    """Refuse an item that stands twice in a period, naming the second row."""
    order = np.lexsort((np.arange(len(at)), times, at))
    double = (np.diff(at[order]) == 0) & (np.diff(times[order]) == 0)
    if double.any():
        row = int(order[1:][double].min())
        raise RejectedInput(
            f"/items/{row}",
            f"{names[at[row]]!r} stands twice in period {times[row]}",
            "add up its units in one row, at the mean price",
        )


def _array(field: str, values: object) -> np.ndarray:
    try:
        found = np.asarray(values)
        if found.dtype.kind in "US":  # one text among numbers makes texts of them all
            found = np.asarray(values, dtype=object)
    except ValueError:  # rows of unlike lengths
        raise RejectedInput(
            f"/{field}", "rows are of unlike lengths", "give a number a row"
        ) from None
    if found.ndim == 0:
        raise RejectedInput(
            f"/{field}", f"{reprlib.repr(values)} is no list", "give a list, such as [1.0]"
        )
    return found


def _numbers(
    field: str,
    values: object,
    rows: int | None,
    fix: str = "give a number in every row, or drop it",
    column: str = "",
) -> np.ndarray:
    table = _array(field, values)
    if table.ndim != 1:
        raise RejectedInput(
            f"/{field}", f"its shape is {table.shape}", "give one number a row: float[rows]"
        )
    _same_length(field, len(table), rows)
    if table.dtype.kind not in "biuf":
        for row, value in enumerate(table.tolist()):
            if not isinstance(value, Real | Decimal):
                told = f"{reprlib.repr(value)} is no number{_of(column)}"
                raise RejectedInput(f"/{field}/{row}", told, fix)
    found = table.astype(np.float64)
    _refuse(field, found, np.isfinite(found) & (np.abs(found) < NUMBER_MAX), fix, column)
    return found


def _of(column: str) -> str:
    """Say which column of many is meant."""
    return f", in column {column!r}" if column else ""


def _refuse(field: str, found: np.ndarray, good: np.ndarray, fix: str, column: str = "") -> None:
    bad = np.flatnonzero(~good)
    if len(bad):
        told = "" if len(bad) == 1 else f", the first of {len(bad)} such"
        raise RejectedInput(
            f"/{field}/{bad[0]}",
            f"{found[bad[0]].item()} cannot be used{_of(column)}{told}",
            fix,
        )


def _same_length(field: str, found: int, rows: int | None) -> None:
    if rows is not None and found != rows:
        raise RejectedInput(
            f"/{field}",
            f"it has {found} rows, items have {rows}",
            "give every column one value a row",
        )
