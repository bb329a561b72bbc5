"""With every store down, also at start, the log grows; when they are back, followers equal it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.follower import Follower
from actors.sinks.cache import PriceCache, cached_price
from actors.sinks.dead_letters import DeadLetters
from actors.sinks.history import History
from actors.sinks.ledger import PriceLedger
from actors.sinks.log_summary import summarize_log
from engine.microbatch import Position
from persistence.ports import DECISIONS
from tests.actors.sinks.recorded import LISTINGS, RETAILER, RecordedShard, quotes_of
from tests.actors.sinks.stores import postgres_tables, questdb_series, redis_cache


async def test_stores_that_come_late_go_and_come_again_miss_nothing(
    start_postgres: Callable[[], Any],
    start_questdb: Callable[[], Any],
    start_redis: Callable[[], Any],
    tmp_path: Path,
) -> None:
    servers = [start_postgres(), start_questdb(), start_redis()]
    for server in servers:
        server.kill()
    recorded = await RecordedShard(seed=1).open()
    await recorded.fill(10)
    stores = (
        postgres_tables(servers[0].address, deadline_ms=3_000),
        questdb_series(servers[1].address, deadline_ms=3_000),
        redis_cache(servers[2].address, timeout_ms=1_000),
    )
    generation = recorded.generation
    ledger = PriceLedger(stores[0], generation=generation)
    history = History(stores[1], recorded.lanes, generation=generation)
    cache = PriceCache(stores[2], generation=generation)
    letters = DeadLetters(recorded.logs, recorded.lanes, tmp_path, generation=generation)
    log = await recorded.logs.open(DECISIONS, 0)
    followers = [
        Follower(0, log=log, sink=sink, generation=generation)
        for sink in (ledger, history, cache, letters)
    ]
    running = [asyncio.create_task(follower.run()) for follower in followers]
    # Only the one that needs no store gets on; the others are down and try again.
    await until(lambda: followers[3].status()["seq"] == 11)
    await until(lambda: all(follower.failures > 0 for follower in followers[:3]))
    assert [follower.status()["seq"] for follower in followers[:3]] == [0, 0, 0]
    for server in servers:
        await asyncio.to_thread(server.start)
    await until(lambda: all(follower.status()["seq"] == 11 for follower in followers))
    for server in servers:
        server.pause()  # it takes what is sent and never answers
    for _ in range(10):
        await recorded.any_decision()
    failures = [follower.failures for follower in followers[:3]]
    await until(
        lambda: all(
            follower.failures > before
            for follower, before in zip(followers, failures, strict=False)
        )
    )
    for server in servers:
        server.resume()
        server.kill()
        await asyncio.to_thread(server.start)
    await recorded.decide(quotes_of(list(LISTINGS), Position(1, 0, 0)))
    await until(lambda: all(follower.status()["seq"] == 22 for follower in followers))
    told = await summarize_log(log, recorded.lanes, shard=0, generation=generation)
    assert (await ledger.summary(0)).prices == told.prices
    held = await history.summary(0)
    assert (held.prices, held.facts) == (told.prices, told.facts)
    assert (await letters.summary(0)).letters == told.letters
    for channel, sku in LISTINGS.values():
        price = await cached_price(stores[2], RETAILER, channel, sku)
        assert price is not None
        assert price.seq == 22
    assert not [task for task in running if task.done()]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for store in stores:
        await store.close()


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that must happen; the test's own limit ends what never does."""
    while not true():
        await asyncio.sleep(0.02)
