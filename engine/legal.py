"""Legal prices that lie far apart: a decision chooses between them by what they earn.

Prices of a few cents, or such as end in 99, cannot be asked as finely as they are thought out.
Where neighbours are further apart than a decision overlooks, rounding would decide: up from half of
the way, down hardly ever. So the two around the wish are compared by expected profit, and what is
remembered is the price that is truly asked: of one that lies off what was asked nobody could tell
that it is the engine's own.

Where a retailer says that his customers read prices from the left (``left_digit_bias``), demand
answers the price that they perceive: its last two digits count less than they are. Then a price
just below a round one sells as if it were much lower, and one just above it as if it were hardly
dearer than the round one. (Lacetera, Pope, Sydnor: Heuristic Thinking and Limited Attention in the
Car Market, 2012; Strulov-Shlain: More Than a Penny's Worth, 2023, who finds .15 to .25 for food.)
"""

import numpy as np

from kernels.choice import Place
from kernels.hyperparameters import COARSE_LOG, ELASTICITIES, LEFT_DIGIT_PART

SAME = 1e-6
"""Share of a price by which its logarithm may be off."""

CODE_DIGIT = 10_000
"""See ``engine.policy.ending_code``."""


def neighbours(price: np.ndarray, endings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return float64[rows] twice: the greatest legal price up to ``price``, and the least above it.

    The former is 0 where there is none.

    Args:
        price: float64[rows], in minor units.
        endings: int32[rows, endings], codes of ``engine.policy``; 0: none.
    """
    least = np.floor(price * (1.0 + SAME))
    digits, value = endings // CODE_DIGIT, endings % CODE_DIGIT
    modulus = 10.0 ** np.maximum(digits, 1)
    ends = np.where(endings > 0, least[:, None] - (least[:, None] - value) % modulus, -1.0)
    higher = np.where(endings > 0, ends + modulus, np.inf)
    asked = (endings > 0).any(axis=1)
    below = np.where(asked, np.maximum(ends, 0.0).max(axis=1, initial=0.0), least)
    above = np.where(asked, higher.min(axis=1, initial=np.inf), least + 1.0)
    return below, above


def coarse(price: np.ndarray, endings: np.ndarray) -> np.ndarray:
    """Return which rows have legal prices far apart where they are, bool[rows]."""
    below, above = neighbours(price, endings)
    return np.asarray(np.log(above / np.maximum(below, 0.5)) > COARSE_LOG)


def chosen_logs(
    wish: np.ndarray,
    dither: np.ndarray,
    unit: np.ndarray,
    endings: np.ndarray,
    belief: np.ndarray,
    place: Place,
    curvature: np.ndarray,
    cut_pull: np.ndarray,
    kink: np.ndarray,
    bias: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the anchor and the dither of rows, such that both lead to legal prices exactly.

    Where no legal price lies within the bounds, both are as they were: the rules decide there. A
    dither goes to the furthest legal price that it reaches from the wish, and nowhere else, so that
    none strays further than it may.

    Args:
        wish: float64[rows], log of the price wished for over ``unit``, float64[rows].
        belief: float64[rows, elasticities].
        bias: float64[rows], the policy's ``left_digit_bias``.
    """
    lower_minor, upper_minor = neighbours(unit * np.exp(wish), endings)
    terms = (unit, belief, place, curvature, cut_pull, kink, bias)
    anchor, best = wish, np.full(len(wish), -np.inf)
    for price in (lower_minor, upper_minor):
        at = _log(price, unit)
        earns = profit(at, *terms)
        anchor, best = np.where(earns > best, at, anchor), np.maximum(best, earns)
    if bias.any():
        # Perceived demand falls where a round price is reached: just below it may be better.
        round_minor = (
            np.floor(unit * np.exp(wish) * (1.0 + SAME) / LEFT_DIGIT_PART) * LEFT_DIGIT_PART
        )
        for edge in (round_minor, round_minor + LEFT_DIGIT_PART):
            at = _log(neighbours(edge - 1.0, endings)[0], unit)
            earns = np.where(np.abs(at - wish) <= COARSE_LOG, profit(at, *terms), -np.inf)
            better = (bias > 0.0) & (earns > best)
            anchor, best = np.where(better, at, anchor), np.where(better, earns, best)
    none = ~np.isfinite(best)
    reach = unit * np.exp(wish + dither)
    down, up = neighbours(reach, endings)
    # A reach downwards ends at the legal price above it, unless it is one itself.
    exact = np.abs(down - reach) <= SAME * reach
    to = _log(np.where((dither > 0.0) | exact, down, up), unit)
    reached = (dither != 0.0) & (np.sign(dither) * (to - wish) >= -SAME)
    reached &= np.isfinite(profit(to, *terms))
    strayed = np.where(reached, to - anchor, 0.0)
    return np.where(none, wish, anchor), np.where(none, dither, strayed)


def perceived_log(x: np.ndarray, unit: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return float64[rows], the log price that customers perceive.

    Args:
        x: float64[rows], log price over ``unit``, float64[rows], in minor units.
        bias: float64[rows], the share of the last two digits that they do not see.
    """
    price = unit * np.exp(x) * (1.0 + SAME)
    return np.asarray(x + np.log1p(-bias * (price % LEFT_DIGIT_PART) / price))


def profit(
    x: np.ndarray,
    unit: np.ndarray,
    belief: np.ndarray,
    place: Place,
    curvature: np.ndarray,
    cut_pull: np.ndarray,
    kink: np.ndarray,
    bias: np.ndarray,
) -> np.ndarray:
    """Return float64[rows], what log prices earn as expected; -inf outside of the bounds.

    As ``kernels.choice.best_of`` reckons, at one price a row, and at the one that is perceived.
    """
    seen = perceived_log(x, unit, bias) if bias.any() else x
    demand = (belief * np.exp((seen - place.filtered)[:, None] * ELASTICITIES)).sum(axis=1)
    pull = cut_pull * np.minimum(seen, 0.0) - curvature * np.square(seen) - kink * np.abs(seen)
    gain = (np.exp(x) - place.cost) * demand * np.exp(pull)
    inside = (x >= place.low - SAME) & (x <= place.high + SAME)
    return np.asarray(np.where(inside, gain, -np.inf))


def _log(price: np.ndarray, unit: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.maximum(price, 0.5) / unit))
