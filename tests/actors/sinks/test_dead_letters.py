"""Dead letters are as many as the exceptions, each with its original, after any crash."""

import json
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from actors.sinks import dead_letters as dead_letters_module
from actors.sinks.dead_letters import DeadLetters
from actors.sinks.delta_lanes import DeltaLanes
from actors.sinks.log_summary import summarize_log
from engine.errors import AppendInDoubt, CursorFenced, FailedDependency
from engine.microbatch import Position, Refusal
from persistence.memory_log import MemoryLogs
from persistence.ports import DEAD_LETTERS, DECISIONS, DELTAS, Log, Logs
from tests.actors.sinks.recorded import Faults, RecordedShard, follow


class FaultyLog:
    """The dead letters' log behind faults; the other logs are as they are."""

    def __init__(self, inner: Log, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults

    async def appender(self) -> "FaultyAppender":
        return FaultyAppender(await self.inner.appender(), self.faults)

    async def read(self, after: int, *, limit: int, wait_ms: int) -> Any:
        work = lambda: self.inner.read(after, limit=limit, wait_ms=0)  # noqa: E731
        return await self.faults.call("read", work, writes=False)

    async def start(self) -> int:
        return await self.faults.call("start", self.inner.start, writes=False)

    async def end(self) -> int:
        return await self.faults.call("end", self.inner.end, writes=False)

    async def close(self) -> None:
        await self.inner.close()


class FaultyAppender:
    """An appender that tells doubt as the port does, and is not used again after it."""

    def __init__(self, inner: Any, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults
        self.dead = False

    async def append_many(self, values: Sequence[Any]) -> Any:
        assert not self.dead, "an appender in doubt was used again"
        at_fault = self.faults.calls == self.faults.at
        try:
            return await self.faults.call(
                "append", lambda: self.inner.append_many(values), writes=True
            )
        except FailedDependency as error:
            if at_fault and self.faults.kind == "before":
                raise
            self.dead = True
            raise AppendInDoubt(str(error)) from error

    def abandon(self) -> None:
        self.dead = True

    async def close(self) -> None:
        await self.inner.close()


class FaultyLogs:
    """Logs of which only the dead letters are behind faults."""

    def __init__(self, inner: Logs, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults

    async def open(self, topic: str, partition: int) -> Any:
        log = await self.inner.open(topic, partition)
        return FaultyLog(log, self.faults) if topic == DEAD_LETTERS else log


async def refused_shard(seed: int) -> RecordedShard:
    recorded = await RecordedShard(seed=seed).open()
    await recorded.fill(20)
    return recorded


def of(recorded: RecordedShard, folder: Path, logs: Any = None) -> DeadLetters:
    return DeadLetters(
        logs or recorded.logs, recorded.lanes, folder, generation=recorded.generation
    )


async def letters_of(recorded: RecordedShard) -> list[dict[str, Any]]:
    log = await recorded.logs.open(DEAD_LETTERS, recorded.shard)
    records = await log.read(-1, limit=10_000, wait_ms=0)
    return [json.loads(record.value) for record in records]


async def expect_equal(recorded: RecordedShard, sink: DeadLetters) -> int:
    log = await recorded.logs.open(DECISIONS, recorded.shard)
    told = await summarize_log(log, None, shard=recorded.shard, generation=recorded.generation)
    held = await sink.summary(recorded.shard)
    assert held.letters == told.letters
    assert held.by_verdict == told.by_verdict
    return held.records


async def test_every_exception_is_a_letter_with_its_original(tmp_path: Path) -> None:
    recorded = await refused_shard(1)
    sink = await follow(recorded, lambda: of(recorded, tmp_path))
    records = await expect_equal(recorded, sink)
    letters = await letters_of(recorded)
    assert len(letters) == records > 5
    for letter in letters:
        lane = await recorded.logs.open(
            DELTAS if letter["lane"] == "deltas" else "repricer.commands.v1", recorded.shard
        )
        original = (await lane.read(letter["offset"] - 1, limit=1, wait_ms=0))[0]
        assert b64decode(letter["original"]) == original.value
        assert letter["bytes"] == len(original.value)
        assert letter["reason"] == "for a reason\x00"
        assert letter["record_key"] == "acme"


@pytest.mark.parametrize("kind", Faults.KINDS)
@pytest.mark.parametrize("batch", [3, 1000])
async def test_a_fault_at_any_call_neither_loses_nor_doubles_a_letter(
    kind: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only an append that arrives late may stand there twice, and is counted once."""
    monkeypatch.setattr(dead_letters_module, "LETTERS_PER_APPEND", 2)
    calls, at = 1, 0
    while at < calls:
        recorded = await refused_shard(4)
        faults = Faults(at, kind)
        logs = FaultyLogs(recorded.logs, faults)
        folder = tmp_path / str(at)
        sink = await follow(
            recorded,
            lambda recorded=recorded, folder=folder, logs=logs: of(recorded, folder, logs),
            batch=batch,
        )
        calls = faults.calls
        faults.at = -1
        records = await expect_equal(recorded, sink)
        if kind != "late":
            assert records == (await sink.summary(recorded.shard)).letters.rows
        at += 1
    assert calls > 5


async def test_a_lost_cursor_file_doubles_nothing(tmp_path: Path) -> None:
    recorded = await refused_shard(5)
    await follow(recorded, lambda: of(recorded, tmp_path))
    sink = await follow(recorded, lambda: of(recorded, tmp_path / "elsewhere"))
    records = await expect_equal(recorded, sink)
    assert records == len(await letters_of(recorded))
    assert records == (await sink.summary(recorded.shard)).letters.rows


async def test_a_second_follower_is_fenced(tmp_path: Path) -> None:
    recorded = await refused_shard(6)
    accepted = await recorded.accepted()
    one, other = of(recorded, tmp_path), of(recorded, tmp_path)
    await one.position(recorded.shard)
    await other.position(recorded.shard)
    await one.write(recorded.shard, accepted, None)
    with pytest.raises(CursorFenced):
        await other.write(recorded.shard, accepted[:9], None)


async def test_a_letter_outlives_its_original(tmp_path: Path) -> None:
    """Retention may be faster than a follower that was down: the count stays exact."""
    recorded = await refused_shard(7)
    lane = await recorded.logs.open(DELTAS, recorded.shard)
    lane.truncate(await lane.end())
    sink = await follow(recorded, lambda: of(recorded, tmp_path))
    await expect_equal(recorded, sink)
    gone = [letter for letter in await letters_of(recorded) if letter["gone"]]
    assert gone
    assert all(letter["original"] is None for letter in gone)


async def test_a_big_record_is_kept_once_and_shortened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters_module, "ORIGINAL_BYTES_MAX", 100)
    recorded = await RecordedShard().open()
    await recorded.begin_epoch()
    offset = await recorded.send(1, b"x" * 1000, "application/vnd.apache.arrow.stream")
    places = [Position(1, offset, index) for index in (3, 1, 2)]
    await recorded.decide(exceptions=[Refusal(place, "rejected", "no") for place in places])
    sink = await follow(recorded, lambda: of(recorded, tmp_path))
    await expect_equal(recorded, sink)
    first, *others = await letters_of(recorded)
    assert (first["index"], first["bytes"], b64decode(first["original"])) == (1, 1000, b"x" * 100)
    key = f"{recorded.generation}:0:1:{offset}:1"
    assert [(one["original"], one["original_in"]) for one in others] == [(None, key)] * 2


async def test_verdicts_can_be_left_out(tmp_path: Path) -> None:
    recorded = await refused_shard(8)
    sink = DeadLetters(
        recorded.logs,
        DeltaLanes(recorded.logs),
        tmp_path,
        generation=recorded.generation,
        verdicts={"rejected"},
    )
    await follow(recorded, lambda: sink)
    assert set((await sink.summary(recorded.shard)).by_verdict) == {"rejected"}


async def test_a_torn_cursor_file_is_a_failed_dependency(tmp_path: Path) -> None:
    recorded = await RecordedShard(generation=7).open()
    (tmp_path / "dead_letters-g7-000.json").write_text("{")
    with pytest.raises(FailedDependency):
        await of(recorded, tmp_path, MemoryLogs()).position(0)
