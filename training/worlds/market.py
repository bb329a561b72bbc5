"""A market that answers our prices: demand, rivals that react, stock that runs out and is refilled.

The world of the exam in small. Elasticities come from groups, volumes are log-normal, demand has a
week, a season a group and shocks that last, and today's price is off its optimum by 15 %. Whoever
prices sees prices, sales, rivals, costs and stock, and never the parameters. A market is a function
of its seed and of the prices and times it was given; it holds no clock.

Units. Money in minor units, volumes in units a day, times in unix milliseconds.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum

import numpy as np
from msgspec import Struct

from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    FeesChanged,
    ListingChanged,
    PolicyChanged,
    RetailerAdded,
    StockCounted,
    UnitsSold,
)
from engine.routing import key64
from kernels.limits import PRICE_MINOR_MAX

DAY_MS = 86_400_000
WEEKDAYS = np.array([0.86, 0.88, 0.92, 0.98, 1.16, 1.26, 0.94])
"""Demand of Monday to Sunday, as a share of an average day."""


class Temper(IntEnum):
    """How a rival answers our price."""

    STEADY = 0  # hardly ever moves
    FOLLOWER = 1  # comes after us, near our price
    UNDERCUTTER = 2  # one percent below us, down to his own floor
    RANDOMISER = 3  # wherever he likes


class Channel(Struct, frozen=True, kw_only=True):
    """Where the market's retailer sells, and what it takes of a sale."""

    name: str
    vat: float = 0.19
    commission: float = 0.0
    fixed_fee_minor: int = 0
    minimum_fee_minor: int = 0


SHOP = Channel(name="shop")
MARKETPLACE = Channel(name="marketplace", commission=0.12, fixed_fee_minor=35, minimum_fee_minor=50)


class World(Struct, frozen=True, kw_only=True):
    """What kind of market it is; the defaults are the exam's base world."""

    retailer: str = "demo"
    currency: str = "EUR"
    mode: str = "live"
    channels: tuple[Channel, ...] = (SHOP, MARKETPLACE)
    groups: int = 20
    rivals: int = 3
    kvi_share: float = 0.05
    map_share: float = 0.03
    elasticity_mean: float = -2.6
    elasticity_group_sd: float = 0.6
    elasticity_sku_sd: float = 0.7
    volume_median: float = 3.0
    volume_sd: float = 1.2
    manager_sd: float = 0.15  # how far today's price is off its optimum, in log price
    shock_memory: float = 0.9  # a day
    shock_sd: float = 0.12
    dispersion: float = 5.0
    rival_pull: float = 0.3  # gamma: demand gained for a rival who is dearer, in logs
    rival_reactions_per_day: float = 4.0
    rival_looks_per_day: float = 6.0  # how often a price that did not move is seen again
    cost_changes_per_day: float = 0.02
    stock_days: float = 21.0
    refill_days: float = 3.0
    poisoned_share: float = 0.0  # of rivals' prices seen: a hundredth of what they are
    start_ms: int = 1_767_225_600_000


BASE = World()
"""The exam's base world."""


