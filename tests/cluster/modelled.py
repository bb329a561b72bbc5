"""A retailer whose history is fed from files, long enough to train a model on."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.training.shops import shop

RETAILER, LISTINGS, DAYS = "acme", 12, 67
FIRST_DAY = 7_670
"""1991-01-01, days since 1970: after the weeks that other tests of a shared engine feed."""

LEARNING: tuple[dict[str, Any], ...] = (
    {"type": "RetailerAdded", "currency": "EUR", "mode": "shadow"},
    {"type": "PolicyChanged", "scope": "retailer", "fields": {"learning": True}},
)
LIVE: tuple[dict[str, Any], ...] = ({"type": "ModeChanged", "mode": "live"},)

SOLD = {"type": "UnitsSold", "fields": {"channel": "shop", "sku": "$sku", "units": "$units"}}
ASKED: tuple[dict[str, Any], ...] = (
    {
        "type": "ListingChanged",
        "once": ["sku"],
        "fields": {
            "channel": "shop",
            "sku": "$sku",
            "category": "$category",
            "price_minor": "$price_minor",
            "cost_minor": "$cost_minor",
        },
    },
    {
        "type": "PriceReported",
        "fields": {"channel": "shop", "sku": "$sku", "price_minor": "$price_minor"},
    },
)
"""What a row of history says beside its sales: the price that was in force."""


def shop_files(
    folder: Path, name: str, days: range, opening: Sequence[dict[str, Any]], asked: bool
) -> list[str]:
    """Write some of the shop's days and their mapping; return the words that feed them."""
    data, _ = shop(listings=LISTINGS, days=DAYS)
    table, mapping = folder / f"{name}.csv", folder / f"{name}.json"
    with table.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(("sku", "category", "day", "price_minor", "cost_minor", "units"))
        for day in days:
            for row in range(LISTINGS):
                category = data.categories[data.category[row]]
                price, units = int(data.price[row, day]), int(data.units[row, day])
                cost = int(data.price[row, 0] * 0.6)
                out.writerow((f"S{row}", category, FIRST_DAY + day, price, cost, units))
    how = {
        "retailer": RETAILER,
        "time": {"column": "day", "unit": "day", "epoch": "1970-01-01T00:00:00Z"},
        "opening": opening,
        "deltas": [*(ASKED if asked else ()), SOLD],
    }
    mapping.write_text(json.dumps(how))
    return ["feed", str(table), "--mapping", str(mapping), "--clock", "event"]
