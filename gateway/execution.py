"""How a command is carried out: given an id, sent to its shards, and answered by its outcome."""

from collections.abc import Mapping

import msgspec
from aiohttp import web
from msgspec import Struct

from engine.deltas import AnyDelta, PlanApplied, Planned
from engine.errors import FailedDependency
from gateway.call import Call, Gateway, age_of, age_of_all
from gateway.commands import Destination
from gateway.documents import Listing
from gateway.keys import fingerprint
from gateway.money import Money, money
from gateway.operations import Operation, Result, Status, retailers_of, ulid
from gateway.problems import (
    CONFLICT,
    IN_FLIGHT,
    INVALID_REQUEST,
    KEY_REUSED,
    NOT_FOUND,
    NOT_SUPPORTED,
    REFUSED,
    UNAVAILABLE,
    FieldError,
    Problem,
)
from gateway.refusals import told

ANSWER_WAIT_S = 2.0
IDEMPOTENCY_KEY = "Idempotency-Key"
IDEMPOTENCY_KEY_CHARACTERS = 255


class OperationAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a command.

    ``recommendation`` is the listing's, with the command in effect, and says how old it is. An
    outcome is final; ``as_of`` and ``stale`` stand where there is none yet: up to when none was
    heard of.
    """

    operation_id: str
    status: Status
    kind: str
    detail: str = ""
    price: Money | None = None
    recommendation: msgspec.Raw | None = None
    as_of: str | None = None
    stale: bool | None = None
    warnings: tuple[FieldError, ...] = ()  # of what was done, and may not be what was meant


class Command(Struct, frozen=True, kw_only=True):
    """What a route was asked to do, checked, before it has an id."""

    delta: AnyDelta
    raw: bytes  # the body, so that another one under the same Idempotency-Key is noticed
    destinations: tuple[Destination, ...]
    listing: Listing | None = None
    row: int | None = None
    planned: Mapping[int, Planned] = {}  # of a plan, where each of its partitions stood
    warnings: tuple[FieldError, ...] = ()  # to go with the answer


_encode = msgspec.json.Encoder().encode


async def execute(gateway: Gateway, call: Call, command: Command) -> web.Response:
    """Carry out a command and answer with its outcome, or with 202 when that takes too long."""
    operation = _operation(gateway, call, command)
    if operation.waiting:
        raise Problem(IN_FLIGHT, "ask again in a moment", operation_id=operation.id)
    result = gateway.operations.result(operation.id, operation.shards)
    if result.status == "pending":
        operation.waiting = True
        try:
            await _send(gateway, command, operation)
            result = await gateway.operations.wait(operation, ANSWER_WAIT_S)
        finally:
            operation.waiting = False
    return _answer(gateway, command, operation, result)


async def read_operation(gateway: Gateway, call: Call) -> web.Response:
    """Say what became of a command; another's command and none look alike."""
    operation_id = call.part("operation_id")
    known = gateway.operations.find(operation_id)
    outcomes = gateway.replica.outcomes(operation_id)
    owners = [known.retailer] if known is not None else retailers_of(outcomes)
    if not owners or not all(call.credential.sees(owner) for owner in owners):
        detail = f"there is no operation {operation_id!r}"
        raise Problem(NOT_FOUND, detail, age=age_of_all(gateway))
    shards = known.shards if known is not None else frozenset(outcomes)
    kind = known.kind if known is not None else next(iter(outcomes.values())).kind
    result = gateway.operations.result(operation_id, shards)
    age = age_of(gateway, shards) if result.status == "pending" else None
    outcome = result.outcome
    listing = gateway.replica.listing_of_key(outcome.listing) if outcome is not None else None
    answer = OperationAnswer(
        operation_id=operation_id,
        status=result.status,
        kind=kind,
        detail=told(outcome, listing)[0] if outcome is not None else "",
        as_of=age.as_of if age is not None else None,
        stale=age.stale if age is not None else None,
    )
    return web.Response(body=_encode(answer), content_type="application/json")


def observed_ms(gateway: Gateway, destinations: tuple[Destination, ...]) -> int:
    """Return the time of a command, by the clock of the shards that it concerns.

    A cluster that is fed with history lives at its event time; a command from the wall clock would
    carry it years ahead.
    """
    views = [gateway.replica.shards[destination.partition] for destination in destinations]
    if any(view.clock == "event" for view in views):
        return max(view.decided_ms for view in views)
    return gateway.clock.wall_ms()


