"""Facts from outside, past tense: everything that can change a shard.

A tagged union of frozen structs, told apart by ``type``. The same types decode from JSON, from a
command and, for the four kinds of *facts* that arrive by the thousand, from columnar frames.

Units. Money is an integer in minor units, ``observed_ms`` is unix milliseconds at the place where
the fact was observed, a ratio is a float (0.2 is 20 %). ``Meta`` bounds hold when decoding.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from kernels.limits import PRICE_MINOR_MAX

PriceMinor = Annotated[int, Meta(gt=0, le=PRICE_MINOR_MAX)]
"""A price in minor units of its currency: 1999 is $19.99, or 1999 yen."""

CostMinor = Annotated[int, Meta(ge=0, le=PRICE_MINOR_MAX)]
Units = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Millis = Annotated[int, Meta(ge=0, le=2**53)]
# Python's ``$`` also matches before a final newline, hence the look-ahead.
Name = Annotated[str, Meta(min_length=1, max_length=200, pattern="^[^\\x00-\\x1f]+$(?!\\n)")]
RetailerId = Annotated[
    str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\\n)")
]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$(?!\\n)")]
Ratio = Annotated[float, Meta(ge=0.0, le=1e6)]
Share = Annotated[float, Meta(ge=0.0, lt=1.0)]

QuoteId = Annotated[str, Meta(max_length=100)]

RATE_MIN = 1e-12
"""Smallest rate between two currencies; its inverse is a rate, too, and the largest."""

Rate = Annotated[float, Meta(ge=RATE_MIN, le=1.0 / RATE_MIN)]

PRIORITY_MAX = 1_000_000
"""Largest number that a tag's policy may carry."""

ScopeKind = Literal["retailer", "channel", "category", "tag", "listing"]


