"""Which shard a seed's world runs: the toy mostly, the real one in part."""

from typing import Any

from engine.deltas import AnyDelta, CostChanged, ListingChanged, PolicyChanged, RetailerAdded
from engine.shard import Shard, ShardSettings
from persistence.ports import COMMANDS
from persistence.wire import encode_delta
from tests.sim.feed import CHANNEL, KEYS, RETAILER, SKUS
from tests.sim.world import BASE_MS, TOY, ShardKind

REAL_EVERY = 12
"""One seed of so many runs the real shard, which takes longer."""

SETTINGS = ShardSettings(shard=0, generation=1)


def new_real() -> Shard:
    """Return a real shard that knows nothing."""
    return Shard(SETTINGS)


def restore_real(parts: Any) -> Shard:
    """Return the real shard of a checkpoint."""
    return Shard.restore(parts, SETTINGS)


def opening() -> list[tuple[str, bytes]]:
    """Return what makes a retailer with a few listings, whose prices may move."""
    observed_ms = BASE_MS - 1_000
    deltas: list[AnyDelta] = [
        RetailerAdded(
            retailer=RETAILER,
            currency="EUR",
            mode="live",
            primary_channel=CHANNEL,
            observed_ms=observed_ms,
        ),
        PolicyChanged(
            retailer=RETAILER,
            scope="retailer",
            fields={"min_margin": 0.05},
            observed_ms=observed_ms,
        ),
    ]
    for number, sku in enumerate(SKUS):
        deltas.append(
            ListingChanged(
                retailer=RETAILER,
                channel=CHANNEL,
                sku=sku,
                observed_ms=observed_ms,
                currency="EUR",
                category="things",
                price_minor=900 + 50 * number,
                cost_minor=400 + 10 * number,
            )
        )
        deltas.append(
            CostChanged(
                retailer=RETAILER,
                channel=CHANNEL,
                sku=sku,
                cost_minor=410 + 10 * number,
                observed_ms=observed_ms + 1,
            )
        )
    return [(COMMANDS, encode_delta(delta)) for delta in deltas]


def table(shard: Any, listing: int) -> tuple[int, int]:
    """Return a listing's units on hand, as last counted, and sold."""
    row = shard._memory.listings.live_row(listing)
    held = shard._memory.listings.listings[row]
    return int(held["counted"]), int(held["units_sold"])


def prices(shard: Any) -> dict[int, int]:
    """Return each listing's price."""
    found = {key: shard.live(key) for key in KEYS.values()}
    return {key: state["in_force_minor"] for key, state in found.items() if state is not None}


REAL = ShardKind("real", new_real, restore_real, opening, table, prices)


def kind_of(seed: int) -> ShardKind:
    """Return the kind of shard that the world of ``seed`` runs."""
    return REAL if seed % REAL_EVERY == REAL_EVERY - 1 else TOY
