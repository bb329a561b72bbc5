"""How long a shard takes for a microbatch: ``python -m perf.shard``.

One retailer, listings with a few rivals each, batches of mixed facts. Prints one line of JSON:
milliseconds of ``apply`` by batch size, of a full reprice a batch of 4,096 rows, of checkpoint
slices, bytes a listing, and what it costs to look at four fifths of the listings hourly: 4,096
offers before and after, a microbatch of a ranking, and one of the full hour.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from msgspec import structs

from engine.deltas import ListingChanged, PolicyChanged, RetailerAdded
from engine.microbatch import (
    COMPETITOR_PRICED,
    COST_CHANGED,
    STOCK_COUNTED,
    UNITS_SOLD,
    FactColumns,
    Microbatch,
)
from engine.routing import key64, name64
from engine.shard import Shard
from engine.tiers import DAY_MS, HOUR_MS
from repricer import batch_of, decide

T = TypeVar("T")
START_MS = 1_700_000_000_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--rivals", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=60)
    arguments = parser.parse_args()
    shard, keys, seconds = imported(arguments.listings)
    shard.warm()
    random = np.random.default_rng(1)
    clock = Clock(shard, START_MS + 60_000)
    for rival in range(arguments.rivals):
        for start in range(0, len(keys), 4096):
            clock.apply(offers(keys[start : start + 4096], rival, clock.now_ms, random))
    result: dict[str, object] = {
        "listings": len(keys),
        "rivals": arguments.rivals,
        "import_us_a_listing": round(seconds / len(keys) * 1e6, 1),
    }
    for size in (1, 64, 500, 2048):
        times = [
            clock.apply(mixed(keys, size, clock.now_ms, random, arguments.rivals))
            for _ in range(arguments.repeat)
        ]
        result[f"apply_{size}_ms"] = spread(times)
    policy = PolicyChanged(
        retailer="acme", scope="retailer", fields={"min_margin": 0.07}, observed_ms=clock.now_ms
    )
    result["policy_change_ms"] = round(clock.apply(batch_of([policy], after=shard)), 2)
    times = []
    while shard.backlog:
        times.append(clock.apply(batch_of([], after=shard)))
    result["reprice_4096_ms"] = spread(times)
    result.update(checkpointed(shard, len(keys)))
    result.update(hourly(clock, keys, random))
    print(json.dumps(result))


class Clock:
    """Applies batches a quarter of a second apart and measures each."""

    def __init__(self, shard: Shard, now_ms: int) -> None:
        self.shard = shard
        self.now_ms = now_ms

    def apply(self, batch: Microbatch) -> float:
        """Apply and record; return the milliseconds of ``apply``."""
        self.now_ms += 250
        batch = structs.replace(batch, last_delta=max(batch.last_delta, self.shard.last_delta))
        began = time.perf_counter()
        decided = self.shard.apply(batch, self.now_ms)
        took = (time.perf_counter() - began) * 1000.0
        self.shard.record(decided)
        return took


def told(clock: Clock, keys: np.ndarray, random: np.random.Generator) -> list[float]:
    """Tell one rival's price of every listing; return the milliseconds of each microbatch."""
    return [
        clock.apply(offers(keys[start : start + 4096], 0, clock.now_ms, random))
        for start in range(0, len(keys), 4096)
    ]


