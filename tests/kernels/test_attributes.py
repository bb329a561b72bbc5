"""What brands and tags say is found where they say something, and is nothing where they do not."""

import numpy as np
import pytest

from kernels.attributes import (
    BRAND,
    TAG,
    Observed,
    Worn,
    effects,
    factors,
    observed,
    sizes_tried,
    sums_by_others,
)
from kernels.elasticities import Evidence, moments
from kernels.hierarchy import fit, posterior
from kernels.hyperparameters import ATTRIBUTE_LOG_MAX, ATTRIBUTE_STEP

CATEGORIES, BRANDS, ROWS = 8, 5, 600


def catalogue(seed: int, sd: float, bias: float = 0.0) -> tuple[Observed, Worn, np.ndarray]:
    """Return what is seen of listings by markups alone, their brands, and the brands' effects.

    Each listing has a tag of two as well, which says nothing.
    """
    draw = np.random.default_rng(seed)
    category = np.sort(draw.integers(0, CATEGORIES, ROWS))
    brand, tag = draw.integers(0, BRANDS, ROWS), draw.integers(0, 2, ROWS)
    of_brand = category * BRANDS + brand
    truth = draw.normal(0.0, sd, CATEGORIES * BRANDS)
    own, noise = draw.normal(0.0, 0.15, ROWS), np.full(ROWS, 0.15**2)
    off = truth[of_brand] + own + draw.normal(0.0, 0.15, ROWS)
    off += 1.6 * draw.normal(0.0, bias, len(truth))[of_brand]
    attributes = np.stack([of_brand, CATEGORIES * BRANDS + 2 * category + tag], axis=1)
    kinds = np.repeat([BRAND, TAG], [CATEGORIES * BRANDS, CATEGORIES * 2])
    places = np.concatenate(
        [np.tile(np.arange(BRANDS), CATEGORIES), np.tile(BRANDS + np.arange(2), CATEGORIES)]
    )
    spread = np.full(ROWS, np.hypot(sd, 0.15))
    return (
        Observed(off, noise, np.full(ROWS, 1.6), spread),
        Worn(category, attributes, kinds, places),
        truth,
    )


def shares(seen: Observed, worn: Worn, bias_sd: float = 0.03) -> np.ndarray:
    return effects(seen, worn, bias_sd, sizes_tried(worn))[0]


def centred(effects: np.ndarray) -> np.ndarray:
    """Return brands' effects beside their category's mean, which the table finds."""
    of = effects[: CATEGORIES * BRANDS].reshape(CATEGORIES, BRANDS)
    return np.asarray((of - of.mean(axis=1, keepdims=True)).ravel())


def missed(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(found[: len(truth)] - truth))))


@pytest.mark.parametrize("sd", [0.12, 0.3])
def test_effects_of_brands_are_found(sd: float) -> None:
    seen, worn, truth = catalogue(1, sd)
    found = shares(seen, worn)
    assert missed(centred(found), centred(truth)) < 0.55 * sd
    assert np.abs(found[len(truth) :]).max() < 0.04, "tags say nothing"


def test_names_that_tell_nothing_move_nothing() -> None:
    seen, worn, _ = catalogue(2, 0.0)
    assert (factors(shares(seen, worn)) == 1.0).all()


def test_prices_that_a_brands_managers_got_wrong_together_are_no_effect() -> None:
    """As far as markups are believed to share biases; sales have none."""
    seen, worn, truth = catalogue(3, 0.0, bias=0.12)
    biased = shares(seen, worn, 0.12)
    trusting = shares(seen, worn, 0.001)
    by_sales = shares(seen._replace(by_markup=np.zeros(ROWS)), worn, 0.12)
    assert missed(biased, truth) < 0.6 * missed(trusting, truth)
    np.testing.assert_allclose(by_sales, trusting, atol=0.01)


def test_a_listing_is_foreseen_by_others_alone() -> None:
    """What one says of its brand moves its brand's other listings, and not itself."""
    seen, worn, truth = catalogue(7, 0.3)
    size = effects(seen, worn, 0.03, sizes_tried(worn))[1]
    before = sums_by_others(seen, worn, 0.03, size)
    loud = seen._replace(off=seen.off.copy())
    loud.off[10] += 3.0
    moved = np.abs(sums_by_others(loud, worn, 0.03, size) - before)
    assert moved[10] < 1e-12
    alike = np.flatnonzero(worn.attributes[:, 0] == worn.attributes[10, 0])
    assert moved[alike].max() > 0.05
    assert missed(before, truth[worn.attributes[:, 0]]) < 0.2


