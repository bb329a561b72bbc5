"""A supervisor begins with what can be read of every shard's log."""

from pathlib import Path

from cluster.settings import load
from cluster.watching import open_decisions
from engine.errors import CorruptRecord
from persistence.memory_log import MemoryLogs
from persistence.ports import DECISIONS


async def test_a_log_that_cannot_be_read_blinds_one_shard_alone(tmp_path: Path) -> None:
    logs = MemoryLogs()
    await logs.create({DECISIONS: 3}, retention_ms=10**12)
    appender = await (await logs.open(DECISIONS, 1)).appender()
    await appender.append(b"no decision")
    settings = load({"folder": str(tmp_path)}, environment={})
    decisions, faults = await open_decisions(logs, range(3), settings)
    assert sorted(decisions) == [0, 2]
    assert list(faults) == [1]
    assert isinstance(faults[1], CorruptRecord)
