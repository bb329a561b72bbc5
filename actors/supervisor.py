"""Keep one live owner a shard: replace the dead and the hung, and nobody while Kafka is slow.

``Supervisor`` feeds ``actors.watch`` with marks from the decision logs, deaths by pidfd, and a
canary in a topic of its own, and does what follows. Two owners at once are harmless, because the
log fences; what these files guard is that there is soon one, and that a slow broker is not answered
by killing everybody.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol, final

from msgspec import Struct

from actors.starts import Launched, Phase, Start
from actors.watch import Action, Alarm, Launch, SupervisorSettings, TakeOver, Watch
from engine.errors import AppendInDoubt, FailedDependency, LogFault, PricingError
from persistence.decision_reader import Accepted, DecisionReader
from persistence.ports import Appender, Log

PREPARE_AGAIN_S: Final = 10.0

SPARE_LOOK_MS: Final = 1_000
"""How often a spare is looked for: asking the system for a process fifty times a second was a
fifth of what a supervisor did, and making another takes longer than this."""


class Launcher(Protocol):
    """What the supervisor needs done in the world; ``cluster.launching`` does it with Ray."""

    async def launch(self, start: Start) -> Launched:
        """Start a process and return once it has an address.

        Raises:
            FailedDependency: it could not be started.
        """
        ...

    async def prepare(self) -> None:
        """Make a spare: a warm process that the next launch becomes.

        Raises:
            FailedDependency: it could not be made.
        """
        ...

    def has_spare(self) -> bool:
        """Whether one waits."""
        ...

    def starved_ms(self, launched: Launched) -> float:
        """Return how long it waited for a processor since this was last asked."""
        ...

    async def take_over(self, launched: Launched, pardoned: Sequence[bytes]) -> None:
        """Tell a standby to seal, and whose deaths are held against no record.

        Raises:
            FailedDependency: it does not answer.
        """
        ...

    def kill(self, launched: Launched) -> None:
        """Send SIGKILL; a process already gone is no error."""
        ...

    async def gone(self, launched: Launched) -> tuple[str | None, str]:
        """Return when the process is gone, with what it left word of: (end, detail)."""
        ...

    async def progress(self, launched: Launched) -> tuple[Phase, object]:
        """Ask a start how far it is.

        Raises:
            FailedDependency: it does not answer.
        """
        ...


class Decisions(Struct, frozen=True):
    """A shard's decision log and a reader of it, begun near its end."""

    log: Log
    reader: DecisionReader
    last: Accepted | None = None  # of what was read before the supervisor began


