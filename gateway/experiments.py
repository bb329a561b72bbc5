"""What is tried on some listings, and what the engine's prices bring: read, begun and stopped.

A shard tells how an experiment stands once a day, and whenever it changes; the replica keeps the
newest word. A retailer spread over several shards has one experiment in each, judged apart.
"""

from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from engine.deltas import ExperimentStarted, ExperimentStopped
from engine.errors import NotSupported, RejectedInput
from engine.experiments import decode_terms
from gateway.call import Call, Gateway, age_of, decode_body, known_retailer, refused, shards_of
from gateway.execution import Command, execute, observed_ms
from gateway.money import rfc3339
from gateway.problems import INVALID_REQUEST, NOT_FOUND, NOT_SUPPORTED, FieldError, Problem

ExperimentName = Annotated[str, Meta(min_length=1, max_length=64)]


class StartExperiment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Try another policy or price on some listings. Left out is what ``docs/experiments.md`` says.

    ``treatment`` holds policy fields, ``price_ratio`` a factor on the price at the start.
    """

    experiment: ExperimentName
    design: Literal["product", "crossover", "switchback"] | None = None
    treatment: dict[str, Any] | None = None
    price_ratio: float | None = None
    metric: Literal["profit", "revenue", "units"] | None = None
    share: float | None = None
    days: int | None = None
    baseline_days: int | None = None
    block_days: int | None = None
    washout_days: int | None = None
    scope: Literal["retailer", "channel", "category"] | None = None
    key: Annotated[str, Meta(max_length=200)] | None = None


class StopExperiment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """End the experiment that is running; with a name, only if it is that one."""

    experiment: ExperimentName | None = None


class Interval(Struct, frozen=True):
    """Between what and what a lift lies, with 95 %."""

    low: float
    high: float


class Standing(Struct, frozen=True, kw_only=True):
    """How one experiment or holdout stands in one shard."""

    shard: int
    experiment: str
    kind: Literal["holdout", "experiment"]
    design: Literal["product", "crossover", "switchback"]
    metric: Literal["profit", "revenue", "units"]
    status: Literal["waiting", "baseline", "running", "ended", "stopped"]
    started_at: str
    day: int  # of the running part
    days: int | None  # planned; null: a holdout goes on
    share: float  # of the listings that are treated
    treatment: dict[str, Any]
    price_ratio: float | None
    verdict: Literal["open", "better", "harmful", "undecided"]
    lift: float | None  # how much more the treated earn; null: not enough is known
    interval: Interval | None  # holds at every look
    interval_at_end: Interval | None  # holds once, at the planned end
    units: int  # of what was drawn: listings, listings in pairs of blocks, pairs of blocks
    listings_control: int
    listings_treated: int
    sample_ratio_ok: bool  # false: arms lost listings unevenly, and no verdict counts


class ExperimentList(Struct, frozen=True, kw_only=True):
    """A retailer's experiments: the newest of each shard, and the holdouts."""

    retailer: str
    experiments: tuple[Standing, ...]
    as_of: str
    stale: bool


class RevenueImpact(Struct, frozen=True, kw_only=True):
    """What the engine's prices bring, against listings whose prices stay."""

    retailer: str
    holdouts: tuple[Standing, ...]  # one a shard; none where nothing is learnt
    as_of: str
    stale: bool


_encode = msgspec.json.Encoder().encode


async def experiments(gateway: Gateway, call: Call) -> web.Response:
    """Say how experiments and holdouts stand."""
    retailer = known_retailer(gateway, call)
    age = age_of(gateway, shards_of(gateway, retailer))
    document = ExperimentList(
        retailer=retailer,
        experiments=_standings(gateway, retailer),
        as_of=age.as_of,
        stale=age.stale,
    )
    return web.Response(body=_encode(document), content_type="application/json")


