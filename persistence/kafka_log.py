"""The log port on Kafka, through aiokafka.

What the library would do by itself is switched off: no consumer group, no committed offsets, no
reset of a position that is out of range (that would skip or repeat records silently), no waiting
for ever. Every call has a deadline of its own, because the idempotent producer never gives up and
a consumer of a dead broker just looks quiet.

Retention is checked and set on the topics; timestamps are the broker's (LogAppendTime), so that
``appended_ms`` is one clock for everybody. Acknowledged means written by the broker: it survives
the broker's death, and a power cut only with ``flush.messages=1`` or with replicas.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    OffsetOutOfRangeError,
)

from engine.errors import (
    CorruptRecord,
    FailedDependency,
    LogRegressed,
    LogTruncated,
    SettingsRefused,
)
from persistence.kafka_appender import Dropped, KafkaAppender, drop_consumer
from persistence.kafka_batches import FetchedBatches
from persistence.kafka_portions import Portion
from persistence.kafka_refusals import FAILURES, failure, refuse_code
from persistence.ports import (
    Record,
    missing_topic,
    refuse_missing_partition,
    refuse_other_topic,
)

Result = TypeVar("Result")

REQUEST_TIMEOUT_MS = 3_000
APPEND_DEADLINE_MS = 3_000
ADMIN_DEADLINE_MS = 15_000
FETCH_WAIT_MS = 250
"""How long the broker holds a fetch that finds nothing. A seek waits for it, too."""

PROBE_MS = 1_000
"""After so much quiet a reader asks whether the broker still answers and where the log ends."""

STUCK_MS = 5_000
"""A consumer that stands still so long, though the log goes on, is replaced."""

PROBES_FAILED_MAX = 3
FETCH_BYTES_MAX = 8 * 1_048_576
BATCH_BYTES_MAX = 1_048_576
MESSAGE_BYTES_MAX = 4_194_304
"""What the topic must take: the largest record and what Kafka wraps around it."""

PARTITION_FETCH_BYTES_MAX = MESSAGE_BYTES_MAX
"""How much of its partition a reader fetches at once: one record may be as big anyway.

