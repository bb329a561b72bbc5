"""Our node of Ray: on loopback, behind a token, and refused if it lets strangers in.

It is not on any path that matters once an owner runs.

Ray binds to every interface unless its node's address is exactly 127.0.0.1, which it resolves away
on Linux; ``RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0`` makes it keep to loopback, as it does elsewhere.
"""

import contextlib
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Set
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from cluster.control import LOOPBACK
from cluster.processes import (
    TREE_VARIABLE,
    ProcessName,
    kill,
    marked,
    name_of,
    tree_mark,
    write_file,
)
from cluster.servers.launch import family
from cluster.servers.ports import free_ports
from cluster.settings import Settings
from cluster.trial import ray_trial

START_DEADLINE_S: Final = 180.0
OBJECT_STORE_BYTES: Final = 80_000_000
"""Ray's least; we keep nothing in it."""

HEAD_LOSS_S: Final = 3600
"""How long Ray's node lives without its head; its own default is one minute."""

ASKED_BRIEFLY: Final = {"RAY_raylet_start_wait_time_s": "3"}
"""How long one question for the node takes that is not there; it is asked again, and in between it
is looked whether the raylet lives."""

ONE_THREAD: Final = {
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
"""A shard decides on one core; its neighbours need the others."""


KERNELS_VARIABLE: Final = "JAX_COMPILATION_CACHE_DIR"


class RayNode(Struct, frozen=True, kw_only=True):
    """Where our Ray node is, as the run folder says."""

    address: str
    dashboard: str  # URL, or ""
    token_file: str
    folder: str


class RayRefused(Exception):
    """Ray did not start, or lets strangers in; the message says which, and what to do."""


def ray_file(run_folder: Path) -> Path:
    """Return the file that says where our Ray node is."""
    return run_folder / "ray.json"


def ray_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of everything that is Ray's, with what the owners inherit."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    root = str(Path(__file__).resolve().parent.parent)
    others = inherited.get("PYTHONPATH", "")
    return {
        **inherited,
        **ONE_THREAD,
        TREE_VARIABLE: tree_mark(settings.folder),
        **compiled_kernels(settings),
        **ray_trial(),
        "PYTHONPATH": f"{root}{os.pathsep}{others}" if others else root,  # ours come first
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file(settings.run_folder)),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(HEAD_LOSS_S),
        # A raylet whose agents come later ends itself; its own default is half a minute.
        "RAY_agent_register_timeout_ms": str(round(START_DEADLINE_S * 1000)),
        # From uvloop 0.22 on Ray's workers trip over it; our own loop takes it explicitly.
        "RAY_USE_UVLOOP": "0",
        "RAY_worker_niceness": "0",  # an owner is no batch job: Ray would make it yield by 15
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


def compiled_kernels(settings: Settings) -> dict[str, str]:
    """Return the environment that keeps compiled kernels in the folder.

    A successor loads what its predecessor compiled, instead of compiling for seconds. Who has named
    a folder of his own by JAX's variable keeps it: several engines may share one, since a kernel is
    found by its program, the versions, the flags and the processor that it was compiled for.
    """
    named = os.environ.get(KERNELS_VARIABLE)
    return {
        KERNELS_VARIABLE: named or str(settings.folder / "kernels"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def token_file(run_folder: Path) -> Path:
    """Return the file of Ray's token."""
    return run_folder / "ray.token"


def make_token(run_folder: Path) -> str:
    """Return Ray's token, made at the first start and readable by us alone."""
    path = token_file(run_folder)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(path, flags, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    return path.read_text().strip()


def session_folder(settings: Settings) -> Path:
    """Return the folder of Ray's sessions. Its sockets' names hold 107 bytes, so it is short."""
    if settings.ray.folder is not None:
        return settings.ray.folder
    return Path(tempfile.gettempdir()) / f"repricer-{tree_mark(settings.folder)}"


def start_node(settings: Settings) -> RayNode:
    """Start Ray's head on loopback, and refuse to go on if it lets strangers in.

    Raises:
        RayRefused: it did not start, or its job API answers without a token. Nothing of it is left.
    """
    make_token(settings.run_folder)
    folder = session_folder(settings)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    known = _sessions(folder)
    try:
        return _started(settings, folder)
    except RayRefused:
        # On a crowded machine most of it is there by then: each try that failed would stay, and
        # take from the next one what it lacked itself.
        for session in _sessions(folder) - known:
            _end_session(settings, session)
        raise


def _sessions(folder: Path) -> set[str]:
    """Return the names of Ray's sessions in its folder."""
    return {each.name for each in folder.glob("session_*") if not each.is_symlink()}


def _started(settings: Settings, folder: Path) -> RayNode:
    command = [
        *(sys.executable, "-m", "cluster.ray_start", "start", "--head"),
        *("--node-ip-address", LOOPBACK, "--port", "0"),
        *("--dashboard-host", LOOPBACK, "--dashboard-port", str(settings.ray.dashboard_port)),
        *("--include-dashboard", "true" if settings.ray.dashboard else "false"),
        *_agents_ports(),
        *("--num-cpus", str(os.cpu_count() or 1)),
        *("--object-store-memory", str(OBJECT_STORE_BYTES)),
        *("--temp-dir", str(folder), "--disable-usage-stats", "--log-color", "false"),
    ]
    try:
        started = subprocess.run(
            command,
            env=ray_environment(settings) | ASKED_BRIEFLY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=START_DEADLINE_S,
            check=False,
            text=True,
        )
    except subprocess.TimeoutExpired:
        raise RayRefused(f"Ray did not start within {START_DEADLINE_S:.0f} s") from None
    if started.returncode != 0:
        raise RayRefused(f"Ray did not start: {started.stdout.strip()[-800:]}")
    shown = re.search(r"RAY_API_SERVER_ADDRESS='(http://[^']+)'", started.stdout)
    node = RayNode(
        address=(folder / "ray_current_cluster").read_text().strip(),
        dashboard=shown[1] if shown and settings.ray.dashboard else "",
        token_file=str(token_file(settings.run_folder)),
        folder=str((folder / "session_latest").resolve()),
    )
    write_file(ray_file(settings.run_folder), node)
    if node.dashboard:
        refuse_open_job_api(node)
    return node


def _agents_ports() -> list[str]:
    """Return where Ray's agents are to listen: a raylet waits for ports that it is not told.

    One that is taken meanwhile fails this start, and the next one chooses others.
    """
    options = (
        "--dashboard-agent-listen-port",
        "--dashboard-agent-grpc-port",
        "--metrics-export-port",
        "--runtime-env-agent-port",
    )
    ports = map(str, free_ports(len(options)))
    return [word for pair in zip(options, ports, strict=True) for word in pair]


def refuse_open_job_api(node: RayNode) -> None:
    """Raise unless Ray's job API, which runs any command, turns away who has no token.

    Raises:
        RayRefused: it answered.
    """
    for presented in (None, "Bearer " + "0" * 64):
        request = urllib.request.Request(f"{node.dashboard}/api/jobs/")
        if presented is not None:
            request.add_header("Authorization", presented)
        deadline = time.monotonic() + 20
        status = 0
        while status == 0 and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    status = answer.status
            except urllib.error.HTTPError as error:
                status = error.code
            except OSError:
                time.sleep(0.2)
        if status not in (401, 403):
            raise RayRefused(
                f"Ray's job API at {node.dashboard} answered {status} to a stranger, not 401; "
                "it runs any command, so nothing is started"
            )


def read_node(run_folder: Path) -> RayNode | None:
    """Return our Ray node, ``None`` when none was started."""
    try:
        return msgspec.json.decode(ray_file(run_folder).read_bytes(), type=RayNode)
    except OSError:
        return None


HEAD, RAYLET = "head", "raylet"
"""What a node of Ray is made of, as far as we need it."""


def ray_gone(node: RayNode) -> str:
    """Return which part of a node takes no connections, ``""`` when both do.

    One that hangs still takes them; it is waited for, since the shards need none of it to decide.
    """
    host, _, port = node.address.rpartition(":")
    if not _takes_connections(socket.AF_UNIX, str(Path(node.folder) / "sockets" / "raylet")):
        return RAYLET
    return "" if _takes_connections(socket.AF_INET, (host, int(port))) else HEAD


def _takes_connections(kind: socket.AddressFamily, address: Any) -> bool:
    for _ in range(3):
        with socket.socket(kind) as asking:
            asking.settimeout(2)
            try:
                asking.connect(address)
                return True
            except OSError:
                time.sleep(0.5)
    return False


def end_node(settings: Settings, node: RayNode) -> None:
    """Kill what is left of a node that is of no use; what it started ends with its raylet."""
    _end_session(settings, Path(node.folder).name)


def _end_session(settings: Settings, session: str) -> None:
    for name in _processes(settings, session):
        kill(name)


def runs_any(settings: Settings, node: RayNode, pids: Set[int]) -> bool:
    """Whether one of these processes was started by a node."""
    session = Path(node.folder).name
    return any(pids & set(family(name.pid)) for name in _processes(settings, session))


def _processes(settings: Settings, session: str) -> list[ProcessName]:
    """Return the processes that the node of a session itself is made of."""
    found = []
    for pid in marked(tree_mark(settings.folder)):
        name = name_of(pid)
        with contextlib.suppress(OSError):
            if name is not None and session.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(name)
    return found
