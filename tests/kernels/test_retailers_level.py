"""What a retailer's other categories say of one of them."""

import numpy as np
import pytest

from kernels.elasticities import Evidence, Roots, mean_sd, moments, nothing_stated, off_log
from kernels.hierarchy import _by_others, fit, posterior
from kernels.hyperparameters import ELASTICITY_SPREAD, MEAN, MEANS

CATEGORIES, EACH = 6, 20


def believed(truth: float, roots: Roots | None = None, heard: int = CATEGORIES - 1) -> np.ndarray:
    """Return float64[categories], mean beliefs where only the first ``heard`` were sold.

    Each listing there was sold at prices that tell its elasticity with a precision of .4.
    """
    category = np.repeat(np.arange(CATEGORIES), EACH)
    slope = np.where(category < heard, 0.4, 0.0)
    noise = np.random.default_rng(3).normal(size=len(category))
    moment = slope * truth + np.sqrt(slope) * noise
    unmarked = np.full(len(category), np.nan)
    evidence = Evidence(slope, moment, unmarked, slope < 0.0, 0.0 * slope)
    table = fit(evidence, category, CATEGORIES, 4, roots)
    mean, _ = moments(posterior(table, evidence, category))
    return np.array([mean[category == at].mean() for at in range(CATEGORIES)])


def test_a_category_that_nobody_heard_of_is_as_steep_as_the_others() -> None:
    assert believed(-6.0)[-1] < -4.5
    assert believed(-2.6)[-1] == pytest.approx(-2.6, abs=0.25)


def test_one_other_category_says_less_than_five() -> None:
    assert believed(-6.0, heard=1)[-1] > believed(-6.0)[-1] + 0.5


def test_who_is_sure_of_his_categories_is_not_moved_by_others() -> None:
    ones = np.ones(CATEGORIES)
    sure = Roots(MEAN * ones, 0.1 * ones, 0.0 * ones)
    assert believed(-6.0, sure)[-1] == pytest.approx(MEAN, abs=0.15)


def test_what_is_thought_of_one_category_alone_is_what_the_estimates_say() -> None:
    roots = nothing_stated(1)
    prior = (np.exp(off_log())[:, None] * np.exp(roots.mean_logs()[:, 0])).sum(axis=0)
    # The grid is coarser at its steep end, so its cells are weighed by nothing: as it always was.
    alone = np.exp(-0.5 * np.square((MEANS - MEAN) / mean_sd(np.array(ELASTICITY_SPREAD))))
    elastic = MEANS < -1.2
    np.testing.assert_allclose(
        prior[elastic] / prior[elastic].sum(), alone[elastic] / alone[elastic].sum(), atol=0.02
    )


def test_others_are_weighed_as_a_sum_over_all_that_may_be() -> None:
    """Three categories by brute force: every offset with every three means."""
    draw = np.random.default_rng(5)
    told = draw.normal(0.0, 1.5, (3, 2, len(MEANS)))  # of biases and means
    mean_logs = nothing_stated(3).mean_logs()
    score, prior = _by_others(told, mean_logs)
    likely = np.exp(told).sum(axis=1)  # [categories, means]
    weights, priors = np.exp(off_log()), np.exp(mean_logs)
    joint = np.einsum(
        "o,oa,ob,oc->oabc",
        weights,
        priors[:, 0] * likely[0],
        priors[:, 1] * likely[1],
        priors[:, 2] * likely[2],
    )
    assert score == pytest.approx(np.log(joint.sum()))
    for at, axes in ((0, (0, 2, 3)), (1, (0, 1, 3)), (2, (0, 1, 2))):
        found = np.exp(prior[at]) * likely[at]
        want = joint.sum(axis=axes)
        np.testing.assert_allclose(found / found.sum(), want / want.sum(), rtol=1e-9)
