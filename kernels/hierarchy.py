"""A table over elasticities: what categories, status quo and experiments say together.

Every belief about an elasticity is a row of weights over a fixed grid. A listing's own sales give a
Gaussian likelihood on it; the price found at import gives another, because whoever set it was not
stupid: ``log(p0/c) = log(e/(1+e)) + bias + N(0, sigma^2)``. Categories have means and biases of
their own. How far managers are to be trusted, how alike the listings of a category are, and which
family their elasticities come from is chosen by the marginal likelihood of the whole retailer.

Given a category's mean and bias its listings are independent, so a listing's posterior is the
mixture over both, weighted by what the category says: no listing counts twice.

What is done a row *and* elasticity is jitted, in float32 (``likelihoods``, ``mixture``,
``evidence_logs``); what is summed over rows is summed in their order, in float64.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.elasticities import (
    BIAS_SDS,
    BIASES,
    ELASTICITIES,
    FAMILIES,
    IMPLIED,
    MEAN,
    MEAN_SD,
    MEANS,
    SIGMAS,
    SPREAD,
    SPREAD_SD_LOG,
    SPREADS,
    Config,
    Evidence,
    Table,
    family_priors,
    normal_below,
)
from kernels.ladder import LADDER, compiled, padded, pieces, product


def sales_likelihood(evidence: Evidence) -> np.ndarray:
    """Return float64[rows, elasticities], largest one in each row."""
    grid = ELASTICITIES[None, :]
    log = grid * evidence.moment[:, None] - 0.5 * np.square(grid) * evidence.slope[:, None]
    return np.asarray(np.exp(log - log.max(axis=1, keepdims=True)))


class Piece(NamedTuple):
    """Rows as the kernels take them, padded; NumPy's arrays serve as well."""

    sales: jax.Array  # float32[rows, elasticities]
    markup: jax.Array  # float32[rows]
    known: jax.Array  # bool[rows], whether it is
    one_sided: jax.Array  # bool[rows], whether it is a bound


def likelihoods(rows: Piece, sigma: jax.Array, bias: jax.Array) -> jax.Array:
    """Return float32[rows, elasticities]: sales times markup, which counts where it is known."""
    sales, markup, known, one_sided = rows
    off = (markup[:, None] - _IMPLIED_32 - bias) / sigma
    density = jnp.exp(-0.5 * jnp.square(off)) / sigma + 1e-4
    # Few rows, and mostly none, ran into a bound: then nobody works out its distribution.
    weighed = jax.lax.cond(
        one_sided.any(),
        lambda: jnp.where(one_sided[:, None], normal_below(off, jnp) + BOUND_LEAST, density),
        lambda: density,
    )
    return sales * jnp.where(known[:, None], weighed, 1.0)


@jax.jit
def evidence_logs(rows: Piece, sigma: jax.Array, bias: jax.Array, priors: jax.Array) -> jax.Array:
    """Return float32[rows, priors], the logarithm of each row's evidence for each prior.

    Args:
        priors: float32[elasticities, priors].
    """
    weighed = product(likelihoods(rows, sigma, bias), priors)
    return jnp.log(jnp.maximum(weighed, TINY))


@jax.jit
def mixture(
    rows: Piece,
    sigma: jax.Array,
    prior: jax.Array,
    biases: jax.Array,
    parts: jax.Array,
    count: int | jax.Array,
) -> jax.Array:
    """Return float32[rows, elasticities], what one configuration lets believe.

    Args:
        prior: float32[means, elasticities].
        biases: float32[biases], of which the first ``count`` are looked at.
        parts: float32[biases, rows, means], what each row's category says of both.
    """

    def add(at: jax.Array, total: jax.Array) -> jax.Array:
        likelihood = likelihoods(rows, sigma, biases[at])
        evidence = jnp.maximum(product(likelihood, prior.T), TINY)
        return total + likelihood * product(parts[at] / evidence, prior)

    total: jax.Array = jax.lax.fori_loop(0, count, add, jnp.zeros_like(rows.sales))
    return total