class Market:
    """One retailer's market: ``opening`` tells what there is, ``advance`` what then happened.

    Rows are listings in the order SKU, channel. Only ``advance`` and what it calls change state.
    """

    _elasticity: np.ndarray  # float64[listings], what nobody but the market knows
    _volume: np.ndarray  # units of an average day at today's prices
    _shock: np.ndarray  # what lifts or lowers demand just now, in logs
    _price: np.ndarray  # int64, what customers see
    _cost: np.ndarray
    _stock: np.ndarray
    _full: np.ndarray  # stock after a delivery
    _arrives_ms: np.ndarray  # when the next delivery comes, 0: none is ordered
    _rival: np.ndarray  # float64[listings, rivals], as the others here
    _rival_home: np.ndarray  # where a rival comes back to
    _rival_floor: np.ndarray

    def __init__(self, seed: int, listings: int, world: World = BASE) -> None:
        assert listings > 0
        self.world = world
        self._draw = np.random.default_rng(seed)
        channels = len(world.channels)
        number = np.arange(listings)
        self._sku = number // channels
        self._channel = number % channels
        self.keys = tuple(
            key64(world.retailer, self._channel_of(row).name, self._sku_of(row))
            for row in number.tolist()
        )
        self._row = {key: row for row, key in enumerate(self.keys)}
        assert len(self._row) == listings
        self._draw_demand()
        self._draw_prices()
        self._draw_rivals()
        self._now_ms = world.start_ms
        self._sold = 0  # number of sales told: the source's sequence

    # ----- what there is -------------------------------------------------------------------------

    def opening(self) -> list[AnyDelta]:
        """Return the deltas that make the market known: retailer, policies, listings, facts."""
        world, at_ms = self.world, self._now_ms
        told: list[AnyDelta] = [
            RetailerAdded(
                retailer=world.retailer,
                currency=world.currency,
                observed_ms=at_ms,
                name="Demo",
                primary_channel=world.channels[0].name,
                mode="live" if world.mode == "live" else "shadow",
            ),
            PolicyChanged(
                retailer=world.retailer, scope="retailer", fields=POLICY, observed_ms=at_ms
            ),
            *(
                FeesChanged(
                    retailer=world.retailer,
                    channel=channel.name,
                    vat=channel.vat,
                    commission=channel.commission,
                    fixed_fee_minor=channel.fixed_fee_minor,
                    minimum_fee_minor=channel.minimum_fee_minor,
                    observed_ms=at_ms,
                )
                for channel in world.channels
            ),
        ]
        told += [self._listing(row) for row in range(len(self.keys))]
        told += [self._counted(row) for row in range(len(self.keys))]
        for row in range(len(self.keys)):
            told += [self._seen(row, rival) for rival in range(world.rivals)]
        return told

    def prices(self) -> dict[int, int]:
        """Return the prices that customers see, by listing key."""
        return dict(zip(self.keys, self._price.tolist(), strict=True))

    def expected_profit(self, prices: Mapping[int, int]) -> float:
        """Return the expected profit of a day at these prices, in minor units, season aside."""
        price = self._with(prices)
        return float((self._unit_profit(price) * self._volume_at(price)).sum())

    def best_prices(self) -> dict[int, int]:
        """Return what somebody who knew every parameter would ask, rivals as they stand."""
        channel = self._terms()
        pull = self._elasticity - self.world.rival_pull
        kept = 1.0 / (1.0 + channel["vat"]) - channel["commission"]
        best = (self._cost + channel["fixed"]) / kept * pull / (1.0 + pull)
        floor = np.maximum(np.rint(best), 1).astype(np.int64)
        return dict(zip(self.keys, floor.tolist(), strict=True))

    # ----- what then happens ---------------------------------------------------------------------

    def advance(self, prices: Mapping[int, int], now_ms: int) -> list[AnyDelta]:
        """Let the time pass until ``now_ms`` under these prices; return what was observed.

        ``prices`` maps listing keys to prices in force; one left out stays as it was.
        """
        assert now_ms >= self._now_ms
        days = (now_ms - self._now_ms) / DAY_MS
        self._now_ms = now_ms
        self._price = self._with(prices)
        told: list[AnyDelta] = []
        told += self._sell(days)
        told += self._restock(days)
        told += self._rivals_react(days)
        told += self._costs_move(days)
        return [told[place] for place in self._draw.permutation(len(told))]

    def _sell(self, days: float) -> list[AnyDelta]:
        """Sell what is wanted and in stock."""
        world, draw = self.world, self._draw
        memory = world.shock_memory**days
        noise = draw.normal(0.0, 1.0, len(self._price))
        self._shock = memory * self._shock + world.shock_sd * np.sqrt(1.0 - memory**2) * noise
        wanted_mean = self._volume_at(self._price) * self._season() * np.exp(self._shock) * days
        k = world.dispersion
        wanted = draw.negative_binomial(k, k / (k + np.minimum(wanted_mean, 1e6)))
        units = np.minimum(wanted, self._stock)
        self._stock = self._stock - units
        told: list[AnyDelta] = []
        for row in np.flatnonzero(units).tolist():
            self._sold += 1
            told.append(
                UnitsSold(
                    retailer=world.retailer,
                    channel=self._channel_of(row).name,
                    sku=self._sku_of(row),
                    units=int(units[row]),
                    price_minor=int(self._price[row]),
                    source="tills",
                    source_seq=self._sold,
                    observed_ms=self._now_ms,
                )
            )
        return told

    def _restock(self, days: float) -> list[AnyDelta]:
        """Order what has run out, and count what has arrived."""
        out = (self._stock == 0) & (self._arrives_ms == 0)
        wait_ms = self._draw.exponential(self.world.refill_days * DAY_MS, len(out)).astype(np.int64)
        arrived = (self._arrives_ms > 0) & (self._arrives_ms <= self._now_ms)
        self._arrives_ms = np.where(arrived, 0, self._arrives_ms)
        self._arrives_ms = np.where(out, self._now_ms + 1 + wait_ms, self._arrives_ms)
        self._stock = np.where(arrived, self._full, self._stock)
        counted = arrived | out | (self._draw.random(len(out)) < -np.expm1(-days))
        return [self._counted(row) for row in np.flatnonzero(counted).tolist()]

    def _rivals_react(self, days: float) -> list[AnyDelta]:
        """Let some rivals look at our price and answer, each by his temper."""
        world, draw = self.world, self._draw
        shape = self._rival.shape
        reacts = draw.random(shape) < -np.expm1(-world.rival_reactions_per_day * days)
        ours = self._price[:, None].astype(np.float64)
        near = ours * np.exp(draw.normal(0.0, 0.01, shape))
        anywhere = self._rival_home * np.exp(draw.normal(0.0, 0.08, shape))
        nudged = self._rival * np.exp(draw.normal(0.0, 0.01, shape))
        answer = np.select(
            [
                self._temper == Temper.FOLLOWER,
                self._temper == Temper.UNDERCUTTER,
                self._temper == Temper.RANDOMISER,
            ],
            [0.5 * near + 0.5 * self._rival_home, ours * 0.99, anywhere],
            nudged,
        )
        reacts &= (self._temper != Temper.STEADY) | (draw.random(shape) < 0.02)
        answer = np.clip(np.rint(np.maximum(answer, self._rival_floor)), 1, PRICE_MINOR_MAX)
        before = self._rival
        self._rival = np.where(reacts, answer, before)
        looked = draw.random(shape) < -np.expm1(-world.rival_looks_per_day * days)
        seen = np.argwhere((self._rival != before) | looked)
        return [self._seen(row, rival) for row, rival in seen.tolist()]

    def _costs_move(self, days: float) -> list[AnyDelta]:
        """Let a few costs move by a few percent."""
        moved = self._draw.random(len(self._cost)) < -np.expm1(
            -self.world.cost_changes_per_day * days
        )
        factor = np.exp(self._draw.normal(0.0, 0.03, len(self._cost)))
        cost = np.maximum(np.rint(self._cost * factor), 1)
        self._cost = np.where(moved, cost, self._cost)
        return [
            CostChanged(
                retailer=self.world.retailer,
                channel=self._channel_of(row).name,
                sku=self._sku_of(row),
                cost_minor=int(self._cost[row]),
                observed_ms=self._now_ms,
            )
            for row in np.flatnonzero(moved).tolist()
        ]

    # ----- drawing the world ---------------------------------------------------------------------

    def _draw_demand(self) -> None:
        world, draw = self.world, self._draw
        skus = int(self._sku[-1]) + 1
        self._group = draw.integers(0, world.groups, skus)[self._sku]
        group_mean = draw.normal(world.elasticity_mean, world.elasticity_group_sd, world.groups)
        own = draw.normal(0.0, world.elasticity_sku_sd, skus)[self._sku]
        self._elasticity = np.clip(group_mean[self._group] + own, -6.0, -1.25)
        volume = world.volume_median * np.exp(draw.normal(0.0, world.volume_sd, skus))
        channel_share = draw.dirichlet(np.full(len(world.channels), 4.0))
        self._volume = volume[self._sku] * channel_share[self._channel] * len(world.channels)
        self._season_phase = draw.uniform(0.0, 2 * np.pi, world.groups)
        self._season_height = draw.uniform(0.0, 0.25, world.groups)
        self._shock = draw.normal(0.0, world.shock_sd, len(self._sku))

    def _draw_prices(self) -> None:
        world, draw = self.world, self._draw
        skus = int(self._sku[-1]) + 1
        level = np.exp(draw.normal(np.log(2_000), 0.9, skus))[self._sku]
        self._price = np.clip(np.rint(level / 10) * 10 - 1, 99, 500_000).astype(np.int64)
        self._reference = self._price.astype(np.float64)
        # The cost that would make today's price right, had the manager not erred.
        terms = self._terms()
        pull = self._elasticity - world.rival_pull
        error = draw.normal(0.0, world.manager_sd, len(self._price))
        kept = 1.0 / (1.0 + terms["vat"]) - terms["commission"]
        right = self._price * np.exp(-error) * (1.0 + pull) / pull
        self._cost = np.maximum(np.rint(right * kept - terms["fixed"]), 1.0)
        self._full = np.maximum(np.rint(self._volume * world.stock_days), 5).astype(np.int64)
        self._stock = draw.integers(0, self._full + 1)
        self._arrives_ms = np.zeros(len(self._price), dtype=np.int64)
        self._kvi = draw.random(skus)[self._sku] < world.kvi_share
        self._map = np.where(
            draw.random(skus)[self._sku] < world.map_share, np.rint(self._price * 0.9), 0
        ).astype(np.int64)

    def _draw_rivals(self) -> None:
        world, draw = self.world, self._draw
        shape = (len(self._price), world.rivals)
        self._temper = draw.choice(len(Temper), size=world.rivals, p=[0.3, 0.3, 0.2, 0.2])
        self._temper = np.broadcast_to(self._temper, shape)
        home = self._reference[:, None] * np.exp(draw.normal(0.0, 0.06, shape))
        self._rival_home = np.rint(np.maximum(home, 1))
        self._rival_floor = np.rint(self._rival_home * 0.75)
        self._rival = self._rival_home.copy()

    # ----- demand and money ----------------------------------------------------------------------

    def _volume_at(self, price: np.ndarray) -> np.ndarray:
        """Return the expected units of an average day at these prices."""
        own = self._elasticity * np.log(price / self._reference)
        if not self.world.rivals:
            return np.asarray(self._volume * np.exp(own))
        dearer = np.log(self._rival / price[:, None]).mean(axis=1)
        return np.asarray(self._volume * np.exp(own + self.world.rival_pull * dearer))

    def _season(self) -> np.ndarray:
        day = self._now_ms / DAY_MS
        week = WEEKDAYS[int(day + 3) % 7]  # 1 January 1970 was a Thursday
        year = 2 * np.pi * day / 365.25 + self._season_phase
        return np.asarray(week * np.exp(self._season_height * np.sin(year))[self._group])

    def _unit_profit(self, price: np.ndarray) -> np.ndarray:
        terms = self._terms()
        fee = np.maximum(terms["commission"] * price, terms["minimum"]) + terms["fixed"]
        return np.asarray(price / (1.0 + terms["vat"]) - fee - self._cost)

    def _terms(self) -> dict[str, np.ndarray]:
        channels = self.world.channels
        columns = {
            "vat": [channel.vat for channel in channels],
            "commission": [channel.commission for channel in channels],
            "fixed": [channel.fixed_fee_minor for channel in channels],
            "minimum": [channel.minimum_fee_minor for channel in channels],
        }
        return {name: np.array(values)[self._channel] for name, values in columns.items()}

    def _with(self, prices: Mapping[int, int]) -> np.ndarray:
        price = self._price.copy()
        for key, value in prices.items():
            row = self._row.get(key)
            if row is not None and value > 0:
                price[row] = value
        return price

    # ----- deltas --------------------------------------------------------------------------------

    def _channel_of(self, row: int) -> Channel:
        return self.world.channels[int(self._channel[row])]

    def _sku_of(self, row: int) -> str:
        return f"SKU-{int(self._sku[row]):06d}"

    def _listing(self, row: int) -> ListingChanged:
        group = int(self._group[row])
        price = int(self._price[row])
        return ListingChanged(
            retailer=self.world.retailer,
            channel=self._channel_of(row).name,
            sku=self._sku_of(row),
            title=f"{TITLES[group % len(TITLES)]} No. {int(self._sku[row])}",
            category=f"group-{group:02d}",
            tags=("kvi",) if self._kvi[row] else (),
            currency=self.world.currency,
            price_minor=price,
            cost_minor=int(self._cost[row]),
            rrp_minor=price * 5 // 4,
            map_minor=int(self._map[row]) or None,
            kvi=bool(self._kvi[row]),
            own_rival_names=(self.world.retailer,),
            observed_ms=self._now_ms,
        )

    def _counted(self, row: int) -> StockCounted:
        return StockCounted(
            retailer=self.world.retailer,
            channel=self._channel_of(row).name,
            sku=self._sku_of(row),
            units=int(self._stock[row]),
            observed_ms=self._now_ms,
        )

    def _seen(self, row: int, rival: int) -> CompetitorPriced:
        price = int(self._rival[row, rival])
        if self.world.poisoned_share and self._draw.random() < self.world.poisoned_share:
            price = max(price // 100, 1)
        return CompetitorPriced(
            retailer=self.world.retailer,
            channel=self._channel_of(row).name,
            sku=self._sku_of(row),
            rival=f"rival-{rival + 1}",
            price_minor=price,
            source=f"watch-{rival % 2 + 1}",
            observed_ms=self._now_ms,
        )


POLICY: dict[str, object] = {
    "min_margin": 0.05,
    "max_discount": 0.5,
    "step_max": 0.014,
    "changes_per_hour_max": 10,
    "kvi_rival_ratio_max": 1.1,
    "endings": ["99", "95", "49"],
}
"""The retailer's policy. Ten steps of 1.4 %, an hour's worth, stay below what the breaker calls a
large move, so a market that opens far off its best prices walks there instead of being halted."""

TITLES: Sequence[str] = (
    "Kettle", "Lamp", "Backpack", "Headphones", "Blanket", "Coffee", "Trainers", "Notebook",
    "Drill", "Teapot", "Racket", "Puzzle", "Saucepan", "Speaker", "Raincoat", "Bicycle light",
    "Shelf", "Hammock", "Perfume", "Keyboard",
)  # fmt: skip
