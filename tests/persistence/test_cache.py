"""The contract of the cache, against memory and the real Redis."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis as Client
from redis.exceptions import TimeoutError as RedisTimeout

from cluster.servers.redis import Redis
from engine.errors import FailedDependency
from persistence.memory_cache import MemoryCache
from persistence.ports import Cache
from persistence.redis_cache import FAILURES_TO_OPEN, RedisCache
from tests.actors.sinks.stores import redis_cache

LONG_MS = 60_000


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    store: Cache = MemoryCache()
    if request.param == "redis":
        store = redis_cache(request.getfixturevalue("redis_server").address)
    yield store
    await store.close()


async def test_what_was_put_is_got_and_what_was_not_is_nothing(cache: Cache) -> None:
    value = bytes(range(256))
    await cache.put("a", value, ttl_ms=LONG_MS)
    assert await cache.get("a") == value
    assert await cache.get("b") is None
    assert await cache.get_versioned("b") is None


async def test_an_older_version_never_takes_the_place_of_a_newer(cache: Cache) -> None:
    assert await cache.put_versioned([("a", 9, b"nine"), ("b", 1, b"one")], ttl_ms=LONG_MS) == 2
    assert await cache.put_versioned([("a", 8, b"eight"), ("b", 10, b"ten")], ttl_ms=LONG_MS) == 1
    assert await cache.get_versioned("a") == (9, b"nine")
    assert await cache.get_versioned("b") == (10, b"ten")
    assert await cache.put_versioned([("a", 9, b"again")], ttl_ms=LONG_MS) == 1


async def test_versions_are_compared_as_numbers_however_big(cache: Cache) -> None:
    big = 2**62 + 1  # as a double it would equal its neighbours
    await cache.put_versioned([("a", big, b"new")], ttl_ms=LONG_MS)
    assert await cache.put_versioned([("a", big - 1, b"old")], ttl_ms=LONG_MS) == 0
    assert await cache.put_versioned([("a", big + 1, b"newer")], ttl_ms=LONG_MS) == 1
    assert await cache.get_versioned("a") == (big + 1, b"newer")


async def test_many_writers_at_once_leave_the_newest(cache: Cache) -> None:
    versions = [(number * 7919) % 200 for number in range(200)]
    await asyncio.gather(
        *(cache.put_versioned([("a", one, f"{one}".encode())], ttl_ms=LONG_MS) for one in versions)
    )
    assert await cache.get_versioned("a") == (199, b"199")


async def test_more_entries_than_one_call_holds(cache: Cache) -> None:
    entries = [(f"k{number}", number + 1, f"v{number}".encode()) for number in range(600)]
    assert await cache.put_versioned(entries, ttl_ms=LONG_MS) == 600
    assert await cache.get_versioned("k599") == (600, b"v599")


async def test_entries_end(cache: Cache) -> None:
    await cache.put("a", b"x", ttl_ms=1)
    await cache.put_versioned([("b", 5, b"x")], ttl_ms=1)
    await cache.add("c", 5, ttl_ms=1)
    await asyncio.sleep(0.05)
    assert await cache.get("a") is None
    assert await cache.get_versioned("b") is None
    assert await cache.add("c", 1, ttl_ms=LONG_MS) == 1
    assert await cache.put_versioned([("b", 4, b"y")], ttl_ms=LONG_MS) == 1


async def test_adding_is_atomic(cache: Cache) -> None:
    sums = await asyncio.gather(*(cache.add("a", 1, ttl_ms=LONG_MS) for _ in range(100)))
    assert sorted(sums) == list(range(1, 101))
    assert await cache.add("a", -100, ttl_ms=LONG_MS) == 0


async def test_a_counter_lives_from_its_first_addition() -> None:
    now_s = [0.0]
    cache = MemoryCache(monotonic_s=lambda: now_s[0])
    await cache.add("a", 1, ttl_ms=1_000)
    now_s[0] = 0.9
    assert await cache.add("a", 1, ttl_ms=1_000) == 2
    now_s[0] = 1.0
    assert await cache.add("a", 1, ttl_ms=1_000) == 1


async def test_memory_is_bounded_and_forgets_the_oldest() -> None:
    cache = MemoryCache(entries_max=2)
    for key in ("a", "b", "a", "c"):
        await cache.put(key, b"x", ttl_ms=LONG_MS)
    assert await cache.get("b") is None
    assert await cache.get("a") == b"x"


async def test_anothers_value_is_never_shown(redis_server: Redis) -> None:
    """A connection that is one answer behind gives other keys' values; each names its own key."""
    cache = redis_cache(redis_server.address, prefix="mixed:")
    await cache.put("acme:1", b"secret", ttl_ms=LONG_MS)
    await cache.put_versioned([("acme:2", 1, b"secret")], ttl_ms=LONG_MS)
    client = Client.from_url(redis_server.address)
    for name in ("1", "2"):
        stored = await client.get(f"mixed:acme:{name}")
        await client.set(f"mixed:zeta:{name}", stored)
    with pytest.raises(FailedDependency, match="another key"):
        await cache.get("zeta:1")
    with pytest.raises(FailedDependency, match="another key"):
        await cache.get_versioned("zeta:2")
    assert await cache.get("acme:1") == b"secret"
    await client.aclose()
    await cache.close()


