"""Row g: one shard's owner is killed and hung again and again, and prices are read all the while.

``python -m perf.kills [--listings 1000000] [--kills 30] [--hangs 5] [--heir standby] [--json]``

The heir is what a successor begins as: a ``standby`` that follows the log, a ``spare`` process that
has everything loaded (the default of ``repricer up``), or ``cold``, a new process. Facts flow and
prices are read at a steady rate, in open loops. Told are the seconds from each SIGKILL or SIGSTOP
to the first decision of a successor by the log's own times, how many reads were answered, and how
many of them were older than two seconds without saying so; how many of the hung were replaced after
five seconds (``hangs_late``) is told of every heir and judged of a standby. Before the first strike
all listings are priced anew because of a policy that changes no price: that takes how long, and an
owner how many bytes a listing. ``start_s`` is what the whole stack took to be live with nothing in
it, and ``restart_to_live_s`` what it took, stopped after the strikes and started again, from
``repricer up`` to the first decision of the last shard, by the log's own times, with all listings
there and the files still in the system's memory.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import numpy as np

from actors.starts import Launched
from actors.watch import SETTLED_MS
from cluster.assembly import make_logs
from cluster.control import ControlClient, control_token
from cluster.feeding import Feed, Router
from cluster.launching import living_owners
from cluster.settings import Settings
from cluster.tree import make_keys, role_card
from engine.deltas import PolicyChanged
from perf.chaos.documents import unix_ms
from perf.chaos_rows import audit, next_decision, strike, until_all_live
from perf.flood import RETAILER, SPREAD, Flood, fill, now_ms, recorded
from perf.measuring import Progress, arguments_of, run_command, significant
from perf.real_stack import EngineUnderTest, on_engine
from perf.soak import Reads, figures_of_process
from perf.spike import until_consumed

COMMAND = "kills"
STALE_MS = 2_000
REST_S = SETTLED_MS / 1000 + 2.0
"""So long an owner decides before the next strike. One that is struck before it has settled is one
of a row, and the supervisor lets its successor wait: that is caution, and no recovery."""
BACK_S = 600.0
"""A standby that begins before the first checkpoint follows the log from its start."""
HANGS_LATE_S = 5.0
"""A hung owner's standby decides within these; of another heir it is told and not promised."""
PROMISED_S = {"standby": 1.5, "spare": 12.0, "cold": 12.0}
"""From a SIGKILL to the next decision, p99, by heir."""

AGAIN_S = 600.0
FLOOD_S = 24 * 3600.0


class JudgedReads(Reads):
    """Reads of which each answer's age is compared with what it says of it."""

    unmarked = 0

    def judge(self, asked_ms: int, body: bytes) -> None:
        """Count an answer that was older than allowed when it was asked for, and did not say so."""
        document = json.loads(body)
        is_old = asked_ms - unix_ms(document["as_of"]) > STALE_MS
        self.unmarked += is_old and not document["stale"]


def told(seconds: Sequence[float]) -> dict[str, Any]:
    """Return how long it took, of so many strikes."""
    if not seconds:
        return {"strikes": 0}
    return {
        "strikes": len(seconds),
        "p50_s": significant(float(np.percentile(seconds, 50))),
        # Of few: the greatest that at most one in a hundred exceeds is the greatest.
        "p99_s": significant(float(np.percentile(seconds, 99, method="higher"))),
        "max_s": significant(max(seconds)),
        "all_s": sorted(seconds),
    }


async def repriced_s(under_test: EngineUnderTest) -> float:
    """Change a policy so that no price changes; return the seconds until all are priced anew."""
    settings = under_test.settings
    logs = make_logs(settings)
    sender = Feed(logs, Router(settings.shards.count, settings.shards.spreads))
    policy = PolicyChanged(
        retailer=RETAILER,
        scope="retailer",
        fields={"approval_valid_ms": 7_200_000},
        observed_ms=now_ms(),
    )
    async with aiohttp.ClientSession() as session:
        control = ControlClient(session, control_token(settings.run_folder))

        async def told() -> list[dict[str, Any]]:
            return [await control.status(each.address) for each in owners_of(settings)]

        before = [each["last_delta"] for each in await told()]
        began = time.monotonic()
        await sender.send([policy])  # to each shard of the retailer
        while any(
            each["backlog"] or each["last_delta"] == last
            for each, last in zip(await told(), before, strict=True)
        ):
            await asyncio.sleep(0.05)
    seconds = time.monotonic() - began
    await sender.close()
    await logs.close()
    return seconds


def owners_of(settings: Settings) -> list[Launched]:
    """Return the oldest living owner of each shard: who decides, where others stand by."""
    first: dict[int, Launched] = {}
    for card in sorted(living_owners(settings.run_folder), key=lambda card: card.start.number):
        first.setdefault(card.start.shard, card)
    return list(first.values())


