"""The replica follows the logs as every reader does, and says so when it cannot."""

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from engine.decided import QUOTE_DTYPE
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    ListingChanged,
    PolicyChanged,
    PublishingHalted,
    RetailerAdded,
)
from engine.errors import FailedDependency, SettingsRefused
from engine.microbatch import Microbatch, ObjectDelta, Position, facts_of
from engine.shard import Shard
from gateway import server
from gateway.commands import Destination
from gateway.execution import observed_ms
from gateway.following import follow
from gateway.keys import create_key_file, load_keys
from gateway.opening import opening_of
from gateway.replica import Replica
from gateway.server import ServerSettings, serve
from persistence.decision_reader import Accepted
from persistence.decision_records import LogPosition, Stamp
from persistence.memory_log import MemoryLog, MemoryLogs
from persistence.ports import COMMANDS, DECISIONS
from tests.gateway.hand import (
    GENERATION,
    LOG_ID,
    OWNER,
    SHARDS,
    HandClock,
    Owner,
    listed,
    market,
    open_shops,
    quoted,
    retailer_added,
)


async def one_shard() -> tuple[MemoryLogs, Owner, HandClock, Replica]:
    clock = HandClock()
    logs = MemoryLogs(clock.wall_ms)
    await logs.create({DECISIONS: SHARDS, COMMANDS: SHARDS}, retention_ms=-1)
    owner = Owner(logs, 0, clock)
    await owner.start()
    return logs, owner, clock, Replica(generation=GENERATION, shards=SHARDS)


async def test_a_log_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    logs, owner, clock, replica = await one_shard()
    await owner.decide(catalogue=[retailer_added("acme"), listed("acme", "shop", "A-1")])
    read, failures = MemoryLog.read, [FailedDependency("no broker")] * 3
    opened, leaderless = MemoryLogs.open, [FailedDependency("no leader")] * 2

    async def fails(self: MemoryLog, *args: Any, **more: Any) -> Any:
        if failures:
            raise failures.pop()
        return await read(self, *args, **more)

    async def has_no_leader(self: MemoryLogs, *args: Any) -> Any:
        if leaderless:
            raise leaderless.pop()
        return await opened(self, *args)

    monkeypatch.setattr(MemoryLog, "read", fails)
    monkeypatch.setattr(MemoryLogs, "open", has_no_leader)
    following = asyncio.create_task(follow(replica, 0, logs, clock))
    async with asyncio.timeout(10):
        while replica.shards[0].position.seq < 1:
            await asyncio.sleep(0.01)
    assert failures == leaderless == []
    assert replica.shards[0].caught_up
    following.cancel()


async def test_a_log_with_a_gap_stops_its_shard_loudly_and_stays_readable() -> None:
    logs, owner, clock, replica = await one_shard()
    await owner.decide(
        catalogue=[retailer_added("acme"), listed("acme", "shop", "A-1")],
        quotes=[quoted("acme", "shop", "A-1", 1999)],
    )
    owner.seq += 1
    await owner.decide(quotes=[quoted("acme", "shop", "A-1", 1)])
    await follow(replica, 0, logs, clock)
    assert replica.shards[0].failure.startswith("SequenceGap")
    product = replica.product("acme", "A-1")
    assert product is not None
    answer = replica.answer("acme", product)
    assert answer is not None
    assert b'"19.99"' in answer


async def test_a_replaced_owner_is_not_believed() -> None:
    logs, owner, clock, replica = await one_shard()
    await owner.decide(
        catalogue=[retailer_added("acme"), listed("acme", "shop", "A-1")],
        quotes=[quoted("acme", "shop", "A-1", 1999)],
    )
    successor = Owner(logs, 0, clock)
    successor._stamp = type(owner._stamp)(LOG_ID, GENERATION, 0, 2, b"S" * 16)
    successor.seq = owner.seq
    await successor.start()
    await owner.decide(quotes=[quoted("acme", "shop", "A-1", 100)])
    await successor.decide(quotes=[quoted("acme", "shop", "A-1", 1850)])
    following = asyncio.create_task(follow(replica, 0, logs, clock))
    async with asyncio.timeout(10):
        while replica.shards[0].position.seq < 2:
            await asyncio.sleep(0.005)
    body = replica.body(0)
    assert b'"18.50"' in body
    assert b'"1.00"' not in body
    following.cancel()


async def test_a_log_whose_head_is_gone_is_read_from_its_middle() -> None:
    logs, owner, clock, replica = await one_shard()
    await owner.decide(catalogue=[retailer_added("acme"), listed("acme", "shop", "A-1")])
    await owner.start()  # owners repeat their start, so that retention never removes it
    await owner.decide(quotes=[quoted("acme", "shop", "A-1", 1850)])
    log = await logs.open(DECISIONS, 0)
    log.truncate(2)
    following = asyncio.create_task(follow(replica, 0, logs, clock))
    async with asyncio.timeout(10):
        while replica.shards[0].position.seq < 2:
            await asyncio.sleep(0.005)
    assert replica.window.covers(0, 1)
    assert not replica.window.covers(0, 0)
    following.cancel()


