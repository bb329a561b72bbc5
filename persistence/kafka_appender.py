"""Writing sessions on Kafka, and the connections that are closed behind our back.

A session is one idempotent producer for one partition. What was sent and not acknowledged in time
is in doubt, and its producer is dropped: it would send it again for as long as it lives.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.structs import RecordMetadata

from engine.errors import AppendInDoubt, SettingsRefused
from persistence.kafka_batches import CONTENT_TYPE_HEADER, JSON, refuse_other_time
from persistence.kafka_refusals import FAILURES, REFUSALS, failure
from persistence.ports import RECORD_BYTES_MAX, Appended, refuse_oversize

CLOSE_DEADLINE_MS = 3_000


class KafkaAppender:
    """A writing session: one idempotent producer, one partition."""

    def __init__(
        self,
        producer: AIOKafkaProducer,
        place: TopicPartition,
        deadline_ms: int,
        dropped: "Dropped",
        bootstrap: str,
    ) -> None:
        self._bootstrap = bootstrap
        self._producer: AIOKafkaProducer | None = producer
        self._place = place
        self._deadline_ms = deadline_ms
        self._dropped = dropped

    async def append(
        self, value: bytes, *, key: bytes | None = None, content_type: str = ""
    ) -> Appended:
        return (await self.append_many([(key, value, content_type)]))[0]

    async def append_many(
        self, values: Sequence[tuple[bytes | None, bytes, str]]
    ) -> Sequence[Appended]:
        assert self._producer is not None, "this appender was closed, abandoned or in doubt"
        for _, value, _ in values:
            refuse_oversize(value)
        try:
            async with asyncio.timeout(self._deadline_ms / 1000):
                return await self._send(self._producer, values)
        except MessageSizeTooLargeError as error:
            self.abandon()
            raise SettingsRefused(
                f"topic {self._place.topic} refuses a record under {RECORD_BYTES_MAX} bytes"
            ) from error
        except REFUSALS as error:
            self.abandon()
            raise failure(error, self._bootstrap, f"{self._place}") from error
        except FAILURES as error:
            self.abandon()
            raise AppendInDoubt(f"{self._place}: no acknowledgement: {error!r}") from error
        except asyncio.CancelledError:
            self.abandon()  # what was sent may have been appended, and nobody will know where
            raise

    def abandon(self) -> None:
        if self._producer is not None:
            self._dropped.add(drop_producer(self._producer))
            self._producer = None

    async def close(self) -> None:
        if self._producer is None:
            return
        producer, self._producer = self._producer, None
        stopping = asyncio.ensure_future(producer.stop())
        done, _ = await asyncio.wait([stopping], timeout=CLOSE_DEADLINE_MS / 1000)
        if not done:
            stopping.cancel()
            self._dropped.add(drop_producer(producer))

    async def _send(
        self, producer: AIOKafkaProducer, values: Sequence[tuple[bytes | None, bytes, str]]
    ) -> list[Appended]:
        """Send in as few batches as hold them; a batch's records have neighbouring offsets."""
        sent: list[tuple[asyncio.Future[RecordMetadata], int]] = []
        place = 0
        while place < len(values):
            batch = producer.create_batch()
            while place < len(values):
                key, value, content_type = values[place]
                headers = (
                    [(CONTENT_TYPE_HEADER, content_type.encode())]
                    if content_type not in ("", JSON)
                    else []
                )
                if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
                    break
                place += 1
            future = await producer.send_batch(
                batch, self._place.topic, partition=self._place.partition
            )
            future.add_done_callback(_consume)
            sent.append((future, batch.record_count()))
        appended: list[Appended] = []
        for future, records in sent:
            found = await asyncio.shield(future)
            refuse_other_time(self._place.topic, found.timestamp_type)
            if found.offset < 0:
                # The broker has the batch already and forgot where: only reading can tell.
                raise KafkaError("acknowledged as a duplicate without an offset")
            appended += [Appended(found.offset + n, found.timestamp) for n in range(records)]
        return appended


class Dropped:
    """Connections that are being closed behind our back: kept alive, bounded in time."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, closing: Coroutine[Any, Any, Any]) -> None:
        """Close in the background."""
        task = asyncio.get_running_loop().create_task(_close_quietly(closing))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait until all are closed."""
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _close_quietly(closing: Coroutine[Any, Any, Any]) -> None:
    """Wait for the end of something that nobody needs any more, whatever it is."""
    with suppress(*FAILURES):
        async with asyncio.timeout(CLOSE_DEADLINE_MS / 1000):
            await closing


async def drop_producer(producer: AIOKafkaProducer) -> None:
    """End a producer without flushing it.

    ``stop`` waits for what is in flight, for ever if need be, and would send it again. So the
    sender is cancelled first; then the connections go, which ends what the sender waits for.
    """
    producer._closed = True
    sender = producer._sender.sender_task
    if sender is not None:
        sender.cancel()
    await producer.client.close()
    while sender is not None and not sender.done():
        # It waits for requests that were in flight, and they for metadata that will not come.
        await asyncio.wait([sender], timeout=0.1)
        sender.cancel()
    await producer.client.close()  # what a request in flight connected to meanwhile


async def drop_consumer(consumer: AIOKafkaConsumer) -> None:
    """End a consumer, and its connections whatever it is doing.

    ``stop`` waits for each fetch that it cancels, and one that is about to be tried again ends it
    by its own cancellation. The connections would stay then, and a task that renews metadata over
    them for as long as the process lives.
    """
    try:
        await consumer.stop()
    finally:
        async with asyncio.timeout(CLOSE_DEADLINE_MS / 1000):
            await consumer._client.close()


def _consume(future: "asyncio.Future[Any]") -> None:
    """Take note of a failure nobody waits for any more."""
    if not future.cancelled():
        future.exception()
