"""What brands and tags say of elasticities inside their categories: ridge effects, in float64.

A listing's elasticity is its category's mean times ``1 + sum of its attributes' effects``, and what
is its own beside. What its sales and its markup say is an observation of that with noise; effects
are drawn to nothing as far as attributes are found to matter, which is weighed by the marginal
likelihood of all categories together, for brands and for tags apart.

Whoever prices a brand too dear prices all of it so: as far as an observation rests on markups, a
bias that the attribute's listings share lies beside its effect, and is estimated with it. Without
it a brand of dear prices would be taken for one of loyal customers.

All sums run in a fixed order and use no library of linear algebra: they are the same on any number
of threads.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from kernels.hyperparameters import (
    ATTRIBUTE_LOG_MAX,
    ATTRIBUTE_PARTS,
    ATTRIBUTE_SDS,
    ATTRIBUTE_STEP,
    MEAN,
    MEAN_SD,
    TOLD_LEAST,
)

BRAND, TAG = 0, 1
"""Kinds of attributes: each has a size of effects of its own."""


class Effects(NamedTuple):
    """What a retailer's attributes say: shares by which they make elasticities steeper."""

    names: np.ndarray  # uint64[attributes], ascending
    shares: np.ndarray  # float64[attributes]


NO_EFFECTS = Effects(np.zeros(0, dtype=np.uint64), np.zeros(0))


class Observed(NamedTuple):
    """What some listings' sales and markups say of their elasticities, [rows] each.

    Everything is a share of the category's mean.
    """

    off: np.ndarray  # how far above the mean, in size: .1 is a tenth steeper
    noise: np.ndarray  # its variance; infinite: nothing is said
    by_markup: np.ndarray  # how far a bias in log price would shift it
    spread: np.ndarray  # of listings around it


class Worn(NamedTuple):
    """Which attributes some listings have."""

    category: np.ndarray  # int64[rows]
    attributes: np.ndarray  # int64[rows, most of a listing], -1: none
    kinds: np.ndarray  # int64[attributes]: BRAND or TAG
    places: np.ndarray  # int64[attributes], each one's among those of its category


def observed(
    belief: tuple[np.ndarray, np.ndarray],
    prior: tuple[np.ndarray, np.ndarray],
    sales: np.ndarray,
    spread: float,
) -> Observed:
    """Return what listings say without the prior that is in their beliefs, as if all were normal.

    Args:
        belief: mean and variance, float64[rows] each, of what is believed of elasticities.
        prior: of what would be believed of them if nothing were known of them alone.
        sales: float64[rows], precision that sales gave.
        spread: of elasticities in a category, as they are.
    """
    (mean, variance), (centre, wide) = belief, prior
    precision = 1.0 / variance - 1.0 / wide
    told = precision > TOLD_LEAST
    safe = np.where(told, precision, 1.0)
    found = (mean / variance - centre / wide) / safe
    share = np.clip(1.0 - sales / safe, 0.0, 1.0)
    return Observed(
        np.where(told, found / centre - 1.0, 0.0),
        np.where(told, 1.0 / (safe * np.square(centre)), np.inf),
        np.where(told, share * np.abs(1.0 + centre), 0.0),
        spread / np.abs(centre),
    )


Sizes = tuple[float, float]
"""Standard deviations of brands' effects and of tags', as shares."""


def sizes_tried(worn: Worn) -> list[Sizes]:
    """Return the sizes between which sales and markups choose."""
    return list(product(ATTRIBUTE_SDS, ATTRIBUTE_SDS if (worn.kinds == TAG).any() else (0.0,)))


def effects(
    seen: Observed, worn: Worn, bias_sd: float, sizes: Sequence[Sizes]
) -> tuple[np.ndarray, Sizes]:
    """Return float64[attributes], what each adds to its listings' elasticities, as a share.

    It is the mean over ``sizes``, each by its likelihood; the likeliest is returned, too.

    Args:
        bias_sd: of an attribute's managers, in log price.
    """
    rows = len(worn.category)
    if not len(worn.kinds):
        return np.zeros(0), sizes[0]
    has = worn.attributes >= 0
    place = np.where(has, worn.places[worn.attributes], 0)
    apart = int(worn.places.max()) + 1
    # A column for the mean, one an attribute, and one a bias that its prices share.
    column = np.concatenate(
        [np.zeros((rows, 1), dtype=np.int64), 1 + place, 1 + apart + place], axis=1
    )
    value = np.concatenate(
        [np.ones((rows, 1)), has, has * seen.by_markup[:, None]], axis=1, dtype=np.float64
    )
    width, categories = 1 + 2 * apart, int(worn.category.max()) + 1
    of = _categories_of(worn, categories)
    kinds = np.zeros((categories, apart), dtype=np.int64)
    kinds[of, worn.places] = worn.kinds
    logs, found = [], []
    for sds in sizes:
        # The spread was found without attributes, so what they explain is no part of what is left.
        left = np.maximum(
            np.square(seen.spread) - sum(np.square(sds)), np.square(seen.spread) / 4.0
        )
        weight = 1.0 / (left + seen.noise)
        scale = np.ones((categories, width))
        scale[:, 0] = MEAN_SD / abs(MEAN)
        scale[:, 1 : 1 + apart] = np.array(sds)[kinds]
        scale[:, 1 + apart :] = bias_sd
        scaled = value * scale[worn.category[:, None], column]
        log, solved = _ridge(worn.category, column, scaled, weight, seen.off, (categories, width))
        logs.append(log)
        found.append((solved * scale)[of, 1 + worn.places])
    weights = np.exp(np.array(logs) - max(logs))
    shares = (np.stack(found) * (weights / weights.sum())[:, None]).sum(axis=0)
    return shares, sizes[int(weights.argmax())]


