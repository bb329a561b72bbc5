"""The parity references see the same rows, and nothing of the weeks that they are asked about."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from engine.errors import RejectedInput
from training.exam.juice import Juice, juice_of, read_table
from training.exam.orange_juice import ROUNDS, sit_juice
from training.exam.peers import (
    _imported,
    compared,
    past_of,
    recent,
    rounds_of,
    score,
    xgboost_forecasts,
)
from training.worlds.orange_juice import synthetic_oj


@pytest.fixture(scope="module")
def juice(tmp_path_factory: pytest.TempPathFactory) -> Juice:
    file = tmp_path_factory.mktemp("juice") / "juice.parquet"
    table = synthetic_oj(stores=4)
    if "logmove" not in table.column_names:
        table = table.append_column("logmove", [np.log(table.column("units").to_numpy())])
    pq.write_table(table, file)
    return juice_of(read_table(file))


def test_everybody_is_scored_on_the_same_rows(juice: Juice) -> None:
    kept: list = []  # type: ignore[type-arg]
    board = sit_juice(juice, kept=kept)
    ours = [("ours", [(rows, forecast.units) for rows, forecast in kept])]
    scores = compared(juice, ours, prophet_series=0, trees=40)
    assert [of.name for of in scores] == [
        "ours",
        "XGBoost, absolute log error",
        "XGBoost, relative error",
    ]
    assert {of.cells for of in scores} == {board.cells}
    assert scores[0].wape == pytest.approx(board.median_wape)
    assert scores[0].mape == pytest.approx(board.median_mape)
    assert scores[0].moved_cells == board.moved_cells
    assert scores[0].slope == pytest.approx(board.slope)
    assert all(of.wape < 0.6 for of in scores)
    assert scores[2].mape < scores[1].mape, "who aims at relative error gets it"


def test_what_is_foreseen_does_not_depend_on_what_came_after(juice: Juice) -> None:
    """The last round's rows get other sales, and the round before them the same forecasts."""
    late = juice.week > ROUNDS[-2]
    changed = replace(juice, units=np.where(late, 7.0 * juice.units + 9.0, juice.units))
    for aim in ("log", "relative"):
        before = xgboost_forecasts(juice, aim, trees=5)
        after = xgboost_forecasts(changed, aim, trees=5)
        for (rows, units), (same, again) in zip(before[:-1], after[:-1], strict=True):
            assert rows.tolist() == same.tolist()
            assert units.tolist() == again.tolist()
        assert before[-1][1].tolist() != after[-1][1].tolist()


def test_rounds_are_those_of_the_board(juice: Juice) -> None:
    kept: list = []  # type: ignore[type-arg]
    sit_juice(juice, kept=kept)
    assert [rows.tolist() for rows, _ in kept] == [rows.tolist() for rows in rounds_of(juice)]


def test_recent_means_end_where_they_are_told_to(juice: Juice) -> None:
    matrix = np.array([[1.0, np.nan, 3.0, 5.0, 100.0]])
    zero = np.zeros(4, dtype=np.int64)
    found = recent(matrix, zero, np.array([3, 3, 1, -1]), 2)
    assert found[:3].tolist() == [4.0, 4.0, 1.0]
    assert np.isnan(found[3])


def test_a_perfect_forecast_scores_perfectly(juice: Juice) -> None:
    perfect = score(
        "perfect", juice, past_of(juice), [(rows, juice.units[rows]) for rows in rounds_of(juice)]
    )
    assert (perfect.mape, perfect.wape, perfect.bias) == (0.0, 0.0, 0.0)
    assert perfect.slope == pytest.approx(1.0)


def test_what_is_not_installed_is_named_with_its_extra() -> None:
    with pytest.raises(RejectedInput, match=r"repricer\[exam\]"):
        _imported("no_such_forecaster", "exam")
