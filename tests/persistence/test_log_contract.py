"""What every log owes its readers and writers: one test, all backends, the real Kafka included."""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest

from engine.errors import LogRegressed, LogTruncated, RejectedInput, SettingsRefused
from persistence.ports import RECORD_BYTES_MAX, Log, Record
from tests.persistence.log_backends import (
    KEPT_MS,
    Backend,
    KafkaBackend,
    MemoryBackend,
    SqliteBackend,
)

NUMBERS = count()


@pytest.fixture(params=["memory", "sqlite", pytest.param("kafka", marks=pytest.mark.servers)])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    made: Backend
    if request.param == "memory":
        made = MemoryBackend()
    elif request.param == "sqlite":
        made = SqliteBackend(tmp_path / "logs")
    else:
        made = KafkaBackend(request.getfixturevalue("kafka_server").address)
    yield made
    await made.logs.close()


@pytest.fixture
async def topic(backend: Backend) -> str:
    name = f"contract.{next(NUMBERS)}.{uuid4().hex[:8]}"
    await backend.logs.create({name: 2}, retention_ms=KEPT_MS)
    return name


@pytest.fixture
async def log(backend: Backend, topic: str) -> AsyncIterator[Log]:
    opened = await backend.logs.open(topic, 0)
    yield opened
    await opened.close()


async def append(log: Log, *values: bytes) -> None:
    appender = await log.appender()
    await appender.append_many([(None, value, "") for value in values])
    await appender.close()


def values(records: list[Record]) -> list[bytes]:
    return [record.value for record in records]


async def test_what_was_appended_is_read(log: Log) -> None:
    appender = await log.appender()
    plain = await appender.append(b"one")
    named = await appender.append(b"two", key=b"acme", content_type="application/x-two")
    assert (plain.offset, named.offset) == (0, 1)
    assert await log.read(-1, limit=10, wait_ms=2_000) == [
        Record(0, plain.appended_ms, None, b"one", "application/json"),
        Record(1, named.appended_ms, b"acme", b"two", "application/x-two"),
    ]
    await appender.close()


async def test_the_log_tells_its_time(log: Log) -> None:
    """The owner stops when its clock and the log's differ by a second, so it must be a clock."""
    appender = await log.appender()
    before_ms = time.time_ns() // 1_000_000
    appended = await appender.append(b"now")
    assert before_ms - 1_000 <= appended.appended_ms <= time.time_ns() // 1_000_000 + 1_000
    await appender.close()


async def test_an_empty_log_starts_where_it_ends(log: Log) -> None:
    assert (await log.start(), await log.end()) == (0, 0)
    assert await log.read(-1, limit=10, wait_ms=0) == []


async def test_the_end_is_the_next_offset(log: Log) -> None:
    await append(log, b"a", b"b", b"c")
    assert (await log.start(), await log.end()) == (0, 3)


async def test_reading_goes_on_in_bites(log: Log) -> None:
    await append(log, *(b"%d" % number for number in range(25)))
    after = -1
    read: list[Record] = []
    while len(read) < 25:
        bite = await log.read(after, limit=10, wait_ms=2_000)
        assert 1 <= len(bite) <= 10
        read += bite
        after = bite[-1].offset
    assert [record.offset for record in read] == list(range(25))
    assert values(read) == [b"%d" % number for number in range(25)]
    assert await log.read(after, limit=10, wait_ms=0) == []


async def test_a_reader_may_go_back(log: Log) -> None:
    await append(log, b"a", b"b", b"c")
    assert values(await log.read(1, limit=9, wait_ms=2_000)) == [b"c"]
    assert values(await log.read(-1, limit=9, wait_ms=2_000)) == [b"a", b"b", b"c"]
    assert values(await log.read(0, limit=1, wait_ms=2_000)) == [b"b"]


async def test_a_reader_waits_for_the_next_record(backend: Backend, topic: str, log: Log) -> None:
    await append(log, b"first")
    assert len(await log.read(-1, limit=9, wait_ms=2_000)) == 1
    other = await backend.logs.open(topic, 0)
    reading = asyncio.create_task(log.read(0, limit=9, wait_ms=30_000))
    await asyncio.sleep(0.05)
    assert not reading.done()
    await append(other, b"second")
    assert values(await reading) == [b"second"]
    await other.close()


async def test_a_cancelled_read_loses_nothing(log: Log) -> None:
    await append(log, b"first")
    assert len(await log.read(-1, limit=9, wait_ms=2_000)) == 1
    for number in range(5):
        reading = asyncio.create_task(log.read(number, limit=9, wait_ms=30_000))
        await asyncio.sleep(0.02)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await append(log, b"%d" % number)
        assert values(await log.read(number, limit=9, wait_ms=5_000)) == [b"%d" % number]


