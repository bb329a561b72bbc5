"""What ``perf.kernels`` asks of the whole brain: a day learnt and a price decided, for each row.

``decide`` calls the production functions in the order in which ``engine.learning`` does: the day's
Kalman step, the belief over elasticities, its best price and its dither; then the rules. ``Belief``
is the same as one program over columns that lie on the device, for a GPU.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine import pricing
from kernels import whitening
from kernels.choice import Place, best_log, best_of, dither_size
from kernels.elasticities import Evidence, Table, family_priors, moments
from kernels.hierarchy import ConfigParts, Piece, fit, mixture, posterior
from kernels.hyperparameters import ELASTICITIES, TINY

CATEGORIES, FITTED, CONFIGS = 40, 2_400, 3
CANDIDATES = np.linspace(-0.2, 0.2, 21)
"""Prices, in logs around today's, at which trees are asked what would be sold."""

TREES, DEPTH = 100, 6
"""XGBoost's own defaults."""


class Brain:
    """A retailer's rows as they stand after some months, and what one more day makes of them."""

    def __init__(self, rows: np.ndarray) -> None:
        random, count = np.random.default_rng(11), len(rows)
        self.inputs = rows.copy()
        self.category = random.integers(0, CATEGORIES, count)
        truth = np.clip(random.normal(-2.6, 0.7, count), -6.0, -1.3)
        slope = 2.0 * np.exp(random.normal(0.0, 1.0, count))
        found = truth + random.normal(size=count) / np.sqrt(slope)
        markup = np.log(truth / (1.0 + truth)) + random.normal(0.0, 0.12, count)
        self.evidence = Evidence(
            slope, slope * found, markup, np.zeros(count, dtype=bool), np.zeros(count)
        )
        few = slice(0, FITTED)
        part = Evidence(*(column[few] for column in self.evidence))
        self.table: Table = fit(part, self.category[few], CATEGORIES, CONFIGS)
        zero, level = np.zeros(count), random.normal(0.5, 1.0, count)
        self.level = whitening.Level(
            zero + 90.0, level, zero + 0.05, zero, zero, zero + 0.02, zero, zero
        )
        self.seen = whitening.Seen(
            random.poisson(np.exp(level)).astype(np.float64),
            random.normal(0.0, 0.03, count),
            random.normal(0.02, 0.03, count),
            zero > 0,
            zero > 0,
        )
        self.belief = whitening.Belief(truth, 0.5, 0.2, 0.1)
        self.place = Place(zero, zero, random.uniform(0.45, 0.75, count), zero - 0.4, zero + 0.4)
        self.alike = zero + 1.0

    def decide(self) -> np.ndarray:
        """Learn a day and decide every row; return ``PRICED_DTYPE``[rows]."""
        self.learn()
        belief = posterior(self.table, self.evidence, self.category)
        mean, variance = moments(belief)
        wish = best_log(belief, self.place, 0.5 * self.alike, 0.1 * self.alike, 0.0 * self.alike)
        noise = np.exp(-self.level.level) + 0.1
        dither = dither_size(mean, variance, noise, 0.5 * self.alike, 0.06 * self.alike)
        self.inputs["asked_minor"] = self.inputs["status_quo_minor"] * np.exp(wish + dither)
        return pricing.price(self.inputs)

    def learn(self) -> whitening.Whitened:
        """Do a day's step, the factors of the day and of the categories included."""
        counted = ~self.seen.absent
        foreseen = whitening.foresee(self.level, self.belief, self.seen)
        sums = whitening.totals(self.seen.units, foreseen, 0.1, counted, self.category, CATEGORIES)
        units = self.seen.units
        day = whitening.factor(
            sums.sum(axis=1)[:, None], units, foreseen, 0.1, counted, 0.0 * self.alike, 0.5
        )
        beside = whitening.factor(sums[:, self.category], units, foreseen, 0.1, counted, day, 0.12)
        return whitening.learn(self.level, self.belief, self.seen, foreseen, day + beside)

    def columns(self) -> list[np.ndarray]:
        """Return what a decision reads, each column once."""
        learnt = (*self.evidence, self.category, *self.level, *self.seen, *self.place)
        names = self.inputs.dtype.names or ()
        return [np.ascontiguousarray(of) for of in (*learnt, *(self.inputs[n] for n in names))]

    def resident(self) -> "tuple[Callable[..., jax.Array], tuple[jax.Array, ...]]":
        """Return belief and best price as one program, and its columns on the device."""
        weights = [float(weight) for weight in self.table.weights]
        told = [ConfigParts(*of) for of in zip(self.table.configs, self.table.parts, strict=True)]
        grid = ELASTICITIES.astype(np.float32)

        @jax.jit
        def decide(
            slope: jax.Array,
            moment: jax.Array,
            markup: jax.Array,
            one_sided: jax.Array,
            error: jax.Array,
            category: jax.Array,
            *place: jax.Array,
        ) -> jax.Array:
            log = grid * moment[:, None] - 0.5 * jnp.square(grid) * slope[:, None]
            sales = jnp.exp(log - log.max(axis=1, keepdims=True))
            rows = Piece(sales, markup, jnp.isfinite(markup), one_sided, error)
            total = jnp.zeros_like(sales)
            for weight, config in zip(weights, told, strict=True):
                share = jnp.asarray(config.parts)[:, category]
                of = config.config
                prior = family_priors(of.family, of.spread).astype(np.float32)
                rest = (np.float32(of.sigma), prior, config.biases, share, config.count)
                total = total + weight * mixture(rows, *rest)
            belief = total / jnp.maximum(total.sum(axis=1, keepdims=True), TINY)
            best: jax.Array = best_of(belief, *place)
            return best

        pulls = (0.5 * self.alike, 0.1 * self.alike, 0.0 * self.alike)
        columns = (*self.evidence, self.category, *self.place, *pulls)
        kinds = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}
        return decide, tuple(
            jnp.asarray(column.astype(kinds.get(column.dtype, column.dtype))) for column in columns
        )