The library's mebibyte is less than a big microbatch of JSON, and a shard under a flood waits for
about one fetch a decision: it would decide no more than one fetch brings. Who cannot take so much
in time asks for less (``persistence.kafka_portions``).
"""

UNKNOWN_AGAIN_MS = 500
"""After so long a broker that knows no such topic is asked again: one just started learns late."""

_UNKNOWN_TOPIC = 3
_TOPIC_EXISTS = 36


class KafkaLogs:
    """All topics of one generation on one cluster.

    ``connection`` is handed to every client as it is: ``security_protocol``, ``ssl_context`` and
    ``sasl_*`` of aiokafka.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        replication: int = 1,
        append_deadline_ms: int = APPEND_DEADLINE_MS,
        request_timeout_ms: int = REQUEST_TIMEOUT_MS,
        connection: Mapping[str, Any] | None = None,
    ) -> None:
        self._replication = replication
        self._append_deadline_ms = append_deadline_ms
        self._bootstrap = bootstrap
        self._client: dict[str, Any] = {
            "bootstrap_servers": bootstrap,
            "request_timeout_ms": request_timeout_ms,
            **(connection or {}),
        }
        self._dropped = Dropped()

    async def create(self, topics: Mapping[str, int], *, retention_ms: int) -> None:
        async with self._admin() as admin:
            await self._check(admin, topics, retention_ms)
            wanted = {
                "cleanup.policy": "delete",
                "retention.ms": str(retention_ms),
                "retention.bytes": "-1",
                "message.timestamp.type": "LogAppendTime",
                "max.message.bytes": str(MESSAGE_BYTES_MAX),
            }
            answer = await admin.create_topics(
                [
                    NewTopic(topic, partitions, self._replication, topic_configs=wanted)
                    for topic, partitions in topics.items()
                ]
            )
            # It does not raise by itself.
            for topic, code, *message in answer.topic_errors:
                refuse_code(code, self._bootstrap, f"topic {topic}")
                if code not in (0, _TOPIC_EXISTS):
                    raise SettingsRefused(f"topic {topic} cannot be created: {message or code}")
            # Brokers learn of a topic a little later; and another may have created it meanwhile.
            while set(topics) - set(await self._check(admin, topics, retention_ms)):
                await asyncio.sleep(0.05)

    async def open(self, topic: str, partition: int) -> "KafkaLog":
        refuse_missing_partition(topic, partition, await self.partitions(topic))
        return KafkaLog(topic, partition, self._client, self._append_deadline_ms, self._dropped)

    async def partitions(self, topic: str) -> int:
        async with self._admin() as admin:
            (told,) = await admin.describe_topics([topic])
            if told["error_code"] == _UNKNOWN_TOPIC:
                await asyncio.sleep(UNKNOWN_AGAIN_MS / 1000)
                (told,) = await admin.describe_topics([topic])
        if told["error_code"] == _UNKNOWN_TOPIC:
            raise missing_topic(topic)
        refuse_code(told["error_code"], self._bootstrap, f"topic {topic}")
        # Whoever is told that a topic is missing stops for good; a broker that fails or partitions
        # that elect a leader are a matter of seconds.
        if not _is_ready(told):
            raise FailedDependency(
                f"topic {topic} is not ready: error {told['error_code']}, or without a leader"
            )
        return len(told["partitions"])

    async def close(self) -> None:
        """Wait, bounded in time, for the connections that were dropped."""
        await self._dropped.close()

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(**self._client)
        try:
            async with asyncio.timeout(ADMIN_DEADLINE_MS / 1000):
                await admin.start()
                yield admin
        except FAILURES as error:
            raise failure(error, self._bootstrap, "kafka did not answer") from error
        finally:
            self._dropped.add(admin.close())

    async def _check(
        self, admin: AIOKafkaAdminClient, topics: Mapping[str, int], retention_ms: int
    ) -> Mapping[str, int]:
        """Return the topics that exist, and refuse those that are not as they must be."""
        told = await admin.describe_topics(list(topics))
        for each in told:
            refuse_code(each["error_code"], self._bootstrap, f"topic {each['topic']}")
        # Of those that exist and have leaders.
        found = {each["topic"]: len(each["partitions"]) for each in told if _is_ready(each)}
        configs = await self._configs(admin, list(found)) if found else {}
        for topic, partitions in found.items():
            config = configs[topic]
            kept_ms = int(config["retention.ms"])
            refuse_other_topic(topic, partitions, topics[topic], kept_ms, retention_ms)
            for name, value in (
                ("cleanup.policy", "delete"),
                ("retention.bytes", "-1"),
                ("message.timestamp.type", "LogAppendTime"),
            ):
                if config[name] != value:
                    raise SettingsRefused(
                        f"topic {topic} has {name}={config[name]}, wanted {value}"
                    )
            if int(config["max.message.bytes"]) < MESSAGE_BYTES_MAX:
                raise SettingsRefused(
                    f"topic {topic} has max.message.bytes={config['max.message.bytes']},"
                    f" wanted at least {MESSAGE_BYTES_MAX}"
                )
        return found

    async def _configs(
        self, admin: AIOKafkaAdminClient, topics: list[str]
    ) -> dict[str, dict[str, str]]:
        asked = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        configs: dict[str, dict[str, str]] = {}
        for answer in await admin.describe_configs(asked):
            for code, message, _, topic, entries in answer.resources:
                refuse_code(code, self._bootstrap, f"the configuration of topic {topic}")
                if code:
                    raise FailedDependency(f"topic {topic}: no configuration: {message or code}")
                configs[topic] = {entry[0]: entry[1] for entry in entries}
        return configs


