"""Names and bits of reasons are one list, and cost nobody a jax."""

import subprocess
import sys

import pytest

from kernels import reasons
from kernels.rules import RULES


def test_every_bit_has_one_name() -> None:
    bits = {
        name: value
        for name, value in vars(reasons).items()
        if name.isupper() and isinstance(value, int) and value >= 256
    }
    assert set(bits.values()) | {1 << k for k in range(8)} == set(reasons.REASONS)
    assert len(set(bits.values())) == len(bits)
    assert all(value.bit_count() == 1 and value < 2**32 for value in bits.values())
    assert {name.lower() for name in bits} <= set(reasons.REASONS.values())


def test_rules_are_named_in_the_order_in_which_they_run() -> None:
    modules = [rule.__module__.rpartition(".")[2] for rule in RULES]
    assert tuple(modules) == reasons.RULES
    assert reasons.RULES[reasons.STEP] == "step"
    assert reasons.RULES[reasons.ENDING] == "ending"
    assert reasons.BINDINGS[: len(reasons.RULES)] == reasons.RULES
    assert reasons.BINDINGS[reasons.BRAKE] == "brake"


def test_a_mask_is_told_by_its_names() -> None:
    mask = 1 << reasons.FLOOR | reasons.OVERRIDDEN | reasons.PINNED
    assert reasons.names(mask) == ("floor", "overridden", "pinned")
    assert reasons.names(0) == ()


@pytest.mark.parametrize(
    "module",
    ["kernels.reasons", "kernels.limits", "engine.policy", "engine.floors", "engine.explanation"],
)
def test_who_only_explains_pays_for_no_jax(module: str) -> None:
    program = f"import sys, {module}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
