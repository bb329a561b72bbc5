"""The ledger: what people ask about prices, in a relational store, exactly once.

Each write is one transaction that moves the cursor from the place where it must stand and adds the
rows that lie between. So the rows are there once, whatever crashes: the cursor says how far they
reach, and a second writer touches no cursor row and is rolled back.

A commit whose answer did not come may still arrive, even after we have looked. So every cursor row
names its ``writer``: a fence that turns out to be our own late commit is no fence.
"""

import os
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from msgspec import Struct

from actors.sinks.rows import (
    IDLE_MS,
    NOT_BEGUN,
    PAGE_ROWS,
    QUOTE_COLUMNS,
    Summary,
    bounded,
    numbers,
    plain_json,
    signed,
    storable,
)
from engine.decided import QUOTE_DTYPE, CatalogueChange, Cause, Decided, Outcome, quote_id
from engine.errors import CursorFenced, FailedDependency, LogFault, WriteInDoubt
from engine.microbatch import LANES, Position
from persistence.checksums import PRICE_FIELDS, Tally, tally_quotes, tally_rows
from persistence.decision_reader import Accepted
from persistence.decision_records import LogPosition
from persistence.ports import Statement, TableStore

NAME = "ledger"
FIRST_HASH = "0" * 64
"""What the first entry of an audit chain stands on."""

APPROVAL_KINDS = frozenset({"PriceApproved", "PriceRejected", "PricePinned", "PriceUnpinned"})
HISTORY_COLUMNS = (
    "generation",
    "shard",
    "seq",
    "item",
    "quote_id",
    "listing",
    "decided_ms",
    "appended_ms",
    *QUOTE_COLUMNS,
    "cause_item",
    "model",
    "epoch",
)
_FROM_QUOTE = {name: ("cause_index" if name == "cause_item" else name) for name in HISTORY_COLUMNS}
_AUDIT_COLUMNS = (
    "generation",
    "shard",
    "number",
    "seq",
    "decided_ms",
    "lane",
    "log_offset",
    "item",
    "entry",
    "retailer",
    "actor",
    "kind",
    "status",
    "command_id",
    "listing",
    "detail",
    "previous_hash",
    "hash",
)
_APPROVAL_COLUMNS = (
    "generation",
    "shard",
    "lane",
    "log_offset",
    "item",
    "seq",
    "decided_ms",
    "command_id",
    "retailer",
    "listing",
    "kind",
    "status",
    "actor",
    "price_minor",
    "detail",
)


class Stored(Struct, frozen=True):
    """The cursor row as it stands in the store, as far as we know."""

    position: LogPosition | None  # None: there is no row yet
    appended_ms: int = 0
    audit_number: int = 0
    audit_hash: str = FIRST_HASH
    tally: Tally = Tally()


