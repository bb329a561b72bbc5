"""A recording begins as far back as log and checkpoints allow, and says where and why."""

from pathlib import Path
from typing import Any, cast

import pytest

import cluster.recording
from cluster.assembly import checkpoint_folder
from cluster.recording import horizon_of, open_recording
from cluster.settings import Settings
from engine.errors import FailedDependency, LogTruncated, RejectedInput
from engine.shard import Shard
from persistence.checkpoints import CheckpointFiles, Increment
from persistence.decision_records import LogPosition
from persistence.ports import DECISIONS, Log, Logs, Record
from tests.cluster.site import site
from training.worlds.market import Market, World

DAY_MS = 86_400_000


class Cut:
    """A log whose head retention removed."""

    def __init__(self, start: int) -> None:
        self._start = start

    async def start(self) -> int:
        return self._start

    async def end(self) -> int:
        return 20


def cut(*starts: int) -> tuple[Log, list[Log]]:
    first, *rest = (cast(Log, Cut(start)) for start in starts)
    return first, rest


async def checkpoints(settings: Settings, *offsets: int, **more: Any) -> list[str]:
    """Write a base at each offset; its deltas end there, too."""
    files = CheckpointFiles(checkpoint_folder(settings, 0))
    return [
        await files.save(
            Increment(
                shard=0,
                generation=settings.shards.generation,
                position=LogPosition(b"l" * 16, offset, 1, b"o" * 16, offset),
                last_command=offset,
                last_delta=offset,
                decided_ms=offset * DAY_MS,
                digest=offset,
                replay_domain="",
                parent="",
                parts=more.get("parts", (Shard().checkpoint_close(),)),
            )
        )
        for offset in offsets
    ]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(folder=tmp_path)


async def test_a_whole_log_is_replayed_from_its_start(settings: Settings) -> None:
    await checkpoints(settings, 3)
    decisions, lanes = cut(0, 0, 0)
    assert await horizon_of(settings, 0, "oldest", decisions, lanes) == (
        None,
        "the start of the log",
    )


@pytest.mark.parametrize(("starts", "chosen"), [((6, 0, 0), 1), ((10, 8, 0), 2), ((10, 4, 10), 2)])
async def test_a_cut_log_is_replayed_from_the_oldest_checkpoint_whose_deltas_it_holds(
    settings: Settings, starts: tuple[int, ...], chosen: int
) -> None:
    names = await checkpoints(settings, *(3, 5, 9)[: chosen + 1])
    decisions, lanes = cut(*starts)
    chain, horizon = await horizon_of(settings, 0, "oldest", decisions, lanes)
    assert chain is not None
    assert chain.name == names[chosen]
    day = {1: "06", 2: "10"}[chosen]
    assert horizon == f"checkpoint {names[chosen]}, decided 1970-01-{day}T00:00:00Z"


async def test_nothing_that_reaches_back_is_told_with_what_was_refused(settings: Settings) -> None:
    (other,) = await checkpoints(settings, 9, parts=(b"\x82\xa6format\x01\xa6layout\xc4\x00",))
    decisions, lanes = cut(10, 0, 0)
    with pytest.raises(LogTruncated, match=f"checkpoint {other}: it is of format 1 "):
        await horizon_of(settings, 0, "oldest", decisions, lanes)
    with pytest.raises(RejectedInput, match="this version reads format 2"):
        await horizon_of(settings, 0, "checkpoint", decisions, lanes)


async def test_the_newest_checkpoint_is_taken_where_there_is_one_and_else_the_log(
    settings: Settings,
) -> None:
    """A fork has to be quick where it can, and to come about in any case."""
    decisions, lanes = cut(0, 0, 0)
    none = await horizon_of(settings, 0, "newest", decisions, lanes)
    assert none == (None, "the start of the log")
    _, newest = await checkpoints(settings, 3, 9)
    decisions, lanes = cut(10, 4, 10)
    chain, _ = await horizon_of(settings, 0, "newest", decisions, lanes)
    assert chain is not None
    assert chain.name == newest


class Faltering:
    """A decision log of which some reads bring nothing, as when a fetch from Kafka fails."""

    def __init__(self, log: Log, gives_after: int) -> None:
        self._log = log
        self._gives_after = gives_after
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def read(self, after: int, *, limit: int, wait_ms: int) -> list[Record]:
        self.reads += 1
        if self.reads % (self._gives_after + 1):
            return []
        return await self._log.read(after, limit=2, wait_ms=wait_ms)


class FalteringLogs:
    """Logs whose decision log falters."""

    def __init__(self, logs: Logs, gives_after: int) -> None:
        self._logs = logs
        self._gives_after = gives_after

    async def open(self, topic: str, partition: int) -> Log:
        log = await self._logs.open(topic, partition)
        return cast(Log, Faltering(log, self._gives_after)) if topic == DECISIONS else log


async def test_a_read_that_brings_nothing_is_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a slow log makes a replay without differences, and a fork of the past."""
    async with site(tmp_path / "data") as at:
        await at.feed(Market(5, 4, World()).opening())
        for _ in range(6):
            await at.actor.step()
        seq = at.shard.seq
        logs = cast(Logs, FalteringLogs(at.logs, gives_after=1))
        async with open_recording(at.settings, logs, 0, "oldest") as recording:
            found = [each.decided.seq async for each in recording.microbatches()]
        assert found == list(range(1, seq + 1))
        monkeypatch.setattr(cluster.recording, "SILENCE_S", 0.05)
        logs = cast(Logs, FalteringLogs(at.logs, gives_after=10**9))
        async with open_recording(at.settings, logs, 0, "oldest") as recording:
            with pytest.raises(FailedDependency, match="gives nothing behind -1"):
                _ = [each async for each in recording.microbatches()]
