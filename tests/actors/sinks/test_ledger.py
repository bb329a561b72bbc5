"""The ledger holds each row of the log exactly once, whatever fails, and says who and why."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from actors.sinks import ledger as ledger_module
from actors.sinks import rows as rows_module
from actors.sinks.ledger import PriceLedger
from actors.sinks.ledger_rows import AUDIT_COLUMNS, audit_hash
from actors.sinks.log_summary import summarize_log
from cluster.servers.postgres import Postgres
from engine.decided import CatalogueChange, Outcome
from engine.errors import CursorFenced, FailedDependency, LogFault
from engine.microbatch import Position
from engine.routing import key64
from persistence.checksums import Tally
from persistence.ports import DECISIONS, Statement, TableStore
from persistence.sqlite_tables import SqliteTables
from tests.actors.sinks.recorded import (
    LISTINGS,
    RETAILER,
    Faults,
    FaultyTables,
    RecordedShard,
    follow,
    quotes_of,
)
from tests.actors.sinks.stores import postgres_database, postgres_tables, sqlite_path


@pytest.fixture(params=["sqlite", "postgres"])
async def tables(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TableStore]:
    if request.param == "sqlite":
        store: TableStore = SqliteTables(sqlite_path(tmp_path))
        yield store
        await store.close()
        return
    async with postgres_database(request.getfixturevalue("postgres_server").address) as dsn:
        store = postgres_tables(dsn)
        yield store
        await store.close()


def of(recorded: RecordedShard, tables: TableStore, writer: str = "") -> PriceLedger:
    return PriceLedger(tables, generation=recorded.generation, writer=writer)


async def expect_equal(recorded: RecordedShard, ledger: PriceLedger) -> None:
    """Compare count and checksum, rows fetched on one side and the log read on the other."""
    log = await recorded.logs.open(DECISIONS, recorded.shard)
    told = await summarize_log(
        log, recorded.lanes, shard=recorded.shard, generation=recorded.generation
    )
    held = await ledger.summary(recorded.shard)
    assert held.prices == told.prices
    assert held.seq == told.seq


async def test_it_equals_the_log(tables: TableStore) -> None:
    recorded = await RecordedShard(seed=1).open()
    await recorded.fill(40)
    ledger = await follow(recorded, lambda: of(recorded, tables))
    await expect_equal(recorded, ledger)
    assert (await ledger.summary(recorded.shard)).prices.rows > 40
    rows = await tables.fetch("select count(*) as n from products where priced_ms is not null")
    assert rows[0]["n"] == len(LISTINGS)


async def test_two_shards_share_a_store_and_no_rows(tables: TableStore) -> None:
    for shard in (0, 1):
        recorded = await RecordedShard(seed=shard, shard=shard, generation=7).open()
        await recorded.fill(10)
        ledger = await follow(recorded, lambda recorded=recorded: of(recorded, tables))
        await expect_equal(recorded, ledger)


async def test_it_says_who_and_why(tables: TableStore) -> None:
    recorded = await RecordedShard(generation=3).open()
    await recorded.begin_epoch()
    key = key64(RETAILER, "shop", "sku-0")
    command = Position(0, await recorded.send(0, b"{}"), 0)
    fields = {"channel": "shop", "sku": "sku-0", "title": "A \x00 thing", "tags": ["new"]}
    await recorded.decide(
        quotes_of([key], command),
        catalogue=[
            CatalogueChange(Position(1, 0, 0), "retailer", RETAILER, {"mode": "shadow"}),
            CatalogueChange(Position(1, 0, 0), "listing", RETAILER, fields, key),
        ],
        outcomes=[
            Outcome(
                "c\x001", command, RETAILER, "ann", "done", "PriceApproved", "as proposed", key, 5
            )
        ],
    )
    # A policy's reprice goes on in later decisions; its quotes still name who set the policy.
    policy = Position(0, await recorded.send(0, b"{}"), 0)
    change = {"scope": "retailer", "key": "", "fields": {"min_margin": 0.1}}
    await recorded.decide(
        catalogue=[
            CatalogueChange(policy, "policy", RETAILER, change),
            CatalogueChange(policy, "mode", RETAILER, {"mode": "live"}),
            CatalogueChange(Position(2, 2, 0), "breaker", RETAILER, {"reasons": ["a", "b"]}),
        ],
        outcomes=[Outcome("c2", policy, RETAILER, "bob", "done", "PolicyChanged")],
    )
    later = quotes_of([key], policy)
    later["cause_kind"] = 3
    await recorded.decide(later)
    await recorded.decide(
        catalogue=[
            CatalogueChange(policy, "resume", RETAILER, {}),
            CatalogueChange(policy, "listing_removed", RETAILER, {}, key),
        ]
    )
    ledger = await follow(recorded, lambda: of(recorded, tables), batch=1)
    await expect_equal(recorded, ledger)
    history = await tables.fetch(
        "select p.sku, p.title, h.quote_id, h.actor, h.command_id, h.in_force_minor"
        " from price_history h join products p on p.listing = h.listing order by h.seq"
    )
    assert [(row["sku"], row["actor"]) for row in history] == [("sku-0", "ann"), ("sku-0", "bob")]
    assert history[0]["quote_id"] == "q3-0-1-0"
    assert history[0]["command_id"] == "c\ufffd1"
    assert history[0]["title"] == "A \ufffd thing"
    approvals = await tables.fetch("select * from approvals")
    assert [(row["actor"], row["kind"], row["price_minor"]) for row in approvals] == [
        ("ann", "PriceApproved", 5)
    ]
    tripped = await tables.fetch("select detail from audit where kind = 'breaker'")
    assert tripped == [{"detail": '{"reasons":["a","b"]}'}]
    policies = await tables.fetch("select * from policies")
    assert [(row["actor"], row["fields"]) for row in policies] == [("bob", '{"min_margin":0.1}')]
    retailers = await tables.fetch("select mode, halted, halt_reason from retailers")
    assert retailers == [{"mode": "live", "halted": 0, "halt_reason": None}]
    removed = await tables.fetch("select removed_ms, quote_id from products")
    assert removed[0]["removed_ms"] is not None
    assert removed[0]["quote_id"] == "q3-0-3-0"


async def test_an_idle_log_moves_the_stored_cursor_only_now_and_then(tmp_path: Path) -> None:
    now_ms = [1_000_000]
    recorded = await RecordedShard(now_ms=lambda: now_ms[0]).open()
    await recorded.begin_epoch()
    for _ in range(100):
        now_ms[0] += 250
        await recorded.decide()
    faults = Faults()
    tables = FaultyTables(SqliteTables(sqlite_path(tmp_path)), faults)
    ledger = await follow(recorded, lambda: of(recorded, tables), batch=1)
    assert 3 <= faults.names.count("transact") <= 8
    again = of(recorded, tables)  # a restart reads the last few heartbeats once more
    cursor = await again.position(recorded.shard)
    assert cursor is not None
    assert 0 < cursor.seq <= 100
    recorded_again = await recorded.accepted(cursor)
    await again.write(recorded.shard, recorded_again, cursor)
    await recorded.decide(quotes_of([next(iter(LISTINGS))], Position(1, 0, 0)))
    last = await recorded.accepted(recorded_again[-1].position if recorded_again else cursor)
    await again.write(
        recorded.shard, last, recorded_again[-1].position if recorded_again else cursor
    )
    await expect_equal(recorded, ledger)
    await tables.close()


async def test_a_second_follower_is_fenced(tables: TableStore) -> None:
    recorded = await RecordedShard(seed=2).open()
    await recorded.fill(6)
    one, other = of(recorded, tables), of(recorded, tables)
    accepted = await recorded.accepted()
    await one.position(recorded.shard)
    await other.position(recorded.shard)
    await one.write(recorded.shard, accepted, None)
    with pytest.raises(CursorFenced):
        await other.write(recorded.shard, accepted, None)
    with pytest.raises(CursorFenced):  # and so is one that begins elsewhere than the sink stands
        await one.write(recorded.shard, accepted, accepted[0].position)
    await expect_equal(recorded, one)


async def test_a_big_batch_is_several_transactions(
    tables: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "WRITE_ROWS_MAX", 8)
    recorded = await RecordedShard(seed=3).open()
    await recorded.fill(20)
    faults = Faults()
    faulty = FaultyTables(tables, faults)
    ledger = await follow(recorded, lambda: of(recorded, faulty), batch=1000)
    assert faults.names.count("transact") > 3
    await expect_equal(recorded, ledger)


@pytest.mark.parametrize("kind", Faults.KINDS)
@pytest.mark.parametrize("batch", [4, 1000])
async def test_a_fault_at_any_call_neither_loses_nor_doubles_a_row(
    kind: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of the store is, once, the one that fails; until the run has no such call."""
    monkeypatch.setattr(rows_module, "WRITE_ROWS_MAX", 12)
    recorded = await RecordedShard(seed=4).open()
    await recorded.fill(8)
    calls, at = 1, 0
    while at < calls:
        faults = Faults(at, kind)
        tables = FaultyTables(SqliteTables(sqlite_path(tmp_path)), faults)
        ledger = await follow(recorded, lambda tables=tables: of(recorded, tables), batch=batch)
        calls = faults.calls
        faults.at = -1
        await expect_equal(recorded, ledger)
        at += 1
        await tables.close()
    assert calls > 5


