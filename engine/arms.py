"""What arms do to rows: their policies and prices, and what their sales count for."""

from typing import NamedTuple

import numpy as np

from engine.experiments import (
    BASELINE,
    EXPERIMENT,
    HOLDOUT,
    KINDS,
    RUNNING,
    WAITING,
    Experiment,
    holdout_terms,
)
from engine.learnt import DAY_MS
from engine.listing_table import put, taken
from engine.memory import Memory, Work
from kernels.assignment import CONTROL, TREATED

# ----- what a row's arm means for its price ------------------------------------------------------


class Arms(NamedTuple):
    """How rows of a microbatch stand in experiments, as positions among them."""

    held_minor: np.ndarray  # int64[rows], the price that an arm holds a row at, 0: none
    treated: np.ndarray
    held_out: np.ndarray
    drawn: np.ndarray  # bool[rows], rows that an experiment has drawn: they move by its calendar


def arms_in(memory: Memory, rows: np.ndarray, listings: np.ndarray) -> Arms | None:
    """Return how rows stand in experiments, ``None`` where there is none."""
    if not memory.experiments.any:
        return None
    held = np.zeros(len(rows), dtype=np.int64)
    out = _held_out(memory, rows, listings)
    held[out] = memory.experiments.rows["base_minor"][HOLDOUT][rows[out]]
    groups = _treated(memory, rows, listings)
    for at, experiment in groups:
        if experiment.terms.price_ratio is not None:
            base = memory.experiments.rows["base_minor"][EXPERIMENT][rows[at]]
            held[at] = np.rint(base * experiment.terms.price_ratio).astype(np.int64)
    treated = np.concatenate([np.empty(0, dtype=np.int64), *(at for at, _ in groups)])
    drawn = memory.experiments.rows["arm"][EXPERIMENT][rows] > 0
    return Arms(held, treated, out, drawn)


def policies_of(memory: Memory, rows: np.ndarray, listings: np.ndarray) -> np.ndarray:
    """Return POLICY_DTYPE[rows]: the groups', with the treatment's fields over the treated."""
    policy = taken(memory.groups.policy, listings["group"])
    for at, experiment in _treated(memory, rows, listings):
        if experiment.terms.treatment:
            groups = listings["group"][at]
            for group in np.unique(groups).tolist():
                row = experiment.treated_policy(memory.groups.policy_of(group))
                policy[at[groups == group]] = row
    return policy


def may_decide(memory: Memory, rows: np.ndarray, listings: np.ndarray) -> np.ndarray:
    """Return bool[rows]: whose price learning may decide. An arm that holds prices forbids it."""
    free = np.ones(len(rows), dtype=bool)
    if memory.experiments.any:
        # From its draw on, be it before the arms part: the first decision must not come between.
        of = memory.experiments.rows["arm"][HOLDOUT][rows]
        free[of == CONTROL] = False
        for at, experiment in _treated(memory, rows, listings):
            if experiment.terms.price_ratio is not None:
                free[at] = False
    return free


def arms_of(memory: Memory, row: int) -> dict[str, str]:
    """Return the names of a row's arms, by kind."""
    if not memory.experiments.any:
        return {}
    names = {CONTROL: "control", TREATED: "treated"}
    found = {KINDS[kind]: int(memory.experiments.rows["arm"][kind][row]) for kind in (0, 1)}
    return {kind: names[arm] for kind, arm in found.items() if arm}


def _treated(
    memory: Memory, rows: np.ndarray, listings: np.ndarray
) -> list[tuple[np.ndarray, Experiment]]:
    found = []
    for (kind, number), each in memory.experiments.of.items():
        if kind == EXPERIMENT and each.status == RUNNING:
            mine = listings["retailer"] == number
            mine &= memory.experiments.rows["arm"][EXPERIMENT][rows] == TREATED
            at = np.flatnonzero(mine)
            if len(at):
                found.append((at, each))
    return found


def _held_out(memory: Memory, rows: np.ndarray, listings: np.ndarray) -> np.ndarray:
    of = memory.experiments.rows[HOLDOUT].take(rows)
    out = (of["arm"] == CONTROL) & (of["base_minor"] > 0)
    running = [
        number
        for (kind, number), each in memory.experiments.of.items()
        if kind == HOLDOUT and each.status == RUNNING
    ]
    return np.flatnonzero(out & np.isin(listings["retailer"], running))


# ----- what sales count for ----------------------------------------------------------------------


def note_sales(memory: Memory, work: Work, rows: np.ndarray, units: np.ndarray) -> None:
    """Add sales to the sums of the arms that rows are in now.

    Args:
        rows: distinct.
        units: int64[rows].
    """
    if not memory.experiments.any:
        return
    listings = memory.listings.listings.take(rows)
    for (kind, number), each in memory.experiments.of.items():
        if each.status == WAITING or not each.open:
            continue
        table = memory.experiments.rows[kind]
        at = np.flatnonzero((listings["retailer"] == number) & (table["arm"][rows] > 0))
        if not len(at):
            continue
        earned = _earned(memory, each.terms.metric, listings[at], units[at])
        mine, records = rows[at], table.take(rows[at])
        if each.status == BASELINE:
            records["before"] += earned
            each.before += float(earned.sum())
        elif each.counting:
            records["sums"][:, 0] += np.where(records["arm"] == TREATED, earned, 0.0)
            records["sums"][:, 2] += np.where(records["arm"] == CONTROL, earned, 0.0)
        put(table, mine, records)
        work.changed.append(records.tobytes())


def _earned(memory: Memory, metric: str, listings: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return float64[rows], what sales earned at the prices in force; of no cost no profit."""
    if metric == "units":
        return units.astype(np.float64)
    price = listings["in_force_minor"].astype(np.float64)
    if metric == "revenue":
        return np.asarray(units * price)
    fees = memory.groups.table.take(listings["group"])
    fee = np.maximum(fees["commission"] * price, fees["minimum_fee_minor"])
    unit = price / (1.0 + fees["vat"]) - fee - fees["fixed_fee_minor"] - listings["cost_minor"]
    known = (listings["cost_minor"] >= 0) & (price > 0)
    return np.asarray(np.where(known, units * unit, 0.0))


# ----- the holdout -------------------------------------------------------------------------------


def set_holdout(memory: Memory, work: Work, number: int) -> None:
    """Begin, end or change a retailer's holdout, as his policy says now."""
    retailer = memory.retailers.ids[number]
    policy = memory.groups.book.retailer_policy(retailer)
    share = policy.holdout_share if policy.learning else 0.0
    held = memory.experiments.of.get((HOLDOUT, number))
    before = 0.0 if held is None else 1.0 - held.terms.share
    if abs(share - before) < 1e-9:
        return
    rows = memory.rows_of(number)
    memory.experiments.of.pop((HOLDOUT, number), None)
    memory.experiments.forget(rows, (HOLDOUT,))
    if share > 0.0:
        begun = Experiment(HOLDOUT, retailer, holdout_terms(share), work.now_ms, DAY_MS)
        memory.experiments.begin((HOLDOUT, number), begun, memory.listings.capacity)
    memory.mark(rows)
    memory.unsaved[rows] = True
