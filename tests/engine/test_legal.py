"""Where legal prices lie far apart, a decision chooses between them by what they earn."""

import numpy as np
import pytest

from engine.deltas import ModeChanged
from engine.legal import chosen_logs, coarse, neighbours, perceived_log, profit
from engine.policy import ENDINGS_MAX, ending_code
from kernels.choice import Place
from kernels.hyperparameters import ELASTICITIES
from tests.engine.builders import DAY, World


def codes(rows: int, *endings: str) -> np.ndarray:
    """Return int32[rows, ENDINGS_MAX]."""
    known = [ending_code(ending) for ending in endings]
    return np.tile(np.array(known + [0] * (ENDINGS_MAX - len(known)), dtype=np.int32), (rows, 1))


@pytest.mark.parametrize(
    ("price", "endings", "below", "above"),
    [
        (5.3, (), 5, 6),
        (4.9999999, (), 5, 6),
        (1040.0, ("99",), 999, 1099),
        (999.0, ("99",), 999, 1099),
        (1040.0, ("49", "99"), 999, 1049),
        (40.0, ("99",), 0, 99),
        (12_345.0, ("995", "5"), 12_345, 12_355),
    ],
)
def test_neighbours_are_the_legal_prices_around(
    price: float, endings: tuple[str, ...], below: int, above: int
) -> None:
    found = neighbours(np.array([price]), codes(1, *endings))
    assert (found[0][0], found[1][0]) == (below, above)


def test_only_what_rounding_would_decide_is_coarse() -> None:
    prices = np.array([5.0, 24.0, 26.0, 999.0])
    np.testing.assert_array_equal(coarse(prices, codes(4)), [True, True, False, False])
    np.testing.assert_array_equal(coarse(prices, codes(4, "99")), [True] * 4)


def chosen(
    wish: float,
    dither: float,
    unit: float,
    cost: float,
    slope: float,
    *endings: str,
    bias: float = 0.0,
    kink: float = 0.0,
) -> list[float]:
    """Return the price of the anchor, and the one that is asked."""
    belief = np.zeros((1, len(ELASTICITIES)))
    belief[0, np.argmin(np.abs(ELASTICITIES - slope))] = 1.0
    flat = np.zeros(1)
    place = Place(flat, flat, np.array([cost / unit]), np.array([-1.0]), np.array([1.0]))
    anchor, strayed = chosen_logs(
        np.log([wish / unit]),
        np.array([dither]),
        np.array([unit]),
        codes(1, *endings),
        belief,
        place,
        flat,
        flat,
        np.array([kink]),
        np.array([bias]),
    )
    return [round(float(unit * np.exp(of[0])), 3) for of in (anchor, anchor + strayed)]


def test_of_two_neighbours_the_better_is_asked() -> None:
    """Of -2 at a cost of 3 the best is 6, and 5 is much nearer to it than 9 is to 4.6."""
    slope = float(ELASTICITIES[np.argmin(np.abs(ELASTICITIES + 2.0))])
    best = 3.0 * slope / (1.0 + slope)
    assert chosen(best, 0.0, 5.0, 3.0, slope) == [6.0, 6.0]
    assert chosen(5.45, 0.0, 5.0, 3.0, slope) == [6.0, 6.0]  # rounding would say 5
    assert chosen(4.6, 0.0, 5.0, 2.0, slope) == [4.0, 4.0]  # and here, too
    assert chosen(1040.0, 0.0, 999.0, 540.0, slope, "99") == [1099.0, 1099.0]


def test_a_kink_holds_the_usual_price_where_it_is_legal() -> None:
    """The usual price is 5, and of -2 at a cost of 3 the best would be 6."""
    assert chosen(5.45, 0.0, 5.0, 3.0, -2.0) == [6.0, 6.0]
    assert chosen(5.45, 0.0, 5.0, 3.0, -2.0, kink=1.0) == [5.0, 5.0]


def test_a_dither_asks_what_it_reaches_and_nothing_further() -> None:
    assert chosen(950.0, 0.06, 999.0, 500.0, -2.0, "99")[1] == 999.0
    assert chosen(950.0, -0.06, 999.0, 500.0, -2.0, "99")[1] == 899.0
    anchor, asked = chosen(5.5, 0.06, 5.0, 2.5, -2.0)
    assert asked == anchor


