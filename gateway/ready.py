"""An answer that is written as it lies: its head is ready, too, and both go out in one write.

A price read does so little that the framework's way of making a response (a multidict of headers,
its serialisation, a chain of coroutines) is a third of its cost. What is special stays with the
framework: ``HEAD``, HTTP/1.0, and a connection that closes after the answer.
"""

from email.utils import formatdate
from typing import TypeAlias, final

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

JSON = "application/json"


JOINED_MAX = 32 * 1024
"""Bytes of a body up to which one write is cheaper than not copying it behind its head."""


@final
class ReadyAnswer:
    """A whole answer of status 200 as bytes, on a connection that is kept.

    It has what the server asks of a response and nothing more; it is no ``web.Response``, because
    all that one can do besides is what is to be saved here.
    """

    __slots__ = ("_body", "_head", "_writer")

    status = 200
    keep_alive = True

    def __init__(self, head: bytes, body: bytes) -> None:
        self._head = head
        self._body = body
        self._writer: AbstractStreamWriter | None = None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Remember where to write: nothing is sent before all of it is."""
        self._writer = request.writer
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Write it, and wait while the client does not read."""
        assert not data
        assert self._writer is not None
        if len(self._body) <= JOINED_MAX:
            await self._writer.write_eof(self._head + self._body)
        else:
            await self._writer.write(self._head)
            await self._writer.write_eof(self._body)


Answer: TypeAlias = web.StreamResponse | ReadyAnswer
"""What a route returns."""


@final
class Heads:
    """Makes the heads of ready answers, which differ by length and by the second."""

    __slots__ = ("_second", "_start")

    def __init__(self) -> None:
        self._second = -1
        self._start = b""

    def head(self, length: int, now_ms: int) -> bytes:
        """Return the head of an answer whose body has ``length`` bytes."""
        second = now_ms // 1000
        if second != self._second:
            self._second = second
            self._start = (
                f"HTTP/1.1 200 OK\r\nContent-Type: {JSON}\r\nServer: repricer\r\n"
                f"Date: {formatdate(second, usegmt=True)}\r\nContent-Length: "
            ).encode()
        return b"%b%d\r\n\r\n" % (self._start, length)

    def answer(self, request: web.Request, body: bytes, now_ms: int) -> Answer:
        """Return the answer to ``request`` that has this body."""
        if request.method == "HEAD" or request.version != HttpVersion11 or not request.keep_alive:
            return web.Response(body=body, content_type=JSON)
        return ReadyAnswer(self.head(len(body), now_ms), body)