async def test_many_are_appended_in_order(log: Log) -> None:
    appender = await log.appender()
    given = [(b"%d" % (n % 7), b"%d" % n * 300, "a/b" if n % 2 else "") for n in range(5_000)]
    appended = await appender.append_many(given)
    assert [one.offset for one in appended] == list(range(5_000))
    await appender.close()
    read: list[Record] = []
    while len(read) < 5_000:
        read += await log.read(len(read) - 1, limit=2_000, wait_ms=2_000)
    assert [(r.key, r.value) for r in read] == [(key, value) for key, value, _ in given]
    assert {r.content_type for r in read[::2]} == {"application/json"}
    assert {r.content_type for r in read[1::2]} == {"a/b"}


async def test_a_record_may_be_large_and_not_too_large(log: Log) -> None:
    appender = await log.appender()
    largest = bytes(RECORD_BYTES_MAX)
    assert (await appender.append(largest)).offset == 0
    with pytest.raises(RejectedInput, match="over the limit of 4000000"):
        await appender.append(largest + b"!")
    assert (await appender.append(b"goes on")).offset == 1
    assert values(await log.read(-1, limit=1, wait_ms=5_000)) == [largest]
    await appender.close()


async def test_two_appenders_know_nothing_of_each_other(log: Log) -> None:
    first, second = await log.appender(), await log.appender()
    offsets = [
        (await first.append(b"1")).offset,
        (await second.append(b"2")).offset,
        (await first.append(b"3")).offset,
    ]
    first.abandon()
    offsets.append((await second.append(b"4")).offset)
    await second.close()
    assert offsets == [0, 1, 2, 3]
    assert values(await log.read(-1, limit=9, wait_ms=2_000)) == [b"1", b"2", b"3", b"4"]


async def test_racing_appenders_lose_and_double_nothing(backend: Backend, topic: str) -> None:
    async def write(name: bytes) -> list[int]:
        log = await backend.logs.open(topic, 0)
        appender = await log.appender()
        offsets = [(await appender.append(b"%s%d" % (name, n))).offset for n in range(30)]
        await appender.close()
        await log.close()
        return offsets

    written = await asyncio.gather(*(write(name) for name in (b"a", b"b", b"c")))
    assert sorted(offset for offsets in written for offset in offsets) == list(range(90))
    log = await backend.logs.open(topic, 0)
    read: list[Record] = []
    while len(read) < 90:
        read += await log.read(len(read) - 1, limit=90, wait_ms=2_000)
    for name, offsets in zip((b"a", b"b", b"c"), written, strict=True):
        assert [read[offset].value for offset in offsets] == [
            b"%s%d" % (name, n) for n in range(30)
        ]
    await log.close()


@pytest.mark.parametrize("how", ["abandoned", "closed"])
async def test_a_finished_appender_is_not_used_again(log: Log, how: str) -> None:
    appender = await log.appender()
    await appender.append(b"kept")
    if how == "abandoned":
        appender.abandon()
    else:
        await appender.close()
    with pytest.raises(AssertionError):
        await appender.append(b"refused")
    assert await log.end() == 1


async def test_an_appender_may_be_given_up_more_than_once(log: Log) -> None:
    """After a doubt it gave itself up already, and its owner does what the port asks of him."""
    appender = await log.appender()
    await appender.append(b"kept")
    appender.abandon()
    appender.abandon()
    await appender.close()
    assert await log.end() == 1


async def test_partitions_are_apart(backend: Backend, topic: str, log: Log) -> None:
    other = await backend.logs.open(topic, 1)
    await append(log, b"zero")
    await append(other, b"one", b"more")
    assert (await log.end(), await other.end()) == (1, 2)
    assert values(await other.read(-1, limit=9, wait_ms=2_000)) == [b"one", b"more"]
    await other.close()


async def test_what_is_truncated_is_noticed(backend: Backend, topic: str, log: Log) -> None:
    await append(log, *(b"%d" % number for number in range(10)))
    await backend.truncate(topic, 4)
    assert (await log.start(), await log.end()) == (4, 10)
    for needed in (-1, 0, 2):
        with pytest.raises(LogTruncated):
            await log.read(needed, limit=9, wait_ms=2_000)
    assert values(await log.read(3, limit=1, wait_ms=2_000)) == [b"4"]
    with pytest.raises(LogTruncated):
        await log.read(2, limit=9, wait_ms=2_000)


