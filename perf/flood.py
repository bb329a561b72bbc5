"""A flood of facts in frames, in an open loop: sent when they are due, however the engine fares.

What is late is sent late and counts from the moment at which it was due (no coordinated omission):
every record remembers that moment, and the decision log says when what it holds was recorded.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from actors.patience import Patience
from cluster.assembly import make_logs
from cluster.feeding import Feed, Router
from cluster.settings import Settings
from engine.deltas import AnyDelta, ListingChanged, PolicyChanged, RetailerAdded
from engine.errors import AppendInDoubt, FailedDependency
from engine.microbatch import COMPETITOR_PRICED, FLAG_CONDITION_NEW, FLAG_IN_STOCK, STOCK_COUNTED
from engine.routing import ROUTING_SLOT, partition_of, routing_key
from perf.real_stack import EngineUnderTest, decisions
from persistence.frames import FRAME, FRAME_FACTS_MAX, FrameColumns, encode_frame
from persistence.ports import DELTAS, Appended, Log

RETAILER, CHANNEL = "store", "web"
SPREAD = 2
"""Slots of this retailer; they fall on two shards, where those of many other names fall on one."""

TICK_S = 0.02
RIVAL_NAMES = tuple(f"rival-{number}" for number in range(4))
FILL_PIECE = 5_000


def sku_of(number: int) -> str:
    """Return the SKU of one listing."""
    return f"sku-{number:06d}"


def now_ms() -> int:
    """Return unix time in milliseconds."""
    return time.time_ns() // 1_000_000


FOLLOWING: dict[str, object] = {"kvi_rival_ratio_max": 1.0, "changes_per_hour_max": 255}
"""A policy by which a key value item costs no more than its cheapest rival, however often he moves.
"""


def price_of(number: int) -> int:
    """Return the price at which a listing is imported, and around which its rivals ask."""
    return 1500 + number % 700


def catalogue(listings: int, *, following: bool = False) -> Iterator[list[AnyDelta]]:
    """Yield the retailer and his listings in pieces; ``following`` ones go where rivals go."""
    yield [
        RetailerAdded(
            retailer=RETAILER, currency="EUR", observed_ms=now_ms(), mode="live", spread=SPREAD
        )
    ]
    if following:
        yield [
            PolicyChanged(
                retailer=RETAILER, scope="retailer", fields=FOLLOWING, observed_ms=now_ms()
            )
        ]
    for first in range(0, listings, FILL_PIECE):
        yield [
            ListingChanged(
                retailer=RETAILER,
                channel=CHANNEL,
                sku=sku_of(number),
                category=f"category-{number % 50}",
                price_minor=price_of(number),
                # The markup at which the default model leaves a price about where it is. Far from
                # it a fifth of all prices would leap at once, and the breaker halt the retailer.
                cost_minor=price_of(number) * 8 // 13,
                kvi=following,
                own_rival_names=("store",) if following else None,
                observed_ms=now_ms(),
            )
            for number in range(first, min(first + FILL_PIECE, listings))
        ]


async def fill(under_test: EngineUnderTest, listings: int, *, following: bool = False) -> None:
    """Send the catalogue and wait until every listing is priced."""
    settings = under_test.settings
    logs = make_logs(settings)
    sender = Feed(logs, Router(settings.shards.count, settings.shards.spreads))
    for piece in catalogue(listings, following=following):
        await sender.send(piece)
    await sender.close()
    await logs.close()
    await under_test.until_decided()


class Sent(Struct, frozen=True):
    """One record of the flood."""

    due_ms: float  # when its facts were due, in the mean
    facts: int
    phase: int


class Slot:
    """The listings under one routing key, and the writing session to its partition."""

    def __init__(self, key: str, partition: int, listings: np.ndarray, prices: np.ndarray) -> None:
        self.key = key
        self.partition = partition
        self.listings = listings
        self.prices = prices

    def frame(self, random: np.random.Generator, count: int) -> bytes:
        """Return so many facts about listings drawn at random: rivals' prices and stock."""
        chosen = random.integers(0, len(self.listings), count)
        prices = random.random(count) < 0.85
        kind = np.where(prices, COMPETITOR_PRICED, STOCK_COUNTED).astype(np.uint8)
        amount = np.where(
            prices,
            self.prices[chosen] + random.integers(-60, 60, count),
            random.integers(1, 90, count),
        )
        nothing = np.zeros(count, dtype=np.int32)
        return encode_frame(
            RETAILER,
            FrameColumns(
                kind=kind,
                listing=self.listings[chosen],
                amount=amount.astype(np.int64),
                observed_ms=np.full(count, now_ms(), dtype=np.int64),
                rival=np.where(prices, chosen % len(RIVAL_NAMES), -1).astype(np.int32),
                rival_names=RIVAL_NAMES,
                shipping_minor=nothing,
                currency=nothing.astype(np.uint32),
                flags=np.where(prices, FLAG_IN_STOCK | FLAG_CONDITION_NEW, 0).astype(np.uint8),
                source=nothing - 1,
                source_seq=np.full(count, -1, dtype=np.int64),
                event=np.zeros(count, dtype=np.uint64),
            ),
        )


