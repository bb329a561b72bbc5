"""A retailer's products with their current prices, listed by SKU and filtered."""

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from engine.errors import RejectedInput
from gateway.call import (
    Call,
    Gateway,
    ListingQuery,
    RetailerQuery,
    age_of,
    product_of,
    retailer_of,
    row_of,
    shards_of,
)
from gateway.cursors import read_cursor, write_cursor
from gateway.documents import Recommendation, StateName
from gateway.history import read_history
from gateway.money import Money, money, unix_ms
from gateway.problems import INVALID_REQUEST, FieldError, Problem
from gateway.replica import Replica
from gateway.retailers import Product
from gateway.shard_view import Age

LIMIT_MAX = 500
EXAMINED_MAX = 20_000
"""Products looked at for one page: a rare filter gives a short page and a cursor to go on."""

HISTORY_MS = 3600 * 1000


class ProductsQuery(RetailerQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which products, how many, and what of them."""

    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = 50
    cursor: Annotated[str, Meta(max_length=1000)] | None = None
    category: str | None = None
    brand: str | None = None
    channel: str | None = None
    tag: str | None = None
    state: StateName | None = None
    fields: Annotated[str, Meta(max_length=400)] | None = None  # names, separated by commas


class ProductQuery(RetailerQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of the product, besides its age; everything when absent."""

    fields: Annotated[str, Meta(max_length=400)] | None = None


class HistoryQuery(ListingQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which listing, from when to when (RFC 3339); the last hour when absent."""

    since: str | None = None
    until: str | None = None


class ProductDocument(Struct, frozen=True, kw_only=True):
    """A product as its primary listing describes it, with the prices of all its listings."""

    id: str
    title: str | None
    category: str | None
    brand: str | None
    tags: tuple[str, ...]
    currency: str
    primary_channel: str
    kvi: bool
    rrp: Money | None
    map: Money | None
    listings: tuple[Recommendation, ...]
    as_of: str
    stale: bool


class ProductPage(Struct, frozen=True, kw_only=True):
    """A page of products, in the order of their SKUs. ``next_cursor`` is null at the end.

    A page may be shorter than ``limit``, or empty, and still have a ``next_cursor``. It is as old
    as that shard of the retailer's of which least was heard: products may be missing there.
    """

    products: tuple[ProductDocument, ...]
    next_cursor: str | None
    as_of: str
    stale: bool


_FIELDS = ProductDocument.__struct_fields__
_encode = msgspec.json.Encoder().encode


async def products(gateway: Gateway, call: Call) -> web.Response:
    """List products."""
    query = call.query(ProductsQuery)
    retailer_id = retailer_of(gateway, call.credential, query.retailer)
    fields = _checked_fields(query.fields)
    after = read_cursor("products", query.cursor) if query.cursor is not None else ""
    retailer = gateway.replica.retailers.get(retailer_id)
    ages = {shard: age_of(gateway, (shard,)) for shard in shards_of(gateway, retailer_id)}
    age = age_of(gateway, ages)
    page: list[dict[str, Any]] = []
    next_cursor = None
    examined, last = 0, after
    for product in retailer.after(after) if retailer is not None else ():
        if len(page) == query.limit or examined == EXAMINED_MAX:
            next_cursor = write_cursor("products", last)
            break
        examined, last = examined + 1, product.sku
        if _is_wanted(gateway.replica, product, query):
            page.append(
                _document(gateway.replica, retailer_id, product, fields, ages[product.shard])
            )
    told = {"products": page, "next_cursor": next_cursor, "as_of": age.as_of, "stale": age.stale}
    body = _encode(told)
    headers = None
    if next_cursor is not None:
        url = call.request.rel_url.update_query(cursor=next_cursor)
        headers = {"Link": f'<{url.raw_path_qs}>; rel="next"'}
    return web.Response(body=body, headers=headers, content_type="application/json")


async def product(gateway: Gateway, call: Call) -> web.Response:
    """Return one product."""
    query = call.query(ProductQuery)
    retailer = retailer_of(gateway, call.credential, query.retailer)
    found = product_of(gateway, retailer, call.part("id"))
    fields = _checked_fields(query.fields)
    wanted = tuple(dict.fromkeys((*fields, "as_of", "stale")))  # nothing goes out without its age
    age = age_of(gateway, (found.shard,))
    document = _document(gateway.replica, retailer, found, wanted, age)
    return web.Response(body=_encode(document), content_type="application/json")


async def history(gateway: Gateway, call: Call) -> web.Response:
    """Return how a listing's price came about."""
    query = call.query(HistoryQuery)
    retailer = retailer_of(gateway, call.credential, query.retailer)
    found = product_of(gateway, retailer, call.part("id"))
    row = row_of(gateway, retailer, found, query.channel)
    view = gateway.replica.shards[gateway.replica.shard_of(row)]
    newest_ms = max(view.decided_ms, 0) if view.clock == "event" else gateway.clock.wall_ms()
    to_ms = _moment(query.until, "until", newest_ms)
    from_ms = _moment(query.since, "since", to_ms - HISTORY_MS)
    age = age_of(gateway, (found.shard,))
    document = await read_history(
        gateway.replica, gateway.history, gateway.replica.listing(row), from_ms, to_ms, age
    )
    return web.Response(body=_encode(document), content_type="application/json")


def _moment(text: str | None, parameter: str, default_ms: int) -> int:
    if text is None:
        return default_ms
    try:
        return unix_ms(text, parameter)
    except RejectedInput as fault:
        error = FieldError(f"{fault.problem}: {fault.fix}", parameter=parameter)
        raise Problem(INVALID_REQUEST, error.detail, errors=[error]) from fault


def _is_wanted(replica: Replica, product: Product, query: ProductsQuery) -> bool:
    """Whether one of the product's listings has everything that the query asks for."""
    if query.category is query.brand is query.channel is query.tag is query.state is None:
        return True
    for row in product.rows:
        listing = replica.listing(row)
        if query.category is not None and listing.category != query.category:
            continue
        if query.brand is not None and listing.brand != query.brand:
            continue
        if query.channel is not None and listing.channel != query.channel:
            continue
        if query.tag is not None and query.tag not in listing.tags:
            continue
        if query.state is not None and replica.state_name(row) != query.state:
            continue
        return True
    return False


def _document(
    replica: Replica, retailer: str, product: Product, fields: tuple[str, ...], age: Age
) -> dict[str, Any]:
    """Return the named fields of a product; its prices are the ready bytes."""
    row = replica.row_of(retailer, product)
    assert row is not None, "a product without listings is no product"
    listing = replica.listing(row)
    whole: dict[str, Any] = {
        "id": product.sku,
        "title": listing.title,
        "category": listing.category,
        "brand": listing.brand,
        "tags": listing.tags,
        "currency": listing.currency,
        "primary_channel": listing.channel,
        "kvi": listing.kvi,
        "rrp": _optional_money(listing.rrp_minor, listing.currency),
        "map": _optional_money(listing.map_minor, listing.currency),
        "as_of": age.as_of,
        "stale": age.stale,
    }
    if "listings" in fields:
        whole["listings"] = [msgspec.Raw(replica.body(each)) for each in product.rows]
    return {name: whole[name] for name in fields}


def _optional_money(minor: int | None, currency: str) -> Money | None:
    return money(minor, currency) if minor else None


def _checked_fields(text: str | None) -> tuple[str, ...]:
    if text is None:
        return _FIELDS
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in _FIELDS]
    if unknown:
        detail = f"unknown: {', '.join(unknown)}; there are {', '.join(_FIELDS)}"
        raise Problem(INVALID_REQUEST, detail, errors=[FieldError(detail, parameter="fields")])
    return names
