"""A follower writes each decision once, waits for its store, and stops when it must."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from actors.follower import Follower, check_cursor
from actors.inbox import read_span
from engine.errors import CursorFenced, FailedDependency, LogTruncated, WriteInDoubt
from persistence.decision_reader import Accepted
from persistence.decision_records import LogPosition
from persistence.memory_log import MemoryLog
from persistence.ports import DECISIONS, DELTAS
from tests.actors.owned import Home
from tests.sim.feed import count


class Table:
    """A sink that does what a test tells it, once each."""

    name = "table"

    def __init__(self) -> None:
        self.written: list[int] = []
        self.cursor: LogPosition | None = None
        self.to_raise: list[tuple[Exception, bool]] = []  # and whether it is written nevertheless

    async def position(self, shard: int) -> LogPosition | None:
        return self.cursor

    async def write(
        self, shard: int, accepted: Sequence[Accepted], expected: LogPosition | None
    ) -> None:
        error, does_write = self.to_raise.pop(0) if self.to_raise else (None, True)
        if does_write:
            check_cursor(self.cursor, expected)
            self.written += [one.decided.seq for one in accepted if one.decided]
            self.cursor = accepted[-1].position
        if error is not None:
            raise error


@pytest.fixture
async def place(tmp_path: Path) -> Home:
    """Return a log of five decisions."""
    made = Home(tmp_path)
    await made.create()
    owner = made.owner()
    await owner.start()
    for _ in range(5):
        await owner.step()
    await owner._let_go()
    return made


async def follower(place: Home, sink: Table, records_max: int = 2) -> Follower:
    log = await place.logs.open(DECISIONS, 0)
    made = Follower(0, log=log, sink=sink, generation=1, records_max=records_max)
    await made.begin()
    return made


@pytest.mark.parametrize(
    "trouble",
    [
        [],
        [(FailedDependency("down"), False)] * 3,
        [(WriteInDoubt("no answer"), True)],
        [(WriteInDoubt("no answer"), False)],
    ],
    ids=["none", "down", "in doubt, written", "in doubt, not written"],
)
async def test_each_decision_is_written_once(
    place: Home, trouble: list[tuple[Exception, bool]]
) -> None:
    sink = Table()
    sink.to_raise = list(trouble)
    following = await follower(place, sink)
    for _ in range(3):
        await following.step()
    assert sink.written == [1, 2, 3, 4, 5]
    assert following.status()["seq"] == 5
    assert following.lag_ms() < 60_000


async def test_another_goes_on_at_the_cursor(place: Home) -> None:
    sink = Table()
    await (await follower(place, sink)).step()
    second = await follower(place, sink)
    await second.step()
    await second.step()
    assert sink.written == [1, 2, 3, 4, 5]


async def test_of_two_followers_one_is_fenced(place: Home) -> None:
    sink = Table()
    first, second = await follower(place, sink), await follower(place, sink)
    await second.step()
    with pytest.raises(CursorFenced):
        await first.step()
    sink.to_raise = [(WriteInDoubt("no answer"), False)]
    third = await follower(place, sink)
    await second.step()
    with pytest.raises(CursorFenced):
        await third.step()
    assert sink.written == [1, 2, 3]


async def test_a_follower_lets_decisions_gather_between_two_writes(place: Home) -> None:
    sink = Table()
    log = await place.logs.open(DECISIONS, 0)
    paced = Follower(0, log=log, sink=sink, generation=1, records_max=3, pace_ms=60_000)
    running = asyncio.ensure_future(paced.run())
    while not sink.written:
        await asyncio.sleep(0.001)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert sink.written == [1, 2]  # the start of the reign is a record, too
    paced.hurry()
    while len(sink.written) < 5:
        await asyncio.sleep(0.001)
    assert sink.written == [1, 2, 3, 4, 5]
    running.cancel()
    await asyncio.wait({running})


async def test_a_pace_writes_everything_all_the_same(place: Home) -> None:
    sink = Table()
    log = await place.logs.open(DECISIONS, 0)
    paced = Follower(0, log=log, sink=sink, generation=1, records_max=2, pace_ms=5)
    running = asyncio.ensure_future(paced.run())
    while len(sink.written) < 5:
        await asyncio.sleep(0.001)
    assert sink.written == [1, 2, 3, 4, 5]
    running.cancel()
    await asyncio.wait({running})


async def test_a_log_without_its_head_stops_it(place: Home) -> None:
    log = await place.logs.open(DECISIONS, 0)
    assert isinstance(log, MemoryLog)
    log.truncate(3)
    following = Follower(0, log=log, sink=Table(), generation=1)
    with pytest.raises(LogTruncated):
        await following.run()
    assert following.stopped_by.startswith("LogTruncated")


async def test_a_slow_follower_is_nobodys_business(place: Home) -> None:
    sink = Table()
    sink.to_raise = [(FailedDependency("down"), False)] * 100
    following = asyncio.create_task((await follower(place, sink)).run())
    owner = place.owner()
    await owner.start()
    for _ in range(20):
        await owner.step()
    assert owner._shard.seq == 25
    assert sink.written == []
    following.cancel()


async def test_a_span_of_deltas_ends_at_the_mark(place: Home) -> None:
    await place.send(*(count("a", units, units) for units in range(7)))
    log = await place.logs.open(DELTAS, 0)
    found = [record.offset async for record in read_span(log, 1, 4, limit=2)]
    assert found == [2, 3, 4]
