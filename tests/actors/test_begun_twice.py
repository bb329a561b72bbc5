"""A start that began twice has two owners of one name, and no tie rule tells them apart."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from actors.shard_actor import ShardActor
from engine.errors import StaleEpoch
from persistence.memory_log import MemoryLog
from persistence.ports import Appender
from tests.actors.owned import Home
from tests.sim.feed import count


@pytest.fixture
async def place(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    await made.create()
    return made


async def twins(place: Home, monkeypatch: pytest.MonkeyPatch) -> tuple[ShardActor, ShardActor]:
    """Return two owners of one name who sealed at the same moment, and so reign in one epoch."""
    first = place.owner()
    place.owners -= 1
    second = place.owner()
    both, appender = asyncio.Barrier(2), MemoryLog.appender

    async def at_once(self: MemoryLog) -> Appender:
        await both.wait()
        return await appender(self)

    with monkeypatch.context() as gate:
        gate.setattr(MemoryLog, "appender", at_once)
        await asyncio.gather(first.start(), second.start())
    return first, second


async def overtaken(
    owner: ShardActor, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], Awaitable[object]]
) -> None:
    """Let an owner decide, and something happen before its decision is appended."""
    reign: Any = owner._reign
    append = reign.append

    async def late(decided: Any) -> Any:
        await meanwhile()
        return await append(decided)

    with monkeypatch.context() as slow:
        slow.setattr(reign, "append", late)
        await owner.step()


async def test_a_twin_that_decided_otherwise_ends_the_one_behind(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for his own, the record would stand for what he never decided."""
    first, second = await twins(place, monkeypatch)

    async def of_a_delta() -> None:
        await place.send(count("a", 5, 1))
        while not second.status()["waiting_deltas"]:
            await asyncio.sleep(0.001)
        await second.step()

    with pytest.raises(StaleEpoch):
        await overtaken(first, monkeypatch, of_a_delta)
    await second.step()
    decided = [one.decided for one in await place.accepted() if one.decided is not None]
    assert [each.last_delta for each in decided] == [0, 0]


async def test_a_twin_ahead_ends_the_one_behind(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await twins(place, monkeypatch)

    async def thrice() -> None:
        for _ in range(3):
            await second.step()

    with pytest.raises(StaleEpoch):
        await overtaken(first, monkeypatch, thrice)
