"""A lean HTTP client: kept connections, requests ready as bytes, answers counted and not parsed.

It has to cost less than what it asks. So it is a protocol on uvloop and no client library: it finds
the length of an answer's body once, counts bytes, and sends the next request.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, cast

import uvloop
from msgspec import Struct

from perf.measuring import pin

LAST_ANSWER_S = 10.0


class Asked(Struct, frozen=True):
    """What came of asking for a while."""

    answers: int
    seconds: float
    bytes: int


class Asker(asyncio.Protocol):
    """One connection: sends a request, waits for its whole answer, sends the next."""

    def __init__(self, requests: Sequence[bytes], first: int, step: int) -> None:
        self.answers = 0
        self.bytes = 0
        self.failure = ""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._next = first
        self._step = step
        self._left = 0  # bytes that the present answer still lacks; 0: its head is not here
        self._head = b""
        self._stopping = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        self._ask()

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        if self._left == 0:
            data = self._head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            self._head = b""
            if not data.startswith(b"HTTP/1.1 200"):
                self._fail(data[:200].decode(errors="replace"))
                return
            self._left = end + 4 + _length(data[:end])
        self._left -= len(data)
        if self._left == 0:
            self.answers += 1
            if self._stopping:
                self._transport.close()
            else:
                self._ask()
        elif self._left < 0:
            self._fail("an answer is longer than its head says")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._stopping and not self.failure:
            self.failure = f"the connection broke: {exc}"
        if not self.ended.done():
            self.ended.set_result(None)

    def stop(self) -> None:
        """Ask no more after the present answer."""
        self._stopping = True

    def _ask(self) -> None:
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += self._step

    def _fail(self, why: str) -> None:
        self.failure = why
        self._transport.abort()


def _length(head: bytes) -> int:
    found = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return int(found)


async def ask(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Asked:
    """Ask over kept connections for so long.

    Raises:
        RuntimeError: an answer was not 200, or a connection broke.
    """
    loop = asyncio.get_running_loop()
    askers = []
    began = time.perf_counter()
    for first in range(connections):
        _, asker = await loop.create_connection(
            partial(Asker, requests, first, connections),
            "127.0.0.1",
            port,
        )
        askers.append(asker)
    await asyncio.sleep(seconds)
    for asker in askers:
        asker.stop()
    async with asyncio.timeout(LAST_ANSWER_S):
        await asyncio.gather(*(asker.ended for asker in askers))
    took = time.perf_counter() - began
    failures = [asker.failure for asker in askers if asker.failure]
    if failures:
        raise RuntimeError(f"{len(failures)} connections failed: {failures[0]}")
    answers = sum(asker.answers for asker in askers)
    return Asked(answers, took, sum(asker.bytes for asker in askers))


class LoadProcess:
    """The client in a process of its own, on a core of its own."""

    def __init__(self, core: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, core), daemon=True)
        self._process.start()

    def ask(self, port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Asked:
        """Ask for a while and return what came of it."""
        self._pipe.send((port, requests, connections, seconds))
        asked: Any = self._pipe.recv()
        if isinstance(asked, str):
            raise RuntimeError(asked)
        assert isinstance(asked, Asked)
        return asked

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join(LAST_ANSWER_S)
        if self._process.is_alive():
            self._process.kill()


def _serve(pipe: Connection, core: int) -> None:
    pin(core)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        while (wish := pipe.recv()) is not None:
            try:
                pipe.send(runner.run(ask(*wish)))
            except (RuntimeError, OSError) as error:
                pipe.send(str(error))
