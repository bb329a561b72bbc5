"""One simulated world: a broker, owners and followers that fail, and those who watch them.

The actors, reigns, readers, followers and checkpoints are production's own.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from random import Random
from typing import Any

from msgspec import Struct

from actors.artefacts import Artefacts
from actors.clock import ClockKind
from actors.follower import Follower
from actors.inbox import InboxLimits
from actors.shard_actor import OwnerSettings, ShardActor
from engine.decided import Decided
from engine.errors import (
    ClockFault,
    CursorFenced,
    FailedDependency,
    MurderousBatch,
    StaleEpoch,
)
from persistence.checkpoints import CheckpointFiles
from persistence.decision_records import DECIDED, LogPosition
from persistence.memory_cache import MemoryCache
from persistence.ports import COMMANDS, DECISIONS, DELTAS
from persistence.wire import encode_delta
from tests.sim.blobs import SimBlobs
from tests.sim.faults import Faults
from tests.sim.feed import KEYS, MURDEROUS_SKU, RETAILER, SKUS, Sent, count, market
from tests.sim.folder import SimFolder
from tests.sim.logs import Broker, SimLog, SimLogs
from tests.sim.loop import Process, SimLoop
from tests.sim.sinks import CacheSink, Ledger, Store
from tests.sim.toy_shard import ToyShard
from tests.sim.watched import Killed, Watched

BASE_MS = 1_700_006_397_000
"""When worlds begin: three seconds before a midnight, so that a day ends in every storm."""

STORM_S = 5.0
"""So long misfortunes strike; then it is calm, and everything must come to an end."""

CALM_S = 25.0
SILENT_MS = 700
"""After so long without a decision a successor is started."""

HUNG_S = 4.0
"""An owner that runs and yet decides nothing for so long is hung.

