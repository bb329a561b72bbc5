"""From rows to quotes: gather what a price depends on, have it priced, and decide what happens.

Pricing says what the price should be. Here it is decided whether it is put in force, waits for a
person, is held by the breaker, or stays away because publishing is halted.
"""

import numpy as np
from msgspec import Struct

from engine import breaker, pricing, rival_position
from engine.arms import Arms, arms_in, policies_of
from engine.brake import brake_ends_ms, braked_minor, note_follows
from engine.decided import Cause, State
from engine.evidence import Wishes, learnt_wishes
from engine.floors import floor_minor
from engine.leash import leashed, moor
from engine.listing_table import (
    CHANGE_SLOTS,
    KVI,
    NEVER,
    PLANNED,
    RELEASED,
    REMOVED,
    RETURNS,
    SLOT_MS,
    put,
    taken,
)
from engine.memory import Memory
from engine.narrow import sum_in_row
from engine.news import Looked, written
from engine.pricing import PRICING_INPUT_DTYPE, PRICING_POLICY_FIELDS
from engine.rival_position import Positions
from engine.rivals import Reference, converted, reference
from engine.stock import stock_of
from kernels import reasons
from kernels.limits import PRICE_MINOR_MAX

# As plain numbers, for NumPy takes four times as long to compare with members of an enumeration.
_SHADOW, _LIVE, _PENDING, _PINNED, _HELD, _INFEASIBLE, _UNPUBLISHABLE, _HALTED = map(
    int,
    (
        State.SHADOW,
        State.LIVE,
        State.PENDING,
        State.PINNED,
        State.HELD,
        State.INFEASIBLE,
        State.UNPUBLISHABLE,
        State.HALTED,
    ),
)
_REPRICE, _HOUR = int(Cause.REPRICE), int(Cause.HOUR)


class Quoted(Struct, frozen=True, eq=False):
    """What became of the rows."""

    quotes: np.ndarray  # QUOTE_DTYPE, of rows whose price or state changed
    tripped: list[tuple[int, str]]  # retailers that the breaker stops now, and why
    state: tuple[np.ndarray, ...]  # of the rows, for the digest; nobody writes into it any more


class _Sight(Struct, frozen=True, eq=False):
    """All that the decision about some rows looks at."""

    listings: np.ndarray  # copies; written back at the end
    policy: np.ndarray
    group: np.ndarray
    reference: Reference
    inputs: np.ndarray
    ceiling: np.ndarray  # of the hard bounds
    live: np.ndarray
    halted: np.ndarray
    wishes: Wishes | None  # what learnt demand asks for
    arms: Arms | None  # how the rows stand in experiments
    asked: np.ndarray  # bool: the policy names a position, and no arm holds the price
    positions: Positions | None  # of the rows that one holds

    def positioned(self) -> np.ndarray:
        """Return bool[rows], which rows a position holds."""
        rows = np.zeros(len(self.listings), dtype=bool)
        if self.positions is not None:
            rows[self.positions.at] = True
        return rows


def quote_rows(memory: Memory, looked: Looked, seq: int, now_ms: int) -> Quoted:
    """Price rows, decide what happens to each, and remember it."""
    sight = _look(memory, looked.rows, now_ms)
    priced = pricing.price(sight.inputs)
    if sight.positions is not None:
        rival_position.note_brake(sight.inputs, priced, sight.positions)
    listings = sight.listings
    before_minor = listings["in_force_minor"].copy()
    mask, wanted, state = _decide(sight, priced, now_ms)

    moving = (wanted != before_minor) & (state == _LIVE)
    exempt = np.zeros(len(moving), dtype=bool)
    which = moving.nonzero()[0]  # of a price that stays nobody asks
    unit = accepted_unit_cost(memory, looked.rows)
    if len(which):
        exempt[which] = _exempt(memory, looked.rows, sight, which, unit, wanted, mask, now_ms)
    numbers, tripped = breaker.judge(
        memory,
        looked.rows,
        listings,
        np.where(moving, wanted, before_minor),
        sight.inputs["floor_minor"],
        exempt,
        looked.kind == _REPRICE,
        _paced(sight) | (looked.kind == _HOUR),
        now_ms,
    )
    if len(numbers):
        memory.retailers.table["tripped"][numbers] = 1
        held = moving & np.isin(listings["retailer"], numbers)
        state[held] = _HELD
        mask[held] |= reasons.HELD_BY_BREAKER
        listings["held_minor"][held] = wanted[held]
        wanted[held] = before_minor[held]
    return _finish(memory, looked, sight, priced, unit, mask, wanted, state, tripped, seq, now_ms)


