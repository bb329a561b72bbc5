"""A client of the stream that applies what it is told always equals the server."""

import asyncio
import json
import random
from typing import Any

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import stream as stream_module
from gateway.app import GATEWAY
from gateway.documents import Listing
from gateway.feeds import Filter
from gateway.window import Window
from tests.gateway.hand import (
    Applied,
    Market,
    listed,
    market,
    open_shops,
    quoted,
    removed,
    retailer_added,
)


def held(place: Market, wants: Any = lambda price: True) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what the replica holds of acme, as a client should."""
    replica = place.replica
    prices = [
        json.loads(replica.body(row))
        for row, listing in enumerate(replica.listings)
        if listing is not None and listing.retailer == "acme" and replica.is_live(row)
        if wants(listing)
    ]
    return {(price["sku"], price["channel"]): price for price in prices}


async def test_a_snapshot_is_followed_by_what_changes() -> None:
    async with market() as place:
        await open_shops(place)
        async with place.stream(all=True) as socket:
            client = Applied()
            await client.read_through(socket, place)
            assert client.prices == held(place)
            assert client.kinds == ["snapshot"]
            await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", 1850)])
            await place.caught_up()
            await client.read_through(socket, place)
            assert client.prices["A-1", "shop"]["current_price"]["amount"] == "18.50"
            assert client.kinds == ["snapshot", "delta"]


@pytest.mark.parametrize(
    ("subscription", "expected"),
    [
        ({"all": True}, {("A-1", "shop"), ("A-1", "market"), ("A-2", "shop"), ("A-3", "market")}),
        ({"skus": ["A-1", "nothing"]}, {("A-1", "shop"), ("A-1", "market")}),
        ({"category": "food"}, {("A-2", "shop"), ("A-3", "market")}),
        ({"channel": "market"}, {("A-1", "market"), ("A-3", "market")}),
    ],
)
async def test_a_subscription_shows_only_what_it_names(
    subscription: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    async with market() as place:
        await open_shops(place)
        async with place.stream(**subscription) as socket:
            client = Applied()
            await client.read_through(socket, place)
            assert set(client.prices) == expected


@pytest.mark.parametrize(
    ("subscription", "unknown"),
    [
        ({"all": True}, None),
        ({"skus": ["A-1", "A-2"]}, None),
        ({"skus": ["A-1", "nothing", "B-1"]}, ["B-1", "nothing"]),
        ({"category": "food"}, None),
        ({"category": "fod"}, ["fod"]),
        ({"channel": "market"}, None),
        ({"channel": "bazaar"}, ["bazaar"]),
    ],
)
async def test_a_snapshot_names_what_nobody_has(
    subscription: dict[str, Any], unknown: list[str] | None
) -> None:
    """It is subscribed to all the same: a listing that comes later is told."""
    async with market() as place:
        await open_shops(place)
        async with place.stream(**subscription) as socket:
            message = await socket.receive_json()
            assert message["last"] is True
            assert message.get("unknown") == unknown
            if unknown is None:
                return
            client = Applied()
            client.apply(message)
            named = {"sku": "nothing", "channel": "bazaar", "category": "fod"}
            await place.owner("acme").decide(
                catalogue=[listed("acme", named.pop("channel"), named.pop("sku"), **named)]
            )
            await place.caught_up()
            await client.read_through(socket, place)
            assert ("nothing", "bazaar") in client.prices


async def test_a_listing_that_leaves_or_joins_a_category_is_told() -> None:
    async with market() as place:
        await open_shops(place)
        async with place.stream(category="food") as socket:
            client = Applied()
            await client.read_through(socket, place)
            await place.owner("acme").decide(
                catalogue=[
                    listed("acme", "shop", "A-2", category="drinks"),
                    listed("acme", "shop", "A-1", category="food"),
                    removed("acme", "market", "A-3"),
                ]
            )
            await place.caught_up()
            await client.read_through(socket, place)
            assert set(client.prices) == {("A-1", "shop")}


async def test_another_retailers_prices_are_never_told() -> None:
    async with market() as place:
        await open_shops(place)
        async with place.stream(who="bolt", all=True) as socket:
            client = Applied()
            await client.read_through(socket, place)
            assert set(client.prices) == {("B-1", "shop")}
        async with place.stream(who="bolt", skus=["A-1"]) as socket:
            client = Applied()
            await client.read_through(socket, place)
            assert client.prices == {}
        async with place.stream(who="bolt", all=True, retailer="acme") as socket:
            answer = await socket.receive_json()
            assert answer["problem"]["type"] == "urn:repricer:problem:not-found"


STEP = st.one_of(
    st.tuples(st.just("price"), st.sampled_from(["A-1", "A-2", "N-1"]), st.integers(600, 5000)),
    st.tuples(st.just("list"), st.sampled_from(["A-2", "N-1"]), st.sampled_from(["food", "toys"])),
    st.tuples(st.just("remove"), st.sampled_from(["A-2", "N-1"]), st.none()),
    st.tuples(st.just("beat"), st.none(), st.none()),
    st.tuples(st.just("reconnect"), st.none(), st.none()),
    st.tuples(st.just("look"), st.none(), st.none()),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=st.lists(STEP, max_size=25),
    subscription=st.sampled_from(
        [{"all": True}, {"skus": ["A-2", "N-1"]}, {"category": "food"}, {"channel": "shop"}]
    ),
    rows=st.sampled_from([4, 10_000]),
)
def test_a_client_that_applies_what_it_is_told_equals_the_replica(
    steps: list[tuple[str, Any, Any]], subscription: dict[str, Any], rows: int
) -> None:
    """Any history, any wish, reconnects anywhere, also with a window too small to resume from."""
    asyncio.run(_equals_the_replica(steps, subscription, rows))


async def _equals_the_replica(
    steps: list[tuple[str, Any, Any]], subscription: dict[str, Any], rows: int
) -> None:
    def wants(listing: Any) -> bool:
        match subscription:
            case {"skus": skus}:
                return listing.sku in skus
            case {"category": category}:
                return bool(listing.category == category)
            case {"channel": channel}:
                return bool(listing.channel == channel)
        return True

    async with market(window=Window(rows=rows)) as place:
        await open_shops(place)
        owner, client = place.owner("acme"), Applied()
        known = {"A-1", "A-2"}
        connected = place.stream(**subscription)
        socket = await connected.__aenter__()
        await client.read_through(socket, place)
        for what, sku, value in steps:
            match what:
                case "price" if sku in known:
                    await owner.decide(quotes=[quoted("acme", "shop", sku, value)])
                case "list":
                    known.add(sku)
                    await owner.decide(catalogue=[listed("acme", "shop", sku, category=value)])
                case "remove" if sku in known:
                    known.discard(sku)
                    await owner.decide(catalogue=[removed("acme", "shop", sku)])
                case "beat":
                    await owner.decide()
                case "look":
                    await asyncio.sleep(0.005)
                case "reconnect":
                    await connected.__aexit__(None, None, None)
                    await place.caught_up()
                    resume = {"resume": client.token} if client.token else {}
                    connected = place.stream(**subscription, **resume)
                    socket = await connected.__aenter__()
        await place.caught_up()
        stream_frames = place.replica.position()
        await _read_to(client, socket, stream_frames)
        await connected.__aexit__(None, None, None)
        assert client.prices == held(place, wants)


async def _read_to(client: Applied, socket: Any, position: tuple[int, ...]) -> None:
    want = {str(shard): seq for shard, seq in enumerate(position)}
    async with asyncio.timeout(20):
        while client.through != want:
            message = await socket.receive()
            assert message.type is WSMsgType.TEXT, message
            client.apply(message.json())


async def test_a_resumed_client_is_told_only_what_it_missed() -> None:
    async with market() as place:
        await open_shops(place)
        client = Applied()
        async with place.stream(all=True) as socket:
            await client.read_through(socket, place)
        await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", 1850)])
        await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", 1860)])
        await place.caught_up()
        async with place.stream(all=True, resume=client.token) as socket:
            message = await socket.receive_json()
            client.apply(message)
            assert message["type"] == "delta"
            assert [price["sku"] for price in message["prices"]] == ["A-1"]
            assert client.prices == held(place)


@pytest.mark.parametrize("token", ["", "nonsense", "AAAA", "k" * 4000])
async def test_a_token_that_is_none_gets_a_snapshot(token: str) -> None:
    async with market() as place:
        await open_shops(place)
        async with place.stream(all=True, resume=token) as socket:
            assert (await socket.receive_json())["type"] == "resync_required"
            assert (await socket.receive_json())["type"] == "snapshot"


async def test_a_token_of_another_wish_gets_a_snapshot() -> None:
    """What did not change since the token may still be news to another subscription."""
    async with market() as place:
        await open_shops(place)
        client = Applied()
        async with place.stream(skus=["A-1"]) as socket:
            await client.read_through(socket, place)
        async with place.stream(all=True, resume=client.token) as socket:
            assert (await socket.receive_json())["type"] == "resync_required"


async def test_a_token_older_than_the_window_gets_a_snapshot() -> None:
    async with market(window=Window(rows=8)) as place:
        await open_shops(place)
        client = Applied()
        async with place.stream(all=True) as socket:
            await client.read_through(socket, place)
        for price in range(700, 720):
            await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", price)])
        await place.caught_up()
        async with place.stream(all=True, resume=client.token) as socket:
            assert (await socket.receive_json())["type"] == "resync_required"
            await client.read_through(socket, place)
            assert client.prices == held(place)


async def test_a_frame_is_built_once_for_all_in_step() -> None:
    async with market() as place:
        await open_shops(place)
        counts = place.client.server.app[GATEWAY].streams  # type: ignore[attr-defined]
        sockets = [place.stream(all=True) for _ in range(5)]
        opened = [await each.__aenter__() for each in sockets]
        clients = [Applied() for _ in opened]
        for client, socket in zip(clients, opened, strict=True):
            await client.read_through(socket, place)
        built = counts.frames_built
        await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", 1850)])
        await place.caught_up()
        for client, socket in zip(clients, opened, strict=True):
            await client.read_through(socket, place)
        assert counts.frames_built == built + 1
        for each in sockets:
            await each.__aexit__(None, None, None)


async def test_a_quiet_stream_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks without rows move a client on, so that its token never grows old."""
    monkeypatch.setattr(stream_module, "HEARTBEAT_S", 0.02)
    async with market() as place:
        await open_shops(place)
        async with place.stream(skus=["A-1"]) as socket:
            client = Applied()
            await client.read_through(socket, place)
            await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-2", 1700)])
            await place.owner("bolt").decide()
            await place.caught_up()
            await client.read_through(socket, place)
            assert set(client.kinds) == {"snapshot", "heartbeat"}


