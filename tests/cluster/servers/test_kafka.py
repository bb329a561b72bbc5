"""The broker that tests start is a real one: it keeps what it acknowledged, and leaves nothing."""

from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from cluster.servers.kafka import Kafka
from cluster.servers.process import Server
from tests.servers import gone

pytestmark = pytest.mark.servers

TOPIC = "servers.test"
PARTITION = TopicPartition(TOPIC, 0)


async def create_topic(bootstrap: str) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        answer = await client.create_topics([NewTopic(TOPIC, 1, 1)])
        assert all(error[1] in (0, 36) for error in answer.topic_errors), answer
    finally:
        await client.close()


async def append(bootstrap: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait(TOPIC, value)


async def first(bootstrap: str) -> bytes:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=None, auto_offset_reset="none"
    )
    await consumer.start()
    try:
        consumer.assign([PARTITION])
        consumer.seek(PARTITION, 0)
        return (await consumer.getone(PARTITION)).value
    finally:
        await consumer.stop()


async def test_the_shared_broker_answers(kafka_server: Server) -> None:
    bootstrap = str(kafka_server.address)
    await create_topic(bootstrap)
    await append(bootstrap, b"asked")
    assert await first(bootstrap) == b"asked"


async def test_a_killed_broker_keeps_what_it_acknowledged(
    start_kafka: Callable[[], Kafka],
) -> None:
    """A new process on the same port has the record; after the stop there is no process."""
    kafka = start_kafka()
    address, before = kafka.address, kafka.pid
    await create_topic(address)
    await append(address, b"kept")

    kafka.kill()
    assert gone(before, wait_s=0.5)
    kafka.start()

    assert (kafka.address, kafka.pid == before) == (address, False)
    assert await first(address) == b"kept"
    after = kafka.pid
    kafka.stop()
    assert gone(after, wait_s=0.5)
