"""A price read: what it says, for whom, and how old it admits to be."""

import asyncio
from typing import Any

import pytest

from engine.errors import FailedDependency
from tests.gateway.hand import market, open_shops, quoted, removed

PATH = "/api/v1/products/A-1/recommendation"


async def test_a_recommendation_says_price_reasons_bounds_and_age() -> None:
    async with market() as place:
        await open_shops(place)
        status, body = await place.get(PATH)
        assert status == 200
        assert body["recommended_price"] == {"amount": "19.99", "currency": "EUR"}
        assert body["current_price"] == {"amount": "19.99", "currency": "EUR"}
        assert body["bounds"]["floor"] == {"amount": "5.00", "currency": "EUR"}
        assert body["confidence"] == 0.75
        assert body["state"] == "live"
        assert body["channel"] == "shop"  # the primary one
        assert body["stale"] is False
        assert body["as_of"] == "2027-01-15T08:00:00.000Z"
        assert body["quote_id"] == f"q7-{place.owner('acme').shard}-1-0"
        assert [each["channel"] for each in body["listings"]] == ["market", "shop"]


async def test_a_channel_selects_a_listing() -> None:
    async with market() as place:
        await open_shops(place)
        _, body = await place.get(PATH + "?channel=market")
        assert body["recommended_price"]["amount"] == "20.99"
        _, body = await place.get("/api/v1/products/A-3/recommendation")
        assert (body["channel"], body["state"]) == ("market", "unpriced")
        assert body["recommended_price"] is None
        status, body = await place.get(PATH + "?channel=elsewhere")
        assert (status, body["type"]) == (404, "urn:repricer:problem:not-found")


async def test_a_currency_keeps_its_own_places() -> None:
    async with market() as place:
        await open_shops(place)
        _, body = await place.get("/api/products/B-1/recommendation", who="bolt")
        assert body["current_price"] == {"amount": "1999", "currency": "JPY"}


async def test_a_new_decision_is_read_at_once() -> None:
    async with market() as place:
        await open_shops(place)
        await place.get(PATH)
        await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", 1850)])
        await place.caught_up()
        _, body = await place.get(PATH)
        assert body["current_price"]["amount"] == "18.50"
        _, body = await place.get(PATH + "?channel=market")
        short = {each["channel"]: each["current_price"]["amount"] for each in body["listings"]}
        assert short == {"market": "20.99", "shop": "18.50"}


async def test_an_answer_is_stale_when_nothing_was_heard_for_two_seconds() -> None:
    async with market() as place:
        await open_shops(place)
        place.clock.pass_ms(2000)
        assert (await place.get(PATH))[1]["stale"] is False
        place.clock.pass_ms(1)
        assert (await place.get(PATH))[1]["stale"] is True
        await place.owner("acme").decide()
        await place.caught_up()
        assert (await place.get(PATH))[1]["stale"] is False


@pytest.mark.parametrize("clock", ["wall", "monotonic"])
async def test_either_clock_alone_makes_it_stale(clock: str) -> None:
    """A wall clock set back must not hide age, nor a monotonic one that stood still."""
    async with market() as place:
        await open_shops(place)
        setattr(place.clock, clock, getattr(place.clock, clock) + 2001)
        assert (await place.get(PATH))[1]["stale"] is True


async def test_many_are_read_in_one_call() -> None:
    async with market() as place:
        await open_shops(place)
        path = "/api/v1/recommendations:batchGet"
        status, body = await place.post(path, {"ids": ["A-2", "nothing", "A-1", "B-1"]})
        assert status == 200
        assert [each["sku"] for each in body["recommendations"]] == ["A-2", "A-1"]
        assert body["recommendations"][0]["state"] == "pending"
        assert body["not_found"] == ["nothing", "B-1"]
        status, body = await place.post(path, {"ids": ["A-1"] * 1001})
        assert (status, body["errors"][0]["pointer"]) == (400, "/ids")
        status, body = await place.post(path, {"ids": []})
        assert status == 400


async def test_a_batch_that_lies_ready_is_what_single_reads_say_and_follows_changes() -> None:
    async with market() as place:
        await open_shops(place)
        batch = "/api/v1/recommendations:batchGet"
        for _ in range(2):  # built by the first, ready for the second
            for ids in (["A-2", "A-1", "A-2"], ["A-1"]):
                singles = [
                    (await place.get(f"/api/v1/products/{sku}/recommendation"))[1] for sku in ids
                ]
                _, body = await place.post(batch, {"ids": ids})
                assert body == {"recommendations": singles, "not_found": []}
        await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", 1777)])
        await place.caught_up()
        _, body = await place.post(batch, {"ids": ["A-2", "A-1"]})
        assert body["recommendations"][1]["current_price"]["amount"] == "17.77"
        gone = [removed("acme", channel, "A-1") for channel in ("shop", "market")]
        await place.owner("acme").decide(catalogue=gone)
        await place.caught_up()
        _, body = await place.post(batch, {"ids": ["A-2", "A-1"]})
        assert [each["sku"] for each in body["recommendations"]] == ["A-2"]
        assert body["not_found"] == ["A-1"]
        place.clock.pass_ms(2001)
        _, body = await place.post(batch, {"ids": ["A-2"]})
        assert body["recommendations"][0]["stale"] is True


async def test_a_strong_read_asks_the_owner() -> None:
    asked: list[tuple[int, int, int]] = []

    async def ask(shard: int, listing: int, deadline_ms: int) -> dict[str, Any]:
        asked.append((shard, listing, deadline_ms))
        row = quoted("acme", "shop", "A-1", 1777)[0]
        plain = {name: row[name].item() for name in row.dtype.names}
        return {**plain, "state": "live", "reasons": ["floor"], "quote": [9, 3]}

    async with market(ask=ask) as place:
        await open_shops(place)
        status, body = await place.get(PATH + "?consistency=strong&deadline_ms=300")
        assert (status, body["current_price"]["amount"]) == (200, "17.77")
        assert body["quote_id"].endswith("-9-3")
        assert body["stale"] is False
        assert asked[0][2] == 300


async def test_a_strong_read_that_takes_too_long_ends() -> None:
    async def ask(shard: int, listing: int, deadline_ms: int) -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    async with market(ask=ask) as place:
        await open_shops(place)
        status, body = await place.get(PATH + "?consistency=strong&deadline_ms=20")
        assert (status, body["type"]) == (504, "urn:repricer:problem:deadline")


async def test_a_strong_read_without_an_owner_is_unavailable() -> None:
    async def ask(shard: int, listing: int, deadline_ms: int) -> dict[str, Any]:
        raise FailedDependency("nobody owns it")

    async with market(ask=ask) as place:
        await open_shops(place)
        assert (await place.get(PATH + "?consistency=strong"))[0] == 503
    async with market() as place:
        await open_shops(place)
        assert (await place.get(PATH + "?consistency=strong"))[0] == 503
