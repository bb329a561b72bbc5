"""A made shop whose demand is known, to train on."""

import numpy as np

from engine.routing import key64
from training.daily_sales import DailySales

WEEK = np.array([0.8, 0.85, 0.9, 1.0, 1.15, 1.35, 0.95])


def shop(listings: int = 60, days: int = 120, seed: int = 3) -> tuple[DailySales, np.ndarray]:
    """Return daily sales and the elasticities behind them: two categories, one steep."""
    draw = np.random.default_rng(seed)
    category = np.arange(listings) % 2
    elasticity = np.where(category == 0, -1.6, -4.0) + draw.normal(0.0, 0.3, listings)
    level = draw.lognormal(2.5, 0.5, listings)
    usual = draw.integers(800, 4000, listings).astype(np.float64)
    weekly = draw.normal(0.0, 0.09, (listings, days // 7 + 1))
    moved = np.repeat(weekly, 7, axis=1)[:, :days]
    price = np.rint(usual[:, None] * np.exp(moved))
    first = 20_000
    season = WEEK[(first + np.arange(days) + 3) % 7]
    expected = level[:, None] * season[None, :] * (price / usual[:, None]) ** elasticity[:, None]
    data = DailySales(
        retailer="acme",
        keys=np.array([key64("acme", "shop", f"S{n}") for n in range(listings)], dtype=np.uint64),
        category=category,
        categories=("flat", "steep"),
        first_day=first,
        units=draw.poisson(expected).astype(np.float64),
        price=price,
    )
    return data, elasticity
