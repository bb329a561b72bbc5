"""Shards whose decisions were recorded, and stores that fail on request: what sink tests need."""

import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from actors.sinks.delta_lanes import DeltaLanes
from engine.decided import QUOTE_DTYPE, CatalogueChange, Cause, Decided, Outcome, State
from engine.deltas import CompetitorPriced, PriceApproved, StockCounted, UnitsSold
from engine.errors import FailedDependency, PricingError, WriteInDoubt
from engine.microbatch import Position, Refusal
from engine.routing import key64
from persistence.decision_reader import Accepted, DecisionReader
from persistence.decision_records import (
    CONTENT_TYPE,
    DecisionRecord,
    EpochStarted,
    LogPosition,
    Stamp,
    encode,
)
from persistence.memory_log import MemoryLogs
from persistence.ports import (
    COMMANDS,
    DEAD_LETTERS,
    DECISIONS,
    DELTAS,
    SeriesStore,
    Statement,
    TableStore,
)
from persistence.wire import encode_delta

RETAILER = "acme"
SKUS = [f"sku-{number}" for number in range(8)]
CHANNELS = ["shop", "market"]
LISTINGS = {key64(RETAILER, channel, sku): (channel, sku) for channel in CHANNELS for sku in SKUS}
BRANDS = {"shop": "Rossi"}
"""Of a channel's listings; those of others have none."""


class Crash(BaseException):
    """The follower's process is gone."""


