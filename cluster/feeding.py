"""Sends deltas into the delta lane: keyed, in order, at a chosen speed, safe to send again.

A batch in doubt is sent again: sales carry ``(source, source_seq)`` and everything else a time, so
a second copy changes nothing. What was acknowledged is written down, and an interrupted feed goes
on there.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np
from msgspec import Struct

from actors.patience import Patience
from cluster.processes import write_file
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    Fact,
    PolicyChanged,
    StockCounted,
    UnitsSold,
)
from engine.errors import AppendInDoubt, FailedDependency
from engine.microbatch import (
    COMPETITOR_PRICED,
    COST_CHANGED,
    FLAG_CONDITION_NEW,
    FLAG_IN_STOCK,
    STOCK_COUNTED,
    UNITS_SOLD,
    currency_code,
)
from engine.routing import ROUTING_SLOT, key64, name64, partition_of, routing_key
from persistence.frames import FRAME, FRAME_FACTS_MAX, FrameColumns, encode_frame
from persistence.ports import DELTAS, Appender, Log, Logs
from persistence.wire import JSON, encode_delta

Wire = Literal["json", "frames"]

BATCH_RECORDS: Final = 500
TICK_S: Final = 0.02
EVERY_SHARD: Final = "*"

Outgoing = tuple[bytes | None, bytes, str]
"""A record to append: key, value, content type."""


class Router:
    """Says where deltas go; caches, since a feed names the same listings again and again."""

    def __init__(self, partitions: int, spreads: Mapping[str, int]) -> None:
        self.partitions = partitions
        self._spreads = spreads
        self._keys: dict[tuple[str, str], tuple[str, int]] = {}
        self._listings: dict[tuple[str, str, str], int] = {}

    def listing(self, retailer: str, channel: str, sku: str) -> int:
        """Return a listing's 64-bit key."""
        name = (retailer, channel, sku)
        if name not in self._listings:
            self._listings[name] = key64(retailer, channel, sku)
        return self._listings[name]

    def of_sku(self, retailer: str, sku: str) -> tuple[str, int]:
        """Return the routing key of a SKU and its partition."""
        name = (retailer, sku)
        if name not in self._keys:
            key = routing_key(retailer, sku, self._spreads.get(retailer, 1))
            self._keys[name] = (key, partition_of(key, self.partitions))
        return self._keys[name]

    def of_delta(self, delta: AnyDelta) -> list[tuple[str, int]]:
        """Return every (key, partition) under which a delta is sent."""
        sku = getattr(delta, "sku", None)
        if sku is None and isinstance(delta, PolicyChanged) and delta.scope == "listing":
            sku = delta.key.partition("\x1f")[2]
        if sku is not None:
            return [self.of_sku(delta.retailer, sku)]
        spread = self._spreads.get(delta.retailer, 1)
        if spread == 1:
            return [(delta.retailer, partition_of(delta.retailer, self.partitions))]
        slots = (f"{delta.retailer}{ROUTING_SLOT}{slot}" for slot in range(spread))
        found = sorted({partition_of(slot, self.partitions) for slot in slots})
        return [(EVERY_SHARD, partition) for partition in found]


class Feed:
    """Open writing sessions to every partition of the delta lane."""

    def __init__(self, logs: Logs, router: Router, wire: Wire = "json") -> None:
        self.sent = 0  # deltas acknowledged
        self.records = 0
        self.bytes = 0
        self.doubts = 0
        self._logs = logs
        self._router = router
        self._wire = wire
        self._open: dict[int, Log] = {}
        self._appenders: dict[int, Appender] = {}

    async def send(self, deltas: Sequence[AnyDelta]) -> None:
        """Append deltas in order and return when all are acknowledged."""
        outgoing = self._encode(deltas)
        await asyncio.gather(
            *(self._append(partition, records) for partition, records in outgoing.items())
        )
        self.sent += len(deltas)

    async def close(self) -> None:
        """Finish every session."""
        for appender in self._appenders.values():
            await appender.close()
        for log in self._open.values():
            await log.close()

    def _encode(self, deltas: Sequence[AnyDelta]) -> dict[int, list[Outgoing]]:
        outgoing: dict[int, list[Outgoing]] = defaultdict(list)
        facts: dict[tuple[int, str, str], list[Fact]] = defaultdict(list)

        def flush() -> None:
            for (partition, key, retailer), held in facts.items():
                for begin in range(0, len(held), FRAME_FACTS_MAX):
                    block = held[begin : begin + FRAME_FACTS_MAX]
                    value = encode_frame(retailer, frame_columns(block, self._router))
                    outgoing[partition].append((key.encode(), value, FRAME))
            facts.clear()

        for delta in deltas:
            is_fact = isinstance(delta, CompetitorPriced | StockCounted | UnitsSold | CostChanged)
            if self._wire == "frames" and is_fact:
                assert isinstance(delta, CompetitorPriced | StockCounted | UnitsSold | CostChanged)
                key, partition = self._router.of_sku(delta.retailer, delta.sku)
                facts[(partition, key, delta.retailer)].append(delta)
                continue
            if facts and self._concerns(delta, facts):
                flush()  # order holds between the facts of a listing and everything else
            for key, partition in self._router.of_delta(delta):
                outgoing[partition].append((key.encode(), encode_delta(delta), JSON))
        flush()
        return outgoing

    def _concerns(
        self, delta: AnyDelta, facts: Mapping[tuple[int, str, str], Sequence[Fact]]
    ) -> bool:
        """Whether facts that still wait are of what this delta is about."""
        channel, sku = getattr(delta, "channel", None), getattr(delta, "sku", None)
        if channel is None or sku is None:
            return True
        key, partition = self._router.of_sku(delta.retailer, sku)
        waiting = facts.get((partition, key, delta.retailer), ())
        return any(fact.sku == sku and fact.channel == channel for fact in waiting)

    async def _append(self, partition: int, records: Sequence[Outgoing]) -> None:
        for begin in range(0, len(records), BATCH_RECORDS):
            await self._append_surely(partition, records[begin : begin + BATCH_RECORDS])

    async def _append_surely(self, partition: int, records: Sequence[Outgoing]) -> None:
        patience = Patience(first_ms=50, longest_ms=2000)
        while True:
            try:
                appender = await self._appender(partition)
                await appender.append_many(records)
                break
            except AppendInDoubt:
                self.doubts += 1
                self._appenders.pop(partition).abandon()
            except FailedDependency:
                self._appenders.pop(partition, None)
            await patience.wait()
        self.records += len(records)
        self.bytes += sum(len(value) for _, value, _ in records)

    async def _appender(self, partition: int) -> Appender:
        if partition not in self._open:
            self._open[partition] = await self._logs.open(DELTAS, partition)
        if partition not in self._appenders:
            self._appenders[partition] = await self._open[partition].appender()
        return self._appenders[partition]


