"""No owner is replaced for want of a processor, and one that hangs is all the same.

``python -m perf.starved --seconds 180 --busy 6 --json``. Endless loops take every processor while
an engine on the real servers is fed; nobody may be replaced. What was seen so far is said every
minute, so that a run that is broken off has told it. Then, still crowded, an owner is stopped: how
long until it is found out and until its shard decides again.
"""

import argparse
import asyncio
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from cluster.launching import living_owners
from cluster.settings import Settings
from perf.chaos_rows import audit, strike
from perf.measuring import Progress, arguments_of, run_command
from perf.real_input import POLICY, feed_words
from perf.real_stack import EngineUnderTest, NotReached, engine

COMMAND = "starved"
DELTAS_A_WEEK = 10_000
"""A little less than the synthetic table holds, so that the feed outlasts the watching."""

AFTERWARDS_S = 300.0
SAY_EVERY_S = 60.0
FOUND_OUT_S_MAX = 5.0
"""Within so long a hung owner is replaced, by a standby at least found out (RELIABILITY.md)."""


def burn() -> None:
    """Take a processor for ever."""
    while True:
        pass


def owners(settings: Settings) -> dict[int, int]:
    """Return the number of each shard's newest start."""
    found: dict[int, int] = {}
    for owner in living_owners(settings.run_folder):
        found[owner.start.shard] = max(found.get(owner.start.shard, 0), owner.start.number)
    return found


def replacements(before: Mapping[int, int], after: Mapping[int, int]) -> int:
    """Return how many starts came after those that were there before."""
    return sum(after.get(shard, 0) - number for shard, number in before.items())


def weeks_for(seconds: float, speed: float) -> int:
    """Return how many weeks of the synthetic table last so long, and through the stops after it."""
    return math.ceil((seconds + AFTERWARDS_S) * speed / DELTAS_A_WEEK)


async def crowd(under_test: EngineUnderTest, seconds: float, say: Progress) -> dict[str, Any]:
    """Watch for a while; return who was replaced and how much silence was excused."""
    settings = under_test.settings
    before, starved, silent = owners(settings), 0, 0
    said = time.monotonic()
    until = said + seconds
    while time.monotonic() < until:
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            replaced = replacements(before, owners(settings))
            say(
                f"{until - said:.0f} s to go; {replaced} owners replaced, "
                f"longest proven silence {silent:.0f} ms, most excused {starved:.0f} ms"
            )
        places = (await under_test.status())["supervisor"].get("shards", [])
        starved = max([starved, *(place["starved_ms"] for place in places)])
        silent = max([silent, *(place["silence_ms"] for place in places)])
        await asyncio.sleep(0.5)
    return {
        "false_replacements": replacements(before, owners(settings)),
        "longest_proven_silence_ms": silent,
        "most_excused_ms": starved,
        "load": round(os.getloadavg()[0], 1),
    }


async def found_out(settings: Settings, shard: int) -> float:
    """Return after how many seconds the shard's present owner is gone."""
    began = time.monotonic()
    (owner,) = [each for each in living_owners(settings.run_folder) if each.start.shard == shard]
    while any(each.pid == owner.pid for each in living_owners(settings.run_folder)):
        await asyncio.sleep(0.02)
    return round(time.monotonic() - began, 2)


async def stop_one(settings: Settings, shard: int) -> dict[str, float | None]:
    """Stop an owner; return when it was found out and when its shard decided again.

    ``None`` stands for what did not come in a minute: its successor is crowded, too, and what was
    watched before it is not lost for that.
    """
    gone = asyncio.ensure_future(found_out(settings, shard))
    stopped: dict[str, float | None] = {"found_out_s": None, "next_decision_s": None}
    with suppress(NotReached):
        stopped["next_decision_s"] = (await strike(settings, shard, "pause")).next_decision_s
    with suppress(TimeoutError):
        stopped["found_out_s"] = await asyncio.wait_for(gone, 1.0)
    return stopped


def crowded(
    under_test: EngineUnderTest, options: argparse.Namespace, say: Progress
) -> dict[str, Any]:
    """Feed a started engine, crowd it, watch it, stop its owners; return all figures."""
    loops = [multiprocessing.Process(target=burn, daemon=True) for _ in range(options.busy)]
    feeding = under_test.begin_verb(*feed_words(options, POLICY), "--speed", str(options.speed))
    try:
        for loop in loops:
            loop.start()
        watched = asyncio.run(crowd(under_test, options.seconds, say))
        fed_during = feeding.poll() is None
        say(f"{watched['false_replacements']} owners replaced")
        stops = []
        for number in range(options.pauses):
            stops.append(asyncio.run(stop_one(under_test.settings, number % 2)))
            say(f"stopped an owner: {stops[-1]}")
            time.sleep(8)
        found = asyncio.run(audit(under_test.settings))
    finally:
        for loop in loops:
            loop.kill()
        feeding.kill()
        feeding.wait()
    return {
        "busy_processes": options.busy,
        "fed_during": fed_during,
        **watched,
        "stopped_owners": stops,
        "found_out_late": sum(
            each["found_out_s"] is None or each["found_out_s"] > FOUND_OUT_S_MAX for each in stops
        ),
        "gaps": found.gaps,
        "doubled": found.doubled,
        "by_a_replaced_owner": found.by_replaced,
    }


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    options.oj = None
    options.weeks = options.weeks or weeks_for(options.seconds, options.speed)
    values = {"shards.clock": "event", "shards.spreads": {"dominicks": 2}, "shards.checkpoint_s": 5}
    with engine(options.embedded, **values) as under_test:
        say(f"starting the stack; the feed will be {options.weeks} weeks")
        under_test.start()
        try:
            figures = crowded(under_test, options, say)
        finally:
            left = under_test.stop()
    return figures | {"processes_left": left}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--busy", type=int, default=3 * (os.cpu_count() or 1))
    parser.add_argument("--pauses", type=int, default=4)
    parser.add_argument("--weeks", type=int, default=0, help="of input; 0: as many as it takes")
    parser.add_argument("--wire", choices=("json", "frames"), default="frames")
    parser.add_argument("--speed", type=float, default=2000.0, help="deltas a second")
    parser.add_argument("--embedded", action="store_true", help="without the real servers")
    return run_command(COMMAND, parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
