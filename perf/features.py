"""What reading a listing's features costs: at the owner, and at the gateway while deltas flow.

``python -m perf.features [--json]``

In process, a filled shard is asked for listings one by one and in slices as long as an owner tells
at once, in turns, by processor time; the longest slice, encoding included, is what a microbatch may
have to wait for. Over HTTP a whole engine is asked while deltas come in an open loop: each read has
a moment at which it is meant to be sent and is timed from there, so that a stall is charged to all
who would have come in it. ``recorded`` reads take what the owner has, ``strong`` ones wait for a
mark that comes after the question (an append to the log), and ``batch`` is a thousand listings.
``price`` reads are what the same client is told by the gateway alone.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import msgspec
import numpy as np
import uvloop

from actors.pauses import settle
from cluster.assembly import make_logs
from cluster.feeding import Router
from cluster.tree import make_keys, role_card
from engine.shard import Shard
from kernels.limits import FEATURES_SLICE_MAX
from perf.filled import filled, keys_of
from perf.latency import RETAILER, background, fill, sku_of
from perf.measuring import (
    Progress,
    arguments_of,
    interleaved,
    ratio,
    run_command,
    significant,
    spread,
)
from perf.open_loop import OpenLoop
from perf.real_stack import EngineUnderTest, engine

COMMAND = "features"
PROMISED_MS = 10.0
"""Within so long a listing's features are readable through the API."""

BATCH = 1000
BATCHES = 5
IN_PROCESS_LISTINGS = 5_000
WARM_S = 3.0


# --- at the owner ---------------------------------------------------------------------------------


def in_process(listings: int, pairs: int, say: Progress) -> dict[str, Any]:
    """Return what a listing's features cost alone and in a slice, and the longest slice."""
    shard, _ = filled(listings, say)
    keys = [int(key) for key in keys_of(listings)]
    random.Random(1).shuffle(keys)
    longest_ms: list[float] = []

    def alone() -> float:
        asked = keys[:200]
        return _processor_us(lambda: [shard.features([key]) for key in asked], len(asked))

    def sliced() -> float:
        asked = keys[: min(len(keys), 2_000)]
        longest_ms.append(0.0)
        return _processor_us(lambda: _tell(shard, asked, longest_ms), len(asked))

    took = interleaved(pairs, {"alone": alone, "in slices": sliced}, say)
    return {
        "alone_processor_us": spread(took["alone"]),
        "slice_processor_us_a_listing": spread(took["in slices"]),
        "batch_of_single": ratio(took["alone"], took["in slices"]),
        "longest_slice_ms": spread(longest_ms[1:]),
        "longest_slice_of_promised": spread([each / PROMISED_MS for each in longest_ms[1:]]),
        "slice_listings": FEATURES_SLICE_MAX,
    }


def _tell(shard: Shard, keys: Sequence[int], longest_ms: list[float]) -> None:
    """Tell the listings as an owner does, and note the processor time of the longest slice."""
    encode = msgspec.json.Encoder().encode
    for first in range(0, len(keys), FEATURES_SLICE_MAX):
        began = time.process_time()
        encode(shard.features(keys[first : first + FEATURES_SLICE_MAX]))
        longest_ms[-1] = max(longest_ms[-1], (time.process_time() - began) * 1e3)


def _processor_us(call: Any, listings: int) -> float:
    began = time.process_time()
    call()
    return (time.process_time() - began) / listings * 1e6


# --- at the gateway -------------------------------------------------------------------------------


