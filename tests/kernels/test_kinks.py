"""A kink at the usual price is recognised by what moves both ways sold, and by nothing else."""

import numpy as np
import pytest

from kernels.choice import Place, best_log
from kernels.forms import Shown
from kernels.hyperparameters import ELASTICITIES, KINK_SHARE, PRICE_OFFSETS
from kernels.kinks import PRODUCTS, Judged, believed, distances, held_logs, judged, products
from kernels.whitening import Belief, Level, Seen, believable, foresee, learn

NOTHING = judged(np.zeros(PRODUCTS))


def fresh(rows: int) -> Level:
    zero = np.zeros(rows)
    return Level(zero, zero - 1.0, zero + 4.0, zero, zero, zero + np.nan, zero, zero)


def lived(
    kink: float,
    seed: int,
    *,
    rows: int = 60,
    days: int = 90,
    bend: float = 0.0,
    saturates: bool = False,
    off: float = 0.0,
    volume: float = 12.0,
    centre: float = 0.0,
    upwards: bool = False,
) -> list[Judged]:
    """Return what is thought of a kink after each day, of demand that has one or has none.

    Args:
        bend: curvature.
        saturates: demand is a share of those who come, as in the exam's world of that name.
        off: how far the belief's elasticities are off.
        centre: around which log price prices move.
        upwards: prices are never below the usual one.
    """
    draw = np.random.default_rng(seed)
    truth = draw.normal(-2.8, 0.3, rows)
    belief = Belief(truth + off, 0.5, 0.0, 0.2)
    level, price, total = fresh(rows), np.zeros(rows), np.zeros(PRODUCTS)
    none, told = np.zeros(rows, dtype=bool), []
    for day in range(days):
        if day % 7 == 0:
            price = centre + draw.normal(0, 0.08, rows)
            price = np.abs(price) if upwards else price
        demand = truth * (price + kink * np.abs(price)) - bend * np.square(price)
        if saturates:
            odds = 3 / 7 * np.exp(truth / 0.7 * np.expm1(price))
            demand = np.log(odds / (1.0 + odds) / 0.3)
        rate = volume * np.exp(demand) * draw.gamma(5.0, 0.2, rows)
        seen = Seen(draw.poisson(rate).astype(float), price, np.full(rows, np.nan), none, none)
        ahead = foresee(level, belief, seen)
        shown = Shown(
            counts=level.days >= 14,
            units=believable(seen.units, ahead.units, ahead.variance, 0.2),
            expected=ahead.units,
            scatter=ahead.variance + 0.2,
            price=ahead.price,
            square=ahead.square,
            curvature=np.full(rows, 0.5),
            elasticity=belief.elasticity,
            shift=np.zeros(rows),
            variance=np.full(rows, 0.05),
            cross=np.zeros(rows),
        )
        total = total + products(shown, distances(price, level)).sum(axis=1)
        level = learn(level, belief, seen, ahead, np.zeros(rows)).level
        told.append(judged(total))
    return told


@pytest.mark.parametrize("seed", range(4))
def test_slopes_of_two_and_five_are_told_apart(seed: int) -> None:
    """With 60 listings of a dozen units a day, whose prices moved by .08 for a quarter."""
    found = lived(3 / 7, seed)[-1]
    assert found.likely > 0.8, found
    assert found.kink == pytest.approx(3 / 7, abs=0.2)
    assert believed(found, 0.0) == pytest.approx(found.likely * found.kink)


@pytest.mark.parametrize(
    "world",
    [
        {},
        {"bend": 2.0},
        {"saturates": True},
        {"off": 0.6},
        {"off": -0.6},
        {"upwards": True, "off": 0.4},
    ],
    ids=["plain", "bent", "saturated", "flatter", "steeper", "upwards"],
)
def test_where_there_is_none_one_is_seldom_believed(world: dict[str, float]) -> None:
    """Once on the way, however long one looks: at most in a quarter of shops, says Ville."""
    alarms = 0
    for seed in range(12):
        kink = 0.0
        for told in lived(0.0, 100 + seed, **world):  # type: ignore[arg-type]
            kink = max(kink, believed(told, kink))
        alarms += kink > 0.0
    assert alarms <= 3


def test_prices_on_one_side_say_nothing_of_the_other() -> None:
    """A category that is dearer than usual all along shows one slope, whatever the kink."""
    found = lived(3 / 7, 1, centre=0.5)[-1]
    assert found.likely < 0.5


