"""Commands that were given and what became of them.

The answer to a command waits for the decision that holds its outcome, so whoever got it reads his
own write. Given the same id again (from ``Idempotency-Key``), it gets the same answer and is not
sent twice, unless nobody knows whether the first attempt arrived.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from engine.decided import Outcome
from engine.deltas import AnyDelta
from gateway.replica import Changed, Replica

OPERATIONS_MAX = 100_000
KEPT_MS = 24 * 3600 * 1000

Status = Literal["pending", "done", "refused", "conflict", "not_supported", "duplicate"]
_WORST: tuple[Status, ...] = ("not_supported", "refused", "conflict", "done", "duplicate")
_ULID = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Operation(Struct, kw_only=True, eq=False):
    """One command: who may ask about it, what was asked, and which shards must answer."""

    id: str
    retailer: str
    delta: AnyDelta  # sent again as it was, so that the shard knows it for the same
    fingerprint: str
    began_ms: int
    shards: frozenset[int]
    sent: frozenset[int] = frozenset()
    waiting: bool = False  # a request waits for its answer just now

    @property
    def kind(self) -> str:
        """Return the type of the command's delta."""
        return type(self.delta).__name__


class Result(Struct, frozen=True):
    """How a command ended, over all shards that it concerned."""

    status: Status
    outcome: Outcome | None = None  # of the shard that it was taken from; None: none yet


class Operations:
    """The operations of one gateway, bounded, kept for a day."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._known: OrderedDict[str, Operation] = OrderedDict()
        self._wakes: dict[str, asyncio.Event] = {}
        replica.listeners.append(self._note)

    def find(self, operation_id: str) -> Operation | None:
        """Return an operation that this gateway was given."""
        return self._known.get(operation_id)

    def add(self, operation: Operation) -> None:
        """Remember an operation; forget those that are too old or too many."""
        known = self._known
        known[operation.id] = operation
        while known:
            oldest = next(iter(known.values()))
            too_old = oldest.began_ms < operation.began_ms - KEPT_MS
            if not too_old and len(known) <= OPERATIONS_MAX:
                return
            known.popitem(last=False)

    def result(self, operation_id: str, shards: frozenset[int]) -> Result:
        """Return what is known of a command that ``shards`` must answer."""
        outcomes = self._replica.outcomes(operation_id)
        if not shards <= outcomes.keys():
            return Result("pending")
        return worst(outcomes)

    async def wait(self, operation: Operation, seconds: float) -> Result:
        """Wait for the outcome, at most so long."""
        wake = self._wakes.setdefault(operation.id, asyncio.Event())
        try:
            async with asyncio.timeout(seconds):
                while True:
                    result = self.result(operation.id, operation.shards)
                    if result.status != "pending":
                        return result
                    wake.clear()
                    await wake.wait()
        except TimeoutError:
            return Result("pending")
        finally:
            self._wakes.pop(operation.id, None)

    def _note(self, changed: Changed) -> None:
        for outcome in changed.outcomes:
            wake = self._wakes.get(outcome.command_id)
            if wake is not None:
                wake.set()


def worst(outcomes: Mapping[int, Outcome]) -> Result:
    """Return the result over all shards: a command is done when none refused it."""
    for status in _WORST:
        for outcome in outcomes.values():
            if outcome.status == status:
                return Result(status, outcome)
    raise AssertionError(f"unknown outcomes {outcomes}")


def retailers_of(outcomes: Mapping[int, Outcome]) -> Sequence[str]:
    """Return whose command it was."""
    return sorted({outcome.retailer for outcome in outcomes.values()})


def ulid(now_ms: int) -> str:
    """Return a new id that sorts by time: 48 bits of milliseconds and 80 random ones."""
    number = (now_ms << 80) | secrets.randbits(80)
    return "".join(_ULID[(number >> shift) & 31] for shift in range(125, -1, -5))
