"""What happens in the market of a simulated world: deltas, some twice, some out of order."""

from random import Random

from msgspec import Struct

from engine.deltas import AnyDelta, ModeChanged, PricePinned, StockCounted, UnitsSold
from engine.routing import key64
from persistence.ports import COMMANDS, DELTAS
from persistence.wire import encode_delta
from tests.sim.faults import Faults

RETAILER, CHANNEL = "acme", "web"
SKUS = ("a", "b", "c", "d")
SHOP_SKUS = (*SKUS, "e", "f", "g", "h")
"""Listings of a shop that learns (``tests.sim.shop``)."""

MURDEROUS_SKU = "m"
KEYS = {sku: key64(RETAILER, CHANNEL, sku) for sku in (*SHOP_SKUS, MURDEROUS_SKU)}


class Sent(Struct):
    """One record that will be sent, and when."""

    at_s: float
    topic: str
    delta: AnyDelta

    def value(self) -> bytes:
        return encode_delta(self.delta)


def market(random: Random, faults: Faults, base_ms: int, until_s: float) -> list[Sent]:
    """Return all that will be sent, in the order of sending."""
    sent: list[Sent] = []
    source_seq = 0
    at_s = 0.05
    while at_s < until_s:
        # Now and then a burst, so that microbatches hold more than one.
        at_s += random.random() * 0.4 if random.random() < 0.6 else 0.0005
        sku, draw = random.choice(SKUS), random.random()
        observed_ms = base_ms + 10 * len(sent)  # no two alike, so that order decides nothing
        if draw < 0.5:
            sent.append(Sent(at_s, DELTAS, count(sku, random.randrange(100_000), observed_ms)))
        elif draw < 0.75:
            event = f"sale-{len(sent)}"
            sent.append(Sent(at_s, DELTAS, sale(sku, observed_ms, event_id=event)))
        elif draw < 0.88:
            source_seq += 1
            sent.append(Sent(at_s, DELTAS, sale(sku, observed_ms, source_seq=source_seq)))
        else:
            sent.append(Sent(at_s, COMMANDS, command(random, sku, observed_ms, len(sent))))
    again: list[Sent] = []
    for one in sent:
        if one.topic != DELTAS:
            continue
        if faults.strikes("duplicate_delta"):
            again.append(Sent(one.at_s + random.random() * 2.0, DELTAS, one.delta))
        # What a source numbers comes in its order, or is refused.
        elif getattr(one.delta, "source", None) is None and faults.strikes("reordered_delta"):
            one.at_s += random.random()
    return sorted(sent + again, key=lambda one: one.at_s)


def count(sku: str, units: int, observed_ms: int) -> StockCounted:
    """Return a count of the units on hand."""
    return StockCounted(
        retailer=RETAILER, channel=CHANNEL, sku=sku, units=units, observed_ms=observed_ms
    )


def sale(
    sku: str, observed_ms: int, *, event_id: str | None = None, source_seq: int | None = None
) -> UnitsSold:
    """Return the sale of one unit."""
    return UnitsSold(
        retailer=RETAILER,
        channel=CHANNEL,
        sku=sku,
        units=1,
        observed_ms=observed_ms,
        event_id=event_id,
        source=None if source_seq is None else "till",
        source_seq=source_seq,
    )


def command(random: Random, sku: str, observed_ms: int, number: int) -> AnyDelta:
    """Return a pin, or big work."""
    if random.random() < 0.6:
        return PricePinned(
            retailer=RETAILER,
            channel=CHANNEL,
            sku=sku,
            price_minor=500 + random.randrange(1000),
            observed_ms=observed_ms,
            command_id=f"command-{number}",
            actor="somebody",
        )
    return ModeChanged(
        retailer=RETAILER,
        mode="live",
        observed_ms=observed_ms,
        command_id=f"command-{number}",
        actor="somebody",
    )