class PriceLedger:
    """``actors.follower.Sink`` over a table store."""

    name = NAME

    def __init__(self, tables: TableStore, *, generation: int, writer: str = "") -> None:
        self._tables = tables
        self._generation = generation
        self._writer = writer or os.urandom(8).hex()
        self._migrated = False
        self._stored: dict[int, Stored] = {}
        self._taken: dict[int, LogPosition | None] = {}  # how far, idle records included
        self._begun: dict[int, LogPosition | None] = {}  # where a batch began that failed half-way
        self._doubtful: dict[int, list[Stored]] = {}  # commits whose answer did not come

    async def position(self, shard: int) -> LogPosition | None:
        """Return where to read on; migrates first, since the store may have been down till now."""
        if not self._migrated:
            await self._tables.migrate()
            self._migrated = True
        stored, _ = await self._read_cursor(shard)
        self._stored[shard] = stored
        self._taken[shard] = stored.position
        return stored.position

    async def write(
        self, shard: int, accepted: Sequence[Accepted], expected: LogPosition | None
    ) -> None:
        """Write the rows of ``accepted`` and the cursor behind them, exactly once.

        A big batch is several transactions. When one fails, call again with the same: what was
        written already, or arrives late, is found by the cursor.

        Raises:
            CursorFenced: another follower moved the cursor.
            FailedDependency: not all of it was written, or nobody knows yet.
        """
        if not accepted:
            return
        if shard not in self._stored:
            await self.position(shard)
        if expected != self._taken[shard] and expected != self._begun.get(shard, NOT_BEGUN):
            raise CursorFenced(
                f"ledger of shard {shard} stands at {self._taken[shard]}, not {expected}"
            )
        self._begun[shard] = expected
        while rest := self._beyond(shard, accepted):
            if not self._worth_writing(shard, rest):
                break
            part = bounded(rest)
            target = await self._attempt(shard, part)
            if target is not None:
                self._stored[shard] = target
                self._doubtful.pop(shard, None)
        del self._begun[shard]
        self._taken[shard] = accepted[-1].position

    async def summary(self, shard: int) -> Summary:
        """Count and check every row of the shard's price history, fetched, not believed."""
        if not self._migrated:
            await self.position(shard)
        rows = await self._tables.fetch(
            "select seq from cursors where sink = $1 and generation = $2 and shard = $3",
            NAME,
            self._generation,
            shard,
        )
        total, seq, item = Tally(), -1, -1
        while True:
            page = await self._tables.fetch(
                f"select {', '.join(PRICE_FIELDS)} from price_history"
                " where generation = $1 and shard = $2 and (seq > $3 or (seq = $3 and item > $4))"
                f" order by seq, item limit {PAGE_ROWS}",
                self._generation,
                shard,
                seq,
                item,
            )
            total = total.plus(tally_rows(page, PRICE_FIELDS))
            if len(page) < PAGE_ROWS:
                break
            seq, item = page[-1]["seq"], page[-1]["item"]
        audit = await self.verify_audit(shard)
        return Summary(rows[0]["seq"] if rows else 0, total, audit)

    async def verify_audit(self, shard: int) -> int:
        """Recompute the shard's audit chain and return its length.

        Raises:
            LogFault: an entry was changed, removed, added or reordered.
        """
        number, previous = 0, FIRST_HASH
        while True:
            page = await self._tables.fetch(
                f"select {', '.join(_AUDIT_COLUMNS)} from audit"
                " where generation = $1 and shard = $2 and number > $3"
                f" order by number limit {PAGE_ROWS}",
                self._generation,
                shard,
                number,
            )
            for row in page:
                number += 1
                entry = [row[name] for name in _AUDIT_COLUMNS[:-2]]
                intact = row["number"] == number and row["previous_hash"] == previous
                if not intact or row["hash"] != audit_hash(previous, entry):
                    raise LogFault(
                        f"audit of shard {shard}: entry {row['number']} was tampered with"
                    )
                previous = row["hash"]
            if len(page) < PAGE_ROWS:
                break
        stored, _ = await self._read_cursor(shard)
        if (stored.audit_number, stored.audit_hash) != (number, previous):
            raise LogFault(
                f"audit of shard {shard}: {number} entries, the cursor says {stored.audit_number}"
            )
        return number

    # ----- the cursor ---------------------------------------------------------------------------

    def _beyond(self, shard: int, accepted: Sequence[Accepted]) -> Sequence[Accepted]:
        """Return what lies behind the stored cursor; the rest is written already."""
        position = self._stored[shard].position
        if position is None:
            return accepted
        return [each for each in accepted if each.offset > position.offset]

    def _worth_writing(self, shard: int, rest: Sequence[Accepted]) -> bool:
        """Whether there are rows, or the cursor has stood still for long.

        Records without rows that are skipped here are read again after a restart, and skipped
        again: nothing is lost, and an idle shard costs the store next to nothing.
        """
        if any(each.decided is not None and each.decided.has_rows for each in rest):
            return True
        return rest[-1].appended_ms - self._stored[shard].appended_ms >= IDLE_MS

    async def _attempt(self, shard: int, rest: Sequence[Accepted]) -> Stored | None:
        """Write once; ``None`` when an earlier commit of ours turned out to have arrived."""
        before = self._stored[shard]
        rows = Rows(self._generation, shard, before)
        for each in rest:
            rows.take(each)
        target = Stored(rest[-1].position, rest[-1].appended_ms, rows.number, rows.hash, rows.tally)
        statements = [self._move(shard, before, target), *rows.statements()]
        try:
            await self._tables.transact(statements)
        except WriteInDoubt as doubt:
            self._doubtful.setdefault(shard, []).append(target)
            if await self._arrived(shard):
                return None
            # It may still arrive. The next attempt waits for it at the cursor's row, and is told.
            raise FailedDependency(str(doubt)) from doubt
        except CursorFenced:
            if await self._arrived(shard):
                return None
            raise
        return target

    async def _arrived(self, shard: int) -> bool:
        """Whether the cursor shows that a commit of ours, thought lost, is in the store."""
        stored, writer = await self._read_cursor(shard)
        if writer != self._writer or stored not in self._doubtful.get(shard, ()):
            return False
        self._stored[shard] = stored
        return True

    async def _read_cursor(self, shard: int) -> tuple[Stored, str]:
        rows = await self._tables.fetch(
            "select * from cursors where sink = $1 and generation = $2 and shard = $3",
            NAME,
            self._generation,
            shard,
        )
        if not rows:
            return Stored(None), ""
        row = rows[0]
        position = LogPosition(
            bytes.fromhex(row["log_id"]),
            row["log_offset"],
            row["epoch"],
            bytes.fromhex(row["owner"]),
            row["seq"],
        )
        counted = Tally(row["quotes"], int(row["checksum"]))
        stored = Stored(
            position, row["appended_ms"], row["audit_number"], row["audit_hash"], counted
        )
        return stored, row["writer"]

    def _move(self, shard: int, before: Stored, target: Stored) -> Statement:
        """Return the statement that moves the cursor, and nothing else's cursor.

        It comes first in its transaction: whoever is fenced learns it before writing rows, and a
        transaction in doubt that still holds the row makes the next one wait for its end.
        """
        place = target.position
        assert place is not None
        values = (
            place.log_id.hex(),
            place.offset,
            place.epoch,
            place.owner.hex(),
            place.seq,
            self._writer,
            target.appended_ms,
            target.audit_number,
            target.audit_hash,
            target.tally.rows,
            str(target.tally.checksum),
            NAME,
            self._generation,
            shard,
        )
        if before.position is None:
            return Statement(
                "insert into cursors (log_id, log_offset, epoch, owner, seq, writer, appended_ms,"
                " audit_number, audit_hash, quotes, checksum, sink, generation, shard) values"
                " ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
                " on conflict do nothing",
                values,
                expect=1,
            )
        return Statement(
            "update cursors set log_id = $1, log_offset = $2, epoch = $3, owner = $4, seq = $5,"
            " writer = $6, appended_ms = $7, audit_number = $8, audit_hash = $9, quotes = $10,"
            " checksum = $11 where sink = $12 and generation = $13 and shard = $14"
            " and log_id = $15 and log_offset = $16 and seq = $17",
            (
                *values,
                before.position.log_id.hex(),
                before.position.offset,
                before.position.seq,
            ),
            expect=1,
        )


