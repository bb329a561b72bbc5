"""Commands: they become deltas with an id, and are answered by their outcome in the log."""

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.decided import CatalogueChange, Outcome
from engine.deltas import (
    AnyDelta,
    ModeChanged,
    PriceApproved,
    PricePinned,
    PriceRejected,
    PriceUnpinned,
    PublishingHalted,
    PublishingResumed,
)
from engine.errors import AppendInDoubt, FailedDependency
from engine.routing import partition_of
from gateway import execution
from gateway.app import GATEWAY
from persistence.memory_log import MemoryAppender
from persistence.ports import COMMANDS
from tests.gateway.hand import COMMAND, SHARDS, Market, market, open_shops, outcome, quoted

APPROVE = "/api/v1/products/A-2/approve-price"
Decide = Callable[[AnyDelta], tuple[Outcome, Sequence[np.ndarray]]]


def approving(delta: AnyDelta) -> tuple[Outcome, Sequence[np.ndarray]]:
    """Do whatever was asked, as a shard would that has no objection."""
    price = getattr(delta, "price_minor", None) or 1600
    if isinstance(delta, PublishingHalted | PublishingResumed | ModeChanged):
        return outcome(delta, "done"), ()
    quotes = [quoted(delta.retailer, delta.channel, delta.sku, price)]  # type: ignore[union-attr]
    return outcome(delta, "done", price_minor=price), quotes


@asynccontextmanager
async def answered(place: Market, decide: Decide = approving) -> Any:
    """Have the owners answer commands."""
    tasks = [asyncio.create_task(owner.answer_all(decide)) for owner in place.owners]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def given(place: Market, retailer: str = "acme") -> list[AnyDelta]:
    """Return the commands in the lane of the retailer's shard."""
    log = await place.logs.open(COMMANDS, partition_of(retailer, SHARDS))
    records = await log.read(-1, limit=1000, wait_ms=0)
    return [msgspec.json.decode(record.value, type=AnyDelta) for record in records]


async def test_who_approves_reads_his_own_write() -> None:
    async with market() as place:
        await open_shops(place)
        async with answered(place):
            status, body = await place.post(APPROVE, {"quote_id": "q7-1-1-2"})
            assert (status, body["status"]) == (200, "done")
            assert body["price"] == {"amount": "16.00", "currency": "EUR"}
            assert body["recommendation"]["current_price"]["amount"] == "16.00"
            _, read = await place.get("/api/v1/products/A-2/recommendation")
            assert read["current_price"]["amount"] == "16.00"
        [delta] = await given(place)
        assert isinstance(delta, PriceApproved)
        assert (delta.retailer, delta.channel, delta.sku) == ("acme", "shop", "A-2")
        assert (delta.actor, delta.quote_id, delta.price_minor) == ("acme", "q7-1-1-2", None)


@pytest.mark.parametrize(
    ("verb", "body", "kind", "fields"),
    [
        ("approve-price", {"price": {"amount": "17.5", "currency": "EUR"}}, PriceApproved, 1750),
        ("approve-price", None, PriceApproved, None),
        ("reject-price", {}, PriceRejected, None),
        ("pin-price", {"price": {"amount": "12", "currency": "EUR"}}, PricePinned, 1200),
        ("unpin-price", {}, PriceUnpinned, None),
    ],
)
async def test_each_verb_becomes_its_delta(
    verb: str, body: Any, kind: type, fields: int | None
) -> None:
    async with market() as place:
        await open_shops(place)
        async with answered(place):
            path = f"/api/products/A-1/{verb}?channel=market"
            status, answer = await place.post(path, body)
            assert (status, answer["kind"]) == (200, kind.__name__)
        [delta] = await given(place)
        assert type(delta) is kind
        assert delta.channel == "market"
        assert getattr(delta, "price_minor", None) == fields


