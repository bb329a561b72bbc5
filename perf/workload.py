"""The work on which the engine and its peers are compared: one feed, one rule, one table.

Rivals' prices arrive, one JSON document a message, skewed by Zipf's law over the listings. For each
listing the last price of up to four rivals is kept, the lowest is the reference, and the price is::

    max(floor, min(target, kvi_rival_ratio_max * lowest rival))        in whole minor units

Nothing of that is a model of the engine: it *is* the engine's documented pricing where the policy
leaves the other rules nothing to do (``POLICY`` says how, field by field). So a program that knows
nothing of us can do the same work, and whether it did is one comparison: the SHA-256 over the
table of final prices.

Everything follows from the settings and a seed. Event time is what counts (``CLOCK``): deltas lie
ten seconds apart, so that no listing can change its price more than 255 times an hour however
the microbatches are cut.
"""

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Final

import numpy as np
from msgspec import Struct

from engine.deltas import AnyDelta, ListingChanged, PolicyChanged, RetailerAdded
from engine.microbatch import COMPETITOR_PRICED, FLAG_CONDITION_NEW, FLAG_IN_STOCK
from engine.routing import key64, partition_of
from persistence.frames import FRAME_FACTS_MAX, FrameColumns, encode_frame

CHANNEL: Final = "web"
CLOCK: Final = "event"
"""The owner's clock for this work: a topic that is filled beforehand is history."""

START_MS: Final = 1_600_000_000_000
EVENT_MS: Final = 10_000
EVENTS_MAX: Final = 3_000_000
"""Beyond, the first offers would go stale, and the rule would need to know the time."""

RIVALS: Final = ("r0", "r1", "r2", "r3")
ZIPF_EXPONENT: Final = 1.05

RATIO_BP: Final = 9_800
MARGIN_BP: Final = 2_000

POLICY: Final[dict[str, object]] = {
    # The rule's two numbers.
    "kvi_rival_ratio_max": RATIO_BP / 10_000,
    "min_margin": MARGIN_BP / 10_000,
    # The optimum under constant elasticity is cost * e / (1 + e): exactly twice the cost. With a
    # standard deviation of one the prior's weight is one, and nothing is rounded.
    "prior_elasticity": -2.0,
    "prior_elasticity_sd": 1.0,
    # What would make the price depend on its own past has nothing to say.
    "step_max": 1.0,
    "changes_per_hour_max": 255,
    "rival_stale_ms": 366 * 86_400_000,
    # A breaker that counts moves by their thousands would stop a market in which all may move.
    "breaker_listings_min": 1_000_000,
    "breaker_moved_share": 1.0,
    "breaker_floor_share": 1.0,
    "breaker_rate_factor": 1e6,
}
"""The retailer's policy. Screening stays on, as by default: rivals' prices stay within 8 % of what
they are about, and the first of each is within half and double of what is known."""


class WorkloadSettings(Struct, frozen=True):
    """What the work follows from."""

    events: int
    listings: int = 100_000
    partitions: int = 1
    seed: int = 1


