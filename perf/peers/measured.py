"""A contender's process, from its start to its end: CPU, wall time, memory.

CPU is user and system time of the whole tree, as the kernel counts it when the tree has been
waited for. Memory is the sum of the peaks of all processes of the tree.
"""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

POLL_S = 0.02
LOOKS_EVERY = 5
"""Memory is looked at less often than the end: it grows slowly, and looking costs."""


class Measured(Struct, frozen=True):
    """What a process took."""

    cpu_s: float
    wall_s: float
    peak_rss_mb: float


class Failed(RuntimeError):
    """A contender ended otherwise than well."""


def run_measured(
    command: Sequence[str],
    *,
    log: Path,
    folder: Path,
    environment: Mapping[str, str],
    limit_s: float,
) -> Measured:
    """Run a command to its end, what it says going to ``log``.

    Raises:
        Failed: it ended with a status, or did not end in time.
    """
    began = time.monotonic()
    peaks: dict[int, int] = {}
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status, usage = _watch(process.pid, peaks, began + limit_s)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    wall_s = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
        late = f" after {limit_s:.0f} s" if wall_s > limit_s else ""
        raise Failed(f"ended with status {process.returncode}{late}:\n{tail}")
    return Measured(
        cpu_s=usage.ru_utime + usage.ru_stime,
        wall_s=wall_s,
        peak_rss_mb=sum(peaks.values()) / 1024,
    )


def _watch(pid: int, peaks: dict[int, int], until: float) -> tuple[int, Any]:
    """Wait for the end; note every member's peak on the way, and end what takes too long."""
    for look in itertools.count():
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return status, usage
        for member in tree(pid) if look % LOOKS_EVERY == 0 else ():
            peaks[member] = max(peaks.get(member, 0), peak_kb(member))
        if time.monotonic() > until:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(POLL_S)
    raise AssertionError("it waits for ever")


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    members, place = [pid], 0
    while place < len(members):
        with suppress(OSError):
            for task in Path(f"/proc/{members[place]}/task").iterdir():
                members += [int(child) for child in (task / "children").read_text().split()]
        place += 1
    return members


def peak_kb(pid: int) -> int:
    """Return the most memory that a process ever had resident, 0 if it is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0
