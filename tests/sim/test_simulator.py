"""A thousand worlds, and not one thing that must not happen."""

import logging
from collections import Counter

import pytest

from persistence.ports import DECISIONS
from tests.sim.campaign import run_worlds, summed
from tests.sim.heirs import LIVED
from tests.sim.kinds import REAL_EVERY, TURNS, kind_of
from tests.sim.world import simulate

SEEDS = 1_200
FIRED_MIN = 1_000


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Owners die by the thousand, loudly."""
    logging.disable(logging.CRITICAL)


def test_the_same_seed_lives_the_same_life() -> None:
    """Every byte that the decision log got, at the same moment: else a seed explains nothing."""
    lives = [
        [
            (record.appended_ms, record.value)
            for record in simulate(4).broker.partition(DECISIONS).everything
        ]
        for _ in range(2)
    ]
    assert lives[0] == lives[1]
    assert len(lives[0]) > 20


@pytest.mark.timeout(1800)
def test_no_world_breaks_a_promise() -> None:
    """At least a thousand seeds, every misfortune at least a thousand times, no violation."""
    report = summed(list(run_worlds(0, SEEDS)))
    print(f"{report.seeds} worlds, {report.faults}")
    assert report.violations == []
    assert report.seeds == SEEDS
    rare = {name: count for name, count in report.faults.items() if count < FIRED_MIN}
    assert rare == {}
    print(report.learning)
    assert [name for name in LIVED if report.learning[name] == 0] == []


def test_some_worlds_run_the_real_shard() -> None:
    """The toy is quick; what is sold is the real one, and half of it learns."""
    names = Counter(kind_of(seed).name for seed in range(SEEDS))
    share = SEEDS // REAL_EVERY // len(TURNS)
    assert names == {
        "toy": SEEDS - SEEDS // REAL_EVERY,
        "real": 2 * share,
        "learning": share,
        "evening": share,
    }
