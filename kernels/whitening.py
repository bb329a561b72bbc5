"""Price surprise against sales surprise: a day's sales into a listing's sufficient statistics.

One local-level filter a row filters log sales, log price, its square and the rival's log price with
the *same* gain. What the filter did not foresee of each is an innovation, and elasticity is the
regression of innovations on innovations: whatever moves slowly (a season, a trend, a shock that
lasts) is in the level of both and drops out. Nine sums a row are all that is remembered.

Demand of a day, in logs: ``level + e (x - m_x) - kappa (x^2 - m_xx) + gamma (c - m_c) + factor``,
where ``x = log(price / reference)`` and ``c = log(rival / reference)``.

Everything is a pure function of arrays, in float64; ``engine.learning`` keeps float32.
"""

from typing import NamedTuple

import numpy as np

from kernels.hyperparameters import (
    FACTOR_DAYS,
    FACTOR_MAX,
    LEVEL_SD,
    PSEUDO_UNITS,
    SURPRISE_SD_MAX,
    WARM_DAYS,
)

SUMS = ("xx", "xk", "xc", "kk", "kc", "cc", "bx", "bk", "bc")
"""Cross sums of innovations of price (x), its square (k), rival (c) and sales (b)."""


LEADS = 5
"""Sums of the lead test: of today's price innovation (a), yesterday's surprise (u) and yesterday's
price innovation (b), the products au, ab, bu, bb and the square of au."""


def lead_score(sums: np.ndarray) -> float:
    """Return how many standard deviations prices follow yesterday's unexplained demand.

    A slope that is foreseen wrongly puts yesterday's price into yesterday's surprise, and prices
    last for days; so what yesterday's price explains of the surprise is taken out first.
    """
    au, ab, bu, bb, square = (float(of) for of in sums)
    off = ab * bu / bb if bb > 0.0 else 0.0
    return (au - off) / float(np.sqrt(max(square, 1e-9)))


class Belief(NamedTuple):
    """What is foreseen with: float64[rows], but for what is the same for all."""

    elasticity: np.ndarray
    curvature: float | np.ndarray
    rival: float | np.ndarray
    dispersion: float | np.ndarray  # 1/k of the negative binomial


class Seen(NamedTuple):
    """What is known of a day, [rows] each."""

    units: np.ndarray
    price_log: np.ndarray  # against the reference price
    rival_log: np.ndarray  # NaN: none
    sold_out: np.ndarray  # bool: more might have been sold
    absent: np.ndarray  # bool: could not be bought at all, or nothing is known


class Level(NamedTuple):
    """The filter's state, float64[rows] each."""

    days: np.ndarray  # how many were seen
    level: np.ndarray
    variance: np.ndarray
    price: np.ndarray
    square: np.ndarray
    rival: np.ndarray
    unexplained: np.ndarray  # yesterday's surprise, in standard deviations
    moved: np.ndarray  # and yesterday's price innovation on the same scale


class Foreseen(NamedTuple):
    """What a day was expected to bring, float64[rows] each."""

    units: np.ndarray
    variance: np.ndarray  # of the level, a day further
    price: np.ndarray  # innovations
    square: np.ndarray
    rival: np.ndarray


class Whitened(NamedTuple):
    """What a day has taught."""

    level: Level
    sums: dict[str, np.ndarray]  # what to add
    lead: np.ndarray  # [5, rows]: see LEADS
    moments: np.ndarray  # [2, rows]: for the dispersion


def foresee(
    level: Level,
    belief: Belief,
    seen: Seen,
    days: float = 1.0,
    level_sd: float | np.ndarray = LEVEL_SD,
) -> Foreseen:
    """Return what price and rival would have sold in so many days, before any common factor.

    Args:
        level_sd: how far levels move in a day.
    """
    warm = level.days >= WARM_DAYS
    variance = level.variance + np.where(level.days > 0, np.square(level_sd) * days, 0.0)
    first = level.days <= 0
    price = np.where(first, 0.0, seen.price_log - level.price)
    square = np.where(first, 0.0, np.square(seen.price_log) - level.square)
    known = np.isfinite(seen.rival_log)
    rival = np.where(known & ~np.isnan(level.rival) & ~first, seen.rival_log - level.rival, 0.0)
    rival = np.where(np.isfinite(rival), rival, 0.0)
    moved = belief.elasticity * price - belief.curvature * square + belief.rival * rival
    moved = np.where(warm, moved, np.clip(moved, -1.0, 1.0))
    units = days * np.exp(np.clip(level.level + moved, -12.0, 16.0))
    return Foreseen(units, variance, price, square, rival)


