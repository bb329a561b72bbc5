"""Features are asked of the owner, in slices, and of nobody who reigns no more."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from engine.errors import DeadlinePassed, FailedDependency
from engine.routing import key64
from gateway.routed import TOLD_MAX, RoutedFeatures
from kernels.limits import FEATURES_SLICE_MAX
from tests.gateway.hand import listed, market, open_shops, quoted

PATH = "/api/v1/products/A-1/features"
BATCH = "/api/v1/features:batchGet"


class Told:
    """An owner who knows the listings that a test names."""

    def __init__(self) -> None:
        self.seq = 1
        self.asked: list[tuple[int, list[int], int, bool]] = []
        self.known: dict[int, float] = {}

    def sell(self, channel: str, sku: str, price: float) -> None:
        """Know one more listing."""
        self.known[key64("acme", channel, sku)] = price

    async def ask(
        self, shard: int, listings: Sequence[int], deadline_ms: int, strong: bool
    ) -> dict[str, Any]:
        self.asked.append((shard, list(listings), deadline_ms, strong))
        told = [
            {"price": self.known[each], "velocity": None} if each in self.known else None
            for each in listings
        ]
        return {"seq": self.seq, "decided_ms": 1_800_000_000_000, "features": told}


def shops() -> Told:
    owner = Told()
    owner.sell("shop", "A-1", 1999.0)
    owner.sell("market", "A-1", 2099.0)
    owner.sell("shop", "A-2", 1500.0)
    return owner


async def test_a_listing_is_told_with_the_time_to_which_it_is_measured() -> None:
    owner = shops()
    async with market(ask_features=owner.ask) as place:
        await open_shops(place)
        status, body = await place.get(PATH)
        assert (status, body) == (
            200,
            {
                "sku": "A-1",
                "channel": "shop",
                "as_of": "2027-01-15T08:00:00.000Z",
                "stale": False,
                "seq": 1,
                "features": {"price": 1999.0, "velocity": None},
            },
        )
        _, body = await place.get(PATH + "?channel=market&consistency=strong&deadline_ms=300")
        assert (body["channel"], body["features"]["price"]) == ("market", 2099.0)
        assert [each[2:] for each in owner.asked] == [(1000, False), (300, True)]


async def test_what_its_owner_does_not_know_is_not_found() -> None:
    owner = Told()
    async with market(ask_features=owner.ask) as place:
        await open_shops(place)
        assert (await place.get(PATH))[0] == 404
        assert (await place.get(PATH + "?channel=nowhere"))[0] == 404
        assert (await place.get("/api/v1/products/A-9/features"))[0] == 404
        assert len(owner.asked) == 1, "what the catalogue lacks nobody is asked for"


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (FailedDependency("nobody owns it"), 503, "unavailable"),
        (DeadlinePassed("not in time"), 504, "deadline"),
        (TimeoutError(), 504, "deadline"),
    ],
)
async def test_an_owner_that_is_away_is_a_problem_document(
    fault: Exception, status: int, kind: str
) -> None:
    async def ask(*asked: Any) -> dict[str, Any]:
        raise fault

    async with market(ask_features=ask) as place:
        await open_shops(place)
        for told, body in (await place.get(PATH), await place.post(BATCH, {"ids": ["A-1"]})):
            assert (told, body["type"]) == (status, f"urn:repricer:problem:{kind}")


async def test_a_gateway_without_owners_says_so() -> None:
    async with market() as place:
        await open_shops(place)
        assert (await place.get(PATH))[0] == 503
        assert (await place.post(BATCH, {"ids": ["A-1"]}))[0] == 503


async def test_a_batch_that_takes_too_long_ends() -> None:
    async def ask(*asked: Any) -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    async with market(ask_features=ask) as place:
        await open_shops(place)
        status, _ = await place.post(BATCH + "?deadline_ms=20", {"ids": ["A-1"]})
        assert status == 504


async def test_an_owner_of_the_past_is_not_believed() -> None:
    owner = shops()
    async with market(ask_features=owner.ask) as place:
        await open_shops(place)
        await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", 1850)])
        await place.caught_up()
        assert (await place.get(PATH))[0] == 503
        owner.seq = place.owner("acme").seq
        assert (await place.get(PATH))[0] == 200


async def test_a_batch_is_asked_in_slices_and_answered_in_order() -> None:
    owner = shops()
    skus = [f"S-{number}" for number in range(FEATURES_SLICE_MAX + 50)]
    async with market(ask_features=owner.ask) as place:
        await open_shops(place)
        catalogue = [listed("acme", "shop", sku) for sku in skus]
        owner.seq = await place.owner("acme").decide(catalogue=catalogue)
        await place.caught_up()
        for number, sku in enumerate(skus[1:], start=1):
            owner.sell("shop", sku, float(number))
        ids = ["A-2", "none", *skus, "A-1"]
        status, body = await place.post(BATCH, {"ids": ids})
        assert status == 200
        assert [each["sku"] for each in body["features"]] == ["A-2", *skus[1:], "A-1"]
        assert [each["features"]["price"] for each in body["features"]][1:3] == [1.0, 2.0]
        assert body["not_found"] == ["none", "S-0"]
        assert [len(listings) for _, listings, _, _ in owner.asked] == [100, 52]
        _, body = await place.post(BATCH, {"ids": ["A-1", "A-2"], "channel": "market"})
        assert [each["channel"] for each in body["features"]] == ["market"]
        status, body = await place.post(BATCH, {"ids": ["A-1"] * 1001})
        assert (status, body["errors"][0]["pointer"]) == (400, "/ids")


async def test_more_questions_than_the_limit_are_refused_at_once() -> None:
    answer = asyncio.Event()

    async def ask(*asked: Any) -> dict[str, Any]:
        await answer.wait()
        return {"seq": 1}

    reads = RoutedFeatures(ask)

    async def read() -> Any:
        return await reads.read(0, [5], 5000, strong=False, known_seq=0)

    waiting = [asyncio.create_task(read()) for _ in range(TOLD_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(FailedDependency):
        await read()
    answer.set()
    await asyncio.gather(*waiting)
    assert await read() == {"seq": 1}
