"""The log port on SQLite: one file a topic and partition, shared by the processes of one machine.

Files are in WAL mode with ``synchronous=FULL``: an acknowledged append has been fsynced and
survives SIGKILL and power loss. Readers poll, 5 ms after a record and 50 ms in quiet times; the
poll is a glance at the file's change counter and stays on the loop, everything that may wait for
the disk or a lock runs in a thread of the connection's own. SQLite's locks need a local file
system: do not put the folder on a network share.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from engine.errors import (
    AppendInDoubt,
    CorruptRecord,
    FailedDependency,
    LogRegressed,
    LogTruncated,
)
from persistence import sqlite_files
from persistence.ports import (
    Appended,
    Record,
    missing_topic,
    refuse_missing_partition,
    refuse_other_topic,
    refuse_oversize,
)

Result = TypeVar("Result")

BUSY_POLL_MS, IDLE_POLL_MS = 5, 50
BUSY_FOR_MS = 500
"""How long after a record a reader still polls as if busy; more than two heartbeats."""

EXPIRE_EVERY_MS = 60_000
EXPIRED_ROWS_MAX = 4_096

_CATALOGUE = """
    CREATE TABLE IF NOT EXISTS topics (
        topic TEXT PRIMARY KEY, partitions INTEGER NOT NULL, retention_ms INTEGER NOT NULL
    ) STRICT
"""

# AUTOINCREMENT never gives an id twice, even when retention has emptied the table.
_RECORDS = """
    CREATE TABLE IF NOT EXISTS records (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        appended_ms INTEGER NOT NULL,
        key BLOB,
        value BLOB NOT NULL,
        content_type TEXT NOT NULL
    ) STRICT
