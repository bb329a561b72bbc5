"""The one file that names backends. It builds and keeps nothing.

A backend is imported only when the settings choose it, so that a process pays for no other.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from actors.artefacts import Artefacts
from actors.follower import Follower, Sink
from actors.pauses import settle
from actors.shard_actor import OwnerSettings, ShardActor
from actors.shipping import Shipping
from actors.sinks.delta_lanes import DeltaLanes
from actors.sinks.rows import signed
from actors.starts import Start
from cluster.settings import Settings, read_secret
from cluster.trial import clock_of
from gateway.history import HistoryReader, HistoryRow
from persistence.checkpoints import CheckpointFiles, merge_base
from persistence.ports import DECISIONS, Blobs, Cache, Logs, SeriesStore, TableStore


def make_logs(settings: Settings) -> Logs:
    """Return the topics of the configured backend."""
    if settings.log.backend == "kafka":
        from persistence.kafka_log import KafkaLogs

        return KafkaLogs(settings.log.bootstrap)
    from persistence.sqlite_log import SqliteLogs

    return SqliteLogs(settings.folder / "log")


def make_tables(settings: Settings) -> TableStore:
    """Return the relational store."""
    if settings.tables.backend == "postgres":
        from persistence.postgres_tables import PostgresTables

        password = read_secret(settings.tables.password_file)
        return PostgresTables(settings.tables.url, password=password)
    from persistence.sqlite_tables import SqliteTables

    return SqliteTables(settings.folder / "tables.sqlite")


def make_series(settings: Settings) -> SeriesStore:
    """Return the store of points in time."""
    if settings.series.backend == "questdb":
        from persistence.questdb_series import QuestDBSeries

        address = urlsplit(settings.series.url)
        return QuestDBSeries(
            address.hostname or "127.0.0.1",
            address.port or 9000,
            user=settings.series.user,
            password=read_secret(settings.series.password_file) or "",
            ttl_days=settings.series.ttl_days,
        )
    from persistence.sqlite_series import SqliteSeries

    return SqliteSeries(settings.folder / "series.sqlite")


def make_cache(settings: Settings) -> Cache:
    """Return the cache."""
    if settings.cache.backend == "redis":
        from persistence.redis_cache import RedisCache

        address = urlsplit(settings.cache.url)
        return RedisCache(
            address.hostname or "127.0.0.1",
            address.port or 6379,
            username=address.username,
            password=read_secret(settings.cache.password_file),
        )
    from persistence.memory_cache import MemoryCache

    return MemoryCache()


def make_blobs(settings: Settings) -> Blobs:
    """Return where model artefacts lie."""
    from persistence.object_blobs import local_blobs, s3_blobs

    given = settings.blobs
    if not given.url:
        return local_blobs(settings.folder / "blobs")
    return s3_blobs(
        given.url,
        endpoint=given.endpoint,
        region=given.region,
        access_key_id=given.access_key_id,
        secret_access_key=read_secret(given.secret_key_file) or "",
    )


class Closing(Protocol):
    """What holds something open."""

    async def close(self) -> None: ...


class Stores(Struct, frozen=True, eq=False):
    """The stores that followers write into, and what else they hold open."""

    tables: TableStore
    series: SeriesStore
    cache: Cache
    logs: tuple[Closing, ...]  # that sinks read or write

    async def close(self) -> None:
        """Close all of them."""
        for logs in self.logs:
            await logs.close()
        await self.tables.close()
        await self.series.close()
        await self.cache.close()


def make_sinks(settings: Settings, logs: Logs) -> tuple[Stores, dict[str, Sink]]:
    """Return every sink by name, and the stores behind them."""
    from actors.sinks.cache import Opening, PriceCache, opening_at_checkpoint
    from actors.sinks.dead_letters import DeadLetters
    from actors.sinks.history import History
    from actors.sinks.ledger import PriceLedger

    generation = settings.shards.generation
    lanes = (DeltaLanes(logs), DeltaLanes(logs))
    letters = DeadLetters(logs, lanes[1], settings.folder / "cursors", generation=generation)
    stores = Stores(
        make_tables(settings), make_series(settings), make_cache(settings), (*lanes, letters)
    )

    async def opening(shard: int) -> Opening | None:
        """Begin the cache at the newest checkpoint: retention may have cut the log's beginning."""
        log = await logs.open(DECISIONS, shard)
        try:
            return await opening_at_checkpoint(
                make_checkpoints(settings, shard), log, shard=shard, generation=generation
            )
        finally:
            await log.close()

    sinks: tuple[Sink, ...] = (
        PriceLedger(stores.tables, generation=generation),
        History(stores.series, lanes[0], generation=generation),
        PriceCache(
            stores.cache,
            generation=generation,
            opening=opening,
            ttl_ms=settings.cache.ttl_s * 1000,
        ),
        letters,
    )
    return stores, {sink.name: sink for sink in sinks}


def make_shipping(settings: Settings, stores: Stores) -> list[Shipping]:
    """Return what carries each shard's checkpoints to the table store."""
    return [
        Shipping(
            make_checkpoints(settings, shard),
            stores.tables,
            shard=shard,
            generation=settings.shards.generation,
            series=stores.series,
            pinned_days=pinned_days(settings),
        )
        for shard in range(settings.shards.count)
    ]


