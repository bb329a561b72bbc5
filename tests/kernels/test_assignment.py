"""Arms are balanced, stable when a catalogue grows, and independent of each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.assignment import CONTROL, TREATED, arms, drawn

KEYS = np.random.default_rng(0).integers(0, 2**63, 20_000).astype(np.uint64)
DESIGNS = ("product", "crossover", "switchback")


def treated(design: str, keys: np.ndarray, salt: int, share: float, block: int) -> np.ndarray:
    return arms(design, keys, salt, share, block) == TREATED


@given(salt=st.integers(0, 2**64 - 1), share=st.floats(0.1, 0.9))
def test_shares_are_what_was_asked_for(salt: int, share: float) -> None:
    found = treated("product", KEYS, salt, share, 0).mean()
    assert abs(found - share) < 5 * np.sqrt(share * (1 - share) / len(KEYS))


@given(salt=st.integers(0, 2**64 - 1), block=st.integers(0, 50), cut=st.integers(1, 19_999))
@pytest.mark.parametrize("design", DESIGNS)
def test_an_arm_does_not_change_when_listings_come_or_go(
    design: str, salt: int, block: int, cut: int
) -> None:
    whole = arms(design, KEYS, salt, 0.5, block)
    np.testing.assert_array_equal(whole[:cut], arms(design, KEYS[:cut], salt, 0.5, block))
    np.testing.assert_array_equal(whole[::-1], arms(design, KEYS[::-1], salt, 0.5, block))
    assert set(np.unique(whole).tolist()) <= {CONTROL, TREATED}


@given(salt=st.integers(0, 2**64 - 1), pair=st.integers(0, 20))
@pytest.mark.parametrize("design", ["crossover", "switchback"])
def test_each_pair_of_blocks_holds_both_arms(design: str, salt: int, pair: int) -> None:
    first, second = (treated(design, KEYS, salt, 0.5, 2 * pair + at) for at in (0, 1))
    np.testing.assert_array_equal(first, ~second)


def test_a_crossovers_orders_are_drawn_anew_a_pair() -> None:
    first = np.array([treated("crossover", KEYS, 7, 0.5, 2 * pair) for pair in range(6)])
    assert (np.abs(first.mean(axis=1) - 0.5) < 0.02).all()
    alike = np.corrcoef(first.astype(float))[np.triu_indices(6, 1)]
    assert (np.abs(alike) < 0.04).all()


def test_a_switchback_is_the_same_for_all() -> None:
    for block in range(8):
        assert len(set(arms("switchback", KEYS, 3, 0.5, block).tolist())) == 1
    starts = [bool(treated("switchback", KEYS[:1], salt, 0.5, 0)[0]) for salt in range(400)]
    assert 0.4 < np.mean(starts) < 0.6


def test_experiments_are_independent_of_each_other() -> None:
    one, other = drawn(KEYS, 1), drawn(KEYS, 2)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert abs(one.mean() - 0.5) < 0.01 and one.min() >= 0.0 and one.max() < 1.0
