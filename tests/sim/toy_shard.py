"""A shard of a few integers that obeys the seam of ``engine.shard.Shard``.

A listing has units on hand, units sold and perhaps a pin; its price is arithmetic on them. What
must hold of any shard holds of it: between ``apply`` and ``record`` its state is what nobody may
see; timers and big work leave rows for later; what it decides depends on where microbatches were
cut. Deduplication is production's.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from engine.decided import QUOTE_DTYPE, Cause, Decided, Given, Outcome, State
from engine.deduplication import NEW, SEEN, EventWindow, HighWaterMarks, newest
from engine.deltas import ModeChanged, PricePinned
from engine.live_drivers import LiveFacts
from engine.microbatch import (
    STOCK_COUNTED,
    UNITS_SOLD,
    FactColumns,
    Microbatch,
    ObjectDelta,
    Position,
    Refusal,
)
from engine.replay import Agreement, agreement
from engine.routing import key64

BACKLOG_ROWS = 2
"""Rows of big work that one microbatch takes."""

HOT_MS = 900
"""So long after a sale a listing costs five more."""

SCRAPS = 300
"""A hot price moves by the decision's time, in steps of so many milliseconds."""


class Row(Struct):
    """One listing."""

    units: int = -1
    observed_ms: int = -1
    sold: int = 0
    pinned: int = 0
    pinned_ms: int = -1
    hot_until_ms: int = 0
    mode: int = 0
    price: int = 0
    proposed: int = 0


class Small(Struct):
    """All state that is not a row, as a checkpoint holds it."""

    seq: int
    last_command: int
    last_delta: int
    decided_ms: int
    digest: int
    mode: int
    backlog: list[int]
    marks: list[tuple[int, int, int]]
    oldest_minute: int
    events: list[tuple[int, int, list[int]]]


class Part(Struct):
    """One part of a checkpoint."""

    rows: dict[int, Row]
    small: Small | None = None