def test_a_gateway_begun_from_a_checkpoint_gives_commands_its_shards_time() -> None:
    """Until it hears of a start it has its settings' word for the clock.

    By the wall clock its first command would carry a shard that is fed with history to today.
    """
    shard = Shard()
    listed_ms = 800_000_000_000
    deltas = (ObjectDelta(Position(1, 0, 0), _deltas()[0]),)
    batch = Microbatch(runs=deltas, last_command=-1, last_delta=0, deltas=1)
    shard.record(shard.apply(batch, now_ms=listed_ms))
    place = LogPosition(LOG_ID, shard.seq, 1, OWNER, shard.seq)
    replica = Replica(generation=1, shards=1, clock="event")
    replica.begin(0, opening_of([shard.checkpoint_close()], place))
    gateway: Any = SimpleNamespace(replica=replica, clock=None)
    assert observed_ms(gateway, (Destination(0, "acme"),)) == listed_ms


def test_a_replica_begun_from_a_checkpoint_equals_one_that_read_the_log() -> None:
    """The real shard's checkpoint and its decisions must say the same of every listing."""
    shard, deltas = Shard(), _deltas()
    read = Replica(generation=1, shards=1)
    for number, delta in enumerate(deltas):
        position = Position(1, number, 0)
        run = (
            facts_of([(position, delta)])
            if isinstance(delta, CompetitorPriced | CostChanged)
            else ObjectDelta(position, delta)
        )
        batch = Microbatch(runs=(run,), last_command=-1, last_delta=number, deltas=1)
        decided = shard.apply(batch, now_ms=1_800_000_000_000 + number)
        shard.record(decided)
        accepted = _accepted(decided.seq, decided)
        read.accept(0, accepted, read_ms=1)
    begun = Replica(generation=1, shards=1)
    place = LogPosition(LOG_ID, shard.seq, 1, OWNER, shard.seq)
    begun.begin(0, opening_of([shard.checkpoint_close()], place))
    assert begun.position() == read.position()
    assert begun.shards[0].decided_ms == read.shards[0].decided_ms == shard.decided_ms
    assert set(begun.retailers) == set(read.retailers) == {"acme"}
    for sku, product in read.retailers["acme"].products.items():
        other = begun.retailers["acme"].products[sku]
        for mine, theirs in zip(product.rows, other.rows, strict=True):
            assert read.listing(mine) == begun.listing(theirs)
            first, second = read.quote(mine), begun.quote(theirs)
            assert (first is None) == (second is None)
            if first is not None and second is not None:
                for name in QUOTE_DTYPE.names or ():
                    if name != "previous_minor":
                        assert first[name] == second[name] or first[name] != first[name], name
                assert read.place(mine).index == begun.place(theirs).index
                assert read.place(mine).seq == begun.place(theirs).seq
    assert read.policies.state() == begun.policies.state()
    assert read.retailers["acme"].halts.keys() == begun.retailers["acme"].halts.keys()
    assert read.retailers["acme"].mode == begun.retailers["acme"].mode == "live"


def _deltas() -> list[AnyDelta]:
    now = 1_800_000_000_000
    one: dict[str, Any] = {"retailer": "acme", "observed_ms": now}
    listing: dict[str, Any] = {**one, "channel": "shop", "sku": "A-1"}
    return [
        RetailerAdded(**one, currency="EUR", mode="live", primary_channel="shop"),
        PolicyChanged(**one, scope="retailer", fields={"min_margin": 0.1}),
        ListingChanged(**listing, title="Juice", category="drinks", price_minor=1999),
        CostChanged(**listing, cost_minor=900),
        CompetitorPriced(**listing, rival="them", price_minor=1950),
        ListingChanged(**{**listing, "sku": "A-2"}, tags=("new",)),
        PublishingHalted(**one, channel="shop", reason="strike"),
    ]


def _accepted(seq: int, decided: Any) -> Any:

    return Accepted(
        position=LogPosition(LOG_ID, seq, 1, OWNER, seq),
        appended_ms=1,
        stamp=Stamp(LOG_ID, 1, 0, 1, OWNER),
        decided=decided,
    )


async def test_the_process_serves_at_once_and_says_when_it_is_ready(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = create_key_file(path)
    async with market() as place:
        await open_shops(place)
        opened: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        settings = ServerSettings(generation=GENERATION, partitions=SHARDS, port=0)
        serving = asyncio.create_task(
            serve(settings, place.logs, load_keys(path), started=opened.set_result)
        )
        port = await asyncio.wait_for(opened, 10)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with asyncio.timeout(10):
                while True:
                    async with session.get("/readyz") as answer:
                        if answer.status == 200:
                            break
                    await asyncio.sleep(0.01)
            headers = {"Authorization": f"Bearer {key}"}
            async with session.get(
                "/api/products/A-1/recommendation?retailer=acme", headers=headers
            ) as answer:
                assert (await answer.json())["current_price"]["amount"] == "19.99"
            async with session.ws_connect(
                "/api/v1/stream", protocols=("prices.v1",), headers=headers
            ) as stream:
                await stream.send_json({"type": "subscribe", "all": True, "retailer": "acme"})
                assert (await stream.receive_json())["type"] == "snapshot"
                serving.cancel()
                async with asyncio.timeout(10):
                    while not stream.closed:
                        await stream.receive()
                assert stream.close_code == 1001
        await asyncio.wait([serving])
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_parser_in_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    server.assert_c_parser()
    parser = server.http_parser
    monkeypatch.setattr(parser, "HttpRequestParser", parser.HttpRequestParserPy)
    with pytest.raises(SettingsRefused, match="C extension"):
        server.assert_c_parser()
