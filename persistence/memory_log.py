"""The log port in memory: for tests, worlds and whoever wants nothing kept.

All readers and writers of a topic share one list per partition within the process. Besides the
port it offers what a test needs to break it: :meth:`MemoryLog.truncate`, :meth:`MemoryLog.regress`
and :meth:`MemoryLog.skip`.
"""

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

from engine.errors import LogRegressed, LogTruncated
from persistence.ports import (
    Appended,
    Record,
    missing_topic,
    refuse_missing_partition,
    refuse_other_topic,
    refuse_oversize,
)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class MemoryLog:
    """One partition of one topic, a list."""

    def __init__(self, now_ms: Callable[[], int], retention_ms: int) -> None:
        self._now_ms = now_ms
        self._retention_ms = retention_ms
        self._records: list[Record] = []
        self._start = 0
        self._end = 0
        self._grown: set[asyncio.Event] = set()

    async def appender(self) -> "MemoryAppender":
        return MemoryAppender(self)

    async def read(self, after: int, *, limit: int, wait_ms: int) -> list[Record]:
        found = self._read(after, limit)
        if found or wait_ms <= 0:
            return found
        grown = asyncio.Event()
        self._grown.add(grown)
        try:
            await asyncio.wait_for(grown.wait(), wait_ms / 1000)
        except TimeoutError:
            pass
        finally:
            self._grown.discard(grown)
        return self._read(after, limit)

    async def start(self) -> int:
        return self._start

    async def end(self) -> int:
        return self._end

    async def close(self) -> None:
        """Do nothing: the list belongs to the :class:`MemoryLogs`."""

    def append(self, value: bytes, key: bytes | None, content_type: str) -> Appended:
        """Append at once; :class:`MemoryAppender` is the port's way in."""
        appended = Appended(self._end, self._now_ms())
        self._records.append(
            Record(appended.offset, appended.appended_ms, key, value, content_type)
            if content_type
            else Record(appended.offset, appended.appended_ms, key, value)
        )
        self._end += 1
        oldest_ms = appended.appended_ms - self._retention_ms
        if self._retention_ms >= 0 and self._records[0].appended_ms < oldest_ms:
            kept = next(r.offset for r in self._records if r.appended_ms >= oldest_ms)
            self.truncate(kept)
        for grown in self._grown:
            grown.set()
        return appended

    def truncate(self, before: int) -> None:
        """Forget the records with a lower offset, as retention does."""
        assert before <= self._end
        self._start = max(self._start, before)
        self._records = [record for record in self._records if record.offset >= before]

    def regress(self, end: int) -> None:
        """Lose the records from ``end`` on, as a broker without its disk does."""
        self._end = end
        self._start = min(self._start, end)
        self._records = [record for record in self._records if record.offset < end]

    def skip(self, offsets: int) -> None:
        """Leave a hole, as Kafka may."""
        self._end += offsets

    def _read(self, after: int, limit: int) -> list[Record]:
        if after + 1 < self._start:
            raise LogTruncated(f"offset {after + 1} is gone, the log starts at {self._start}")
        if after + 1 > self._end:
            raise LogRegressed(f"offset {after} was there, the log ends at {self._end}")
        first = bisect_right(self._records, after, key=lambda record: record.offset)
        return self._records[first : first + limit]


class MemoryAppender:
    """A writing session on a :class:`MemoryLog`; never in doubt."""

    def __init__(self, log: MemoryLog) -> None:
        self._log: MemoryLog | None = log

    async def append(
        self, value: bytes, *, key: bytes | None = None, content_type: str = ""
    ) -> Appended:
        return (await self.append_many([(key, value, content_type)]))[0]

    async def append_many(
        self, values: Sequence[tuple[bytes | None, bytes, str]]
    ) -> Sequence[Appended]:
        assert self._log is not None, "this appender was closed or abandoned"
        for _, value, _ in values:
            refuse_oversize(value)
        return [self._log.append(value, key, content_type) for key, value, content_type in values]

    def abandon(self) -> None:
        self._log = None

    async def close(self) -> None:
        self._log = None


class MemoryLogs:
    """All topics, in memory. What is created here lives as long as this object."""

    def __init__(self, now_ms: Callable[[], int] = _wall_ms) -> None:
        self._now_ms = now_ms
        self._topics: dict[str, tuple[list[MemoryLog], int]] = {}

    async def create(self, topics: Mapping[str, int], *, retention_ms: int) -> None:
        for topic, partitions in topics.items():
            if topic in self._topics:
                found, kept_ms = self._topics[topic]
                refuse_other_topic(topic, len(found), partitions, kept_ms, retention_ms)
        for topic, partitions in topics.items():
            if topic not in self._topics:
                logs = [MemoryLog(self._now_ms, retention_ms) for _ in range(partitions)]
                self._topics[topic] = (logs, retention_ms)

    async def open(self, topic: str, partition: int) -> MemoryLog:
        refuse_missing_partition(topic, partition, await self.partitions(topic))
        return self._topics[topic][0][partition]

    async def partitions(self, topic: str) -> int:
        if topic not in self._topics:
            raise missing_topic(topic)
        return len(self._topics[topic][0])

    async def close(self) -> None:
        """Do nothing: the lists go when this object goes."""
