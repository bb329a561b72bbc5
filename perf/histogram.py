"""A histogram of log-spaced buckets: any range, bounded memory, a known relative error.

Like HdrHistogram, without the dependency: buckets are 1 % wide from a microsecond to a minute, so
a percentile is off by at most 1 %, and it is told as its bucket's upper edge, never too good.
"""

import math
from fractions import Fraction

import numpy as np

LEAST_MS = 0.001
MOST_MS = 60_000.0
GROWTH = 1.01
BUCKETS = math.ceil(math.log(MOST_MS / LEAST_MS) / math.log(GROWTH)) + 2

PERCENTILES = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p99_9_ms": 99.9}


class Histogram:
    """Times in milliseconds."""

    def __init__(self) -> None:
        self.count = 0
        self.largest_ms = 0.0
        self._buckets = np.zeros(BUCKETS, np.int64)

    def add(self, ms: float) -> None:
        """Count one time; two clocks of one machine may make it slightly negative."""
        place = 0
        if ms > LEAST_MS:
            place = min(math.ceil(math.log(ms / LEAST_MS) / math.log(GROWTH)), BUCKETS - 1)
        self._buckets[place] += 1
        self.count += 1
        self.largest_ms = max(self.largest_ms, ms)

    def percentile(self, percent: float) -> float | None:
        """Return the time that so many percent did not exceed; ``None`` when there is none."""
        if self.count == 0:
            return None
        rank = max(math.ceil(self.count * Fraction(str(percent)) / 100), 1)
        place = int(np.searchsorted(np.cumsum(self._buckets), rank))
        return min(LEAST_MS * GROWTH**place, self.largest_ms) if place else 0.0

    def percentiles(self) -> dict[str, float | None]:
        """Return those that are reported, and the largest."""
        found = {name: self.percentile(percent) for name, percent in PERCENTILES.items()}
        rounded = {name: None if ms is None else round(ms, 2) for name, ms in found.items()}
        return rounded | {"max_ms": round(self.largest_ms, 2) if self.count else None}
