"""How a file's columns become deltas: a mapping, in JSON or TOML, and what it makes of each row.

A field of a delta is a constant, a column (``"$price"``), or an expression over columns. ``each``
makes one delta a column, such as one rival a brand; ``once`` makes one for each new combination,
such as a listing. A row that cannot be mapped is reported with its number, the field and the fix,
and the others go on.
"""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from string import Formatter
from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from cluster.rows_by_time import RowFile, RowsByTime, rows_of
from engine.deltas import AnyDelta
from engine.errors import RejectedInput

UNIT_MS = {"ms": 1, "s": 1000, "day": 86_400_000, "week": 7 * 86_400_000}

_CONVERTED: Any = AnyDelta

TYPES = {kind.__name__: kind for kind in get_args(AnyDelta)}
"""Every type of delta by name: converting to one is faster than to their union."""


class Expression(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value computed from a row. Exactly one of ``column``, ``text`` and ``value`` is given."""

    column: str = ""  # a column's name, or ``@name`` and ``@value`` inside ``each``
    text: str = ""  # with columns in braces: "store-{store}"
    value: str | float | int | bool | None = None
    times: tuple[str | float, ...] = ()  # factors: numbers and columns
    whole: bool = False  # round to a whole number, half to even: money and units
    unit: Literal["iso", "ms", "s", "day", "week"] | None = None  # the column is a time
    epoch: str = "1970-01-01T00:00:00Z"  # where days, weeks, seconds begin


class Each(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One delta for each of these columns, whose values are ``@value`` and names ``@name``."""

    columns: dict[str, str]  # name -> column
    leave_out: str = ""  # a column that says which name is the row's own


Field = str | float | int | bool | None | Expression


class Template(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of delta that a row makes."""

    type: str
    fields: dict[str, Field] = {}
    once: tuple[str, ...] = ()  # only for the first row of each combination of these columns
    each: Each | None = None


class FileMapping(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one kind of file becomes deltas."""

    retailer: str
    time: Field  # of a row; deltas without ``observed_ms`` take it
    deltas: tuple[Template, ...]
    source: str = ""  # of additive deltas; default: the file's name
    opening: tuple[dict[str, Any], ...] = ()  # sent once before the first row


class Rejected(Struct, frozen=True, kw_only=True):
    """A row, or what of a row's deltas shares one fault, that was not sent."""

    row: int  # from 1, the header not counted
    field: str
    problem: str
    fix: str


class Mapped(Struct, frozen=True):
    """What one row became."""

    row: int
    observed_ms: int
    deltas: tuple[AnyDelta, ...]


def load_mapping(path: Path) -> FileMapping:
    """Read a mapping file.

    Raises:
        RejectedInput: it is missing or wrong; the message names the field.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        problem = f"{path}: {error.strerror}"
        raise RejectedInput("/mapping", problem, "name a mapping file") from None
    try:
        if path.suffix == ".toml":
            return msgspec.toml.decode(content, type=FileMapping)
        return msgspec.json.decode(content, type=FileMapping)
    except msgspec.MsgspecError as error:
        fix = "docs/configuration.md describes the mapping"
        raise RejectedInput("/mapping", f"{path}: {error}", fix) from None


def columns_used(mapping: FileMapping) -> set[str]:
    """Return the names of all columns that a mapping reads."""
    used: set[str] = set()

    def note(field: Field) -> None:
        if isinstance(field, str) and field.startswith("$"):
            used.add(field[1:])
        if isinstance(field, Expression):
            if field.column and not field.column.startswith("@"):
                used.add(field.column)
            used.update(factor for factor in field.times if isinstance(factor, str))
            used.update(_names_in(field.text))

    note(mapping.time)
    for template in mapping.deltas:
        for field in template.fields.values():
            note(field)
        used.update(template.once)
        if template.each is not None:
            used.update(template.each.columns.values())
            if template.each.leave_out:
                used.add(template.each.leave_out)
    return used


def refuse_missing_columns(mapping: FileMapping, table: RowFile) -> None:
    """Raise unless the file has every column the mapping reads.

    Raises:
        RejectedInput: one is missing; the nearest one is named.
    """
    for name in sorted(columns_used(mapping)):
        if name in table.column_names:
            continue
        near = difflib.get_close_matches(name, table.column_names, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(table.column_names)}"
        raise RejectedInput(f"/mapping/{name}", f"the file has no column {name!r}", fix)


class RowMapper:
    """Maps rows in the order of their time; remembers which combinations it has seen."""

    def __init__(self, mapping: FileMapping, file: RowFile, *, source: str) -> None:
        refuse_missing_columns(mapping, file)
        self.mapping = mapping
        self.rejected: list[Rejected] = []
        self._source = mapping.source or source
        self._file = file
        self._sorted = RowsByTime()

    def sort(self) -> tuple[int, int]:
        """Order the rows by time, reject those without one, and return the first and last time."""
        first = 0
        for batch in self._file.batches(sorted(columns_used(self.mapping))):
            kept, times = [], []
            for at, cells in enumerate(rows_of(batch)):
                try:
                    times.append(_whole(self._value(self.mapping.time, cells, {})))
                except (ValueError, TypeError, OverflowError) as error:
                    fix = "give a time in the mapping's unit"
                    self._reject(first + at, "time", str(error), fix)
                    continue
                kept.append(at)
            self._sorted.add(batch, kept, times, first)
            first += batch.num_rows
        self._sorted.finish()
        if not self._sorted.rows:
            raise RejectedInput("/time", "no row has a time", "look at the mapping's `time`")
        return self._sorted.first_ms, self._sorted.last_ms

    def __len__(self) -> int:
        return self._sorted.rows

    def close(self) -> None:
        """Remove what was put beside to sort it."""
        self._sorted.close()

    def rows(self, begin: int, *, shift_ms: int = 0) -> Iterator[Mapped]:
        """Yield what each row becomes, in order of time, from the ``begin``-th on.

        Rows before ``begin`` are still looked at, so that ``once`` means once in the file.
        """
        seen: list[set[tuple[Any, ...]]] = [set() for _ in self.mapping.deltas]
        for place, (moment, row, cells) in enumerate(self._sorted.read()):
            observed_ms = moment + shift_ms
            deltas: list[AnyDelta] = []
            for number, template in enumerate(self.mapping.deltas):
                if template.once:
                    key = tuple(cells[name] for name in template.once)
                    if key in seen[number]:
                        continue
                    seen[number].add(key)
                if place < begin:
                    continue
                deltas += self._deltas(template, cells, row, place, observed_ms)
            if place >= begin:
                yield Mapped(row + 1, observed_ms, tuple(deltas))

    def _deltas(
        self, template: Template, cells: Mapping[str, Any], row: int, place: int, observed_ms: int
    ) -> Iterator[AnyDelta]:
        if template.each is None:
            scopes: list[dict[str, Any]] = [{}]
        else:
            own = str(cells.get(template.each.leave_out, "")) if template.each.leave_out else None
            scopes = [
                {"@name": name, "@value": cells[column]}
                for name, column in template.each.columns.items()
                if name != own
            ]
        for scope in scopes:
            delta = self._delta(template, cells, scope, row, place, observed_ms)
            if delta is not None:
                yield delta

    def _delta(
        self,
        template: Template,
        cells: Mapping[str, Any],
        scope: Mapping[str, Any],
        row: int,
        place: int,
        observed_ms: int,
    ) -> AnyDelta | None:
        document: dict[str, Any] = {
            "type": template.type,
            "retailer": self.mapping.retailer,
            "observed_ms": observed_ms,
        }
        if template.type == "UnitsSold":
            document |= {"source": self._source, "source_seq": place}
        for name, field in template.fields.items():
            try:
                document[name] = self._value(field, cells, scope)
            except (ValueError, TypeError, OverflowError) as error:
                self._reject(row, name, str(error), "mend the row, or the mapping of this field")
                return None
        try:
            delta: AnyDelta = msgspec.convert(document, TYPES.get(template.type, _CONVERTED))
        except msgspec.ValidationError as error:
            problem, _, path = str(error).partition(" - at `$")
            self._reject(row, path.strip("`.") or template.type, problem, "mend the row's value")
            return None
        return delta

    def _value(self, field: Field, cells: Mapping[str, Any], scope: Mapping[str, Any]) -> Any:
        if isinstance(field, str):
            return cells[field[1:]] if field.startswith("$") else field
        if not isinstance(field, Expression):
            return field
        if field.text:
            return field.text.format_map(cells)
        value = field.value
        if field.column:
            value = scope[field.column] if field.column in scope else cells[field.column]
        if value is None or value == "":
            raise ValueError("is empty")
        if field.unit is not None:
            return _time_ms(value, field.unit, field.epoch)
        for factor in field.times:
            value = float(value) * float(cells[factor] if isinstance(factor, str) else factor)
        return _whole(value) if field.whole else value

    def _reject(self, row: int, field: str, problem: str, fix: str) -> None:
        """Tell what is wrong with a row, once however many of its deltas are made of it."""
        told = Rejected(row=row + 1, field=field, problem=problem, fix=fix)
        same_row = takewhile(lambda each: each.row == told.row, reversed(self.rejected))
        if told not in same_row:
            self.rejected.append(told)


def opening_deltas(mapping: FileMapping, observed_ms: int) -> list[AnyDelta]:
    """Return what a mapping sends before the first row.

    Raises:
        RejectedInput: one of them is no valid delta.
    """
    deltas = []
    for number, fields in enumerate(mapping.opening):
        document = {"retailer": mapping.retailer, "observed_ms": observed_ms, **fields}
        try:
            deltas.append(msgspec.convert(document, _CONVERTED))
        except msgspec.ValidationError as error:
            raise RejectedInput(f"/mapping/opening/{number}", str(error), "mend it") from None
    return deltas


def _names_in(text: str) -> Sequence[str]:
    return [name for _, name, _, _ in Formatter().parse(text) if name]


def _whole(value: Any) -> int:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"is {number}, not a number")
    return round(number)


def _time_ms(value: Any, unit: str, epoch: str) -> int:
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    if unit == "iso":
        moment = datetime.fromisoformat(str(value))
        return _time_ms(moment, unit, epoch)
    begin = datetime.fromisoformat(epoch)
    return round(begin.timestamp() * 1000) + round(float(value) * UNIT_MS[unit])
