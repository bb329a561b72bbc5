"""Bytewax: a keyed ``stateful_batch`` between its Kafka source and sink, in one worker.

Tuned by its documentation and by measurement: batches of 10,000 at the source, decoding in
``flat_map_batch``, ``stateful_batch`` rather than ``stateful_flat_map``, the garbage collector off
(half of the time otherwise), ``fetch.queue.backoff.ms=2``, a short linger, since the sink flushes
each of its batches. No recovery store, hence nothing is kept.
"""

import gc
from collections.abc import Iterable
from typing import Any

import bytewax.operators as op
import msgspec
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.testing import cluster_main
from given import NO_PRICE, SLOTS, Given, given

BATCH = 10_000


class Delta(msgspec.Struct, gc=False):
    """The fields that matter; the decoder skips the others."""

    sku: str
    rival: str
    price_minor: int


class Listing(StatefulBatchLogic):
    """Four rivals' prices and the price that was told last."""

    __slots__ = ("row",)

    def __init__(self, row: list[int] | None) -> None:
        self.row = row

    def on_batch(self, batch: list[tuple[Any, int, int]]) -> tuple[Iterable[int], bool]:
        row = self.row
        if row is None:
            row = self.row = [NO_PRICE, NO_PRICE, NO_PRICE, NO_PRICE, *batch[0][0]]
        for _, slot, price in batch:
            row[slot] = price
        r0, r1, r2, r3, target, floor, told = row
        wish = min(r0, r1, r2, r3) * 9_800 // 10_000
        if wish > target:
            wish = target
        if wish < floor:
            wish = floor
        if wish == told:
            return (), StatefulBatchLogic.RETAIN
        row[6] = wish
        return (wish,), StatefulBatchLogic.RETAIN

    def snapshot(self) -> list[int]:
        assert self.row is not None
        return list(self.row)


def main(work: Given) -> None:
    decode = msgspec.json.Decoder(Delta).decode
    listings = work.listings()

    def decoded(messages: list[Any]) -> list[tuple[str, tuple[Any, int, int]]]:
        deltas = [decode(message.value) for message in messages]
        return [
            (delta.sku, (listings[delta.sku], SLOTS[delta.rival], delta.price_minor))
            for delta in deltas
        ]

    def encoded(prices: list[tuple[str, int]]) -> list[Any]:
        return [KafkaSinkMessage(sku.encode(), b"%d" % price) for sku, price in prices]

    flow = Dataflow("prices")
    source = KafkaSource(
        [work.bootstrap],
        [work.input],
        tail=False,
        batch_size=BATCH,
        add_config={"fetch.queue.backoff.ms": "2", "queued.min.messages": "100000"},
    )
    sink = KafkaSink(
        [work.bootstrap],
        work.output,
        add_config={
            "linger.ms": "2",
            "acks": "1",
            "batch.num.messages": "100000",
            "queue.buffering.max.messages": "1000000",
            "partitioner": "murmur2_random",
        },
    )
    deltas = op.flat_map_batch("decode", op.input("deltas", flow, source), decoded)
    prices = op.stateful_batch("decide", deltas, Listing)
    op.output("prices", op.flat_map_batch("encode", prices, encoded), sink)
    gc.freeze()
    gc.disable()
    cluster_main(flow, [], 0)


if __name__ == "__main__":
    main(given())
