"""The cache ends with the newest price of each listing, never shows an older or another's."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest

from actors.sinks.cache import (
    TTL_MS,
    Named,
    Opening,
    PriceCache,
    cached_price,
    price_key,
    version,
)
from engine.decided import CatalogueChange
from engine.errors import CursorFenced, FailedDependency
from engine.microbatch import Position
from persistence.memory_cache import MemoryCache
from persistence.ports import Cache
from persistence.redis_cache import RedisCache
from tests.actors.sinks.recorded import (
    LISTINGS,
    RETAILER,
    Faults,
    RecordedShard,
    follow,
    quotes_of,
)
from tests.actors.sinks.stores import redis_cache


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    store: Cache = MemoryCache()
    if request.param == "redis":
        store = redis_cache(request.getfixturevalue("redis_server").address)
    yield store
    await store.close()


class FaultyCache:
    """A cache behind faults."""

    def __init__(self, inner: Cache, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults

    async def put_versioned(self, entries: Sequence[tuple[str, int, bytes]], *, ttl_ms: int) -> int:
        work = lambda: self.inner.put_versioned(entries, ttl_ms=ttl_ms)  # noqa: E731
        return int(await self.faults.call("put", work, writes=True))

    async def get_versioned(self, key: str) -> tuple[int, bytes] | None:
        return await self.inner.get_versioned(key)

    async def get(self, key: str) -> bytes | None:
        return await self.inner.get(key)

    async def put(self, key: str, value: bytes, *, ttl_ms: int) -> None:
        await self.faults.call(
            "put", lambda: self.inner.put(key, value, ttl_ms=ttl_ms), writes=True
        )


def of(recorded: RecordedShard, cache: Any, **more: Any) -> PriceCache:
    return PriceCache(cache, generation=recorded.generation, **more)


async def newest_of(recorded: RecordedShard) -> Mapping[int, tuple[int, int]]:
    """Return (seq, price in force) of each listing's last quote in the log."""
    newest = {}
    for accepted in await recorded.accepted():
        if accepted.decided is not None:
            for quote in accepted.decided.quotes:
                price = int(quote["in_force_minor"])
                newest[int(quote["listing"])] = (accepted.decided.seq, price)
    return newest


async def expect_newest(recorded: RecordedShard, cache: Any) -> None:
    newest = await newest_of(recorded)
    assert newest
    for key, (channel, sku) in LISTINGS.items():
        price = await cached_price(cache, RETAILER, channel, sku)
        if key not in newest:
            assert price is None
            continue
        assert price is not None
        assert (price.seq, price.price_minor) == newest[key]


async def test_it_holds_the_newest_price_of_each_listing(cache: Cache) -> None:
    recorded = await RecordedShard(seed=1).open()
    await recorded.fill(40)
    sink = await follow(recorded, lambda: of(recorded, cache))
    await expect_newest(recorded, cache)
    summary = await sink.summary(recorded.shard)
    assert summary.seq == (await recorded.accepted())[-1].position.seq
    assert (summary.expired, summary.unnamed) == (0, 0)


async def test_a_follower_that_is_behind_puts_nothing_old_over_new(cache: Cache) -> None:
    recorded = await RecordedShard(seed=2).open()
    await recorded.fill(40)
    await follow(recorded, lambda: of(recorded, cache))
    accepted = await recorded.accepted()
    behind = of(recorded, cache)
    await behind.write(recorded.shard, accepted[:20], None)
    await expect_newest(recorded, cache)


@pytest.mark.parametrize("kind", Faults.KINDS)
async def test_a_fault_at_any_call_leaves_the_newest(kind: str) -> None:
    recorded = await RecordedShard(seed=4).open()
    await recorded.fill(12)
    calls, at = 1, 0
    while at < calls:
        faults = Faults(at, kind)
        cache = FaultyCache(MemoryCache(), faults)
        await follow(recorded, lambda cache=cache: of(recorded, cache), batch=2)
        calls = faults.calls
        faults.at = -1
        await expect_newest(recorded, cache)
        at += 1
    assert calls > 5


