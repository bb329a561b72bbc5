"""One delta at a time: listings, fees, rates, retailers, policies, halts.

Each function applies one kind of delta or refuses it whole. What is accepted is told to followers
as a :class:`CatalogueChange`; a listing's tells its whole state.
"""

from typing import Any

import numpy as np
from msgspec import Struct

from engine import breaker
from engine.arms import set_holdout
from engine.currencies import NO_ROOM, currencies_used_up
from engine.decided import CatalogueChange
from engine.deltas import (
    RATE_MIN,
    FeesChanged,
    ListingChanged,
    ListingRemoved,
    ModeChanged,
    PolicyChanged,
    PublishingHalted,
    PublishingResumed,
    RateChanged,
    RetailerAdded,
)
from engine.errors import PricingError, RejectedInput
from engine.facts import COST_DOUBTED, COSTS_SHOCKED, FUTURE_MS_MAX, set_cost
from engine.hourly import looked_at
from engine.learnt import DAY_MS, RetailerLearning
from engine.listing_table import BEHIND, KVI, RELEASED, REMOVED, RETURNS, ListingText
from engine.memory import Memory, Work
from engine.microbatch import Position
from engine.ranking import set_share
from engine.retailers import RETAILERS_MAX
from engine.rivals import OWN_NAMES_MAX
from engine.routing import key64


class Refused(PricingError):
    """A delta that changes nothing. ``reason`` begins with a JSON pointer and names the fix."""

    def __init__(self, verdict: str, reason: str, status: str = "refused", listing: int = 0):
        super().__init__(reason)
        self.verdict = verdict
        self.reason = reason
        self.status = status
        self.listing = listing


class Answer(Struct, frozen=True):
    """What is answered to a command that was done."""

    detail: str = ""
    listing: int = 0
    price_minor: int = 0


def not_newer(observed_ms: int, known_ms: int, listing: int = 0) -> Refused:
    """Return the refusal of a fact that is older than what is known."""
    return Refused(
        "late",
        f"/observed_ms: {observed_ms} is older than {known_ms}, which is known; nothing to do",
        listing=listing,
    )


def retailer_number(memory: Memory, retailer: str) -> int:
    """Return the number of a retailer, or refuse."""
    number = memory.retailers.numbers.get(retailer)
    if number is None:
        raise Refused("rejected", "/retailer: is not known here; send RetailerAdded first")
    return number


def check_time(work: Work, observed_ms: int) -> None:
    """Refuse what claims to come from the future: it would shut out whatever is true."""
    if observed_ms > work.now_ms + FUTURE_MS_MAX:
        raise Refused(
            "rejected",
            f"/observed_ms: {observed_ms} lies more than five minutes ahead of {work.now_ms}; "
            "send the time at which it was observed",
        )


def tell(
    work: Work,
    position: Position,
    what: str,
    retailer: str,
    fields: dict[str, Any],
    listing: int = 0,
) -> None:
    """Tell followers of an accepted change."""
    work.catalogue.append(CatalogueChange(position, what, retailer, fields, listing))


# ----- listings ----------------------------------------------------------------------------------


def change_listing(memory: Memory, work: Work, position: Position, delta: ListingChanged) -> Answer:
    """Add a listing or change what is named; what is left out keeps its value."""
    retailer = retailer_number(memory, delta.retailer)
    key = key64(delta.retailer, delta.channel, delta.sku)
    if delta.own_rival_names is not None and len(set(delta.own_rival_names)) > OWN_NAMES_MAX:
        raise Refused("rejected", f"/own_rival_names: at most {OWN_NAMES_MAX} names; shorten it")
    table = memory.listings
    row = table.index.row(key)
    text = ListingText(delta.channel, delta.sku)
    new = row < 0 or bool(table.listings["flags"][row] & REMOVED)
    if row >= 0:
        held = table.text(row)
        same = (held.channel, held.sku) == (delta.channel, delta.sku)
        if not same or table.listings["retailer"][row] != retailer:
            raise Refused(
                "rejected", "/sku: its 64-bit key is taken by another listing; rename the SKU"
            )
        known_ms = int(table.listings["listing_ms"][row])
        if delta.observed_ms < known_ms or (new and delta.observed_ms == known_ms):
            raise not_newer(delta.observed_ms, known_ms, key)
        text = text if new else held
        if not new:
            _check_cost(memory, work, row, delta, key)
    if delta.currency is not None:
        _currency(memory, retailer, delta.currency)  # or refuse, before anything of it is taken
    text = _changed_text(text, delta)
    if new:
        row = table.add(key, text, work.now_ms)
        memory.fit(table.rows)
        _begin_listing(memory, row, retailer)
    before = None if new else _snapshot(memory, row)
    if not new:
        table.set_text(row, text)
    _set_listing(memory, work, row, text, delta)
    if before is not None and _snapshot(memory, row) == before:
        if delta.observed_ms == known_ms:
            raise Refused("duplicate", "says what is known; nothing to do", listing=key)
        table.listings["listing_ms"][row] = delta.observed_ms
        memory.unsaved[row] = True
        work.changed.append(table.listings.take([row]).tobytes())
        return Answer("nothing changed", key)
    table.listings["listing_ms"][row] = delta.observed_ms
    memory.learnt.beliefs.pop(retailer, None)  # what is told of them hangs on brand and category
    work.touch_row(row, position)
    tell(work, position, "listing", delta.retailer, listing_fields(memory, row), key)
    return Answer(listing=key)


