"""The log on a real Kafka that loses, holds and breaks things, through the fault proxy.

One broker for the module: the clients under test come through the proxy, the witness that looks
what is really in the log comes in directly.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from cluster.servers.kafka import Kafka
from engine.errors import AppendInDoubt, FailedDependency, LogFault, SettingsRefused
from perf.faultproxy import FaultProxy, Mode
from persistence.kafka_log import KafkaLogs
from persistence.ports import Log, Logs, Record

pytestmark = pytest.mark.servers

KEPT_MS = 14 * 24 * 3_600_000
NUMBERS = count()


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultProxy]:
    made = FaultProxy()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, proxy: FaultProxy) -> Iterator[Kafka]:
    broker = Kafka(Path(tmp_path_factory.mktemp("kafka")), advertised_port=proxy.port)
    broker.start()
    proxy.start(broker.proxied_port)
    yield broker
    broker.stop()


@pytest.fixture
async def logs(kafka: Kafka, proxy: FaultProxy) -> AsyncIterator[Logs]:
    """Return logs behind the proxy, impatient ones."""
    made = KafkaLogs(proxy.address, append_deadline_ms=800, request_timeout_ms=1_000)
    yield made
    proxy.set(Mode.PASS)
    await made.close()


@pytest.fixture
async def witness(kafka: Kafka) -> AsyncIterator[Logs]:
    """Return logs that do not come through the proxy."""
    made = KafkaLogs(kafka.address)
    yield made
    await made.close()


@pytest.fixture
async def topic(witness: Logs) -> str:
    name = f"faulty.{next(NUMBERS)}"
    await witness.create({name: 1}, retention_ms=KEPT_MS)
    return name


@pytest.fixture
async def log(logs: Logs, topic: str) -> AsyncIterator[Log]:
    opened = await logs.open(topic, 0)
    yield opened
    await opened.close()


@pytest.fixture
async def truth(witness: Logs, topic: str) -> AsyncIterator[Log]:
    opened = await witness.open(topic, 0)
    yield opened
    await opened.close()


async def contents(truth: Log) -> list[bytes]:
    """Return all values that are in the log."""
    records: list[Record] = []
    end = await truth.end()
    while not records or records[-1].offset < end - 1:
        if end == 0:
            break
        after = records[-1].offset if records else -1
        records += await truth.read(after, limit=100, wait_ms=2_000)
    return [record.value for record in records]


async def eventually(question: Callable[[], Awaitable[bool]], within_s: float = 30.0) -> None:
    """Wait until the answer is yes."""
    until = time.monotonic() + within_s
    while not await question():
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


async def test_a_lost_acknowledgement_is_a_doubt_and_the_record_is_there(
    log: Log, truth: Log, proxy: FaultProxy
) -> None:
    appender = await log.appender()
    assert (await appender.append(b"before")).offset == 0
    with proxy.during(Mode.SWALLOW_ACK):
        with pytest.raises(AppendInDoubt):
            await appender.append(b"doubtful")
        assert await contents(truth) == [b"before", b"doubtful"]
    with pytest.raises(AssertionError):
        await appender.append(b"the dead do not write")
    after = await log.appender()
    assert (await after.append(b"after")).offset == 2
    await asyncio.sleep(1.5)  # longer than the abandoned one would wait before it tried again
    assert await contents(truth) == [b"before", b"doubtful", b"after"]
    await after.close()


async def test_a_lost_request_is_a_doubt_and_the_record_is_not_there(
    log: Log, truth: Log, proxy: FaultProxy
) -> None:
    appender = await log.appender()
    assert (await appender.append(b"before")).offset == 0
    with proxy.during(Mode.SWALLOW_REQUEST), pytest.raises(AppendInDoubt):
        await appender.append(b"doubtful")
    after = await log.appender()
    assert (await after.append(b"after")).offset == 1
    await asyncio.sleep(1.5)
    assert await contents(truth) == [b"before", b"after"]
    await after.close()


async def test_an_abandoned_record_may_arrive_late(log: Log, truth: Log, proxy: FaultProxy) -> None:
    """What every reader must be ready for: the old owner's record behind the new owner's."""
    old = await log.appender()
    assert (await old.append(b"before")).offset == 0
    new = await log.appender()
    with proxy.during(Mode.HOLD_REQUEST):
        with pytest.raises(AppendInDoubt):
            await old.append(b"late")
        direct = await truth.appender()
        assert (await direct.append(b"the new owner's")).offset == 1
        await direct.close()
    await eventually(lambda: ends_at(truth, 3))
    assert await contents(truth) == [b"before", b"the new owner's", b"late"]
    assert (await new.append(b"goes on")).offset == 3
    await new.close()


async def ends_at(log: Log, offset: int) -> bool:
    return await log.end() == offset


async def test_an_append_cut_by_a_reset_is_in_doubt_or_done(
    log: Log, truth: Log, proxy: FaultProxy
) -> None:
    """The library may try again on a new connection: then it is done, and once."""
    appender = await log.appender()
    done, doubts = 0, 0
    for number in range(6):
        appending = asyncio.create_task(appender.append(b"%d" % number))
        await asyncio.sleep(0)
        with proxy.during(Mode.RESET):
            await asyncio.sleep(0.05)
        try:
            await appending
            done += 1
        except AppendInDoubt:
            doubts += 1
            appender = await log.appender()
    found = await contents(truth)
    assert len(found) == len(set(found))
    assert done <= len(found) <= done + doubts
    assert found == sorted(found)
    await appender.close()


@pytest.mark.parametrize("mode", [Mode.DROP, Mode.HALF_OPEN, Mode.RESET])
async def test_a_broker_that_cannot_be_reached_fails_every_call_in_time(
    log: Log, logs: Logs, topic: str, proxy: FaultProxy, mode: Mode
) -> None:
    """And not one of them says that the log is empty."""
    appender = await log.appender()
    await appender.append(b"before")
    assert len(await log.read(-1, limit=9, wait_ms=2_000)) == 1
    with proxy.during(mode):
        began = time.monotonic()
        for call in (log.end, log.start, log.appender):
            with pytest.raises(FailedDependency):
                await call()
        with pytest.raises(AppendInDoubt):
            await appender.append(b"doubtful")
        with pytest.raises(FailedDependency):
            for _ in range(20):
                assert await log.read(0, limit=9, wait_ms=200) == []
        assert time.monotonic() - began < 20
    await eventually(lambda: answers(log))
    after = await log.appender()
    offset = (await after.append(b"after")).offset
    read = await read_until(log, 0, offset)
    assert [record.value for record in read][-1] == b"after"
    await after.close()


async def answers(log: Log) -> bool:
    try:
        await log.end()
    except FailedDependency:
        return False
    return True


async def read_until(log: Log, after: int, last: int) -> list[Record]:
    """Read up to an offset as an owner does: what may be tried again is."""
    read: list[Record] = []
    until = time.monotonic() + 30
    while not read or read[-1].offset < last:
        assert time.monotonic() < until
        try:
            read += await log.read(read[-1].offset if read else after, limit=9, wait_ms=500)
        except FailedDependency:
            await asyncio.sleep(0.1)
    return read


async def test_a_slow_network_only_slows(log: Log, proxy: FaultProxy) -> None:
    appender = await log.appender()
    proxy.delay_s = 0.1
    with proxy.during(Mode.DELAY):
        assert (await appender.append(b"slow")).offset == 0
        read = await log.read(-1, limit=9, wait_ms=5_000)
        assert [record.value for record in read] == [b"slow"]
    await appender.close()


async def test_one_fetch_brings_more_than_a_big_microbatch(truth: Log) -> None:
    """A shard under a flood waits for about one fetch a decision."""
    appender = await truth.appender()
    await appender.append_many([(None, bytes(600_000), "")] * 5)
    await appender.close()
    assert len(await truth.read(-1, limit=99, wait_ms=5_000)) == 5


async def test_who_cannot_take_a_whole_fetch_in_time_reads_on_in_smaller_ones(
    log: Log, truth: Log, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Followers on a crowded machine asked for the same four mebibytes again and again, for ever.

    All together takes twice as long as a request has here, on the fastest of machines.
    """
    values = [bytes([number]) * 32_768 for number in range(24)]
    appender = await truth.appender()
    for value in values:  # one at a time: a batch each
        await appender.append(value)
    await appender.close()
    monkeypatch.setattr(proxy, "slice_bytes", 1_024)
    with proxy.during(Mode.SLICE):
        read = await read_until(log, -1, len(values) - 1)
    assert [record.value for record in read] == values