FETCH_DEADLINE_MS = 1_000
"""A start waits no longer for a store to say what was shipped: the log holds the rest."""


async def fetch_checkpoint(settings: Settings, shard: int, *, lacking: bool = False) -> str | None:
    """Fetch a shipped checkpoint that is newer than the local ones, if the store answers in time.

    A local table store holds nothing that the folder beside it does not, so it is not asked.

    Args:
        lacking: no local one can be used; see :meth:`Shipping.fetch_lacking`.
    """
    if settings.tables.backend == "sqlite":
        return None
    tables = make_tables(settings)
    files, generation = make_checkpoints(settings, shard), settings.shards.generation
    try:
        shipping = Shipping(files, tables, shard=shard, generation=generation)
        if lacking:
            return await shipping.fetch_lacking(FETCH_DEADLINE_MS)
        return await shipping.fetch_newer(FETCH_DEADLINE_MS)
    finally:
        await tables.close()


async def fetch_pinned(settings: Settings, shard: int) -> list[str]:
    """Fetch the pinned checkpoints that lie in the table store only, for a replay that needs them.

    Raises:
        FailedDependency, CorruptCheckpoint: they could not be had.
    """
    if settings.tables.backend == "sqlite":
        return []
    tables = make_tables(settings)
    files, generation = make_checkpoints(settings, shard), settings.shards.generation
    try:
        return await Shipping(files, tables, shard=shard, generation=generation).fetch_pinned()
    finally:
        await tables.close()


def pinned_days(settings: Settings) -> int:
    """Return for how many days a checkpoint a day is pinned: as long as the log keeps records."""
    return math.ceil(settings.log.retention_days)


def merge_bases(settings: Settings) -> list[str]:
    """Merge every shard's chain of checkpoints into a base; call it in a process of its own."""
    from engine.checkpoint import merge_parts

    merged = []
    for shard in range(settings.shards.count):
        folder = checkpoint_folder(settings, shard)
        files = make_checkpoints(settings, shard)
        days = pinned_days(settings)
        name = None
        if folder.is_dir():
            name = merge_base(files, merge_parts, pinned_days=days)
        if name is not None:
            merged.append(name)
    return merged


HISTORY_ROWS_MAX = 2000


def make_history_reader(series: SeriesStore) -> HistoryReader:
    """Return what reads a listing's past prices for the gateway's charts."""

    async def read(listing: int, from_ms: int, to_ms: int) -> list[HistoryRow]:
        names = ", ".join(HistoryRow.__struct_fields__)
        rows = await series.fetch(
            f"select {names} from prices where listing = {signed(listing)} and decided_ms >= "
            f"{from_ms} and decided_ms <= {to_ms} order by decided_ms desc limit {HISTORY_ROWS_MAX}"
        )
        return [HistoryRow(**{key: int(value) for key, value in row.items()}) for row in rows[::-1]]

    return read


async def make_followers(
    settings: Settings, logs: Logs, sinks: Mapping[str, Sink]
) -> list[Follower]:
    """Return a follower of every shard for every sink; each has a log of its own to read."""
    return [
        Follower(
            shard,
            log=await logs.open(DECISIONS, shard),
            sink=sink,
            generation=settings.shards.generation,
            pace_ms=settings.followers.history_pace_ms
            if sink.name == "history"
            else settings.followers.pace_ms,
        )
        for sink in sinks.values()
        for shard in range(settings.shards.count)
    ]


def make_checkpoints(settings: Settings, shard: int) -> CheckpointFiles:
    """Return the local checkpoints of one shard."""
    from engine.checkpoint import check_part

    return CheckpointFiles(checkpoint_folder(settings, shard), check_part)


def checkpoint_folder(settings: Settings, shard: int) -> Path:
    """Return where one shard's checkpoints lie."""
    return settings.folder / "checkpoints" / f"g{settings.shards.generation}-shard-{shard:03d}"


def owner_settings(settings: Settings) -> OwnerSettings:
    """Return what an owner needs to know of the settings."""
    shards = settings.shards
    return OwnerSettings(
        generation=shards.generation,
        partitions=shards.count,
        spreads=dict(shards.spreads),
        clock=shards.clock,
        heartbeat_ms=shards.heartbeat_ms,
        interval_ms=shards.interval_ms,
        checkpoint_interval_ms=int(shards.checkpoint_s * 1000),
    )


async def make_owner(settings: Settings, start: Start, logs: Logs) -> ShardActor:
    """Return the owner of one shard, not yet begun. Imports jax."""
    from engine.shard import Shard, ShardSettings

    generation = settings.shards.generation
    shard_settings = ShardSettings(shard=start.shard, generation=generation)
    return ShardActor(
        start.shard,
        logs=logs,
        checkpoints=make_checkpoints(settings, start.shard),
        clock=clock_of(start.shard),
        settings=owner_settings(settings),
        new_shard=lambda: Shard(shard_settings),
        restore=lambda parts: Shard.restore(parts, shard_settings),
        owner=start.owner,
        standby=start.standby,
        cautious=start.cautious,
        pardoned=start.pardoned,
        warmed=settle,
        artefacts=Artefacts(make_blobs(settings)),
        lacking=partial(fetch_checkpoint, settings, start.shard, lacking=True),
    )
