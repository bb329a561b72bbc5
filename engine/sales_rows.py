"""Check a table of sales at the door: what comes in from outside is numbers, or refused by name.

One cell that is no number (a NaN, a None, a text) spoils every item of its group in silence, so the
whole table is looked at before anything is learnt. Every refusal is a ``RejectedInput`` that names
the column, the first bad row, what stands there and what to do about it.
"""

from collections.abc import Sequence
from decimal import Decimal
from numbers import Integral, Real

import numpy as np

from engine.errors import RejectedInput

NUMBER_MAX = 1e15
"""Largest price, units or covariate: anything beyond is a sentinel, not a measurement."""

HOW_TO_COUNT = (
    "number the periods with whole numbers, one a period: for dates of weeks, "
    'days = np.asarray(dates, "datetime64[D]") and then '
    '((days - days.min()) // np.timedelta64(7, "D")).astype(int)'
)


def names_of(field: str, values: Sequence[str], rows: int | None = None) -> list[str]:
    """Return a column of names as a list; texts or whole numbers, one a row.

    Raises:
        RejectedInput: it is one text instead of a list, of another length, or a name is missing.
    """
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise RejectedInput(
            f"/{field}", f"{values!r} is no list", f"give a list of names, such as [{values!r}]"
        )
    found = values.tolist() if hasattr(values, "tolist") else list(values)
    if not isinstance(found, list):
        raise RejectedInput(f"/{field}", f"{found!r} is no list", "give a list of names")
    _same_length(field, len(found), rows)
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
        raise RejectedInput(
            "/covariates",
            f"their shape is {table.shape}, and {(rows, len(names))} is needed",
            "a row for each row of the table, a column for each of covariate_names",
        )
    columns = [_numbers("covariates", table[:, at], rows) for at in range(table.shape[1])]
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
            f"/{field}", f"{values!r} is no list", f"give a list, such as [{values}]"
        )
    return found


def _numbers(
    field: str,
    values: object,
    rows: int | None,
    fix: str = "give a number in every row, or drop it",
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
                raise RejectedInput(f"/{field}/{row}", f"{value!r} is no number", fix)
    found = table.astype(np.float64)
    _refuse(field, found, np.isfinite(found) & (np.abs(found) < NUMBER_MAX), fix)
    return found


def _refuse(field: str, found: np.ndarray, good: np.ndarray, fix: str) -> None:
    bad = np.flatnonzero(~good)
    if len(bad):
        told = "" if len(bad) == 1 else f", the first of {len(bad)} such"
        raise RejectedInput(
            f"/{field}/{bad[0]}", f"{found[bad[0]].item()} cannot be used{told}", fix
        )


def _same_length(field: str, found: int, rows: int | None) -> None:
    if rows is not None and found != rows:
        raise RejectedInput(
            f"/{field}",
            f"it has {found} rows, items have {rows}",
            "give every column one value a row",
        )