def likely_biases(parts: np.ndarray) -> np.ndarray:
    """Return int[n], which biases any category of a configuration still believes in, ascending.

    Args:
        parts: float64[categories, biases, means].
    """
    return np.flatnonzero(parts.sum(axis=2).max(axis=0) > BIAS_MASS_MIN)


BIAS_MASS_MIN = 1e-5
"""A bias that no category believes in more than this is not worked out: a third of them are left
after some weeks."""


BOUND_LEAST = 1e-8
"""Least likelihood of a bound: float32 has nothing left of it far away, and sales must count."""

TINY = 1e-30
"""Least evidence of a row: beyond it, two beliefs exclude each other."""

_IMPLIED_32 = IMPLIED.astype(np.float32)


def warm() -> None:
    """Compile for every size of the ladder."""
    for rows in LADDER:
        nothing = np.zeros(rows)
        evidence = Evidence(nothing, nothing, nothing, np.zeros(rows, dtype=bool))
        posterior(fit(evidence, np.zeros(rows, dtype=np.int64), 1), evidence, np.zeros(rows, int))


def compiled_shapes() -> int:
    """Return how many shapes are compiled: constant after :func:`warm`."""
    return compiled(evidence_logs, mixture)


def _pieces(evidence: Evidence) -> list[tuple[slice, Piece]]:
    sales, known = sales_likelihood(evidence), np.isfinite(evidence.markup)
    columns = (sales, np.where(known, evidence.markup, 0.0), known, evidence.one_sided)
    return [
        (at, Piece._make(padded(column[at], size) for column in columns))
        for at, size in pieces(len(sales))
    ]


def fit(evidence: Evidence, category: np.ndarray, categories: int, kept: int = 1) -> Table:
    """Return the likeliest configurations of a retailer, and his categories' means and biases.

    Args:
        category: int[rows], below ``categories``.
        kept: how many configurations to average over.
    """
    order = np.argsort(category, kind="stable")
    by_category = category[order]
    ordered_pieces = _pieces(Evidence(*(column[order] for column in evidence)))
    keys = [(family, spread) for family in FAMILIES for spread in SPREADS]
    stacked = np.concatenate([family_priors(*key) for key in keys]).T.astype(np.float32)
    mean_log = -0.5 * np.square((MEANS - MEAN) / MEAN_SD)
    mean_log = mean_log - np.log(np.exp(mean_log).sum())
    scores: dict[Config, float] = {}
    logs: dict[tuple[float, tuple[str, float]], np.ndarray] = {}
    for sigma in SIGMAS:
        by_bias = np.empty((len(BIASES), categories, stacked.shape[1]))
        for at, bias in enumerate(BIASES.astype(np.float32)):
            told = [
                evidence_logs(piece, np.float32(sigma), bias, stacked)
                for _, piece in ordered_pieces
            ]
            rows = np.concatenate(
                [
                    np.asarray(log)[: where.stop - where.start]
                    for log, (where, _) in zip(told, ordered_pieces, strict=True)
                ]
            )
            by_bias[at] = _summed(rows, by_category, categories)
        shaped = by_bias.reshape(len(BIASES), categories, len(keys), len(MEANS))
        for index, key in enumerate(keys):
            log = shaped[:, :, index, :].transpose(1, 0, 2) + mean_log
            logs[sigma, key] = log
            for bias_sd in BIAS_SDS:
                joint = log + _bias_log(bias_sd)[None, :, None]
                score = float(_log_sum(joint.reshape(categories, -1)).sum())
                score -= 0.5 * float(np.square(np.log(key[1] / SPREAD) / SPREAD_SD_LOG))
                scores[Config(sigma, key[1], key[0], bias_sd)] = score
    ordered = sorted(scores, key=lambda config: -scores[config])[:kept]
    weights = np.exp(np.array([scores[config] - scores[ordered[0]] for config in ordered]))
    parts = []
    for config in ordered:
        joint = logs[config.sigma, (config.family, config.spread)]
        joint = joint + _bias_log(config.bias_sd)[None, :, None]
        top = joint.max(axis=(1, 2), keepdims=True)
        mass = np.exp(joint - top)
        parts.append(mass / mass.sum(axis=(1, 2), keepdims=True))
    return Table(tuple(ordered), weights / weights.sum(), np.stack(parts))


