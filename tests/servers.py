"""The real servers as fixtures.

``kafka_server``, ``postgres_server``, ``questdb_server`` and ``redis_server`` are shared by the
whole session and start when a test first asks for one; each has an ``address`` and a ``version()``.
Share them politely: a test takes topics, schemas, tables and key prefixes of its own. They are
found in this order: an address in the environment (``REPRICER_TEST_KAFKA`` and so on), docker
compose where a daemon answers, else our own native processes.

A test that stops, kills or pauses a server asks for ``start_kafka`` and its like instead: each call
starts a native instance of its own, which ends with the test.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from cluster.servers.compose import Compose, daemon_answers
from cluster.servers.given import Given
from cluster.servers.installation import KAFKA_VERSION
from cluster.servers.kafka import Kafka
from cluster.servers.postgres import Postgres
from cluster.servers.postgres import version_at as postgres_version_at
from cluster.servers.process import Server
from cluster.servers.questdb import QuestDB, QuestDBAddress
from cluster.servers.questdb import version_at as questdb_version_at
from cluster.servers.redis import Redis
from cluster.servers.redis import version_at as redis_version_at

SERVERS_SPOKEN_TO = pytest.StashKey[list[str]]()
"""One line a shared server, for the end of the run."""


class Native(Server, Protocol):
    """A server that we start and stop ourselves."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


NativeT = TypeVar("NativeT", bound=Native)
ServerT = TypeVar("ServerT", bound=Server)


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """Return a folder for the servers' data.

    Pytest's own temporary folders are closed to other users, and Postgres runs as one when we are
    root.
    """
    with tempfile.TemporaryDirectory(prefix="repricer-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture(scope="session")
def servers_compose() -> Iterator[Compose | None]:
    """Return the servers of docker compose, or nothing where no daemon answers."""
    if not daemon_answers():
        yield None
        return
    compose = Compose()
    yield compose
    compose.stop()


def remember(request: pytest.FixtureRequest, name: str, how: str, server: ServerT) -> ServerT:
    """Note a shared server for the end of the run."""
    lines = request.config.stash.setdefault(SERVERS_SPOKEN_TO, [])
    lines.append(f"{name} {server.version()} ({how})")
    return server


def native(folder: Path, make: Callable[[Path], NativeT]) -> Iterator[NativeT]:
    """Start a server of our own in a new folder, and stop it at the end."""
    own = Path(tempfile.mkdtemp(dir=folder))
    own.chmod(0o711)
    server = make(own)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def kafka_server(
    request: pytest.FixtureRequest, servers_folder: Path, servers_compose: Compose | None
) -> Iterator[Kafka | Given[str]]:
    """Return the session's Kafka; ``address`` is the bootstrap string."""
    # The protocol does not tell a broker's version.
    if bootstrap := os.environ.get("REPRICER_TEST_KAFKA"):
        yield remember(
            request, "kafka", "address given", Given(bootstrap, lambda _: "of unknown version")
        )
    elif servers_compose is not None:
        bootstrap = servers_compose.kafka()
        yield remember(
            request, "kafka", "docker compose", Given(bootstrap, lambda _: KAFKA_VERSION)
        )
    else:
        for server in native(servers_folder, Kafka):
            yield remember(request, "kafka", "native", server)


@pytest.fixture(scope="session")
def postgres_server(
    request: pytest.FixtureRequest, servers_folder: Path, servers_compose: Compose | None
) -> Iterator[Postgres | Given[str]]:
    """Return the session's Postgres; ``address`` is a DSN."""
    if dsn := os.environ.get("REPRICER_TEST_POSTGRES"):
        yield remember(request, "postgres", "address given", Given(dsn, postgres_version_at))
    elif servers_compose is not None:
        dsn = servers_compose.postgres()
        yield remember(request, "postgres", "docker compose", Given(dsn, postgres_version_at))
    else:
        for server in native(servers_folder, Postgres):
            yield remember(request, "postgres", "native", server)


@pytest.fixture(scope="session")
def questdb_server(
    request: pytest.FixtureRequest, servers_folder: Path, servers_compose: Compose | None
) -> Iterator[QuestDB | Given[QuestDBAddress]]:
    """Return the session's QuestDB; ``address`` is a `QuestDBAddress`."""
    if url := os.environ.get("REPRICER_TEST_QUESTDB"):
        given = Given(QuestDBAddress.parse(url), questdb_version_at)
        yield remember(request, "questdb", "address given", given)
    elif servers_compose is not None:
        given = Given(servers_compose.questdb(), questdb_version_at)
        yield remember(request, "questdb", "docker compose", given)
    else:
        for server in native(servers_folder, QuestDB):
            yield remember(request, "questdb", "native", server)


@pytest.fixture(scope="session")
def redis_server(
    request: pytest.FixtureRequest, servers_folder: Path, servers_compose: Compose | None
) -> Iterator[Redis | Given[str]]:
    """Return the session's Redis; ``address`` is a URL with the password."""
    if url := os.environ.get("REPRICER_TEST_REDIS"):
        yield remember(request, "redis", "address given", Given(url, redis_version_at))
    elif servers_compose is not None:
        url = servers_compose.redis()
        yield remember(request, "redis", "docker compose", Given(url, redis_version_at))
    else:
        for server in native(servers_folder, Redis):
            yield remember(request, "redis", "native", server)


def starter(folder: Path, make: Callable[[Path], NativeT]) -> Iterator[Callable[[], NativeT]]:
    """Give a function that starts private servers, and stop them all at the end."""
    started: list[Iterator[NativeT]] = []

    def start() -> NativeT:
        running = native(folder, make)
        server = next(running)
        started.append(running)
        return server

    yield start
    for running in started:
        next(running, None)


@pytest.fixture
def start_kafka(servers_folder: Path) -> Iterator[Callable[[], Kafka]]:
    """Return a function that starts a Kafka of the test's own."""
    yield from starter(servers_folder, Kafka)


@pytest.fixture
def start_postgres(servers_folder: Path) -> Iterator[Callable[[], Postgres]]:
    """Return a function that starts a Postgres of the test's own."""
    yield from starter(servers_folder, Postgres)


@pytest.fixture
def start_questdb(servers_folder: Path) -> Iterator[Callable[[], QuestDB]]:
    """Return a function that starts a QuestDB of the test's own."""
    yield from starter(servers_folder, QuestDB)


@pytest.fixture
def start_redis(servers_folder: Path) -> Iterator[Callable[[], Redis]]:
    """Return a function that starts a Redis of the test's own."""
    yield from starter(servers_folder, Redis)


def gone(pid: int, wait_s: float = 5.0) -> bool:
    """Tell whether a process ends within a while; a dead one not yet collected has ended."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False
