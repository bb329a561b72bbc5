"""In doubt, gap and tie on a real broker, through a proxy that loses what a test tells it to.

Whatever happens on the way, readers see every ``seq`` once and in order, and nothing of a replaced
owner.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest

from actors.clock import ClockWatch, WallClock
from actors.reign import Reign
from actors.shard_actor import OwnerSettings, ShardActor
from cluster.servers.kafka import Kafka
from engine.deltas import UnitsSold
from engine.errors import StaleEpoch
from engine.routing import key64, partition_of
from perf.faultproxy import FaultProxy, Mode
from persistence.checkpoints import CheckpointFiles
from persistence.decision_reader import Accepted, DecisionReader
from persistence.decision_records import DecisionRecord, decode
from persistence.kafka_log import KafkaLogs
from persistence.ports import COMMANDS, DECISIONS, DELTAS, Log, Record
from persistence.wire import encode_delta
from tests.sim.toy_shard import ToyShard

PARTITIONS = 8
SHARDS = count()
OWNERS = count(1)


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
async def witness(kafka: Kafka) -> AsyncIterator[KafkaLogs]:
    """Return logs that do not come through the proxy, their topics made."""
    made = KafkaLogs(kafka.address)
    topics = dict.fromkeys((DELTAS, COMMANDS, DECISIONS), PARTITIONS)
    await made.create(topics, retention_ms=86_400_000)
    yield made
    await made.close()


@pytest.fixture
async def logs(witness: KafkaLogs, proxy: FaultProxy) -> AsyncIterator[KafkaLogs]:
    """Return impatient logs behind the proxy."""
    made = KafkaLogs(proxy.address, append_deadline_ms=800, request_timeout_ms=1_000)
    yield made
    proxy.set(Mode.PASS)
    await made.close()


class Home:
    """One shard of the broker, its own for each test."""

    def __init__(self, witness: KafkaLogs, folder: Path) -> None:
        self.shard = next(SHARDS)
        self.retailer = next(
            name
            for name in (f"r{number}" for number in count())
            if partition_of(name, PARTITIONS) == self.shard
        )
        self.listing = key64(self.retailer, "web", "a")
        self.files = CheckpointFiles(folder)
        self.sold = 0
        self._witness = witness

    def owner(self, logs: KafkaLogs) -> ShardActor:
        """Return an owner that has not begun."""
        return ShardActor(
            self.shard,
            logs=logs,
            checkpoints=self.files,
            clock=WallClock(),
            settings=OwnerSettings(partitions=PARTITIONS, heartbeat_ms=50),
            new_shard=ToyShard,
            restore=ToyShard.restore,
            owner=next(OWNERS).to_bytes(16, "big"),
        )

    async def sell(self) -> None:
        """Append one sale to the deltas lane."""
        self.sold += 1
        sale = UnitsSold(
            retailer=self.retailer,
            channel="web",
            sku="a",
            units=1,
            observed_ms=WallClock().wall_ms(),
            event_id=f"sale-{self.sold}",
        )
        log = await self._witness.open(DELTAS, self.shard)
        appender = await log.appender()
        await appender.append(
            encode_delta(sale), key=self.retailer.encode(), content_type="application/json"
        )
        await appender.close()
        await log.close()

    async def records(self) -> list[Record]:
        """Return the whole decision log."""
        log = await self._witness.open(DECISIONS, self.shard)
        records: list[Record] = []
        end = await log.end()
        while not records or records[-1].offset < end - 1:
            after = records[-1].offset if records else -1
            records += await log.read(after, limit=1_000, wait_ms=500)
        await log.close()
        return records

    async def check(self) -> list[Accepted]:
        """Return the decisions that count; they are numbered without a gap or a repetition."""
        records = await self.records()
        reader = DecisionReader(None, shard=self.shard, generation=1)
        accepted = [one for one in map(reader.accept, records) if one and one.decided]
        numbers = [one.decided.seq for one in accepted if one.decided]
        assert numbers == list(range(1, len(numbers) + 1))
        return accepted

    async def copies(self) -> Counter[int]:
        """Return how often each ``seq`` lies in the log, whether it counts or not."""
        found = [decode(record.value) for record in await self.records()]
        return Counter(one.decided.seq for one in found if isinstance(one, DecisionRecord))


@pytest.fixture
def place(witness: KafkaLogs, tmp_path: Path) -> Home:
    return Home(witness, tmp_path)


async def until_sold(owner: ShardActor, place: Home) -> None:
    """Step until every sale is recorded."""
    for _ in range(200):
        await owner.step()
        found = await owner.read(place.listing, 1_000)
        if found is not None and owner._shard.last_delta + 1 >= place.sold:
            return
    raise AssertionError("the sale was never decided")


async def step_in_doubt(owner: ShardActor, proxy: FaultProxy, mode: Mode) -> None:
    """Step once while the proxy harms the append, and let it pass when the harm is done."""
    harmed = proxy.acks_swallowed + proxy.requests_swallowed
    seen = proxy.appends_seen
    proxy.set(mode)
    stepping = asyncio.create_task(owner.step())
    while (
        proxy.acks_swallowed + proxy.requests_swallowed == harmed
        if mode is not Mode.HOLD_REQUEST
        else proxy.appends_seen == seen
    ):
        await asyncio.sleep(0.01)
        assert not stepping.done()
    if mode is Mode.HOLD_REQUEST:
        while owner._reign is not None and owner._reign.doubts == 0:
            await asyncio.sleep(0.01)
    proxy.set(Mode.PASS)
    await stepping


@pytest.mark.parametrize("mode", [Mode.SWALLOW_ACK, Mode.SWALLOW_REQUEST])
async def test_an_append_in_doubt_ends_as_one_record(
    logs: KafkaLogs, proxy: FaultProxy, place: Home, mode: Mode
) -> None:
    """Present: the owner finds it. Absent: it appends the very same decision, once."""
    owner = place.owner(logs)
    await owner.start()
    await place.sell()
    await until_sold(owner, place)
    await place.sell()
    before = owner._shard.seq
    await step_in_doubt(owner, proxy, mode)
    assert owner._shard.seq == before + 1
    assert owner.status()["doubts"] >= 1
    await until_sold(owner, place)
    await owner._let_go()
    accepted = await place.check()
    assert accepted[0].stamp.epoch == 1
    assert accepted[-1].stamp.epoch > 1, "it sealed again"
    assert set((await place.copies()).values()) == {1}


async def test_a_late_arrival_is_ignored(logs: KafkaLogs, proxy: FaultProxy, place: Home) -> None:
    """The append is held, the owner gives it up, and then it arrives after all."""
    owner = place.owner(logs)
    await owner.start()
    await owner.step()
    await place.sell()
    await step_in_doubt(owner, proxy, Mode.HOLD_REQUEST)
    await asyncio.sleep(0.3)
    await until_sold(owner, place)
    await owner.step()
    await owner._let_go()
    accepted = await place.check()
    assert owner._shard.seq == len(accepted)


async def test_a_replaced_owner_stops_at_its_next_append(logs: KafkaLogs, place: Home) -> None:
    """Its record lies in the log, behind the successor's seal, and nobody takes it."""
    zombie, successor = place.owner(logs), place.owner(logs)
    await zombie.start()
    await zombie.step()
    await successor.start()
    await place.sell()
    await until_sold(successor, place)
    with pytest.raises(StaleEpoch):
        await zombie.step()
    assert not zombie._gate.is_open
    await successor.step()
    await zombie._let_go()
    await successor._let_go()
    accepted = await place.check()
    assert successor._shard.seq == len(accepted)
    assert (await place.copies())[2] == 2, "the zombie's second decision is there, and ignored"


async def test_of_two_successors_the_first_in_the_log_reigns(logs: KafkaLogs, place: Home) -> None:
    """Both seal the same epoch at once; the broker's order decides."""
    first = place.owner(logs)
    await first.start()
    await first.step()
    await first._let_go()

    async def seal(log: Log) -> Reign:
        reader = DecisionReader(None, shard=place.shard, generation=1)
        for record in await place.records():
            reader.accept(record)
        reign = Reign(
            log,
            reader,
            owner=next(OWNERS).to_bytes(16, "big"),
            partitions=PARTITIONS,
            replay_domain="toy",
            clock="wall",
            watch=ClockWatch(WallClock()),
        )
        ready.append(reign)
        while len(ready) < 2:
            await asyncio.sleep(0.001)

        async def pass_over(accepted: Accepted) -> None:
            pass

        await reign.seal(pass_over)
        return reign

    ready: list[Reign] = []
    opened = [await logs.open(DECISIONS, place.shard) for _ in range(2)]
    results = await asyncio.gather(*map(seal, opened), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Reign", "StaleEpoch"]
    for reign in ready:
        reign.abandon()
    for log in opened:
        await log.close()
    await place.check()
