"""Worlds in which demand is learnt: what they live through, and what they would notice."""

import logging

import pytest

from tests.sim.heirs import TOLD
from tests.sim.kinds import EVENING, LEARNING
from tests.sim.world import simulate

SEED = 4


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Owners stop loudly."""
    logging.disable(logging.CRITICAL)


def test_days_pass_by_events_and_prices_are_learnt_through_every_misfortune() -> None:
    """One world alone has most of it; the campaign's test asks for everything."""
    world = simulate(SEED, LEARNING)
    assert world.violations == []
    seen = {name: world.notes[name] for name in TOLD}
    print(seen)
    assert seen["day turns"] >= 5
    for name in ("worlds with learning", "closes cut short", "learnt prices", "experiments told"):
        assert seen[name] > 0, name
    assert sum(count for name, count in seen.items() if name.startswith("models")) > 0


def test_the_wall_clock_turns_a_day_too() -> None:
    world = simulate(SEED, EVENING)
    assert world.violations == []
    assert world.notes["day turns"] == 1
    assert world.notes["learnt prices"] > 0


def test_a_learning_world_lives_the_same_life_again() -> None:
    lives = []
    for _ in range(2):
        world = simulate(SEED + 1, EVENING)
        lives.append([(one.seq, one.digest) for one in world.owned])
    assert lives[0] == lives[1]
    assert len(lives[0]) > 10
