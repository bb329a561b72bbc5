"""The whole stack of one chaos run: servers behind fault proxies, disks that can fill, the engine.

Nothing of it survives the run: processes are ended by name and start time, mounts are taken off,
and what was paused is woken first.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self, final
from urllib.parse import urlsplit

from cluster.launching import living_owners
from cluster.owner import spare_cards
from cluster.processes import ProcessName, kill, marked, name_of, tree_mark
from cluster.servers.kafka import Kafka
from cluster.servers.ports import free_ports
from cluster.servers.postgres import Postgres
from cluster.servers.questdb import QuestDB
from cluster.servers.redis import Redis
from cluster.settings import Settings
from cluster.tree import role_card
from cluster.trial import CLOCKS_VARIABLE, RAY_VARIABLE, make_clocks
from perf.chaos.keeping import keep_site
from perf.chaos.learning import CHECKPOINT_S
from perf.chaos.plan import OURS, SERVERS
from perf.faultproxy import FaultProxy
from perf.real_stack import EngineUnderTest, server_settings

DISK_BYTES: Final = 4 * 1024**3
"""The most that one disk may hold. Memory is used for what is written only, but QuestDB allots each
column of each table a page ahead."""

FILL_TRIES: Final = 16

PROGRAMS: Final = {"raylet": "/raylet", "gcs": "/gcs_server", "placement": "cluster.placement"}


class Disk:
    """A file system of its own below a folder, which can be full at will."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounted = False

    def mount(self) -> bool:
        """Put a file system in memory there; return whether this machine lets us."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.mounted = _run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=711", "chaos")(
            self.folder
        )
        return self.mounted

    def fill(self) -> int:
        """Leave no room: the limit becomes what is used, or just above it on a disk that grows.

        Returns:
            The limit in bytes.

        Raises:
            OSError: it grows faster than the limit can be set.
        """
        margin = 0
        for _ in range(FILL_TRIES):
            held = os.statvfs(self.folder)
            limit = max((held.f_blocks - held.f_bfree) * held.f_frsize + margin, held.f_frsize)
            # Refused where somebody wrote more since we looked; whoever does soon fills the rest.
            if _run("mount", "-o", f"remount,size={limit}")(self.folder):
                return limit
            margin = max(2 * margin, held.f_frsize)
        raise OSError(f"{self.folder} cannot be filled: it outgrew {margin} bytes within one try")

    def empty(self) -> None:
        """Give the room back."""
        if self.mounted:
            _run("mount", "-o", f"remount,size={DISK_BYTES}")(self.folder)

    def unmount(self) -> None:
        """Take it away, with what it holds."""
        if self.mounted:
            _run("umount", "-l")(self.folder)
            self.mounted = False


def _run(*words: str) -> Callable[[Path], bool]:
    def run(folder: Path) -> bool:
        with suppress(OSError):
            done = subprocess.run([*words, str(folder)], capture_output=True, check=False)
            return done.returncode == 0
        return False

    return run


@final
class Site:
    """Everything that runs; use it in a ``with``."""

    def __init__(
        self,
        *,
        shards: int,
        standby: bool,
        disks: bool,
        learning: bool = False,
        keep: Path | None = None,
    ) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="repricer-chaos-"))
        self.root.chmod(0o711)  # Postgres may run as another user and must get through
        names = ("folder", *SERVERS)
        self.disks = {name: Disk(self.root / name) for name in names}
        self.why_no_disks = "" if disks else "not asked for"
        for disk in self.disks.values():
            disk.folder.mkdir()
        self.proxies = {name: FaultProxy(frames=name == "broker") for name in SERVERS}
        broker = self.disks["broker"].folder
        self.broker = Kafka(broker, advertised_port=self.proxies["broker"].port)
        self.postgres = Postgres(self.disks["postgres"].folder)
        self.questdb = QuestDB(self.disks["questdb"].folder)
        self.redis = Redis(self.disks["redis"].folder)
        self.clocks = self.root / "clocks"
        self.ray_file = self.root / "ray-trial"
        self.versions: dict[str, str] = {}  # of the servers
        self.shards = shards
        self._standby = standby
        self._learning = learning
        self._keep = keep
        self.not_kept = ""  # why not everything was kept that was asked for
        self._settings: Settings | None = None
        self.engine: EngineUnderTest
        make_clocks(self.clocks, shards)

    def __enter__(self) -> Self:
        try:
            self._mount()
            with ThreadPoolExecutor(4) as threads:
                starts = [threads.submit(self.server(name).start) for name in SERVERS]
            for start in starts:
                start.result()
            self.versions = {name: self.server(name).version() for name in SERVERS}
            self._open_proxies()
            self.engine = self._engine()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the servers, keep what was asked for, remove the rest; the engine has ended."""
        for proxy in self.proxies.values():
            proxy.stop()
        with ThreadPoolExecutor(4) as threads:
            stops = [threads.submit(self.server(name).stop) for name in SERVERS]
        if self._keep is not None:
            try:
                keep_site(self.root, self._keep)
            except OSError as error:  # what is not kept must not keep the rest from being removed
                self.not_kept = str(error)
        for disk in self.disks.values():
            disk.unmount()
        shutil.rmtree(self.root, ignore_errors=True)
        for stop in stops:
            stop.result()

    def server(self, name: str) -> Any:
        """Return a server by the name that the plan uses."""
        return getattr(self, name)

    @property
    def settings(self) -> Settings:
        """Return the engine's settings."""
        if self._settings is None:
            self._settings = self.engine.settings
        return self._settings

    def _mount(self) -> None:
        if self.why_no_disks:
            return
        if os.geteuid() != 0:
            self.why_no_disks = "mounting a disk needs root"
        elif not all(disk.mount() for disk in self.disks.values()):
            self.why_no_disks = "this machine lets nobody mount a disk"
        if self.why_no_disks:
            for disk in self.disks.values():
                disk.unmount()

    def _open_proxies(self) -> None:
        self.proxies["broker"].start(self.broker.proxied_port)
        self.proxies["postgres"].start(urlsplit(self.postgres.address).port or 0)
        self.proxies["questdb"].start(self.questdb.address.http_port)
        self.proxies["redis"].start(urlsplit(self.redis.address).port or 0)

    def _engine(self) -> EngineUnderTest:
        values = server_settings(self.root, self.broker, self.postgres, self.questdb, self.redis)
        redis, postgres = urlsplit(values["cache.url"]), urlsplit(values["tables.url"])
        ports = {name: proxy.port for name, proxy in self.proxies.items()}
        values |= {
            "log.bootstrap": f"127.0.0.1:{ports['broker']}",
            "tables.url": postgres._replace(
                netloc=f"{postgres.username}@127.0.0.1:{ports['postgres']}"
            ).geturl(),
            "series.url": f"http://127.0.0.1:{ports['questdb']}",
            "cache.url": redis._replace(netloc=f"127.0.0.1:{ports['redis']}").geturl(),
            "gateway.port": free_ports(1)[0],
            "ray.dashboard": False,
            "shards.count": self.shards,
            "shards.standby": self._standby,
            "shards.checkpoint_s": 10,
        }
        if self._learning:
            values |= {"shards.clock": "event", "shards.checkpoint_s": CHECKPOINT_S}
        os.environ[CLOCKS_VARIABLE] = str(self.clocks)
        os.environ[RAY_VARIABLE] = str(self.ray_file)
        return EngineUnderTest(self.disks["folder"].folder, values)

    def clock_place(self, target: str) -> int:
        """Return where the clock of an owner or of the gateway stands in the file of clocks."""
        return self.shards if target == "gateway" else int(target.partition(":")[2])

    # ----- finding what is to be struck ---------------------------------------------------------

    def process(self, target: str) -> ProcessName | None:
        """Return the process of a component of ours, ``None`` when it is not there just now."""
        if target.startswith("owner:"):
            return self._owner(int(target.partition(":")[2]))
        if target == "spare":
            return next(iter(spare_cards(self.settings.run_folder).values()), None)
        if target in OURS:
            card = role_card(self.settings, target)
            return card.process if card is not None else None
        found = self._programs(PROGRAMS[target])
        # A second head stands beside the first one's node; the newest is the one that matters.
        return max(found, key=lambda name: name.started_ticks, default=None)

    def _owner(self, shard: int) -> ProcessName | None:
        living = [
            each for each in living_owners(self.settings.run_folder) if each.start.shard == shard
        ]
        if not living:
            return None
        return name_of(min(living, key=lambda each: each.start.number).pid)

    def _programs(self, program: str) -> list[ProcessName]:
        found = []
        for pid in marked(tree_mark(self.settings.folder)):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                is_meant = (
                    program in words.split("\0")
                    if program == PROGRAMS["placement"]
                    else words.split("\0")[0].endswith(program)
                )
                name = name_of(pid) if is_meant else None
                if name is not None:
                    found.append(name)
        return found

    def failed_calls(self) -> int:
        """Return how many of its calls Ray says that it let fail, where owners are started."""
        log = self.settings.folder / "logs" / "placement.log"
        return log.read_bytes().count(b"Inject RPC") if log.exists() else 0

    def kill_heads(self) -> int:
        """Kill every head of Ray that runs; return how many there were."""
        return sum(kill(name) for name in self._programs(PROGRAMS["gcs"]))


def owns_port(process: ProcessName) -> Callable[[int], bool]:
    """Return a test whether a local TCP port is one of a process's own sockets."""

    def owns(port: int) -> bool:
        wanted = f":{port:04X}"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(wanted):
                return fields[9] in _sockets(process.pid)
        return False

    return owns


def _sockets(pid: int) -> set[str]:
    """Return the inodes of a process's sockets."""
    found = set()
    with suppress(OSError):
        for handle in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                link = os.readlink(handle.path)
                if link.startswith("socket:["):
                    found.add(link[8:-1])
    return found
