"""Counts of an hour's changes move on by slots of ten minutes, as if each were moved by hand."""

import numpy as np
import pytest

from engine.listing_table import CHANGE_SLOTS
from engine.quotes import _later


@pytest.mark.parametrize("slots", [1, 2, 7, 8, 9, 2**31 - 1])
def test_counts_move_on_and_the_oldest_are_forgotten(slots: int) -> None:
    counts = np.random.default_rng(slots).integers(0, 256, (50, CHANGE_SLOTS)).astype(np.uint8)
    mixed = np.where(np.arange(50) % 3 > 0, slots, 3)
    later = _later(counts, mixed)
    assert later.dtype == np.uint8
    for row, passed in enumerate(mixed.tolist()):
        kept = counts[row, : max(CHANGE_SLOTS - passed, 0)].tolist()
        assert later[row].tolist() == [0] * (CHANGE_SLOTS - len(kept)) + kept
