"""The table store in Postgres: the ledger that people query.

One connection, used by one caller at a time and dropped at the first trouble: after a broken COPY
or a cancelled call nobody knows what it still holds. A commit is never cancelled; when its answer
does not come, the outcome is *in doubt* and whoever wrote reads back. The server is told the
deadlines too, so that a transaction whose client vanished does not hold a cursor's row for ever.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import asyncpg

from engine.errors import (
    CursorFenced,
    FailedDependency,
    PricingError,
    RejectedInput,
    SettingsRefused,
    WriteInDoubt,
)
from persistence.migrations import migrations, missing
from persistence.ports import Statement
from persistence.sqlite_tables import heard

Result = TypeVar("Result")

MIGRATION_LOCK = 0x7265707269636572
"""Key of the advisory lock that lets one migrate at a time."""

_TROUBLE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg says when the server dies in some moments
    OSError,
    TimeoutError,
)

_RETRY_CLASSES = ("08", "25P03", "40", "53", "55", "57", "58", "XX")
"""SQLSTATE prefixes of trouble that passes: connection, deadlock, resources, shutdown, I/O."""

_REFUSED_CLASSES = ("28", "3D")
"""Wrong password or database: the settings are at fault, but an operator may repair the server."""


class PostgresTables:
    """``persistence.ports.TableStore`` over one asyncpg connection."""

    def __init__(
        self,
        dsn: str,
        *,
        password: str | None = None,
        deadline_ms: int = 10_000,
        connect_ms: int = 3_000,
    ) -> None:
        self._dsn = dsn
        self._password = password
        self._deadline_ms = deadline_ms
        self._connect_ms = connect_ms
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def migrate(self) -> Sequence[str]:
        wanted = migrations("tables")

        async def work(connection: asyncpg.Connection, _: Callable[[], None]) -> Sequence[str]:
            async with connection.transaction():
                await connection.execute("select pg_advisory_xact_lock($1)", MIGRATION_LOCK)
                await connection.execute(
                    "create table if not exists migrations (name text not null primary key,"
                    " checksum text not null, applied_ms bigint not null)"
                )
                rows = await connection.fetch("select name, checksum from migrations")
                pending = missing(wanted, {row["name"]: row["checksum"] for row in rows})
                for migration in pending:
                    for statement in migration.statements:
                        await connection.execute(statement)
                    await connection.execute(
                        "insert into migrations (name, checksum, applied_ms) values ($1, $2, $3)",
                        migration.name,
                        migration.checksum,
                        time.time_ns() // 1_000_000,
                    )
                return [migration.name for migration in pending]

        return await self._with_deadline(work)

    async def fetch(self, sql: str, *args: Any) -> list[Mapping[str, Any]]:
        async def work(
            connection: asyncpg.Connection, _: Callable[[], None]
        ) -> list[Mapping[str, Any]]:
            return [dict(row) for row in await connection.fetch(sql, *args)]

        return await self._with_deadline(work)

    async def transact(self, statements: Sequence[Statement]) -> list[int]:
        async def work(connection: asyncpg.Connection, committing: Callable[[], None]) -> list[int]:
            await connection.execute("begin")
            touched = [await _execute(connection, statement) for statement in statements]
            committing()
            # A transaction that the server already gave up "commits" with the word ROLLBACK.
            if await connection.execute("commit") != "COMMIT":
                raise FailedDependency("postgres rolled the transaction back at commit")
            return touched

        return await self._with_deadline(work)

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            await connection.close(timeout=1)
        except _TROUBLE:
            connection.terminate()

    async def _with_deadline(
        self, work: Callable[[asyncpg.Connection, Callable[[], None]], Awaitable[Result]]
    ) -> Result:
        """Run ``work`` as a task that only the death of the connection can end early."""
        async with self._turn:
            connection = await self._connected()
            stage = ["open"]
            task = asyncio.ensure_future(work(connection, lambda: stage.append("commit")))
            try:
                done, _ = await asyncio.wait({task}, timeout=self._deadline_ms / 1000)
                if not done:
                    raise TimeoutError
                return task.result()
            except PricingError:
                self._drop(connection)
                raise
            except _TROUBLE as error:
                self._drop(connection)
                raise _meaning(error, in_commit=stage[-1] == "commit") from error
            except BaseException:
                self._drop(connection)
                raise
            finally:
                if not task.done():
                    # Its socket is gone, so it ends by itself; nobody is left to hear how.
                    task.add_done_callback(heard)

    def _drop(self, connection: asyncpg.Connection) -> None:
        """Close the socket at once; the server rolls back, unless a commit was on its way."""
        if self._connection is connection:
            self._connection = None
        connection.terminate()

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        deadline = f"{self._deadline_ms}"
        try:
            self._connection = await asyncpg.connect(
                self._dsn,
                password=self._password,
                timeout=self._connect_ms / 1000,
                server_settings={
                    "application_name": "repricer",
                    "jit": "off",
                    "statement_timeout": deadline,
                    "lock_timeout": deadline,
                    "idle_in_transaction_session_timeout": deadline,
                },
            )
        except _TROUBLE as error:
            raise FailedDependency(f"postgres: cannot connect: {_words(error)}") from error
        return self._connection


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _meaning(error: Exception, *, in_commit: bool) -> PricingError:
    """Return what an error means for the one who wrote."""
    state = getattr(error, "sqlstate", None)
    text = f"postgres: {_words(error)}"
    if state is None or state.startswith(("08", "57P", "58", "XX")):
        # The connection broke or the server went down: before the commit that rolls back.
        return WriteInDoubt(text) if in_commit else FailedDependency(text)
    if state.startswith(_RETRY_CLASSES):
        return FailedDependency(text)
    if state.startswith(_REFUSED_CLASSES):
        return SettingsRefused(text)
    return RejectedInput("", text, "was the database replaced? start again")


async def _execute(connection: asyncpg.Connection, statement: Statement) -> int:
    if statement.many is None:
        rows = _touched(await connection.execute(statement.sql, *statement.args))
    elif statement.into:
        status = await connection.copy_records_to_table(
            statement.into, records=statement.many, columns=list(statement.columns)
        )
        rows = _touched(status)
    else:
        await connection.executemany(statement.sql, statement.many)
        rows = len(statement.many)
    if statement.expect is not None and rows != statement.expect:
        raise CursorFenced(
            f"{rows} rows touched where {statement.expect} were expected: {statement.sql}"
        )
    return rows


def _touched(status: str) -> int:
    """Return the number at the end of a command tag: ``UPDATE 1``, ``INSERT 0 5``, ``COPY 9``."""
    last = status.rsplit(" ", 1)[-1]
    return int(last) if last.isdigit() else 0