class Pace:
    """Holds a sender to so many deltas a second, evenly; 0 is as fast as it goes."""

    def __init__(self, deltas_per_s: float) -> None:
        self._deltas_per_s = deltas_per_s
        self._began: float | None = None
        self._sent = 0

    async def take(self, deltas: int) -> None:
        """Wait until these deltas may be sent."""
        if self._deltas_per_s <= 0:
            return
        now = time.monotonic()
        if self._began is None:
            self._began = now
        ahead_s = self._sent / self._deltas_per_s - (now - self._began)
        self._sent += deltas
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)

    def batch(self, most: int) -> int:
        """Return how many deltas to send at once, so that the flow stays even."""
        if self._deltas_per_s <= 0:
            return most
        return max(1, min(most, round(self._deltas_per_s * TICK_S)))


class Bookmark(Struct, frozen=True, kw_only=True):
    """How far a feed of one file came."""

    rows: int  # in the order of time
    shift_ms: int
    done: bool = False


def bookmark_file(folder: Path, file: Path, mapping: Path, label: str) -> Path:
    """Return where the bookmark of this very content lies."""
    digest = blake2b(digest_size=12)
    for path in (file, mapping):
        with path.open("rb") as content:
            while block := content.read(2**20):
                digest.update(block)
    digest.update(label.encode())
    return folder / "feeds" / f"{file.stem}-{digest.hexdigest()}.json"


def read_bookmark(path: Path) -> Bookmark | None:
    """Return how far the feed came before, ``None`` if it never began."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(path.read_bytes(), type=Bookmark)
    return None


def write_bookmark(path: Path, bookmark: Bookmark) -> None:
    """Write down how far the feed came."""
    write_file(path, bookmark)


def frame_columns(facts: Sequence[Fact], router: Router) -> FrameColumns:
    """Return facts of one routing key as columns."""
    rivals = {"": -1}
    sources = {"": -1}
    rows = [_row(fact, router, rivals, sources) for fact in facts]
    kind, listing, amount, observed, rival, shipping, currency, flags, source, seq, event, sold = (
        zip(*rows, strict=True)
    )
    return FrameColumns(
        kind=np.array(kind, np.uint8),
        listing=np.array(listing, np.uint64),
        amount=np.array(amount, np.int64),
        observed_ms=np.array(observed, np.int64),
        rival=np.array(rival, np.int32),
        rival_names=tuple(rivals)[1:],
        shipping_minor=np.array(shipping, np.int32),
        currency=np.array(currency, np.uint32),
        flags=np.array(flags, np.uint8),
        source=np.array(source, np.int32),
        source_names=tuple(sources)[1:],
        source_seq=np.array(seq, np.int64),
        event=np.array(event, np.uint64),
        sold_minor=np.array(sold, np.int32),
    )


def _row(
    fact: Fact, router: Router, rivals: dict[str, int], sources: dict[str, int]
) -> tuple[int, ...]:
    listing = router.listing(fact.retailer, fact.channel, fact.sku)
    if isinstance(fact, CompetitorPriced):
        flags = FLAG_IN_STOCK * fact.in_stock + FLAG_CONDITION_NEW * (fact.condition == "new")
        return (
            COMPETITOR_PRICED,
            listing,
            fact.price_minor,
            fact.observed_ms,
            _index(rivals, fact.rival),
            fact.shipping_minor,
            currency_code(fact.currency) if fact.currency else 0,
            flags,
            _index(sources, fact.source or ""),
            -1,
            0,
            0,
        )
    if isinstance(fact, UnitsSold):
        seq = -1 if fact.source_seq is None else fact.source_seq
        event = name64(fact.event_id) if fact.event_id else 0
        source = _index(sources, fact.source or "")
        return (
            *(UNITS_SOLD, listing, fact.units, fact.observed_ms),
            *(-1, 0, 0, 0, source, seq, event, fact.price_minor or 0),
        )
    kind, amount = (
        (STOCK_COUNTED, fact.units)
        if isinstance(fact, StockCounted)
        else (COST_CHANGED, fact.cost_minor)
    )
    return (kind, listing, amount, fact.observed_ms, -1, 0, 0, 0, -1, -1, 0, 0)


def _index(names: dict[str, int], name: str) -> int:
    return names.setdefault(name, len(names) - 1)
