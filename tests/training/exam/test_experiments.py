"""A small board of experiments: tests err as seldom as they say, and see what there is."""

import numpy as np
import pytest

from training.exam import experiments
from training.exam.experiments import experiment_verdicts, sit_designs, sit_sequential


def test_tests_err_seldom_and_see_effects() -> None:
    for board in sit_sequential(5, 3_000):
        assert board.false_discovery["yeast"] <= 0.06
        assert board.false_discovery["mixture"] <= 0.05
        assert board.false_discovery["peeked"] > 0.2
        assert board.power["yeast"] > 0.88
        assert board.power["yeast"] > board.power["mixture"] + 0.08
        assert board.large_half_way["mixture"] < board.large_half_way["yeast"]
        assert board.sample_ratio_false <= 0.003 and board.sample_ratio_power > 0.9


def test_a_statistic_that_forgets_how_far_it_is_fails_the_exam(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mutation is seen: without the fraction the board's goal on false discovery is missed."""

    def forgetful(estimate: np.ndarray, variance: np.ndarray, fraction: np.ndarray) -> np.ndarray:
        return np.asarray(estimate / np.sqrt(variance))

    monkeypatch.setattr(experiments, "yeast_statistic", forgetful)
    judged = dict(experiment_verdicts(sit_sequential(5, 1_000, ("normal",)), []))
    missed = [goal for goal, reached in judged.items() if not reached]
    assert any("YEAST" in goal and "false discovery" in goal for goal in missed)


def test_designs_cover_where_a_price_works_on_after_it() -> None:
    boards = sit_designs(5, 40)
    assert [board.washout_days for board in boards] == [2, 0, 2, 0]
    crossover, unwashed = boards[0], boards[1]
    assert crossover.coverage > 0.8
    # Without a wash-out the effect is under-stated: what carries over is counted for the other arm.
    assert unwashed.mean_lift < crossover.mean_lift
    assert len(experiment_verdicts([], boards)) == 4
