"""The Redis that tests start asks for a password, keeps what it holds, and leaves nothing."""

import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import redis

from cluster.servers.process import Server
from cluster.servers.redis import Redis
from tests.servers import gone

pytestmark = pytest.mark.servers


def test_the_shared_server_answers(redis_server: Server) -> None:
    with redis.Redis.from_url(str(redis_server.address)) as client:
        assert client.ping()


def test_a_stranger_is_refused(start_redis: Callable[[], Redis]) -> None:
    parts = urlsplit(start_redis().address)
    for credentials in ("", ":wrong@"):
        stranger = f"redis://{credentials}{parts.hostname}:{parts.port}/0"
        with (
            redis.Redis.from_url(stranger) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.get("anything")


def test_a_killed_server_keeps_what_it_wrote(start_redis: Callable[[], Redis]) -> None:
    """It syncs once a second, but the death of the process alone loses nothing written."""
    server = start_redis()
    before = server.pid
    with redis.Redis.from_url(server.address) as client:
        client.set("kept", "kept")
    time.sleep(0.1)  # it appends to the file when it has answered

    server.kill()
    assert gone(before, wait_s=0.5)
    server.start()

    with redis.Redis.from_url(server.address) as client:
        assert client.get("kept") == b"kept"
    after = server.pid
    server.stop()
    assert gone(after, wait_s=0.5)
