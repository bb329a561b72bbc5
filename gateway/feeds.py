"""What subscribers of the stream are told: one feed a distinct wish, one frame for all in step.

A client is a position: the ``seq`` up to which it was told of each shard. What it is told next is
the newest price of every listing that changed since, so a slow client is conflated by itself and
holds no queue, and one that falls out of the window starts again from a snapshot. Each message
names the range that it covers (``after``, ``through``), and a client checks that ``after`` is where
it stands.
"""

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from engine.routing import name64
from gateway.documents import Listing, RemovedPrice
from gateway.replica import Changed, Replica
from gateway.shard_view import Age

TICK_S = 0.02
"""How long changes are gathered before subscribers are told."""

SNAPSHOT_PRICES = 500
"""Prices in one part of a snapshot."""

Positions = tuple[int, ...]
"""The ``seq`` reached in each shard."""

FilterKind = Literal["all", "skus", "category", "channel"]
_encode = msgspec.json.Encoder().encode


class Filter(Struct, frozen=True):
    """Which of a retailer's listings somebody wants to hear of."""

    retailer: str
    kind: FilterKind = "all"
    values: frozenset[str] = frozenset()

    def wants(self, listing: Listing) -> bool:
        """Whether a listing is among them."""
        if listing.retailer != self.retailer:
            return False
        return self.kind == "all" or self.named(listing) in self.values

    def named(self, listing: Listing) -> str | None:
        """Return what a wish of this kind calls a listing by."""
        match self.kind:
            case "all":
                return None
            case "skus":
                return listing.sku
            case "channel":
                return listing.channel
            case "category":
                return listing.category

    def name(self) -> int:
        """Return a number that tells this wish from another."""
        return name64("\x1f".join((self.retailer, self.kind, *sorted(self.values))))


class ResumeToken(Struct, frozen=True, array_like=True):
    """Where a subscriber stopped; opaque to him."""

    generation: int
    wish: int  # Filter.name: a token resumes the subscription that it was given to
    shards: tuple[tuple[int, int, int], ...]  # seq, offset, and a number of the log, by shard


class Frame(Struct, frozen=True):
    """One message as bytes, and where a client stands that has applied it."""

    body: bytes
    through: Positions


