"""Row g: from a delta produced to its price readable at the gateway.

``python -m perf.latency --seconds 60 --listings 100000 --json``. A thousand JSON deltas a second
flow; some of them are probes: a cost that changes, after which one reader asks the gateway for that
product until the answer is another quote. The time between is what is reported, with the reader's
own interval in it.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import aiohttp
import numpy as np

from cluster.assembly import make_logs
from cluster.feeding import Feed, Router
from cluster.tree import make_keys, role_card
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    ListingChanged,
    RetailerAdded,
    StockCounted,
)
from perf.real_input import engine
from perf.real_stack import EngineUnderTest, machine, print_line

RETAILER = "shop"
CHANNEL = "web"
PROBE_WAIT_S = 5.0
POLL_S = 0.001
TICK_S = 0.01


def sku_of(number: int) -> str:
    return f"sku-{number:06d}"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def opening(listings: int) -> Iterator[list[AnyDelta]]:
    """Yield the catalogue in pieces."""
    yield [
        RetailerAdded(
            retailer=RETAILER, currency="EUR", observed_ms=now_ms(), mode="live", spread=2
        )
    ]
    for begin in range(0, listings, 5000):
        numbers = range(begin, min(begin + 5000, listings))
        yield [
            ListingChanged(
                retailer=RETAILER,
                channel=CHANNEL,
                sku=sku_of(number),
                title=f"Thing {number}",
                category=f"category-{number % 50}",
                price_minor=1500 + number % 700,
                cost_minor=900 + number % 500,
                observed_ms=now_ms(),
            )
            for number in numbers
        ]


def background(draw: np.random.Generator, listings: int, count: int) -> list[AnyDelta]:
    """Return what the world says meanwhile: rivals and stock of random listings."""
    deltas: list[AnyDelta] = []
    for number, kind in zip(
        draw.integers(0, listings, count).tolist(), draw.random(count).tolist(), strict=True
    ):
        if kind < 0.8:
            price = 1500 + number % 700 + int(draw.integers(-60, 60))
            deltas.append(
                CompetitorPriced(
                    retailer=RETAILER,
                    channel=CHANNEL,
                    sku=sku_of(number),
                    rival=f"rival-{int(kind * 10)}",
                    price_minor=price,
                    observed_ms=now_ms(),
                )
            )
        else:
            deltas.append(
                StockCounted(
                    retailer=RETAILER,
                    channel=CHANNEL,
                    sku=sku_of(number),
                    units=int(kind * 100),
                    observed_ms=now_ms(),
                )
            )
    return deltas


class Gateway:
    """Asks the gateway for one product, as a client would."""

    def __init__(self, under_test: EngineUnderTest, session: aiohttp.ClientSession) -> None:
        card = role_card(under_test.settings, "gateway")
        assert card is not None
        self._base = f"{card.address}/api/v1/products"
        self._session = session
        self._headers = {"Authorization": f"Bearer {make_keys(under_test.settings)}"}

    async def quote_id(self, sku: str) -> str:
        """Return the id of the product's present quote, ``""`` when there is none."""
        url = f"{self._base}/{sku}/recommendation"
        async with self._session.get(url, headers=self._headers) as response:
            body = json.loads(await response.read())
            return str(body.get("quote_id", "")) if response.status == 200 else ""


async def probe(gateway: Gateway, sender: Feed, number: int) -> float | None:
    """Change one cost and return after how many milliseconds its price was readable."""
    sku = sku_of(number)
    before = await gateway.quote_id(sku)
    cost = round((900 + number % 500) * 1.04)
    began = time.perf_counter()
    await sender.send(
        [
            CostChanged(
                retailer=RETAILER, channel=CHANNEL, sku=sku, cost_minor=cost, observed_ms=now_ms()
            )
        ]
    )
    while time.perf_counter() - began < PROBE_WAIT_S:
        if await gateway.quote_id(sku) != before:
            return (time.perf_counter() - began) * 1000
        await asyncio.sleep(POLL_S)
    return None


async def flow(sender: Feed, draw: np.random.Generator, listings: int, per_s: int) -> None:
    """Send deltas evenly, for ever."""
    began, sent = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - began) * per_s) - sent
        if due > 0:
            await sender.send(background(draw, listings, due))
            sent += due
        await asyncio.sleep(TICK_S)


async def fill(under_test: EngineUnderTest, listings: int) -> float:
    """Send the catalogue and wait until every listing is priced; return the seconds it took."""
    began = time.monotonic()
    settings = under_test.settings
    logs = make_logs(settings)
    sender = Feed(logs, Router(settings.shards.count, settings.shards.spreads))
    for piece in opening(listings):
        await sender.send(piece)
    await sender.close()
    await logs.close()
    await under_test.until_decided()
    return time.monotonic() - began


async def measure(
    under_test: EngineUnderTest, options: argparse.Namespace
) -> tuple[list[float], int, int]:
    """Return the probes' times, how many were never readable, and how many deltas flowed."""
    settings = under_test.settings
    logs = make_logs(settings)
    router = Router(settings.shards.count, settings.shards.spreads)
    noise, probing = Feed(logs, router), Feed(logs, router)
    flowing = asyncio.ensure_future(
        flow(noise, np.random.default_rng(1), options.listings, options.per_s)
    )
    times: list[float] = []
    missed = 0
    numbers = itertools.count(options.listings - 1, -1)
    async with aiohttp.ClientSession() as session:
        gateway = Gateway(under_test, session)
        await asyncio.sleep(5)  # what is warmed by the first deltas is not the question
        deadline = time.monotonic() + options.seconds

        async def prober() -> None:
            nonlocal missed
            while time.monotonic() < deadline:
                took = await probe(gateway, probing, next(numbers))
                if took is None:
                    missed += 1
                else:
                    times.append(took)
                await asyncio.sleep(options.probers / options.probes_per_s)

        await asyncio.gather(*(prober() for _ in range(options.probers)))
    if flowing.done():
        flowing.result()
    flowing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await flowing
    sent = noise.sent
    await noise.close()
    await probing.close()
    await logs.close()
    return times, missed, sent


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill, flow, probe."""
    parser = argparse.ArgumentParser(prog="python -m perf.latency", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--per-s", type=int, default=1000)
    parser.add_argument("--probes-per-s", type=float, default=25.0)
    parser.add_argument("--probers", type=int, default=4)
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--json", action="store_true", help="one line of JSON (it always is)")
    options = parser.parse_args(arguments)
    with engine(options.embedded, **{"shards.spreads": {RETAILER: 2}}) as under_test:
        under_test.start()
        try:
            filled_s = asyncio.run(fill(under_test, options.listings))
            times, missed, sent = asyncio.run(measure(under_test, options))
            state: dict[str, Any] = asyncio.run(under_test.status())
        finally:
            left = under_test.stop()
    found = np.percentile(times, [50, 90, 99, 99.9]).round(2).tolist() if times else [None] * 4
    print_line(
        {
            "row": "g",
            "machine": machine(),
            "listings": options.listings,
            "fill_s": round(filled_s, 1),
            "deltas_per_s": round(sent / max(options.seconds + 5, 1)),
            "probes": len(times),
            "never_readable": missed,
            "p50_ms": found[0],
            "p90_ms": found[1],
            "p99_ms": found[2],
            "p99_9_ms": found[3],
            "follower_lag_ms": max((each["lag_ms"] for each in state["followers"]), default=None),
            "processes_left": left,
        }
    )
    return 0 if times and not missed else 1


if __name__ == "__main__":
    sys.exit(main())
