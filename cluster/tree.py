"""The processes of ``repricer up``: Ray's head, supervisor, gateway, followers, and their end.

Everything is started here and nothing is left behind: orphans are adopted, and at the end whatever
carries the tree's mark is gone. Should this process itself be killed, owners decide on; the next
``up`` on the same folder ends what is left and starts anew from the log.
"""

import asyncio
import contextlib
import fcntl
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from msgspec import Struct

from cluster.assembly import make_logs
from cluster.control import ControlClient, control_token
from cluster.launching import living_owners
from cluster.processes import (
    ProcessName,
    adopt_orphans,
    end_all,
    gone,
    lives,
    own_name,
    reap,
    tree_mark,
    write_file,
)
from cluster.ray_node import (
    RAYLET,
    RayNode,
    RayRefused,
    end_node,
    ray_environment,
    ray_file,
    ray_gone,
    runs_any,
    session_folder,
    start_node,
)
from cluster.settings import Settings, forgotten_history, uneven_spreads
from cluster.topics import prepare_logs
from engine.errors import FailedDependency, SettingsRefused

LOGGER = logging.getLogger("repricer.up")

PACKAGES: Final = (
    "actors",
    "cluster",
    "engine",
    "gateway",
    "kernels",
    "persistence",
    "training",
)
ROLES: Final = ("supervisor", "gateway", "followers")
DRAIN_S: Final = 25.0
CATCH_UP_S: Final = 10.0


class RoleCard(Struct, frozen=True, kw_only=True):
    """Where a process of ours is."""

    process: ProcessName
    address: str


class AlreadyRunning(Exception):
    """Another ``up`` works on this folder."""


def refuse_shadowed_packages(root: Path) -> None:
    """Raise if another distribution's package would be imported in place of one of ours.

    Our top-level names are plain words, and some are taken: ``kernels`` is also Hugging Face's.

    Raises:
        SettingsRefused: one is; the message says where it was found.
    """
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin) if spec and spec.origin else None
        if origin is None or not origin.is_relative_to(root):
            raise SettingsRefused(
                f"package '{name}' is not ours, it was found at {origin}: put {root} first on "
                "PYTHONPATH, or remove the other distribution"
            )


class Child:
    """One process of the tree, restarted when it ends by itself."""

    def __init__(self, role: str, command: Sequence[str], environment: dict[str, str]) -> None:
        self.role = role
        self.starts = 0
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._not_before = 0.0
        self._started = 0.0

    @property
    def pid(self) -> int | None:
        """Return its pid while it runs."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and running else None

    def tend(self, output: Path) -> None:
        """Start it if it is not running and its back-off allows."""
        now = time.monotonic()
        if self.pid is not None or now < self._not_before:
            return
        if self._process is not None:
            LOGGER.warning("%s ended with %s", self.role, self._process.returncode)
        self.starts = 1 if now - self._started > 60 else self.starts + 1
        self._started = now
        self._not_before = now + min(0.25 * 2 ** (self.starts - 1), 15.0)
        with output.open("ab") as log:
            # A session of its own, so that an interrupt at the terminal reaches us alone.
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def end(self, patience_s: float) -> None:
        """Ask it to end, and make it after a while."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        deadline = time.monotonic() + patience_s
        while process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait(5)


