"""The ledger: what people ask about prices, in a relational store, exactly once.

Each write is one transaction that moves the cursor from the place where it must stand and adds the
rows that lie between. So the rows are there once, whatever crashes: the cursor says how far they
reach, and a second writer touches no cursor row and is rolled back.

A commit whose answer did not come may still arrive, even after we have looked. So every cursor row
names its ``writer``: a fence that turns out to be our own late commit is no fence.
"""

import os
from collections.abc import Sequence

from actors.sinks.ledger_rows import AUDIT_COLUMNS, FIRST_HASH, Rows, Stored, audit_hash
from actors.sinks.rows import IDLE_MS, NOT_BEGUN, PAGE_ROWS, Summary, bounded
from engine.errors import CursorFenced, FailedDependency, LogFault, WriteInDoubt
from persistence.checksums import PRICE_FIELDS, Tally, tally_rows
from persistence.decision_reader import Accepted
from persistence.decision_records import LogPosition
from persistence.ports import Statement, TableStore

NAME = "ledger"


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
                f"select {', '.join(AUDIT_COLUMNS)} from audit"
                " where generation = $1 and shard = $2 and number > $3"
                f" order by number limit {PAGE_ROWS}",
                self._generation,
                shard,
                number,
            )
            for row in page:
                number += 1
                entry = [row[name] for name in AUDIT_COLUMNS[:-2]]
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
