"""Plans and what-ifs: asked of forks of the shards that hold the retailer, and put together.

Nothing is changed here. A plan is applied by a command that carries where each shard stood, and the
shards themselves say whether they still do.
"""

import base64
import binascii
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct
from msgspec.structs import asdict

from engine.deltas import PLAN_CHANGES_MAX, PlanApplied, Planned, ScopeChange, ScopeKind
from engine.errors import DeadlinePassed, FailedDependency, NotSupported, RejectedInput
from engine.policy import PolicyBook
from engine.suppositions import CASES_MAX, Case, RatioGiven, Selection
from gateway.call import Call, Gateway, decode_body, known_retailer, refused
from gateway.execution import Command, execute, observed_ms
from gateway.keys import fingerprint
from gateway.money import Money, money, price_minor, rfc3339
from gateway.problems import (
    DEADLINE,
    INVALID_REQUEST,
    NOT_SUPPORTED,
    UNAVAILABLE,
    FieldError,
    Problem,
)

FORK_DEADLINE_MS = 30_000
"""A fork answers in a few seconds; the first one starts a process."""

MOVES_MAX = 1000
"""Most moves that one answer lists; the counts are of all."""

NEVER_MS = 2**53
"""When a plan's exactness ends that no time ends."""

Changes = Annotated[tuple[ScopeChange, ...], Meta(min_length=1, max_length=PLAN_CHANGES_MAX)]
Limit = Annotated[int, Meta(ge=0, le=MOVES_MAX)]


