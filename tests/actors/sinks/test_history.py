"""History holds each price and each fact once, whatever fails, and only what an owner consumed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from actors.sinks import history as history_module
from actors.sinks.delta_lanes import DeltaLanes
from actors.sinks.history import History
from actors.sinks.log_summary import summarize_log
from cluster.servers.questdb import QuestDB
from engine.deltas import CompetitorPriced, StockCounted, UnitsSold
from engine.errors import CursorFenced, FailedDependency, LogRegressed, RejectedInput
from engine.microbatch import FLAG_CONDITION_NEW, FLAG_IN_STOCK, Position, Refusal
from engine.routing import key64
from persistence.checksums import Tally
from persistence.ports import DECISIONS, SeriesStore
from persistence.sqlite_series import SqliteSeries
from persistence.wire import FRAME, FrameColumns, encode_delta, encode_frame
from tests.actors.sinks.recorded import (
    BRANDS,
    RETAILER,
    Faults,
    FaultySeries,
    RecordedShard,
    follow,
    quotes_of,
)
from tests.actors.sinks.stores import questdb_series, sqlite_path


@pytest.fixture(params=["sqlite", "questdb"])
async def series(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SeriesStore]:
    store: SeriesStore
    if request.param == "sqlite":
        store = SqliteSeries(sqlite_path(tmp_path))
    else:
        store = questdb_series(request.getfixturevalue("questdb_server").address)
    yield store
    await store.close()


def of(recorded: RecordedShard, series: SeriesStore) -> History:
    return History(series, recorded.lanes, generation=recorded.generation)


async def expect_equal(recorded: RecordedShard, history: History) -> None:
    log = await recorded.logs.open(DECISIONS, recorded.shard)
    told = await summarize_log(
        log, recorded.lanes, shard=recorded.shard, generation=recorded.generation
    )
    held = await history.summary(recorded.shard)
    assert held.prices == told.prices
    assert held.facts == told.facts


async def test_a_cursor_that_waits_to_be_applied_is_waited_for(
    start_questdb: Callable[[], QuestDB], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk was full while the cursor was written, and then its follower was killed."""
    monkeypatch.setenv("QDB_DEV_MODE_ENABLED", "true")  # lets a statement suspend a table
    store = questdb_series(start_questdb().address, deadline_ms=3_000)
    recorded = await RecordedShard(seed=1).open()
    await recorded.fill(30)
    accepted = await recorded.accepted(None)
    killed = of(recorded, store)
    await killed.write(recorded.shard, accepted[:10], await killed.position(recorded.shard))
    begun = accepted[9].position
    await store.execute("alter table cursors suspend wal with 'DISK FULL', 'no room'")
    with pytest.raises(FailedDependency, match="suspended"):
        await killed.write(recorded.shard, accepted[10:], begun)
    heir = of(recorded, store)
    assert await heir.position(recorded.shard) == accepted[-1].position
    await expect_equal(recorded, heir)
    await store.close()


async def test_it_equals_the_logs(series: SeriesStore) -> None:
    recorded = await RecordedShard(seed=1).open()
    await recorded.fill(60)
    history = await follow(recorded, lambda: of(recorded, series))
    await expect_equal(recorded, history)
    summary = await history.summary(recorded.shard)
    assert summary.prices.rows > 60
    assert all(tally.rows > 0 for tally in summary.facts.values())


def a_frame(stocks: list[int]) -> bytes:
    rows = len(stocks)
    return encode_frame(
        RETAILER,
        FrameColumns(
            kind=np.array([1] + [2] * (rows - 1), np.uint8),
            listing=np.full(rows, key64(RETAILER, "shop", "sku-0"), np.uint64),
            amount=np.array(stocks, np.int64),
            observed_ms=np.full(rows, 5, np.int64),
            rival=np.array([0] + [-1] * (rows - 1), np.int32),
            rival_names=("Rival & Co",),
            shipping_minor=np.zeros(rows, np.int32),
            currency=np.zeros(rows, np.uint32),
            flags=np.array([FLAG_IN_STOCK | FLAG_CONDITION_NEW] + [0] * (rows - 1), np.uint8),
            source=np.array([0] + [-1] * (rows - 1), np.int32),
            source_names=("crawler",),
            source_seq=np.full(rows, -1, np.int64),
            event=np.zeros(rows, np.uint64),
        ),
    )


