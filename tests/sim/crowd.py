"""A shard under production's own supervisor, on a machine whose processors others want, too.

One record takes long to apply, or for ever, or some work that no record asked for does, as the
close of a day; nothing else takes any time. What an owner gets of a
processor is a share, and what it waits for one is what the kernel would tell. Log, network and time
are the simulator's, without any other misfortune.
"""

import asyncio
import gc
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from msgspec import Struct

from actors.shard_actor import OwnerSettings, ShardActor
from actors.starts import Launched, Phase, Start
from actors.supervisor import Decisions, Supervisor
from actors.watch import Alarm, SupervisorSettings, Watch
from engine.decided import Decided, Given
from engine.errors import PricingError
from engine.microbatch import FactColumns, Microbatch, ObjectDelta
from engine.replay import Agreement
from persistence.checkpoints import CheckpointFiles
from persistence.decision_reader import DecisionReader
from persistence.ports import COMMANDS, DECISIONS, DELTAS, WATCH, Log
from persistence.wire import encode_delta
from tests.sim.faults import Faults
from tests.sim.feed import RETAILER, command, count
from tests.sim.folder import SimFolder
from tests.sim.logs import Broker, SimAppender, SimLog
from tests.sim.loop import Process, SimLoop
from tests.sim.toy_shard import ToyShard
from tests.sim.world import BASE_MS, HostClock

START_S = 0.3
"""From a launch until the owner begins: of what it does then, nothing takes time."""

PHASES: dict[str, Phase] = {"live": "live", "waiting": "standby"}


WORK_S = 4.0
"""When work that no record asked for is due: the next microbatch does it, whatever it holds."""


class Long(Struct, frozen=True):
    """The record that takes long: where it stands, and how many seconds of a processor it needs.

    Without a topic it is no record.
    """

    topic: str
    offset: int
    own_s: float


class Host(Struct, eq=False):
    """One start's process, what of a processor it gets, and how long it waited for one."""

    process: Process
    actor: ShardActor
    gone: "asyncio.Future[tuple[str | None, str]]"
    deciding: bool = False  # what takes long; recorded, it is replayed by all who follow
    busy_from_s: float = 0.0
    busy_until_s: float = 0.0
    told_s: float = 0.0


class Slow:
    """Delegates to a shard, and tells how long it takes."""

    def __init__(
        self,
        shard: Any,
        long: Long,
        on_long: Callable[[], None],
        on_record: Callable[[int], None],
        on_replay: Callable[[int], None],
    ) -> None:
        self._shard = shard
        self._long = long
        self._on_long = on_long
        self._on_record = on_record
        self._on_replay = on_replay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shard, name)

    def apply(self, batch: Microbatch, now_ms: int, given: Given) -> Decided:
        lane = 0 if self._long.topic == COMMANDS else 1
        skipped = {(place.lane, place.offset) for place in given.skipped}
        if not self._long.topic or (lane, self._long.offset) in _places(batch) - skipped:
            self._on_long()
        decided: Decided = self._shard.apply(batch, now_ms, given)
        return decided

    def record(self, decided: Decided) -> None:
        self._shard.record(decided)
        self._on_record(decided.seq)

    def replay(self, batch: Microbatch, recorded: Decided) -> Agreement:
        found: Agreement = self._shard.replay(batch, recorded)
        self._on_replay(recorded.seq)
        return found


def _places(batch: Microbatch) -> set[tuple[int, int]]:
    places: set[tuple[int, int]] = set()
    for run in batch.runs:
        if isinstance(run, FactColumns):
            places |= set(zip(run.lane.tolist(), run.offset.tolist(), strict=True))
        else:
            assert isinstance(run, ObjectDelta)
            places.add((run.position.lane, run.position.offset))
    return places


class BusyLogs:
    """Logs of a process that is busy: it asks them nothing until it has done what it is at."""

    def __init__(self, broker: Broker, free: Callable[[], Any]) -> None:
        self._broker = broker
        self._free = free

    async def open(self, topic: str, partition: int) -> Log:
        return BusyLog(SimLog(self._broker, topic), self._free)

    async def create(self, topics: Any, *, retention_ms: int) -> None: ...

    async def partitions(self, topic: str) -> int:
        return 1

    async def close(self) -> None: ...


class BusyLog:
    """One partition of them."""

    def __init__(self, log: SimLog, free: Callable[[], Any]) -> None:
        self._log = log
        self._free = free

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def read(self, after: int, **more: Any) -> Any:
        await self._free()
        return await self._log.read(after, **more)

    async def appender(self) -> Any:
        return BusyAppender(await self._log.appender(), self._free)


