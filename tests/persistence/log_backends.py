"""The three logs as the contract test sees them: the port, and what breaks it from outside."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from persistence.kafka_log import KafkaLogs
from persistence.memory_log import MemoryLogs
from persistence.ports import Logs
from persistence.sqlite_log import SqliteLogs

KEPT_MS = 14 * 24 * 3_600_000


class Backend(Protocol):
    """A log and its breakage. All of it concerns partition 0 of a topic."""

    logs: Logs

    async def truncate(self, topic: str, before: int) -> None:
        """Make the log forget the records below an offset."""
        ...

    async def lose_all(self, topic: str, partitions: int) -> None:
        """Make the log lose everything, and be there again, empty."""
        ...

    async def leave_hole(self, topic: str) -> None:
        """Make the log hold an offset that no reader ever sees, behind its present end."""
        ...


class MemoryBackend:
    def __init__(self) -> None:
        self.memory = MemoryLogs()
        self.logs: Logs = self.memory

    async def truncate(self, topic: str, before: int) -> None:
        (await self.memory.open(topic, 0)).truncate(before)

    async def lose_all(self, topic: str, partitions: int) -> None:
        (await self.memory.open(topic, 0)).regress(0)

    async def leave_hole(self, topic: str) -> None:
        (await self.memory.open(topic, 0)).skip(1)


class SqliteBackend:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.logs: Logs = SqliteLogs(folder)

    async def truncate(self, topic: str, before: int) -> None:
        self._run(topic, "DELETE FROM records WHERE id <= ?", before)

    async def lose_all(self, topic: str, partitions: int) -> None:
        self._run(topic, "DELETE FROM records WHERE id > ?", 0)
        self._run(topic, "DELETE FROM sqlite_sequence WHERE name > ?", "")

    async def leave_hole(self, topic: str) -> None:
        self._run(topic, "UPDATE sqlite_sequence SET seq = seq + ?", 1)

    def _run(self, topic: str, sql: str, argument: object) -> None:
        connection = sqlite3.connect(self._folder / f"{topic}-0.sqlite")
        with connection:
            connection.execute(sql, (argument,))
        connection.close()


class KafkaBackend:
    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self.logs: Logs = KafkaLogs(bootstrap)

    async def truncate(self, topic: str, before: int) -> None:
        admin = await self._admin()
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before)})
        await admin.close()

    async def lose_all(self, topic: str, partitions: int) -> None:
        admin = await self._admin()
        await admin.delete_topics([topic])
        while topic in await admin.list_topics():
            await asyncio.sleep(0.05)
        await admin.close()
        await self.logs.create({topic: partitions}, retention_ms=KEPT_MS)

    async def leave_hole(self, topic: str) -> None:
        """Commit a transaction: its marker takes the offset behind its one record."""
        log = await self.logs.open(topic, 0)
        marker = await log.end() + 1
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, transactional_id=f"hole-in-{topic}"
        )
        await producer.start()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"before the hole", partition=0)
        await producer.stop()
        while await log.end() <= marker:  # the marker is written a little later
            await asyncio.sleep(0.01)
        await log.close()

    async def _admin(self) -> AIOKafkaAdminClient:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        return admin


BackendMaker = Callable[[], Backend]
