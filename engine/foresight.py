"""What would happen: plans and what-ifs, asked of a fork of a shard, which they use up.

The fork decides with the very code that the shard decides with, so what is foreseen is what would
be decided. Time stands still on it: all is foreseen for the moment of the last decision.
"""

from typing import Any

import numpy as np
from msgspec import Struct

from engine.catalogue import retailer_number
from engine.decided import QUOTE_DTYPE, State, no_quotes
from engine.deltas import PlanApplied, Planned, ScopeChange
from engine.errors import NotSupported, RejectedInput
from engine.facts import set_cost
from engine.learning import redecide
from engine.listing_table import PLANNED
from engine.memory import Memory, Work
from engine.microbatch import Microbatch, ObjectDelta, Position
from engine.plans import next_ms
from engine.rivals import OFFER_DTYPE, OFFER_IN_STOCK, OFFER_NEW, OFFER_USED
from engine.routing import key64, name64
from engine.shard import Shard
from engine.suppositions import Case, Selection
from kernels import reasons
from kernels.limits import PRICE_MINOR_MAX

LISTINGS_MAX = 100_000
"""Most listings that one question is about."""

SETTLE_MAX = 100_000
"""Most microbatches that a fork decides for one question; more would be work without end."""

WAITING = (State.SHADOW, State.PENDING, State.HELD, State.HALTED)
"""States in which a price is proposed and not put in force."""


class Foreseen(Struct, frozen=True, eq=False):
    """What would become of some listings; one element a listing whose quote would change."""

    asked: int  # listings that the question is about
    rows: np.ndarray  # of the fork; they mean nothing outside of it
    before: np.ndarray  # QUOTE_DTYPE
    after: np.ndarray  # QUOTE_DTYPE
    quotes: np.ndarray  # QUOTE_DTYPE, all that the fork decided, in its order
    planned: Planned
    concerned: tuple[int, ...] = ()  # of a plan, how many listings each of its changes is about


def plan(fork: Shard, retailer: str, changes: tuple[ScopeChange, ...]) -> Foreseen:
    """Return what a change of policy would do, and until when exactly that.

    Raises:
        RejectedInput, NotSupported: the shard would refuse the change.
        Refused: it does not know the retailer, or a scope was changed at a later time.
    """
    memory = fork._memory
    number = retailer_number(memory, retailer)
    settle(fork)
    rows = memory.rows_of(number)
    before = memory.listings.quotes.take(rows)
    concerned = [_concerned(memory, retailer, rows, change) for change in changes]
    place = _place_of(fork)
    until_ms = next_ms(memory)
    quotes = _apply(fork, retailer, changes, place)
    after = memory.listings.quotes.take(rows)
    differ = np.flatnonzero(_differ(before, after))
    exact_until_ms = min(until_ms, next_ms(memory))
    return Foreseen(
        asked=int(np.any(concerned, axis=0).sum()),
        rows=rows[differ],
        before=before[differ],
        after=after[differ],
        quotes=quotes,
        planned=_place_of(fork, place, exact_until_ms),
        concerned=tuple(int(each.sum()) for each in concerned),
    )


def what_if(fork: Shard, retailer: str, selection: Selection, case: Case) -> Foreseen:
    """Return what would become of the selected listings if the case came true.

    Raises:
        RejectedInput: the selection names too many listings, or none; or as :func:`plan`.
    """
    memory = fork._memory
    number = retailer_number(memory, retailer)
    settle(fork)
    rows = selected(memory, number, selection)
    before = memory.listings.quotes.take(rows)
    place = _place_of(fork)
    suppose(memory, rows, case, fork.decided_ms)
    quotes = no_quotes()
    if case.changes:
        quotes = _apply(fork, retailer, case.changes, place)
    quotes = np.concatenate([quotes, *settle(fork)])
    after = memory.listings.quotes.take(rows)
    differ = np.flatnonzero(_differ(before, after))
    return Foreseen(
        asked=len(rows),
        rows=rows[differ],
        before=before[differ],
        after=after[differ],
        quotes=quotes,
        planned=_place_of(fork, place, fork.decided_ms),
    )


def settle(fork: Shard) -> list[np.ndarray]:
    """Let a fork decide all that waits or is due; return the quotes."""
    quotes = [no_quotes()]
    for _ in range(SETTLE_MAX):
        if not fork.due(fork.decided_ms):
            return quotes
        ends = Microbatch(last_command=fork.last_command, last_delta=fork.last_delta)
        quotes.append(_decide(fork, ends))
    raise AssertionError("the backlog does not end")


