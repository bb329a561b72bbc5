"""What SQLite owes beyond the contract: kills, several processes, locks, a full disk, old age."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.errors import AppendInDoubt, CorruptRecord, FailedDependency, LogTruncated
from persistence import sqlite_log
from persistence.ports import Log, Record
from persistence.sqlite_log import SqliteLogs

WRITER = """
import asyncio, sys
from pathlib import Path
from persistence.sqlite_log import SqliteLogs

async def main():
    log = await SqliteLogs(Path(sys.argv[1])).open("topic", 0)
    appender = await log.appender()
    for number in range(int(sys.argv[3])):
        value = f"{sys.argv[2]}{number}"
        appended = await appender.append(value.encode())
        print(appended.offset, value, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "logs"


@pytest.fixture
async def logs(folder: Path) -> SqliteLogs:
    made = SqliteLogs(folder, deadline_ms=400)
    await made.create({"topic": 1}, retention_ms=3_600_000)
    return made


@pytest.fixture
async def log(logs: SqliteLogs) -> AsyncIterator[Log]:
    opened = await logs.open("topic", 0)
    yield opened
    await opened.close()


def writer(folder: Path, name: str, records: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name, str(records)],
        stdout=subprocess.PIPE,
        text=True,
    )


async def contents(log: Log) -> list[Record]:
    records: list[Record] = []
    while bite := await log.read(records[-1].offset if records else -1, limit=500, wait_ms=0):
        records += bite
    return records


async def test_a_killed_writer_loses_nothing_acknowledged(log: Log, folder: Path) -> None:
    acknowledged: dict[int, str] = {}
    for name in ("a", "b", "c"):
        process = writer(folder, name, 100_000)
        assert process.stdout is not None
        for _ in range(60):
            offset, value = process.stdout.readline().split()
            acknowledged[int(offset)] = value
        process.kill()
        for line in process.stdout:
            if line.endswith("\n"):
                offset, value = line.split()
                acknowledged[int(offset)] = value
        process.wait()
        process.stdout.close()
    records = await contents(log)
    assert [record.offset for record in records] == list(range(len(records)))
    found = {record.offset: record.value.decode() for record in records}
    assert acknowledged.items() <= found.items()
    assert len(found) <= len(acknowledged) + 3  # at most the one in flight of each
    assert len(set(found.values())) == len(found)


async def test_processes_share_a_log(log: Log, folder: Path) -> None:
    processes = [writer(folder, name, 150) for name in ("a", "b")]
    read: list[Record] = []
    while len(read) < 300:
        read += await log.read(read[-1].offset if read else -1, limit=7, wait_ms=20_000)
    for process, name in zip(processes, ("a", "b"), strict=True):
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        told = dict(line.split() for line in out.splitlines())
        seen = {str(r.offset): r.value.decode() for r in read if r.value.startswith(name.encode())}
        assert told == seen
        assert list(seen.values()) == [f"{name}{number}" for number in range(150)]


async def test_every_commit_reaches_the_disk(log: Log) -> None:
    appender = await log.appender()
    settings = await appender._session.call(  # type: ignore[attr-defined]
        lambda connection: [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous")
        ]
    )
    assert settings == ["wal", 2]
    await appender.close()


async def test_old_records_expire_and_young_ones_stay(folder: Path) -> None:
    now_ms = 1_000_000
    logs = SqliteLogs(folder, now_ms=lambda: now_ms, expire_every_ms=0)
    await logs.create({"topic": 1}, retention_ms=1_000)
    log = await logs.open("topic", 0)
    appender = await log.appender()
    for now_ms in (1_000_000, 1_000_400, 1_001_300):
        await appender.append(b"%d" % now_ms)
    await appender.append(b"last")
    assert await log.start() == 1
    with pytest.raises(LogTruncated):
        await log.read(-1, limit=9, wait_ms=0)
    assert [r.value for r in await log.read(0, limit=9, wait_ms=0)] == [
        b"1000400",
        b"1001300",
        b"last",
    ]
    now_ms = 9_000_000
    assert (await appender.append(b"alone")).offset == 4
    assert (await appender.append(b"again")).offset == 5
    assert await log.start() == 4
    await appender.close()
    await log.close()


async def test_what_is_kept_for_ever_never_expires(folder: Path) -> None:
    times = iter((0, 2**50, 2**51))
    logs = SqliteLogs(folder, now_ms=lambda: next(times), expire_every_ms=0)
    await logs.create({"topic": 1}, retention_ms=-1)
    log = await logs.open("topic", 0)
    appender = await log.appender()
    await appender.append(b"kept")
    await appender.append(b"kept")
    assert len(await contents(log)) == 2
    await appender.close()
    await log.close()


async def test_a_locked_file_is_a_failed_dependency_and_nothing_is_written(
    log: Log, folder: Path
) -> None:
    appender = await log.appender()
    await appender.append(b"before")
    other = sqlite3.connect(folder / "topic-0.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(FailedDependency, match="locked"):
        await appender.append(b"refused")
    assert len(await contents(log)) == 1  # readers do not mind the lock
    other.execute("COMMIT")
    other.close()
    assert (await appender.append(b"after")).offset == 1
    await appender.close()


async def test_a_full_disk_is_a_failed_dependency_and_nothing_is_written(log: Log) -> None:
    appender = await log.appender()
    session = appender._session  # type: ignore[attr-defined]
    await appender.append(b"before")
    await session.call(lambda connection: connection.execute("PRAGMA max_page_count=5").fetchone())
    with pytest.raises(FailedDependency, match="full"):
        await appender.append_many([(None, bytes(100_000), "")] * 2)
    await session.call(lambda connection: connection.execute("PRAGMA max_page_count=99").fetchone())
    assert (await appender.append(b"after")).offset == 1
    assert [record.value for record in await contents(log)] == [b"before", b"after"]
    await appender.close()


async def test_a_disk_that_does_not_answer_leaves_a_doubt(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the record may arrive late, as everywhere."""
    appender = await log.appender()
    append = sqlite_log._append

    def append_slowly(*arguments: object) -> object:
        time.sleep(1.2)
        return append(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite_log, "_append", append_slowly)
    with pytest.raises(AppendInDoubt):
        await appender.append(b"late")
    assert await contents(log) == []
    with pytest.raises(AssertionError):
        await appender.append(b"the dead do not write")
    monkeypatch.undo()
    (record,) = await log.read(-1, limit=9, wait_ms=20_000)
    assert record.value == b"late"


async def test_a_cancelled_append_is_abandoned(log: Log) -> None:
    appender = await log.appender()
    appending = asyncio.create_task(appender.append(b"who knows"))
    await asyncio.sleep(0)
    appending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await appending
    with pytest.raises(AssertionError):
        await appender.append(b"after")


async def test_a_damaged_file_is_told_from_a_busy_one(logs: SqliteLogs, folder: Path) -> None:
    log = await logs.open("topic", 0)
    appender = await log.appender()
    await appender.append_many([(None, bytes(3_000), "")] * 50)
    await appender.close()
    await log.close()
    path = folder / "topic-0.sqlite"
    damaged = bytearray(path.read_bytes())
    damaged[4096 * 2 : 4096 * 12] = bytes([255]) * 4096 * 10
    path.write_bytes(damaged)
    with pytest.raises(CorruptRecord, match="malformed"):
        await contents(await logs.open("topic", 0))
