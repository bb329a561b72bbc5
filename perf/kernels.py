"""Rows a second of a full reprice: the fused kernel, and what stands between it and the table.

``python -m perf.kernels [--rows 200000] [--json]``

The kernel alone (``kernels.reprice``, packed columns in memory) is compared with a plain read of
the same columns (the sum of every byte of input and output, which no kernel can beat), with the
same rules written plainly in NumPy, one array operation after another, and with a loop in Python.
NumPy and the loop do less: the price alone, and not the second pass that says what it would be
without the binding rule, nor confidence or expected profit. All three must decide the same prices.
``engine`` is the door that the shard uses: pack, kernel, unpack, clamp.

``brain`` is a day learnt and a price decided, for each row (``perf.brain``), against a read of what
it reads and against XGBoost (``inplace_predict`` and the rules, one thread): ``trees`` asks once a
row, ``trees_best`` at 21 prices a row. Rates are rows a second of processor, so of one core; on a
GPU ``resident`` are rows a second of wall time over columns that lie there, and ``same_prices`` is
the share of rows that a GPU and the CPU decide alike.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine import learning, pricing
from engine.pricing import LADDER, PRICING_INPUT_DTYPE
from kernels.columns import Floats, Integers
from kernels.limits import PRICE_MINOR_MAX
from kernels.reprice import reprice
from perf.brain import Brain, read_all, resident_rate, trees_on
from perf.measuring import (
    Progress,
    arguments_of,
    interleaved,
    ratio,
    run_command,
    significant,
    spread,
)

COMMAND = "kernels"
LOOP_ROWS = 2_000
COMPARED = (
    ("kernel", "read"),
    ("kernel", "numpy"),
    ("kernel", "loop"),
    ("engine", "loop"),
    ("brain", "brain_read"),
    ("brain", "loop"),
    ("kernel", "trees"),
    ("engine", "trees"),
    ("brain", "trees"),
    ("brain", "trees_best"),
)
PIECE = LADDER[-1]


def rows_of(count: int) -> np.ndarray:
    """Return inputs as a shop has them: costs known, some rivals, some KVIs, prices ending in 9."""
    random = np.random.default_rng(5)
    rows = np.zeros(count, dtype=PRICING_INPUT_DTYPE)
    cost = random.integers(500, 20_000, count)
    rows["cost_minor"] = rows["status_quo_cost_minor"] = cost
    rows["in_force_minor"] = rows["status_quo_minor"] = (cost * 1.6).astype(int)
    rows["rrp_minor"] = (cost * 2.2).astype(int)
    rows["floor_minor"] = (cost * 1.1).astype(int)
    rows["ceiling_minor"] = (cost * 3.0).astype(int)
    rows["rival_minor"] = (cost * random.uniform(1.2, 2.0, count)).astype(int)
    rows["rivals"], rows["stock"] = 3, 20
    rows["changes_per_hour_max"] = 10
    rows["kvi"] = random.random(count) < 0.2
    rows["max_discount_bp"], rows["step_max_bp"] = 6000, 1000
    rows["kvi_rival_ratio_bp"] = 10_200
    rows["endings"][:, 0] = 10_009  # one digit: 9
    rows["vat"], rows["commission"] = 0.19, 0.05
    rows["prior_elasticity"], rows["prior_elasticity_sd"] = -2.6, 0.7
    rows["status_quo_sigma"] = 0.15
    return rows


def packed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns as the kernel takes them, unpadded."""
    integers = np.zeros((len(Integers._fields), len(rows)), dtype=np.int32)
    floats = np.zeros((len(Floats._fields), len(rows)), dtype=np.float32)
    for index, name in enumerate(Integers._fields):
        if not name.startswith("ending_"):
            integers[index] = rows[name]
    integers[-rows["endings"].shape[1] :] = rows["endings"].T
    for index, name in enumerate(Floats._fields):
        floats[index] = rows[name]
    return integers, floats


# --- the same, plainly ----------------------------------------------------------------------------