async def test_a_commit_that_arrives_late_is_known_as_our_own(tmp_path: Path) -> None:
    """Its writer is the same, so it is no rival; else the follower would stop for nothing."""
    recorded = await RecordedShard(seed=5).open()
    await recorded.fill(4)
    accepted = await recorded.accepted()
    for writer_of_rival in (None, "rival"):
        faults = Faults(2, "late")  # migrate, fetch, transact
        tables = FaultyTables(SqliteTables(sqlite_path(tmp_path)), faults)
        ledger = of(recorded, tables, "me")
        if writer_of_rival is None:
            ledger = await follow(recorded, lambda ledger=ledger: ledger, batch=1000)
            await expect_equal(recorded, ledger)
        else:
            faults.at = -1
            rival = of(recorded, tables, writer_of_rival)
            await ledger.position(recorded.shard)
            await rival.write(recorded.shard, accepted, None)
            with pytest.raises(CursorFenced):
                await ledger.write(recorded.shard, accepted, None)
        await tables.close()


async def test_the_audit_notices_every_change(tables: TableStore) -> None:
    recorded = await RecordedShard(seed=6).open()
    await recorded.fill(20)
    ledger = await follow(recorded, lambda: of(recorded, tables))
    length = await ledger.verify_audit(recorded.shard)
    assert length > 5
    for tampering in (
        "update audit set actor = 'eve' where number = 3",
        "update audit set detail = '{}' where number = 4 and detail <> '{}'",
        "delete from audit where number = 2",
        f"delete from audit where number = {length}",
    ):
        before = await tables.fetch("select * from audit order by number")
        await tables.transact([Statement(tampering)])
        changed = await tables.fetch("select * from audit order by number")
        assert changed != before, tampering
        with pytest.raises(LogFault, match="audit"):
            await ledger.verify_audit(recorded.shard)
        await tables.transact(
            [
                Statement("delete from audit"),
                Statement(
                    into="audit",
                    columns=list(before[0]),
                    many=[tuple(row.values()) for row in before],
                ),
            ]
        )
    assert await ledger.verify_audit(recorded.shard) == length


