"""The fault proxy before any server: bytes pass, and each fault does what it says, to the chosen.

Before a Kafka broker it is tried in tests/persistence/test_kafka_log.py.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from cluster.processes import own_name
from perf.chaos.site import owns_port
from perf.faultproxy import FaultProxy, Mode

LONG = os.urandom(5_000)


def echo(listener: socket.socket) -> None:
    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while chunk := connection.recv(65_536):
                connection.sendall(chunk)

    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=echo, args=(listener,), daemon=True).start()
        proxy = FaultProxy(frames=False)
        proxy.start(listener.getsockname()[1])
        yield proxy
        proxy.stop()
        listener.shutdown(socket.SHUT_RDWR)


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def answer(client: socket.socket, sent: bytes = b"hello", wait_s: float = 5.0) -> bytes:
    """Send something and return what comes back, ``b""`` when nothing does in time."""
    client.settimeout(wait_s)
    client.sendall(sent)
    heard = b""
    with suppress(TimeoutError):
        while len(heard) < len(sent):
            chunk = client.recv(65_536)
            if not chunk:
                return b"closed"
            heard += chunk
    return heard


def test_what_is_sliced_arrives_whole(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        assert answer(client) == b"hello"
        assert proxy.harmed == 0
        with proxy.during(Mode.SLICE):
            assert answer(client, LONG) == LONG
        assert proxy.harmed > 0


def test_what_is_delayed_or_held_arrives_later(proxy: FaultProxy) -> None:
    proxy.delay_s = 0.2
    with connect(proxy) as client:
        with proxy.during(Mode.DELAY):
            assert answer(client) == b"hello"
            assert proxy.harmed == 2, "both ways"
        with proxy.during(Mode.HALF_OPEN):
            assert answer(client, wait_s=0.3) == b""
        client.settimeout(5)
        assert client.recv(100) == b"hello"


def test_what_is_dropped_never_arrives_and_breaks_the_connection(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        with proxy.during(Mode.DROP):
            assert answer(client, wait_s=0.3) == b""
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    with connect(proxy) as client:
        assert answer(client) == b"hello"


def test_reset_connections_break_at_once(proxy: FaultProxy) -> None:
    with connect(proxy) as client:
        assert answer(client) == b"hello"
        proxy.set(Mode.RESET)
        client.settimeout(5)
        with pytest.raises(ConnectionResetError):
            client.recv(100)


def test_a_fault_may_be_meant_for_one_client_alone(proxy: FaultProxy) -> None:
    with connect(proxy) as meant, connect(proxy) as other:
        assert answer(meant) == answer(other) == b"hello"
        proxy.set(Mode.HALF_OPEN, lambda port: port == meant.getsockname()[1])
        assert answer(other) == b"hello"
        assert answer(meant, wait_s=0.3) == b""
        with connect(proxy) as later:
            assert answer(later) == b"hello"
        proxy.set(Mode.PASS)
        meant.settimeout(5)
        assert meant.recv(100) == b"hello"


def test_a_process_is_known_by_its_ports(proxy: FaultProxy) -> None:
    ours = owns_port(own_name())
    with connect(proxy) as client:
        assert ours(client.getsockname()[1])
    with socket.socket() as nobodys:
        nobodys.bind(("127.0.0.1", 0))
        port = nobodys.getsockname()[1]
    assert not ours(port)


def test_a_cut_of_our_process_stops_our_connections(proxy: FaultProxy) -> None:
    """As chaos cuts one owner from the broker: those that are open, and those that come."""
    with connect(proxy) as client:
        assert answer(client) == b"hello"
        proxy.set(Mode.HALF_OPEN, owns_port(own_name()))
        assert answer(client, wait_s=0.3) == b""
        with connect(proxy) as later:
            assert answer(later, wait_s=0.3) == b""
        proxy.set(Mode.PASS)
