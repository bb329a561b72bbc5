"""What one shard's logs say, by rules written here once more.

Production reads decisions through ``persistence.decision_reader``; a judge that asked it would
believe its mistakes. So the raw records are judged here again (docs/log-protocol.md): a decision
counts if it is of the highest epoch whose start was seen, by the owner whose start came first for
that epoch, and if its ``seq`` is the next. What does not count is kept too, so that a reader who
believed a replaced owner can be named.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from msgspec import Struct

from engine.commands import COMMAND_WINDOW_MS
from engine.decided import Decided
from kernels import reasons
from persistence.decision_records import DecisionRecord, EpochStarted, decode
from persistence.ports import Record

CLOCK_AHEAD_MS = 6_500
"""How far a decision's time may lie ahead of its append: an owner's clock may jump 5 s unnoticed,
and 1 s of difference to the broker's is only seen when the append is acknowledged."""

LEARNING: Final = {
    "learnt": reasons.LEARNT,
    "dithered": reasons.DITHERED,
    "held out": reasons.HELD_OUT,
    "treated": reasons.TREATED,
}
"""What learning has to do with a quote, by its reasons."""

Found = Callable[[str, str], None]
"""Takes note of a violation: rule, detail."""


class Shown(Struct, frozen=True, gc=False):
    """One quote as the log holds it."""

    seq: int
    index: int
    order: int  # number of the accepted record that holds it
    listing: int
    in_force_minor: int
    proposed_minor: int
    state: int  # engine.decided.State


class Said(Struct, frozen=True):
    """The outcome of a command as the log holds it."""

    status: str
    detail: str
    price_minor: int
    decided_ms: int


def is_forgotten(first_ms: int, again_ms: int) -> bool:
    """Whether an answer of one decision's time is no longer remembered at another's.

    Answers are kept for a day of the shard's own time; the same command given later is another.
    """
    return again_ms - first_ms >= COMMAND_WINDOW_MS


