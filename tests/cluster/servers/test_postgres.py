"""The Postgres that tests start asks for a password, keeps its commits, and leaves nothing."""

from collections.abc import Callable
from urllib.parse import urlsplit

import asyncpg
import pytest

from cluster.servers.launch import family
from cluster.servers.postgres import Postgres
from cluster.servers.process import Server
from tests.servers import gone

pytestmark = pytest.mark.servers


async def test_the_shared_server_answers(postgres_server: Server) -> None:
    connection = await asyncpg.connect(str(postgres_server.address))
    try:
        assert await connection.fetchval("select 1") == 1
    finally:
        await connection.close()


async def test_a_stranger_is_refused(start_postgres: Callable[[], Postgres]) -> None:
    parts = urlsplit(start_postgres().address)
    for credentials in ("repricer", "repricer:wrong", "postgres"):
        stranger = f"postgresql://{credentials}@{parts.hostname}:{parts.port}/repricer"
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InterfaceError)):
            await asyncpg.connect(stranger)


async def test_a_killed_server_keeps_what_it_committed(
    start_postgres: Callable[[], Postgres],
) -> None:
    """Kill it with a client connected, whose backend must die with it, and start it again."""
    postgres = start_postgres()
    connection = await asyncpg.connect(postgres.address)
    await connection.execute("create table kept (value text)")
    await connection.execute("insert into kept values ('kept')")
    before = family(postgres.pid)
    assert len(before) > 2

    postgres.kill()
    assert all(gone(pid, wait_s=0.5) for pid in before)
    connection.terminate()
    postgres.start()

    connection = await asyncpg.connect(postgres.address)
    assert await connection.fetchval("select value from kept") == "kept"
    after = family(postgres.pid)
    postgres.stop()  # with a client still connected, for whom a stop does not wait
    assert all(gone(pid, wait_s=0.5) for pid in after)
    connection.terminate()


async def test_a_paused_server_is_silent_and_then_answers(
    start_postgres: Callable[[], Postgres],
) -> None:
    postgres = start_postgres()
    connection = await asyncpg.connect(postgres.address)
    postgres.pause()
    with pytest.raises(TimeoutError):
        await asyncpg.connect(postgres.address, timeout=0.5)
    postgres.resume()
    assert await connection.fetchval("select 1") == 1
    await connection.close()