async def test_an_entry_changed_with_its_own_hash_breaks_the_next(tmp_path: Path) -> None:
    """Whoever edits one entry must rewrite all that follow, and the cursor."""
    recorded = await RecordedShard(seed=6).open()
    await recorded.fill(20)
    tables = SqliteTables(sqlite_path(tmp_path))
    ledger = await follow(recorded, lambda: of(recorded, tables))
    columns = AUDIT_COLUMNS
    rows = await tables.fetch("select * from audit where number = 3")
    entry = [rows[0][name] if name != "actor" else "eve" for name in columns[:-2]]
    forged = audit_hash(rows[0]["previous_hash"], entry)
    await tables.transact(
        [
            Statement("update audit set actor = 'eve', hash = $1 where number = 3", (forged,)),
            Statement("update audit set previous_hash = $1 where number = 4", (forged,)),
        ]
    )
    with pytest.raises(LogFault, match="entry 4"):
        await ledger.verify_audit(recorded.shard)
    await tables.close()


async def test_the_checksum_sees_what_is_lost_doubled_or_changed(tables: TableStore) -> None:
    recorded = await RecordedShard(seed=7).open()
    await recorded.fill(20)
    ledger = await follow(recorded, lambda: of(recorded, tables))
    right = (await ledger.summary(recorded.shard)).prices
    one = "seq = (select min(seq) from price_history) and item = 0"
    await tables.transact(
        [Statement(f"update price_history set in_force_minor = in_force_minor + 1 where {one}")]
    )
    changed = (await ledger.summary(recorded.shard)).prices
    assert changed.rows == right.rows
    assert changed.checksum != right.checksum
    await tables.transact([Statement(f"delete from price_history where {one}")])
    assert (await ledger.summary(recorded.shard)).prices.rows == right.rows - 1