def audit_hash(previous: str, entry: Sequence[Any]) -> str:
    """Return the hash that chains an audit entry to the one before it."""
    text = previous + plain_json(entry)
    return blake2b(text.encode(), digest_size=32).hexdigest()


class Rows:
    """The rows of one transaction, gathered from accepted decisions in the order of the log.

    Of a listing or a price that changed more than once, only the last is put into ``products``.
    """

    def __init__(self, generation: int, shard: int, before: Stored) -> None:
        self._generation = generation
        self._shard = shard
        self.number = before.audit_number
        self.hash = before.audit_hash
        self.tally = before.tally
        self._history: list[tuple[Any, ...]] = []
        self._caused_by_command: list[int] = []  # seq of decisions with quotes that commands caused
        self._listings: dict[int, tuple[Any, ...]] = {}
        self._removed: dict[int, int] = {}
        self._priced: dict[int, tuple[Any, ...]] = {}
        self._retailers: list[Statement] = []
        self._policies: list[tuple[Any, ...]] = []
        self._approvals: list[tuple[Any, ...]] = []
        self._audit: list[tuple[Any, ...]] = []

    def take(self, accepted: Accepted) -> None:
        """Gather one accepted record."""
        decided = accepted.decided
        if decided is None or not decided.has_rows:
            return
        actors = {outcome.position: outcome for outcome in decided.outcomes}
        for change in decided.catalogue:
            self._change(change, decided, actors.get(change.position))
        for outcome in decided.outcomes:
            self._outcome(outcome, decided)
        if len(decided.quotes):
            self._quotes(accepted, decided)

    def statements(self) -> list[Statement]:
        """Return everything that was gathered, in an order that keeps references whole."""
        into = [
            (_UPSERT_PRODUCT, list(self._listings.values())),
            (
                "update products set removed_ms = $2 where listing = $1",
                list(self._removed.items()),
            ),
            (_PRICE_PRODUCT, list(self._priced.values())),
            (_UPSERT_POLICY, self._policies),
        ]
        found = [*self._retailers]
        found += [Statement(sql, many=rows) for sql, rows in into if rows]
        copied = (
            ("price_history", HISTORY_COLUMNS, self._history),
            ("approvals", _APPROVAL_COLUMNS, self._approvals),
            ("audit", _AUDIT_COLUMNS, self._audit),
        )
        found += [
            Statement(into=table, columns=columns, many=rows)
            for table, columns, rows in copied
            if rows
        ]
        if self._caused_by_command:
            first, last = self._caused_by_command[0], self._caused_by_command[-1]
            found.append(Statement(_NAME_ACTORS, (self._generation, self._shard, first, last)))
        return found

    def _quotes(self, accepted: Accepted, decided: Decided) -> None:
        generation, shard, seq, quotes = self._generation, self._shard, decided.seq, decided.quotes
        rows = len(quotes)
        self.tally = self.tally.plus(tally_quotes(generation, shard, seq, quotes))
        given: dict[str, list[Any]] = {
            "generation": [generation] * rows,
            "shard": [shard] * rows,
            "seq": [seq] * rows,
            "item": list(range(rows)),
            "quote_id": [quote_id(generation, shard, seq, index) for index in range(rows)],
            "listing": quotes["listing"].astype(np.int64).tolist(),
            "decided_ms": [decided.decided_ms] * rows,
            "appended_ms": [accepted.appended_ms] * rows,
            "model": [decided.model] * rows,
            "epoch": [accepted.stamp.epoch] * rows,
        }
        columns = [
            given[name] if name in given else numbers(quotes[_FROM_QUOTE[name]])
            for name in HISTORY_COLUMNS
        ]
        new = list(zip(*columns, strict=True))
        self._history += new
        lanes, kinds = quotes["cause_lane"], quotes["cause_kind"]
        if bool(((lanes == LANES.index("commands")) & (kinds != Cause.TIMER)).any()):
            self._caused_by_command.append(seq)
        for row in new:
            quote = dict(zip(HISTORY_COLUMNS, row, strict=True))
            self._priced[quote["listing"]] = tuple(quote[name] for name in _PRICED_FIELDS)

    def _change(self, change: CatalogueChange, decided: Decided, outcome: Outcome | None) -> None:
        if change.what == "listing":
            self._listing(change, decided)
        elif change.what == "listing_removed":
            self._removed[signed(change.listing)] = decided.decided_ms
        elif change.what == "policy":
            self._policy(change, decided, outcome)
        else:
            self._retailers += self._retailer(change, decided)
        if outcome is not None or not change.what.startswith("listing"):
            self._enter(
                decided,
                change.position,
                entry="change",
                retailer=change.retailer,
                actor="" if outcome is None else outcome.actor,
                kind=change.what,
                status="done",
                command_id="" if outcome is None else outcome.command_id,
                listing=change.listing,
                detail=plain_json(change.fields),
            )

    def _listing(self, change: CatalogueChange, decided: Decided) -> None:
        fields, key = change.fields, signed(change.listing)
        self._removed.pop(key, None)
        self._listings.pop(key, None)
        self._listings[key] = (
            key,
            self._generation,
            self._shard,
            change.retailer,
            storable(str(fields.get("channel", ""))),
            storable(str(fields.get("sku", ""))),
            storable(fields.get("title")),
            storable(fields.get("category")),
            plain_json(fields.get("tags") or []),
            fields.get("currency"),
            fields.get("rrp_minor"),
            fields.get("map_minor"),
            int(bool(fields.get("kvi"))),
            fields.get("cost_minor"),
            decided.seq,
            decided.decided_ms,
        )

    def _policy(self, change: CatalogueChange, decided: Decided, outcome: Outcome | None) -> None:
        fields = change.fields
        self._policies.append(
            (
                self._generation,
                self._shard,
                change.retailer,
                str(fields.get("scope", "")),
                storable(str(fields.get("key", ""))),
                int(fields.get("priority") or 0),
                plain_json(fields.get("fields") or {}),
                None if outcome is None else storable(outcome.actor),
                decided.seq,
                decided.decided_ms,
            )
        )

    def _retailer(self, change: CatalogueChange, decided: Decided) -> list[Statement]:
        """Return what a change of a retailer's state does to its row; fees and rates only audit."""
        fields = change.fields
        where = (self._generation, self._shard, change.retailer, decided.seq, decided.decided_ms)
        if change.what == "retailer":
            arguments = (
                *where,
                storable(fields.get("name")),
                fields.get("currency"),
                fields.get("mode"),
                fields.get("primary_channel"),
                fields.get("spread"),
                plain_json(fields),
            )
            return [Statement(_UPSERT_RETAILER, arguments)]
        set_to = _RETAILER_STATES.get(change.what)
        if set_to is None:
            return []
        if change.what == "mode":
            return [Statement(_update_retailer(set_to), (*where, fields.get("mode")))]
        if fields.get("channel") is not None:
            return []  # a halt of one channel; the audit has it
        if change.what == "resume":
            return [Statement(_update_retailer(set_to), where)]
        told = fields.get("reason") or "; ".join(fields.get("reasons") or ()) or change.what
        reason = storable(str(told))
        return [Statement(_update_retailer(set_to), (*where, reason))]

    def _outcome(self, outcome: Outcome, decided: Decided) -> None:
        if outcome.kind in APPROVAL_KINDS:
            self._approvals.append(
                (
                    self._generation,
                    self._shard,
                    outcome.position.lane,
                    outcome.position.offset,
                    outcome.position.index,
                    decided.seq,
                    decided.decided_ms,
                    storable(outcome.command_id),
                    outcome.retailer,
                    signed(outcome.listing),
                    outcome.kind,
                    outcome.status,
                    storable(outcome.actor),
                    outcome.price_minor,
                    storable(outcome.detail),
                )
            )
        self._enter(
            decided,
            outcome.position,
            entry="outcome",
            retailer=outcome.retailer,
            actor=outcome.actor,
            kind=outcome.kind,
            status=outcome.status,
            command_id=outcome.command_id,
            listing=outcome.listing,
            detail=plain_json({"detail": outcome.detail, "price_minor": outcome.price_minor}),
        )

    def _enter(
        self,
        decided: Decided,
        position: Position,
        *,
        entry: str,
        retailer: str,
        actor: str,
        kind: str,
        status: str,
        command_id: str,
        listing: int,
        detail: str,
    ) -> None:
        """Add one entry to the audit, chained to the one before it."""
        self.number += 1
        fields = (
            self._generation,
            self._shard,
            self.number,
            decided.seq,
            decided.decided_ms,
            position.lane,
            position.offset,
            position.index,
            entry,
            retailer,
            storable(actor),
            kind,
            status,
            storable(command_id),
            signed(listing),
            detail,
        )
        previous, self.hash = self.hash, audit_hash(self.hash, fields)
        self._audit.append((*fields, previous, self.hash))


