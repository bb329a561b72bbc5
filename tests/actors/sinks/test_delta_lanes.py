"""Followers read deltas whole: a slow log is neither an end nor a hole."""

from typing import Any

import pytest

from actors.sinks.delta_lanes import READ_TRIES, DeltaLanes
from engine.errors import FailedDependency, LogRegressed
from persistence.memory_log import MemoryLogs
from persistence.ports import DELTAS, Log, Record


class SlowLog:
    """Answers some reads with nothing although there is more, as a busy broker does."""

    def __init__(self, log: Log, empty: int) -> None:
        self._log = log
        self.empty = empty

    async def read(self, after: int, *, limit: int, wait_ms: int) -> list[Record]:
        if self.empty > 0:
            self.empty -= 1
            return []
        return await self._log.read(after, limit=limit, wait_ms=wait_ms)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


async def slow_lanes(records: int, empty: int, monkeypatch: pytest.MonkeyPatch) -> DeltaLanes:
    logs = MemoryLogs()
    await logs.create({DELTAS: 1}, retention_ms=10**12)
    log = await logs.open(DELTAS, 0)
    appender = await log.appender()
    for number in range(records):
        await appender.append(b"%d" % number)
    slow = SlowLog(log, empty)

    async def open_slow(topic: str, partition: int) -> Any:
        return slow

    monkeypatch.setattr(logs, "open", open_slow)
    return DeltaLanes(logs)


async def test_reads_that_come_back_empty_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = await slow_lanes(5, READ_TRIES - 1, monkeypatch)
    assert [record.value for record in await lanes.read(0, 1, 1, 3)] == [b"2", b"3"]


async def test_one_that_never_answers_is_tried_again_by_the_follower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lanes = await slow_lanes(5, READ_TRIES, monkeypatch)
    with pytest.raises(FailedDependency):
        await lanes.read(0, 1, 1, 3)


async def test_a_log_that_ends_before_what_was_consumed_is_no_slow_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lanes = await slow_lanes(3, 1, monkeypatch)
    with pytest.raises(LogRegressed):
        await lanes.read(0, 1, 1, 3)