def _paced(sight: _Sight) -> np.ndarray:
    """Return which rows move by a calendar: their number at once says nothing of a fault.

    A position moves by what rivals do, and a feed that goes wrong moves all of them at once.
    """
    paced = sight.inputs["asked_minor"] > 0
    if sight.positions is not None:
        paced[sight.positions.at] = False
    return np.asarray(paced if sight.arms is None else paced | sight.arms.drawn)


def _look(memory: Memory, rows: np.ndarray, now_ms: int) -> _Sight:
    listings = taken(memory.listings.listings, rows)
    policy = policies_of(memory, rows, listings)
    group = taken(memory.groups.table, listings["group"])
    seen = reference_of(memory, rows, listings, policy, now_ms)
    moor(listings, seen, policy, now_ms)
    inputs = np.zeros(len(rows), dtype=PRICING_INPUT_DTYPE)
    for name in (
        "cost_minor",
        "in_force_minor",
        "status_quo_minor",
        "status_quo_cost_minor",
        "rrp_minor",
        "map_minor",
    ):
        inputs[name] = listings[name]
    for name in PRICING_POLICY_FIELDS:
        inputs[name] = policy[name]
    for name in ("vat", "commission", "fixed_fee_minor", "minimum_fee_minor"):
        inputs[name] = group[name]
    inputs["floor_minor"] = floor_minor(
        listings["cost_minor"],
        policy["min_margin_bp"],
        group["vat"],
        group["commission"],
        group["fixed_fee_minor"],
        group["minimum_fee_minor"],
        policy["floor_minor"],
    )
    inputs["rival_minor"], inputs["rivals"] = seen.landed_minor, seen.rivals
    inputs["stock"] = stock_of(listings)
    kvi = (listings["flags"] & KVI) != 0
    inputs["kvi"] = kvi
    arms = arms_in(memory, rows, listings)
    held = None if arms is None else arms.held_minor
    asked = rival_position.asks(policy, held)
    pull_bp = rival_position.pull_bp(asked, kvi, policy)
    braked = braked_minor(listings, pull_bp, seen.landed_minor, policy, now_ms)
    inputs["braked_minor"] = braked
    inputs["changes_last_hour"] = _shift_changes(listings, now_ms)
    wishes = learnt_wishes(memory, rows, listings, held)
    positions = rival_position.positions_of(
        listings, policy, asked, seen.landed_minor, braked, now_ms
    )
    _ask(inputs, wishes, held, positions)
    # Column by column: a retailer's record is a thousand bytes, of which these are three.
    retailers, number = memory.retailers.table, listings["retailer"]
    halted = (retailers["halted"][number] | retailers["tripped"][number]) != 0
    return _Sight(
        listings=listings,
        policy=policy,
        group=group,
        reference=seen,
        inputs=inputs,
        ceiling=np.where(policy["ceiling_minor"] > 0, policy["ceiling_minor"], PRICE_MINOR_MAX),
        live=retailers["live"][number] != 0,
        halted=halted | memory.retailers.halted_channels[group["channel"]],
        wishes=wishes,
        arms=arms,
        asked=asked,
        positions=positions,
    )


