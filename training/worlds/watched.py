"""A market whose rivals are watched by feeds: some rivals by one, some by several.

Of every four listings one has a single rival and a single feed, one a single rival and three feeds,
one three rivals in one feed, and one five rivals in two. Rivals wander about their usual prices and
hold deals of some days. What rivals do and how much is wanted at a price is a function of the seed
and the step alone, so that two runs whose prices differ still meet the same chance.

Units. Money in minor units, times in unix milliseconds.
"""

import numpy as np

from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    Fact,
    ListingChanged,
    PolicyChanged,
    RetailerAdded,
    StockCounted,
    UnitsSold,
)

HOUR_MS, DAY_HOURS = 3_600_000, 24
RETAILER, CHANNEL = "exam", "shop"
LAYOUTS = ((1, 1), (1, 3), (3, 1), (5, 2))
"""(rivals, feeds) of a listing; the last figure of its row's number says which."""

RIVALS_MAX = 5
FEED = "watch-0"
"""The feed that watches every rival of every listing."""

MARGIN_MIN = 0.05
KVI_EACH = 3
"""Of so many groups of four listings, all but one are key value items: their rivals bound them."""

HELD_UNITS = 400
DRAWS = 64
"""Most units of a listing that are drawn for a step."""


class WatchedMarket:
    """``opening`` tells what there is, ``step`` what happened in some hours at given prices."""

    def __init__(self, seed: int, listings: int) -> None:
        draw = np.random.default_rng([seed, 20])
        self.seed, self.listings, self.hour = seed, listings, 0
        self.today = np.round(2_000.0 * np.exp(draw.normal(0.0, 0.8, listings))) + 200.0
        self.elasticity = np.clip(draw.normal(-2.6, 0.6, listings), -5.0, -1.4)
        error = draw.normal(0.0, 0.08, listings)
        best = self.today * np.exp(-error)
        self.cost = np.round(best * (1.0 + self.elasticity) / self.elasticity)
        self.cost = np.minimum(self.cost, np.floor(self.today * 0.9)).astype(np.int64)
        self.volume = 6.0 * np.exp(draw.normal(0.0, 0.8, listings))  # units a day
        shape = (listings, RIVALS_MAX)
        self.home = self.today[:, None] * np.exp(draw.normal(0.0, 0.04, shape))
        self._wander, self._deal = np.zeros(shape), np.zeros(shape)
        self._deal_hours = np.zeros(shape)
        self._stock = np.full(listings, HELD_UNITS, dtype=np.int64)
        self._sold = 0

    @property
    def now_ms(self) -> int:
        """Return the market's time."""
        return self.hour * HOUR_MS

    def sku(self, row: int) -> str:
        """Return what a listing is called."""
        return f"w{row}"

    def feeds(self, row: int) -> int:
        """Return how many feeds watch a listing."""
        return LAYOUTS[row % len(LAYOUTS)][1]

    def floor(self) -> np.ndarray:
        """Return int64[listings], the least price at which the true cost leaves the margin."""
        return np.ceil(self.cost / (1.0 - MARGIN_MIN) - 1e-9).astype(np.int64)

    def opening(self, policy: dict[str, object]) -> list[AnyDelta]:
        """Return the deltas that make the market known."""
        told: list[AnyDelta] = [
            RetailerAdded(retailer=RETAILER, currency="EUR", mode="live", observed_ms=0),
            PolicyChanged(
                retailer=RETAILER, scope="retailer", key="", fields=policy, observed_ms=0
            ),
        ]
        for row in range(self.listings):
            told.append(
                ListingChanged(
                    retailer=RETAILER,
                    channel=CHANNEL,
                    sku=self.sku(row),
                    category=f"group {row % 5}",
                    price_minor=int(self.today[row]),
                    cost_minor=int(self.cost[row]),
                    kvi=row // len(LAYOUTS) % KVI_EACH > 0,
                    own_rival_names=(RETAILER,),
                    observed_ms=0,
                )
            )
        return told

    def step(self, price: np.ndarray, hours: int = 1) -> list[Fact]:
        """Let some hours pass at these prices, int64[listings]; return what was observed."""
        self.hour += hours
        draw = np.random.default_rng([self.seed, 21, self.hour])
        told = self._sell(price, hours, draw)
        self._compete(hours, draw)
        told += self._watched()
        if self.hour % DAY_HOURS == 0:
            self._stock[:] = HELD_UNITS
            told += [self._counted(row) for row in range(self.listings)]
            told += [self.costs(row, int(self.cost[row])) for row in range(self.listings)]
        return told

    def offer(
        self, row: int, rival: str, price: float, feed: str, observed_ms: int | None = None
    ) -> Fact:
        """Return what a feed says of a rival, seen now or then."""
        return CompetitorPriced(
            retailer=RETAILER,
            channel=CHANNEL,
            sku=self.sku(row),
            rival=rival,
            price_minor=max(round(price), 1),
            source=feed,
            observed_ms=self.now_ms if observed_ms is None else observed_ms,
        )

    def costs(self, row: int, cost_minor: int) -> Fact:
        """Return what a listing costs, as told now."""
        return CostChanged(
            retailer=RETAILER,
            channel=CHANNEL,
            sku=self.sku(row),
            cost_minor=cost_minor,
            observed_ms=self.now_ms,
        )

    def rival_prices(self) -> np.ndarray:
        """Return float64[listings, rivals], what rivals ask."""
        return np.asarray(np.round(self.home * np.exp(self._wander + self._deal)))

    def _sell(self, price: np.ndarray, hours: int, draw: np.random.Generator) -> list[Fact]:
        """Sell what is wanted: as many of a step's customers as the price does not put off."""
        most = self.volume * hours / DAY_HOURS * 3.0
        customers = np.minimum(draw.poisson(most), DRAWS)
        will = draw.random((self.listings, DRAWS))
        share = np.minimum(np.exp(self.elasticity * np.log(price / self.today)) / 3.0, 1.0)
        come = np.arange(DRAWS)[None, :] < customers[:, None]
        units = np.minimum((come & (will < share[:, None])).sum(axis=1), self._stock)
        self._stock -= units
        self._sold += 1
        return [
            UnitsSold(
                retailer=RETAILER,
                channel=CHANNEL,
                sku=self.sku(row),
                units=int(units[row]),
                source=f"till-{self.sku(row)}",
                source_seq=self._sold,
                observed_ms=self.now_ms,
            )
            for row in np.flatnonzero(units).tolist()
        ]

    def _compete(self, hours: int, draw: np.random.Generator) -> None:
        """Let rivals wander a little, and begin and end deals."""
        shape = self._wander.shape
        moves = draw.random(shape) < 1.0 - 0.97**hours
        kept = 0.9 * self._wander + draw.normal(0.0, 0.012, shape)
        self._wander = np.where(moves, kept, self._wander)
        self._deal_hours = self._deal_hours - hours
        ends = self._deal_hours <= 0
        begins = ends & (draw.random(shape) < 1.0 - 0.9985**hours)
        depth = np.log(draw.uniform(0.85, 0.95, shape))
        length = draw.integers(24, 96, shape)
        self._deal = np.where(begins, depth, np.where(ends, 0.0, self._deal))
        self._deal_hours = np.where(begins, length, self._deal_hours)

    def _watched(self) -> list[Fact]:
        asked = self.rival_prices()
        return [
            self.offer(row, f"rival-{rival}", asked[row, rival], f"watch-{feed}")
            for row in range(self.listings)
            for rival in range(LAYOUTS[row % len(LAYOUTS)][0])
            for feed in range(self.feeds(row))
        ]

    def _counted(self, row: int) -> Fact:
        return StockCounted(
            retailer=RETAILER,
            channel=CHANNEL,
            sku=self.sku(row),
            units=int(self._stock[row]),
            observed_ms=self.now_ms,
        )
