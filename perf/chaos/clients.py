"""The world outside: a producer, readers, subscribers; who gives commands is in ``commanding``.

Each does what a good client does: it sends again what is in doubt, asks again under the same key,
resumes its stream by its token. What it is told goes to the checker; what fails is counted and is
no violation, since a component may be down.
"""

import asyncio
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Final

import aiohttp
import msgspec

from actors.patience import Patience
from engine.deltas import AnyDelta, UnitsSold
from engine.errors import AppendInDoubt, FailedDependency
from engine.routing import partition_of
from perf.chaos.calendar import Calendar
from perf.chaos.checker import Answer, Checker
from perf.chaos.documents import unix_ms
from perf.chaos.truth import ShardTruth
from persistence.ports import DELTAS, Appender, Logs
from persistence.wire import JSON, encode_delta
from training.worlds.market import Market, World

TICK_S: Final = 0.1
ANSWER_S: Final = 5.0
READERS: Final = 3
READ_EVERY_S: Final = 0.15
STRONG_EVERY: Final = 10
LISTINGS: Final = 60
SENT_TOGETHER: Final = 1_000
TOGETHER: Final = 500
"""Listings that one request asks about."""

CURRENCY: Final = "EUR"


def retailers_of(shards: int) -> list[str]:
    """Return one retailer a shard, each routed to its own."""
    found: dict[int, str] = {}
    for number in itertools.count():
        name = f"shop-{number}"
        found.setdefault(partition_of(name, shards), name)
        if len(found) == shards:
            return [found[shard] for shard in range(shards)]
    raise AssertionError


def world(retailer: str) -> World:
    """Return a lively market of one retailer, about forty facts a second."""
    return World(
        retailer=retailer,
        start_ms=time.time_ns() // 1_000_000 - 1000,
        volume_median=20_000.0,
        rival_reactions_per_day=1_500.0,
        rival_looks_per_day=12_000.0,
        cost_changes_per_day=30.0,
        shock_sd=0.01,
        stock_days=0.02,
        refill_days=0.002,
    )


class Producer:
    """Tells one shard's market to the delta lane; what is in doubt is sent again."""

    def __init__(
        self,
        checker: Checker,
        logs: Logs,
        shard: int,
        market: Market,
        calendar: Calendar,
    ) -> None:
        self.also: Sequence[AnyDelta] = ()  # what else is to be said, next
        self.acknowledged = 0
        self.doubts = 0
        self.stopped = asyncio.Event()
        self._checker = checker
        self._logs = logs
        self._shard = shard
        self._market = market
        self._calendar = calendar
        self._key = market.world.retailer.encode()
        self._log: Any = None
        self._appender: Appender | None = None

    async def run(self) -> None:
        """Send what there is and what then happens, until stopped."""
        try:
            await self._send(self._market.opening())
            while not self.stopped.is_set():
                if self.also:
                    also, self.also = self.also, ()
                    await self._send(also)
                prices = _in_force(self._checker.truths[self._shard])
                deltas = self._market.advance(prices, self._calendar.now_ms())
                if deltas:
                    await self._send(in_order(deltas))
                await asyncio.sleep(TICK_S)
        finally:
            self._abandon()
            if self._log is not None:
                await self._log.close()

    async def _send(self, deltas: Sequence[AnyDelta]) -> None:
        """Send deltas, so many at a time that one doubt does not concern a whole catalogue."""
        for start in range(0, len(deltas), SENT_TOGETHER):
            await self._send_some(deltas[start : start + SENT_TOGETHER])

    async def _send_some(self, deltas: Sequence[AnyDelta]) -> None:
        values = [encode_delta(delta) for delta in deltas]
        patience = Patience()
        while True:
            try:
                appended = await self._appended(values)
                break
            except AppendInDoubt:
                self.doubts += 1
                self._abandon()
            except FailedDependency:
                self._abandon()
            await patience.wait()
        for value, each in zip(values, appended, strict=True):
            self._checker.sent(self._shard, each.offset, value)
        self.acknowledged += len(values)

    async def _appended(self, values: Sequence[bytes]) -> Sequence[Any]:
        if self._log is None:
            self._log = await self._logs.open(DELTAS, self._shard)
        if self._appender is None:
            self._appender = await self._log.appender()
        return await self._appender.append_many([(self._key, value, JSON) for value in values])

    def _abandon(self) -> None:
        if self._appender is not None:
            self._appender.abandon()
            self._appender = None


