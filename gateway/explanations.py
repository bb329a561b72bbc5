"""Receipts: a quote with everything that explains it, and its text for people."""

from typing import Literal

import msgspec
import numpy as np
from aiohttp import web
from msgspec import Struct

from engine.decided import Cause, parse_quote_id
from engine.explanation import Driver, ListingFacts, explain
from engine.microbatch import LANES, Lane
from gateway.call import (
    Call,
    Gateway,
    ListingQuery,
    age_of,
    age_of_all,
    product_of,
    retailer_of,
    row_of,
)
from gateway.documents import (
    Listing,
    ListingPrice,
    QuotePlace,
    Recommendation,
    quote_columns,
    recommendation,
)
from gateway.money import Money, money
from gateway.policies import winners_of
from gateway.problems import NOT_FOUND, Problem
from gateway.replica import Replica
from gateway.shard_view import Age


class Elasticity(Struct, frozen=True):
    """Own-price elasticity as the model believed it: negative, with its standard deviation."""

    mean: float
    sd: float


class BindingRule(Struct, frozen=True, kw_only=True):
    """The rule that set the price, and what the price would be without it."""

    rule: str
    price: Money
    without: Money | None
    setting: str  # the policy field, or the listing's own
    value: str | float | bool | tuple[str, ...] | None
    set_by: str


class CauseOfQuote(Struct, frozen=True, kw_only=True):
    """Why the listing was looked at: a delta, a timer, its full hour, or big work."""

    kind: Literal["delta", "timer", "reprice", "hour"]
    lane: Lane | None
    offset: int | None
    index: int | None


class Explanation(Struct, frozen=True, kw_only=True):
    """A receipt: the recommendation, what it was made of, and the same in words.

    A quote never changes; ``as_of`` and ``stale`` say how old the rest may be: that it is the
    newest, and ``listings``.
    """

    recommendation: Recommendation
    text: str
    binding: BindingRule | None
    moved_by: tuple[str, ...]  # every rule that moved the price, strongest first
    target_price: Money | None  # the model's optimum before any rule
    cost: Money | None
    elasticity: Elasticity | None
    expected_profit_change: float | None  # minor units a unit of today's demand
    rivals: int  # fresh and comparable ones
    drivers: tuple[Driver, ...]
    cause: CauseOfQuote | None
    listings: tuple[ListingPrice, ...]
    as_of: str
    stale: bool


_encode = msgspec.json.Encoder().encode


async def explanation(gateway: Gateway, call: Call) -> web.Response:
    """Explain the newest quote of a listing."""
    query = call.query(ListingQuery)
    replica = gateway.replica
    retailer = retailer_of(gateway, call.credential, query.retailer)
    product = product_of(gateway, retailer, call.part("id"))
    row = row_of(gateway, retailer, product, query.channel)
    newest = replica.quote(row)
    age = age_of(gateway, (product.shard,))
    if newest is None:
        raise Problem(NOT_FOUND, f"nothing was decided yet for {product.sku!r}", age=age)
    document = _receipt(replica, replica.listing(row), newest, replica.place(row), age)
    return web.Response(body=_encode(document), content_type="application/json")


async def quote(gateway: Gateway, call: Call) -> web.Response:
    """Return the receipt of one quote. Another's and an unknown one look alike."""
    quote_id = call.part("quote_id")
    place = parse_quote_id(quote_id)
    found = gateway.replica.find_quote(place) if place is not None else None
    if found is None or not call.credential.sees(found.listing.retailer):
        detail = f"there is no quote {quote_id!r}, or it is no longer kept here"
        raise Problem(NOT_FOUND, detail, age=age_of_all(gateway))
    age = age_of(gateway, (found.place.shard,))
    document = _receipt(gateway.replica, found.listing, found.quote, found.place, age)
    return web.Response(body=_encode(document), content_type="application/json")


def _receipt(
    replica: Replica, listing: Listing, quote: np.void, place: QuotePlace, age: Age
) -> Explanation:
    currency = listing.currency
    explained = explain(quote, _facts(replica, listing, int(quote["reasons"])))
    binding = explained.binding
    product = replica.product(listing.retailer, listing.sku)
    rows = product.rows if product is not None else ()
    mean, sd = float(quote["elasticity"]), float(quote["elasticity_sd"])
    change = float(quote["profit_change"])
    return Explanation(
        recommendation=recommendation(listing, quote_columns(quote), place),
        text=explained.text,
        binding=(
            BindingRule(
                rule=binding.rule,
                price=money(binding.price_minor, currency),
                without=_positive(binding.without_minor, currency),
                setting=binding.setting,
                value=binding.value,
                set_by=binding.set_by,
            )
            if binding is not None
            else None
        ),
        moved_by=explained.moved_by,
        target_price=_positive(explained.target_minor, currency),
        cost=money(int(quote["cost_minor"]), currency) if quote["cost_minor"] >= 0 else None,
        elasticity=Elasticity(round(mean, 4), round(sd, 4)) if mean < 0 else None,
        expected_profit_change=round(change, 4) if np.isfinite(change) else None,
        rivals=int(quote["rivals"]),
        drivers=explained.drivers,
        cause=_cause(quote),
        listings=tuple(replica.price_in_short(row) for row in rows),
        as_of=age.as_of,
        stale=age.stale,
    )


def _facts(replica: Replica, listing: Listing, mask: int) -> ListingFacts:
    """Return what an explanation needs of the catalogue, with the policy's winners."""
    return ListingFacts(
        channel=listing.channel,
        sku=listing.sku,
        currency=listing.currency,
        title=listing.title or "",
        category=listing.category or "",
        rrp_minor=listing.rrp_minor or 0,
        map_minor=listing.map_minor or 0,
        kvi=listing.kvi,
        policy=winners_of(replica, listing, mask),
    )


def _positive(minor: int, currency: str) -> Money | None:
    return money(minor, currency) if minor > 0 else None


_CAUSES: dict[int, Literal["delta", "timer", "reprice", "hour"]] = {
    Cause.DELTA: "delta",
    Cause.TIMER: "timer",
    Cause.REPRICE: "reprice",
    Cause.HOUR: "hour",
}


def _cause(quote: np.void) -> CauseOfQuote | None:
    kind = _CAUSES.get(int(quote["cause_kind"]))
    if kind is None:
        return None
    if kind != "delta":
        return CauseOfQuote(kind=kind, lane=None, offset=None, index=None)
    return CauseOfQuote(
        kind=kind,
        lane=LANES[int(quote["cause_lane"])],
        offset=int(quote["cause_offset"]),
        index=int(quote["cause_index"]),
    )
