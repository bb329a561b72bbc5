"""Rows a second into Postgres and QuestDB as production writes them, against the bare stores.

``python -m perf.sinks [--quotes 40000] [--json]``

A shard decides; its decisions go through the sinks of the ledger and the history followers, with
cursors, audit and checks. Beside them stand the same price rows with nothing around: ``COPY`` and
``executemany`` of an upsert into a Postgres table of the same columns and keys, ``dataframe()`` and
``row()`` into a QuestDB table of the same columns, the wait until they can be read included. Equal
tables are the condition of every ratio: count and checksum of what the sinks hold are the log's.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import numpy as np
import pandas as pd
from msgspec import structs
from questdb import Sender, TimestampNanos

from actors.sinks.delta_lanes import DeltaLanes
from actors.sinks.history import History, SeriesRows
from actors.sinks.ledger import PriceLedger
from actors.sinks.ledger_rows import FIRST_HASH, HISTORY_COLUMNS, Rows, Stored
from cluster.servers.postgres import Postgres
from cluster.servers.questdb import QuestDB
from engine.shard import Shard
from perf.filled import RIVALS, fill, keys_of
from perf.measuring import Progress, arguments_of, ratio, run_command, spread
from perf.shard import mixed
from persistence.checksums import Tally, tally_quotes
from persistence.decision_reader import Accepted
from persistence.decision_records import LogPosition, Stamp
from persistence.memory_log import MemoryLogs
from persistence.postgres_tables import PostgresTables
from persistence.questdb_series import QuestDBSeries

COMMAND = "sinks"
LISTINGS = 20_000
BATCH = 2048
RECORDS_MAX = 64
"""Records a follower hands to a sink at once, as in production."""

STAMP = Stamp(b"l" * 16, 0, 0, 1, b"o" * 16)
EXECUTEMANY_ROWS = 5_000


def decided_quotes(quotes: int, say: Progress) -> list[Accepted]:
    """Return decisions as a log gives them, until they hold so many quotes."""
    shard = Shard()
    shard.warm()
    clock = fill(shard, LISTINGS, say, rivals=1)
    keys, random = keys_of(LISTINGS), np.random.default_rng(4)
    found: list[Accepted] = []
    held, now_ms = 0, time.time_ns() // 1_000_000
    while held < quotes:
        clock.now_ms += 250
        batch = mixed(keys, BATCH, clock.now_ms, random, RIVALS)
        batch = structs.replace(batch, last_delta=shard.last_delta + BATCH)
        decided = shard.apply(batch, clock.now_ms)
        shard.record(decided)
        if not len(decided.quotes):
            continue
        found.append(
            Accepted(
                position=LogPosition(STAMP.log_id, len(found) + 1, 1, STAMP.owner, decided.seq),
                appended_ms=now_ms + len(found),
                stamp=STAMP,
                # As if no delta was consumed: what was heard is another table, and not compared.
                decided=structs.replace(decided, last_command=-1, last_delta=-1),
            )
        )
        held += len(decided.quotes)
    return found


def told(accepted: Sequence[Accepted]) -> Tally:
    """Return what the log says that a store must hold."""
    total = Tally()
    for each in accepted:
        assert each.decided is not None
        total = total.plus(tally_quotes(0, 0, each.decided.seq, each.decided.quotes))
    return total


async def written_s(sink: Any, accepted: Sequence[Accepted]) -> float:
    """Write all decisions through a sink from its beginning; return the seconds."""
    expected = await sink.position(0)
    began = time.perf_counter()
    for first in range(0, len(accepted), RECORDS_MAX):
        part = accepted[first : first + RECORDS_MAX]
        await sink.write(0, part, expected)
        expected = part[-1].position
    return time.perf_counter() - began


# --- Postgres -------------------------------------------------------------------------------------


def history_rows(accepted: Sequence[Accepted]) -> list[Sequence[Any]]:
    """Return the price rows that the ledger would copy."""
    rows = Rows(0, 0, Stored(None, 0, 0, FIRST_HASH, Tally()))
    for each in accepted:
        rows.take(each)
    copied = [each for each in rows.statements() if each.into == "price_history"]
    return [row for each in copied for row in each.many or ()]


async def in_postgres(
    server: Postgres, accepted: Sequence[Accepted], pairs: int, say: Progress
) -> dict[str, Any]:
    """Return rows a second of the ledger, of bare ``COPY`` and of ``executemany``."""
    address = urlsplit(server.address)
    tables = PostgresTables(server.address, password=address.password, deadline_ms=60_000)
    await tables.migrate()
    connection = await asyncpg.connect(server.address)
    await connection.execute("create table bare (like price_history including all)")
    rows = history_rows(accepted)
    few = rows[:EXECUTEMANY_ROWS]
    places = ", ".join(f"${number + 1}" for number in range(len(HISTORY_COLUMNS)))
    changed = ", ".join(f"{name} = excluded.{name}" for name in HISTORY_COLUMNS[4:])
    upsert = (
        f"insert into bare ({', '.join(HISTORY_COLUMNS)}) values ({places})"
        f" on conflict (generation, shard, seq, item) do update set {changed}"
    )

    async def ledger() -> float:
        await connection.execute(
            "truncate cursors, price_history, products, approvals, audit cascade"
        )
        sink = PriceLedger(tables, generation=0)
        took = await written_s(sink, accepted)
        held = await sink.summary(0)
        assert held.prices == told(accepted), "the ledger holds other rows than the log"
        return len(rows) / took

    async def copy() -> float:
        await connection.execute("truncate bare")
        began = time.perf_counter()
        await connection.copy_records_to_table("bare", records=rows, columns=list(HISTORY_COLUMNS))
        return len(rows) / (time.perf_counter() - began)

    async def many() -> float:
        await connection.execute("truncate bare")
        began = time.perf_counter()
        await connection.executemany(upsert, few)
        return len(few) / (time.perf_counter() - began)

    try:
        rates = await in_turns(pairs, {"ledger": ledger, "copy": copy, "executemany": many}, say)
    finally:
        await connection.close()
        await tables.close()
    return {
        "ledger_rows_per_s": spread(rates["ledger"]),
        "copy_rows_per_s": spread(rates["copy"]),
        "executemany_rows_per_s": spread(rates["executemany"]),
        "ledger_of_copy": ratio(rates["ledger"], rates["copy"]),
        "ledger_of_executemany": ratio(rates["ledger"], rates["executemany"]),
    }


# --- QuestDB --------------------------------------------------------------------------------------


async def in_questdb(
    server: QuestDB, accepted: Sequence[Accepted], pairs: int, say: Progress
) -> dict[str, Any]:
    """Return rows a second of the history sink, of bare ``dataframe()`` and of bare ``row()``."""
    address = server.address
    series = QuestDBSeries(
        address.host,
        address.http_port,
        user=address.user,
        password=address.password,
        ttl_days=0,
        deadline_ms=60_000,
    )
    await series.migrate()
    columns = SeriesRows(0, 0)
    for each in accepted:
        assert each.decided is not None
        columns.take(each, each.decided)
    prices = columns.tables()["prices"]
    count = len(prices["ts"])
    frame = pd.DataFrame({name: values for name, values in prices.items() if name != "ts"})
    for name in frame.columns:
        if frame[name].dtype == object and name not in ("quote_id", "model"):
            frame[name] = frame[name].astype(float)
    frame["ts"] = pd.to_datetime(prices["ts"], unit="ms")

    async def history() -> float:
        await clear(series, "prices", "listings", "cursors")
        sink = History(series, DeltaLanes(MemoryLogs()), generation=0)
        took = await written_s(sink, accepted)
        held = await sink.summary(0)
        assert held.prices == told(accepted), "history holds other rows than the log"
        return count / took

    async def bare(write: Callable[[], None]) -> float:
        await clear(series, "prices")
        began = time.perf_counter()
        await asyncio.to_thread(write)
        await applied(series, "prices", count)
        return count / (time.perf_counter() - began)

    def dataframe() -> None:
        with sender(address) as writer:
            writer.dataframe(frame, table_name="prices", symbols=["model"], at="ts")

    def by_row() -> None:
        with sender(address) as writer:
            write_rows(writer, prices)

    sides: dict[str, Callable[[], Awaitable[float]]] = {
        "history": history,
        "dataframe": lambda: bare(dataframe),
        "row": lambda: bare(by_row),
    }
    try:
        rates = await in_turns(pairs, sides, say)
    finally:
        await series.close()
    return {
        "history_rows_per_s": spread(rates["history"]),
        "dataframe_rows_per_s": spread(rates["dataframe"]),
        "row_rows_per_s": spread(rates["row"]),
        "history_of_dataframe": ratio(rates["history"], rates["dataframe"]),
        "history_of_row": ratio(rates["history"], rates["row"]),
    }


def sender(address: Any) -> Any:
    """Return a client of its own, as its documentation opens it."""
    return Sender.from_conf(address.sender_conf)


def write_rows(writer: Any, prices: dict[str, list[Any]]) -> None:
    """Write a row at a time."""
    names = [name for name in prices if name not in ("ts", "model")]
    for row, ts in enumerate(prices["ts"]):
        writer.row(
            "prices",
            symbols={"model": prices["model"][row]},
            columns={name: prices[name][row] for name in names},
            at=TimestampNanos(ts * 1_000_000),
        )


async def clear(series: QuestDBSeries, *tables: str) -> None:
    """Empty tables and wait until they are."""
    for table in tables:
        await series.execute(f"truncate table {table}")
        await applied(series, table, 0)


async def applied(series: QuestDBSeries, table: str, rows: int) -> None:
    """Wait until a table shows so many rows."""
    deadline = time.monotonic() + 60
    while True:
        found = await series.fetch(f"select count() as held from {table}")
        if found[0]["held"] == rows:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{table} holds {found[0]['held']} rows, not {rows}")
        await asyncio.sleep(0.005)


# --- measuring ------------------------------------------------------------------------------------


async def in_turns(
    pairs: int, sides: dict[str, Callable[[], Awaitable[float]]], say: Progress
) -> dict[str, list[float]]:
    """Run all sides in turns; the first round warms and does not count."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(pairs + 1):
        for name, side in sides.items():
            say(f"{turn} of {pairs}: {name}")
            figures[name].append(await side())
    return {name: found[1:] for name, found in figures.items()}


def measure(quotes: int, pairs: int, say: Progress) -> dict[str, Any]:
    """Return all figures."""
    accepted = decided_quotes(quotes, say)
    with tempfile.TemporaryDirectory(prefix="repricer-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # Postgres may run as another user and must get through
        figures: dict[str, Any] = {"quotes": told(accepted).rows, "decisions": len(accepted)}
        for kind, server_class, ask in (
            ("postgres", Postgres, in_postgres),
            ("questdb", QuestDB, in_questdb),
        ):
            say(f"starting {kind}")
            (folder / kind).mkdir()
            server: Any = server_class(folder / kind)
            server.start()
            try:
                figures |= asyncio.run(ask(server, accepted, pairs, say))
            finally:
                server.stop()
    return figures


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    return measure(options.quotes, options.pairs, say)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--quotes", type=int, default=40_000)
    parser.add_argument("--pairs", type=int, default=5)
    return run_command(COMMAND, parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