async def test_what_is_truncated_under_a_reader_is_noticed(
    backend: Backend, topic: str, log: Log
) -> None:
    await append(log, b"a")
    assert len(await log.read(-1, limit=9, wait_ms=2_000)) == 1
    other = await backend.logs.open(topic, 0)
    await append(other, b"b", b"c")
    await backend.truncate(topic, 3)
    assert (await other.start(), await other.end()) == (3, 3)
    fresh = await backend.logs.open(topic, 0)
    with pytest.raises(LogTruncated):
        await fresh.read(0, limit=9, wait_ms=2_000)
    assert await fresh.read(2, limit=9, wait_ms=0) == []
    await other.close()
    await fresh.close()


async def test_offsets_go_on_after_everything_expired(
    backend: Backend, topic: str, log: Log
) -> None:
    await append(log, b"a", b"b")
    await backend.truncate(topic, 2)
    await append(log, b"c")
    assert (await log.start(), await log.end()) == (2, 3)
    assert [r.offset for r in await log.read(1, limit=9, wait_ms=2_000)] == [2]


async def test_a_log_that_ends_too_early_is_noticed(backend: Backend, topic: str, log: Log) -> None:
    await append(log, b"a", b"b", b"c")
    assert len(await log.read(-1, limit=9, wait_ms=2_000)) >= 1
    with pytest.raises(LogRegressed):
        await log.read(3, limit=9, wait_ms=2_000)
    await backend.lose_all(topic, 2)
    fresh = await backend.logs.open(topic, 0)
    with pytest.raises(LogRegressed):
        await fresh.read(2, limit=9, wait_ms=2_000)
    await fresh.close()


async def test_holes_are_stepped_over(backend: Backend, topic: str, log: Log) -> None:
    await append(log, b"first")
    await backend.leave_hole(topic)
    hole = await log.end() - 1
    await append(log, b"last")
    read: list[Record] = []
    while not read or read[-1].value != b"last":
        read += await log.read(read[-1].offset if read else -1, limit=9, wait_ms=2_000)
    assert hole not in [record.offset for record in read]
    assert read[-1].offset == hole + 1


async def test_a_hole_at_the_end_is_quiet(backend: Backend, topic: str, log: Log) -> None:
    await append(log, b"first")
    await backend.leave_hole(topic)
    last = -1
    for record in await log.read(-1, limit=9, wait_ms=2_000):
        last = record.offset
    for record in await log.read(last, limit=9, wait_ms=500):
        last = record.offset
    assert last < await log.end() - 1
    assert await log.read(last, limit=9, wait_ms=1_200) == []
    assert await log.read(last, limit=9, wait_ms=50) == []


async def test_what_does_not_exist_is_refused(backend: Backend, topic: str) -> None:
    with pytest.raises(SettingsRefused, match=r"no\.such\.topic does not exist"):
        await backend.logs.open("no.such.topic", 0)
    with pytest.raises(SettingsRefused, match=r"no\.such\.topic does not exist"):
        await backend.logs.partitions("no.such.topic")
    with pytest.raises(SettingsRefused, match=f"{topic} has 2 partitions, .* no partition 2"):
        await backend.logs.open(topic, 2)


async def test_creating_again_checks_what_is_there(backend: Backend, topic: str) -> None:
    await backend.logs.create({topic: 2}, retention_ms=KEPT_MS)
    await backend.logs.create({topic: 2}, retention_ms=KEPT_MS // 2)
    with pytest.raises(SettingsRefused, match=f"{topic} has 2 partitions, wanted 3"):
        await backend.logs.create({topic: 3, f"{topic}.new": 3}, retention_ms=KEPT_MS)
    with pytest.raises(
        SettingsRefused, match=f"{topic} keeps records for {KEPT_MS} ms, wanted .* {KEPT_MS + 1} ms"
    ):
        await backend.logs.create({topic: 2}, retention_ms=KEPT_MS + 1)
    with pytest.raises(SettingsRefused, match="does not exist"):
        await backend.logs.open(f"{topic}.new", 0)
    assert await backend.logs.partitions(topic) == 2


async def test_closing_leaves_nothing_running(backend: Backend, topic: str) -> None:
    before = asyncio.all_tasks()
    log = await backend.logs.open(topic, 0)
    appender, abandoned = await log.appender(), await log.appender()
    await appender.append(b"a")
    await abandoned.append(b"b")
    assert len(await log.read(-1, limit=9, wait_ms=2_000)) >= 1
    abandoned.abandon()
    await appender.close()
    await log.close()
    await backend.logs.close()
    assert asyncio.all_tasks() <= before
