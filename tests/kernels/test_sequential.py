"""Sequential tests err as seldom as they promise, and each part of them is needed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels import sequential
from kernels.sequential import (
    is_harm,
    mixture_evidence,
    mixture_margin,
    normal_of_student,
    normal_quantile,
    ratio_evidence,
    ratio_evidence_path,
    student_of_normal,
    yeast_bound,
    yeast_statistic,
)

LOOKS, RUNS = 300, 4_000


def walks(effect: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return estimates [runs, looks] of an effect after each of many looks, variance, fraction."""
    draw = np.random.default_rng(seed)
    count = np.arange(1, LOOKS + 1)
    steps = draw.normal(effect, 1.0, (RUNS, LOOKS))
    return np.cumsum(steps, axis=1) / count, 1.0 / count, count / LOOKS


def crossed(effect: float, bound: float, seed: int = 1) -> float:
    estimate, variance, fraction = walks(effect, seed)
    return float((yeast_statistic(estimate, variance, fraction) >= bound).any(axis=1).mean())


def test_yeast_errs_as_seldom_as_it_says_however_often_one_looks() -> None:
    assert crossed(0.0, yeast_bound(0.05)) <= 0.055
    # The test would notice: looked at each time as if it were the end, the same sums err far more.
    estimate, variance, _ = walks(0.0, 1)
    peeked = (estimate / np.sqrt(variance) >= normal_quantile(0.95)).any(axis=1)
    assert peeked.mean() > 0.2
    assert crossed(0.0, normal_quantile(0.95)) > 0.08  # the bound without Levy's factor of two


def test_a_statistic_that_forgets_the_fraction_would_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mutation: divide by the variance so far and not by that of the end."""
    mutant = lambda estimate, variance, fraction: estimate / np.sqrt(variance)  # noqa: E731
    monkeypatch.setattr(sequential, "yeast_statistic", mutant)
    estimate, variance, fraction = walks(0.0, 1)
    said = sequential.yeast_statistic(estimate, variance, fraction) >= yeast_bound(0.05)
    assert said.any(axis=1).mean() > 0.055


def test_yeast_has_nearly_the_power_of_one_look() -> None:
    effect = 3.0 / np.sqrt(LOOKS)
    estimate, variance, _ = walks(effect, 2)
    fixed = float((estimate[:, -1] / np.sqrt(variance[-1]) >= normal_quantile(0.95)).mean())
    assert fixed - 0.04 < crossed(effect, yeast_bound(0.05), 2) < fixed


def test_harm_is_seldom_seen_where_there_is_none_and_soon_where_there_is() -> None:
    estimate, variance, _ = walks(0.0, 3)
    assert is_harm(estimate, variance, 0.3, 0.05).any(axis=1).mean() <= 0.05
    estimate, variance, _ = walks(-0.5, 4)
    found = is_harm(estimate, variance, 0.3, 0.05)
    assert found.any(axis=1).mean() > 0.99
    assert np.median(found.argmax(axis=1)) < LOOKS / 5
    better, _, _ = walks(0.5, 5)
    assert not is_harm(better[:, 20:], variance[20:], 0.3, 0.05).any()


@given(estimate=st.floats(-3, 3), variance=st.floats(1e-4, 10), tau=st.floats(0.01, 1))
def test_the_interval_is_the_test_turned_round(
    estimate: float, variance: float, tau: float
) -> None:
    """Zero lies outside of the interval exactly where the evidence against it is 1 / alpha."""
    at, of = np.array(estimate), np.array(variance)
    margin = float(mixture_margin(of, tau, 0.05))
    evidence = float(mixture_evidence(at, of, tau))
    if abs(abs(estimate) - margin) > 1e-6:
        assert (abs(estimate) > margin) == (evidence > -np.log(0.05))


@given(arms=st.lists(st.booleans(), min_size=1, max_size=60), share=st.floats(0.05, 0.95))
def test_evidence_on_shares_adds_up_along_the_way(arms: list[bool], share: float) -> None:
    path = ratio_evidence_path(np.array(arms), share)
    first = sum(arms)
    assert path[-1] == pytest.approx(ratio_evidence(first, len(arms) - first, share), abs=1e-9)


def test_shares_that_are_right_alarm_nobody_and_wrong_ones_do() -> None:
    draw = np.random.default_rng(6)
    right = ratio_evidence_path(draw.random((4_000, 500)) < 0.5, 0.5)
    assert (right >= -np.log(0.01)).any(axis=1).mean() <= 0.01
    wrong = ratio_evidence_path(draw.random((400, 2_000)) < 0.42, 0.5)
    assert (wrong >= -np.log(0.01)).any(axis=1).mean() > 0.99


@pytest.mark.parametrize(
    ("freedom", "known"), [(3, 3.182), (6, 2.447), (10, 2.228), (26, 2.056), (200, 1.972)]
)
def test_students_values_are_the_tables(freedom: int, known: float) -> None:
    assert student_of_normal(1.95996, freedom) == pytest.approx(known, rel=0.015)
    back = normal_of_student(np.array([-known, known]), freedom)
    np.testing.assert_allclose(back, [-1.95996, 1.95996], rtol=0.015)
