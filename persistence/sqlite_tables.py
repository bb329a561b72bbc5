"""The table store in one SQLite file: the embedded mode's ledger.

SQLite's calls block, so they run on a thread of their own, one at a time. That also makes them
impossible to cancel half-way: a caller who gives up leaves a transaction that still ends, before
the next one begins.
"""

import asyncio
import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import CursorFenced, FailedDependency, RejectedInput, WriteInDoubt
from persistence import sqlite_files
from persistence.migrations import Migration, migrations, missing
from persistence.ports import Statement

Result = TypeVar("Result")

_PLACEHOLDER = re.compile(r"\$(\d+)")


def sqlite_placeholders(sql: str) -> str:
    """Return ``sql`` with ``$1`` written as SQLite reads it by number, ``?1``."""
    return _PLACEHOLDER.sub(r"?\1", sql)


def failure(error: sqlite3.Error) -> FailedDependency | RejectedInput:
    """Return what an error means: busy, full or broken is worth another try, a bad row not."""
    if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.DataError):
        return RejectedInput("", f"sqlite refuses: {error}")
    if any(words in str(error) for words in ("no such", "has no column", "syntax error")):
        return RejectedInput("", f"sqlite refuses: {error}", "was the file replaced? start again")
    return FailedDependency(f"sqlite: {error}")


def heard(call: "asyncio.Future[Any]") -> None:
    """Take the exception of a call whose caller may be gone, so that the loop does not complain."""
    if not call.cancelled():
        call.exception()


class SqliteFile:
    """One SQLite file in WAL mode, opened when first used, and the thread that uses it."""

    def __init__(self, path: Path, *, busy_ms: int = 3000, deadline_ms: int = 30_000) -> None:
        self.path = path
        self._busy_ms = busy_ms
        self._deadline_ms = deadline_ms
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=path.stem)
        self._closed = False

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run ``work`` on the thread; map SQLite's errors to ours.

        Raises:
            WriteInDoubt: the deadline passed; what was begun still ends before anything else.
        """
        assert not self._closed, "the store was closed"
        call = asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)
        call.add_done_callback(heard)
        try:
            async with asyncio.timeout(self._deadline_ms / 1000):
                return await asyncio.shield(call)
        except TimeoutError:
            raise WriteInDoubt(f"sqlite: no answer within {self._deadline_ms} ms") from None
        except sqlite3.Error as error:
            raise failure(error) from error

    def _work(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        if self._connection is None:
            self._connection = self._open()
        try:
            return work(self._connection)
        except BaseException:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise

    def _open(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FailedDependency(f"sqlite: {error}") from error
        connection = sqlite_files.connect(self.path, busy_ms=self._busy_ms)
        connection.row_factory = sqlite3.Row
        return connection

    async def close(self) -> None:
        """Close the file after what was begun."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def migrate(connection: sqlite3.Connection, wanted: Sequence[Migration]) -> Sequence[str]:
    """Apply what is missing, each migration in a transaction with its record."""
    connection.execute(
        "create table if not exists migrations ("
        "name text not null primary key, checksum text not null, applied_ms bigint not null)"
    )
    connection.execute("begin immediate")
    rows = connection.execute("select name, checksum from migrations").fetchall()
    pending = missing(wanted, {row["name"]: row["checksum"] for row in rows})
    for migration in pending:
        for statement in migration.statements:
            connection.execute(statement)
        connection.execute(
            "insert into migrations (name, checksum, applied_ms) values (?, ?, ?)",
            (migration.name, migration.checksum, time.time_ns() // 1_000_000),
        )
    connection.execute("commit")
    return [migration.name for migration in pending]


class SqliteTables:
    """``persistence.ports.TableStore`` in one SQLite file."""

    def __init__(self, path: Path, *, busy_ms: int = 3000, deadline_ms: int = 30_000) -> None:
        self._file = SqliteFile(path, busy_ms=busy_ms, deadline_ms=deadline_ms)

    async def migrate(self) -> Sequence[str]:
        wanted = migrations("tables")
        return await self._file.run(lambda connection: migrate(connection, wanted))

    async def fetch(self, sql: str, *args: Any) -> list[Mapping[str, Any]]:
        def work(connection: sqlite3.Connection) -> list[Mapping[str, Any]]:
            cursor = connection.execute(sqlite_placeholders(sql), args)
            return [dict(row) for row in cursor.fetchall()]

        return await self._file.run(work)

    async def transact(self, statements: Sequence[Statement]) -> list[int]:
        return await self._file.run(lambda connection: _transact(connection, statements))

    async def close(self) -> None:
        await self._file.close()


def _transact(connection: sqlite3.Connection, statements: Sequence[Statement]) -> list[int]:
    connection.execute("begin immediate")
    touched = [_execute(connection, statement) for statement in statements]
    connection.execute("commit")
    return touched


def _execute(connection: sqlite3.Connection, statement: Statement) -> int:
    if statement.many is None:
        rows = connection.execute(sqlite_placeholders(statement.sql), statement.args).rowcount
    elif statement.into:
        places = ", ".join("?" * len(statement.columns))
        sql = f"insert into {statement.into} ({', '.join(statement.columns)}) values ({places})"
        rows = connection.executemany(sql, statement.many).rowcount
    else:
        rows = connection.executemany(sqlite_placeholders(statement.sql), statement.many).rowcount
    if statement.expect is not None and rows != statement.expect:
        raise CursorFenced(
            f"{rows} rows touched where {statement.expect} were expected: {statement.sql}"
        )
    return rows