class KafkaLog:
    """One partition of one topic, read by a consumer of its own."""

    def __init__(
        self,
        topic: str,
        partition: int,
        client: Mapping[str, Any],
        append_deadline_ms: int,
        dropped: Dropped,
    ) -> None:
        self._topic = topic
        self._place = TopicPartition(topic, partition)
        self._client = client
        self._bootstrap = str(client["bootstrap_servers"])
        self._append_deadline_ms = append_deadline_ms
        self._dropped = dropped
        self._consumer: AIOKafkaConsumer | None = None
        self._connecting = asyncio.Lock()
        self._drops = 0  # how often the consumer was forgotten, or one that was still to come
        self._fetched = FetchedBatches(self._place)
        self._portion = Portion(PARTITION_FETCH_BYTES_MAX)
        self._after: int | None = None  # the last offset read, if the consumer goes on behind it
        self._heard_at = 0.0  # when the broker last proved that it answers
        self._stood_since: float | None = None  # since when the log goes on and we do not
        self._probes_failed = 0

    async def appender(self) -> KafkaAppender:
        producer = AIOKafkaProducer(
            **self._client,
            acks="all",
            enable_idempotence=True,
            linger_ms=0,
            max_batch_size=BATCH_BYTES_MAX,
            max_request_size=MESSAGE_BYTES_MAX,
        )
        appender = KafkaAppender(
            producer, self._place, self._append_deadline_ms, self._dropped, self._bootstrap
        )
        try:
            async with asyncio.timeout(self._append_deadline_ms / 1000):
                await producer.start()  # asks for a producer id until it gets one
                await producer.partitions_for(self._topic)
        except FAILURES as error:
            appender.abandon()
            raise failure(error, self._bootstrap, "kafka did not answer") from error
        except BaseException:
            appender.abandon()
            raise
        return appender

    async def read(self, after: int, *, limit: int, wait_ms: int) -> list[Record]:
        consumer = await self._connected()
        if self._after != after:
            consumer.seek(self._place, after + 1)
            consumer.resume(self._place)
            self._fetched.forget()
            self._after = after
        try:
            records = await self._fetched.read(consumer, limit=limit, wait_ms=wait_ms)
        except OffsetOutOfRangeError as error:
            self._after = None
            await self._explain(after)
            # It was out of range and is not any more: the log moved between the two questions.
            raise FailedDependency(f"{self._place}: offset {after + 1} out of range") from error
        except CorruptRecordException as error:
            raise CorruptRecord(f"{self._place} behind offset {after}: {error}") from error
        except KafkaError as error:
            self._after = None
            raise failure(error, self._bootstrap, f"{self._place} cannot be read") from error
        except BaseException:
            self._after = None  # cancelled: what was fetched may be lost, so seek the next time
            raise
        if records:
            self._after = records[-1].offset
            self._heard_at, self._stood_since, self._probes_failed = time.monotonic(), None, 0
        elif time.monotonic() - self._heard_at > PROBE_MS / 1000:
            await self._probe(consumer, after)
        return records

    async def start(self) -> int:
        consumer = await self._connected()
        found = await self._bounded(consumer.beginning_offsets([self._place]))
        return int(found[self._place])

    async def end(self) -> int:
        consumer = await self._connected()
        found = await self._bounded(consumer.end_offsets([self._place]))
        return int(found[self._place])

    async def close(self) -> None:
        self.drop()

    def drop(self) -> None:
        """Forget the consumer; the next call makes another."""
        self._drops += 1
        if self._consumer is not None:
            self._dropped.add(drop_consumer(self._consumer))
            self._consumer, self._after = None, None

    async def _connected(self) -> AIOKafkaConsumer:
        """Return the consumer, made by whoever needs it first; waiting for him is bounded, too."""
        return self._consumer or await self._bounded(self._connect())

    async def _connect(self) -> AIOKafkaConsumer:
        async with self._connecting:
            if self._consumer is not None:
                return self._consumer
            drops = self._drops
            consumer = AIOKafkaConsumer(
                **self._client,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                fetch_max_wait_ms=FETCH_WAIT_MS,
                fetch_max_bytes=FETCH_BYTES_MAX,
                max_partition_fetch_bytes=PARTITION_FETCH_BYTES_MAX,
            )
            try:
                await consumer.start()
                if drops != self._drops:
                    raise FailedDependency(f"{self._place}: closed while it was being opened")
                self._portion.steer(consumer)
            except BaseException:
                self._dropped.add(drop_consumer(consumer))
                raise
            consumer.assign([self._place])
            # Without a position it would look for a committed one; the first read has ours.
            consumer.seek(self._place, 0)
            consumer.pause(self._place)
            self._consumer, self._after = consumer, None
            self._heard_at, self._stood_since, self._probes_failed = time.monotonic(), None, 0
            return consumer

    async def _probe(self, consumer: AIOKafkaConsumer, after: int) -> None:
        """Tell a quiet log from a broker that is gone and a consumer that is stuck.

        Raises:
            FailedDependency: the broker does not answer, or the consumer stood still.
        """
        try:
            end = await self.end()
        except FailedDependency:
            self._probes_failed += 1
            if self._probes_failed >= PROBES_FAILED_MAX:
                self.drop()
            raise
        now = time.monotonic()
        self._heard_at, self._probes_failed = now, 0
        if after + 1 > end:
            await self._explain(after)
        # Behind a hole the position is at the end although no record was read.
        if end <= max(after + 1, await self._bounded(consumer.position(self._place))):
            self._stood_since = None
        elif self._stood_since is None:
            self._stood_since = now
        elif now - self._stood_since > STUCK_MS / 1000:
            self.drop()
            raise FailedDependency(f"{self._place}: the consumer was stuck behind {after}")

    async def _explain(self, after: int) -> None:
        """Raise what is wrong with reading behind ``after``, if the log's bounds tell."""
        start, end = await self.start(), await self.end()
        if after + 1 < start:
            raise LogTruncated(f"{self._place}: offset {after + 1} is gone, it starts at {start}")
        if after + 1 > end:
            raise LogRegressed(f"{self._place}: offset {after} was there, it ends at {end}")

    async def _bounded(self, question: Coroutine[Any, Any, Result]) -> Result:
        try:
            async with asyncio.timeout(self._client["request_timeout_ms"] / 1000):
                return await question
        except FAILURES as error:
            raise failure(error, self._bootstrap, f"{self._place}: kafka did not answer") from error


def _is_ready(told: Mapping[str, Any]) -> bool:
    """Whether what a broker tells of a topic is no error, and all its partitions have leaders."""
    leaders = [partition["leader"] for partition in told["partitions"]]
    return told["error_code"] == 0 and all(leader >= 0 for leader in leaders)
