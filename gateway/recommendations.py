"""The price read: a dictionary look-up and a write of ready bytes."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Literal

import msgspec
import numpy as np
from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from engine.decided import QUOTE_DTYPE, State
from engine.errors import DeadlinePassed, FailedDependency
from gateway.call import (
    DEADLINE_MS,
    RETRY,
    BatchGet,
    Call,
    DeadlineMs,
    Gateway,
    ListingQuery,
    RetailerQuery,
    age_of,
    homes_of,
    no_product,
    product_of,
    retailer_of,
)
from gateway.documents import (
    Listing,
    QuotePlace,
    RecommendationAnswer,
    encode_listings,
    encode_recommendation,
    listing_price,
    recommendation,
)
from gateway.money import rfc3339
from gateway.problems import DEADLINE, UNAVAILABLE, Problem
from gateway.ready import Answer
from gateway.retailers import Product, Retailer
from gateway.shard_view import STALE_MS, Age
from kernels.reasons import REASONS


class RecommendationQuery(ListingQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which listing, and whether its owner must be asked (``strong``)."""

    consistency: Literal["replica", "strong"] = "replica"
    deadline_ms: DeadlineMs = DEADLINE_MS  # of a strong read


class BatchAnswer(Struct, frozen=True, kw_only=True):
    """The recommendations found, in the order asked for, and the SKUs that were not.

    It is as old as the oldest of the shards where any of them is or would be.
    """

    recommendations: tuple[RecommendationAnswer, ...]
    not_found: tuple[str, ...]
    as_of: str
    stale: bool


_encode = msgspec.json.Encoder().encode
_STATES = {state.name.lower(): state for state in State}
_ONLY_REPLICA = RecommendationQuery()
_SHARD = attrgetter("shard")
_BATCH_HEAD, _BATCH_FOOT = b'{"recommendations":[', b'],"not_found":%b'


async def recommend(gateway: Gateway, call: Call) -> Answer:
    """Return a product's recommended price."""
    query = call.query(RecommendationQuery) if call.has_query() else _ONLY_REPLICA
    retailer = retailer_of(gateway, call.credential, query.retailer)
    replica, clock = gateway.replica, gateway.clock
    if query.consistency == "strong":
        return await _strong(gateway, retailer, call.part("id"), query)
    product = product_of(gateway, retailer, call.part("id"))
    answer = replica.answer(retailer, product, query.channel)
    if answer is None:
        raise no_product(product.sku, query.channel, age_of(gateway, (product.shard,)))
    now_ms = clock.wall_ms()
    tail = replica.shards[product.shard].tail(now_ms, clock.monotonic_ms())
    return gateway.heads.answer(call.request, answer + tail, now_ms)


async def batch_get(gateway: Gateway, call: Call) -> Answer:
    """Return the recommended prices of up to a thousand products.

    Whole columns instead of a loop: what is done a thousand times here is a look-up and a copy.
    Where all of it lies ready in one shard, as is usual, nothing but the answers is touched: most
    of the time is spent waiting for memory.
    """
    retailer = retailer_of(gateway, call.credential, call.query(RetailerQuery).retailer)
    body = await call.body(BatchGet)
    replica, clock = gateway.replica, gateway.clock
    now_ms, monotonic_ms = clock.wall_ms(), clock.monotonic_ms()
    view = replica.retailers.get(retailer) or Retailer(retailer)
    answers: list[Any] = []
    if body.channel is None:
        answers = list(map(view.ready.get, body.ids))
        if len(view.shards) == 1 and all(answers):
            (shard,) = view.shards
            end = replica.shards[shard].tail(now_ms, monotonic_ms)
            # Head and foot go with the first and the last answer: only the join copies them all.
            answers[0] = _BATCH_HEAD + answers[0]
            answers[-1] = b"".join((answers[-1], end, _BATCH_FOOT % b"[]", end))
            return gateway.heads.answer(call.request, (end + b",").join(answers), now_ms)
    products: list[Any] = list(map(view.products.get, body.ids))
    if not answers or not all(answers):
        answers = [each and replica.answer(retailer, each, body.channel) for each in products]
    absent = []
    if not all(answers):
        absent = [sku for sku, answer in zip(body.ids, answers, strict=True) if not answer]
        products = [each for each, answer in zip(products, answers, strict=True) if answer]
        answers = list(filter(None, answers))
    # By shard: the end of an answer, which says how old it is, and the comma before the next one.
    ends = [shard.tail(now_ms, monotonic_ms) + b"," for shard in replica.shards]
    pieces = [b""] * (2 * len(answers))
    pieces[::2] = answers
    pieces[1::2] = map(ends.__getitem__, map(_SHARD, products))
    if pieces:
        pieces[-1] = pieces[-1][:-1]
    age = age_of(gateway, homes_of(gateway, retailer, absent).union(map(_SHARD, products)))
    foot = (_BATCH_FOOT % _encode(absent), b",", _encode(age)[1:])
    document = b"".join((_BATCH_HEAD, *pieces, *foot))
    return gateway.heads.answer(call.request, document, now_ms)


