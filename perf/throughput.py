"""What a fact costs from Kafka to a durable decision: ``python -m perf.throughput``.

A real Kafka holds a catalogue and a feed of facts (rivals' prices, stock, sales; SKUs by Zipf
1.05). Each contender is a process of its own and reads the same topic: a bare ``getmany`` drain
that keeps nothing, and our owners with their decoder, shard and durable decision log, followers
off. Net means less a run of 1,000 facts. With ``--wire frames`` a third one has the same facts in
arrays in memory, scatters them and runs the kernel: the roofline. Contenders run in turns; ratios
are of one turn. With ``--partitions 1`` it is told what one shard decides a second, too.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiokafka
import numpy as np
import uvloop
from msgspec import Struct

from cluster.servers.kafka import Kafka
from engine.deltas import AnyDelta, ListingChanged, PolicyChanged, RetailerAdded
from engine.microbatch import COMPETITOR_PRICED, STOCK_COUNTED, UNITS_SOLD
from engine.routing import key64, partition_of, routing_key
from perf.measuring import Progress, arguments_of, ratio, run_command, spread
from persistence.kafka_log import KafkaLogs
from persistence.ports import COMMANDS, DELTAS
from persistence.wire import FRAME, JSON, FrameColumns, encode_delta, encode_frame

NAMES = {"json": "throughput", "frames": "frames"}
"""What the command is called by its wire, in the bench and in the budgets."""

RETAILER, CHANNEL = "acme", "web"
SLOTS = 16
START_EVENTS = 1_000
RIVALS = 4
PRICES_A_RIVAL = 50
"""How often a rival changes a SKU's price: four of them stay under the changes an hour allowed."""
FRAME_FACTS = 2_048
RETENTION_MS = 14 * 86_400_000
APPEND_RECORDS = 5_000

Outgoing = tuple[bytes | None, bytes, str]


class Facts(Struct, frozen=True, eq=False):
    """A feed as columns: what happened to which SKU, in order."""

    sku: np.ndarray  # number of the SKU
    kind: np.ndarray
    rival: np.ndarray
    amount: np.ndarray
    observed_ms: np.ndarray


class World(Struct, frozen=True):
    """A catalogue of one retailer, too big for one shard where there are several."""

    listings: int
    partitions: int

    @property
    def spreads(self) -> dict[str, int]:
        """Return into how many slots the retailer is cut."""
        return {RETAILER: SLOTS} if self.partitions > 1 else {}

    def key(self, number: int) -> bytes:
        """Return the routing key of a SKU."""
        return routing_key(RETAILER, sku_of(number), self.spreads.get(RETAILER, 1)).encode()

    def keys(self) -> list[bytes]:
        """Return every SKU's routing key."""
        return [self.key(number) for number in range(self.listings)]


def sku_of(number: int) -> str:
    """Return a SKU's name."""
    return f"S{number:07d}"


def base_price(number: np.ndarray) -> np.ndarray:
    """Return the price at which each SKU begins, in cents."""
    return 1500 + number * 7919 % 3000