def hourly(clock: Clock, keys: np.ndarray, random: np.random.Generator) -> dict[str, object]:
    """Return what a fifth of the listings in real time and the others hourly cost."""
    shard = clock.shard
    at_once = told(clock, keys, random)
    policy = PolicyChanged(
        retailer="acme",
        scope="retailer",
        fields={"realtime_share": 0.2},
        observed_ms=clock.now_ms,
    )
    clock.apply(batch_of([policy], after=shard))
    while shard.backlog:
        clock.apply(batch_of([], after=shard))
    clock.now_ms = (clock.now_ms // DAY_MS + 1) * DAY_MS
    ranked: list[float] = []
    while not ranked or shard._memory.tiers.walk is not None:
        ranked.append(clock.apply(batch_of([], after=shard)))
    waits = told(clock, keys, random)
    clock.now_ms = (clock.now_ms // HOUR_MS + 1) * HOUR_MS
    looks = []
    while shard.due(clock.now_ms):
        looks.append(clock.apply(batch_of([], after=shard)))
    return {
        "realtime_4096_ms": spread(at_once),
        "hourly_4096_ms": spread(waits),
        "ranking_ms": spread(ranked),
        "full_hour_ms": spread(looks),
        "full_hour_microbatches": len(looks),
    }


def imported(count: int) -> tuple[Shard, np.ndarray, float]:
    """Return a shard with ``count`` listings, their keys, and the seconds it took."""
    shard = Shard()
    decide(
        shard,
        [RetailerAdded(retailer="acme", currency="EUR", mode="live", observed_ms=START_MS)],
        START_MS,
    )
    began = time.perf_counter()
    for start in range(0, count, 4096):
        decide(
            shard,
            [
                ListingChanged(
                    retailer="acme",
                    channel="shop",
                    sku=f"S{number}",
                    category=f"c{number % 20}",
                    price_minor=2000 + number % 500,
                    cost_minor=1200 + number % 300,
                    kvi=number % 5 == 0,
                    observed_ms=START_MS,
                )
                for number in range(start, min(start + 4096, count))
            ],
            START_MS + 1000,
        )
    seconds = time.perf_counter() - began
    keys = [key64("acme", "shop", f"S{number}") for number in range(count)]
    return shard, np.array(keys, dtype=np.uint64), seconds


def offers(keys: np.ndarray, rival: int, now_ms: int, random: np.random.Generator) -> Microbatch:
    """Return offers of one rival for some listings."""
    prices = random.integers(1900, 2300, len(keys))
    kinds = np.full(len(keys), COMPETITOR_PRICED)
    return block(kinds, keys, prices, np.full(len(keys), rival), now_ms)


def mixed(
    keys: np.ndarray, size: int, now_ms: int, random: np.random.Generator, rivals: int
) -> Microbatch:
    """Return facts of all kinds about listings chosen at random, most of them rivals' prices."""
    kinds = random.choice(
        [COMPETITOR_PRICED, STOCK_COUNTED, UNITS_SOLD, COST_CHANGED],
        size,
        p=[0.6, 0.2, 0.15, 0.05],
    )
    amounts = np.select(
        [kinds == COMPETITOR_PRICED, kinds == STOCK_COUNTED, kinds == UNITS_SOLD],
        [random.integers(1900, 2300, size), random.integers(1, 90, size), 1],
        random.integers(1200, 1500, size),
    )
    chosen = keys[random.integers(0, len(keys), size)]
    return block(kinds, chosen, amounts, random.integers(0, max(rivals, 1), size), now_ms)


def block(
    kinds: np.ndarray, keys: np.ndarray, amounts: np.ndarray, rivals: np.ndarray, now_ms: int
) -> Microbatch:
    """Return one block of facts as a microbatch."""
    size = len(keys)
    names = np.array([name64(f"rival {rival}") for rival in range(16)], dtype=np.uint64)
    sold = kinds == UNITS_SOLD
    sequence = now_ms * 4096 + np.arange(size)
    return Microbatch(
        runs=(
            FactColumns(
                kind=kinds.astype(np.uint8),
                listing=keys,
                amount=amounts.astype(np.int64),
                observed_ms=np.full(size, now_ms),
                rival=np.where(kinds == COMPETITOR_PRICED, names[rivals], 0).astype(np.uint64),
                shipping_minor=np.zeros(size, dtype=np.int32),
                currency=np.zeros(size, dtype=np.uint32),
                flags=np.full(size, 3, dtype=np.uint8),
                source=np.where(sold, names[0], 0).astype(np.uint64),
                source_seq=np.where(sold, sequence, -1),
                event=np.zeros(size, dtype=np.uint64),
                lane=np.ones(size, dtype=np.uint8),
                offset=np.full(size, now_ms),
                index=np.arange(size, dtype=np.int32),
            ),
        ),
        last_command=-1,
        last_delta=now_ms,
        deltas=size,
    )


def checkpointed(shard: Shard, listings: int) -> dict[str, object]:
    """Return what a checkpoint of everything costs."""
    shard.checkpoint_restart()
    times, parts = [], []
    part: bytes | None = b""
    while part is not None:
        took, part = timed(shard.checkpoint_slice)
        if part is not None:
            times.append(took)
            parts.append(part)
    closing, last = timed(shard.checkpoint_close)
    parts.append(last)
    restoring, _ = timed(lambda: Shard.restore(parts))
    return {
        "slice_2048_ms": spread(times),
        "close_ms": round(closing, 2),
        "checkpoint_bytes_a_listing": round(sum(map(len, parts)) / listings),
        "restore_ms": round(restoring, 1),
    }


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Return the milliseconds of a call, and its result."""
    began = time.perf_counter()
    result = call()
    return (time.perf_counter() - began) * 1000.0, result


def spread(times: list[float]) -> dict[str, float]:
    """Return median and 99th percentile."""
    if not times:
        return {}
    return {
        "p50": round(float(np.percentile(times, 50)), 2),
        "p99": round(float(np.percentile(times, 99)), 2),
    }


if __name__ == "__main__":
    main()
