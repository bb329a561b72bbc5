"""``train`` without a file and the nightly training: from the history store to a candidate."""

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from cluster.__main__ import main
from cluster.assembly import make_series
from cluster.commands.modelling import make_registry, train_all
from cluster.settings import Settings, load
from tests.training.shops import shop
from training.daily_sales import DAY_MS, DailySales

LISTINGS, DAYS = 16, 60


def sold(last_day: int) -> DailySales:
    """Return a shop's days, the last of them ``last_day``."""
    data, _ = shop(listings=LISTINGS, days=DAYS)
    return replace(data, first_day=last_day - DAYS + 1)


async def kept(settings: Settings, data: DailySales) -> None:
    """Write a shop's days into its history store, as the follower of a log does."""
    series = make_series(settings)
    await series.migrate()
    keys = data.keys.astype(np.uint64).view(np.int64).tolist()

    async def append(table: str, rows: list[dict[str, Any]]) -> None:
        base = {"generation": 1, "shard": 0}
        columns = {name: [{**base, **row}[name] for row in rows] for name in {**base, **rows[0]}}
        await series.append(table, columns)

    places = [(at, day) for day in range(data.days) for at in range(len(keys))]
    moments = [(data.first_day + day) * DAY_MS for _, day in places]
    await append(
        "listings",
        [
            {"ts": 1, "seq": at, "listing": key, "retailer": "acme", "channel": "shop",
             "sku": f"S{at}", "category": data.categories[data.category[at]], "removed": 0}
            for at, key in enumerate(keys)
        ],
    )  # fmt: skip
    await append(
        "prices",
        [
            {"ts": n, "seq": n, "listing": keys[at], "in_force_minor": int(data.price[at, day]),
             "decided_ms": moments[n]}
            for n, (at, day) in enumerate(places)
        ],
    )  # fmt: skip
    await append(
        "sales_metrics",
        [
            {"ts": n, "lane": 1, "log_offset": n, "item": 0, "listing": keys[at],
             "units": int(data.units[at, day]), "observed_ms": moments[n] + 1,
             "verdict": "accepted"}
            for n, (at, day) in enumerate(places)
            if data.units[at, day]
        ],
    )  # fmt: skip
    await series.close()


def settings_at(folder: Path) -> Settings:
    folder.mkdir()
    training = {"promote": "never"}
    return load({"folder": folder, "shards": {"count": 1}, "training": training})


def test_without_a_file_every_retailer_of_the_history_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_at(tmp_path / "data")
    asyncio.run(kept(settings, sold(20_000)))
    last = datetime.fromtimestamp(20_000 * DAY_MS / 1000, UTC).strftime("%Y-%m-%d")
    where = ("--folder", str(settings.folder), "--json")
    code = main(["train", "--until-day", last, "--days", str(DAYS), *where])
    (trained,) = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (code, trained["retailer"], trained["listings"]) == (0, "acme", LISTINGS)
    assert trained["scores"]["wape"] < trained["scores"]["wape_without_price"]
    (card,) = asyncio.run(make_registry(settings).cards("acme"))
    assert (card.model, card.stage, card.last_day) == (trained["model"], "candidate", 20_000)
    assert main(["train", "--retailer", "nobody", "--until-day", last, *where]) == 2


def test_the_night_trains_on_the_days_up_to_yesterday(tmp_path: Path) -> None:
    settings = settings_at(tmp_path / "data")
    yesterday = time.time_ns() // 1_000_000 // DAY_MS - 1
    asyncio.run(kept(settings, sold(yesterday)))
    assert train_all(settings) == 0
    (card,) = asyncio.run(make_registry(settings).cards("acme"))
    assert (card.stage, card.listings) == ("candidate", LISTINGS)
    assert yesterday - 1 <= card.last_day <= yesterday


def test_a_night_without_history_fails_and_leaves_the_models_alone(tmp_path: Path) -> None:
    """A retailer who has sold nothing for months is told of by the exit code, and others go on."""
    settings = settings_at(tmp_path / "data")
    asyncio.run(kept(settings, sold(20_000)))
    assert train_all(settings) == 1
    assert asyncio.run(make_registry(settings).cards("acme")) == []
