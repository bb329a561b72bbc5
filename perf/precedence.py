"""Price random cases with the engine and have them judged by an oracle that does not know it.

``python -m perf.precedence --cases 1000000 --json``

Every case is a policy that a retailer could write, read by the production decoder, and a listing
with costs, fees, VAT, bounds and rivals of any size, many of them at the edges. The oracle says
which prices the written precedence allows; whatever else was decided is a violation.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from engine import floors, pricing
from engine.policy import PolicyBook, policy_row
from kernels.limits import PRICE_MINOR_MAX
from kernels.reasons import REASONS, RULES
from perf import oracle

POLICIES_PER_PIECE = 64
CASES_PER_PIECE = 65_536


def random_policy(draw: np.random.Generator, scale: float) -> dict[str, Any]:
    """Return the fields of a policy as a retailer would write them, for prices around ``scale``."""
    fields: dict[str, Any] = {
        "min_margin": _decimals(draw, 0.0, 0.6, 4),
        "max_discount": _decimals(draw, 0.0, 1.0, 4),
        "step_max": float(draw.choice([0.0, 0.05, 0.2, 1.0, _decimals(draw, 0.0, 1.0, 4)])),
        "changes_per_hour_max": int(draw.choice([0, 1, 10, 255])),
        "kvi_rival_ratio_max": _decimals(draw, 0.5, 2.0, 4),
        "endings": list(ENDINGS[draw.integers(len(ENDINGS))]),
        "prior_elasticity": -float(draw.uniform(1.05, 8.0)),
        "prior_elasticity_sd": float(draw.uniform(0.05, 2.0)),
        "status_quo_sigma": float(draw.uniform(0.05, 0.6)),
    }
    for name, share in (("floor_minor", 0.3), ("ceiling_minor", 1.2)):
        if draw.random() < 0.5:
            bound = scale * share * 10.0 ** draw.uniform(0.0, 1.0)
            fields[name] = int(np.clip(bound, 1, PRICE_MINOR_MAX))
    if fields.get("floor_minor", 0) > fields.get("ceiling_minor", PRICE_MINOR_MAX):
        del fields["floor_minor"]
    return fields


ENDINGS: tuple[tuple[str, ...], ...] = (
    (),
    (),
    ("99",),
    ("95", "99"),
    ("9",),
    ("0", "5"),
    ("00",),
    ("999", "499"),
    ("0000", "9999"),
    ("09", "19", "29", "39", "49", "59", "69", "79"),
)


def _decimals(draw: np.random.Generator, low: float, high: float, places: int) -> float:
    return round(float(draw.uniform(low, high)), places)


def random_cases(draw: np.random.Generator, rows: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return (plain columns for the oracle, rows for the engine) of random listings."""
    scales = 10.0 ** draw.uniform(0.5, 9.0, POLICIES_PER_PIECE)
    chosen = draw.integers(0, POLICIES_PER_PIECE, rows)
    plain = _random_listings(draw, scales[chosen])
    policies = _with_policies(draw, plain, scales, chosen)
    inputs = np.zeros(rows, dtype=pricing.PRICING_INPUT_DTYPE)
    for name in pricing.PRICING_POLICY_FIELDS:
        inputs[name] = policies[name]
    for name in inputs.dtype.names or ():
        if name in plain and name not in pricing.PRICING_POLICY_FIELDS:
            inputs[name] = plain[name]
    floor = floors.floor_minor(
        plain["cost_minor"],
        policies["min_margin_bp"],
        plain["vat"],
        plain["commission"],
        plain["fixed_fee_minor"],
        plain["minimum_fee_minor"],
        policies["floor_minor"],
    )
    inputs["floor_minor"] = np.where(plain["floor_known"], floor, floors.FLOOR_NONE)
    # A model that is not a number, or that says people buy more when it is dearer.
    broken = draw.random(rows) < 0.01
    inputs["prior_elasticity"][broken] = draw.choice([np.nan, 3.0, -0.5, np.inf], broken.sum())
    inputs["status_quo_minor"][broken] = 0
    return plain, inputs


def _random_listings(draw: np.random.Generator, scale: np.ndarray) -> dict[str, np.ndarray]:
    rows = len(scale)
    cost = np.clip(scale * 10.0 ** draw.uniform(-1.0, 0.3, rows), 0, PRICE_MINOR_MAX / 2)

    def around(share_absent: float, low: float, high: float) -> np.ndarray:
        value = np.clip(cost * draw.uniform(low, high, rows), 1, PRICE_MINOR_MAX)
        return np.where(draw.random(rows) < share_absent, 0, value).astype(np.int64)

    fees = np.where(draw.random(rows) < 0.5, 0.0, cost * draw.uniform(0.0, 0.3, rows))
    minimum = np.where(draw.random(rows) < 0.5, 0.0, cost * draw.uniform(0.0, 0.3, rows))
    return {
        "cost_minor": np.where(
            draw.random(rows) < 0.02, -1, cost * (draw.random(rows) > 0.01)
        ).astype(np.int64),
        "in_force_minor": around(0.1, 0.5, 4.0),
        "status_quo_minor": around(0.3, 0.8, 3.0),
        "status_quo_cost_minor": around(0.2, 0.8, 1.2) - 1,
        "rrp_minor": around(0.5, 0.8, 4.0),
        "map_minor": around(0.7, 0.5, 3.0),
        "rival_minor": around(0.3, 0.5, 4.0),
        "rivals": draw.integers(0, 10, rows),
        "stock": draw.integers(-1, 1000, rows),
        "changes_last_hour": draw.integers(0, 13, rows),
        "kvi": draw.random(rows) < 0.4,
        "vat": draw.choice([0.0, 0.07, 0.19, 0.2, 0.255], rows),
        "commission": np.round(draw.choice([0.0, 0.08, 0.15, 0.1525, 0.6], rows), 6),
        "fixed_fee_minor": fees.astype(np.int64),
        "minimum_fee_minor": minimum.astype(np.int64),
        "floor_known": draw.random(rows) >= 0.01,
    }


