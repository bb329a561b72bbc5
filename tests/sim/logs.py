"""The log port as a broker behind a network that fails, for the simulator.

A record on its way belongs to nobody: it arrives though its sender was killed. Whether the sender
hears of it is another matter.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from random import Random

from engine.errors import AppendInDoubt, FailedDependency, LogRegressed, LogTruncated
from persistence.decision_records import EPOCH_STARTED
from persistence.ports import DECISIONS, Appended, Appender, Log, Record
from tests.sim.faults import Faults
from tests.sim.loop import SimLoop

DEADLINE_S = 0.12
"""After so long without an acknowledgement an append is in doubt."""

LATE_S = 0.6
"""What was in doubt may arrive until so much later."""

APPEND_FATES = (
    "append_refused",
    "append_in_doubt_present",
    "append_in_doubt_absent",
    "append_in_doubt_late",
    "append_twice",
    "append_slow",
)
SEAL_FATES = ("seal_in_doubt_present", "seal_in_doubt_absent", "seal_in_doubt_late")


class Partition:
    """What a broker keeps of one partition."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.everything: list[Record] = []  # what retention took, too: for the judge
        self.begin = 0
        self.waiting: list[asyncio.Future[None]] = []

    @property
    def end(self) -> int:
        return self.records[-1].offset + 1 if self.records else self.begin

    def append(self, value: bytes, key: bytes | None, content_type: str, now_ms: int) -> Appended:
        offset = self.end
        record = Record(offset, now_ms, key, value, content_type)
        self.records.append(record)
        self.everything.append(record)
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)
        return Appended(offset, now_ms)

    def truncate(self, before: int) -> None:
        """Forget the head, as retention does."""
        if before > self.begin:
            self.records = [record for record in self.records if record.offset >= before]
            self.begin = before

    def regress(self, end: int) -> None:
        """Lose the tail, as a broker without its disk does."""
        self.records = [record for record in self.records if record.offset < end]

    def after(self, offset: int, limit: int) -> list[Record]:
        if offset + 1 < self.begin:
            raise LogTruncated(f"offset {offset + 1} is gone, the log starts at {self.begin}")
        if offset + 1 > self.end:
            raise LogRegressed(f"offset {offset} was there, the log ends at {self.end}")
        first = bisect_right(self.records, offset, key=lambda record: record.offset)
        return self.records[first : first + limit]


class Broker:
    """All partitions, the broker's own clock, and the network's weather."""

    def __init__(self, loop: SimLoop, random: Random, faults: Faults, base_ms: int) -> None:
        self.loop = loop
        self.random = random
        self.faults = faults
        self.partitions: dict[str, Partition] = {}
        self.doubtful_seals: dict[bytes, float] = {}  # owner -> when his last in doubt was sent
        self._base_ms = base_ms

    def now_ms(self) -> int:
        return self._base_ms + int(self.loop.time() * 1000)

    def partition(self, topic: str) -> Partition:
        return self.partitions.setdefault(topic, Partition())

    def send(self, topic: str, key: str, value: bytes) -> int:
        """Append a delta without misfortune."""
        appended = self.partition(topic).append(
            value, key.encode(), "application/json", self.now_ms()
        )
        return appended.offset


class SimLogs:
    """``persistence.ports.Logs`` for one process of the world."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def create(self, topics: Mapping[str, int], *, retention_ms: int) -> None:
        pass

    async def open(self, topic: str, partition: int) -> Log:
        assert partition == 0
        return SimLog(self._broker, topic)

    async def partitions(self, topic: str) -> int:
        return 1

    async def close(self) -> None:
        pass


class SimLog:
    """One partition, seen through the network."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self._partition = broker.partition(topic)

    async def appender(self) -> Appender:
        await self._travel()
        return SimAppender(self._broker, self._topic)

    async def read(self, after: int, *, limit: int, wait_ms: int) -> list[Record]:
        await self._travel()
        found = self._partition.after(after, limit)
        if found or wait_ms <= 0:
            return found
        loop = self._broker.loop
        grown: asyncio.Future[None] = loop.create_future()
        self._partition.waiting.append(grown)
        timer = loop.call_later(wait_ms / 1000, _set, grown)
        await grown
        timer.cancel()
        return self._partition.after(after, limit)

    async def start(self) -> int:
        await self._travel()
        return self._partition.begin

    async def end(self) -> int:
        await self._travel()
        return self._partition.end

    async def close(self) -> None:
        pass

    async def _travel(self) -> None:
        faults, draw = self._broker.faults, self._broker.random.random()
        if faults.strikes("read_refused"):
            await asyncio.sleep(draw * 0.02)
            raise FailedDependency("the network lost it")
        await asyncio.sleep(draw * (0.3 if faults.strikes("read_slow") else 0.003))


class SimAppender:
    """A writing session whose records, and whose answers, may be lost, doubled or late."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self._partition = broker.partition(topic)
        self._in_doubt = False

    async def append(
        self, value: bytes, *, key: bytes | None = None, content_type: str = ""
    ) -> Appended:
        assert not self._in_doubt, "an appender in doubt is dead: abandon it"
        broker = self._broker
        loop, draw = broker.loop, broker.random.random
        answer: asyncio.Future[Appended] = loop.create_future()

        def arrive(acknowledge: bool, after_s: float = 0.0) -> None:
            appended = self._partition.append(value, key, content_type, broker.now_ms())
            if acknowledge:
                loop.outside(after_s, _set, answer, appended)

        fate = self._fate(value)
        kind = fate.rpartition("_")[2]
        if kind == "refused":
            loop.outside(draw() * 0.02, _fail, answer, FailedDependency("refused"))
        elif kind in ("present", "absent", "late"):
            self._in_doubt = True
            if kind != "absent":
                late_s = DEADLINE_S + draw() * LATE_S if kind == "late" else draw() * DEADLINE_S
                loop.outside(late_s, arrive, False)
            loop.outside(DEADLINE_S, _fail, answer, AppendInDoubt("no acknowledgement"))
        elif kind == "twice":
            first = draw() < 0.5
            travel_s = draw() * 0.003
            loop.outside(travel_s, arrive, first, 0.02)
            loop.outside(travel_s + draw() * 0.01, arrive, not first)
        else:
            slow = 0.08 if kind == "slow" else 0.003
            loop.outside(draw() * slow, arrive, True, draw() * slow)
        return await answer

    async def append_many(
        self, values: Sequence[tuple[bytes | None, bytes, str]]
    ) -> Sequence[Appended]:
        return [await self.append(value, key=key, content_type=kind) for key, value, kind in values]

    def abandon(self) -> None:
        """Drop it; what is in flight is the network's."""

    async def close(self) -> None:
        """Flush, as an idempotent producer does: it never gives up by itself."""
        if self._in_doubt:
            await self._broker.loop.create_future()

    def _fate(self, value: bytes) -> str:
        faults = self._broker.faults
        if self._topic != DECISIONS:
            return ""
        if value[9] != EPOCH_STARTED:  # the mark's byte that says what kind of record it is
            return faults.one_of(APPEND_FATES)
        fate = faults.one_of(SEAL_FATES)
        if fate:
            self._broker.doubtful_seals[value[36:52]] = self._broker.loop.time()
        return fate


def _set(future: "asyncio.Future[object]", result: object = None) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[object]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
