"""A promotion and the shards that answer it: owners by hand, logs that must not stay open."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from cluster import promoting
from cluster.settings import Settings, ShardSettings
from engine.decided import Outcome
from engine.deltas import AnyDelta, ModelPromoted
from engine.errors import FailedDependency
from persistence.memory_log import MemoryLogs
from persistence.ports import COMMANDS, DECISIONS
from tests.cluster.watched import WatchedLogs
from tests.gateway.hand import COMMAND, GENERATION, SHARDS, HandClock, Owner

RULES = ModelPromoted(retailer="acme", model="rules", stage="champion", observed_ms=0)
DAY_MS = 86_400_000


class Promoted:
    """Two owners that answer, the settings they live by, and the times they were told."""

    def __init__(self, settings: Settings, logs: WatchedLogs, clocks: Sequence[HandClock]) -> None:
        self.settings = settings
        self.logs = logs
        self.clocks = clocks
        self.told: dict[int, list[int]] = {shard: [] for shard in range(SHARDS)}
        self.deaf: set[int] = set()

    async def live(self, owner: Owner) -> None:
        """Answer what comes, unless this owner is deaf."""

        def decide(delta: AnyDelta) -> tuple[Outcome, Sequence[np.ndarray]]:
            assert isinstance(delta, ModelPromoted)
            assert delta.command_id is not None
            self.told[owner.shard].append(delta.observed_ms)
            name = "other" if owner.shard in self.deaf else delta.command_id
            return Outcome(name, COMMAND, "acme", "cli", "done", "ModelPromoted"), ()

        await owner.answer_all(decide)


@asynccontextmanager
async def two_shards(folder: Path) -> AsyncIterator[Promoted]:
    """Let a retailer live on two shards, the second of which is three days ahead."""
    memory = MemoryLogs()
    await memory.create(dict.fromkeys((COMMANDS, DECISIONS), SHARDS), retention_ms=10**12)
    clocks = [HandClock() for _ in range(SHARDS)]
    clocks[1].pass_ms(3 * DAY_MS)
    shards = ShardSettings(count=SHARDS, generation=GENERATION, clock="event", spreads={"acme": 8})
    settings = Settings(folder=folder, shards=shards)
    at = Promoted(settings, WatchedLogs(memory), clocks)
    owners = [Owner(memory, shard, clocks[shard]) for shard in range(SHARDS)]
    for owner in owners:
        await owner.start()
        await owner.decide()
    living = [asyncio.create_task(at.live(owner)) for owner in owners]
    try:
        yield at
    finally:
        for task in living:
            task.cancel()
        await asyncio.wait(living)


async def test_every_shard_is_told_its_own_time(tmp_path: Path) -> None:
    """On event time the fastest shard's would carry the others days ahead."""
    async with two_shards(tmp_path) as at:
        outcomes = await promoting.promote(at.settings, at.logs, RULES)
        assert [of.status for of in outcomes] == ["done", "done"]
        for shard, told in at.told.items():
            assert told == [at.clocks[shard].wall + 1]
        assert all(log.closed for log in at.logs.opened)


async def test_a_shard_that_cannot_be_opened_leaves_no_log_open(tmp_path: Path) -> None:
    async with two_shards(tmp_path) as at:
        at.logs.broken = {(DECISIONS, 1)}
        with pytest.raises(FailedDependency, match=f"{DECISIONS} 1"):
            await promoting.promote(at.settings, at.logs, RULES)
        assert [log.closed for log in at.logs.opened] == [True]


async def test_an_error_of_one_shard_waits_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the logs are closed while the others still read them."""
    monkeypatch.setattr(promoting, "ANSWER_S", 0.3)
    async with two_shards(tmp_path) as at:
        at.logs.broken, at.deaf = {(COMMANDS, 0)}, {1}
        before = asyncio.all_tasks()
        with pytest.raises(FailedDependency, match=f"{COMMANDS} 0"):
            await promoting.promote(at.settings, at.logs, RULES)
        assert asyncio.all_tasks() == before
        assert at.told[1], "the other shard was asked"
        assert all(log.closed for log in at.logs.opened)


async def test_a_log_that_hands_out_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promoting, "REACH_S", 0.1)
    async with two_shards(tmp_path) as at:
        at.logs.slow_ms = 30
        with pytest.raises(FailedDependency, match="read to offset -1 of 1 in"):
            async with asyncio.timeout(10):
                await promoting.promote(at.settings, at.logs, RULES)
        assert not any(at.told.values())
        assert all(log.closed for log in at.logs.opened)