def in_order(deltas: Sequence[AnyDelta]) -> list[AnyDelta]:
    """Return the deltas with the sales among them in the order of their source.

    A source's sales count up to the highest number seen (docs/engine.md); who tells them in another
    order has them taken for duplicates.
    """
    sales = sorted(
        (each for each in deltas if isinstance(each, UnitsSold)),
        key=lambda sale: sale.source_seq or 0,
    )
    following = iter(sales)
    return [next(following) if isinstance(each, UnitsSold) else each for each in deltas]


def _in_force(truth: ShardTruth) -> dict[int, int]:
    newest = ((listing, shown[-1].in_force_minor) for listing, shown in truth.quotes.items())
    return {listing: price for listing, price in newest if price > 0}


class Gateway:
    """The gateway as clients find it: one address, one key."""

    def __init__(
        self,
        address: str,
        key: str,
        checker: Checker,
        clock_behind: Callable[[int, int], bool] = lambda *_: False,
    ) -> None:
        self.latencies_ms: deque[tuple[int, float]] = deque(maxlen=200_000)  # (when, how long)
        self.counts: Counter[str] = Counter()
        self.stale: deque[tuple[int, int]] = deque(maxlen=200_000)  # (when, age of the answer)
        self._address = address
        self._headers = {"Authorization": f"Bearer {key}"}
        self._checker = checker
        self._clock_behind = clock_behind  # whether the gateway's was, between two moments
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Open the connections."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        self._session = aiohttp.ClientSession(timeout=timeout, headers=self._headers)

    async def close(self) -> None:
        """Close them."""
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """Return the open session."""
        assert self._session is not None
        return self._session

    def url(self, path: str) -> str:
        """Return the address of a route."""
        return f"{self._address}/api/v1{path}"

    async def read(self, retailer: str, channel: str, sku: str, *, strong: bool) -> None:
        """Read one price, and tell the checker what was answered."""
        parameters = {"retailer": retailer, "channel": channel}
        if strong:
            parameters |= {"consistency": "strong", "deadline_ms": "2000"}
        asked_ms, began = now_ms(), time.monotonic()
        try:
            url = self.url(f"/products/{sku}/recommendation")
            async with self.session.get(url, params=parameters) as response:
                body, status = await response.read(), response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            self.counts["unanswered"] += 1
            return
        if status != 200:
            self.counts[f"strong {status}" if strong else str(status)] += 1
            return
        document = msgspec.json.decode(body)
        self.counts["strong" if strong else "answered"] += 1
        self.counts["stale"] += document["stale"]
        behind = self._clock_behind(asked_ms, now_ms())
        self._checker.answered(Answer(retailer, asked_ms, document, strong, behind))
        if not strong:
            self.latencies_ms.append((asked_ms, (time.monotonic() - began) * 1000))
            as_of_ms = unix_ms(document["as_of"])
            if as_of_ms > 0:  # a gateway that begins has heard of nothing, and says so
                self.stale.append((asked_ms, asked_ms - as_of_ms))

    async def all_prices(
        self, retailer: str, skus: Sequence[str], channel: str
    ) -> list[dict[str, Any]]:
        """Return the recommendations of many SKUs on one channel."""
        url = self.url("/recommendations:batchGet")
        found: list[dict[str, Any]] = []
        for start in range(0, len(skus), TOGETHER):
            body = {"ids": list(skus[start : start + TOGETHER]), "channel": channel}
            async with self.session.post(url, params={"retailer": retailer}, json=body) as response:
                response.raise_for_status()
                found += (await response.json())["recommendations"]
        return found

    async def publishing(self, retailer: str) -> dict[str, Any]:
        """Return what a retailer has halted."""
        found: dict[str, Any] = await self._get("/publishing", retailer=retailer)
        return found

    async def listing_policies(self, retailer: str) -> list[dict[str, Any]]:
        """Return what is set for single listings of a retailer."""
        parameters = {"retailer": retailer, "scope": "listing", "limit": str(TOGETHER)}
        policies: list[dict[str, Any]] = []
        while True:
            found = await self._get("/policies", **parameters)
            policies += found["policies"]
            if found["next_cursor"] is None:
                return policies
            parameters["cursor"] = found["next_cursor"]

    async def _get(self, path: str, **parameters: str) -> Any:
        async with self.session.get(self.url(path), params=parameters) as response:
            response.raise_for_status()
            return await response.json()