async def test_a_pin_ends_when_it_was_said_to() -> None:
    async with market() as place:
        await open_shops(place)
        body = {"price": {"amount": "12.00", "currency": "EUR"}, "until": "2030-01-01T00:00:00Z"}
        async with answered(place):
            assert (await place.post("/api/v1/products/A-1/pin-price", body))[0] == 200
        [delta] = await given(place)
        assert isinstance(delta, PricePinned)
        assert delta.until_ms == 1_893_456_000_000


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ("conflict", 409, "conflict"),
        ("refused", 422, "refused"),
        ("not_supported", 422, "not-supported"),
    ],
)
async def test_a_refusal_says_why(status: str, code: int, kind: str) -> None:
    def decide(delta: AnyDelta) -> tuple[Outcome, Sequence[np.ndarray]]:
        return outcome(delta, status, detail="/price_minor: below the floor of 5.00 EUR"), ()

    async with market() as place:
        await open_shops(place)
        async with answered(place, decide):
            answer, body = await place.post(APPROVE, {})
            assert (answer, body["type"]) == (code, f"urn:repricer:problem:{kind}")
            assert "below the floor" in body["detail"]
            path = f"/api/v1/operations/{body['operation_id']}"
            assert (await place.get(path))[1]["status"] == status


async def test_what_takes_long_is_an_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "ANSWER_WAIT_S", 0.05)
    async with market() as place:
        await open_shops(place)
        headers = {**place.headers("acme")}
        async with place.client.post(APPROVE, json={}, headers=headers) as response:
            assert response.status == 202
            body, location = await response.json(), response.headers["Location"]
        assert location == f"/api/v1/operations/{body['operation_id']}"
        assert (await place.get(location))[1]["status"] == "pending"
        assert (await place.get(location, who="bolt"))[0] == 404
        async with answered(place):
            async with asyncio.timeout(5):
                while (await place.get(location))[1]["status"] == "pending":
                    await asyncio.sleep(0.01)
        assert (await place.get(location))[1]["status"] == "done"


async def test_the_same_key_gets_the_same_answer_and_is_done_once() -> None:
    async with market() as place:
        await open_shops(place)
        key = {"Idempotency-Key": "k-1"}
        async with answered(place):
            first = await place.post(APPROVE, {}, headers=key)
            again = await place.post(APPROVE, {}, headers=key)
            assert first == again
            status, body = await place.post(APPROVE, {"quote_id": "q7-1-1-2"}, headers=key)
            assert (status, body["type"]) == (422, "urn:repricer:problem:idempotency-key-reused")
            assert body["errors"][0]["header"] == "Idempotency-Key"
            status, _ = await place.post(APPROVE, {}, headers={"Idempotency-Key": "k-2"})
            assert status == 200
        assert len(await given(place)) == 2


@pytest.mark.parametrize("key", ["", "k" * 256, "\xa0"])
async def test_a_key_that_is_none_is_told_in_which_header(key: str) -> None:
    async with market() as place:
        await open_shops(place)
        status, body = await place.post(APPROVE, {}, headers={"Idempotency-Key": key})
        assert status == 400
        assert body["errors"][0]["header"] == "Idempotency-Key"
        assert await given(place) == []


async def test_a_conflict_says_what_stands_in_the_way() -> None:
    async with market() as place:
        await open_shops(place)
        said = "/sku: is not pinned; nothing to do"
        async with answered(place, lambda delta: (outcome(delta, "conflict", detail=said), ())):
            status, body = await place.post("/api/v1/products/A-1/unpin-price", {})
        assert (status, body["title"]) == (409, "What is asked does not fit how things stand")
        assert body["detail"] == "id: is not pinned; nothing to do"


async def test_the_same_key_while_it_is_being_decided_waits_outside() -> None:
    async with market() as place:
        await open_shops(place)
        key = {"Idempotency-Key": "k-1"}
        first = asyncio.create_task(place.post(APPROVE, {}, headers=key))
        async with asyncio.timeout(5):
            while not await given(place):
                await asyncio.sleep(0.005)
        status, body = await place.post(APPROVE, {}, headers=key)
        assert (status, body["type"]) == (409, "urn:repricer:problem:in-flight")
        async with answered(place):
            assert (await first)[0] == 200
        assert len(await given(place)) == 1


