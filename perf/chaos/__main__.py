"""``repricer chaos``, or ``python -m perf.chaos``: docs/chaos.md says what it does and promises."""

import argparse
import asyncio
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cluster.commands.speaking import FAILURES, fail
from cluster.processes import end_all, leftovers, tree_mark
from cluster.ray_node import session_folder
from engine.errors import RejectedInput
from perf.chaos.ending import Ended, Ending
from perf.chaos.plan import KINDS
from perf.chaos.report import files_of, write_report
from perf.chaos.run import Run, Told, Wish
from perf.chaos.site import Site
from perf.chaos.summary import as_line, in_words, summary
from perf.chaos.verdict import judge_left
from perf.measuring import Machine
from perf.real_stack import NotReached

HOLDS, BROKEN, UNAVAILABLE = 0, 1, 5
DEFAULT_FAULTS = 60


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = argparse.ArgumentParser(
        prog="repricer chaos",
        description="Break the whole stack on purpose, and judge what everybody was told.",
        epilog="Kinds: " + "; ".join(f"{kind}: {what}" for kind, what in KINDS.items()),
    )
    parser.add_argument("--seed", type=int, default=1, help="chooses faults and targets")
    parser.add_argument("--faults", type=int, default=0, help="end after so many that hit")
    parser.add_argument("--minutes", type=float, default=0.0, help="or after so long a storm")
    parser.add_argument("--only", default="", help="kinds, separated by commas; default: all")
    parser.add_argument("--pace", type=float, default=5.0, help="seconds between two, on average")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--standby", action="store_true", help="keep a warm successor of each")
    parser.add_argument("--learning", action="store_true", help="retailers learn, and days pass")
    parser.add_argument("--head-down-s", type=float, default=0.0, help="keep Ray's head dead")
    parser.add_argument("--report", type=Path, help="where the report is written, HTML and JSON")
    parser.add_argument("--keep", type=Path, help="a folder for the logs, which are removed else")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    return parser.parse_args(arguments)


def wish_of(options: argparse.Namespace) -> Wish:
    """Return what the options ask for.

    Raises:
        RejectedInput: a kind that there is not, or a number out of its range.
    """
    unknown = sorted(set(filter(None, options.only.split(","))) - set(KINDS))
    if unknown:
        raise RejectedInput("/only", f"no kind {unknown}", f"name some of {', '.join(KINDS)}")
    for name in ("shards", "pace"):
        if getattr(options, name) <= 0:
            raise RejectedInput(f"/{name}", "must be above 0", f"leave out --{name}")
    faults = options.faults
    if not faults and not options.minutes and not options.head_down_s:
        faults = DEFAULT_FAULTS
    only = [kind for kind in KINDS if kind in options.only.split(",")]
    return Wish(
        seed=options.seed,
        faults=faults,
        minutes=options.minutes,
        kinds=tuple(only or KINDS),
        pace_s=options.pace,
        shards=options.shards,
        standby=options.standby,
        learning=options.learning,
        head_down_s=options.head_down_s,
    )


def place_of(options: argparse.Namespace, now: datetime) -> Path:
    """Return where the report goes: as asked for, else by seed and time beside what is kept.

    Raises:
        RejectedInput: nothing can be written there. Better now than after an hour of storm.
    """
    name = f"chaos-seed-{options.seed}-{now:%Y%m%d-%H%M%S}.html"
    report: Path = options.report or (options.keep or Path()) / name
    for option, folder in (("keep", options.keep), ("report", report.parent)):
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RejectedInput(f"/{option}", str(error), "name another folder") from error
        if not os.access(folder, os.W_OK):
            raise RejectedInput(f"/{option}", f"{folder} cannot be written", "name another folder")
    if options.keep is not None and any(options.keep.iterdir()):
        raise RejectedInput("/keep", f"{options.keep} is not empty", "name a new folder")
    return report


def chaos(
    wish: Wish,
    ending: Ending,
    say: Callable[[str], None],
    shown: Callable[[Told], None],
    keep: Path | None = None,
) -> tuple[Told, int]:
    """Live through one wish; return all that was heard, and how many processes were left.

    Args:
        wish: what was asked for.
        ending: takes the signals.
        say: tells people how far it is.
        shown: is given what was heard so far, again and again.
        keep: a folder for the logs.

    Raises:
        Ended: a signal ended it. Nothing is left behind, whatever ended it.
    """
    left = 0
    with ExitStack() as stack:
        with ending.held():  # a server that has half started cannot be stopped
            disks = "disk" in wish.kinds
            site = Site(
                shards=wish.shards,
                standby=wish.standby,
                disks=disks,
                learning=wish.learning,
                keep=keep,
            )
            say(f"starting Kafka, Postgres, QuestDB and Redis behind fault proxies in {site.root}")
            stack.enter_context(site)
        try:
            say("starting the engine")
            site.engine.start()
            told = asyncio.run(_live(site, wish, ending, say, shown, keep))
        except Ended as ended:
            say(f"{ended}; stopping everything, which takes up to two minutes")
            raise
        except BaseException:
            say(site.engine.last_words())
            raise
        finally:
            ending.deafen()
            say("stopping everything")
            left = stop_engine(site)
    if site.not_kept:
        say(f"not everything could be kept: {site.not_kept}")
    judge_left(told.checker, left)
    return told, left