class ToyShard:
    """The state machine."""

    domain = "toy"

    def __init__(self) -> None:
        self.seq = 0
        self.last_command = -1
        self.last_delta = -1
        self.decided_ms = 0
        self.digest = 0
        self.pending: Decided | None = None
        self._rows: dict[int, Row] = {}
        self._mode = 0
        self._backlog: list[int] = []
        self._marks = HighWaterMarks()
        self._window = EventWindow()
        self._dirty: set[int] = set()
        self._touched: dict[int, Position | None] = {}

    @property
    def backlog(self) -> int:
        return len(self._backlog)

    @property
    def listings(self) -> int:
        return len(self._rows)

    def warm(self) -> None:
        pass

    @property
    def learns(self) -> bool:
        return False

    def due(self, now_ms: int) -> bool:
        return any(0 < row.hot_until_ms <= now_ms for row in self._rows.values())

    def live(self, listing: int) -> dict[str, Any] | None:
        assert self.pending is None, "a price that is not in the log was never quoted"
        row = self._rows.get(listing)
        return None if row is None else {"in_force_minor": row.price, "seq": self.seq}

    def features(self, listings: Sequence[int]) -> list[dict[str, float | None] | None]:
        assert self.pending is None, "a price that is not in the log was never quoted"
        found = [self._rows.get(listing) for listing in listings]
        return [None if row is None else {"price": float(row.price)} for row in found]

    def live_facts(self, listing: int) -> LiveFacts | None:
        assert self.pending is None, "a price that is not recorded was never quoted"
        return None

    def learning(self, retailer: str, *, fit: bool = True) -> dict[str, Any] | None:
        assert self.pending is None, "what is not recorded was never learnt"
        return {"fit": fit} if retailer == "acme" else None

    def apply(self, batch: Microbatch, now_ms: int, given: Given | None = None) -> Decided:
        assert self.pending is None
        assert now_ms >= self.decided_ms, "time does not go back"
        skipped = frozenset(given.skipped) if given else frozenset()
        self._touched = {}
        exceptions = list(batch.refusals)
        outcomes: list[Outcome] = []
        self._window.expire(now_ms)
        for run in batch.runs:
            if isinstance(run, FactColumns):
                self._take_facts(run, skipped, exceptions, now_ms)
            else:
                outcomes.append(self._take_command(run))
        for key, row in self._rows.items():
            if 0 < row.hot_until_ms <= now_ms:
                row.hot_until_ms = 0
                self._touched.setdefault(key, None)
        for key in self._backlog[:BACKLOG_ROWS]:
            self._rows[key].mode = self._mode
            self._touched.setdefault(key, None)
        del self._backlog[:BACKLOG_ROWS]
        quotes = self._reprice(now_ms)
        self._dirty.update(self._touched)
        self.pending = Decided(
            seq=self.seq + 1,
            last_command=batch.last_command,
            last_delta=batch.last_delta,
            decided_ms=now_ms,
            model="toy",
            digest=self._chained(batch, now_ms),
            quotes=quotes,
            exceptions=tuple(exceptions),
            outcomes=tuple(outcomes),
        )
        return self.pending

    def record(self, decided: Decided) -> None:
        assert self.pending is decided
        self._recorded(decided)

    def replay(self, batch: Microbatch, recorded: Decided) -> Agreement:
        skipped = tuple(one.position for one in recorded.exceptions if one.verdict == "skipped")
        ours = self.apply(batch, recorded.decided_ms, Given(skipped=skipped))
        for quote in recorded.quotes:
            row = self._rows.setdefault(int(quote["listing"]), Row())
            row.price = int(quote["in_force_minor"])
        self._recorded(recorded)
        return agreement(ours, recorded)

    def checkpoint_slice(self, rows_max: int = 2048) -> bytes | None:
        assert self.pending is None
        rows_max = max(rows_max // 512, 1)
        if len(self._dirty) <= rows_max:
            return None
        keys = sorted(self._dirty)[:rows_max]
        self._dirty.difference_update(keys)
        return msgspec.msgpack.encode(Part({key: self._rows[key] for key in keys}))

    def checkpoint_close(self) -> bytes:
        assert self.pending is None
        rows = {key: self._rows[key] for key in sorted(self._dirty)}
        self._dirty.clear()
        small = Small(
            seq=self.seq,
            last_command=self.last_command,
            last_delta=self.last_delta,
            decided_ms=self.decided_ms,
            digest=self.digest,
            mode=self._mode,
            backlog=self._backlog,
            marks=self._marks.state(),
            oldest_minute=self._window.oldest_minute,
            events=self._window.changed(),
        )
        return msgspec.msgpack.encode(Part(rows, small))

    def checkpoint_restart(self) -> None:
        self._dirty.update(self._rows)
        self._window.forget_checkpoint()

    @classmethod
    def restore(cls, parts: Iterable[bytes]) -> "ToyShard":
        shard = cls()
        small: Small | None = None
        events: list[tuple[int, int, list[int]]] = []
        for encoded in parts:
            part = msgspec.msgpack.decode(encoded, type=Part)
            shard._rows.update(part.rows)
            if part.small is not None:
                small = part.small
                events += small.events
        assert small is not None
        shard.seq, shard.digest, shard.decided_ms = small.seq, small.digest, small.decided_ms
        shard.last_command, shard.last_delta = small.last_command, small.last_delta
        shard._mode, shard._backlog = small.mode, small.backlog
        shard._marks = HighWaterMarks.restore(small.marks)
        shard._window = EventWindow.restore(small.oldest_minute, (), events)
        return shard

    def table(self, listing: int) -> tuple[int, int]:
        """Return a listing's units on hand and sold, for a comparison with a model."""
        row = self._rows.get(listing, Row())
        return row.units, row.sold

    def state(self) -> bytes:
        """Return all that a checkpoint must keep."""
        return msgspec.msgpack.encode(
            (sorted(self._rows.items()), self._mode, self._backlog, self._marks.state())
        )

    def prices(self) -> dict[int, int]:
        """Return each listing's price."""
        return {key: row.price for key, row in self._rows.items()}

    def _take_facts(
        self,
        facts: FactColumns,
        skipped: frozenset[Position],
        exceptions: list[Refusal],
        now_ms: int,
    ) -> None:
        rows, places = [], []
        places = [
            Position(*place)
            for place in zip(
                facts.lane.tolist(), facts.offset.tolist(), facts.index.tolist(), strict=True
            )
        ]
        rows = facts.listing.tolist()
        kinds = facts.kind.tolist()
        allowed = [place not in skipped for place in places]
        for place, key, fine in zip(places, rows, allowed, strict=True):
            if fine:
                self._rows.setdefault(key, Row())
            else:
                exceptions.append(Refusal(place, "skipped", "it killed two owners", key))
        stock = [at for at, kind in enumerate(kinds) if kind == STOCK_COUNTED and allowed[at]]
        sold = [at for at, kind in enumerate(kinds) if kind == UNITS_SOLD and allowed[at]]
        if stock:
            self._take_stock(facts, stock, rows, places, exceptions)
        if sold:
            self._take_sales(facts, sold, rows, places, exceptions, now_ms)

    def _take_stock(
        self,
        facts: FactColumns,
        stock: list[int],
        keys: list[int],
        places: list[Position],
        exceptions: list[Refusal],
    ) -> None:
        known = [self._rows[keys[at]] for at in stock]
        found = newest(
            np.array([hash(keys[at]) for at in stock]),
            facts.observed_ms[stock],
            facts.amount[stock],
            np.array([row.observed_ms for row in known]),
            np.array([row.units for row in known]),
        )
        for number, at in enumerate(stock):
            if found.late[number]:
                exceptions.append(Refusal(places[at], "late", "an older count", keys[at]))
            elif found.duplicate[number]:
                exceptions.append(Refusal(places[at], "duplicate", "the same", keys[at]))
            else:
                row = self._rows[keys[at]]
                row.units = int(facts.amount[at])
                row.observed_ms = int(facts.observed_ms[at])
                self._touched[keys[at]] = places[at]

    def _take_sales(
        self,
        facts: FactColumns,
        sold: list[int],
        keys: list[int],
        places: list[Position],
        exceptions: list[Refusal],
        now_ms: int,
    ) -> None:
        by_source = [at for at in sold if facts.source[at]]
        fresh: set[int] = set()
        if by_source:
            counted, _ = self._marks.take(
                np.zeros(len(by_source), dtype=np.int64),
                facts.source[by_source],
                facts.source_seq[by_source],
            )
            fresh.update(at for at, new in zip(by_source, counted.tolist(), strict=True) if new)
        for at in sold:
            if facts.source[at]:
                verdict = "" if at in fresh else "duplicate"
            else:
                said = self._window.take(0, int(facts.event[at]), int(facts.observed_ms[at]))
                verdict = {NEW: "", SEEN: "duplicate"}.get(said, "late")
            if verdict:
                exceptions.append(Refusal(places[at], verdict, "counted before", keys[at]))
                continue
            row = self._rows[keys[at]]
            row.sold += int(facts.amount[at])
            row.hot_until_ms = now_ms + HOT_MS
            self._touched[keys[at]] = places[at]

    def _take_command(self, run: ObjectDelta) -> Outcome:
        delta = run.delta
        key = 0
        if isinstance(delta, PricePinned):
            key = key64(delta.retailer, delta.channel, delta.sku)
            row = self._rows.setdefault(key, Row())
            if delta.observed_ms > row.pinned_ms:
                row.pinned, row.pinned_ms = delta.price_minor, delta.observed_ms
            self._touched[key] = run.position
        else:
            assert isinstance(delta, ModeChanged)
            self._mode += 1
            self._backlog = sorted(self._rows)
        return Outcome(
            command_id=delta.command_id or "",
            position=run.position,
            retailer=delta.retailer,
            actor=delta.actor or "",
            status="done",
            kind=type(delta).__name__,
            listing=key,
        )

    def _reprice(self, now_ms: int) -> np.ndarray:
        changed: list[tuple[int, int, int, Position | None]] = []
        for key, cause in sorted(self._touched.items()):
            row = self._rows[key]
            hot = 5 + now_ms // SCRAPS % 7 if row.hot_until_ms else 0
            price = row.pinned or 1_000 + row.units % 97 + 13 * row.sold + row.mode % 50 + hot
            if price != row.price:
                changed.append((key, price, row.price, cause))
                row.price = price
        quotes = np.zeros(len(changed), dtype=QUOTE_DTYPE)
        for at, (key, price, previous, cause) in enumerate(changed):
            quote = quotes[at]
            quote["listing"] = key
            quote["state"] = State.LIVE
            quote["in_force_minor"] = quote["proposed_minor"] = price
            quote["previous_minor"] = previous
            quote["cause_kind"] = Cause.TIMER if cause is None else Cause.DELTA
            if cause is not None:
                quote["cause_lane"], quote["cause_offset"] = cause.lane, cause.offset
        return quotes

    def _chained(self, batch: Microbatch, now_ms: int) -> int:
        touched = [(key, self._rows[key]) for key in sorted(self._touched)]
        marks = (self.digest, now_ms, batch.last_command, batch.last_delta, self._mode)
        text = msgspec.msgpack.encode((marks, touched))
        return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")

    def _recorded(self, decided: Decided) -> None:
        self.seq, self.digest, self.decided_ms = decided.seq, decided.digest, decided.decided_ms
        self.last_command, self.last_delta = decided.last_command, decided.last_delta
        self.pending = None
