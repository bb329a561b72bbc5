"""Nothing that was read here goes out without saying how old it may be."""

import asyncio
from typing import Any

import pytest

from engine.routing import partition_of, routing_key
from gateway import execution
from gateway.history import HistoryRow
from tests.gateway.hand import SHARDS, Market, market, open_shops, outcome, quoted
from tests.gateway.test_approvals import answered

HEARD_AT = "2027-01-15T08:00:00.000Z"
READS = (
    "/products",
    "/products?fields=id",
    "/products?category=none",
    "/products/A-1",
    "/products/A-1?fields=title",
    "/products/A-1/recommendation",
    "/products/A-1/explanation",
    "/products/A-1/history",
    "/publishing",
    "/experiments",
    "/analytics/revenue-impact",
)


async def ages(place: Market, path: str) -> tuple[bool, str]:
    """Return how old an answer says that it is."""
    status, body = await place.get("/api/v1" + path)
    assert status == 200, body
    return body["stale"], body["as_of"]


@pytest.mark.parametrize("path", READS)
async def test_a_read_says_how_old_it_is(path: str) -> None:
    async with market() as place:
        await open_shops(place)
        assert await ages(place, path) == (False, HEARD_AT)
        place.clock.pass_ms(2000)
        assert await ages(place, path) == (False, HEARD_AT)
        place.clock.pass_ms(1)
        assert await ages(place, path) == (True, HEARD_AT)
        await place.owner("acme").decide()
        await place.caught_up()
        assert await ages(place, path) == (False, "2027-01-15T08:00:02.001Z")


@pytest.mark.parametrize(
    "path",
    [
        "/products/A-9",
        "/products/A-9/recommendation",
        "/products/A-1/recommendation?channel=none",
        "/products/A-1/explanation?channel=none",
        "/products/A-9/features",
        "/quotes/none",
        "/operations/none",
    ],
)
async def test_what_is_not_found_says_how_old_that_is(path: str) -> None:
    """It may have come since: a gateway that hears nothing must not deny it as if it knew."""
    async with market() as place:
        await open_shops(place)
        status, body = await place.get("/api/v1" + path)
        assert (status, body["stale"], body["as_of"]) == (404, False, HEARD_AT)
        place.clock.pass_ms(2001)
        status, body = await place.get("/api/v1" + path)
        assert (status, body["stale"], body["as_of"]) == (404, True, HEARD_AT)


async def test_a_404_about_a_retailer_has_an_age_only_if_it_was_looked_for_here() -> None:
    async with market() as place:
        status, body = await place.get("/api/v1/products", who="everybody")
        assert (status, body["stale"]) == (404, False)
        await open_shops(place)
        status, body = await place.get("/api/v1/publishing?retailer=none", who="everybody")
        assert (status, body["stale"]) == (404, False)
        status, body = await place.get("/api/v1/products?retailer=bolt")
        assert (status, "stale" in body) == (404, False)


def shard_of(sku: str) -> int:
    """Return where a product of a retailer in eight parts is, or would be."""
    return partition_of(routing_key("acme", sku, 8), SHARDS)


@pytest.mark.parametrize("ids", [["A-1"], ["A-1", "A-2", "none"], ["none"]])
async def test_a_batch_is_as_old_as_where_what_it_lacks_would_be(ids: list[str]) -> None:
    async with market(spreads={"acme": 8}) as place:
        await open_shops(place)
        path = "/api/v1/recommendations:batchGet"
        _, body = await place.post(path, {"ids": ids})
        assert (body["stale"], body["as_of"]) == (False, HEARD_AT)
        place.clock.pass_ms(2001)
        known = place.replica.product("acme", "A-1")
        assert known is not None
        await place.owners[known.shard].decide()
        await place.caught_up()
        _, body = await place.post(path, {"ids": ids})
        homes = {shard_of(sku) for sku in ids}
        assert body["stale"] is (homes != {known.shard})


async def told(shard: int, listings: Any, deadline_ms: int, strong: bool) -> dict[str, Any]:
    """Answer as an owner who recorded nothing since the shops opened."""
    features = [{"price": 1.0} for _ in listings]
    return {"seq": 10, "decided_ms": 1_800_000_000_000, "features": features}


async def test_features_say_how_old_they_are() -> None:
    async with market(ask_features=told) as place:
        await open_shops(place)
        path, batch = "/products/A-1/features", "/api/v1/features:batchGet"
        assert await ages(place, path) == (False, HEARD_AT)
        _, body = await place.post(batch, {"ids": ["A-1"]})
        assert (body["stale"], body["as_of"]) == (False, HEARD_AT)
        place.clock.pass_ms(2001)
        assert await ages(place, path) == (True, HEARD_AT)
        assert await ages(place, path + "?consistency=strong") == (False, HEARD_AT)
        _, body = await place.post(batch, {"ids": ["A-1"]})
        assert (body["stale"], body["features"][0]["stale"]) == (True, True)
        _, body = await place.post(batch, {"ids": ["none"]})
        assert (body["stale"], body["as_of"], body["not_found"]) == (True, HEARD_AT, ["none"])


async def test_what_is_learnt_says_how_old_it_is() -> None:
    async def learnt(shard: int, retailer: str, deadline_ms: int) -> dict[str, Any]:
        return {"seq": 10, "decided_ms": 1_800_000_000_000, "learning": None}

    async with market(ask_learning=learnt) as place:
        await open_shops(place)
        for waited_ms, stale in ((0, False), (2000, False), (1, True)):
            place.clock.pass_ms(waited_ms)
            await place.owner("acme").decide()  # heard, but what he answers is of before
            await place.caught_up()
            _, body = await place.get("/api/v1/learning")
            assert [each["stale"] for each in body["shards"]] == [stale]


