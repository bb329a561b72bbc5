"""Nothing that was read here goes out without saying how old it may be."""

import asyncio
from typing import Any

import pytest

from engine.routing import partition_of
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
