"""The series store in one SQLite file: the embedded mode's history.

The primary key of each table is QuestDB's deduplication key, and a row that comes again replaces
itself, so that re-sending a batch is as harmless here as there.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from persistence.migrations import migrations
from persistence.sqlite_tables import SqliteFile, migrate


def plain_column(column: np.ndarray | Sequence[Any]) -> list[Any]:
    """Return a column as Python values; unsigned 64-bit keys become signed, bit for bit."""
    if isinstance(column, np.ndarray):
        if column.dtype == np.uint64:
            column = column.view(np.int64)
        values: list[Any] = column.tolist()
        return values
    return list(column)


class SqliteSeries:
    """``persistence.ports.SeriesStore`` in one SQLite file. Rows stay for ever."""

    def __init__(self, path: Path, *, busy_ms: int = 3000, deadline_ms: int = 30_000) -> None:
        self._file = SqliteFile(path, busy_ms=busy_ms, deadline_ms=deadline_ms)

    async def migrate(self) -> Sequence[str]:
        wanted = migrations("sqlite_series")
        return await self._file.run(lambda connection: migrate(connection, wanted))

    async def append(self, table: str, columns: Mapping[str, np.ndarray | Sequence[Any]]) -> int:
        rows = list(zip(*(plain_column(column) for column in columns.values()), strict=True))
        places = ", ".join("?" * len(columns))
        sql = f"insert or replace into {table} ({', '.join(columns)}) values ({places})"

        def work(connection: sqlite3.Connection) -> int:
            connection.execute("begin immediate")
            connection.executemany(sql, rows)
            connection.execute("commit")
            return len(rows)

        return await self._file.run(work)

    async def settle(self, table: str) -> None:
        """Return at once: what was acknowledged here was committed."""

    async def fetch(self, sql: str) -> list[Mapping[str, Any]]:
        def work(connection: sqlite3.Connection) -> list[Mapping[str, Any]]:
            return [dict(row) for row in connection.execute(sql).fetchall()]

        return await self._file.run(work)

    async def close(self) -> None:
        await self._file.close()
