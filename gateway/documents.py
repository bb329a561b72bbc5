"""The documents we answer with, and the one place where a quote becomes a recommendation.

The same types serve, validate and generate ``openapi.json``. A quote is called *recommendation*
here until it is applied; :func:`recommendation` is the only translation.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Struct, UnsetType

from engine.decided import QUOTE_DTYPE, State, quote_id
from gateway.money import Money, money, rfc3339
from kernels.reasons import BINDINGS, names

StateName = Literal[
    "unpriced",
    "shadow",
    "live",
    "pending",
    "pinned",
    "held",
    "infeasible",
    "unpublishable",
    "halted",
    "removed",
]
"""What a listing's price is doing; ``unpriced`` until the first quote."""

STATE_NAMES: tuple[StateName, ...] = (
    "unpriced",
    "shadow",
    "live",
    "pending",
    "pinned",
    "held",
    "infeasible",
    "unpublishable",
    "halted",
    "removed",
)
assert all(STATE_NAMES[state] == state.name.lower() for state in State)

_COLUMN = {name: index for index, name in enumerate(QUOTE_DTYPE.names or ())}
_STATE, _IN_FORCE, _PREVIOUS = (
    _COLUMN["state"],
    _COLUMN["in_force_minor"],
    _COLUMN["previous_minor"],
)
_PROPOSED, _FLOOR, _CEILING = (
    _COLUMN["proposed_minor"],
    _COLUMN["floor_minor"],
    _COLUMN["ceiling_minor"],
)
_REASONS, _BINDING, _CONFIDENCE = _COLUMN["reasons"], _COLUMN["binding"], _COLUMN["confidence"]
_RIVAL, _STOCK = _COLUMN["rival_minor"], _COLUMN["stock"]


class Listing(Struct, frozen=True):
    """What the catalogue says of one listing: its whole state after the last change."""

    key: int  # engine.routing.key64
    retailer: str
    channel: str
    sku: str
    currency: str
    title: str | None = None
    category: str | None = None
    tags: tuple[str, ...] = ()
    rrp_minor: int | None = None
    map_minor: int | None = None
    kvi: bool = False
    brand: str | None = None


class QuotePlace(Struct, frozen=True):
    """Where a quote was decided: what its id is made of, and when."""

    generation: int
    shard: int
    seq: int
    index: int
    decided_ms: int


class Bounds(Struct, frozen=True):
    """The effective bounds after every rule; ``null`` where there is none."""

    floor: Money | None
    ceiling: Money | None


class Recommendation(Struct, frozen=True, kw_only=True):
    """The price recommended for one listing, with its reasons. ``null``: there is none yet."""

    sku: str
    channel: str
    state: StateName
    recommended_price: Money | None
    current_price: Money | None
    previous_price: Money | None
    confidence: float | None  # 0 to 1, the expected share of the attainable profit
    reasons: tuple[str, ...]
    binding: str | None  # the rule that set the price
    bounds: Bounds
    rival_price: Money | None
    stock: int | None
    quote_id: str | None
    decided_at: str | None


class ListingPrice(Struct, frozen=True):
    """One of a product's listings in short.

    ``as_of`` and ``stale`` stand here where lines differ in them, which they do in a strong read:
    only the line of the listing asked for comes from its owner. Elsewhere the whole answer's hold.
    """

    channel: str
    state: StateName
    recommended_price: Money | None
    current_price: Money | None
    as_of: str | UnsetType = UNSET
    stale: bool | UnsetType = UNSET


class RecommendationAnswer(Recommendation, frozen=True, kw_only=True):
    """A recommendation with all listings of its product, and how old the answer may be.

    ``as_of`` is the append time of the last record of the decision log that this gateway had read;
    in a strong read, when the owner was asked. ``stale`` says that this was over two seconds ago.
    """

    listings: tuple[ListingPrice, ...]
    as_of: str
    stale: bool


class RemovedPrice(Struct, frozen=True):
    """In a stream: the listing has left what was subscribed."""

    sku: str
    channel: str
    removed: Literal[True] = True


_encode = msgspec.json.Encoder().encode


def recommendation(
    listing: Listing, quote: Sequence[Any] | None, place: QuotePlace | None
) -> Recommendation:
    """Translate a listing's newest quote (its columns in order) into what integrators read."""
    currency = listing.currency
    if quote is None or place is None:
        return Recommendation(
            sku=listing.sku,
            channel=listing.channel,
            state="unpriced",
            recommended_price=None,
            current_price=None,
            previous_price=None,
            confidence=None,
            reasons=(),
            binding=None,
            bounds=Bounds(None, None),
            rival_price=None,
            stock=None,
            quote_id=None,
            decided_at=None,
        )
    binding, stock = quote[_BINDING], quote[_STOCK]
    floor_minor, ceiling_minor = quote[_FLOOR], quote[_CEILING]
    return Recommendation(
        sku=listing.sku,
        channel=listing.channel,
        state=STATE_NAMES[quote[_STATE]],
        recommended_price=_price(quote[_PROPOSED], currency),
        current_price=_price(quote[_IN_FORCE], currency),
        previous_price=_price(quote[_PREVIOUS], currency),
        confidence=_ratio(quote[_CONFIDENCE]),
        reasons=names(quote[_REASONS]),
        binding=BINDINGS[binding] if binding < len(BINDINGS) else None,
        bounds=Bounds(_price(floor_minor, currency), _price(ceiling_minor, currency)),
        rival_price=_price(quote[_RIVAL], currency),
        stock=stock if stock >= 0 else None,
        quote_id=quote_id(place.generation, place.shard, place.seq, place.index),
        decided_at=rfc3339(place.decided_ms) if place.decided_ms else None,
    )


def listing_price(listing: Listing, quote: Sequence[Any] | None) -> ListingPrice:
    """Return the short form of a listing's newest quote."""
    if quote is None:
        return ListingPrice(listing.channel, "unpriced", None, None)
    return ListingPrice(
        listing.channel,
        STATE_NAMES[quote[_STATE]],
        _price(quote[_PROPOSED], listing.currency),
        _price(quote[_IN_FORCE], listing.currency),
    )


def encode_listings(listings: Sequence[ListingPrice]) -> bytes:
    """Return the JSON of a product's listings."""
    return _encode(listings)


def encode_recommendation(document: Recommendation) -> bytes:
    """Return the JSON of a recommendation."""
    return _encode(document)


def quote_columns(row: np.void) -> tuple[Any, ...]:
    """Return a quote's columns as plain Python values, in the order of ``QUOTE_DTYPE``."""
    return tuple(row.item())


def _price(minor: int, currency: str) -> Money | None:
    return money(minor, currency) if minor > 0 else None


def _ratio(value: float) -> float | None:
    return round(value, 4) if value == value else None
