"""What is fed arrives: keyed as the shards expect, in order, once, frames and JSON alike."""

from typing import Any

import pytest

from cluster.feeding import EVERY_SHARD, Feed, Pace, Router, Wire
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    ListingChanged,
    PolicyChanged,
    RetailerAdded,
    StockCounted,
    UnitsSold,
)
from engine.errors import AppendInDoubt
from engine.microbatch import UNITS_SOLD, FactColumns, Microbatch, ObjectDelta
from persistence.memory_log import MemoryLogs
from persistence.ports import DELTAS, Appended, Log
from persistence.wire import Decoder, read_facts

SPREADS = {"big": 3}
PARTITIONS = 4


def deltas() -> list[AnyDelta]:
    told: list[AnyDelta] = [
        RetailerAdded(retailer="big", currency="EUR", observed_ms=1),
        PolicyChanged(retailer="big", scope="retailer", fields={}, observed_ms=1),
    ]
    for number in range(40):
        place: dict[str, Any] = {"retailer": "big", "channel": "shop", "sku": f"sku-{number}"}
        told += [
            ListingChanged(**place, observed_ms=2),
            CostChanged(**place, cost_minor=100 + number, observed_ms=3),
            CompetitorPriced(**place, rival="r", price_minor=500, observed_ms=3, currency="USD"),
            StockCounted(**place, units=number, observed_ms=3),
            UnitsSold(**place, units=1, observed_ms=3, source="file", source_seq=number),
            UnitsSold(**place, units=1, observed_ms=3, event_id=f"e{number}", price_minor=499),
        ]
    return told


async def decoded(logs: MemoryLogs) -> list[Microbatch]:
    batches = []
    for partition in range(PARTITIONS):
        log: Log = await logs.open(DELTAS, partition)
        records = await log.read(-1, limit=10_000, wait_ms=0)
        decoder = Decoder(partition, PARTITIONS, SPREADS)
        batches.append(decoder.decode([], records, last_command=-1, last_delta=len(records)))
    return batches


def facts_of(batches: list[Microbatch]) -> list[tuple[int, ...]]:
    rows = []
    for batch in batches:
        for run in batch.runs:
            if isinstance(run, FactColumns):
                names = ("listing", "kind", "amount", "observed_ms", "rival", "currency", "flags")
                columns = [getattr(run, name).tolist() for name in names]
                rest = [getattr(run, name).tolist() for name in ("source", "source_seq", "event")]
                rows += list(zip(*columns, *rest, strict=True))
    return rows


async def sold_at(logs: MemoryLogs) -> list[int]:
    """Return the prices that the sales tell, as history reads them."""
    prices = []
    for partition in range(PARTITIONS):
        log = await logs.open(DELTAS, partition)
        for record in await log.read(-1, limit=10_000, wait_ms=0):
            prices += [f.sold_minor for f in read_facts(record) if f.kind == UNITS_SOLD]
    return prices


@pytest.mark.parametrize("wire", ["json", "frames"])
async def test_both_wires_carry_the_same_to_the_right_shards(wire: Wire) -> None:
    logs = MemoryLogs()
    await logs.create({DELTAS: PARTITIONS}, retention_ms=-1)
    feed = Feed(logs, Router(PARTITIONS, SPREADS), wire)
    await feed.send(deltas())
    await feed.close()
    batches = await decoded(logs)
    assert not [refusal for batch in batches for refusal in batch.refusals]
    assert len(facts_of(batches)) == 200
    objects = [run.delta for batch in batches for run in batch.runs if isinstance(run, ObjectDelta)]
    assert sum(isinstance(delta, ListingChanged) for delta in objects) == 40
    holding = len({partition for _, partition in Router(PARTITIONS, SPREADS).of_delta(deltas()[0])})
    assert sum(isinstance(delta, RetailerAdded) for delta in objects) == holding
    assert feed.sent == len(deltas())


async def test_frames_say_what_json_says() -> None:
    found = []
    for wire in ("json", "frames"):
        logs = MemoryLogs()
        await logs.create({DELTAS: PARTITIONS}, retention_ms=-1)
        feed = Feed(logs, Router(PARTITIONS, SPREADS), "json" if wire == "json" else "frames")
        await feed.send(deltas())
        found.append((sorted(facts_of(await decoded(logs))), sorted(await sold_at(logs))))
    assert found[0] == found[1]
    assert found[0][1] == [0] * 40 + [499] * 40


@pytest.mark.parametrize("wire", ["json", "frames"])
async def test_a_listing_comes_before_its_facts(wire: Wire) -> None:
    logs = MemoryLogs()
    await logs.create({DELTAS: PARTITIONS}, retention_ms=-1)
    feed = Feed(logs, Router(PARTITIONS, SPREADS), wire)
    await feed.send(deltas())
    router = Router(PARTITIONS, SPREADS)
    for batch in await decoded(logs):
        known: set[int] = set()
        for run in batch.runs:
            if isinstance(run, ObjectDelta) and isinstance(run.delta, ListingChanged):
                delta = run.delta
                known.add(router.listing(delta.retailer, delta.channel, delta.sku))
            elif isinstance(run, FactColumns):
                assert set(run.listing.tolist()) <= known


async def test_what_concerns_a_spread_retailer_goes_to_each_of_his_shards() -> None:
    router = Router(PARTITIONS, SPREADS)
    keys = router.of_delta(RetailerAdded(retailer="big", currency="EUR", observed_ms=1))
    assert {key for key, _ in keys} == {EVERY_SHARD}
    (only,) = router.of_delta(RetailerAdded(retailer="small", currency="EUR", observed_ms=1))
    assert only[0] == "small"


async def test_a_batch_in_doubt_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    logs = MemoryLogs()
    await logs.create({DELTAS: 1}, retention_ms=-1)
    feed = Feed(logs, Router(1, {}))
    appender = await feed._appender(0)
    sent = appender.append_many
    doubted = []

    async def doubtful(values: object) -> list[Appended]:
        doubted.append(await sent(values))  # type: ignore[arg-type]
        raise AppendInDoubt("the acknowledgement was lost")

    monkeypatch.setattr(appender, "append_many", doubtful)
    await feed.send([UnitsSold(retailer="r", channel="c", sku="s", units=1, observed_ms=1)])
    assert len(doubted) == 1
    assert feed.doubts == 1
    log = await logs.open(DELTAS, 0)
    assert await log.end() == 2, "once in doubt, once surely; the shard drops the second"


async def test_a_pace_is_even() -> None:
    pace = Pace(1000.0)
    assert pace.batch(20_000) == 20
    assert Pace(0).batch(20_000) == 20_000