class Asking:
    """Reads of random listings at the moments meant for them."""

    def __init__(self, session: aiohttp.ClientSession, base: str, listings: int) -> None:
        self.failed = 0
        self.asked = 0
        self._session = session
        self._base = base
        self._draw = random.Random(2)
        self._listings = listings

    async def reads(
        self, per_s: float, seconds: float, what: str = "features", **query: str
    ) -> list[float]:
        """Return the milliseconds of each read from the moment it was meant to be sent."""
        begin_s = time.monotonic() + 0.1
        dues = [begin_s + number / per_s for number in range(int(per_s * seconds))]
        return list(await asyncio.gather(*(self._read(due_s, what, query) for due_s in dues)))

    async def batch(self) -> float:
        """Return the milliseconds of a batch of a thousand."""
        ids = [self._sku() for _ in range(BATCH)]
        began = time.monotonic()
        url = f"{self._base}/features:batchGet?deadline_ms=10000"
        async with self._session.post(url, json={"ids": ids}) as response:
            body = await response.read()
            self._count(response.status)
        took_ms = (time.monotonic() - began) * 1e3
        assert response.status != 200 or len(msgspec.json.decode(body)["features"]) == BATCH
        return took_ms

    async def _read(self, due_s: float, what: str, query: Mapping[str, str]) -> float:
        url = f"{self._base}/products/{self._sku()}/{what}"
        await asyncio.sleep(max(due_s - time.monotonic(), 0))
        async with self._session.get(url, params=query) as response:
            await response.read()
            self._count(response.status)
        return (time.monotonic() - due_s) * 1e3

    def _sku(self) -> str:
        return sku_of(self._draw.randrange(self._listings))

    def _count(self, status: int) -> None:
        self.asked += 1
        self.failed += status != 200


async def over_http(
    under_test: EngineUnderTest, options: argparse.Namespace, say: Progress
) -> dict[str, Any]:
    """Ask the gateway while deltas flow."""
    settings, seconds = under_test.settings, options.seconds
    logs = make_logs(settings)
    load = OpenLoop(logs, Router(settings.shards.count, settings.shards.spreads), 0.005, WARM_S)
    flow_s = WARM_S + 3 * seconds + 10.0
    ahead_s = 2.0 + options.per_s * flow_s * 30e-6
    begin_s, begin_ms = time.monotonic() + ahead_s, int((time.time() + ahead_s) * 1000)
    draw = np.random.default_rng(1)
    load.plan(background(draw, options.listings, begin_ms, options.per_s, flow_s))
    settle()
    card = role_card(settings, "gateway")
    assert card is not None
    flowing = asyncio.ensure_future(load.run(begin_s))
    await asyncio.sleep(max(begin_s + WARM_S - time.monotonic(), 0))
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {make_keys(settings)}"}
    ) as session:
        asking = Asking(session, f"{card.address}/api/v1", options.listings)
        await asking.reads(options.reads_per_s, 1.0)  # connections, and what is first met
        say("price reads")
        price = await asking.reads(options.reads_per_s, seconds, "recommendation")
        say("recorded reads")
        recorded = await asking.reads(options.reads_per_s, seconds)
        say("strong reads")
        strong = await asking.reads(options.reads_per_s, seconds, consistency="strong")
        say("batches")
        batches = [await asking.batch() for _ in range(BATCHES)]
    flowing.cancel()
    await asyncio.wait([flowing])
    await logs.close()
    return {
        **_told("price", price),
        **_told("recorded", recorded),
        **_told("strong", strong),
        "p99_of_promised": significant(_percentile(recorded, 99) / PROMISED_MS),
        "batch_ms": spread(batches),
        "reads": asking.asked,
        "reads_failed": asking.failed,
    }


def _told(name: str, took_ms: Sequence[float]) -> dict[str, float]:
    wanted = {"p50": 50, "p99": 99, "p999": 99.9}
    return {
        f"{name}_{each}_ms": significant(_percentile(took_ms, share))
        for each, share in wanted.items()
    }


def _percentile(took_ms: Sequence[float], share: float) -> float:
    return float(np.percentile(took_ms, share, method="higher"))


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    figures = in_process(min(options.listings, IN_PROCESS_LISTINGS), options.pairs, say)
    if not options.in_process:
        with engine(options.embedded, **{"shards.spreads": {RETAILER: 2}}) as under_test:
            under_test.start()
            try:
                asyncio.run(fill(under_test, options.listings))
                figures |= uvloop.run(over_http(under_test, options, say))
            finally:
                under_test.stop()
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--listings", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="of reads, of each kind")
    parser.add_argument("--reads-per-s", type=float, default=50.0)
    parser.add_argument("--per-s", type=int, default=1000, help="deltas a second meanwhile")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--embedded", action="store_true", help="on embedded stores")
    parser.add_argument("--in-process", action="store_true", help="start no engine")
    return run_command(COMMAND, parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
