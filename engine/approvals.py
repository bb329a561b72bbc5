"""What people say about one price: approve, reject, pin, unpin; and what the channel reports.

A person's price must stand within legal, floor and ceiling, like any other; step, rate and
position do not bind him. The newest word on a listing counts.
"""

import numpy as np

from engine.arms import policies_of
from engine.catalogue import Answer, Refused, listing_row, not_newer, set_price_in_force
from engine.decided import State, parse_quote_id
from engine.deltas import (
    PriceApproved,
    PricePinned,
    PriceRejected,
    PriceReported,
    PriceUnpinned,
)
from engine.floors import floor_minor
from engine.listing_table import NEVER, RETURNS
from engine.memory import Memory, Work
from engine.microbatch import Position
from kernels.limits import PRICE_MINOR_MAX


def approve(memory: Memory, work: Work, position: Position, delta: PriceApproved) -> Answer:
    """Put the proposed price, or another, in force on a person's word."""
    row, key = _spoken_of(memory, delta)
    listing = memory.listings.listings[row]
    _check_quote(listing, delta.quote_id, key)
    _check_live(memory, listing, key)
    proposed = int(listing["proposed_minor"])
    price = proposed if delta.price_minor is None else delta.price_minor
    if price == 0:
        raise Refused(
            "rejected", "/price_minor: nothing is proposed; name a price", "conflict", listing=key
        )
    _check_bounds(memory, row, price, key)
    _check_in_force(memory, work, listing, key)
    listing["approval_ms"] = delta.observed_ms
    # Over which proposal it stands is noted when the row is looked at, once: 0 says not yet.
    listing["approved_minor"], listing["approved_over_minor"] = price, 0
    listing["rejected_minor"] = 0
    work.touch_row(row, position)
    return Answer(listing=key, price_minor=price)


def reject(memory: Memory, work: Work, position: Position, delta: PriceRejected) -> Answer:
    """Keep the price in force until the engine proposes another than the one rejected."""
    row, key = _spoken_of(memory, delta)
    listing = memory.listings.listings[row]
    _check_quote(listing, delta.quote_id, key)
    proposed = int(listing["proposed_minor"])
    if proposed in (0, int(listing["in_force_minor"])):
        raise Refused(
            "rejected",
            "/sku: nothing but the price in force is proposed, so there is nothing to reject",
            "conflict",
            listing=key,
        )
    listing["approval_ms"] = delta.observed_ms
    listing["rejected_minor"] = proposed
    listing["approved_minor"] = listing["held_minor"] = 0
    work.touch_row(row, position)
    return Answer(listing=key, price_minor=int(listing["in_force_minor"]))


def pin(memory: Memory, work: Work, position: Position, delta: PricePinned) -> Answer:
    """Fix a price until a time, or until it is unpinned."""
    row, key = _spoken_of(memory, delta)
    listing = memory.listings.listings[row]
    if delta.until_ms is not None and delta.until_ms <= work.now_ms:
        raise Refused(
            "rejected", f"/until_ms: {delta.until_ms} is past; name a later time", listing=key
        )
    _check_live(memory, listing, key, halted_too=False)
    _check_bounds(memory, row, delta.price_minor, key)
    listing["approval_ms"] = delta.observed_ms
    listing["pinned_minor"] = delta.price_minor
    listing["pin_until_ms"] = NEVER if delta.until_ms is None else delta.until_ms
    listing["approved_minor"] = 0
    work.touch_row(row, position)
    return Answer(listing=key, price_minor=delta.price_minor)


def unpin(memory: Memory, work: Work, position: Position, delta: PriceUnpinned) -> Answer:
    """Give the price back to the engine."""
    row, key = _spoken_of(memory, delta)
    listing = memory.listings.listings[row]
    if listing["pinned_minor"] == 0:
        raise Refused("rejected", "/sku: is not pinned; nothing to do", "conflict", listing=key)
    listing["approval_ms"] = delta.observed_ms
    listing["pinned_minor"], listing["pin_until_ms"] = 0, NEVER
    listing["flags"] |= RETURNS
    work.touch_row(row, position)
    return Answer(listing=key, price_minor=int(listing["in_force_minor"]))