def _ask(
    inputs: np.ndarray,
    wishes: Wishes | None,
    held_minor: np.ndarray | None,
    positions: Positions | None,
) -> None:
    """Write into ``inputs`` what is asked for instead of the model's wish.

    A position goes before what was learnt, and an arm that holds a price before both: it holds a
    position off already.
    """
    asked = inputs["asked_minor"]
    if wishes is not None:
        asked[wishes.at] = wishes.minor
        asked[wishes.waiting] = inputs["in_force_minor"][wishes.waiting]
        # What was learnt holds the prior and the status quo already.
        inputs["status_quo_minor"][wishes.at] = 0
        inputs["prior_elasticity"][wishes.at] = wishes.elasticity
        inputs["prior_elasticity_sd"][wishes.at] = wishes.elasticity_sd
    if held_minor is not None:
        asked[held_minor > 0] = held_minor[held_minor > 0]
    if positions is not None:
        asked[positions.at] = positions.asked_minor


def reference_of(
    memory: Memory, rows: np.ndarray, listings: np.ndarray, policy: np.ndarray, now_ms: int
) -> Reference:
    """Return what each row's rivals say, in the listing's currency.

    Args:
        listings: LISTING_DTYPE[rows].
        policy: POLICY_DTYPE[rows], the policies of their groups.
    """
    offers, own = memory.rivals.offers_of(rows), listings["own"]
    # Most listings do not say how they appear themselves: set 0 is empty, and one row of it does.
    names = memory.own_names.names
    rate, rate_ms = converted(offers, memory.currencies, listings["retailer"], listings["currency"])
    seen = reference(
        offers,
        names.take(own, axis=0) if np.count_nonzero(own) else names[:1],
        rate,
        rate_ms,
        now_ms,
        policy["rival_stale_ms"],
        policy["rate_stale_ms"],
        policy["rival_unconfirmed_per_day"] < 1.0,
    )
    return leashed(seen, listings, policy, now_ms)


