"""Faust: an agent that takes batches and keeps a table in memory, backed up to a changelog topic.

Tuned by its documentation: ``take`` in batches (a listing's row is written once a batch), raw
bytes and one typed decoding, uvloop, big buffers, a linger, no web server, no monitor, no
acknowledgement event by event, the garbage collector off. Writing a table inside
``take`` needs ``use_partitioner=True``.
"""

import asyncio
import gc
import logging
import os
import signal
from contextlib import suppress
from typing import Any

import faust
import msgspec
import uvloop
from given import NO_PRICE, SLOTS, Given, given, price

BATCH = 5_000


class Delta(msgspec.Struct, gc=False):
    """The fields that matter; the decoder skips the others."""

    sku: str
    rival: str
    price_minor: int


def made(work: Given) -> faust.App:
    """Return the application."""
    decode = msgspec.json.Decoder(Delta).decode
    listings = work.listings()
    app = faust.App(
        f"faust-{work.output}",
        broker=f"kafka://{work.bootstrap}",
        store="memory://",
        datadir=str(work.folder),
        topic_partitions=work.partitions,
        topic_replication_factor=1,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=BATCH,
        stream_buffer_maxsize=4 * BATCH,
        stream_wait_empty=False,
        producer_linger=0.02,
        producer_max_batch_size=262_144,
        producer_acks=1,
        web_enabled=False,
    )
    source = app.topic(work.input, key_type=bytes, value_type=bytes, value_serializer="raw")
    sink = app.topic(work.output, key_type=bytes, value_type=bytes, value_serializer="raw")
    table = app.Table("listings", partitions=work.partitions, use_partitioner=True)
    seen = 0

    @app.task
    async def without_monitor() -> None:
        app.sensors.remove(app.monitor)

    @app.agent(source)
    async def decide(stream: Any) -> None:
        nonlocal seen
        async for batch in stream.noack().take(BATCH, within=0.05):
            rows: dict[str, list[int]] = {}
            for value in batch:
                delta = decode(value)
                sku = delta.sku
                row = rows.get(sku)
                if row is None:
                    known = table.get(sku)
                    row = rows[sku] = (
                        list(known)
                        if known
                        else [NO_PRICE, NO_PRICE, NO_PRICE, NO_PRICE, listings[sku][2]]
                    )
                row[SLOTS[delta.rival]] = delta.price_minor
            for sku, row in rows.items():
                target, floor, _ = listings[sku]
                wish = price(target, floor, min(row[:4]))
                if wish != row[4]:
                    row[4] = wish
                    sink.send_soon(key=sku.encode(), value=b"%d" % wish)
                table[sku] = row
            seen += len(batch)
            if seen >= work.events:
                await app.producer.flush()
                os.kill(os.getpid(), signal.SIGTERM)

    return app


def main(work: Given) -> None:
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    app = made(work)
    gc.freeze()
    gc.disable()
    worker = faust.Worker(app, loglevel=logging.WARNING, quiet=True, redirect_stdouts=False)
    with suppress(asyncio.CancelledError):
        worker.execute_from_commandline()


if __name__ == "__main__":
    main(given())
