"""Row i: malformed and hostile records among good ones, and one delta that crashes ``apply``.

``python -m perf.hostile --records 10000 --json``. Every hostile record must stand in the decisions'
exceptions and in the dead letters, exactly once, also after a kill; no owner may fall but by our
hand. Then a delta is sent on which ``apply`` ends its process (production code patched in the
owners alone, by a ``sitecustomize`` of this command): it must be skipped, and no other.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.assembly import make_logs
from cluster.feeding import Feed, Router
from cluster.launching import living_owners
from cluster.settings import Settings
from engine.deltas import AnyDelta, CostChanged, ListingChanged, RetailerAdded, UnitsSold
from engine.routing import partition_of
from perf.comparison import compare_stores
from perf.real_stack import EngineUnderTest, decisions, engine, machine, print_line
from persistence.frames import FRAME
from persistence.ports import DELTAS
from persistence.wire import JSON

RETAILER = "shop"
GOOD_LISTINGS = 200
MURDERER = "the-delta-that-kills"

MURDER = """
import os, sys
import importlib.abc, importlib.machinery

class Patch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "engine.shard":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            apply = module.Shard.apply
            def dying(self, batch, *arguments, **named):
                given = arguments[1] if len(arguments) > 1 else named.get("given")
                skipped = set(given.skipped) if given is not None else set()
                for item in batch.runs:
                    delta = getattr(item, "delta", None)
                    if getattr(delta, "title", None) == "MURDERER" and item.position not in skipped:
                        os._exit(139)
                return apply(self, batch, *arguments, **named)
            module.Shard.apply = dying
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Patch())
""".replace("MURDERER", MURDERER)
"""Makes ``Shard.apply`` end the process at one delta, unless it is told to skip it."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def good(number: int) -> list[AnyDelta]:
    """Return deltas that must all be decided."""
    place: dict[str, Any] = {"retailer": RETAILER, "channel": "web"}
    sku = f"sku-{number % GOOD_LISTINGS}"
    return [
        CostChanged(**place, sku=sku, cost_minor=900 + number % 97, observed_ms=now_ms()),
        UnitsSold(
            **place, sku=sku, units=1, observed_ms=now_ms(), source="till", source_seq=number
        ),
    ]


def hostile(draw: random.Random, number: int) -> tuple[bytes, bytes, str]:
    """Return one record that must be refused, as key, value and content type."""
    key = RETAILER.encode()
    sold = '{"type":"UnitsSold","retailer":"shop","channel":"web","sku":"sku-1","units":%s,'
    rest = f'"observed_ms":1,"event_id":"e{number}"}}'
    texts = [
        sold % "-1" + rest,
        sold % "1e400" + rest,
        sold % "NaN" + rest,
        sold % "99999999999999999999" + rest,
        sold % '"1"' + rest,
        sold % "1" + '"units":2,' + rest,  # one key twice
        sold % "1" + '"unknown":2,' + rest,
        sold % "1" + rest[:-1],  # cut off
        "[" * 5000,
        "{" * 300 + "}" * 300,
        "null",
        "[]",
        '"text"',
        "",
        '{"type":"NoSuchThing","retailer":"shop"}',
        '{"type":"CostChanged","retailer":"shop","channel":"web","sku":"sku-1","observed_ms":1}',
        '{"type":"CostChanged","retailer":"sh op","channel":"web","sku":"s","cost_minor":1,'
        '"observed_ms":1}',
        '{"type":"CompetitorPriced","retailer":"shop","channel":"web","sku":"sku-1","rival":"r",'
        '"price_minor":0,"observed_ms":1}',
        '{"type":"ModelPromoted","retailer":"shop","observed_ms":1}',
        '{"type":"ModelPromoted","retailer":"shop","model":"m-1","observed_ms":1}',
        '{"type":"StockCounted","retailer":"shop","channel":"web","units":1,"observed_ms":1,'
        f'"sku":"nobody-{number}"}}',
    ]
    kind = draw.randrange(len(texts) + 5)
    if kind < len(texts):
        return key, texts[kind].encode(), JSON
    if kind == len(texts):
        return key, draw.randbytes(draw.randrange(1, 400)), JSON
    if kind == len(texts) + 1:
        return key, draw.randbytes(draw.randrange(1, 400)), FRAME
    if kind == len(texts) + 2:
        return key, b"\xff\xff\xff\xff" + draw.randbytes(60), FRAME
    if kind == len(texts) + 3:
        return key, b"{}", "text/csv"
    text = '{"type":"StockCounted","retailer":"other","channel":"web","sku":"s","units":1,'
    return key, (text + '"observed_ms":1}').encode(), JSON  # under another retailer's key