def selected(memory: Memory, number: int, selection: Selection) -> np.ndarray:
    """Return the rows that a selection names, ascending."""
    rows = memory.rows_of(number)
    wanted = (selection.channel, selection.category, selection.tag, selection.skus)
    if any(each is not None for each in wanted):
        skus = None if selection.skus is None else frozenset(selection.skus)
        kept = []
        for row in rows.tolist():
            text = memory.listings.text(row)
            kept.append(
                (selection.channel is None or text.channel == selection.channel)
                and (selection.category is None or text.category == selection.category)
                and (selection.tag is None or selection.tag in text.tags)
                and (skus is None or text.sku in skus)
            )
        rows = rows[np.array(kept, dtype=bool)]
    if not len(rows):
        raise RejectedInput("/listings", "selects no listing", "name others")
    if len(rows) > LISTINGS_MAX:
        raise RejectedInput(
            "/listings",
            f"selects {len(rows)} listings of one shard",
            f"at most {LISTINGS_MAX}: name a channel or a category",
        )
    return rows


def suppose(memory: Memory, rows: np.ndarray, case: Case, now_ms: int) -> None:
    """Let a case's costs and rivals come true in a fork's memory, and mark the rows for pricing.

    A price on its way takes its next step with that, as it does when anything is heard of it.
    """
    if case.cost_ratio == case.rival_ratio == 1.0 and not case.rival_minor:
        return
    listings = memory.listings.listings
    if case.cost_ratio != 1.0:
        known = rows[listings["cost_minor"][rows] >= 0]
        cost = np.rint(listings["cost_minor"][known] * case.cost_ratio)
        cost = np.clip(cost, 0, PRICE_MINOR_MAX).astype(np.int32)
        set_cost(memory, known, cost, np.maximum(listings["cost_ms"][known], now_ms))
    if case.rival_ratio != 1.0:
        blocks = memory.rivals.blocks_of(rows)
        blocks = np.unique(blocks[blocks > 0])
        landed = memory.rivals.offers["landed_minor"][blocks] * case.rival_ratio
        memory.rivals.offers["landed_minor"][blocks] = np.clip(np.rint(landed), 0, PRICE_MINOR_MAX)
    if case.rival_minor:
        _set_lowest(memory, rows, case.rival_minor, now_ms)
    work = Work(now_ms)
    places = np.zeros(len(rows), dtype=np.int64)
    work.touch(rows, places.astype(np.uint8), places, places.astype(np.int32))
    if memory.learnt.any:
        redecide(memory, work)
    memory.mark(rows)
    listings["flags"][rows] |= PLANNED


def _set_lowest(memory: Memory, rows: np.ndarray, landed_minor: int, now_ms: int) -> None:
    """Let one rival of each row ask a price, and all others be out of stock."""
    rivals = memory.rivals
    blocks = rivals.blocks_of(rows)
    held = np.unique(blocks[blocks > 0])
    rivals.offers["flags"][held] &= 255 - OFFER_IN_STOCK
    offered = np.zeros(len(rows), dtype=OFFER_DTYPE)
    offered["rival"], offered["observed_ms"] = name64("what-if"), now_ms
    offered["landed_minor"] = landed_minor
    offered["flags"] = OFFER_USED | OFFER_IN_STOCK | OFFER_NEW
    fresh = ~rivals.known(rows)
    names = offered["rival"][fresh]
    # A row without offers gets a block; in the others the first offer speaks for all.
    at = np.zeros(len(rows), dtype=np.int64)
    at[fresh] = rivals.take_places(rows[fresh], names, np.zeros_like(names))
    rivals.put(rows, at, offered)


def _apply(
    fork: Shard, retailer: str, changes: tuple[ScopeChange, ...], place: Planned
) -> np.ndarray:
    """Have the fork apply a plan as the shard would; return all quotes of it."""
    delta = PlanApplied(
        retailer=retailer,
        command_id="foresight",
        changes=changes,
        observed_ms=max(fork.decided_ms, 0),
        planned=place,
        anyway=True,
    )
    position = Position(0, fork.last_command + 1, 0)
    batch = Microbatch(
        runs=(ObjectDelta(position, delta),),
        last_command=position.offset,
        last_delta=fork.last_delta,
        deltas=1,
    )
    decided = fork.apply(batch, fork.decided_ms)
    fork.record(decided)
    for refusal in decided.exceptions:
        pointer, _, problem = refusal.reason.partition(": ")
        kind = NotSupported if refusal.verdict == "not_supported" else RejectedInput
        raise kind(pointer, problem)
    return np.concatenate([decided.quotes, *settle(fork)])


def _decide(fork: Shard, batch: Microbatch) -> np.ndarray:
    decided = fork.apply(batch, fork.decided_ms)
    fork.record(decided)
    return decided.quotes