class Workload:
    """A catalogue, a feed, and the prices they must end in."""

    def __init__(self, settings: WorkloadSettings) -> None:
        assert 0 < settings.events <= EVENTS_MAX
        self.settings = settings
        random = np.random.default_rng(settings.seed)
        listings = settings.listings
        self.retailers = tuple(
            _retailer(partition, settings.partitions) for partition in range(settings.partitions)
        )
        """One a partition: which is a shard, which is an owner."""
        self.cost_minor = random.integers(500, 20_000, listings)
        self.target_minor = 2 * self.cost_minor
        # The least integer whose margin is kept: cost / (1 - margin), rounded up.
        self.floor_minor = -(-self.cost_minor * 10_000 // (10_000 - MARGIN_BP))
        self._rival_minor = np.rint(self.cost_minor * random.uniform(1.15, 2.3, listings))
        self._shuffled = random.permutation(listings)
        shares = np.arange(1, listings + 1) ** -ZIPF_EXPONENT
        self._ranks = np.cumsum(shares) / shares.sum()

    def sku(self, listing: int) -> str:
        """Return a listing's SKU, which no two retailers share."""
        return f"{listing:07d}"

    def partition(self, listing: int) -> int:
        """Return in which partition a listing lives."""
        return listing % self.settings.partitions

    def opening(self, partition: int) -> Iterator[AnyDelta]:
        """Yield the deltas that must stand before the feed: retailer, policy, catalogue.

        They are the engine's; a peer reads the same from :meth:`catalogue_lines`.
        """
        retailer = self.retailers[partition]
        yield RetailerAdded(retailer=retailer, currency="EUR", mode="live", observed_ms=START_MS)
        yield PolicyChanged(
            retailer=retailer, scope="retailer", fields=POLICY, observed_ms=START_MS
        )
        for listing in range(partition, self.settings.listings, self.settings.partitions):
            yield ListingChanged(
                retailer=retailer,
                channel=CHANNEL,
                sku=self.sku(listing),
                cost_minor=int(self.cost_minor[listing]),
                kvi=True,
                # Without it the engine could not tell a rival from ourselves, and never lowers.
                own_rival_names=("us",),
                observed_ms=START_MS,
            )

    def catalogue_lines(self) -> Iterator[str]:
        """Yield ``sku,target,floor`` of each listing: all that the rule needs beside the feed."""
        columns = (self.target_minor.tolist(), self.floor_minor.tolist())
        for listing, (target, floor) in enumerate(zip(*columns, strict=True)):
            yield f"{self.sku(listing)},{target},{floor}\n"

    def messages(self, stop: int | None = None) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield partition, key and value of the feed's messages, up to ``stop``."""
        listings, rivals, prices = self._feed
        stop = self.settings.events if stop is None else stop
        keys = [retailer.encode() for retailer in self.retailers]
        columns = zip(
            listings[:stop].tolist(), rivals[:stop].tolist(), prices[:stop].tolist(), strict=True
        )
        for place, (listing, rival, price) in enumerate(columns):
            partition = listing % self.settings.partitions
            yield (
                partition,
                keys[partition],
                (
                    f'{{"type":"CompetitorPriced","retailer":"{self.retailers[partition]}",'
                    f'"channel":"{CHANNEL}","sku":"{listing:07d}","rival":"{RIVALS[rival]}",'
                    f'"price_minor":{price},"observed_ms":{START_MS + (place + 1) * EVENT_MS}}}'
                ).encode(),
            )

    def frames(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield partition, key and value of the same messages in columnar frames.

        Each is as full as may be; those of the partitions follow each other as their last facts.
        """
        listings, _, _ = self._feed
        retailers = [self.retailers[self.partition(each)] for each in range(self.settings.listings)]
        names = np.array(
            [key64(each, CHANNEL, self.sku(number)) for number, each in enumerate(retailers)],
            dtype=np.uint64,
        )
        cut = []
        for partition in range(self.settings.partitions):
            mine = np.flatnonzero(listings % self.settings.partitions == partition)
            for begin in range(0, len(mine), FRAME_FACTS_MAX):
                cut.append((partition, mine[begin : begin + FRAME_FACTS_MAX]))
        for partition, places in sorted(cut, key=lambda each: int(each[1][-1])):
            retailer = self.retailers[partition]
            yield partition, retailer.encode(), encode_frame(retailer, self._frame(names, places))

    def _frame(self, names: np.ndarray, places: np.ndarray) -> FrameColumns:
        listings, rivals, prices = self._feed
        facts = len(places)
        return FrameColumns(
            kind=np.full(facts, COMPETITOR_PRICED, np.uint8),
            listing=names[listings[places]],
            amount=prices[places].astype(np.int64),
            observed_ms=START_MS + (places + 1) * EVENT_MS,
            rival=rivals[places].astype(np.int32),
            rival_names=RIVALS,
            shipping_minor=np.zeros(facts, np.int32),
            currency=np.zeros(facts, np.uint32),
            flags=np.full(facts, FLAG_CONDITION_NEW | FLAG_IN_STOCK, np.uint8),
            source=np.full(facts, -1, np.int32),
            source_names=(),
            source_seq=np.full(facts, -1, np.int64),
            event=np.zeros(facts, np.uint64),
        )

    def final_prices(self, stop: int | None = None) -> dict[str, int]:
        """Return what every listing must cost in the end: the rule, and nothing of ours."""
        listings, rivals, prices = self._feed
        stop = self.settings.events if stop is None else stop
        known: dict[int, list[int]] = {}
        columns = (listings[:stop].tolist(), rivals[:stop].tolist(), prices[:stop].tolist())
        for listing, rival, price in zip(*columns, strict=True):
            known.setdefault(listing, [0] * len(RIVALS))[rival] = price
        return {
            self.sku(listing): rule(
                int(self.target_minor[listing]),
                int(self.floor_minor[listing]),
                min((price for price in known.get(listing, ()) if price), default=0),
            )
            for listing in range(self.settings.listings)
        }

    def table(self, changed: Mapping[str, int]) -> dict[str, int]:
        """Return all listings' prices: what was emitted, and the first price of all others."""
        return self.final_prices(stop=0) | dict(changed)

    @cached_property
    def _feed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return listing, rival and price of every event."""
        random = np.random.default_rng((self.settings.seed, 1))
        events = self.settings.events
        rank = np.searchsorted(self._ranks, random.random(events), side="right")
        listing = self._shuffled[np.minimum(rank, self.settings.listings - 1)]
        rival = random.integers(0, len(RIVALS), events)
        percent = random.integers(92, 109, events)
        price = self._rival_minor[listing].astype(np.int64) * percent // 100
        return listing, rival, price


def rule(target_minor: int, floor_minor: int, rival_minor: int) -> int:
    """Return a listing's price; ``rival_minor`` is the lowest known, 0: none."""
    if not rival_minor:
        return max(floor_minor, target_minor)
    return max(floor_minor, min(target_minor, rival_minor * RATIO_BP // 10_000))


def table_sha256(prices: Mapping[str, int]) -> str:
    """Return the SHA-256 over the table of prices, sorted by SKU."""
    text = "".join(f"{sku},{price}\n" for sku, price in sorted(prices.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _retailer(partition: int, partitions: int) -> str:
    """Return the first name that Kafka's partitioner puts into this partition."""
    number = 0
    while partition_of(f"shop{number}", partitions) != partition:
        number += 1
    return f"shop{number}"