def report(memory: Memory, work: Work, position: Position, delta: PriceReported) -> Answer:
    """Believe the channel about the price that it shows, if it says so after our last change."""
    row, key = listing_row(memory, delta.retailer, delta.channel, delta.sku)
    listing = memory.listings.listings[row]
    if delta.observed_ms < listing["price_ms"]:
        raise not_newer(delta.observed_ms, int(listing["price_ms"]), key)
    if (delta.observed_ms, delta.price_minor) == (
        int(listing["price_ms"]),
        int(listing["in_force_minor"]),
    ):
        raise Refused("duplicate", "says what is known; nothing to do", listing=key)
    set_price_in_force(listing, delta.price_minor, delta.observed_ms)
    memory.learnt.report(row, int(listing["units_sold"]))
    work.touch_row(row, position)
    return Answer(listing=key, price_minor=delta.price_minor)


def _spoken_of(
    memory: Memory, delta: PriceApproved | PriceRejected | PricePinned | PriceUnpinned
) -> tuple[int, int]:
    row, key = listing_row(memory, delta.retailer, delta.channel, delta.sku)
    known_ms = int(memory.listings.listings["approval_ms"][row])
    if delta.observed_ms < known_ms:
        raise not_newer(delta.observed_ms, known_ms, key)
    return row, key


def _check_quote(listing: np.void, quote_id: str | None, key: int) -> None:
    """Refuse an answer to a quote that is no longer the listing's last."""
    if quote_id is None:
        return
    place = parse_quote_id(quote_id)
    if place is None:
        raise Refused("rejected", "/quote_id: is no quote's id; copy it as it was shown")
    if place[2:] != (int(listing["quote_seq"]), int(listing["quote_index"])):
        raise Refused(
            "rejected",
            "/quote_id: another quote is proposed by now; look again",
            "conflict",
            listing=key,
        )


def _check_live(memory: Memory, listing: np.void, key: int, halted_too: bool = True) -> None:
    retailers = memory.retailers
    retailer = retailers.table[listing["retailer"]]
    if not retailer["live"]:
        raise Refused(
            "rejected",
            "/retailer: is in shadow mode, where nothing is put in force; send ModeChanged first",
            "conflict",
            listing=key,
        )
    channel = memory.groups.table["channel"][listing["group"]]
    halted = retailer["halted"] or retailer["tripped"] or retailers.halted_channels[channel]
    if halted_too and halted:
        raise Refused(
            "rejected",
            "/retailer: publishing is halted; send PublishingResumed first",
            "conflict",
            listing=key,
        )


def _check_in_force(memory: Memory, work: Work, listing: np.void, key: int) -> None:
    """Refuse an approval that would not put its price in force: it must not wait for that day."""
    problem = ""
    if listing["pinned_minor"] > 0 and listing["pin_until_ms"] > work.now_ms:
        problem = f"is pinned at {int(listing['pinned_minor'])}; send PriceUnpinned first"
    elif memory.groups.policy["publish"][listing["group"]] == 0:
        problem = "is not published by its policy; send PolicyChanged with publish true first"
    elif listing["state"] == State.UNPUBLISHABLE:
        problem = "is unpublishable; send the cost or rate that its explanation misses first"
    elif listing["state"] == State.INFEASIBLE:
        problem = "is infeasible; correct its legal minimum, floor or ceiling first"
    if problem:
        raise Refused("rejected", f"/sku: {problem}", "conflict", listing=key)


def _check_bounds(memory: Memory, row: int, price_minor: int, key: int) -> None:
    """Refuse a price outside legal, floor or ceiling; without a floor there is no price."""
    legal, floor, ceiling = hard_bounds(memory, np.array([row]))
    problem = ""
    if floor[0] == 0:
        raise Refused(
            "rejected",
            "/sku: has no floor because its cost is unknown; send CostChanged first",
            listing=key,
        )
    if price_minor < legal[0]:
        problem = f"lies below the legal minimum (map_minor) {int(legal[0])}"
    elif price_minor < floor[0]:
        problem = f"lies below the floor {int(floor[0])}"
    elif price_minor > ceiling[0]:
        problem = f"lies above the ceiling {int(ceiling[0])}"
    if problem:
        raise Refused("rejected", f"/price_minor: {price_minor} {problem}", listing=key)


def hard_bounds(memory: Memory, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what nobody may break, int32[rows]: legal minimum, floor (0: none) and ceiling."""
    listings = memory.listings.listings.take(rows)
    group, policy = (
        memory.groups.table[listings["group"]],
        policies_of(memory, rows, listings),
    )
    floor = floor_minor(
        listings["cost_minor"],
        policy["min_margin_bp"],
        group["vat"],
        group["commission"],
        group["fixed_fee_minor"],
        group["minimum_fee_minor"],
        policy["floor_minor"],
    )
    ceiling = np.where(policy["ceiling_minor"] > 0, policy["ceiling_minor"], PRICE_MINOR_MAX)
    return listings["map_minor"], floor, ceiling