async def test_a_cancelled_caller_leaves_the_connection_in_step(redis_server: Redis) -> None:
    cache = redis_cache(redis_server.address)
    for number in range(50):
        await cache.put(f"k{number}", f"v{number}".encode(), ttl_ms=LONG_MS)
    for number in range(50):
        call = asyncio.create_task(cache.get(f"k{number}"))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert await cache.get(f"k{49 - number}") == f"v{49 - number}".encode()
    await cache.close()


async def test_the_function_is_loaded_again_where_it_is_missing(start_redis: object) -> None:
    server = start_redis()  # type: ignore[operator]
    cache = redis_cache(server.address)
    await cache.put_versioned([("a", 1, b"x")], ttl_ms=LONG_MS)
    client = Client.from_url(server.address)
    await client.execute_command("FUNCTION", "FLUSH")
    assert await cache.put_versioned([("a", 2, b"y")], ttl_ms=LONG_MS) == 1
    await client.aclose()
    await cache.close()


async def test_a_user_who_may_call_functions_needs_no_scripts(start_redis: object) -> None:
    server = start_redis()  # type: ignore[operator]
    loader = redis_cache(server.address, prefix="own:")
    await loader.put_versioned([("a", 1, b"x")], ttl_ms=LONG_MS)
    client = Client.from_url(server.address)
    await client.execute_command(
        *[
            "ACL",
            "SETUSER",
            "app",
            "on",
            ">word",
            "~own:*",
            "+get",
            "+set",
            "+getrange",
            "+fcall",
            "+ping",
            "+client",
            "+hello",
        ]
    )
    await client.aclose()
    host, port = server.address.rpartition("@")[2].split("/")[0].split(":")
    app = RedisCache(
        host, int(port), username="app", password="word", prefix="own:", timeout_ms=5_000
    )
    assert await app.put_versioned([("a", 2, b"y")], ttl_ms=LONG_MS) == 1
    assert await app.get_versioned("a") == (2, b"y")
    foreign = RedisCache(
        host, int(port), username="app", password="word", prefix="other:", timeout_ms=5_000
    )
    with pytest.raises(FailedDependency):
        await foreign.put_versioned([("a", 2, b"y")], ttl_ms=LONG_MS)
    for each in (loader, app, foreign):
        await each.close()


async def test_a_dead_server_opens_the_circuit_and_a_living_one_closes_it(
    start_redis: object,
) -> None:
    server = start_redis()  # type: ignore[operator]
    now_s = [0.0]
    parts = server.address.rpartition("@")[2].split("/")[0].split(":")
    password = server.address.split(":")[2].rpartition("@")[0]
    cache = RedisCache(
        parts[0],
        int(parts[1]),
        password=password,
        timeout_ms=5_000,
        monotonic_s=lambda: now_s[0],
    )
    await cache.put("a", b"x", ttl_ms=LONG_MS)
    server.kill()
    for _ in range(FAILURES_TO_OPEN):
        with pytest.raises(FailedDependency) as caught:
            await cache.get("a")
        assert "circuit" not in str(caught.value)
    with pytest.raises(FailedDependency, match="circuit"):
        await cache.get("a")
    server.start()
    with pytest.raises(FailedDependency, match="circuit"):
        await cache.get("a")
    now_s[0] = 1.5
    await cache.put("a", b"y", ttl_ms=LONG_MS)
    assert await cache.get("a") == b"y"
    await cache.close()


async def test_a_frozen_server_is_given_up_in_time(start_redis: object) -> None:
    server = start_redis()  # type: ignore[operator]
    cache = redis_cache(server.address, timeout_ms=50)
    try:
        await asyncio.wait_for(patiently_put(cache), 20)
        server.pause()
        with pytest.raises(FailedDependency):
            await asyncio.wait_for(cache.get("a"), 20)
    finally:
        server.resume()
    await cache.close()


async def test_a_connection_that_does_not_close_in_time_fails_nobody(
    redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever closes has had its answers: `repricer status` on a busy machine, for one."""
    cache = redis_cache(redis_server.address)
    await cache.put("a", b"1", ttl_ms=60_000)

    async def too_late(*_: object, **__: object) -> None:
        raise RedisTimeout("Timed out closing connection after 0.1")

    with monkeypatch.context() as patched:
        patched.setattr("redis.asyncio.connection.AbstractConnection.disconnect", too_late)
        await cache.close()
    await cache.close()


async def patiently_put(cache: RedisCache) -> None:
    """Put once on a busy machine, however short the timeout."""
    while True:
        try:
            await cache.put("a", b"x", ttl_ms=LONG_MS)
            return
        except FailedDependency:
            await asyncio.sleep(0.2)


async def test_a_connection_that_uvloop_found_cut_is_a_failed_dependency() -> None:
    """It says so with a plain RuntimeError; any other RuntimeError is a bug and stays one."""
    cache = RedisCache("127.0.0.1", 9)

    async def cut() -> None:
        raise RuntimeError(
            "unable to perform operation on <TCPTransport closed=True>; the handler is closed"
        )

    async def bug() -> None:
        raise RuntimeError("cannot reuse an awaited coroutine")

    with pytest.raises(FailedDependency, match="handler is closed"):
        await cache._call(cut)
    with pytest.raises(RuntimeError, match="reuse"):
        await cache._call(bug)
    await cache.close()
