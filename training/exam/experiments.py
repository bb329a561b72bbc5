"""The experiments' half of the exam: how often tests err under continuous looks, and what they see.

Arms of ``UNITS`` units each, looked at after every pair. Power is at an effect of ``EFFECT``
standard deviations; every test is one-sided at 5 %, as the figures published for them are. The
variance is estimated on the way, from the first ``FIRST_LOOK`` pairs on.

Crossover and switchback are judged in shops of listings whose demand is noisy, persistent and of
very different size, and where yesterday's price still works today.
"""

from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from kernels.assignment import TREATED, arms
from kernels.lift import Lift, joined, lift_of, no_totals, totals
from kernels.sequential import (
    is_harm,
    normal_quantile,
    ratio_evidence_path,
    student_of_normal,
    yeast_bound,
    yeast_statistic,
)

UNITS, EFFECT, ALPHA, FIRST_LOOK = 500, 0.2, 0.05, 20
REPETITIONS, SHOPS = 20_000, 2_000
"""Of the whole exam: experiments of each law, and shops of each design."""

BATCH = 1_000
"""Repetitions at a time, so that memory stays small."""

TESTS = ("yeast", "mixture", "fixed", "peeked")
"""YEAST; mSPRT; one look at the end; and what happens to who looks all the time without either."""

SAMPLE_RATIO_ALPHA = 0.001


class Sequential(Struct, frozen=True, kw_only=True):
    """How one law of outcomes was judged by all tests."""

    law: str
    repetitions: int
    false_discovery: dict[str, float]
    power: dict[str, float]
    half_way: dict[str, float]  # median share of the units at which a found effect was found
    large_half_way: dict[str, float]  # the same for an effect three times as large
    sample_ratio_false: float  # alarms where arms come by their shares, over all looks
    sample_ratio_power: float  # alarms where 45 % come instead of 50 %


class Coverage(Struct, frozen=True, kw_only=True):
    """How often a design's interval holds the lift that really is."""

    design: str
    repetitions: int
    washout_days: int
    coverage: float  # of the 95 % interval at the planned end
    false_discovery: float  # YEAST looked at after each pair of blocks, in shops without any lift
    mean_lift: float  # estimated, where LIFT is true
    margin: float  # half the mean interval


def sit_sequential(
    seed: int, repetitions: int, laws: tuple[str, ...] = ("normal", "counts")
) -> list[Sequential]:
    """Judge all tests on outcomes of some laws."""
    return [_sit_law(law, seed, repetitions) for law in laws]


def _sit_law(law: str, seed: int, repetitions: int) -> Sequential:
    draw = np.random.default_rng([seed, len(law)])
    null, small, large = (
        _first_looks(law, draw, repetitions, effect) for effect in (0.0, EFFECT, 3 * EFFECT)
    )
    share = {name: float((looks < UNITS).mean()) for name, looks in null.items()}
    found = {name: float((looks < UNITS).mean()) for name, looks in small.items()}
    right, wrong = (
        float((path >= -np.log(SAMPLE_RATIO_ALPHA)).any(axis=1).mean())
        for path in (
            ratio_evidence_path(draw.random((min(repetitions, 5_000), 2 * UNITS)) < 0.5, 0.5),
            ratio_evidence_path(draw.random((min(repetitions, 500), 8 * UNITS)) < 0.45, 0.5),
        )
    )
    return Sequential(
        law=law,
        repetitions=repetitions,
        false_discovery=share,
        power=found,
        half_way={name: _median(looks) for name, looks in small.items()},
        large_half_way={name: _median(looks) for name, looks in large.items()},
        sample_ratio_false=right,
        sample_ratio_power=wrong,
    )


def _median(looks: np.ndarray) -> float:
    found = looks[looks < UNITS]
    return float(np.median(found) / UNITS) if len(found) else 1.0


