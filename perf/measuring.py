"""What every command of the bench shares: pairs, medians, the machine's stamp, gates, one line.

Only ratios of one run on one machine count. So what is compared is measured in turns (A, B, A, B),
and what is reported is the median of the ratios of the pairs, with the least and the greatest: a
neighbour who takes the processor for a while harms one pair and not one side.
"""

import argparse
import json
import os
import statistics
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

BUDGETS = Path(__file__).with_name("budgets.toml")
MARK = "BENCH_OF_REPRICER"
"""Stands in the environment of everything that a command starts, so that it is told from others.

It must not begin as our settings do: an unknown one is refused by whoever reads them.
"""

OTHERS_SHARE_MAX = 0.05
"""Of one core: what one process of somebody else may use before a run is marked as disturbed."""

PACKAGES = ("aiohttp", "aiokafka", "asyncpg", "jax", "numpy", "questdb", "ray", "redis", "uvloop")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Spread(Struct, frozen=True):
    """The median of some figures, and how far they lie apart."""

    median: float
    least: float
    most: float
    of: int  # how many


def spread(figures: Sequence[float]) -> Spread:
    """Return the median, the least and the greatest."""
    least, most = min(figures), max(figures)
    return Spread(
        median=significant(statistics.median(figures)),
        least=significant(least),
        most=significant(most),
        of=len(figures),
    )


def ratio(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return the spread of the ratios of the pairs."""
    return spread([above / below for above, below in zip(over, under, strict=True)])


def significant(figure: float, digits: int = 4) -> float:
    """Return a figure without digits that nobody measured."""
    return float(f"{figure:.{digits}g}")


def interleaved(
    pairs: int, sides: Mapping[str, Callable[[], float]], say: "Progress"
) -> dict[str, list[float]]:
    """Run all sides in turns and return what each gave; a first round warms and does not count."""
    for name, side in sides.items():
        say(f"warming {name}")
        side()
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(pairs):
        for name, side in sides.items():
            say(f"{turn + 1} of {pairs}: {name}")
            figures[name].append(side())
    return figures


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class Progress:
    """Says on stderr what is going on, with the seconds since the beginning."""

    def __init__(self, command: str) -> None:
        self._command = command
        self._began = time.monotonic()

    def __call__(self, what: str) -> None:
        """Say one thing."""
        seconds = time.monotonic() - self._began
        print(f"{self._command} {seconds:6.1f} s  {what}", file=sys.stderr, flush=True)


class Machine:
    """The machine during one run: what it is, and who else used it."""

    def __init__(self) -> None:
        os.environ[MARK] = str(os.getpid())
        self._began = time.monotonic()
        self._load = os.getloadavg()[0]
        self._used = {pid: used for pid, used, _ in processes()}

    def stamp(self) -> dict[str, Any]:
        """Return what a figure must be read with."""
        return {
            "cpu": cpu_model(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "linux": os.uname().release.split("-")[0],
            "governor": governor(),
            "python": sys.version.split()[0],
            "versions": versions(),
            "load_average": [round(self._load, 2), round(os.getloadavg()[0], 2)],
            "seconds": round(time.monotonic() - self._began, 1),
            "disturbed_by": self.others(),
        }

    def others(self) -> list[dict[str, Any]]:
        """Return who else used more than a twentieth of a core: the run is disturbed by them."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        found = []
        for pid, used, name in processes():
            share = (used - self._used.get(pid, 0)) / TICKS_PER_S / seconds
            if share > OTHERS_SHARE_MAX and not is_ours(pid):
                found.append({"name": name, "share": round(share, 3)})
        return sorted(found, key=lambda each: -each["share"])


def processes() -> list[tuple[int, int, str]]:
    """Return pid, ticks of processor used, and name of everything that runs."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path(f"/proc/{entry}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        before, _, after = text.rpartition(")")
        fields = after.split()
        found.append((int(entry), int(fields[11]) + int(fields[12]), before.partition("(")[2]))
    return found


def is_ours(pid: int) -> bool:
    """Whether a process belongs to this run: it, what it started, and who started it."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    try:
        if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return True
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return pid in lineage(os.getpid()) or os.getpid() in lineage(pid)


def lineage(pid: int) -> list[int]:
    """Return a process and those it descends from."""
    found = [pid]
    while found[-1] > 1:
        try:
            text = Path(f"/proc/{found[-1]}/stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            break
        found.append(int(text.rpartition(")")[2].split()[1]))
    return found


def processor_s(pid: int) -> float:
    """Return the seconds of processor that a process has used, its threads included."""
    text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def anonymous_bytes() -> int:
    """Return the memory of this process that is no file's.

    Without the libraries' pages: of those its share changes as others begin and end.
    """
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel tells no Pss_Anon")


def cpu_model() -> str:
    """Return the processor's name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return os.uname().machine


def governor() -> str:
    """Return who sets the clock, if the kernel tells."""
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.is_file() else "not told"


def versions() -> dict[str, str]:
    """Return the versions of what is measured, as far as it is installed."""
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def pin(core: int) -> None:
    """Keep this process, and what it starts from now on, to one core, where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[core % len(cores)]})


