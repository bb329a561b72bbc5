"""Topics: filled before a run, read after it."""

import asyncio
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from msgspec import Struct

from persistence.kafka_batches import CONTENT_TYPE_HEADER

BATCH_BYTES = 262_144
UNACKNOWLEDGED = 64


class Emitted(Struct, frozen=True):
    """What a contender wrote."""

    messages: int
    prices: dict[str, int]  # the last of each listing


async def create(bootstrap: str, topic: str, partitions: int) -> None:
    """Create a topic that keeps everything."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        configuration = {"retention.ms": "-1"}
        answer = await client.create_topics(
            [NewTopic(topic, partitions, 1, topic_configs=configuration)]
        )
        refused = [error for error in answer.topic_errors if error[1]]
        assert not refused, refused
    finally:
        await client.close()


async def fill(
    bootstrap: str,
    topic: str,
    messages: Iterable[tuple[int, bytes, bytes]],
    partitions: int,
    content_type: str = "",
) -> list[int]:
    """Append messages (partition, key, value); return how many went into each partition.

    Only what is no JSON names its content type.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", max_batch_size=BATCH_BYTES, linger_ms=0
    )
    await producer.start()
    batches = [producer.create_batch() for _ in range(partitions)]
    counts, sent = [0] * partitions, []
    headers = [(CONTENT_TYPE_HEADER, content_type.encode())] if content_type else []

    def appended(partition: int, key: bytes, value: bytes) -> bool:
        batch = batches[partition]
        made = batch.append(key=key, value=value, timestamp=None, headers=headers)
        return made is not None

    try:
        for partition, key, value in messages:
            counts[partition] += 1
            if appended(partition, key, value):
                continue
            batches[partition].close()
            sent.append(await producer.send_batch(batches[partition], topic, partition=partition))
            batches[partition] = producer.create_batch()
            fits = appended(partition, key, value)
            assert fits, "a message that no batch can hold"
            if len(sent) >= UNACKNOWLEDGED:
                await asyncio.gather(*sent)
                sent.clear()
        for partition, batch in enumerate(batches):
            if batch.record_count():
                batch.close()
                sent.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    return counts


async def emitted(bootstrap: str, topic: str, partitions: int) -> Emitted:
    """Return the prices in a peer's output; retractions (Pathway's) are passed over."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    messages, prices = 0, {}
    try:
        places = [TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        waiting = {partition for partition, end in ends.items() if end > 0}
        while waiting:
            fetched = await consumer.getmany(timeout_ms=1_000, max_records=5_000)
            for partition, records in fetched.items():
                messages += len(records)
                for record in records:
                    if record.value is None or ("pathway_diff", b"-1") in record.headers:
                        continue
                    prices[record.key.decode()] = int(record.value)
                if records[-1].offset >= ends[partition] - 1:
                    waiting.discard(partition)
    finally:
        await consumer.stop()
    return Emitted(messages, prices)
