"""The series store in QuestDB: rows over ILP/HTTP, queries over ``/exec``.

QuestDB is a projection and never the record, so what counts is that nothing goes missing silently.
Four traps are closed here: a failed flush empties the client's own buffer (we keep ours and the
caller sends the same rows again, which the deduplication keys make harmless); rows older than a
table's time to live are acknowledged and dropped (refused here, loudly); a table whose write-ahead
log is suspended acknowledges and applies nothing (``append`` returns only when the rows can be
read); and tables made by the first row would have no keys (ours are made by migrations only).
"""

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import aiohttp
import numpy as np
from questdb import QuestDBError, QuestDBErrorCode, Sender, TimestampNanos

from engine.errors import FailedDependency, RejectedInput
from persistence.migrations import migrations, missing
from persistence.sqlite_series import plain_column
from persistence.sqlite_tables import heard

NO_ROOM = "DISK FULL"
NO_SPACE = "[28]"
"""What a suspended table names as the cause when there was no room: a tag, or the system's error
in its message and no tag (QuestDB 9.3.4, when the applying of a transaction met it)."""

ROLLED_BACK = "bulk update failed and will be rolled back"
"""What it names when a worker of its met the lack of room while merging: the cause stands only in
its log. Nothing of the transaction was applied, so trying it again is safe whatever the cause."""

_UNIT_MS = {
    "HOUR": 3_600_000,
    "DAY": 86_400_000,
    "WEEK": 604_800_000,
    "MONTH": 28 * 86_400_000,
    "YEAR": 365 * 86_400_000,
}
"""The shortest a unit of a time to live can be."""

FLUSH_ROWS_MAX = 20_000
"""Rows of one request; a bad row refuses its whole request."""

SHAPE_S = 30.0
"""How long a table's shape is believed: an operator may change a time to live at any moment."""

TABLES_WITH_TTL = ("prices", "competitor_prices", "inventory_levels", "sales_metrics")


class Shape:
    """What the server says of one table: its columns' types and its time to live."""

    def __init__(self, types: Mapping[str, str], ttl_ms: int, read_s: float) -> None:
        self.types = types
        self.ttl_ms = ttl_ms  # 0: for ever
        self.read_s = read_s  # when it was asked for, on the loop's clock


