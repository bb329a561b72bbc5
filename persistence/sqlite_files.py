"""Opens the SQLite files that several processes share."""

import sqlite3
import time
from pathlib import Path

_RETRY_S = 0.005


def connect(path: Path, *, busy_ms: int) -> sqlite3.Connection:
    """Return a connection in WAL mode that fsyncs every commit and waits ``busy_ms`` for locks.

    Raises:
        sqlite3.OperationalError: The file can't be opened, or stayed locked.
    """
    connection = sqlite3.connect(
        path, timeout=busy_ms / 1000, isolation_level=None, check_same_thread=False
    )
    try:
        _switch_to_wal(connection, until=time.monotonic() + busy_ms / 1000)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA fullfsync=ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _switch_to_wal(connection: sqlite3.Connection, *, until: float) -> None:
    """Switch a new file to WAL mode, which lasts; for any other file this does nothing.

    SQLite does not wait for a lock here: of two connections that switch at once, one is told
    "locked" the same moment, whatever its timeout.
    """
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
        time.sleep(_RETRY_S)
