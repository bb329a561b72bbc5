"""Sellers who answer the other side's price by a rule or by trial: whom the arena lets us meet.

A bot is made for one market and then asked once a period, for all listings at once: from what we
asked and what it asked itself to what it asks next. It sees no demand parameter but in its own
earnings, and nothing of ours but our price. None of them sells below a margin of 5 %.

Units. Prices in thousandths of the cost unit, as in ``training.worlds.duopoly``.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from training.worlds.duopoly import COST, UNIT, Duopoly

FLOOR = COST * UNIT / 0.95
"""The price of a 5 % margin: ours may not go below it, and neither do the bots."""

UNDERCUT, MARKUP = 0.99, 1.45


class Bot(Protocol):
    """The other side of the market."""

    def __call__(self, ours: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Return float64[listings], its next prices, from both sides' last ones."""
        ...


class Match:
    """Ask what we ask."""

    def __call__(self, ours: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Follow us at once, up and down."""
        return np.asarray(np.maximum(ours, FLOOR))


class Undercut:
    """Ask one percent less than we do."""

    def __call__(self, ours: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Stay below us, however low we go."""
        return np.maximum(UNDERCUT * ours, FLOOR)


class CostPlus:
    """Ask a fixed markup."""

    def __call__(self, ours: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Look at nobody."""
        return np.full_like(own, MARKUP * UNIT)


class TitForTat:
    """Begin at the cartel's price and answer each of our moves by the same move, cut or rise."""

    def __init__(self, market: Duopoly) -> None:
        self._most = market.monopoly()
        self._last: np.ndarray | None = None

    def __call__(self, ours: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Move as far as we moved since the last period, but never above the cartel's price."""
        if self._last is None:
            asked = self._most
        else:
            asked = np.clip(own * ours / self._last, FLOOR, self._most)
        self._last = ours.copy()
        return np.asarray(asked)


class War:
    """Keep the static equilibrium's price until we ask clearly less; then fight for four weeks.

    While it fights it asks five percent less than we do each day, down to its margin: whoever
    answers in kind is at the floor within a few weeks.
    """

    PROVOKED, CUT, LENGTH = 0.03, 0.95, 28

    def __init__(self, market: Duopoly) -> None:
        self._peace = market.nash()
        self._left = np.zeros(market.listings, dtype=np.int64)

    def __call__(self, ours: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Fight where a war is on or where we give it a cause."""
        cause = (self._left == 0) & (ours < (1.0 - self.PROVOKED) * self._peace)
        self._left = np.where(cause, self.LENGTH, np.maximum(self._left - 1, 0))
        return np.where(self._left > 0, np.maximum(self.CUT * ours, FLOOR), self._peace)


POINTS, REACH, GAIN, DISCOUNT = 15, 0.1, 0.15, 0.95
"""The literature's: prices it may ask, how far beyond Nash and monopoly they reach (as a share of
the way between them), how fast it learns, and what a period's earnings are worth in the one
before."""

TAUGHT_PERIODS, TAUGHT_DECAY = 250_000, 2e-5
"""How long two of its kind teach each other, and the decay of their exploring: at its end they try
something new in less than one period of a hundred."""


class QLearner:
    """A table of what each price is worth after each pair of last prices, learnt by trying.

    The agent of Calvano et al. (2020): memory of one period, 15 prices, an exploring share that
    decays exponentially. ``taught`` agents learnt against their own kind first, long enough to hold
    prices a tenth above the static equilibrium together; others know nothing, and explore until
    half of the bout is over.
    """

    def __init__(self, market: Duopoly, seed: int, periods: int, taught: bool) -> None:
        self._market, self._draw = market, np.random.default_rng([seed, 7])
        self._grid = price_grid(market)
        each = profits(market, self._grid)
        self._decay = np.log(100.0) / (0.5 * periods)
        self._explored = 1.0
        if taught:
            self.worth, self._explored = teach(each, self._draw), 0.01
        else:
            self.worth = unlearnt(each)
        self._each = np.arange(market.listings)
        self._before: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, ours: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Learn what the last price earned, and ask the best known or try another."""
        mine, other = self._nearest(own), self._nearest(ours)
        state = mine * POINTS + other
        if self._before is not None:
            earned = self._market.profit(own, ours)
            place = (self._each, self._before[0], self._before[1])
            then = earned + DISCOUNT * self.worth[self._each, state].max(axis=1)
            self.worth[place] += GAIN * (then - self.worth[place])
        tries = self._draw.random(len(own)) < self._explored
        drawn = self._draw.integers(POINTS, size=len(own))
        chosen = np.where(tries, drawn, self.worth[self._each, state].argmax(axis=1))
        self._explored *= np.exp(-self._decay)
        self._before = (state, chosen)
        return np.asarray(self._grid[self._each, chosen])

    def _nearest(self, price: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(self._grid - price[:, None]).argmin(axis=1))


def price_grid(market: Duopoly) -> np.ndarray:
    """Return float64[listings, POINTS], from a little below Nash to a little above monopoly."""
    low, high = market.nash(), market.monopoly()
    beyond = REACH * (high - low)
    steps = np.linspace(0.0, 1.0, POINTS)
    return np.asarray((low - beyond)[:, None] + (high - low + 2.0 * beyond)[:, None] * steps)


def profits(market: Duopoly, grid: np.ndarray) -> np.ndarray:
    """Return float64[listings, POINTS, POINTS], what own price and the other's earn."""
    return np.stack([market.profit(grid, grid[:, [other]]) for other in range(POINTS)], axis=2)


def unlearnt(each: np.ndarray) -> np.ndarray:
    """Return what prices are worth to an agent who thinks that the other one draws his.

    Returns:
        float64[listings, POINTS * POINTS, POINTS]: by own and other's last price, and the next.
    """
    worth = each.mean(axis=2) / (1.0 - DISCOUNT)
    return np.repeat(worth[:, None, :], POINTS * POINTS, axis=1)


def teach(
    each: np.ndarray,
    draw: np.random.Generator,
    periods: int = TAUGHT_PERIODS,
    decay: float = TAUGHT_DECAY,
) -> np.ndarray:
    """Let two agents play each other in every market, and return the first one's table.

    Prices are looked up and not asked of the market: the same earnings, a tenth of the time.
    """
    listings = len(each)
    both = np.stack([unlearnt(each), unlearnt(each)])
    side, row = np.arange(2)[:, None], np.arange(listings)[None, :]
    mine = draw.integers(POINTS, size=(2, listings))
    state = mine * POINTS + mine[::-1]
    block = 1_000
    for start in range(0, periods, block):
        tries = draw.random((block, 2, listings)) < np.exp(
            -decay * np.arange(start, start + block)[:, None, None]
        )
        drawn = draw.integers(POINTS, size=(block, 2, listings))
        for at in range(block):
            chosen = np.where(tries[at], drawn[at], both[side, row, state].argmax(axis=2))
            after = chosen * POINTS + chosen[::-1]
            then = each[row, chosen, chosen[::-1]] + DISCOUNT * both[side, row, after].max(axis=2)
            old = both[side, row, state, chosen]
            both[side, row, state, chosen] = old + GAIN * (then - old)
            state = after
    return np.asarray(both[0])


BOTS: dict[str, Callable[[Duopoly, int, int], Bot]] = {
    "match": lambda market, seed, periods: Match(),
    "undercut": lambda market, seed, periods: Undercut(),
    "cost_plus": lambda market, seed, periods: CostPlus(),
    "tit_for_tat": lambda market, seed, periods: TitForTat(market),
    "war": lambda market, seed, periods: War(market),
    "q_learner": lambda market, seed, periods: QLearner(market, seed, periods, taught=False),
    "q_taught": lambda market, seed, periods: QLearner(market, seed, periods, taught=True),
}
"""Who can be met, by name: made of a market, a seed and the length of the bout."""
