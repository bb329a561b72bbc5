"""A price that ends its own demand is left again, and a price that sells is proven."""

import numpy as np
import pytest

from engine.deltas import ModeChanged
from engine.learnt import LEARNT_DTYPE, new_learnt
from engine.proven import barred_above, prove
from kernels.hyperparameters import BARRED_DAYS
from tests.engine.builders import DAY, World

DAYS = 60


def lived(
    learnt: np.ndarray, price_log: float, units: list[int], *, since: int, common: float = 0.0
) -> int:
    """Let days pass at one price; return the day after them."""
    for day, sold in enumerate(units, since):
        prove(
            learnt,
            np.full(len(learnt), price_log),
            np.full(len(learnt), float(sold)),
            np.full(len(learnt), common),
            np.ones(len(learnt), dtype=bool),
            1.0,
            day,
        )
    return since + len(units)


def halves(days: int) -> list[int]:
    """Return half a unit a day."""
    return [day % 2 for day in range(days)]


def test_silence_after_a_raise_bars_it_and_sales_prove_it() -> None:
    learnt = new_learnt()
    day = lived(learnt, 0.0, halves(DAYS), since=1)
    assert np.isinf(barred_above(learnt, day))
    quiet = learnt.copy()
    day_of_it = next(
        day + late
        for late in range(60)
        if np.isfinite(barred_above(quiet, lived(quiet, 0.3, [0], since=day + late)))
    )
    # Half a unit a day, and less at the higher price: four units are three weeks.
    assert 14 <= day_of_it - day <= 28
    assert barred_above(quiet, day_of_it + 1)[0] == pytest.approx(0.0)
    assert np.isinf(barred_above(quiet, day_of_it + BARRED_DAYS + 1))
    # A quarter of a unit a day is what an elasticity of -2.6 makes of half of one.
    lived(learnt, 0.3, [int(late % 4 == 0) for late in range(60)], since=day)
    assert np.isinf(barred_above(learnt, day + 60))
    assert learnt["proven"][0] == pytest.approx(0.3)


def test_a_season_that_ends_for_all_is_no_price_of_ones_own() -> None:
    """And neither is a dither, nor a day that nobody could buy on."""
    learnt = new_learnt()
    day = lived(learnt, 0.0, halves(DAYS), since=1)
    lived(learnt, 0.3, [0] * 60, since=day, common=-3.0)
    assert np.isinf(barred_above(learnt, day + 60))
    learnt = new_learnt()
    lived(learnt, 0.0, halves(DAYS), since=1)
    lived(learnt, 0.06, [0] * 40, since=day)
    assert np.isinf(barred_above(learnt, day + 40))
    away = np.zeros(1, dtype=bool)
    for late in range(60):
        prove(learnt, np.full(1, 0.3), np.zeros(1), np.zeros(1), away, 1.0, day + late)
    assert np.isinf(barred_above(learnt, day + 60))


def test_few_chances_say_nothing() -> None:
    """What never sold was not hoped for; what sells fast is judged after two weeks."""
    learnt = np.repeat(new_learnt(), 2)
    day = lived(learnt, 0.0, [0] * DAYS, since=1)
    day = lived(learnt, 0.3, [0] * DAYS, since=day)
    assert np.isinf(barred_above(learnt, day)).all()
    fast = new_learnt()
    day = lived(fast, 0.0, [30] * DAYS, since=1)
    day = lived(fast, 0.3, [0] * 13, since=day)
    assert np.isinf(barred_above(fast, day))
    lived(fast, 0.3, [0] * 2, since=day)
    assert np.isfinite(barred_above(fast, day + 1))
    assert LEARNT_DTYPE.itemsize <= 192


def test_a_shop_takes_back_a_raise_that_ended_sales() -> None:
    """Six listings at a fifth above cost are raised; one of them then sells nothing any more."""
    world = World(mode="shadow")
    world.send(world.policy(learning=True, dither=0.0, holdout_share=0.0))
    skus = [f"S{number}" for number in range(6)]
    world.send(*(world.listing(sku, price_minor=1200, category="c") for sku in skus))
    prices = []
    for day in range(200):
        if day == 40:
            world.send(world.whole(ModeChanged, mode="live"))
        sold = [
            world.sold(1, sku, source=f"till {sku}", source_seq=day)
            for at, sku in enumerate(skus)
            if (day + at) % 2 and (at or world.price(sku) <= 1260)
        ]
        world.send(*sold, after_ms=DAY)
        prices.append(world.price("S0"))
    highest = int(np.argmax(prices))
    assert prices[highest] > 1300
    back = [day for day in range(highest, 200) if prices[day] <= 1200]
    assert back
    assert back[0] - highest < 60
    assert world.price("S1") > 1300
