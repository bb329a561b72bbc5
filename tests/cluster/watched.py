"""Logs in memory that watch who closes what he opened."""

import asyncio
from typing import Any

from engine.errors import FailedDependency
from persistence.memory_log import MemoryLogs
from persistence.ports import Appender, Log, Record


class WatchedLog:
    """A log that may not be used once it is closed; ``slow_ms`` passes before it is read."""

    def __init__(self, log: Log, slow_ms: int = 0) -> None:
        self.closed = False
        self._log = log
        self._slow_ms = slow_ms

    async def appender(self) -> Appender:
        return await self._log.appender()

    async def read(self, after: int, *, limit: int, wait_ms: int) -> list[Record]:
        assert not self.closed
        found = await self._log.read(after, limit=limit, wait_ms=min(wait_ms, 20))
        await asyncio.sleep(self._slow_ms / 1000)
        assert not self.closed, "closed under its reader"
        return [] if self._slow_ms else found

    async def start(self) -> int:
        return await self._log.start()

    async def end(self) -> int:
        return await self._log.end()

    async def close(self) -> None:
        self.closed = True


class WatchedLogs:
    """Logs that remember what was opened; a place in ``broken`` cannot be opened."""

    def __init__(self, logs: MemoryLogs) -> None:
        self.opened: list[WatchedLog] = []
        self.broken: set[tuple[str, int]] = set()
        self.slow_ms = 0
        self._logs = logs

    async def create(self, topics: Any, *, retention_ms: int) -> None:
        await self._logs.create(topics, retention_ms=retention_ms)

    async def open(self, topic: str, partition: int) -> WatchedLog:
        if (topic, partition) in self.broken:
            raise FailedDependency(f"{topic} {partition} does not answer")
        self.opened.append(WatchedLog(await self._logs.open(topic, partition), self.slow_ms))
        return self.opened[-1]

    async def partitions(self, topic: str) -> int:
        return await self._logs.partitions(topic)

    async def close(self) -> None:
        await self._logs.close()
