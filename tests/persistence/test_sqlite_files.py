import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from persistence import sqlite_files


def hold(path: Path) -> Callable[[], None]:
    """Hold a reader's lock on a file that isn't in WAL mode yet; return what lets go of it."""
    reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    reader.execute("CREATE TABLE IF NOT EXISTS kept (n INTEGER)")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM kept").fetchall()
    return reader.close


def test_a_new_file_waits_for_a_lock(tmp_path: Path) -> None:
    let_go = hold(tmp_path / "new.sqlite")
    timer = threading.Timer(0.1, let_go)
    timer.start()
    connection = sqlite_files.connect(tmp_path / "new.sqlite", busy_ms=20_000)
    timer.join()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


def test_a_lock_that_stays_is_an_error(tmp_path: Path) -> None:
    let_go = hold(tmp_path / "new.sqlite")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite_files.connect(tmp_path / "new.sqlite", busy_ms=50)
    let_go()


def test_what_is_no_database_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database " * 99)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        sqlite_files.connect(tmp_path / "text.sqlite", busy_ms=3_600_000)


def test_many_open_a_new_file_at_once(tmp_path: Path) -> None:
    def mode(path: Path) -> str:
        connection = sqlite_files.connect(path, busy_ms=20_000)
        found: str = connection.execute("PRAGMA journal_mode").fetchone()[0]
        connection.close()
        return found

    with ThreadPoolExecutor(6) as threads:
        paths = [tmp_path / f"{number // 6}.sqlite" for number in range(600)]
        assert set(threads.map(mode, paths)) == {"wal"}
