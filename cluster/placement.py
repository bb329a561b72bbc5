"""Ray as we use it: one node on loopback behind a token, and detached actors named by start.

Ray's own restarts are off (``max_restarts=0``): it does not notice a hung actor, and two who start
successors are worse than one. It is not on any path that matters once an owner runs. What speaks
to Ray is a small child process of the supervisor, since a driver dies with its raylet.

Ray binds to every interface unless its node's address is exactly 127.0.0.1, which it resolves away
on Linux; ``RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0`` makes it keep to loopback, as it does elsewhere.
"""

import asyncio
import contextlib
import logging
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
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from actors.supervisor import Launched, Phase, Start
from cluster.control import LOOPBACK, ControlClient
from cluster.owner import (
    End,
    OwnerProcess,
    end_file,
    owner_card_file,
    owner_cards,
    spare_cards,
    spare_file,
)
from cluster.processes import (
    TREE_VARIABLE,
    ProcessName,
    gone,
    kill,
    lives,
    marked,
    name_of,
    run_delays_ms,
    tree_mark,
    write_file,
)
from cluster.settings import Settings
from cluster.trial import ray_trial
from engine.errors import FailedDependency

NAMESPACE: Final = "repricer"
START_DEADLINE_S: Final = 180.0
LAUNCH_DEADLINE_S: Final = 40.0
SPARE_DEADLINE_S: Final = 8.0
"""A spare that has not begun by then is given up: a new process takes about as long."""

OBJECT_STORE_BYTES: Final = 80_000_000
"""Ray's least; we keep nothing in it."""

HEAD_LOSS_S: Final = 3600
"""How long Ray's node lives without its head; its own default is one minute."""

