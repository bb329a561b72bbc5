"""A market decided by hand: logs in memory, owners that write what a test tells them, a gateway.

Nothing of the gateway is replaced: it follows real records in the log port's memory backend, and
its commands are read from the commands lane and answered there by outcomes.
"""

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
from aiohttp import ClientWebSocketResponse, WSMsgType
from aiohttp.test_utils import TestClient, TestServer

from engine.decided import QUOTE_DTYPE, CatalogueChange, Cause, Decided, Outcome, State, no_quotes
from engine.deltas import AnyDelta
from engine.microbatch import Position, Refusal
from engine.routing import key64, partition_of
from gateway.app import make_app
from gateway.commands import CommandSender
from gateway.following import follow_all
from gateway.history import HistoryReader
from gateway.keys import SCOPES, KeyFile, Keys, StoredKey, new_key
from gateway.replica import Replica
from gateway.routed import (
    AskFacts,
    AskFeatures,
    AskFork,
    AskLearning,
    RoutedFacts,
    RoutedFeatures,
    RoutedLearning,
    RoutedReads,
)
from gateway.window import Window
from persistence.decision_records import DecisionRecord, EpochStarted, Stamp, encode
from persistence.memory_log import MemoryLogs
from persistence.ports import COMMANDS, DECISIONS, Record

GENERATION = 7
SHARDS = 2
LOG_ID, OWNER = b"L" * 16, b"O" * 16
COMMAND = Position(0, 0, 0)
PEPPER = b"\x05" * 32


class HandClock:
    """A clock that moves when a test says so."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000_000
        self.monotonic = 1_000_000

    def wall_ms(self) -> int:
        return self.wall

    def monotonic_ms(self) -> int:
        return self.monotonic

    def pass_ms(self, ms: int) -> None:
        """Let time pass, on both clocks alike."""
        self.wall += ms
        self.monotonic += ms


class Owner:
    """The owner of one shard, who decides what he is told."""

    def __init__(self, logs: MemoryLogs, shard: int, clock: HandClock) -> None:
        self.shard = shard
        self.seq = 0
        self._logs = logs
        self._clock = clock
        self._answered = -1
        self._stamp = Stamp(LOG_ID, GENERATION, shard, 1, OWNER)

    async def start(self, *, clock: str = "wall") -> None:
        """Begin to reign."""
        await self._append(
            EpochStarted(self._stamp, self._clock.wall, "tests", clock, -1, 0, -1, SHARDS)
        )

    async def decide(
        self,
        *,
        catalogue: Sequence[CatalogueChange] = (),
        quotes: Sequence[np.ndarray] = (),
        outcomes: Sequence[Outcome] = (),
        exceptions: Sequence[Refusal] = (),
    ) -> int:
        """Record a decision and return its seq. Without arguments it is a heartbeat."""
        self.seq += 1
        decided = Decided(
            seq=self.seq,
            last_command=self._answered,
            last_delta=-1,
            decided_ms=self._clock.wall,
            model="hand-1",
            digest=self.seq,
            quotes=np.concatenate(quotes) if quotes else no_quotes(),
            catalogue=tuple(catalogue),
            exceptions=tuple(exceptions),
            outcomes=tuple(outcomes),
        )
        await self._append(DecisionRecord(self._stamp, decided))
        return self.seq

    async def commands(self) -> list[tuple[Record, AnyDelta]]:
        """Return the commands that came since the last look."""
        log = await self._logs.open(COMMANDS, self.shard)
        records = await log.read(self._answered, limit=100, wait_ms=0)
        if records:
            self._answered = records[-1].offset
        return [(record, msgspec.json.decode(record.value, type=AnyDelta)) for record in records]

    async def answer_all(
        self, decide: Callable[[AnyDelta], tuple[Outcome, Sequence[np.ndarray]]]
    ) -> None:
        """Answer commands as ``decide`` says until cancelled."""
        while True:
            for _, delta in await self.commands():
                outcome, quotes = decide(delta)
                await self.decide(quotes=quotes, outcomes=[outcome])
            await asyncio.sleep(0.002)

    async def _append(self, record: EpochStarted | DecisionRecord) -> None:
        log = await self._logs.open(DECISIONS, self.shard)
        appender = await log.appender()
        await appender.append(encode(record))


class Market:
    """The gateway under test and everything around it."""

    def __init__(
        self,
        client: TestClient[Any, Any],
        logs: MemoryLogs,
        owners: Sequence[Owner],
        replica: Replica,
        clock: HandClock,
        keys: Mapping[str, str],
    ) -> None:
        self.client = client
        self.logs = logs
        self.owners = owners
        self.replica = replica
        self.clock = clock
        self.keys = keys

    def owner(self, retailer: str) -> Owner:
        """Return the owner of the retailer's shard."""
        return self.owners[partition_of(retailer, SHARDS)]

    def headers(self, who: str) -> dict[str, str]:
        """Return the headers of somebody's request."""
        return {"Authorization": f"Bearer {self.keys[who]}"} if who else {}

    async def get(self, path: str, who: str = "acme", **more: Any) -> tuple[int, Any]:
        """Get a path as somebody; return the status and the JSON."""
        headers = self.headers(who) | more.pop("headers", {})
        async with self.client.get(path, headers=headers, **more) as response:
            return response.status, await response.json(content_type=None)

    async def post(self, path: str, body: Any = None, who: str = "acme", **more: Any) -> Any:
        """Post JSON as somebody; return the status and the JSON."""
        headers = self.headers(who) | more.pop("headers", {})
        async with self.client.post(path, json=body, headers=headers, **more) as response:
            return response.status, await response.json(content_type=None)

    async def caught_up(self) -> None:
        """Wait until the replica holds everything decided."""
        for owner in self.owners:
            while self.replica.shards[owner.shard].position.seq < owner.seq:
                await asyncio.sleep(0.001)

    @asynccontextmanager
    async def stream(
        self, who: str = "acme", **subscription: Any
    ) -> AsyncIterator[ClientWebSocketResponse]:
        """Open a stream as somebody, and subscribe if there is a subscription."""
        async with self.client.ws_connect(
            "/api/v1/stream", protocols=("prices.v1",), headers=self.headers(who)
        ) as socket:
            if subscription:
                await socket.send_json({"type": "subscribe", **subscription})
            yield socket


