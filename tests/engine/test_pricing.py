"""Rows in, prices out: judged by the oracle, padded without a trace, and shut when in doubt."""

import json
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine import pricing
from engine.policy import POLICY_DTYPE, Policy, policy_row
from kernels import reasons
from kernels.models import constant_elasticity
from kernels.reprice import reprice
from perf import oracle
from perf import precedence as cases


def rows(count: int, **values: float) -> np.ndarray:
    """Return usual rows: cost 10.00, in force 16.00, but as given."""
    inputs = np.zeros(count, dtype=pricing.PRICING_INPUT_DTYPE)
    row = policy_row(Policy())
    for name in pricing.PRICING_POLICY_FIELDS:
        inputs[name] = row[name]
    usual = {"cost_minor": 1000, "in_force_minor": 1600, "floor_minor": 1053}
    for name, value in {**usual, "status_quo_cost_minor": -1, **values}.items():
        inputs[name] = value
    return inputs


@pytest.fixture
def fresh_kernel() -> Iterator[None]:
    """Let a test patch what the kernel calls: forget what was compiled, before and after."""
    jax.clear_caches()
    yield
    jax.clear_caches()


def test_random_cases_obey_precedence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cases.main(["--cases", "60000", "--seed", "7", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["violations"] == 0
    # A judge of cases that never come to a rule would judge nothing.
    counted = answer["counted"]
    kinds = ("no_cost", "no_floor", "infeasible", "model_invalid")
    for kind in (*reasons.RULES, *(f"refused_{kind}" for kind in kinds)):
        assert counted[kind] > 100, kind
    for rule in ("max_discount", "step", "rate", "kvi", "ending"):
        assert counted[f"yielded_{rule}"] > 50, rule


@pytest.mark.parametrize("wrong", ["floor", "ceiling", "step", "rate", "ending"])
def test_the_judge_sees_a_rule_that_is_left_out(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """Take one rule out of the oracle's input instead of the kernel, and it must complain."""
    plain, inputs = cases.random_cases(np.random.default_rng(5), 4_000)
    neutral = {
        "floor": ("floor_minor", np.minimum(inputs["floor_minor"], 1)),
        "ceiling": ("ceiling_minor", np.zeros(4_000)),
        "step": ("step_max_bp", np.full(4_000, 10_000)),
        "rate": ("changes_last_hour", np.zeros(4_000)),
        "ending": ("endings", np.zeros((4_000, 8))),
    }
    name, values = neutral[wrong]
    inputs[name] = values
    priced = pricing.price(inputs)
    plain["wish_minor"] = priced["target_minor"]
    assert oracle.judge(plain, priced["price_minor"])[wrong].any()


def test_nothing_compiles_after_warming(fresh_kernel: None) -> None:
    pricing.warm()
    shapes = pricing.compiled_shapes()
    for count in (1, 63, 64, 65, 300, 1024, 4096, 5000, 9000):
        pricing.price(rows(count))
    assert pricing.compiled_shapes() == shapes == len(pricing.LADDER)


def test_neither_the_padding_nor_the_neighbours_change_a_row() -> None:
    _, inputs = cases.random_cases(np.random.default_rng(6), 9_000)
    whole = pricing.price(inputs)
    pieces = np.split(inputs, [1, 40, 104, 500, 1525, 6000])
    assert np.concatenate([pricing.price(piece) for piece in pieces]).tobytes() == whole.tobytes()
    assert pricing.price(inputs[::-1])[::-1].tobytes() == whole.tobytes()


def test_no_rows_are_no_prices() -> None:
    assert len(pricing.price(rows(0))) == 0


@pytest.mark.parametrize("figure", [np.nan, np.inf, -np.inf, -5.0, 0.0])
def test_a_model_that_gives_no_figure_decides_nothing(
    monkeypatch: pytest.MonkeyPatch, fresh_kernel: None, figure: float
) -> None:
    def propose(state: constant_elasticity.State, sale: object) -> jax.Array:
        return jnp.where(jnp.arange(len(state.elasticity)) == 0, figure, 1625.0)

    monkeypatch.setattr(constant_elasticity, "propose", propose)
    broken, sound = pricing.price(rows(2))
    assert broken["price_minor"] == broken["target_minor"] == 0
    assert broken["reasons"] & reasons.MODEL_INVALID
    assert sound["price_minor"] == 1625
    assert not sound["reasons"] & reasons.MODEL_INVALID


def test_a_kernel_that_breaks_a_bound_is_clamped_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def careless(integers: np.ndarray, floats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counted, weighed = (np.array(part) for part in reprice(integers, floats))
        counted[0] = [900, 2000, 1625, 1625, 1625, 1625] + [0] * (counted.shape[1] - 6)
        return counted, weighed

    inputs = rows(6, ceiling_minor=1900)
    inputs["cost_minor"][3] = -1
    inputs["floor_minor"][4] = 0
    inputs["map_minor"][5] = 1901
    monkeypatch.setattr(pricing, "reprice", careless)
    priced = pricing.price(inputs)
    assert priced["price_minor"].tolist() == [1053, 1900, 1625, 0, 0, 0]
    clamped = (priced["reasons"] & reasons.CLAMPED) != 0
    assert clamped.tolist() == [True, True, False, True, True, True]


def test_infeasible_rows_tell_what_contradicts_what() -> None:
    priced = pricing.price(rows(1, ceiling_minor=1000, map_minor=1100))[0]
    assert (priced["infeasible"], priced["unpublishable"], priced["price_minor"]) == (1, 0, 0)
    assert (priced["floor_minor"], priced["ceiling_minor"]) == (1100, 1000)


def test_a_row_without_cost_is_unpublishable() -> None:
    priced = pricing.price(rows(1, cost_minor=-1, floor_minor=0))[0]
    assert (priced["infeasible"], priced["unpublishable"], priced["price_minor"]) == (0, 1, 0)


def test_columns_copied_from_the_policy_mean_the_same_in_both() -> None:
    for name in pricing.PRICING_POLICY_FIELDS:
        assert pricing.PRICING_INPUT_DTYPE[name] == POLICY_DTYPE[name]
