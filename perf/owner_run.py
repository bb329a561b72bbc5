"""Run production owners over deltas that wait in Kafka: ``python -m perf.owner_run``.

One process holds an owner (``actors.shard_actor.ShardActor``) for each partition, with the real
log, decoder, shard and durable decision log, and no follower. It decides until so many facts behind
the catalogue are decided, and prints one line of JSON: CPU seconds (user and system, all threads)
and wall seconds from the catalogue's end, counts, and the SHA-256 of the final prices. Other
programs of ``perf/`` call :func:`run` in a process of their own.
"""

import argparse
import asyncio
import gc
import hashlib
import json
import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop
from msgspec import Struct

from actors.clock import ClockKind, WallClock
from actors.shard_actor import OwnerSettings, ShardActor
from engine.listing_table import REMOVED
from engine.shard import Shard, ShardSettings
from persistence.checkpoints import CheckpointFiles
from persistence.kafka_log import KafkaLogs
from persistence.ports import DECISIONS, DELTAS, Log, Logs

RETENTION_MS = 14 * 86_400_000


class Work(Struct, frozen=True, kw_only=True):
    """What shall be decided, and where it lies."""

    bootstrap: str
    partitions: int
    spreads: dict[str, int] = {}
    clock: ClockKind = "wall"
    openings: dict[int, int] = {}  # last offset of each partition's catalogue; -1: it has none
    events: int = 2**62  # stop when so many facts behind the catalogue are decided; else at the end
    deltas: str = DELTAS  # what is read: the same facts may lie in several topics
    decisions: str = DECISIONS  # a topic of one's own for each run
    prices: str = ""  # file to which the final table is written
    profile: str = ""  # file to which a profile of the facts is written