class Delta(Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """The fields every delta has.

    ``command_id`` marks a delta that somebody wants answered; it then travels in the commands
    lane, and its outcome names ``actor`` (the person or program who gave it).
    """

    retailer: RetailerId
    command_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    actor: Annotated[str, Meta(max_length=200)] | None = None


# ----- the four kinds of facts, which also travel in columnar frames --------------------------


class CompetitorPriced(Delta, frozen=True, kw_only=True, tag=True):
    """A rival's offer for the same thing was seen."""

    channel: Name
    sku: Name
    rival: Name
    price_minor: PriceMinor
    observed_ms: Millis
    shipping_minor: CostMinor = 0
    currency: Currency | None = None  # the listing's own when absent
    condition: Literal["new", "used", "refurbished"] = "new"
    in_stock: bool = True
    source: Name | None = None


class StockCounted(Delta, frozen=True, kw_only=True, tag=True):
    """The units on hand were counted."""

    channel: Name
    sku: Name
    units: Units
    observed_ms: Millis


class UnitsSold(Delta, frozen=True, kw_only=True, tag=True):
    """Units were sold. Additive, so it carries ``(source, source_seq)`` or ``event_id``."""

    channel: Name
    sku: Name
    units: Units
    observed_ms: Millis
    source: Name | None = None
    source_seq: Annotated[int, Meta(ge=0, le=2**62)] | None = None
    event_id: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    price_minor: PriceMinor | None = None


class CostChanged(Delta, frozen=True, kw_only=True, tag=True):
    """The landed unit cost of a listing changed."""

    channel: Name
    sku: Name
    cost_minor: CostMinor
    observed_ms: Millis


# ----- catalogue, money ------------------------------------------------------------------------


class ListingChanged(Delta, frozen=True, kw_only=True, tag=True):
    """A listing was added or its attributes changed. A field left out keeps its value."""

    channel: Name
    sku: Name
    observed_ms: Millis
    title: Annotated[str, Meta(max_length=400)] | None = None
    category: Name | None = None
    brand: Name | None = None
    tags: tuple[Name, ...] | None = None
    currency: Currency | None = None
    price_minor: PriceMinor | None = None  # the price in force on the channel when imported
    cost_minor: CostMinor | None = None
    rrp_minor: PriceMinor | None = None
    map_minor: PriceMinor | None = None  # minimum advertised price: the legal bound
    kvi: bool | None = None
    own_rival_names: tuple[Name, ...] | None = None  # how we ourselves appear in rivals' feeds


class ListingRemoved(Delta, frozen=True, kw_only=True, tag=True):
    """A listing was taken off its channel."""

    channel: Name
    sku: Name
    observed_ms: Millis


class FeesChanged(Delta, frozen=True, kw_only=True, tag=True):
    """What a channel takes of a sale, by channel and category (``None``: every category)."""

    channel: Name
    observed_ms: Millis
    category: Name | None = None
    vat: Share = 0.0  # prices include it: net = gross / (1 + vat)
    commission: Share = 0.0  # of the gross price
    fixed_fee_minor: CostMinor = 0
    minimum_fee_minor: CostMinor = 0  # commission is at least this much


class RateChanged(Delta, frozen=True, kw_only=True, tag=True):
    """One unit of ``currency`` is worth ``rate`` units of ``into``, in minor units of each."""

    currency: Currency
    into: Currency
    rate: Rate
    observed_ms: Millis


# ----- retailers and policies --------------------------------------------------------------------


class RetailerAdded(Delta, frozen=True, kw_only=True, tag=True):
    """A retailer began; it starts in shadow mode unless the command says otherwise."""

    currency: Currency
    observed_ms: Millis
    name: Annotated[str, Meta(max_length=200)] | None = None
    primary_channel: Name | None = None
    spread: Annotated[int, Meta(ge=1, le=1024)] = 1
    mode: Literal["shadow", "live"] = "shadow"
    delta_quota_per_s: Annotated[int, Meta(gt=0, le=2**31 - 1)] | None = None


class ModeChanged(Delta, frozen=True, kw_only=True, tag=True):
    """A retailer went from shadow to live, or back."""

    mode: Literal["shadow", "live"]
    observed_ms: Millis


class PolicyChanged(Delta, frozen=True, kw_only=True, tag=True):
    """The fields of one scope of a retailer's policy were set. Null unsets one.

    ``fields`` is decoded by ``engine.policy.PolicyFields``; what this version does not build is
    refused with ``not_supported``.
    """

    scope: ScopeKind
    key: Annotated[str, Meta(max_length=401)] = ""  # "" for retailer; "channel\x1fsku" for listing
    priority: Annotated[int, Meta(ge=0, le=PRIORITY_MAX)] = 0  # of a tag: the higher wins
    fields: dict[str, object] = {}
    observed_ms: Millis


class ScopeChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of one scope, as a plan sets them: like a ``PolicyChanged`` without the rest."""

    scope: ScopeKind = "retailer"
    key: Annotated[str, Meta(max_length=401)] = ""
    priority: Annotated[int, Meta(ge=0, le=PRIORITY_MAX)] = 0
    fields: dict[str, Any] = {}


PLAN_CHANGES_MAX = 100
"""Most scopes that one plan changes."""


class Planned(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a shard stood when a plan was made on a fork of it."""

    last_command: Annotated[int, Meta(ge=-1)]
    last_delta: Annotated[int, Meta(ge=-1)]
    planned_ms: Millis
    exact_until_ms: Millis  # the next time at which a price may move by itself


class PlanApplied(Delta, frozen=True, kw_only=True, tag=True):
    """A person applied a plan: some scopes of the policy are set at once, or none is.

    With ``planned`` it is a ``conflict`` where the shard has heard anything since, so that what
    moves is what was seen; ``anyway`` lets it pass all the same.
    """

    changes: Annotated[tuple[ScopeChange, ...], Meta(min_length=1, max_length=PLAN_CHANGES_MAX)]
    observed_ms: Millis
    planned: Planned | None = None
    anyway: bool = False


# ----- approvals and pins ------------------------------------------------------------------------


class PriceApproved(Delta, frozen=True, kw_only=True, tag=True):
    """A person approved the proposed price, or another within the guardrails."""

    channel: Name
    sku: Name
    observed_ms: Millis
    price_minor: PriceMinor | None = None  # None: the proposed price as it stands
    quote_id: QuoteId | None = None  # ``conflict`` when another quote is proposed by now


class PriceRejected(Delta, frozen=True, kw_only=True, tag=True):
    """A person rejected the proposed price; the price in force stays."""

    channel: Name
    sku: Name
    observed_ms: Millis
    quote_id: QuoteId | None = None


class PricePinned(Delta, frozen=True, kw_only=True, tag=True):
    """A person fixed the price until ``until_ms`` (``None``: until unpinned)."""

    channel: Name
    sku: Name
    price_minor: PriceMinor
    observed_ms: Millis
    until_ms: Millis | None = None


class PriceUnpinned(Delta, frozen=True, kw_only=True, tag=True):
    """A person gave the price back to the engine."""

    channel: Name
    sku: Name
    observed_ms: Millis


class PriceReported(Delta, frozen=True, kw_only=True, tag=True):
    """The channel reported the price it really shows."""

    channel: Name
    sku: Name
    price_minor: PriceMinor
    observed_ms: Millis


class PublishingHalted(Delta, frozen=True, kw_only=True, tag=True):
    """Publishing stopped for a retailer, or for one channel: the kill switch."""

    observed_ms: Millis
    channel: Name | None = None
    reason: Annotated[str, Meta(max_length=400)] = ""


class PublishingResumed(Delta, frozen=True, kw_only=True, tag=True):
    """Publishing may go on, after a halt or after the breaker tripped."""

    observed_ms: Millis
    channel: Name | None = None


# ----- models ------------------------------------------------------------------------------------


class ModelPromoted(Delta, frozen=True, kw_only=True, tag=True):
    """A trained model was put to work: on a share of a retailer's listings, or on all of them.

    ``rules`` takes every model away, and so does an earlier model that is promoted again. The
    checksum says which bytes are meant; the owner fetches them before it applies this.
    """

    model: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9.-]{0,23}$(?!\\n)")]
    observed_ms: Millis
    checksum: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$(?!\\n)")] = ""  # sha256; "" for rules
    stage: Literal["canary", "champion"] = "canary"
    share: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.1  # of the listings that a canary serves
    canary_days: Annotated[int, Meta(ge=1, le=365)] = 7  # until it becomes the champion by itself


