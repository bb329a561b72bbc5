"""Black Friday: five times the usual flood for minutes, on the real stack.

``python -m perf.spike [--minutes 5] [--per-minute 2500000] [--following] [--json]``

Kafka, Postgres, QuestDB, Redis, two owners, the gateway, the followers and the generator share the
machine. Frames of rivals' prices and stock flow at a fifth of the rate, then at the rate, then at a
fifth again. A fact is due at its time in an open loop; reported is the time from there until the
decision that holds it is in the log, by phase, and how far behind the followers were at the end.

A fact is decided when its listing was priced anew; under the default policy few of these facts move
a price. With ``--following`` every listing is a key value item that costs no more than its cheapest
rival: then about every second fact moves one.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from perf.flood import RETAILER, SPREAD, Flood, Recorded, fill, percentile, recorded
from perf.measuring import Progress, arguments_of, processor_s, run_command, significant
from perf.real_stack import EngineUnderTest, on_engine

COMMAND = "spike"
PER_MINUTE = 2_500_000
CALM_S = 15.0
TIMES = 5


def roles(under_test: EngineUnderTest, state: dict[str, Any]) -> dict[int, str]:
    """Return the pids of the processes that a decision passes, by name."""
    owners = {each["pid"]: each["name"] for each in state["shards"] if "pid" in each}
    return owners | {os.getpid(): "generator"}


async def until_consumed(under_test: EngineUnderTest, wait_s: float) -> float:
    """Wait until every delta is decided; return the seconds it took."""
    began = time.monotonic()
    await under_test.until(
        lambda state: all(each.get("lag_records") == 0 for each in state["shards"]),
        "every delta decided",
        wait_s,
    )
    return time.monotonic() - began


async def measure(
    under_test: EngineUnderTest, options: argparse.Namespace, say: Progress
) -> dict[str, Any]:
    """Fill, let it flood, and read what was recorded."""
    settings, listings, minutes = under_test.settings, options.listings, options.minutes
    say(f"filling {listings:,} listings")
    await fill(under_test, listings, following=options.following)
    per_s = options.per_minute / 60
    calm = (per_s / TIMES, CALM_S)
    flood = Flood(settings, listings)
    say(f"calm at {calm[0]:,.0f} facts a second, then {per_s:,.0f} for {minutes:g} minutes")
    before = {pid: processor_s(pid) for pid in roles(under_test, await under_test.status())}
    await flood.run([calm, (per_s, 60 * minutes), calm])
    drained_s = await until_consumed(under_test, 300)
    state = await under_test.status()
    names = roles(under_test, state)
    used = {names[pid]: processor_s(pid) - before[pid] for pid in before if pid in names}
    lag_ms = max((each["lag_ms"] for each in state["followers"]), default=0)
    say("reading the decision logs")
    found = await recorded(settings, flood.sent)
    return figures_of(found, flood, used, minutes) | {
        "listings": listings,
        "drained_after_s": significant(drained_s),
        "followers_behind_ms": lag_ms,
    }


def figures_of(
    found: Recorded, flood: Flood, used: dict[str, float], minutes: float
) -> dict[str, Any]:
    """Return the figures, and what ten times that would need if cost grew in proportion."""
    peak = found.delays[1]
    decided = int(peak[1].sum())
    # What was due in the peak and recorded later stretches it: the rate is over the longer time.
    dues = [record.due_ms for record in flood.sent.values() if record.phase == 1]
    longest_s = max(60 * minutes, (max(dues) - min(dues) + float(peak[0].max())) / 1000)
    owners_s = sum(seconds for name, seconds in used.items() if name != "generator")
    return {
        "facts": found.facts,
        "quotes": found.quotes,
        "quotes_per_fact": significant(found.quotes / max(found.facts, 1)),
        "decisions": found.decisions,
        "lost": found.lost,
        "decided_per_minute": significant(decided / longest_s * 60),
        "of_wanted": significant(decided / longest_s / (decided / (60 * minutes))),
        "peak_p50_ms": significant(percentile(peak, 0.5)),
        "peak_p99_ms": significant(percentile(peak, 0.99)),
        "peak_max_ms": significant(float(peak[0].max())),
        "calm_p99_ms": significant(percentile(found.delays[0], 0.99)),
        "after_p99_ms": significant(percentile(found.delays[2], 0.99)),
        "generator_late_ms": significant(flood.late_ms_max),
        "owners_processor_s_a_million": significant(owners_s / max(found.facts, 1) * 1e6),
        "ten_times_owner_cores": significant(
            owners_s / max(found.facts, 1) * 10 * decided / (60 * minutes)
        ),
        "processor_s": {name: significant(seconds) for name, seconds in used.items()},
    }


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    values = {"shards.spreads": {RETAILER: SPREAD}}
    return on_engine(
        options.embedded,
        values,
        say,
        lambda engine: measure(engine, options, say),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--per-minute", type=float, default=PER_MINUTE)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument(
        "--following", action="store_true", help="listings follow their cheapest rival"
    )
    parser.add_argument("--embedded", action="store_true", help="without the real servers")
    return run_command(COMMAND, parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
