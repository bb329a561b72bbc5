"""Checkpoints are shipped whole, never an older reign's over a newer, and come back."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import shipping as shipping_module
from actors.shipping import Shipping
from engine.errors import CorruptCheckpoint, FailedDependency, StaleEpoch
from persistence.checkpoints import (
    CheckpointFiles,
    Increment,
    encode_increment,
    stem_of,
)
from persistence.decision_records import LogPosition
from persistence.ports import Statement, TableStore
from persistence.sqlite_series import SqliteSeries
from persistence.sqlite_tables import SqliteTables
from tests.actors.sinks.recorded import Crash, Faults, FaultyTables
from tests.actors.sinks.stores import postgres_database, postgres_tables, sqlite_path
from tests.persistence.counted_folder import CountedFolder


@pytest.fixture(params=["sqlite", "postgres"])
async def tables(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TableStore]:
    if request.param == "sqlite":
        store: TableStore = SqliteTables(sqlite_path(tmp_path))
        yield store
        await store.close()
        return
    async with postgres_database(request.getfixturevalue("postgres_server").address) as dsn:
        store = postgres_tables(dsn)
        yield store
        await store.close()


class Pruned:
    """A folder of which one file is gone when it is to be sent; it was verified before."""

    def __init__(self, path: Path, gone: str, why: type[OSError] = FileNotFoundError) -> None:
        self._folder = CountedFolder(path)
        self._gone = gone
        self._why = why
        self._tries = 0
        self.names, self.write = self._folder.names, self._folder.write
        self.remove = self._folder.remove

    async def read(self, name: str) -> bytes:
        self._tries += name == self._gone
        if name == self._gone and self._tries == 2:
            raise self._why(name)
        return await self._folder.read(name)


def increment(seq: int, *, epoch: int = 1, parent: str = "", part: bytes = b"part") -> Increment:
    return Increment(
        shard=0,
        generation=1,
        position=LogPosition(b"L" * 16, seq * 2, epoch, b"O" * 16, seq),
        last_command=0,
        last_delta=seq,
        decided_ms=seq,
        digest=seq,
        replay_domain="test",
        parent=parent,
        parts=(part, part * 2),
    )


def of(files: CheckpointFiles, tables: object, **more: object) -> Shipping:
    return Shipping(files, tables, shard=0, generation=1, **more)  # type: ignore[arg-type]


async def chain(folder: Path, count: int = 3, *, epoch: int = 1) -> CheckpointFiles:
    """Write a base and increments."""
    files, parent = CheckpointFiles(folder), ""
    for seq in range(1, count + 1):
        part = bytes([seq]) * (800_000 if seq == 1 else 10)
        parent = stem_of(await files.save(increment(seq, epoch=epoch, parent=parent, part=part)))
    return files


async def parts_of(files: CheckpointFiles) -> tuple[bytes, ...]:
    loaded = await files.load()
    assert loaded is not None
    return loaded[0]


async def test_a_chain_that_was_shipped_restores_elsewhere(
    tables: TableStore, tmp_path: Path
) -> None:
    files = await chain(tmp_path / "here")
    name = await of(files, tables).ship()
    assert name == (await files.names())[-1]
    rows = await tables.fetch("select part, length(content) as n from checkpoint_parts")
    assert max(row["n"] for row in rows) <= 1_000_000
    assert len(rows) == 3 + 2
    elsewhere = CheckpointFiles(tmp_path / "there")
    assert await of(elsewhere, tables).fetch() == name
    assert await parts_of(elsewhere) == await parts_of(files)
    assert await of(elsewhere, tables).fetch_newer(20_000) is None  # what is there is as new
    assert await of(files, tables).ship() is None


async def test_only_what_is_new_is_sent_and_what_nobody_names_is_dropped(
    tables: TableStore, tmp_path: Path
) -> None:
    files = await chain(tmp_path / "here", 1)
    await of(files, tables).ship()
    before = await tables.fetch("select file, part from checkpoint_parts")
    base = (await files.names())[0]
    await files.save(increment(2, parent=stem_of(base)))
    faults = Faults()
    await of(files, FaultyTables(tables, faults)).ship()
    assert faults.names.count("transact") == 2  # one part, one manifest
    await files.save(increment(3))  # a new base
    await of(files, tables).ship()
    after = await tables.fetch("select file, part from checkpoint_parts")
    assert before
    assert len(after) == 1
    elsewhere = CheckpointFiles(tmp_path / "there")
    await of(elsewhere, tables).fetch()
    assert await parts_of(elsewhere) == increment(3).parts


async def test_no_file_is_read_without_need(tables: TableStore, tmp_path: Path) -> None:
    """A chain of an hour is many times as large as its shard, and is looked at all the time."""
    here = await chain(tmp_path / "here", 3)
    names = await here.names()
    folder = CountedFolder(tmp_path / "here")
    shipping = of(CheckpointFiles(folder), tables)
    await shipping.ship()
    assert folder.looked() == sorted(2 * names)  # to verify them, and to send them
    assert await shipping.ship() is None
    assert folder.looked() == []
    added = await here.save(increment(4, parent=stem_of(names[-1])))
    assert await shipping.ship() == added
    assert folder.looked() == sorted([*names, added, added])


async def test_a_chain_that_gives_way_while_it_is_read_is_no_failure(
    tables: TableStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A merged base takes its place and its files are pruned; that base is shipped next."""
    here = await chain(tmp_path / "here", 3)
    *_, last = await here.names()
    shipping = of(CheckpointFiles(Pruned(tmp_path / "here", last)), tables)
    with caplog.at_level("INFO"):
        assert await shipping.ship() is None
    assert caplog.records == []
    assert await tables.fetch("select seq from checkpoints") == []
    base = await here.save(increment(3))
    (tmp_path / "here" / last).unlink()
    assert await shipping.ship() == base


