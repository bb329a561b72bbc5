"""The stream: WebSocket ``prices.v1``, an exchange feed for prices.

A connection proves who it is (by header, or by its first message, since browsers cannot set one),
subscribes, gets a snapshot or what it missed, and then what changes. There is no queue: what a
client is told next is made when he can take it. A socket blocked for two seconds is cut with 1013.
"""

import asyncio
from contextlib import suppress
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from msgspec import Meta, Struct

from gateway.call import Call, Gateway, age_of, decode_body, retailer_of, shards_of
from gateway.feeds import Feed, Filter, Positions
from gateway.keys import READ, Credential
from gateway.problems import (
    INVALID_REQUEST,
    ORIGIN_REFUSED,
    UNAUTHENTICATED,
    UPGRADE_REQUIRED,
    FieldError,
    Problem,
    ProblemDocument,
    document,
    trace_id,
)
from gateway.route import allowed, authenticate

PROTOCOL = "prices.v1"
MESSAGE_BYTES_MAX = 64 * 1024
SKUS_MAX = 1000
BLOCKED_S = 2.0
HEARTBEAT_S = 2.0
AUTHENTICATE_S = 5.0
MESSAGES_PER_S = 50
WRITER_BYTES = 64 * 1024

Wanted = Annotated[str, Meta(min_length=1, max_length=200)]


class Authenticate(Struct, frozen=True, tag="authenticate", forbid_unknown_fields=True):
    """The first message of a client that could not set a header."""

    key: str


class Subscribe(Struct, frozen=True, kw_only=True, tag="subscribe", forbid_unknown_fields=True):
    """What to be told of: exactly one of ``skus``, ``category``, ``channel`` and ``all``."""

    skus: Annotated[tuple[Wanted, ...], Meta(min_length=1, max_length=SKUS_MAX)] | None = None
    category: Wanted | None = None
    channel: Wanted | None = None
    all: bool = False
    retailer: str | None = None
    resume: Annotated[str, Meta(max_length=8192)] | None = None


class ErrorMessage(Struct, frozen=True, tag="error"):
    """Something that the client sent was not right."""

    problem: ProblemDocument


_encode = msgspec.json.Encoder().encode


async def stream(gateway: Gateway, call: Call) -> web.StreamResponse:
    """Serve one stream until the client leaves or is cut."""
    request = call.request
    _refuse_strangers(gateway, request)
    credential = None
    if "Authorization" in request.headers:
        credential = authenticate(gateway, request, READ)
    socket = web.WebSocketResponse(
        protocols=(PROTOCOL,),
        heartbeat=20.0,
        timeout=BLOCKED_S,
        compress=False,
        max_msg_size=MESSAGE_BYTES_MAX,
        writer_limit=WRITER_BYTES,
    )
    await socket.prepare(request)
    client = Client(gateway, request, socket, credential)
    gateway.streams.sockets.add(socket)
    try:
        await client.run()
    finally:
        gateway.streams.sockets.discard(socket)
        await client.stop()
    return socket


def _refuse_strangers(gateway: Gateway, request: web.Request) -> None:
    """Refuse what is no WebSocket of ours, before anything is upgraded."""
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise Problem(
            UPGRADE_REQUIRED,
            f"connect with WebSocket, subprotocol {PROTOCOL}",
            headers={"Upgrade": "websocket"},
        )
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    if PROTOCOL not in [name.strip() for name in offered.split(",")]:
        raise Problem(INVALID_REQUEST, f"offer the subprotocol {PROTOCOL}")
    origin = request.headers.get("Origin")
    if origin is not None and origin not in gateway.origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or parts.netloc != request.host:
            raise Problem(ORIGIN_REFUSED, f"{origin} is not the origin of this gateway")