def draw(world: World, count: int, observed_ms: int, seed: int = 1) -> Facts:
    """Return a feed: 70 % rivals' prices near the SKU's own, 15 % stock, 15 % sales."""
    random = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, world.listings + 1) ** 1.05
    cumulative = np.cumsum(weights)
    rank = np.searchsorted(cumulative, random.random(count) * cumulative[-1])
    sku = random.permutation(world.listings)[np.minimum(rank, world.listings - 1)]
    kind = random.choice(
        [COMPETITOR_PRICED, STOCK_COUNTED, UNITS_SOLD], count, p=[0.70, 0.15, 0.15]
    )
    rival = random.integers(0, RIVALS, count)
    place = np.arange(count)
    asked = asked_price(sku, rival, place * PRICES_A_RIVAL // count)
    amount = np.select(
        [kind == COMPETITOR_PRICED, kind == STOCK_COUNTED],
        [asked, random.integers(1, 500, count)],
        1,
    )
    return Facts(sku, kind, rival, amount, observed_ms + place)


def asked_price(sku: np.ndarray, rival: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Return what a rival asks in a turn: within 1.5 % of the SKU's first price, by a hash."""
    mixed = (sku * 0x9E3779B1 + rival * 0x85EBCA6B + turn * 0xC2B2AE35) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
    part = (mixed >> 8) % 3001
    asked: np.ndarray = base_price(sku) * (98_500 + part) // 100_000
    return asked


def catalogue(world: World, observed_ms: int) -> list[tuple[bytes, AnyDelta]]:
    """Return the retailer, his policy and his listings, each with its routing key.

    Every listing follows its lowest rival, between its floor and the model's optimum, so a rival's
    new lowest price is a new price of ours.
    """
    slots = {partition_of(key, world.partitions): key for key in _slots(world)}
    retailer = RetailerAdded(
        retailer=RETAILER,
        currency="EUR",
        mode="live",
        spread=world.spreads.get(RETAILER, 1),
        observed_ms=observed_ms,
    )
    policy = PolicyChanged(
        retailer=RETAILER,
        scope="retailer",
        fields={"kvi_rival_ratio_max": 1.0, "changes_per_hour_max": 255},
        observed_ms=observed_ms,
    )
    opening: tuple[AnyDelta, ...] = (retailer, policy)
    deltas = [(key.encode(), delta) for key in slots.values() for delta in opening]
    prices = base_price(np.arange(world.listings)).tolist()
    for number, key in enumerate(world.keys()):
        listing = ListingChanged(
            retailer=RETAILER,
            channel=CHANNEL,
            sku=sku_of(number),
            category=f"c{number % 20}",
            price_minor=prices[number],
            cost_minor=prices[number] * 65 // 100,
            kvi=True,
            own_rival_names=("ourselves",),
            observed_ms=observed_ms,
        )
        deltas.append((key, listing))
    return deltas


def _slots(world: World) -> list[str]:
    if not world.spreads:
        return [RETAILER]
    return [f"{RETAILER}#{slot}" for slot in range(SLOTS)]


def json_records(world: World, facts: Facts) -> list[Outgoing]:
    """Return each fact as a JSON record, as ``encode_delta`` writes it."""
    keys = world.keys()
    columns = (facts.sku, facts.kind, facts.rival, facts.amount, facts.observed_ms)
    records: list[Outgoing] = []
    names = f'"retailer":"{RETAILER}","channel":"{CHANNEL}"'
    for place, (sku, kind, rival, amount, at) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        head = f'"observed_ms":{at},{names},"sku":"{sku_of(sku)}"'
        if kind == COMPETITOR_PRICED:
            value = (
                f'{{"type":"CompetitorPriced",{head},"rival":"r{rival}","price_minor":{amount}}}'
            )
        elif kind == STOCK_COUNTED:
            value = f'{{"type":"StockCounted",{head},"units":{amount}}}'
        else:
            value = (
                f'{{"type":"UnitsSold",{head},"units":{amount},"source":"till",'
                f'"source_seq":{place}}}'
            )
        records.append((keys[sku], value.encode(), JSON))
    return records


def frame_records(world: World, facts: Facts) -> list[Outgoing]:
    """Return the same facts in columnar frames, in order within each routing key's partition."""
    keys = world.keys()
    place = [partition_of(key.decode(), world.partitions) for key in keys]
    shard = np.array(place)[facts.sku]
    listing = np.array(
        [key64(RETAILER, CHANNEL, sku_of(n)) for n in range(world.listings)], dtype=np.uint64
    )
    slots = {partition_of(key, world.partitions): key for key in _slots(world)}
    records: list[Outgoing] = []
    for partition, key in sorted(slots.items()):
        mine = np.flatnonzero(shard == partition)
        for start in range(0, len(mine), FRAME_FACTS):
            which = mine[start : start + FRAME_FACTS]
            value = encode_frame(RETAILER, _frame(facts, listing, which))
            records.append((key.encode(), value, FRAME))
    return records


def _frame(facts: Facts, listing: np.ndarray, which: np.ndarray) -> FrameColumns:
    kind = facts.kind[which]
    priced, sold = kind == COMPETITOR_PRICED, kind == UNITS_SOLD
    return FrameColumns(
        kind=kind.astype(np.uint8),
        listing=listing[facts.sku[which]],
        amount=facts.amount[which].astype(np.int64),
        observed_ms=facts.observed_ms[which],
        rival=np.where(priced, facts.rival[which], -1).astype(np.int32),
        rival_names=tuple(f"r{rival}" for rival in range(RIVALS)),
        shipping_minor=np.zeros(len(which), np.int32),
        currency=np.zeros(len(which), np.uint32),
        flags=np.where(priced, 3, 0).astype(np.uint8),
        source=np.where(sold, 0, -1).astype(np.int32),
        source_names=("till",),
        source_seq=np.where(sold, which, -1).astype(np.int64),
        event=np.zeros(len(which), np.uint64),
    )


async def preload(
    bootstrap: str, world: World, records: Sequence[Outgoing], observed_ms: int
) -> dict[int, int]:
    """Fill the deltas' topic; return the last offset of each partition's catalogue."""
    logs = KafkaLogs(bootstrap, append_deadline_ms=60_000)
    topics = {DELTAS: world.partitions, COMMANDS: world.partitions}
    await logs.create(topics, retention_ms=RETENTION_MS)
    opening: list[Outgoing] = [
        (key, encode_delta(delta), JSON) for key, delta in catalogue(world, observed_ms)
    ]
    openings: dict[int, int] = {}
    for part in (opening, records):
        lanes: dict[int, list[Outgoing]] = {n: [] for n in range(world.partitions)}
        places: dict[bytes, int] = {}
        for record in part:
            key = record[0]
            assert key is not None
            if key not in places:
                places[key] = partition_of(key.decode(), world.partitions)
            lanes[places[key]].append(record)
        for partition, lane in lanes.items():
            log = await logs.open(DELTAS, partition)
            appender = await log.appender()
            step = APPEND_RECORDS if part is opening or len(lane[:1]) == 0 else _step(lane[0])
            for start in range(0, len(lane), step):
                await appender.append_many(lane[start : start + step])
            await appender.close()
            if part is opening:
                openings[partition] = len(lane) - 1
            await log.close()
    await logs.close()
    return openings


def _step(record: Outgoing) -> int:
    return APPEND_RECORDS if len(record[1]) < 1_000 else 50


async def drain(bootstrap: str, openings: dict[int, int], records: int) -> dict[str, Any]:
    """Read the facts' records with a bare consumer and keep nothing: the denominator."""
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        fetch_max_bytes=8 * 1_048_576,
    )
    await consumer.start()
    places = [aiokafka.TopicPartition(DELTAS, partition) for partition in openings]
    consumer.assign(places)
    for place in places:
        consumer.seek(place, openings[place.partition] + 1)
    wall, cpu = time.perf_counter(), time.process_time()
    seen = 0
    while seen < records:
        fetched = await consumer.getmany(timeout_ms=500)
        seen += sum(map(len, fetched.values()))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    await consumer.stop()
    return {"events": seen, "cpu_s": cpu, "wall_s": wall}


class Bench:
    """Runs contenders as processes on one preloaded Kafka."""

    def __init__(self, kafka: Kafka, world: World, openings: dict[int, int], events: int) -> None:
        self._kafka = kafka
        self._world = world
        self._openings = openings
        self._events = events
        self._runs = 0

    def ours(self, events: int, *more: str) -> dict[str, Any]:
        """Let our owners decide so many facts."""
        self._runs += 1
        return child(
            "perf.owner_run",
            *("--bootstrap", self._kafka.address),
            *("--partitions", str(self._world.partitions)),
            *("--spreads", json.dumps(self._world.spreads)),
            *("--openings", json.dumps(self._openings)),
            *("--events", str(events)),
            *("--decisions", f"bench.decisions.{self._runs}"),
            *more,
        )

    def drain(self, events: int) -> dict[str, Any]:
        """Let the bare drain read so many records."""
        return child(
            "perf.throughput",
            *("--contender", "drain", "--bootstrap", self._kafka.address),
            *("--openings", json.dumps(self._openings), "--records", str(events)),
        )

    def roofline(self, events: int) -> dict[str, Any]:
        """Apply so many facts to arrays in memory."""
        return child(
            "perf.throughput",
            *("--contender", "roofline", "--events", str(events)),
            *("--listings", str(self._world.listings)),
        )


def best_case(world: World, events: int) -> dict[str, Any]:
    """Apply the same facts to arrays in memory."""
    from perf.roofline import roofline

    facts = draw(world, events, 0)
    prices = base_price(np.arange(world.listings))
    return roofline(prices, RIVALS, (facts.sku, facts.kind, facts.rival, facts.amount))


def child(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module in a process of its own and return its last line."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout.decode().strip().splitlines()[-1])
    print(f"{module} {arguments[1]}: {answer}", file=sys.stderr)
    return answer


def net(many: dict[str, Any], few: dict[str, Any]) -> float:
    """Return CPU seconds a million events of a run, less what a small run took."""
    return float((many["cpu_s"] - few["cpu_s"]) / (many["events"] - few["events"]) * 1e6)


def measure(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    """Start Kafka, preload, let contenders run, and return every figure."""
    world = World(options.listings, options.partitions)
    observed_ms = time.time_ns() // 1_000_000 - 3_600_000
    say(f"drawing {options.events:,} facts")
    facts = draw(world, options.events, observed_ms + 1_000)
    make = json_records if options.wire == "json" else frame_records
    records = make(world, facts)
    with tempfile.TemporaryDirectory(prefix="repricer-", ignore_cleanup_errors=True) as folder:
        kafka = Kafka(Path(folder) / "kafka")
        (Path(folder) / "kafka").mkdir()
        kafka.start()
        try:
            say("filling the lanes")
            openings = asyncio.run(preload(kafka.address, world, records, observed_ms))
            bench = Bench(kafka, world, openings, options.events)
            figures: dict[str, Any] = {
                "record_bytes": round(sum(len(each[1]) for each in records) / len(records))
            }
            if options.profile:
                return figures | {"ours": bench.ours(options.events, "--profile", options.profile)}
            return figures | compared(bench, options, len(records), say)
        finally:
            kafka.stop()


def compared(
    bench: Bench, options: argparse.Namespace, records: int, say: Progress
) -> dict[str, Any]:
    """Let the contenders run in turns; return CPU seconds a million, and the ratios of the turns.

    No round warms: each run is a process of its own, and what its start takes is subtracted.
    """
    few = START_EVENTS if options.wire == "json" else 1
    start = {"drain": bench.drain(few), "ours": bench.ours(few)}
    whole: list[dict[str, Any]] = []

    def drain() -> float:
        return net(bench.drain(records), start["drain"]) * records / float(options.events)

    def ours() -> float:
        whole.append(bench.ours(options.events))
        return net(whole[-1], start["ours"])

    def roofline() -> float:
        run = bench.roofline(options.events)
        return float(run["cpu_s"] / run["events"] * 1e6)

    sides = {"drain": drain, "ours": ours}
    if options.wire == "frames":
        sides["roofline"] = roofline
    cpu_s: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(options.pairs):
        for name, side in sides.items():
            say(f"{turn + 1} of {options.pairs}: {name}")
            cpu_s[name].append(side())
    figures: dict[str, Any] = {
        f"{name}_cpu_s_a_million": spread(each) for name, each in cpu_s.items()
    }
    figures |= {
        f"{name}_over_ours": ratio(each, cpu_s["ours"])
        for name, each in cpu_s.items()
        if name != "ours"
    }
    rates = [run["events"] / run["wall_s"] for run in whole]
    if options.partitions == 1:
        figures["one_shard_of_million"] = spread([each / 1e6 for each in rates])
    return figures | {
        "ours_events_a_second": spread(rates),
        "decisions": whole[-1]["decisions"],
        "same_prices": len({run["prices_sha256"] for run in whole}) == 1,
    }


def contender(arguments: Sequence[str]) -> int:
    """Be one of the contenders, in a process of its own; print what it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--contender", choices=("drain", "roofline"), required=True)
    parser.add_argument("--bootstrap")
    parser.add_argument("--openings")
    parser.add_argument("--records", type=int)
    parser.add_argument("--events", type=int)
    parser.add_argument("--listings", type=int)
    given = parser.parse_args(arguments)
    if given.contender == "roofline":
        print(json.dumps(best_case(World(given.listings, 1), given.events)))
        return 0
    openings = {int(shard): last for shard, last in json.loads(given.openings).items()}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(drain(given.bootstrap, openings, given.records))))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; by frames it has gates of its own, so another name."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["--contender"]:
        return contender(words)
    parser = arguments_of(NAMES["json"], __doc__)
    parser.add_argument("--wire", choices=tuple(NAMES), default="json")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=4, help="shards, all in one process")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--profile", default="", help="only profile our owners into this file")
    return run_command(lambda options: NAMES[options.wire], parser, words, measure)


if __name__ == "__main__":
    sys.exit(main())
