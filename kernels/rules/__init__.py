"""The retailer's hard bounds, one file a rule; their order in ``RULES`` is their priority.

A rule is a function ``narrow(columns, price_minor, bounds) -> Bounds``. ``price_minor`` is where
the rules before it left the price, which only a rule with gaps (the ending) needs. The names, for
masks and explanations, stand in ``kernels.reasons.RULES`` in the same order.
"""

from collections.abc import Callable

import jax

from kernels.bounds import Bounds
from kernels.columns import Integers
from kernels.rules import ceiling, ending, floor, kvi, legal, max_discount, rate, step

Rule = Callable[[Integers, jax.Array, Bounds], Bounds]

RULES: tuple[Rule, ...] = (
    legal.narrow,
    floor.narrow,
    ceiling.narrow,
    max_discount.narrow,
    step.narrow,
    rate.narrow,
    kvi.narrow,
    ending.narrow,
)
"""Strongest first."""