async def test_a_disk_that_cannot_be_read_is_a_failure(tables: TableStore, tmp_path: Path) -> None:
    (name,) = await (await chain(tmp_path / "here", 1)).names()
    shipping = of(CheckpointFiles(Pruned(tmp_path / "here", name, PermissionError)), tables)
    with pytest.raises(FailedDependency):
        await shipping.ship()


async def test_a_file_of_another_log_is_sent_though_its_name_was_shipped(
    tables: TableStore, tmp_path: Path
) -> None:
    here, there = CheckpointFiles(tmp_path / "here"), CheckpointFiles(tmp_path / "there")
    base = await here.save(increment(1))
    await of(here, tables).ship()
    position = LogPosition(b"M" * 16, 2, 1, b"O" * 16, 1)
    other = msgspec.structs.replace(increment(1, part=b"other"), position=position)
    assert await there.save(other) == base
    await there.save(increment(2, parent=stem_of(base)))
    newest = msgspec.structs.replace(
        increment(2, parent=stem_of(base)), position=LogPosition(b"M" * 16, 4, 1, b"O" * 16, 2)
    )
    (tmp_path / "there" / (await there.names())[-1]).write_bytes(b"".join(encode_increment(newest)))
    await of(there, tables).ship()
    elsewhere = CheckpointFiles(tmp_path / "elsewhere")
    await of(elsewhere, tables).fetch()
    assert await parts_of(elsewhere) == await parts_of(there)


async def test_a_replaced_owner_ships_nothing(tables: TableStore, tmp_path: Path) -> None:
    successor = CheckpointFiles(tmp_path / "new")
    await successor.save(increment(4, epoch=2))
    replaced = await chain(tmp_path / "old", 2)
    await of(successor, tables).ship()
    with pytest.raises(StaleEpoch):
        await of(replaced, tables).ship()
    elsewhere = CheckpointFiles(tmp_path / "there")
    await of(elsewhere, tables).fetch()
    assert await parts_of(elsewhere) == increment(4, epoch=2).parts


@pytest.mark.parametrize("epoch", [1, 2])
async def test_a_manifest_that_changed_since_it_was_read_is_not_replaced(
    tables: TableStore, tmp_path: Path, epoch: int
) -> None:
    """One read the manifest before another shipped, and writes its own, which is older, after."""
    slow, fast = await chain(tmp_path / "slow", 2), CheckpointFiles(tmp_path / "fast")
    await of(slow, tables).ship()
    await slow.save(increment(9))
    newest = increment(12, epoch=epoch)
    await fast.save(newest)

    class Overtaken(FaultyTables):
        """Lets the other ship between the look and the manifest."""

        async def transact(self, statements):  # type: ignore[no-untyped-def]
            if "update checkpoints" in statements[0].sql:
                await of(fast, tables).ship()
            return await self.inner.transact(statements)

    overtaken = of(slow, Overtaken(tables, Faults()))
    with pytest.raises(FailedDependency):
        await overtaken.ship()
    if epoch == 2:
        with pytest.raises(StaleEpoch):
            await of(slow, tables).ship()
    else:
        assert await of(slow, tables).ship() is None
    elsewhere = CheckpointFiles(tmp_path / "there")
    await of(elsewhere, tables).fetch()
    assert await parts_of(elsewhere) == newest.parts