async def _live(
    site: Site,
    wish: Wish,
    ending: Ending,
    say: Callable[[str], None],
    shown: Callable[[Told], None],
    keep: Path | None,
) -> Told:
    """Run on a loop of its own; a signal cancels the run, which undoes its faults first."""
    run = Run(site, wish, say=say, shown=shown, keep=keep)
    living = asyncio.ensure_future(run.live())
    loop = asyncio.get_running_loop()
    with ending.told(lambda: loop.call_soon_threadsafe(living.cancel)):
        try:
            return await living
        except asyncio.CancelledError:
            if ending.signal is not None:
                say(f"{ending}; undoing the faults that are in force")
                raise Ended(str(ending)) from None
            raise
        finally:
            if run.lines.stopped:
                say(f"not every record could be kept: {run.lines.stopped}")
            await run.close()


def stop_engine(site: Site) -> int:
    """Stop the engine; return how many processes it left, which are ended then."""
    settings = site.settings
    left = site.engine.stop()
    mark = tree_mark(settings.folder)
    if left:
        end_all(mark)
        shutil.rmtree(session_folder(settings), ignore_errors=True)
    assert not leftovers(mark), "processes that do not end"
    return left


class Bar:
    """Shows a person how far it is; silent where nobody watches but for a line now and then."""

    def __init__(self, console: Console, wish: Wish) -> None:
        self.told: Told | None = None  # what was heard so far
        self._wish = wish
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("chaos", total=wish.faults or wish.minutes * 60 or 1)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, told: Told) -> None:
        """Show where the run stands."""
        self.told = told
        hits = sum(each.fired for each in told.struck)
        done = float(hits)
        if not self._wish.faults and told.storm_ms:
            done = (time.time_ns() // 1_000_000 - told.storm_ms) / 1000
        words = f"{hits} faults, {sum(told.checker.broken.values())} violations"
        self._progress.update(self._task, completed=done, description=words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, report, and return 0 if every rule held."""
    options = parse(arguments)
    try:
        wish = wish_of(options)
        place = place_of(options, datetime.now(UTC))
    except RejectedInput as problem:
        return fail(problem, as_json=options.json)
    machine = Machine()  # before anything is started: what we start bears its mark
    # What the Kafka client says of a broker that we killed is no news.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")), soft_wrap=True)

    began = time.monotonic()

    def say(line: str) -> None:
        console.print(f"[{time.monotonic() - began:4.0f} s] {line}", markup=False, highlight=False)

    def write(found: dict[str, Any], told: Told) -> None:
        write_report(place, told, found)
        page, plain = files_of(place)
        say(f"the report is {page}, and as JSON {plain}")

    bar = Bar(console, wish)
    why = "it failed"
    try:
        with Ending() as ending, bar:
            told, left = chaos(wish, ending, say, bar.show, options.keep)
        why = ""
    except Ended as ended:
        why = str(ended)
        say(f"{ended}; everything was stopped")
        return BROKEN
    except NotReached as problem:
        why = str(problem)
        say(why)
        if options.json:
            print(as_line({"error": {"kind": "NotReached", "detail": str(problem)}}))
        return UNAVAILABLE
    except tuple(kind for kind, _, _ in FAILURES) as problem:
        why = str(problem)
        return fail(problem, as_json=options.json)
    finally:
        if why and bar.told is not None:
            bar.told.ended_ms = time.time_ns() // 1_000_000
            write(summary(bar.told, left=None, stamp=machine.stamp(), ended=why), bar.told)
    found = summary(told, left=left, stamp=machine.stamp())
    write(found, told)
    if options.json:
        print(as_line(found), flush=True)
    else:
        tell_people(console, found)
    return HOLDS if found["verdict"] == "holds" else BROKEN


def tell_people(console: Console, found: dict[str, Any]) -> None:
    """Say how it went in a few lines."""
    people = Console(no_color=console.no_color, soft_wrap=True)
    people.print(f"{found['faults']} faults in {found['seconds']:.0f} s, seed {found['seed']}")
    people.print(f"verdict: {found['verdict']}")
    people.print(in_words(found))
    for kind, counts in found["hits"].items():
        targets = ", ".join(f"{name} {count}" for name, count in counts.items())
        people.print(f"  {kind} {sum(counts.values())}: {targets}")
    for rule, count in found["broken"].items():
        people.print(f"  {rule}: {count}")
    for line in found["violations"]:
        people.print(f"    {line}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