def test_what_says_nothing_counts_for_nothing() -> None:
    seen, worn, _ = catalogue(4, 0.3)
    at = np.arange(0, ROWS, 2)
    mute = Observed(*(column.copy() for column in seen))
    mute.off[at], mute.noise[at] = 99.0, np.inf
    left = np.delete(np.arange(ROWS), at)
    part = Worn(worn.category[left], worn.attributes[left], worn.kinds, worn.places)
    fewer = Observed(*(column[left] for column in seen))
    np.testing.assert_allclose(shares(mute, worn), shares(fewer, part), atol=1e-9)


def test_observations_are_beliefs_without_their_prior() -> None:
    """Of a normal prior and normal sales it is exact; nothing known is nothing said."""
    centre, wide = np.full(3, -2.5), np.full(3, 0.49)
    told, sales = np.array([-3.5, -2.0, 0.0]), np.array([2.0, 8.0, 0.0])
    variance = 1.0 / (1.0 / wide + sales)
    mean = variance * (centre / wide + sales * told)
    seen = observed((mean, variance), (centre, wide), sales, 0.7)
    np.testing.assert_allclose(seen.off, [0.4, -0.2, 0.0], atol=1e-9)
    np.testing.assert_allclose(seen.noise[:2], 1.0 / (sales[:2] * 6.25))
    assert np.isinf(seen.noise[2])
    np.testing.assert_allclose(seen.by_markup, 0.0, atol=1e-9)


def test_factors_are_few_and_bounded() -> None:
    found = factors(np.linspace(-3.0, 3.0, 1_000))
    assert len(np.unique(found)) <= 2 * round(ATTRIBUTE_LOG_MAX / ATTRIBUTE_STEP) + 1
    assert found.min() == pytest.approx(np.exp(-ATTRIBUTE_LOG_MAX))
    assert found.max() == pytest.approx(np.exp(ATTRIBUTE_LOG_MAX))
    assert (factors(np.array([0.0, 0.02, -0.02])) == 1.0).all()


def told(seed: int) -> tuple[Evidence, np.ndarray, np.ndarray, np.ndarray]:
    """Return evidence on listings of one category whose halves differ, and who is steeper."""
    draw = np.random.default_rng(seed)
    steep = np.arange(200) % 2 == 0
    truth = np.where(steep, -3.4, -2.1) + draw.normal(0.0, 0.1, 200)
    slope = np.full(200, 8.0)
    found = truth + draw.normal(size=200) / np.sqrt(slope)
    evidence = Evidence(
        slope, slope * found, np.full(200, np.nan), np.zeros(200, dtype=bool), 0.0 * slope
    )
    return evidence, np.zeros(200, dtype=np.int64), steep, truth


def test_a_factor_moves_the_mean_that_a_row_is_drawn_to() -> None:
    evidence, category, steep, truth = told(5)
    factor = factors(np.where(steep, 0.27, -0.21))
    plain = fit(evidence, category, 1)
    table = fit(evidence, category, 1, factor=factor)
    assert table.configs[0].spread < plain.configs[0].spread
    known = moments(posterior(table, evidence, category, factor))[0]
    before = moments(posterior(plain, evidence, category))[0]
    assert missed(known, truth) < 0.7 * missed(before, truth)
    nothing = evidence._replace(slope=0.0 * truth, moment=0.0 * truth)
    new = moments(posterior(table, nothing, category, factor))[0]
    assert new[steep] == pytest.approx(-3.4, abs=0.25)
    assert new[~steep] == pytest.approx(-2.1, abs=0.25)


def test_factors_of_one_change_nothing() -> None:
    evidence, category, _, _ = told(6)
    ones = np.ones(len(category))
    one, none = fit(evidence, category, 1, factor=ones), fit(evidence, category, 1)
    np.testing.assert_array_equal(one.parts, none.parts)
    np.testing.assert_array_equal(
        posterior(one, evidence, category, ones), posterior(none, evidence, category)
    )
