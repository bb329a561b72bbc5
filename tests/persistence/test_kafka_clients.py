"""What the log on Kafka makes of the library's clients, told by clients that never connect."""

from typing import Any

import pytest

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
