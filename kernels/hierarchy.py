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

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.elasticities import (
    BIAS_COLUMNS,
    FAMILIES,
    IMPLIED,
    UNKNOWING,
    Config,
    Evidence,
    Roots,
    Table,
    family_priors,
    normal_below,
    nothing_stated,
    off_log,
)
from kernels.hyperparameters import (
    BIAS_MASS_MIN,
    BIAS_SDS,
    BIASES,
    BOUND_LEAST,
    CURVATURE_MAX,
    CURVATURE_PRIOR,
    CURVATURE_PRIOR_SD,
    DENSITY_LEAST,
    ELASTICITIES,
    ELASTICITY_SPREAD,
    MEANS,
    RIVAL_PRIOR,
    RIVAL_PRIOR_SD,
    SIGMAS,
    SPREAD_LEAST,
    SPREAD_SD_LOG,
    SPREADS,
    TINY,
    UNKNOWING_LOG,
    UNKNOWING_MASS_MIN,
    UNKNOWING_SD_MIN,
    UNKNOWING_STATED_LOG,
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
    error: jax.Array  # float32[rows], how wrong managers are where that is stated, else 0


def likelihoods(rows: Piece, sigma: jax.Array, bias: jax.Array) -> jax.Array:
    """Return float32[rows, elasticities]: sales times markup, which counts where it is known."""
    sales, markup, known, one_sided, error = rows
    wrong = jnp.where(error > 0.0, error, sigma)[:, None]
    off = (markup[:, None] - _IMPLIED_32 - bias) / wrong
    density = jnp.exp(-0.5 * jnp.square(off)) / wrong + DENSITY_LEAST
    # Few rows, and mostly none, ran into a bound: then nobody works out its distribution.
    weighed = jax.lax.cond(
        one_sided.any(),
        lambda: jnp.where(one_sided[:, None], normal_below(off, jnp) + BOUND_LEAST, density),
        lambda: density,
    )
    return sales * jnp.where(known[:, None] & (bias < UNKNOWING), weighed, 1.0)


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
        parts: float64[categories, biases and unknowing, means].
    """
    mass = parts.sum(axis=2).max(axis=0, initial=0.0)
    least = np.where(np.arange(BIAS_COLUMNS) < len(BIASES), BIAS_MASS_MIN, UNKNOWING_MASS_MIN)
    return np.flatnonzero(mass > least)


_IMPLIED_32 = IMPLIED.astype(np.float32)


def warm() -> None:
    """Compile for every size of the ladder."""
    for rows in LADDER:
        nothing = np.zeros(rows)
        evidence = Evidence(nothing, nothing, nothing, np.zeros(rows, dtype=bool), nothing)
        posterior(fit(evidence, np.zeros(rows, dtype=np.int64), 1), evidence, np.zeros(rows, int))


def compiled_shapes() -> int:
    """Return how many shapes are compiled: constant after :func:`warm`."""
    return compiled(evidence_logs, mixture)


def _pieces(evidence: Evidence) -> list[tuple[slice, Piece]]:
    sales, known = sales_likelihood(evidence), np.isfinite(evidence.markup)
    columns = (
        sales,
        np.where(known, evidence.markup, 0.0),
        known,
        evidence.one_sided,
        evidence.error,
    )
    return [
        (at, Piece._make(padded(column[at], size) for column in columns))
        for at, size in pieces(len(sales))
    ]


class _Alike(NamedTuple):
    """Rows with the same factors, of their categories' roots and their own: they share priors."""

    rows: np.ndarray  # int[n]
    shift: float
    scale: float
    pieces: list[tuple[slice, Piece]]

    def prior(self, family: str, spread: float) -> np.ndarray:
        """Return float64[means, elasticities]."""
        return family_priors(family, max(spread * self.scale, SPREAD_LEAST), self.shift)


def _alike(
    roots: Roots, evidence: Evidence, category: np.ndarray, factor: np.ndarray | None
) -> list[_Alike]:
    pairs, which = np.unique(np.stack([roots.shift, roots.scale]), axis=1, return_inverse=True)
    which, own = which.reshape(-1)[category], np.ones(1)
    if factor is not None:
        own, step = np.unique(factor, return_inverse=True)
        which = which * len(own) + step
    found = []
    for at, ((shift, scale), by) in enumerate(itertools.product(pairs.T.tolist(), own.tolist())):
        rows = np.flatnonzero(which == at)
        if len(rows):
            part = Evidence(*(column[rows] for column in evidence))
            found.append(_Alike(rows, shift * by, scale, _pieces(part)))
    return found


def fit(
    evidence: Evidence,
    category: np.ndarray,
    categories: int,
    kept: int = 1,
    roots: Roots | None = None,
    rules: np.ndarray | None = None,
    factor: np.ndarray | None = None,
) -> Table:
    """Return the likeliest configurations of a retailer, and his categories' means and biases.

    Args:
        category: int[rows], below ``categories``.
        kept: how many configurations to average over.
        roots: what the retailer says beforehand; left out, he says nothing.
        rules: float64[categories, means], logarithms of what rules of thumb say of means.
        factor: float64[rows], of few distinct values, on the mean of each row's category; left out,
            none has its own.
    """
    roots = nothing_stated(categories) if roots is None else roots
    order = np.argsort(category, kind="stable")
    by_category = category[order]
    ordered = Evidence(*(column[order] for column in evidence))
    alike = _alike(roots, ordered, by_category, None if factor is None else factor[order])
    keys = [(family, spread) for family in FAMILIES for spread in SPREADS]
    stacked = [
        np.concatenate([group.prior(*key) for key in keys]).T.astype(np.float32) for group in alike
    ]
    width = len(keys) * len(MEANS)

    def summed(sigma: float, bias: float) -> np.ndarray:
        rows = np.empty((len(order), width), dtype=np.float32)
        for group, priors in zip(alike, stacked, strict=True):
            for where, piece in group.pieces:
                told = evidence_logs(piece, np.float32(sigma), np.float32(bias), priors)
                rows[group.rows[where]] = np.asarray(told)[: where.stop - where.start]
        return _summed(rows, by_category, categories)

    unknowing = summed(1.0, UNKNOWING)
    unknowing += _unknowing_logs(ordered, by_category, categories)[:, None]
    ruled = np.zeros((categories, len(MEANS))) if rules is None else rules
    mean_logs = roots.mean_logs()
    scores: dict[Config, float] = {}
    logs: dict[tuple[float, tuple[str, float]], np.ndarray] = {}
    for sigma in _sigmas(evidence):
        by_bias = np.empty((BIAS_COLUMNS, categories, width))
        for at, bias in enumerate(BIASES.tolist()):
            by_bias[at] = summed(sigma, bias)
        by_bias[-1] = unknowing
        shaped = by_bias.reshape(BIAS_COLUMNS, categories, len(keys), len(MEANS))
        for index, key in enumerate(keys):
            log = shaped[:, :, index, :].transpose(1, 0, 2) + ruled[:, None, :]
            logs[sigma, key] = log
            for bias_sd in BIAS_SDS:
                score = _by_others(log + _bias_log(bias_sd, roots), mean_logs)[0]
                score -= 0.5 * float(np.square(np.log(key[1] / ELASTICITY_SPREAD) / SPREAD_SD_LOG))
                scores[Config(sigma, key[1], key[0], bias_sd)] = score
    best = sorted(scores, key=lambda config: -scores[config])[:kept]
    weights = np.exp(np.array([scores[config] - scores[best[0]] for config in best]))
    parts = []
    for config in best:
        joint = logs[config.sigma, (config.family, config.spread)]
        joint = joint + _bias_log(config.bias_sd, roots)
        joint = joint + _by_others(joint, mean_logs)[1][:, None, :]
        top = joint.max(axis=(1, 2), keepdims=True)
        mass = np.exp(joint - top)
        parts.append(mass / mass.sum(axis=(1, 2), keepdims=True))
    return Table(tuple(best), weights / weights.sum(), np.stack(parts), roots)


def _sigmas(evidence: Evidence) -> tuple[float, ...]:
    """Return how wrong managers may be: where all prices state it, nothing is to be found."""
    told = evidence.error[np.isfinite(evidence.markup)]
    return (float(np.median(told)),) if len(told) and (told > 0.0).all() else SIGMAS


def _unknowing_logs(evidence: Evidence, category: np.ndarray, categories: int) -> np.ndarray:
    """Return float64[categories], evidence of markups that have nothing to do with elasticities.

    They are normal, with the mean and the scatter that a category's have, and pay for both: markups
    near to each other are no word against it.
    """
    markup, bound = evidence.markup, evidence.one_sided
    found = np.zeros(categories)
    for at in np.unique(category).tolist():
        mine = category == at
        some = markup[mine & np.isfinite(markup) & ~bound]
        bounds = int((mine & np.isfinite(markup) & bound).sum())
        if len(some):
            scatter = max(float(some.std()), UNKNOWING_SD_MIN)
            off = (some - some.mean()) / scatter
            found[at] += np.log(np.exp(-0.5 * np.square(off)) / scatter + DENSITY_LEAST).sum()
            found[at] -= np.log(max(len(some), 2))
        if bounds:
            found[at] += bounds * np.log(bounds / (bounds + len(some) + 1.0))
    return found


class ConfigParts:
    """One configuration as :func:`mixture` takes it, without biases that nobody believes in."""

    def __init__(self, config: Config, parts: np.ndarray) -> None:
        likely = likely_biases(parts)
        self.config = config
        self.count = len(likely)
        self.biases = np.zeros(BIAS_COLUMNS, dtype=np.float32)
        self.biases[: self.count] = np.append(BIASES, UNKNOWING)[likely]
        self.parts = np.ascontiguousarray(parts[:, likely].transpose(1, 0, 2), dtype=np.float32)

    def arguments(
        self, category: np.ndarray, size: int, prior: np.ndarray
    ) -> tuple[np.ndarray | np.float32 | int, ...]:
        """Return what :func:`mixture` takes after the rows themselves, padded to ``size`` rows."""
        share = np.zeros((BIAS_COLUMNS, size, len(MEANS)), dtype=np.float32)
        share[: self.count, : len(category)] = self.parts[:, category]
        return np.float32(self.config.sigma), prior, self.biases, share, self.count


def posterior(
    table: Table, evidence: Evidence, category: np.ndarray, factor: np.ndarray | None = None
) -> np.ndarray:
    """Return float64[rows, elasticities], what is believed of each listing.

    Args:
        factor: as :func:`fit` takes it.
    """
    total = np.zeros((len(category), len(ELASTICITIES)))
    told = [
        ConfigParts(config, parts) for config, parts in zip(table.configs, table.parts, strict=True)
    ]
    for group in _alike(table.roots, evidence, category, factor):
        priors = [
            group.prior(config.family, config.spread).astype(np.float32) for config in table.configs
        ]
        for at, piece in group.pieces:
            rows = group.rows[at]
            for weight, config, prior in zip(table.weights, told, priors, strict=True):
                of = mixture(piece, *config.arguments(category[rows], len(piece.sales), prior))
                total[rows] += weight * np.asarray(of)[: len(rows)]
    return np.asarray(total / np.maximum(total.sum(axis=1, keepdims=True), TINY))


def _by_others(joint: np.ndarray, mean_logs: np.ndarray) -> tuple[float, np.ndarray]:
    """Return a configuration's log evidence, and what a category's others say of its mean.

    Given how far all of a retailer's categories lie off, they are independent, so the prior of
    each is the mixture over that, weighted by what the others say: none counts twice.

    Args:
        joint: float64[categories, biases and unknowing, means], without any prior of means.
        mean_logs: float64[offs, categories, means], the logarithm of that, by off.

    Returns float64[categories, means] as second, logarithms.
    """
    categories, _, means = joint.shape
    by_mean = _log_sum(joint.transpose(0, 2, 1).reshape(categories * means, -1))
    by_mean = by_mean.reshape(categories, means)
    by_off = _log_sum((by_mean + mean_logs).reshape(-1, means)).reshape(-1, categories)
    total = off_log() + by_off.sum(axis=1)
    others = total[:, None] - by_off
    weights = np.exp(others - others.max(axis=0))
    weights /= weights.sum(axis=0)
    prior = (weights[:, :, None] * np.exp(mean_logs)).sum(axis=0)
    return float(_log_sum(total[None, :])[0]), np.log(prior)


def _bias_log(bias_sd: float, roots: Roots) -> np.ndarray:
    """Return float64[categories, biases and unknowing, 1], what is thought of each beforehand.

    Who says how wrong his managers are at most says it of a whole category's, too.
    """
    stated = roots.error > 0.0
    most = np.where(stated, np.minimum(bias_sd, roots.error), bias_sd)
    log = -0.5 * np.square(BIASES / most[:, None])
    log = log - np.log(np.exp(log).sum(axis=1, keepdims=True))
    other = np.where(stated, UNKNOWING_STATED_LOG, UNKNOWING_LOG)
    return np.concatenate([log, other[:, None]], axis=1)[:, :, None]


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
    curved, pulled = 1.0 / CURVATURE_PRIOR_SD**2, 1.0 / RIVAL_PRIOR_SD**2
    precision = np.array([[kk.sum() + curved, kc.sum()], [kc.sum(), cc.sum() + pulled]])
    moment = np.array(
        [
            bk.sum() + CURVATURE_PRIOR / CURVATURE_PRIOR_SD**2,
            bc.sum() + RIVAL_PRIOR / RIVAL_PRIOR_SD**2,
        ]
    )
    covariance = np.linalg.inv(precision)
    found = covariance @ moment
    curvature = float(np.clip(found[0], 0.0, CURVATURE_MAX))
    rival = float(np.clip(found[1], 0.0, 3.0))
    return curvature, rival, covariance