async def test_a_torn_local_checkpoint_is_replaced_by_the_shipped_one(
    tables: TableStore, tmp_path: Path
) -> None:
    files = await chain(tmp_path / "here")
    await of(files, tables).ship()
    wanted = await parts_of(files)
    for name in await files.names():
        path = tmp_path / "here" / name
        path.write_bytes(path.read_bytes()[:-1])
    assert await files.load() is None
    assert await of(files, tables).fetch() is not None
    assert await parts_of(files) == wanted


async def test_a_changed_copy_is_refused(tables: TableStore, tmp_path: Path) -> None:
    await of(await chain(tmp_path / "here"), tables).ship()
    await tables.transact(
        [Statement("update checkpoint_parts set content = $1 where part = 1", (b"x",))]
    )
    elsewhere = CheckpointFiles(tmp_path / "there")
    with pytest.raises(CorruptCheckpoint):
        await of(elsewhere, tables).fetch()
    assert await elsewhere.load() is None


async def test_another_checkpoint_under_the_same_name_is_refused(tmp_path: Path) -> None:
    """It verifies by itself, but it is not what the manifest says."""
    files = CheckpointFiles(tmp_path / "here")
    await files.save(increment(1))
    tables = SqliteTables(sqlite_path(tmp_path))
    await of(files, tables).ship()
    other = b"".join(encode_increment(increment(1, part=b"trap")))
    await tables.transact([Statement("update checkpoint_parts set content = $1", (other,))])
    with pytest.raises(CorruptCheckpoint):
        await of(CheckpointFiles(tmp_path / "there"), tables).fetch()
    await tables.close()


@pytest.mark.parametrize("kind", Faults.KINDS)
async def test_a_fault_at_any_call_leaves_a_manifest_that_restores(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping_module, "PART_BYTES_MAX", 40)
    monkeypatch.setattr(shipping_module, "PARTS_PER_WRITE", 1)
    files = CheckpointFiles(tmp_path / "here")
    first = await files.save(increment(1))
    second = await files.save(increment(2, parent=stem_of(first)))
    calls, at = 1, 0
    while at < calls:
        store = SqliteTables(sqlite_path(tmp_path))
        faults = Faults(at, kind)
        for _ in range(4):
            try:
                await of(files, FaultyTables(store, faults)).ship()
                break
            except (FailedDependency, Crash):
                elsewhere = CheckpointFiles(tmp_path / f"between-{at}")
                if await of(elsewhere, store).fetch():
                    assert await parts_of(elsewhere) == await parts_of(files)
        calls = faults.calls
        elsewhere = CheckpointFiles(tmp_path / f"there-{at}")
        assert await of(elsewhere, store).fetch() == second
        assert await parts_of(elsewhere) == await parts_of(files)
        await store.close()
        at += 1
    assert calls > 8


async def test_a_start_waits_no_longer_than_told(tmp_path: Path) -> None:
    class Silent(FaultyTables):
        """Never answers."""

        async def migrate(self):  # type: ignore[no-untyped-def]
            await asyncio.Event().wait()

    files = await chain(tmp_path / "here", 1)
    store = SqliteTables(sqlite_path(tmp_path))
    silent = of(files, Silent(store, Faults()))
    assert await silent.fetch_newer(20) is None
    assert await silent.fetch_lacking(20) is None
    for asked in (of(files, store).fetch_newer, of(files, store).fetch_lacking):
        assert await asked(20_000) is None, "nothing was shipped"
    await store.close()


async def test_a_start_verifies_nothing_to_see_that_nothing_newer_was_shipped(
    tmp_path: Path,
) -> None:
    """A large file takes longer than the start has, and who restores it verifies it anyway."""
    here, store = await chain(tmp_path / "here", 2), SqliteTables(sqlite_path(tmp_path))
    await of(here, store).ship()
    folder = CountedFolder(tmp_path / "here")
    assert await of(CheckpointFiles(folder), store).fetch_newer(20_000) is None
    assert folder.looked() == []
    # One that is behind fetches, and one that is ahead of what was shipped does not.
    behind = await chain(tmp_path / "behind", 1)
    assert await of(behind, store).fetch_newer(20_000) == (await here.names())[-1]
    await here.save(increment(9, epoch=2))
    assert await of(here, store).fetch_newer(20_000) is None
    await store.close()