_PRICED_FIELDS = (
    "listing",
    "state",
    "in_force_minor",
    "proposed_minor",
    "floor_minor",
    "ceiling_minor",
    "confidence",
    "quote_id",
    "seq",
    "decided_ms",
)

_PRICE_PRODUCT = (
    "update products set state = $2, in_force_minor = $3, proposed_minor = $4, floor_minor = $5,"
    " ceiling_minor = $6, confidence = $7, quote_id = $8, priced_seq = $9, priced_ms = $10"
    " where listing = $1"
)

_UPSERT_PRODUCT = (
    "insert into products (listing, generation, shard, retailer, channel, sku, title, category,"
    " tags, currency, rrp_minor, map_minor, kvi, cost_minor, changed_seq, changed_ms)"
    " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
    " on conflict (listing) do update set generation = excluded.generation,"
    " shard = excluded.shard, title = excluded.title, category = excluded.category,"
    " tags = excluded.tags, currency = excluded.currency, rrp_minor = excluded.rrp_minor,"
    " map_minor = excluded.map_minor, kvi = excluded.kvi, cost_minor = excluded.cost_minor,"
    " changed_seq = excluded.changed_seq, changed_ms = excluded.changed_ms, removed_ms = null"
)

_UPSERT_POLICY = (
    "insert into policies (generation, shard, retailer, scope, scope_key, priority, fields, actor,"
    " seq, changed_ms) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    " on conflict (generation, shard, retailer, scope, scope_key) do update set"
    " priority = excluded.priority, fields = excluded.fields, actor = excluded.actor,"
    " seq = excluded.seq, changed_ms = excluded.changed_ms"
)

