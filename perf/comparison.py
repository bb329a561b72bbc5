"""Whether every store holds what the decision log says, while the engine goes on deciding."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

from msgspec import Struct

from actors.sinks.delta_lanes import DeltaLanes
from actors.sinks.log_summary import LogSummary, summarize_log
from cluster.assembly import make_logs, make_sinks
from cluster.settings import Settings
from persistence.ports import DECISIONS, Log

TRIES: Final = 5
"""So often must a store differ. A pin that ends is decided when nobody sends anything, and its rows
are there before the cursor that names them, or come between the cursor's reading and the count."""

AGAIN_S: Final = 1.0


class Comparison(Struct, frozen=True, kw_only=True):
    """Whether every store holds what the log says, by count and checksum."""

    equal: bool
    prices: int
    facts: dict[str, int]
    letters: int
    by_verdict: dict[str, int]
    unequal: list[str]
    counted_again: list[str]  # differences that were gone when it was counted again


class Counted(Struct, frozen=True, kw_only=True):
    """How one store compares with the log of a shard."""

    told: LogSummary
    unequal: list[str]
    gone: list[str]  # differences that a later count did not see


async def compare_stores(settings: Settings) -> Comparison:
    """Compare Postgres, QuestDB and the dead letters with the decision log, shard by shard."""
    logs = make_logs(settings)
    stores, sinks = make_sinks(settings, logs)
    prices, letters = 0, 0
    facts: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    unequal: list[str] = []
    gone: list[str] = []
    async with AsyncExitStack() as opened:
        opened.push_async_callback(logs.close)
        opened.push_async_callback(stores.close)
        for shard in range(settings.shards.count):
            log = await logs.open(DECISIONS, shard)
            lanes = DeltaLanes(logs)
            opened.push_async_callback(log.close)
            opened.push_async_callback(lanes.close)
            for name, sink in sinks.items():
                if name == "cache":
                    continue
                read = lanes if name == "history" else None
                told = partial(_told, log, read, shard, settings.shards.generation)
                counted = await compared(name, partial(sink.summary, shard), told)
                unequal += [f"shard {shard}: {each}" for each in counted.unequal]
                gone += [f"shard {shard}: {each}" for each in counted.gone]
                if name == "history":
                    prices += counted.told.prices.rows
                    facts.update({table: each.rows for table, each in counted.told.facts.items()})
                if name == "dead_letters":
                    letters += counted.told.letters.rows
                    verdicts.update(counted.told.by_verdict)
    return Comparison(
        equal=not unequal,
        prices=prices,
        facts=dict(facts),
        letters=letters,
        by_verdict=dict(verdicts),
        unequal=unequal,
        counted_again=gone,
    )


async def compared(
    name: str,
    holds: Callable[[], Awaitable[Any]],
    tells: Callable[[int | None], Awaitable[LogSummary]],
    *,
    again_s: float = AGAIN_S,
) -> Counted:
    """Count a store against the log up to the store's own ``seq``, until they agree or too often.

    A row that is missing, doubled or another differs however often it is counted.
    """
    gone: list[str] = []
    for number in range(TRIES):
        held = await holds()
        told = await tells(getattr(held, "seq", None))
        found = differences(name, held, told)
        if not found or number == TRIES - 1:
            break
        gone += found
        await asyncio.sleep(again_s)
    return Counted(told=told, unequal=found, gone=[] if found else gone)


async def _told(
    log: Log, lanes: DeltaLanes | None, shard: int, generation: int, seq: int | None
) -> LogSummary:
    return await summarize_log(log, lanes, shard=shard, generation=generation, through_seq=seq)


def differences(name: str, held: Any, told: LogSummary) -> list[str]:
    """Return in what a sink differs from the log."""
    found = []
    if hasattr(held, "prices") and held.prices != told.prices:
        found.append(f"{name}: prices {held.prices}, the log {told.prices}")
    if hasattr(held, "facts"):
        for table, tally in told.facts.items():
            if held.facts.get(table) != tally:
                found.append(f"{name}: {table} {held.facts.get(table)}, the log {tally}")
    if hasattr(held, "letters") and held.letters != told.letters:
        found.append(f"{name}: {held.letters}, the log {told.letters}")
    return found
