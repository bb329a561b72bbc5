"""The contract of the table store, against SQLite and the real Postgres."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.errors import (
    CursorFenced,
    FailedDependency,
    RejectedInput,
    SettingsRefused,
    WriteInDoubt,
)
from persistence.migrations import Migration, migrations, missing, split
from persistence.ports import Statement, TableStore
from persistence.postgres_tables import PostgresTables
from persistence.sqlite_tables import SqliteTables, sqlite_placeholders
from tests.actors.sinks.stores import postgres_database, postgres_tables, sqlite_path

INSERT = "insert into cursors_test (name, place) values ($1, $2)"
MOVE = "update cursors_test set place = $2 where name = $1 and place = $3"


@pytest.fixture(params=["sqlite", "postgres"])
async def tables(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TableStore]:
    if request.param == "sqlite":
        store: TableStore = SqliteTables(sqlite_path(tmp_path))
        await make(store)
        yield store
        await store.close()
        return
    async with postgres_database(request.getfixturevalue("postgres_server").address) as dsn:
        store = postgres_tables(dsn)
        await make(store)
        yield store
        await store.close()


async def make(store: TableStore) -> None:
    await store.transact(
        [Statement("create table cursors_test (name text not null primary key, place bigint)")]
    )


async def places(store: TableStore) -> dict[str, int]:
    rows = await store.fetch("select name, place from cursors_test")
    return {row["name"]: row["place"] for row in rows}


async def test_a_transaction_is_all_or_nothing(tables: TableStore) -> None:
    touched = await tables.transact(
        [Statement(INSERT, ("a", 1)), Statement(INSERT, many=[("b", 2), ("c", 3)])]
    )
    assert touched == [1, 2]
    with pytest.raises(RejectedInput):
        await tables.transact([Statement(INSERT, ("d", 4)), Statement(INSERT, ("a", 5))])
    assert await places(tables) == {"a": 1, "b": 2, "c": 3}


async def test_an_expectation_that_fails_rolls_everything_back(tables: TableStore) -> None:
    await tables.transact([Statement(INSERT, ("a", 1))])
    await tables.transact([Statement(MOVE, ("a", 2, 1), expect=1), Statement(INSERT, ("b", 1))])
    with pytest.raises(CursorFenced):
        await tables.transact([Statement(INSERT, ("c", 1)), Statement(MOVE, ("a", 9, 1), expect=1)])
    assert await places(tables) == {"a": 2, "b": 1}
    await tables.transact([Statement(MOVE, ("a", 3, 2), expect=1)])  # the store is still usable


async def test_rows_are_put_into_a_table_in_bulk(tables: TableStore) -> None:
    rows = [(f"n{number}", number) for number in range(5000)]
    into = Statement(into="cursors_test", columns=("name", "place"), many=rows)
    assert await tables.transact([into]) == [5000]
    assert await places(tables) == dict(rows)
    with pytest.raises(RejectedInput):  # a row that is there already
        await tables.transact([into])
    assert len(await places(tables)) == 5000


async def test_big_and_odd_values_come_back_as_they_were(tables: TableStore) -> None:
    await tables.transact(
        [Statement("create table odd (whole bigint, half double precision, word text, raw bytea)")]
    )
    values = (-(2**63), 0.1 + 0.2, "naïve 'quote' \u2603 $1", bytes(range(256)))
    await tables.transact([Statement("insert into odd values ($1, $2, $3, $4)", values)])
    await tables.transact([Statement("insert into odd values ($1, $2, $3, $4)", (None,) * 4)])
    rows = await tables.fetch("select * from odd where whole = $1", -(2**63))
    assert tuple(rows[0].values()) == values
    assert len(await tables.fetch("select * from odd where whole is null")) == 1


async def test_migrations_are_applied_once_and_in_order(tables: TableStore) -> None:
    names = [migration.name for migration in migrations("tables")]
    assert await tables.migrate() == names
    assert await tables.migrate() == []
    assert await tables.fetch("select * from price_history") == []


async def test_an_edited_migration_is_refused(tables: TableStore) -> None:
    await tables.migrate()
    await tables.transact(
        [Statement("update migrations set checksum = 'x' where name = '0001_ledger'")]
    )
    with pytest.raises(SettingsRefused, match="0001_ledger"):
        await tables.migrate()


async def test_a_migration_of_a_newer_version_is_refused(tables: TableStore) -> None:
    await tables.migrate()
    await tables.transact([Statement("insert into migrations values ('9999_later', 'x', 1)")])
    with pytest.raises(SettingsRefused, match="9999_later"):
        await tables.migrate()


def test_a_migration_out_of_order_is_refused() -> None:
    wanted = [Migration("1", ("a",), "x"), Migration("2", ("b",), "y")]
    assert missing(wanted, {"1": "x"}) == [wanted[1]]
    with pytest.raises(SettingsRefused, match="never applied"):
        missing(wanted, {"2": "y"})


def test_statements_are_split_without_their_comments() -> None:
    assert split("-- a; b\ncreate x (y int -- note; here\n);\n\ninsert z;\n") == (
        "create x (y int\n)",
        "insert z",
    )


def test_placeholders_keep_their_numbers() -> None:
    assert sqlite_placeholders("a = $2 and b = $11 or $1") == "a = ?2 and b = ?11 or ?1"


async def test_a_store_that_is_not_there_is_a_failed_dependency(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for store in (
        SqliteTables(tmp_path / "file" / "below" / "x.sqlite"),
        PostgresTables("postgresql://nobody@127.0.0.1:9/none", connect_ms=2_000),
    ):
        with pytest.raises(FailedDependency):
            await store.fetch("select 1")
        with pytest.raises(FailedDependency):
            await store.migrate()
        await store.close()


async def test_a_locked_sqlite_file_is_a_failed_dependency(tmp_path: Path) -> None:
    path = sqlite_path(tmp_path)
    one, other = SqliteTables(path), SqliteTables(path, busy_ms=10)
    await make(one)
    await one.transact([Statement(INSERT, ("a", 1))])
    await one._file.run(lambda connection: connection.execute("begin immediate"))
    with pytest.raises(FailedDependency):
        await other.transact([Statement(INSERT, ("b", 1))])
    await one._file.run(lambda connection: connection.execute("rollback"))
    await other.transact([Statement(INSERT, ("b", 1))])
    assert await places(one) == {"a": 1, "b": 1}
    await one.close()
    await other.close()


async def test_a_silent_commit_is_in_doubt_and_a_silent_statement_is_not(
    postgres_server: object,
) -> None:
    """A deferred trigger makes the commit itself slow; the deadline passes inside it."""
    async with postgres_database(postgres_server.address) as dsn:  # type: ignore[attr-defined]
        store = postgres_tables(dsn)
        await make(store)
        await store.transact(
            [
                Statement(
                    "create function slow() returns trigger language plpgsql as"
                    " $body$ begin perform pg_sleep(3); return null; end $body$"
                ),
                Statement(
                    "create constraint trigger slow after insert on cursors_test"
                    " deferrable initially deferred for each row execute function slow()"
                ),
            ]
        )
        await store.close()
        hasty = postgres_tables(dsn, deadline_ms=1_000)
        with pytest.raises(WriteInDoubt):
            await hasty.transact([Statement(INSERT, ("a", 1))])
        with pytest.raises(FailedDependency) as caught:
            await hasty.fetch("select pg_sleep(3)")
        assert not isinstance(caught.value, WriteInDoubt)
        assert await hasty.fetch("select 1 as one") == [{"one": 1}]  # on a new connection
        await hasty.close()
