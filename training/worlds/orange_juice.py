"""A chain of stores that sells orange juice: the shape of Dominick's data, made by us.

The public data set may be used in academic work and is not ours to ship. This table has its
columns, types and habits: 83 stores, 11 brands of 64, 96 or 128 ounces, one row a store, brand and
week; prices cut for a week or two at a time, with deal and feature; unit costs that follow some of
the cuts and are now and then absurd; units in multiples of the size; every brand's price per ounce
beside each row. Nothing in it is copied: brands, stores and numbers are drawn from a seed.
"""

import numpy as np
import pyarrow as pa

BRANDS: tuple[tuple[str, int, float, float], ...] = (
    # name, ounces, usual price of the package, share of cost in it
    ("Grove Select 64", 64, 2.89, 0.71),
    ("Grove Select 96", 96, 4.69, 0.73),
    ("Sunfield 64", 64, 2.85, 0.67),
    ("Grove 64", 64, 2.29, 0.69),
    ("Morning Press 64", 64, 2.25, 0.74),
    ("Morning Press 96", 96, 4.05, 0.73),
    ("Citronella 64", 64, 2.32, 0.75),
    ("Tall Tree 64", 64, 2.19, 0.69),
    ("Coast Gold 64", 64, 2.09, 0.71),
    ("House Label 64", 64, 1.75, 0.68),
    ("House Label 128", 128, 3.69, 0.70),
)

FIRST_WEEK = 40
WEEKS, STORES = 121, 83
ROWS_KEPT = 0.961  # of all stores, brands and weeks: some store-weeks were never reported
ABSURD_COSTS = 5e-5  # of all rows: a cost of a few cents


def synthetic_oj(
    weeks: int = WEEKS, stores: int = STORES, brands: int = len(BRANDS), seed: int = 1
) -> pa.Table:
    """Return a table like the public one, sorted by store, brand and week."""
    assert 0 < brands <= len(BRANDS)
    draw = np.random.default_rng(seed)
    ounces = np.array([brand[1] for brand in BRANDS[:brands]])
    price, cost, deal, feature = _offers(draw, weeks, stores, brands)
    units = _units(draw, price, deal, feature, ounces)
    cost = np.where(draw.random(cost.shape) < ABSURD_COSTS, 0.02, cost)

    kept = np.broadcast_to((draw.random((stores, 1, weeks)) < ROWS_KEPT), price.shape)
    store, brand, week = np.nonzero(kept)
    numbers = np.sort(draw.choice(np.arange(2, 2 + 2 * stores), stores, replace=False))
    price, cost, units = price[kept], cost[kept], units[kept]
    per_ounce = _offers_per_ounce(kept.shape, (store, brand, week), price / ounces[brand])
    names = np.array([entry[0] for entry in BRANDS])
    return pa.table(
        {
            "store": numbers[store].astype(np.int64),
            "brand": (brand + 1).astype(np.int64),
            "brand_name": names[brand],
            "oz": ounces[brand].astype(np.int64),
            "week": (week + FIRST_WEEK).astype(np.int64),
            "units": units,
            "logmove": np.log(units),
            "price": price,
            "unit_cost": cost,
            "margin_pct": (price - cost) / price * 100,
            "deal": deal[kept].astype(np.int64),
            "feat": feature[kept],
            **{f"price_per_oz_{number + 1}": per_ounce[number] for number in range(brands)},
        }
    )


def _offers(
    draw: np.random.Generator, weeks: int, stores: int, brands: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return price, unit cost, deal and feature, float64[stores, brands, weeks] each."""
    shape = (stores, brands, weeks)
    usual = np.array([brand[2] for brand in BRANDS[:brands]])[None, :, None]
    share = np.array([brand[3] for brand in BRANDS[:brands]])[None, :, None]
    zone = draw.choice([0.94, 1.0, 1.06], (stores, 1, 1), p=[0.2, 0.6, 0.2])
    # List prices drift over the years, all stores together, and stay for weeks.
    drift = np.cumsum(draw.normal(0.0, 0.05, (1, brands, weeks // 8 + 1)), axis=2)
    drift = np.clip(np.repeat(drift, 8, axis=2)[:, :, :weeks], -0.25, 0.25)
    begins = draw.random((1, brands, weeks)) < 0.22
    lasts = begins | (np.roll(begins, 1, axis=2) & (draw.random((1, brands, weeks)) < 0.4))
    depth = draw.uniform(0.08, 0.38, (1, brands, weeks))
    takes_part = draw.random(shape) < 0.97
    deal = np.broadcast_to(lasts, shape) & takes_part
    listed = usual * np.exp(drift) * zone
    price = np.where(deal, listed * (1.0 - depth), listed)
    # Package prices end in nine, as in the shop.
    price = np.maximum(np.round(price * 10) / 10 - 0.01, 0.39)
    # The maker pays for part of a deal, and the average cost on the books lags behind.
    cost = share * usual * np.exp(0.8 * drift) * np.where(deal, 1.0 - 0.5 * depth, 1.0)
    cost = np.round(cost * np.exp(draw.normal(0.0, 0.01, shape)), 4)
    featured = deal & (draw.random((1, brands, weeks)) < 0.6)
    feature = np.where(featured, np.round(draw.uniform(0.3, 1.0, shape), 3), 0.0)
    return price, np.broadcast_to(cost, shape), deal, feature


def _units(
    draw: np.random.Generator,
    price: np.ndarray,
    deal: np.ndarray,
    feature: np.ndarray,
    ounces: np.ndarray,
) -> np.ndarray:
    """Return the ounces sold, whole packages: own price, others' prices, deal, feature, noise."""
    stores, brands, weeks = price.shape
    elasticity = np.clip(draw.normal(-2.8, 0.5, (stores, brands, 1)), -5.0, -1.0)
    dearness = np.log(price / price.mean(axis=2, keepdims=True))
    others = (dearness.sum(axis=1, keepdims=True) - dearness) / max(brands - 1, 1)
    size = draw.normal(0.0, 0.45, (stores, 1, 1)) + draw.normal(0.0, 0.5, (1, brands, 1))
    season = 0.15 * np.sin(2 * np.pi * np.arange(weeks) / 52)
    log_ounces = 8.6 + size + season + elasticity * dearness + 0.2 * brands * others
    log_ounces = log_ounces + 0.2 * deal + 0.5 * feature + draw.normal(0.0, 0.35, price.shape)
    packages = np.maximum(np.rint(np.exp(log_ounces) / ounces[None, :, None]), 1)
    return np.asarray(packages * ounces[None, :, None], dtype=np.int64)


def _offers_per_ounce(
    shape: tuple[int, ...], place: tuple[np.ndarray, np.ndarray, np.ndarray], price: np.ndarray
) -> list[np.ndarray]:
    """Return every brand's price per ounce beside each row: a store reports all or none."""
    table = np.full(shape, np.nan)
    table[place] = np.round(price, 6)
    store, _, week = place
    return [table[store, other, week] for other in range(shape[1])]
