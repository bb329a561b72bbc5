"""The markdown world: too much stock, a season's end, prices that only go down.

Demand of a listing is constant but for noise, its elasticity and level are unknown, and what is
left over is worth little. The fluid bound (demand as a flow, everything known) is a true upper
bound on what any policy earns in expectation.
"""

import numpy as np

SALVAGE_SHARE = 0.075
SEASON_DAYS = 84


class SeasonWorld:
    """One overstocked season of one seed. ``sell`` a day at a time."""

    def __init__(self, seed: int, listings: int) -> None:
        draw = np.random.default_rng([seed, 2])
        self.seed, self.listings, self.day = seed, listings, 0
        self.list_price = np.round(np.exp(draw.normal(8.0, 0.5, listings))) + 500.0
        self.salvage = np.round(SALVAGE_SHARE * self.list_price)
        self.elasticity = np.clip(draw.normal(-2.3, 0.5, listings), -4.5, -1.3)
        self.rate = 0.5 * np.exp(0.8 * draw.normal(size=listings))  # units a day at list price
        over = np.exp(draw.normal(0.75, 0.4, listings))
        self.opening = np.maximum(np.round(self.rate * SEASON_DAYS * over), 4.0)
        self.stock = self.opening.copy()
        self.earned = 0.0

    def sell(self, price: np.ndarray) -> np.ndarray:
        """Let a day pass; return int64[listings], units sold."""
        draw = np.random.default_rng([self.seed, 3, self.day])
        demand = self.rate * (price / self.list_price) ** self.elasticity
        demand = demand * draw.gamma(5.0, 0.2, self.listings)
        sold = np.minimum(draw.poisson(demand), self.stock)
        self.stock = self.stock - sold
        self.earned += float((sold * price).sum())
        self.day += 1
        return np.asarray(sold.astype(np.int64))

    def final(self) -> float:
        """Return what the season earned, salvage included."""
        return self.earned + float((self.stock * self.salvage).sum())

    def fluid_bound(self) -> float:
        """Return the most that demand as a flow, with everything known, would earn."""
        whole = self.rate * SEASON_DAYS
        run_out = self.list_price * (self.opening / whole) ** (1.0 / self.elasticity)
        worth = self.salvage * self.elasticity / (1.0 + self.elasticity)
        price = np.minimum(np.maximum(run_out, worth), self.list_price)
        sold = np.minimum(whole * (price / self.list_price) ** self.elasticity, self.opening)
        return float((sold * price + (self.opening - sold) * self.salvage).sum())
