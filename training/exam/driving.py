"""Drive the production shard through a priced world, delta by delta, as a shop would.

A day's sales and rival prices go in as one microbatch of columns when the day ends; what the shard
has put in force by then is what customers pay on the next. History goes in the same way, in shadow,
with the managers' prices as reports of the channel. Nothing is read from the shard but prices;
what it believes is read by ``training.exam.calibration`` and changes nothing.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from msgspec import Struct

from engine.decided import Decided
from engine.deltas import (
    AnyDelta,
    ListingChanged,
    ModeChanged,
    PolicyChanged,
    PriceReported,
    RetailerAdded,
)
from engine.microbatch import (
    COMPETITOR_PRICED,
    FLAG_CONDITION_NEW,
    FLAG_IN_STOCK,
    STOCK_COUNTED,
    UNITS_SOLD,
    FactColumns,
    Microbatch,
    ObjectDelta,
    Position,
)
from engine.routing import key64, name64
from engine.shard import Shard
from training.worlds.priced import Day, PricedWorld
from training.worlds.settings import HISTORY_DAYS

DAY_MS = 86_400_000
RETAILER, CHANNEL, RIVAL = "exam", "shop", "rival"

POLICY: dict[str, object] = {"learning": True, "min_margin": 0.05}
"""The one configuration for all worlds: the engine's defaults, and learning switched on."""


class Result(Struct, frozen=True, kw_only=True):
    """What one world came to, in expected profit."""

    share: float  # of the clairvoyant's profit
    fixed: float  # the share of prices that never change
    gap_closed: float
    worst_listings: float  # mean loss of the worst 5 % of listings, against fixed prices
    changes_a_week: float  # of a listing
    exploration_cost: float  # share of profit given up to dithers, by the engine's own estimate
    violations: int  # prices outside the guardrails
    trips: int  # times that the breaker stopped publishing


class Driven:
    """A shard in a world. ``open`` it, then a ``day`` at a time."""

    def __init__(self, world: PricedWorld, policy: dict[str, object] | None = None) -> None:
        self.world, self.shard = world, Shard()
        self.policy = POLICY if policy is None else policy
        self._skus = [f"s{number}" for number in range(world.listings)]
        self.keys = [key64(RETAILER, CHANNEL, sku) for sku in self._skus]
        self._keys = np.array(self.keys, dtype=np.uint64)
        self.categories = [f"group {group}" for group in world.group.tolist()]
        self._order = np.argsort(self._keys)
        self.price = np.round(world.today).astype(np.int64)
        self._reported = self.price.copy()
        self.rival = world.rival_price()  # as it was last told
        self.trips = 0

    def open(self) -> None:
        """Tell the shard of the retailer, his policy, his catalogue and his history."""
        world = self.world
        deltas: list[AnyDelta] = [
            RetailerAdded(retailer=RETAILER, currency="EUR", mode="shadow", observed_ms=0),
            PolicyChanged(
                retailer=RETAILER, scope="retailer", key="", fields=self.policy, observed_ms=0
            ),
        ]
        deltas += [self._range(row) for row in range(world.listings)]
        deltas += [self._listing(row) for row in range(world.listings)]
        self._send(deltas, None, 0)
        for day in world.history():
            start_ms = (world.day - 1 + HISTORY_DAYS) * DAY_MS
            price = np.round(day.price).astype(np.int64)
            moved = np.flatnonzero(price != self._reported)
            reports: list[AnyDelta] = [
                PriceReported(
                    retailer=RETAILER,
                    channel=CHANNEL,
                    sku=self._skus[row],
                    price_minor=int(price[row]),
                    observed_ms=start_ms + 1,
                )
                for row in moved.tolist()
            ]
            self._reported = price
            if world.day == 0:
                reports.append(
                    ModeChanged(retailer=RETAILER, mode="live", observed_ms=start_ms + DAY_MS)
                )
            self._send(reports, day, start_ms + DAY_MS)

    def day(self) -> Day:
        """Let a day pass at the prices in force; return what is seen of it."""
        sold = self.world.sell(self.price.astype(np.float64))
        self._send([], sold, (self.world.day + HISTORY_DAYS) * DAY_MS)
        return sold

    def _range(self, row: int) -> AnyDelta:
        low, high = int(self.world.low[row]), int(self.world.high[row])
        fields: dict[str, object] = {"floor_minor": low, "ceiling_minor": high}
        key = f"{CHANNEL}\x1f{self._skus[row]}"
        return PolicyChanged(
            retailer=RETAILER, scope="listing", key=key, fields=fields, observed_ms=0
        )

    def _listing(self, row: int) -> AnyDelta:
        world = self.world
        told = world.setting.brands > 0 and world.setting.brands_told
        return ListingChanged(
            retailer=RETAILER,
            channel=CHANNEL,
            sku=self._skus[row],
            category=self.categories[row],
            brand=f"brand {world.brand[row]}" if told else None,
            price_minor=int(self.price[row]),
            cost_minor=int(world.cost[row]),
            own_rival_names=(RETAILER,),
            observed_ms=0,
        )

    def _send(self, deltas: list[AnyDelta], day: Day | None, now_ms: int) -> None:
        offset = self.shard.last_delta + 1
        runs: list[ObjectDelta | FactColumns] = [
            ObjectDelta(Position(1, offset + at, 0), delta) for at, delta in enumerate(deltas)
        ]
        count = len(deltas)
        if day is not None:
            self.rival = day.rival
            runs.append(self._facts(day, now_ms, offset + count))
            count += 1
        decided = self.shard.apply(
            Microbatch(
                runs=tuple(runs),
                last_command=self.shard.last_command,
                last_delta=offset + count - 1,
                deltas=count,
            ),
            now_ms,
        )
        self.shard.record(decided)
        self._take(decided)
        # What one microbatch left for the next: nothing is waited for.
        while self.shard.backlog:
            more = self.shard.apply(
                Microbatch(last_command=self.shard.last_command, last_delta=self.shard.last_delta),
                now_ms,
            )
            self.shard.record(more)
            self._take(more)

    def _take(self, decided: Decided) -> None:
        self.trips += sum(change.what == "breaker" for change in decided.catalogue)
        quotes = decided.quotes
        known = quotes[quotes["in_force_minor"] > 0]
        at = self._order[np.searchsorted(self._keys, known["listing"], sorter=self._order)]
        self.price[at] = known["in_force_minor"]

    def _facts(self, day: Day, now_ms: int, offset: int) -> FactColumns:
        """Return a day's sales, rival prices and, where shelves run empty, counts of stock."""
        world, rows = self.world, self.world.listings
        sold = np.flatnonzero(day.units > 0)
        counts = world.setting.stock_days > 0 or world.setting.delivery_days > 0
        counted = np.arange(rows) if counts else np.arange(0)
        kinds = ((UNITS_SOLD, sold), (COMPETITOR_PRICED, np.arange(rows)), (STOCK_COUNTED, counted))
        kind = np.concatenate([np.full(len(which), code) for code, which in kinds])
        row = np.concatenate([which for _, which in kinds])
        rival = np.rint(day.rival).astype(np.int64)
        stock = np.where(day.in_stock, np.minimum(world.stock(), 1e6), 0).astype(np.int64)
        amount = np.concatenate([day.units[sold], rival, stock[counted]])
        offers, sales = kind == COMPETITOR_PRICED, kind == UNITS_SOLD
        count = len(kind)
        return FactColumns(
            kind=kind.astype(np.uint8),
            listing=self._keys[row],
            amount=amount.astype(np.int64),
            observed_ms=np.full(count, now_ms, dtype=np.int64),
            rival=np.where(offers, np.uint64(name64(RIVAL)), np.uint64(0)),
            shipping_minor=np.zeros(count, dtype=np.int32),
            currency=np.zeros(count, dtype=np.uint32),
            flags=np.where(offers, FLAG_IN_STOCK | FLAG_CONDITION_NEW, 0).astype(np.uint8),
            source=np.where(sales, np.uint64(name64("till")), np.uint64(0)),
            source_seq=np.where(sales, offset * 1_000_000 + np.arange(count), -1),
            event=np.zeros(count, dtype=np.uint64),
            lane=np.ones(count, dtype=np.uint8),
            offset=np.full(count, offset, dtype=np.int64),
            index=np.arange(count, dtype=np.int32),
        )