ONE_THREAD: Final = {
    "JAX_PLATFORMS": "cpu",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
"""A shard decides on one core; its neighbours need the others."""


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
        # From uvloop 0.22 on Ray's workers trip over it; our own loop takes it explicitly.
        "RAY_USE_UVLOOP": "0",
        "RAY_worker_niceness": "0",  # an owner is no batch job: Ray would make it yield by 15
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


def compiled_kernels(settings: Settings) -> dict[str, str]:
    """Return the environment that keeps compiled kernels in the folder.

    A successor loads what its predecessor compiled, instead of compiling for seconds.
    """
    return {
        "JAX_COMPILATION_CACHE_DIR": str(settings.folder / "kernels"),
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
        RayRefused: it did not start, or its job API answers without a token.
    """
    make_token(settings.run_folder)
    folder = session_folder(settings)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [
        *(sys.executable, "-m", "cluster.ray_start", "start", "--head"),
        *("--node-ip-address", LOOPBACK, "--port", "0"),
        *("--dashboard-host", LOOPBACK, "--dashboard-port", str(settings.ray.dashboard_port)),
        *("--include-dashboard", "true" if settings.ray.dashboard else "false"),
        *("--dashboard-agent-listen-port", "0"),
        *("--num-cpus", str(os.cpu_count() or 1)),
        *("--object-store-memory", str(OBJECT_STORE_BYTES)),
        *("--temp-dir", str(folder), "--disable-usage-stats", "--log-color", "false"),
    ]
    try:
        started = subprocess.run(
            command,
            env=ray_environment(settings),
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
    """Kill what is left of a node whose raylet is gone; another would only stand beside it."""
    session = Path(node.folder).name.encode()
    for pid in marked(tree_mark(settings.folder)):
        name = name_of(pid)
        with contextlib.suppress(OSError):
            if name is not None and session in Path(f"/proc/{pid}/cmdline").read_bytes():
                kill(name)


# ----- the child that speaks to Ray ---------------------------------------------------------------


class Order(Struct, frozen=True, kw_only=True):
    """What the child is told: to start an owner, in a spare if one is named, or to make a spare."""

    spare: str = ""
    start: Start | None = None


class Placed(Struct, frozen=True, kw_only=True):
    """What the child answers to one order: where it runs, or why not."""

    name: str
    pid: int = 0
    address: str = ""
    problem: str = ""


def place(settings_file: Path) -> None:
    """Carry out every order that is read from standard input, one a line."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    settings_json = settings_file.read_text()
    settings = Settings.model_validate_json(settings_json)
    node = read_node(settings.run_folder)
    assert node is not None
    ray.init(
        address=node.address,
        _node_ip_address=LOOPBACK,
        namespace=NAMESPACE,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.ERROR,
    )
    owner_class: Any = ray.remote(OwnerProcess)  # Ray's types do not know detached actors' calls

    def make(name: str) -> Any:
        options = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 4, "num_cpus": 0}
        owner = owner_class.options(name=name, lifetime="detached", **options)
        return owner.remote(settings_json, name)

    def begin(actor: Any, start: Start, within_s: float = LAUNCH_DEADLINE_S) -> Any:
        call = actor.begin.options(name=start.name)  # Ray's dashboard lists the call by this name
        answer = call.remote(msgspec.json.encode(start).decode())
        return ray.get(answer, timeout=within_s)

    def carry_out(order: Order) -> Placed:
        if order.start is None:
            where = ray.get(make(order.spare).prepare.remote(), timeout=LAUNCH_DEADLINE_S)
            return Placed(name=order.spare, pid=where["pid"])
        where = None
        if order.spare:
            try:
                spare = ray.get_actor(order.spare, namespace=NAMESPACE)
                where = begin(spare, order.start, SPARE_DEADLINE_S)
            except (RayError, GetTimeoutError, ValueError) as error:
                print(f"{order.spare}: not usable: {error}", file=sys.stderr, flush=True)
        where = where or begin(make(order.start.name), order.start)
        return Placed(name=order.start.name, pid=where["pid"], address=where["address"])

    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        try:
            placed = carry_out(order)
        except (RayError, GetTimeoutError, ValueError) as error:
            name = order.start.name if order.start else order.spare
            placed = Placed(name=name, problem=f"{type(error).__name__}: {error}"[:2000])
        sys.stdout.buffer.write(msgspec.json.encode(placed) + b"\n")
        sys.stdout.buffer.flush()


# ----- what the supervisor is given ---------------------------------------------------------------


class RayLauncher:
    """Starts, watches and ends owners; the supervisor's hands."""

    def __init__(self, settings: Settings, settings_file: Path, control: ControlClient) -> None:
        self._settings = settings
        self._settings_file = settings_file
        self._control = control
        self._child: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()
        self._names: dict[str, ProcessName] = {}
        self._spare: tuple[str, ProcessName] | None = None
        self._delays: dict[str, dict[int, float]] = {}

    async def launch(self, start: Start) -> Launched:
        """Have the child begin it in the spare, or in a new actor; waits for a spare half made.

        Raises:
            FailedDependency: Ray did not in time.
        """
        async with self._one_at_a_time:
            spare = self._spare if self.has_spare() else None
            self._spare = None
            placed = await self._order(Order(spare=spare[0] if spare else "", start=start))
            if spare is not None and placed.pid != spare[1].pid:
                kill(spare[1])  # it could not be had: another Ray's, or hung
        launched = Launched(start=start, pid=placed.pid, address=placed.address)
        self.know(launched)
        return launched

    async def prepare(self) -> None:
        """Have the child make a spare.

        Raises:
            FailedDependency: Ray did not in time.
        """
        async with self._one_at_a_time:
            if self.has_spare():
                return
            self.clear_spares()  # one that another supervisor ordered may have come since
            name = f"spare-{secrets.token_hex(4)}"
            placed = await self._order(Order(spare=name))
            process = name_of(placed.pid)
            self._spare = (name, process) if process is not None else None

    def has_spare(self) -> bool:
        """Whether a spare waits; one that died is none."""
        return self._spare is not None and lives(self._spare[1])

    def clear_spares(self) -> None:
        """End every spare that waits: of a supervisor that is gone, nobody would use them."""
        for name, process in spare_cards(self._settings.run_folder).items():
            kill(process)
            spare_file(self._settings.run_folder, name).unlink(missing_ok=True)

    def starved_ms(self, launched: Launched) -> float:
        """Return how long one of its threads waited for a processor since this was last asked.

        The first answer is 0, and so is every one where the kernel does not count.
        """
        name = launched.start.name
        before, now = self._delays.get(name), run_delays_ms(launched.pid)
        self._delays[name] = now
        if before is None:
            return 0.0
        return max((now[thread] - before[thread] for thread in now if thread in before), default=0)

    def know(self, launched: Launched) -> None:
        """Remember which very process a pid means, while it surely means that one."""
        name = name_of(launched.pid)
        if name is not None:
            self._names[launched.start.name] = name

    async def take_over(self, launched: Launched) -> None:
        """Tell a standby to seal."""
        await self._control.act(launched.address, "take-over")

    def kill(self, launched: Launched) -> None:
        """Send SIGKILL to the very process."""
        name = self._names.get(launched.start.name)
        if name is not None:
            kill(name)

    async def gone(self, launched: Launched) -> tuple[str | None, str]:
        """Return when the process is gone, with the word it left."""
        name = self._names.get(launched.start.name)
        if name is not None:
            await gone(name)
        self._names.pop(launched.start.name, None)
        self._delays.pop(launched.start.name, None)
        run_folder = self._settings.run_folder
        owner_card_file(run_folder, launched.start.name).unlink(missing_ok=True)
        try:
            word = end_file(run_folder, launched.start.name).read_bytes()
            end = msgspec.json.decode(word, type=End)
        except (OSError, msgspec.MsgspecError):
            return None, "it left no word"
        return end.end, end.detail

    async def progress(self, launched: Launched) -> tuple[Phase, object]:
        """Ask a start how far it is."""
        status = await self._control.status(launched.address, deadline_s=2.0)
        phase = PHASES.get(str(status.get("phase")), "starting")
        return phase, [status.get(key) for key in ("phase", "seq", "decision_offset")]

    async def close(self) -> None:
        """End the child; the owners it made live on."""
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    async def _order(self, order: Order) -> Placed:
        try:
            placed = await asyncio.wait_for(self._ask(order), LAUNCH_DEADLINE_S + 10)
        except (OSError, TimeoutError, msgspec.MsgspecError, asyncio.IncompleteReadError) as error:
            await self.close()  # another child may find another Ray
            raise FailedDependency(f"Ray did not answer to {order}: {error!r}") from error
        if placed.problem:
            await self.close()
            raise FailedDependency(f"{placed.name}: {placed.problem}")
        return placed

    async def _ask(self, order: Order) -> Placed:
        child = self._child
        if child is None or child.returncode is not None:
            log = (self._settings.folder / "logs" / "placement.log").open("ab")
            with log:
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "cluster.placement", str(self._settings_file)),
                    env=ray_environment(self._settings),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                )
            self._child = child
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(msgspec.json.encode(order) + b"\n")
        await child.stdin.drain()
        while True:
            line = await child.stdout.readuntil(b"\n")
            if line.startswith(b"{"):  # Ray prints to standard output now and then
                return msgspec.json.decode(line, type=Placed)


PHASES: Final[dict[str, Phase]] = {"waiting": "standby", "live": "live"}
"""An owner's phase -> what it means to the supervisor; every other is a start under way."""


def living_owners(run_folder: Path) -> list[Launched]:
    """Return the owners that still run, whoever started them, and clear away the others' cards."""
    living = []
    for card in owner_cards(run_folder):
        if lives(card.process):
            pid = card.process.pid
            living.append(Launched(start=card.start, pid=pid, address=card.address))
        else:
            owner_card_file(run_folder, card.start.name).unlink(missing_ok=True)
    return living


if __name__ == "__main__":
    place(Path(sys.argv[1]))
