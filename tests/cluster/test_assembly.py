"""What is put together is taken apart whole."""

from pathlib import Path

from cluster.assembly import make_sinks
from cluster.settings import load
from persistence.memory_log import MemoryLogs
from persistence.ports import DEAD_LETTERS
from tests.cluster.watched import WatchedLogs


async def test_closing_the_stores_closes_the_logs_of_every_sink(tmp_path: Path) -> None:
    """A Kafka consumer that nobody closes says so when the loop is gone."""
    memory = MemoryLogs()
    await memory.create({DEAD_LETTERS: 1}, retention_ms=10**12)
    logs = WatchedLogs(memory)
    stores, sinks = make_sinks(load({"folder": tmp_path, "shards": {"count": 1}}), logs)
    await sinks["dead_letters"].position(0)
    assert len(logs.opened) == 1
    await stores.close()
    assert logs.opened[0].closed