def _with_policies(
    draw: np.random.Generator,
    plain: dict[str, np.ndarray],
    scales: np.ndarray,
    chosen: np.ndarray,
) -> np.ndarray:
    """Add each listing's policy to its plain columns; return the same as the book resolves it."""
    book, written = PolicyBook(), []
    for number in range(POLICIES_PER_PIECE):
        fields = random_policy(draw, scales[number])
        book.change("r", "channel", f"c{number}", fields)
        written.append(fields)
    table = np.stack(
        [
            policy_row(book.resolve("r", f"c{number}", "", (), ""))
            for number in range(POLICIES_PER_PIECE)
        ]
    )
    for name, column in (
        ("min_margin", "min_margin"),
        ("max_discount", "max_discount"),
        ("step_max", "step_max"),
        ("kvi_rival_ratio_max", "kvi_rival_ratio_max"),
        ("changes_per_hour_max", "changes_per_hour_max"),
        ("floor_minor", "explicit_floor_minor"),
        ("ceiling_minor", "ceiling_minor"),
    ):
        plain[column] = np.array([fields.get(name, 0) for fields in written])[chosen]
    endings = np.empty(POLICIES_PER_PIECE, dtype=object)
    endings[:] = [tuple(fields["endings"]) for fields in written]
    plain["endings"] = endings[chosen]
    return np.asarray(table[chosen])


def judged(draw: np.random.Generator, rows: int) -> tuple[Counter[str], Counter[str]]:
    """Price ``rows`` random cases; return (violations by kind, reasons by name)."""
    plain, inputs = random_cases(draw, rows)
    priced = pricing.price(inputs)
    plain["wish_minor"] = priced["target_minor"]
    found = oracle.judge(plain, priced["price_minor"])
    violations = Counter({kind: int(rows_.sum()) for kind, rows_ in found.items()})
    due = oracle.expected(plain)
    violations["binding_not_set"] = _unexplained(priced)
    violations["wrong_wish"] = int(_wrong_wishes(plain, inputs, priced).sum())
    rules = np.array([*RULES, ""], dtype=object)
    absent = rules[np.minimum(priced["binding"], len(RULES))]
    without = oracle.expected(plain, absent).price_minor
    wrong = (priced["price_minor"] != 0) & (without != priced["without_minor"])
    violations["wrong_counterfactual"] = int(wrong.sum())
    seen = Counter(
        {name: int(((priced["reasons"] & bit) != 0).sum()) for bit, name in REASONS.items()}
    )
    seen["priced"] = int((priced["price_minor"] != 0).sum())
    for reason in ("no_cost", "no_floor", "infeasible", "model_invalid"):
        seen[f"refused_{reason}"] = int((due.refused == reason).sum())
    for rule in RULES:
        seen[f"yielded_{rule}"] = int((due.yielded[rule] & (due.refused == "")).sum())
    return violations, seen


def _unexplained(priced: np.ndarray) -> int:
    """Return how many moved prices name no binding rule, or name one though nothing moved."""
    decided = priced["price_minor"] != 0
    moved = priced["price_minor"] != priced["target_minor"]
    named = priced["binding"] != 255
    return int((decided & (moved != named)).sum())


def _wrong_wishes(
    plain: Mapping[str, np.ndarray], inputs: np.ndarray, priced: np.ndarray
) -> np.ndarray:
    """Return where a slightly different price would have earned clearly more than the wish."""
    wish = priced["target_minor"].astype(np.float64)
    elasticity = priced["elasticity"].astype(np.float64)
    cost = plain["cost_minor"] + plain["fixed_fee_minor"]
    known = (wish > 1000) & (wish < PRICE_MINOR_MAX / 1.05) & (plain["cost_minor"] >= 0)

    def profit(price: np.ndarray) -> np.ndarray:
        fee = np.maximum(plain["commission"] * price, plain["minimum_fee_minor"])
        earned = price / (1 + plain["vat"]) - fee - cost
        ratio = np.maximum(price, 1) / np.maximum(wish, 1)
        return np.asarray(earned * ratio**elasticity)

    with np.errstate(over="ignore", invalid="ignore"):
        at = profit(wish)
        better = np.maximum(profit(wish * 1.03), profit(wish / 1.03)) > at * (1 + 1e-3)
    return np.asarray(known & better)


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 1 if anything was violated."""
    parser = argparse.ArgumentParser(prog="python -m perf.precedence", description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    options = parser.parse_args(arguments)
    draw = np.random.default_rng(options.seed)
    violations: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    pricing.warm()
    shapes = pricing.compiled_shapes()
    for start in range(0, options.cases, CASES_PER_PIECE):
        found, reasons = judged(draw, min(CASES_PER_PIECE, options.cases - start))
        violations += found
        seen += reasons
        if not options.json:
            print(f"{start:>10} cases judged, {violations.total()} violations", file=sys.stderr)
    answer = {
        "cases": options.cases,
        "seed": options.seed,
        "violations": violations.total(),
        "violations_by_kind": dict(violations),
        "compiled_after_warm": pricing.compiled_shapes() - shapes,
        "counted": dict(sorted(seen.items())),
    }
    print(json.dumps(answer))
    return 1 if violations.total() else 0


if __name__ == "__main__":
    sys.exit(main())
