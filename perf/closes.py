"""How long learning's microbatches are: ``python -m perf.closes --listings 100000``.

One retailer with all listings of a shard. Prints one line of JSON: the processor seconds of the
longest microbatches after learning was switched on, and of each day's close, fits of his table
among them. An owner that takes longer for one than
``supervisor.silence_ms`` is replaced, so what counts is the longest and not the mean.
"""

import argparse
import json
import resource
import time
from typing import Any

import numpy as np
from msgspec import structs

from engine import learning
from engine.deltas import PolicyChanged
from engine.microbatch import UNITS_SOLD, Microbatch
from engine.shard import Shard
from perf.filled import PIECE, RETAILER, filled, keys_of
from perf.measuring import Progress
from perf.shard import START_MS, block
from repricer import batch_of

DAY_MS = 86_400_000
APART_MS = 250
"""From one microbatch to the next: an owner's heartbeat."""

SOLD_A_DAY = 1.0
"""Units of each listing, on average."""

SEED = 2

LONGEST = 3
"""So many of the longest microbatches are told."""


class Stopwatch:
    """Applies microbatches as an owner at rest does and keeps the processor seconds of each."""

    def __init__(self, shard: Shard, now_ms: int) -> None:
        self.shard = shard
        self.now_ms = now_ms
        self._took: list[float] = []

    def apply(self, batch: Microbatch) -> None:
        """Apply and record."""
        self.now_ms += APART_MS
        batch = structs.replace(batch, last_delta=max(batch.last_delta, self.shard.last_delta))
        began = time.process_time()
        decided = self.shard.apply(batch, self.now_ms)
        self._took.append(time.process_time() - began)
        self.shard.record(decided)

    def settle(self) -> dict[str, Any]:
        """Go on until nothing waits, and return what the microbatches since the last time took."""
        while self.shard.backlog:
            self.apply(batch_of([], after=self.shard))
        took, self._took = self._took, []
        longest = [round(each, 3) for each in sorted(took, reverse=True)[:LONGEST]]
        return {"microbatches": len(took), "longest_s": longest, "all_s": round(sum(took), 2)}


def sold(keys: np.ndarray, now_ms: int, random: np.random.Generator) -> Microbatch:
    """Return a day's sales of some listings, about one each."""
    size = len(keys)
    kinds, none = np.full(size, UNITS_SOLD), np.zeros(size, dtype=np.int64)
    return block(kinds, keys, random.poisson(SOLD_A_DAY, size), none, now_ms)


def measured(listings: int, days: int, say: Progress) -> dict[str, Any]:
    """Return what was measured."""
    shard, began = filled(listings, say)
    shard.warm()
    learning.warm()
    clock = Stopwatch(shard, began.now_ms)
    random = np.random.default_rng(SEED)
    keys = keys_of(listings)
    result: dict[str, Any] = {"listings": listings, "after_filling": clock.settle()}
    on = PolicyChanged(
        retailer=RETAILER, scope="retailer", fields={"learning": True}, observed_ms=START_MS
    )
    clock.apply(batch_of([on], after=shard))
    result["switched_on"] = clock.settle()
    say(f"switched on: {result['switched_on']}")
    closes = []
    for day in range(days):
        for first in range(0, listings, PIECE):
            clock.apply(sold(keys[first : first + PIECE], clock.now_ms, random))
        clock.settle()
        clock.now_ms = (clock.now_ms // DAY_MS + 1) * DAY_MS
        clock.apply(batch_of([], after=shard))
        closes.append(clock.settle())
        say(f"day {day}: {closes[-1]}")
    result["closes"] = closes
    result["resident_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=8)
    options = parser.parse_args()
    print(json.dumps(measured(options.listings, options.days, Progress("closes"))))


if __name__ == "__main__":
    main()
