"""Runs the commands of the two-core bench one after another and rewrites ``docs/benchmarks.md``.

``make bench``, or ``python -m perf.bench [--only reads,kernels]``. Each command is a process of its
own that ends with one line of JSON. The lines are kept in ``docs/benchmarks/lines.json``, so that a
command that is run again alone changes its own part of the page and nothing else. ``--write`` makes
the page from the lines that are there.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from perf.benchmarks_page import page, plots
from perf.filled import FOLDER
from perf.measuring import Progress

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
FIGURES = ROOT / "docs" / "benchmarks"
LINES = FIGURES / "lines.json"


class Command(Struct, frozen=True):
    """One command of the bench."""

    name: str
    module: str
    arguments: tuple[str, ...]
    minutes: float  # as measured on two cores; three times as many end it
    by_default: bool = True

    def words(self) -> str:
        """Return it as people type it."""
        return " ".join(("python -m", self.module, *self.arguments))


COMMANDS = (
    Command("reads", "perf.reads", (), 2),
    Command("kernels", "perf.kernels", (), 0.5),
    Command("scaling", "perf.scaling", (), 2),
    Command("memory", "perf.memory", (), 1),
    Command("checkpoint", "perf.checkpoint", (), 0.5),
    Command("foresight", "perf.foresight", (), 2),
    Command("recovery", "perf.recovery", (), 3),
    Command("sinks", "perf.sinks", (), 1),
    Command("latency", "perf.latency", ("--seconds", "40"), 2.5),
    Command("features", "perf.features", (), 2),
    Command("throughput", "perf.throughput", ("--events", "300000", "--pairs", "3"), 1.5),
    Command(
        "frames",
        "perf.throughput",
        ("--wire", "frames", "--partitions", "1", "--events", "1000000", "--pairs", "3"),
        2.5,
    ),
    Command("peers", "perf.peers", ("--events", "300000", "--rounds", "1"), 6),
    Command("spike", "perf.spike", ("--minutes", "1"), 3),
    # By hand: an hour, and the five minutes that the issue asks for.
    Command("soak", "perf.soak", ("--minutes", "60"), 65, by_default=False),
    Command("black-friday", "perf.spike", ("--minutes", "5"), 8, by_default=False),
    Command("following", "perf.spike", ("--minutes", "5", "--following"), 8, by_default=False),
    # By hand: it records for two minutes what it then decides in seconds.
    Command("backtest", "perf.backtest", (), 4, by_default=False),
    # By hand: what takes long, or crowds the machine on purpose.
    Command("find-rate", "perf.latency", ("--find-rate",), 25, by_default=False),
    Command("latency-20000", "perf.latency", ("--per-s", "20000"), 4, by_default=False),
    Command("kills-standby", "perf.kills", ("--heir", "standby"), 16, by_default=False),
    Command("kills-spare", "perf.kills", ("--heir", "spare"), 15, by_default=False),
    Command("kills-cold", "perf.kills", ("--heir", "cold"), 18, by_default=False),
    Command("starved", "perf.starved", ("--seconds", "3600"), 70, by_default=False),
    Command("sim", "tests.sim", ("--seeds", "20000", "--mutants"), 25, by_default=False),
)
"""In this order; together within ``MINUTES`` by default."""

MINUTES = 30.0


def run(command: Command, folder: Path) -> dict[str, Any]:
    """Run one command and return its line, or why there is none."""
    words = [sys.executable, "-m", command.module, *command.arguments, "--json"]
    began = time.monotonic()
    try:
        done = subprocess.run(
            words,
            cwd=ROOT,
            env={**os.environ, FOLDER: str(folder)},
            stdout=subprocess.PIPE,
            timeout=command.minutes * 180,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"did not end within {3 * command.minutes:g} minutes"}
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    try:
        line: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        return {"failure": f"exit {done.returncode} without a line of JSON"}
    took = {"took_s": round(time.monotonic() - began), "on": time.strftime("%Y-%m-%d")}
    took |= {"words": command.words()}  # a line may outlive the command that printed it
    return line | took | {"exit_code": done.returncode}


def chosen(only: str) -> list[Command]:
    """Return the commands to run: those named, else all of the default whose module is there."""
    names = {command.name for command in COMMANDS}
    wanted = [name for name in only.split(",") if name]
    unknown = sorted(set(wanted) - names)
    if unknown:
        sys.exit(f"bench: no such command: {', '.join(unknown)}; there are {sorted(names)}")
    return [
        command
        for command in COMMANDS
        if (command.name in wanted if wanted else command.by_default) and is_there(command.module)
    ]


def is_there(module: str) -> bool:
    """Whether a module can be run; of a wheel the tests are no part."""
    package = module.partition(".")[0]
    return all(importlib.util.find_spec(each) is not None for each in (package, module))


def write(lines: dict[str, Any]) -> None:
    """Write the lines, the page and its plots."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    LINES.write_text(json.dumps(lines, indent=1, sort_keys=True) + "\n")
    drawn = plots(lines)
    for name, svg in drawn.items():
        (FIGURES / name).write_text(svg)
    words = {command.name: command.words() for command in COMMANDS}
    PAGE.write_text(page(lines, words, sorted(drawn)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write, and say what is not reached."""
    parser = argparse.ArgumentParser(prog="python -m perf.bench", description=__doc__)
    parser.add_argument("--only", default="", help="names, with commas")
    parser.add_argument("--write", action="store_true", help="only write the page again")
    options = parser.parse_args(arguments)
    lines: dict[str, Any] = json.loads(LINES.read_text()) if LINES.is_file() else {}
    say = Progress("bench")
    failed = []
    with tempfile.TemporaryDirectory(prefix="repricer-bench-") as folder:
        for command in [] if options.write else chosen(options.only):
            say(command.words())
            lines[command.name] = run(command, Path(folder))
            if "failure" in lines[command.name]:
                failed.append(command.name)
                say(f"{command.name}: {lines[command.name]['failure']}")
            write(lines)
    write(lines)
    say(f"wrote {PAGE.relative_to(ROOT)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
