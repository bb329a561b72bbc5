"""History: what was decided and what was heard, as points in time, for analysts and charts.

The series store knows no transactions, so exactness comes from keys: a row written again is the
same row. The cursor lies in the same store and is moved last, when the rows can be read. So it
lives and dies with them: a store that was lost or restored from an old copy is filled again from
the log by itself, and one that is down stops nobody but this follower.

What was heard (rivals' prices, stock, sales) is not in the decision log. It is read from the delta
log, from one accepted mark to the next and never beyond: what no owner consumed did not happen.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from actors.sinks.delta_lanes import (
    READ_RECORDS_MAX,
    DeltaLanes,
    facts_kept,
    refusals_by_position,
)
from actors.sinks.rows import (
    IDLE_MS,
    NOT_BEGUN,
    PAGE_ROWS,
    QUOTE_COLUMNS,
    WRITE_ROWS_MAX,
    numbers,
    signed,
    storable,
)
from engine.decided import Decided, quote_id
from engine.errors import CursorFenced
from engine.microbatch import COMPETITOR_PRICED, LANES, STOCK_COUNTED, UNITS_SOLD
from persistence.checksums import FACT_FIELDS, PRICE_FIELDS, Tally, tally_rows
from persistence.decision_reader import Accepted
from persistence.decision_records import LogPosition
from persistence.ports import Record, SeriesStore
from persistence.wire import NamedFact

NAME = "history"

FACT_TABLES = {
    COMPETITOR_PRICED: "competitor_prices",
    STOCK_COUNTED: "inventory_levels",
    UNITS_SOLD: "sales_metrics",
}
"""Costs are left out: they stand in the quotes."""

AMOUNT_COLUMNS = {
    "competitor_prices": "price_minor",
    "inventory_levels": "units",
    "sales_metrics": "units",
}

_FACT_COLUMNS = ("ts", "generation", "shard", "lane", "log_offset", "item", "listing")
_MORE_COLUMNS = {
    "competitor_prices": (
        "rival",
        "source",
        "shipping_minor",
        "currency",
        "condition_new",
        "in_stock",
    ),
    "inventory_levels": (),
    "sales_metrics": ("source", "price_minor"),
}

_LISTING_FIELDS = ("channel", "sku", "title", "brand", "category", "currency", "cost_minor")

Columns = dict[str, list[Any]]


class HistoryPlace(Struct, frozen=True):
    """The cursor: where in the decision log, and up to where in both lanes."""

    position: LogPosition | None = None
    last_command: int = -1
    last_delta: int = -1
    appended_ms: int = 0


class HistorySummary(Struct, frozen=True):
    """What history holds of one shard, to be compared with the logs."""

    seq: int
    prices: Tally
    facts: Mapping[str, Tally]  # by table


class History:
    """``actors.follower.Sink`` over a series store."""

    name = NAME

    def __init__(self, series: SeriesStore, deltas: DeltaLanes, *, generation: int) -> None:
        self._series = series
        self._deltas = deltas
        self._generation = generation
        self._migrated = False
        self._stored: dict[int, HistoryPlace] = {}
        # Cursors whose writing failed, and which may still arrive.
        self._doubtful: dict[int, list[HistoryPlace]] = {}
        self._taken: dict[int, HistoryPlace] = {}  # how far, idle records included
        self._begun: dict[int, LogPosition | None] = {}  # where a batch began that failed half-way

    async def position(self, shard: int) -> LogPosition | None:
        """Return where to read on; migrates first, since the store may have been down till now."""
        await self._migrate()
        # A predecessor's cursor may be acknowledged and wait: believed too early, it would come up
        # later, and look like another follower's.
        await self._series.settle("cursors")
        self._stored[shard] = self._taken[shard] = await self._read_cursor(shard)
        return self._stored[shard].position

    async def write(
        self, shard: int, accepted: Sequence[Accepted], expected: LogPosition | None
    ) -> None:
        """Write the rows of ``accepted``, then the cursor.

        Raises:
            CursorFenced: another follower moved the cursor.
            FailedDependency: a store or the delta log did not do it: call again with the same.
            RejectedInput: the store refuses rows as they are (too old for its time to live).
        """
        if not accepted:
            return
        if shard not in self._stored:
            await self.position(shard)
        taken = self._taken[shard]
        if expected != taken.position and expected != self._begun.get(shard, NOT_BEGUN):
            raise CursorFenced(f"history of shard {shard} is at {taken.position}, not {expected}")
        self._begun[shard] = expected
        rows = SeriesRows(self._generation, shard)
        heard = Heard(self._deltas, shard, taken, accepted)
        for each in accepted:
            if taken.position is not None and each.offset <= taken.position.offset:
                continue
            taken = await self._take(each, taken, rows, heard)
            if rows.count >= WRITE_ROWS_MAX:
                await self._flush(shard, rows, taken)
                rows = SeriesRows(self._generation, shard)
        if rows.count or taken.appended_ms - self._stored[shard].appended_ms >= IDLE_MS:
            await self._flush(shard, rows, taken)
        self._taken[shard] = taken
        del self._begun[shard]

    async def summary(self, shard: int) -> HistorySummary:
        """Count and check every row of the shard, fetched, not believed."""
        await self._migrate()
        place = await self._read_cursor(shard)
        seq = 0 if place.position is None else place.position.seq
        prices = await self._tally_prices(shard)
        facts = {table: await self._tally_facts(shard, table) for table in FACT_TABLES.values()}
        return HistorySummary(seq, prices, facts)

    async def _migrate(self) -> None:
        if not self._migrated:
            await self._series.migrate()
            self._migrated = True

    async def _take(
        self, accepted: Accepted, before: HistoryPlace, rows: "SeriesRows", heard: "Heard"
    ) -> HistoryPlace:
        """Gather what one record stands for, and return how far that reaches."""
        decided = accepted.decided
        if decided is None:
            return HistoryPlace(
                accepted.position, before.last_command, before.last_delta, accepted.appended_ms
            )
        rows.take(accepted, decided)
        refused = refusals_by_position(decided.exceptions)
        for lane, through in enumerate((decided.last_command, decided.last_delta)):
            for record in await heard.through(lane, through):
                for fact, verdict, reason in facts_kept(lane, record, refused):
                    rows.take_fact(lane, record.offset, record.appended_ms, fact, verdict, reason)
        return HistoryPlace(
            accepted.position, decided.last_command, decided.last_delta, accepted.appended_ms
        )

    async def _flush(self, shard: int, rows: "SeriesRows", place: HistoryPlace) -> None:
        """Write the rows, and when they can be read, the cursor."""
        for table, columns in rows.tables().items():
            await self._series.append(table, columns)
        found = await self._read_cursor(shard)
        if found != self._stored[shard] and found not in self._doubtful.get(shard, ()):
            raise CursorFenced(
                f"history of shard {shard}: the cursor stands at {found.position},"
                f" this follower left it at {self._stored[shard].position}"
            )
        # If this fails it may still arrive; later it must be known as ours.
        self._doubtful.setdefault(shard, []).append(place)
        await self._series.append("cursors", self._cursor_row(shard, place))
        self._stored[shard] = self._taken[shard] = place
        del self._doubtful[shard]

    def _cursor_row(self, shard: int, place: HistoryPlace) -> Columns:
        position = place.position
        assert position is not None
        return {
            "ts": [0],  # always the same moment, so that the row replaces itself
            "sink": [NAME],
            "generation": [self._generation],
            "shard": [shard],
            "log_id": [position.log_id.hex()],
            "log_offset": [position.offset],
            "epoch": [position.epoch],
            "owner": [position.owner.hex()],
            "seq": [position.seq],
            "last_command": [place.last_command],
            "last_delta": [place.last_delta],
            "appended_ms": [place.appended_ms],
        }

    async def _read_cursor(self, shard: int) -> HistoryPlace:
        rows = await self._series.fetch(
            f"select * from cursors where sink = '{NAME}'"
            f" and generation = {self._generation} and shard = {shard}"
        )
        if not rows:
            return HistoryPlace()
        row = rows[0]
        position = LogPosition(
            bytes.fromhex(row["log_id"]),
            row["log_offset"],
            row["epoch"],
            bytes.fromhex(row["owner"]),
            row["seq"],
        )
        return HistoryPlace(position, row["last_command"], row["last_delta"], row["appended_ms"])

    async def _tally_prices(self, shard: int) -> Tally:
        total, seq, item = Tally(), -1, -1
        while True:
            page = await self._series.fetch(
                f"select {', '.join(PRICE_FIELDS)} from prices"
                f" where generation = {self._generation} and shard = {shard}"
                f" and (seq > {seq} or (seq = {seq} and item > {item}))"
                f" order by seq, item limit {PAGE_ROWS}"
            )
            total = total.plus(tally_rows(page, PRICE_FIELDS))
            if len(page) < PAGE_ROWS:
                return total
            seq, item = page[-1]["seq"], page[-1]["item"]

    async def _tally_facts(self, shard: int, table: str) -> Tally:
        total = Tally()
        fields = [f"{AMOUNT_COLUMNS[table]} as amount" if f == "amount" else f for f in FACT_FIELDS]
        for lane in range(len(LANES)):
            offset, item = -1, -1
            while True:
                page = await self._series.fetch(
                    f"select {', '.join(fields)} from {table}"
                    f" where generation = {self._generation} and shard = {shard} and lane = {lane}"
                    f" and (log_offset > {offset} or (log_offset = {offset} and item > {item}))"
                    f" order by log_offset, item limit {PAGE_ROWS}"
                )
                total = total.plus(tally_rows(page, FACT_FIELDS))
                if len(page) < PAGE_ROWS:
                    break
                offset, item = page[-1]["log_offset"], page[-1]["item"]
        return total


class Heard:
    """The deltas that a run of decisions consumed, read in spans rather than decision by decision.

    A span ends where the run does, so nothing beyond an accepted mark is read.
    """

    def __init__(
        self, deltas: DeltaLanes, shard: int, before: HistoryPlace, accepted: Sequence[Accepted]
    ) -> None:
        self._deltas = deltas
        self._shard = shard
        self._after = [before.last_command, before.last_delta]
        self._end = list(self._after)
        for each in accepted:
            if each.decided is not None:
                self._end = [each.decided.last_command, each.decided.last_delta]
        self._held: tuple[deque[Record], deque[Record]] = (deque(), deque())

    async def through(self, lane: int, through: int) -> list[Record]:
        """Return the records of a lane that follow those returned before, up to ``through``."""
        held = self._held[lane]
        while self._after[lane] < through:
            end = min(self._end[lane], self._after[lane] + READ_RECORDS_MAX)
            held.extend(await self._deltas.read(self._shard, lane, self._after[lane], end))
            self._after[lane] = end
        taken = []
        while held and held[0].offset <= through:
            taken.append(held.popleft())
        return taken


def fact_columns(table: str) -> tuple[str, ...]:
    """Return the columns of a table of facts, in the order of the rows gathered."""
    judged = ("observed_ms", "verdict", "reason")
    return (*_FACT_COLUMNS, AMOUNT_COLUMNS[table], *judged, *_MORE_COLUMNS[table])


class SeriesRows:
    """Rows by table, as columns, gathered from decisions and the facts that they consumed."""

    def __init__(self, generation: int, shard: int) -> None:
        self.count = 0
        self._tables: dict[str, Columns] = {}
        self._facts: dict[str, list[tuple[Any, ...]]] = {}  # most rows by far, so kept as rows
        self._generation = generation
        self._shard = shard

    def tables(self) -> dict[str, Columns]:
        """Return what was gathered."""
        facts = {
            table: dict(zip(fact_columns(table), map(list, zip(*rows, strict=True)), strict=True))
            for table, rows in self._facts.items()
        }
        return {**self._tables, **facts}

    def take(self, accepted: Accepted, decided: Decided) -> None:
        """Gather a decision's quotes and the listings that it changed."""
        if len(decided.quotes):
            self._extend("prices", self._prices(accepted, decided), len(decided.quotes))
        listings: dict[int, dict[str, Any]] = {}  # the last change in a decision is the one kept
        for change in decided.catalogue:
            if change.what in ("listing", "listing_removed"):
                found = listings.setdefault(change.listing, {})
                found.update({name: change.fields.get(name) for name in _LISTING_FIELDS})
                found |= {"retailer": change.retailer, "removed": change.what == "listing_removed"}
        for key, fields in listings.items():
            row = {
                "ts": accepted.appended_ms,
                "generation": self._generation,
                "shard": self._shard,
                "seq": decided.seq,
                "listing": signed(key),
                **{name: storable(value) for name, value in fields.items()},
            }
            self._extend("listings", {name: [value] for name, value in row.items()}, 1)

    def take_fact(
        self, lane: int, offset: int, appended_ms: int, fact: NamedFact, verdict: str, reason: str
    ) -> None:
        """Gather one fact, accepted or quarantined."""
        table = FACT_TABLES.get(fact.kind)
        if table is None:
            return
        row: tuple[Any, ...] = (
            appended_ms,  # of the delta's own record: the same however often it is read
            self._generation,
            self._shard,
            lane,
            offset,
            fact.index,
            signed(fact.listing),
            fact.amount,
            fact.observed_ms,
            verdict,
            storable(reason) or None,
        )
        if table == "competitor_prices":
            row += (
                storable(fact.rival),
                storable(fact.source) or None,
                fact.shipping_minor,
                fact.currency or None,
                fact.is_new,
                fact.in_stock,
            )
        elif table == "sales_metrics":
            row += (storable(fact.source) or None, fact.sold_minor or None)
        self._facts.setdefault(table, []).append(row)
        self.count += 1

    def _prices(self, accepted: Accepted, decided: Decided) -> Columns:
        quotes, rows = decided.quotes, len(decided.quotes)
        ids = [quote_id(self._generation, self._shard, decided.seq, item) for item in range(rows)]
        return {
            "ts": [accepted.appended_ms] * rows,
            "generation": [self._generation] * rows,
            "shard": [self._shard] * rows,
            "seq": [decided.seq] * rows,
            "item": list(range(rows)),
            "listing": quotes["listing"].astype(np.int64).tolist(),
            "quote_id": ids,
            "decided_ms": [decided.decided_ms] * rows,
            **{name: numbers(quotes[name]) for name in QUOTE_COLUMNS},
            "cause_item": quotes["cause_index"].tolist(),
            "model": [decided.model] * rows,
            "epoch": [accepted.stamp.epoch] * rows,
        }

    def _extend(self, table: str, columns: Columns, rows: int) -> None:
        known = self._tables.setdefault(table, {name: [] for name in columns})
        assert known.keys() == columns.keys()
        for name, values in columns.items():
            known[name] += values
        self.count += rows
