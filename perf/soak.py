"""An hour of steady load on the real stack, and whether anything grows.

``python -m perf.soak [--minutes 60] [--json]``

20,000 facts a second, 500 price reads a second and 200 streams. Every ten seconds each process of
the engine is asked for its memory, file descriptors and threads, and the owners for their tasks and
compiled kernels. A straight line is laid through the second half (what starts up, grows); reported
is its slope an hour with its 95 % interval. A figure is flat when the interval holds zero, or when
its upper end is at most 5 % of the figure an hour (``flat_share_an_hour``): "flat" allows so much.
"""

import argparse
import asyncio
import os
import sys
import time
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from msgspec import Struct

from cluster.processes import marked, tree_mark
from cluster.tree import make_keys, role_card
from perf.flood import CHANNEL, RETAILER, SPREAD, Flood, fill, percentile, recorded, sku_of
from perf.measuring import Progress, arguments_of, run_command, significant
from perf.real_stack import EngineUnderTest, on_engine
from perf.spike import until_consumed

COMMAND = "soak"
EVERY_S = 10.0
CONNECTIONS = 64
DRAIN_S = 600.0
FLAT_SHARE = 0.05
"""What may grow by so much of itself an hour is flat; told as ``flat_share_an_hour``."""
PAGE = os.sysconf("SC_PAGE_SIZE")


class Slope(Struct, frozen=True):
    """A straight line through a figure: growth an hour, and how sure of it we are."""

    mean: float
    an_hour: float
    low: float  # of the 95 % interval
    high: float
    flat: bool


def slope(seconds: Sequence[float], figures: Sequence[float]) -> Slope:
    """Return the least-squares slope an hour with its 95 % interval."""
    x, y = np.array(seconds) / 3600, np.array(figures, dtype=float)
    mean = float(y.mean())
    if len(y) < 3 or float(np.ptp(x)) == 0.0:
        return Slope(significant(mean), 0.0, float("-inf"), float("inf"), False)
    spread = x - x.mean()
    rise = float((spread * y).sum() / (spread**2).sum())
    rest = y - mean - rise * spread
    # Neighbouring samples resemble each other: the error is widened by their correlation.
    noise = float((rest**2).sum())
    alike = float((rest[1:] * rest[:-1]).sum()) / noise if noise else 0.0
    wider = (1 + max(alike, 0.0)) / max(1 - max(alike, 0.0), 0.05)
    error = float(np.sqrt(noise / (len(y) - 2) / (spread**2).sum() * wider))
    low, high = rise - 1.96 * error, rise + 1.96 * error
    flat = (low <= 0.0 <= high) or high <= FLAT_SHARE * abs(mean)
    return Slope(
        mean=significant(mean),
        an_hour=significant(rise),
        low=significant(low),
        high=significant(high),
        flat=flat,
    )


def figures_of_process(pid: int) -> dict[str, float]:
    """Return memory, file descriptors and threads of a process; nothing if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        files = len(os.listdir(f"/proc/{pid}/fd"))
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    threads = int(status.partition("Threads:")[2].split()[0])
    return {"rss_mb": pages * PAGE / 2**20, "files": files, "threads": threads}


def names_of(under_test: EngineUnderTest, state: Mapping[str, Any]) -> dict[int, str]:
    """Return the engine's processes by pid: owners by shard, roles by name, the rest together."""
    named = {each["pid"]: f"owner {each['shard']}" for each in state["shards"] if "pid" in each}
    for role in ("gateway", "followers", "supervisor"):
        card = role_card(under_test.settings, role)
        if card is not None:
            named[card.process.pid] = role
    return {
        pid: named.get(pid, "ray and the rest")
        for pid in marked(tree_mark(under_test.settings.folder))
    }


