"""The orange juice made by us has the shape and the habits of the public data."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from training.worlds.orange_juice import synthetic_oj


@pytest.fixture(scope="module")
def juice() -> pa.Table:
    return synthetic_oj()


def column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()


def test_juice_has_the_shape_of_the_public_data(juice: pa.Table) -> None:
    assert juice.column_names == [
        *("store", "brand", "brand_name", "oz", "week", "units", "logmove", "price"),
        *("unit_cost", "margin_pct", "deal", "feat"),
        *(f"price_per_oz_{number}" for number in range(1, 12)),
    ]
    assert 104_000 < len(juice) < 108_000
    series = set(zip(column(juice, "store").tolist(), column(juice, "brand").tolist(), strict=True))
    assert len(series) == 913
    assert (column(juice, "week").min(), column(juice, "week").max()) == (40, 160)


def test_juice_has_the_habits_of_the_public_data(juice: pa.Table) -> None:
    price, cost = column(juice, "price"), column(juice, "unit_cost")
    assert 2.4 < price.mean() < 3.2
    assert 20 < column(juice, "margin_pct").mean() < 35
    assert 0.2 < column(juice, "deal").mean() < 0.5
    assert 0.1 < column(juice, "feat").mean() < 0.3
    assert 0 < (cost < 0.1).sum() < 50
    assert (column(juice, "units") % column(juice, "oz") == 0).all()
    assert np.allclose(np.exp(column(juice, "logmove")), column(juice, "units"))


def test_juice_prices_per_ounce_are_those_of_its_own_rows(juice: pa.Table) -> None:
    brand, price, oz = (column(juice, name) for name in ("brand", "price", "oz"))
    for number in range(1, 12):
        rows = brand == number
        shown = column(juice, f"price_per_oz_{number}")
        assert np.isfinite(shown).all()
        assert np.allclose(shown[rows], price[rows] / oz[rows], atol=1e-6)


def test_juice_answers_prices(juice: pa.Table) -> None:
    """Log-log with store effects, the estimate that the public data gives -2.86 to."""
    for number in (1, 4, 10):
        rows = column(juice, "brand") == number
        store = column(juice, "store")[rows]
        x, y = np.log(column(juice, "price")[rows]), column(juice, "logmove")[rows]
        for one in np.unique(store):
            x[store == one] -= x[store == one].mean()
            y[store == one] -= y[store == one].mean()
        assert -5.0 < (x @ y) / (x @ x) < -1.5


def test_juice_is_a_function_of_its_seed_and_comes_in_small() -> None:
    small = synthetic_oj(weeks=10, stores=4, brands=3)
    assert small.equals(synthetic_oj(weeks=10, stores=4, brands=3))
    assert not small.equals(synthetic_oj(weeks=10, stores=4, brands=3, seed=2))
    assert len(small) <= 120
    assert "price_per_oz_3" in small.column_names
    assert "price_per_oz_4" not in small.column_names


def test_the_real_table_is_nowhere_in_the_repository() -> None:
    root = Path(__file__).parents[3]
    folders = ("training", "tests", "docs", "perf", "config")
    assert not [path for folder in folders for path in (root / folder).rglob("*.parquet")]