async def test_a_life_is_counted_from_the_logs_time() -> None:
    """So an older entry, put again later, never outlives a newer one that has expired."""
    now_ms = [1_000_000_000]
    recorded = await RecordedShard(now_ms=lambda: now_ms[0]).open()
    await recorded.fill(0)
    key, (channel, sku) = next(iter(LISTINGS.items()))
    await recorded.decide(quotes_of([key], Position(1, 0, 0)))
    now_ms[0] += TTL_MS // 2
    first_half = await recorded.accepted()
    await recorded.decide(quotes_of([key], Position(1, 0, 0)))
    cache = MemoryCache(monotonic_s=lambda: now_ms[0] / 1000)
    await follow(recorded, lambda: of(recorded, cache, wall_ms=lambda: now_ms[0]))
    now_ms[0] += TTL_MS - 120_000
    assert await cached_price(cache, RETAILER, channel, sku) is not None
    now_ms[0] += 120_000
    assert await cached_price(cache, RETAILER, channel, sku) is None
    late = of(recorded, cache, wall_ms=lambda: now_ms[0])
    await late.write(recorded.shard, first_half, None)
    assert await cached_price(cache, RETAILER, channel, sku) is None
    assert (await late.summary(recorded.shard)).expired == 1


async def forget_everything(cache: Cache) -> None:
    if isinstance(cache, MemoryCache):
        await cache.close()
    else:
        assert isinstance(cache, RedisCache)
        # All that is ours: the server may be somebody's, who named it for these tests.
        async for name in cache._redis.scan_iter(f"{cache._prefix}*"):
            await cache._redis.delete(name)


