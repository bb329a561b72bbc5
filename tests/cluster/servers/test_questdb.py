"""The QuestDB that tests start asks for a password, keeps what it acknowledged, leaves nothing."""

import dataclasses
import time
import urllib.error
from collections.abc import Callable

import asyncpg
import pytest

from cluster.servers.process import Server
from cluster.servers.questdb import QuestDB, QuestDBAddress, query
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


def test_an_address_in_words() -> None:
    read = QuestDBAddress.parse("http://me:a%40b@db:9001?pg_port=8813")
    assert read == QuestDBAddress("db", 9001, 8813, "me", "a@b")