def _begin_listing(memory: Memory, row: int, retailer: int) -> None:
    listing = memory.listings.listings[row]
    _forget_learnt(memory, row)
    listing["retailer"] = retailer
    listing["currency"] = memory.retailers.table["currency"][retailer]
    if retailer in memory.tiers.next_ms:
        listing["flags"] |= BEHIND  # it has sold nothing yet
    memory.retailers.table["listings"][retailer] += 1


def _snapshot(memory: Memory, row: int) -> tuple[bytes, bytes]:
    listing = memory.listings.listings.take([row])
    listing["listing_ms"] = listing["price_ms"] = listing["cost_ms"] = 0
    return listing.tobytes(), memory.listings.texts[row]


def _changed_text(text: ListingText, delta: ListingChanged) -> ListingText:
    return ListingText(
        text.channel,
        text.sku,
        text.title if delta.title is None else delta.title,
        text.category if delta.category is None else delta.category,
        text.tags if delta.tags is None else delta.tags,
        text.brand if delta.brand is None else delta.brand,
    )


def _set_listing(
    memory: Memory, work: Work, row: int, text: ListingText, delta: ListingChanged
) -> None:
    listing = memory.listings.listings[row]
    observed = np.array([delta.observed_ms])
    listing["group"] = memory.group_of(int(listing["retailer"]), text)
    if delta.currency is not None:
        listing["currency"] = _currency(memory, int(listing["retailer"]), delta.currency)
    if delta.rrp_minor is not None:
        listing["rrp_minor"] = delta.rrp_minor
    if delta.map_minor is not None:
        listing["map_minor"] = delta.map_minor
    if delta.kvi is not None:
        flags = int(listing["flags"])
        listing["flags"] = flags | KVI if delta.kvi else flags & ~KVI
    if delta.own_rival_names is not None:
        listing["own"] = memory.own_names.number_of_names(delta.own_rival_names)
    if delta.price_minor is not None and delta.observed_ms >= listing["price_ms"]:
        set_price_in_force(listing, delta.price_minor, delta.observed_ms)
    if delta.cost_minor is not None and delta.observed_ms >= listing["cost_ms"]:
        set_cost(memory, np.array([row]), np.array([delta.cost_minor]), observed)


def _check_cost(memory: Memory, work: Work, row: int, delta: ListingChanged, key: int) -> None:
    """Refuse a listing whose cost is part of a shock, before anything of it is taken."""
    if delta.cost_minor is None:
        return
    rows, cost = np.array([row]), np.array([delta.cost_minor])
    if breaker.costs_doubted(memory, rows, cost, work.now_ms).any():
        raise Refused("quarantined", COST_DOUBTED, listing=key)
    if breaker.costs_shocked(memory, rows, cost, work.now_ms).any():
        raise Refused("quarantined", COSTS_SHOCKED, listing=key)


def set_price_in_force(listing: np.void, price_minor: int, observed_ms: int) -> None:
    """Take what the channel says about its price; the first such price is the status quo."""
    if price_minor != listing["in_force_minor"]:
        listing["approved_minor"] = 0  # The newest word counts, and the channel's is newer.
        listing["flags"] &= 255 - RETURNS  # It is not the way back from a pin that leads from here.
    listing["in_force_minor"] = price_minor
    listing["price_ms"] = observed_ms
    if listing["status_quo_minor"] == 0:
        listing["status_quo_minor"] = price_minor
        listing["status_quo_cost_minor"] = listing["cost_minor"]


