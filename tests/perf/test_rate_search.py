"""The search for the highest rate within a limit finds it, and believes no lucky run."""

import math
from collections.abc import Callable

import pytest

from perf.rate_search import FIRST_OF_MAXIMUM, STEP_OF_MAXIMUM, Run, bounds, found_rates, next_rate

MAXIMUM = 40_000.0


def searched(p99_ms: Callable[[int], float], limit_ms: float) -> list[Run]:
    """Return all runs that a search of an engine with such a latency makes."""
    runs = [Run(int(of * MAXIMUM), p99_ms(int(of * MAXIMUM))) for of in FIRST_OF_MAXIMUM]
    while (rate := next_rate(runs, limit_ms, MAXIMUM)) is not None:
        assert rate not in [run.per_s for run in runs], "it asks the same again"
        runs.append(Run(rate, p99_ms(rate)))
    return runs


@pytest.mark.parametrize("knee", [1_500, 9_000, 20_000, 33_000, 39_000])
def test_the_knee_is_found_within_a_step(knee: int) -> None:
    runs = searched(lambda per_s: 10.0 if per_s <= knee else 900.0, 50)
    kept, not_kept = bounds(runs, 50)
    assert not_kept is not None
    assert kept <= knee < not_kept
    assert not_kept - kept <= STEP_OF_MAXIMUM * MAXIMUM + 1
    assert len(runs) <= 8, "few runs"


def test_an_engine_that_always_keeps_the_limit_is_asked_for_its_maximum() -> None:
    runs = searched(lambda _: 12.0, 50)
    assert bounds(runs, 50) == (int(MAXIMUM), None)
    assert len(runs) == len(FIRST_OF_MAXIMUM) + 1


def test_an_engine_that_never_keeps_it_has_no_rate() -> None:
    runs = searched(lambda _: math.inf, 500)
    assert bounds(runs, 500)[0] == 0


def test_a_lucky_run_above_one_that_was_not_kept_does_not_count() -> None:
    runs = [Run(10_000, 20), Run(20_000, 80), Run(30_000, 30), Run(32_000, math.inf)]
    assert bounds(runs, 50) == (10_000, 20_000)
    assert bounds(runs, 100) == (30_000, 32_000)


def test_what_is_told_is_a_share_of_the_own_maximum() -> None:
    runs = [Run(32_000, 45.0), Run(38_000, math.inf), Run(35_000, 300.0)]
    found = found_rates(runs, (50, 500), MAXIMUM)
    assert found["highest_per_s_with_p99_ms"] == {"50": 32_000, "500": 35_000}
    assert found["highest_of_maximum"] == {"50": 0.8, "500": 0.875}
    assert found["p99_ms_at_of_maximum"] == {"0.8": 45.0, "0.95": None}
    assert found["loaded"] == {"of_maximum": 0.8, "p99_ms": 45.0, "probes_lost": 0}


def test_a_load_that_lost_a_probe_has_no_p99_and_says_so() -> None:
    """Null is not measured, so the count has a gate of its own."""
    found = found_rates([Run(32_000, math.inf, 2), Run(38_000, math.inf, 9)], (50,), MAXIMUM)
    assert found["loaded"] == {"of_maximum": 0.8, "p99_ms": None, "probes_lost": 2}
