"""A TCP proxy in front of a server that loses, holds, slows and breaks what it is told to.

It rewrites nothing. Before a Kafka broker it reads frames (a length, then for a request the kind
and a correlation id), so that it can lose exactly an append or exactly its acknowledgement; it
advertises the proxy's port for the listener behind it (see ``advertised_port`` of
``cluster.servers.kafka.Kafka``). Before any other server it passes bytes as they come. A fault may
be meant for some clients only, chosen by their port: that is how one process of many is cut off. It
lives in a thread of its own and serves those with and without an event loop.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import final

PRODUCE = 0
FRAME_BYTES_MAX = 64 * 1_048_576
CHUNK_BYTES = 65_536
SLICE_BYTES = 97
SLICE_S = 0.002
LATE_S = 0.5
"""How long a connection to the server outlives its client, so that late bytes arrive."""

Chosen = Callable[[int], bool]
"""Whether a fault is meant for the client on this local port."""


class Mode(Enum):
    """What happens to what passes; it holds for all chosen connections until it is changed."""

    PASS = "pass"
    DROP = "drop"  # bytes vanish both ways, connections look alive; afterwards they are reset
    DELAY = "delay"  # every frame waits ``delay_s``
    HALF_OPEN = "half_open"  # nothing moves and nothing is lost: it all arrives afterwards
    RESET = "reset"  # connections are reset, new ones at once
    SLICE = "slice"  # everything arrives in pieces of ``slice_bytes``, slowly
    SWALLOW_ACK = "swallow_ack"  # appends reach the broker, their acknowledgements are lost
    SWALLOW_REQUEST = "swallow_request"  # appends are lost, all else passes
    HOLD_REQUEST = "hold_request"  # appends wait for another mode, and arrive late even if the
    # client has gone meanwhile


@final
class FaultProxy:
    """The proxy. ``port`` is known at once; connections are taken from ``start`` on."""

    def __init__(self, *, frames: bool = True) -> None:
        self.delay_s = 0.5
        self.slice_bytes = SLICE_BYTES
        self.appends_seen = 0
        self.acks_swallowed = 0
        self.requests_swallowed = 0
        self.harmed = 0  # frames or chunks that met a fault
        self._frames = frames
        self._mode = Mode.PASS
        self._chosen: Chosen | None = None
        self._upstream_port = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="faultproxy", daemon=True)
        self._connections: set[_Connection] = set()
        self._serving: set[asyncio.Task[None]] = set()
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

    def set(self, mode: Mode, chosen: Chosen | None = None) -> None:
        """Let ``mode`` hold from now on, for everybody or for the ``chosen``; return when it does.

        ``chosen`` is asked once a connection, for those that are open now and those that come.
        """
        asyncio.run_coroutine_threadsafe(self._set(mode, chosen), self._loop).result(10)

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
        if not self._thread.is_alive():
            self._socket.close()
            return
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
        self._mode, self._chosen = Mode.RESET, None  # whoever is held or still connects is let go
        self._changed.set()
        if self._serving:
            await asyncio.wait(self._serving, timeout=5)

    async def _set(self, mode: Mode, chosen: Chosen | None) -> None:
        was, self._mode, self._chosen = self._mode, mode, chosen
        for connection in list(self._connections):
            was_meant = connection.meant
            connection.meant = self._is_meant(connection.port)
            if (was is Mode.DROP and was_meant) or (mode is Mode.RESET and connection.meant):
                connection.reset()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _is_meant(self, port: int) -> bool:
        return self._chosen is None or self._chosen(port)

    async def _connected(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._lead(client, to_client)
        finally:
            self._serving.discard(task)

    async def _lead(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        peer = to_client.get_extra_info("peername")
        port = int(peer[1]) if peer else 0
        try:
            if self._mode is Mode.RESET and self._is_meant(port):
                self.harmed += 1
                raise ConnectionResetError
            server, to_server = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        except OSError:
            _reset(to_client)
            return
        connection = _Connection(port, to_client, to_server)
        connection.meant = self._is_meant(port)
        self._connections.add(connection)
        responses = asyncio.ensure_future(self._responses(server, connection))
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

    def _does(self, mode: Mode, connection: "_Connection") -> bool:
        return self._mode is mode and connection.meant

    async def _requests(self, client: asyncio.StreamReader, connection: "_Connection") -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await self._read(client)
                kind, correlation = -1, 0
                if self._frames:
                    kind, _, correlation = struct.unpack_from(">hhi", frame, 4)
                is_append = kind == PRODUCE
                self.appends_seen += is_append
                if not await self._passes(connection, is_append):
                    continue
                if is_append and self._does(Mode.SWALLOW_REQUEST, connection):
                    self.requests_swallowed += 1
                    self.harmed += 1
                    continue
                if is_append and self._does(Mode.SWALLOW_ACK, connection):
                    connection.swallowed.add(correlation)
                await self._write(connection.to_server, frame, connection)

    async def _responses(self, server: asyncio.StreamReader, connection: "_Connection") -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await self._read(server)
                if not await self._passes(connection, is_append=False):
                    continue
                if self._frames:
                    (correlation,) = struct.unpack_from(">i", frame, 4)
                    if correlation in connection.swallowed:
                        connection.swallowed.discard(correlation)
                        self.acks_swallowed += 1
                        self.harmed += 1
                        continue
                if not connection.to_client.is_closing():
                    with suppress(OSError):  # the client has gone, what is held may still arrive
                        await self._write(connection.to_client, frame, connection)

    async def _passes(self, connection: "_Connection", is_append: bool) -> bool:
        """Hold or delay what passes as the mode says; return whether it goes on at all."""
        held = False
        while self._does(Mode.HALF_OPEN, connection) or (
            is_append and self._does(Mode.HOLD_REQUEST, connection)
        ):
            held = True
            await self._changed.wait()
        self.harmed += held
        if self._does(Mode.DELAY, connection):
            self.harmed += 1
            await asyncio.sleep(self.delay_s)
        if self._does(Mode.DROP, connection):
            self.harmed += 1
            return False
        return True

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        if self._frames:
            return await _read_frame(reader)
        chunk = await reader.read(CHUNK_BYTES)
        if not chunk:
            raise asyncio.IncompleteReadError(b"", None)
        return chunk

    async def _write(
        self, writer: asyncio.StreamWriter, frame: bytes, connection: "_Connection"
    ) -> None:
        place = 0
        while place < len(frame):
            end = len(frame)
            if self._does(Mode.SLICE, connection):
                self.harmed += place == 0
                end = min(place + self.slice_bytes, end)
            writer.write(frame[place:end])
            await writer.drain()
            place = end
            if place < len(frame):
                await asyncio.sleep(SLICE_S)


class _Connection:
    """A client and the server, and which acknowledgements between them are lost."""

    def __init__(
        self, port: int, to_client: asyncio.StreamWriter, to_server: asyncio.StreamWriter
    ) -> None:
        self.port = port
        self.meant = True  # whether a fault concerns this client
        self.to_client = to_client
        self.to_server = to_server
        self.swallowed: set[int] = set()

    def close(self) -> None:
        self.to_client.close()
        self.to_server.close()

    def reset(self) -> None:
        _reset(self.to_client)
        _reset(self.to_server)


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