class Reader:
    """Reads prices, one after the other, now and then a strong one."""

    def __init__(self, gateway: Gateway, checker: Checker, draw: Random) -> None:
        self._gateway = gateway
        self._checker = checker
        self._draw = draw

    async def run(self) -> None:
        """Read until cancelled."""
        for number in itertools.count(1):
            await asyncio.sleep(READ_EVERY_S * self._draw.uniform(0.5, 1.5))
            listing = a_listing(self._checker, self._draw)
            if listing is not None:
                is_strong = number % STRONG_EVERY == 0
                await self._gateway.read(*listing, strong=is_strong)


def a_listing(checker: Checker, draw: Random) -> tuple[str, str, str] | None:
    """Return any listing that the log named and a gateway surely knows by now."""
    truth = draw.choice(checker.truths)
    if not truth.names:
        return None
    return draw.choice(list(truth.names))


class Subscriber:
    """Follows one retailer's stream, resumes by token, and hangs up now and then."""

    def __init__(
        self,
        name: str,
        gateway: Gateway,
        checker: Checker,
        retailer: str,
        *,
        hangs_up_s: float = 0.0,
    ) -> None:
        self.connections = 0
        self.resumed = 0
        self.resyncs = 0
        self._name = name
        self._gateway = gateway
        self._checker = checker
        self._retailer = retailer
        self._hangs_up_s = hangs_up_s
        self._token: str | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        patience = Patience()
        while True:
            try:
                await self._follow()
                patience.renew()
            except (aiohttp.ClientError, TimeoutError, OSError):
                await patience.wait()
            await asyncio.sleep(0.05)

    async def _follow(self) -> None:
        session = self._gateway.session
        url = self._gateway.url("/stream")
        async with session.ws_connect(url, protocols=("prices.v1",), heartbeat=5) as socket:
            wanted: dict[str, Any] = {"type": "subscribe", "all": True, "retailer": self._retailer}
            resumes = self._token is not None
            if resumes:
                wanted["resume"] = self._token
            self._checker.streams.connected(self._name, self._retailer, resumes=resumes)
            self.connections += 1
            self.resumed += resumes
            await socket.send_str(msgspec.json.encode(wanted).decode())
            hangs_up = time.monotonic() + self._hangs_up_s if self._hangs_up_s else None
            while hangs_up is None or time.monotonic() < hangs_up:
                message = await socket.receive(timeout=10)
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                told = msgspec.json.decode(message.data)
                if told["type"] == "error":
                    await asyncio.sleep(0.5)  # there is no such retailer yet: come again
                    return
                self._take(told)

    def _take(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "resync_required":
            self.resyncs += 1
            self._token = None
        self._checker.streams.told(self._name, message)
        if "token" in message:
            self._token = message["token"]


def now_ms() -> int:
    return time.time_ns() // 1_000_000