async def test_pages_add_up(tables: TableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = await RecordedShard(seed=8).open()
    await recorded.fill(20)
    ledger = await follow(recorded, lambda: of(recorded, tables))
    whole = await ledger.summary(recorded.shard)
    assert whole.prices != Tally()
    monkeypatch.setattr(ledger_module, "PAGE_ROWS", 3)
    assert await ledger.summary(recorded.shard) == whole


async def test_a_postgres_killed_in_the_middle_of_writes_loses_and_doubles_nothing(
    start_postgres: Callable[[], Postgres],
) -> None:
    recorded = await RecordedShard(seed=9).open()
    await recorded.fill(60)
    server = start_postgres()
    store = postgres_tables(server.address)
    kills = [3, 9, 17]

    class Killing(FaultyTables):
        """Kills the server while a transaction is under way, and starts it again."""

        async def transact(self, statements):  # type: ignore[no-untyped-def]
            self.faults.calls += 1
            if self.faults.calls not in kills:
                return await self.inner.transact(statements)
            writing = asyncio.ensure_future(self.inner.transact(statements))
            for _ in range(self.faults.calls):
                await asyncio.sleep(0)
            server.kill()
            server.start()
            return await writing

    tables = Killing(store, Faults())
    ledger = await follow(recorded, lambda: of(recorded, tables), batch=3)
    assert tables.faults.calls > max(kills)
    await expect_equal(recorded, ledger)
    await store.close()


async def test_a_frozen_postgres_is_given_up_and_written_to_when_it_thaws(
    start_postgres: Callable[[], Postgres],
) -> None:
    """It takes the connection and says nothing: the deadline ends the wait, in doubt or not."""
    recorded = await RecordedShard(seed=10).open()
    await recorded.fill(10)
    server = start_postgres()
    store = postgres_tables(server.address, deadline_ms=1_500)
    ledger = of(recorded, store)
    accepted = await recorded.accepted()
    await ledger.position(recorded.shard)
    await ledger.write(recorded.shard, accepted[:4], None)
    server.pause()
    try:
        with pytest.raises(FailedDependency):
            await ledger.write(recorded.shard, accepted[4:], accepted[3].position)
    finally:
        server.resume()
    while True:
        try:
            await ledger.write(recorded.shard, accepted[4:], accepted[3].position)
            break
        except FailedDependency:
            await asyncio.sleep(0.1)
    await expect_equal(recorded, ledger)
    await store.close()