def totals(
    units: np.ndarray,
    foreseen: Foreseen,
    dispersion: float,
    counted: np.ndarray,
    part: np.ndarray,
    parts: int,
) -> np.ndarray:
    """Return float64[3, parts]: units sold, units foreseen, and the latter's extra variance.

    Sums run in the order of the rows.
    """
    columns = _counted(units, foreseen, dispersion, counted)
    return np.stack([np.bincount(part, weights=column, minlength=parts) for column in columns])


def factor(
    total: np.ndarray,
    units: np.ndarray,
    foreseen: Foreseen,
    dispersion: float,
    counted: np.ndarray,
    scale: np.ndarray,
    spread: float,
) -> np.ndarray:
    """Return float64[rows], the log by which all *other* rows sold more than foreseen.

    A row never explains itself away: it is left out of its own factor, and the factor shrinks by
    what it can be known from the others.

    Args:
        total: float64[3, rows], :func:`totals` of each row's part.
        scale: float64[rows], a factor that is known already.
    """
    mine = _counted(units, foreseen, dispersion, counted)
    sold, expected, extra = (
        np.maximum(column - own, 0.0) for column, own in zip(total, mine, strict=True)
    )
    expected, extra = expected * np.exp(scale), extra * np.exp(2.0 * scale)
    ratio = np.log((sold + PSEUDO_UNITS) / (expected + PSEUDO_UNITS))
    uncertain = (expected + extra) / np.square(expected + PSEUDO_UNITS)
    shrunk = spread**2 / (spread**2 + uncertain)
    return np.asarray(np.where(expected > 1e-6, ratio * shrunk, 0.0))


