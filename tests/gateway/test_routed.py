"""Strong reads are shared only by those who asked before the owner was asked."""

import asyncio
from typing import Any

import pytest

from engine.errors import FailedDependency
from gateway.routed import RoutedReads


class Owner:
    """Answers when it is told to, with how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = asyncio.Semaphore(0)

    async def ask(self, shard: int, listing: int, deadline_ms: int) -> dict[str, Any]:
        self.asked += 1
        number = self.asked
        await self.answer.acquire()
        return {"number": number}


async def test_who_comes_later_gets_a_later_answer() -> None:
    """An answer under way may be older than a question that came meanwhile."""
    owner = Owner()
    reads = RoutedReads(owner.ask)
    first = asyncio.create_task(reads.read(0, 5, 1000))
    await asyncio.sleep(0.01)
    later = [asyncio.create_task(reads.read(0, 5, 1000)) for _ in range(10)]
    other = asyncio.create_task(reads.read(0, 6, 1000))
    await asyncio.sleep(0.01)
    assert owner.asked == 2
    for _ in range(3):
        owner.answer.release()
    assert (await first)["number"] == 1
    assert {(await each)["number"] for each in later} == {3}
    assert (await other)["number"] == 2
    assert owner.asked == 3


async def test_ones_deadline_does_not_end_anothers_read() -> None:
    owner = Owner()
    reads = RoutedReads(owner.ask)
    first = asyncio.create_task(reads.read(0, 5, 10_000))
    await asyncio.sleep(0.01)
    patient = asyncio.create_task(reads.read(0, 5, 10_000))
    with pytest.raises(TimeoutError):
        await reads.read(0, 5, 10)
    owner.answer.release()
    owner.answer.release()
    assert (await first)["number"] == 1
    assert (await patient)["number"] == 2


async def test_a_failure_reaches_all_who_asked_and_is_not_kept() -> None:
    failing = True

    async def ask(shard: int, listing: int, deadline_ms: int) -> dict[str, Any]:
        await asyncio.sleep(0.01)
        if failing:
            raise FailedDependency("gone")
        return {}

    reads = RoutedReads(ask)
    answers = await asyncio.gather(
        *(reads.read(0, 5, 1000) for _ in range(3)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [FailedDependency] * 3
    failing = False
    assert await reads.read(0, 5, 1000) == {}
