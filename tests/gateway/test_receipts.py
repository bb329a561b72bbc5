"""A receipt tells what only the owner knows, where he answers at once, and comes without it too."""

import asyncio
from typing import Any

import msgspec
import pytest

from engine.decided import CatalogueChange
from engine.drivers import DRIVERS
from engine.errors import DeadlinePassed, FailedDependency
from engine.live_drivers import LIVE_DRIVERS, Alone, LeashFacts, LiveFacts
from engine.microbatch import Position
from kernels.reasons import LEARNT
from tests.gateway.hand import Market, market, open_shops, quoted
from tests.test_docs import ROOT

PATH = "/api/v1/products/A-1/explanation"


class Told:
    """An owner who tells of one quote."""

    def __init__(self) -> None:
        self.facts: LiveFacts | None = None
        self.asked: list[tuple[int, int]] = []

    def knows(self, seq: int, index: int, alone: Alone = "rules", **more: Any) -> None:
        self.facts = LiveFacts(
            seq=seq, decided_ms=1_800_000_000_000, quote=(seq, index), alone=alone, **more
        )

    async def ask(self, shard: int, listing: int, deadline_ms: int) -> Any:
        self.asked.append((shard, listing))
        mark = {"seq": 1_000, "decided_ms": 1_800_000_000_000}
        return {**mark, "facts": msgspec.to_builtins(self.facts)}


async def priced(place: Market, **values: int) -> int:
    await open_shops(place)
    seq = await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", 1850, **values)])
    await place.caught_up()
    return seq


async def test_what_the_owner_knows_is_told_as_of_now() -> None:
    owner = Told()
    async with market(ask_facts=owner.ask) as place:
        leash = LeashFacts(told_minor=1500, held_minor=1800, per_day=0.05)
        seq = await priced(place)
        owner.knows(seq, 0, leash=leash)
        _, body = await place.get(PATH)
        assert body["now"] == {"as_of": "2027-01-15T08:00:00.000Z", "stale": False, "seq": seq}
        told = {each["name"]: each for each in body["drivers"]}
        assert told["leash"]["as_of"] == told["model"]["as_of"] == "now"
        assert told["cost"]["as_of"] == "decision"
        assert told["leash"]["text"] in body["text"].partition("As of now: ")[2]
        place.clock.pass_ms(3_000)
        _, later = await place.get(f"/api/v1/quotes/{body['recommendation']['quote_id']}")
        assert later["now"]["stale"] is True
        assert later["drivers"] == body["drivers"]


async def test_an_older_quote_is_told_without_what_is_known_now() -> None:
    owner = Told()
    async with market(ask_facts=owner.ask) as place:
        await priced(place)
        _, first = await place.get("/api/v1/products/A-1/recommendation")
        await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", 1900)])
        await place.caught_up()
        _, body = await place.get(f"/api/v1/quotes/{first['quote_id']}")
        assert (body["now"], owner.asked) == (None, [])
        assert all(each["as_of"] == "decision" for each in body["drivers"])


async def test_a_quote_stays_itself_while_its_owner_is_asked() -> None:
    """Another price is decided, and heard, before the owner answers."""
    async with market(ask_facts=lambda *asked: other_price()) as place:
        prices = iter((1900, 1950))

        async def other_price() -> Any:
            again = quoted("acme", "shop", "A-1", next(prices))
            await place.owner("acme").decide(quotes=[again])
            await place.caught_up()
            raise FailedDependency("overthrown")

        await priced(place)
        _, first = await place.get("/api/v1/products/A-1/recommendation")
        _, body = await place.get(PATH)
        assert body["recommendation"]["quote_id"] == first["quote_id"]
        same = first.keys() & body["recommendation"].keys()
        assert {name: first[name] for name in same} == {
            name: body["recommendation"][name] for name in same
        }
        assert "18.50 EUR is in force" in body["text"]
        _, next_one = await place.get("/api/v1/products/A-1/recommendation")
        _, kept = await place.get(f"/api/v1/quotes/{next_one['quote_id']}")
        assert "19.00 EUR is in force" in kept["text"]


async def test_words_of_another_version_leave_a_receipt_as_it_is() -> None:
    async def ask(*asked: Any) -> Any:
        return {"seq": 1_000, "decided_ms": 1_800_000_000_000, "facts": {"quote": "what?"}}

    async with market(ask_facts=ask) as place:
        await priced(place)
        status, body = await place.get(PATH)
        assert (status, body["now"]) == (200, None)


async def test_an_owner_of_the_past_explains_nothing() -> None:
    async def ask(*asked: Any) -> Any:
        return {"seq": -5, "decided_ms": 1_800_000_000_000, "facts": None}

    async with market(ask_facts=ask) as place:
        await priced(place)
        assert (await place.get(PATH))[1]["now"] is None


async def test_what_is_told_of_another_quote_is_left_out() -> None:
    owner = Told()
    async with market(ask_facts=owner.ask) as place:
        seq = await priced(place)
        owner.knows(seq + 1, 0)
        _, body = await place.get(PATH)
        assert (body["now"], len(owner.asked)) == (None, 1)
        owner.facts = None
        assert (await place.get(PATH))[1]["now"] is None


@pytest.mark.parametrize(
    "fault", [FailedDependency("nobody"), DeadlinePassed("late"), TimeoutError(), None]
)
async def test_a_receipt_comes_without_its_owner(fault: Exception | None) -> None:
    async def ask(*asked: Any) -> Any:
        if fault is None:
            await asyncio.sleep(60)
        raise fault or AssertionError

    async with market(ask_facts=ask) as place:
        await priced(place)
        status, body = await place.get(PATH)
        assert (status, body["now"]) == (200, None)
        assert "18.50 EUR" in body["text"]


async def test_a_clearance_is_told_by_the_time_of_its_decision() -> None:
    async with market() as place:
        await open_shops(place)
        ends_ms = place.clock.wall + 20 * 86_400_000
        fields = {"scope": "retailer", "key": "", "priority": 0}
        policy = {"learning": True, "season_end_ms": ends_ms}
        told = CatalogueChange(Position(0, 90, 0), "policy", "acme", {**fields, "fields": policy})
        quote = quoted("acme", "shop", "A-1", 1850, reasons=LEARNT, stock=40, target_minor=1850)
        await place.owner("acme").decide(quotes=[quote], catalogue=[told])
        await place.caught_up()
        _, body = await place.get(PATH)
        season = next(each for each in body["drivers"] if each["name"] == "season")
        assert season["value"] == 20.0
        assert "with 40 in stock then" in season["text"]
        assert "to clear its stock by the season's end" in body["text"]


def test_every_driver_is_documented() -> None:
    told = (ROOT / "docs" / "api.md").read_text()
    assert [name for name in (*DRIVERS, *LIVE_DRIVERS) if f"`{name}`" not in told] == []
