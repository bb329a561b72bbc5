"""What is learnt of a retailer's demand as a whole, as the owners of his shards know it.

Among it the endogeneity alarm: whether prices that people set are believed, and the categories in
which they say something else than prices that the engine drew.
"""

import asyncio

import msgspec
from aiohttp import web
from msgspec import Struct

from engine.errors import FailedDependency
from gateway.call import (
    DEADLINE_MS,
    Call,
    DeadlineMs,
    Gateway,
    RetailerQuery,
    known_retailer,
    shards_of,
)
from gateway.owner_answers import aged, owner_problems


class LearningQuery(RetailerQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose demand, and how long it may take to ask."""

    deadline_ms: DeadlineMs = DEADLINE_MS


class Slope(Struct, frozen=True, kw_only=True):
    """An elasticity as one kind of prices shows it, and its standard deviation."""

    elasticity: float
    sd: float


class Category(Struct, frozen=True, kw_only=True):
    """What a category's history says beside what prices drawn by the engine say.

    ``alarm`` says that they contradict each other: history followed demand. ``null`` stands where
    one of them has said nothing yet.
    """

    category: str
    listings: int
    from_history: Slope | None
    from_own_prices: Slope | None
    apart_sd: float | None  # by so many standard deviations history's elasticities lie higher
    alarm: bool


class Kink(Struct, frozen=True, kw_only=True):
    """How much more is lost above the price found at import than is won below it.

    Demand falls by elasticity times (1 + kink) above that price, and times (1 - kink) below it.
    """

    believed: float  # what prices are made by, 0: none
    likeliest: float  # how large it is if there is one
    likely: float  # that there is one


class Learning(Struct, frozen=True, kw_only=True):
    """What one shard's listings of a retailer share."""

    day: int  # of unix time, the last that was closed
    live: bool
    history_trusted: bool  # false: what people's prices taught is thrown away, in all categories
    history_lead_sd: float  # how far today's prices follow yesterday's unexplained demand
    categories: tuple[Category, ...]
    curvature: float
    curvature_sd: float
    forms: dict[str, dict[str, str | float]]  # by category: the one chosen, and nats of the others
    kink: Kink | None = None  # null of an owner of before it was looked for
    rival_pull: float
    rivals_follow: float
    dispersion: float
    price_error: float | None  # of managers, in logs; null before the first fit
    elasticity_spread: float | None
    family: str | None  # of elasticities, the one that fits best
    exploration_share: float  # of profit, given for what prices teach


class ShardLearning(Struct, frozen=True, kw_only=True):
    """One shard's answer: null where it learns nothing."""

    shard: int
    as_of: str
    stale: bool
    seq: int
    learning: Learning | None


class LearningAnswer(Struct, frozen=True, kw_only=True):
    """What is learnt of a retailer's demand, a shard each: each learns from its own listings."""

    retailer: str
    alarms: tuple[str, ...]  # in sentences; none: nothing is wrong
    shards: tuple[ShardLearning, ...]


_encode = msgspec.json.Encoder().encode


async def learning(gateway: Gateway, call: Call) -> web.Response:
    """Say what is learnt of a retailer's demand."""
    retailer = known_retailer(gateway, call, LearningQuery)
    deadline_ms = call.query(LearningQuery).deadline_ms
    with owner_problems(deadline_ms):
        told = await asyncio.gather(
            *(
                _asked(gateway, shard, retailer, deadline_ms)
                for shard in sorted(shards_of(gateway, retailer))
            )
        )
    answer = LearningAnswer(
        retailer=retailer,
        alarms=tuple(dict.fromkeys(alarm for each in told for alarm in _alarms(each.learning))),
        shards=tuple(told),
    )
    return web.Response(body=_encode(answer), content_type="application/json")


async def _asked(gateway: Gateway, shard: int, retailer: str, deadline_ms: int) -> ShardLearning:
    routed = gateway.learning
    if routed is None:
        raise FailedDependency("this gateway knows no owners")
    known_seq = gateway.replica.shards[shard].position.seq
    asking = routed.read(shard, retailer, deadline_ms, known_seq=known_seq)
    age, answer = await aged(gateway, shard, asking)
    return ShardLearning(
        shard=shard,
        as_of=age.as_of,
        stale=age.stale,
        seq=answer["seq"],
        learning=msgspec.convert(answer["learning"], Learning | None),
    )


def _alarms(told: Learning | None) -> list[str]:
    if told is None:
        return []
    said = [
        f"In category {each.category} prices that people set followed demand: they show an"
        f" elasticity {abs(each.apart_sd or 0.0):.1f} standard deviations from what our own"
        " prices show."
        for each in told.categories
        if each.alarm
    ]
    if not told.history_trusted:
        said.append("What prices of before taught is not believed, since they followed demand.")
    return said
