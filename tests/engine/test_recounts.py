"""Who was counted at another stock than his sales had left, found for a whole block at once."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from engine.facts import _note_recounts
from engine.memory import Counts, Work
from engine.microbatch import STOCK_COUNTED, UNITS_SOLD, FactColumns
from kernels.hyperparameters import RECOUNT_SHARE

ROWS = 40


def block(random: np.random.Generator, facts: int) -> tuple[FactColumns, np.ndarray]:
    """Return counts and sales at random times, and the row of each."""
    kind = random.choice([STOCK_COUNTED, UNITS_SOLD], facts)
    columns: dict[str, Any] = dict.fromkeys(FactColumns.__struct_fields__, kind)
    columns |= {
        "kind": kind,
        "amount": random.integers(0, 6, facts),
        "observed_ms": random.integers(0, 20, facts),
    }
    return FactColumns(**columns), random.integers(0, ROWS, facts)


@pytest.mark.parametrize("seed", range(30))
def test_a_block_finds_the_recounts_that_a_look_at_each_row_finds(seed: int) -> None:
    """Rows without a count, sales that the count did not know of, and refused ones are among it."""
    random = np.random.default_rng(seed)
    facts, rows = block(random, 120)
    stock_ms = random.integers(0, 20, ROWS)
    counted = random.permutation(ROWS)[: random.integers(0, ROWS)]
    many = len(counted)
    counts = Counts(
        counted,
        random.integers(-3, 12, many),
        random.integers(-1, 12, many),
        random.integers(-1, 20, many),
        random.random(many) < 0.1,
        random.random(many) < 0.9,
    )
    taken = random.random(len(rows)) < 0.8
    expected = []
    columns = (column.tolist() for column in counts)
    for row, stood, found, _, unknown, _ in zip(*columns, strict=True):
        known = taken & (facts.kind == UNITS_SOLD) & (rows == row)
        sold = int(facts.amount[known & (facts.observed_ms <= stock_ms[row])].sum())
        left = max(stood - sold, 0)
        if unknown or abs(max(found, 0) - left) > RECOUNT_SHARE * left:
            expected.append(row)
    listings = SimpleNamespace(listings={"stock_ms": stock_ms})
    memory = SimpleNamespace(listings=listings, learnt=SimpleNamespace(any=False))
    work = Work(20)
    _note_recounts(cast(Any, memory), work, counts, facts, rows, taken)
    told = [row for piece in work.recounted for row in piece.tolist()]
    assert told == expected
