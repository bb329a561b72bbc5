"""From rows of plain facts to rows of decided prices: pack, run the kernel, unpack, clamp again.

The one door between the shard's tables and the jitted kernel. Rows are padded to a fixed ladder
of sizes, so that nothing compiles after :func:`warm`; a padded row is unpublishable and dropped.

Units. Money is int32 in minor units of the listing's currency. ``price_minor`` 0 means that
nothing is decided: the price in force stays, and the reasons tell why.
"""

from bisect import bisect_left
from typing import Any, cast

import numpy as np

from engine.policy import ENDINGS_MAX
from kernels import reasons
from kernels.columns import Floats, Integers, PricedFloats, PricedIntegers
from kernels.limits import PRICE_MINOR_MAX
from kernels.models import constant_elasticity as model
from kernels.reprice import reprice

PRICING_INPUT_DTYPE = np.dtype(
    [
        ("cost_minor", "<i4"),  # -1: unknown
        ("in_force_minor", "<i4"),  # 0: none
        ("status_quo_minor", "<i4"),  # price found at import, 0: none
        ("status_quo_cost_minor", "<i4"),  # the cost then, -1: unknown
        ("rrp_minor", "<i4"),  # 0: none
        ("map_minor", "<i4"),  # 0: none
        ("floor_minor", "<i4"),  # engine.floors.floor_minor: margin and explicit floor; 0: none
        ("ceiling_minor", "<i4"),  # 0: none
        ("rival_minor", "<i4"),  # reference rival, landed; 0: none
        ("rivals", "<u2"),
        ("stock", "<i4"),  # -1: unknown
        ("changes_last_hour", "<i4"),
        ("kvi", "u1"),
        ("vat", "<f8"),
        ("commission", "<f8"),
        ("fixed_fee_minor", "<i4"),
        ("minimum_fee_minor", "<i4"),
        # from the resolved policy, named as in POLICY_DTYPE
        ("max_discount_bp", "<i4"),
        ("step_max_bp", "<i4"),
        ("changes_per_hour_max", "<i4"),
        ("kvi_rival_ratio_bp", "<i4"),
        ("braked_minor", "<i4"),  # engine.brake, 0: off
        ("endings", "<i4", (ENDINGS_MAX,)),
        ("prior_elasticity", "<f4"),
        ("prior_elasticity_sd", "<f4"),
        ("status_quo_sigma", "<f4"),
        ("asked_minor", "<f4"),  # by learnt demand or an arm instead of the model, 0: nothing
    ]
)
"""What one listing is priced from."""

PRICING_POLICY_FIELDS = (
    "ceiling_minor",
    "max_discount_bp",
    "step_max_bp",
    "changes_per_hour_max",
    "kvi_rival_ratio_bp",
    "endings",
    "prior_elasticity",
    "prior_elasticity_sd",
    "status_quo_sigma",
)
"""Columns that are copied from ``POLICY_DTYPE`` as they are, under the same name."""

PRICED_DTYPE = np.dtype(
    [
        ("price_minor", "<i4"),  # 0: nothing decided, the price in force stays
        ("target_minor", "<i4"),  # the model's optimum before any rule; 0: invalid
        ("floor_minor", "<i4"),  # bounds after all rules but the ending
        ("ceiling_minor", "<i4"),
        ("reasons", "<u4"),  # kernels.reasons
        ("binding", "u1"),  # index in kernels.reasons.BINDINGS, 255: none
        ("without_minor", "<i4"),  # the price if the binding rule were absent; 0: none
        ("elasticity", "<f4"),
        ("elasticity_sd", "<f4"),
        ("confidence", "<f4"),
        ("profit_change", "<f4"),  # expected, minor units per unit of today's demand
        ("infeasible", "u1"),
        ("unpublishable", "u1"),
    ]
)
"""What :func:`price` decides for one listing."""


LADDER = (64, 256, 1024, 4096)
"""Padded sizes; what is longer is priced in pieces of the largest."""