async def struck(
    under_test: EngineUnderTest, kinds: Sequence[str], say: Progress
) -> dict[str, list[float]]:
    """Strike one after the other, each when everything is back; return the seconds of each kind."""
    settings = under_test.settings
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number, kind in enumerate(kinds):
        await until_all_live(settings, BACK_S)
        if settings.supervisor.spare and not settings.shards.standby:
            await under_test.until(
                lambda state: state["supervisor"].get("spare", False), "a spare waits"
            )
        await asyncio.sleep(REST_S)
        blow = await strike(settings, number % settings.shards.count, kind)
        found[kind].append(blow.next_decision_s)
        say(f"{number + 1} of {len(kinds)}: {kind}, decided again after {blow.next_decision_s} s")
    return found


async def restarted_s(under_test: EngineUnderTest, say: Progress) -> tuple[float, int]:
    """Stop the stack and start it again; return the seconds until all decide, and who was left.

    An idle owner decides nothing in its heartbeats, and that is a decision, too.
    """
    settings = under_test.settings
    say("stopping the stack")
    left = await asyncio.to_thread(under_test.stop)
    say("starting it again")
    begun_ms = now_ms()
    decided = [
        asyncio.create_task(next_decision(settings, shard, b"", begun_ms, AGAIN_S))
        for shard in range(settings.shards.count)
    ]
    starting = asyncio.create_task(asyncio.to_thread(under_test.start))
    _, *decided_ms = await asyncio.gather(starting, *decided)
    return (max(decided_ms) - begun_ms) / 1000, left


async def measure(under_test: EngineUnderTest, options: Any, say: Progress) -> dict[str, Any]:
    """Fill, load, strike; return all figures."""
    settings = under_test.settings
    say(f"filling {options.listings:,} listings")
    began = time.monotonic()
    await fill(under_test, options.listings)
    filled_s = time.monotonic() - began
    say("pricing all of them anew")
    full_s = await repriced_s(under_test)
    resident_mb = sum(figures_of_process(each.pid)["rss_mb"] for each in owners_of(settings))
    card = role_card(settings, "gateway")
    assert card is not None
    flood = Flood(settings, options.listings)
    reads = JudgedReads(card.address, make_keys(settings), options.listings, options.reads_per_s)
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        loads = [
            asyncio.create_task(reads.run(session)),
            asyncio.create_task(flood.run([(options.facts_per_s, FLOOD_S)])),
        ]
        kinds = ["kill"] * options.kills + ["pause"] * options.hangs
        striking = asyncio.create_task(struck(under_test, kinds, say))
        await asyncio.wait({striking, *loads}, return_when=asyncio.FIRST_COMPLETED)
        for load in loads:
            load.cancel()
        for load in loads:
            with suppress(asyncio.CancelledError):
                await load
        seconds = await striking
    await until_consumed(under_test, 600)
    say("reading the decision log")
    found, judged = await recorded(settings, flood.sent), await audit(settings)
    hangs, kills = seconds.get("pause", []), told(seconds.get("kill", []))
    wrong = found.lost + judged.gaps + judged.doubled + judged.by_replaced
    again: dict[str, Any] = {}
    if options.restart:
        restart_s, left = await restarted_s(under_test, say)
        again = {"restart_to_live_s": significant(restart_s), "left_by_restart": left}
    return {
        "listings": options.listings,
        "heir": options.heir,
        "filled_s": significant(filled_s),
        "full_reprice_s": significant(full_s),
        "full_reprice_per_s": significant(options.listings / full_s),
        "owners_rss_mb": significant(resident_mb),
        "rss_bytes_a_listing": significant(resident_mb * 2**20 / options.listings),
        "kills": kills,
        "promised_s": PROMISED_S[options.heir],
        "p99_of_promised": (
            significant(kills["p99_s"] / PROMISED_S[options.heir]) if kills["strikes"] else None
        ),
        "hangs": told(hangs),
        "hangs_late": sum(each > HANGS_LATE_S for each in hangs) if hangs else None,
        "reads": reads.answered,
        "reads_failed": reads.failed,
        "reads_stale": reads.stale,
        "reads_stale_unmarked": reads.unmarked,
        "reads_p99_ms": significant(float(np.percentile(reads.delays_ms, 99))),
        "facts": found.facts,
        "lost": found.lost,
        "gaps": judged.gaps,
        "doubled": judged.doubled,
        "by_a_replaced_owner": judged.by_replaced,
        "wrong": wrong,
        **again,
    }


def settings_of(options: Any) -> dict[str, Any]:
    """Return the settings that make the wanted heir."""
    return {
        "shards.count": options.shards,
        "shards.spreads": {RETAILER: SPREAD},
        "shards.standby": options.heir == "standby",
        "supervisor.spare": options.heir == "spare",
    }


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    return on_engine(
        options.embedded, settings_of(options), say, lambda engine: measure(engine, options, say)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--listings", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--hangs", type=int, default=5)
    parser.add_argument("--heir", choices=tuple(PROMISED_S), default="standby")
    parser.add_argument("--facts-per-s", type=float, default=200)
    parser.add_argument("--reads-per-s", type=float, default=100)
    parser.add_argument("--embedded", action="store_true", help="without the real servers")
    parser.add_argument(
        "--no-restart", dest="restart", action="store_false", help="end after the strikes"
    )
    return run_command(lambda options: f"{COMMAND}-{options.heir}", parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