async def test_a_gateway_started_anew_knows_the_answer() -> None:
    """The outcome is in the log, so it outlives the process that asked for it."""
    async with market() as place:
        await open_shops(place)
        async with answered(place):
            first = await place.post(APPROVE, {}, headers={"Idempotency-Key": "k-1"})
        app = place.client.server.app  # type: ignore[attr-defined]
        app[GATEWAY].operations._known.clear()
        again = await place.post(APPROVE, {}, headers={"Idempotency-Key": "k-1"})
        assert again == first
        assert len(await given(place)) == 1


async def test_halt_and_resume_reach_every_shard_of_a_big_retailer() -> None:
    async with market(spreads={"acme": 8}) as place:
        await open_shops(place)
        async with answered(place):
            status, body = await place.post("/api/v1/publishing:halt", {"reason": "odd prices"})
            assert (status, body["status"]) == (200, "done")
        for shard in range(SHARDS):
            log = await place.logs.open(COMMANDS, shard)
            [record] = await log.read(-1, limit=10, wait_ms=0)
            assert record.key == b"*"


async def test_a_mode_is_changed_in_every_shard() -> None:
    async with market(spreads={"acme": 8}) as place:
        await open_shops(place)
        path = "/api/v1/publishing:mode"
        async with answered(place):
            status, body = await place.post(path, {"mode": "shadow"})
        assert (status, body["kind"]) == (200, "ModeChanged")
        for shard in range(SHARDS):
            log = await place.logs.open(COMMANDS, shard)
            [record] = await log.read(-1, limit=10, wait_ms=0)
            assert json.loads(record.value)["mode"] == "shadow"
        status, body = await place.post(path, {"mode": "dead"})
        assert (status, body["errors"][0]["pointer"]) == (400, "/mode")
        assert (await place.post(path, {}))[0] == 400
        assert (await place.post(path, {"mode": "live"}, who="reader"))[0] == 403


async def test_publishing_tells_in_which_shards_the_mode_differs() -> None:
    async with market(spreads={"acme": 8}) as place:
        await open_shops(place)
        first, second = place.owners
        added = CatalogueChange(COMMAND, "retailer", "acme", {"mode": "live"})
        for owner in (first, second):
            await owner.decide(catalogue=[added])
        await place.caught_up()
        _, body = await place.get("/api/v1/publishing")
        assert (body["mode"], body["modes"]) == ("live", [])
        await second.decide(
            catalogue=[CatalogueChange(COMMAND, "mode", "acme", {"mode": "shadow"})]
        )
        await place.caught_up()
        _, body = await place.get("/api/v1/publishing")
        told = [(each["shard"], each["mode"]) for each in body["modes"]]
        assert (body["mode"], told) == ("mixed", [(0, "live"), (1, "shadow")])


async def test_publishing_tells_what_stops_it() -> None:
    async with market() as place:
        await open_shops(place)
        owner, path = place.owner("acme"), "/api/v1/publishing"
        assert (await place.get(path))[1]["halts"] == []
        halt = CatalogueChange(COMMAND, "halt", "acme", {"channel": "shop", "reason": "odd"})
        tripped = CatalogueChange(COMMAND, "breaker", "acme", {"reasons": ["3 % moved by 20 %"]})
        await owner.decide(catalogue=[halt, tripped])
        await place.caught_up()
        _, body = await place.get(path)
        assert body["halts"] == [{"channel": "shop", "reason": "odd"}]
        assert body["breakers"] == [{"shard": owner.shard, "reasons": ["3 % moved by 20 %"]}]
        await owner.decide(catalogue=[CatalogueChange(COMMAND, "resume", "acme", {})])
        await place.caught_up()
        _, body = await place.get(path)
        assert (body["halts"], body["breakers"]) == ([], [])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"price": {"amount": "19.999", "currency": "EUR"}}, "/price/amount"),
        ({"price": {"amount": "1e3", "currency": "EUR"}}, "/price/amount"),
        ({"price": {"amount": "-1.00", "currency": "EUR"}}, "/price/amount"),
        ({"price": {"amount": "0.00", "currency": "EUR"}}, "/price/amount"),
        ({"price": {"amount": "99999999999.00", "currency": "EUR"}}, "/price/amount"),
        ({"price": {"amount": 19.99, "currency": "EUR"}}, "/price/amount"),
        ({"price": {"amount": "19.99", "currency": "USD"}}, "/price/currency"),
        ({"price": {"amount": "19.99"}}, "/price/currency"),
        ({"prize": 1}, "/prize"),
        ({}, "/price"),
        ({"price": {"amount": "19.99", "currency": "EUR"}, "until": "soon"}, "/until"),
        ({"price": {"amount": "19.99", "currency": "EUR"}, "until": "2030-01-01"}, "/until"),
    ],
)
async def test_a_wrong_field_is_named(body: dict[str, Any], pointer: str) -> None:
    async with market() as place:
        await open_shops(place)
        status, answer = await place.post("/api/v1/products/A-1/pin-price", body)
        assert status == 400
        assert answer["errors"][0]["pointer"] == pointer
        assert await given(place) == []


