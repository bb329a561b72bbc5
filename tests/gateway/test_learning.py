"""What is learnt of a retailer's demand is asked of his shards' owners, alarms in sentences."""

from typing import Any

import pytest

from engine.errors import DeadlinePassed, FailedDependency
from tests.engine.builders import DAY, World
from tests.gateway.hand import market, open_shops, quoted

PATH = "/api/v1/learning"
AT_MS = 1_800_000_000_000


def learnt(**changed: Any) -> dict[str, Any]:
    """Return what a shard tells that has just begun to learn, but for what is changed."""
    world = World(mode="shadow")
    world.send(world.policy(learning=True))
    world.send(world.listing(category="juice"), after_ms=DAY)
    told = world.shard.learning("acme", fit=False)
    assert told is not None
    return {**told, **changed}


async def told(answer: Any) -> tuple[int, Any]:
    """Return what a gateway answers whose shards' owners all answer the same."""

    async def ask(shard: int, retailer: str, deadline_ms: int) -> dict[str, Any]:
        assert retailer == "acme"
        if isinstance(answer, Exception):
            raise answer
        return {"seq": 1, "decided_ms": AT_MS, "learning": answer}

    async with market(ask_learning=ask) as place:
        await open_shops(place)
        status, body = await place.get(PATH)
        return status, body


async def test_each_shard_is_told_with_its_mark_and_nothing_is_wrong() -> None:
    status, body = await told(learnt())
    assert (status, body["retailer"], body["alarms"]) == (200, "acme", [])
    (shard,) = body["shards"]
    assert shard["as_of"] == "2027-01-15T08:00:00.000Z"
    assert shard["learning"]["categories"] == [
        {
            "category": "juice",
            "listings": 1,
            "from_history": None,
            "from_own_prices": None,
            "apart_sd": None,
            "alarm": False,
        }
    ]
    assert shard["learning"]["price_error"] is None, "no fit is made for an answer"


async def test_history_that_followed_demand_is_an_alarm_in_words() -> None:
    one = {
        "category": "juice",
        "listings": 40,
        "from_history": {"elasticity": -0.9, "sd": 0.2},
        "from_own_prices": {"elasticity": -2.4, "sd": 0.2},
        "apart_sd": 5.3,
        "alarm": True,
    }
    other = {**one, "category": "milk", "apart_sd": 1.0, "alarm": False}
    _, body = await told(learnt(categories=[one, other], history_trusted=False))
    first, second = body["alarms"]
    assert "juice" in first and "5.3 standard deviations" in first
    assert "not believed" in second
    assert len(body["shards"][0]["learning"]["categories"]) == 2


async def test_a_retailer_of_whom_nothing_is_learnt_is_told_so() -> None:
    status, body = await told(None)
    assert (status, body["shards"][0]["learning"], body["alarms"]) == (200, None, [])


@pytest.mark.parametrize(
    ("fault", "status"),
    [(FailedDependency("nobody"), 503), (DeadlinePassed("late"), 504), (TimeoutError(), 504)],
)
async def test_an_owner_that_is_away_is_a_problem(fault: Exception, status: int) -> None:
    assert (await told(fault))[0] == status


async def test_nobody_who_reigns_no_more_is_believed_and_nobody_is_unknown() -> None:
    async def ask(*_: Any) -> dict[str, Any]:
        return {"seq": 1, "decided_ms": AT_MS, "learning": None}

    async with market(ask_learning=ask) as place:
        await open_shops(place)
        assert (await place.get(PATH + "?retailer=nobody"))[0] in (403, 404)
        await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", 1850)])
        await place.caught_up()
        assert (await place.get(PATH))[0] == 503
    async with market() as place:
        await open_shops(place)
        assert (await place.get(PATH))[0] == 503


def test_to_tell_changes_nothing() -> None:
    """Not even the numbers that categories get, which a replay would not repeat."""
    world = World()
    world.send(world.policy(learning=True))
    world.send(world.listing("A", category="juice"), after_ms=DAY)
    (held,) = world.shard._memory.learnt.retailers.values()
    world.send(world.listing("B", category="milk"))
    before = list(held.categories)
    told_of = world.shard.learning("acme", fit=False)
    assert told_of is not None
    names = [each["category"] for each in told_of["categories"]]
    assert names == ["juice", "milk"]
    assert held.categories == before
