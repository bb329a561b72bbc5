"""Row h: what the decision log costs a day, and what actor and gateway weigh.

``python -m perf.log_bytes --listings 100000 --seconds 60 --json``. Bytes are those of the records'
values; the broker adds about 70 a record and compresses nothing of ours.
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from cluster.assembly import make_logs
from cluster.feeding import Router
from cluster.settings import Settings
from cluster.tree import role_card
from engine.decided import QUOTE_DTYPE
from perf.latency import RETAILER, background, fill
from perf.open_loop import OpenLoop
from perf.real_stack import engine, machine, print_line
from persistence.decision_records import DecisionRecord, decode
from persistence.ports import DECISIONS

DAY_S = 86_400


async def ends(settings: Settings) -> dict[int, int]:
    """Return where every decision log ends."""
    logs = make_logs(settings)
    found = {}
    for shard in range(settings.shards.count):
        log = await logs.open(DECISIONS, shard)
        found[shard] = await log.end()
        await log.close()
    await logs.close()
    return found


async def weigh(settings: Settings, begin: dict[int, int]) -> Counter[str]:
    """Return bytes and rows of all records since, by part."""
    logs = make_logs(settings)
    found: Counter[str] = Counter()
    for shard, after in begin.items():
        log = await logs.open(DECISIONS, shard)
        end, at = await log.end(), after - 1
        while at < end - 1:
            for record in await log.read(at, limit=1000, wait_ms=1000):
                at = record.offset
                found["records"] += 1
                found["bytes"] += len(record.value)
                decoded = decode(record.value)
                if not isinstance(decoded, DecisionRecord):
                    continue
                decided = decoded.decided
                if not decided.has_rows:
                    found["heartbeats"] += 1
                    found["heartbeat_bytes"] += len(record.value)
                    continue
                found["quotes"] += len(decided.quotes)
                found["quote_bytes"] += decided.quotes.nbytes
                for part in ("catalogue", "exceptions", "outcomes"):
                    rows = getattr(decided, part)
                    found[part] += len(rows)
                    found[f"{part}_json_bytes"] += len(msgspec.json.encode(rows)) if rows else 0
        await log.close()
    await logs.close()
    return found


def memory_mb(pid: int) -> int:
    """Return how much memory a process has resident."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096 // 2**20


async def load(settings: Settings, listings: int, per_s: int, seconds: float) -> None:
    """Let deltas flow for a while."""
    logs = make_logs(settings)
    flow = OpenLoop(logs, Router(settings.shards.count, settings.shards.spreads), linger_s=0.01)
    ahead_s = 1.0 + per_s * seconds * 30e-6  # to encode them all
    begin_s, begin_ms = time.monotonic() + ahead_s, int((time.time() + ahead_s) * 1000)
    flow.plan(background(np.random.default_rng(1), listings, begin_ms, per_s, seconds))
    await flow.run(begin_s)
    await logs.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill, wait idle, load, weigh."""
    parser = argparse.ArgumentParser(prog="python -m perf.log_bytes", description=__doc__)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--per-s", type=int, default=1000)
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--json", action="store_true", help="one line of JSON (it always is)")
    options = parser.parse_args(arguments)
    with engine(options.embedded, **{"shards.spreads": {RETAILER: 2}}) as under_test:
        under_test.start()
        try:
            asyncio.run(fill(under_test, options.listings))
            settings = under_test.settings
            begin = asyncio.run(ends(settings))
            time.sleep(options.seconds)
            idle = asyncio.run(weigh(settings, begin))
            begin = asyncio.run(ends(settings))
            asyncio.run(load(settings, options.listings, options.per_s, options.seconds))
            asyncio.run(under_test.until_decided())
            busy = asyncio.run(weigh(settings, begin))
            state: dict[str, Any] = asyncio.run(under_test.status())
            card = role_card(settings, "gateway")
            gateway_mb = memory_mb(card.process.pid) if card else None
        finally:
            left = under_test.stop()
    print_line(
        {
            "row": "h",
            "machine": machine(),
            "listings": options.listings,
            "shards": 2,
            "idle_bytes_a_day": round(idle["bytes"] / options.seconds * DAY_S),
            "heartbeat_bytes": round(idle["heartbeat_bytes"] / max(idle["heartbeats"], 1)),
            "busy_deltas_per_s": options.per_s,
            "busy_bytes_a_day": round(busy["bytes"] / options.seconds * DAY_S),
            "busy_records": busy["records"],
            "quotes": busy["quotes"],
            "bytes_a_quote": QUOTE_DTYPE.itemsize,
            "quote_bytes_share": round(busy["quote_bytes"] / max(busy["bytes"], 1), 3),
            "other_rows": {
                part: {"rows": busy[part], "json_bytes": busy[f"{part}_json_bytes"]}
                for part in ("catalogue", "exceptions", "outcomes")
            },
            "actor_mb": [each.get("memory_bytes", 0) // 2**20 for each in state["shards"]],
            "gateway_mb": gateway_mb,
            "processes_left": left,
        }
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
