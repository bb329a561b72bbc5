"""The contract of the series store, against SQLite and the real QuestDB."""

import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from cluster.servers.questdb import QuestDB, QuestDBAddress
from engine.errors import FailedDependency, RejectedInput, SettingsRefused
from persistence.migrations import migrations
from persistence.ports import SeriesStore
from persistence.questdb_series import FLUSH_ROWS_MAX, QuestDBSeries, lacked_room
from persistence.sqlite_series import SqliteSeries
from tests.actors.sinks.stores import questdb_series, sqlite_path

NOW_MS = time.time_ns() // 1_000_000


@pytest.fixture(params=["sqlite", "questdb"])
async def series(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SeriesStore]:
    store: SeriesStore
    if request.param == "sqlite":
        store = SqliteSeries(sqlite_path(tmp_path))
    else:
        store = questdb_series(request.getfixturevalue("questdb_server").address)
    await store.migrate()
    yield store
    await store.close()


def stock(generation: int, offsets: list[int], units: int, ts: int = NOW_MS) -> dict[str, object]:
    rows = len(offsets)
    return {
        "ts": [ts] * rows,
        "generation": [generation] * rows,
        "shard": np.zeros(rows, np.int32),
        "lane": np.ones(rows, np.uint8),
        "log_offset": np.array(offsets, np.int64),
        "item": [0] * rows,
        "listing": np.full(rows, 2**64 - 1, np.uint64),
        "units": [units] * rows,
        "observed_ms": [5] * rows,
        "verdict": ["accepted"] * rows,
        "reason": [None] * rows,
    }


def a_generation() -> int:
    return 1 + secrets.randbelow(2**30)


async def units(series: SeriesStore, generation: int) -> dict[int, int]:
    rows = await series.fetch(
        f"select log_offset, units from inventory_levels where generation = {generation}"
    )
    return {row["log_offset"]: row["units"] for row in rows}


async def test_rows_can_be_read_when_append_returns(series: SeriesStore) -> None:
    generation = a_generation()
    assert await series.append("inventory_levels", stock(generation, [1, 2], 7)) == 2
    rows = await series.fetch(
        "select ts, listing, lane, verdict, reason from inventory_levels"
        f" where generation = {generation} order by log_offset limit 1"
    )
    assert rows == [{"ts": NOW_MS, "listing": -1, "lane": 1, "verdict": "accepted", "reason": None}]


async def test_the_same_key_again_is_the_same_row(series: SeriesStore) -> None:
    generation = a_generation()
    await series.append("inventory_levels", stock(generation, [1, 2, 3], 7))
    await series.append("inventory_levels", stock(generation, [2, 3, 4], 8))
    assert await units(series, generation) == {1: 7, 2: 8, 3: 8, 4: 8}


async def test_migrating_again_changes_nothing(series: SeriesStore) -> None:
    generation = a_generation()
    await series.append("inventory_levels", stock(generation, [1], 7))
    assert await series.migrate() == []
    assert await units(series, generation) == {1: 7}


async def test_columns_that_do_not_exist_are_refused(series: SeriesStore) -> None:
    with pytest.raises(RejectedInput):
        await series.append("inventory_levels", {**stock(1, [1], 7), "colour": ["red"]})


async def test_a_table_that_does_not_exist_is_refused(series: SeriesStore) -> None:
    with pytest.raises(RejectedInput):
        await series.append("nothing_of_the_kind", stock(1, [1], 7))
    with pytest.raises(RejectedInput):
        await series.fetch("select * from nothing_of_the_kind")


async def test_both_dialects_know_the_same_columns(questdb_server: QuestDB, tmp_path: Path) -> None:
    quest, lite = questdb_series(questdb_server.address), SqliteSeries(sqlite_path(tmp_path))
    await quest.migrate()
    await lite.migrate()
    tables = {"prices", "listings", "competitor_prices", "inventory_levels", "sales_metrics"}
    for table in tables | {"checkpoints", "cursors"}:
        there = await quest.fetch(f"select \"column\" from table_columns('{table}')")
        here = await lite.fetch(f"select name from pragma_table_info('{table}')")
        assert [row["column"] for row in there] == [row["name"] for row in here], table
        keys = await quest.fetch(f"select \"column\" from table_columns('{table}') where upsertKey")
        primary = await lite.fetch(f"select name from pragma_table_info('{table}') where pk > 0")
        assert {row["column"] for row in keys} == {row["name"] for row in primary}, table
    await quest.close()
    await lite.close()


async def test_more_rows_than_one_request_holds(questdb_server: QuestDB) -> None:
    store = questdb_series(questdb_server.address)
    await store.migrate()
    generation, rows = a_generation(), FLUSH_ROWS_MAX + 1
    await store.append("inventory_levels", stock(generation, list(range(rows)), 1))
    assert len(await units(store, generation)) == rows
    await store.close()