def listing_fields(memory: Memory, row: int) -> dict[str, Any]:
    """Return a listing's whole catalogue state in plain values; a brand only where one was told."""
    listing, text = memory.listings.listings[row], memory.listings.text(row)
    fields = {
        "channel": text.channel,
        "sku": text.sku,
        "title": text.title,
        "category": text.category,
        "tags": list(text.tags),
        "currency": memory.currencies.name(int(listing["currency"])),
        "rrp_minor": int(listing["rrp_minor"]),
        "map_minor": int(listing["map_minor"]),
        "kvi": bool(listing["flags"] & KVI),
        "cost_minor": int(listing["cost_minor"]),
    }
    return {**fields, "brand": text.brand} if text.brand else fields


def remove_listing(memory: Memory, work: Work, position: Position, delta: ListingRemoved) -> Answer:
    """Take a listing off: its row becomes a tombstone, its offers are forgotten."""
    row, key = listing_row(memory, delta.retailer, delta.channel, delta.sku)
    listing = memory.listings.listings[row]
    if delta.observed_ms < listing["listing_ms"]:
        raise not_newer(delta.observed_ms, int(listing["listing_ms"]), key)
    retailer = int(listing["retailer"])
    memory.retailers.table["listings"][retailer] -= 1
    memory.retailers.table["costs"][retailer] -= int(listing["cost_minor"] >= 0)
    memory.unmark(np.array([row]))
    looked_at(memory, np.array([row]))
    memory.rivals.clear(row)
    _forget_learnt(memory, row)
    memory.listings.remove(row, work.now_ms)
    listing["listing_ms"] = delta.observed_ms
    work.touch_row(row, position)
    tell(
        work,
        position,
        "listing_removed",
        delta.retailer,
        {"channel": delta.channel, "sku": delta.sku},
        key,
    )
    return Answer(listing=key)


def _forget_learnt(memory: Memory, row: int) -> None:
    """Forget what was learnt of a row, its arms, and what models say of it.

    A tombstone keeps none of it either: where all learning ends, and begins anew, a shard that was
    restored meanwhile would remember less of it than one that was not.
    """
    memory.learnt.forget(row)
    memory.experiments.forget(np.array([row]))
    memory.serving.forget(row)


def listing_row(memory: Memory, retailer: str, channel: str, sku: str) -> tuple[int, int]:
    """Return a listing's row and key, or refuse."""
    key = key64(retailer, channel, sku)
    row = memory.listings.live_row(key)
    if row < 0:
        is_known = retailer in memory.retailers.numbers
        raise Refused(
            "unknown_listing",
            "/sku: no such listing on this channel; send ListingChanged first"
            if is_known
            else "/retailer: no such retailer here; send RetailerAdded first",
            listing=key,
        )
    return row, key


# ----- fees and rates ----------------------------------------------------------------------------


def change_fees(memory: Memory, work: Work, position: Position, delta: FeesChanged) -> Answer:
    """Set what a channel takes of a sale."""
    retailer = retailer_number(memory, delta.retailer)
    known_ms = memory.groups.fees_ms(retailer, delta.channel, delta.category or "")
    if delta.observed_ms < known_ms:
        raise not_newer(delta.observed_ms, known_ms)
    _reprice_groups(memory, memory.groups.change_fees(retailer, delta))
    tell(
        work,
        position,
        "fees",
        delta.retailer,
        {
            "channel": delta.channel,
            "category": delta.category,
            "vat": delta.vat,
            "commission": delta.commission,
            "fixed_fee_minor": delta.fixed_fee_minor,
            "minimum_fee_minor": delta.minimum_fee_minor,
        },
    )
    return Answer()


def change_rate(memory: Memory, work: Work, position: Position, delta: RateChanged) -> Answer:
    """Set what a currency is worth to this retailer."""
    retailer = retailer_number(memory, delta.retailer)
    if delta.currency == delta.into:
        raise Refused("rejected", "/into: is the same currency; a rate joins two")
    if not RATE_MIN <= delta.rate <= 1.0 / RATE_MIN:
        raise Refused(
            "rejected", f"/rate: is out of range; use {RATE_MIN} to {1 / RATE_MIN}, minor units"
        )
    here = _currency(memory, retailer, delta.currency)
    there = _currency(memory, retailer, delta.into)
    known_ms = memory.currencies.known_ms(retailer, here, there)
    if delta.observed_ms < known_ms:
        raise not_newer(delta.observed_ms, known_ms)
    change = memory.currencies.change(retailer, here, there, delta.rate, delta.observed_ms)
    if change not in (0.0, 1.0):
        memory.retailers.table[retailer]["rate_ms"] = work.now_ms
    rows = memory.rows_of(retailer)
    memory.mark(rows[memory.rivals.known(rows)])
    fields = {"currency": delta.currency, "into": delta.into, "rate": delta.rate}
    tell(work, position, "rate", delta.retailer, fields)
    return Answer()


