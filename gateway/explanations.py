"""Receipts: a quote with everything that explains it, and its text for people."""

import logging
from typing import Literal

import msgspec
import numpy as np
from aiohttp import web
from msgspec import Struct

from engine.decided import Cause, parse_quote_id
from engine.drivers import Driver, ListingFacts
from engine.errors import DeadlinePassed, FailedDependency
from engine.explanation import explain
from engine.live_drivers import LiveFacts
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
from gateway.owner_answers import aged
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


class Now(Struct, frozen=True, kw_only=True):
    """As of what the owner told the drivers that a quote does not hold.

    ``as_of`` is the time of the last microbatch that he had recorded, ``seq`` its number.
    """

    as_of: str
    stale: bool
    seq: int


class Explanation(Struct, frozen=True, kw_only=True):
    """A receipt: the recommendation, what it was made of, and the same in words.

    A quote never changes; ``as_of`` and ``stale`` say how old the rest may be: that it is the
    newest, and ``listings``. Drivers as of ``now`` are those that only the owner knows, and he only
    of the newest quote: ``now`` is null where he was not asked or did not answer in time.
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
    now: Now | None
    cause: CauseOfQuote | None
    listings: tuple[ListingPrice, ...]
    as_of: str
    stale: bool


NOW_MS = 300
"""How long a receipt waits for what only the owner knows."""

_encode = msgspec.json.Encoder().encode
logger = logging.getLogger(__name__)


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
    place = replica.place(row)
    listing = replica.listing(row)
    newest = newest.copy()  # of the table, whose row the next quote overwrites while we ask
    now, live = await _asked(gateway, listing, place)
    document = _receipt(replica, listing, newest, place, age, now, live)
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
    now, live, kept = None, None, found.quote.copy()
    if gateway.replica.place(found.row) == found.place:
        now, live = await _asked(gateway, found.listing, found.place)
    document = _receipt(gateway.replica, found.listing, kept, found.place, age, now, live)
    return web.Response(body=_encode(document), content_type="application/json")


async def _asked(
    gateway: Gateway, listing: Listing, place: QuotePlace
) -> tuple[Now | None, LiveFacts | None]:
    """Return what the owner knows of a listing's newest quote now, where he answers at once.

    A receipt is owed also while there is no owner, so nobody waits for him long, and what he tells
    of a later quote than ours is left out.
    """
    routed = gateway.live_facts
    if routed is None:
        return None, None
    known_seq = gateway.replica.shards[place.shard].position.seq
    asking = routed.read(place.shard, listing.key, NOW_MS, known_seq=known_seq)
    try:
        age, told = await aged(gateway, place.shard, asking)
        live = msgspec.convert(told["facts"], LiveFacts | None)
    except (TimeoutError, DeadlinePassed, FailedDependency):
        return None, None
    except msgspec.ValidationError as fault:  # of another version, while versions change
        logger.warning("shard %d explains in words of its own: %s", place.shard, fault)
        return None, None
    if live is None or live.quote != (place.seq, place.index):
        return None, None
    return Now(as_of=age.as_of, stale=age.stale, seq=live.seq), live


def _receipt(
    replica: Replica,
    listing: Listing,
    quote: np.void,
    place: QuotePlace,
    age: Age,
    now: Now | None,
    live: LiveFacts | None,
) -> Explanation:
    currency = listing.currency
    facts = _facts(replica, listing, int(quote["reasons"]))
    explained = explain(quote, facts, place.decided_ms, live)
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
        now=now,
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