_UPSERT_RETAILER = (
    "insert into retailers (generation, shard, retailer, seq, changed_ms, name, currency, mode,"
    " primary_channel, spread, fields) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
    " on conflict (generation, shard, retailer) do update set seq = excluded.seq,"
    " changed_ms = excluded.changed_ms, name = excluded.name, currency = excluded.currency,"
    " mode = excluded.mode, primary_channel = excluded.primary_channel, spread = excluded.spread,"
    " fields = excluded.fields"
)

_RETAILER_STATES = {
    "mode": "mode = $6",
    "halt": "halted = 1, halt_reason = $6",
    "breaker": "halted = 1, halt_reason = $6",
    "resume": "halted = 0, halt_reason = null",
}

_NAME_ACTORS = (
    "update price_history set actor = audit.actor, command_id = audit.command_id from audit"
    " where price_history.generation = $1 and price_history.shard = $2"
    " and price_history.seq between $3 and $4 and price_history.cause_lane = 0"
    f" and price_history.cause_kind in ({int(Cause.DELTA)}, {int(Cause.REPRICE)})"
    " and audit.generation = price_history.generation and audit.shard = price_history.shard"
    " and audit.entry = 'outcome' and audit.lane = price_history.cause_lane"
    " and audit.log_offset = price_history.cause_offset and audit.item = price_history.cause_item"
)


def _update_retailer(set_to: str) -> str:
    return (
        f"update retailers set seq = $4, changed_ms = $5, {set_to}"
        " where generation = $1 and shard = $2 and retailer = $3"
    )


assert set(PRICE_FIELDS) <= set(HISTORY_COLUMNS)
assert {_FROM_QUOTE[name] for name in HISTORY_COLUMNS} >= set(QUOTE_DTYPE.names or ()), (
    "a lost field"
)
