"""The simulator is tested, too: it must notice each defence that is gone."""

import pytest

from tests.sim.campaign import run_mutants
from tests.sim.mutants import MUTANTS, Mutant, Patch, applied


@pytest.mark.timeout(1200)
def test_every_mutant_is_killed() -> None:
    """Remove each defence, and each pair that stands in for each other; print who noticed."""
    verdicts = list(run_mutants())
    for verdict in verdicts:
        print(f"{verdict.name}: seed {verdict.seed}: {verdict.violation}")
    survivors = [verdict.name for verdict in verdicts if verdict.seed < 0]
    assert survivors == []
    assert len(verdicts) == len(MUTANTS) >= 20
    assert sum(len(mutant.patches) > 1 for mutant in MUTANTS) >= 5


def test_a_mutant_that_does_not_apply_is_an_error() -> None:
    """Otherwise a reworded line would leave its defence untested, in silence."""
    stale = Mutant("stale", (Patch("actors.reign", "no such text", ""),))
    with pytest.raises(AssertionError, match="occurs 0 times"), applied(stale):
        pass


def test_production_is_itself_again_afterwards() -> None:
    """What one mutant changed must not live on in the next."""
    from actors.gate import Gate

    before = Gate.opened.__code__
    with applied(next(mutant for mutant in MUTANTS if mutant.name == "gate")) as functions:
        assert functions == 1
        assert Gate.opened.__code__ != before
    assert Gate.opened.__code__ is before