Counted from its last seal that fell in doubt: nine in a row, with the waits between them, take
longer, and that is bad luck; one world of 20,000 has it. Nothing else is an excuse, and this one is
none for long: who hangs in a doubt sends no further seal, and in the calm no seal falls in doubt.
"""


class Seen(Struct, frozen=True):
    """An answer that an owner gave."""

    owner: str
    kind: str
    listing: int
    price: int
    seq: int
    least_seq: int  # a strong read must show at least this


class Owned(Struct, frozen=True):
    """A decision that an owner took for recorded."""

    owner: str
    seq: int
    digest: int
    position: int


class HostClock:
    """The clocks of one host; the wall clock may be wrong."""

    def __init__(self, loop: SimLoop, skew_ms: int) -> None:
        self.jump_ms = 0
        self._loop = loop
        self._skew_ms = skew_ms

    def wall_ms(self) -> int:
        return BASE_MS + int(self._loop.time() * 1000) + self._skew_ms + self.jump_ms

    def monotonic_ms(self) -> int:
        return int(self._loop.time() * 1000)


class Owner:
    """One start of a shard."""

    def __init__(self, number: int, process: Process, actor: ShardActor, clock: HostClock) -> None:
        self.number = number
        self.process = process
        self.actor = actor
        self.clock = clock
        self.task: asyncio.Task[None] | None = None
        self.started_s = 0.0
        self.ended_by = ""

    @property
    def runs(self) -> bool:
        return self.process.alive and not self.ended_by


class World:
    """Everything that one seed decides."""

    def __init__(
        self,
        seed: int,
        kind: "ShardKind",
        *,
        faults: Callable[[Random, SimLoop], Faults] | None = None,
        storm_s: float = STORM_S,
        after_s: float = 1.2,
    ) -> None:
        random = Random(seed)
        self.storm_s = storm_s
        self.after_s = after_s
        self.seed = seed
        self.kind = kind
        self.random = Random(random.getrandbits(64))
        self.checkpoint_interval_ms = 120
        self.loop = SimLoop(Random(random.getrandbits(64)))
        own = Random(random.getrandbits(64))
        self.faults = Faults(own) if faults is None else faults(own, self.loop)
        self.broker = Broker(self.loop, Random(random.getrandbits(64)), self.faults, BASE_MS)
        self.folder = SimFolder(Random(random.getrandbits(64)), self.faults)
        self.store = Store(self.loop, Random(random.getrandbits(64)), self.faults)
        self.blobs = SimBlobs(kind.artefacts(), Random(random.getrandbits(64)), self.faults)
        self.cache = MemoryCache(monotonic_s=self.loop.time)
        self.ledger = Ledger(self.store)
        self.cache_sink = CacheSink(self.store, self.cache, lambda: None)
        self.owners: list[Owner] = []
        self.followers: list[tuple[Process, Follower, asyncio.Task[None]]] = []
        self.violations: list[str] = []
        self.notes: Counter[str] = Counter()
        self.owned: list[Owned] = []
        self.seen: list[Seen] = []
        self.different = 0
        self.murders = 0
        self.known_commands = 0  # records of the commands lane that some owner has recorded
        self.feed_ended = False
        self._watching: asyncio.Task[Any] | None = None

    def live(self) -> None:
        """Let it live from the first delta to the last decision."""
        self.loop.run(self._live())
        for message in self.loop.unhandled:
            self.violation(f"unhandled: {message}")
        self.different = sum(owner.actor.different for owner in self.owners)

    def violation(self, text: str) -> None:
        """Note that something happened which must not."""
        if len(self.violations) < 20:
            self.violations.append(text)

    async def _live(self) -> None:
        for topic in (COMMANDS, DELTAS, DECISIONS):
            self.broker.partition(topic)
        self._start_owner(cautious=False)
        for sink in (self.ledger, self.cache_sink):
            self._start_follower(sink)
        tasks = [
            self.loop.spawn(None, coro)
            for coro in (self._feed(), self._misfortunes(), self._supervise(), self._ask())
        ]
        await asyncio.sleep(self.storm_s)
        self._calm_down()
        deadline_s = self.loop.time() + CALM_S
        while not self._all_is_done() and not self.violations:
            if self.loop.time() > deadline_s:
                self.violation(f"not all is decided and followed in the end: {self._where()}")
            await asyncio.sleep(0.05)
        await asyncio.sleep(
            self.after_s
        )  # some more heartbeats, and a checkpoint that nothing disturbs
        for task in tasks:
            if task.done() and task.exception() is not None:
                raise task.exception()  # type: ignore[misc]
        for owner in self.owners:
            self.loop.kill(owner.process)
        for process, _, _ in self.followers:
            self.loop.kill(process)

    # ----- the market --------------------------------------------------------------------------

    async def _feed(self) -> None:
        opening = self.kind.opening(self.random, BASE_MS)
        for topic, value in opening:
            self.broker.send(topic, RETAILER, value)
        while opening and self.known_commands < len(opening):
            await asyncio.sleep(0.02)
        began_s = self.loop.time()
        for sent in self.kind.market(self.random, self.faults, BASE_MS, self.storm_s - 0.5):
            wait_s = began_s + sent.at_s - self.loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            self.broker.send(sent.topic, RETAILER, sent.value())
        self.feed_ended = True

    # ----- owners and followers ----------------------------------------------------------------

    def _start_owner(self, *, cautious: bool, standby: bool = False) -> Owner:
        number = len(self.owners)
        process = Process(f"owner-{number}")
        clock = HostClock(self.loop, self.random.randrange(-800, 800))
        watched: Callable[[Any], Watched] = lambda shard: Watched(  # noqa: E731
            shard,
            murderous=KEYS[MURDEROUS_SKU],
            on_murder=lambda: self._murdered(process),
            on_record=lambda decided: self._note_record(owner, decided),
        )
        actor = ShardActor(
            0,
            logs=SimLogs(self.broker),
            checkpoints=CheckpointFiles(self.folder),
            clock=clock,
            settings=OwnerSettings(
                clock=self.kind.clock,
                checkpoint_interval_ms=self.checkpoint_interval_ms,
                checkpoint_slice_rows=self.kind.slice_rows,
                limits=InboxLimits(commands_max=2, deltas_max=4),
            ),
            new_shard=lambda: watched(self.kind.new()),
            restore=lambda parts: watched(self.kind.restore(parts)),
            owner=number.to_bytes(2, "big") + self.random.randbytes(14),
            standby=standby,
            cautious=cautious,
            artefacts=self.artefacts(),
        )
        owner = Owner(number, process, actor, clock)
        owner.started_s = self.loop.time()
        self.folder.lose_power()
        self.owners.append(owner)
        owner.task = self.loop.spawn(process, self._own(owner))
        return owner

    def artefacts(self) -> Artefacts | None:
        """Return what fetches artefacts for one owner, where there are models."""
        return Artefacts(self.blobs) if self.kind.artefacts() else None

    async def _own(self, owner: Owner) -> None:
        try:
            await owner.actor.run()
        except StaleEpoch:
            owner.ended_by = "StaleEpoch"
        except ClockFault:
            owner.ended_by = "ClockFault"
            if owner.clock.jump_ms == 0:
                self.violation(f"{owner.process} distrusts a clock that is right")
        except MurderousBatch:
            owner.ended_by = "MurderousBatch"
        except Killed:
            owner.ended_by = "Killed"
        except Exception as error:
            owner.ended_by = type(error).__name__
            self.violation(f"{owner.process} ended by {type(error).__name__}: {error}")
        self.notes[owner.ended_by] += 1

    def _murdered(self, process: Process) -> None:
        self.murders += 1
        self.loop.kill(process)

    def _note_record(self, owner: Owner, decided: Decided) -> None:
        self.known_commands = max(self.known_commands, decided.last_command + 1)
        self.owned.append(
            Owned(owner.process.name, decided.seq, decided.digest, decided.decided_ms)
        )

    def _start_follower(self, sink: Ledger | CacheSink) -> None:
        process = Process(f"follower-{sink.name}-{len(self.followers)}")
        follower = Follower(
            0,
            log=SimLog(self.broker, DECISIONS),
            sink=sink,
            generation=1,
            records_max=16,
            wall_ms=self.broker.now_ms,
        )
        task = self.loop.spawn(process, self._follow(process, follower))
        self.followers.append((process, follower, task))

    async def _follow(self, process: Process, follower: Follower) -> None:
        try:
            await follower.run()
        except CursorFenced:
            self.notes["CursorFenced"] += 1
            others = [one for one in self.followers if one[1]._sink is follower._sink]
            if len(others) < 2:
                self.violation(f"{process} was fenced, and nobody else writes there")
        except Exception as error:
            self.violation(f"{process} ended by {type(error).__name__}: {error}")
        process.alive = False

    # ----- the supervisor ----------------------------------------------------------------------

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(0.04)
            self._supervise_owner()
            for sink in (self.ledger, self.cache_sink):
                if not any(
                    process.alive and not process.paused and follower._sink is sink
                    for process, follower, _ in self.followers
                ):
                    self._start_follower(sink)

    def _supervise_owner(self) -> None:
        newest = self.owners[-1]
        since_start_s = self.loop.time() - newest.started_s
        silent_ms = self._silent_ms()
        if not newest.process.alive:
            if not newest.ended_by:
                newest.ended_by = "killed"
            self._start_owner(cautious=self.random.random() < 0.9)
        elif newest.ended_by:
            if silent_ms > 300 and since_start_s > 0.1:
                # A person looks at an owner that stopped loudly, and lets the next one try.
                self._start_owner(cautious=False)
        elif newest.process.paused:
            if silent_ms > SILENT_MS and since_start_s > SILENT_MS / 1000:
                self._start_owner(cautious=self.random.random() < 0.5)
        elif silent_ms > HUNG_S * 1000 and self._unexcused_s(newest) > HUNG_S:
            self.violation(f"{newest.process} hangs in phase {newest.actor.phase}")

    def _unexcused_s(self, owner: Owner) -> float:
        """Return the time since an owner's start, or since its last seal that fell in doubt."""
        since_s = self.broker.doubtful_seals.get(owner.actor._owner, owner.started_s)
        return self.loop.time() - since_s

    def _silent_ms(self) -> int:
        for record in reversed(self.broker.partition(DECISIONS).records):
            if record.value[9] == DECIDED:
                return self.broker.now_ms() - record.appended_ms
        return 1_000_000

    # ----- misfortunes planned -----------------------------------------------------------------

    async def _misfortunes(self) -> None:
        plan = self.faults.planned()
        moments = sorted(self.random.uniform(0.3, self.storm_s - 0.4) for _ in plan)
        for name, moment_s in zip(plan, moments, strict=True):
            await asyncio.sleep(max(moment_s - self.loop.time(), 0.0))
            self.loop.spawn(None, self._strike(name, getattr(self, f"_strike_{name}")))

    async def _strike(self, name: str, strike: Callable[[], Awaitable[bool]]) -> None:
        """Let a misfortune happen, as soon as it can."""
        while not self.faults.calm:
            if await strike():
                self.faults.counts[name] += 1
                return
            await asyncio.sleep(0.1)

    async def _strike_crash(self) -> bool:
        running = [owner for owner in self.owners if owner.runs]
        if not running:
            return False
        self.loop.kill(self.random.choice(running).process)
        return True

    async def _strike_pause_and_zombie(self) -> bool:
        owner = self.owners[-1]
        if not owner.runs or owner.process.paused or owner.actor.phase != "live":
            return False
        # Half of them in the middle of an append: that one is sent or even acknowledged.
        for _ in range(40 if self.random.random() < 0.5 else 0):
            if not owner.actor._gate.is_open:
                break
            await asyncio.sleep(0.002)
        self.loop.pause(owner.process)
        again_s = self.random.uniform(0.8, 2.2)
        self.loop.outside(again_s, self.loop.resume, owner.process)
        return True

    async def _strike_zombie_follower(self) -> bool:
        running = [entry for entry in self.followers if entry[0].alive and not entry[0].paused]
        if not running:
            return False
        process = self.random.choice(running)[0]
        self.loop.pause(process)
        self.loop.outside(self.random.uniform(0.2, 1.2), self.loop.resume, process)
        return True

    async def _strike_two_successors(self) -> bool:
        newest = self.owners[-1]
        if newest.runs and self.random.random() < 0.7:
            self.loop.kill(newest.process)
        self._start_owner(cautious=False)
        second = self._start_owner(cautious=False, standby=self.random.random() < 0.3)
        self.loop.outside(self.random.random() * 0.2, second.actor._seal_wanted.set)
        return True

    async def _strike_clock_jump(self) -> bool:
        owner = self.owners[-1]
        if not owner.runs or owner.process.paused:
            return False
        far = self.random.choice((2_500, 4_000, 7_000, 3_600_000))
        owner.clock.jump_ms = far if self.random.random() < 0.5 else -far
        return True

    async def _strike_murderous_delta(self) -> bool:
        delta = count(MURDEROUS_SKU, 1, self.broker.now_ms())
        self.broker.send(DELTAS, RETAILER, encode_delta(delta))
        return True

    async def _strike_stores_down(self) -> bool:
        self.store.is_down = True
        refused = self.store.refused
        await asyncio.sleep(self.random.uniform(0.1, 0.5))
        self.store.is_down = False
        return self.store.refused > refused

    async def _strike_retention(self) -> bool:
        """Remove what nobody needs any more; more than that is probed in the end."""
        chains = [chain async for chain in CheckpointFiles(self.folder.on_disk()).candidates()]
        running = [owner.actor for owner in self.owners if owner.runs]
        if not chains or not all(hasattr(actor, "_reader") for actor in running):
            return False
        needed = [chains[0].position.offset]
        needed += [actor._reader.offset for actor in running]
        needed += [
            follower._reader.offset
            for process, follower, _ in self.followers
            if process.alive and follower._reader
        ]
        for sink in (self.ledger, self.cache_sink):
            needed.append(-1 if sink.cursor is None else sink.cursor.offset)
        decisions = self.broker.partition(DECISIONS)
        if min(needed) <= decisions.begin:
            return False
        decisions.truncate(min(needed))
        return True

    # ----- the end -----------------------------------------------------------------------------

    def _calm_down(self) -> None:
        self.faults.calm = True
        self.store.is_down = False
        for owner in self.owners:
            if owner.process.paused:
                self.loop.resume(owner.process)
        for process, _, _ in self.followers:
            if process.paused:
                self.loop.resume(process)

    def _all_is_done(self) -> bool:
        if not self.feed_ended:
            return False
        newest = max(
            (owner for owner in self.owners if owner.runs and owner.actor.phase == "live"),
            key=lambda owner: owner.actor._shard.seq,
            default=None,
        )
        if newest is None:
            return False
        shard = newest.actor._shard
        if shard.last_delta + 1 < self.broker.partition(DELTAS).end or shard.backlog:
            return False
        if shard.last_command + 1 < self.broker.partition(COMMANDS).end:
            return False
        cursors: list[LogPosition | None] = [self.ledger.cursor, self.cache_sink.cursor]
        return all(cursor is not None and cursor.seq >= shard.seq - 2 for cursor in cursors)

    def _where(self) -> str:
        newest = self.owners[-1]
        return (
            f"{newest.process} in phase {newest.actor.phase}, ended by {newest.ended_by!r}, "
            f"feed ended {self.feed_ended}, {len(self.owners)} owners, "
            f"ledger {self.ledger.cursor and self.ledger.cursor.seq}, "
            f"cache {self.cache_sink.cursor and self.cache_sink.cursor.seq}"
        )

    # ----- those who ask -----------------------------------------------------------------------

    async def _ask(self) -> None:
        while True:
            await asyncio.sleep(self.random.random() * 0.12)
            able = [owner for owner in self.owners if owner.runs and owner.actor.phase == "live"]
            if able:
                owner = self.random.choice(able)
                strong = self.random.random() < 0.3
                self.loop.spawn(owner.process, self._ask_one(owner, strong))

    async def _ask_one(self, owner: Owner, strong: bool) -> None:
        listing = KEYS[self.random.choice(("a", "b", "c", "d"))]
        least_seq = self._valid_seq() if strong else 0
        try:
            if strong:
                found = await owner.actor.strong_read(listing, 1_000)
            else:
                found = await owner.actor.read(listing, 1_000)
        except FailedDependency:
            self.notes["read refused"] += 1
            return
        except AssertionError as error:
            self.violation(f"{owner.process} was asked between apply and record: {error}")
            return
        if found is not None:
            self.seen.append(
                Seen(
                    owner.process.name,
                    "strong" if strong else "read",
                    listing,
                    found["in_force_minor"],
                    found["seq"],
                    least_seq,
                )
            )

    def _valid_seq(self) -> int:
        """Return the number of decisions that some owner has shown as recorded by now."""
        return max((one.seq for one in self.owned), default=0)


