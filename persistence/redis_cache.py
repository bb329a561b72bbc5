"""The cache in Redis: short timeouts, a circuit breaker, versions judged inside the server.

**Versioned put.** Comparing and setting must be one step on the server, or a slow writer puts an
old price over a new one. Three ways exist. ``WATCH`` takes three round trips and is retried for
ever under contention. ``EVAL`` would need every program of ours to be allowed any Lua. So it is a
*function*: one library, loaded under one name when it is missing, kept by Redis with its data, and
called with ``FCALL``, which an operator can allow alone (``+fcall -eval -evalsha``).

**Whose value is this?** A client whose command was cancelled can leave its connection one answer
behind, and the next caller then reads another's value. So no command is ever cancelled, a
connection is dropped when an answer is late, and every value carries its own key (which names the
tenant), compared on every read.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from engine.errors import FailedDependency
from persistence.sqlite_tables import heard

LOGGER = logging.getLogger("repricer.cache")

Result = TypeVar("Result")

TRANSPORT_CLOSED = "the handler is closed"
"""What uvloop says, as a plain ``RuntimeError``, when it writes to a connection that was cut."""

LIBRARY = """#!lua name=repricer_v1
redis.register_function('repricer_put_versioned', function(keys, args)
    local ttl_ms, won = args[1], 0
    for place, key in ipairs(keys) do
        local version, value = args[2 * place], args[2 * place + 1]
        local held = redis.call('GETRANGE', key, 0, 15)
        if #held < 16 or held <= version then
            redis.call('SET', key, version .. value, 'PX', ttl_ms)
            won = won + 1
        end
    end
    return won
end)
redis.register_function('repricer_add', function(keys, args)
    local total = redis.call('INCRBY', keys[1], args[1])
    if redis.call('PTTL', keys[1]) < 0 then
        redis.call('PEXPIRE', keys[1], args[2])
    end
    return total
end)
"""
"""Versions are 16 hexadecimal digits: text order is number order, and no double is involved."""

ENTRIES_PER_CALL = 256
"""A function blocks the whole server while it runs: this many entries take well under 1 ms."""

FAILURES_TO_OPEN = 5
OPEN_S = 1.0


class RedisCache:
    """``persistence.ports.Cache`` in Redis 7 or later."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        username: str | None = None,
        password: str | None = None,
        prefix: str = "repricer:",
        timeout_ms: int = 100,
        connections_max: int = 16,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = Redis(
            host=host,
            port=port,
            username=username,
            password=password,
            socket_timeout=timeout_ms / 1000,
            socket_connect_timeout=timeout_ms / 1000,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=15,
            max_connections=connections_max,
            decode_responses=False,
        )
        self._prefix = prefix
        self._monotonic_s = monotonic_s
        self._turns = asyncio.Semaphore(connections_max)  # the pool refuses instead of waiting
        self._failures = 0
        self._open_until_s = 0.0

    async def get(self, key: str) -> bytes | None:
        stored: Any = await self._call(lambda: self._redis.get(self._name(key)))
        return None if stored is None else await self._own(key, stored)

    async def put(self, key: str, value: bytes, *, ttl_ms: int) -> None:
        stored = _sealed(self._name(key), value)
        await self._call(lambda: self._redis.set(self._name(key), stored, px=ttl_ms))

    async def put_versioned(self, entries: Sequence[tuple[str, int, bytes]], *, ttl_ms: int) -> int:
        assert ttl_ms > 0
        won = 0
        for start in range(0, len(entries), ENTRIES_PER_CALL):
            block = entries[start : start + ENTRIES_PER_CALL]
            names = [self._name(key) for key, _, _ in block]
            arguments: list[bytes | str] = [str(ttl_ms)]
            for name, (_, version, value) in zip(names, block, strict=True):
                assert 0 <= version < 2**63
                arguments += [f"{version:016x}", _sealed(name, value)]
            won += int(await self._function("repricer_put_versioned", names, arguments))
        return won

    async def get_versioned(self, key: str) -> tuple[int, bytes] | None:
        stored: Any = await self._call(lambda: self._redis.get(self._name(key)))
        if stored is None:
            return None
        return int(stored[:16], 16), await self._own(key, stored[16:])

    async def add(self, key: str, amount: int, *, ttl_ms: int) -> int:
        arguments = [str(amount), str(ttl_ms)]
        return int(await self._function("repricer_add", [self._name(key)], arguments))

    async def close(self) -> None:
        """Close the connections; one that is not closed in time goes with the process."""
        try:
            await self._redis.aclose()
        except (RedisError, OSError) as error:
            LOGGER.info("redis: a connection was left as it was: %s", error)

    def _name(self, key: str) -> str:
        return self._prefix + key

    async def _own(self, key: str, stored: bytes) -> bytes:
        """Return the value after checking that it is this key's; else the connection lies."""
        name = self._name(key).encode()
        length = int.from_bytes(stored[:2], "little")
        if stored[2 : 2 + length] != name:
            await self._redis.connection_pool.disconnect(inuse_connections=True)
            raise FailedDependency("redis: the value of another key came back; reconnecting")
        return stored[2 + length :]

    async def _function(
        self, function: str, names: Sequence[str], arguments: Sequence[bytes | str]
    ) -> Any:
        def call() -> Awaitable[Any]:
            return self._redis.fcall(function, len(names), *names, *arguments)

        try:
            return await self._call(call)
        except FailedDependency as error:
            # Loaded lazily: the server may have been down at our start, or be a new, empty one.
            if "Function not found" not in str(error):
                raise
        await self._call(lambda: self._redis.function_load(LIBRARY, replace=True))
        return await self._call(call)

    async def _in_turn(self, command: Callable[[], Awaitable[Result]]) -> Result:
        async with self._turns:
            return await command()

    async def _call(self, command: Callable[[], Awaitable[Result]]) -> Result:
        """Run one command; its own timeout ends it, never a cancelled caller."""
        if self._monotonic_s() < self._open_until_s:
            raise FailedDependency("redis: circuit open after repeated failures")
        call = asyncio.ensure_future(self._in_turn(command))
        call.add_done_callback(heard)
        try:
            result = await asyncio.shield(call)
        except ResponseError as error:
            # The server answered: it is there, whatever it thinks of the question.
            raise FailedDependency(f"redis: {error}") from error
        except (RedisError, OSError, TimeoutError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and TRANSPORT_CLOSED not in str(error):
                raise
            self._failures += 1
            if self._failures >= FAILURES_TO_OPEN:
                self._open_until_s = self._monotonic_s() + OPEN_S
            raise FailedDependency(f"redis: {error or type(error).__name__}") from error
        self._failures = 0
        return result


def _sealed(name: str, value: bytes) -> bytes:
    """Return the value behind its own key: two bytes of length, the key, the value."""
    key = name.encode()
    assert len(key) < 2**16
    return len(key).to_bytes(2, "little") + key + value
