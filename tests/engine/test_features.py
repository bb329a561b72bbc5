"""Features are named, documented, derived from the log alone, and mean what the table says."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.features import FEATURES, deviation, least, markdown, mean, median, most, second
from engine.shard import Shard
from tests.engine.builders import DAY, HOUR, World
from tests.engine.test_learning import SKUS, lived, shop


def market() -> World:
    world = World(mode="shadow")
    world.send(world.listing("A", price_minor=2000, cost_minor=1000), world.listing("B"))
    world.send(world.stock(40))
    world.send(world.rival(1800, rival="bob"))
    world.now_ms += 2 * HOUR
    world.send(world.rival(2200, rival="eve"))
    return world


def told(world: World, sku: str = "A") -> dict[str, float | None]:
    found = world.shard.features([world.key(sku)])[0]
    assert found is not None
    return found


def test_the_documented_table_is_the_code() -> None:
    names = [feature.name for feature in FEATURES]
    assert len(set(names)) == len(names) >= 50
    page = (Path(__file__).parents[2] / "docs" / "features.md").read_text()
    assert page.endswith(markdown())


def test_prices_and_rivals() -> None:
    found = told(market())
    assert found["price"] == 2000
    assert found["markup"] == pytest.approx(math.log(2.0))
    assert (found["rival_lowest"], found["rival_second"], found["rival_mean"]) == (1800, 2200, 2000)
    assert found["rival_distance"] == pytest.approx(math.log(2000 / 1800))
    assert (found["rival_rank"], found["rival_rank_share"], found["rivals"]) == (2, 0.5, 2)


def test_windows_leave_out_what_is_older() -> None:
    found = told(market())
    assert (found["heard_1m"], found["heard_1h"], found["heard_1d"]) == (1, 1, 2)
    assert (found["rival_mean_1h"], found["rival_lowest_1h"]) == (2200, 2200)


def test_sales_make_velocity_and_stock() -> None:
    world = market()
    world.send(world.sold(3, event_id="first"))
    world.now_ms += DAY
    world.send(world.sold(1, event_id="second"))
    found = told(world)
    assert (found["units_sold"], found["units_1h"], found["units_1d"]) == (4, 1, 1)
    assert found["velocity"] == pytest.approx(4.0, rel=1e-3)
    assert (found["stock"], found["stock_ratio"]) == (36, 0.9)
    assert found["stock_cover"] == pytest.approx(9.0, rel=1e-3)


def test_what_is_not_known_is_none() -> None:
    world = market()
    found = told(world, "B")
    unknown = ("rival_lowest", "rival_rank", "stock", "velocity", "demand_level", "map_gap")
    assert [found[name] for name in unknown] == [None] * len(unknown)
    assert world.shard.features([1, world.key()])[0] is None


def test_a_restored_shard_tells_the_same() -> None:
    world = market()
    restored = Shard.restore([world.shard.checkpoint_close()])
    keys = [world.key("A"), world.key("B")]
    assert restored.features(keys) == world.shard.features(keys)


def test_reading_changes_nothing() -> None:
    world = market()
    world.shard.checkpoint_restart()
    before = world.shard.checkpoint_close()
    told(world)
    world.shard.checkpoint_restart()
    assert world.shard.checkpoint_close() == before


def second_of(values: np.ndarray) -> float:
    return float(np.sort(values)[1]) if len(values) > 1 else math.nan


@pytest.mark.parametrize("columns", [0, 1, 4, 24])
@pytest.mark.parametrize(
    ("reduce", "of_one"),
    [
        (least, np.min),
        (most, np.max),
        (mean, np.mean),
        (deviation, np.std),
        (median, np.median),
        (second, second_of),
    ],
)
def test_rows_are_reduced_as_a_loop_reduces_them(
    reduce: Callable[[np.ndarray], np.ndarray],
    of_one: Callable[[np.ndarray], float],
    columns: int,
) -> None:
    """Prices are whole numbers, so all but a deviation is the same to the bit."""
    draw = np.random.default_rng(columns)
    values = np.round(draw.uniform(1, 2**30, (500, columns)))
    values[draw.random(values.shape) < draw.random((500, 1))] = np.nan
    known = [row[~np.isnan(row)] for row in values]
    expected = np.array([of_one(row) if len(row) else math.nan for row in known])
    found = reduce(np.sort(values, axis=1))
    if reduce is deviation:
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    else:
        np.testing.assert_array_equal(found, expected)


def test_what_was_learnt_is_told() -> None:
    world = shop(dither=0.1)
    lived(world, 20)
    for found in (told(world, sku) for sku in SKUS):
        assert isinstance(found["surprise"], float)
        assert found["rival_filtered"] is None, "nobody told of a rival"
        assert 20 <= (found["demand_level"] or 0) <= 120, "sixty a day are sold at the first price"
        assert 0 < (found["demand_level_sd"] or 0) < 1
        assert found["days_learnt"] in (19, 20)
        assert abs(found["price_filtered"] or 9) < 0.5
    assert any(told(world, sku)["dither"] for sku in SKUS), "prices are tried out"
    learnt = world.shard.learnt(world.key(SKUS[0]))
    assert learnt is not None
    assert told(world, SKUS[0])["days_learnt"] == learnt["days"]
    restored = Shard.restore([world.shard.checkpoint_close()])
    keys = [world.key(sku) for sku in SKUS]
    assert restored.features(keys) == world.shard.features(keys)