class Flood:
    """Sends facts at a rate that may be changed, and remembers when each record was due."""

    def __init__(self, settings: Settings, listings: int) -> None:
        self.sent: dict[tuple[int, int], Sent] = {}  # by partition and offset
        self.facts = 0
        self.late_ms_max = 0.0
        self.doubts = 0
        self._settings = settings
        self._slots = slots_of(settings, listings)
        self._random = np.random.default_rng(7)
        self._logs_of: dict[int, Log] = {}

    async def run(self, phases: Sequence[tuple[float, float]]) -> None:
        """Send through phases of (facts a second, seconds)."""
        logs = make_logs(self._settings)
        opened = self._logs_of = {}
        appenders: dict[int, Any] = {}
        for slot in self._slots:
            if slot.partition not in opened:
                opened[slot.partition] = await logs.open(DELTAS, slot.partition)
                appenders[slot.partition] = None
        try:
            for number, (per_s, seconds) in enumerate(phases):
                await self._phase(appenders, number, per_s, seconds)
        finally:
            for appender in filter(None, appenders.values()):
                await appender.close()
            for log in opened.values():
                await log.close()
            await logs.close()

    async def _phase(
        self, appenders: dict[int, Any], number: int, per_s: float, seconds: float
    ) -> None:
        began, began_ms = time.monotonic(), now_ms()
        due = 0
        while True:
            elapsed = min(time.monotonic() - began, seconds)
            wanted = int(elapsed * per_s)
            if wanted > due:
                first_ms = began_ms + due / per_s * 1000
                last_ms = began_ms + wanted / per_s * 1000
                await self._send(appenders, number, wanted - due, (first_ms + last_ms) / 2)
                self.late_ms_max = max(self.late_ms_max, now_ms() - first_ms)
                due = wanted
            if elapsed >= seconds:
                return
            await asyncio.sleep(TICK_S)

    async def _send(self, appenders: dict[int, Any], phase: int, count: int, due_ms: float) -> None:
        share = -(-count // len(self._slots))
        work: dict[int, list[tuple[bytes, bytes, str]]] = {}
        sizes: dict[int, list[int]] = {}
        for slot in self._slots:
            left = min(share, count)
            count -= left
            while left > 0:
                size = min(left, FRAME_FACTS_MAX)
                frame = slot.frame(self._random, size)
                work.setdefault(slot.partition, []).append((slot.key.encode(), frame, FRAME))
                sizes.setdefault(slot.partition, []).append(size)
                left -= size

        async def append(partition: int) -> None:
            done = await self._append_surely(appenders, partition, work[partition])
            for each, size in zip(done, sizes[partition], strict=True):
                self.sent[partition, each.offset] = Sent(due_ms, size, phase)
                self.facts += size

        await asyncio.gather(*(append(partition) for partition in work))

    async def _append_surely(
        self,
        appenders: dict[int, Any],
        partition: int,
        records: Sequence[tuple[bytes, bytes, str]],
    ) -> Sequence[Appended]:
        """Append, again after a doubt: facts are the newest of their kind, however often they come.

        What a doubt left in the log is decided and counted by nobody.
        """
        patience = Patience(first_ms=50, longest_ms=2000)
        while True:
            try:
                if appenders[partition] is None:
                    appenders[partition] = await self._logs_of[partition].appender()
                done: Sequence[Appended] = await appenders[partition].append_many(records)
                return done
            except AppendInDoubt:
                self.doubts += 1
                appenders[partition].abandon()
                appenders[partition] = None
            except FailedDependency:
                await patience.wait()


def slots_of(settings: Settings, listings: int) -> list[Slot]:
    """Return the slots of the retailer with their listings."""
    router = Router(settings.shards.count, settings.shards.spreads)
    spread = settings.shards.spreads.get(RETAILER, 1)
    by_key: dict[str, list[int]] = {}
    for number in range(listings):
        by_key.setdefault(routing_key(RETAILER, sku_of(number), spread), []).append(number)
    assert all(ROUTING_SLOT in key for key in by_key) or spread == 1
    return [
        Slot(
            key,
            partition_of(key, settings.shards.count),
            np.array(
                [router.listing(RETAILER, CHANNEL, sku_of(number)) for number in numbers],
                dtype=np.uint64,
            ),
            np.array([price_of(number) for number in numbers], dtype=np.int64),
        )
        for key, numbers in sorted(by_key.items())
    ]


class Recorded(Struct, frozen=True):
    """What the decision log says of a flood."""

    facts: int  # of the flood's records that were decided
    quotes: int
    decisions: int
    lost: int  # facts acknowledged and never consumed
    delays: Mapping[int, tuple[np.ndarray, np.ndarray]]  # phase -> milliseconds, facts


async def recorded(settings: Settings, sent: Mapping[tuple[int, int], Sent]) -> Recorded:
    """Read every decision log and find when each record of the flood was recorded."""
    found: dict[int, list[tuple[float, int]]] = {}
    facts = quotes = count = 0
    consumed: set[tuple[int, int]] = set()
    for shard in range(settings.shards.count):
        last = -1
        async for accepted in decisions(settings, shard):
            decided = accepted.decided
            if decided is None:
                continue
            count += 1
            hit = False
            for offset in range(last + 1, decided.last_delta + 1):
                record = sent.get((shard, offset))
                if record is not None:
                    hit = True
                    consumed.add((shard, offset))
                    facts += record.facts
                    delay = accepted.appended_ms - record.due_ms
                    found.setdefault(record.phase, []).append((delay, record.facts))
            last = max(last, decided.last_delta)
            quotes += len(decided.quotes) if hit else 0
    lost = sum(record.facts for place, record in sent.items() if place not in consumed)
    delays = {
        phase: (np.array([each[0] for each in held]), np.array([each[1] for each in held]))
        for phase, held in found.items()
    }
    return Recorded(facts, quotes, count, lost, delays)


def percentile(delays: tuple[np.ndarray, np.ndarray], share: float) -> float:
    """Return the delay below which a share of the facts lies."""
    times, facts = delays
    order = np.argsort(times)
    reached = np.cumsum(facts[order]) >= share * facts.sum()
    return float(times[order][int(np.argmax(reached))])
