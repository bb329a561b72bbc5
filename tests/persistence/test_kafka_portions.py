"""A reader that cannot take a whole fetch in time asks for less, told by a broker that is none."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, RequestTimedOutError
from aiokafka.protocol.fetch import FetchRequest

from persistence.kafka_appender import Dropped
from persistence.kafka_log import PARTITION_FETCH_BYTES_MAX, KafkaLog
from persistence.kafka_portions import GROW_AFTER, GROW_AFTER_MAX, PORTION_BYTES_MIN, Portion

BATCH_BYTES = 16_384


class Broker:
    """A partition of so many bytes, and a way to it on which no fetch of more than some arrives."""

    def __init__(self, log_bytes: int, arrives_bytes: int) -> None:
        self.log_bytes = log_bytes
        self.arrives_bytes = arrives_bytes
        self.read_bytes = 0
        self.failed = 0
        self.error: Exception = RequestTimedOutError()
        self._client = SimpleNamespace(send=self._send)
        self._fetcher = SimpleNamespace(_max_partition_fetch_bytes=PARTITION_FETCH_BYTES_MAX)

    async def _send(self, node_id: int, request: Any) -> Any:
        if not isinstance(request, FetchRequest):
            raise self.error
        ((_, ((_, offset, wanted),)),) = request.topics
        # As much as was asked for in whole batches, one at least.
        size = max(wanted // BATCH_BYTES, 1) * BATCH_BYTES
        size = min(size, self.log_bytes - offset)
        if size > self.arrives_bytes:
            raise self.error
        return SimpleNamespace(topics=[("any", [(0, 0, 0, 0, [], b"x" * size)])])

    async def fetch(self) -> None:
        """Fetch as the library does: what fails is asked for again, from the same place."""
        wanted = self._fetcher._max_partition_fetch_bytes
        request = FetchRequest(250, 1, 2 * wanted, 0, [("any", [(0, self.read_bytes, wanted)])])
        try:
            response = await self._client.send(1, request)
        except type(self.error):
            self.failed += 1
        else:
            self.read_bytes += len(response.topics[0][1][0][-1])

    def steered_by(self, portion: Portion) -> "Broker":
        """Return this one with its consumer's end led by a portion."""
        portion.steer(cast(Any, self))
        return self


@pytest.fixture
def portion() -> Portion:
    """Return what a new reader asks for."""
    return Portion(PARTITION_FETCH_BYTES_MAX)


@pytest.mark.parametrize("arrives", [3_000_000, 300_000, PORTION_BYTES_MIN])
async def test_all_is_read_however_little_arrives_at_once(portion: Portion, arrives: int) -> None:
    """For ever the same fetch was asked for, and for ever it was too late."""
    broker = Broker(8 * PARTITION_FETCH_BYTES_MAX, arrives).steered_by(portion)
    fetches = 0
    while broker.read_bytes < broker.log_bytes:
        await broker.fetch()
        fetches += 1
        assert fetches < 1_000
    # First it comes down, then each growth that is one too many costs one fetch, ever more rarely.
    assert broker.failed <= 6 + 5 + fetches / GROW_AFTER_MAX
    assert portion.bytes <= 2 * arrives


async def test_a_wall_that_was_met_is_probed_ever_more_rarely(portion: Portion) -> None:
    """Every fifth fetch was a growth that failed, and each of these took a whole deadline."""
    broker = Broker(10**12, 300_000).steered_by(portion)
    between: list[int] = []
    fetches = 0
    while len(between) < 12:
        failed = broker.failed
        await broker.fetch()
        fetches += 1
        if broker.failed > failed:
            between.append(fetches - 1)
            fetches = 0
    assert between == [0, 0, 0, 0, 4, 8, 16, 32, 64, 64, 64, 64]
    broker.arrives_bytes = broker.log_bytes
    while portion.bytes < PARTITION_FETCH_BYTES_MAX:
        await broker.fetch()
        fetches += 1
    assert fetches == 64 + 3 * GROW_AFTER, "once the wall is gone it grows as ever"


async def test_it_asks_for_all_again_once_all_arrives(portion: Portion) -> None:
    broker = Broker(64 * PARTITION_FETCH_BYTES_MAX, PORTION_BYTES_MIN).steered_by(portion)
    while portion.bytes > PORTION_BYTES_MIN:
        await broker.fetch()
    broker.arrives_bytes = broker.log_bytes
    failed = broker.failed
    for _ in range(6 * GROW_AFTER):
        await broker.fetch()
    assert portion.bytes == PARTITION_FETCH_BYTES_MAX
    assert broker._fetcher._max_partition_fetch_bytes == PARTITION_FETCH_BYTES_MAX
    assert broker.failed == failed


async def test_what_little_there_is_proves_nothing(portion: Portion) -> None:
    """At the end of a log a fetch brings a record or two, however much was asked for."""
    for _ in range(3):
        portion.failed()
    broker = Broker(200 * 1_000, PARTITION_FETCH_BYTES_MAX).steered_by(portion)
    before = portion.bytes
    for end in range(1_000, 200_000, 1_000):
        broker.log_bytes = end
        await broker.fetch()
    assert portion.bytes == before


@pytest.mark.parametrize(
    ("error", "share"),
    [(KafkaConnectionError(), 2), (RequestTimedOutError(), 2), (NodeNotReadyError(), 1)],
)
async def test_only_a_fetch_that_was_sent_tells_something(
    portion: Portion, error: Exception, share: int
) -> None:
    """A connection that another request's deadline closes takes the fetch along."""
    broker = Broker(PARTITION_FETCH_BYTES_MAX, 0).steered_by(portion)
    broker.error = error
    await broker.fetch()
    assert portion.bytes == PARTITION_FETCH_BYTES_MAX // share


async def test_other_requests_pass_and_tell_nothing(portion: Portion) -> None:
    broker = Broker(0, 0).steered_by(portion)
    with pytest.raises(RequestTimedOutError):
        await broker._client.send(1, "how long is the log?")
    assert portion.bytes == PARTITION_FETCH_BYTES_MAX


async def test_the_next_consumer_asks_for_no_more_than_the_last(portion: Portion) -> None:
    """A consumer that stood still is replaced, and the new one would begin with the same fetch."""
    await Broker(PARTITION_FETCH_BYTES_MAX, 0).steered_by(portion).fetch()
    later = Broker(PARTITION_FETCH_BYTES_MAX, 0).steered_by(portion)
    assert later._fetcher._max_partition_fetch_bytes == PARTITION_FETCH_BYTES_MAX // 2


async def test_a_consumer_that_cannot_be_steered_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another library may have none of what is used of it here; its connections must not stay."""
    stopped: list[bool] = []

    async def begin() -> None:
        """Nothing is asked of a broker."""

    async def stop() -> None:
        stopped.append(True)

    client = SimpleNamespace(close=begin)
    consumer = SimpleNamespace(start=begin, stop=stop, _client=client)
    monkeypatch.setattr("persistence.kafka_log.AIOKafkaConsumer", lambda **_: consumer)
    dropped = Dropped()
    log = KafkaLog("any", 0, {"bootstrap_servers": "nowhere:1"}, 1_000, dropped)
    with pytest.raises(AttributeError):
        await log._connect()
    await dropped.close()
    assert stopped == [True]
