"""A shop of one's own: it lets a shard price its listings, and fits their demand on a table.

Run it with `python docs/examples/market.py`, in the repository's root. It needs numpy and
`repricer.py`, and nothing else: no log, no server, no file.
"""

import numpy as np

from repricer import (
    ListingChanged,
    PolicyChanged,
    RetailerAdded,
    Shard,
    UnitsSold,
    decide,
    fit_demand,
    key64,
)

DAY_MS, DAYS = 86_400_000, 90
draw = np.random.default_rng(7)
skus = [f"tea {n}" for n in range(30)]
elasticity, a_day = draw.uniform(-4.5, -2.0, len(skus)), draw.uniform(5.0, 40.0, len(skus))

# ----- drive a shard: listings and a policy, a day's deltas, the prices --------------------------

shard, shop = Shard(), {"retailer": "acme", "observed_ms": 0}
terms = {"learning": True, "min_margin": 0.1, "dither": 0.05, "holdout_share": 0.0}
opening = [
    RetailerAdded(**shop, currency="EUR", mode="live"),
    PolicyChanged(**shop, scope="retailer", fields=terms),
]
for sku in skus:
    opening.append(
        ListingChanged(
            **shop, channel="shop", sku=sku, category="tea", price_minor=1200, cost_minor=800
        )
    )
decide(shard, opening, now_ms=0)

table, profit = [], []  # rows of (item, time, price, units, rain)
for day in range(DAYS):
    now_ms = (day + 1) * DAY_MS
    prices = [shard.live(key64("acme", "shop", sku))["in_force_minor"] for sku in skus]
    rain = float(draw.random() < 0.3)
    expected = a_day * (np.array(prices) / 1200.0) ** elasticity * np.exp(0.4 * rain)
    sold = draw.poisson(expected)
    profit.append(float(((np.array(prices) - 800) * expected).sum() / np.exp(0.4 * rain)))
    sales = []
    for sku, price, units in zip(skus, prices, sold, strict=True):
        table.append((sku, day, price / 100.0, int(units), rain))
        if units:
            sales.append(
                UnitsSold(
                    retailer="acme",
                    channel="shop",
                    sku=sku,
                    units=int(units),
                    source=f"till of {sku}",
                    source_seq=day,
                    observed_ms=now_ms,
                )
            )
    decide(shard, sales, now_ms)

print(f"profit a day without rain: {profit[0] / 100:.2f} EUR first, {profit[-1] / 100:.2f} EUR now")
believed = shard.learnt(key64("acme", "shop", skus[0]))
print(f"{skus[0]}: the shard believes {believed['elasticity']:.2f}, it is {elasticity[0]:.2f}")

# ----- fit a demand model on a table of (item, time, price, units, covariates) -------------------

items, times, paid, units, rains = (list(column) for column in zip(*table, strict=True))
demand = fit_demand(
    items,
    np.array(times),
    np.array(paid),
    np.array(units),
    groups=["tea"] * len(items),
    covariates=np.array(rains),
    covariate_names=["rain"],
)
found = demand.elasticities()
for at in range(3):
    print(
        f"{found.names[at]}: {found.mean[at]:.2f}, 90 % {found.low[at]:.2f} to {found.high[at]:.2f}"
    )

tomorrow = np.full(len(skus), DAYS)
ahead = demand.forecast(skus, tomorrow, np.full(len(skus), 11.0), np.zeros((len(skus), 1)))
print(
    f"{skus[0]} at 11.00 EUR: {ahead.units[0]:.0f} units, {ahead.low[0]:.0f} to {ahead.high[0]:.0f}"
)
