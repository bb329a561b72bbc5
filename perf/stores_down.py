"""Row f: every store is stopped during a feed, a shard killed and a gateway restarted meanwhile.

``python -m perf.stores_down --seconds 60 --json``. Then Kafka is killed while appends are under
way, and started again: nothing acknowledged may be lost, and no owner replaced.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from cluster.launching import living_owners
from cluster.tree import make_keys, role_card
from perf.chaos_rows import audit
from perf.comparison import compare_stores
from perf.real_input import POLICY, feed_words
from perf.real_stack import (
    EngineUnderTest,
    end_verb,
    machine,
    print_line,
    real_servers,
)


async def seqs(under_test: EngineUnderTest) -> dict[int, int]:
    """Return how far every shard has come."""
    state = await under_test.status()
    return {each["shard"]: each.get("seq", 0) for each in state["shards"] if "shard" in each}


async def read_price(under_test: EngineUnderTest) -> int:
    """Return the status of a read at the gateway."""
    card = role_card(under_test.settings, "gateway")
    if card is None:
        return 0
    headers = {"Authorization": f"Bearer {make_keys(under_test.settings)}"}
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                f"{card.address}/api/v1/products?limit=1",
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=2),
            ) as response,
        ):
            return response.status
    except (aiohttp.ClientError, TimeoutError):
        return 0


async def without_stores(under_test: EngineUnderTest, stack: Any, seconds: float) -> dict[str, Any]:
    """Stop all three stores, kill an owner, restart the gateway; watch what goes on."""
    before = await seqs(under_test)
    for server in (stack.postgres, stack.questdb, stack.redis):
        await asyncio.to_thread(server.stop)
    began = time.monotonic()
    settings = under_test.settings
    victim = living_owners(settings.run_folder)[0]
    os.kill(victim.pid, signal.SIGKILL)
    card = role_card(settings, "gateway")
    assert card is not None
    os.kill(card.process.pid, signal.SIGKILL)
    gateway_s = shard_s = None
    reads = failed = 0
    while time.monotonic() - began < seconds:
        status = await read_price(under_test)
        reads += 1
        failed += status != 200
        if status == 200 and gateway_s is None:
            gateway_s = round(time.monotonic() - began, 1)
        names = {each["name"]: each.get("phase") for each in (await under_test.status())["shards"]}
        alive = [name for name, phase in names.items() if phase == "live"]
        if shard_s is None and victim.start.name not in names and len(alive) >= len(before):
            shard_s = round(time.monotonic() - began, 1)
        await asyncio.sleep(0.5)
    after = await seqs(under_test)
    for server in (stack.postgres, stack.questdb, stack.redis):
        await asyncio.to_thread(server.start)
    return {
        "down_s": seconds,
        "decisions_meanwhile": {shard: after.get(shard, 0) - before[shard] for shard in before},
        "shard_back_s": shard_s,
        "gateway_back_s": gateway_s,
        "reads": reads,
        "reads_failed_while_gateway_restarted": failed,
    }


async def without_kafka(under_test: EngineUnderTest, stack: Any, seconds: float) -> dict[str, Any]:
    """Kill Kafka with appends in flight, start it again, and look who owns."""
    before = {each.start.name for each in living_owners(under_test.settings.run_folder)}
    await asyncio.to_thread(stack.kafka.kill)
    await asyncio.sleep(seconds)
    began = time.monotonic()
    await asyncio.to_thread(stack.kafka.start)
    start = await seqs(under_test)

    def goes_on(state: dict[str, Any]) -> bool:
        now = {each["shard"]: each.get("seq", 0) for each in state["shards"] if "shard" in each}
        return all(now.get(shard, 0) > seq for shard, seq in start.items())

    await under_test.until(goes_on, "every shard decides again", 120)
    after = {each.start.name for each in living_owners(under_test.settings.run_folder)}
    state = await under_test.status()
    return {
        "kafka_down_s": seconds,
        "resumed_s": round(time.monotonic() - began, 1),
        "owners_replaced": len(before - after),
        "appends_in_doubt": sum(each.get("doubts", 0) for each in state["shards"]),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Feed, take the stores away, take Kafka away, compare."""
    parser = argparse.ArgumentParser(prog="python -m perf.stores_down", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kafka-seconds", type=float, default=10.0)
    parser.add_argument("--oj", type=Path)
    parser.add_argument("--weeks", type=int, default=121)
    parser.add_argument("--wire", choices=("json", "frames"), default="frames")
    parser.add_argument("--speed", type=float, default=5000.0)
    parser.add_argument("--json", action="store_true", help="one line of JSON (it always is)")
    options = parser.parse_args(arguments)
    with real_servers() as (stack, settings, folder):
        values = {
            **settings,
            "shards.clock": "event",
            "shards.spreads": {"dominicks": 2},
            "shards.checkpoint_s": 15,
        }
        under_test = EngineUnderTest(folder, values)
        under_test.start()
        try:
            words = [*feed_words(options, POLICY), "--speed", str(options.speed)]
            feeding = under_test.begin_verb(*words)
            time.sleep(10)
            stores = asyncio.run(without_stores(under_test, stack, options.seconds))
            kafka = asyncio.run(without_kafka(under_test, stack, options.kafka_seconds))
            fed = end_verb(feeding)
            asyncio.run(under_test.until_decided())
            found = asyncio.run(audit(under_test.settings))
            compared = asyncio.run(compare_stores(under_test.settings))
        finally:
            left = under_test.stop()
    print_line(
        {
            "row": "f",
            "machine": machine(),
            **stores,
            **kafka,
            "deltas": fed["deltas"],
            "feed_in_doubt": fed["in_doubt"],
            "decisions": found.decisions,
            "gaps": found.gaps,
            "doubled": found.doubled,
            "lost_deltas": found.lost_deltas,
            "stores_equal": compared.equal,
            "stores_unequal": compared.unequal,
            "stores_counted_again": compared.counted_again,
            "processes_left": left,
        }
    )
    wrong = found.gaps + found.doubled + found.lost_deltas + kafka["owners_replaced"]
    return 0 if wrong == 0 and compared.equal else 1


if __name__ == "__main__":
    sys.exit(main())
