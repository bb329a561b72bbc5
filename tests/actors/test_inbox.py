"""How two lanes are cut into microbatches, as they come and as a decision says."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from actors.inbox import AHEAD_BYTES_MAX, Inbox, InboxLimits, Lane
from engine.errors import LogRegressed, LogTruncated
from engine.microbatch import Microbatch
from kernels.limits import ROWS_PER_DECISION_MAX
from persistence.memory_log import MemoryLog
from persistence.ports import COMMANDS, DELTAS, Record
from persistence.wire import Decoder
from tests.actors.owned import Home
from tests.sim.feed import count

LIMITS = InboxLimits(commands_max=2, deltas_max=4)


@pytest.fixture
async def place(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    await made.create()
    return made


async def inbox(place: Home, limits: InboxLimits = LIMITS) -> Inbox:
    lanes = [await place.logs.open(topic, 0) for topic in (COMMANDS, DELTAS)]
    made = Inbox(lanes[0], lanes[1], Decoder(0, 1, {}), limits)
    made.begin(-1, -1)
    return made


def marks(batch: Microbatch) -> tuple[int, int, int]:
    return batch.last_command, batch.last_delta, batch.deltas


async def filled(place: Home, commands: int, deltas: int) -> Inbox:
    """Return an inbox that has read ahead what it may."""
    await place.send(*(count("a", units, units) for units in range(commands)), topic=COMMANDS)
    await place.send(*(count("a", units, units) for units in range(deltas)))
    made = await inbox(place)
    for _ in range(20):
        await asyncio.sleep(0)
    return made


async def test_commands_come_first_and_both_are_bounded(place: Home) -> None:
    reading = await filled(place, 3, 6)
    assert marks(await reading.read(wait_ms=1_000)) == (1, 3, 6)
    assert marks(await reading.read(wait_ms=1_000))[0] == 2
    await reading.close()


async def test_one_at_a_time_a_command_first(place: Home) -> None:
    reading = await filled(place, 1, 2)
    found = [marks(await reading.read(wait_ms=1_000, records_max=1)) for _ in range(3)]
    assert found == [(0, -1, 1), (0, 0, 1), (0, 1, 1)]
    await reading.close()


async def test_so_many_at_a_time_of_one_lane(place: Home) -> None:
    reading = await filled(place, 1, 4)
    found = [marks(await reading.read(wait_ms=1_000, records_max=3)) for _ in range(3)]
    assert found == [(0, -1, 1), (0, 2, 3), (0, 3, 1)]
    await reading.close()


async def test_nothing_comes_and_it_says_so(place: Home) -> None:
    reading = await filled(place, 0, 0)
    assert marks(await reading.read(wait_ms=10)) == (-1, -1, 0)
    waiting = asyncio.create_task(reading.read(wait_ms=60_000))
    await asyncio.sleep(0.01)
    reading.wake()
    assert marks(await waiting) == (-1, -1, 0)
    await reading.close()


async def test_exactly_what_a_decision_consumed(place: Home) -> None:
    """Beyond the limits, too: another owner may have had others."""
    reading = await filled(place, 3, 6)
    assert marks(await reading.read_exactly(-1, 4)) == (-1, 4, 5)
    assert marks(await reading.read_exactly(2, 4)) == (2, 4, 3)
    waiting = asyncio.create_task(reading.read_exactly(2, 6))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await place.send(count("a", 7, 7))
    assert marks(await waiting) == (2, 6, 2)
    await reading.close()


async def test_a_decision_of_a_record_that_never_was(place: Home) -> None:
    """A lane that leaves a hole where a decision saw a record has lost it."""
    deltas = await place.logs.open(DELTAS, 0)
    assert isinstance(deltas, MemoryLog)
    await place.send(count("a", 1, 1))
    deltas.skip(1)
    await place.send(count("a", 2, 2))
    reading = await inbox(place)
    with pytest.raises(LogRegressed):
        await reading.read_exactly(-1, 1)
    await reading.close()


async def test_what_is_gone_is_told_to_who_waits(place: Home) -> None:
    await place.send(count("a", 1, 1), count("a", 2, 2))
    deltas = await place.logs.open(DELTAS, 0)
    assert isinstance(deltas, MemoryLog)
    deltas.truncate(1)
    reading = await inbox(place)
    with pytest.raises(LogTruncated):
        for _ in range(3):
            await reading.read(wait_ms=1_000)


async def test_big_records_are_not_read_ahead_by_the_thousand(place: Home) -> None:
    """What is held is bounded in bytes; every record still comes, one at least in each batch."""
    deltas = await place.logs.open(DELTAS, 0)
    assert isinstance(deltas, MemoryLog)
    for _ in range(200):
        deltas.append(b"x" * 500_000, b"acme", "application/json")
    lane = Lane(deltas, 2_048, 600_000, asyncio.Event())
    lane.begin(-1)
    taken = 0
    while taken < 200:
        await asyncio.sleep(0)
        assert lane.waiting() * 500_000 <= 5 * AHEAD_BYTES_MAX
        found = lane.take(2_048)
        assert len(found) <= 1
        taken += len(found)
    await lane.close()


async def test_more_is_taken_as_long_as_rows_find_room(place: Home) -> None:
    first = ROWS_PER_DECISION_MAX
    await place.send(*(count("a", units, units) for units in range(5 * first)))
    reading = await inbox(place, InboxLimits(deltas_max=2 * first))
    taken = []
    for room in (True, True, False):
        while reading.deltas.waiting() < 2 * first:
            await asyncio.sleep(0)
        taken.append((await reading.read(wait_ms=1_000, room=room)).deltas)
    assert taken == [4_096, 6_144, 7_168], "half more, up to 8,192, an eighth less"
    await reading.close()


async def test_closing_ends_a_read_that_swallows_a_cancellation(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that waits with a deadline may lose a cancellation that meets it."""
    asked, swallowed = asyncio.Event(), []

    async def read(after: int, *, limit: int, wait_ms: int) -> list[Record]:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if swallowed:
                raise
            swallowed.append(after)
        return []

    log = await place.logs.open(DELTAS, 0)
    monkeypatch.setattr(log, "read", read)
    lane = Lane(log, 4, 100, asyncio.Event())
    lane.begin(-1)
    await asked.wait()
    await lane.close()
    assert swallowed == [-1]


