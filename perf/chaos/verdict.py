"""What is judged when the faults are over: stores, replay, and whether everything lives."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

from engine.errors import PricingError
from perf.chaos.checker import Checker
from perf.chaos.learning import Marks, judge_learning
from perf.chaos.site import Site
from perf.comparison import compare_stores
from perf.real_stack import NotReached

REPLAY_S = 600.0

BACK_S: Final = 180.0
"""Who is not back by then breaks a rule."""

LATE_S: Final = 420.0
"""So much longer is waited for who comes back late.

Else all that it had not decided and written yet would be told as lost and as different, too.
"""


class Engine(Protocol):
    """What is asked whether it came back."""

    async def until_decided(self, wait_s: float) -> dict[str, Any]:
        """Return once every delta is decided and written, or raise ``NotReached``."""
        ...

    async def status(self) -> dict[str, Any]:
        """Return what the processes say of themselves."""
        ...


async def until_back(checker: Checker, engine: Engine) -> dict[str, Any]:
    """Wait until everything is decided and written, and note if that takes too long."""
    try:
        return await engine.until_decided(BACK_S)
    except NotReached as missing:
        checker.found("not_recovered", missing.whole)
    try:
        return await engine.until_decided(LATE_S)
    except NotReached:
        return await engine.status()


def judge_status(checker: Checker, status: Mapping[str, Any]) -> None:
    """Judge what the processes say of themselves: nothing waits for a person."""
    for place in status.get("supervisor", {}).get("shards", ()):
        if place["stopped"]:
            checker.found("stopped_for_good", f"shard {place['shard']}: {place['stopped']}")
    for follower in status["followers"]:
        if follower["stopped_by"]:
            name = f"follower {follower['follower']} of shard {follower['shard']}"
            checker.found("stopped_for_good", f"{name}: {follower['stopped_by']}")
    live = {each["shard"] for each in status["shards"] if each.get("phase") == "live"}
    for truth in checker.truths:
        if truth.shard not in live:
            checker.found("not_recovered", f"shard {truth.shard} has no live owner at the end")


def judge_stores(checker: Checker, unequal: list[str]) -> None:
    """Judge how the stores compare with the log."""
    for difference in unequal:
        checker.found("store_differs", difference[:600])


def judge_replay(checker: Checker, answer: Mapping[str, Any]) -> None:
    """Judge a replay of every decision."""
    if answer.get("error"):
        checker.found("replay_differs", str(answer["error"])[:600])
    elif answer["differences"]:
        checker.found("replay_differs", f"{answer['differences']} decisions differ")


def judge_left(checker: Checker, left: int) -> None:
    """Judge what the engine left behind when it was stopped."""
    if left:
        checker.found("process_left", f"{left} processes")


async def judge_whole(checker: Checker, site: Site, marks: Marks | None = None) -> dict[str, Any]:
    """Compare the stores with the log and replay it; return the figures.

    ``marks`` are those of the checkpoints, where retailers learn.
    """
    found: dict[str, Any] = {}
    try:
        compared = await compare_stores(site.settings)
        judge_stores(checker, compared.unequal)
        found |= {
            "stores_equal": compared.equal,
            "stores_counted_again": compared.counted_again,
            "prices_stored": compared.prices,
            "facts_stored": compared.facts,
            "letters": compared.letters,
            "letters_by_verdict": compared.by_verdict,
        }
    except PricingError as error:
        checker.found("not_recovered", f"the stores cannot be compared: {error}")
    try:
        answer = await asyncio.to_thread(site.engine.verb, "replay", wait_s=REPLAY_S)
        judge_replay(checker, answer)
        found |= {
            "replayed": answer.get("decisions", 0),
            "replay_differences": answer.get("differences"),
        }
        if marks is not None and "shards" in answer:
            found["learning"] = judge_learning(checker, answer, marks)
    except NotReached as error:
        checker.found("replay_differs", str(error)[:600])
    return found