def _operation(gateway: Gateway, call: Call, command: Command) -> Operation:
    """Return the operation of a call, the earlier one when its Idempotency-Key was used before."""
    delta = command.delta
    key = call.request.headers.get(IDEMPOTENCY_KEY)
    asked = fingerprint(call.request.path, call.request.query_string, command.raw.hex())
    if key is None:
        operation_id = ulid(gateway.clock.wall_ms())
    else:
        if not 0 < len(key) <= IDEMPOTENCY_KEY_CHARACTERS or not key.isprintable():
            detail = f"{IDEMPOTENCY_KEY}: 1 to {IDEMPOTENCY_KEY_CHARACTERS} printable characters"
            error = FieldError(detail, header=IDEMPOTENCY_KEY)
            raise Problem(INVALID_REQUEST, detail, errors=[error])
        operation_id = fingerprint(delta.retailer, call.credential.id, key)
        known = gateway.operations.find(operation_id)
        if known is not None:
            if known.fingerprint != asked:
                raise _key_reused()
            return known
        outcomes = gateway.replica.outcomes(operation_id).values()
        if any(outcome.kind != type(delta).__name__ for outcome in outcomes):
            raise _key_reused()
    operation = Operation(
        id=operation_id,
        retailer=delta.retailer,
        delta=msgspec.structs.replace(delta, command_id=operation_id, actor=call.credential.id),
        fingerprint=asked,
        began_ms=gateway.clock.wall_ms(),
        shards=frozenset(destination.partition for destination in command.destinations),
    )
    gateway.operations.add(operation)
    return operation


def _key_reused() -> Problem:
    detail = f"{IDEMPOTENCY_KEY} came with another request: send another key with this one"
    return Problem(KEY_REUSED, detail, errors=[FieldError(detail, header=IDEMPOTENCY_KEY)])


async def _send(gateway: Gateway, command: Command, operation: Operation) -> None:
    """Send a command to each shard that it was not sent to before."""
    for destination in command.destinations:
        if destination.partition in operation.sent:
            continue
        delta = operation.delta
        if isinstance(delta, PlanApplied) and command.planned:
            place = command.planned[destination.partition]
            delta = msgspec.structs.replace(delta, planned=place)
        try:
            await gateway.commands.send(destination, delta)
        except FailedDependency as fault:
            raise Problem(
                UNAVAILABLE,
                "the command could not be recorded; send it again under the same key",
                operation_id=operation.id,
                headers={"Retry-After": "1"},
            ) from fault
        operation.sent |= {destination.partition}


def _answer(
    gateway: Gateway, command: Command, operation: Operation, result: Result
) -> web.Response:
    """Return the answer to a command that ended, or that still goes on."""
    kinds = {"conflict": CONFLICT, "refused": REFUSED, "not_supported": NOT_SUPPORTED}
    kind = kinds.get(result.status)
    listing, row, outcome = command.listing, command.row, result.outcome
    detail, errors = told(outcome, listing) if outcome is not None else ("", ())
    if kind is not None:
        raise Problem(kind, detail, errors=errors, operation_id=operation.id)
    pending = result.status == "pending"
    age = age_of(gateway, operation.shards) if pending else None
    answer = OperationAnswer(
        operation_id=operation.id,
        status=result.status,
        kind=operation.kind,
        detail=detail,
        price=(
            money(outcome.price_minor, listing.currency)
            if listing is not None and outcome is not None and outcome.price_minor
            else None
        ),
        recommendation=_in_effect(gateway, row) if row is not None and not pending else None,
        as_of=age.as_of if age is not None else None,
        stale=age.stale if age is not None else None,
        warnings=command.warnings,
    )
    return web.Response(
        body=_encode(answer),
        status=202 if pending else 200,
        headers={"Location": f"/api/v1/operations/{operation.id}"} if pending else None,
        content_type="application/json",
    )


def _in_effect(gateway: Gateway, row: int) -> msgspec.Raw:
    """Return a listing's recommendation as it stands now, with its age."""
    replica, clock = gateway.replica, gateway.clock
    view = replica.shards[replica.shard_of(row)]
    return msgspec.Raw(replica.body(row)[:-1] + view.tail(clock.wall_ms(), clock.monotonic_ms()))
