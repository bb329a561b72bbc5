"""What a route is given: the gateway's parts, and one request whose input was checked."""

import asyncio
from collections.abc import Iterable
from functools import cache
from typing import Annotated, Any, TypeVar, cast

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from actors.clock import Clock
from engine.checking import DECODE_ERRORS, explained
from engine.errors import RejectedInput
from gateway.commands import CommandSender
from gateway.feeds import Streams
from gateway.history import HistoryReader
from gateway.keys import Credential, Keys
from gateway.metrics import Metrics
from gateway.operations import Operations
from gateway.problems import (
    INVALID_REQUEST,
    MALFORMED_BODY,
    NOT_FOUND,
    REQUEST_TIMEOUT,
    RETAILER_REQUIRED,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    FieldError,
    Kind,
    Problem,
)
from gateway.ready import Heads
from gateway.replica import Replica
from gateway.retailers import Product
from gateway.routed import AskFork, RoutedFacts, RoutedFeatures, RoutedLearning, RoutedReads
from gateway.shard_view import Age, oldest
from persistence.json_documents import refuse_depth, refuse_duplicate_keys

BODY_BYTES_MAX = 256 * 1024
BODY_WAIT_S = 10
BATCH_MAX = 1000
DEADLINE_MS = 1000
RETRY = {"Retry-After": "1"}

DeadlineMs = Annotated[int, Meta(ge=10, le=10_000)]
"""How long an owner may take to answer."""

T = TypeVar("T")


class Gateway(Struct, frozen=True, kw_only=True, eq=False):
    """The parts that routes use; put together by ``gateway.app.make_app``."""

    replica: Replica
    keys: Keys
    clock: Clock
    metrics: Metrics
    streams: Streams
    operations: Operations
    commands: CommandSender
    heads: Heads
    routed: RoutedReads | None = None  # strong reads; None: there is nobody to ask
    features: RoutedFeatures | None = None  # None: there is nobody to ask
    learning: RoutedLearning | None = None  # likewise
    live_facts: RoutedFacts | None = None  # likewise
    forks: AskFork | None = None  # plans and what-ifs; None: there is nobody to ask
    history: HistoryReader | None = None  # None: the window only
    origins: frozenset[str] = frozenset()  # of pages, besides our own, that may open a stream


class RetailerQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every route knows ``retailer``: it chooses among those that the key sees, no others."""

    retailer: str | None = None


class ListingQuery(RetailerQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names one listing of the product in the path; the primary channel's when absent."""

    channel: str | None = None


class BatchGet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The SKUs to look up, on one channel or on the primary one of each."""

    ids: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...],
        Meta(min_length=1, max_length=BATCH_MAX),
    ]
    channel: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """An empty object."""


class Call(Struct, frozen=True, eq=False):
    """One request and whose it is."""

    request: web.Request
    credential: Credential

    def part(self, name: str) -> str:
        """Return a named part of the path."""
        return self.request.match_info[name]

    def has_query(self) -> bool:
        """Whether there is a query string to look at; cheaper than parsing it."""
        return "?" in self.request.raw_path

    def query(self, kind: type[T]) -> T:
        """Return the query string as ``kind``; a field at fault is named."""
        given = self.request.query
        for name in given:
            if len(given.getall(name)) > 1:
                error = FieldError("given more than once", parameter=name)
                raise Problem(INVALID_REQUEST, f"{name} stands twice", errors=[error])
        try:
            return msgspec.convert(dict(given), kind, strict=False)
        except msgspec.ValidationError as fault:
            rejected = explained(fault, kind)
            name = rejected.pointer.strip("/").partition("/")[0]
            told = f"{rejected.problem}: {rejected.fix}"
            error = FieldError(told, parameter=name or None)
            detail = f"{name}: {told}" if name else told
            raise Problem(INVALID_REQUEST, detail, errors=[error]) from fault

    async def body(self, kind: type[T]) -> T:
        """Return the JSON body as ``kind``. An empty body is an empty object."""
        return decode_body(await self.read(), kind)

    async def read(self) -> bytes:
        """Return the body's bytes, within the limits on size and time."""
        request = self.request
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Problem(UNSUPPORTED_MEDIA_TYPE, "send the body without Content-Encoding")
        try:
            async with asyncio.timeout(BODY_WAIT_S):
                raw = await request.read()
        except web.HTTPRequestEntityTooLarge as fault:
            raise Problem(TOO_LARGE, f"a body may hold {BODY_BYTES_MAX} bytes") from fault
        except TimeoutError as fault:
            raise Problem(REQUEST_TIMEOUT, f"send the body within {BODY_WAIT_S} s") from fault
        if raw and request.content_type != "application/json":
            raise Problem(UNSUPPORTED_MEDIA_TYPE, "set Content-Type: application/json")
        return raw


