"""Processes of ours: named by pid and start time, waited for by pidfd, ended without leftovers.

A pid alone is no name, since the kernel gives it away again; with the time the process started it
is one. Everything that a tree starts carries the tree's mark in its environment, so that even what
lost its parent is found again.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from cluster.servers.launch import family

TREE_VARIABLE: Final = "REPRICER_TREE"
PR_SET_CHILD_SUBREAPER: Final = 36


class ProcessName(Struct, frozen=True):
    """A process for good: no later one has the same name."""

    pid: int
    started_ticks: int  # since boot, from /proc


def name_of(pid: int) -> ProcessName | None:
    """Return the full name of a living process, ``None`` when there is none (a zombie is none)."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # asked often: a Path would double its price
            text = file.read()
    except OSError:
        return None
    # The command stands in brackets and may hold blanks.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else ProcessName(pid, int(fields[19]))


def own_name() -> ProcessName:
    """Return the name of this process."""
    name = name_of(os.getpid())
    assert name is not None
    return name


def lives(name: ProcessName) -> bool:
    """Whether the very process is still there."""
    return name_of(name.pid) == name


def kill(name: ProcessName, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal to the very process; return whether it was there."""
    try:
        handle = os.pidfd_open(name.pid)
    except OSError:
        return False
    try:
        if not lives(name):  # checked after the handle holds it, so it cannot be another's pid
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def run_delays_ms(pid: int) -> dict[int, float]:
    """Return for each thread how long it was ready to run and got no processor, since it began.

    Empty when the process is gone or the kernel does not count it (``/proc/PID/task/*/schedstat``).
    """
    delays = {}
    with contextlib.suppress(OSError):
        for task in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):  # the thread ended meanwhile
                with open(f"{task.path}/schedstat") as file:
                    fields = file.read().split()
                delays[int(task.name)] = int(fields[1]) / 1e6
    return delays


async def gone(name: ProcessName) -> None:
    """Return when the process is gone. It may be anybody's child."""
    try:
        handle = os.pidfd_open(name.pid)
    except OSError:
        return
    try:
        if not lives(name):
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(handle, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(handle)
    finally:
        os.close(handle)


def tree_mark(folder: Path) -> str:
    """Return what marks every process that works on this folder."""
    return blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()


def adopt_orphans() -> None:
    """Become the parent of every descendant whose parent ends, so that none escapes us."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(known: frozenset[int] = frozenset()) -> None:
    """Bury adopted children that ended; those in ``known`` are waited for by somebody else."""
    for pid in family(os.getpid())[1:]:
        if pid in known or name_of(pid) is not None:
            continue
        with contextlib.suppress(ChildProcessError):  # a grandchild: its parent's to bury
            os.waitpid(pid, os.WNOHANG)


def marked(mark: str) -> set[int]:
    """Return the pids of all living processes of one tree, this one left out."""
    wanted = f"{TREE_VARIABLE}={mark}".encode()
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return {pid for pid in found if name_of(pid) is not None}


def leftovers(mark: str, root: int | None = None) -> set[int]:
    """Return what a tree has running: marked, or descended from ``root`` or from a marked one."""
    found = marked(mark)
    roots = found | ({root} if root is not None else set())
    for pid in roots:
        found.update(family(pid))
    found.discard(os.getpid())
    return {pid for pid in found if name_of(pid) is not None}


def end_all(mark: str, root: int | None = None, *, patience_s: float = 5.0) -> int:
    """Kill everything a tree has running, and return how many there were."""
    ended: set[int] = set()
    deadline = time.monotonic() + patience_s
    while (pids := leftovers(mark, root)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        ended |= pids
        if root is not None:
            reap()
        time.sleep(0.05)
    return len(ended)


def write_file(path: Path, value: object, *, mode: int = 0o600) -> None:
    """Write JSON so that a reader sees the old or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(msgspec.json.encode(value))
    temporary.replace(path)
