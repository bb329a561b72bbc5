"""The owner of one shard: pulls deltas, decides, records the decision, for ever.

A plain class. ``cluster.assembly`` makes a Ray actor of it; a test just constructs it. Starting,
recovering and standing by are the same code: restore, follow the log to its end, warm, (wait,)
seal, replay the rest, live.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from actors.artefacts import Artefacts
from actors.attempts import Attempts
from actors.checkpointing import Checkpointing
from actors.clock import Clock, ClockKind, ClockWatch, decision_ms
from actors.gate import Gate
from actors.inbox import Inbox, InboxLimits
from actors.owned_shard import NewShard, OwnedShard, RestoreShard
from actors.patience import patiently
from actors.reign import Reign
from engine.artefact import Artefact
from engine.decided import Decided, Given
from engine.errors import (
    DeadlinePassed,
    FailedDependency,
    MurderousBatch,
    PricingError,
    RejectedInput,
    SettingsRefused,
)
from engine.microbatch import FactColumns, Microbatch, Position
from engine.replay import Agreement
from kernels.limits import FEATURES_SLICE_MAX
from persistence.checkpoints import CheckpointFiles, Header, stands_in_log
from persistence.decision_reader import Accepted, DecisionReader
from persistence.decision_records import LogPosition
from persistence.ports import COMMANDS, DECISIONS, DELTAS, Log, Logs
from persistence.wire import Decoder

LOGGER = logging.getLogger("repricer.shard")

FOLLOW_RECORDS_MAX = 64
FOLLOWED_MS_LONG = 500
"""A start that followed the log for longer takes a checkpoint as soon as it is live."""

ATTEMPT_MS_LONG = 2_000
"""A cautious owner whose attempt took longer takes a checkpoint at once.

Others may have been ended on it, and it is decided only because this one was given more time than
they: a successor need not replay it.
"""

DEATHS_BEFORE_SKIP = 2
"""When so many cautious owners fell on one record, tried alone, it is skipped.

