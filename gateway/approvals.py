"""What people decide about one price: approve, reject, pin, unpin.

Each is a command: a delta with an id in the commands lane, answered by its outcome in the decision
log. Nothing is changed here.
"""

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from engine.deltas import PriceApproved, PricePinned, PriceRejected, PriceUnpinned
from engine.errors import RejectedInput
from gateway.call import (
    Call,
    Gateway,
    ListingQuery,
    decode_body,
    product_of,
    refused,
    retailer_of,
    row_of,
)
from gateway.commands import Destination
from gateway.documents import Listing
from gateway.execution import Command, execute, observed_ms
from gateway.money import Money, price_minor, unix_ms

QuoteId = Annotated[str, Meta(min_length=1, max_length=100)]


class ApprovePrice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Approve the proposed price, or another within the guardrails."""

    price: Money | None = None  # the proposed one when absent
    quote_id: QuoteId | None = None  # what was looked at; 409 when another is proposed by now


class RejectPrice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Reject the proposed price; the price in force stays."""

    quote_id: QuoteId | None = None


class PinPrice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fix the price until a moment, or until it is unpinned."""

    price: Money
    until: str | None = None  # RFC 3339


class UnpinPrice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give the price back to the engine."""


class _Target(Struct, frozen=True):
    """The listing that a command is about, and where the command goes."""

    row: int
    listing: Listing
    destinations: tuple[Destination, ...]
    observed_ms: int


async def approve_price(gateway: Gateway, call: Call) -> web.Response:
    """Approve a proposed price."""
    target = _target(gateway, call)
    raw = await call.read()
    body = decode_body(raw, ApprovePrice)
    delta = PriceApproved(
        retailer=target.listing.retailer,
        channel=target.listing.channel,
        sku=target.listing.sku,
        observed_ms=target.observed_ms,
        price_minor=_minor(body.price, target.listing) if body.price is not None else None,
        quote_id=body.quote_id,
    )
    return await execute(gateway, call, _command(target, raw, delta))


async def reject_price(gateway: Gateway, call: Call) -> web.Response:
    """Reject a proposed price."""
    target = _target(gateway, call)
    raw = await call.read()
    body = decode_body(raw, RejectPrice)
    delta = PriceRejected(
        retailer=target.listing.retailer,
        channel=target.listing.channel,
        sku=target.listing.sku,
        observed_ms=target.observed_ms,
        quote_id=body.quote_id,
    )
    return await execute(gateway, call, _command(target, raw, delta))


async def pin_price(gateway: Gateway, call: Call) -> web.Response:
    """Fix a price."""
    target = _target(gateway, call)
    raw = await call.read()
    body = decode_body(raw, PinPrice)
    try:
        until_ms = unix_ms(body.until, "/until") if body.until is not None else None
    except RejectedInput as fault:
        raise refused(fault) from fault
    delta = PricePinned(
        retailer=target.listing.retailer,
        channel=target.listing.channel,
        sku=target.listing.sku,
        observed_ms=target.observed_ms,
        price_minor=_minor(body.price, target.listing),
        until_ms=until_ms,
    )
    return await execute(gateway, call, _command(target, raw, delta))


async def unpin_price(gateway: Gateway, call: Call) -> web.Response:
    """Give a pinned price back to the engine."""
    target = _target(gateway, call)
    raw = await call.read()
    decode_body(raw, UnpinPrice)
    delta = PriceUnpinned(
        retailer=target.listing.retailer,
        channel=target.listing.channel,
        sku=target.listing.sku,
        observed_ms=target.observed_ms,
    )
    return await execute(gateway, call, _command(target, raw, delta))


def _target(gateway: Gateway, call: Call) -> _Target:
    query = call.query(ListingQuery)
    retailer = retailer_of(gateway, call.credential, query.retailer)
    product = product_of(gateway, retailer, call.part("id"))
    row = row_of(gateway, retailer, product, query.channel)
    destinations = gateway.commands.to_sku(retailer, product.sku)
    return _Target(
        row, gateway.replica.listing(row), destinations, observed_ms(gateway, destinations)
    )


def _command(
    target: _Target, raw: bytes, delta: PriceApproved | PriceRejected | PricePinned | PriceUnpinned
) -> Command:
    return Command(
        delta=delta,
        raw=raw,
        destinations=target.destinations,
        listing=target.listing,
        row=target.row,
    )


def _minor(price: Money, listing: Listing) -> int:
    try:
        return price_minor(price, listing.currency, "/price")
    except RejectedInput as fault:
        raise refused(fault) from fault