"""
_READ = (
    "SELECT id, appended_ms, key, value, content_type FROM records WHERE id > ? ORDER BY id LIMIT ?"
)
_APPEND = "INSERT INTO records (appended_ms, key, value, content_type) VALUES (?, ?, ?, ?)"


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class SqliteLogs:
    """All topics of one generation as files in a folder."""

    def __init__(
        self,
        folder: Path,
        *,
        deadline_ms: int = 4_000,
        now_ms: Callable[[], int] = _wall_ms,
        expire_every_ms: int = EXPIRE_EVERY_MS,
    ) -> None:
        self._folder = folder
        self._deadline_ms = deadline_ms
        self._now_ms = now_ms
        self._expire_every_ms = expire_every_ms

    async def create(self, topics: Mapping[str, int], *, retention_ms: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        async with _Session(self._folder / "topics.sqlite", self._deadline_ms) as session:
            await session.call(lambda connection: _create(connection, topics, retention_ms))

    async def open(self, topic: str, partition: int) -> "SqliteLog":
        partitions, retention_ms = await self._topic(topic)
        refuse_missing_partition(topic, partition, partitions)
        path = self._folder / f"{topic}-{partition}.sqlite"
        expiry = _Expiry(retention_ms, self._now_ms, self._expire_every_ms)
        log = SqliteLog(path, self._deadline_ms, expiry)
        await log.end()  # makes the file, so that whoever only reads finds a table
        return log

    async def partitions(self, topic: str) -> int:
        return (await self._topic(topic))[0]

    async def close(self) -> None:
        """Do nothing: every log holds its own files."""

    async def _topic(self, topic: str) -> tuple[int, int]:
        path = self._folder / "topics.sqlite"
        if not path.exists():
            raise missing_topic(topic)
        async with _Session(path, self._deadline_ms) as session:
            found = await session.call(lambda connection: _found(connection, topic))
        if found is None:
            raise missing_topic(topic)
        return found


class SqliteLog:
    """One partition of one topic, a file."""

    def __init__(self, path: Path, deadline_ms: int, expiry: "_Expiry") -> None:
        self._path = path
        self._deadline_ms = deadline_ms
        self._expiry = expiry
        self._session = _Session(path, deadline_ms, _RECORDS)
        self._watch: sqlite3.Connection | None = None
        self._grown_at = 0.0

    async def appender(self) -> "SqliteAppender":
        session = _Session(self._path, self._deadline_ms, _RECORDS)
        await session.call(_range)
        return SqliteAppender(session, self._expiry)

    async def read(self, after: int, *, limit: int, wait_ms: int) -> list[Record]:
        until = time.monotonic() + wait_ms / 1000
        while True:
            # The counter first: what is appended after this line changes it once more.
            seen = self._change_counter()
            found = await self._session.call(lambda connection: _read(connection, after, limit))
            now = time.monotonic()
            if found:
                self._grown_at = now
            if found or now >= until:
                return found
            while self._change_counter() == seen:
                now = time.monotonic()
                if now >= until:
                    return []
                is_busy = now - self._grown_at < BUSY_FOR_MS / 1000
                poll_ms = BUSY_POLL_MS if is_busy else IDLE_POLL_MS
                await asyncio.sleep(min(poll_ms / 1000, until - now))

    async def start(self) -> int:
        return (await self._session.call(_range))[0]

    async def end(self) -> int:
        return (await self._session.call(_range))[1]

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        await self._session.close()

    def _change_counter(self) -> int:
        """Return a number that is another after every commit by another connection.

        It takes microseconds and no lock that an appender holds. While another process recovers
        the file it may be locked: then -1, and the thread waits for it.
        """
        try:
            if self._watch is None:
                self._watch = sqlite3.connect(self._path, timeout=0, isolation_level=None)
            return int(self._watch.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.OperationalError:
            return -1


class SqliteAppender:
    """A writing session: a connection and a thread of its own."""

    def __init__(self, session: "_Session", expiry: "_Expiry") -> None:
        self._session = session
        self._expiry = expiry
        self._dead = False

    async def append(
        self, value: bytes, *, key: bytes | None = None, content_type: str = ""
    ) -> Appended:
        return (await self.append_many([(key, value, content_type)]))[0]

    async def append_many(
        self, values: Sequence[tuple[bytes | None, bytes, str]]
    ) -> Sequence[Appended]:
        assert not self._dead, "this appender was closed, abandoned or in doubt"
        for _, value, _ in values:
            refuse_oversize(value)
        rows = [(key, value, content_type) for key, value, content_type in values]
        now_ms = self._expiry.now_ms
        try:
            appended = await self._session.call(
                lambda connection: _append(connection, rows, now_ms), in_doubt=True
            )
        except (AppendInDoubt, asyncio.CancelledError):
            self.abandon()  # cancelled: it may have been appended, and nobody will know where
            raise
        if self._expiry.is_due():
            self._session.call_later(self._expiry.expire)
        return appended

    def abandon(self) -> None:
        if not self._dead:
            self._dead = True
            self._session.abandon()

    async def close(self) -> None:
        if not self._dead:
            self._dead = True
            await self._session.close()


class _Expiry:
    """Deletes what retention no longer keeps, a little at a time."""

    def __init__(self, retention_ms: int, now_ms: Callable[[], int], every_ms: int) -> None:
        self.now_ms = now_ms
        self._retention_ms = retention_ms
        self._every_s = every_ms / 1000
        self._due_at = 0.0

    def is_due(self) -> bool:
        """Return whether it is time again, and begin the next wait if so."""
        now = time.monotonic()
        if self._retention_ms < 0 or now < self._due_at:
            return False
        self._due_at = now + self._every_s
        return True

    def expire(self, connection: sqlite3.Connection) -> None:
        """Delete the oldest records up to the first that is young enough."""
        oldest_ms = self.now_ms() - self._retention_ms
        rows = connection.execute(
            "SELECT id, appended_ms FROM records ORDER BY id LIMIT ?", (EXPIRED_ROWS_MAX,)
        ).fetchall()
        last = 0
        for identity, appended_ms in rows:
            if appended_ms >= oldest_ms:
                break
            last = identity
        if last:
            connection.execute("DELETE FROM records WHERE id <= ?", (last,))


class _Session:
    """One connection that lives in one thread, so that no lock or fsync stops the loop."""

    def __init__(self, path: Path, deadline_ms: int, schema: str = _CATALOGUE) -> None:
        self._path = path
        self._deadline_ms = deadline_ms
        self._schema = schema
        self._thread = ThreadPoolExecutor(1, f"sqlite-{path.stem}")
        self._connection: sqlite3.Connection | None = None

    async def call(
        self, work: Callable[[sqlite3.Connection], Result], *, in_doubt: bool = False
    ) -> Result:
        """Run ``work`` in the thread and wait for it, at most until the deadline.

        ``in_doubt`` says that work that is not heard of in time may have been done.
        """
        future = self._thread.submit(self._run, work)
        try:
            # Twice the deadline: a lock is waited for once, opening may wait for one, too. Not
            # by ``wait_for``: in Python 3.11 it loses a cancellation that meets the answer.
            async with asyncio.timeout(self._deadline_ms / 500):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            was_begun = not future.cancel()
            if in_doubt and was_begun:
                raise AppendInDoubt(f"{self._path.name}: no answer from the disk") from error
            raise FailedDependency(f"{self._path.name}: no answer from the disk") from error

    def call_later(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run ``work`` in the thread some time; a failure is left for the next time."""
        self._thread.submit(self._run, work)

    def abandon(self) -> None:
        """Close behind whatever is still being done, without waiting."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    async def close(self) -> None:
        """Close, bounded in time."""
        closing = asyncio.wrap_future(self._thread.submit(self._close))
        self._thread.shutdown(wait=False)
        await asyncio.wait([closing], timeout=self._deadline_ms / 1000)

    async def __aenter__(self) -> "_Session":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            if self._connection is None:
                self._connection = self._connect()
            return work(self._connection)
        except sqlite3.OperationalError as error:  # locked, disk full, I/O error
            raise FailedDependency(f"{self._path.name}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptRecord(f"{self._path.name}: {error}") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite_files.connect(self._path, busy_ms=self._deadline_ms)
        connection.execute("PRAGMA journal_size_limit=67108864")
        connection.execute(self._schema)
        return connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _range(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return start and end. Ids begin with 1, offsets with 0."""
    end, first = connection.execute(
        "SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'records'), min(id) FROM records"
    ).fetchone()
    end = end or 0
    return (end if first is None else first - 1), end


