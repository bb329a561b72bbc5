"""The named features of listings, as their owner knows them; ``docs/features.md`` is their table.

No replica holds what they are derived from (offers, sales, what was learnt), so the owner is asked:
a thousand listings in slices, one after the other, for between two slices he decides prices.
"""

import asyncio
from collections.abc import Sequence
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from engine.errors import FailedDependency
from gateway.call import (
    DEADLINE_MS,
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
    row_of,
)
from gateway.documents import Listing
from gateway.owner_answers import aged, owner_problems
from gateway.shard_view import Age
from kernels.limits import FEATURES_SLICE_MAX

Consistency = Literal["recorded", "strong"]


class FeaturesQuery(ListingQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which listing, and whether a mark after the question is waited for (``strong``)."""

    consistency: Consistency = "recorded"
    deadline_ms: DeadlineMs = DEADLINE_MS


class FeaturesBatchQuery(RetailerQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether a mark that comes after the question is waited for; the deadline is the batch's."""

    consistency: Consistency = "recorded"
    deadline_ms: DeadlineMs = DEADLINE_MS


class FeaturesAnswer(Struct, frozen=True, kw_only=True):
    """A listing's features by name, ``null`` where one is not known.

    ``as_of`` is the time of the last microbatch that its owner had recorded, ``seq`` its number.
    All ages and windows end there. ``stale`` says that it is over two seconds ago or that he took
    so long to answer; where time is the events', that nothing was heard for so long.
    """

    sku: str
    channel: str
    as_of: str
    stale: bool
    seq: int
    features: dict[str, float | None]


class FeaturesBatch(Struct, frozen=True, kw_only=True):
    """The features found, in the order asked for, and the SKUs that were not.

    A batch is answered in slices: each answer says itself what it is as of. The batch is as old as
    the oldest of them and of the shards where what was not found would be.
    """

    features: tuple[FeaturesAnswer, ...]
    not_found: tuple[str, ...]
    as_of: str
    stale: bool


_encode = msgspec.json.Encoder().encode


async def features(gateway: Gateway, call: Call) -> web.Response:
    """Return one listing's features."""
    query = call.query(FeaturesQuery)
    retailer = retailer_of(gateway, call.credential, query.retailer)
    product = product_of(gateway, retailer, call.part("id"))
    listing = gateway.replica.listing(row_of(gateway, retailer, product, query.channel))
    with owner_problems(query.deadline_ms):
        age, (told,) = await _asked(gateway, product.shard, [listing], query)
    if told is None:
        raise no_product(product.sku, query.channel, age)
    return web.Response(body=_encode(told), content_type="application/json")


async def features_batch_get(gateway: Gateway, call: Call) -> web.Response:
    """Return the features of up to a thousand listings.

    A slice is encoded as it comes, so that no other request waits for the whole batch here either.
    """
    query = call.query(FeaturesBatchQuery)
    retailer = retailer_of(gateway, call.credential, query.retailer)
    body = await call.body(BatchGet)
    replica = gateway.replica
    found: dict[
        int, list[tuple[int, Listing]]
    ] = {}  # by shard: the place in the order, the listing
    for place, sku in enumerate(body.ids):
        product = replica.product(retailer, sku)
        row = replica.row_of(retailer, product, body.channel) if product is not None else None
        if product is not None and row is not None:
            found.setdefault(product.shard, []).append((place, replica.listing(row)))
    known = {place for wanted in found.values() for place, _ in wanted}
    unknown = [sku for place, sku in enumerate(body.ids) if place not in known]
    ages = [age_of(gateway, homes_of(gateway, retailer, unknown))] if unknown else []
    answers: list[bytes | None] = [None] * len(body.ids)
    with owner_problems(query.deadline_ms):
        async with asyncio.timeout(query.deadline_ms / 1000):
            for shard, wanted in found.items():
                for first in range(0, len(wanted), FEATURES_SLICE_MAX):
                    piece = wanted[first : first + FEATURES_SLICE_MAX]
                    age, told = await _asked(gateway, shard, [each for _, each in piece], query)
                    ages.append(age)
                    for (place, _), answer in zip(piece, told, strict=True):
                        answers[place] = None if answer is None else _encode(answer)
    absent = [sku for sku, answer in zip(body.ids, answers, strict=True) if answer is None]
    told_all = b",".join(answer for answer in answers if answer is not None)
    age = Age(min(each.as_of for each in ages), any(each.stale for each in ages))
    document = b'{"features":[%b],"not_found":%b,%b' % (told_all, _encode(absent), _encode(age)[1:])
    return web.Response(body=document, content_type="application/json")


async def _asked(
    gateway: Gateway,
    shard: int,
    listings: Sequence[Listing],
    query: FeaturesQuery | FeaturesBatchQuery,
) -> tuple[Age, list[FeaturesAnswer | None]]:
    """Ask the owner for a slice of listings; ``None`` for one that he does not know any more.

    Returns:
        How old what he told is, and it.
    """
    routed = gateway.features
    if routed is None:
        raise FailedDependency("this gateway knows no owners")
    strong = query.consistency == "strong"
    asking = routed.read(
        shard,
        [listing.key for listing in listings],
        query.deadline_ms,
        strong=strong,
        known_seq=gateway.replica.shards[shard].position.seq,
    )
    age, answer = await aged(gateway, shard, asking, strong=strong)
    return age, [
        None
        if told is None
        else FeaturesAnswer(
            sku=listing.sku,
            channel=listing.channel,
            as_of=age.as_of,
            stale=age.stale,
            seq=answer["seq"],
            features=told,
        )
        for listing, told in zip(listings, answer["features"], strict=True)
    ]
