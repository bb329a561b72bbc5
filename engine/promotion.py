"""A model is promoted, serves, is judged, and gives way: what changes ``Serving``."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.artefact import Artefact, sound
from engine.catalogue import Answer, Refused, not_newer, retailer_number, tell
from engine.decided import CatalogueChange
from engine.deltas import ModelPromoted
from engine.learnt import DAY_MS
from engine.listing_table import REMOVED
from engine.memory import Memory, Work
from engine.microbatch import LANES, Microbatch, ObjectDelta, Position, Refusal
from engine.serving import CANARY, CHAMPION, ERRORS, PLACES, RULES, Served, chosen
from kernels.hyperparameters import ERRORS_MEMORY_DAYS, UNSOUND_MAX
from kernels.prediction import Prediction, informed, units_with

MISSING = (
    "/model: its artefact could not be had whole and in time, prices go on without it; see "
    "`repricer models show`, and promote it again"
)


def promote(memory: Memory, work: Work, position: Position, delta: ModelPromoted) -> Answer:
    """Put a model into its place, or take all of a retailer's away (``rules``)."""
    number = retailer_number(memory, delta.retailer)
    serving = memory.serving
    if delta.observed_ms <= serving.told_ms.get(number, -1):
        raise not_newer(delta.observed_ms, serving.told_ms[number])
    if delta.model == RULES:
        _set_aside(memory, work, number, PLACES)
        serving.told_ms[number] = delta.observed_ms
        tell(work, position, "model", delta.retailer, {"model": RULES, "stage": CHAMPION})
        return Answer()
    if number not in memory.learnt.retailers:
        raise Refused("rejected", "/retailer: has no learning; set the policy `learning` first")
    artefact = work.artefacts.get(delta.checksum)
    if artefact is None:
        raise Refused("rejected", MISSING)
    rows, known = _rows_of(memory, number, delta, artefact)
    place = delta.stage
    replaced = PLACES if place == CHAMPION else (CANARY,)
    _set_aside(memory, work, number, replaced)
    serving.write(place, rows, artefact.predictions[known], memory.listings.capacity)
    share = 1.0 if place == CHAMPION else delta.share
    served = Served(delta.model, delta.checksum, work.now_ms, share, delta.canary_days)
    serving.set(number, place, served)
    serving.told_ms[number] = delta.observed_ms
    memory.unsaved[rows] = True
    work.changed.append(repr(serving.state()).encode())
    fields = {
        "model": delta.model,
        "stage": place,
        "checksum": delta.checksum,
        "share": share,
        "listings": len(rows),
    }
    tell(work, position, "model", delta.retailer, fields)
    return Answer(detail=f"{delta.model} is {place}; it knows {len(rows)} listings here")


def promotions(batch: Microbatch) -> list[tuple[Position, ModelPromoted]]:
    """Return the promotions in a microbatch that name an artefact."""
    return [
        (run.position, run.delta)
        for run in batch.runs
        if isinstance(run, ObjectDelta)
        and isinstance(run.delta, ModelPromoted)
        and run.delta.checksum
    ]


def had(
    batch: Microbatch, refusals: Sequence[Refusal], artefacts: Sequence[Artefact]
) -> list[Artefact]:
    """Return of ``artefacts`` those that were there when the microbatch was recorded."""
    if not artefacts:
        return []
    places = {refusal.position for refusal in refusals if refusal.reason == MISSING}
    missing = {delta.checksum for position, delta in promotions(batch) if position in places}
    return [artefact for artefact in artefacts if artefact.checksum not in missing]


