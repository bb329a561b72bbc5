"""The QuestDB that tests start asks for a password, keeps what it acknowledged, leaves nothing."""

import dataclasses
import time
import urllib.error
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from cluster.servers.compose import COMPOSE_FILE
from cluster.servers.process import Server
from cluster.servers.questdb import (
    RESTING,
    WORKERS,
    QuestDB,
    QuestDBAddress,
    query,
    resting_workers,
)
from tests.servers import gone

pytestmark = pytest.mark.servers


def test_the_shared_server_answers(questdb_server: Server) -> None:
    address = questdb_server.address
    assert isinstance(address, QuestDBAddress)
    assert query(address, "select 1")["dataset"] == [[1]]


async def test_a_stranger_is_refused_at_both_doors(start_questdb: Callable[[], QuestDB]) -> None:
    address = start_questdb().address
    for user, password in (("admin", "quest"), (address.user, "wrong")):
        stranger = dataclasses.replace(address, user=user, password=password)
        with pytest.raises(urllib.error.HTTPError) as refused:
            query(stranger, "select 1")
        assert refused.value.code == 401
        with pytest.raises(asyncpg.PostgresError):
            await asyncpg.connect(stranger.pg_dsn)


def test_a_killed_server_keeps_what_it_acknowledged(start_questdb: Callable[[], QuestDB]) -> None:
    """A new process on the same ports has the row; after the stop there is no process."""
    questdb = start_questdb()
    address, before = questdb.address, questdb.pid
    query(address, "create table kept (ts timestamp, value int) timestamp(ts) partition by day wal")
    query(address, "insert into kept values ('2026-01-01T00:00:00', 7)")

    questdb.kill()
    assert gone(before, wait_s=0.5)
    questdb.start()

    # The log was acknowledged; the table applies it when it gets to it.
    deadline = time.monotonic() + 20
    while query(address, "select value from kept")["dataset"] != [[7]]:
        assert time.monotonic() < deadline, "the acknowledged row is gone"
        time.sleep(0.05)
    after = questdb.pid
    questdb.stop()
    assert gone(after, wait_s=0.5)


def test_a_killed_server_leaves_its_libraries_with_its_data(
    start_questdb: Callable[[], QuestDB], servers_folder: Path
) -> None:
    """It unpacks 9 MB of them at every start, and one that is killed never removes them."""
    questdb = start_questdb()
    before = unpacked(questdb.pid)
    assert before
    assert all(library.is_relative_to(servers_folder) for library in before)
    questdb.kill()
    questdb.start()
    after = unpacked(questdb.pid)
    assert set(after[0].parent.iterdir()) == set(after), "the killed one's are still there"
    assert not set(after) & set(before)


def test_an_address_in_words() -> None:
    read = QuestDBAddress.parse("http://me:a%40b@db:9001?pg_port=8813")
    assert read == QuestDBAddress("db", 9001, 8813, "me", "a@b")


def test_a_quiet_server_lets_the_processors_rest(start_questdb: Callable[[], QuestDB]) -> None:
    """By default its threads yield some ten thousand times a second behind every single write."""
    questdb = start_questdb()
    address = questdb.address
    told = {row[0]: row[2] for row in query(address, "show parameters")["dataset"]}
    for line in resting_workers().splitlines():
        name, value = line.split("=")
        assert told[name] == value, f"{name} is {told[name]}"
    query(address, "create table q (ts timestamp, value int) timestamp(ts) partition by day wal")
    before = switches(questdb.pid)
    for _ in range(10):
        query(address, "insert into q values ('2026-01-01T00:00:00', 7)")
        time.sleep(0.1)
    after = switches(questdb.pid)
    assert after - before < 20_000, "its threads yield instead of sleeping"


def test_docker_and_our_own_let_workers_rest_alike() -> None:
    composed = COMPOSE_FILE.read_text()
    for pool in WORKERS:
        for name, value in RESTING.items():
            variable = f"QDB_{pool}_WORKER_{name}".replace(".", "_").upper()
            assert f'{variable}: "{value}"' in composed


def switches(pid: int) -> int:
    """Return how often the threads of a process were taken off a processor, or gave it away."""
    count = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for line in (thread / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                count += int(line.split()[1])
    return count


def unpacked(pid: int) -> list[Path]:
    """Return the libraries of its own that a server has unpacked and loaded."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    mapped = {line.split(maxsplit=5)[-1] for line in lines if "/libquestdb" in line}
    return sorted(map(Path, mapped))