async def _strong(
    gateway: Gateway, retailer: str, sku: str, query: RecommendationQuery
) -> web.Response:
    """Ask the owner, and answer in the same form.

    The answer is as of the question: the owner's word is at least that new, and nobody here knows
    how long it was under way.
    """
    replica, routed, clock = gateway.replica, gateway.routed, gateway.clock
    asked_ms, asked_monotonic_ms = clock.wall_ms(), clock.monotonic_ms()
    product, row = _asked(gateway, retailer, sku, query.channel)
    listing = replica.listing(row)
    if routed is None or routed.is_full():
        raise Problem(UNAVAILABLE, "the owner cannot be asked now", headers=RETRY)
    try:
        live = await routed.read(product.shard, listing.key, query.deadline_ms)
    except (TimeoutError, DeadlinePassed) as fault:
        detail = f"no answer within {query.deadline_ms} ms; without consistency=strong there is one"
        raise Problem(DEADLINE, detail, headers=RETRY) from fault
    except FailedDependency as fault:
        raise Problem(UNAVAILABLE, "the owner cannot be asked now", headers=RETRY) from fault
    waited_ms = max(clock.wall_ms() - asked_ms, clock.monotonic_ms() - asked_monotonic_ms)
    age = Age(rfc3339(asked_ms), waited_ms > STALE_MS)
    if not live:  # taken off meanwhile, which this gateway has not heard yet
        raise no_product(sku, query.channel, age)
    listing = replace(listing, currency=live.get("currency", listing.currency))
    columns, place = live_quote(replica.generation, product.shard, live)
    body = encode_recommendation(recommendation(listing, columns, place))
    listings = _lines(gateway, product, row, listing, columns, age)
    answer = body[:-1] + b',"listings":' + listings + b"," + _encode(age)[1:]
    return web.Response(body=answer, content_type="application/json")


def _asked(gateway: Gateway, retailer: str, sku: str, channel: str | None) -> tuple[Product, int]:
    """Return the product and the row that a strong read is about.

    Raises:
        Problem: there is none; or it may well be there, but this gateway has not heard for too long
            to say so in its owner's name.
    """
    product = gateway.replica.product(retailer, sku)
    row = gateway.replica.row_of(retailer, product, channel) if product is not None else None
    if product is not None and row is not None:
        return product, row
    age = age_of(gateway, homes_of(gateway, retailer, (sku,)))
    if age.stale:
        detail = f"there was no product {sku!r} when this gateway last heard of its shard"
        raise Problem(UNAVAILABLE, detail, headers=RETRY)
    raise no_product(sku, channel, age)


def _lines(
    gateway: Gateway,
    product: Product,
    row: int,
    listing: Listing,
    columns: tuple[Any, ...] | None,
    age: Age,
) -> bytes:
    """Return a product's listings in short: one as its owner told it, the others as they lie here.

    Each says its own age, for the others' may be another.
    """
    replica = gateway.replica
    heard = age_of(gateway, (product.shard,))
    lines = [replace(listing_price(listing, columns), as_of=age.as_of, stale=age.stale)]
    lines += [
        replace(replica.price_in_short(each), as_of=heard.as_of, stale=heard.stale)
        for each in product.rows
        if each != row
    ]
    return encode_listings(sorted(lines, key=attrgetter("channel")))


def live_quote(
    generation: int, shard: int, live: Mapping[str, Any]
) -> tuple[tuple[Any, ...] | None, QuotePlace | None]:
    """Return the columns of a quote and its place from what an owner says of a listing."""
    if live["state"] not in _STATES:  # nothing was decided yet
        return None, None
    # Assigned field by field, so that a value which does not fit its column is a fault here.
    row = np.zeros((), QUOTE_DTYPE)
    for name in QUOTE_DTYPE.names or ():
        if name not in ("state", "reasons"):
            row[name] = live[name]
    row["state"] = _STATES[live["state"]]
    row["reasons"] = sum(bit for bit, name in REASONS.items() if name in live["reasons"])
    seq, index = live["quote"]
    # When that quote was decided the owner does not say; the answer itself is as of now.
    return tuple(row.item()), QuotePlace(generation, shard, seq, index, 0)