def test_no_evidence_leaves_what_was_thought_before() -> None:
    assert NOTHING.nats == pytest.approx(0.0) and NOTHING.likely == pytest.approx(KINK_SHARE)
    assert believed(NOTHING, 0.0) == 0.0


def test_what_was_believed_goes_by_degrees() -> None:
    doubted = Judged(nats=0.5, likely=0.3, kink=0.4, curvature=0.5, bend=0.0)
    assert believed(doubted, 0.0) == 0.0
    assert believed(doubted, 0.4) == pytest.approx(0.12)
    assert believed(doubted._replace(likely=KINK_SHARE), 0.4) == 0.0


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e9])
def test_any_sums_have_a_judgement(size: float) -> None:
    for sign in (-1.0, 1.0):
        sums = np.zeros((4, 5))
        sums[0, 0], sums[0, 4] = size, sign * size
        found = judged(sums.ravel())
        assert np.isfinite(found).all()
        assert 0.0 <= found.likely <= 1.0 and 0.0 <= found.kink <= 0.8


def test_distances_are_those_of_a_filter_of_their_own() -> None:
    """Right to the last digit after one change, and nearly so after a price a week."""
    draw, rows = np.random.default_rng(5), 50
    belief = Belief(np.full(rows, -2.5), 0.0, 0.0, 0.2)
    none = np.zeros(rows, dtype=bool)
    level, mean, price = fresh(rows), np.zeros(rows), np.full(rows, 0.03)
    exact, found = [], []
    for day in range(120):
        if day >= 40 and day % 7 == 5:
            price = draw.normal(0.0, 0.08, rows)
        units = draw.poisson(20.0, rows).astype(float)
        seen = Seen(units, price, np.full(rows, np.nan), none, none)
        ahead = foresee(level, belief, seen)
        moved = np.abs(price) - np.where(level.days > 0, mean, np.abs(price))
        exact.append(moved)
        found.append(distances(price, level))
        after = learn(level, belief, seen, ahead, np.zeros(rows)).level
        gain = (after.price - level.price) / np.where(ahead.price == 0.0, np.nan, ahead.price)
        gain = np.where(np.isnan(gain), 0.0, gain)
        mean = np.where(level.days > 0, mean + gain * moved, np.abs(price))
        level = after
    one = slice(40, 47)
    np.testing.assert_allclose(np.array(found)[one], np.array(exact)[one], atol=1e-9)
    late = slice(60, None)
    together = np.corrcoef(np.array(found)[late].ravel(), np.array(exact)[late].ravel())
    assert together[0, 1] > 0.9


def best(cost: float, kink: float) -> float:
    belief = np.zeros((1, len(ELASTICITIES)))
    belief[0, np.argmin(np.abs(ELASTICITIES + 3.5))] = 1.0
    flat = np.zeros(1)
    place = Place(flat, flat, np.array([cost]), flat - 0.3, flat + 0.3)
    found = best_log(belief, place, flat, flat, np.array([kink]))
    return float(held_logs(found, np.array([kink > 0.0]))[0])


@pytest.mark.parametrize("cost", [0.55, 0.65, 0.714, 0.78])
def test_between_both_slopes_the_usual_price_is_the_best(cost: float) -> None:
    """Of -2 below and -5 above, every cost from a half to four fifths of the price is right."""
    assert best(cost, 1.5) == 0.0
    assert cost == 0.714 or abs(best(cost, 0.0)) > 0.05


@pytest.mark.parametrize(("cost", "side"), [(0.42, 1.5), (0.86, -1.5)])
def test_beyond_them_prices_move_to_the_best_of_their_side(cost: float, side: float) -> None:
    slope = float(ELASTICITIES[np.argmin(np.abs(ELASTICITIES + 3.5))]) + side
    aim = np.log(cost * slope / (1.0 + slope))
    assert best(cost, 1.5) == pytest.approx(aim, abs=0.003)
    assert abs(aim) > 0.05


def test_a_price_next_to_a_kink_is_the_usual_one() -> None:
    step = PRICE_OFFSETS[1] - PRICE_OFFSETS[0]
    wish, kinked = np.array([0.004, -0.004, 0.004, 2.0 * step]), np.array([1, 1, 0, 1], dtype=bool)
    np.testing.assert_array_equal(held_logs(wish, kinked), [0.0, 0.0, 0.004, 2.0 * step])
