"""An owner of a toy shard on logs in memory, for the tests beside this file."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from actors.clock import Clock, WallClock
from actors.shard_actor import OwnerSettings, ShardActor
from engine.deltas import AnyDelta
from persistence.checkpoints import CheckpointFiles
from persistence.decision_reader import Accepted, DecisionReader
from persistence.memory_log import MemoryLogs
from persistence.ports import COMMANDS, DECISIONS, DELTAS
from persistence.wire import encode_delta
from tests.sim.toy_shard import ToyShard

SETTINGS = OwnerSettings(heartbeat_ms=20, checkpoint_interval_ms=10**9)


class Home:
    """One shard's logs and files."""

    def __init__(self, folder: Path, wall_ms: Callable[[], int] | None = None) -> None:
        self.logs = MemoryLogs() if wall_ms is None else MemoryLogs(now_ms=wall_ms)
        self.files = CheckpointFiles(folder)
        self.owners = 0

    async def create(self) -> None:
        topics = dict.fromkeys((COMMANDS, DELTAS, DECISIONS), 1)
        await self.logs.create(topics, retention_ms=10**12)

    def owner(
        self,
        *,
        shard: Callable[[Any], Any] = lambda shard: shard,
        machine: Clock | None = None,
        standby: bool = False,
        cautious: bool = False,
        lacking: Callable[[], Awaitable[str | None]] | None = None,
        **settings: Any,
    ) -> ShardActor:
        """Return an owner that has not begun; ``shard`` may put something around the toy."""
        self.owners += 1
        return ShardActor(
            0,
            logs=self.logs,
            checkpoints=self.files,
            clock=machine or WallClock(),
            settings=replace(SETTINGS, **settings),
            new_shard=lambda: shard(ToyShard()),
            restore=lambda parts: shard(ToyShard.restore(parts)),
            owner=self.owners.to_bytes(16, "big"),
            standby=standby,
            cautious=cautious,
            lacking=lacking,
        )

    async def send(self, *deltas: AnyDelta, topic: str = DELTAS) -> None:
        """Append deltas to a lane."""
        log = await self.logs.open(topic, 0)
        appender = await log.appender()
        for delta in deltas:
            await appender.append(
                encode_delta(delta), key=delta.retailer.encode(), content_type="application/json"
            )

    async def accepted(self) -> list[Accepted]:
        """Return everything in the decision log that counts."""
        log = await self.logs.open(DECISIONS, 0)
        reader = DecisionReader(None, shard=0, generation=1)
        records = await log.read(-1, limit=100_000, wait_ms=0)
        return [one for one in map(reader.accept, records) if one is not None]