def test_where_nothing_legal_lies_within_the_bounds_the_rules_decide() -> None:
    belief = np.full((1, len(ELASTICITIES)), 1.0 / len(ELASTICITIES))
    flat = np.zeros(1)
    place = Place(flat, flat, np.full(1, 0.5), np.full(1, -0.01), np.full(1, 0.01))
    wish, unit = np.full(1, 0.005), np.full(1, 1040.0)
    outside = profit(np.full(1, 0.02), unit, belief, place, flat, flat, flat, flat)
    assert np.isneginf(outside)
    anchor, dither = chosen_logs(
        wish, np.full(1, 0.003), unit, codes(1, "99"), belief, place, *4 * [flat]
    )
    assert (anchor[0], dither[0]) == (0.005, 0.003)


def test_customers_who_read_from_the_left_are_asked_just_below_a_round_price() -> None:
    """Of -2.5 at a cost of 12.06 the best is 20.10: 20 is nearest, and 19.99 sells far more."""
    slope = float(ELASTICITIES[np.argmin(np.abs(ELASTICITIES + 2.5))])
    cost = 2010.0 * (1.0 + slope) / slope
    every = ("00", "50", "99")
    assert chosen(2010.0, 0.0, 2010.0, cost, slope, *every)[0] == 2000.0
    assert chosen(2010.0, 0.0, 2010.0, cost, slope, *every, bias=0.2)[0] == 1999.0
    # No further than where rounding could lead, however much better it is there.
    assert chosen(2450.0, 0.0, 2450.0, cost, slope, "00", "99", bias=0.5)[0] in (2399.0, 2400.0)
    assert chosen(60.0, 0.0, 60.0, 36.0, slope, "5", bias=0.5)[0] in (55.0, 65.0)


@pytest.mark.parametrize("bias", [0.0, 0.1, 0.3])
def test_a_perceived_price_falls_short_by_a_share_of_its_last_two_digits(bias: float) -> None:
    prices = np.array([1999.0, 2000.0, 2001.0, 2050.0, 99.0])
    seen = np.exp(perceived_log(np.log(prices), np.ones(5), np.full(5, bias)))
    expected = prices - bias * np.array([99.0, 0.0, 1.0, 50.0, 99.0])
    np.testing.assert_allclose(seen, expected, atol=0.01)


def test_prices_of_a_few_cents_find_their_best_and_no_breaker() -> None:
    """Half of 120 listings are too cheap by a cent; all have an elasticity of -2.

    Rounding moved most of them on the first day, which halted the retailer, and taught nothing:
    a price that lay off what was asked was taken for somebody else's.
    """
    world = World(mode="shadow")
    known = {"prior_elasticity": -2.0, "prior_elasticity_sd": 0.2, "status_quo_sigma": 1.0}
    world.send(world.policy(learning=True, holdout_share=0.0, **known))
    skus = [f"S{number}" for number in range(120)]
    start = {sku: 5 + 2 * (at % 2) for at, sku in enumerate(skus)}
    world.send(
        *(
            world.listing(sku, price_minor=start[sku], cost_minor=3, category=f"c{at % 2}")
            for at, sku in enumerate(skus)
        )
    )
    draw = np.random.default_rng(1)
    told = []
    for day in range(100):
        if day == 14:
            told.append(world.send(world.whole(ModeChanged, mode="live")))
        before = {sku: world.price(sku) for sku in skus}
        units = draw.poisson([40.0 * (before[sku] / 6.0) ** -2.0 for sku in skus])
        sold = [
            world.sold(int(count), sku, source=f"till {sku}", source_seq=day)
            for sku, count in zip(skus, units, strict=True)
            if count
        ]
        told.append(world.send(*sold, after_ms=DAY))
    assert not any(change.what == "breaker" for of in told for change in of.catalogue)
    assert sum(world.price(sku) == 6 for sku in skus) >= 50
    learnt = [world.shard.learnt(world.key(sku)) or {} for sku in skus]
    assert np.mean([of["own_evidence"] for of in learnt]) > 0.05
