"""A small world to test a shard in: one retailer, a few listings, a clock moved by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.decided import Decided, State
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    ListingChanged,
    PolicyChanged,
    RetailerAdded,
    StockCounted,
    UnitsSold,
)
from engine.microbatch import Refusal, microbatch_of
from engine.routing import key64
from engine.shard import Shard

T = 1_700_000_000_000
"""When the world begins."""

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


class World:
    """A shard, its clock, and all that it decided."""

    def __init__(self, *, mode: str = "live", currency: str = "EUR", retailer: str = "acme"):
        self.shard = Shard()
        self.now_ms = T
        self.retailer = retailer
        self.decided: list[Decided] = []
        self.add_retailer(retailer, mode=mode, currency=currency)

    def add_retailer(self, retailer: str, **fields: Any) -> Decided:
        """Add another retailer."""
        fields = {"currency": "EUR", "mode": "live", **fields}
        return self.send(RetailerAdded(retailer=retailer, observed_ms=self.now_ms, **fields))

    def send(self, *deltas: AnyDelta, after_ms: int = 1, lane: int = 1) -> Decided:
        """Let time pass, and have the deltas decided as one microbatch; no wire checked them."""
        self.now_ms += after_ms
        consumed = self.shard.last_command, self.shard.last_delta
        decided = self.shard.apply(microbatch_of(deltas, *consumed, lane=lane), self.now_ms)
        self.shard.record(decided)
        self.decided.append(decided)
        return decided

    def drain(self) -> list[Decided]:
        """Decide without deltas until no work is left."""
        decided = []
        while self.shard.backlog:
            decided.append(self.send())
        return decided

    def listing(self, sku: str = "A", *, channel: str = "shop", **fields: Any) -> ListingChanged:
        """Return a listing with a price and a cost."""
        fields = {"price_minor": 2000, "cost_minor": 1000, **fields}
        return ListingChanged(
            retailer=self.retailer, channel=channel, sku=sku, observed_ms=self.now_ms, **fields
        )

    def rival(
        self, price_minor: int, *, sku: str = "A", rival: str = "bob", **fields: Any
    ) -> CompetitorPriced:
        """Return a rival's offer, seen now."""
        fields = {"channel": "shop", "observed_ms": self.now_ms, **fields}
        return CompetitorPriced(
            retailer=self.retailer, sku=sku, rival=rival, price_minor=price_minor, **fields
        )

    def cost(self, cost_minor: int, sku: str = "A", **fields: Any) -> CostChanged:
        """Return a cost, known now."""
        fields = {"channel": "shop", "observed_ms": self.now_ms, **fields}
        return CostChanged(retailer=self.retailer, sku=sku, cost_minor=cost_minor, **fields)

    def stock(self, units: int, sku: str = "A", **fields: Any) -> StockCounted:
        """Return a count, made now."""
        fields = {"channel": "shop", "observed_ms": self.now_ms, **fields}
        return StockCounted(retailer=self.retailer, sku=sku, units=units, **fields)

    def sold(self, units: int, sku: str = "A", **fields: Any) -> UnitsSold:
        """Return a sale, made now."""
        fields = {"channel": "shop", "observed_ms": self.now_ms, **fields}
        return UnitsSold(retailer=self.retailer, sku=sku, units=units, **fields)

    def policy(self, *, scope: str = "retailer", key: str = "", **fields: Any) -> PolicyChanged:
        """Return a change of policy."""
        return PolicyChanged(
            retailer=self.retailer,
            scope=scope,  # type: ignore[arg-type]
            key=key,
            fields=fields,
            observed_ms=self.now_ms,
        )

    def about(self, kind: type[Any], sku: str = "A", **fields: Any) -> Any:
        """Return any delta about one listing."""
        fields = {"channel": "shop", "observed_ms": self.now_ms, **fields}
        return kind(retailer=self.retailer, sku=sku, **fields)

    def whole(self, kind: type[Any], **fields: Any) -> Any:
        """Return any delta about the whole retailer."""
        return kind(retailer=self.retailer, **{"observed_ms": self.now_ms, **fields})

    def key(self, sku: str = "A", channel: str = "shop") -> int:
        """Return a listing's key."""
        return key64(self.retailer, channel, sku)

    def live(self, sku: str = "A", channel: str = "shop") -> dict[str, Any]:
        """Return a listing's live state."""
        live = self.shard.live(self.key(sku, channel))
        assert live is not None
        return live

    def price(self, sku: str = "A") -> int:
        """Return the price in force."""
        return int(self.live(sku)["in_force_minor"])

    def state(self, sku: str = "A") -> State:
        """Return a listing's state."""
        return State[self.live(sku)["state"].upper()]


def verdicts(decided: Decided) -> list[str]:
    """Return the verdicts of what was refused, in order."""
    return [refusal.verdict for refusal in decided.exceptions]


def only(refusals: Sequence[Refusal]) -> Refusal:
    """Return the one refusal there is."""
    assert len(refusals) == 1, refusals
    return refusals[0]


def moved(decided: Decided) -> np.ndarray:
    """Return the quotes whose price in force is another than before."""
    quotes = decided.quotes
    return quotes[quotes["in_force_minor"] != quotes["previous_minor"]]