def _currency(memory: Memory, retailer: int, currency: str) -> int:
    """Return the number of a currency that a retailer names, or refuse."""
    number = memory.currencies.number(retailer, currency)
    if number == NO_ROOM:
        raise Refused("rejected", currencies_used_up())
    return number


def _reprice_groups(memory: Memory, groups: np.ndarray) -> None:
    """Put all listings of some groups into the backlog."""
    if len(groups):
        used = memory.listings.listings[: memory.listings.rows]
        changed = np.zeros(len(memory.groups.table), dtype=bool)
        changed[groups] = True
        memory.mark(np.flatnonzero(changed[used["group"]] & (used["flags"] & REMOVED == 0)))


# ----- retailers and policies --------------------------------------------------------------------


def add_retailer(memory: Memory, work: Work, position: Position, delta: RetailerAdded) -> Answer:
    """Add a retailer, in shadow mode unless told otherwise; or change what is named of him."""
    retailers = memory.retailers
    number = retailers.numbers.get(delta.retailer)
    if number is None:
        if len(retailers.ids) >= RETAILERS_MAX:
            raise Refused(
                "rejected",
                f"/retailer: the shard has {RETAILERS_MAX} retailers already; add a shard",
            )
        currency = _currency(memory, len(retailers.ids), delta.currency)
        number = retailers.add(delta.retailer, delta.observed_ms)
        row = retailers.table[number]
        row["currency"] = currency
        row["live"] = delta.mode == "live"
        retailers.set_thresholds(number, memory.groups.book.retailer_policy(delta.retailer))
    else:
        row = retailers.table[number]
        if delta.observed_ms < row["added_ms"]:
            raise not_newer(delta.observed_ms, int(row["added_ms"]))
        if memory.currencies.name(int(row["currency"])) != delta.currency:
            raise Refused("rejected", "/currency: a retailer's cannot change; add another retailer")
        if (delta.mode == "live") != bool(row["live"]) and delta.mode == "live":
            raise Refused("rejected", "/mode: the retailer is there already; send ModeChanged")
        row["added_ms"] = delta.observed_ms
    row["quota"] = delta.delta_quota_per_s or 0
    fields = {
        "currency": delta.currency,
        "name": delta.name,
        "primary_channel": delta.primary_channel,
        "spread": delta.spread,
        "mode": "live" if row["live"] else "shadow",
        "delta_quota_per_s": delta.delta_quota_per_s,
    }
    retailers.facts[number] = fields
    tell(work, position, "retailer", delta.retailer, fields)
    return Answer()


def change_mode(memory: Memory, work: Work, position: Position, delta: ModeChanged) -> Answer:
    """Let a retailer's prices go live, or back to shadow."""
    number = retailer_number(memory, delta.retailer)
    row = memory.retailers.table[number]
    if delta.observed_ms < row["mode_ms"]:
        raise not_newer(delta.observed_ms, int(row["mode_ms"]))
    row["mode_ms"], row["live"] = delta.observed_ms, delta.mode == "live"
    memory.mark(memory.rows_of(number))
    tell(work, position, "mode", delta.retailer, {"mode": delta.mode})
    return Answer()


def change_policy(memory: Memory, work: Work, position: Position, delta: PolicyChanged) -> Answer:
    """Set the fields of one scope, and let what resolves otherwise now be priced again."""
    number = retailer_number(memory, delta.retailer)
    known_ms = memory.groups.policy_ms.get((number, delta.scope, delta.key), -1)
    if delta.observed_ms < known_ms:
        raise not_newer(delta.observed_ms, known_ms)
    groups = memory.groups.change_policy(
        number, delta.scope, delta.key, delta.fields, delta.priority, delta.observed_ms
    )
    _reprice_groups(memory, groups)
    if "learning" in delta.fields:
        _switch_learning(memory, work, number)
    if not {"learning", "holdout_share"}.isdisjoint(delta.fields):
        set_holdout(memory, work, number)
    if "realtime_share" in delta.fields:
        set_share(memory, work, number)
    if delta.scope == "listing":
        _regroup_listing(memory, delta)
    fields = {
        "scope": delta.scope,
        "key": delta.key,
        "priority": delta.priority,
        "fields": delta.fields,
    }
    tell(work, position, "policy", delta.retailer, fields)
    return Answer()


