"""What the log on Kafka makes of the library's clients, told by clients that never connect."""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition

from engine.errors import FailedDependency, SettingsRefused
from persistence import kafka_log
from persistence.kafka_log import KafkaLogs

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


@pytest.mark.parametrize(
    "answer", [told(0, leader=-1), told(LEADER_NOT_AVAILABLE), told(NOT_AUTHORISED)]
)
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


class Consumer:
    """A consumer that takes a moment to start."""

    made: list["Consumer"]

    def __init__(self, **_: Any) -> None:
        self.begun, self.may_start = asyncio.Event(), asyncio.Event()
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


async def test_two_who_ask_at_once_share_a_consumer(
    answers: list[dict[str, Any]], made: list[Consumer]
) -> None:
    """Of two that were made, one was forgotten and never stopped."""
    answers.append(told(0))
    logs = KafkaLogs("nowhere:1")
    log = await logs.open("any", 0)
    both = asyncio.gather(log.start(), log.end())
    (await until(made, 1)).may_start.set()
    assert await both == [2, 9]
    await log.close()
    await logs.close()
    assert [each.stopped for each in made] == [True]


async def test_whoever_waits_goes_on_when_the_first_is_cancelled(
    answers: list[dict[str, Any]], made: list[Consumer]
) -> None:
    answers.append(told(0))
    logs = KafkaLogs("nowhere:1")
    log = await logs.open("any", 0)
    first = asyncio.create_task(log.start())
    await until(made, 1)
    second = asyncio.create_task(log.end())
    await asyncio.sleep(0)
    first.cancel()
    (await until(made, 2)).may_start.set()
    assert await second == 9
    await log.close()
    await logs.close()
    assert [each.stopped for each in made] == [True, True]


async def test_a_log_closed_while_it_opens_leaves_nothing_open(
    answers: list[dict[str, Any]], made: list[Consumer]
) -> None:
    answers.append(told(0))
    logs = KafkaLogs("nowhere:1")
    log = await logs.open("any", 0)
    asking = asyncio.create_task(log.end())
    consumer = await until(made, 1)
    await log.close()
    consumer.may_start.set()
    with pytest.raises(FailedDependency, match="closed"):
        await asking
    await logs.close()
    assert consumer.stopped