class Client:
    """One connection: a reader of what it sends, and one task that tells it what changed."""

    def __init__(
        self,
        gateway: Gateway,
        request: web.Request,
        socket: web.WebSocketResponse,
        credential: Credential | None,
    ) -> None:
        self._gateway = gateway
        self._request = request
        self._socket = socket
        self._credential = credential
        self._telling: asyncio.Task[None] | None = None
        self._second = 0
        self._messages = 0

    async def run(self) -> None:
        """Read what the client sends until it leaves."""
        deadline_s = AUTHENTICATE_S if self._credential is None else None
        while not self._socket.closed:
            try:
                message = await self._socket.receive(timeout=deadline_s)
            except TimeoutError:
                problem = Problem(UNAUTHENTICATED, "send authenticate as the first message")
                await self._refuse(problem, close=True)
                return
            if message.type is not WSMsgType.TEXT:
                if message.type is WSMsgType.BINARY:
                    await self._refuse(Problem(INVALID_REQUEST, "send JSON as text"), close=True)
                return
            if self._is_flooding():
                await self._cut("flood", WSCloseCode.POLICY_VIOLATION, "too many messages")
                return
            try:
                await self._take(message)
            except Problem as problem:
                await self._refuse(problem, close=self._credential is None)
            if self._credential is not None:
                deadline_s = None

    async def stop(self) -> None:
        """Stop telling."""
        if self._telling is not None:
            self._telling.cancel()
            with suppress(asyncio.CancelledError):
                await self._telling
            self._telling = None

    async def _take(self, message: WSMessage) -> None:
        """Act on one message."""
        raw = str(message.data).encode()
        if self._credential is None:
            given = decode_body(raw, Authenticate)
            self._credential = allowed(self._gateway, given.key, READ)
            await self._send(b'{"type":"authenticated"}')
            return
        wanted = decode_body(raw, Subscribe)
        wish = self._wish(wanted)
        await self.stop()
        self._telling = asyncio.create_task(self._tell(wish, wanted.resume))

    def _wish(self, wanted: Subscribe) -> Filter:
        """Return the checked subscription, within what the credential sees."""
        assert self._credential is not None
        kinds = [kind for kind in ("skus", "category", "channel") if getattr(wanted, kind)]
        if len(kinds) + wanted.all != 1:
            detail = "name exactly one of skus, category, channel and all"
            raise Problem(INVALID_REQUEST, detail, errors=[FieldError(detail, pointer="")])
        retailer = retailer_of(self._gateway, self._credential, wanted.retailer)
        if wanted.skus:
            return Filter(retailer, "skus", frozenset(wanted.skus))
        if wanted.category:
            return Filter(retailer, "category", frozenset((wanted.category,)))
        if wanted.channel:
            return Filter(retailer, "channel", frozenset((wanted.channel,)))
        return Filter(retailer)

    async def _tell(self, wish: Filter, resume: str | None) -> None:
        """Tell the client of one subscription until it is replaced or the connection ends."""
        streams = self._gateway.streams
        feed = streams.join(wish)
        try:
            after = streams.resume(wish, resume) if resume is not None else None
            if resume is not None and after is None:
                await self._send(b'{"type":"resync_required"}')
            if after is None:
                after = await self._snapshot(wish)
            else:
                streams.beat(feed)
                after = await self._next(feed, after)
            while True:
                if tuple(map(max, after, feed.through)) == after and not await feed.wait(
                    HEARTBEAT_S
                ):
                    streams.beat(feed)
                after = await self._next(feed, after)
        except ConnectionError:
            return  # the reader sees it, too
        except TimeoutError:
            await self._cut("slow", WSCloseCode.TRY_AGAIN_LATER, "too slow")
        finally:
            streams.leave(feed)

    async def _next(self, feed: Feed, after: Positions) -> Positions:
        """Send what follows ``after``, and return where the client stands then."""
        frame = self._gateway.streams.frame(feed, after)
        if frame is None:
            await self._send(b'{"type":"resync_required"}')
            return await self._snapshot(feed.wish)
        await self._send(frame.body)
        return frame.through

    async def _snapshot(self, wish: Filter) -> Positions:
        through: Positions = ()
        age = age_of(self._gateway, shards_of(self._gateway, wish.retailer))
        for frame in self._gateway.streams.snapshot(wish, age):
            await self._send(frame.body)
            await asyncio.sleep(0)  # a big one must not keep the others waiting
            through = frame.through
        return through

    async def _send(self, body: bytes) -> None:
        """Send one message.

        Raises:
            TimeoutError: the socket was blocked for ``BLOCKED_S``.
        """
        await asyncio.wait_for(self._socket.send_frame(body, WSMsgType.TEXT), BLOCKED_S)
        self._gateway.streams.frames_sent += 1

    async def _refuse(self, problem: Problem, *, close: bool) -> None:
        """Tell the client what was wrong; ``close``: and that this was all."""
        told = ErrorMessage(document(problem, trace_id(self._request)))
        try:
            await self._send(_encode(told))
        except (ConnectionError, TimeoutError):
            return
        if close:
            await self._cut(problem.kind.name, WSCloseCode.POLICY_VIOLATION, problem.kind.title)

    async def _cut(self, reason: str, code: WSCloseCode, text: str) -> None:
        """End the stream; a client that does not even take the goodbye is dropped."""
        self._gateway.streams.count_cut(reason)
        transport = self._request.transport
        with suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(self._socket.close(code=code, message=text.encode()), BLOCKED_S)
        if transport is not None:
            transport.abort()

    def _is_flooding(self) -> bool:
        second = self._gateway.clock.monotonic_ms() // 1000
        if second != self._second:
            self._second, self._messages = second, 0
        self._messages += 1
        return self._messages > MESSAGES_PER_S
