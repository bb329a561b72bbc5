"""What the log on Kafka makes of the library's clients, told by clients that never connect."""

import asyncio
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from engine.errors import FailedDependency, SettingsRefused
from persistence import kafka_log
from persistence.kafka_log import KafkaLog, KafkaLogs

UNKNOWN_TOPIC, LEADER_NOT_AVAILABLE, NOT_AUTHORISED = 3, 5, 29


def told(error: int, leader: int = 1) -> dict[str, Any]:
    """Return what a broker tells of a topic of one partition."""
    partitions = [] if error else [{"leader": leader, "error_code": 0}]
    return {"topic": "any", "error_code": error, "partitions": partitions}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what an administrator's client will answer, in order."""
    answers: list[dict[str, Any]] = []

    class Admin:
        def __init__(self, **_: Any) -> None: ...

        async def start(self) -> None: ...

        async def close(self) -> None: ...

        async def describe_topics(self, topics: list[str]) -> list[dict[str, Any]]:
            return [answers.pop(0)]

    monkeypatch.setattr(kafka_log, "AIOKafkaAdminClient", Admin)
    monkeypatch.setattr(kafka_log, "UNKNOWN_AGAIN_MS", 1)
    return answers


@pytest.mark.parametrize("answer", [told(0, leader=-1), told(LEADER_NOT_AVAILABLE)])
async def test_a_topic_without_a_leader_is_not_missing(
    answers: list[dict[str, Any]], answer: dict[str, Any]
) -> None:
    """A shard whose topic is missing stops for good, and leaders are elected now and then."""
    answers.append(answer)
    with pytest.raises(FailedDependency, match="not ready"):
        await KafkaLogs("nowhere:1").open("any", 0)


async def test_a_topic_is_missing_when_that_is_said_twice(answers: list[dict[str, Any]]) -> None:
    logs = KafkaLogs("nowhere:1")
    answers += [told(UNKNOWN_TOPIC), told(0)]
    await logs.open("any", 0)
    answers += [told(UNKNOWN_TOPIC), told(UNKNOWN_TOPIC)]
    with pytest.raises(SettingsRefused, match="does not exist"):
        await logs.open("any", 0)
    assert answers == []


