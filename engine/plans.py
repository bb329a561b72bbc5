"""Applying a plan: a change of policy whose effects a person has seen before.

A plan is made on a fork of the shard (``engine.foresight``) and names where the shard stood. It is
applied only where the shard still stands there, so that what moves is what was seen, bit for bit:
no record of either lane was consumed since, nothing is decided beside it, no work waits, and no
time has come at which a price moves by itself. The breaker does not count what a plan moves.
"""

import numpy as np

from engine.catalogue import Answer, Refused, change_policy, not_newer, retailer_number
from engine.deltas import PlanApplied, Planned, PolicyChanged
from engine.errors import RejectedInput
from engine.listing_table import NEVER, PLANNED
from engine.memory import Memory, Work
from engine.microbatch import Position

PLAN_VALID_MS = 3_600_000
"""A plan that is older is applied by nobody: what was seen is no longer what would happen."""


def apply_plan(memory: Memory, work: Work, position: Position, delta: PlanApplied) -> Answer:
    """Set all scopes of a plan, or none of them."""
    number = retailer_number(memory, delta.retailer)
    if delta.planned is not None:
        _check_place(memory, work, delta.planned, delta.anyway)
    elif not delta.anyway:
        raise Refused(
            "rejected", "/planned: is missing; plan the change first, or say anyway", "refused"
        )
    _check_changes(memory, number, delta)
    waited = memory.backlog.dirty.copy()
    for change in delta.changes:
        changed = PolicyChanged(
            retailer=delta.retailer,
            scope=change.scope,
            key=change.key,
            priority=change.priority,
            fields=change.fields,
            observed_ms=delta.observed_ms,
        )
        change_policy(memory, work, position, changed)
    if delta.planned is not None:
        rows = np.flatnonzero(memory.backlog.dirty & ~waited)
        memory.listings.listings["flags"][rows] |= PLANNED
        memory.unsaved[rows] = True
        work.changed.append(rows.tobytes())
    return Answer()


def next_ms(memory: Memory) -> int:
    """Return when a price may next move by itself: a timer, a full hour, or a period's close."""
    learning = [held.next_ms for held in memory.learnt.retailers.values()]
    due_ms = memory.timers.due_ms[: memory.listings.rows]
    hour = [memory.tiers.next_hour_ms] if memory.tiers.waiting else []
    return min([int(due_ms.min(initial=NEVER)), *learning, *hour])


def _check_place(memory: Memory, work: Work, planned: Planned, anyway: bool) -> None:
    if not 0 <= work.now_ms - planned.planned_ms <= PLAN_VALID_MS:
        raise _conflict("the plan is more than an hour old; plan again")
    if anyway:
        return
    if work.after != (planned.last_command, planned.last_delta):
        raise _conflict(
            f"the shard was planned at command {planned.last_command}, delta "
            f"{planned.last_delta}, and stands at {work.after[0]}, {work.after[1]}: what moves "
            "may be other than what was shown; plan again, or apply anyway"
        )
    if not work.alone:
        raise _conflict("other deltas came with it; plan again, or apply anyway")
    if memory.backlog.rows or memory.learnt.closing or memory.tiers.cursor >= 0:
        raise _conflict("work is waiting to be decided; plan again, or apply anyway")
    if work.now_ms >= planned.exact_until_ms:
        raise _conflict(
            "a time has come at which prices move by themselves; plan again, or apply anyway"
        )


def _conflict(reason: str) -> Refused:
    return Refused("rejected", f"/planned: {reason}", "conflict")


def _check_changes(memory: Memory, number: int, delta: PlanApplied) -> None:
    """Refuse the whole plan if any of its changes would be refused."""
    seen = set()
    for index, change in enumerate(delta.changes):
        pointer = f"/changes/{index}"
        place = (change.scope, change.key)
        if place in seen:
            raise RejectedInput(pointer, "names a scope that an earlier change names", "join them")
        seen.add(place)
        known_ms = memory.groups.policy_ms.get((number, *place), -1)
        if delta.observed_ms < known_ms:
            raise not_newer(delta.observed_ms, known_ms)
        try:
            memory.groups.book.checked(
                delta.retailer, change.scope, change.key, change.fields, change.priority
            )
        except RejectedInput as error:
            raise type(error)(pointer + error.pointer, error.problem, error.fix) from None