class Feed:
    """All subscribers with the same wish."""

    def __init__(self, wish: Filter, through: Positions) -> None:
        self.wish = wish
        self.through = through  # up to which there is something new, or nothing of interest
        self.subscribers = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._frames: dict[Positions, Frame] = {}

    def advance(self, through: Positions) -> None:
        """Move on: there is something of interest, or a heartbeat is due."""
        if through != self.through:
            self.through = through
            self._frames.clear()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def wait(self, seconds: float) -> bool:
        """Wait until there is something new; return whether it came in time."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await asyncio.wait_for(waiting, seconds)
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiting)
        return True

    def kept(self, after: Positions) -> Frame | None:
        """Return the frame that was built for another client at the same place."""
        return self._frames.get(after)

    def keep(self, after: Positions, frame: Frame) -> None:
        """Remember a frame for the other clients at the same place."""
        self._frames[after] = frame


class Streams:
    """The feeds of one gateway, told by the replica that something changed."""

    def __init__(self, replica: Replica, *, tick_s: float = TICK_S) -> None:
        self.sockets: set[web.WebSocketResponse] = set()  # open ones
        self.frames_sent = 0
        self.frames_built = 0
        self.cut: dict[str, int] = {}  # reason -> streams that we ended
        self._replica = replica
        self._tick_s = tick_s
        self._feeds: dict[Filter, Feed] = {}
        self._told = replica.position()
        self._timer: asyncio.TimerHandle | None = None
        replica.listeners.append(self._note)

    def join(self, wish: Filter) -> Feed:
        """Return the feed of a wish, which is made if nobody had it yet."""
        feed = self._feeds.get(wish)
        if feed is None:
            feed = self._feeds[wish] = Feed(wish, self._replica.position())
        feed.subscribers += 1
        return feed

    def leave(self, feed: Feed) -> None:
        """Take a subscriber away; the last one takes the feed with him."""
        feed.subscribers -= 1
        if feed.subscribers == 0:
            del self._feeds[feed.wish]

    def count_cut(self, reason: str) -> None:
        """Note that we ended a stream."""
        self.cut[reason] = self.cut.get(reason, 0) + 1

    def frame(self, feed: Feed, after: Positions) -> Frame | None:
        """Return what follows ``after``; ``None`` when that is no longer known.

        Where nothing of interest changed it is a heartbeat, which covers the range all the same.
        """
        kept = feed.kept(after)
        if kept is not None:
            return kept
        through = tuple(map(max, after, feed.through))
        rows = self._changed(feed.wish, after, through)
        if rows is None:
            return None
        prices = [self._shown(feed.wish, row, left) for row, left in rows.items()]
        told = [price for price in prices if price]
        frame = self._message("delta" if told else "heartbeat", feed.wish, after, through, told)
        feed.keep(after, frame)
        return frame

    def beat(self, feed: Feed) -> None:
        """Let a feed that heard of nothing stand where the replica was at the last tick."""
        feed.advance(tuple(map(max, feed.through, self._told)))

    def snapshot(self, wish: Filter, age: Age) -> Iterator[Frame]:
        """Yield the parts of a snapshot; prices may be newer than the ``through`` of the last.

        Each part says how old what it shows may be: ``age`` is that of the wish's shards now.
        That is no harm: what changed since ``through`` is told again, newest price wins. The last
        part names what the wish names and no listing has; that is subscribed to all the same.
        """
        through = self._replica.position()
        part: list[bytes] = []
        seen = set()
        for row in self._wanted(wish):
            seen.add(wish.named(self._replica.listing(row)))
            part.append(self._replica.body(row))
            if len(part) == SNAPSHOT_PRICES:
                yield Frame(_snapshot_head(age, last=False) + b",".join(part) + b"]}", through)
                part = []
        tail = self._tail(wish, through)
        unknown = sorted(wish.values - seen)
        told = b'"unknown":%b,' % _encode(unknown) if unknown else b""
        yield Frame(_snapshot_head(age, last=True) + b",".join(part) + b"]," + told + tail, through)

    def token(self, wish: Filter, through: Positions) -> str:
        """Return the opaque token of a place."""
        shards = tuple(
            (seq, view.position.offset, name64(view.position.log_id.hex()) & 0xFFFFFFFF)
            for seq, view in zip(through, self._replica.shards, strict=True)
        )
        raw = msgspec.msgpack.encode(ResumeToken(self._replica.generation, wish.name(), shards))
        return urlsafe_b64encode(raw).rstrip(b"=").decode()

    def resume(self, wish: Filter, token: str) -> Positions | None:
        """Return where a token says that its owner stands; ``None``: a snapshot must tell him."""
        try:
            raw = urlsafe_b64decode(token + "=" * (-len(token) % 4))
            read = msgspec.msgpack.decode(raw, type=ResumeToken)
        except (Base64Error, ValueError, msgspec.DecodeError):
            return None
        replica = self._replica
        if read.generation != replica.generation or read.wish != wish.name():
            return None
        if len(read.shards) != len(replica.shards):
            return None
        for shard, (seq, _, log) in enumerate(read.shards):
            view = replica.shards[shard]
            if log != name64(view.position.log_id.hex()) & 0xFFFFFFFF:
                return None
            if not replica.window.covers(shard, seq):
                return None
        return tuple(seq for seq, _, _ in read.shards)

    @property
    def clients(self) -> int:
        """Return how many streams are open."""
        return len(self.sockets)

    def close(self) -> None:
        """Stop telling."""
        if self._timer is not None:
            self._timer.cancel()
        self._replica.listeners.remove(self._note)

    def _note(self, changed: Changed) -> None:
        """Have the feeds looked at soon."""
        if self._timer is None and self._feeds:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        """Wake the subscribers of every feed that something of interest happened to."""
        self._timer = None
        through = self._replica.position()
        touched: dict[str, list[int]] = {}
        for shard, (after, seq) in enumerate(zip(self._told, through, strict=True)):
            if not self._replica.window.covers(shard, after):
                after = seq  # the replica began in the middle of a log; clients resynchronise
            for entry in self._replica.window.entries(shard, after, seq):
                for retailer, rows in entry.rows.items():
                    touched.setdefault(retailer, []).extend(rows)
        self._told = through
        skus = {
            retailer: {self._replica.listing(row).sku for row in rows}
            for retailer, rows in touched.items()
        }
        for feed in self._feeds.values():
            mine = touched.get(feed.wish.retailer)
            if mine is None:
                continue
            if feed.wish.kind == "skus":
                if feed.wish.values.isdisjoint(skus[feed.wish.retailer]):
                    continue
            elif feed.wish.kind == "channel" and not any(
                self._replica.listing(row).channel in feed.wish.values for row in mine
            ):
                continue
            feed.advance(through)

    def _changed(
        self, wish: Filter, after: Positions, through: Positions
    ) -> dict[int, set[str | None]] | None:
        """Return the rows that changed in a range, with the categories that each had before."""
        window = self._replica.window
        rows: dict[int, set[str | None]] = {}
        for shard, (low, high) in enumerate(zip(after, through, strict=True)):
            if not window.covers(shard, low):
                return None
            for entry in window.entries(shard, low, high):
                for row in entry.rows.get(wish.retailer, ()):
                    left = rows.setdefault(row, set())
                    if row in entry.left:
                        left.add(entry.left[row])
        return rows

    def _shown(self, wish: Filter, row: int, left: set[str | None]) -> bytes:
        """Return what a subscriber is told of a row; nothing when it does not concern him."""
        listing = self._replica.listing(row)
        if self._replica.is_live(row) and wish.wants(listing):
            return self._replica.body(row)
        had_it = wish.wants(listing) if wish.kind != "category" else bool(left & wish.values)
        return _encode(RemovedPrice(listing.sku, listing.channel)) if had_it else b""

    def _wanted(self, wish: Filter) -> Iterator[int]:
        retailer = self._replica.retailers.get(wish.retailer)
        if retailer is None:
            return
        if wish.kind == "skus":
            products = [retailer.products.get(sku) for sku in sorted(wish.values)]
        else:
            products = list(retailer.products.values())
        for product in products:
            for row in list(product.rows) if product is not None else ():
                if self._replica.is_live(row) and wish.wants(self._replica.listing(row)):
                    yield row

    def _message(
        self,
        kind: str,
        wish: Filter,
        after: Positions,
        through: Positions,
        prices: Sequence[bytes],
    ) -> Frame:
        self.frames_built += 1
        head = f'{{"type":"{kind}","after":{_ranges(after)},'.encode()
        if prices:
            head += b'"prices":[' + b",".join(prices) + b"],"
        return Frame(head + self._tail(wish, through), through)

    def _tail(self, wish: Filter, through: Positions) -> bytes:
        token = self.token(wish, through)
        return f'"through":{_ranges(through)},"token":"{token}"}}'.encode()


def _snapshot_head(age: Age, *, last: bool) -> bytes:
    told = _encode(age)[1:-1]
    return b'{"type":"snapshot","last":%s,%s,"prices":[' % (b"true" if last else b"false", told)


def _ranges(positions: Positions) -> str:
    numbers = ",".join(f'"{shard}":{seq}' for shard, seq in enumerate(positions))
    return "{" + numbers + "}"