@final
class Supervisor:
    """Runs the watch over real logs and processes until told to stop."""

    def __init__(
        self,
        watch: Watch,
        launcher: Launcher,
        decisions: Mapping[int, Decisions],
        canary_log: Log,
        settings: SupervisorSettings,
        *,
        canary: Callable[[], bytes],
        alarm: Callable[[Alarm], None],
        monotonic_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
    ) -> None:
        self.watch = watch
        self._launcher = launcher
        self._decisions = decisions
        self._canary_log = canary_log
        self._settings = settings
        self._canary = canary
        self._alarm = alarm
        self._now_ms = monotonic_ms
        self._look_at_ms = 0  # when to look next whether there is a spare
        self._appender: Appender | None = None
        self._opening: asyncio.Future[Appender] | None = None
        self._last_proven_ms: int | None = None
        self._lag_ms = 0.0  # how much later than asked the watcher itself was woken last
        self._preparing = False
        self._launched: dict[str, Launched] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self.log_faults: dict[int, str] = {}

    async def run(self) -> None:
        """Watch until ``stop``; raise what a task of ours raised."""
        for shard in self._decisions:
            self._spawn(self._follow(shard))
        self._spawn(self._prove())
        self._spawn(self._act())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while not stopping.done():
                done, _ = await asyncio.wait(
                    {stopping, *self._tasks}, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done - {stopping}:
                    task.result()
        finally:
            stopping.cancel()
            last: list[asyncio.Future[Any]] = list(self._tasks)
            if self._opening is not None:
                last.append(self._opening)
            for each in last:
                each.cancel()
            await asyncio.gather(*last, return_exceptions=True)

    def stop(self) -> None:
        """Start nobody any more and let ``run`` return."""
        self.watch.drain()
        self._stopping.set()

    @property
    def has_spare(self) -> bool:
        """Whether a warm process waits for the next start."""
        return self._launcher.has_spare()

    def adopt(self, launched: Launched, phase: Phase) -> None:
        """Take charge of a process that an earlier supervisor started.

        What its loop is busy with keeps it from telling its phase; the log's last record tells
        whether it reigns, and whether it tries something.
        """
        shard = launched.start.shard
        self.watch.adopt(launched, phase, self._now_ms())
        last = self._decisions[shard].last if shard in self._decisions else None
        if last is not None and last.stamp.owner == launched.start.owner:
            self._marked(shard, last)
        self.attend(launched)

    def attend(self, launched: Launched) -> None:
        """Follow a process, ours or an earlier supervisor's, until it is gone."""
        self._launched[launched.start.name] = launched
        self._spawn(self._attend(launched))
        self._spawn(self._ask(launched))

    def blinded(self, shard: int, fault: LogFault) -> None:
        """Watch a shard no more by its marks: its log cannot be read.

        Its owner mostly meets the same fault and stops; watching on would only kill successors.
        """
        self.log_faults[shard] = str(fault)
        self._alarm(Alarm("log_fault", shard, str(fault)))

    # ----- the world's side ---------------------------------------------------------------------

    async def _follow(self, shard: int) -> None:
        """Read the shard's decisions and report every accepted mark."""
        log, reader = self._decisions[shard].log, self._decisions[shard].reader
        while True:
            try:
                for record in await log.read(reader.offset, limit=500, wait_ms=1000):
                    accepted = reader.accept(record)
                    if accepted is not None:
                        self._marked(shard, accepted)
            except FailedDependency:
                await asyncio.sleep(0.2)
            except LogFault as fault:
                self.blinded(shard, fault)
                return

    def _marked(self, shard: int, accepted: Accepted) -> None:
        owner, trying = accepted.stamp.owner, accepted.trying is not None
        self.watch.marked(shard, owner, self._now_ms(), trying=trying)

    async def _prove(self) -> None:
        """Append a canary every so often, and count the time that quick answers prove."""
        unproven_since_ms: int | None = None
        while True:
            began_ms = self._now_ms()
            if await self._acknowledged():
                if unproven_since_ms is not None:
                    self.watch.answered_again(began_ms - unproven_since_ms)
                    unproven_since_ms = None
                silent = await self._silent()
                if self._last_proven_ms is not None:
                    elapsed_ms = began_ms - self._last_proven_ms - self._lag_ms
                    self.watch.proven(elapsed_ms, silent, self._starved())
                self._last_proven_ms = began_ms
            else:
                if unproven_since_ms is None:
                    unproven_since_ms = self._last_proven_ms or began_ms
                self._last_proven_ms = None
            ended_ms = self._now_ms()
            rest_ms = max(0, self._settings.canary_ms - (ended_ms - began_ms))
            await asyncio.sleep(rest_ms / 1000)
            self._lag_ms = max(0, self._now_ms() - ended_ms - rest_ms)

    def _starved(self) -> dict[str, float]:
        """Return how long each suspect waited for a processor since the last canary."""
        found = {}
        for life in self.watch.suspects():
            launched = self._launched.get(life.start.name)
            if launched is not None:
                found[life.start.name] = self._launcher.starved_ms(launched)
        return found

    async def _acknowledged(self) -> bool:
        deadline_s = self._settings.canary_deadline_ms / 1000
        try:
            appender = self._appender = self._appender or await self._opened(deadline_s)
            if appender is None:
                return False
            async with asyncio.timeout(deadline_s):
                await appender.append(self._canary())
        except (TimeoutError, AppendInDoubt):
            if self._appender is not None:
                self._appender.abandon()
            self._appender = None
            return False
        except FailedDependency:
            return False
        return True

    async def _opened(self, wait_s: float) -> Appender | None:
        """Return the canary's session, ``None`` while it is still being opened.

        Only an append proves anything, so only an append is bound by the canary's deadline: were
        the opening, too, it would begin anew for ever at a broker that takes a little longer.

        Raises:
            FailedDependency: it could not be opened; the next call tries again.
        """
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._canary_log.appender())
        await asyncio.wait({self._opening}, timeout=wait_s)
        if not self._opening.done():
            return None
        opening, self._opening = self._opening, None
        return opening.result()

    async def _silent(self) -> dict[int, bool]:
        """Return which decision logs answer and hold nothing that we have not read."""
        shards = [shard for shard in self._decisions if shard not in self.log_faults]
        ends = await asyncio.gather(*(self._end(shard) for shard in shards))
        return {
            shard: end is not None and self._decisions[shard].reader.offset >= end - 1
            for shard, end in zip(shards, ends, strict=True)
        }

    async def _end(self, shard: int) -> int | None:
        deadline_s = self._settings.canary_deadline_ms / 1000
        try:
            async with asyncio.timeout(deadline_s):
                return await self._decisions[shard].log.end()
        except (TimeoutError, PricingError):
            return None

    async def _act(self) -> None:
        """Do what the watch says, soon after anything changed."""
        while True:
            for action in self.watch.plan(self._now_ms()):
                self._do(action)
            for alarm in self.watch.alarms:
                self._alarm(alarm)
            self.watch.alarms.clear()
            wanted = self._settings.spare and not self._preparing and self.watch.is_calm()
            if wanted and self._now_ms() >= self._look_at_ms:
                self._look_at_ms = self._now_ms() + SPARE_LOOK_MS
                if not self._launcher.has_spare():
                    self._preparing = True
                    self._spawn(self._prepare())
            await asyncio.sleep(0.02)

    async def _prepare(self) -> None:
        """Make a spare; without one a start is slower, so a failure is no alarm."""
        try:
            await self._launcher.prepare()
        except FailedDependency:
            await asyncio.sleep(PREPARE_AGAIN_S)
        finally:
            self._preparing = False

    def _do(self, action: Action) -> None:
        if isinstance(action, Launch):
            self._spawn(self._launch(action.start))
            return
        launched = self._launched.get(action.name)
        if isinstance(action, TakeOver):
            if launched is not None:
                self._spawn(self._take_over(launched))
            return
        self._alarm(Alarm("killed", -1, f"{action.name}: {action.why}"))
        if launched is not None:
            self._launcher.kill(launched)

    async def _launch(self, start: Start) -> None:
        try:
            self._look_at_ms = 0  # a launch uses the spare
            launched = await self._launcher.launch(start)
        except FailedDependency as error:
            self.watch.launch_failed(start.name, str(error), self._now_ms())
            return
        self.watch.launched(launched)
        self.attend(launched)
        life = self.watch.life(start.name)
        if life is None:  # given up while it was starting
            self._launcher.kill(launched)
        elif start.standby and life is self.watch.places[start.shard].owner:
            # Its owner died meanwhile: it was promoted before it had an address.
            await self._take_over(launched)

    async def _take_over(self, launched: Launched) -> None:
        try:
            pardoned = self.watch.places[launched.start.shard].pardoned
            await self._launcher.take_over(launched, tuple(pardoned))
        except FailedDependency as error:
            self._alarm(Alarm("take_over_failed", launched.start.shard, str(error)))
            self._launcher.kill(launched)

    async def _attend(self, launched: Launched) -> None:
        end, detail = await self._launcher.gone(launched)
        self._launched.pop(launched.start.name, None)
        self.watch.died(launched.start.name, end, detail, self._now_ms())

    async def _ask(self, launched: Launched) -> None:
        """Ask a start for its progress until it is live or gone."""
        name = launched.start.name
        while (life := self.watch.life(name)) is not None and life.phase != "live":
            try:
                phase, progress = await self._launcher.progress(launched)
                self.watch.progressed(name, phase, progress)
                if phase == "live" and launched.start.shard in self.log_faults:
                    # Its marks are not seen, and as long as it counts as starting nobody else may.
                    self.watch.marked(launched.start.shard, launched.start.owner, self._now_ms())
            except FailedDependency:
                pass  # silence is what the watch counts
            await asyncio.sleep(0.25)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._settle)

    def _settle(self, task: asyncio.Task[None]) -> None:
        """Forget a task that ended well; one that raised stays for ``run`` to raise."""
        if task.cancelled() or task.exception() is None:
            self._tasks.discard(task)