@asynccontextmanager
async def market(
    *,
    window: Window | None = None,
    ask: Callable[[int, int, int], Any] | None = None,
    ask_features: AskFeatures | None = None,
    ask_learning: AskLearning | None = None,
    ask_facts: AskFacts | None = None,
    forks: AskFork | None = None,
    history: HistoryReader | None = None,
    spreads: Mapping[str, int] | None = None,
    logs: MemoryLogs | None = None,
    origins: Iterable[str] = (),
) -> AsyncIterator[Market]:
    """Run a gateway over logs in memory."""
    clock = HandClock()
    logs = logs or MemoryLogs(clock.wall_ms)
    await logs.create({COMMANDS: SHARDS, DECISIONS: SHARDS}, retention_ms=-1)
    owners = [Owner(logs, shard, clock) for shard in range(SHARDS)]
    for owner in owners:
        await owner.start()
    replica = Replica(generation=GENERATION, shards=SHARDS, window=window)
    commands = CommandSender(logs, partitions=SHARDS, spreads=spreads or {})
    plain, keys = make_keys()
    routed = RoutedReads(ask) if ask is not None else None
    app = make_app(
        replica,
        commands,
        keys,
        clock,
        routed=routed,
        routed_features=RoutedFeatures(ask_features) if ask_features is not None else None,
        routed_learning=RoutedLearning(ask_learning) if ask_learning is not None else None,
        routed_facts=RoutedFacts(ask_facts) if ask_facts is not None else None,
        forks=forks,
        history_reader=history,
        origins=origins,
        tick_s=0.0,
    )
    following = asyncio.create_task(follow_all(replica, logs, clock))
    server = TestServer(app)
    client = TestClient(server)
    await client.start_server()
    try:
        yield Market(client, logs, owners, replica, clock, plain)
    finally:
        following.cancel()
        await asyncio.wait([following])
        await client.close()


def make_keys() -> tuple[dict[str, str], Keys]:
    """Return the keys of acme, of bolt, of a reader of acme's and of one who sees everybody."""
    plain = {name: new_key() for name in ("acme", "bolt", "reader", "everybody", "nobody")}
    stored = [
        stored_key("acme", plain["acme"], ("acme",)),
        stored_key("bolt", plain["bolt"], ("bolt",)),
        stored_key("reader", plain["reader"], ("acme",), ("prices:read",)),
        stored_key("everybody", plain["everybody"], ("*",)),
        stored_key("nobody", plain["nobody"], ("acme",), ()),
    ]
    return plain, Keys(KeyFile(pepper=PEPPER.hex(), keys=tuple(stored)))


def stored_key(
    name: str, key: str, retailers: tuple[str, ...], scopes: tuple[str, ...] = SCOPES
) -> StoredKey:
    """Return a key as a key file holds it."""
    digest = hmac.digest(PEPPER, key.encode(), "sha256").hex()
    return StoredKey(id=name, hmac_sha256=digest, retailers=retailers, scopes=scopes)


def retailer_added(retailer: str, currency: str = "EUR", **fields: Any) -> CatalogueChange:
    """Return an accepted retailer."""
    facts = {"currency": currency, "primary_channel": "shop", "mode": "live", **fields}
    return CatalogueChange(COMMAND, "retailer", retailer, facts)