async def test_a_slow_client_is_conflated_and_then_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not read costs no memory: it has no queue, and its socket is bounded."""
    monkeypatch.setattr(stream_module, "BLOCKED_S", 0.3)
    async with market() as place:
        await place.owner("acme").decide(
            catalogue=[retailer_added("acme")]
            + [listed("acme", "shop", f"S-{number}") for number in range(3000)]
        )
        await place.caught_up()
        streams = place.client.server.app[GATEWAY].streams  # type: ignore[attr-defined]
        async with place.stream(all=True) as socket:
            client = Applied()
            await client.read_through(socket, place)
            rng, told = random.Random(1), 0
            async with asyncio.timeout(60):
                while not streams.cut:
                    prices = [
                        quoted("acme", "shop", f"S-{number}", rng.randint(600, 5000))
                        for number in range(3000)
                    ]
                    await place.owner("acme").decide(quotes=prices)
                    told += 1
                    await place.caught_up()
                    await asyncio.sleep(0.005)
            assert streams.cut == {"slow": 1}
            assert told >= 2
        assert not streams.sockets


async def test_a_client_that_is_behind_is_told_the_newest_price_once() -> None:
    async with market() as place:
        await open_shops(place)
        streams = place.client.server.app[GATEWAY].streams  # type: ignore[attr-defined]
        feed = streams.join(Filter("acme"))
        stands = place.replica.position()
        for price in range(1000, 1050):
            await place.owner("acme").decide(
                quotes=[quoted("acme", "shop", "A-1", price), quoted("acme", "shop", "A-2", price)]
            )
        await place.caught_up()
        streams.beat(feed)
        await asyncio.sleep(0.01)
        message = json.loads(streams.frame(feed, stands).body)
        assert [price["sku"] for price in message["prices"]] == ["A-1", "A-2"]
        assert {price["current_price"]["amount"] for price in message["prices"]} == {"10.49"}
        streams.leave(feed)


async def test_a_browser_proves_itself_by_its_first_message() -> None:
    async with market() as place:
        await open_shops(place)
        async with place.stream(who="") as socket:
            await socket.send_json({"type": "authenticate", "key": place.keys["acme"]})
            assert (await socket.receive_json())["type"] == "authenticated"
            await socket.send_json({"type": "subscribe", "all": True})
            assert (await socket.receive_json())["type"] == "snapshot"


@pytest.mark.parametrize(
    "first",
    [
        {"type": "authenticate", "key": "rp_live_wrong"},
        {"type": "subscribe", "all": True},
        {"type": "authenticate"},
        "nonsense",
    ],
)
async def test_nobody_is_told_anything_before_that(first: Any) -> None:
    async with market() as place:
        await open_shops(place)
        async with place.stream(who="") as socket:
            await socket.send_str(first if isinstance(first, str) else json.dumps(first))
            assert (await socket.receive_json())["type"] == "error"
            assert (await socket.receive()).type is WSMsgType.CLOSE
            assert socket.close_code == 1008


async def test_a_wrong_key_in_the_header_is_refused_before_the_upgrade() -> None:
    async with market() as place:
        place.keys["stranger"] = "rp_live_" + "x" * 49
        with pytest.raises(WSServerHandshakeError) as refused:
            async with place.stream(who="stranger"):
                pass
        assert refused.value.status == 401


async def test_a_page_of_another_origin_is_refused() -> None:
    async with market(origins=["https://friend.example"]) as place:
        await open_shops(place)
        url, headers = "/api/v1/stream", place.headers("acme")
        for origin, allowed in [
            ("https://evil.example", False),
            ("null", False),
            ("https://friend.example", True),
            (str(place.client.make_url("/")).rstrip("/"), True),
        ]:
            handshake = place.client.ws_connect(
                url, protocols=("prices.v1",), headers={**headers, "Origin": origin}
            )
            if allowed:
                async with handshake as socket:
                    assert socket.protocol == "prices.v1"
            else:
                with pytest.raises(WSServerHandshakeError) as refused:
                    await handshake
                assert refused.value.status == 403


@pytest.mark.parametrize(
    ("message", "pointer"),
    [
        ({"type": "subscribe"}, ""),
        ({"type": "subscribe", "all": True, "channel": "shop"}, ""),
        ({"type": "subscribe", "skus": []}, "/skus"),
        ({"type": "subscribe", "skus": ["x"] * 1001}, "/skus"),
        ({"type": "subscribe", "every": True}, "/every"),
    ],
)
async def test_a_wrong_subscription_is_named_and_harms_nothing(
    message: dict[str, Any], pointer: str
) -> None:
    async with market() as place:
        await open_shops(place)
        async with place.stream() as socket:
            await socket.send_json(message)
            answer = await socket.receive_json()
            assert answer["type"] == "error"
            assert answer["problem"]["errors"][0]["pointer"] == pointer
            await socket.send_json({"type": "subscribe", "all": True})
            assert (await socket.receive_json())["type"] == "snapshot"


async def test_a_flood_of_messages_ends_the_stream() -> None:
    async with market() as place:
        await open_shops(place)
        async with place.stream() as socket:
            for _ in range(200):
                await socket.send_str("{}")
            async with asyncio.timeout(10):
                while not socket.closed:
                    await socket.receive()
            assert socket.close_code in (1006, 1008)


async def test_a_message_over_the_limit_ends_the_stream() -> None:
    async with market() as place:
        await open_shops(place)
        async with place.stream() as socket:
            await socket.send_str("x" * 70_000)
            async with asyncio.timeout(10):
                while not socket.closed:
                    await socket.receive()
            assert socket.close_code == 1009


def test_a_wish_never_wants_another_retailers_listing() -> None:
    """The rows are kept apart by retailer already; this is the second lock."""
    theirs = Listing(key=1, retailer="bolt", channel="shop", sku="A-1", currency="EUR")
    values = frozenset(("A-1", "shop"))
    for kind in ("all", "skus", "channel", "category"):
        assert not Filter("acme", kind, values).wants(theirs)  # type: ignore[arg-type]