class Samples:
    """What every process said, sample by sample."""

    def __init__(self) -> None:
        self.series: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._began = time.monotonic()

    def take(self, under_test: EngineUnderTest, state: Mapping[str, Any]) -> None:
        """Take one sample."""
        at = time.monotonic() - self._began
        sums: dict[str, float] = defaultdict(float)
        for pid, name in names_of(under_test, state).items():
            for figure, value in figures_of_process(pid).items():
                sums[f"{name}: {figure}"] += value
        for each in state["shards"]:
            for figure in ("tasks", "compiled_shapes"):
                if figure in each:
                    sums[f"owner {each['shard']}: {figure}"] = each[figure]
        for name, value in sums.items():
            self.series[name].append((at, value))

    def slopes(self) -> dict[str, Slope]:
        """Return the slope of each figure's second half."""
        found = {}
        for name, samples in sorted(self.series.items()):
            half = samples[len(samples) // 2 :]
            found[name] = slope([at for at, _ in half], [value for _, value in half])
        return found


class Reads:
    """Price reads at a steady rate, in an open loop over a bounded number of connections.

    A read that finds none free is sent late, and counts from the moment at which it was due. More
    connections than a client's pool has would measure the sender: thousands of sockets that wait.
    """

    def __init__(self, base: str, key: str, listings: int, per_s: float) -> None:
        self.answered = 0
        self.failed = 0
        self.stale = 0
        self.delays_ms = array("f")  # from when it was due to its last byte
        self._base = base
        self._headers = {"Authorization": f"Bearer {key}"}
        self._listings = listings
        self._per_s = per_s
        self._next = 0
        self._began = 0.0

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Ask for ever; a request is sent when it is due."""
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as connections:
            for _ in range(CONNECTIONS):
                connections.create_task(self._connection(session))

    async def _connection(self, session: aiohttp.ClientSession) -> None:
        while True:
            number, self._next = self._next, self._next + 1
            due = self._began + number / self._per_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._ask(session, number)
            self.delays_ms.append((time.monotonic() - due) * 1000)

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> None:
        sku = sku_of(number * 7919 % self._listings)
        url = f"{self._base}/api/v1/products/{sku}/recommendation"
        asked_ms = time.time_ns() // 1_000_000
        try:
            async with session.get(url, headers=self._headers) as response:
                body = await response.read()
                self.answered += response.status == 200
                self.failed += response.status != 200
                self.stale += b'"stale":true' in body
        except (aiohttp.ClientError, TimeoutError):
            self.failed += 1
            return
        if response.status == 200:
            self.judge(asked_ms, body)

    def judge(self, asked_ms: int, body: bytes) -> None:
        """Judge an answer; who only counts them has nothing more to say."""


async def listen(session: aiohttp.ClientSession, base: str, key: str, skus: list[str]) -> int:
    """Subscribe to some SKUs and read for ever; it ends only when it is cancelled or cut off."""
    async with session.ws_connect(
        f"{base}/api/v1/stream",
        protocols=("prices.v1",),
        headers={"Authorization": f"Bearer {key}"},
        max_msg_size=0,
    ) as socket:
        await socket.send_json({"type": "subscribe", "skus": skus})
        frames = 0
        async for _ in socket:
            frames += 1
        return frames


async def measure(
    under_test: EngineUnderTest,
    options: Any,
    say: Progress,
) -> dict[str, Any]:
    """Fill, load, sample; return slopes and what was answered."""
    settings = under_test.settings
    say(f"filling {options.listings:,} listings")
    await fill(under_test, options.listings)
    card = role_card(settings, "gateway")
    assert card is not None
    key = make_keys(settings)
    flood = Flood(settings, options.listings)
    reads = Reads(card.address, key, options.listings, options.reads_per_s)
    samples = Samples()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=10)
    ) as session:
        streams = [
            asyncio.create_task(
                listen(
                    session,
                    card.address,
                    key,
                    [sku_of((number * 101 + each) % options.listings) for each in range(20)],
                )
            )
            for number in range(options.streams)
        ]
        asking = asyncio.create_task(reads.run(session))
        flooding = asyncio.create_task(flood.run([(options.facts_per_s, 60 * options.minutes)]))
        loads = [flooding, asking, *streams]
        try:
            while not flooding.done():
                await asyncio.wait({flooding}, timeout=options.every_s)
                samples.take(under_test, await under_test.status())
                say(f"{flood.facts:,} facts, {reads.answered:,} reads, {reads.failed} failed")
            flooding.result()
            if asking.done():
                asking.result()  # reads that ended by themselves were not asked until the end
            cut = sum(stream.done() for stream in streams)
        finally:
            for task in loads:
                task.cancel()
            await asyncio.wait(loads)
    drained_s = await until_consumed(under_test, DRAIN_S)
    say("reading the decision logs")
    found = await recorded(settings, flood.sent)
    slopes = samples.slopes()
    return {
        "minutes": options.minutes,
        "facts": found.facts,
        "lost": found.lost,
        "drained_after_s": significant(drained_s),
        "appends_in_doubt": flood.doubts,
        "facts_per_s": significant(flood.facts / (60 * options.minutes)),
        "p99_ms": significant(percentile(found.delays[0], 0.99)),
        "reads": reads.answered,
        "reads_failed": reads.failed,
        "reads_stale": reads.stale,
        "reads_p99_ms": significant(float(np.percentile(reads.delays_ms, 99))),
        "streams": options.streams,
        "streams_cut": cut,
        "not_flat": [name for name, each in slopes.items() if not each.flat],
        "not_flat_count": sum(not each.flat for each in slopes.values()),
        "flat_share_an_hour": FLAT_SHARE,
        "slopes": slopes,
        "channel": CHANNEL,
    }


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    values = {"shards.spreads": {RETAILER: SPREAD}}
    return on_engine(options.embedded, values, say, lambda engine: measure(engine, options, say))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--facts-per-s", type=float, default=20_000)
    parser.add_argument("--reads-per-s", type=float, default=500)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--every-s", type=float, default=EVERY_S)
    parser.add_argument("--embedded", action="store_true", help="without the real servers")
    return run_command(COMMAND, parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
