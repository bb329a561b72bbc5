"""Shards filled with listings and rivals' offers by deltas, for whoever measures a shard.

Filling a million takes minutes, so ``make bench`` names a folder in ``BENCH_OF_REPRICER_FOLDER``:
what was filled once lies there as a checkpoint that the production classes wrote and read.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from engine.deltas import ListingChanged, RetailerAdded
from engine.routing import key64
from engine.shard import Shard
from perf.measuring import Progress
from perf.shard import START_MS, Clock, offers
from persistence.checkpoints import CheckpointFiles, Increment
from persistence.decision_records import LogPosition
from repricer import batch_of

FOLDER = "BENCH_OF_REPRICER_FOLDER"
RETAILER, CHANNEL = "acme", "shop"
PIECE = 4096
RIVALS = 4
"""Offers a listing: a block of the rivals' table."""

SLICE_ROWS = 2048


def sku_of(number: int) -> str:
    """Return the SKU of one listing."""
    return f"S{number:08d}"


def keys_of(listings: int) -> np.ndarray:
    """Return uint64[listings], the keys."""
    keys = (key64(RETAILER, CHANNEL, sku_of(number)) for number in range(listings))
    return np.fromiter(keys, dtype=np.uint64, count=listings)


def listing_deltas(first: int, last: int) -> Iterator[ListingChanged]:
    """Yield the catalogue entries of some listings."""
    for number in range(first, last):
        yield ListingChanged(
            retailer=RETAILER,
            channel=CHANNEL,
            sku=sku_of(number),
            title=f"Thing {number}",
            category=f"c{number % 20}",
            price_minor=2000 + number % 500,
            cost_minor=1200 + number % 300,
            kvi=number % 5 == 0,
            observed_ms=START_MS,
        )


def id_bytes(listings: int) -> int:
    """Return the bytes of what names the listings: key, channel, SKU, title and category."""
    numbers = range(0, listings, max(1, listings // 1000))
    texts = [
        len(f"{CHANNEL}{sku_of(number)}Thing {number}c{number % 20}") + 8 for number in numbers
    ]
    return round(sum(texts) / len(texts) * listings)


def fill(shard: Shard, listings: int, say: Progress, *, rivals: int = RIVALS) -> Clock:
    """Fill a new shard by deltas, offers included; return the clock that goes on."""
    clock = Clock(shard, START_MS)
    added = RetailerAdded(retailer=RETAILER, currency="EUR", mode="live", observed_ms=START_MS)
    clock.apply(batch_of([added], after=shard))
    random = np.random.default_rng(1)
    for first in range(0, listings, PIECE):
        last = min(first + PIECE, listings)
        clock.apply(batch_of(listing_deltas(first, last), after=shard))
        keys = np.fromiter(
            (key64(RETAILER, CHANNEL, sku_of(number)) for number in range(first, last)),
            dtype=np.uint64,
        )
        for rival in range(rivals):
            clock.apply(offers(keys, rival, clock.now_ms, random))
        if first // PIECE % 25 == 24:
            say(f"{last:,} of {listings:,} listings filled")
    return clock


def filled(listings: int, say: Progress) -> tuple[Shard, Clock]:
    """Return a filled shard: filled now, or restored where the bench has filled one already."""
    folder = os.environ.get(FOLDER)
    place = Path(folder) / f"filled-{listings}" if folder else None
    if place is not None and place.is_dir():
        loaded = asyncio.run(CheckpointFiles(place).load())
        assert loaded is not None, f"{place} holds no checkpoint that verifies"
        shard = Shard.restore(loaded[0])
        return shard, Clock(shard, shard.decided_ms)
    shard = Shard()
    shard.warm()
    clock = fill(shard, listings, say)
    if place is not None:
        save(shard, place)
    return shard, clock


def parts_of(shard: Shard) -> list[bytes]:
    """Return the parts of a checkpoint of what changed since the last one."""
    parts = []
    while (part := shard.checkpoint_slice(SLICE_ROWS)) is not None:
        parts.append(part)
    return [*parts, shard.checkpoint_close()]


def save(shard: Shard, place: Path, parts: list[bytes] | None = None, parent: str = "") -> str:
    """Write a checkpoint file as an owner does; return its name."""
    position = LogPosition(b"l" * 16, shard.seq, 1, b"o" * 16, shard.seq)
    increment = Increment(
        shard=0,
        generation=0,
        position=position,
        last_command=shard.last_command,
        last_delta=shard.last_delta,
        decided_ms=shard.decided_ms,
        digest=shard.digest,
        replay_domain=shard.domain,
        parent=parent,
        parts=tuple(parts if parts is not None else parts_of(shard)),
    )
    return asyncio.run(CheckpointFiles(place).save(increment))
