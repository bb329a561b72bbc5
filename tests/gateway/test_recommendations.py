"""A price read: what it says, for whom, and how old it admits to be."""

import asyncio
from typing import Any

import pytest

from engine.decided import QUOTE_DTYPE
from engine.errors import FailedDependency
from tests.gateway.hand import HandClock, listed, market, open_shops, quoted, removed

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
                assert (body["recommendations"], body["not_found"]) == (singles, [])
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


def told(price_minor: int, **changed: Any) -> dict[str, Any]:
    """Return what the owner says of A-1 in the shop."""
    row = quoted("acme", "shop", "A-1", price_minor)[0]
    plain = {name: row[name].item() for name in QUOTE_DTYPE.names or ()}
    return {**plain, "state": "live", "reasons": [], "quote": [9, 3], **changed}


async def test_a_strong_read_asks_the_owner() -> None:
    asked: list[tuple[int, int, int]] = []

    async def ask(shard: int, listing: int, deadline_ms: int) -> dict[str, Any]:
        asked.append((shard, listing, deadline_ms))
        return told(1777, reasons=["floor"])

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


async def test_a_strong_read_shows_no_old_line_without_saying_so() -> None:
    """Its owner answers while this gateway has heard nothing for an hour."""

    async def ask(shard: int, listing: int, deadline_ms: int) -> dict[str, Any]:
        return told(1850, currency="SEK")

    async with market(ask=ask) as place:
        await open_shops(place)
        _, before = await place.get(PATH)
        place.clock.pass_ms(3_600_000)
        status, body = await place.get(PATH + "?consistency=strong")
        assert (status, body["stale"], body["as_of"]) == (200, False, "2027-01-15T09:00:00.000Z")
        there, asked = body["listings"]
        assert asked == {
            "channel": "shop",
            "state": "live",
            "recommended_price": {"amount": "18.50", "currency": "SEK"},
            "current_price": {"amount": "18.50", "currency": "SEK"},
            "as_of": body["as_of"],
            "stale": False,
        }
        assert body["current_price"] == asked["current_price"]
        assert there["current_price"]["amount"] == "20.99"
        assert (there["stale"], there["as_of"]) == (True, before["as_of"])
        # Where all lines have one age, the whole answer's is enough.
        assert "stale" not in before["listings"][0]


async def test_a_strong_read_is_as_of_the_question_however_long_it_takes() -> None:
    clocks: list[HandClock] = []

    async def ask(shard: int, listing: int, deadline_ms: int) -> dict[str, Any]:
        clocks[0].pass_ms(2001)
        return told(1850)

    async with market(ask=ask) as place:
        await open_shops(place)
        clocks.append(place.clock)
        _, body = await place.get(PATH + "?consistency=strong&deadline_ms=10000")
        assert (body["as_of"], body["stale"]) == ("2027-01-15T08:00:00.000Z", True)
        assert body["listings"][1]["stale"] is True


async def test_what_the_owner_took_off_is_not_there_in_a_strong_read() -> None:
    async def ask(shard: int, listing: int, deadline_ms: int) -> dict[str, Any]:
        return {}

    async with market(ask=ask) as place:
        await open_shops(place)
        status, body = await place.get(PATH + "?consistency=strong")
        assert (status, body["type"]) == (404, "urn:repricer:problem:not-found")


async def test_a_stale_gateway_denies_nothing_in_the_owners_name() -> None:
    """What was listed since it last heard is unknown to it, and an owner would know it."""

    async def ask(shard: int, listing: int, deadline_ms: int) -> dict[str, Any]:
        return told(1850, state="new")

    async with market(ask=ask) as place:
        await open_shops(place)
        unknown = "/api/v1/products/A-9/recommendation?consistency=strong"
        elsewhere = PATH + "?consistency=strong&channel=elsewhere"
        for path in (unknown, elsewhere):
            assert (await place.get(path))[0] == 404
        place.clock.pass_ms(2001)
        for path in (unknown, elsewhere):
            assert (await place.get(path))[0] == 503
        # Another's product and nobody's are refused alike.
        foreign = await place.get(PATH + "?consistency=strong", who="bolt")
        absent = await place.get(unknown, who="bolt")
        assert foreign[0] == absent[0] == 503
        await place.owner("acme").decide(catalogue=[listed("acme", "shop", "A-9")])
        await place.caught_up()
        status, body = await place.get(unknown)
        assert (status, body["state"]) == (200, "unpriced")
