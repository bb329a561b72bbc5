"""The policy in force: what is set at each scope, and what of it reaches one listing."""

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from engine.deltas import ScopeKind
from engine.policy import SCOPES, Winner
from gateway.call import (
    Call,
    Gateway,
    ListingQuery,
    RetailerQuery,
    age_of,
    known_retailer,
    product_of,
    retailer_of,
    row_of,
    shards_of,
)
from gateway.cursors import read_cursor, write_cursor
from gateway.documents import Listing
from gateway.problems import NOT_FOUND, Problem
from gateway.products import LIMIT_MAX
from gateway.replica import Replica
from kernels import reasons


class PoliciesQuery(RetailerQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which scopes, and how many."""

    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = 50
    cursor: Annotated[str, Meta(max_length=1000)] | None = None
    scope: ScopeKind | None = None


class ScopeQuery(RetailerQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which category, channel, tag or listing; nothing for the retailer's own scope."""

    key: Annotated[str, Meta(max_length=500)] = ""


class ScopePolicy(Struct, frozen=True, kw_only=True):
    """What one scope holds, as ``policies:plan`` and ``policies:apply`` take it."""

    scope: ScopeKind
    key: str  # of a listing: channel and SKU joined by U+001F
    priority: int  # of a tag: the higher wins
    fields: dict[str, Any]  # money in minor units; empty: all were unset again


class PolicyPage(Struct, frozen=True, kw_only=True):
    """A page of scopes, by scope and key. ``next_cursor`` is null at the end."""

    retailer: str
    policies: tuple[ScopePolicy, ...]
    next_cursor: str | None
    as_of: str
    stale: bool


class ScopeAnswer(ScopePolicy, frozen=True, kw_only=True):
    """What one scope holds, and how old that is."""

    retailer: str
    as_of: str
    stale: bool


class FieldInForce(Struct, frozen=True):
    """A policy field's value for one listing, and who set it."""

    value: str | float | bool | tuple[str, ...]
    scope: str  # as above; or "default", the engine's, or "experiment"
    key: str  # of the scope; the experiment's name; "" of the retailer's and the default


class ListingPolicy(Struct, frozen=True, kw_only=True):
    """Every policy field as it counts for one listing."""

    sku: str
    channel: str
    fields: dict[str, FieldInForce]
    as_of: str
    stale: bool


_encode = msgspec.json.Encoder().encode


async def policies(gateway: Gateway, call: Call) -> web.Response:
    """List what is set, scope by scope."""
    query = call.query(PoliciesQuery)
    retailer = known_retailer(gateway, call, PoliciesQuery)
    after = ("", "")
    if query.cursor is not None:
        scope, _, key = read_cursor("policies", query.cursor).partition("\x1f")
        after = (scope, key)
    found = gateway.replica.policies.page(retailer, after, query.limit + 1, query.scope)
    more = len(found) > query.limit
    page = [
        ScopePolicy(scope=scope, key=key, priority=priority, fields=fields)
        for scope, key, priority, fields in found[: query.limit]
    ]
    age = age_of(gateway, shards_of(gateway, retailer))
    document = PolicyPage(
        retailer=retailer,
        policies=tuple(page),
        next_cursor=_cursor_behind(page[-1]) if more else None,
        as_of=age.as_of,
        stale=age.stale,
    )
    headers = None
    if document.next_cursor is not None:
        url = call.request.rel_url.update_query(cursor=document.next_cursor)
        headers = {"Link": f'<{url.raw_path_qs}>; rel="next"'}
    return web.Response(body=_encode(document), headers=headers, content_type="application/json")


def _cursor_behind(last: ScopePolicy) -> str:
    return write_cursor("policies", f"{last.scope}\x1f{last.key}")


async def scope_policy(gateway: Gateway, call: Call) -> web.Response:
    """Return what one scope holds."""
    query = call.query(ScopeQuery)
    retailer = known_retailer(gateway, call, ScopeQuery)
    age = age_of(gateway, shards_of(gateway, retailer))
    named = call.part("scope")
    scope = next((each for each in SCOPES if each == named), None)
    held = gateway.replica.policies.at(retailer, scope, query.key) if scope is not None else None
    if scope is None or held is None:
        told = f"nothing is set for {named} {query.key!r}".removesuffix(" ''")
        raise Problem(NOT_FOUND, f"{told}; scopes are {', '.join(SCOPES)}, with ?key=", age=age)
    priority, fields = held
    document = ScopeAnswer(
        retailer=retailer,
        scope=scope,
        key=query.key,
        priority=priority,
        fields=fields,
        as_of=age.as_of,
        stale=age.stale,
    )
    return web.Response(body=_encode(document), content_type="application/json")


async def listing_policy(gateway: Gateway, call: Call) -> web.Response:
    """Return every field as it counts for one listing, with the scope that it comes from."""
    query = call.query(ListingQuery)
    replica = gateway.replica
    retailer = retailer_of(gateway, call.credential, query.retailer)
    product = product_of(gateway, retailer, call.part("id"))
    row = row_of(gateway, retailer, product, query.channel)
    listing, quote = replica.listing(row), replica.quote(row)
    mask = int(quote["reasons"]) if quote is not None else 0
    age = age_of(gateway, (product.shard,))
    document = ListingPolicy(
        sku=listing.sku,
        channel=listing.channel,
        fields={
            name: FieldInForce(won.value, won.scope, won.key)
            for name, won in winners_of(replica, listing, mask).items()
        },
        as_of=age.as_of,
        stale=age.stale,
    )
    return web.Response(body=_encode(document), content_type="application/json")


def winners_of(replica: Replica, listing: Listing, mask: int) -> dict[str, Winner]:
    """Return who set each policy field of a listing.

    Args:
        replica: holds what is set.
        listing: whose policy.
        mask: the reasons of its newest quote: they say whether an experiment treats it.
    """
    winners = replica.policies.winners(
        listing.retailer,
        listing.channel,
        listing.category or "",
        listing.tags,
        f"{listing.channel}\x1f{listing.sku}",
    )
    return winners | _treatment(replica, listing) if mask & reasons.TREATED else winners


def _treatment(replica: Replica, listing: Listing) -> dict[str, Winner]:
    """Return the fields that the listing's experiment set over all other scopes."""
    shard = replica.shard_of_key(listing.key)
    told = replica.retailers[listing.retailer].experiments.get((shard, "experiment"), {})
    name = told.get("experiment", "")
    tried = dict(told.get("treatment", {}))
    if "price_ratio" in told:
        tried["rival_position"] = 0.0  # a price that is tried leaves a position no say
    return {field: Winner(field, value, "experiment", name) for field, value in tried.items()}
