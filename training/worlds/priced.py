"""The exam's worlds: a catalogue, sixty days of history, and then a market that answers our prices.

A world is written to the protocol of the simulated half of the exam. Whoever prices sees prices,
his own sales, one rival's price and costs, and never the parameters. All policies meet the same
random numbers. Profit is counted on *expected* demand at the chosen price, so that luck does not
count; where deliveries bring less than is wanted, on no more of it than lies on the shelf.

Units. Prices are floats in minor units here, because published rivals know no cents; the shard's
are integers. Elasticity is negative. A day is a number, from ``-HISTORY_DAYS`` on.
"""

from collections.abc import Iterator

import numpy as np
from msgspec import Struct

from training.worlds.settings import HISTORY_DAYS, Setting

WEEKDAYS = np.log(np.array([0.86, 0.88, 0.92, 0.98, 1.16, 1.26, 0.94]))
"""Demand of Monday to Sunday against an average day, in logs."""

RANGE_LOW, RANGE_HIGH, MARGIN_MIN = 0.7, 1.4, 0.05
"""Guardrails: a share of today's price, and the least margin on the price."""

ELASTICITY_STEEPEST, ELASTICITY_FLATTEST = -6.0, -1.25
GRID_POINTS = 281
"""Prices among which the clairvoyant looks where no formula gives the best: a quarter per cent."""


class Day(Struct, frozen=True, eq=False):
    """What a policy is shown of one day, one element a listing."""

    price: np.ndarray  # what customers paid
    units: np.ndarray  # int64
    rival: np.ndarray
    in_stock: np.ndarray  # bool: was to be had all day