def _first_looks(
    law: str, draw: np.random.Generator, repetitions: int, effect: float
) -> dict[str, np.ndarray]:
    """Return, for each test, the look of the first discovery a repetition; UNITS: none."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in TESTS}
    for start in range(0, repetitions, BATCH):
        runs = min(BATCH, repetitions - start)
        for name, looks in _looked(*_estimates(law, draw, runs, effect)).items():
            found[name].append(looks)
    return {name: np.concatenate(pieces) for name, pieces in found.items()}


def _estimates(
    law: str, draw: np.random.Generator, runs: int, effect: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the difference of means and its estimated variance after each pair, [runs, looks]."""
    control, treated = (_outcomes(law, draw, runs, shift) for shift in (0.0, effect))
    count = np.arange(1, UNITS + 1)
    spread = np.zeros((runs, UNITS))
    for arm in (control, treated):
        mean = np.cumsum(arm, axis=1) / count
        spread += np.maximum(np.cumsum(np.square(arm), axis=1) - count * np.square(mean), 0.0)
    variance = spread / np.maximum(count - 1, 1) / count
    difference = np.cumsum(treated - control, axis=1) / count
    return difference[:, FIRST_LOOK:], np.maximum(variance[:, FIRST_LOOK:], 1e-12)


def _outcomes(law: str, draw: np.random.Generator, runs: int, effect: float) -> np.ndarray:
    """Return outcomes of variance 1 but for ``counts``: sales of 3 a day, over-dispersed."""
    if law == "normal":
        return draw.normal(effect, 1.0, (runs, UNITS))
    base, dispersion, mean = 3.0, 5.0, 3.0
    for _ in range(20):  # the deviation of both arms together, of which one is wider
        variance = [of + of * of / dispersion for of in (base, mean)]
        mean = base + effect * np.sqrt(0.5 * sum(variance))
    heat = draw.gamma(dispersion, mean / dispersion, (runs, UNITS))
    return draw.poisson(heat).astype(np.float64)


def _looked(estimate: np.ndarray, variance: np.ndarray) -> dict[str, np.ndarray]:
    fraction = np.arange(FIRST_LOOK + 1, UNITS + 1) / UNITS
    z = estimate / np.sqrt(variance)
    # The effect that mSPRT mixes over, in units of outcome: EFFECT standard deviations.
    tau = EFFECT * np.sqrt(np.median(variance[:, -1]) * UNITS / 2.0)
    last = np.zeros(estimate.shape[1], dtype=bool)
    last[-1] = True
    said = {
        "yeast": yeast_statistic(estimate, variance, fraction) >= yeast_bound(ALPHA),
        "mixture": is_harm(-estimate, variance, float(tau), ALPHA),
        "fixed": (z >= normal_quantile(1.0 - ALPHA)) & last,
        "peeked": z >= normal_quantile(1.0 - ALPHA),
    }
    return {
        name: np.where(crossed.any(axis=1), crossed.argmax(axis=1) + FIRST_LOOK, UNITS)
        for name, crossed in said.items()
    }


# ----- designs in shops --------------------------------------------------------------------------

LISTINGS, DAYS, BLOCK_DAYS, WASHOUT_DAYS, LIFT = 120, 80, 4, 2, 0.10
CARRIED = 0.3
"""Share of yesterday's price that still works today."""


def sit_designs(seed: int, repetitions: int) -> list[Coverage]:
    """Judge crossover and switchback with carry-over, with and without a wash-out."""
    return [
        _sit_design(design, washout, seed, repetitions)
        for design in ("crossover", "switchback")
        for washout in (WASHOUT_DAYS, 0)
    ]


