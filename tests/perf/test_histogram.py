"""A percentile is never too good, and off by its bucket's width at most."""

import math
from fractions import Fraction

import numpy as np
import pytest

from perf.histogram import GROWTH, Histogram


@pytest.mark.parametrize("percent", [1, 50, 90, 99, 99.9, 100])
def test_a_percentile_is_the_nearest_rank_rounded_up_to_its_bucket(percent: float) -> None:
    times = np.random.default_rng(1).lognormal(2, 1.5, 5_000)
    histogram = Histogram()
    for each in times.tolist():
        histogram.add(each)
    rank = math.ceil(len(times) * Fraction(str(percent)) / 100)
    exact = float(np.sort(times)[rank - 1])
    found = histogram.percentile(percent)
    assert found is not None
    assert exact <= found * (1 + 1e-9)
    assert found <= exact * GROWTH * (1 + 1e-9)


def test_what_is_beyond_its_range_still_counts() -> None:
    histogram = Histogram()
    for each in (-1.0, 0.0, 5.0, 10**9):
        histogram.add(each)
    assert histogram.count == 4
    assert histogram.percentile(50) == 0.0
    assert histogram.percentiles()["max_ms"] == 10**9


def test_nothing_has_no_percentile() -> None:
    assert Histogram().percentiles() == dict.fromkeys(
        ("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms")
    )