async def gathered(reading: Inbox, happens: Callable[[], Awaitable[None]]) -> bool:
    """Tell whether gathering for a minute ends once something happens, and not before."""
    gathering = asyncio.ensure_future(reading.gather(60_000))
    await asyncio.sleep(0.02)
    assert not gathering.done()
    await happens()
    await asyncio.wait([gathering], timeout=5)
    ended = gathering.done()
    gathering.cancel()
    await reading.close()
    return ended


async def test_gathering_ends_when_its_time_is_over(place: Home) -> None:
    reading = await filled(place, 0, 2)
    await reading.gather(1)
    assert marks(await reading.read(wait_ms=1_000)) == (-1, 1, 2)
    await reading.close()


async def test_gathering_waits_while_few_deltas_come_and_no_longer_for_a_command(
    place: Home,
) -> None:
    async def a_command() -> None:
        await place.send(count("a", 1, 9), topic=COMMANDS)

    assert await gathered(await filled(place, 0, 2), a_command)


async def test_gathering_ends_when_a_strong_read_wakes_it(place: Home) -> None:
    reading = await filled(place, 0, 2)

    async def woken() -> None:
        reading.wake()

    assert await gathered(reading, woken)


async def test_gathering_ends_when_what_waits_is_much(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = await filled(place, 0, 2)
    monkeypatch.setattr("actors.inbox.MUCH_BYTES", reading.deltas.waiting_bytes() + 1)

    async def one_more() -> None:
        await place.send(count("a", 1, 9))

    assert await gathered(reading, one_more)


async def test_gathering_raises_what_stopped_a_lane(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = await filled(place, 0, 2)

    async def lost(*_: object, **__: object) -> list[Record]:
        raise LogTruncated("gone")

    monkeypatch.setattr(reading.deltas._log, "read", lost)
    await place.send(count("a", 1, 9))
    with pytest.raises(LogTruncated):
        async with asyncio.timeout(5):
            await reading.gather(60_000)
    await reading.close()