class Tree:
    """All processes on one data folder; use it in an ``async with``, and nothing is left behind."""

    def __init__(
        self, settings: Settings, *, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.settings = settings
        self.node: RayNode | None = None
        self._former: list[RayNode] = []  # without a head, and some owner may still run under them
        self._say = say
        self._mark = tree_mark(settings.folder)
        self._children: dict[str, Child] = {}
        self._lock: Any = None
        self._tending: asyncio.Task[None] | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._settings_file = settings.run_folder / "settings.json"

    async def __aenter__(self) -> "Tree":
        try:
            await self._start()
        except BaseException:
            self._clear()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # ----- starting ---------------------------------------------------------------------------

    async def _start(self) -> None:
        settings = self.settings
        refuse_shadowed_packages(Path(__file__).resolve().parent.parent)
        settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings.run_folder.mkdir(exist_ok=True, mode=0o700)
        self._take_lock()
        adopt_orphans()
        ended = end_all(self._mark)
        if ended:
            self._say(f"ended {ended} processes that an earlier start had left behind")
        for doubtful in (
            *uneven_spreads(settings.shards),
            *forgotten_history(settings.series, settings.training),
        ):
            LOGGER.warning(doubtful)
        for name in ("owners", "processes", "ends", "spares"):
            shutil.rmtree(settings.run_folder / name, ignore_errors=True)
        ray_file(settings.run_folder).unlink(missing_ok=True)
        logs = make_logs(settings)
        try:
            await prepare_logs(settings, logs)
        finally:
            await logs.close()
        make_keys(settings)
        control_token(settings.run_folder)
        self._settings_file.write_text(settings.model_dump_json())
        self._settings_file.chmod(0o600)
        write_file(settings.run_folder / "up.json", own_name())
        (settings.folder / "logs").mkdir(exist_ok=True)
        environment = {**ray_environment(settings), "PYTHONUNBUFFERED": "1"}
        for role in ROLES:
            command = (sys.executable, "-m", "cluster.roles", role, str(self._settings_file))
            self._children[role] = Child(role, command, environment)
        for role in ("gateway", "followers"):
            self._children[role].tend(self._output(role))
        await self._start_ray()
        self._tending = asyncio.ensure_future(self._tend())

    def _take_lock(self) -> None:
        self._lock = (self.settings.run_folder / "up.lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            raise AlreadyRunning(
                f"another `repricer up` works on {self.settings.folder}: stop it, or name another "
                "folder"
            ) from None

    async def _start_ray(self) -> None:
        before = time.monotonic()
        self.node = await asyncio.to_thread(start_node, self.settings)
        LOGGER.info("Ray started in %.1f s at %s", time.monotonic() - before, self.node.address)

    def _output(self, role: str) -> Path:
        return self.settings.folder / "logs" / f"{role}.out"

    # ----- living -----------------------------------------------------------------------------

    async def _tend(self) -> None:
        """Restart what ended, and bury orphans.

        A fork that is refused, or a disk that is full, passes; who gave up here would leave an
        engine that nobody tends. What failed is tried again at a later pass.
        """
        passes = 0
        while True:
            for role, child in self._children.items():
                with _tolerated(f"{role} is not started"):
                    child.tend(self._output(role))
            if passes % 20 == 0:
                with _tolerated("orphans are not buried"):
                    reap(frozenset(filter(None, (child.pid for child in self._children.values()))))
            if passes % 8 == 0:
                with _tolerated("Ray is not tended"):
                    await self._tend_ray()
            passes += 1
            await asyncio.sleep(0.25)

    async def _tend_ray(self) -> None:
        """Have Ray replaced when it is gone; what else ends is restarted meanwhile."""
        if self._replacing is not None:
            if not self._replacing.done():
                return
            replacing, self._replacing = self._replacing, None
            replacing.result()
        assert self.node is not None
        gone = await asyncio.to_thread(ray_gone, self.node)
        if gone:
            self._replacing = asyncio.ensure_future(self._replace_ray(gone))
        elif self._former:
            self._former = await asyncio.to_thread(self._end_unused, self._former)

    def _end_unused(self, former: list[RayNode]) -> list[RayNode]:
        """End the nodes under which no owner runs any more; return the others."""
        owners = {each.pid for each in living_owners(self.settings.run_folder)}
        used = [node for node in former if runs_any(self.settings, node, owners)]
        for node in former:
            if node not in used:
                LOGGER.info("no owner runs under %s any more; ending it", node.address)
                end_node(self.settings, node)
        return used

    async def _replace_ray(self, gone: str) -> None:
        """Start another head: beside the owners that still run under the first one's node, if any.

        They decide on; when one ends, its successor starts under the new head. Without its raylet a
        node is of no use: its owners died with it, and the head cannot start others.
        """
        assert self.node is not None
        self._say(f"Ray's {gone} is gone; starting another head")
        LOGGER.warning("Ray's %s is gone; starting another head", gone)
        before = self.node
        if gone == RAYLET:
            end_node(self.settings, before)
        try:
            await self._start_ray()
            if gone != RAYLET:
                self._former.append(before)
        except (RayRefused, OSError) as error:
            LOGGER.error("Ray did not start again: %s", error)
            await asyncio.sleep(5)

    async def until_live(self, deadline_s: float = 300.0) -> None:
        """Return when every shard has a live owner.

        Raises:
            FailedDependency: not in time; the message says which are missing.
        """
        deadline = time.monotonic() + deadline_s
        async with aiohttp.ClientSession() as session:
            control = ControlClient(session, control_token(self.settings.run_folder))
            while True:
                missing = await self._missing(control)
                if not missing:
                    return
                if time.monotonic() > deadline:
                    raise FailedDependency(
                        f"after {deadline_s:.0f} s not live: {', '.join(missing)}; see "
                        f"{self.settings.folder / 'logs'}"
                    )
                await asyncio.sleep(0.1)

    async def _missing(self, control: ControlClient) -> list[str]:
        live = set()
        for launched in living_owners(self.settings.run_folder):
            with contextlib.suppress(FailedDependency):
                status = await control.status(launched.address, deadline_s=2)
                if status.get("phase") == "live":
                    live.add(launched.start.shard)
        return [
            f"shard {shard}" for shard in range(self.settings.shards.count) if shard not in live
        ]

    # ----- ending -----------------------------------------------------------------------------

    async def stop(self) -> None:
        """Drain: no more starts, a last checkpoint each, followers to the end, then everything.

        What fails of it keeps nothing else from its end, and is raised after all.
        """
        try:
            await _each(self._endings())
        finally:
            self._clear()

    def _endings(self) -> Iterator[Awaitable[None]]:
        """Yield all that is waited for at the end, in order."""
        for task in (self._tending, self._replacing):
            if task is not None:
                yield _end_task(task)
        if "supervisor" in self._children:
            yield self._children["supervisor"].end(5)
            yield self._drain_owners()
            yield self._children["followers"].end(CATCH_UP_S + 5)
            yield self._children["gateway"].end(10)

    async def _drain_owners(self) -> None:
        owners = living_owners(self.settings.run_folder)
        names = []
        async with aiohttp.ClientSession() as session:
            control = ControlClient(session, control_token(self.settings.run_folder))
            for owner in owners:
                with contextlib.suppress(FailedDependency):
                    await control.act(owner.address, "stop")
                    names.append(owner.pid)
        waits = [asyncio.ensure_future(_pid_gone(pid)) for pid in names]
        if waits:
            _, late = await asyncio.wait(waits, timeout=DRAIN_S)
            for wait in late:
                wait.cancel()
            if late:
                LOGGER.warning("%d owners did not drain in %.0f s", len(late), DRAIN_S)

    def _clear(self) -> None:
        if self._lock is None:
            return
        end_all(self._mark, os.getpid())
        for name in ("up.json", "ray.json", "settings.json"):
            (self.settings.run_folder / name).unlink(missing_ok=True)
        if self.settings.ray.folder is None:
            shutil.rmtree(session_folder(self.settings), ignore_errors=True)
        self._lock.close()
        self._lock = None


@contextlib.contextmanager
def _tolerated(what: str) -> Iterator[None]:
    """Log what the system refuses, and go on."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # Python has no other word for a thread refused
        LOGGER.error("%s: %r", what, error)


async def _each(parts: Iterator[Awaitable[None]]) -> None:
    """Wait for one part after the other, also when one fails; then raise what failed last."""
    for part in parts:
        try:
            await part
        except Exception:
            LOGGER.exception("a part did not end as it should; the others are ended, too")
            await _each(parts)
            raise


async def _end_task(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _pid_gone(pid: int) -> None:
    from cluster.processes import name_of

    name = name_of(pid)
    if name is not None:
        await gone(name)


def make_keys(settings: Settings) -> str:
    """Return the API key, made at the first start; its file is readable by us alone."""
    from gateway.keys import create_key_file

    plain = settings.folder / "api.key"
    if not settings.keys_file.exists():
        key = create_key_file(settings.keys_file)
        with open(os.open(plain, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(key + "\n")
    return plain.read_text().strip() if plain.exists() else ""


def role_card(settings: Settings, role: str) -> RoleCard | None:
    """Return where a process of ours is, ``None`` when it is not."""
    try:
        content = (settings.run_folder / "processes" / f"{role}.json").read_bytes()
    except OSError:
        return None
    card = msgspec.json.decode(content, type=RoleCard)
    return card if lives(card.process) else None


async def until_told(*numbers: signal.Signals) -> signal.Signals:
    """Return the first of these signals that comes."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[signal.Signals] = loop.create_future()

    def tell(number: signal.Signals) -> None:
        if not told.done():
            told.set_result(number)

    for number in numbers:
        loop.add_signal_handler(number, tell, number)
    try:
        return await told
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
