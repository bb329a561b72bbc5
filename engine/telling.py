"""What is told of learning in plain values, and what is believed of listings that decide nothing.

In shadow no table is fitted and no price decided, so that what a retailer sees costs his shop
nothing; a listing of a holdout never decides. Whoever asks is told what has been learnt all the
same: it is worked out when asked for, and kept until a day has passed.
"""

from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np

from engine.attributes import factors_of
from engine.evidence import categories_of, evidence_of, hausman, markups, refit
from engine.forms import form_of, told_forms
from engine.kinks import told_kink
from engine.learnt import RetailerLearning, sums_of
from engine.memory import Memory
from engine.promotion import told_model
from engine.stated import own_word, stated_of
from kernels.elasticities import moments
from kernels.forms import FORMS
from kernels.hierarchy import posterior
from kernels.hyperparameters import CATEGORY_ALARM_SD, TOLD_LEAST
from kernels.whitening import SUMS, lead_score


class Beliefs(NamedTuple):
    """What a retailer's data say of all his listings, whether they decide or not."""

    key: tuple[Any, ...]  # of what they were worked out from
    held: RetailerLearning  # with a table
    rows: np.ndarray  # ascending
    mean: np.ndarray
    sd: np.ndarray


def beliefs_of(memory: Memory, number: int) -> Beliefs | None:
    """Return what is believed of a retailer's listings now, ``None`` where he has none.

    Nothing of the shard changes. It takes a fit where a retailer's table was not fitted yet.
    """
    held = memory.learnt.retailers[number]
    used = memory.listings.listings[: memory.listings.rows]
    rows = memory.rows_of(number)
    if not len(rows):
        return None
    listings = used[rows]
    policy = memory.groups.policy[np.unique(listings["group"])]
    key = (held.day, held.phase, held.cursor, held.fits, len(rows), policy.tobytes())
    before: Beliefs | None = memory.learnt.beliefs.get(number)
    if before is not None and before.key == key:
        return before
    # Categories are numbered in what is held, and beliefs number nothing in a shard.
    held = deepcopy(held)
    if held.table is None:
        refit(memory, held, rows)
    assert held.table is not None
    category = categories_of(memory, held, listings)
    rows = rows[category < len(held.table.roots.mean)]
    listings, category = used[rows], category[category < len(held.table.roots.mean)]
    said = stated_of(memory.groups.policy.take(listings["group"]))
    own = own_word(said, held.table.roots, category)
    learnt = memory.learnt.rows.take(rows)
    evidence = evidence_of(held, learnt, markups(memory, listings), said, own)
    factor = factors_of(memory, held.effects, rows)
    mean, variance = moments(posterior(held.table, evidence, category, factor))
    found = Beliefs(key, held, rows, mean, np.sqrt(variance))
    memory.learnt.beliefs[number] = found
    return found


def told_listing(memory: Memory, row: int) -> dict[str, Any] | None:
    """Return what is learnt of a row in plain values, ``None`` where nothing is."""
    retailer = int(memory.listings.listings["retailer"][row])
    held = memory.learnt.retailers.get(retailer)
    if held is None:
        return None
    learnt = memory.learnt.rows.take([row])
    sums = sums_of(held, learnt)
    of = learnt[0]
    decided = bool(np.isfinite(of["anchor"]))
    elasticity, sd = float(of["elasticity"]), float(of["elasticity_sd"])
    beliefs = None if decided else beliefs_of(memory, retailer)
    if beliefs is not None and row in beliefs.rows:
        at = int(np.searchsorted(beliefs.rows, row))
        elasticity, sd = float(beliefs.mean[at]), float(beliefs.sd[at])
    return {
        "days": int(of["days"]),
        "units_a_day": float(np.exp(of["level"])),
        "elasticity": elasticity,
        "elasticity_sd": sd,
        "decided": decided,
        "evidence": float(sums["xx"][0]),
        "own_evidence": float(of["own"][SUMS.index("xx")]),
        "form": FORMS[int(form_of(learnt)[0])],
        "dither": float(of["dither"]),
        "decisions": int(of["turns"]),
        "next_decision_day": int(of["due_day"]),
        "model": told_model(memory, row),
    }


def told_retailer(memory: Memory, number: int, *, fit: bool = True) -> dict[str, Any] | None:
    """Return what a retailer's listings share, in plain values, ``None`` where none is learnt.

    Where his table was not fitted yet it is fitted for the answer, unless ``fit`` says not to: in a
    shard that serves, prices would wait for it.
    """
    held = memory.learnt.retailers.get(number)
    if held is None:
        return None
    if held.table is None and fit:
        beliefs = beliefs_of(memory, number)
        held = held if beliefs is None else beliefs.held
    config = None if held.table is None else held.table.configs[0]
    return {
        "day": held.day,
        "live": held.live_day >= 0,
        "curvature": held.curvature,
        "curvature_sd": held.curvature_sd,
        "forms": told_forms(held),
        "kink": told_kink(held),
        "rival_pull": held.rival,
        "rivals_follow": held.follow,
        "dispersion": held.dispersion,
        "history_trusted": held.history_trusted,
        "history_lead_sd": lead_score(held.lead),
        "categories": told_categories(memory, number),
        "price_error": None if config is None else config.sigma,
        "elasticity_spread": None if config is None else config.spread,
        "family": None if config is None else config.family,
        "exploration_share": float(held.explored[0] / max(held.explored[1], 1e-9)),
    }


def told_categories(memory: Memory, number: int) -> list[dict[str, Any]]:
    """Return, a category each and by name, what its history and what our own prices say.

    The endogeneity alarm: prices that people set followed demand where the two say different things
    of one elasticity, since ours are drawn by lot. History is then believed of nobody
    (``history_trusted``) once that shows over all of a retailer's listings; which categories it
    comes from is told here, from Hausman's test of each (:func:`engine.evidence.hausman`).
    """
    used = memory.listings.listings[: memory.listings.rows]
    rows = memory.rows_of(number)
    groups, inverse = np.unique(used["group"][rows], return_inverse=True)
    called = [memory.groups.category_of(group) for group in groups.tolist()]
    names = {name: at for at, name in enumerate(sorted(set(called)))}
    category = np.array([names[name] for name in called], dtype=np.int64)[inverse]
    columns, count = (SUMS.index("xx"), SUMS.index("bx")), len(names)
    # Two columns of each: a whole record is nearly two hundred bytes, of every listing.
    learnt = memory.learnt.rows
    own, history = (learnt[of][:, columns][rows].astype(np.float64) for of in ("own", "history"))
    apart = hausman(own, history, category, count).tolist()
    by_own, by_history = _slopes(own, category, count), _slopes(history, category, count)
    listings = np.bincount(category, minlength=count).tolist()
    return [
        {
            "category": name,
            "listings": listings[at],
            "from_history": by_history[at],
            "from_own_prices": by_own[at],
            "apart_sd": None if np.isnan(apart[at]) else apart[at],
            "alarm": abs(apart[at]) > CATEGORY_ALARM_SD,  # false of NaN
        }
        for name, at in names.items()
    ]


def _slopes(sums: np.ndarray, category: np.ndarray, count: int) -> list[dict[str, float] | None]:
    """Return the elasticity that each category's sums say, ``None`` for nothing.

    Args:
        sums: float64[rows, 2], of squares and of products.
    """
    square, product = (
        np.bincount(category, weights=sums[:, at], minlength=count).tolist() for at in (0, 1)
    )
    return [
        {"elasticity": b / x, "sd": float(1.0 / np.sqrt(x))} if x > TOLD_LEAST else None
        for x, b in zip(square, product, strict=True)
    ]
