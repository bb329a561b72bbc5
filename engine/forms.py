"""Which form of demand each category of a retailer has, and what it means for his listings.

A listing keeps the form that its belief was found under until it decides again, though its
category's changes in between: its elasticity goes with no other form. The pooled curvature moves
with every fit; a listing of that form is foreseen with the new one at once, and gets the elasticity
that belongs to it when it decides.
"""

import numpy as np

from engine.learnt import FORM_SHIFT, RetailerLearning, sums_of
from kernels.forms import FORMS, POOLED, Shown, chosen, curvatures, leads, slopes, tried
from kernels.hyperparameters import SLOPE_MEMORY_DAYS, SUMS_MEMORY_DAYS
from kernels.whitening import Foreseen, believable

HISTORY, OWN = 0, 1
"""Parts of what is counted: at prices that others set, and at those that the engine asked."""

FORM_BITS = 3 << FORM_SHIFT


def make_room(held: RetailerLearning) -> None:
    """Let categories that are new have the pooled form, and no evidence."""
    missing = len(held.categories) - len(held.forms)
    if missing > 0:
        held.forms = held.forms + [POOLED] * missing
        room = ((0, 0), (0, 0), (0, missing))
        held.form_scores = np.pad(held.form_scores, room)
        held.form_moments = np.pad(held.form_moments, room)
        held.form_precisions = np.pad(held.form_precisions, room)
        held.form_slopes = np.pad(held.form_slopes, room)


def form_of(learnt: np.ndarray) -> np.ndarray:
    """Return int64[rows], the form that each row's belief was found under."""
    return np.asarray((learnt["flags"] & FORM_BITS) >> FORM_SHIFT, dtype=np.int64)


def take_form(held: RetailerLearning, learnt: np.ndarray, category: np.ndarray) -> None:
    """Let rows that decide take their category's form."""
    form = np.array(held.forms, dtype=np.uint8)[category]
    learnt["flags"] = (learnt["flags"] & (255 - FORM_BITS)) | (form << FORM_SHIFT)


def curvature_of(held: RetailerLearning, learnt: np.ndarray) -> np.ndarray:
    """Return float64[rows], how much each row's demand bends."""
    each = curvatures(learnt["elasticity"].astype(np.float64), held.curvature)
    return np.asarray(each[form_of(learnt), np.arange(len(learnt))])


def try_forms(held: RetailerLearning, category: np.ndarray, own: np.ndarray, shown: Shown) -> None:
    """Count what a day says of the forms, row by row in their order.

    All slices of a large retailer are foreseen with the slopes of before the day: what the first
    slice shows must not help to foresee the others.

    Args:
        own: bool[rows], which prices were the engine's.
    """
    part = np.where(own, OWN, HISTORY)
    told = tried(shown, held.form_slopes[part, :, category].T)
    count = len(held.categories)
    place = part * count + category

    def added(columns: np.ndarray) -> np.ndarray:
        of = [np.bincount(place, weights=column, minlength=2 * count) for column in columns]
        return np.stack(of).reshape(len(columns), 2, count).transpose(1, 0, 2)

    held.form_scores = held.form_scores + added(told.score)
    held.form_moments = held.form_moments + added(told.moment)
    held.form_precisions = held.form_precisions + added(told.precision)


def shown_forms(
    held: RetailerLearning,
    learnt: np.ndarray,
    foreseen: Foreseen,
    common: np.ndarray,
    units: np.ndarray,
    counts: np.ndarray,
) -> Shown:
    """Return what a period shows of demand's forms.

    A row that has not decided yet is foreseen with what is generally known, so it is told what its
    own sums say beside; of one that has, the belief says it already.

    Args:
        learnt: rows as they were before the period, but for the level.
        common: float64[rows], log of the factors by which all sold more than foreseen.
        counts: bool[rows], warm and not sold out.
    """
    sums, curvature = sums_of(held, learnt), curvature_of(held, learnt)
    elasticity = learnt["elasticity"].astype(np.float64)
    known = np.square(learnt["elasticity_sd"].astype(np.float64))
    first = learnt["turns"] == 0
    variance = np.where(first, 1.0 / (1.0 / known + sums["xx"]), known)
    moment = sums["bx"] + curvature * sums["xk"] - held.rival * sums["xc"]
    shift = np.where(first, variance * (moment - sums["xx"] * elasticity), 0.0)
    expected = foreseen.units * np.exp(common)
    return Shown(
        counts=counts,
        units=believable(units, expected, foreseen.variance, held.dispersion),
        expected=expected,
        scatter=foreseen.variance + held.dispersion,
        price=foreseen.price,
        square=foreseen.square,
        curvature=curvature,
        elasticity=elasticity + shift,
        shift=shift,
        variance=variance,
        cross=sums["xk"],
    )


def forget_forms(held: RetailerLearning) -> None:
    """Let a period pass: evidence on forms fades as that on elasticities does, and slopes stand."""
    held.form_scores = held.form_scores * np.exp(-held.period_days / SUMS_MEMORY_DAYS)
    fades = np.exp(-held.period_days / SLOPE_MEMORY_DAYS)
    held.form_moments = held.form_moments * fades
    held.form_precisions = held.form_precisions * fades
    held.form_slopes = slopes(held.form_moments, held.form_precisions)


def choose_forms(held: RetailerLearning) -> None:
    """Choose each category's form, at the curvature that the retailer has now."""
    held.forms = chosen(_leads(held), np.array(held.forms, dtype=np.int64)).tolist()


def _leads(held: RetailerLearning) -> np.ndarray:
    scores = held.form_scores[OWN]
    if held.history_trusted:
        scores = scores + held.form_scores[HISTORY]
    return leads(scores, held.curvature)


def told_forms(held: RetailerLearning) -> dict[str, dict[str, str | float]]:
    """Return each category's form, and how many nats the others are ahead of the pooled one."""
    ahead = _leads(held)
    return {
        name: {"form": FORMS[form]}
        | {FORMS[other]: float(ahead[other, at]) for other in range(len(FORMS)) if other != POOLED}
        for at, (name, form) in enumerate(zip(held.categories, held.forms, strict=False))
    }