def _read(connection: sqlite3.Connection, after: int, limit: int) -> list[Record]:
    """Return the records behind ``after``; both queries see one state of the file."""
    connection.execute("BEGIN")
    try:
        rows = connection.execute(_READ, (after + 1, limit)).fetchall()
        if not rows or rows[0][0] != after + 2:
            start, end = _range(connection)
            if after + 1 < start:
                raise LogTruncated(f"offset {after + 1} is gone, the log starts at {start}")
            if after + 1 > end:
                raise LogRegressed(f"offset {after} was there, the log ends at {end}")
    finally:
        connection.execute("COMMIT")
    return [
        Record(identity - 1, appended_ms, key, value, content_type)
        if content_type
        else Record(identity - 1, appended_ms, key, value)
        for identity, appended_ms, key, value, content_type in rows
    ]


def _append(
    connection: sqlite3.Connection,
    values: list[tuple[bytes | None, bytes, str]],
    now_ms: Callable[[], int],
) -> list[Appended]:
    """Insert all or none; only a commit that fails leaves a doubt."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        appended_ms = now_ms()
        connection.executemany(_APPEND, [(appended_ms, *value) for value in values])
        last = connection.execute("SELECT last_insert_rowid()").fetchone()[0]
    except sqlite3.Error:
        if connection.in_transaction:  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise AppendInDoubt(f"the commit failed: {error}") from error
    return [Appended(last - len(values) + place, appended_ms) for place in range(len(values))]


def _create(connection: sqlite3.Connection, topics: Mapping[str, int], retention_ms: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for topic, partitions in topics.items():
            found = _found(connection, topic)
            if found is not None:
                refuse_other_topic(topic, found[0], partitions, found[1], retention_ms)
        connection.executemany(
            "INSERT OR IGNORE INTO topics VALUES (?, ?, ?)",
            [(topic, partitions, retention_ms) for topic, partitions in topics.items()],
        )
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _found(connection: sqlite3.Connection, topic: str) -> tuple[int, int] | None:
    found: tuple[int, int] | None = connection.execute(
        "SELECT partitions, retention_ms FROM topics WHERE topic = ?", (topic,)
    ).fetchone()
    return found
