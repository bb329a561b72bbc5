"""``ExperimentStarted`` and ``ExperimentStopped``: somebody begins an experiment, or ends it."""

from engine.catalogue import Answer, Refused, not_newer, retailer_number
from engine.deltas import ExperimentStarted, ExperimentStopped
from engine.experiment_days import end, tell
from engine.experiments import EXPERIMENT, STOPPED, Experiment, decode_terms
from engine.learnt import DAY_MS
from engine.memory import Memory, Work
from engine.microbatch import Position


def start(memory: Memory, work: Work, position: Position, delta: ExperimentStarted) -> Answer:
    """Begin an experiment: at the next midnight its listings are drawn."""
    number = retailer_number(memory, delta.retailer)
    terms = decode_terms(delta.fields)
    held = memory.experiments.of.get((EXPERIMENT, number))
    if held is not None and delta.observed_ms < held.observed_ms:
        raise not_newer(delta.observed_ms, held.observed_ms)
    if held is not None and held.open:
        raise Refused(
            "rejected",
            f"/fields/experiment: {held.terms.experiment} is running; a retailer has one "
            "experiment at a time, so send ExperimentStopped first",
            "conflict",
        )
    if not memory.retailers.table["live"][number]:
        raise Refused(
            "rejected",
            "/retailer: is in shadow, where arms would not differ; send ModeChanged first",
            "conflict",
        )
    begun = Experiment(EXPERIMENT, delta.retailer, terms, work.now_ms, DAY_MS)
    begun.observed_ms = delta.observed_ms
    memory.experiments.begin((EXPERIMENT, number), begun, memory.listings.capacity)
    memory.experiments.forget(memory.rows_of(number), (EXPERIMENT,))
    work.changed.append(repr(begun.state()).encode())
    tell(memory, work, begun, number, position)
    return Answer("its listings are drawn at the next midnight (UTC)")


def stop(memory: Memory, work: Work, position: Position, delta: ExperimentStopped) -> Answer:
    """End an experiment at once: all its listings are priced as all others."""
    number = retailer_number(memory, delta.retailer)
    held = memory.experiments.of.get((EXPERIMENT, number))
    name = delta.fields.get("experiment")
    if held is None or name not in (None, held.terms.experiment):
        raise Refused("rejected", "/fields/experiment: no such experiment; name one that runs")
    if delta.observed_ms < held.observed_ms:
        raise not_newer(delta.observed_ms, held.observed_ms)
    if not held.open:
        raise Refused("rejected", f"/fields/experiment: it is over ({held.status})", "conflict")
    held.status, held.observed_ms = STOPPED, delta.observed_ms
    end(memory, held, number)
    work.changed.append(repr(held.state()).encode())
    tell(memory, work, held, number, position)
    return Answer()
