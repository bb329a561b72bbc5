"""A shard: a pure state machine that turns microbatches of deltas into decided prices.

Nothing changes it but ``apply``; time is an argument. Between ``apply`` and ``record`` it is mute:
a price that is not in the decision log was never quoted. ``docs/engine.md`` tells the life of a
microbatch step by step.
"""

import platform
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from jaxlib import version as jaxlib_version
from msgspec import Struct

from engine import approvals, catalogue, experimenting, plans, pricing, promotion
from engine.arms import arms_of
from engine.artefact import Artefact
from engine.catalogue import Answer, Refused
from engine.checkpoint import PartBytes, close_part, read_parts, slice_part, whole_parts
from engine.decided import CatalogueChange, Cause, Decided, Given, Outcome, State, no_quotes
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    ExperimentStarted,
    ExperimentStopped,
    FeesChanged,
    ListingChanged,
    ListingRemoved,
    ModeChanged,
    ModelPromoted,
    PlanApplied,
    PolicyChanged,
    PriceApproved,
    PricePinned,
    PriceRejected,
    PriceReported,
    PriceUnpinned,
    PublishingHalted,
    PublishingResumed,
    RateChanged,
    RetailerAdded,
    StockCounted,
    UnitsSold,
)
from engine.errors import NotSupported, RejectedInput
from engine.experiment_days import close_days
from engine.facts import apply_facts, without_skipped
from engine.features import features_of, named
from engine.hourly import defer, looked_at, take
from engine.learning import close_periods, redecide
from engine.live_drivers import LiveFacts
from engine.live_facts import live_facts
from engine.memory import Memory, Work
from engine.microbatch import LANES, Microbatch, ObjectDelta, Position, facts_of
from engine.news import NOTHING, Looked, removed_quotes
from engine.quotes import is_removed, quote_rows
from engine.ranking import rank
from engine.replay import Agreement, agreement, chained
from engine.stock import stock_of
from engine.telling import told_listing, told_retailer
from kernels import reasons
from kernels.limits import DUE_ROWS_MAX, ROWS_PER_DECISION_MAX
from kernels.models import streamed

ENGINE_VERSION = "13"
"""Changes whenever the same deltas may be decided otherwise than before."""

FACTS = (CompetitorPriced, StockCounted, UnitsSold, CostChanged)

HANDLERS: dict[type, Callable[[Memory, Work, Position, Any], Answer]] = {
    ListingChanged: catalogue.change_listing,
    ListingRemoved: catalogue.remove_listing,
    FeesChanged: catalogue.change_fees,
    RateChanged: catalogue.change_rate,
    RetailerAdded: catalogue.add_retailer,
    ModeChanged: catalogue.change_mode,
    PolicyChanged: catalogue.change_policy,
    PlanApplied: plans.apply_plan,
    PublishingHalted: catalogue.halt,
    PublishingResumed: catalogue.resume,
    PriceApproved: approvals.approve,
    PriceRejected: approvals.reject,
    PricePinned: approvals.pin,
    PriceUnpinned: approvals.unpin,
    PriceReported: approvals.report,
    ExperimentStarted: experimenting.start,
    ExperimentStopped: experimenting.stop,
    ModelPromoted: promotion.promote,
}
"""What applies each kind of delta; facts go as columns, and what is not here is not built yet."""


class ShardSettings(Struct, frozen=True, kw_only=True):
    """What a shard is told at birth. It decides nothing: replay must not depend on it."""

    shard: int = 0
    generation: int = 0