async def test_a_store_that_forgot_everything_is_filled_again(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unchanged prices, too, a bounded number with each heartbeat; so it is when they grow old."""
    monkeypatch.setattr("actors.sinks.cache.REFILL_ROWS", 2)
    now_ms = [1_000_000_000]
    recorded = await RecordedShard(seed=8, now_ms=lambda: now_ms[0]).open()
    await recorded.fill(40)
    sink = await follow(recorded, lambda: of(recorded, cache, wall_ms=lambda: now_ms[0]))
    listings = len(await newest_of(recorded))
    assert listings > 2

    async def heartbeats(count: int) -> None:
        for _ in range(count):
            position = (await recorded.accepted())[-1].position
            now_ms[0] += 1_000
            await recorded.decide()
            await sink.write(recorded.shard, await recorded.accepted(position), position)

    await heartbeats(listings)
    filling = sink._filling[recorded.shard]
    for passes, age_ms in ((2, 0), (3, TTL_MS // 2)):
        before = filling.passes
        now_ms[0] += age_ms
        if not age_ms:
            await forget_everything(cache)
        await heartbeats((listings + 1) // 2 + 1)
        await expect_newest(recorded, cache)
        assert filling.passes == before + 1, passes


async def test_a_new_follower_puts_what_its_checkpoint_holds(cache: Cache) -> None:
    recorded = await RecordedShard(seed=9).open()
    await recorded.fill(0)
    position = (await recorded.accepted())[-1].position
    names = {key: Named(RETAILER, *place, "EUR") for key, place in LISTINGS.items()}
    quotes = quotes_of(list(LISTINGS), Position(1, 0, 0))

    async def opening(shard: int) -> Opening:
        return Opening(position, names, quotes, [(1, item) for item in range(len(quotes))])

    await recorded.decide()
    await follow(recorded, lambda: of(recorded, cache, opening=opening))
    for item, (channel, sku) in enumerate(LISTINGS.values()):
        price = await cached_price(cache, RETAILER, channel, sku)
        assert price is not None
        assert price.price_minor == int(quotes["in_force_minor"][item])
        assert (price.seq, price.decided_ms) == (1, 0)


async def test_it_begins_at_a_checkpoint_with_its_catalogue(cache: Cache) -> None:
    recorded = await RecordedShard(seed=5).open()
    await recorded.fill(10)
    position = (await recorded.accepted())[-1].position
    names = {key: Named(RETAILER, *place, "EUR") for key, place in LISTINGS.items()}
    key, (channel, sku) = next(iter(LISTINGS.items()))
    await recorded.decide(quotes_of([key], Position(1, 0, 0)))

    async def opening(shard: int) -> Opening:
        assert shard == recorded.shard
        return Opening(position, names)

    sink = await follow(recorded, lambda: of(recorded, cache, opening=opening))
    price = await cached_price(cache, RETAILER, channel, sku)
    assert price is not None
    assert price.currency == "EUR"
    assert (await sink.summary(recorded.shard)).prices.rows == 1
    unnamed = of(recorded, cache)
    await unnamed.position(recorded.shard)
    await unnamed.write(recorded.shard, await recorded.accepted(position), None)
    assert (await unnamed.summary(recorded.shard)).unnamed == 1


async def test_another_tenants_entry_is_never_shown(cache: Cache) -> None:
    recorded = await RecordedShard(seed=6).open()
    await recorded.fill(20)
    await follow(recorded, lambda: of(recorded, cache))
    key = next(iter(await newest_of(recorded)))
    channel, sku = LISTINGS[key]
    found = await cache.get_versioned(price_key(RETAILER, channel, sku))
    assert found is not None
    await cache.put_versioned([(price_key("zeta", channel, sku), *found)], ttl_ms=60_000)
    with pytest.raises(FailedDependency, match="another"):
        await cached_price(cache, "zeta", channel, sku)
    assert await cached_price(cache, "zeta", "shop", "nothing") is None


async def test_a_new_generation_is_newer_than_any_seq(cache: Cache) -> None:
    recorded = await RecordedShard(generation=1).open()
    await recorded.fill(30)
    await follow(recorded, lambda: of(recorded, cache))
    resharded = await RecordedShard(seed=1, generation=2).open()
    await resharded.fill(0)
    key, (channel, sku) = next(iter(LISTINGS.items()))
    await resharded.decide(quotes_of([key], Position(1, 0, 0)))
    await follow(resharded, lambda: of(resharded, cache))
    price = await cached_price(cache, RETAILER, channel, sku)
    assert price is not None
    assert (price.generation, price.seq) == (2, 2)
    assert version(price) > 2**40


async def test_a_caller_that_jumps_is_fenced() -> None:
    recorded = await RecordedShard(seed=7).open()
    await recorded.fill(4)
    accepted = await recorded.accepted()
    sink = of(recorded, MemoryCache())
    await sink.write(recorded.shard, accepted[:2], None)
    with pytest.raises(CursorFenced):
        await sink.write(recorded.shard, accepted[3:], accepted[2].position)


async def test_a_listing_that_was_renamed_keeps_what_was_not_said() -> None:
    recorded = await RecordedShard().open()
    await recorded.fill(0)
    key, (channel, sku) = next(iter(LISTINGS.items()))
    change = CatalogueChange(Position(0, 0, 0), "listing", RETAILER, {"title": "new"}, key)
    await recorded.decide(quotes_of([key], Position(1, 0, 0)), catalogue=[change])
    cache = MemoryCache()
    await follow(recorded, lambda: of(recorded, cache))
    assert await cached_price(cache, RETAILER, channel, sku) is not None


async def test_a_redis_killed_and_frozen_in_the_middle_ends_with_the_newest(
    start_redis: Callable[[], Any],
) -> None:
    """What a lost second of the append-only file held is put again with the next prices."""
    recorded = await RecordedShard(seed=9).open()
    await recorded.fill(20)
    server = start_redis()
    cache = redis_cache(server.address, timeout_ms=1_000)
    sink = of(recorded, cache)
    accepted = await recorded.accepted()
    await sink.write(recorded.shard, accepted[:6], None)
    server.kill()
    with pytest.raises(FailedDependency):
        await sink.write(recorded.shard, accepted[6:], accepted[5].position)
    server.start()
    server.pause()
    try:
        with pytest.raises(FailedDependency):
            await sink.write(recorded.shard, accepted[6:], accepted[5].position)
    finally:
        server.resume()
    again = await follow(recorded, lambda: of(recorded, cache))
    await expect_newest(recorded, cache)
    assert (await again.summary(recorded.shard)).seq == accepted[-1].position.seq
    await cache.close()