async def send_all(under_test: EngineUnderTest, records: int, draw: random.Random) -> int:
    """Send good and hostile records by turns and kill the owner in the middle; return how many."""
    settings = under_test.settings
    logs = make_logs(settings)
    feed = Feed(logs, Router(settings.shards.count, {}))
    opening: list[AnyDelta] = [
        RetailerAdded(retailer=RETAILER, currency="EUR", observed_ms=now_ms(), mode="live")
    ]
    opening += [
        ListingChanged(
            retailer=RETAILER,
            channel="web",
            sku=f"sku-{number}",
            price_minor=1500,
            cost_minor=900,
            observed_ms=now_ms(),
        )
        for number in range(GOOD_LISTINGS)
    ]
    await feed.send(opening)
    shard = partition_of(RETAILER, settings.shards.count)
    log = await logs.open(DELTAS, shard)
    appender = await log.appender()
    sent = 0
    while sent < records:
        block = [hostile(draw, sent + index) for index in range(min(100, records - sent))]
        await appender.append_many(block)
        await feed.send(good(sent))
        sent += len(block)
        if sent == records // 2:
            kill_owner(settings, shard)
    await appender.close()
    await log.close()
    await feed.close()
    await logs.close()
    return sent


def kill_owner(settings: Settings, shard: int) -> None:
    """Kill one shard's owner."""
    for owner in living_owners(settings.run_folder):
        if owner.start.shard == shard:
            os.kill(owner.pid, signal.SIGKILL)


async def murder(under_test: EngineUnderTest) -> int:
    """Send the delta that kills, and good ones after it; return the shard."""
    settings = under_test.settings
    logs = make_logs(settings)
    feed = Feed(logs, Router(settings.shards.count, {}))
    await feed.send(
        [
            ListingChanged(
                retailer=RETAILER, channel="web", sku="sku-1", title=MURDERER, observed_ms=now_ms()
            )
        ]
    )
    for number in range(50):
        await feed.send(good(1_000_000 + number))
    await feed.close()
    await logs.close()
    return partition_of(RETAILER, settings.shards.count)


async def refusals(settings: Settings) -> Counter[str]:
    """Return how many deltas were refused, by verdict."""
    found: Counter[str] = Counter()
    for shard in range(settings.shards.count):
        async for accepted in decisions(settings, shard):
            if accepted.decided is not None:
                found.update(each.verdict for each in accepted.decided.exceptions)
    return found


def highest_start(settings: Settings) -> dict[int, int]:
    """Return the number of the newest start of every shard."""
    found: dict[int, int] = {}
    for owner in living_owners(settings.run_folder):
        found[owner.start.shard] = max(found.get(owner.start.shard, 0), owner.start.number)
    return found


@contextmanager
def murderous() -> Iterator[None]:
    """Let every process that is started meanwhile patch itself by a folder on PYTHONPATH.

    Nothing of it stays: neither the folder, though a process that ends late may still write into
    it, nor its name on the path of whoever is started next.
    """
    before = os.environ.get("PYTHONPATH")
    with tempfile.TemporaryDirectory(prefix="repricer-patch-", ignore_cleanup_errors=True) as patch:
        (Path(patch) / "sitecustomize.py").write_text(MURDER)
        os.environ["PYTHONPATH"] = patch if not before else f"{patch}{os.pathsep}{before}"
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


def main(arguments: Sequence[str] | None = None) -> int:
    """Send what is hostile, count; send what kills, count."""
    parser = argparse.ArgumentParser(prog="python -m perf.hostile", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--json", action="store_true", help="one line of JSON (it always is)")
    options = parser.parse_args(arguments)
    draw = random.Random(options.seed)
    with murderous(), engine(options.embedded, **{"shards.count": 2}) as under_test:
        under_test.start()
        try:
            settings = under_test.settings
            began = highest_start(settings)
            sent = asyncio.run(send_all(under_test, options.records, draw))
            asyncio.run(under_test.until_decided())
            unplanned = sum(highest_start(settings).values()) - sum(began.values()) - 1
            refused = asyncio.run(refusals(settings))
            compared = asyncio.run(compare_stores(settings))
            before = highest_start(settings)
            shard = asyncio.run(murder(under_test))
            asyncio.run(under_test.until_decided())
            after = highest_start(settings)
            skipped = asyncio.run(refusals(settings))["skipped"] - refused["skipped"]
            state = asyncio.run(under_test.status())
            replayed = under_test.verb("replay")
        finally:
            left = under_test.stop()
    print_line(
        {
            "row": "i",
            "machine": machine(),
            "hostile": sent,
            "refused": sum(refused.values()),
            "by_verdict": dict(refused),
            "dead_letters": compared.letters,
            "stores_equal": compared.equal,
            "stores_unequal": compared.unequal,
            "stores_counted_again": compared.counted_again,
            "unplanned_restarts": unplanned,
            "murder_skipped": skipped,
            "murder_deaths": after[shard] - before[shard],
            "murder_other_shards": sum(after.values())
            - sum(before.values())
            - after[shard]
            + before[shard],
            "live_again": all(each.get("phase") == "live" for each in state["shards"]),
            "replay_differences": replayed["differences"],
            "processes_left": left,
        }
    )
    good_result = (
        sum(refused.values()) == sent
        and compared.letters == sent
        and compared.equal
        and unplanned == 0
        and skipped == 1
        and replayed["differences"] == 0
    )
    return 0 if good_result else 1


if __name__ == "__main__":
    sys.exit(main())
