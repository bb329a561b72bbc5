"""Which shard a seed's world runs: the toy mostly, the real one in part, half of it learning."""

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from msgspec.structs import replace

from engine import evidence, experiment_days, learning
from engine.checkpoint import whole_parts
from engine.deltas import AnyDelta, CostChanged, ListingChanged, PolicyChanged, RetailerAdded
from engine.shard import Shard, ShardSettings
from persistence.ports import COMMANDS
from persistence.wire import encode_delta
from tests.sim import shop
from tests.sim.feed import CHANNEL, KEYS, RETAILER, SKUS
from tests.sim.world import TOY, ShardKind

REAL_EVERY = 12
"""One seed of so many runs the real shard, which takes longer. Every other of these learns."""

WALK_ROWS = 3
"""Of a learning world's eight listings one walk takes so many: a day's close is spread over several
microbatches, so that owners fall in its midst."""

SETTINGS = ShardSettings(shard=0, generation=1)


def new_real() -> Shard:
    """Return a real shard that knows nothing."""
    return Shard(SETTINGS)


def restore_real(parts: Any) -> Shard:
    """Return the real shard of a checkpoint."""
    return Shard.restore(parts, SETTINGS)


def opening(random: Random, base_ms: int) -> list[tuple[str, bytes]]:
    """Return what makes a retailer with a few listings, whose prices may move."""
    observed_ms = base_ms - 1_000
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
    if row < 0:  # whatever it was told before there was a listing was refused
        return -1, 0
    held = shard._memory.listings.listings[row]
    return int(held["counted"]), int(held["units_sold"])


def prices(shard: Any) -> dict[int, int]:
    """Return each listing's price."""
    found = {key: shard.live(key) for key in KEYS.values()}
    return {key: state["in_force_minor"] for key, state in found.items() if state is not None}


def state(shard: Any) -> bytes:
    """Return everything that a shard remembers."""
    return b"".join(whole_parts(shard._memory, shard._mark()))


@contextmanager
def short_walks() -> Iterator[None]:
    """Let one microbatch walk and decide fewer rows than these worlds have, as in a large shop."""
    before = learning.SLICE_ROWS, learning.DECIDED_ROWS, experiment_days.SLICE_ROWS
    pooled = evidence.POOLED_ROWS
    learning.SLICE_ROWS, learning.DECIDED_ROWS = WALK_ROWS, WALK_ROWS
    experiment_days.SLICE_ROWS = evidence.POOLED_ROWS = WALK_ROWS
    try:
        yield
    finally:
        learning.SLICE_ROWS, learning.DECIDED_ROWS, experiment_days.SLICE_ROWS = before
        evidence.POOLED_ROWS = pooled


REAL = ShardKind("real", new_real, restore_real, opening, table, prices, state)

LEARNING = ShardKind(
    "learning",
    new_real,
    restore_real,
    shop.opening,
    table,
    prices,
    state,
    market=shop.market,
    skus=shop.SHOP_SKUS[:-1],
    clock="event",
    slice_rows=2,
    artefacts=shop.artefacts,
    limits=short_walks,
)
"""A shop that learns, whose days pass by the times of its events: nine in a storm."""

EVENING = replace(LEARNING, name="evening", market=shop.evening, clock="wall")
"""The same on one evening by the wall clock: its midnight may come without any delta."""

KINDS = {kind.name: kind for kind in (TOY, REAL, LEARNING, EVENING)}

TURNS = (REAL, LEARNING, REAL, EVENING)


def kind_of(seed: int) -> ShardKind:
    """Return the kind of shard that the world of ``seed`` runs."""
    turn, at = divmod(seed, REAL_EVERY)
    return TURNS[turn % len(TURNS)] if at == REAL_EVERY - 1 else TOY
