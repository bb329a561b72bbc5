"""The real-data half on a table made by us: it is read, streamed and scored."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from training.exam.orange_juice import juice_verdicts, read_juice, sit_juice
from training.worlds.orange_juice import synthetic_oj


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("juice") / "juice.parquet"
    table = synthetic_oj(stores=6)
    if "logmove" not in table.column_names:
        table = table.append_column("logmove", [np.log(table.column("units").to_numpy())])
    pq.write_table(table, file)
    return file


def test_a_table_like_the_public_one_is_scored(path: Path) -> None:
    board = sit_juice(read_juice(path))
    assert board.cells > 500
    assert board.wape < 0.5
    assert 0.8 < board.coverage < 0.98
    assert board.largest_elasticity < 0.0
    assert board.moved_cells > 50 and board.slope > 0.5
    assert len(juice_verdicts(board)) == 11