def _shift_changes(listings: np.ndarray, now_ms: int) -> np.ndarray:
    """Bring the rows' counts of changes to the present slot; return those of the last hour.

    The running slot and the six before it: an hour and up to ten minutes, never less than an hour.
    """
    slot = min(now_ms // SLOT_MS, 2**31 - 1)  # an int32; no clock that is right gets there
    passed = slot - listings["change_slot"].astype(np.int64)
    moved = (passed > 0).nonzero()[0]
    if len(moved):
        listings["changes"][moved] = _later(listings["changes"][moved], passed[moved])
    listings["change_slot"] = slot
    return sum_in_row(listings["changes"][:, :7], np.int32)


def _later(changes: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Return uint8[rows, CHANGE_SLOTS], counts of changes after so many slots, all of them > 0.

    Eight counts are the bytes of one number, the newest the lowest; what is shifted out is over.
    """
    counts = changes.view("<u8")[:, 0] << (8 * np.minimum(slots, CHANGE_SLOTS - 1)).astype("<u8")
    counts[slots >= CHANGE_SLOTS] = 0
    return np.asarray(counts.view(np.uint8).reshape(-1, CHANGE_SLOTS))


assert CHANGE_SLOTS == 8


def _mark(mask: np.ndarray, where: np.ndarray, reason: int) -> None:
    """Add a reason to the rows ``where`` it holds: bool[rows], and mostly it holds nowhere."""
    if np.count_nonzero(where):
        mask[where] |= reason


def _decide(
    sight: _Sight, priced: np.ndarray, now_ms: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return reason masks, the price that shall be in force, and the state of each row."""
    listings, inputs, seen = sight.listings, sight.inputs, sight.reference
    in_force = listings["in_force_minor"].copy()
    mask = priced["reasons"].copy()
    proposed = priced["price_minor"].copy()
    if sight.wishes is not None:
        mask[sight.wishes.at] |= reasons.LEARNT
        mask[sight.wishes.at[sight.wishes.dithered]] |= reasons.DITHERED
        # What was learnt tells the elasticity still; the price comes from the position.
        mask[sight.positioned()] &= ~np.uint32(reasons.LEARNT | reasons.DITHERED)
    if sight.arms is not None:
        mask[sight.arms.treated] |= reasons.TREATED
        mask[sight.arms.held_out] |= reasons.HELD_OUT
    if sight.positions is not None:
        doubted = sight.positions.at[sight.positions.doubted]
        mask[doubted] |= reasons.UNKNOWN_OWN_IDENTITY

    _never_lower_below_ourselves(sight, proposed, mask)
    # Only a KVI and a position go by rivals; no other listing needs their currencies' rates.
    stale_rate = seen.stale_rate & ((inputs["kvi"] != 0) | sight.asked)
    unpublishable = (priced["unpublishable"] != 0) | stale_rate
    unpublishable |= (mask & reasons.MODEL_INVALID) != 0
    _mark(mask, stale_rate, reasons.STALE_RATE)
    _mark(mask, seen.all_stale, reasons.STALE_RIVALS)
    withheld = sight.policy["publish"] == 0
    _mark(mask, withheld, reasons.UNPUBLISHED)
    proposed[unpublishable] = 0
    infeasible = (priced["infeasible"] != 0) & ~unpublishable
    proposed[infeasible] = 0

    legal = np.maximum(inputs["map_minor"], inputs["floor_minor"])
    wanted, answered = _answers(listings, proposed, legal, sight.ceiling, mask)
    pinned = _pins(listings, now_ms)
    if np.count_nonzero(pinned):
        pin = listings["pinned_minor"]
        pin_fits = (pin >= legal) & (pin <= sight.ceiling)
        mask[pinned] |= reasons.PINNED
        mask[pinned & ~pin_fits & ~unpublishable] |= reasons.PIN_OUT_OF_BOUNDS
        infeasible |= pinned & ~pin_fits & ~unpublishable

    state = np.full(len(listings), _LIVE, dtype=np.uint8)
    manual = sight.policy["manual"] != 0
    if np.count_nonzero(manual):
        state[manual & ~answered & (wanted != in_force)] = _PENDING
    state[pinned] = _PINNED
    state[infeasible] = _INFEASIBLE
    state[unpublishable] = _UNPUBLISHABLE
    shadow = ~sight.live
    _mark(mask, shadow, reasons.SHADOW)
    state[(shadow | withheld) & ~unpublishable & ~infeasible] = _SHADOW
    state[sight.halted] = _HALTED
    _mark(mask, sight.halted, reasons.HALTED)
    _mark(mask, state == _PENDING, reasons.NEEDS_APPROVAL)
    listings["proposed_minor"] = proposed
    moves = (state == _LIVE) & (wanted > 0)
    pinned = state == _PINNED
    if np.count_nonzero(pinned):
        wanted = np.where(pinned, listings["pinned_minor"], wanted)
        moves |= pinned
    return mask, np.where(moves, wanted, in_force), state


def _never_lower_below_ourselves(sight: _Sight, proposed: np.ndarray, mask: np.ndarray) -> None:
    """Keep the price where a rival that moved it down may be ourselves, for all we were told."""
    listings, rival = sight.listings, sight.reference.landed_minor
    in_force = listings["in_force_minor"]
    ours = (rival > 0) & (listings["own"] == 0)
    ours &= (mask & (1 << reasons.KVI)) != 0
    lowered = (ours & (proposed > 0) & (proposed < in_force)).nonzero()[0]
    if not len(lowered):
        return
    proposed[lowered] = np.minimum(in_force[lowered], sight.ceiling[lowered])
    mask[lowered] |= reasons.UNKNOWN_OWN_IDENTITY


def _answers(
    listings: np.ndarray,
    proposed: np.ndarray,
    legal: np.ndarray,
    ceiling: np.ndarray,
    mask: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the price wanted after what people said, and where a person has spoken.

    An approval stands until the engine proposes something else than the person saw, a rejection
    likewise.
    """
    approved, over = listings["approved_minor"], listings["approved_over_minor"]
    if not np.count_nonzero(approved) and not np.count_nonzero(listings["rejected_minor"]):
        return proposed, np.zeros(len(listings), dtype=bool)  # mostly nobody has spoken
    fits = (approved >= legal) & (approved <= ceiling)
    first = over == 0  # not looked at yet; the price in force does not tell that
    stands = (approved > 0) & fits & (proposed > 0) & ((proposed == over) | first)
    listings["approved_over_minor"] = np.where(stands & first, proposed, over)
    listings["approved_minor"] = np.where(stands, approved, 0)
    mask[stands] |= reasons.APPROVED
    rejected = (listings["rejected_minor"] > 0) & (proposed == listings["rejected_minor"])
    listings["rejected_minor"] = np.where(rejected, listings["rejected_minor"], 0)
    mask[rejected] |= reasons.REJECTED
    wanted = np.where(stands, listings["approved_minor"], proposed)
    return np.where(rejected, listings["in_force_minor"], wanted), stands | rejected


def _pins(listings: np.ndarray, now_ms: int) -> np.ndarray:
    """Let pins expire; return the rows that are pinned."""
    if not np.count_nonzero(listings["pinned_minor"]):
        return np.zeros(len(listings), dtype=bool)
    expired = (listings["pinned_minor"] > 0) & (listings["pin_until_ms"] <= now_ms)
    listings["pinned_minor"][expired] = 0
    listings["pin_until_ms"][expired] = NEVER
    listings["flags"][expired] |= RETURNS
    return listings["pinned_minor"] > 0


def _exempt(
    memory: Memory,
    rows: np.ndarray,
    sight: _Sight,
    which: np.ndarray,
    unit: np.ndarray,
    wanted: np.ndarray,
    mask: np.ndarray,
    now_ms: int,
) -> np.ndarray:
    """Return which moves, of those that stand at ``which``, the breaker does not count.

    What explains a move is read from the tables that accepted deltas wrote, never from what pricing
    was given: a bug on the way there must not excuse itself.
    """
    rows, wanted, mask = rows[which], wanted[which], mask[which]
    names = ("in_force_minor", "held_minor", "flags", "retailer", "basis_currency")
    in_force, held, flags, number, basis = (sight.listings[name][which] for name in names)
    said = (mask & (reasons.APPROVED | reasons.PINNED)) != 0
    released = ((flags & RELEASED) != 0) & (held > 0)
    retailers = memory.retailers.table
    if np.count_nonzero(released):
        released &= breaker.like_held(wanted, held)
        # A person's word ends with the hour in which it lets costs pass, too.
        released &= now_ms < retailers["costs_trusted_until_ms"][number]
    exempt = (in_force == 0) | said | released | ((flags & PLANNED) != 0)
    exempt |= breaker.explained(wanted, in_force, unit[which], sight.listings["basis_unit"][which])
    # Two currencies' rates tell nothing about a change of either.
    rate, currency = sight.reference.rate[which], sight.reference.currency[which]
    by_rate = (currency != 0) & (currency == basis)
    if np.count_nonzero(by_rate):
        was = sight.listings["basis_rate"][which]
        by_rate &= breaker.explained(wanted, in_force, rate, was)
        by_rate &= now_ms - retailers["rate_ms"][number] < retailers["breaker_window_ms"][number]
        # A rate acts through the rival alone: it binds the price now, or bound it until now.
        bound = mask | memory.listings.quotes["reasons"][rows]
        by_rate &= ((bound & (1 << reasons.KVI)) != 0) | sight.positioned()[which]
        exempt |= by_rate
    # A person said when the pin ends, so the way back is his, too.
    return np.asarray(exempt | ((flags & RETURNS) != 0))


def accepted_unit_cost(memory: Memory, rows: np.ndarray) -> np.ndarray:
    """Return float32[rows], the cost in which VAT and fees are counted; 0: unknown."""
    listings = memory.listings.listings
    group, fees = listings["group"][rows], memory.groups.table
    cost = listings["cost_minor"][rows]
    net = 1.0 / (1.0 + fees["vat"][group]) - fees["commission"][group]
    owed = cost.astype(np.float64) + fees["fixed_fee_minor"][group]
    known = (cost > 0) & (net > 0.0)
    return np.where(known, owed / np.where(known, net, 1.0), 0.0).astype(np.float32)


def _finish(
    memory: Memory,
    looked: Looked,
    sight: _Sight,
    priced: np.ndarray,
    unit: np.ndarray,
    mask: np.ndarray,
    in_force: np.ndarray,
    state: np.ndarray,
    tripped: list[tuple[int, str]],
    seq: int,
    now_ms: int,
) -> Quoted:
    """Write rows and quotes back, set their timers, and return the quotes that are news."""
    listings, rows = sight.listings, looked.rows
    last = taken(memory.listings.quotes, rows)
    changed = listings["in_force_minor"] != in_force
    _note_basis(sight, unit, changed, in_force, mask)
    followed = changed & (in_force < listings["in_force_minor"])
    followed &= ((mask & (1 << reasons.KVI)) != 0) | _lowered_by_position(sight)
    if np.count_nonzero(followed):
        note_follows(
            listings,
            followed,
            listings["in_force_minor"].copy(),
            in_force,
            sight.reference.landed_minor,
            sight.policy,
            now_ms,
        )
    _note_changes(sight, changed, in_force, state, mask, now_ms)

    quoted = last["listing"] != 0
    # Where the channel told of another price and we leave it, the change is from our last quote's.
    before = sight.inputs["in_force_minor"]
    previous = np.where(quoted & ~changed, last["in_force_minor"], before)
    pending, moved_on = state == _PENDING, last["proposed_minor"] != listings["proposed_minor"]
    news = ~quoted | changed | moved_on | (last["state"] != state)
    if np.count_nonzero(pending):
        since = np.where(pending & (last["state"] == _PENDING), listings["proposed_ms"], now_ms)
        expired = pending & (now_ms - since >= sight.policy["approval_valid_ms"])
        listings["proposed_ms"] = np.where(moved_on | expired, now_ms, since)
        news |= expired
    else:
        listings["proposed_ms"] = now_ms
    news |= last["in_force_minor"] != in_force
    # A receipt names the arm, also of a price that the arm leaves as it was.
    news |= ((last["reasons"] ^ mask) & (reasons.TREATED | reasons.HELD_OUT)) != 0
    news |= (last["stock"] == 0) != (sight.inputs["stock"] == 0)

    listings["state"] = state
    which = news.nonzero()[0]
    listings["quote_seq"][which] = seq
    listings["quote_index"][which] = np.arange(len(which))
    due_ms = _due(sight, mask, state, now_ms)
    stock = sight.inputs["stock"]
    quotes = written(
        looked, listings, priced, sight.reference, which, stock, mask, previous, in_force
    )
    put(memory.listings.listings, rows, listings)
    put(memory.listings.quotes, rows[which], quotes)
    memory.timers.set(rows, due_ms)
    return Quoted(quotes, tripped, (listings, due_ms))


def _lowered_by_position(sight: _Sight) -> np.ndarray:
    """Return bool[rows], which rows their position asks to be cheaper than they are."""
    lowered = np.zeros(len(sight.listings), dtype=bool)
    if sight.positions is not None:
        at = sight.positions.at
        lowered[at] = sight.positions.asked_minor < sight.inputs["in_force_minor"][at]
    return lowered


def _note_changes(
    sight: _Sight,
    changed: np.ndarray,
    in_force: np.ndarray,
    state: np.ndarray,
    mask: np.ndarray,
    now_ms: int,
) -> None:
    listings, which = sight.listings, changed.nonzero()[0]
    if len(which):
        counts, price_ms = listings["changes"], listings["price_ms"]
        counts[which, 0] = np.minimum(counts[which, 0].astype(np.int64) + 1, 255)
        listings["in_force_minor"] = in_force
        price_ms[which] = np.maximum(price_ms[which], now_ms)
    # A row that is live and not held wants no more what was held; the word on that has ended.
    settled = changed | (state == _LIVE)
    listings["held_minor"][settled] = 0
    flags = listings["flags"]
    flags[settled] &= 255 - RELEASED
    flags &= 255 - PLANNED  # the one look that the plan foresaw
    # A pin's way back ends with the price that we ask: nothing withholds it, or cuts it short.
    on_its_way = (flags & RETURNS) != 0
    if np.count_nonzero(on_its_way):
        short = (mask & (1 << reasons.STEP | 1 << reasons.RATE)) != 0
        theirs = (state == _PINNED) | (state == _SHADOW)
        flags[on_its_way & (theirs | ((state == _LIVE) & ~short))] &= 255 - RETURNS


def _note_basis(
    sight: _Sight, unit: np.ndarray, changed: np.ndarray, in_force: np.ndarray, mask: np.ndarray
) -> None:
    """Note cost and rate behind the price in force, also when it was found and not decided.

    Where step or rate keeps a price short of its new cost, the basis has gone as far as the price
    has, and no further: what is left of the cost explains the next step.
    """
    listings = sight.listings
    basis, before = listings["basis_unit"].astype(np.float64), listings["in_force_minor"]
    short = changed & ((mask & (1 << reasons.STEP | 1 << reasons.RATE)) != 0)
    reached = np.where(changed | (basis == 0.0), unit, basis)
    if np.count_nonzero(short):
        short &= (basis > 0.0) & (unit > 0.0) & (before > 0)
        short &= np.sign(unit - basis) == np.sign(in_force - before)
        went = basis * (in_force / np.maximum(before, 1))
        went = np.clip(went, np.minimum(basis, unit), np.maximum(basis, unit))
        reached = np.where(short, went, reached)
    listings["basis_unit"] = reached
    unset = changed | (listings["basis_rate"] == 0.0)
    for name, now in (("rate", sight.reference.rate), ("currency", sight.reference.currency)):
        listings[f"basis_{name}"] = np.where(unset, now, listings[f"basis_{name}"])


def _due(sight: _Sight, mask: np.ndarray, state: np.ndarray, now_ms: int) -> np.ndarray:
    """Return when each row must be looked at again, NEVER if only for a delta."""
    listings = sight.listings
    due = np.minimum(sight.reference.stale_ms, listings["pin_until_ms"])
    braked, pending = sight.inputs["braked_minor"] > 0, state == _PENDING
    if np.count_nonzero(braked):
        due = np.where(braked, np.minimum(due, brake_ends_ms(listings)), due)
    if np.count_nonzero(pending):
        waits = listings["proposed_ms"] + sight.policy["approval_valid_ms"]
        due = np.where(pending, np.minimum(due, waits), due)
    # A slot of changes leaves the hour when the next begins; then a price on its way steps on, too.
    limited = (mask & (1 << reasons.RATE | 1 << reasons.STEP)) != 0
    if np.count_nonzero(limited):
        due = np.where(limited, np.minimum(due, (now_ms // SLOT_MS + 1) * SLOT_MS), due)
    if sight.positions is not None:
        at = sight.positions.at
        step_ms = rival_position.next_step_ms(sight.positions, listings, sight.policy, now_ms)
        due[at] = np.minimum(due[at], step_ms)
    return np.asarray(np.maximum(due, now_ms + 1))


def is_removed(memory: Memory, rows: np.ndarray) -> np.ndarray:
    """Return which rows are tombstones."""
    if memory.listings.live == memory.listings.rows:
        return np.zeros(len(rows), dtype=bool)
    return np.asarray((memory.listings.listings["flags"][rows] & REMOVED) != 0)