class ConfigParts:
    """One configuration as :func:`mixture` takes it, without biases that nobody believes in."""

    def __init__(self, config: Config, parts: np.ndarray) -> None:
        likely = likely_biases(parts)
        self.sigma = np.float32(config.sigma)
        self.prior = family_priors(config.family, config.spread).astype(np.float32)
        self.count = len(likely)
        self.biases = np.zeros(len(BIASES), dtype=np.float32)
        self.biases[: self.count] = BIASES[likely]
        self.parts = np.ascontiguousarray(parts[:, likely].transpose(1, 0, 2), dtype=np.float32)

    def arguments(
        self, category: np.ndarray, size: int
    ) -> tuple[np.ndarray | np.float32 | int, ...]:
        """Return what :func:`mixture` takes after the rows themselves, padded to ``size`` rows."""
        share = np.zeros((len(BIASES), size, len(MEANS)), dtype=np.float32)
        share[: self.count, : len(category)] = self.parts[:, category]
        return self.sigma, self.prior, self.biases, share, self.count


def posterior(table: Table, evidence: Evidence, category: np.ndarray) -> np.ndarray:
    """Return float64[rows, elasticities], what is believed of each listing."""
    total = np.zeros((len(category), len(ELASTICITIES)))
    told = [
        ConfigParts(config, parts) for config, parts in zip(table.configs, table.parts, strict=True)
    ]
    for at, piece in _pieces(evidence):
        size, rows = len(piece.sales), at.stop - at.start
        for weight, config in zip(table.weights, told, strict=True):
            of = mixture(piece, *config.arguments(category[at], size))
            total[at] += weight * np.asarray(of)[:rows]
    return np.asarray(total / np.maximum(total.sum(axis=1, keepdims=True), TINY))


def _bias_log(bias_sd: float) -> np.ndarray:
    log = -0.5 * np.square(BIASES / bias_sd)
    return np.asarray(log - np.log(np.exp(log).sum()))


def _log_sum(logs: np.ndarray) -> np.ndarray:
    top = logs.max(axis=1, keepdims=True)
    return np.asarray((top + np.log(np.exp(logs - top).sum(axis=1, keepdims=True)))[:, 0])


def _summed(columns: np.ndarray, category: np.ndarray, categories: int) -> np.ndarray:
    """Add up rows by category, in float64; they lie by category."""
    total = np.zeros((categories, columns.shape[1]))
    some, starts = np.unique(category, return_index=True)
    total[some] = np.add.reduceat(columns, starts, axis=0, dtype=np.float64)
    return total


def pooled(
    sums: dict[str, np.ndarray], mean: np.ndarray, variance: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """Return curvature and rival effect, pooled over rows, elasticities integrated out.

    They are integrated under their prior: under the posterior the same sales would count twice.
    Also returns the 2x2 covariance of both.
    """
    weight = 1.0 / (sums["xx"] + 1.0 / variance)
    price_moment = sums["bx"] + mean / variance
    # Regressors are -x^2 and c.
    kx, cx = -sums["xk"], sums["xc"]
    kk = sums["kk"] - kx * kx * weight
    kc = -sums["kc"] - kx * cx * weight
    cc = sums["cc"] - cx * cx * weight
    bk = -sums["bk"] - kx * price_moment * weight
    bc = sums["bc"] - cx * price_moment * weight
    precision = np.array([[kk.sum() + 1.0, kc.sum()], [kc.sum(), cc.sum() + 1.0 / RIVAL_SD**2]])
    moment = np.array([bk.sum() + CURVATURE / CURVATURE_SD**2, bc.sum() + RIVAL / RIVAL_SD**2])
    covariance = np.linalg.inv(precision)
    found = covariance @ moment
    curvature = float(np.clip(found[0], 0.0, 4.0))
    rival = float(np.clip(found[1], 0.0, 3.0))
    return curvature, rival, covariance


CURVATURE, CURVATURE_SD = 0.5, 1.0
RIVAL, RIVAL_SD = 0.2, 0.4