async def test_facts_come_with_names_and_the_refused_stay_out(series: SeriesStore) -> None:
    recorded = await RecordedShard().open()
    await recorded.begin_epoch()
    place = {"retailer": RETAILER, "channel": "shop", "sku": "sku-0", "observed_ms": 5}
    deltas = [
        CompetitorPriced(rival="R1", price_minor=100, source="feed", currency="USD", **place),
        CompetitorPriced(rival="R2", price_minor=1, condition="used", in_stock=False, **place),
        UnitsSold(units=3, event_id="e", source="till", price_minor=1899, **place),
        UnitsSold(units=3, event_id="e", source="till", **place),
        StockCounted(units=9, **place),
        UnitsSold(units=1, event_id="f", **place),
    ]
    offsets = [await recorded.send(1, encode_delta(delta)) for delta in deltas]
    framed = await recorded.send(1, a_frame([700, 8, 9]), FRAME)
    stray = await recorded.send(1, a_frame([701, 10]), FRAME)
    await recorded.send(1, b"{not json")
    await recorded.decide(
        exceptions=[
            Refusal(Position(1, offsets[1], 0), "quarantined", "2 % of the median\x00"),
            Refusal(Position(1, offsets[3], 0), "duplicate", "event e was counted"),
            Refusal(Position(1, framed, 2), "late", "older than what is known"),
            Refusal(Position(1, stray, 0), "wrong_shard", "another's"),
            Refusal(Position(1, stray + 1, 0), "undecodable", "not JSON"),
        ]
    )
    await recorded.send(1, encode_delta(deltas[0]))  # no owner has consumed this one
    history = await follow(recorded, lambda: of(recorded, series))
    where = f"where generation = {recorded.generation} order by log_offset, item"
    prices = await series.fetch(
        "select rival, source, price_minor, currency, condition_new, in_stock, verdict, reason"
        f" from competitor_prices {where}"
    )
    assert [list(row.values()) for row in prices] == [
        ["R1", "feed", 100, "USD", True, True, "accepted", None],
        ["R2", None, 1, None, False, False, "quarantined", "2 % of the median\ufffd"],
        ["Rival & Co", "crawler", 700, None, True, True, "accepted", None],
    ]
    sales = await series.fetch(f"select units, source, price_minor from sales_metrics {where}")
    assert [list(row.values()) for row in sales] == [[3, "till", 1899], [1, None, None]]
    stock = await series.fetch(f"select units from inventory_levels {where}")
    assert [row["units"] for row in stock] == [9, 8]
    await expect_equal(recorded, history)


async def test_listings_give_their_names_to_keys(series: SeriesStore) -> None:
    recorded = await RecordedShard().open()
    await recorded.fill(0)
    await follow(recorded, lambda: of(recorded, series))
    rows = await series.fetch(
        "select retailer, channel, title, brand, removed from listings"
        f" where generation = {recorded.generation} and sku = 'sku-3' order by channel"
    )
    assert [list(row.values()) for row in rows] == [
        [RETAILER, "market", "a\ufffdb", None, False],
        [RETAILER, "shop", "a\ufffdb", BRANDS["shop"], False],
    ]


@pytest.mark.parametrize("kind", Faults.KINDS)
@pytest.mark.parametrize("batch", [4, 1000])
async def test_a_fault_at_any_call_neither_loses_nor_doubles_a_row(
    kind: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "WRITE_ROWS_MAX", 12)
    recorded = await RecordedShard(seed=4).open()
    await recorded.fill(8)
    calls, at = 1, 0
    while at < calls:
        faults = Faults(at, kind)
        series = FaultySeries(SqliteSeries(sqlite_path(tmp_path)), faults)
        history = await follow(recorded, lambda series=series: of(recorded, series), batch=batch)
        calls = faults.calls
        faults.at = -1
        await expect_equal(recorded, history)
        at += 1
        await series.close()
    assert calls > 8


async def test_a_store_that_was_lost_is_filled_again_from_the_log(tmp_path: Path) -> None:
    """The cursor lies with the rows: where they are gone, so is it."""
    recorded = await RecordedShard(seed=5).open()
    await recorded.fill(10)
    first = SqliteSeries(sqlite_path(tmp_path))
    await follow(recorded, lambda: of(recorded, first))
    await first.close()
    empty = SqliteSeries(sqlite_path(tmp_path))
    history = await follow(recorded, lambda: of(recorded, empty))
    await expect_equal(recorded, history)
    await empty.close()


async def test_a_second_follower_is_fenced(series: SeriesStore) -> None:
    recorded = await RecordedShard(seed=6).open()
    await recorded.fill(10)
    accepted = await recorded.accepted()
    one, other = of(recorded, series), of(recorded, series)
    await one.position(recorded.shard)
    await other.position(recorded.shard)
    await one.write(recorded.shard, accepted, None)
    with pytest.raises(CursorFenced):
        await other.write(recorded.shard, accepted, None)
    await expect_equal(recorded, one)


