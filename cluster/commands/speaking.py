"""What every verb shares: where its settings come from, and how it answers and fails.

Data goes to standard output, everything else to standard error. With ``--json`` the last line on
standard output is one JSON value, also when something went wrong.
"""

import asyncio
import os
import sys
import tomllib
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cluster.ray_node import RayRefused
from cluster.servers.installation import NotInstalled
from cluster.servers.process import ServerFailed
from cluster.settings import Settings, load
from cluster.tree import AlreadyRunning
from engine.errors import (
    CursorFenced,
    FailedDependency,
    LogFault,
    PricingError,
    RejectedInput,
    SettingsRefused,
)

OK, FAILURE, USAGE, NOT_FOUND, CONFLICT, UNAVAILABLE = range(6)
"""Exit codes, as API.md promises them."""

PIPE_COLUMNS = 10_000
"""How wide a table may be that goes to a file or to another program."""

Result = TypeVar("Result")


class NotFound(PricingError):
    """What was asked for is not there."""


class Conflict(PricingError):
    """Something else was decided meanwhile."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Common:
    """What every verb takes."""

    config: Annotated[
        Path | None, Parameter(help="settings file; default: repricer.toml when there")
    ] = None
    folder: Annotated[Path | None, Parameter(help="data folder; a setting of its own")] = None
    set: Annotated[
        tuple[str, ...], Parameter(help="one setting, as `shards.count=4`; may be repeated")
    ] = ()
    json: Annotated[bool, Parameter(negative="", help="answer in JSON on standard output")] = False


def settings_of(common: Common | None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Resolve the settings of a command line.

    Raises:
        RejectedInput: a key or a value is wrong.
    """
    return load(flags_of(common, flags), file=(common or Common()).config)


def flags_of(common: Common | None, flags: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what the command line itself sets, nested."""
    common = common or Common()
    nested: dict[str, Any] = {}
    for assignment in common.set:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise RejectedInput("/set", f"{assignment!r} has no `=`", "write --set shards.count=4")
        _put(nested, name, _value(text))
    if common.folder is not None:
        nested["folder"] = common.folder
    for name, value in (flags or {}).items():
        if value is not None:
            _put(nested, name, value)
    return nested


def _value(text: str) -> Any:
    """Return a TOML value, or the text itself: `4`, `true`, `{ oj = 2 }`, `kafka`."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _put(nested: dict[str, Any], name: str, value: Any) -> None:
    *parts, last = name.split(".")
    for part in parts:
        nested = nested.setdefault(part, {})
    nested[last] = value


class Voice:
    """Speaks to whoever called: people in tables, programs in JSON."""

    def __init__(self, common: Common | None) -> None:
        self.json = (common or Common()).json
        self.people = Console(file=sys.stdout, no_color=no_color(), soft_wrap=True)
        if not self.people.is_terminal:
            # Nobody looks at its edge, and what was cut there (a path, an id) could not be read.
            self.people.width = PIPE_COLUMNS
        self.aside = Console(file=sys.stderr, no_color=no_color(), soft_wrap=True)

    def say(self, line: str) -> None:
        """Tell a person what is going on."""
        self.aside.print(line, markup=False, highlight=False)

    def answer(self, value: object, *shown: Table | str) -> None:
        """Give the result: ``value`` to a program, what is ``shown`` to a person."""
        if self.json or not shown:
            sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
            sys.stdout.flush()
            return
        for each in shown:
            self.people.print(each, markup=False, highlight=False)

    def line(self, value: object) -> None:
        """Give one of many results, as a line of JSON."""
        sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
        sys.stdout.flush()


def no_color() -> bool:
    """Whether the caller asked for plain text."""
    return bool(os.environ.get("NO_COLOR"))


FAILURES: Final[tuple[tuple[type[Exception], int, str], ...]] = (
    (RejectedInput, USAGE, "`repricer --help` lists verbs and flags"),
    (NotFound, NOT_FOUND, "`repricer status` shows what is there"),
    (Conflict, CONFLICT, "look again at what is there, then decide"),
    (AlreadyRunning, CONFLICT, "`repricer status` shows what runs"),
    (SettingsRefused, CONFLICT, "`repricer config show --origin` says where a value comes from"),
    (CursorFenced, CONFLICT, "`repricer status` shows who writes"),
    (LogFault, FAILURE, "docs/operations.md, `A shard stopped loudly`"),
    (FailedDependency, UNAVAILABLE, "`repricer status` shows what is up"),
    (RayRefused, UNAVAILABLE, "`repricer doctor` names what is missing"),
    (NotInstalled, UNAVAILABLE, "`make servers` fetches what is missing"),
    (ServerFailed, UNAVAILABLE, "`repricer doctor` names what is missing"),
    (PricingError, FAILURE, "docs/operations.md"),
)
"""Kind of failure -> exit code, and the next command."""


def fail(error: Exception, *, as_json: bool) -> int:
    """Say what, why and the next command; return the exit code."""
    known = [row for row in FAILURES if isinstance(error, row[0])]
    if not known:
        raise error
    _, code, following = known[0]
    if as_json:
        document = {
            "error": {"kind": type(error).__name__, "detail": str(error), "next": following},
            "exit_code": code,
        }
        sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    else:
        aside = Console(file=sys.stderr, no_color=no_color(), soft_wrap=True)
        aside.print(f"repricer: {error}", style="bold red", markup=False, highlight=False)
        aside.print(f"  next: {following}", markup=False, highlight=False)
    return code


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a verb's work on a loop of its own.

    What stops several tasks at once is told once, as if one had met it.
    """
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(work)
        except ExceptionGroup as group:
            met, others = group.split(PricingError)
            if met is None or others is not None:
                raise
            first: BaseException = met
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise first from None


def progress_of(voice: Voice) -> Progress:
    """Return a bar of what is done of how much, where somebody watches."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=voice.aside,
        disable=voice.json or not voice.aside.is_terminal,
    )


def table(title: str, *columns: str) -> Table:
    """Return an empty table for people; what a terminal has no room for goes on in a next line."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made
