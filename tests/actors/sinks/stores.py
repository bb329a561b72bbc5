"""The backends that contract tests and sink tests run against, the real ones included."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from cluster.servers.questdb import QuestDBAddress
from persistence.postgres_tables import PostgresTables
from persistence.questdb_series import QuestDBSeries
from persistence.redis_cache import RedisCache


@asynccontextmanager
async def postgres_database(dsn: str) -> AsyncIterator[str]:
    """Make a database of the test's own and drop it at the end."""
    name = f"test_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(dsn)
    try:
        await admin.execute(f"create database {name}")
        parts = urlsplit(dsn)
        yield urlunsplit(parts._replace(path=f"/{name}"))
        await admin.execute(f"drop database {name} with (force)")
    finally:
        await admin.close()


def postgres_tables(dsn: str, *, deadline_ms: int = 20_000) -> PostgresTables:
    """Return a table store with its password apart, as the settings hand it over."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    bare = urlunsplit(parts._replace(netloc=f"{parts.username}@{host}"))
    return PostgresTables(bare, password=parts.password, deadline_ms=deadline_ms, connect_ms=5_000)


def questdb_series(
    address: QuestDBAddress,
    *,
    ttl_days: int = 90,
    deadline_ms: int = 20_000,
    wall_ms: Callable[[], int] | None = None,
) -> QuestDBSeries:
    """Return a series store at a server's address."""
    host, port = address.host, address.http_port
    more = {} if wall_ms is None else {"wall_ms": wall_ms}
    return QuestDBSeries(
        host,
        port,
        user=address.user,
        password=address.password,
        ttl_days=ttl_days,
        deadline_ms=deadline_ms,
        **more,
    )


def redis_cache(url: str, *, timeout_ms: int = 5_000, prefix: str = "") -> RedisCache:
    """Return a cache with a prefix of the test's own."""
    parts = urlsplit(url)
    return RedisCache(
        parts.hostname or "127.0.0.1",
        parts.port or 6379,
        username=parts.username or None,
        password=parts.password,
        prefix=prefix or f"test-{secrets.token_hex(6)}:",
        timeout_ms=timeout_ms,
    )


def sqlite_path(folder: Path) -> Path:
    """Return the path of a new SQLite file."""
    return folder / f"{secrets.token_hex(6)}.sqlite"