def plain_numpy(rows: np.ndarray) -> np.ndarray:
    """Return the price of each row by plain array operations, one rule after another."""
    one = np.float32(1.0)
    net = one / (one + rows["vat"].astype(np.float32))
    kept = net - rows["commission"].astype(np.float32)
    cost = rows["cost_minor"].astype(np.float32)
    quo = rows["status_quo_minor"].astype(np.float32)
    effective = rows["status_quo_cost_minor"].astype(np.float32) / kept
    used = (quo > 0) & (effective < quo)
    implied = np.clip(-quo / np.where(used, quo - effective, one), -10.0, -1.25)
    sd = np.maximum(rows["status_quo_sigma"] * np.abs(implied * (one + implied)), np.float32(0.1))
    prior = one / np.square(rows["prior_elasticity_sd"])
    weight = np.where(used, one / np.square(sd), np.float32(0.0))
    e = (prior * rows["prior_elasticity"] + weight * implied) / (prior + weight)
    price = np.rint(np.clip(cost / kept * (e / (one + e)), 1.0, PRICE_MINOR_MAX)).astype(np.int32)
    low = np.ones(len(rows), dtype=np.int32)
    high = np.full(len(rows), PRICE_MINOR_MAX, dtype=np.int32)
    in_force, rival = rows["in_force_minor"], rows["rival_minor"]
    rrp = rows["rrp_minor"].astype(np.int64)
    step = in_force.astype(np.int64) * rows["step_max_bp"] // 10_000
    spent = (rows["changes_last_hour"] >= rows["changes_per_hour_max"]) & (in_force > 0)
    limit = rival.astype(np.int64) * rows["kvi_rival_ratio_bp"] // 10_000
    bound = (rows["kvi"] > 0) & (rival > 0)
    everything = np.full(len(rows), PRICE_MINOR_MAX)
    ruled = (
        (np.maximum(rows["map_minor"], 1), everything),
        (np.maximum(rows["floor_minor"], 1), everything),
        (low, np.where(rows["ceiling_minor"] > 0, rows["ceiling_minor"], PRICE_MINOR_MAX)),
        (np.maximum(rrp - rrp * rows["max_discount_bp"] // 10_000, 1), everything),
        (
            np.where(in_force > 0, np.maximum(in_force - step, 1), 1),
            np.where(in_force > 0, in_force + step, PRICE_MINOR_MAX),
        ),
        (np.where(spent, in_force, 1), np.where(spent, in_force, PRICE_MINOR_MAX)),
        (low, np.where(bound, np.maximum(limit, 1), PRICE_MINOR_MAX)),
    )
    for least, most in ruled:
        above, below = least > high, most < low
        low, high = (
            np.where(above, high, np.where(below, low, np.maximum(low, least))),
            np.where(below, low, np.where(above, high, np.minimum(high, most))),
        )
        price = np.clip(price, low, high)
    return ended(price, low, high)


def ended(price: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the nearest price that ends in 9 within the bounds; of equally near ones the lower."""
    below = price - (price - 9) % 10
    above = below + 10
    near = np.where(price - below <= above - price, below, above)
    far = np.where(near == below, above, below)
    inside = (near >= low) & (near <= high)
    other = (far >= low) & (far <= high)
    lower, higher = low - (low - 9) % 10, high - (high - 9) % 10 + 10
    under = np.where(lower >= 1, low - lower, PRICE_MINOR_MAX)
    end = np.where(under <= higher - high, low, high)
    return np.where(inside, near, np.where(other, far, end)).astype(np.int32)


def plain_loop(rows: np.ndarray) -> list[int]:
    """Return the price of each row by a loop in Python."""
    names = [name for name in PRICING_INPUT_DTYPE.names or () if name != "endings"]
    columns = {name: rows[name].tolist() for name in names}
    prices = []
    for row in range(len(rows)):
        at = {name: column[row] for name, column in columns.items()}
        prices.append(_loop_price(at))
    return prices


def _loop_price(at: dict[str, Any]) -> int:
    kept = 1 / (1 + at["vat"]) - at["commission"]
    quo, effective = at["status_quo_minor"], at["status_quo_cost_minor"] / kept
    prior = 1 / at["prior_elasticity_sd"] ** 2
    elasticity = at["prior_elasticity"]
    if quo > 0 and effective < quo:
        implied = min(max(-quo / (quo - effective), -10.0), -1.25)
        weight = 1 / max(at["status_quo_sigma"] * abs(implied * (1 + implied)), 0.1) ** 2
        elasticity = (prior * elasticity + weight * implied) / (prior + weight)
    price = round(at["cost_minor"] / kept * elasticity / (1 + elasticity))
    low, high, most = 1, PRICE_MINOR_MAX, PRICE_MINOR_MAX
    force, rival, rrp = at["in_force_minor"], at["rival_minor"], at["rrp_minor"]
    step = force * at["step_max_bp"] // 10_000
    spent = at["changes_last_hour"] >= at["changes_per_hour_max"] and force > 0
    limit = rival * at["kvi_rival_ratio_bp"] // 10_000 if at["kvi"] and rival else most
    rules = (
        (max(at["map_minor"], 1), most),
        (max(at["floor_minor"], 1), most),
        (1, at["ceiling_minor"] or most),
        (max(rrp - rrp * at["max_discount_bp"] // 10_000, 1), most),
        (max(force - step, 1), force + step) if force else (1, most),
        (force, force) if spent else (1, most),
        (1, max(limit, 1)),
    )
    for least, greatest in rules:
        if least > high:
            low = high
        elif greatest < low:
            high = low
        else:
            low, high = max(low, least), min(high, greatest)
        price = min(max(price, low), high)
    at_nine = [each for each in (price - (price - 9) % 10, price - (price - 9) % 10 + 10)]
    allowed = [each for each in at_nine if low <= each <= high]
    if allowed:
        nearest: int = min(allowed, key=lambda each: (abs(each - price), each))
        return nearest
    lower, higher = low - (low - 9) % 10, high - (high - 9) % 10 + 10
    return low if lower >= 1 and low - lower <= higher - high else high


# --- measuring ------------------------------------------------------------------------------------


def measure(count: int, brain_rows: int, pairs: int, say: Progress) -> dict[str, Any]:
    """Return all figures."""
    say("compiling")
    pricing.warm()
    learning.warm()
    rows = rows_of(count)
    integers, floats = packed(rows)
    pieces = [
        (integers[:, first : first + PIECE].copy(), floats[:, first : first + PIECE].copy())
        for first in range(0, count - count % PIECE or count, PIECE)
    ]
    counted = sum(piece[0].shape[1] for piece in pieces)
    results = [np.asarray(part) for part in reprice(*pieces[0])]
    shapes = pricing.compiled_shapes() + learning.compiled_shapes()

    def kernel() -> None:
        for each in pieces:
            prices, _ = reprice(*each)
        prices.block_until_ready()

    def read() -> None:
        # Input and output, each byte once: what the same columns cost if nothing is computed.
        for each in pieces:
            for array in (*each, *results):
                array.view(np.int32).max()

    looped, of_brain = rows[:LOOP_ROWS], rows[:brain_rows]
    brain = Brain(of_brain)
    brain_reads = brain.columns()
    sides: dict[str, tuple[Callable[[], object], int]] = {
        "kernel": (kernel, counted),
        "engine": (lambda: pricing.price(rows), count),
        "read": (read, counted),
        "numpy": (lambda: plain_numpy(rows), count),
        "loop": (lambda: plain_loop(looped), len(looped)),
        "brain": (brain.decide, len(of_brain)),
        "brain_day": (brain.learn, len(of_brain)),
        "brain_read": (
            lambda: [column.view(np.uint8).max() for column in brain_reads],
            len(of_brain),
        ),
    }
    trees = trees_on(of_brain, brain)
    if trees is not None:
        sides["trees"] = (lambda: trees.once(plain_numpy), len(of_brain))
        sides["trees_best"] = (lambda: trees.best(plain_numpy), len(of_brain))
    rates = interleaved(
        pairs, {name: partial(rate, call, done) for name, (call, done) in sides.items()}, say
    )
    compiled = pricing.compiled_shapes() + learning.compiled_shapes()
    figures = {
        "device": jax.devices()[0].device_kind,
        "rows": count,
        **{f"{name}_rows_per_s": spread(rates[name]) for name in sides},
        **{
            f"{over}_of_{under}": ratio(rates[over], rates[under])
            for over, under in COMPARED
            if under in rates
        },
        "compiles_after_warming": compiled - shapes,
        **equal_shares(rows),
    }
    say("columns that lie on the device")
    return {**figures, **on_device(rows, integers, floats, brain)}


def rate(call: Callable[[], object], done: int) -> float:
    """Return rows a second: of processor, which is what one core does; on a GPU of wall time."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    began = clock()
    call()
    return done / (clock() - began)


def on_device(
    rows: np.ndarray, integers: np.ndarray, floats: np.ndarray, brain: Brain
) -> dict[str, Any]:
    """Return rows a second of wall time over columns that lie on the device, whole."""
    columns = (jnp.asarray(integers), jnp.asarray(floats))
    decided = reprice(*columns)
    program, asked = brain.resident()
    sides = {
        "kernel": resident_rate(reprice, columns, len(rows)),
        "read": resident_rate(read_all, (*columns, *decided), len(rows)),
        "belief": resident_rate(program, asked, len(brain.inputs)),
        "belief_read": resident_rate(read_all, asked, len(brain.inputs)),
    }
    figures = {f"resident_{name}_rows_per_s": significant(of) for name, of in sides.items()}
    figures["resident_kernel_of_read"] = significant(sides["kernel"] / sides["read"])
    figures["resident_belief_of_read"] = significant(sides["belief"] / sides["belief_read"])
    if jax.default_backend() == "cpu":
        return figures
    with jax.default_device(jax.devices("cpu")[0]):
        here, wished = pricing.price(rows), brain.decide()
    there, also = pricing.price(rows), brain.decide()
    apart = np.abs(also["price_minor"] - wished["price_minor"]) / wished["price_minor"]
    return {
        **figures,
        "same_prices": float((here["price_minor"] == there["price_minor"]).mean()),
        "same_brain_prices": float((also["price_minor"] == wished["price_minor"]).mean()),
        "brain_prices_apart_at_most": significant(float(apart.max())),
    }


def equal_shares(rows: np.ndarray) -> dict[str, float]:
    """Return the shares of rows in which the plain versions decide the kernel's price.

    Rounding differs where float32 and float64 fall on either side of a half: a cent, which the
    ending may make ten.
    """
    decided = pricing.price(rows)["price_minor"]
    looped = np.array(plain_loop(rows[:LOOP_ROWS]))
    return {
        "equal_to_numpy": float((decided == plain_numpy(rows)).mean()),
        "equal_to_loop": float((decided[: len(looped)] == looped).mean()),
    }


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    return measure(options.rows, options.brain_rows, options.pairs, say)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--brain-rows", type=int, default=32_768)
    parser.add_argument("--pairs", type=int, default=5)
    return run_command(COMMAND, parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