class PlanPolicies(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of policy: scopes with their fields. ``limit`` says how many moves are listed."""

    changes: Changes
    limit: Limit = 100


class ApplyPlan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same changes, and the ``plan`` that was shown for them."""

    changes: Changes
    plan: Annotated[str, Meta(max_length=100_000)] | None = None
    anyway: bool = False  # although something was decided meanwhile


class CaseBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One supposition: costs and rivals of the listings selected, and scopes of the policy."""

    name: Annotated[str, Meta(max_length=100)] = ""
    cost_ratio: RatioGiven = 1.0  # 1.05: costs are 5 % higher
    rival_ratio: RatioGiven = 1.0  # of every rival's landed price
    rival_price: Money | None = None  # one rival remains, at this landed price
    changes: Annotated[tuple[ScopeChange, ...], Meta(max_length=PLAN_CHANGES_MAX)] = ()


class WhatIf(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cases to compare, and the listings that they are about."""

    cases: Annotated[tuple[CaseBody, ...], Meta(min_length=1, max_length=CASES_MAX)]
    listings: Selection = Selection()
    limit: Limit = 100


class Move(Struct, frozen=True, kw_only=True):
    """One listing whose price or state would be another."""

    channel: str
    sku: str
    before: Money | None
    after: Money | None
    change: float  # of the price, as a ratio: -0.05 is 5 % less
    state: str  # afterwards
    guardrail: str  # that binds the price afterwards, "" for none
    floor: Money | None
    ceiling: Money | None
    without: Money | None  # the price if that guardrail were absent
    reasons: tuple[str, ...]


class Moves(Struct, frozen=True, kw_only=True):
    """What would become of some listings: counts of all, and the largest moves."""

    name: str
    listings: int  # asked about
    moved: int  # whose price would be another: in force, or proposed where that waits
    in_force: int  # of them, whose price in force would be
    proposed: int  # of them, whose proposal would be
    raised: int
    lowered: int
    mean_change: float  # of those that moved, as a ratio
    guardrails: dict[str, int]  # how many of them each binds
    states: dict[str, int]  # of all whose price, proposal or state would be another
    moves: tuple[Move, ...]


class PlanAnswer(Struct, frozen=True, kw_only=True):
    """A plan: what would move, and the token with which exactly that is applied."""

    retailer: str
    plan: str
    exact_until: str | None  # when a price may next move by itself; None: at no known time
    effect: Moves
    warnings: tuple[FieldError, ...]  # of changes that are about no listing there is now


class WhatIfAnswer(Struct, frozen=True, kw_only=True):
    """What each case would do."""

    retailer: str
    as_of: str
    cases: tuple[Moves, ...]


_encode = msgspec.json.Encoder().encode


async def plan_policies(gateway: Gateway, call: Call) -> web.Response:
    """Say what a change of policy would do."""
    retailer = known_retailer(gateway, call)
    body = decode_body(await call.read(), PlanPolicies)
    _check(body.changes)
    asked = {"kind": "plan", "changes": body.changes, "limit": body.limit}
    answers = await _ask(gateway, retailer, asked)
    planned = {
        shard: msgspec.convert(answer["planned"], Planned) for shard, answer in answers.items()
    }
    until_ms = min(each.exact_until_ms for each in planned.values())
    document = PlanAnswer(
        retailer=retailer,
        plan=token_of(retailer, body.changes, planned),
        exact_until=rfc3339(until_ms) if until_ms < NEVER_MS else None,
        effect=_moves("", [answer["seen"][0] for answer in answers.values()], body.limit),
        warnings=_warnings(body.changes, [answer["concerned"] for answer in answers.values()]),
    )
    return web.Response(body=_encode(document), content_type="application/json")


async def apply_policies(gateway: Gateway, call: Call) -> web.Response:
    """Apply a plan, which its shards refuse where it is no longer exact."""
    retailer = known_retailer(gateway, call)
    raw = await call.read()
    body = decode_body(raw, ApplyPlan)
    destinations = gateway.commands.to_retailer(retailer)
    planned: Mapping[int, Planned] = {}
    if body.plan is not None:
        planned = planned_in(body.plan, retailer, body.changes)
        if not planned.keys() >= {destination.partition for destination in destinations}:
            raise _wrong_plan("was made for other shards; plan again")
    elif not body.anyway:
        raise _wrong_plan("is missing: plan first, or say anyway")
    delta = PlanApplied(
        retailer=retailer,
        changes=body.changes,
        observed_ms=observed_ms(gateway, destinations),
        anyway=body.anyway,
    )
    places = [(change.scope, change.key) for change in body.changes]
    command = Command(
        delta=delta,
        raw=raw,
        destinations=destinations,
        planned=planned,
        warnings=_warned(body.changes, gateway.replica.missing(retailer, places)),
    )
    return await execute(gateway, call, command)


async def what_if(gateway: Gateway, call: Call) -> web.Response:
    """Say what would follow from some suppositions."""
    retailer = known_retailer(gateway, call)
    body = decode_body(await call.read(), WhatIf)
    for at, case in enumerate(body.cases):
        _check(case.changes, f"/cases/{at}")
    currency = gateway.replica.retailers[retailer].currency or ""
    cases = [_case(case, currency, f"/cases/{at}") for at, case in enumerate(body.cases)]
    asked = {
        "kind": "what-if",
        "selection": body.listings,
        "cases": cases,
        "limit": body.limit,
    }
    answers = await _ask(gateway, retailer, asked)
    document = WhatIfAnswer(
        retailer=retailer,
        as_of=rfc3339(min(answer["planned"]["planned_ms"] for answer in answers.values())),
        cases=tuple(
            _moves(case.name, [answer["seen"][at] for answer in answers.values()], body.limit)
            for at, case in enumerate(cases)
        ),
    )
    return web.Response(body=_encode(document), content_type="application/json")


def token_of(
    retailer: str, changes: tuple[ScopeChange, ...], planned: Mapping[int, Planned]
) -> str:
    """Return a plan as opaque text: what it changes, as a fingerprint, and where shards stood."""
    places = {str(shard): asdict(place) for shard, place in sorted(planned.items())}
    content = msgspec.json.encode([_print_of(retailer, changes), places])
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def planned_in(
    token: str, retailer: str, changes: tuple[ScopeChange, ...]
) -> Mapping[int, Planned]:
    """Return where the shards stood when the plan was made.

    Raises:
        Problem: the text is no plan, or the plan of another change.
    """
    try:
        content = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        printed, places = msgspec.json.decode(content, type=tuple[str, dict[int, Planned]])
    except (binascii.Error, UnicodeError, ValueError) as fault:
        raise _wrong_plan("is no plan") from fault
    if printed != _print_of(retailer, changes):
        raise _wrong_plan("is of other changes, or of another retailer; plan again")
    return places


def _print_of(retailer: str, changes: tuple[ScopeChange, ...]) -> str:
    return fingerprint(retailer, msgspec.json.encode(changes, order="sorted").decode())


def _wrong_plan(problem: str) -> Problem:
    return Problem(
        INVALID_REQUEST, f"plan: {problem}", errors=[FieldError(problem, pointer="/plan")]
    )


def _check(changes: tuple[ScopeChange, ...], pointer: str = "") -> None:
    """Refuse names and values that every shard would refuse, before anybody forks one.

    What is held against what a scope holds already is left to the shards, who know that.
    """
    for at, change in enumerate(changes):
        try:
            PolicyBook().checked("", change.scope, change.key, change.fields, change.priority)
        except RejectedInput as fault:
            kind = NOT_SUPPORTED if isinstance(fault, NotSupported) else INVALID_REQUEST
            place = f"{pointer}/changes/{at}{fault.pointer}"
            raise refused(RejectedInput(place, fault.problem, fault.fix), kind) from fault


def _warnings(
    changes: tuple[ScopeChange, ...], concerned: Sequence[Sequence[int]]
) -> tuple[FieldError, ...]:
    """Say of each change that is about no listing in any shard that its scope may be misspelt.

    It is no fault: a policy may be there before its listings.
    """
    counted = zip(changes, *concerned, strict=True)
    nobody = {(change.scope, change.key) for change, *counts in counted if not any(counts)}
    return _warned(changes, nobody)


def _warned(
    changes: tuple[ScopeChange, ...], nobody: Collection[tuple[ScopeKind, str]]
) -> tuple[FieldError, ...]:
    """Return a warning of each change whose place (scope, key) is among those without listings."""
    warnings = []
    for at, change in enumerate(changes):
        if change.scope != "retailer" and (change.scope, change.key) in nobody:
            key = change.key.replace("\x1f", " / ")
            told = (
                f"there is no {change.scope} {key!r} among the listings now: it is for later ones"
            )
            warnings.append(FieldError(told, pointer=f"/changes/{at}/key"))
    return tuple(warnings)


def _case(case: CaseBody, currency: str, pointer: str) -> Case:
    minor = 0
    if case.rival_price is not None:
        try:
            minor = price_minor(case.rival_price, currency, f"{pointer}/rival_price")
        except RejectedInput as fault:
            raise refused(fault) from fault
    return Case(
        name=case.name,
        cost_ratio=case.cost_ratio,
        rival_ratio=case.rival_ratio,
        rival_minor=minor,
        changes=case.changes,
    )


async def _ask(
    gateway: Gateway, retailer: str, asked: Mapping[str, Any]
) -> dict[int, Mapping[str, Any]]:
    """Ask a fork of each shard that holds the retailer, one after the other."""
    if gateway.forks is None:
        raise Problem(UNAVAILABLE, "this gateway has no forks to ask")
    answers = {}
    for destination in gateway.commands.to_retailer(retailer):
        shard = destination.partition
        question = msgspec.to_builtins({**asked, "shard": shard, "retailer": retailer})
        try:
            answer = await gateway.forks(question, FORK_DEADLINE_MS)
        except DeadlinePassed as fault:
            raise Problem(DEADLINE, str(fault), headers={"Retry-After": "5"}) from fault
        except FailedDependency as fault:
            raise Problem(UNAVAILABLE, str(fault), headers={"Retry-After": "1"}) from fault
        if "problem" in answer:
            raise _refused(answer["problem"])
        answers[shard] = answer
    return answers


def _refused(problem: Mapping[str, str]) -> Problem:
    kind = NOT_SUPPORTED if problem["kind"] == "not_supported" else INVALID_REQUEST
    detail = problem["detail"]
    return Problem(kind, detail, errors=[FieldError(detail, pointer=problem["pointer"])])


def _moves(name: str, parts: Sequence[Mapping[str, Any]], limit: int) -> Moves:
    """Put together what several shards foresee of one case."""
    counted = {
        key: sum(part[key] for part in parts)
        for key in ("listings", "moved", "in_force", "proposed", "raised", "lowered")
    }
    moves = [move for part in parts for move in part["moves"]]
    moves.sort(key=lambda move: -abs(move["change"]))
    change_sum = sum(part["change_sum"] for part in parts)
    return Moves(
        name=name,
        **counted,
        mean_change=change_sum / max(counted["moved"], 1),
        guardrails=_added([part["guardrails"] for part in parts]),
        states=_added([part["states"] for part in parts]),
        moves=tuple(_move(move) for move in moves[:limit]),
    )


def _added(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = sorted({name for part in parts for name in part})
    return {name: sum(part.get(name, 0) for part in parts) for name in names}


def _move(move: Mapping[str, Any]) -> Move:
    def priced(name: str) -> Money | None:
        minor = move[f"{name}_minor"]
        return money(minor, move["currency"]) if minor > 0 else None

    return Move(
        channel=move["channel"],
        sku=move["sku"],
        before=priced("before"),
        after=priced("after"),
        change=move["change"],
        state=move["state"],
        guardrail=move["guardrail"],
        floor=priced("floor"),
        ceiling=priced("ceiling"),
        without=priced("without"),
        reasons=tuple(move["reasons"]),
    )
