"""The least price at which a sale earns the margin that the retailer asks for, exact to the cent.

With VAT ``v`` (prices include it), commission ``r`` of the gross price but at least ``m``, a fixed
fee ``f`` and unit cost ``c``, a sale at gross price ``p`` earns ``p/(1+v) - max(r*p, m) - f - c``
on net revenue ``p/(1+v)``. The floor is the least integer ``p`` for which the one is at least
``g`` times the other, which is two linear conditions, one for each side of the ``max``::

    p * ((1-g)/(1+v) - r) >= c + f        and        p * (1-g)/(1+v) >= c + f + m

A floor is a promise, so nothing here trusts a float: ratios are taken as millionths, the quotient
is guessed in float64 and then proved in integers of two limbs, since the products need 73 bits.
"""

import numpy as np

from kernels.limits import PRICE_MINOR_MAX

FLOOR_NONE = 0
"""No floor: the cost is unknown, so the row cannot be published."""

FLOOR_UNREACHABLE = PRICE_MINOR_MAX + 1
"""No price a row can hold earns the margin, so legal, floor and ceiling leave nothing."""

PARTS = 1_000_000
"""Ratios count to six decimals: 0.19 is 190,000 millionths."""

_LIMB = 20
_MASK = (1 << _LIMB) - 1


def floor_minor(
    cost_minor: np.ndarray,
    min_margin_bp: np.ndarray,
    vat: np.ndarray,
    commission: np.ndarray,
    fixed_fee_minor: np.ndarray,
    minimum_fee_minor: np.ndarray,
    explicit_minor: np.ndarray,
) -> np.ndarray:
    """Return the higher of the margin floor and the explicit one, for every row.

    Args:
        cost_minor: int[rows], landed unit cost, -1 where unknown.
        min_margin_bp: int[rows], least margin on net revenue in ten-thousandths, < 10,000.
        vat, commission: float[rows], ratios in [0, 1).
        fixed_fee_minor, minimum_fee_minor: int[rows], >= 0.
        explicit_minor: int[rows], the policy's ``floor_minor``, 0 where none.

    Returns:
        int32[rows]: the floor, at least 1; ``FLOOR_NONE`` where the cost is unknown, whatever the
        explicit floor says, and ``FLOOR_UNREACHABLE`` where no price earns the margin.
    """
    known = cost_minor >= 0
    keep = PARTS - min_margin_bp.astype(np.int64) * (PARTS // 10_000)
    gross = PARTS + millionths(vat)
    fee = millionths(commission)
    owed = np.where(known, cost_minor, 0).astype(np.int64) + fixed_fee_minor
    proportional = _least_multiple(owed, PARTS * gross, keep * PARTS - fee * gross)
    floor = np.maximum(proportional, np.maximum(explicit_minor, 1))
    # Without a minimum fee the first condition is the harder one.
    if np.count_nonzero(minimum_fee_minor):
        floor = np.maximum(floor, _least_multiple(owed + minimum_fee_minor, gross, keep))
    return np.where(known, floor, FLOOR_NONE).astype(np.int32)


def millionths(ratio: np.ndarray) -> np.ndarray:
    """Return ``ratio`` in millionths, int64, rounded to the nearest."""
    return np.asarray(np.rint(np.asarray(ratio, dtype=np.float64) * PARTS).astype(np.int64))


def _least_multiple(owed: np.ndarray, times: np.ndarray, each: np.ndarray) -> np.ndarray:
    """Return the least ``p >= 1`` with ``p * each >= owed * times``, or ``FLOOR_UNREACHABLE``.

    ``owed`` < 2**33, ``times`` and ``each`` < 2**41; ``each`` may be zero or negative.
    """
    positive = each > 0
    divisor = np.where(positive, each, 1)
    guess = np.ceil(owed.astype(np.float64) * times / divisor)
    price = np.minimum(np.maximum(guess, 1.0), FLOOR_UNREACHABLE).astype(np.int64)
    # The guess is off by less than one part in 2**50 of at most 2**30, so by one at most. Of small
    # costs the products stay below 2**62: price * each is owed * times and two times each at most.
    covers = _covers_small if int(owed.max(initial=0)) < 2**20 else _covers
    lower = np.maximum(price - 1, 1)
    price = np.where(covers(lower, divisor, owed, times), lower, price)
    price = np.where(covers(price, divisor, owed, times), price, price + 1)
    if np.count_nonzero(positive) < len(positive):
        free = (owed == 0) & (each == 0)
        price = np.where(positive, price, np.where(free, 1, FLOOR_UNREACHABLE))
    return np.asarray(np.minimum(price, FLOOR_UNREACHABLE))


def _covers(price: np.ndarray, each: np.ndarray, owed: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return whether ``price * each >= owed * times``, exactly."""
    left_high, left_low = _product(price, each)
    right_high, right_low = _product(owed, times)
    return np.asarray(
        (left_high > right_high) | ((left_high == right_high) & (left_low >= right_low))
    )


def _covers_small(
    price: np.ndarray, each: np.ndarray, owed: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """Return what :func:`_covers` does, where both products fit 63 bits."""
    return np.asarray(price * each >= owed * times)


def _product(small: np.ndarray, large: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = small * (large & _MASK)
    return small * (large >> _LIMB) + (low >> _LIMB), low & _MASK