@pytest.mark.parametrize(
    "price", ["10.49", 10.49, 1049, None, [], {"amount": 10.49, "currency": "EUR"}, {}]
)
async def test_what_is_no_price_is_told_how_one_looks(price: Any) -> None:
    shown = 'send {"amount": "10.49", "currency": "EUR"}'
    async with market() as place:
        await open_shops(place)
        _, answer = await place.post("/api/v1/products/A-1/pin-price", {"price": price})
        assert shown in answer["errors"][0]["detail"]
        assert answer["errors"][0]["pointer"].startswith("/price")
        _, answer = await place.post("/api/v1/products/A-1/pin-price", {})
        assert shown in answer["detail"]
        _, answer = await place.post("/api/v1/what-if", {"cases": [{"rival_price": "1"}]})
        assert shown in answer["detail"]
        _, answer = await place.post("/api/v1/what-if", {"cases": [{"cost_ratio": "1"}]})
        assert shown not in answer["detail"]


async def test_a_log_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: MemoryAppender, *args: Any, **more: Any) -> None:
        raise FailedDependency("no broker")

    async with market() as place:
        await open_shops(place)
        monkeypatch.setattr(MemoryAppender, "append", fails)
        status, body = await place.post(APPROVE, {}, headers={"Idempotency-Key": "k-1"})
        assert (status, body["type"]) == (503, "urn:repricer:problem:unavailable")
        monkeypatch.undo()
        async with answered(place):
            assert (await place.post(APPROVE, {}, headers={"Idempotency-Key": "k-1"}))[0] == 200


async def test_an_append_in_doubt_is_repeated_byte_for_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The shard tells the second from another command by its bytes, so they must be the same."""
    append, doubted = MemoryAppender.append, []

    async def doubts(self: MemoryAppender, value: bytes, **more: Any) -> Any:
        appended = await append(self, value, **more)
        if b"PriceApproved" in value and not doubted:
            doubted.append(value)
            raise AppendInDoubt("the acknowledgement was lost")
        return appended

    async with market() as place:
        await open_shops(place)
        monkeypatch.setattr(MemoryAppender, "append", doubts)
        async with answered(place):
            assert (await place.post(APPROVE, {}))[0] == 200
        first, second = await given(place)
        assert first == second


async def test_a_reader_may_not_approve() -> None:
    async with market() as place:
        await open_shops(place)
        status, body = await place.post(APPROVE, {}, who="reader")
        assert (status, body["type"]) == (403, "urn:repricer:problem:forbidden")
        assert (await place.post("/api/v1/publishing:halt", {}, who="reader"))[0] == 403
        assert await given(place) == []


async def test_a_cluster_at_event_time_gets_commands_at_event_time() -> None:
    """A command stamped by the wall clock would carry a cluster fed with 1995 to today."""
    async with market() as place:
        await open_shops(place)
        owner = place.owner("acme")
        view = place.replica.shards[owner.shard]
        view.clock, view.decided_ms = "event", 800_000_000_000
        async with answered(place):
            await place.post(APPROVE, {})
        [delta] = await given(place)
        assert delta.observed_ms == 800_000_000_000  # type: ignore[union-attr]