class Trees:
    """Gradient-boosted trees on the same rows, as the peer of both."""

    def __init__(self, rows: np.ndarray, brain: Brain) -> None:
        import xgboost

        self._rows = rows
        cost = rows["cost_minor"].astype(np.float32)
        self._columns = np.stack(
            [
                np.log(cost),
                np.log(rows["status_quo_minor"]).astype(np.float32),
                np.log(rows["rival_minor"]).astype(np.float32),
                np.log(rows["rrp_minor"]).astype(np.float32),
                rows["stock"].astype(np.float32),
                rows["kvi"].astype(np.float32),
                brain.category.astype(np.float32),
                np.log(rows["status_quo_minor"]).astype(np.float32),  # the price asked about
            ],
            axis=1,
        )
        few = slice(0, 20_000)
        settings = {"max_depth": DEPTH, "nthread": 1, "objective": "count:poisson"}
        matrix = xgboost.DMatrix(self._columns[few], label=brain.seen.units[few])
        self._booster = xgboost.train(settings, matrix, num_boost_round=TREES)

    def once(self, rules: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Ask once a row, and apply the rules."""
        self._booster.inplace_predict(self._columns)
        return rules(self._rows)

    def best(self, rules: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Ask at each candidate price, take the most profitable, and apply the rules."""
        asked = self._columns.copy()
        best, gain = np.zeros(len(asked)), np.full(len(asked), -np.inf)
        for offset in CANDIDATES:
            asked[:, -1] = self._columns[:, -1] + offset
            units = self._booster.inplace_predict(asked)
            margin = np.exp(asked[:, -1]) - np.exp(self._columns[:, 0])
            better = units * margin > gain
            gain = np.where(better, units * margin, gain)
            best = np.where(better, offset, best)
        asked = self._rows.copy()
        asked["in_force_minor"] = self._rows["in_force_minor"] * np.exp(best)
        return rules(asked)


def trees_on(rows: np.ndarray, brain: Brain) -> "Trees | None":
    """Return trees fitted to the rows; ``None`` where XGBoost is not installed."""
    try:
        return Trees(rows, brain)
    except ImportError:
        return None


def resident_rate(
    program: Callable[..., Any], columns: tuple[jax.Array, ...], rows: int, times: int = 20
) -> float:
    """Return rows a second of a program over columns that lie on the device; wall time."""
    _wait(program(*columns))
    began = time.perf_counter()
    for _ in range(times):
        result = program(*columns)
    _wait(result)
    return rows * times / (time.perf_counter() - began)


def _wait(results: Any) -> None:
    for result in jax.tree.leaves(results):
        result.block_until_ready()


@jax.jit
def read_all(*columns: jax.Array) -> jax.Array:
    """Read every byte of the columns: what nothing that reads them can beat."""
    return sum(
        (jnp.max(column, axis=-1).astype(jnp.float32).sum() for column in columns),
        start=jnp.float32(0.0),
    )