async def test_what_was_shipped_comes_where_nothing_here_can_be_used(tmp_path: Path) -> None:
    """However long it takes: each part of it comes later than the store had to say what it has."""

    class Slow(FaultyTables):
        """Gives each part after a while."""

        async def fetch(self, sql: str, *values: Any) -> list[Mapping[str, Any]]:
            if "checkpoint_parts" in sql:
                await asyncio.sleep(0.3)
            return await super().fetch(sql, *values)

    here, store = await chain(tmp_path / "here", 2), SqliteTables(sqlite_path(tmp_path))
    await of(here, store).ship()
    names = await here.names()
    empty = CheckpointFiles(tmp_path / "empty")
    assert await of(empty, store).fetch_newer(20_000) is None, "a start does not wait for it"
    assert await of(empty, Slow(store, Faults())).fetch_lacking(200) == names[-1]
    assert await empty.names() == names
    (tmp_path / "here" / names[0]).write_bytes(b"rotten")
    assert await here.load() is None
    assert await of(here, store).fetch_lacking(20_000) == names[-1]
    assert await here.load() is not None
    await store.close()


async def test_shipping_goes_on_through_failures_until_it_is_replaced(tmp_path: Path) -> None:
    files = await chain(tmp_path / "here", 1)
    store = SqliteTables(sqlite_path(tmp_path))
    running = asyncio.create_task(of(files, FaultyTables(store, Faults(1))).run(1))
    elsewhere = CheckpointFiles(tmp_path / "there")
    while await of(elsewhere, store).fetch() is None:
        await asyncio.sleep(0.01)
    successor = CheckpointFiles(tmp_path / "new")
    await successor.save(increment(4, epoch=2))
    await of(successor, store).ship()
    await files.save(increment(3))
    with pytest.raises(StaleEpoch):
        await running
    await store.close()


async def test_the_history_is_told_and_may_be_down(tmp_path: Path) -> None:
    files = await chain(tmp_path / "here", 2)
    tables = SqliteTables(sqlite_path(tmp_path))
    (tmp_path / "file").write_text("")
    down = SqliteSeries(tmp_path / "file" / "below" / "x.sqlite")
    assert await of(files, tables, series=down).ship() is not None
    series = SqliteSeries(sqlite_path(tmp_path))
    await files.save(increment(5))
    await of(files, tables, series=series).ship()
    rows = await series.fetch("select epoch, seq, digest, files from checkpoints")
    assert rows == [{"epoch": 1, "seq": 5, "digest": f"{5:016x}", "files": 1}]
    for store in (tables, series, down):
        await store.close()


async def test_a_store_that_is_down_says_so(tmp_path: Path) -> None:
    files = await chain(tmp_path / "here", 1)
    store = postgres_tables("postgresql://u:p@127.0.0.1:9/none")
    assert await of(files, store).fetch_newer(5_000) is None
    assert await of(files, store).fetch_lacking(5_000) is None
    for act in (of(files, store).ship, of(files, store).fetch):
        with pytest.raises(FailedDependency):
            await act()
    assert await of(CheckpointFiles(tmp_path / "empty"), store).ship() is None


async def test_a_chain_a_day_stays_shipped_and_comes_back_for_a_replay(
    tables: TableStore, tmp_path: Path
) -> None:
    """The first of each day, for as long as the log lasts; what is newest comes at any start."""
    files, names = CheckpointFiles(tmp_path / "here"), []
    shipping = of(files, tables, pinned_days=2)
    for seq, day in enumerate((1, 1, 2, 3, 3), start=1):
        one = increment(seq, part=bytes([seq]))
        one = msgspec.structs.replace(one, decided_ms=day * 86_400_000 + seq)
        names.append(await files.save(one))
        assert await shipping.ship() == names[-1]
    pins = await tables.fetch("select day, seq from pinned_checkpoints order by day")
    assert [(pin["day"], pin["seq"]) for pin in pins] == [(2, 3), (3, 4)]
    parts = await tables.fetch("select file from checkpoint_parts")
    assert len(parts) == 3, "of the two pins, and of the newest"
    elsewhere = CheckpointFiles(tmp_path / "there")
    assert await of(elsewhere, tables).fetch() == names[4]
    assert await of(elsewhere, tables).fetch_pinned() == names[2:4]
    assert await elsewhere.names() == names[2:]
    assert await of(elsewhere, tables).fetch_pinned() == []