def _rows_of(
    memory: Memory, number: int, delta: ModelPromoted, artefact: Artefact
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of which an artefact says something possible, and where; or refuse it whole."""
    if (artefact.version, artefact.retailer) != (delta.model, delta.retailer):
        told = f"/model: the artefact is {artefact.version} of {artefact.retailer}; name that one"
        raise Refused("rejected", told)
    good = sound(artefact.predictions)
    bad = len(good) - int(good.sum())
    if bad > UNSOUND_MAX * len(good):
        told = f"/model: {bad} of its {len(good)} predictions are no numbers or impossible"
        raise Refused("rejected", f"{told}; train another")
    rows = memory.listings.index.rows(artefact.keys)
    listings = memory.listings.listings.take(np.maximum(rows, 0))
    mine = (rows >= 0) & (listings["retailer"] == number) & (listings["flags"] & REMOVED == 0)
    known = np.flatnonzero(mine & good)
    if not len(known):
        raise Refused("rejected", "/model: it knows none of the listings here; train another")
    return rows[known].astype(np.int64), known


def _set_aside(memory: Memory, work: Work, number: int, places: tuple[str, ...]) -> None:
    """Take models out of their places, and let the rows that they served decide anew."""
    rows = memory.rows_of(number)
    for place in places:
        served = memory.serving.of(number).get(place)
        if served is None:
            continue
        mine = rows[memory.serving.take(place, rows)["reference_minor"] > 0]
        if place == CANARY:
            mine = mine[chosen(memory.listings.listings["key"][mine], served)]
        memory.serving.clear(place, rows)
        memory.serving.set(number, place, None)
        memory.unsaved[rows] = True
        held = memory.learnt.retailers.get(number)
        if held is not None:
            memory.learnt.rows["due_day"][mine] = held.day
        work.changed.append(mine.tobytes())


# ----- what a model says -------------------------------------------------------------------------


def prediction_of(
    memory: Memory,
    number: int,
    rows: np.ndarray,
    filtered: np.ndarray,
    days: tuple[int, int] | None = None,
    *,
    canary: bool = True,
) -> tuple[Prediction, np.ndarray] | None:
    """Return what the models of a retailer say of rows, and which of them the canary serves.

    Args:
        filtered: float64[rows], log over the status quo of the price that each level belongs to.
        days: the first and the number of the period's days since 1970, for its season.
        canary: whether the canary counts; else the champion speaks for its rows too.
    """
    places = memory.serving.of(number)
    if not places:
        return None
    listings = memory.listings.listings
    said = memory.serving.take(CHAMPION, rows)
    by_canary = np.zeros(len(rows), dtype=bool)
    served = places.get(CANARY)
    if served is not None:
        of = memory.serving.take(CANARY, rows)
        by_canary = (of["reference_minor"] > 0) & chosen(listings["key"][rows], served)
        if canary:
            said = np.where(by_canary, of, said)
    known = said["reference_minor"] > 0
    status_quo = np.maximum(listings["status_quo_minor"][rows], 1).astype(np.float64)
    reference = np.where(known, said["reference_minor"], status_quo).astype(np.float64)
    slope = said["elasticity"].astype(np.float64)
    moved = filtered + np.log(status_quo) - np.log(reference)
    season = said["season"].astype(np.float64)
    if days is None:
        at = np.zeros(len(rows))
    else:
        first, count = days
        # The first of January 1970 was a Thursday, and the season begins on Monday.
        which = (first + 3 + np.arange(min(count, 7))) % 7
        at = np.log(np.exp(season[:, which]).mean(axis=1))
    level_sd = np.where(known, said["level_sd"], 1.0).astype(np.float64)
    slope_sd = np.where(known, said["elasticity_sd"], 1.0).astype(np.float64)
    prediction = Prediction(
        known=known,
        level=said["level"].astype(np.float64) + slope * moved,
        level_variance=np.square(level_sd),
        elasticity=np.where(known, slope, -2.6),
        elasticity_variance=np.square(slope_sd),
        season=at,
    )
    return prediction, by_canary


def informed_rows(learnt: np.ndarray, filtered: np.ndarray, said: Prediction) -> np.ndarray:
    """Return copies of what rows have learnt, with what a model says of level and elasticity."""
    rows = learnt.copy()
    rows["level"], rows["variance"] = informed(
        learnt["level"].astype(np.float64),
        learnt["variance"].astype(np.float64),
        said.level,
        said.level_variance,
        said.known,
    )
    mean, variance = informed(
        learnt["elasticity"].astype(np.float64),
        np.square(learnt["elasticity_sd"].astype(np.float64)),
        said.elasticity,
        said.elasticity_variance,
        said.known,
    )
    rows["elasticity"], rows["elasticity_sd"] = mean, np.sqrt(variance)
    return rows


def informed_learnt(memory: Memory, rows: np.ndarray, learnt: np.ndarray) -> np.ndarray:
    """Return what rows of any retailers have learnt, with what their models say."""
    if not memory.serving.any:
        return learnt
    told = learnt.copy()
    retailer = memory.listings.listings["retailer"][rows]
    for number in sorted(memory.serving.retailers):
        at = np.flatnonzero(retailer == number)
        if not len(at):
            continue
        filtered = learnt["price"][at].astype(np.float64)
        found = prediction_of(memory, number, rows[at], filtered)
        if found is not None:
            told[at] = informed_rows(learnt.take(at), filtered, found[0])
    return told


def told_model(memory: Memory, row: int) -> dict[str, Any] | None:
    """Return which model speaks for a row and what it says, ``None`` where none does."""
    number = int(memory.listings.listings["retailer"][row])
    rows = np.array([row])
    found = prediction_of(memory, number, rows, memory.learnt.rows["price"][rows])
    if found is None or not found[0].known[0]:
        return None
    said, by_canary = found
    place = CANARY if by_canary[0] else CHAMPION
    return {
        "model": memory.serving.of(number)[place].version,
        "stage": place,
        "units_a_day": float(np.exp(said.level[0])),
        "elasticity": float(said.elasticity[0]),
        "elasticity_sd": float(np.sqrt(said.elasticity_variance[0])),
    }


# ----- how it fares ------------------------------------------------------------------------------


def weigh(
    memory: Memory,
    number: int,
    rows: np.ndarray,
    foreseen: tuple[np.ndarray, np.ndarray, np.ndarray],
    level: np.ndarray,
    filtered: np.ndarray,
    counted: tuple[np.ndarray, np.ndarray],
    days: tuple[int, int],
) -> None:
    """Count what the models of a retailer foresaw of a period, and what was foreseen without them.

    Args:
        foreseen: units, the price's innovation and the level's variance, without any model.
        level: of the stream, at the price ``filtered``.
        counted: which rows count, and the units they sold.
    """
    found = prediction_of(memory, number, rows, filtered, days)
    if found is None:
        return
    said, by_canary = found
    learnt = memory.learnt.rows.take(rows)
    units, moved, variance = foreseen
    elasticity = (
        learnt["elasticity"].astype(np.float64),
        np.square(learnt["elasticity_sd"].astype(np.float64)),
    )
    with_model = units_with(units, moved, (level, variance), elasticity, said)
    without = units
    before = prediction_of(memory, number, rows, filtered, days, canary=False)
    if by_canary.any() and before is not None:
        # A canary must do no worse than the champion would on the same listings.
        old = units_with(units, moved, (level, variance), elasticity, before[0])
        without = np.where(by_canary, old, units)
    which, sold = counted
    for place, served in memory.serving.of(number).items():
        mine = which & said.known & (by_canary if place == CANARY else ~by_canary)
        wrong = np.abs(sold[mine] - with_model[mine])
        better = np.abs(sold[mine] - without[mine])
        apart = wrong - better
        served.errors = served.errors + np.array(
            [wrong.sum(), better.sum(), apart.sum(), np.square(apart).sum(), float(len(wrong))]
        )


def judge(memory: Memory, work: Work, number: int, days: float) -> None:
    """Roll back what foresees worse, and let a canary that lasted its days be the champion."""
    for place in (CANARY, CHAMPION):
        served = memory.serving.of(number).get(place)
        if served is None:
            continue
        served.days_left = max(served.days_left - round(days), 0)
        if served.dropped():
            _set_aside(memory, work, number, (place,))
            _tell(memory, work, number, served, "rolled_back")
        elif place == CANARY and served.days_left == 0 and served.judged():
            _crown(memory, work, number, served)
        else:
            served.errors = served.errors * np.exp(-days / ERRORS_MEMORY_DAYS)
    work.changed.append(repr(memory.serving.state()).encode())


def _crown(memory: Memory, work: Work, number: int, served: Served) -> None:
    rows = memory.rows_of(number)
    predictions = memory.serving.take(CANARY, rows)
    memory.serving.write(CHAMPION, rows, predictions, memory.listings.capacity)
    memory.serving.clear(CANARY, rows)
    memory.serving.set(number, CANARY, None)
    memory.unsaved[rows] = True
    served.share = 1.0
    _tell(memory, work, number, served, CHAMPION)
    served.errors = np.zeros(len(ERRORS))
    memory.serving.set(number, CHAMPION, served)


def _tell(memory: Memory, work: Work, number: int, served: Served, stage: str) -> None:
    """Tell followers what the shard decided about a model by itself."""
    errors = dict(zip(ERRORS, (round(of, 6) for of in served.errors.tolist()), strict=True))
    work.catalogue.append(
        CatalogueChange(
            position=Position(len(LANES), work.now_ms // DAY_MS, number),
            what="model",
            retailer=memory.retailers.ids[number],
            fields={"model": served.version, "stage": stage, "errors": errors},
        )
    )
