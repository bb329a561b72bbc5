"""Intervals shrink by intersection, and a rule that would empty one yields."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.bounds import BASIS_POINTS, intersect, share_down
from kernels.limits import PRICE_MINOR_MAX
from tests.kernels.rows import interval, plain

prices = st.one_of(
    st.integers(1, 50), st.integers(1, PRICE_MINOR_MAX), st.integers(PRICE_MINOR_MAX - 9, 2**30)
)


@settings(deadline=None, max_examples=200)
@given(prices, prices, prices, prices)
def test_the_interval_keeps_what_both_allow_or_its_end_nearest_to_the_rule(
    first: int, second: int, third: int, fourth: int
) -> None:
    low, high = sorted((first, second))
    least, most = sorted((third, fourth))
    found = plain(intersect(interval(low, high), jnp.array([least]), jnp.array([most])))
    if least > high:
        assert found == (high, high, True)
    elif most < low:
        assert found == (low, low, True)
    else:
        assert found == (max(low, least), min(high, most), False)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 2**30), st.integers(0, 10_000)), min_size=20, max_size=20))
def test_a_share_is_exact_where_its_product_leaves_int32(pairs: list[tuple[int, int]]) -> None:
    amounts, ratios = (jnp.array(column, jnp.int32) for column in zip(*pairs, strict=True))
    exact = [amount * ratio // BASIS_POINTS for amount, ratio in pairs]
    assert np.asarray(share_down(amounts, ratios)).tolist() == exact