def sums_by_others(seen: Observed, worn: Worn, bias_sd: float, size: Sizes) -> np.ndarray:
    """Return float64[rows], each listing's effects added up, as listings beside it say they are.

    A spread that is found around what a listing itself has helped to say is too small, and beliefs
    of it are too sure. So every fourth listing is foreseen by the others, and these by it.
    """
    found, rows = np.zeros(len(worn.category)), np.arange(len(worn.category))
    for part in range(ATTRIBUTE_PARTS):
        mine = rows % ATTRIBUTE_PARTS == part
        others = seen._replace(noise=np.where(mine, np.inf, seen.noise))
        said, _ = effects(others, worn, bias_sd, [size])
        found[mine] = added(said, worn.attributes[mine])
    return found


def added(shares: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """Return float64[rows], the sums of the shares that rows' attributes have; -1: none."""
    if not len(shares):
        return np.zeros(len(attributes))
    return np.asarray(np.where(attributes >= 0, shares[attributes], 0.0).sum(axis=1))


def _categories_of(worn: Worn, categories: int) -> np.ndarray:
    """Return int64[attributes], the category of each."""
    of = np.zeros(len(worn.kinds), dtype=np.int64)
    at, _ = np.nonzero(worn.attributes >= 0)
    of[worn.attributes[worn.attributes >= 0]] = worn.category[at]
    return of


def _ridge(
    category: np.ndarray,
    column: np.ndarray,
    value: np.ndarray,
    weight: np.ndarray,
    off: np.ndarray,
    shape: tuple[int, int],
) -> tuple[float, np.ndarray]:
    """Return the log evidence of a regression a category, and its coefficients.

    Coefficients are standard normal beforehand.

    Args:
        column: int64[rows, terms], at which column of the category each term stands.
        value: float64[rows, terms].
        weight: float64[rows], 1 over the variance of what is left.
        shape: categories, columns.
    """
    categories, width = shape
    first = category[:, None] * width + column
    pairs = first[:, :, None] * width + column[:, None, :]
    weighed = (value * weight[:, None])[:, :, None] * value[:, None, :]
    square = np.bincount(pairs.ravel(), weighed.ravel(), categories * width * width)
    matrix: np.ndarray = square.reshape(categories, width, width) + np.eye(width)
    moment = (value * (weight * off)[:, None]).ravel()
    right: np.ndarray = np.bincount(first.ravel(), moment, categories * width).reshape(
        categories, width
    )
    # Of rows that say nothing the weight is 0, and they are left out of the likelihood.
    told = weight > 0.0
    log = 0.5 * (np.log(weight[told]) - weight[told] * np.square(off[told])).sum()
    for at in range(width):
        pivot = matrix[:, at, at]
        factor = matrix[:, at + 1 :, at] / pivot[:, None]
        matrix[:, at + 1 :, at + 1 :] -= factor[:, :, None] * matrix[:, None, at, at + 1 :]
        right[:, at + 1 :] -= factor * right[:, None, at]
        log += 0.5 * (np.square(right[:, at]) / pivot - np.log(pivot)).sum()
    solved = np.zeros((categories, width))
    for at in reversed(range(width)):
        rest = (matrix[:, at, at + 1 :] * solved[:, at + 1 :]).sum(axis=1)
        solved[:, at] = (right[:, at] - rest) / matrix[:, at, at]
    return float(log), solved


def factors(sums: np.ndarray) -> np.ndarray:
    """Return float64[rows], factors on means, in few steps: listings of one are priced together.

    Args:
        sums: float64[rows], each listing's effects added up.
    """
    log = np.log(np.maximum(1.0 + sums, 0.1))
    steps = np.rint(np.clip(log, -ATTRIBUTE_LOG_MAX, ATTRIBUTE_LOG_MAX) / ATTRIBUTE_STEP)
    return np.asarray(np.exp(ATTRIBUTE_STEP * steps))