def _place_of(fork: Shard, place: Planned | None = None, exact_until_ms: int = 0) -> Planned:
    """Return where a fork stands, or ``place`` with the end of its exactness."""
    if place is None:
        return Planned(
            last_command=fork.last_command,
            last_delta=fork.last_delta,
            planned_ms=fork.decided_ms,
            exact_until_ms=fork.decided_ms,
        )
    # As JSON carries it: a time that never comes is the last one there is.
    until_ms = min(exact_until_ms, 2**53)
    return Planned(
        last_command=place.last_command,
        last_delta=place.last_delta,
        planned_ms=place.planned_ms,
        exact_until_ms=until_ms,
    )


def _concerned(memory: Memory, retailer: str, rows: np.ndarray, change: ScopeChange) -> np.ndarray:
    """Return bool[rows], whether a change of policy is about each of a retailer's listings."""
    if change.scope == "retailer":
        return np.ones(len(rows), dtype=bool)
    found: np.ndarray
    if change.scope == "listing":
        channel, _, sku = change.key.partition("\x1f")
        found = rows == memory.listings.live_row(key64(retailer, channel, sku))
    else:
        groups = memory.groups.named(change.scope, change.key)
        found = groups[memory.listings.listings["group"][rows]]
    return found


COMPARED = ("state", "in_force_minor", "proposed_minor")


def _differ(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    differ = np.zeros(len(before), dtype=bool)
    for name in COMPARED:
        differ |= before[name] != after[name]
    return differ


# ----- telling it --------------------------------------------------------------------------------


def price_of(quotes: np.ndarray) -> np.ndarray:
    """Return int32[n], the price that a quote is about: in force, or proposed where that waits."""
    assert quotes.dtype == QUOTE_DTYPE
    waits = np.isin(quotes["state"], WAITING) & (quotes["proposed_minor"] > 0)
    return np.where(waits, quotes["proposed_minor"], quotes["in_force_minor"])


def told(fork: Shard, seen: Foreseen, limit: int) -> dict[str, Any]:
    """Return counts, and the ``limit`` largest moves, as plain values."""
    memory = fork._memory
    before, after = price_of(seen.before), price_of(seen.after)
    known = (before > 0) & (after > 0)
    change = np.where(known, after / np.maximum(before, 1) - 1.0, 0.0)
    moved = before != after
    in_force = seen.before["in_force_minor"] != seen.after["in_force_minor"]
    order = np.argsort(-np.abs(change), kind="stable")[:limit]
    return {
        "listings": seen.asked,
        "moved": int(moved.sum()),
        "in_force": int(in_force.sum()),
        "proposed": int((moved & ~in_force).sum()),
        "raised": int((moved & (change > 0)).sum()),
        "lowered": int((moved & (change < 0)).sum()),
        "change_sum": float(change[moved & known].sum()),
        "guardrails": _guardrails(seen.after[moved]),
        "states": _states(seen.after),
        "moves": [
            _move(memory, int(seen.rows[at]), seen.before[at], seen.after[at], float(change[at]))
            for at in order.tolist()
        ],
    }


def _guardrails(after: np.ndarray) -> dict[str, int]:
    """Return how many of the quotes each rule binds, and how many yielded or fail closed."""
    counts = np.bincount(after["binding"], minlength=256)
    found = {name: int(counts[at]) for at, name in enumerate(reasons.BINDINGS) if counts[at]}
    for name, bit in (
        ("overridden", reasons.OVERRIDDEN),
        ("held_by_breaker", reasons.HELD_BY_BREAKER),
    ):
        number = int(((after["reasons"] & bit) != 0).sum())
        if number:
            found[name] = number
    return found


def _states(after: np.ndarray) -> dict[str, int]:
    counts = np.bincount(after["state"], minlength=len(State) + 1)
    return {state.name.lower(): int(counts[state]) for state in State if counts[state]}


def _move(
    memory: Memory, row: int, before: np.void, after: np.void, change: float
) -> dict[str, Any]:
    text, held = memory.listings.text(row), memory.listings.listings[row]
    binding = int(after["binding"])
    return {
        "channel": text.channel,
        "sku": text.sku,
        "currency": memory.currencies.name(int(held["currency"])),
        "before_minor": int(price_of(before.reshape(1))[0]),
        "after_minor": int(price_of(after.reshape(1))[0]),
        "change": change,
        "state": State(int(after["state"])).name.lower(),
        "guardrail": reasons.BINDINGS[binding] if binding < len(reasons.BINDINGS) else "",
        "floor_minor": int(after["floor_minor"]),
        "ceiling_minor": int(after["ceiling_minor"]),
        "without_minor": int(after["without_minor"]),
        "reasons": list(reasons.names(int(after["reasons"]))),
    }
