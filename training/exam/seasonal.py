"""The markdown part of the exam: the production shard clears overstocked seasons."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from engine.decided import Decided
from engine.deltas import (
    AnyDelta,
    Fact,
    ListingChanged,
    PolicyChanged,
    RetailerAdded,
    StockCounted,
    UnitsSold,
)
from engine.microbatch import FactColumns, Microbatch, ObjectDelta, Position, facts_of
from engine.routing import key64
from engine.shard import Shard
from training.worlds.season import SALVAGE_SHARE, SEASON_DAYS, SeasonWorld

DAY_MS = 86_400_000
RETAILER, CHANNEL = "season", "shop"

POLICY: dict[str, object] = {
    "learning": True,
    "season_end_ms": SEASON_DAYS * DAY_MS,
    "salvage_share": SALVAGE_SHARE,
    "min_margin": 0.0,
    "step_max": 1.0,
    # A clearance moves many prices far: that is its purpose, and the retailer says so.
    "breaker_moved_share": 1.0,
    "breaker_floor_share": 1.0,
}

BOUND_GOAL, CHANGES_GOAL = 0.95, 3

LADDER = ((0.25, 0.8), (0.5, 0.6), (0.75, 0.4))
"""From which share of the season on shops ask which share of the list price."""

ASSUMED_ELASTICITY, RESOLVED_DAYS, PRIOR_UNITS = -2.3, 7, 1.0
"""Of the fluid price: what it takes for granted, how often it is solved, and the units that stand
behind a listing's rate before it has sold any."""


BASELINES = ("list_price", "ladder", "assumed_fluid")
"""Fields of a result that others earn."""


class SeasonResult(Struct, frozen=True, kw_only=True):
    """What a season came to."""

    share: float  # of the fluid bound
    list_price: float  # the share of never cutting a price
    ladder: float  # the share of the ladder of shops
    assumed_fluid: float  # the share of the fluid price at an assumed elasticity
    sell_through: float
    changes: float  # of a listing, on average
    changes_most: int
    rises: int  # prices that went up, and must not


def sit_season(seed: int, listings: int, policy: dict[str, object] | None = None) -> SeasonResult:
    """Let the shard clear a season, and score it."""
    world, still = SeasonWorld(seed, listings), SeasonWorld(seed, listings)
    shard = Shard()
    skus = [f"s{number}" for number in range(listings)]
    rows = {key64(RETAILER, CHANNEL, sku): row for row, sku in enumerate(skus)}
    price = world.list_price.astype(np.int64)
    changes, rises = np.zeros(listings, dtype=np.int64), 0
    decide_all(shard, _opening(world, skus, POLICY if policy is None else policy), 0)
    for day in range(1, SEASON_DAYS + 1):
        sold = world.sell(price.astype(np.float64))
        still.sell(still.list_price)
        sales: list[AnyDelta] = [
            UnitsSold(
                retailer=RETAILER,
                channel=CHANNEL,
                sku=skus[row],
                units=int(sold[row]),
                source=skus[row],
                source_seq=day,
                observed_ms=day * DAY_MS,
            )
            for row in np.flatnonzero(sold).tolist()
        ]
        if day == SEASON_DAYS:
            break  # nothing is sold at what is decided once the season is over
        for quotes in decide_all(shard, sales, day * DAY_MS):
            for quote in quotes[quotes["in_force_minor"] > 0]:
                row, asked = rows[int(quote["listing"])], int(quote["in_force_minor"])
                changes[row] += asked != price[row]
                rises += int(asked > price[row])
                price[row] = asked
    bound = world.fluid_bound()
    return SeasonResult(
        share=world.final() / bound,
        list_price=still.final() / bound,
        ladder=ladder(seed, listings) / bound,
        assumed_fluid=assumed_fluid(seed, listings) / bound,
        sell_through=float(1.0 - world.stock.sum() / world.opening.sum()),
        changes=float(changes.mean()),
        changes_most=int(changes.max()),
        rises=rises,
    )


def ladder(seed: int, listings: int) -> float:
    """Return what 20, 40 and 60 % off earn, the same for all listings."""
    world = SeasonWorld(seed, listings)
    for day in range(SEASON_DAYS):
        asked = [share for from_share, share in LADDER if day >= from_share * SEASON_DAYS]
        world.sell(np.round(world.list_price * min([1.0, *asked])))
    return world.final()