async def test_rows_older_than_the_time_to_live_are_refused_loudly(
    start_questdb: Callable[[], QuestDB],
) -> None:
    """QuestDB would acknowledge and drop them. The server's own word counts, not our setting."""
    address = start_questdb().address
    store = questdb_series(address, ttl_days=10)
    await store.migrate()
    old_ms = NOW_MS - 11 * 86_400_000
    with pytest.raises(RejectedInput, match="ttl"):
        await store.append("inventory_levels", stock(1, [1], 7, old_ms))
    await store.append("inventory_levels", stock(1, [2], 7, NOW_MS - 9 * 86_400_000))
    forever = questdb_series(address, ttl_days=0)
    await forever.migrate()
    await forever.append("inventory_levels", stock(1, [3], 7, old_ms))
    assert await units(forever, 1) == {2: 7, 3: 7}
    await store.close()
    await forever.close()


async def test_a_suspended_table_is_a_failed_dependency_until_it_is_resumed(
    start_questdb: Callable[[], QuestDB], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It acknowledges rows and applies none: a cursor that went on would lose them."""
    monkeypatch.setenv("QDB_DEV_MODE_ENABLED", "true")  # lets a statement suspend a table
    store = questdb_series(start_questdb().address, deadline_ms=3_000)
    await store.migrate()
    await store.append("inventory_levels", stock(1, [1], 7))
    assert await store.suspended() == []
    await store.execute("alter table inventory_levels suspend wal")
    for _ in range(2):
        with pytest.raises(FailedDependency, match="suspended"):
            await store.append("inventory_levels", stock(1, [2], 7))
    assert await store.suspended() == ["inventory_levels"]
    await store.execute("alter table inventory_levels resume wal")
    await store.append("inventory_levels", stock(1, [2], 7))
    assert await units(store, 1) == {1: 7, 2: 7}
    await store.close()


def test_a_lack_of_room_is_known_by_its_tag_or_by_the_systems_error() -> None:
    """The second and third row are what full disks left behind; their tags are empty."""
    told = "io.questdb.cairo.CairoException: [28] No space left [size=16777216, fd=2540473157772]"
    assert lacked_room({"errorTag": "DISK FULL", "errorMessage": ""})
    assert lacked_room({"errorTag": "", "errorMessage": told})
    merging = "bulk update failed and will be rolled back"
    assert lacked_room({"errorTag": "", "errorMessage": merging})
    assert not lacked_room({"errorTag": "", "errorMessage": "[2] could not open"})
    assert not lacked_room({"errorTag": "OUT OF MEMORY", "errorMessage": None})


async def test_a_table_that_only_lacked_room_goes_on_by_itself(
    start_questdb: Callable[[], QuestDB], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was skipped, so nobody needs to look: what is sent again is applied once."""
    monkeypatch.setenv("QDB_DEV_MODE_ENABLED", "true")  # lets a statement suspend a table
    store = questdb_series(start_questdb().address, deadline_ms=3_000)
    await store.migrate()
    await store.append("inventory_levels", stock(1, [1], 7))
    await store.execute("alter table inventory_levels suspend wal with 'DISK FULL', 'no room'")
    with pytest.raises(FailedDependency, match="suspended"):
        await store.append("inventory_levels", stock(1, [2], 7))
    assert await store.suspended() == ["inventory_levels"]
    await store.append("inventory_levels", stock(1, [2], 7))
    assert await store.suspended() == []
    assert await units(store, 1) == {1: 7, 2: 7}
    await store.close()


async def test_a_wrong_password_or_no_server_is_a_failed_dependency(
    questdb_server: QuestDB,
) -> None:
    address = questdb_server.address
    wrong = QuestDBAddress(address.host, address.http_port, 0, address.user, "wrong")
    nobody = QuestDBAddress(address.host, 9, 0, address.user, address.password)
    for each in (wrong, nobody):
        store = questdb_series(each)
        with pytest.raises(FailedDependency):
            await store.migrate()
        with pytest.raises(FailedDependency):
            await store.append("inventory_levels", stock(1, [1], 7))
        await store.close()


async def test_a_flush_that_fails_keeps_nothing_and_forgets_nothing(
    questdb_server: QuestDB,
) -> None:
    """One bad row refuses its request; the caller still holds all of them and sends them again."""
    store: QuestDBSeries = questdb_series(questdb_server.address)
    await store.migrate()
    generation = a_generation()
    bad = stock(generation, [1, 2], 7)
    bad["item"] = [0, 2**40]
    with pytest.raises(RejectedInput):
        await store.append("inventory_levels", bad)
    assert await units(store, generation) == {}
    await store.append("inventory_levels", stock(generation, [1, 2], 7))
    assert await units(store, generation) == {1: 7, 2: 7}
    await store.close()


async def test_an_edited_migration_is_refused(start_questdb: Callable[[], QuestDB]) -> None:
    store = questdb_series(start_questdb().address)
    names = [migration.name for migration in migrations("questdb")]
    assert await store.migrate() == names
    await store.append(
        "migrations", {"ts": [0], "name": [names[0]], "checksum": ["x"], "applied_ms": [0]}
    )
    with pytest.raises(SettingsRefused, match=names[0]):
        await store.migrate()
    await store.close()