def _sit_design(design: str, washout: int, seed: int, repetitions: int) -> Coverage:
    draw = np.random.default_rng([seed, len(design), washout])
    covered = discoveries = 0
    lifts, margins = [], []
    for _ in range(repetitions):
        salt = int(draw.integers(0, 2**63))
        last = list(_looks(design, washout, salt, draw, LIFT))[-1]
        margin = student_of_normal(normal_quantile(0.975), last.freedom) * np.sqrt(last.variance)
        covered += int(abs(last.lift - LIFT) <= margin)
        lifts.append(last.lift)
        margins.append(margin)
        looks = list(_looks(design, washout, salt, draw, 0.0))
        normal = np.array([look.normal for look in looks])
        pairs = DAYS // BLOCK_DAYS // 2
        fraction = np.arange(pairs - len(looks) + 1, pairs + 1) / pairs
        discoveries += int((normal * np.sqrt(fraction) >= yeast_bound(ALPHA)).any())
    return Coverage(
        design=design,
        repetitions=repetitions,
        washout_days=washout,
        coverage=covered / repetitions,
        false_discovery=discoveries / repetitions,
        mean_lift=float(np.mean(lifts)),
        margin=float(np.mean(margins)),
    )


def _looks(
    design: str, washout: int, salt: int, draw: np.random.Generator, lift: float
) -> Iterator[Lift]:
    """Give what an experiment in one shop says after each pair of blocks, from the fourth on."""
    keys = draw.integers(0, 2**63, LISTINGS).astype(np.uint64)
    block = np.arange(DAYS) // BLOCK_DAYS
    treated = np.array([arms(design, keys, salt, 0.5, int(at)) == TREATED for at in block])
    sold = _sold(draw, treated, lift)
    per_day = np.stack([sold * treated, treated, sold * ~treated, ~treated], axis=2)
    per_day[np.arange(DAYS) % BLOCK_DAYS < washout] = 0.0
    known = no_totals()
    for pair in range(DAYS // BLOCK_DAYS // 2):
        cells = per_day[block // 2 == pair].sum(axis=0)
        known = joined(known, totals(cells if design == "crossover" else cells.sum(axis=0)[None]))
        if pair >= 3:
            found = lift_of(known)
            assert found is not None
            yield found


def _sold(draw: np.random.Generator, treated: np.ndarray, lift: float) -> np.ndarray:
    """Return sales [days, listings]; a price works on after it, and shocks to demand persist."""
    size = 3.0 * np.exp(draw.normal(0.0, 1.0, LISTINGS))
    shock, felt = np.zeros(LISTINGS), treated[0].astype(np.float64)
    sold = np.empty(treated.shape)
    for day in range(len(treated)):
        shock = 0.9 * shock + draw.normal(0.0, 0.12 * np.sqrt(1.0 - 0.81), LISTINGS)
        felt = CARRIED * felt + (1.0 - CARRIED) * treated[day]
        season = 1.0 + 0.2 * np.sin(2.0 * np.pi * day / 7.0)
        mean = size * season * np.exp(shock) * (1.0 + lift * felt)
        sold[day] = draw.poisson(draw.gamma(5.0, mean / 5.0))
    return sold


def experiment_verdicts(tests: list[Sequential], designs: list[Coverage]) -> list[tuple[str, bool]]:
    """Return every goal of the experiments, and whether it is reached."""
    judged = []
    for each in tests:
        error, power = each.false_discovery["yeast"], each.power["yeast"]
        judged += [
            (f"YEAST, {each.law}: false discovery {error:.4f} <= 0.055", error <= 0.055),
            (f"YEAST, {each.law}: power at {EFFECT} sd {power:.3f} >= 0.90", power >= 0.90),
        ]
        error = each.false_discovery["mixture"]
        judged.append((f"mSPRT, {each.law}: false alarms {error:.4f} <= 0.055", error <= 0.055))
        error = each.sample_ratio_false
        judged.append(
            (f"sample ratio: false alarms {error:.4f} <= {SAMPLE_RATIO_ALPHA}", error <= 0.001)
        )
    for design in designs:
        if design.washout_days:
            inside = 0.93 <= design.coverage <= 0.97
            judged.append(
                (f"{design.design}: 95 % interval covers {design.coverage:.3f}, .93 to .97", inside)
            )
            error = design.false_discovery
            judged.append(
                (
                    f"{design.design}: false discovery {error:.3f} <= 0.055",
                    error <= 0.055,
                )
            )
    return judged