class Shard:
    """The listings of one partition and all that is known about them."""

    def __init__(self, settings: ShardSettings = ShardSettings()) -> None:  # noqa: B008
        self.settings = settings
        self.seq = 0
        self.last_command = -1
        self.last_delta = -1
        self.decided_ms = 0
        self.digest = 0
        self.pending: Decided | None = None
        self.domain = replay_domain()
        self._memory = Memory()

    @property
    def backlog(self) -> int:
        """Return how much waits for a later microbatch: rows, closes of periods, and walks."""
        memory = self._memory
        return memory.backlog.rows + memory.learnt.closing + memory.experiments.walking

    @property
    def listings(self) -> int:
        """Return how many listings there are, those taken off left out."""
        return self._memory.listings.live

    def due(self, now_ms: int) -> bool:
        """Return whether there is work without any delta: rows due or in the backlog.

        A ranking is none: it is in no hurry, and goes on with whatever microbatch comes.
        """
        memory = self._memory
        return self.backlog > 0 or memory.timers.any_due(now_ms) or memory.tiers.due(now_ms)

    # ----- deciding ------------------------------------------------------------------------------

    def apply(self, batch: Microbatch, now_ms: int, given: Given = Given()) -> Decided:  # noqa: B008
        """Apply one microbatch and decide prices; the shard is mute until ``record``.

        ``now_ms`` earlier than the last decision's counts as that.
        """
        assert self.pending is None, "the last decision is not recorded yet"
        assert batch.last_command >= self.last_command
        assert batch.last_delta >= self.last_delta
        now_ms = max(now_ms, self.decided_ms)
        alone = len(batch.runs) == 1 and isinstance(batch.runs[0], ObjectDelta)
        after = (self.last_command, self.last_delta)
        alone = alone and not batch.refusals
        memory, work = self._memory, Work(now_ms, after, alone, given.artefacts)
        memory.events.expire(now_ms)
        memory.commands.expire(now_ms)
        work.refusals.extend(batch.refusals)
        self._apply_runs(batch, work, frozenset(given.skipped))
        if memory.experiments.any:
            close_days(memory, work, self.seq + 1)
        if memory.learnt.any:
            redecide(memory, work)
            close_periods(memory, work)
        if memory.tiers.next_ms:
            rank(memory, work)
        seq = self.seq + 1
        quotes, state = self._quote(work, seq)
        self.pending = Decided(
            seq=seq,
            last_command=batch.last_command,
            last_delta=batch.last_delta,
            decided_ms=now_ms,
            model=memory.serving.newest()
            or (streamed.VERSION if memory.learnt.any else pricing.MODEL),
            digest=0,
            quotes=quotes,
            catalogue=tuple(work.catalogue),
            exceptions=tuple(work.refusals),
            outcomes=tuple(work.outcomes),
        )
        changed = [*work.changed, *state, memory.changed()]
        digest = chained(self.digest, self.pending, changed)
        self.pending = msgspec.structs.replace(self.pending, digest=digest)
        return self.pending

    def record(self, decided: Decided, position: object = None) -> None:
        """Open the gate again: ``decided`` is in the log."""
        assert self.pending is not None, "nothing is pending"
        assert decided is self.pending or decided.seq == self.pending.seq
        self.pending = None
        self.seq = decided.seq
        self.last_command = decided.last_command
        self.last_delta = decided.last_delta
        self.decided_ms = decided.decided_ms
        self.digest = decided.digest

    def replay(
        self, batch: Microbatch, recorded: Decided, artefacts: Sequence[Artefact] = ()
    ) -> Agreement:
        """Decide again what was recorded, compare, and take the recorded values.

        Args:
            artefacts: what the batch's promotions name; those that were missing are left aside.
        """
        return self.follow(batch, recorded, artefacts)[1]

    def follow(
        self, batch: Microbatch, recorded: Decided, artefacts: Sequence[Artefact] = ()
    ) -> tuple[Decided, Agreement]:
        """Replay, and also return what this shard would have decided by itself."""
        skipped = tuple(
            refusal.position for refusal in recorded.exceptions if refusal.verdict == "skipped"
        )
        found = tuple(promotion.had(batch, recorded.exceptions, artefacts))
        ours = self.apply(batch, recorded.decided_ms, Given(skipped=skipped, artefacts=found))
        agreed = agreement(ours, recorded)
        if agreed is Agreement.DIFFERENT:
            self._take_recorded(ours, recorded)
        self.record(recorded)
        return ours, agreed

    def warm(self) -> None:
        """Compile every padded shape of pricing, so that nothing of it compiles while live.

        Learning's kernels (``engine.learning.warm``) are left out: most shards of a test or a
        benchmark learn nothing, and whoever hosts a shard compiles them when nobody waits.
        """
        pricing.warm()

    # ----- reading -------------------------------------------------------------------------------

    def quote(self, listing: int) -> np.void | None:
        """Return the last recorded quote of a listing, ``None`` if it has none."""
        assert self.pending is None, "a price that is not recorded was never quoted"
        row = self._memory.listings.index.row(listing)
        if row < 0 or self._memory.listings.quotes["listing"][row] == 0:
            return None
        quote: np.void = self._memory.listings.quotes[row].copy()
        return quote

    def live(self, listing: int) -> dict[str, Any] | None:
        """Return a listing's live state in plain values with reasons, for a strong read.

        ``floor_minor`` and ``ceiling_minor`` are the bounds that held the last quote, all rules but
        endings together: where a step or a rival binds, they are tighter than floor and ceiling.
        """
        assert self.pending is None, "a price that is not recorded was never quoted"
        memory = self._memory
        row = memory.listings.live_row(listing)
        if row < 0:
            return None
        held, quote = memory.listings.listings[row], memory.listings.quotes[row]
        fields = catalogue.listing_fields(memory, row)
        for name in quote.dtype.names or ():
            fields[name] = quote[name].item()
        fields["stock"] = int(stock_of(memory.listings.listings[row : row + 1])[0])
        fields["retailer"] = memory.retailers.ids[held["retailer"]]
        fields["state"] = State(int(held["state"])).name.lower() if held["state"] else "new"
        fields["reasons"] = list(reasons.names(int(quote["reasons"])))
        fields["quote"] = [int(held["quote_seq"]), int(held["quote_index"])]
        fields["seq"] = self.seq
        fields["decided_ms"] = self.decided_ms
        return fields

    def learnt(self, listing: int) -> dict[str, Any] | None:
        """Return what is learnt of a listing's demand, ``None`` where nothing is.

        The elasticity is that of its last decision. Of a listing that has made none, in shadow or
        held out, it is worked out for this answer, from the channel's own changes of price and all
        else that is known; the first answer of a day then takes a fit of the retailer's listings.
        """
        assert self.pending is None, "a price that is not recorded was never quoted"
        row = self._memory.listings.live_row(listing)
        return None if row < 0 else told_listing(self._memory, row)

    def live_facts(self, listing: int) -> LiveFacts | None:
        """Return what explains a listing's price now and its quote does not hold.

        ``None`` where the listing is not known. A shard that is replayed to the same ``seq``
        returns the same.
        """
        assert self.pending is None, "a price that is not recorded was never quoted"
        row = self._memory.listings.live_row(listing)
        return None if row < 0 else live_facts(self._memory, row, self.seq, self.decided_ms)

    def features(self, listings: Sequence[int]) -> list[dict[str, float | None] | None]:
        """Return the named features of listings, ``None`` for one that is not known.

        Times are measured to ``decided_ms``. The table is in ``docs/features.md``.
        """
        assert self.pending is None, "a price that is not recorded was never quoted"
        found = [self._memory.listings.live_row(listing) for listing in listings]
        rows = np.array([row for row in found if row >= 0], dtype=np.int64)
        columns = features_of(self._memory, rows, self.decided_ms)
        told = iter(zip(*(column.tolist() for column in columns.values()), strict=True))
        return [None if row < 0 else named(columns, next(told)) for row in found]

    def learning(self, retailer: str, *, fit: bool = True) -> dict[str, Any] | None:
        """Return what is learnt of a retailer's demand as a whole, ``None`` where nothing is.

        Without ``fit`` nothing is worked out for the answer that prices would have to wait for.
        """
        assert self.pending is None, "what is not recorded was never learnt"
        number = self._memory.retailers.numbers.get(retailer, -1)
        return told_retailer(self._memory, number, fit=fit)

    def days_of_learning(self) -> dict[str, int]:
        """Return on which day of learning each retailer is who learns, by his id: 0 at first.

        A day begins in the very microbatch that begins to close the one before it.
        """
        assert self.pending is None, "what is not recorded was never learnt"
        ids = self._memory.retailers.ids
        return {ids[number]: held.day for number, held in self._memory.learnt.retailers.items()}

    @property
    def closing(self) -> int:
        """Return how many retailers' days wait for the next microbatch to go on with their close.

        The first prices of who goes live are counted, too: they are decided as after a close.
        """
        return self._memory.learnt.closing

    def experiments(self, retailer: str) -> list[dict[str, Any]]:
        """Return how a retailer's experiment and holdout stand, of those that he has."""
        assert self.pending is None, "a price that is not recorded was never quoted"
        number = self._memory.retailers.numbers.get(retailer, -1)
        return list(self._memory.experiments.documents(number))

    def arm(self, listing: int) -> dict[str, str] | None:
        """Return the arms that a listing is in, by kind; ``None`` if it is unknown."""
        row = self._memory.listings.live_row(listing)
        return None if row < 0 else arms_of(self._memory, row)

    def models(self) -> dict[str, Any]:
        """Return which models serve whom and how they fare, by retailer and place."""
        memory = self._memory
        return {
            memory.retailers.ids[number]: {place: of.told() for place, of in sorted(places.items())}
            for number, places in sorted(memory.serving.retailers.items())
        }

    # ----- checkpoints ---------------------------------------------------------------------------

    def checkpoint_slice(self, rows_max: int = 2048) -> bytes | None:
        """Copy some rows that changed since they were last copied.

        ``None`` when what is left fits into ``checkpoint_close``. A row that is touched after its
        copy is copied again, so slices may be taken between microbatches.
        """
        assert self.pending is None, "a checkpoint holds recorded state only"
        rows = np.flatnonzero(self._memory.unsaved[: self._memory.listings.rows])
        if len(rows) <= rows_max:
            return None
        rows = rows[:rows_max]
        self._memory.unsaved[rows] = False
        return slice_part(self._memory, rows)

    def checkpoint_close(self) -> bytes:
        """Copy the last rows and all small state: with the slices, the shard at this mark."""
        assert self.pending is None, "a checkpoint holds recorded state only"
        rows = np.flatnonzero(self._memory.unsaved[: self._memory.listings.rows])
        self._memory.unsaved[rows] = False
        return close_part(self._memory, rows, self._mark())

    def checkpoint_restart(self) -> None:
        """Let the next checkpoint be a base: what was copied so far is lost or not wanted."""
        self._memory.unsaved[: self._memory.listings.rows] = True
        self._memory.events.forget_checkpoint()

    def fork(self) -> "Shard":
        """Return a shard that is as this one is and goes its own way; this one is not touched.

        Not even what its next checkpoint will hold. A tenth of a second for 40,000 listings.
        """
        assert self.pending is None, "a fork begins at recorded state"
        return Shard.restore(whole_parts(self._memory, self._mark()), self.settings)

    @classmethod
    def restore(
        cls,
        parts: Iterable[PartBytes],
        settings: ShardSettings = ShardSettings(),  # noqa: B008
    ) -> "Shard":
        """Return the shard that a base and its increments describe."""
        shard = cls(settings)
        shard._memory, mark = read_parts(parts)
        shard._memory.unsaved[: shard._memory.listings.rows] = False
        shard.seq, shard.digest = mark["seq"], mark["digest"]
        shard.last_command, shard.last_delta = mark["last_command"], mark["last_delta"]
        shard.decided_ms = mark["decided_ms"]
        return shard

    # ----- inside --------------------------------------------------------------------------------

    def _mark(self) -> dict[str, int]:
        return {
            "seq": self.seq,
            "last_command": self.last_command,
            "last_delta": self.last_delta,
            "decided_ms": self.decided_ms,
            "digest": self.digest,
        }

    def _apply_runs(self, batch: Microbatch, work: Work, skipped: frozenset[Position]) -> None:
        for run in batch.runs:
            if skipped:
                run = without_skipped(work, run, skipped)
            if isinstance(run, ObjectDelta):
                self._apply_object(work, run.position, run.delta)
            else:
                apply_facts(self._memory, work, run)

    def _apply_object(self, work: Work, position: Position, delta: AnyDelta) -> None:
        """Apply one delta or refuse it; a command is answered either way."""
        memory = self._memory
        if delta.command_id is not None:
            answered = memory.commands.answer(delta, position)
            if answered is not None:
                verdict = "rejected" if answered.status == "conflict" else "duplicate"
                work.refuse(position, verdict, answered.detail or "/command_id: was given before")
                work.outcomes.append(answered)
                return
        status, price_minor = "done", 0
        try:
            answer = self._handled(work, position, delta)
            detail, listing, price_minor = answer.detail, answer.listing, answer.price_minor
        except Refused as refusal:
            work.refuse(position, refusal.verdict, refusal.reason, refusal.listing)
            status, detail, listing = refusal.status, refusal.reason, refusal.listing
        if delta.command_id is not None:
            outcome = Outcome(
                command_id=delta.command_id,
                position=position,
                retailer=delta.retailer,
                actor=delta.actor or "",
                status=status,
                kind=type(delta).__name__,
                detail=detail,
                listing=listing,
                price_minor=price_minor,
            )
            work.outcomes.append(outcome)
            memory.commands.remember(delta, outcome, work.now_ms)

    def _handled(self, work: Work, position: Position, delta: AnyDelta) -> Answer:
        if isinstance(delta, FACTS):
            before = len(work.refusals)
            facts = facts_of([(position, delta)])
            apply_facts(self._memory, work, facts)
            if len(work.refusals) > before:
                refusal = work.refusals.pop()
                raise Refused(refusal.verdict, refusal.reason, listing=refusal.listing)
            return Answer(listing=int(facts.listing[0]))
        handler = HANDLERS.get(type(delta))
        kind = type(delta).__name__
        if handler is None:
            raise Refused(
                "not_supported",
                f"/type: {kind} is not built in this version; see docs/engine.md",
                "not_supported",
            )
        catalogue.check_time(work, delta.observed_ms)
        try:
            return handler(self._memory, work, position, delta)
        except NotSupported as error:
            raise Refused("not_supported", str(error), "not_supported") from None
        except RejectedInput as error:
            raise Refused("rejected", str(error)) from None

    def _quote(self, work: Work, seq: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """Price rows touched, due and dirty, in this order; return quotes and the rows' state."""
        memory = self._memory
        looked, removed = self._rows_to_price(work)
        quotes = no_quotes()
        state: tuple[np.ndarray, ...] = ()
        if len(looked.rows):
            quoted = quote_rows(memory, looked, seq, work.now_ms)
            quotes, state = quoted.quotes, quoted.state
            self._tell_tripped(work, seq, quoted.tripped)
            memory.unsaved[looked.rows] = True
        if len(removed.rows):
            quotes = np.concatenate([quotes, removed_quotes(memory, removed, seq, len(quotes))])
            memory.unsaved[removed.rows] = True
        return quotes, state

    def _rows_to_price(self, work: Work) -> tuple[Looked, Looked]:
        memory = self._memory
        rows, lanes, offsets, indices = work.touched()
        memory.tiers.turn(work.now_ms)
        waiting = memory.backlog.rows > 0 or memory.tiers.cursor >= 0
        if not len(rows) and not waiting and not memory.timers.any_due(work.now_ms):
            return NOTHING, NOTHING
        gone = is_removed(memory, rows)
        removed = NOTHING
        if np.count_nonzero(gone):
            causes = _causes(int(np.count_nonzero(gone)))
            removed = Looked(rows[gone], causes, lanes[gone], offsets[gone], indices[gone])
        kept = (~(gone | defer(memory, work, rows))).nonzero()[0]
        if len(kept) > ROWS_PER_DECISION_MAX - len(removed.rows):
            late = kept[ROWS_PER_DECISION_MAX - len(removed.rows) :]
            memory.mark(rows[late])
            # They are looked at later, but have changed now.
            work.changed.append(memory.listings.listings.take(rows[late]).tobytes())
            memory.unsaved[rows[late]] = True
            kept = kept[: ROWS_PER_DECISION_MAX - len(removed.rows)]
        touched = rows[kept]
        room = ROWS_PER_DECISION_MAX - len(removed.rows) - len(touched)
        # A touched row is priced once, so its timer must not bring it in again.
        memory.unmark(touched)
        memory.timers.pause(touched)
        looked_at(memory, touched)
        due = memory.timers.due(work.now_ms, min(DUE_ROWS_MAX, room))
        memory.unmark(due)
        looked_at(memory, due)
        hourly = take(memory, room - len(due))
        memory.unmark(hourly)
        looked_at(memory, hourly)
        dirty = memory.backlog.take(room - len(due) - len(hourly), self._revenue)
        memory.unmark(dirty)
        looked_at(memory, dirty)
        lanes, offsets, indices = lanes[kept], offsets[kept], indices[kept]
        extra = len(due) + len(hourly) + len(dirty)
        causes = _causes(len(touched), len(due), len(hourly), len(dirty))
        if not extra:
            return Looked(touched, causes, lanes, offsets, indices), removed
        looked = Looked(
            np.concatenate([touched, due, hourly, dirty]),
            causes,
            np.concatenate([lanes, np.zeros(extra, dtype=np.uint8)]),
            np.concatenate([offsets, np.full(extra, -1, dtype=np.int64)]),
            np.concatenate([indices, np.full(extra, -1, dtype=np.int32)]),
        )
        return looked, removed

    def _revenue(self, rows: np.ndarray) -> np.ndarray:
        listings = self._memory.listings.listings
        price = listings["in_force_minor"][rows].astype(np.float64)
        return np.asarray(listings["units_sold"][rows] * price)

    def _tell_tripped(self, work: Work, seq: int, tripped: list[tuple[int, str]]) -> None:
        """Tell followers that the breaker stopped a retailer; all his listings become halted."""
        for number in dict.fromkeys(number for number, _ in tripped):
            why = [reason for of, reason in tripped if of == number]
            self._mark_not_held(number)
            work.catalogue.append(
                CatalogueChange(
                    position=Position(len(LANES), seq, number),
                    what="breaker",
                    retailer=self._memory.retailers.ids[number],
                    fields={"reasons": why},
                )
            )

    def _mark_not_held(self, number: int) -> None:
        """Have a retailer's listings looked at again, but those that the breaker holds."""
        listings = self._memory.listings
        used = listings.listings[: listings.rows]
        rows = np.flatnonzero((used["retailer"] == number) & (used["state"] != State.REMOVED))
        self._memory.mark(rows[used["state"][rows] != State.HELD])

    def _take_recorded(self, ours: Decided, recorded: Decided) -> None:
        """Let the recorded quotes, and whom the breaker stopped, hold where they differ."""
        told = ours.catalogue or recorded.catalogue
        if not told and not len(ours.quotes) and not len(recorded.quotes):
            return
        listings = self._memory.listings
        rows = listings.index.rows(recorded.quotes["listing"])
        known = np.flatnonzero(rows >= 0)
        rows, quotes = rows[known], recorded.quotes[known]
        listings.quotes[rows] = quotes
        for name in ("state", "in_force_minor", "proposed_minor"):
            listings.listings[name][rows] = quotes[name]
        listings.listings["quote_seq"][rows] = recorded.seq
        listings.listings["quote_index"][rows] = known
        self._memory.unsaved[rows] = True
        extra = np.setdiff1d(ours.quotes["listing"], recorded.quotes["listing"])
        rows = listings.index.rows(extra)
        mine = ours.quotes[np.isin(ours.quotes["listing"], extra)]
        before = dict(zip(mine["listing"].tolist(), mine["previous_minor"].tolist(), strict=True))
        for row, key in zip(rows.tolist(), extra.tolist(), strict=True):
            listings.listings["in_force_minor"][row] = before[key]
            listings.quotes["in_force_minor"][row] = before[key]
        self._take_tripped(ours, recorded)

    def _take_tripped(self, ours: Decided, recorded: Decided) -> None:
        """Stop whom the record stopped, and nobody whom only we did.

        What was counted stays: it can stop a retailer sooner, never later.
        """
        memory, listings = self._memory, self._memory.listings.listings
        table, numbers = memory.retailers.table, memory.retailers.numbers
        mine, told = _tripped(ours), _tripped(recorded)
        for retailer in sorted(told - mine):
            table["tripped"][numbers[retailer]] = 1
        for retailer in sorted(mine - told):
            table["tripped"][numbers[retailer]] = 0
        rows = memory.listings.index.rows(recorded.quotes["listing"])
        rows = rows[rows >= 0]
        held = rows[listings["state"][rows] == State.HELD]
        listings["held_minor"][held] = listings["proposed_minor"][held]
        rows = memory.listings.index.rows(ours.quotes["listing"])
        listings["held_minor"][rows[listings["state"][rows] == State.LIVE]] = 0
        for retailer in sorted(told ^ mine):
            self._mark_not_held(numbers[retailer])


def _causes(touched: int, due: int = 0, hourly: int = 0, dirty: int = 0) -> np.ndarray:
    """Return uint8[rows], ``Cause`` of so many rows of each kind, in this order."""
    causes = np.empty(touched + due + hourly + dirty, dtype=np.uint8)
    causes[:touched] = _DELTA
    if len(causes) > touched:
        causes[touched:] = np.repeat(_WITHOUT_DELTA, [due, hourly, dirty])
    return causes


# As plain numbers, for NumPy takes long over members of an enumeration.
_DELTA = int(Cause.DELTA)
_WITHOUT_DELTA = np.array([Cause.TIMER, Cause.HOUR, Cause.REPRICE], dtype=np.uint8)


def _tripped(decided: Decided) -> set[str]:
    return {change.retailer for change in decided.catalogue if change.what == "breaker"}


def replay_domain() -> str:
    """Return what must be equal for replay to be exact."""
    ladder = "-".join(str(rows) for rows in pricing.LADDER)
    parts = (
        f"engine {ENGINE_VERSION}",
        f"jaxlib {jaxlib_version.__version__}",
        f"numpy {np.__version__}",
        f"{platform.system()} {platform.machine()}",
        instruction_set(),
        f"padding {ladder}",
    )
    return "; ".join(parts)


def instruction_set() -> str:
    """Return the widest vector instructions found: another may differ in the last bit."""
    found = np.show_config(mode="dicts")
    simd = found.get("SIMD Extensions", {}) if isinstance(found, dict) else {}
    names = [*simd.get("baseline", ()), *simd.get("found", ())]
    return str(names[-1]) if names else "scalar"
