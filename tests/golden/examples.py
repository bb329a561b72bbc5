"""What the golden files hold, as objects. Never changed: a new format version adds new ones."""

import numpy as np
from msgspec.structs import replace

from engine.decided import (
    QUOTE_DTYPE,
    CatalogueChange,
    Cause,
    Decided,
    Outcome,
    State,
    no_quotes,
)
from engine.deltas import AnyDelta, CompetitorPriced, ListingChanged, PolicyChanged, UnitsSold
from engine.microbatch import (
    COMPETITOR_PRICED,
    COST_CHANGED,
    STOCK_COUNTED,
    UNITS_SOLD,
    Position,
    Refusal,
    currency_code,
)
from engine.routing import key64, name64
from persistence.decision_records import DecisionRecord, EpochStarted, Stamp, Trying
from persistence.wire import FrameColumns

STAMP = Stamp(log_id=bytes(range(16)), generation=3, shard=1, epoch=7, owner=bytes(range(16, 32)))
LISTING = key64("acme", "shop", "SKU-1")

EPOCH_STARTED = EpochStarted(
    stamp=STAMP,
    started_ms=1_700_000_000_000,
    replay_domain="0.1.0 jaxlib 0.10.2 linux x86_64 avx2 64,256,1024,4096",
    clock="wall",
    from_offset=41,
    from_seq=40,
    first_offset=-1,
    partitions=2,
)
TRYING = Trying(stamp=STAMP, last_command=12, last_delta=345)


def heartbeat() -> DecisionRecord:
    """Return a decision without rows."""
    return DecisionRecord(
        STAMP,
        Decided(
            seq=41,
            last_command=-1,
            last_delta=345,
            decided_ms=1_700_000_000_250,
            model="elasticity-1",
            digest=2**64 - 1,
            quotes=no_quotes(),
        ),
    )


def decision() -> DecisionRecord:
    """Return a decision with something of everything."""
    quotes = np.zeros(2, dtype=QUOTE_DTYPE)
    quotes[0]["listing"] = LISTING
    quotes[0]["state"] = State.LIVE
    for number, name in enumerate(list(QUOTE_DTYPE.fields or {})[2:], start=2):
        quotes[0][name] = number
    quotes[1]["listing"] = 2**64 - 1
    quotes[1]["state"] = State.UNPUBLISHABLE
    quotes[1]["cost_minor"] = -1
    quotes[1]["elasticity"] = -2.6
    quotes[1]["cause_kind"] = Cause.TIMER
    fields = {"channel": "shop", "sku": "SKU-1", "title": "Überraschung", "kvi": True, "tags": []}
    return DecisionRecord(
        STAMP,
        Decided(
            seq=42,
            last_command=13,
            last_delta=346,
            decided_ms=1_700_000_000_500,
            model="elasticity-1",
            digest=0x0123_4567_89AB_CDEF,
            quotes=quotes,
            catalogue=(CatalogueChange(Position(1, 346, 0), "listing", "acme", fields, LISTING),),
            exceptions=(Refusal(Position(1, 346, 5), "late", "observed before the last one", 9),),
            outcomes=(
                Outcome(
                    command_id="c-1",
                    position=Position(0, 13, 0),
                    retailer="acme",
                    actor="ada@example.org",
                    status="done",
                    kind="PricePinned",
                    listing=LISTING,
                    price_minor=1999,
                ),
            ),
        ),
    )


def frame() -> FrameColumns:
    """Return one fact of each kind, and one rival without a source."""
    return FrameColumns(
        kind=np.array(
            [COMPETITOR_PRICED, STOCK_COUNTED, UNITS_SOLD, COST_CHANGED, COMPETITOR_PRICED],
            np.uint8,
        ),
        listing=np.array([LISTING, LISTING, LISTING, LISTING, 2**64 - 1], np.uint64),
        amount=np.array([1999, 7, 2, 900, 1], np.int64),
        observed_ms=np.arange(1_700_000_000_000, 1_700_000_000_005, dtype=np.int64),
        rival=np.array([1, -1, -1, -1, 0], np.int32),
        rival_names=("Zoë & Sons", "rival-1"),
        shipping_minor=np.array([495, 0, 0, 0, 0], np.int32),
        currency=np.array([currency_code("EUR"), 0, 0, 0, 0], np.uint32),
        flags=np.array([3, 0, 0, 0, 0], np.uint8),
        source=np.array([0, -1, 0, -1, -1], np.int32),
        source_names=("till-1",),
        source_seq=np.array([-1, -1, 77, -1, -1], np.int64),
        event=np.array([0, 0, name64("order-1"), 0, 0], np.uint64),
    )


def priced_frame() -> FrameColumns:
    """Return the same facts, of which the sale tells its price."""
    return replace(frame(), sold_minor=np.array([0, 0, 1899, 0, 0], np.int32))


def deltas() -> dict[str, AnyDelta]:
    """Return some deltas as they travel in JSON."""
    return {
        "competitor_priced": CompetitorPriced(
            retailer="acme",
            channel="shop",
            sku="SKU-1",
            rival="rival-1",
            price_minor=1999,
            observed_ms=1_700_000_000_000,
            shipping_minor=495,
            currency="EUR",
            condition="used",
            in_stock=False,
            source="feed-1",
        ),
        "units_sold": UnitsSold(
            retailer="acme",
            channel="shop",
            sku="SKU-1",
            units=2,
            observed_ms=1_700_000_000_001,
            event_id="order-1",
        ),
        "listing_changed": ListingChanged(
            retailer="acme",
            channel="shop",
            sku="SKU-1",
            observed_ms=1_700_000_000_002,
            title="Überraschung",
            tags=("new", "summer"),
            price_minor=2499,
        ),
        "policy_changed": PolicyChanged(
            retailer="acme",
            command_id="c-2",
            actor="ada@example.org",
            scope="retailer",
            fields={"min_margin": 0.15},
            observed_ms=1_700_000_000_003,
        ),
    }