async def test_consumed_deltas_that_the_log_lost_stop_it_loudly(tmp_path: Path) -> None:
    recorded = await RecordedShard(seed=7).open()
    await recorded.begin_epoch()
    await recorded.send(1, b"{}")
    await recorded.decide()
    shorter = await RecordedShard(seed=7, generation=recorded.generation).open()
    series = SqliteSeries(sqlite_path(tmp_path))
    history = History(series, DeltaLanes(shorter.logs), generation=recorded.generation)
    with pytest.raises(LogRegressed):
        await history.write(recorded.shard, await recorded.accepted(), None)
    assert (await history.summary(recorded.shard)).seq == 0
    await series.close()


async def test_an_old_backlog_is_refused_and_nothing_moves(
    start_questdb: Callable[[], QuestDB],
) -> None:
    now_ms = [1_000_000_000_000]  # the log's time: decades ago
    recorded = await RecordedShard(now_ms=lambda: now_ms[0]).open()
    await recorded.fill(5)
    address = start_questdb().address
    short = questdb_series(address, ttl_days=30)
    history = of(recorded, short)
    with pytest.raises(RejectedInput, match="ttl"):
        await history.write(recorded.shard, await recorded.accepted(), None)
    summary = await history.summary(recorded.shard)
    assert (summary.seq, summary.prices) == (0, Tally())
    endless = questdb_series(address, ttl_days=0)
    history = await follow(recorded, lambda: of(recorded, endless))
    await expect_equal(recorded, history)
    await short.close()
    await endless.close()


async def test_a_questdb_killed_in_the_middle_of_writes_loses_and_doubles_nothing(
    start_questdb: Callable[[], QuestDB],
) -> None:
    recorded = await RecordedShard(seed=9).open()
    await recorded.fill(30)
    server = start_questdb()
    store = questdb_series(server.address, deadline_ms=5_000)
    kills = [8, 23]

    class Killing(FaultySeries):
        """Kills the server while rows are under way, and starts it again."""

        async def append(self, table, columns):  # type: ignore[no-untyped-def]
            self.faults.calls += 1
            if self.faults.calls not in kills:
                return await self.inner.append(table, columns)
            writing = asyncio.ensure_future(self.inner.append(table, columns))
            await asyncio.sleep(0.004 * kills.index(self.faults.calls))
            server.kill()
            await asyncio.gather(writing, return_exceptions=True)
            await asyncio.to_thread(server.start)
            return await writing

    series = Killing(store, Faults())
    history = await follow(recorded, lambda: of(recorded, series), batch=2)
    assert series.faults.calls > max(kills)
    await expect_equal(recorded, history)
    await store.close()


async def test_a_frozen_questdb_is_given_up_and_written_to_when_it_thaws(
    start_questdb: Callable[[], QuestDB],
) -> None:
    recorded = await RecordedShard(seed=10).open()
    await recorded.fill(10)
    server = start_questdb()
    store = questdb_series(server.address, deadline_ms=1_500)
    history = of(recorded, store)
    while True:
        try:
            await history.position(recorded.shard)
            break
        except FailedDependency:
            continue
    accepted = await recorded.accepted()
    server.pause()
    try:
        with pytest.raises(FailedDependency):
            await history.write(recorded.shard, accepted, None)
    finally:
        server.resume()
    while True:
        try:
            await history.write(recorded.shard, accepted, None)
            break
        except FailedDependency:
            await asyncio.sleep(0.1)
    await expect_equal(recorded, history)
    await store.close()


async def test_a_quote_carries_everything_that_an_explanation_needs(
    series: SeriesStore,
) -> None:
    recorded = await RecordedShard().open()
    await recorded.begin_epoch()
    key = 2**63  # the one key that QuestDB reads as null
    await recorded.decide(quotes_of([key, 5], Position(1, 0, 0)))
    history = await follow(recorded, lambda: of(recorded, series))
    rows = await series.fetch(
        "select listing, reasons, elasticity, model, quote_id, cause_kind from prices"
        f" where generation = {recorded.generation} order by item"
    )
    assert rows[1]["listing"] == 5
    assert rows[1]["reasons"] == 2**32 - 1
    assert rows[1]["elasticity"] is None
    assert rows[1]["model"] == "first"
    assert rows[1]["quote_id"] == f"q{recorded.generation}-0-1-1"
    await expect_equal(recorded, history)
