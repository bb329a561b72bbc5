"""What a shard refuses is told in the request's own words: its fields, its money, its times."""

from typing import Any

import pytest

from engine.decided import Outcome
from engine.deltas import PriceApproved, PricePinned, PriceRejected, PriceUnpinned
from engine.routing import key64
from gateway.documents import Listing
from gateway.problems import FieldError
from gateway.refusals import told
from tests.engine.builders import World
from tests.gateway.hand import COMMAND, market, open_shops, outcome
from tests.gateway.test_approvals import answered

LISTING = Listing(1, "acme", "shop", "A", "EUR")


def refused(kind: type[Any], world: World | None = None, **fields: Any) -> tuple[str, FieldError]:
    """Return how a real shard's refusal of a command is told, and its one field at fault."""
    if world is None:
        world = World()
        world.send(world.policy(ceiling_minor=2500))
        world.send(world.listing(map_minor=1200))
    decided = world.send(world.about(kind, command_id="c", **fields), lane=0)
    detail, (error,) = told(decided.outcomes[0], LISTING)
    return detail, error


@pytest.mark.parametrize(
    ("price", "problem"),
    [
        (1, "0.01 EUR lies below the legal minimum (map) 12.00 EUR"),
        (2600, "26.00 EUR lies above the ceiling 25.00 EUR"),
    ],
)
def test_a_price_out_of_bounds_is_told_as_it_was_sent(price: int, problem: str) -> None:
    for kind in (PriceApproved, PricePinned):
        detail, error = refused(kind, price_minor=price)
        assert detail == f"/price/amount: {problem}"
        assert error == FieldError(problem, pointer="/price/amount")


def test_a_floor_is_money() -> None:
    world = World()
    world.send(world.listing())
    detail, error = refused(PricePinned, world, price_minor=1)
    assert detail.endswith("lies below the floor 10.53 EUR")
    assert error.pointer == "/price/amount"


def test_a_moment_that_is_past_is_told_as_a_moment() -> None:
    detail, error = refused(PricePinned, price_minor=2000, until_ms=1_577_836_800_000)
    assert detail == "/until: 2020-01-01T00:00:00.000Z is past; name a later time"
    assert error.pointer == "/until"


def test_what_the_path_names_is_told_as_a_parameter() -> None:
    detail, error = refused(PriceUnpinned)
    assert detail == "id: is not pinned; nothing to do"
    assert error == FieldError("is not pinned; nothing to do", parameter="id")
    world = World()
    world.send(world.listing())
    world.send(world.about(PricePinned, price_minor=2000), lane=0)
    detail, _ = refused(PriceApproved, world, price_minor=2000)
    assert detail == "id: is pinned at 20.00 EUR; use unpin-price first"
    world = World(mode="shadow")
    world.send(world.listing())
    detail, error = refused(PriceApproved, world, price_minor=2000)
    assert detail.endswith("use publishing:mode first")
    assert error.parameter == "retailer"


def test_what_was_asked_too_late_names_no_field() -> None:
    late = "/observed_ms: 1577836800000 is older than 1577836800001, which is known; nothing to do"
    given = Outcome("c", COMMAND, "acme", "acme", "refused", "PriceRejected", late)
    detail, errors = told(given, LISTING)
    assert detail.startswith("asked at 2020-01-01T00:00:00.000Z is older than 2020-01-01T00:00")
    assert not errors
    assert told(Outcome("c", COMMAND, "acme", "acme", "done", "PriceRejected"), None) == ("", ())


def test_every_verb_is_told_without_minor_units() -> None:
    for kind in (PriceApproved, PriceRejected, PriceUnpinned):
        detail, _ = refused(kind, World())  # which has no listing at all
        assert "_minor" not in detail


async def test_the_answer_and_the_operation_say_the_same() -> None:
    async with market() as place:
        await open_shops(place)
        said = "/price_minor: 1 lies below the floor 632"
        key = key64("acme", "shop", "A-1")

        def decide(delta: Any) -> Any:
            return outcome(delta, "refused", detail=said, listing=key), ()

        async with answered(place, decide):
            body = {"price": {"amount": "0.01", "currency": "EUR"}}
            status, problem = await place.post("/api/v1/products/A-1/pin-price", body)
        assert status == 422
        assert problem["detail"] == "/price/amount: 0.01 EUR lies below the floor 6.32 EUR"
        assert problem["errors"] == [
            {
                "detail": "0.01 EUR lies below the floor 6.32 EUR",
                "pointer": "/price/amount",
            }
        ]
        _, read = await place.get(f"/api/v1/operations/{problem['operation_id']}")
        assert read["detail"] == problem["detail"]
