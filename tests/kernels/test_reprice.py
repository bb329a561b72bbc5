"""The fused kernel: rows know nothing of each other, and what is invalid decides nothing."""

import jax.numpy as jnp
import numpy as np
import pytest

from kernels import reasons
from kernels.columns import Floats, Integers, PricedFloats, PricedIntegers
from kernels.reprice import reprice
from tests.kernels.rows import NEUTRAL

USUAL = {"cost_minor": 1000, "in_force_minor": 1600, "floor_minor": 1053}
PRIOR = {"prior_elasticity": -2.6, "prior_elasticity_sd": 0.7, "status_quo_sigma": 0.2}


def decided(rows: list[dict[str, float]], padded: int = 64) -> list[dict[str, float]]:
    """Run the kernel on rows given as what differs from a usual one."""
    integers = np.zeros((len(Integers._fields), padded), np.int32)
    floats = np.zeros((len(Floats._fields), padded), np.float32)
    for row, given in enumerate(rows):
        values = {**NEUTRAL, **USUAL, **PRIOR, **given}
        for index, name in enumerate(Integers._fields):
            integers[index, row] = values.get(name, 0)
        for index, name in enumerate(Floats._fields):
            floats[index, row] = values.get(name, 0.0)
    counted, weighed = (np.asarray(part) for part in reprice(integers, floats))
    names = (*PricedIntegers._fields, *PricedFloats._fields)
    return [
        dict(zip(names, [*counted[:, row].tolist(), *weighed[:, row].tolist()], strict=True))
        for row in range(len(rows))
    ]


def test_within_its_bounds_the_price_is_the_models() -> None:
    row = decided([{}])[0]
    assert row["price_minor"] == row["target_minor"] == row["without_minor"] == 1625
    assert row["binding"] == reasons.BINDING_NONE
    assert row["reasons"] == 0
    assert (row["floor_minor"], row["ceiling_minor"]) == (1280, 1920)
    assert row["profit_change"] > 0


@pytest.mark.parametrize(
    ("given", "rule", "price", "without"),
    [
        ({"map_minor": 1700}, "legal", 1700, 1625),
        ({"floor_minor": 1700}, "floor", 1700, 1625),
        ({"ceiling_minor": 1500}, "ceiling", 1500, 1625),
        ({"rrp_minor": 2000, "max_discount_bp": 1_000}, "max_discount", 1800, 1625),
        ({"in_force_minor": 1000}, "step", 1200, 1625),
        ({"in_force_minor": 1500, "changes_last_hour": 10}, "rate", 1500, 1625),
        ({"kvi": 1, "rival_minor": 1400}, "kvi", 1400, 1625),
        ({"ending_0": 20_099}, "ending", 1599, 1625),
    ],
)
def test_each_rule_moves_the_price_and_is_named(
    given: dict[str, float], rule: str, price: int, without: int
) -> None:
    row = decided([given])[0]
    index = reasons.RULES.index(rule)
    assert row["price_minor"] == price
    assert row["binding"] == index
    assert int(row["reasons"]) & 255 == 1 << index
    assert row["without_minor"] == without


def test_a_braked_rule_is_named_and_compared_with_the_rule_in_full() -> None:
    row, whole = decided(
        [{"kvi": 1, "rival_minor": 1400, "braked_minor": braked} for braked in (1512, 1700)]
    )
    assert (row["price_minor"], row["without_minor"], row["target_minor"]) == (1512, 1400, 1625)
    assert reasons.BINDINGS[int(row["binding"])] == "brake"
    assert int(row["reasons"]) == 1 << reasons.KVI | reasons.OVERRIDDEN
    # It lets the whole wish through, and still the price would be another without it.
    assert (whole["price_minor"], whole["without_minor"]) == (1625, 1400)
    assert (whole["binding"], whole["reasons"]) == (reasons.BRAKE, reasons.OVERRIDDEN)
    # What the rule does not touch, the brake does not either.
    free = decided([{"kvi": 1, "rival_minor": 1700, "braked_minor": 1700}])[0]
    assert (free["price_minor"], free["reasons"]) == (1625, 0)
    assert free["binding"] == reasons.BINDING_NONE


def test_the_price_without_a_rule_still_obeys_the_others() -> None:
    row = decided([{"floor_minor": 2500, "in_force_minor": 1000, "ceiling_minor": 3000}])[0]
    assert row["price_minor"] == 2500
    assert reasons.RULES[int(row["binding"])] == "floor"
    assert row["without_minor"] == 1200
    assert int(row["reasons"]) & reasons.OVERRIDDEN


@pytest.mark.parametrize(
    ("given", "bit"),
    [
        ({"cost_minor": -1}, reasons.NO_COST),
        ({"floor_minor": 0}, reasons.NO_FLOOR),
        ({"ceiling_minor": 1000}, reasons.INFEASIBLE),
        ({"map_minor": 2000, "ceiling_minor": 1999}, reasons.INFEASIBLE),
        ({"floor_minor": 2**30 + 1}, reasons.INFEASIBLE),
        ({"prior_elasticity": np.nan}, reasons.MODEL_INVALID),
        ({"prior_elasticity": 2.6}, reasons.MODEL_INVALID),
        ({"prior_elasticity_sd": np.nan}, reasons.MODEL_INVALID),
    ],
)
def test_what_cannot_be_priced_is_not_priced(given: dict[str, float], bit: int) -> None:
    row, usual = decided([given, {}])
    assert row["price_minor"] == row["without_minor"] == 0
    assert int(row["reasons"]) & bit
    assert row["binding"] == reasons.BINDING_NONE
    assert usual["price_minor"] == 1625


def test_the_first_price_knows_no_step() -> None:
    row = decided([{"in_force_minor": 0}])[0]
    assert row["price_minor"] == 1625
    assert int(row["reasons"]) & reasons.FIRST_PRICE
    assert row["profit_change"] == 0


def test_neither_neighbours_nor_padding_change_a_row() -> None:
    draw = np.random.default_rng(7)
    rows = [
        {"cost_minor": int(cost), "in_force_minor": int(cost * 1.5), "floor_minor": int(cost) + 1}
        for cost in draw.integers(1, 100_000, 60)
    ]
    alone = [decided([row])[0] for row in rows]
    assert decided(rows) == alone
    assert decided(rows[::-1], padded=256)[::-1] == alone


def test_it_takes_two_arrays_and_gives_two() -> None:
    integers = jnp.zeros((len(Integers._fields), 64), jnp.int32)
    floats = jnp.ones((len(Floats._fields), 64), jnp.float32)
    counted, weighed = reprice(integers, floats)
    assert counted.shape == (len(PricedIntegers._fields), 64)
    assert counted.dtype == jnp.int32
    assert weighed.shape == (len(PricedFloats._fields), 64)
    assert weighed.dtype == jnp.float32