class RecordedShard:
    """One shard's logs, filled with decisions that a real shard might have recorded."""

    def __init__(
        self,
        *,
        seed: int = 0,
        shard: int = 0,
        generation: int | None = None,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self.shard = shard
        # A generation of its own, since real servers are shared by all tests of a session.
        self.generation = generation or 1 + secrets.randbelow(2**22)
        self.logs = MemoryLogs(now_ms) if now_ms else MemoryLogs()
        self.lanes = DeltaLanes(self.logs)
        self._random = random.Random(seed)
        self._seq = 0
        self._last = [-1, -1]
        self._stamp = Stamp(b"L" * 16, self.generation, shard, 0, b"O" * 16)

    async def open(self) -> "RecordedShard":
        topics = dict.fromkeys((DELTAS, COMMANDS, DECISIONS, DEAD_LETTERS), self.shard + 1)
        await self.logs.create(topics, retention_ms=10**12)
        return self

    async def fill(self, decisions: int = 12) -> None:
        """Start an epoch, add a catalogue, then so many decisions of every sort."""
        await self.begin_epoch()
        await self.decide(
            catalogue=[
                CatalogueChange(Position(0, 0, 0), "retailer", RETAILER, {"currency": "EUR"}),
                *(
                    CatalogueChange(
                        Position(0, 0, 0),
                        "listing",
                        RETAILER,
                        {"channel": channel, "sku": sku, "title": "a\x00b", "currency": "EUR"}
                        | ({"brand": BRANDS[channel]} if channel in BRANDS else {}),
                        key,
                    )
                    for key, (channel, sku) in LISTINGS.items()
                ),
            ]
        )
        for number in range(decisions):
            if number == decisions // 2:
                await self.begin_epoch()  # a successor
            await self.any_decision()

    async def begin_epoch(self) -> None:
        log = await self.logs.open(DECISIONS, self.shard)
        self._stamp = Stamp(
            b"L" * 16, self.generation, self.shard, self._stamp.epoch + 1, secrets.token_bytes(16)
        )
        started = EpochStarted(
            stamp=self._stamp,
            started_ms=0,
            replay_domain="test",
            clock="wall",
            from_offset=await log.end() - 1,
            from_seq=self._seq,
            first_offset=-1,
            partitions=1,
        )
        await (await log.appender()).append(encode(started), content_type=CONTENT_TYPE)

    async def any_decision(self) -> None:
        """Append some deltas and the decision that consumed them."""
        exceptions, outcomes, catalogue = [], [], []
        for _ in range(self._random.randrange(4)):
            lane, position, value = await self._any_delta()
            if self._random.random() < 0.4:
                verdict = self._random.choice(("quarantined", "duplicate", "late", "rejected"))
                exceptions.append(Refusal(position, verdict, "for a reason\x00", 5))
            elif lane == 0:
                key = self._random.choice(list(LISTINGS))
                outcomes.append(
                    Outcome(
                        f"command-{position.offset}",
                        position,
                        RETAILER,
                        "ann",
                        "done",
                        "PriceApproved",
                        "",
                        key,
                        1999,
                    )
                )
            assert value
        if self._random.random() < 0.3:
            fields = {"scope": "retailer", "key": "", "fields": {"max_step": 0.1}}
            catalogue.append(CatalogueChange(Position(0, 1, 0), "policy", RETAILER, fields))
        cause = outcomes[0].position if outcomes else Position(1, 0, 0)
        keys = self._random.sample(list(LISTINGS), self._random.randrange(5))
        await self.decide(
            quotes=quotes_of(keys, cause, self._random),
            exceptions=exceptions,
            outcomes=outcomes,
            catalogue=catalogue,
        )

    async def decide(
        self,
        quotes: np.ndarray | None = None,
        *,
        exceptions: Sequence[Refusal] = (),
        outcomes: Sequence[Outcome] = (),
        catalogue: Sequence[CatalogueChange] = (),
    ) -> None:
        """Append one decision that consumed all that the lanes hold."""
        self._seq += 1
        for lane, topic in enumerate((COMMANDS, DELTAS)):
            self._last[lane] = await (await self.logs.open(topic, self.shard)).end() - 1
        decided = Decided(
            seq=self._seq,
            last_command=self._last[0],
            last_delta=self._last[1],
            decided_ms=1_700_000_000_000 + self._seq,
            model="first",
            digest=self._seq,
            quotes=np.empty(0, QUOTE_DTYPE) if quotes is None else quotes,
            exceptions=tuple(exceptions),
            outcomes=tuple(outcomes),
            catalogue=tuple(catalogue),
        )
        log = await self.logs.open(DECISIONS, self.shard)
        record = encode(DecisionRecord(self._stamp, decided))
        await (await log.appender()).append(record, content_type=CONTENT_TYPE)

    async def send(self, lane: int, value: bytes, content_type: str = "application/json") -> int:
        """Append one record to a lane and return its offset."""
        log = await self.logs.open((COMMANDS, DELTAS)[lane], self.shard)
        appender = await log.appender()
        appended = await appender.append(value, key=RETAILER.encode(), content_type=content_type)
        return appended.offset

    async def accepted(self, after: LogPosition | None = None) -> list[Accepted]:
        """Return what a reader accepts behind a position."""
        log = await self.logs.open(DECISIONS, self.shard)
        reader = DecisionReader(after, shard=self.shard, generation=self.generation)
        records = await log.read(reader.offset, limit=10_000, wait_ms=0)
        return [one for one in map(reader.accept, records) if one is not None]

    async def _any_delta(self) -> tuple[int, Position, bytes]:
        channel, sku = self._random.choice(list(LISTINGS.values()))
        place = {"retailer": RETAILER, "channel": channel, "sku": sku, "observed_ms": 5}
        number = self._random.randrange(1, 5000)
        deltas = [
            CompetitorPriced(rival="rival", price_minor=number, source="feed", **place),
            StockCounted(units=number, **place),
            UnitsSold(units=number, event_id=str(number), **place),
            PriceApproved(command_id="c", actor="ann", **place),
        ]
        kind = self._random.randrange(len(deltas))
        lane = 0 if kind == 3 else 1
        value = encode_delta(deltas[kind])
        return lane, Position(lane, await self.send(lane, value), 0), value


def quotes_of(
    keys: Sequence[int], cause: Position, numbers: random.Random | None = None
) -> np.ndarray:
    """Return one quote for each listing, all fields filled, one of them not a number."""
    numbers = numbers or random.Random(1)
    quotes = np.zeros(len(keys), QUOTE_DTYPE)
    quotes["listing"] = keys
    quotes["state"] = State.LIVE
    for name in ("in_force_minor", "previous_minor", "proposed_minor", "target_minor"):
        quotes[name] = [numbers.randrange(1, 2**30) for _ in keys]
    quotes["reasons"] = 2**32 - 1
    quotes["floor_minor"] = 1
    quotes["ceiling_minor"] = 2**30
    quotes["cost_minor"] = -1
    quotes["elasticity"] = np.nan
    quotes["confidence"] = 0.5
    quotes["cause_kind"] = Cause.DELTA
    quotes["cause_lane"] = cause.lane
    quotes["cause_offset"] = cause.offset
    quotes["cause_index"] = cause.index
    return quotes


class Faults:
    """Which call of a store fails, and how; every call passes here first.

    ``before``: nothing happens, told so. ``doubt``: it happens, and the answer is lost. ``lost``:
    it does not happen, and the answer is lost too. ``late``: like ``lost``, but it happens after
    one more call. ``crash`` and ``crash after``: the follower is gone, before or after.
    """

    KINDS = ("before", "doubt", "lost", "late", "crash", "crash after")

    def __init__(self, at: int = -1, kind: str = "before") -> None:
        self.at = at
        self.kind = kind
        self.calls = 0
        self.names: list[str] = []
        self._late: list[list[Any]] = []

    async def call(self, name: str, work: Callable[[], Any], *, writes: bool) -> Any:
        """Do ``work``, or what the fault makes of it."""
        number, self.calls = self.calls, self.calls + 1
        self.names.append(name)
        failing = number == self.at
        doubt = WriteInDoubt if writes else FailedDependency
        if failing and self.kind == "before":
            raise FailedDependency("told to fail")
        if failing and self.kind == "crash":
            raise Crash
        if failing and self.kind in ("lost", "late"):
            if self.kind == "late" and writes:
                self._late.append([1, work])
            raise doubt("told to be silent")
        await self._arrive()
        result = await work()
        if failing and self.kind == "crash after":
            raise Crash
        if failing:
            raise doubt("told to be silent")
        return result

    async def _arrive(self) -> None:
        """Let what was late arrive, one call later; what no longer fits is refused, unheard."""
        for waiting in list(self._late):
            waiting[0] -= 1
            if waiting[0] < 0:
                self._late.remove(waiting)
                with suppress(PricingError):
                    await waiting[1]()


class FaultyTables:
    """A table store behind faults."""

    def __init__(self, inner: TableStore, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults

    async def migrate(self) -> Sequence[str]:
        return await self.faults.call("migrate", self.inner.migrate, writes=True)

    async def fetch(self, sql: str, *args: Any) -> list[Mapping[str, Any]]:
        return await self.faults.call("fetch", lambda: self.inner.fetch(sql, *args), writes=False)

    async def transact(self, statements: Sequence[Statement]) -> list[int]:
        work = lambda: self.inner.transact(statements)  # noqa: E731
        return await self.faults.call("transact", work, writes=True)

    async def close(self) -> None:
        await self.inner.close()


class FaultySeries:
    """A series store behind faults. It knows no doubt: whatever fails may be sent again."""

    def __init__(self, inner: SeriesStore, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults

    async def migrate(self) -> Sequence[str]:
        return await self.faults.call("migrate", self.inner.migrate, writes=True)

    async def append(self, table: str, columns: Mapping[str, Any]) -> int:
        work = lambda: self.inner.append(table, columns)  # noqa: E731
        return await self.faults.call(f"append {table}", work, writes=True)

    async def settle(self, table: str) -> None:
        await self.faults.call("settle", lambda: self.inner.settle(table), writes=False)

    async def fetch(self, sql: str) -> list[Mapping[str, Any]]:
        return await self.faults.call("fetch", lambda: self.inner.fetch(sql), writes=False)

    async def close(self) -> None:
        await self.inner.close()


async def follow(
    recorded: RecordedShard,
    new_sink: Callable[[], Any],
    *,
    batch: int = 5,
    restarts_max: int = 3,
) -> Any:
    """Carry all that was recorded into a sink as a follower does, through faults and crashes.

    Returns the sink that got to the end.
    """
    for _ in range(restarts_max):
        sink = new_sink()
        try:
            await _follow(recorded, sink, batch)
        except Crash:
            continue
        return sink
    raise AssertionError("it crashed more often than it was told to")


async def _follow(recorded: RecordedShard, sink: Any, batch: int) -> None:
    cursor = await _patiently(lambda: sink.position(recorded.shard))
    accepted = await recorded.accepted(cursor)
    for start in range(0, len(accepted), batch):
        some = accepted[start : start + batch]
        await _patiently(lambda some=some, cursor=cursor: sink.write(recorded.shard, some, cursor))
        cursor = some[-1].position


async def _patiently(work: Callable[[], Any]) -> Any:
    for _ in range(20):
        try:
            return await work()
        except FailedDependency:
            continue
    raise AssertionError("the store stays down")
