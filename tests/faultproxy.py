"""A TCP proxy in front of a Kafka broker that loses, holds and breaks what a test tells it to.

It rewrites nothing: the broker advertises the proxy's port for the listener behind it (see
``advertised_port`` of ``cluster.servers.kafka.Kafka``). It reads frames (a length, then for a
request the kind and a correlation id), so that it can lose exactly an append or exactly its
acknowledgement. It lives in a thread of its own and serves tests with or without an event loop.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import final

PRODUCE = 0
FRAME_BYTES_MAX = 64 * 1_048_576
LATE_S = 0.5
"""How long a connection to the broker outlives its client, so that late bytes arrive."""


class Mode(Enum):
    """What happens to what passes; it holds for all connections until it is changed."""

    PASS = "pass"
    DROP = "drop"  # bytes vanish both ways, connections look alive; afterwards they are reset
    DELAY = "delay"  # every frame waits ``delay_s``
    HALF_OPEN = "half_open"  # nothing moves and nothing is lost: it all arrives afterwards
    RESET = "reset"  # connections are reset, new ones at once
    SWALLOW_ACK = "swallow_ack"  # appends reach the broker, their acknowledgements are lost
    SWALLOW_REQUEST = "swallow_request"  # appends are lost, all else passes
    HOLD_REQUEST = "hold_request"  # appends wait for another mode, and arrive late even if the
    # client has gone meanwhile


@final
class FaultProxy:
    """The proxy. ``port`` is known at once; connections are taken from ``start`` on."""

    def __init__(self) -> None:
        self.delay_s = 0.5
        self.appends_seen = 0
        self.acks_swallowed = 0
        self.requests_swallowed = 0
        self._mode = Mode.PASS
        self._upstream_port = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="faultproxy", daemon=True)
        self._connections: set[_Connection] = set()
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._started = threading.Event()

    @property
    def port(self) -> int:
        """Return the port that clients connect to."""
        return int(self._socket.getsockname()[1])

    @property
    def address(self) -> str:
        """Return the bootstrap address for clients behind the proxy."""
        return f"127.0.0.1:{self.port}"

    @property
    def mode(self) -> Mode:
        """Return what happens now."""
        return self._mode

    def start(self, upstream_port: int) -> None:
        """Begin to lead connections to ``upstream_port``."""
        self._upstream_port = upstream_port
        self._thread.start()
        assert self._started.wait(10)

    def set(self, mode: Mode) -> None:
        """Let ``mode`` hold from now on; return when it does."""
        asyncio.run_coroutine_threadsafe(self._set(mode), self._loop).result(10)

    @contextmanager
    def during(self, mode: Mode) -> Iterator[None]:
        """Let ``mode`` hold within a block."""
        self.set(mode)
        try:
            yield
        finally:
            self.set(Mode.PASS)

    def stop(self) -> None:
        """Close everything."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._socket)
        self._started.set()
        await self._stopping.wait()
        server.close()
        for connection in list(self._connections):
            connection.reset()

    async def _set(self, mode: Mode) -> None:
        was, self._mode = self._mode, mode
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if mode is Mode.RESET or was is Mode.DROP:
            for connection in list(self._connections):
                connection.reset()

    async def _connected(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        try:
            if self._mode is Mode.RESET:
                raise ConnectionResetError
            broker, to_broker = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            _reset(to_client)
            return
        connection = _Connection(to_client, to_broker)
        self._connections.add(connection)
        responses = asyncio.ensure_future(self._responses(broker, connection))
        requests = asyncio.ensure_future(self._requests(client, connection))
        responses.add_done_callback(lambda _: requests.cancel())
        try:
            await asyncio.wait([requests])
            if not responses.done():
                await asyncio.wait([responses], timeout=LATE_S)
        finally:
            responses.cancel()
            self._connections.discard(connection)
            connection.close()

    async def _requests(self, client: asyncio.StreamReader, connection: "_Connection") -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _read_frame(client)
                kind, _, correlation = struct.unpack_from(">hhi", frame, 4)
                is_append = kind == PRODUCE
                self.appends_seen += is_append
                while self._mode is Mode.HALF_OPEN or (
                    is_append and self._mode is Mode.HOLD_REQUEST
                ):
                    await self._changed.wait()
                if self._mode is Mode.DELAY:
                    await asyncio.sleep(self.delay_s)
                if self._mode is Mode.DROP:
                    continue
                if is_append and self._mode is Mode.SWALLOW_REQUEST:
                    self.requests_swallowed += 1
                    continue
                if is_append and self._mode is Mode.SWALLOW_ACK:
                    connection.swallowed.add(correlation)
                connection.to_broker.write(frame)
                await connection.to_broker.drain()

    async def _responses(self, broker: asyncio.StreamReader, connection: "_Connection") -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _read_frame(broker)
                (correlation,) = struct.unpack_from(">i", frame, 4)
                while self._mode is Mode.HALF_OPEN:
                    await self._changed.wait()
                if self._mode is Mode.DELAY:
                    await asyncio.sleep(self.delay_s)
                if self._mode is Mode.DROP:
                    continue
                if correlation in connection.swallowed:
                    connection.swallowed.discard(correlation)
                    self.acks_swallowed += 1
                    continue
                if not connection.to_client.is_closing():
                    connection.to_client.write(frame)
                    with suppress(OSError):  # the client has gone, what is held may still arrive
                        await connection.to_client.drain()


class _Connection:
    """A client and the broker, and which acknowledgements between them are lost."""

    def __init__(self, to_client: asyncio.StreamWriter, to_broker: asyncio.StreamWriter) -> None:
        self.to_client = to_client
        self.to_broker = to_broker
        self.swallowed: set[int] = set()

    def close(self) -> None:
        self.to_client.close()
        self.to_broker.close()

    def reset(self) -> None:
        _reset(self.to_client)
        _reset(self.to_broker)


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(4)
    (size,) = struct.unpack(">i", head)
    assert 0 <= size <= FRAME_BYTES_MAX, size
    return head + await reader.readexactly(size)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close without a goodbye: the other side sees a reset."""
    raw = writer.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