async def revenue_impact(gateway: Gateway, call: Call) -> web.Response:
    """Say what the engine's prices bring, measured against the holdout."""
    retailer = known_retailer(gateway, call)
    held = tuple(each for each in _standings(gateway, retailer) if each.kind == "holdout")
    age = age_of(gateway, shards_of(gateway, retailer))
    document = RevenueImpact(retailer=retailer, holdouts=held, as_of=age.as_of, stale=age.stale)
    return web.Response(body=_encode(document), content_type="application/json")


async def start_experiment(gateway: Gateway, call: Call) -> web.Response:
    """Begin an experiment."""
    retailer = known_retailer(gateway, call)
    raw = await call.read()
    body = decode_body(raw, StartExperiment)
    given = {name: getattr(body, name) for name in body.__struct_fields__}
    fields = {name: value for name, value in given.items() if value is not None}
    try:
        decode_terms(fields)
    except RejectedInput as error:
        kind = NOT_SUPPORTED if isinstance(error, NotSupported) else INVALID_REQUEST
        told = RejectedInput(_pointer(error.pointer), error.problem, error.fix)
        raise refused(told, kind) from error
    _check_scope(gateway, retailer, body)
    destinations = gateway.commands.to_retailer(retailer)
    delta = ExperimentStarted(
        retailer=retailer, observed_ms=observed_ms(gateway, destinations), fields=fields
    )
    command = Command(delta=delta, raw=raw, destinations=destinations)
    return await execute(gateway, call, command)


def _check_scope(gateway: Gateway, retailer: str, body: StartExperiment) -> None:
    """Refuse an experiment on a channel or category that no listing has: it would try nothing."""
    place = (body.scope or "retailer", body.key or "")
    if not gateway.replica.missing(retailer, (place,)):
        return
    told = f"there is no listing of {place[0]} {place[1]!r}: name one that has listings"
    age = age_of(gateway, shards_of(gateway, retailer))
    raise Problem(NOT_FOUND, told, errors=[FieldError(told, pointer="/key")], age=age)


def _pointer(given: str) -> str:
    """Return a pointer into our body: it is what the delta carries as ``fields``.

    A policy field is checked as one, by a pointer that does not know of ``treatment``.
    """
    pointer = given.removeprefix("/fields")
    own = ("", *StartExperiment.__struct_fields__)
    return pointer if pointer.strip("/").partition("/")[0] in own else f"/treatment{pointer}"


async def stop_experiment(gateway: Gateway, call: Call) -> web.Response:
    """End an experiment at once."""
    retailer = known_retailer(gateway, call)
    raw = await call.read()
    body = decode_body(raw, StopExperiment)
    destinations = gateway.commands.to_retailer(retailer)
    delta = ExperimentStopped(
        retailer=retailer,
        observed_ms=observed_ms(gateway, destinations),
        fields={} if body.experiment is None else {"experiment": body.experiment},
    )
    command = Command(delta=delta, raw=raw, destinations=destinations)
    return await execute(gateway, call, command)


def _standings(gateway: Gateway, retailer: str) -> tuple[Standing, ...]:
    told = gateway.replica.retailers[retailer].experiments
    return tuple(_standing(shard, fields) for (shard, _), fields in sorted(told.items()))


def _standing(shard: int, fields: dict[str, Any]) -> Standing:
    control, treated = fields["listings"]
    same = (
        *("experiment", "kind", "design", "metric", "status", "day", "days", "share"),
        *("verdict", "lift", "units", "sample_ratio_ok"),
    )
    return Standing(
        shard=shard,
        started_at=rfc3339(fields["started_ms"]),
        treatment=fields.get("treatment", {}),
        price_ratio=fields.get("price_ratio"),
        interval=_interval(fields["low"], fields["high"]),
        interval_at_end=_interval(fields["end_low"], fields["end_high"]),
        listings_control=control,
        listings_treated=treated,
        **{name: fields[name] for name in same},
    )


def _interval(low: float | None, high: float | None) -> Interval | None:
    return None if low is None or high is None else Interval(low, high)
