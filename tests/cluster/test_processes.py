"""Processes are named for good, waited for, and none is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.processes import (
    TREE_VARIABLE,
    ProcessName,
    end_all,
    gone,
    kill,
    leftovers,
    lives,
    name_of,
    run_delays_ms,
    tree_mark,
    write_file,
)

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys, os\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
    " start_new_session=True)\n"
    "print('ready', flush=True)\n"
    "import time; time.sleep(600)",
]


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    """Return a tree's mark; what the test leaves of the tree ends with it."""
    mark = tree_mark(tmp_path)
    yield mark
    end_all(mark)


def start(command: list[str], mark: str) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, TREE_VARIABLE: mark}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


def test_a_pid_given_away_again_is_another_process() -> None:
    name = name_of(os.getpid())
    assert name is not None
    assert lives(name)
    assert not lives(ProcessName(name.pid, name.started_ticks + 1))
    assert not kill(ProcessName(name.pid, name.started_ticks + 1), signal.SIGTERM)


async def test_a_death_is_noticed_whoever_the_parent_is(mark: str) -> None:
    process = start(SLEEP, mark)
    name = name_of(process.pid)
    assert name is not None
    waiting = asyncio.ensure_future(gone(name))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert kill(name)
    await asyncio.wait_for(waiting, 30)
    process.wait()
    await asyncio.wait_for(gone(name), 30)  # long gone: at once


def test_a_tree_ends_with_its_orphans(mark: str) -> None:
    parent = start(PARENT, mark)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    assert len(leftovers(mark)) == 2
    parent.kill()
    parent.wait()
    assert len(leftovers(mark)) == 1, "the orphan still carries the mark"
    assert end_all(mark) == 1
    assert not leftovers(mark)


def test_another_tree_is_left_alone(mark: str, tmp_path: Path) -> None:
    process = start(SLEEP, tree_mark(tmp_path / "other"))
    assert end_all(mark) == 0
    assert process.poll() is None
    process.kill()
    process.wait()


def test_a_file_is_ours_alone(tmp_path: Path) -> None:
    write_file(tmp_path / "run" / "token", "hush")
    assert (tmp_path / "run" / "token").stat().st_mode & 0o077 == 0
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["token"]


def test_who_waits_for_a_processor_is_told_from_who_is_stopped(mark: str) -> None:
    """Two endless loops share one processor; then one of them is stopped."""
    loop = [sys.executable, "-c", "import os; os.sched_setaffinity(0, {0})\nwhile True: pass"]
    first, second = start(loop, mark), start(loop, mark)
    try:
        before = run_delays_ms(first.pid)[first.pid]
        deadline = time.monotonic() + 30
        while run_delays_ms(first.pid)[first.pid] - before < 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert run_delays_ms(first.pid)[first.pid] - before >= 200, "it had to share"
        os.kill(first.pid, signal.SIGSTOP)
        while Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)
        stopped = run_delays_ms(first.pid)
        time.sleep(0.3)
        assert run_delays_ms(first.pid) == stopped, "a stopped process waits for nothing"
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
    assert run_delays_ms(first.pid) == {}