# --- gates ----------------------------------------------------------------------------------------


class Gate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bound that a figure must keep: a ratio of one run, never a time."""

    figure: str  # the figure's name, parts joined by dots
    claim: str
    row: str = ""  # of the table
    least: float | None = None
    most: float | None = None

    def reached(self, value: float) -> bool:
        """Whether the figure keeps the bound."""
        above = self.least is None or value >= self.least
        return above and (self.most is None or value <= self.most)

    def bound(self) -> str:
        """Return the bound for people."""
        parts = [f">= {self.least:g}"] if self.least is not None else []
        parts += [f"<= {self.most:g}"] if self.most is not None else []
        return " and ".join(parts)


def gates(command: str) -> list[Gate]:
    """Return the gates of a command."""
    budgets = tomllib.loads(BUDGETS.read_text())
    return [Gate(**fields) for fields in budgets.get(command, {}).get("gates", ())]


def figure_at(figures: Mapping[str, Any], path: str) -> float | None:
    """Return the figure of that name (of a spread its median), ``None`` if it was not measured."""
    found: Any = figures
    for part in path.split("."):
        if isinstance(found, list):  # of things that have names
            found = {each["name"]: each for each in found if "name" in each}
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    if isinstance(found, Mapping):
        found = found.get("median")
    return float(found) if isinstance(found, int | float) else None


def figures_in(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the figures of a command's line: under their name, or, in older ones, all of it."""
    figures = line.get("figures", line)
    assert isinstance(figures, Mapping)
    return figures


def judged(command: str, figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every gate of a command with what was measured; ``reached`` is null if nothing was."""
    found = []
    for gate in gates(command):
        value = figure_at(figures, gate.figure)
        found.append(
            {
                "row": gate.row,
                "claim": gate.claim,
                "figure": gate.figure,
                "measured": value,
                "bound": gate.bound(),
                "reached": None if value is None else gate.reached(value),
            }
        )
    return found


# --- a command ------------------------------------------------------------------------------------


def arguments_of(command: str, doc: str | None) -> argparse.ArgumentParser:
    """Return the parser with what every command takes."""
    parser = argparse.ArgumentParser(
        prog=f"python -m perf.{command}", description=(doc or "").partition("\n")[0]
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON, nothing for people")
    parser.add_argument(
        "--strict", action="store_true", help="exit 3 when somebody else used the machine"
    )
    return parser


def run_command(
    command: str | Callable[[argparse.Namespace], str],
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    measure: Callable[[argparse.Namespace, Progress], Mapping[str, Any]],
) -> int:
    """Read the arguments, measure as they say, and report; return the exit status.

    A command whose gates depend on its arguments is named by them.
    """
    options = parser.parse_args(arguments)
    name = command if isinstance(command, str) else command(options)
    machine = Machine()  # before anything is started: what we start bears its mark
    return report(name, options, machine, measure(options, Progress(name)))


def report(
    command: str, options: argparse.Namespace, machine: Machine, figures: Mapping[str, Any]
) -> int:
    """Print the line that a command ends with; return its exit status.

    A gate that is not reached is a finding and no failure of the command: it exits 0.
    """
    plain = {name: plain_of(value) for name, value in figures.items()}
    stamp = machine.stamp()
    found = judged(command, plain)
    if not options.json:
        tell(plain, found, stamp)
    line = {"command": command, "arguments": given(options), "figures": plain}
    print(json.dumps({**line, "gates": found, "stamp": stamp}), flush=True)
    return 3 if options.strict and stamp["disturbed_by"] else 0


def plain_of(value: Any) -> Any:
    """Return a figure as what JSON knows."""
    if isinstance(value, Struct):
        return structs.asdict(value)
    if isinstance(value, Mapping):
        return {name: plain_of(each) for name, each in value.items()}
    return value


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that shape a run."""
    left_out = {"json", "strict"}
    return {name: value for name, value in vars(options).items() if name not in left_out}


def tell(
    figures: Mapping[str, Any], found: Sequence[Mapping[str, Any]], stamp: Mapping[str, Any]
) -> None:
    """Say for people, on stderr, what was found."""
    for name, value in figures.items():
        print(f"{name:>34}  {value}", file=sys.stderr)
    for gate in found:
        word = {True: "reached", False: "NOT REACHED", None: "not measured"}[gate["reached"]]
        text = f"{word}: {gate['claim']}: {gate['measured']} ({gate['bound']})"
        print(text, file=sys.stderr)
    if stamp["disturbed_by"]:
        print(f"disturbed by {stamp['disturbed_by']}", file=sys.stderr)