class QuestDBSeries:
    """``persistence.ports.SeriesStore`` in QuestDB 9.3.

    ``ttl_days`` is set on the history tables by ``migrate`` (0: rows stay for ever, which a replay
    of records older than that needs). The server's own word is read back and believed.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        user: str = "",
        password: str = "",
        ttl_days: int = 180,
        deadline_ms: int = 10_000,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._address = f"{host}:{port}"
        self._user = user
        self._password = password
        self._ttl_days = ttl_days
        self._deadline_ms = deadline_ms
        self._wall_ms = wall_ms
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="questdb")
        self._turn = asyncio.Lock()
        self._sender: Sender | None = None
        self._session: aiohttp.ClientSession | None = None
        self._shapes: dict[str, Shape] = {}
        self._troubled: set[str] = set()  # tables whose last append failed

    async def migrate(self) -> Sequence[str]:
        wanted = migrations("questdb")
        await self.execute(
            "create table if not exists migrations (ts timestamp, name symbol, checksum varchar,"
            " applied_ms long) timestamp(ts) partition by year wal dedup upsert keys(ts, name)"
        )
        rows = await self.fetch("select name, checksum from migrations")
        pending = missing(wanted, {row["name"]: row["checksum"] for row in rows})
        for migration in pending:
            for statement in migration.statements:  # idempotent, since DDL has no transaction
                await self.execute(statement)
            now_ms = self._wall_ms()
            await self.append(
                "migrations",
                {
                    "ts": [0],
                    "name": [migration.name],
                    "checksum": [migration.checksum],
                    "applied_ms": [now_ms],
                },
            )
        for table in TABLES_WITH_TTL:
            await self._set_ttl(table, self._ttl_days * _UNIT_MS["DAY"])
        return [migration.name for migration in pending]

    async def append(self, table: str, columns: Mapping[str, np.ndarray | Sequence[Any]]) -> int:
        async with self._turn:
            shape = await self._shape(table)
            plain = {name: plain_column(column) for name, column in columns.items()}
            times = plain.pop("ts")
            unknown = sorted(set(plain) - set(shape.types))
            if unknown:
                raise RejectedInput("", f"questdb: table {table} has no columns {unknown}")
            self._refuse_expired(table, shape, times)
            if table in self._troubled:
                # Else each retry would make what waits to be applied longer.
                _refuse_suspended(await self._resumed(table))
            self._troubled.add(table)
            for start in range(0, len(times), FLUSH_ROWS_MAX):
                await self._flush(table, shape, plain, times, start)
            await self._applied(table)
            self._troubled.discard(table)
            return len(times)

    async def settle(self, table: str) -> None:
        async with self._turn:
            _refuse_suspended(await self._resumed(table))
            await self._applied(table)

    async def fetch(self, sql: str) -> list[Mapping[str, Any]]:
        answer = await self._ask(sql)
        if "dataset" not in answer:
            return []
        names = [column["name"] for column in answer["columns"]]
        stamps = [
            index for index, column in enumerate(answer["columns"]) if column["type"] == "TIMESTAMP"
        ]
        rows: list[Mapping[str, Any]] = []
        for values in answer["dataset"]:
            for index in stamps:
                values[index] = None if values[index] is None else _unix_ms(values[index])
            rows.append(dict(zip(names, values, strict=True)))
        return rows

    async def execute(self, sql: str) -> None:
        """Run one statement that returns no rows."""
        await self._ask(sql)

    async def suspended(self) -> list[str]:
        """Return the tables that acknowledge rows and apply none: their WAL is suspended."""
        rows = await self.fetch("select name from wal_tables() where suspended")
        return [str(row["name"]) for row in rows]

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        sender, self._sender = self._sender, None
        if sender is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, sender.close, False)
        self._thread.shutdown(wait=False)

    def _refuse_expired(self, table: str, shape: Shape, times: Sequence[int]) -> None:
        """Refuse rows that the server would acknowledge and drop."""
        if not shape.ttl_ms or not times:
            return
        oldest, horizon = min(times), self._wall_ms() - shape.ttl_ms
        if oldest <= horizon:
            raise RejectedInput(
                "/ts",
                f"questdb: table {table} keeps rows for {shape.ttl_ms} ms and would drop those of"
                f" {oldest} ({horizon - oldest} ms too old)",
                f"alter table {table} set ttl 0 days, or a longer one, and start again",
            )

    async def _flush(
        self,
        table: str,
        shape: Shape,
        columns: Mapping[str, list[Any]],
        times: Sequence[int],
        start: int,
    ) -> None:
        """Send one request on the thread and wait for its answer.

        The client's own deadline ends it; a caller who is cancelled leaves a flush that still ends
        before the next begins, since there is one thread.
        """
        call = asyncio.get_running_loop().run_in_executor(
            self._thread, self._send, table, shape, columns, times, start
        )
        call.add_done_callback(heard)
        try:
            await asyncio.shield(call)
        except QuestDBError as error:
            raise _meaning(error) from error

    def _send(
        self,
        table: str,
        shape: Shape,
        columns: Mapping[str, list[Any]],
        times: Sequence[int],
        start: int,
    ) -> None:
        """Fill a buffer of our own and flush it, on the thread. Any trouble drops the client."""
        stop = min(start + FLUSH_ROWS_MAX, len(times))
        symbols = [name for name in columns if shape.types[name] == "SYMBOL"]
        booleans = [name for name in columns if shape.types[name] == "BOOLEAN"]
        others = [name for name in columns if name not in symbols and name not in booleans]
        try:
            if self._sender is None:
                self._sender = Sender.from_conf(self._configuration())
                self._sender.establish()  # type: ignore[no-untyped-call]
            buffer = self._sender.new_buffer()
            for row in range(start, stop):
                fields = {name: columns[name][row] for name in others}
                for name in booleans:
                    fields[name] = bool(columns[name][row])
                buffer.row(
                    table,
                    symbols={name: columns[name][row] for name in symbols},
                    columns=fields,
                    at=TimestampNanos(times[row] * 1_000_000),
                )
            self._sender.flush(buffer)
        except BaseException:
            sender, self._sender = self._sender, None
            if sender is not None:
                sender.close(False)
            raise

    def _configuration(self) -> str:
        login = f"username={self._user};password={self._password};" if self._user else ""
        return (
            f"http::addr={self._address};{login}auto_flush=off;retry_timeout=0;"
            f"protocol_version=2;request_timeout={self._deadline_ms};"
        )

    async def _set_ttl(self, table: str, ttl_ms: int) -> None:
        """Set a table's time to live, and wait till the server says so: that, too, comes later."""
        if (await self._shape(table)).ttl_ms == ttl_ms:
            return
        await self.execute(f"alter table {table} set ttl {self._ttl_days} days")
        deadline = asyncio.get_running_loop().time() + self._deadline_ms / 1000
        while (await self._shape(table)).ttl_ms != ttl_ms:
            if asyncio.get_running_loop().time() > deadline:
                raise FailedDependency(f"questdb: table {table} does not take its time to live")
            await asyncio.sleep(0.01)
            self._shapes.pop(table, None)

    async def _applied(self, table: str) -> None:
        """Wait until the rows just acknowledged can be read.

        The write-ahead log of a table is applied later, and not at all while it is suspended. A
        cursor that ran ahead of that would lose the rows when somebody resumes at a later one.
        """
        state = await self._wal(table)
        wanted = state["sequencerTxn"]
        pause_s = 0.002
        deadline = asyncio.get_running_loop().time() + self._deadline_ms / 1000
        while state["writerTxn"] < wanted:
            _refuse_suspended(state)
            if asyncio.get_running_loop().time() > deadline:
                raise FailedDependency(f"questdb: table {table} does not apply what it took")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.1)
            state = await self._wal(table)

    async def _resumed(self, table: str) -> Mapping[str, Any]:
        """Return the state of a table's log; one that only lacked room is told to go on first.

        It goes on with the very transaction that failed, so nothing is skipped; while there is no
        room it is suspended again, and the next try asks again. Any other cause is a person's.
        """
        state = await self._wal(table)
        if not (state["suspended"] and lacked_room(state)):
            return state
        await self.execute(f"alter table {table} resume wal")
        return await self._wal(table)

    async def _wal(self, table: str) -> Mapping[str, Any]:
        rows = await self.fetch(f"select * from wal_tables() where name = '{table}'")
        if not rows:
            self._shapes.pop(table, None)
            raise FailedDependency(f"questdb: table {table} is gone, or has no write-ahead log")
        return rows[0]

    async def _shape(self, table: str) -> Shape:
        now_s = asyncio.get_running_loop().time()
        known = self._shapes.get(table)
        if known is not None and now_s - known.read_s < SHAPE_S:
            return known
        columns = await self.fetch(f'select "column", "type" from table_columns(\'{table}\')')
        rows = await self.fetch(
            f"select ttlValue, ttlUnit, dedup from tables() where table_name = '{table}'"
        )
        if not rows or not rows[0]["dedup"]:
            raise RejectedInput("", f"questdb: table {table} is missing or does not deduplicate")
        ttl_ms = int(rows[0]["ttlValue"]) * _UNIT_MS[rows[0]["ttlUnit"]]
        shape = Shape({str(row["column"]): str(row["type"]) for row in columns}, ttl_ms, now_s)
        self._shapes[table] = shape
        return shape

    async def _ask(self, sql: str) -> dict[str, Any]:
        if self._session is None:
            headers = {}
            if self._user:
                login = b64encode(f"{self._user}:{self._password}".encode()).decode()
                headers["Authorization"] = f"Basic {login}"
            timeout = aiohttp.ClientTimeout(total=self._deadline_ms / 1000)
            self._session = aiohttp.ClientSession(headers=headers, timeout=timeout)
        try:
            async with self._session.get(
                f"http://{self._address}/exec", params={"query": sql}
            ) as response:
                if response.status == 401:
                    raise FailedDependency("questdb: user or password is wrong")
                answer: dict[str, Any] = await response.json(content_type=None)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise FailedDependency(f"questdb: {error or type(error).__name__}") from error
        if "error" in answer:
            if response.status >= 500 or "does not exist" not in answer["error"]:
                raise FailedDependency(f"questdb: {answer['error']}: {sql}")
            raise RejectedInput("", f"questdb: {answer['error']}: {sql}", "migrate, start again")
        return answer


def lacked_room(wal: Mapping[str, Any]) -> bool:
    """Whether a table was suspended only because there was no room for it, or may have been."""
    told = str(wal["errorMessage"])
    return wal["errorTag"] == NO_ROOM or NO_SPACE in told or ROLLED_BACK in told


def _refuse_suspended(wal: Mapping[str, Any]) -> None:
    if wal["suspended"]:
        raise FailedDependency(
            f"questdb: the write-ahead log of table {wal['name']} is suspended:"
            f" {wal['errorMessage']} (alter table {wal['name']} resume wal)"
        )


def _unix_ms(text: str) -> int:
    parsed = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
    return round(parsed.timestamp() * 1000)


def _meaning(error: QuestDBError) -> FailedDependency | RejectedInput:
    """Return what a failed flush means: a row that the server refuses, or trouble that passes."""
    text = f"questdb: {error}"
    invalid = (
        error.code is QuestDBErrorCode.ServerFlushError and '"code":"invalid"' in str(error)
    ) or error.code in (
        QuestDBErrorCode.InvalidUtf8,
        QuestDBErrorCode.InvalidName,
        QuestDBErrorCode.InvalidTimestamp,
    )
    return RejectedInput("", text) if invalid else FailedDependency(text)