def _counted(
    units: np.ndarray, foreseen: Foreseen, dispersion: float, counted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weight = counted.astype(np.float64)
    expected = foreseen.units * weight
    extra = np.square(expected) * (dispersion + foreseen.variance)
    return units * weight, expected, extra


def learn(
    level: Level,
    belief: Belief,
    seen: Seen,
    foreseen: Foreseen,
    factor: np.ndarray,
    days: float = 1.0,
) -> Whitened:
    """Return the level after a day (or so many), and what it adds to the sums."""
    expected = foreseen.units * np.exp(factor)
    noise = _noise(expected, belief.dispersion)
    total = foreseen.variance + noise
    surprise = (seen.units - expected) / np.maximum(expected, 1e-6)
    limit = _surprise_max(total)
    surprise = np.clip(surprise, -1.0, limit)
    # What sold out might have sold more: only a good surprise counts.
    surprise = np.where(seen.sold_out, np.maximum(surprise, 0.0), surprise)
    lost = seen.absent
    warm = level.days >= WARM_DAYS
    gain = np.where(warm, foreseen.variance / total, 1.0 / (level.days + 1.0))
    moved = (
        belief.elasticity * foreseen.price
        - belief.curvature * foreseen.square
        + belief.rival * foreseen.rival
    )
    sales = surprise + moved
    kept = np.where(lost, 0.0, 1.0)
    after = _step(level, seen, foreseen, factor, gain, sales, noise, kept, days)
    weight = np.where(lost | (level.days < 2), 0.0, 1.0 / total)
    innovations = {"x": foreseen.price, "k": foreseen.square, "c": foreseen.rival, "b": sales}
    sums = {name: innovations[name[0]] * innovations[name[1]] * weight for name in SUMS}
    unexplained = np.where(lost, 0.0, surprise / np.sqrt(total))
    led = weight > 0.0
    price = np.where(led, foreseen.price, 0.0)
    before, surprised = level.moved, level.unexplained
    lead = np.stack(
        [
            price * surprised,
            price * before,
            before * surprised * led,
            np.square(before) * led,
            np.square(price * surprised),
        ]
    )
    square = np.square(seen.units - expected)
    square = np.minimum(square, np.square(limit * expected))
    trust = kept * warm / (1.0 + np.square(expected))
    moments = np.stack(
        [
            (square - expected - np.square(expected) * foreseen.variance) * trust,
            np.square(expected) * trust,
        ]
    )
    moved_now = np.where(lost, 0.0, foreseen.price / np.sqrt(total))
    after = after._replace(unexplained=unexplained, moved=moved_now)
    return Whitened(after, sums, lead, moments)


def believable(
    units: np.ndarray, expected: np.ndarray, variance: np.ndarray, dispersion: float
) -> np.ndarray:
    """Return float64[rows], units sold, no more than :func:`learn` believes of a surprise."""
    limit = _surprise_max(variance + _noise(expected, dispersion))
    return np.asarray(np.minimum(units, expected * (1.0 + limit)))


def _noise(expected: np.ndarray, dispersion: float | np.ndarray) -> np.ndarray:
    """Return the variance of a day's log sales at a known level: of counting, and of scatter."""
    return np.asarray(1.0 / np.maximum(expected, 1e-6) + dispersion)


def _surprise_max(variance: np.ndarray) -> np.ndarray:
    """Return how large a good surprise counts at most, as a share of what was expected."""
    return np.asarray(SURPRISE_SD_MAX * np.sqrt(variance))


def _step(
    level: Level,
    seen: Seen,
    foreseen: Foreseen,
    factor: np.ndarray,
    gain: np.ndarray,
    sales: np.ndarray,
    noise: np.ndarray,
    kept: np.ndarray,
    days: float,
) -> Level:
    warm = level.days >= WARM_DAYS
    # A young level is a running mean of units, which few sales cannot overshoot.
    mean = np.exp(level.level) * (level.days > 0)
    moved = foreseen.units / np.maximum(np.exp(np.clip(level.level, -12, 16)), 1e-9)
    adjusted = seen.units / np.exp(factor) / np.where(level.days > 0, moved, days)
    # A shelf that ran empty might have sold more.
    adjusted = np.where(seen.sold_out, np.maximum(adjusted, mean), adjusted)
    mean = mean + gain * (adjusted - mean)
    # Half a unit stands behind a mean of nothing.
    young = np.log(np.maximum(mean, 0.5 / (level.days + 3.0)))
    # The level follows the filtered price, which this day moves on.
    young = young + np.where(level.days > 0, gain * np.log(np.maximum(moved / days, 1e-9)), 0.0)
    # A surprise is a ratio, and convex in the level's error: with none on average it is half its
    # variance. All of a shop's levels would drift by that, for their day's factor takes out what
    # holds them together. So they follow the factor slowly, too (docs/decisions/0108).
    excess = np.where(seen.sold_out, 0.0, foreseen.variance / 2.0)
    together = np.clip(factor, -FACTOR_MAX, FACTOR_MAX) * min(days / FACTOR_DAYS, 1.0)
    filtered = level.level + gain * (sales - excess) + together
    after = np.where(warm, filtered, young)
    seen_days = level.days + kept
    young_variance = (1.0 / np.maximum(np.exp(young), 1e-6) + noise) / np.maximum(seen_days, 1.0)
    young_variance = np.minimum(young_variance, 4.0) + LEVEL_SD**2
    variance = np.where(warm, (1.0 - gain) * foreseen.variance, young_variance)
    lost = kept == 0.0
    first = level.days <= 0
    rival = np.where(np.isfinite(level.rival) & ~first, level.rival, seen.rival_log)
    return Level(
        days=seen_days,
        level=np.where(lost, level.level, np.clip(after, -12.0, 16.0)),
        variance=np.where(lost, np.minimum(foreseen.variance, 4.0), variance),
        price=_moved(level.price, foreseen.price, gain, kept, first, seen.price_log),
        square=_moved(level.square, foreseen.square, gain, kept, first, np.square(seen.price_log)),
        rival=np.where(lost, level.rival, rival + np.where(first, 0.0, gain * foreseen.rival)),
        unexplained=level.unexplained,
        moved=level.moved,
    )


def _moved(
    before: np.ndarray,
    innovation: np.ndarray,
    gain: np.ndarray,
    kept: np.ndarray,
    first: np.ndarray,
    seen: np.ndarray,
) -> np.ndarray:
    after = np.where(first, seen, before + gain * innovation)
    return np.where(kept > 0.0, after, before)
