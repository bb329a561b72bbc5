"""Two sellers of the same kind of thing: logit demand, static Nash and joint-monopoly prices known.

The market of the literature on what algorithms do to each other (quality 2, cost 1, horizontal
differentiation 1/4, an outside good of worth 0), a listing a market, listings differing a little.

Units. Prices in thousandths of the cost unit, so that a price of 1.473 is 1473.
"""

import numpy as np

UNIT = 1000.0
QUALITY, COST, SPREAD = 2.0, 1.0, 0.25
CUSTOMERS = 60.0
GRID = np.linspace(1.02, 2.4, 1381)


class Duopoly:
    """Many such markets side by side; ``shares`` says who sells what at which prices."""

    def __init__(self, seed: int, listings: int) -> None:
        draw = np.random.default_rng([seed, 4])
        self.seed, self.listings, self.period = seed, listings, 0
        self.quality = QUALITY + draw.normal(0.0, 0.05, listings)
        self.spread = SPREAD * np.exp(draw.normal(0.0, 0.08, listings))

    def shares(self, mine: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Return float64[listings] (or [listings, n]), my share of customers at these prices."""
        shape = (-1, 1) if mine.ndim == 2 or other.ndim == 2 else (-1,)
        quality, spread = self.quality.reshape(shape), self.spread.reshape(shape)
        own = np.exp((quality - mine / UNIT) / spread)
        rival = np.exp((quality - other / UNIT) / spread)
        return np.asarray(own / (own + rival + 1.0))

    def profit(self, mine: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Return expected profit a period at these prices, in thousandths."""
        return np.asarray(CUSTOMERS * self.shares(mine, other) * (mine - UNIT * COST))

    def sell(self, mine: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Let a period pass; return units of both."""
        draw = np.random.default_rng([self.seed, 5, self.period])
        self.period += 1
        return (
            draw.poisson(CUSTOMERS * self.shares(mine, other)),
            draw.poisson(CUSTOMERS * self.shares(other, mine)),
        )

    def nash(self) -> np.ndarray:
        """Return float64[listings], the static equilibrium price of both."""
        price = np.full(self.listings, 1.5 * UNIT)
        for _ in range(60):
            gain = self.profit(GRID[None, :] * UNIT, price[:, None])
            price = 0.5 * price + 0.5 * GRID[gain.argmax(axis=1)] * UNIT
        return price

    def monopoly(self) -> np.ndarray:
        """Return float64[listings], the price that both would agree on."""
        grid = np.tile(GRID * UNIT, (self.listings, 1))
        return np.asarray(GRID[self.profit(grid, grid).argmax(axis=1)] * UNIT)