class OtherTopics:
    """The logs, with others in place of some topics: each run begins decisions of its own."""

    def __init__(self, logs: Logs, instead: Mapping[str, str]) -> None:
        self._logs = logs
        self._instead = instead

    async def create(self, topics: Mapping[str, int], *, retention_ms: int) -> None:
        """Create topics as they are named."""
        await self._logs.create(topics, retention_ms=retention_ms)

    async def open(self, topic: str, partition: int) -> Log:
        """Open a partition, of the topic that stands in place of the one that is meant."""
        return await self._logs.open(self._instead.get(topic, topic), partition)

    async def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has."""
        return await self._logs.partitions(self._instead.get(topic, topic))

    async def close(self) -> None:
        """Close what is open."""
        await self._logs.close()


class Owned:
    """One owner, stepped by hand."""

    def __init__(self, number: int, logs: Logs, folder: Path, work: Work) -> None:
        settings = ShardSettings(shard=number, generation=1)
        self.number = number
        self.shards: list[Shard] = []
        self.actor = ShardActor(
            number,
            logs=logs,
            checkpoints=CheckpointFiles(folder / f"shard-{number}"),
            clock=WallClock(),
            settings=OwnerSettings(
                generation=1,
                partitions=work.partitions,
                spreads=work.spreads,
                clock=work.clock,
                checkpoint_interval_ms=86_400_000,
            ),
            new_shard=lambda: self._new(settings),
            restore=lambda parts: Shard.restore(parts, settings),
            owner=secrets.token_bytes(16),
        )
        self.events = 0
        self.steps = 0

    @property
    def shard(self) -> Shard:
        """Return the shard that the owner made."""
        return self.shards[-1]

    def _new(self, settings: ShardSettings) -> Shard:
        self.shards.append(Shard(settings))
        return self.shards[-1]

    async def open(self, work: Work) -> None:
        """Start, and decide the catalogue."""
        await self.actor.start()
        await self.step_to(work.openings.get(self.number, -1))
        await self.settle()

    async def settle(self) -> None:
        """Decide the rows that found no room in the decisions of their deltas."""
        while self.shard.backlog:
            self.events += await self.actor.step()
            self.steps += 1

    async def step_to(self, last_delta: int, enough: "Enough | None" = None) -> None:
        """Decide until this offset is consumed, or enough is decided."""
        while self.shard.last_delta < last_delta:
            self.events += await self.actor.step()
            self.steps += 1
            if enough is not None and enough.reached():
                return


class Enough:
    """Says when all owners together have decided enough facts."""

    def __init__(self, owners: list[Owned], events: int) -> None:
        self._owners = owners
        self._until = events + sum(owner.events for owner in owners)

    def reached(self) -> bool:
        """Return whether they have."""
        return sum(owner.events for owner in self._owners) >= self._until


async def run(work: Work) -> dict[str, Any]:
    """Decide, and return what it took."""
    logs = KafkaLogs(work.bootstrap)
    with tempfile.TemporaryDirectory(prefix="repricer-owner-") as folder:
        mine = OtherTopics(logs, {DECISIONS: work.decisions, DELTAS: work.deltas})
        await mine.create({work.decisions: work.partitions}, retention_ms=RETENTION_MS)
        owners = [Owned(n, mine, Path(folder), work) for n in range(work.partitions)]
        try:
            await asyncio.gather(*(owner.open(work) for owner in owners))
            return await _decide_facts(work, mine, owners)
        finally:
            for owner in owners:
                await owner.actor._let_go()
            await logs.close()


async def _decide_facts(work: Work, logs: Logs, owners: list[Owned]) -> dict[str, Any]:
    ends = []
    for number in range(work.partitions):
        log = await logs.open(DELTAS, number)
        ends.append(await log.end())
        await log.close()
    before_events = sum(owner.events for owner in owners)
    before_seq = sum(owner.shard.seq for owner in owners)
    enough = Enough(owners, work.events)
    gc.collect()
    profile = _profile(work.profile)
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(
        *(owner.step_to(end - 1, enough) for owner, end in zip(owners, ends, strict=True))
    )
    await asyncio.gather(*(owner.settle() for owner in owners))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if profile is not None:
        profile.disable()
        profile.dump_stats(work.profile)
    table = final_prices([owner.shard for owner in owners])
    if work.prices:
        Path(work.prices).write_bytes(table)
    events = sum(owner.events for owner in owners) - before_events
    return {
        "events": events,
        "cpu_s": round(cpu, 4),
        "wall_s": round(wall, 4),
        "process_cpu_s": round(time.process_time(), 3),
        "decisions": sum(owner.shard.seq for owner in owners) - before_seq,
        "listings": sum(owner.shard._memory.listings.live for owner in owners),
        "prices_sha256": hashlib.sha256(table).hexdigest(),
        "durability": "every decision appended with acks=all, replayable; followers off",
    }


def _profile(name: str) -> Any:
    if not name:
        return None
    import cProfile

    profile = cProfile.Profile()
    profile.enable()
    return profile


def final_prices(shards: list[Shard]) -> bytes:
    """Return the prices in force, a sorted line a listing: retailer, channel, SKU, price."""
    lines = []
    for shard in shards:
        memory = shard._memory
        for row in range(memory.listings.rows):
            held = memory.listings.listings[row]
            if not held["flags"] & REMOVED:
                text = memory.listings.text(row)
                retailer = memory.retailers.ids[held["retailer"]]
                lines.append(f"{retailer}\t{text.channel}\t{text.sku}\t{held['in_force_minor']}\n")
    return "".join(sorted(lines)).encode()


def main() -> None:
    """Run once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--spreads", default="{}", help='JSON: {"retailer": slots}')
    parser.add_argument(
        "--openings", default="{}", help="JSON: last offset of each partition's catalogue"
    )
    parser.add_argument("--clock", choices=("wall", "event"), default="wall")
    parser.add_argument("--events", type=int, default=2**62)
    parser.add_argument("--deltas", default=DELTAS, help="the topic that is read")
    parser.add_argument("--decisions", default=DECISIONS)
    parser.add_argument("--prices", default="")
    parser.add_argument("--profile", default="")
    given = parser.parse_args()
    work = Work(
        bootstrap=given.bootstrap,
        partitions=given.partitions,
        spreads=json.loads(given.spreads),
        clock=given.clock,
        openings={int(shard): last for shard, last in json.loads(given.openings).items()},
        events=given.events,
        deltas=given.deltas,
        decisions=given.decisions,
        prices=given.prices,
        profile=given.profile,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(work))))


if __name__ == "__main__":
    main()
