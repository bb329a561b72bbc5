"""Rows of few columns, reduced column by column, hold what NumPy's own reductions find."""

from itertools import permutations, product

import numpy as np
import pytest

from engine.narrow import (
    FEW_ROWS,
    FEW_ROWS_SORTED,
    alike,
    any_in_row,
    count_in_row,
    first_in_row,
    least_in_row,
    most_in_row,
    sorted_rows,
    sum_in_row,
)


@pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1, FEW_ROWS_SORTED + 1])
@pytest.mark.parametrize("columns", [1, 4, 24])
def test_what_is_found_by_columns_is_what_rows_hold(columns: int, rows: int) -> None:
    """Ties, infinities and rows without a true column are among them, and few rows and many."""
    random = np.random.default_rng(columns)
    matrix = random.random((rows, columns)) < 0.2
    assert (any_in_row(matrix) == matrix.any(axis=1)).all()
    assert (count_in_row(matrix) == matrix.sum(axis=1)).all()
    expected = np.where(matrix.any(axis=1), matrix.argmax(axis=1), -1)
    assert (first_in_row(matrix) == expected).all()
    assert (count_in_row(matrix).dtype, first_in_row(matrix).dtype) == (np.int64, np.int64)
    for dtype in (np.int64, np.float64):
        numbers = random.integers(-3, 4, (rows, columns)).astype(dtype)
        if dtype is np.float64:
            numbers[matrix] = np.inf
        before = numbers.copy()
        assert (least_in_row(numbers) == numbers.min(axis=1)).all()
        assert (most_in_row(numbers) == numbers.max(axis=1)).all()
        assert (sorted_rows(numbers) == np.sort(numbers, axis=1)).all()
        assert sorted_rows(numbers).dtype == dtype
        assert (numbers == before).all()


def test_four_columns_are_sorted_whatever_their_order() -> None:
    rows = np.array(list(permutations(range(4))) + list(product((0, 1), repeat=4)))
    rows = np.tile(rows, (FEW_ROWS_SORTED // len(rows) + 1, 1))  # few are sorted otherwise
    assert (sorted_rows(rows) == np.sort(rows, axis=1)).all()


@pytest.mark.parametrize("rows", [3, FEW_ROWS + 1])
def test_a_sum_does_not_stay_in_a_byte(rows: int) -> None:
    counts = np.full((rows, 7), 255, dtype=np.uint8)
    total = sum_in_row(counts, np.int32)
    assert total.dtype == np.int32
    assert total.tolist() == [1785] * rows


def test_no_column_holds_nothing() -> None:
    """A listing without any offer has a row of no columns."""
    for rows in (3, FEW_ROWS + 1):
        nothing = np.zeros((rows, 0), dtype=bool)
        assert not any_in_row(nothing).any()
        assert (count_in_row(nothing) == 0).all()
        assert (first_in_row(nothing) == -1).all()


@pytest.mark.parametrize("values", [[], [7], [7, 7, 7], [7, 7, 8], [8, 7, 7]])
def test_what_stands_for_values_says_the_same_beside_each_row(values: list[int]) -> None:
    """Equal ones become one; whichever of them differs, nothing is lost."""
    numbers = np.array(values, dtype=np.int64)
    matrix = np.arange(3 * len(values)).reshape(-1, 3)
    assert (matrix + alike(numbers) == matrix + numbers[:, None]).all()
    assert alike(numbers).size == (1 if len(set(values)) == 1 else len(values))
