"""How long a plan and a what-if take at 100,000 listings, and that the live shard is not touched.

``python -m perf.foresight [--listings 100000] [--json]``

A production owner on logs in SQLite decides the listings and takes a checkpoint; then a tail of
deltas goes on in its log. A process of forks is asked as the gateway asks it: the first question
starts it, later ones find it running. Each answer is one fork: checkpoint, tail, question. Beside
them the parts that need no process: ``Shard.fork`` and a plan on it.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from actors.shard_actor import ShardActor
from actors.starts import Start
from cluster.assembly import make_logs, make_owner
from cluster.forking import Forks
from cluster.settings import LogSettings, Settings, ShardSettings
from cluster.topics import topics_of
from engine.deltas import AnyDelta, CompetitorPriced, RetailerAdded, ScopeChange
from engine.foresight import plan
from engine.shard import Shard
from perf.filled import CHANNEL, RETAILER, listing_deltas, sku_of
from perf.measuring import Progress, arguments_of, run_command, significant, spread, timed
from perf.shard import START_MS
from persistence.ports import COMMANDS, DELTAS, Appender, Log
from persistence.wire import JSON, encode_delta

COMMAND = "foresight"
PIECE = 4096
TAIL = 20_000
"""Deltas after the checkpoint: what a fork has to replay."""

PROMISED_S = 5.0
DEADLINE_MS = 120_000
CHANGES = (ScopeChange(fields={"min_margin": 0.45, "step_max": 0.1}),)


class Feeding:
    """Sends deltas to one owner and has them decided."""

    def __init__(self, actor: ShardActor, log: Log, appender: Appender) -> None:
        self._actor = actor
        self._log = log
        self._appender = appender

    async def send(self, deltas: Sequence[AnyDelta]) -> None:
        """Append, and decide until all is consumed and no work waits."""
        for delta in deltas:
            value = encode_delta(delta)
            await self._appender.append(value, key=RETAILER.encode(), content_type=JSON)
        end = await self._log.end() - 1
        shard = self._actor._shard
        while shard.last_delta < end or shard.backlog:
            await self._actor.step()


def offers(first: int, count: int, now_ms: int, random: np.random.Generator) -> list[AnyDelta]:
    """Return one rival's offers for some listings."""
    prices = random.integers(1900, 2600, count).tolist()
    return [
        CompetitorPriced(
            retailer=RETAILER,
            channel=CHANNEL,
            sku=sku_of(first + at),
            rival="bob",
            price_minor=price,
            observed_ms=now_ms,
        )
        for at, price in enumerate(prices)
    ]


async def measure(folder: Path, listings: int, pairs: int, say: Progress) -> dict[str, Any]:
    """Return all figures."""
    settings = Settings(
        folder=folder,
        log=LogSettings(backend="sqlite"),
        shards=ShardSettings(count=1, clock="event"),
    )
    logs = make_logs(settings)
    await logs.create(topics_of(settings), retention_ms=10**13)
    actor = await make_owner(settings, Start(shard=0, number=1, owner=b"o" * 16), logs)
    await actor.start()
    log = await logs.open(DELTAS, 0)
    commands = await logs.open(COMMANDS, 0)
    feeding = Feeding(actor, log, await log.appender())
    forks = Forks(settings)
    random = np.random.default_rng(1)
    try:
        added = RetailerAdded(retailer=RETAILER, currency="EUR", mode="live", observed_ms=START_MS)
        await feeding.send([added])
        for first in range(0, listings, PIECE):
            last = min(first + PIECE, listings)
            await feeding.send(list(listing_deltas(first, last)))
            say(f"{last:,} of {listings:,} listings decided")
        saving = asyncio.ensure_future(actor.checkpoint())
        while not saving.done():
            await actor.step()
        tail = min(TAIL, listings)
        for first in range(0, tail, PIECE):
            count = min(PIECE, tail - first)
            await feeding.send(offers(first, count, START_MS + 1000, random))
        shard = actor._shard
        assert isinstance(shard, Shard)
        digest = shard.digest
        figures = await _ask(forks, pairs, say)
        figures |= _in_memory(shard, pairs, say)
        figures["untouched"] = shard.digest == digest
        figures |= {"listings": listings, "tail": tail}
        return figures
    finally:
        await forks.close()
        await actor._let_go()
        await log.close()
        await commands.close()
        await logs.close()


async def _ask(forks: Forks, pairs: int, say: Progress) -> dict[str, Any]:
    base = {"shard": 0, "retailer": RETAILER, "limit": 100}
    planned = {**base, "kind": "plan", "changes": CHANGES}
    cases = [{"name": "dear", "cost_ratio": 1.05}]
    supposed = {**base, "kind": "what-if", "selection": {}, "cases": cases}
    took: dict[str, list[float]] = {"first": [], "plan": [], "what_if": []}
    used: dict[str, list[float]] = {"first": [], "plan": [], "what_if": []}
    # Where owners run, they have compiled the kernels into the folder; here nobody has.
    await forks.ask(msgspec.to_builtins(planned), DEADLINE_MS)
    moved = {}
    for turn in range(pairs):
        await forks.close()
        before_s = 0.0
        for name, question in (("first", planned), ("plan", planned), ("what_if", supposed)):
            say(f"{turn + 1} of {pairs}: {name}")
            began = time.perf_counter()
            answer = await forks.ask(msgspec.to_builtins(question), DEADLINE_MS)
            took[name].append(time.perf_counter() - began)
            used[name].append(answer["processor_s"] - before_s)
            before_s = answer["processor_s"]
            moved[name] = answer["seen"][0]["moved"]
    slowest = max(max(took["first"]), max(took["plan"]), max(took["what_if"]))
    return {
        "first_s": spread(took["first"]),
        "plan_s": spread(took["plan"]),
        "what_if_s": spread(took["what_if"]),
        **{f"{name}_processor_s": spread(seconds) for name, seconds in used.items()},
        "slowest_of_promised": significant(slowest / PROMISED_S),
        "moved_by_plan": moved["plan"],
        "moved_by_what_if": moved["what_if"],
    }


def _in_memory(shard: Shard, pairs: int, say: Progress) -> dict[str, Any]:
    forked, planned = [], []
    for turn in range(pairs):
        say(f"{turn + 1} of {pairs}: in memory")
        forked.append(timed(shard.fork))
        planned.append(timed(partial(plan, shard.fork(), RETAILER, CHANGES)))
    return {"fork_in_memory_s": spread(forked), "plan_in_memory_s": spread(planned)}


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="repricer-", dir=".") as name:
        return asyncio.run(measure(Path(name), options.listings, options.pairs, say))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=3)
    return run_command(COMMAND, parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