class PricedWorld:
    """One market of one seed. ``history`` first, then ``sell`` a day at a time."""

    def __init__(self, setting: Setting, seed: int, listings: int, days: int) -> None:
        self.setting, self.seed, self.listings, self.days = setting, seed, listings, days
        draw = np.random.default_rng([seed, 0])
        self.group = np.sort(draw.integers(0, setting.groups, listings))
        # Brands have a draw of their own, so that other worlds are what they were without them.
        self._brands = np.random.default_rng([seed, 2])
        self.brand = self._brands.integers(0, max(setting.brands, 1), listings)
        self.elasticity = self._elasticities(draw)
        self.volume = setting.volume_median * np.exp(setting.volume_sd * draw.normal(size=listings))
        self.today = np.round(np.exp(draw.normal(7.6, 0.7, listings))) + 300.0
        self.cost = self._costs(draw)
        low = np.maximum(RANGE_LOW * self.today, self.cost / (1.0 - MARGIN_MIN))
        self.low, self.high = np.ceil(low), np.floor(RANGE_HIGH * self.today)
        # A world may hold a listing that sells at a loss today; its guardrails must not cross.
        self.high = np.maximum(self.high, self.low)
        self._path(draw)
        self._deliveries()
        self.day = -HISTORY_DAYS
        self._rival_pull = np.zeros(listings)
        self._expected_log = np.zeros(listings)  # the price that customers expect, over today's
        self._held: np.ndarray | None = None  # the clairvoyant's, where expectations follow prices
        self._stock = np.full(listings, np.inf)
        if setting.delivery_days > 0:
            self._stock = self._delivered[0].astype(np.float64)

    # ----- drawing -------------------------------------------------------------------------------

    def _elasticities(self, draw: np.random.Generator) -> np.ndarray:
        setting = self.setting
        group = draw.normal(0.0, 1.0, setting.groups)[self.group]
        own = draw.normal(0.0, 1.0, self.listings)
        if setting.law == "lognormal":
            spread = np.hypot(setting.group_sd, setting.listing_sd) / abs(setting.elasticity)
            share = setting.group_sd / np.hypot(setting.group_sd, setting.listing_sd)
            noise = spread * (share * group + np.sqrt(1 - share**2) * own)
            drawn = setting.elasticity * np.exp(noise - 0.5 * spread**2)
        elif setting.law == "uniform":
            drawn = draw.uniform(-4.5, -1.4, self.listings) + 0.3 * group
        else:
            drawn = setting.elasticity + setting.group_sd * group + setting.listing_sd * own
        if setting.brand_sd > 0:
            of = self._brands.normal(0.0, setting.brand_sd, (setting.groups, setting.brands))
            drawn = drawn + of[self.group, self.brand]
        return np.asarray(np.clip(drawn, setting.steepest, ELASTICITY_FLATTEST))

    def _costs(self, draw: np.random.Generator) -> np.ndarray:
        """Set costs so that today's price is off its optimum, or by a rule of thumb."""
        setting = self.setting
        error = draw.normal(0.0, setting.manager_sd, self.listings)
        error += setting.bias + draw.normal(0.0, setting.bias_sd, setting.groups)[self.group]
        best = self.today * np.exp(-error)
        cost = best * (1.0 + self.elasticity) / self.elasticity
        if setting.keystone_share > 0:
            markup = draw.choice([1.4, 1.5, 1.6, 2.0], setting.groups)[self.group]
            ruled = draw.random(self.listings) < setting.keystone_share
            cost = np.where(ruled, self.today / markup, cost)
        if setting.costs_clipped:
            cost = np.minimum(cost, self.today * (1.0 - MARGIN_MIN))
        return np.asarray(np.maximum(np.round(cost), 1.0))

    def _path(self, draw: np.random.Generator) -> None:
        """Draw all that does not depend on our prices: seasons, shocks, drift, rivals' whims."""
        setting, total = self.setting, HISTORY_DAYS + self.days
        phase = draw.uniform(0, 2 * np.pi, setting.groups)
        day = np.arange(total)
        season = setting.season * np.sin(2 * np.pi * day[:, None] / 180.0 + phase)
        self._common = WEEKDAYS[day % 7, None] + season
        if setting.black_friday:
            self._common[HISTORY_DAYS + self.days // 2 : HISTORY_DAYS + self.days // 2 + 3] += (
                np.log(5.0)
            )
        shock = np.zeros((total, self.listings))
        lasting = setting.shock_sd / np.sqrt(1 - setting.shock_memory**2)
        shock[0] = draw.normal(0, lasting, self.listings)
        for at in range(1, total):
            shock[at] = setting.shock_memory * shock[at - 1]
            shock[at] += draw.normal(0, setting.shock_sd, self.listings)
        self._shock = shock
        drift = draw.normal(0, setting.drift_sd, (total, self.listings))
        drift[:HISTORY_DAYS] = 0.0
        self._drift = np.cumsum(drift, axis=0)
        whim = np.zeros((total, self.listings))
        for at in range(1, total):
            whim[at] = 0.95 * whim[at - 1] + draw.normal(0, 0.01, self.listings)
        self._whim = whim + draw.normal(0, 0.02, self.listings)
        weeks = (total + 6) // 7
        noise = draw.normal(0, setting.history_sd, (weeks, self.listings))
        endogenous = setting.endogeneity * shock[::7][:weeks]
        self._history_log = np.repeat(noise + endogenous, 7, axis=0)[:HISTORY_DAYS]

    def _deliveries(self) -> None:
        """Draw when deliveries come and what they bring: what our prices sell changes neither."""
        setting = self.setting
        total = HISTORY_DAYS + self.days
        self._next = np.zeros((total, self.listings), dtype=np.int64)
        self._delivered = np.zeros((total + 1, self.listings), dtype=np.int64)
        if setting.delivery_days <= 0:
            return
        draw = np.random.default_rng([self.seed, 3])
        share = setting.delivery_share + draw.uniform(-0.2, 0.2, self.listings)
        units = np.maximum(np.round(share * self.volume * setting.delivery_days), 1).astype(
            np.int64
        )
        self._delivered[0] = units
        since = draw.uniform(0.0, 1.0, self.listings) * setting.delivery_days
        day = np.maximum(np.round(setting.delivery_days - since), 1).astype(np.int64)
        at, last = np.arange(self.listings), np.zeros(self.listings, dtype=np.int64)
        while (last < total).any():
            for row in at[last < total].tolist():
                self._next[last[row] : day[row], row] = day[row]
            inside = day <= total
            self._delivered[day[inside], at[inside]] = units[inside]
            off = draw.uniform(-1.0, 1.0, self.listings) * setting.delivery_scatter
            last = day
            day = last + np.maximum(np.round(setting.delivery_days * (1.0 + off)), 1).astype(int)
        swings = np.exp(self._common[:, self.group] + self._shock)
        self._wanted = np.concatenate([np.zeros((1, self.listings)), np.cumsum(swings, axis=0)])

    # ----- what there is -------------------------------------------------------------------------

    def elasticities(self) -> np.ndarray:
        """Return today's true elasticities."""
        return self._elasticities_at(self.day + HISTORY_DAYS)

    def _elasticities_at(self, at: int) -> np.ndarray:
        drifted = self.elasticity + self._drift[at]
        return np.asarray(np.clip(drifted, self.setting.steepest, ELASTICITY_FLATTEST))

    def rival_price(self) -> np.ndarray:
        """Return today's rival prices, as customers see them."""
        return self._rival_at(self.day + HISTORY_DAYS)

    def _rival_at(self, at: int) -> np.ndarray:
        return np.asarray(self.today * np.exp(self._whim[at] + self._rival_pull))

    def stock(self) -> np.ndarray:
        """Return what lies on the shelves; infinite where nothing runs out."""
        return self._stock

    def history(self) -> Iterator[Day]:
        """Give the days before we price; prices are the managers'."""
        while self.day < 0:
            price = self.today * np.exp(self._history_log[self.day + HISTORY_DAYS])
            price = np.clip(np.round(price), self.low, self.high)
            yield self.sell(price)

    def expected(self, price: np.ndarray) -> np.ndarray:
        """Return float64[listings] (or [listings, n] for such prices), units expected today."""
        expected_log = self._expected_log
        return self._expected(price, expected_log[:, None] if price.ndim == 2 else expected_log)

    def _expected(self, price: np.ndarray, expected_log: np.ndarray, later: int = 0) -> np.ndarray:
        """Return units expected so many days later, at the price that customers expect then.

        Args:
            expected_log: of the shape of ``price``, or one a listing.
        """
        shape = (-1, 1) if price.ndim == 2 else (-1,)

        def cut(column: np.ndarray) -> np.ndarray:
            return np.asarray(column.reshape(shape))

        setting, at = self.setting, self.day + later + HISTORY_DAYS
        seen = price
        if setting.charm > 0:
            hundred = np.floor(price / 100.0) * 100.0
            seen = np.maximum((1 - setting.charm) * price + setting.charm * hundred, 1.0)
        move = np.log(seen / cut(self.today))
        level = np.log(self.volume) + self._common[at, self.group] + self._shock[at]
        rival = np.log(self._rival_at(at) / self.today)
        felt = move
        if setting.gain != 1.0 or setting.loss != 1.0:
            off = move - expected_log
            felt = expected_log + np.where(off > 0.0, setting.loss, setting.gain) * off
        level = cut(level + setting.rival_pull * rival)
        elasticity = cut(self._elasticities_at(at))
        demand = level + elasticity * felt
        if setting.form == "logit":
            # A share that saturates: the same slope at today's price, less of it further down.
            share = 0.3
            slope = elasticity / (1.0 - share)
            value = slope * (seen / cut(self.today) - 1.0)
            odds = share / (1.0 - share) * np.exp(value)
            demand = level + np.log(odds / (1.0 + odds) / share)
        elif setting.form in ("exponential", "mixed"):
            value = seen / cut(self.today) - 1.0
            if setting.form == "mixed":
                value = np.where(cut(self.group % 2 == 0), move, value)
            demand = level + elasticity * value
        return np.asarray(np.exp(demand - setting.curvature * move**2))

    def profit(self, price: np.ndarray) -> np.ndarray:
        """Return float64[listings], today's expected profit at these prices."""
        expected = self.expected(price)
        if self.setting.delivery_days > 0:
            shelf = self._stock.reshape((-1, 1) if price.ndim == 2 else (-1,))
            expected = np.minimum(expected, shelf)
        return np.asarray((price - self.cost) * expected)

    def best_price(self) -> np.ndarray:
        """Return what a clairvoyant asks today; toward the rival he is myopic.

        Where customers come to expect what they were asked, he holds the one price that earns most
        until the world's end, what it costs and gains on the way counted in.
        """
        setting = self.setting
        plain = setting.form == "constant" and setting.curvature == 0 and setting.charm == 0
        plain &= setting.gain == setting.loss == 1.0
        assert plain or setting.delivery_days == 0
        if plain:
            slope = self.elasticities()
            best = self.cost * slope / (1.0 + slope)
            if setting.delivery_days > 0:
                best = np.maximum(best, self._run_out_price())
            return np.asarray(np.clip(best, self.low, self.high))
        steps = np.linspace(0.0, 1.0, GRID_POINTS)
        grid = np.exp(np.log(self.low)[:, None] + np.log(self.high / self.low)[:, None] * steps)
        if setting.charm > 0:
            grid = np.floor(grid / 100.0) * 100.0 + 99.0
            grid = np.clip(grid, self.low[:, None], self.high[:, None])
        if setting.gain != setting.loss:
            # The best price may be the very one that is expected, and lies on no grid.
            kink = np.clip(self.today * np.exp(self._expected_log), self.low, self.high)
            grid = np.concatenate([grid, kink[:, None]], axis=1)
        if setting.expects_days > 0.0:
            return self._best_to_hold(grid)
        gain = (grid - self.cost[:, None]) * self.expected(grid)
        return np.asarray(grid[np.arange(self.listings), gain.argmax(axis=1)])

    def _run_out_price(self) -> np.ndarray:
        """Return the price at which what is on the shelf just lasts to the next delivery."""
        at, rows = self.day + HISTORY_DAYS, np.arange(self.listings)
        until = np.minimum(self._next[at], len(self._wanted) - 1)
        ahead = self._wanted[until, rows] - self._wanted[at, rows]
        # A day beyond the last that was drawn is like the last.
        later = self._next[at] - until
        ahead = ahead + later * (self._wanted[-1] - self._wanted[-2])
        today = self.expected(self.today) / (self._wanted[at + 1] - self._wanted[at])
        short = np.maximum(self._stock, 0.5) / (today * ahead)
        return np.asarray(self.today * short ** (1.0 / self.elasticities()))

    def _best_to_hold(self, grid: np.ndarray) -> np.ndarray:
        if self._held is None:
            move = np.log(grid / self.today[:, None])
            expected_log = np.repeat(self._expected_log[:, None], grid.shape[1], axis=1)
            units = np.zeros(grid.shape)
            for later in range(self.days - self.day):
                units += self._expected(grid, expected_log, later)
                expected_log += self._follows * (move - expected_log)
            gain = (grid - self.cost[:, None]) * units
            self._held = np.asarray(grid[np.arange(self.listings), gain.argmax(axis=1)])
        return self._held

    @property
    def _follows(self) -> float:
        """How much of its distance to the price the expected price makes up in a day."""
        days = self.setting.expects_days
        return -float(np.expm1(-1.0 / days)) if days > 0.0 else 0.0

    # ----- what happens --------------------------------------------------------------------------

    def sell(self, price: np.ndarray) -> Day:
        """Let a day pass at these prices, and return what is seen of it."""
        setting = self.setting
        draw = np.random.default_rng([self.seed, 1, self.day + HISTORY_DAYS])
        rival = self.rival_price()
        demand = self.expected(price)
        if setting.dispersion > 0:
            demand = demand * draw.gamma(setting.dispersion, 1 / setting.dispersion, self.listings)
        units = draw.poisson(np.minimum(demand, 1e7))
        in_stock = np.ones(self.listings, dtype=bool)
        if setting.stock_days > 0:
            units, in_stock = self._from_stock(units, draw)
        elif setting.delivery_days > 0:
            units = np.minimum(units, self._stock).astype(np.int64)
            in_stock = self._stock > units
            # Deliveries come when the day's customers have gone.
            self._stock = self._stock - units + self._delivered[self.day + HISTORY_DAYS + 1]
        told = rival
        if setting.poisoned_share > 0:
            bad = draw.random(self.listings) < setting.poisoned_share
            told = np.where(bad, rival * draw.choice([0.01, 0.3, 0.6, 3.0], self.listings), rival)
        if setting.rival_follows > 0:
            under = np.minimum(np.log(price / self.today), 0.0)
            aim = setting.rival_follows * under
            self._rival_pull += 0.5 * (aim - self._rival_pull)
        off = np.log(price / self.today) - self._expected_log
        self._expected_log = self._expected_log + self._follows * off
        self.day += 1
        return Day(price, units, np.maximum(told, 1.0), in_stock)

    def _from_stock(
        self, units: np.ndarray, draw: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cut sales at the stock, and refill at random: every now and then a shelf is empty."""
        full = np.maximum(np.round(self.volume * self.setting.stock_days), 3.0)
        self._stock = np.minimum(self._stock, full)
        sold = np.minimum(units, self._stock).astype(np.int64)
        self._stock = self._stock - sold
        in_stock = self._stock > 0
        refill = draw.random(self.listings) < 1.0 / self.setting.stock_days * 1.4
        self._stock = np.where(refill, full, self._stock)
        return sold, in_stock
