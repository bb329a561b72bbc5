"""Pathway: reducers over groups and a join, in its Rust engine; Python only builds the graph.

Tuned: its own JSON parser with the fields that matter, one packed integer a delta so that the
newest price is a plain ``max`` (order within a minibatch is unspecified; a newest-wins reducer by
time is what repeats the order of the log), append-only input, a commit every 100 ms, one thread.
No persistence, hence nothing is kept. It writes a retraction with each changed price; readers
take what has ``pathway_diff`` 1.
"""

import os
import threading
from time import process_time, sleep
from typing import Any

import pathway as pw
from given import NO_PRICE, RATIO_BP, Given, given

COMMIT_MS = 100
PRICES = 1 << 20
"""Every price is below, so that a time and a price fit into one integer."""


class Delta(pw.Schema, append_only=True):
    """The fields that matter."""

    sku: str
    rival: str
    price_minor: int
    observed_ms: int


class Listing(pw.Schema):
    """The catalogue."""

    sku: str = pw.column_definition(primary_key=True)
    target: int
    floor: int


def main(work: Given) -> None:
    header = work.folder / "catalogue.csv"
    header.write_text("sku,target,floor\n" + work.catalogue.read_text())
    catalogue = pw.io.csv.read(str(header), schema=Listing, mode="static")
    settings = {
        "bootstrap.servers": work.bootstrap,
        "group.id": f"pathway-{work.output}",
        "auto.offset.reset": "earliest",
        "fetch.queue.backoff.ms": "2",
        "queued.min.messages": "100000",
    }
    deltas = pw.io.kafka.read(
        settings, work.input, schema=Delta, format="json", autocommit_duration_ms=COMMIT_MS
    )
    newest = deltas.groupby(pw.this.sku, pw.this.rival).reduce(
        pw.this.sku, packed=pw.reducers.max(pw.this.observed_ms * PRICES + pw.this.price_minor)
    )
    lowest = newest.groupby(pw.this.sku).reduce(
        pw.this.sku, rival=pw.reducers.min(pw.this.packed % PRICES)
    )
    joined = lowest.join(catalogue, pw.left.sku == pw.right.sku).select(
        pw.left.sku, pw.right.target, pw.right.floor, wish=pw.left.rival * RATIO_BP // 10_000
    )
    bounded = joined.select(
        pw.this.sku,
        pw.this.floor,
        wish=pw.if_else(pw.this.wish > pw.this.target, pw.this.target, pw.this.wish),
    )
    prices = bounded.select(
        pw.this.sku,
        price=pw.cast(str, pw.if_else(pw.this.wish > pw.this.floor, pw.this.wish, pw.this.floor)),
    )
    pw.io.kafka.write(
        prices,
        {
            "bootstrap.servers": work.bootstrap,
            "linger.ms": "20",
            "acks": "1",
            "batch.num.messages": "100000",
            "queue.buffering.max.messages": "1000000",
            "partitioner": "murmur2_random",
        },
        work.output,
        format="plaintext",
        key=prices.sku,
        value=prices.price,
    )
    stop_at(deltas, work.events)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


def stop_at(deltas: Any, events: int) -> None:
    """End the process once all deltas were counted and nothing works any more.

    A stream has no end of its own, and that all were counted does not say that the last prices are
    written: the writer comes later, under load seconds later.
    """

    # It is called by keyword, with these very names.
    def counted(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        if is_addition and row["count"] >= events:
            threading.Thread(target=end_when_idle, daemon=True).start()

    pw.io.subscribe(deltas.reduce(count=pw.reducers.count()), counted)


def end_when_idle() -> None:
    """End the process after three seconds in a row in which it used next to no CPU."""
    idle = 0
    while idle < 3:
        used = process_time()
        sleep(1.0)
        idle = idle + 1 if process_time() - used < 0.05 else 0
    os._exit(0)


if __name__ == "__main__":
    assert NO_PRICE > PRICES
    main(given())
