"""Published rules of pricing in the same worlds as the shard: who earns what.

Each meets the same random numbers as the shard and sees what it sees: prices, its own sales, the
rival's price and costs. Each keeps to the same guardrails and decides once a week, from all that
was seen so far; none knows a parameter. They are what shops do and papers compare with: the learner
with the monopoly mark-up is the rule of most tutorials.
"""

from collections.abc import Callable

import numpy as np
from msgspec import Struct

from training.worlds.priced import Day, PricedWorld

DECISION_DAYS = 7
STEEPEST, FLATTEST = -8.0, -1.15
"""Elasticities outside of these are taken for noise: the mark-up rule knows no price beyond."""

TELLING = 1e-4
"""A variance of log prices below this says nothing of a slope: the price stays."""

SLOW_UNITS = 0.5
"""Added to units before their logarithm is taken."""


class Past(Struct, eq=False):
    """What a rule has seen: days and listings, [days, listings] each."""

    log_price: list[np.ndarray]
    log_units: list[np.ndarray]
    rival: np.ndarray  # as last told

    def add(self, day: Day) -> None:
        """Take note of a day."""
        self.log_price.append(np.log(day.price))
        self.log_units.append(np.log(day.units + SLOW_UNITS))
        self.rival = day.rival


Rule = Callable[[PricedWorld, Past], np.ndarray]
"""Returns prices before guardrails. Of the world it looks at today's price, cost and group."""


def cost_plus(world: PricedWorld, past: Past) -> np.ndarray:
    """Return costs with the median mark-up of the catalogue."""
    return np.asarray(world.cost * np.median(world.today / world.cost))


def match_rival(world: PricedWorld, past: Past) -> np.ndarray:
    """Return the rival's price as it was last told."""
    return past.rival


def listing_ols(world: PricedWorld, past: Past) -> np.ndarray:
    """Return each listing's monopoly mark-up at its own log-log slope by least squares."""
    variance, covariance = _moments(past)
    return _marked_up(world, variance, covariance)


def group_ols(world: PricedWorld, past: Past) -> np.ndarray:
    """Return the mark-up at the slope of a listing's group, listings' own means taken out."""
    groups = world.setting.groups
    variance, covariance = (
        np.bincount(world.group, weights=of, minlength=groups)[world.group] for of in _moments(past)
    )
    return _marked_up(world, variance, covariance)


def _moments(past: Past) -> tuple[np.ndarray, np.ndarray]:
    price, units = np.stack(past.log_price), np.stack(past.log_units)
    off = price - price.mean(axis=0)
    return np.square(off).mean(axis=0), (off * (units - units.mean(axis=0))).mean(axis=0)


def _marked_up(world: PricedWorld, variance: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    told = variance > TELLING
    slope = np.clip(covariance / np.where(told, variance, 1.0), STEEPEST, FLATTEST)
    return np.where(told, world.cost * slope / (1.0 + slope), world.today)


PUBLISHED: dict[str, Rule] = {
    "cost_plus": cost_plus,
    "match_rival": match_rival,
    "listing_ols": listing_ols,
    "group_ols": group_ols,
}
"""In the order in which the table has them."""


def earned_by(rule: Rule, world: PricedWorld) -> float:
    """Let a rule price a fresh world to its end; return the expected profit."""
    past = Past([], [], world.rival_price())
    for day in world.history():
        past.add(day)
    price, earned = world.today, 0.0
    for number in range(world.days):
        if number % DECISION_DAYS == 0:
            price = np.clip(np.round(rule(world, past)), world.low, world.high)
        earned += float(world.profit(price).sum())
        past.add(world.sell(price))
    return earned


def earned_by_clairvoyant(world: PricedWorld) -> float:
    """Return what who knows everything earns in a fresh world of his own."""
    for _ in world.history():
        pass
    earned = 0.0
    for _ in range(world.days):
        price = world.best_price()
        earned += float(world.profit(price).sum())
        world.sell(price)
    return earned


def shares(make: Callable[[], PricedWorld]) -> dict[str, float]:
    """Return each rule's share of the clairvoyant's profit; ``make`` gives the same world anew."""
    best = earned_by_clairvoyant(make())
    return {name: earned_by(rule, make()) / best for name, rule in PUBLISHED.items()}


def told_share(share: float, fixed: float) -> str:
    """Return a share and how much of the way from doing nothing to knowing everything it is."""
    return f"{share:.4f} ({(share - fixed) / (1.0 - fixed):+.2f})"