class Witness(Protocol):
    """Somebody who looks on."""

    def before(self, driven: Driven) -> None:
        """Look at the shard before a day happens at the prices in force."""

    def after(self, driven: Driven, day: Day) -> None:
        """See what the day brought."""


def sit(
    world: PricedWorld,
    policy: dict[str, object] | None = None,
    told: Callable[[int], None] = lambda day: None,
    watch: Witness | None = None,
) -> Result:
    """Let the shard price a world to its end, and score it.

    Who knows everything, and who never moves a price, meet the same chance in worlds of their own:
    a rival who follows cuts answers each of them, and not the three together.

    Args:
        told: is called after each day, for a progress bar.
        watch: is shown the shard before each day, and the day after it.
    """
    driven = Driven(world, policy)
    driven.open()
    knowing, standing = _beside(world), _beside(world)
    fixed = np.clip(world.today, world.low, world.high)
    mine, best, still = (np.zeros(world.listings) for _ in range(3))
    changes = violations = 0
    before = driven.price.copy()
    for day in range(world.days):
        wisest = knowing.best_price()
        best += knowing.profit(wisest)
        knowing.sell(wisest)
        still += standing.profit(fixed)
        standing.sell(fixed)
        asked = driven.price.astype(np.float64)
        mine += world.profit(asked)
        # A price found at import may lie outside; what the engine moved may not.
        moved = driven.price != np.round(world.today).astype(np.int64)
        violations += int((moved & ((asked < world.low) | (asked > world.high))).sum())
        if watch is not None:
            watch.before(driven)
        sold = driven.day()
        if watch is not None:
            watch.after(driven, sold)
        changes += int((driven.price != before).sum())
        before = driven.price.copy()
        told(day)
    learnt = driven.shard.learning(RETAILER)
    loss = (still - mine) / np.maximum(np.abs(still), 1e-9)
    worst = np.sort(loss)[-max(world.listings // 20, 1) :]
    return Result(
        share=float(mine.sum() / best.sum()),
        fixed=float(still.sum() / best.sum()),
        gap_closed=float((mine - still).sum() / (best - still).sum()),
        worst_listings=float(worst.mean()),
        changes_a_week=changes / world.listings / world.days * 7.0,
        exploration_cost=learnt["exploration_share"] if learnt else 0.0,
        violations=violations,
        trips=driven.trips,
    )


def _beside(world: PricedWorld) -> PricedWorld:
    """Return the same world once more, its history behind it."""
    other = PricedWorld(world.setting, world.seed, world.listings, world.days)
    for _ in other.history():
        pass
    return other