def retailer_of(gateway: Gateway, credential: Credential, chosen: str | None = None) -> str:
    """Return whose data the call is about: what the credential says, narrowed by ``chosen``.

    Raises:
        Problem: ``chosen`` is not the credential's (as if it did not exist), or he must choose.
    """
    if chosen is not None:
        if not credential.sees(chosen):
            raise Problem(NOT_FOUND, f"there is no retailer {chosen!r}")
        return chosen
    if credential.only is not None:
        return credential.only
    known = gateway.replica.retailers
    if len(known) == 1:
        only = next(iter(known))
        if credential.sees(only):
            return only
    visible = sorted(retailer for retailer in known if credential.sees(retailer))
    if not visible:
        raise Problem(NOT_FOUND, "there is no retailer yet", age=age_of_all(gateway))
    if len(visible) == 1:
        return visible[0]
    detail = "add ?retailer= with one of: " + ", ".join(visible[:20])
    raise Problem(
        RETAILER_REQUIRED, detail, errors=[FieldError("several are visible", parameter="retailer")]
    )


def known_retailer(gateway: Gateway, call: Call, kind: type[RetailerQuery] = RetailerQuery) -> str:
    """Return the retailer that a call names or its key sees, and that the replica has heard of.

    Args:
        gateway: what is asked.
        call: who asks.
        kind: of the call's query string.

    Raises:
        Problem: see :func:`retailer_of`; or nothing was ever said of that retailer.
    """
    retailer = retailer_of(gateway, call.credential, call.query(kind).retailer)
    if retailer not in gateway.replica.retailers:
        age = age_of(gateway, shards_of(gateway, retailer))
        raise Problem(NOT_FOUND, f"there is no retailer {retailer!r}", age=age)
    return retailer


def shards_of(gateway: Gateway, retailer: str) -> set[int]:
    """Return the shards that hold a part of a retailer, whether or not anything was read of them.

    One that was never heard of holds what an answer lacks, so it counts for the answer's age.
    """
    known = gateway.replica.retailers.get(retailer)
    held = known.shards if known is not None else set()
    return held.union(each.partition for each in gateway.commands.to_retailer(retailer))


def homes_of(gateway: Gateway, retailer: str, skus: Iterable[str]) -> set[int]:
    """Return the shards where these products are, or would be if there were any."""
    to_sku = gateway.commands.to_sku
    return {home.partition for sku in skus for home in to_sku(retailer, sku)}


def age_of_all(gateway: Gateway) -> Age:
    """Return how old an answer about everything that was read here is just now."""
    return age_of(gateway, range(len(gateway.replica.shards)))


def age_of(gateway: Gateway, shards: Iterable[int]) -> Age:
    """Return how old an answer from these shards is just now."""
    views = [gateway.replica.shards[shard] for shard in shards]
    return oldest(views, gateway.clock.wall_ms(), gateway.clock.monotonic_ms())


def product_of(gateway: Gateway, retailer: str, sku: str) -> Product:
    """Return the retailer's product. One that is another's and one that is nobody's look alike."""
    product = gateway.replica.product(retailer, sku)
    if product is None:
        raise no_product(sku, None, age_of(gateway, homes_of(gateway, retailer, (sku,))))
    return product


def row_of(gateway: Gateway, retailer: str, product: Product, channel: str | None) -> int:
    """Return the row of the product's listing on ``channel``, or of its primary one."""
    row = gateway.replica.row_of(retailer, product, channel)
    if row is None:
        raise no_product(product.sku, channel, age_of(gateway, (product.shard,)))
    return row


def no_product(sku: str, channel: str | None, age: Age) -> Problem:
    """Return the problem of a product that is not there for this key, as of an age."""
    where = f" on channel {channel!r}" if channel is not None else ""
    return Problem(NOT_FOUND, f"there is no product {sku!r}{where}", age=age)


def decode_body(raw: bytes, kind: type[T]) -> T:
    """Return JSON bytes as ``kind``.

    Raises:
        Problem: not JSON, too deep, a key twice, or a field that breaks its rule.
    """
    document = raw or b"{}"
    try:
        refuse_depth(document)
        value: T = _decoder(cast(Any, kind)).decode(document)
        refuse_duplicate_keys(document)
    except RejectedInput as fault:
        raise refused(fault, MALFORMED_BODY) from fault
    except msgspec.ValidationError as fault:
        raise refused(explained(fault, kind)) from fault
    except DECODE_ERRORS as fault:
        raise refused(explained(fault), MALFORMED_BODY) from fault
    return value


def refused(fault: RejectedInput, kind: Kind = INVALID_REQUEST) -> Problem:
    """Return the problem for input that a stated rule rejects."""
    detail = fault.problem + (f": {fault.fix}" if fault.fix else "")
    return Problem(kind, detail, errors=[FieldError(detail, pointer=fault.pointer)])


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