# ----- experiments ------------------------------------------------------------------------------


class ExperimentStarted(Delta, frozen=True, kw_only=True, tag=True):
    """An experiment began. ``fields`` are decoded by ``engine.experiments.Terms``."""

    observed_ms: Millis
    fields: dict[str, object] = {}


class ExperimentStopped(Delta, frozen=True, kw_only=True, tag=True):
    """An experiment was stopped: the one that ``fields`` name as ``experiment``, or any."""

    observed_ms: Millis
    fields: dict[str, object] = {}


# ----- known by name, refused with ``not_supported`` until their issue builds them ---------------


class PromotionScheduled(Delta, frozen=True, kw_only=True, tag=True):
    """A promotion was planned for some listings and a window of time."""

    observed_ms: Millis
    fields: dict[str, object] = {}


Fact = CompetitorPriced | StockCounted | UnitsSold | CostChanged
"""The kinds that arrive by the thousand and are handled as columns."""

ListingDelta = (
    ListingChanged
    | ListingRemoved
    | PriceApproved
    | PriceRejected
    | PricePinned
    | PriceUnpinned
    | PriceReported
)
RetailerDelta = (
    FeesChanged
    | RateChanged
    | RetailerAdded
    | ModeChanged
    | PolicyChanged
    | PlanApplied
    | PublishingHalted
    | PublishingResumed
    | ExperimentStarted
    | ExperimentStopped
    | ModelPromoted
)
UnsupportedDelta = PromotionScheduled

AnyDelta = Fact | ListingDelta | RetailerDelta | UnsupportedDelta
"""What one JSON record decodes to: ``msgspec.json.Decoder(AnyDelta)``."""