def listed(retailer: str, channel: str, sku: str, **fields: Any) -> CatalogueChange:
    """Return an accepted listing."""
    facts: dict[str, Any] = {"channel": channel, "sku": sku, "currency": "EUR", **fields}
    key = key64(retailer, channel, sku)
    return CatalogueChange(COMMAND, "listing", retailer, facts, key)


def removed(retailer: str, channel: str, sku: str) -> CatalogueChange:
    """Return an accepted removal."""
    key = key64(retailer, channel, sku)
    return CatalogueChange(
        COMMAND, "listing_removed", retailer, {"channel": channel, "sku": sku}, key
    )


def quoted(retailer: str, channel: str, sku: str, price_minor: int, **fields: Any) -> np.ndarray:
    """Return one quote: live at a price unless ``fields`` say otherwise."""
    row = np.zeros(1, QUOTE_DTYPE)
    plain = {
        "listing": key64(retailer, channel, sku),
        "state": State.LIVE,
        "in_force_minor": price_minor,
        "proposed_minor": price_minor,
        "target_minor": price_minor + 50,
        "floor_minor": 500,
        "ceiling_minor": 5000,
        "cost_minor": 700,
        "binding": 255,
        "elasticity": -2.5,
        "elasticity_sd": 0.5,
        "rival_minor": price_minor + 10,
        "rivals": 2,
        "stock": 12,
        "confidence": 0.75,
        "cause_kind": Cause.DELTA,
        "cause_lane": 1,
        "cause_offset": 41,
        **fields,
    }
    for name, value in plain.items():
        row[0][name] = value
    return row


def outcome(delta: AnyDelta, status: str, **fields: Any) -> Outcome:
    """Return the outcome of a command."""
    assert delta.command_id is not None
    return Outcome(
        command_id=delta.command_id,
        position=COMMAND,
        retailer=delta.retailer,
        actor=delta.actor or "",
        status=status,
        kind=type(delta).__name__,
        **fields,
    )


async def open_shops(place: Market) -> None:
    """Give acme three products on two channels, and bolt one of his own."""
    acme, bolt = place.owner("acme"), place.owner("bolt")
    await acme.decide(
        catalogue=[
            retailer_added("acme"),
            listed(
                "acme", "shop", "A-1", title="Juice", category="drinks", brand="Rossi", tags=["kvi"]
            ),
            listed("acme", "market", "A-1", title="Juice", category="drinks"),
            listed("acme", "shop", "A-2", title="Bread", category="food", rrp_minor=3000),
            listed("acme", "market", "A-3", title="Only there", category="food"),
        ],
        quotes=[
            quoted("acme", "shop", "A-1", 1999),
            quoted("acme", "market", "A-1", 2099),
            quoted("acme", "shop", "A-2", 1500, state=State.PENDING, proposed_minor=1600),
        ],
    )
    await bolt.decide(
        catalogue=[retailer_added("bolt", "JPY"), listed("bolt", "shop", "B-1", currency="JPY")],
        quotes=[quoted("bolt", "shop", "B-1", 1999)],
    )
    await place.caught_up()


class Applied:
    """A client of the stream that applies what it is told and checks every range."""

    def __init__(self) -> None:
        self.prices: dict[tuple[str, str], dict[str, Any]] = {}
        self.through: dict[str, int] = {}
        self.token: str | None = None
        self.kinds: list[str] = []
        self._parts: dict[tuple[str, str], dict[str, Any]] = {}

    def apply(self, message: dict[str, Any]) -> None:
        """Apply one message; it must follow what was applied before."""
        self.kinds.append(message["type"])
        match message["type"]:
            case "resync_required":
                self.prices, self._parts = {}, {}
            case "snapshot":
                self._parts |= {_listing(price): price for price in message["prices"]}
                if message["last"]:
                    self.prices, self._parts = self._parts, {}
                    self.through, self.token = message["through"], message["token"]
            case "delta" | "heartbeat":
                assert message["after"] == self.through, "a gap"
                for price in message.get("prices", ()):
                    if price.get("removed"):
                        self.prices.pop(_listing(price), None)
                    else:
                        self.prices[_listing(price)] = price
                self.through, self.token = message["through"], message["token"]

    async def read_through(self, socket: ClientWebSocketResponse, place: Market) -> None:
        """Apply messages until the client stands where the replica stands."""
        want = {str(shard): seq for shard, seq in enumerate(place.replica.position())}
        async with asyncio.timeout(10):
            while self.through != want:
                message = await socket.receive()
                assert message.type is WSMsgType.TEXT, message
                self.apply(message.json())


def _listing(price: Mapping[str, Any]) -> tuple[str, str]:
    return price["sku"], price["channel"]