class ShardTruth:
    """What counts of one shard's decision log, and what does not."""

    def __init__(self, shard: int, found: Found) -> None:
        self.shard = shard
        self.epoch = 0
        self.owner = b""
        self.seq = 0
        self.reigns = 0
        self.reigns_after: list[int] = []  # the seq after which each reign began
        self.clock = "wall"  # by what the reigning owner tells time
        self.learnt: Counter[str] = Counter()  # quotes by what learning had to do with them
        self.ignored = 0  # records of replaced owners
        self.decisions = 0
        self.last_command = -1
        self.last_delta = -1
        self.decided_ms = 0
        self.offset = -1
        self.appended_ms = 0  # of the last accepted record
        self.quotes: dict[int, list[Shown]] = {}  # by listing, in order
        self.placed: dict[tuple[int, int], Shown] = {}  # by (seq, index)
        self.forged: dict[tuple[int, int], list[Shown]] = {}  # what replaced owners said
        self.of_retailer: dict[str, tuple[array[int], list[Shown]]] = {}
        self.names: dict[tuple[str, str, str], int] = {}  # (retailer, channel, SKU) -> listing
        self.retailers: dict[int, str] = {}  # listing -> retailer
        self.channels: dict[int, str] = {}  # listing -> channel
        self.newest_decided: Decided | None = None  # the last decision that counts
        self.outcomes: dict[str, Said] = {}
        self.refused: dict[tuple[int, int], str] = {}  # (lane, offset) -> verdict
        self.breaks = 0  # breaker trips, for the report
        self._found = found
        self._times: array[int] = array("q")  # append times of accepted records, in order
        self._seqs: array[int] = array("q")  # the seq reached after each

    @property
    def order(self) -> int:
        """Return how many records counted so far."""
        return len(self._times)

    def take(self, record: Record) -> bool:
        """Judge the next record of the log; return whether it counts."""
        assert record.offset > self.offset
        self.offset = record.offset
        decoded = decode(record.value)
        stamp = decoded.stamp
        if isinstance(decoded, EpochStarted):
            if stamp.epoch > self.epoch:
                self.epoch, self.owner = stamp.epoch, stamp.owner
                self.reigns += 1
                self.reigns_after.append(self.seq)
                self.clock = decoded.clock
            elif (stamp.epoch, stamp.owner) != (self.epoch, self.owner):
                self.ignored += 1
                return False
            self._heard(record.appended_ms)
            return True
        if (stamp.epoch, stamp.owner) != (self.epoch, self.owner):
            self.ignored += 1
            if isinstance(decoded, DecisionRecord):
                self._keep_forged(decoded.decided)
            return False
        if not isinstance(decoded, DecisionRecord):
            self._heard(record.appended_ms)
            return True
        return self._decided(decoded.decided, record)

    def _decided(self, decided: Any, record: Record) -> bool:
        place = f"shard {self.shard}, offset {record.offset}"
        if decided.seq <= self.seq:
            # An append in doubt is looked for before it is repeated, so whoever reigns and holds
            # one decision twice has doubled it.
            self._found("decision_doubled", f"{place}: seq {decided.seq} after {self.seq}")
            return False
        if decided.seq > self.seq + 1:
            self._found("decision_lost", f"{place}: seq {decided.seq} follows {self.seq}")
        for name in ("last_command", "last_delta", "decided_ms"):
            now, before = getattr(decided, name), getattr(self, name)
            if now < before:
                self._found("decision_reordered", f"{place}: {name} {now} after {before}")
        # Where time goes by events no clock was read: ``event_time`` compares it with them.
        if self.clock == "wall" and decided.decided_ms > record.appended_ms + CLOCK_AHEAD_MS:
            ahead_ms = decided.decided_ms - record.appended_ms
            self._found("clock_lied", f"{place}: decided {ahead_ms} ms after it was appended")
        self.seq = decided.seq
        self.newest_decided = decided
        self.decisions += 1
        self.last_command = decided.last_command
        self.last_delta = decided.last_delta
        self.decided_ms = decided.decided_ms
        self._heard(record.appended_ms)
        if decided.has_rows:
            self._take_rows(decided)
        return True

    def _heard(self, appended_ms: int) -> None:
        self.appended_ms = max(appended_ms, self.appended_ms)
        self._times.append(self.appended_ms)
        self._seqs.append(self.seq)

    def _take_rows(self, decided: Any) -> None:
        for change in decided.catalogue:
            if change.what == "listing":
                fields = change.fields
                self.names[(change.retailer, fields["channel"], fields["sku"])] = change.listing
                self.retailers[change.listing] = change.retailer
                self.channels[change.listing] = fields["channel"]
            elif change.what == "breaker":
                self.breaks += 1
        for name, bit in LEARNING.items():
            self.learnt[name] += int(np.count_nonzero(decided.quotes["reasons"] & bit))
        for shown in _shown(decided, self.order - 1):
            self.quotes.setdefault(shown.listing, []).append(shown)
            self.placed[(shown.seq, shown.index)] = shown
            retailer = self.retailers.get(shown.listing, "")
            seqs, all_shown = self.of_retailer.setdefault(retailer, (array("q"), []))
            seqs.append(shown.seq)
            all_shown.append(shown)
        for refusal in decided.exceptions:
            self.refused[(refusal.position.lane, refusal.position.offset)] = refusal.verdict
        for outcome in decided.outcomes:
            self._take_outcome(outcome)

    def _take_outcome(self, outcome: Any) -> None:
        said = Said(outcome.status, outcome.detail, outcome.price_minor, self.decided_ms)
        known = self.outcomes.setdefault(outcome.command_id, said)
        if is_forgotten(known.decided_ms, said.decided_ms):
            known = self.outcomes[outcome.command_id] = said
        if known is said or outcome.status == "duplicate":
            return
        if (known.status, known.price_minor) != (said.status, said.price_minor):
            self._found(
                "outcome_changed",
                f"shard {self.shard}: command {outcome.command_id} was {known.status}, then "
                f"{said.status}",
            )

    def _keep_forged(self, decided: Any) -> None:
        for shown in _shown(decided, -1):
            self.forged.setdefault((shown.seq, shown.index), []).append(shown)

    # ----- what was known when ------------------------------------------------------------------

    def orders_at(self, appended_ms: int) -> tuple[int, int] | None:
        """Return the first and last accepted record appended at this very time."""
        first = bisect_left(self._times, appended_ms)
        last = bisect_right(self._times, appended_ms) - 1
        return (first, last) if first <= last else None

    def orders_before(self, appended_ms: int) -> int:
        """Return how many accepted records were appended before this time."""
        return bisect_left(self._times, appended_ms)

    def newest(self, listing: int, order: int) -> Shown | None:
        """Return a listing's newest quote among the records up to and with number ``order``."""
        shown = self.quotes.get(listing, [])
        place = bisect_right(shown, order, key=lambda each: each.order)
        return shown[place - 1] if place else None

    def possible(self, listing: int, first: int, last: int) -> list[Shown | None]:
        """Return every quote that was a listing's newest somewhere between two records."""
        shown = self.quotes.get(listing, [])
        begin = bisect_right(shown, first, key=lambda each: each.order)
        end = bisect_right(shown, last, key=lambda each: each.order)
        return [shown[begin - 1] if begin else None, *shown[begin:end]]

    def changed(self, retailer: str, after: int, through: int) -> dict[int, int]:
        """Return listing -> newest seq of a retailer's quotes in ``(after, through]``."""
        if retailer not in self.of_retailer:
            return {}
        seqs, shown = self.of_retailer[retailer]
        begin, end = bisect_right(seqs, after), bisect_right(seqs, through)
        return {each.listing: each.seq for each in shown[begin:end]}


def _shown(decided: Any, order: int) -> list[Shown]:
    quotes = decided.quotes
    if not len(quotes):
        return []
    columns = (
        quotes["listing"].tolist(),
        quotes["in_force_minor"].tolist(),
        quotes["proposed_minor"].tolist(),
        quotes["state"].tolist(),
    )
    return [
        Shown(decided.seq, index, order, *row)
        for index, row in enumerate(zip(*columns, strict=True))
    ]
