"""Which process used how much of the processor while a load ran."""

import os
from collections import defaultdict
from pathlib import Path

KINDS = (
    ("cluster.roles gateway", "gateway"),
    ("cluster.roles followers", "followers"),
    ("cluster.roles supervisor", "supervisor"),
    ("cluster.roles merge", "merge"),
    ("cluster up", "up"),
    ("ray::", "owners"),
    ("default_worker.py", "owners"),
    ("OwnerProcess", "owners"),
    ("shard-", "owners"),
    ("kafka", "broker"),
    ("questdb", "questdb"),
    ("postgres", "postgres"),
    ("redis-server", "redis"),
    ("raylet", "ray"),
    ("gcs_server", "ray"),
    ("ray", "ray"),
)
"""A word of the command line, and what we call the process; the first that fits."""

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def family_seconds(root: int) -> dict[int, tuple[str, float]]:
    """Return kind and processor seconds of every living descendant of ``root``, and its own."""
    children: dict[int, list[int]] = {}
    seconds: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        children.setdefault(int(fields[1]), []).append(int(folder.name))
        seconds[int(folder.name)] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    found: dict[int, tuple[str, float]] = {root: ("load", seconds[root])}
    waiting = [root]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            found[pid] = (kind_of(command_of(pid)), seconds[pid])
            waiting.append(pid)
    return found


def cores_used(
    before: dict[int, tuple[str, float]], after: dict[int, tuple[str, float]], wall_s: float
) -> dict[str, float]:
    """Return by kind how many processors were busy on average; who ended between is left out."""
    used: dict[str, float] = defaultdict(float)
    for pid, (kind, seconds) in after.items():
        used[kind] += seconds - before.get(pid, (kind, 0.0))[1]
    ranked = sorted(used.items(), key=lambda each: -each[1])
    return {kind: round(spent / wall_s, 3) for kind, spent in ranked}


def machine_seconds() -> tuple[float, float]:
    """Return the processor seconds used by everybody since boot, and those a host took away."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _waiting, interrupt, soft, stolen = fields
    return (user + nice + system + interrupt + soft) / TICKS_PER_S, stolen / TICKS_PER_S


def command_of(pid: int) -> str:
    """Return a process's command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def kind_of(command: str) -> str:
    """Return what we call a process."""
    return next((kind for word, kind in KINDS if word in command), "other")