Those do not count whom the supervisor ended for a silence that may have been no hang.
"""

DEATHS_BEFORE_STOP = 10
"""On so many, skipping did not help: the shard stops."""


GATHERED = 3
"""Deltas gather for so many times as long as the last microbatch took: a shard under a steady flow
decides for a third of the time, however crowded the machine is."""

GATHER_MS_MAX = 30
"""But no longer than this after it began."""

OUTRUN = 2
"""A round copies so many rows at least for each one that a microbatch touched."""

COPIED = 4
"""Behind a microbatch one part of so many of what it took may be spent on a checkpoint."""


class OwnerSettings(Struct, frozen=True, kw_only=True):
    """What an owner needs to know about its generation and its pace."""

    generation: int = 1
    partitions: int = 1
    spreads: dict[str, int] = {}
    clock: ClockKind = "wall"
    heartbeat_ms: int = 250
    interval_ms: int = 0  # least time between two microbatches' beginnings; 0: none at all
    checkpoint_interval_ms: int = 60_000
    checkpoint_slice_rows: int = 2_048
    limits: InboxLimits = InboxLimits()


class ShardActor:
    """Owns one shard from its start to its end; a new start is a new actor."""

    def __init__(
        self,
        shard_number: int,
        *,
        logs: Logs,
        checkpoints: CheckpointFiles,
        clock: Clock,
        settings: OwnerSettings,
        new_shard: NewShard,
        restore: RestoreShard,
        owner: bytes,
        standby: bool = False,
        cautious: bool = False,
        pardoned: Iterable[bytes] = (),
        warmed: Callable[[], None] = lambda: None,
        artefacts: Artefacts | None = None,
        lacking: Callable[[], Awaitable[str | None]] | None = None,
    ) -> None:
        self.phase = "new"
        self.different = 0  # replayed decisions that differ within their replay domain: an alarm
        self.expected_different = 0  # and outside of it, which is no alarm
        self.skipped = 0  # records isolated because they killed two owners
        self.refused_checkpoints = 0
        self._shard_number = shard_number
        self._logs = logs
        self._checkpoints = checkpoints
        self._clock = clock
        self._settings = settings
        self._new_shard = new_shard
        self._restore = restore
        self._owner = owner
        self._gate = Gate()
        self._seal_wanted = asyncio.Event()
        self.ready = asyncio.Event()  # set once it is live or stands by: what could wait may begin
        if not standby:
            self._seal_wanted.set()
        self._cautious = cautious
        self._pardoned = set(pardoned)  # whom their supervisor ended, perhaps for no hang at all
        self._artefacts = artefacts  # None: whatever a promotion names is missing
        self._warmed = warmed  # told when all is there that will stay
        self._lacking = lacking  # fetches a checkpoint from elsewhere, None: there is nowhere
        self._passed_place: tuple[int, int] | None = None
        self._attempts = Attempts()
        self._strong_reads: list[tuple[int, asyncio.Event]] = []
        self._telling = asyncio.Lock()  # held by the one whose features are told
        self._replay_domain = ""  # of the decisions being replayed
        self._last_mark_ms = self._begun_ms = self._phase_ms = clock.monotonic_ms()
        self._took_ms = 0  # the last microbatch, its append included
        self._shard: OwnedShard
        self._reader: DecisionReader
        self._position: LogPosition | None = None  # of the last decision recorded or replayed
        self._decisions: Log
        self._inbox: Inbox
        self._reign: Reign | None = None
        self._rounds: Checkpointing
        self._watch: ClockWatch
        self._closing: list[Callable[[], Awaitable[None]]] = []
        if artefacts is not None:
            self._closing.append(artefacts.close)

    # ----- the life of an owner ----------------------------------------------------------------

    async def run(self) -> None:
        """Restore, follow, warm, wait if standing by, seal, and decide until something ends it.

        Raises:
            StaleEpoch: another owner reigns; nothing is tidied up.
            LogFault: the log contradicts what was acknowledged.
            ClockFault: the wall clock cannot be trusted.
        """
        try:
            await self.start()
            while True:
                await self.step()
        finally:
            LOGGER.info("shard %d: stopped in phase %s", self._shard_number, self.phase)
            self.phase = "stopped"
            await self._let_go()

    async def start(self) -> None:
        """Do all that comes before the first decision, and log how long each part took."""
        self._enter("restoring")
        await self._open()
        self._enter("following")
        followed_ms = -self._clock.monotonic_ms()
        await self._follow_to_end()
        followed_ms += self._clock.monotonic_ms()
        self._enter("warming")
        self._shard.warm()
        self._warmed()
        self._enter("waiting")
        while not self._seal_wanted.is_set():
            self.ready.set()
            await self._follow(wait_ms=self._settings.heartbeat_ms)
        self._enter("sealing")
        await self._seal()
        if followed_ms > FOLLOWED_MS_LONG:
            # An owner that falls before its first checkpoint leaves its successor more to replay;
            # owners that fell again and again would leave ever more.
            self._rounds.hasten()
        self._enter("live")
        self.ready.set()

    def _enter(self, phase: str) -> None:
        now_ms = self._clock.monotonic_ms()
        took_ms, self._phase_ms = now_ms - self._phase_ms, now_ms
        LOGGER.info("shard %d: %s, after %d ms %s", self._shard_number, phase, took_ms, self.phase)
        self.phase = phase

    async def take_over(self, pardoned: Iterable[bytes] = ()) -> None:
        """Let a standby seal; it was not told at its start who was ended since."""
        self._pardoned |= set(pardoned)
        self._seal_wanted.set()

    async def step(self) -> int:
        """Decide one microbatch, have it recorded, and return how many deltas it held.

        The shard pulls when it is ready for more, so a burst becomes a bigger batch and not a
        longer queue. Until ``record`` the shard answers nobody: a price that is not in the log was
        never quoted. An empty batch is decided too: it is the heartbeat, and timers fall due
        without deltas.
        """
        assert self._reign is not None
        await self._checkpoint_meanwhile()
        await self._keep_interval()
        records_max = self._attempts.records_max(survivor=self._owner) if self._cautious else None
        # A cautious owner tries no more at once than a death shall cost its heir to narrow down.
        room = self._shard.backlog == 0 and not self._cautious
        batch = await self._inbox.read(wait_ms=self._wait_ms(), records_max=records_max, room=room)
        self._begun_ms = self._clock.monotonic_ms()
        artefacts = await self._artefacts.of(batch) if self._artefacts is not None else ()
        wall_ms = self._watch.look()
        given = await self._try(batch) if self._cautious else Given()
        if artefacts:
            given = replace(given, artefacts=artefacts)
        now_ms = decision_ms(
            self._settings.clock,
            previous_ms=self._shard.decided_ms,
            wall_ms=wall_ms,
            batch=batch,
        )
        self._gate.close()
        decided = self._shard.apply(batch, now_ms, given)
        applied_ms = self._clock.monotonic_ms() - self._begun_ms
        self._rounds.note(applied_ms)
        if self._cautious and applied_ms >= ATTEMPT_MS_LONG:
            self._rounds.hasten()
        recorded = await self._reign.append(decided)
        self._shard.record(decided)
        self._gate.open()
        self._position = recorded.position
        self._last_mark_ms = self._clock.monotonic_ms()
        self._answer_strong_reads()
        touched = batch.deltas + len(decided.quotes)
        await self._checkpoint_between(applied_ms // COPIED, OUTRUN * touched)
        self._took_ms = self._clock.monotonic_ms() - self._begun_ms
        if self._cautious:
            self._leave_caution()
        return batch.deltas

    # ----- what others ask of it ---------------------------------------------------------------

    async def read(self, listing: int, deadline_ms: int) -> dict[str, Any] | None:
        """Return one listing's recorded state; waits while a decision is being recorded.

        Raises:
            DeadlinePassed: it was not recorded in time.
        """
        self._assert_live()
        await self._gate.opened(deadline_ms)
        return self._shard.live(listing)

    async def strong_read(self, listing: int, deadline_ms: int) -> dict[str, Any] | None:
        """Return one listing's state after a mark that was appended after this call.

        Raises:
            DeadlinePassed: no such mark was acknowledged in time.
        """
        self._assert_live()
        await self._later_mark(deadline_ms)
        return self._shard.live(listing)

    async def features(
        self, listings: Sequence[int], deadline_ms: int, *, strong: bool
    ) -> dict[str, Any]:
        """Return the named features of a slice of listings, and the mark that they are as of.

        Recorded state, or, where ``strong``, that after a mark which was appended after this call.
        Slices take turns, one a turn of the loop, so that a microbatch waits behind one at most.

        Raises:
            DeadlinePassed: nothing was recorded in time, or too many others were before.
            RejectedInput: the slice is too long.
        """
        self._assert_live()
        if len(listings) > FEATURES_SLICE_MAX:
            raise RejectedInput(
                "/listings", f"{len(listings)} at once", f"at most {FEATURES_SLICE_MAX}"
            )
        if strong:
            await self._later_mark(deadline_ms)
        try:
            async with asyncio.timeout(deadline_ms / 1000), self._telling:
                await self._gate.opened(deadline_ms)
                shard = self._shard
                told = shard.features(listings)
                mark = {"seq": shard.seq, "decided_ms": shard.decided_ms}
                await asyncio.sleep(0)  # the others' turn, before the next slice's
        except TimeoutError:
            raise DeadlinePassed(f"not told within {deadline_ms} ms; ask again") from None
        return {**mark, "features": told}

    async def learning(self, retailer: str, deadline_ms: int) -> dict[str, Any]:
        """Return what is learnt of a retailer's demand as a whole, and the mark that it is as of.

        Raises:
            DeadlinePassed: nothing was recorded in time, or others were told before.
        """
        return await self._told(
            "learning", lambda shard: shard.learning(retailer, fit=False), deadline_ms
        )

    async def live_facts(self, listing: int, deadline_ms: int) -> dict[str, Any]:
        """Return ``facts``, what explains a listing's price now and its quote does not hold.

        They are ``None`` of a listing that is not known. ``seq`` and ``decided_ms`` are the mark
        that they are as of.

        Raises:
            DeadlinePassed: nothing was recorded in time, or others were told before.
        """
        return await self._told("facts", lambda shard: shard.live_facts(listing), deadline_ms)

    async def _told(
        self, name: str, tell: Callable[[OwnedShard], Any], deadline_ms: int
    ) -> dict[str, Any]:
        """Return what ``tell`` tells under its name, and the mark that it is as of; one at a time.

        Raises:
            DeadlinePassed: nothing was recorded in time, or others were told before.
        """
        self._assert_live()
        try:
            async with asyncio.timeout(deadline_ms / 1000), self._telling:
                await self._gate.opened(deadline_ms)
                shard = self._shard
                return {"seq": shard.seq, "decided_ms": shard.decided_ms, name: tell(shard)}
        except TimeoutError:
            raise DeadlinePassed(f"not told within {deadline_ms} ms; ask again") from None

    async def _later_mark(self, deadline_ms: int) -> None:
        """Wait for a mark that is appended after this call, and for the gate to be open then."""
        # The decision under way began before this call, so it proves nothing about now.
        needed_seq = self._shard.seq + (1 if self._gate.is_open else 2)
        answered = asyncio.Event()
        self._strong_reads.append((needed_seq, answered))
        self._inbox.wake()
        try:
            async with asyncio.timeout(deadline_ms / 1000):
                await answered.wait()
                await self._gate.opened(deadline_ms)
        except TimeoutError:
            raise DeadlinePassed(
                f"no mark was acknowledged within {deadline_ms} ms; ask again"
            ) from None

    async def checkpoint(self) -> str:
        """Take a checkpoint of what is recorded by now, and return its name."""
        self._assert_live()
        answer = self._rounds.ask()
        self._inbox.wake()
        return await answer

    def models(self) -> dict[str, Any]:
        """Return which models serve whom, by retailer and place."""
        self._assert_live()
        return self._shard.models()

    def status(self) -> dict[str, Any]:
        """Return where the owner stands, for a supervisor and an operator."""
        status: dict[str, Any] = {
            "shard": self._shard_number,
            "generation": self._settings.generation,
            "owner": self._owner.hex(),
            "phase": self.phase,
            "cautious": self._cautious,
            "last_mark_age_ms": self._clock.monotonic_ms() - self._last_mark_ms,
            "different": self.different,
            "expected_different": self.expected_different,
            "skipped": self.skipped,
            "refused_checkpoints": self.refused_checkpoints,
        }
        if self.phase in ("new", "restoring"):
            return status
        status |= {
            "epoch": self._reader.epoch,
            "seq": self._shard.seq,
            "last_command": self._shard.last_command,
            "last_delta": self._shard.last_delta,
            "decided_ms": self._shard.decided_ms,
            "decision_offset": self._reader.offset,
            "waiting_commands": self._inbox.commands.waiting(),
            "waiting_deltas": self._inbox.deltas.waiting(),
            "backlog": self._shard.backlog,
            "listings": self._shard.listings,
        }
        if self._reign is not None:
            status |= {
                "lag_ms": self._inbox.lag_ms(self._clock.wall_ms()),
                "doubts": self._reign.doubts,
                "gaps": self._reign.gaps,
                "checkpoints": self._rounds.saved,
                "checkpoint_failures": self._rounds.failures,
            }
        return status

    # ----- starting ----------------------------------------------------------------------------

    async def _open(self) -> None:
        number, settings = self._shard_number, self._settings
        self._decisions = await self._open_log(DECISIONS)
        chain = await patiently(lambda: self._checkpoints.newest(self._counts))
        if chain is None and self._lacking is not None and await self._lacking() is not None:
            chain = await patiently(lambda: self._checkpoints.newest(self._counts))
        self._rounds = Checkpointing(
            self._checkpoints,
            shard_number=number,
            generation=settings.generation,
            interval_ms=settings.checkpoint_interval_ms,
            slice_rows=settings.checkpoint_slice_rows,
            begun_ms=self._clock.monotonic_ms(),
        )
        if chain is None:
            self._shard = self._new_shard()
        else:
            self._shard = self._restore(chain.parts)
            self._position = chain.position
            self._rounds.tip = chain.name
            self._replay_domain = chain.header.replay_domain
            assert self._shard.seq == chain.position.seq
        self._reader = DecisionReader(self._position, shard=number, generation=settings.generation)
        self._inbox = Inbox(
            await self._open_log(COMMANDS),
            await self._open_log(DELTAS),
            Decoder(number, settings.partitions, settings.spreads),
            settings.limits,
        )
        self._closing += [self._rounds.close, self._inbox.close]
        self._inbox.begin(self._shard.last_command, self._shard.last_delta)

    async def _open_log(self, topic: str) -> Log:
        log = await patiently(lambda: self._logs.open(topic, self._shard_number))
        self._closing.append(log.close)
        return log

    async def _counts(self, name: str, header: Header) -> bool:
        """Return whether the decision that a checkpoint names stands in the log."""
        number, generation = self._shard_number, self._settings.generation
        if (header.shard, header.generation) != (number, generation):
            raise SettingsRefused(
                f"checkpoint {name} is of shard {header.shard}, generation "
                f"{header.generation}, not of shard {number}, generation {generation}"
            )
        stands = await stands_in_log(
            header.position,
            self._decisions,
            shard=number,
            generation=generation,
            digest=header.digest,
        )
        if not stands:
            self.refused_checkpoints += 1
            LOGGER.warning("checkpoint %s does not stand in the log", name)
        return stands

    async def _follow_to_end(self) -> None:
        end = await patiently(self._decisions.end)
        while self._reader.offset < end - 1:
            await self._follow(wait_ms=self._settings.heartbeat_ms)

    async def _follow(self, wait_ms: int) -> None:
        """Replay what the log holds next."""
        try:
            records = await self._decisions.read(
                self._reader.offset, limit=FOLLOW_RECORDS_MAX, wait_ms=wait_ms
            )
        except FailedDependency:
            await asyncio.sleep(wait_ms / 1000)
            return
        for record in records:
            accepted = self._reader.accept(record)
            if accepted is not None:
                await self._replay(accepted)

    async def _replay(self, accepted: Accepted) -> None:
        """Repeat what another owner decided; what he recorded wins."""
        if accepted.started is not None:
            started = accepted.started
            self._check_start(started.partitions, started.clock)
            self._replay_domain = started.replay_domain
        elif accepted.trying is not None:
            place = (accepted.trying.last_command, accepted.trying.last_delta)
            self._attempts.announced(place, self._passed, accepted.stamp.owner)
        elif accepted.decided is not None:
            decided = accepted.decided
            batch = await self._inbox.read_exactly(decided.last_command, decided.last_delta)
            artefacts: tuple[Artefact, ...] = ()
            if self._artefacts is not None:
                artefacts = await self._artefacts.again(batch, decided)
            # Only a promotion has more to replay than the batch.
            agreed = (
                self._shard.replay(batch, decided, artefacts)
                if artefacts
                else self._shard.replay(batch, decided)
            )
            self._count_agreement(agreed, decided)
            self._position = accepted.position
            self._attempts.decided(self._passed)

    def _check_start(self, partitions: int, clock: ClockKind) -> None:
        if partitions != self._settings.partitions:
            raise SettingsRefused(
                f"partitions: the log was begun with {partitions}, the settings say "
                f"{self._settings.partitions} (a new number is a new generation)"
            )
        if clock == "wall" and self._settings.clock == "event":
            raise SettingsRefused(
                "clock: decisions were made by the wall clock, so event time would stand still "
                "(use clock 'wall', or a new generation)"
            )

    def _count_agreement(self, agreement: Agreement, decided: Decided) -> None:
        if agreement is Agreement.EXACT:
            return
        if self._replay_domain in ("", self._shard.domain):
            self.different += 1
            LOGGER.error(
                "shard %d: replay of seq %d differs from the record",
                self._shard_number,
                decided.seq,
            )
        else:
            self.expected_different += 1

    async def _seal(self) -> None:
        self._watch = ClockWatch(self._clock)
        reign = Reign(
            self._decisions,
            self._reader,
            owner=self._owner,
            partitions=self._settings.partitions,
            replay_domain=self._shard.domain,
            clock=self._settings.clock,
            watch=self._watch,
        )
        self._reign = reign
        await reign.seal(self._replay)
        self._last_mark_ms = self._clock.monotonic_ms()
        if self._cautious:
            # The predecessor fell somewhere in the one microbatch that it took and never recorded.
            limits, shard = self._settings.limits, self._shard
            # Each waits behind its lane's fetch, which the broker holds: nobody decides meanwhile.
            ends = await asyncio.gather(self._inbox.commands.end(), self._inbox.deltas.end())
            self._passed_place = (
                min(ends[0] - 1, shard.last_command + limits.commands_max),
                min(ends[1] - 1, shard.last_delta + limits.deltas_max),
            )

    # ----- living ------------------------------------------------------------------------------

    async def _keep_interval(self) -> None:
        """Let deltas gather until the last microbatch began long enough ago.

        A shard at rest decides the first delta at once. Under a steady trickle each microbatch has
        a price that everybody pays: hundreds of array calls, an append, and a record for every
        follower. On a full machine it takes longer, and so more is gathered: owners that begin
        again at once take the processor from each other, and all wait (docs/decisions/0095).
        """
        if self._settings.interval_ms == 0:
            return
        interval_ms = max(self._settings.interval_ms, min(GATHERED * self._took_ms, GATHER_MS_MAX))
        rest_ms = self._begun_ms + interval_ms - self._clock.monotonic_ms()
        if rest_ms > 0:
            await self._inbox.gather(rest_ms)

    def _wait_ms(self) -> int:
        """Return how long the next microbatch may take to come."""
        since_mark_ms = self._clock.monotonic_ms() - self._last_mark_ms
        if self._shard.backlog > 0 or self._shard.due(self._shard.decided_ms):
            return 0
        return max(self._settings.heartbeat_ms - since_mark_ms, 0)

    async def _try(self, batch: Microbatch) -> Given:
        """Announce what is about to be tried, and skip the record that killed two cautious owners.

        Raises:
            MurderousBatch: there is nothing to skip, or skipping did not help.
        """
        assert self._reign is not None
        place = (batch.last_command, batch.last_delta)
        deaths = self._attempts.deaths(
            place, self._passed, survivor=self._owner, pardoned=self._pardoned
        )
        is_empty = place == self._passed
        if deaths >= (DEATHS_BEFORE_SKIP if is_empty else DEATHS_BEFORE_STOP):
            raise MurderousBatch(
                f"shard {self._shard_number}: {deaths} owners fell at command {place[0]}, delta "
                f"{place[1]}" + (", on an empty batch" if is_empty else ", though it was skipped")
            )
        await self._reign.announce(*place)
        if deaths < DEATHS_BEFORE_SKIP:
            return Given()
        self.skipped += 1
        LOGGER.error(
            "shard %d: the record before command %d, delta %d killed %d owners and is skipped",
            self._shard_number,
            place[0] + 1,
            place[1] + 1,
            deaths,
        )
        return Given(skipped=positions_of(batch))

    @property
    def _passed(self) -> tuple[int, int]:
        """Return the last command and the last delta that the shard has decided."""
        return self._shard.last_command, self._shard.last_delta

    def _leave_caution(self) -> None:
        """Stop being cautious once all is passed on which a predecessor can have fallen."""
        self._attempts.decided(self._passed)
        assert self._passed_place is not None
        if self._shard.last_command < self._passed_place[0]:
            return
        if self._shard.last_delta < self._passed_place[1]:
            return
        # An empty batch may have been the murderer: timers and backlog must have passed, too. They
        # are part of every batch; under a flood of deltas an empty one might never come.
        if self._shard.backlog == 0:
            self._cautious = False

    async def _checkpoint_between(self, spare_ms: int, rows: int) -> None:
        """Copy a slice of a round that is due, and more for so long or until so many rows are.

        One slice to each of the long microbatches in which a million listings are fed would leave
        a successor minutes to replay. And a round that copies fewer rows than are touched
        meanwhile, and must be copied again, would never end.
        """
        assert self._reign is not None
        until_ms = self._clock.monotonic_ms() + spare_ms
        while self._advance_round() < until_ms or rows > 0:
            if not self._rounds.copying:
                break
            rows -= self._settings.checkpoint_slice_rows
        if self._rounds.finished(self._shard):
            await self._reign.repeat_start()

    async def _checkpoint_meanwhile(self) -> None:
        """Copy slice after slice while there is nothing to decide; what comes waits behind one."""
        while self._rounds.copying and self._inbox.is_quiet() and self._wait_ms() > 0:
            self._advance_round()
            await asyncio.sleep(0)

    def _advance_round(self) -> int:
        """Copy the next slice, if a round is due, and return what time it is then."""
        assert self._position is not None
        self._rounds.advance(self._shard, self._position, self._clock.monotonic_ms())
        return self._clock.monotonic_ms()

    def _answer_strong_reads(self) -> None:
        waiting = self._strong_reads
        if waiting:
            self._strong_reads = []
            for needed_seq, answered in waiting:
                if needed_seq <= self._shard.seq:
                    answered.set()
                else:
                    self._strong_reads.append((needed_seq, answered))
            if self._strong_reads:
                self._inbox.wake()

    def _assert_live(self) -> None:
        if self.phase != "live":
            raise FailedDependency(f"the shard is {self.phase}, not live; ask again")

    async def _let_go(self) -> None:
        """Drop what is open. Nothing is flushed, nothing is saved: a successor may reign."""
        if self._reign is not None:
            self._reign.abandon()
        while self._closing:
            with suppress(PricingError):
                await self._closing.pop()()


def positions_of(batch: Microbatch) -> tuple[Position, ...]:
    """Return where each delta of a microbatch stands."""
    positions: list[Position] = []
    for run in batch.runs:
        if isinstance(run, FactColumns):
            columns = (run.lane.tolist(), run.offset.tolist(), run.index.tolist())
            positions.extend(Position(*place) for place in zip(*columns, strict=True))
        else:
            positions.append(run.position)
    return tuple(positions)