async def test_a_topic_that_we_may_not_see_stops_whoever_asks(
    answers: list[dict[str, Any]],
) -> None:
    """No broker grants a right because it was asked again."""
    for _ in range(2):
        answers.append(told(NOT_AUTHORISED))
    with pytest.raises(SettingsRefused, match=r"log\.bootstrap: .*nowhere:1.*topic any"):
        await KafkaLogs("nowhere:1").open("any", 0)
    with pytest.raises(SettingsRefused, match="IdempotentWrite"):
        await KafkaLogs("nowhere:1").create({"any": 1}, retention_ms=1)


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (SaslAuthenticationFailed("wrong password"), SettingsRefused),
        (UnsupportedSaslMechanismError(), SettingsRefused),
        (KafkaConnectionError(), FailedDependency),
    ],
)
async def test_an_administrator_that_is_not_let_in_says_so(
    error: Exception, becomes: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Admin:
        def __init__(self, **_: Any) -> None: ...

        async def start(self) -> None:
            raise error

        async def close(self) -> None: ...

    monkeypatch.setattr(kafka_log, "AIOKafkaAdminClient", Admin)
    with pytest.raises(becomes):
        await KafkaLogs("nowhere:1").open("any", 0)


class Opened(NamedTuple):
    """A log of a topic that is there, and the cluster that it is of."""

    logs: KafkaLogs
    log: KafkaLog

    async def close(self) -> None:
        """Close both, and wait for what they dropped."""
        await self.log.close()
        await self.logs.close()


@pytest.fixture
async def opened(answers: list[dict[str, Any]]) -> Opened:
    """Return a log, opened, whose clients are those of the test."""
    answers.append(told(0))
    logs = KafkaLogs("nowhere:1")
    return Opened(logs, await logs.open("any", 0))


class Producer:
    """A producer that is refused where a test says so."""

    refused_at: str
    error: Exception = TopicAuthorizationFailedError("any")

    def __init__(self, **_: Any) -> None:
        self._sender, self.client = SimpleNamespace(sender_task=None), self

    async def start(self) -> None:
        if self.refused_at == "start":
            raise ClusterAuthorizationFailedError()

    async def partitions_for(self, topic: str) -> set[int]:
        if self.refused_at == "partitions":
            raise self.error
        return {0}

    def create_batch(self) -> Any:
        return SimpleNamespace(append=lambda **_: object(), record_count=lambda: 1)

    async def send_batch(self, *_: Any, **__: Any) -> "asyncio.Future[Any]":
        sent = asyncio.get_running_loop().create_future()
        sent.set_exception(self.error)
        return sent

    async def close(self) -> None: ...


@pytest.mark.parametrize("at", ["start", "partitions", "send"])
async def test_a_writer_without_the_right_to_write_is_refused(
    at: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append in doubt would be sealed and tried again for ever."""
    monkeypatch.setattr(Producer, "refused_at", at, raising=False)
    monkeypatch.setattr(kafka_log, "AIOKafkaProducer", Producer)
    with pytest.raises(SettingsRefused, match=r"log\.bootstrap"):
        await (await opened.log.appender()).append(b"x")
    await opened.close()


class Consumer:
    """A consumer that takes a moment to start."""

    made: list["Consumer"]

    def __init__(self, **_: Any) -> None:
        self.begun, self.may_start = asyncio.Event(), asyncio.Event()
        self._client, self._fetcher = SimpleNamespace(send=None), SimpleNamespace()
        self.stopped = False
        self.made.append(self)

    async def start(self) -> None:
        self.begun.set()
        await self.may_start.wait()

    async def stop(self) -> None:
        self.stopped = True

    def assign(self, places: list[TopicPartition]) -> None: ...

    def seek(self, place: TopicPartition, offset: int) -> None: ...

    def pause(self, place: TopicPartition) -> None: ...

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 9)

    async def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 2)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Consumer]:
    """Return the consumers that a log will have made."""
    made: list[Consumer] = []
    monkeypatch.setattr(Consumer, "made", made, raising=False)
    monkeypatch.setattr(kafka_log, "AIOKafkaConsumer", Consumer)
    return made


async def until(consumers: list[Consumer], count: int) -> Consumer:
    """Return the last of ``count`` consumers once it is being started."""
    async with asyncio.timeout(5):
        while len(consumers) < count:
            await asyncio.sleep(0)
        await consumers[-1].begun.wait()
    return consumers[-1]


async def test_two_who_ask_at_once_share_a_consumer(opened: Opened, made: list[Consumer]) -> None:
    """Of two that were made, one was forgotten and never stopped."""
    both = asyncio.gather(opened.log.start(), opened.log.end())
    (await until(made, 1)).may_start.set()
    assert await both == [2, 9]
    await opened.close()
    assert [each.stopped for each in made] == [True]


async def test_whoever_waits_goes_on_when_the_first_is_cancelled(
    opened: Opened, made: list[Consumer]
) -> None:
    first = asyncio.create_task(opened.log.start())
    await until(made, 1)
    second = asyncio.create_task(opened.log.end())
    await asyncio.sleep(0)
    first.cancel()
    (await until(made, 2)).may_start.set()
    assert await second == 9
    await opened.close()
    assert [each.stopped for each in made] == [True, True]


async def test_a_log_closed_while_it_opens_leaves_nothing_open(
    opened: Opened, made: list[Consumer]
) -> None:
    asking = asyncio.create_task(opened.log.end())
    consumer = await until(made, 1)
    await opened.log.close()
    consumer.may_start.set()
    with pytest.raises(FailedDependency, match="closed"):
        await asking
    await opened.close()
    assert consumer.stopped