def assumed_fluid(seed: int, listings: int) -> float:
    """Return what the fluid price earns at an assumed elasticity, with rates as they are learnt.

    Solved each week: the price at which what is left sells out by the end, never higher than
    before, never below what salvage is worth.
    """
    world, slope = SeasonWorld(seed, listings), ASSUMED_ELASTICITY
    price, exposure, sold = world.list_price.copy(), np.zeros(listings), np.zeros(listings)
    for day in range(SEASON_DAYS):
        if day and day % RESOLVED_DAYS == 0:
            rate = (sold + PRIOR_UNITS) / (exposure + PRIOR_UNITS)
            wanted = np.maximum(world.stock, 1.0) / (rate * (SEASON_DAYS - day))
            run_out = world.list_price * wanted ** (1.0 / slope)
            least = np.maximum(world.salvage * slope / (1.0 + slope), run_out)
            price = np.minimum(np.round(least), price)
        exposure += np.where(world.stock > 0, (price / world.list_price) ** slope, 0.0)
        sold += world.sell(price)
    return world.final()


def season_verdicts(seasons: Sequence[SeasonResult]) -> list[tuple[str, bool]]:
    """Return the goals of the markdown part, and whether they are reached."""
    share = float(np.mean([season.share for season in seasons]))
    most = max(season.changes_most for season in seasons)
    ruled = max(float(np.mean([getattr(s, name) for s in seasons])) for name in BASELINES)
    rises = sum(season.rises for season in seasons)
    return [
        (f"markdown: {share:.3f} of the fluid bound >= {BOUND_GOAL}", share >= BOUND_GOAL),
        (f"markdown: {share:.3f} >= {ruled:.3f} of the best rule of shops", share >= ruled),
        (f"markdown: at most {most} changes of a listing <= {CHANGES_GOAL}", most <= CHANGES_GOAL),
        (f"markdown: {rises} prices rose = 0", rises == 0),
    ]


def opening(
    retailer: str,
    skus: Sequence[str],
    price_minor: np.ndarray,
    cost_minor: np.ndarray,
    policy: dict[str, object],
    **more: Any,
) -> list[AnyDelta]:
    """Return what a live retailer's shard is told first; ``more`` is the same of each listing."""
    return [
        RetailerAdded(retailer=retailer, currency="EUR", mode="live", observed_ms=0),
        PolicyChanged(retailer=retailer, scope="retailer", key="", fields=policy, observed_ms=0),
        *(
            ListingChanged(
                retailer=retailer,
                channel=CHANNEL,
                sku=sku,
                price_minor=int(price_minor[row]),
                cost_minor=int(cost_minor[row]),
                observed_ms=0,
                **more,
            )
            for row, sku in enumerate(skus)
        ),
    ]


def _opening(world: SeasonWorld, skus: list[str], policy: dict[str, object]) -> list[AnyDelta]:
    deltas = opening(RETAILER, skus, world.list_price, world.salvage, policy)
    deltas += [
        StockCounted(
            retailer=RETAILER,
            channel=CHANNEL,
            sku=sku,
            units=int(world.opening[row]),
            observed_ms=0,
        )
        for row, sku in enumerate(skus)
    ]
    return deltas


def decide_all(shard: Shard, deltas: list[AnyDelta], now_ms: int) -> list[np.ndarray]:
    """Apply deltas as one microbatch and what it leaves as others; return all quotes."""
    return [decided.quotes for decided in decisions(shard, deltas, now_ms)]


def decisions(shard: Shard, deltas: Sequence[AnyDelta], now_ms: int) -> list[Decided]:
    """Apply deltas as one microbatch and what it leaves as others; return all decisions."""
    told = []
    first = shard.last_delta + 1
    placed = [(Position(1, first + at, 0), delta) for at, delta in enumerate(deltas)]
    facts = [(position, delta) for position, delta in placed if isinstance(delta, Fact)]
    runs: list[ObjectDelta | FactColumns] = [
        ObjectDelta(position, delta) for position, delta in placed if not isinstance(delta, Fact)
    ]
    if facts:
        runs.append(facts_of(facts))
    batch = Microbatch(
        runs=tuple(runs),
        last_command=shard.last_command,
        last_delta=first + len(placed) - 1,
        deltas=len(placed),
    )
    while True:
        decided = shard.apply(batch, now_ms)
        shard.record(decided)
        told.append(decided)
        if not shard.backlog:
            return told
        batch = Microbatch(last_command=shard.last_command, last_delta=shard.last_delta)