class ShardKind(Struct, frozen=True):
    """Which shard the world runs."""

    name: str
    new: Callable[[], Any]
    restore: Callable[[Any], Any]
    opening: Callable[[Random, int], list[tuple[str, bytes]]]  # topics and records before all
    table: Callable[[Any, int], tuple[int, int]]  # a listing's units on hand and sold
    prices: Callable[[Any], dict[int, int]]
    state: Callable[[Any], bytes]  # everything that a checkpoint must keep
    market: Callable[[Random, Faults, int, float], list[Sent]] = market
    skus: tuple[str, ...] = SKUS  # whose tables are judged
    clock: ClockKind = "wall"
    slice_rows: int = 2_048  # that a slice of a checkpoint holds
    artefacts: Callable[[], Mapping[str, bytes]] = dict  # by their key among the blobs
    limits: Callable[[], AbstractContextManager[None]] = nullcontext  # that its worlds live under


TOY = ShardKind(
    "toy",
    ToyShard,
    ToyShard.restore,
    lambda random, base_ms: [],
    ToyShard.table,
    ToyShard.prices,
    ToyShard.state,
)


def simulate(seed: int, kind: ShardKind = TOY) -> World:
    """Let one world live and be judged; its violations say what went wrong."""
    from tests.sim.checkers import judge

    gc.disable()
    try:
        with kind.limits():
            world = World(seed, kind)
            world.live()
            judge(world)
        return world
    finally:
        gc.enable()
