"""Answers that only an owner can give: how old each is, and what is told where none comes."""

from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from engine.errors import DeadlinePassed, FailedDependency
from gateway.call import RETRY, Gateway, age_of
from gateway.money import rfc3339
from gateway.problems import DEADLINE, UNAVAILABLE, Problem
from gateway.shard_view import STALE_MS, Age


async def aged(
    gateway: Gateway, shard: int, asking: Awaitable[Mapping[str, Any]], *, strong: bool = False
) -> tuple[Age, Mapping[str, Any]]:
    """Return what an owner answers, and how old that is: it is as of his last microbatch.

    ``strong`` says that he waits for a mark that comes after the question.
    """
    view, clock = gateway.replica.shards[shard], gateway.clock
    silent = age_of(gateway, (shard,)).stale
    asked_ms, asked_monotonic_ms = clock.wall_ms(), clock.monotonic_ms()
    answer = await asking
    waited_ms = max(clock.wall_ms() - asked_ms, clock.monotonic_ms() - asked_monotonic_ms)
    decided_ms: int = answer["decided_ms"]
    if strong:
        old = waited_ms > STALE_MS
    elif view.clock == "event":
        old = silent or waited_ms > STALE_MS  # his time is not ours
    else:
        old = max(waited_ms, clock.wall_ms() - decided_ms) > STALE_MS
    return Age(rfc3339(decided_ms), old), answer


@contextmanager
def owner_problems(deadline_ms: int) -> Iterator[None]:
    """Turn what keeps an owner from answering into the problem that the caller is told."""
    try:
        yield
    except (TimeoutError, DeadlinePassed) as fault:
        raise Problem(DEADLINE, f"no answer within {deadline_ms} ms", headers=RETRY) from fault
    except FailedDependency as fault:
        detail = "the owner cannot be asked now"
        raise Problem(UNAVAILABLE, detail, headers=RETRY) from fault