MODEL = model.VERSION
"""What the mark of a decision names."""


def price(inputs: np.ndarray) -> np.ndarray:
    """Decide a price for every row.

    Args:
        inputs: ``PRICING_INPUT_DTYPE``[rows].

    Returns:
        ``PRICED_DTYPE``[rows]. Where ``price_minor`` is not 0, it obeys legal, floor and ceiling
        exactly, whatever the kernel returned.
    """
    assert inputs.dtype == PRICING_INPUT_DTYPE
    priced = np.empty(len(inputs), dtype=PRICED_DTYPE)
    for start in range(0, len(inputs), LADDER[-1]):
        piece = slice(start, start + LADDER[-1])
        _price_piece(inputs[piece], priced[piece])
    return priced


def compiled_shapes() -> int:
    """Return how many shapes of the kernel are compiled: constant after :func:`warm`."""
    return int(cast(Any, reprice)._cache_size())


def warm() -> None:
    """Compile the kernel for every size of the ladder."""
    for rows in LADDER:
        price(np.zeros(rows, dtype=PRICING_INPUT_DTYPE))


def _price_piece(inputs: np.ndarray, priced: np.ndarray) -> None:
    """Price at most ``LADDER[-1]`` rows into ``priced``."""
    integers, floats = reprice(*_packed(inputs))
    counted, weighed = np.asarray(integers), np.asarray(floats)
    rows = len(inputs)
    for index, name in enumerate(PricedIntegers._fields):
        priced[name] = counted[index, :rows]
    for index, name in enumerate(PricedFloats._fields):
        priced[name] = weighed[index, :rows]
    _clamp(inputs, priced)
    reasons_ = priced["reasons"]
    priced["infeasible"] = (reasons_ & reasons.INFEASIBLE) != 0
    priced["unpublishable"] = (reasons_ & (reasons.NO_COST | reasons.NO_FLOOR)) != 0


def _packed(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stack the columns, padded to the ladder with rows that cannot be published."""
    rows = len(inputs)
    padded = LADDER[bisect_left(LADDER, rows)]
    integers = np.zeros((len(Integers._fields), padded), dtype=np.int32)
    floats = np.zeros((len(Floats._fields), padded), dtype=np.float32)
    floats[_PRIOR_COLUMNS, rows:] = _PRIOR_PADDING
    for index, name in enumerate(_PLAIN_INTEGERS):
        integers[index, :rows] = inputs[name]
    integers[len(_PLAIN_INTEGERS) :, :rows] = inputs["endings"].T
    for index, name in enumerate(Floats._fields):
        floats[index, :rows] = inputs[name]
    return integers, floats


def _clamp(inputs: np.ndarray, priced: np.ndarray) -> None:
    """Refuse or correct, in integers, what breaks legal, floor or ceiling.

    The kernel has done the same; this is the second lock on the one door, and a row that it
    changes carries the bit ``clamped``.
    """
    price = priced["price_minor"]
    least = np.maximum(np.maximum(inputs["map_minor"], inputs["floor_minor"]), 1)
    most = np.where(inputs["ceiling_minor"] > 0, inputs["ceiling_minor"], PRICE_MINOR_MAX)
    unknown = (inputs["cost_minor"] < 0) | (inputs["floor_minor"] <= 0) | (least > most)
    clamped = np.minimum(np.maximum(price, least), most)
    clamped[unknown | (price == 0)] = 0
    changed = clamped != price
    if np.count_nonzero(changed):
        priced["reasons"][changed] |= reasons.CLAMPED
        priced["price_minor"] = clamped


_PLAIN_INTEGERS = Integers._fields[:-ENDINGS_MAX]
_PRIOR_COLUMNS = [Floats._fields.index(n) for n in ("prior_elasticity", "prior_elasticity_sd")]
_PRIOR_PADDING = np.array([[-2.6], [0.7]], dtype=np.float32)