def _switch_learning(memory: Memory, work: Work, number: int) -> None:
    """Let a retailer's demand be learnt from now on, or forget what was learnt of it."""
    on = memory.groups.book.retailer_policy(memory.retailers.ids[number]).learning
    if on == (number in memory.learnt.retailers):
        return
    rows = memory.rows_of(number)
    if on:
        memory.learnt.retailers[number] = RetailerLearning(work.now_ms, DAY_MS)
        memory.learnt.fit(memory.listings.capacity)
    else:
        del memory.learnt.retailers[number]
        memory.learnt.beliefs.pop(number, None)
        memory.serving.drop(number, rows)
        for row in rows.tolist():
            memory.learnt.forget(row)
    memory.unsaved[rows] = True
    memory.mark(rows)


def _regroup_listing(memory: Memory, delta: PolicyChanged) -> None:
    """Give a listing that a policy names a group of its own."""
    channel, _, sku = delta.key.partition("\x1f")
    row = memory.listings.live_row(key64(delta.retailer, channel, sku))
    if row >= 0:
        listing = memory.listings.listings[row]
        listing["group"] = memory.group_of(int(listing["retailer"]), memory.listings.text(row))
        memory.unsaved[row] = True  # it may be in the backlog already
        memory.mark(np.array([row]))


# ----- the kill switch ---------------------------------------------------------------------------


def halt(memory: Memory, work: Work, position: Position, delta: PublishingHalted) -> Answer:
    """Stop publishing for a retailer or one of his channels; prices in force stay."""
    number = retailer_number(memory, delta.retailer)
    _set_halted(memory, number, delta.channel, True, delta.observed_ms)
    fields = {"channel": delta.channel, "reason": delta.reason}
    tell(work, position, "halt", delta.retailer, fields)
    return Answer()


def resume(memory: Memory, work: Work, position: Position, delta: PublishingResumed) -> Answer:
    """Let publishing go on; for a whole retailer, the moves that the breaker held may pass."""
    number = retailer_number(memory, delta.retailer)
    row = memory.retailers.table[number]
    tripped = bool(row["tripped"])
    _set_halted(memory, number, delta.channel, False, delta.observed_ms)
    if delta.channel is None:
        breaker.reset(memory, number, work.now_ms)
        rows = memory.rows_of(number)
        listings = memory.listings.listings
        held = rows[listings["held_minor"][rows] > 0]
        # The word covers what is still wanted; of the rest it says nothing.
        wanted = breaker.like_held(listings["proposed_minor"][held], listings["held_minor"][held])
        listings["flags"][held[wanted]] |= RELEASED
        listings["held_minor"][held[~wanted]] = 0
        work.changed.append(held.tobytes() + wanted.tobytes())
        # The windows begin anew, so what has counted in the old ones counts again.
        listings["window_minor"][rows] = 0
        memory.unsaved[rows] = True  # also of those that were in the backlog already
    fields = {"channel": delta.channel, "breaker": tripped and delta.channel is None}
    tell(work, position, "resume", delta.retailer, fields)
    return Answer()


def _set_halted(
    memory: Memory, number: int, channel: str | None, halted: bool, observed_ms: int
) -> None:
    retailers = memory.retailers
    if channel is None:
        row = retailers.table[number]
        if observed_ms < row["halt_ms"]:
            raise not_newer(observed_ms, int(row["halt_ms"]))
        row["halt_ms"], row["halted"] = observed_ms, halted
        if not halted:
            # Resuming a retailer resumes all of his channels: one word must be enough.
            for (of, _), place in retailers.channels.items():
                if of == number:
                    retailers.halted_channels[place] = False
        rows = memory.rows_of(number)
    else:
        known = retailers.channels.get((number, channel))
        if known is None:
            raise Refused(
                "rejected", "/channel: has no listing of this retailer; name one that has, or none"
            )
        place = known
        if observed_ms < retailers.channel_halt_ms[place]:
            raise not_newer(observed_ms, retailers.channel_halt_ms[place])
        retailers.channel_halt_ms[place] = observed_ms
        retailers.halted_channels[place] = halted
        rows = memory.rows_of(number)
        groups = memory.listings.listings["group"][rows]
        rows = rows[memory.groups.table["channel"][groups] == place]
    memory.mark(rows)


def refused_input(error: RejectedInput, verdict: str) -> Refused:
    """Return a refusal for input that a checker rejected."""
    return Refused(
        verdict, str(error), "not_supported" if verdict == "not_supported" else "refused"
    )