class BusyAppender:
    """A session of them."""

    def __init__(self, appender: Any, free: Callable[[], Any]) -> None:
        self._appender: SimAppender = appender
        self._free = free

    def __getattr__(self, name: str) -> Any:
        return getattr(self._appender, name)

    async def append(self, value: bytes, **more: Any) -> Any:
        await self._free()
        return await self._appender.append(value, **more)


_BURIED: list[Any] = []
"""Worlds that have ended, with their dead."""


class Crowd:
    """The world: a feed in both lanes, one long record among it, and who looks after its owner.

    With ``last`` the feed ends with the long record, so that its heirs try nothing beside it.
    """

    def __init__(
        self,
        seed: int,
        *,
        topic: str,
        own_s: float,
        share: float,
        standby: bool = False,
        last: bool = False,
    ) -> None:
        random = Random(seed)
        self.share = share
        self.loop = SimLoop(Random(random.getrandbits(64)), steps_max=20_000_000)
        self.random = Random(random.getrandbits(64))
        faults = Faults(Random(0))
        faults.calm = True
        self.broker = Broker(self.loop, Random(random.getrandbits(64)), faults, BASE_MS)
        self.folder = SimFolder(Random(random.getrandbits(64)), faults)
        self.long = Long(topic, 20, own_s)
        self._last = last
        self.watch: Watch
        self.worked = False  # whether work that no record asked for was done and recorded
        self.long_seq = 0  # the decision that took long, once it is recorded; to replay, too
        self.hosts: list[Host] = []
        self.kills: list[tuple[str, float]] = []  # whom the supervisor ended, and when
        self.alarms: list[Alarm] = []
        self.lived_on = False  # whether another decided after the owner was killed in the end
        self.found_s = 0.0  # how long an owner that was stopped in the end went unnoticed
        self._names: dict[str, Host] = {}
        self._settings = SupervisorSettings(standby=standby)

    def live(
        self,
        until_s: float,
        *,
        is_over: Callable[[], bool],
        stopped_after_s: float = 0.0,
        killed: bool = False,
    ) -> None:
        """Let it live until something holds, for so long at most.

        With ``stopped_after_s`` its owner is stopped so long after that, and it lives on until that
        is found. With ``killed`` its owner is killed then, and it lives on until another decides.
        """
        gc.disable()  # collecting tasks of the dead would run their ``finally``
        try:
            self.loop.run(self._live(until_s, is_over, stopped_after_s, killed=killed))
        finally:
            # Nor are they collected later, in the midst of whatever a process of tests does then.
            _BURIED.append(self)
            gc.freeze()
            gc.enable()
        assert not self.loop.unhandled, self.loop.unhandled

    @property
    def passed(self) -> bool:
        """Whether an owner has recorded that the long work was done, or its record skipped."""
        if not self.long.topic:
            return self.worked
        return any(host.actor.phase == "live" and self._is_past(host.actor) for host in self.hosts)

    @property
    def skipped(self) -> int:
        """How many records were skipped for murder."""
        return sum(host.actor.skipped for host in self.hosts)

    def _is_past(self, actor: ShardActor) -> bool:
        shard = actor._shard
        last = shard.last_command if self.long.topic == COMMANDS else shard.last_delta
        return bool(last >= self.long.offset)

    async def _live(
        self, until_s: float, is_over: Callable[[], bool], stopped_after_s: float, *, killed: bool
    ) -> None:
        for topic in (COMMANDS, DELTAS, DECISIONS, WATCH):
            self.broker.partition(topic)
        numbers = iter(range(1, 10**6))
        self.watch = Watch([0], self._settings, new_owner=lambda: next(numbers).to_bytes(16, "big"))
        reader = DecisionReader(None, shard=0, generation=1)
        supervisor = Supervisor(
            self.watch,
            self,
            {0: Decisions(SimLog(self.broker, DECISIONS), reader)},
            SimLog(self.broker, WATCH),
            self._settings,
            canary=lambda: b"{}",
            alarm=self.alarms.append,
            monotonic_ms=self.broker.now_ms,
        )
        running = self.loop.spawn(None, supervisor.run())
        feeding = self.loop.spawn(None, self._feed())
        while not is_over() and self.loop.time() < until_s:
            assert not feeding.done(), feeding.result()
            await asyncio.sleep(0.1)
        if stopped_after_s:
            await asyncio.sleep(stopped_after_s)
            await self._stop_owner(until_s)
        if killed:
            await self._kill_owner(until_s)
        supervisor.stop()
        await running
        for host in self.hosts:
            self.loop.kill(host.process)

    async def _stop_owner(self, until_s: float) -> None:
        began_s, kills = self.loop.time(), len(self.kills)
        for host in self.hosts:
            if self._decides(host):
                self.loop.pause(host.process)
        while len(self.kills) == kills and self.loop.time() < until_s:
            await asyncio.sleep(0.01)
        self.found_s = self.loop.time() - began_s

    async def _kill_owner(self, until_s: float) -> None:
        (host,) = [each for each in self.hosts if self._decides(each)]
        self.loop.kill(host.process)
        host.gone.set_result((None, "SIGKILL"))
        while not any(map(self._decides, self.hosts)) and self.loop.time() < until_s:
            await asyncio.sleep(0.1)
        self.lived_on = any(map(self._decides, self.hosts))

    def _decides(self, host: Host) -> bool:
        return host.process.alive and host.actor.phase == "live"

    async def _feed(self) -> None:
        number = 0
        while True:
            number += 1
            at_ms = BASE_MS + number
            sku = self.random.choice(("a", "b", "c", "d"))
            delta = count(sku, self.random.randrange(1_000), at_ms)
            order = command(self.random, sku, at_ms, number)
            if not self._last or number <= self.long.offset:
                self.broker.send(DELTAS, RETAILER, encode_delta(delta))
                self.broker.send(COMMANDS, RETAILER, encode_delta(order))
            elif number == self.long.offset + 1:
                await asyncio.sleep(1.0)
                alone = delta if self.long.topic == DELTAS else order
                self.broker.send(self.long.topic, RETAILER, encode_delta(alone))
            await asyncio.sleep(self.random.random() * 0.4)

    # ----- the launcher's side ------------------------------------------------------------------

    async def launch(self, start: Start) -> Launched:
        await asyncio.sleep(START_S)
        process = Process(start.name)

        def work() -> None:
            host.busy_from_s = self.loop.time()
            host.told_s = max(host.told_s, host.busy_from_s)
            host.busy_until_s = host.busy_from_s + self.long.own_s / self.share

        def long() -> None:
            if self.long.topic or (not self.worked and self.loop.time() >= WORK_S):
                host.deciding = True
                work()

        def recorded(seq: int) -> None:
            if host.deciding:
                self.worked, self.long_seq, host.deciding = True, seq, False

        def replayed(seq: int) -> None:
            if seq == self.long_seq:
                work()

        async def free() -> None:
            while self.loop.time() < host.busy_until_s:
                await asyncio.sleep(min(host.busy_until_s - self.loop.time(), 60.0))

        wrapped: Callable[[Any], Slow] = lambda shard: Slow(  # noqa: E731
            shard, self.long, long, recorded, replayed
        )
        actor = ShardActor(
            0,
            logs=BusyLogs(self.broker, free),
            checkpoints=CheckpointFiles(self.folder),
            clock=HostClock(self.loop, 0),
            settings=OwnerSettings(checkpoint_interval_ms=10**9),
            new_shard=lambda: wrapped(ToyShard()),
            restore=lambda parts: wrapped(ToyShard.restore(parts)),
            owner=start.owner,
            standby=start.standby,
            cautious=start.cautious,
            pardoned=start.pardoned,
        )
        host = Host(process, actor, self.loop.create_future())
        self.hosts.append(host)
        self._names[start.name] = host
        self.loop.spawn(process, self._own(host))
        return Launched(start=start, pid=len(self.hosts), address="")

    async def _own(self, host: Host) -> None:
        try:
            await host.actor.run()
        except PricingError as error:
            if not host.gone.done():
                host.gone.set_result((_END.get(type(error).__name__), str(error)))
            host.process.alive = False

    async def prepare(self) -> None:
        raise AssertionError("nobody asked for a spare")

    def has_spare(self) -> bool:
        return False

    def starved_ms(self, launched: Launched) -> float:
        host, now_s = self._names[launched.start.name], self.loop.time()
        since_s, host.told_s = host.told_s, now_s
        busy_s = min(now_s, host.busy_until_s) - max(since_s, host.busy_from_s)
        return max(busy_s, 0.0) * (1.0 - self.share) * 1000.0

    async def take_over(self, launched: Launched, pardoned: Sequence[bytes]) -> None:
        await self._names[launched.start.name].actor.take_over(pardoned)

    def kill(self, launched: Launched) -> None:
        host = self._names[launched.start.name]
        self.kills.append((launched.start.name, self.loop.time() - host.busy_from_s))
        self.loop.kill(host.process)
        if not host.gone.done():
            host.gone.set_result((None, "it left no word"))

    async def gone(self, launched: Launched) -> tuple[str | None, str]:
        return await self._names[launched.start.name].gone

    async def progress(self, launched: Launched) -> tuple[Phase, object]:
        actor = self._names[launched.start.name].actor
        return PHASES.get(actor.phase, "starting"), actor.phase


_END = {"StaleEpoch": "fenced", "MurderousBatch": "murderous_batch"}
