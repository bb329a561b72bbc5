"""An owner that hangs is found; one whose seals fall in doubt again and again does not hang."""

import gc
import logging
from random import Random

import pytest

from persistence.decision_records import DECIDED
from persistence.ports import DECISIONS
from tests.sim.checkers import judge
from tests.sim.faults import Faults
from tests.sim.kinds import kind_of
from tests.sim.loop import SimLoop
from tests.sim.mutants import MUTANTS, applied
from tests.sim.world import BASE_MS, HUNG_S, TOY, World, simulate

LONG_IN_DOUBT = 18697
"""The seed of twenty thousand whose owner had nine seals in a row in doubt."""


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Owners stop loudly."""
    logging.disable(logging.CRITICAL)


class OneFate(Faults):
    """The same misfortune whenever it can strike, as long as the storm lasts, and no other."""

    def __init__(self, random: Random, fate: str) -> None:
        super().__init__(random)
        self._fate = fate

    def strikes(self, name: str) -> bool:
        return False

    def one_of(self, names: tuple[str, ...]) -> str:
        if self.calm or self._fate not in names:
            return ""
        self.counts[self._fate] += 1
        return self._fate

    def planned(self) -> list[str]:
        return []


def lived(fate: str) -> World:
    """Let a world live in which one fate strikes, and judge it."""

    def faults(random: Random, loop: SimLoop) -> Faults:
        return OneFate(random, fate)

    gc.disable()
    try:
        world = World(3, TOY, faults=faults)
        world.live()
        judge(world)
        return world
    finally:
        gc.enable()


@pytest.mark.parametrize("way", ["present", "absent", "late"])
def test_seals_in_doubt_for_a_whole_storm_are_no_hang(way: str) -> None:
    """The first owner decides nothing for longer than a hung one may, and is not blamed."""
    world = lived(f"seal_in_doubt_{way}")
    assert world.violations == []
    assert world.faults.counts[f"seal_in_doubt_{way}"] >= 9
    decided_ms = [
        record.appended_ms
        for record in world.broker.partition(DECISIONS).everything
        if record.value[9] == DECIDED
    ]
    assert decided_ms[0] - BASE_MS > HUNG_S * 1000
    assert len(world.owners) == 1


@pytest.mark.parametrize(
    ("mutant_name", "fate", "phase"),
    [
        ("abandon, never flush, in a seal", "seal_in_doubt_absent", "sealing"),
        ("abandon, never flush", "append_in_doubt_absent", "live"),
    ],
)
def test_who_hangs_in_a_doubt_is_found(mutant_name: str, fate: str, phase: str) -> None:
    """A seal in doubt excuses silence for a while, never for ever."""
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == mutant_name)
    with applied(mutant):
        world = lived(fate)
    assert world.faults.counts[fate] == 1
    assert world.violations[0] == f"<owner-0> hangs in phase {phase}"


def test_the_world_that_was_long_in_doubt_ends_well() -> None:
    """A campaign of twenty thousand worlds took its owner for hung."""
    world = simulate(LONG_IN_DOUBT, kind_of(LONG_IN_DOUBT))
    assert world.violations == []