async def test_features_of_a_shard_at_event_time_are_as_old_as_what_was_heard() -> None:
    async with market(ask_features=told) as place:
        await open_shops(place)
        for view in place.replica.shards:
            view.clock = "event"
        place.clock.pass_ms(2001)
        assert (await ages(place, "/products/A-1/features"))[0] is True
        await place.owner("acme").decide()
        await place.caught_up()
        assert (await ages(place, "/products/A-1/features"))[0] is False


async def test_a_streams_snapshot_says_how_old_it_is() -> None:
    async with market() as place:
        await open_shops(place)
        for waited_ms, stale in ((0, False), (2001, True)):
            place.clock.pass_ms(waited_ms)
            async with place.stream(all=True) as socket:
                message = await socket.receive_json()
            assert (message["type"], message["stale"], message["as_of"]) == (
                "snapshot",
                stale,
                HEARD_AT,
            )


async def test_a_receipt_says_how_old_it_is() -> None:
    async with market() as place:
        await open_shops(place)
        place.clock.pass_ms(3_600_000)
        _, price = await place.get("/api/v1/products/A-1/recommendation")
        assert await ages(place, f"/quotes/{price['quote_id']}") == (True, HEARD_AT)


@pytest.mark.parametrize(
    "path", ["/products", "/publishing", "/experiments", "/analytics/revenue-impact"]
)
async def test_what_spans_shards_is_as_old_as_the_oldest(path: str) -> None:
    """Also where nothing was ever read of one: what it holds is what is missing."""
    async with market(spreads={"acme": 8}) as place:
        await open_shops(place)
        silent = place.replica.shards[1 - partition_of("acme", SHARDS)]
        assert await ages(place, path) == (False, HEARD_AT)
        place.clock.pass_ms(2001)
        await place.owner("acme").decide()
        await place.caught_up()
        assert await ages(place, path) == (True, HEARD_AT)
        silent.read_ms = silent.appended_ms = 0
        assert await ages(place, path) == (True, "1970-01-01T00:00:00.000Z")


async def test_a_product_in_a_page_has_its_own_shards_age() -> None:
    async with market(spreads={"acme": 8}) as place:
        await open_shops(place)
        place.clock.pass_ms(2001)
        await place.owner("acme").decide()
        await place.caught_up()
        _, page = await place.get("/api/v1/products")
        assert page["stale"] is True  # the other shard may hold more of his
        assert [each["stale"] for each in page["products"]] == [False] * 3
        _, page = await place.get("/api/v1/products?fields=id")
        assert page["products"][0] == {"id": "A-1"}


async def test_each_retailer_in_the_list_has_his_own_age() -> None:
    async with market() as place:
        await open_shops(place)
        place.clock.pass_ms(2001)
        await place.owner("bolt").decide()
        await place.caught_up()
        _, body = await place.get("/api/v1/retailers", who="everybody")
        assert [each["stale"] for each in body["retailers"]] == [True, False]


async def test_a_commands_recommendation_says_how_old_it_is() -> None:
    """Asked again under its key an hour later, its outcome is final, and the price is not."""
    async with market() as place:
        await open_shops(place)
        path = "/api/v1/products/A-2/approve-price"
        again: dict[str, Any] = {"headers": {"Idempotency-Key": "k"}}
        async with answered(place):
            _, body = await place.post(path, {}, **again)
        assert (body["recommendation"]["stale"], body["recommendation"]["as_of"]) == (
            False,
            HEARD_AT,
        )
        place.clock.pass_ms(3_600_000)
        _, body = await place.post(path, {}, **again)
        assert (body["status"], body["recommendation"]["stale"]) == ("done", True)
        assert "stale" not in body


async def test_an_operation_without_an_outcome_says_up_to_when(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execution, "ANSWER_WAIT_S", 0.01)
    async with market() as place:
        await open_shops(place)
        status, body = await place.post("/api/v1/publishing:halt", {})
        assert (status, body["stale"], body["as_of"]) == (202, False, HEARD_AT)
        place.clock.pass_ms(3_600_000)
        path = f"/operations/{body['operation_id']}"
        assert await ages(place, path) == (True, HEARD_AT)
        [(_, delta)] = await place.owner("acme").commands()
        await place.owner("acme").decide(outcomes=[outcome(delta, "done")])
        await place.caught_up()
        _, body = await place.get("/api/v1" + path)
        assert body["status"] == "done"
        assert "stale" not in body


async def test_a_history_is_no_older_than_the_window_whatever_the_store_holds() -> None:
    async def behind(listing: int, from_ms: int, to_ms: int) -> list[HistoryRow]:
        await asyncio.sleep(0)
        names = HistoryRow.__struct_fields__
        row = dict.fromkeys(names, 1) | {"decided_ms": 1_800_000_000_000, "in_force_minor": 1999}
        return [HistoryRow(**row)]

    async with market(history=behind) as place:
        await open_shops(place)
        place.clock.pass_ms(1000)
        await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", 1850)])
        await place.caught_up()
        _, body = await place.get("/api/v1/products/A-1/history")
        assert [point["current"] for point in body["points"]] == ["19.99", "18.50"]
        assert (body["source"], body["as_of"]) == ("series", "2027-01-15T08:00:01.000Z")
