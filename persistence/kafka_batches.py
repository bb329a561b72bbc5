"""Records out of a consumer a whole batch at a time, without the library's object for each.

``getmany`` makes a ``ConsumerRecord`` of each record through a generator: 1.5 us a record, more
than all that we do with it. The batches that its fetcher holds are C: iterating one and making our
own records of it costs a quarter. Everything else stays the library's: positions, leaders, errors
and when to fetch again. What is used of it that is not public stands in this file.
"""

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import CorruptRecordException

from engine.errors import SettingsRefused
from persistence.ports import Record

CONTENT_TYPE_HEADER = "content-type"
JSON = "application/json"  # what a record without the header holds
LOG_APPEND_TIME = 1


class FetchedBatches:
    """What was fetched of one partition and not read yet."""

    def __init__(self, place: TopicPartition) -> None:
        self._place = place
        self._unread: list[Record] = []
        self._next = 0

    def forget(self) -> None:
        """Drop what was fetched: reading goes on elsewhere."""
        self._unread, self._next = [], 0

    async def read(self, consumer: AIOKafkaConsumer, *, limit: int, wait_ms: int) -> list[Record]:
        """Return up to ``limit`` records, after waiting for the first of them if need be.

        Raises:
            KafkaError: as ``getmany``.
        """
        if self._next == len(self._unread):
            self._unread, self._next = await self._fetched(consumer, wait_ms / 1000), 0
        records = self._unread[self._next : self._next + limit]
        self._next += len(records)
        while len(records) < limit and (more := self._batch(consumer)):
            self._unread, self._next = more, limit - len(records)
            records += more[: self._next]
            self._next = min(self._next, len(more))
        return records

    async def _fetched(self, consumer: AIOKafkaConsumer, wait_s: float) -> list[Record]:
        """Return the next batch that has records; none if there is none in time."""
        until = time.monotonic() + wait_s
        while True:
            records = self._batch(consumer)
            left = until - time.monotonic()
            if records or left <= 0.0:
                return records
            waiter = consumer._fetcher._create_fetch_waiter()
            done, _ = await asyncio.wait([waiter], timeout=left)
            if not done:
                waiter.cancel()
                return []
            waiter.result()  # raises what the fetcher was refused for

    def _batch(self, consumer: AIOKafkaConsumer) -> list[Record]:
        """Take the next batch with records that the fetcher holds."""
        fetcher, place = consumer._fetcher, self._place
        while place in fetcher._records:
            result = fetcher._records[place]
            # A result that is no result is an error; one from before a seek is of no use.
            if type(result) is not FetchResult or not result.check_assignment(place):
                self._done(consumer)
                if type(result) is not FetchResult:
                    result.check_raise()
                continue
            partition = result._partition_records
            records: list[Record] = []
            if partition._records.has_next():
                batch = partition._records.next_batch()
                if not batch.validate_crc():
                    self._done(consumer)  # it is fetched again
                    raise CorruptRecordException(f"Invalid CRC - {place}")
                if not batch.is_control_batch:
                    refuse_other_time(place.topic, batch.timestamp_type)
                    records = _records(batch, partition.next_fetch_offset)
                partition.next_fetch_offset = batch.next_offset
                result._update_position()
            if not partition._records.has_next():
                self._done(consumer)
            if records:
                return records
        return []

    def _done(self, consumer: AIOKafkaConsumer) -> None:
        """Let the fetcher fetch on."""
        fetcher = consumer._fetcher
        del fetcher._records[self._place]
        fetcher._notify(fetcher._wait_consume_future)


def _records(batch: Any, first_offset: int) -> list[Record]:
    records = [
        _with_headers(found)
        if found.headers
        else Record(found.offset, found.timestamp, found.key, found.value or b"")
        for found in batch
    ]
    # A batch is fetched whole, also when reading begins in its middle.
    if records and records[0].offset < first_offset:
        records = [record for record in records if record.offset >= first_offset]
    return records


def _with_headers(found: Any) -> Record:
    content_type = JSON
    for name, value in found.headers:
        if name == CONTENT_TYPE_HEADER:
            content_type = value.decode(errors="replace")
    return Record(found.offset, found.timestamp, found.key, found.value or b"", content_type)


def refuse_other_time(topic: str, timestamp_type: int | None) -> None:
    """Raise ``SettingsRefused`` unless the broker's time stands on the records of a topic."""
    if timestamp_type != LOG_APPEND_TIME:
        raise SettingsRefused(
            f"topic {topic} has message.timestamp.type=CreateTime, wanted LogAppendTime"
        )
