"""Injected bugs meet the breaker; what passes stays within what the thresholds allow."""

import inspect
import json

import pytest

from engine import floors
from engine.floors import floor_minor
from perf import bugs
from perf.injected import BUGS, Bug, found, injected

FEW = ("divide_by_100", "zero_cost", "swapped_rows", "rival_off_by_1000", "nan_model")
"""One for each way to be stopped; the command runs all of them."""


def test_bugs_do_not_pass_the_breaker(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--listings", "3000", "--history-minutes", "80", "--json", "--bugs", *FEW]
    assert bugs.main(given) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["bugs"] == len(FEW)
    assert answer["violations"] == 0
    assert answer["full_reprice_wrong_share_max"] <= 0.001
    for name, met in answer["met"].items():
        for path, figures in met.items():
            # The bug was there, and somebody is told.
            assert figures["proposed_wrong"] + figures["withheld"] > 0, (name, path)
            assert figures["seen"], (name, path)
    stopped = {name: met["reprice"]["halted"] for name, met in answer["met"].items()}
    assert stopped == {name: name != "nan_model" for name in FEW}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_bug_still_applies_to_the_code(bug: Bug) -> None:
    function = found(bug.function)
    sound = function.__code__
    with injected(bug):
        assert function.__code__ is not sound
        assert found(bug.function) is function
    assert function.__code__ is sound


def test_there_are_as_many_bugs_as_promised() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 12


def test_a_bug_reaches_those_who_imported_the_function_by_name() -> None:
    bug = Bug(
        name="test",
        function="engine.floors:millionths",
        changes=(("np.rint(", "7 + np.rint("),),
        says="",
    )
    before = inspect.getsource(floors.millionths)
    with injected(bug):
        assert floors.millionths(floors.np.array([0.5])).tolist() == [500_007]
    assert floors.millionths(floors.np.array([0.5])).tolist() == [500_000]
    assert inspect.getsource(floors.millionths) == before
    assert floor_minor is floors.floor_minor


def test_a_bug_whose_text_is_gone_is_no_bug() -> None:
    gone = Bug(name="gone", function="engine.floors:millionths", changes=(("no", "yes"),), says="")
    with pytest.raises(AssertionError, match="not there exactly once"), injected(gone):
        pass


def test_the_sound_engine_trips_nothing_in_the_same_world() -> None:
    world = bugs._World(3000)
    parts = world.settled(80)
    for path in bugs.PATHS:
        run = bugs._run(world, parts, path, None)
        assert run.tripped == ()