async def test_reading_goes_on_after_a_cut(log: Log, truth: Log, proxy: FaultProxy) -> None:
    """aiokafka's consumers have been known to fall silent after a cut: ours are watched."""
    appender = await truth.appender()
    await appender.append_many([(None, b"%d" % n, "") for n in range(5)])
    read = await read_until(log, -1, 4)
    for mode in (Mode.RESET, Mode.DROP, Mode.HALF_OPEN):
        with proxy.during(mode), pytest.raises(FailedDependency):
            for _ in range(20):
                await log.read(read[-1].offset, limit=9, wait_ms=200)
        last = (await appender.append(mode.value.encode())).offset
        read += await read_until(log, read[-1].offset, last)
    assert [record.offset for record in read] == list(range(8))
    await appender.close()


async def test_a_consumer_that_stands_still_is_replaced(
    log: Log, truth: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log goes on and the consumer, for whatever reason of its own, does not."""
    monkeypatch.setattr("persistence.kafka_log.PROBE_MS", 100)
    monkeypatch.setattr("persistence.kafka_log.STUCK_MS", 400)
    appender = await truth.appender()
    await appender.append(b"first")
    assert len(await log.read(-1, limit=9, wait_ms=2_000)) == 1
    stuck = log._consumer  # type: ignore[attr-defined]
    stuck._fetcher._fetch_task.cancel()
    await appender.append(b"second")
    with pytest.raises(FailedDependency, match="stuck behind 0"):
        for _ in range(50):
            assert await log.read(0, limit=9, wait_ms=100) == []
    read = await log.read(0, limit=9, wait_ms=2_000)
    assert [record.value for record in read] == [b"second"]
    await appender.close()


async def test_a_consumer_dropped_while_its_fetch_waits_to_be_tried_again_leaves_nothing(
    log: Log, logs: Logs, proxy: FaultProxy
) -> None:
    """Found in an hour's soak: files and memory of the followers grew wherever a fetch was late."""
    assert await log.read(-1, limit=9, wait_ms=100) == []
    consumer = log._consumer  # type: ignore[attr-defined]
    consumer._fetcher._retry_backoff = 60.0
    with proxy.during(Mode.RESET):
        await asyncio.sleep(0.5)  # the fetch that was held fails
        assert any(not fetch.done() for fetch in consumer._fetcher._pending_tasks)
        log.drop()
        await logs.close()
    assert consumer._client._sync_task is None
    assert not any(each.connected() for each in consumer._client._conns.values())


async def test_a_cancelled_append_is_abandoned(log: Log, truth: Log, proxy: FaultProxy) -> None:
    appender = await log.appender()
    await appender.append(b"before")
    with proxy.during(Mode.HOLD_REQUEST):
        appending = asyncio.create_task(appender.append(b"cancelled"))
        await asyncio.sleep(0.1)
        appending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await appending
    with pytest.raises(AssertionError):
        await appender.append(b"after")
    assert (await contents(truth))[0] == b"before"


async def test_a_killed_broker_loses_nothing_acknowledged(
    log: Log, truth: Log, kafka: Kafka
) -> None:
    """SIGKILL with appends in flight; afterwards every party goes on where it was."""
    reader: list[Record] = []
    acknowledged: list[bytes] = []
    doubtful: list[bytes] = []
    is_over = asyncio.Event()

    async def write() -> None:
        appender = await log.appender()
        number = 0
        while not is_over.is_set():
            value = b"%06d" % number
            number += 1
            try:
                await appender.append(value)
                acknowledged.append(value)
            except AppendInDoubt:
                doubtful.append(value)
                while not is_over.is_set():
                    try:
                        appender = await log.appender()
                        break
                    except FailedDependency:
                        await asyncio.sleep(0.1)
        appender.abandon()

    async def follow() -> None:
        while not is_over.is_set():
            try:
                after = reader[-1].offset if reader else -1
                reader.extend(await truth.read(after, limit=100, wait_ms=100))
            except FailedDependency:
                await asyncio.sleep(0.1)

    tasks = [asyncio.create_task(write()), asyncio.create_task(follow())]
    for _ in range(2):
        await has_grown(acknowledged)
        kafka.kill()
        await asyncio.to_thread(kafka.start)
    await has_grown(acknowledged)
    is_over.set()
    await asyncio.gather(*tasks)
    end = await truth.end()
    reader += (
        await read_until(truth, reader[-1].offset, end - 1) if reader[-1].offset < end - 1 else []
    )
    values = [record.value for record in reader]
    assert doubtful  # or the kills hit nothing
    assert len(values) == len(set(values))
    assert values == sorted(values)
    assert set(acknowledged) <= set(values) <= set(acknowledged) | set(doubtful)


async def has_grown(values: list[bytes]) -> None:
    """Wait for a hundred more."""
    length, until = len(values) + 100, time.monotonic() + 30
    while len(values) < length:
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


async def test_a_topic_kept_by_others_is_refused(kafka: Kafka, witness: Logs) -> None:
    """What another has created in our topics' place is named, with what was wanted."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.address)
    await admin.start()
    ours = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "4194304"}
    for name, value, says in [
        ("message.timestamp.type", "CreateTime", "CreateTime, wanted LogAppendTime"),
        ("cleanup.policy", "compact", "cleanup.policy=compact, wanted delete"),
        ("retention.bytes", "1000000", "retention.bytes=1000000, wanted -1"),
        ("max.message.bytes", "1000000", "max.message.bytes=1000000, wanted at least 4194304"),
        ("retention.ms", "1000", "keeps records for 1000 ms, wanted at least"),
    ]:
        topic = f"of.others.{next(NUMBERS)}"
        configs = {**ours, "retention.ms": str(KEPT_MS), name: value}
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=configs)])
        with pytest.raises(SettingsRefused, match=topic) as refused:
            await witness.create({topic: 1}, retention_ms=KEPT_MS)
        assert says in str(refused.value)
    await admin.close()


async def test_a_writers_time_is_not_taken_for_the_logs(kafka: Kafka, witness: Logs) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.address)
    await admin.start()
    topic = f"of.others.{next(NUMBERS)}"
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    log = await witness.open(topic, 0)
    appender = await log.appender()
    with pytest.raises(SettingsRefused, match="wanted LogAppendTime"):
        await appender.append(b"when?")
    with pytest.raises(SettingsRefused, match="wanted LogAppendTime"):
        await log.read(-1, limit=9, wait_ms=2_000)
    await log.close()


async def test_nobody_at_home_is_a_failed_dependency() -> None:
    logs = KafkaLogs("127.0.0.1:9", request_timeout_ms=500)
    with pytest.raises(FailedDependency):
        await logs.create({"any": 1}, retention_ms=1)
    with pytest.raises(FailedDependency):
        await logs.open("any", 0)
    await logs.close()


def test_faults_of_the_log_are_not_to_be_retried() -> None:
    assert not LogFault.retry
    assert not AppendInDoubt.retry
