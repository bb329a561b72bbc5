"""Quix Streams: a stateful function over RocksDB, backed up to a changelog topic.

Tuned by its documentation: commit interval of 30 s (a checkpoint flushes the state and the
changelog), ``fetch.queue.backoff.ms=2``, linger for the producer, a raw deserializer and one
decoding in our function, state as packed bytes rather than JSON, logging off, the garbage
collector off. State is by the message's key, which is the retailer; a listing's state is one value
under its SKU.
"""

import gc
from struct import Struct
from typing import Any

import msgspec
from given import NO_PRICE, SLOTS, Given, given, price
from quixstreams import Application, State
from quixstreams.models import BytesDeserializer, SerializationContext, Serializer

ROW = Struct("<5i")
"""Four rivals' prices and the price that was told last."""


class Delta(msgspec.Struct, gc=False):
    """The fields that matter; the decoder skips the others."""

    sku: str
    rival: str
    price_minor: int


class PriceSerializer(Serializer):
    """Writes the price of what was decided; the SKU is the key."""

    def __call__(self, value: tuple[str, int], ctx: SerializationContext) -> bytes:
        return b"%d" % value[1]


def main(work: Given) -> None:
    pack, unpack = ROW.pack, ROW.unpack
    decode = msgspec.json.Decoder(Delta).decode
    listings = work.listings()
    gc.freeze()
    gc.disable()
    app = Application(
        broker_address=work.bootstrap,
        consumer_group=f"quix-{work.output}",
        auto_offset_reset="earliest",
        state_dir=str(work.folder),
        commit_interval=30.0,
        consumer_extra_config={"fetch.queue.backoff.ms": 2, "queued.min.messages": 100_000},
        producer_extra_config={
            "linger.ms": 20,
            "batch.num.messages": 100_000,
            "queue.buffering.max.messages": 1_000_000,
        },
        loglevel="WARNING",
    )
    source = app.topic(work.input, value_deserializer=BytesDeserializer())
    sink = app.topic(work.output, value_serializer=PriceSerializer(), key_serializer="str")
    seen = 0

    def decide(value: bytes, state: State) -> tuple[str, int] | None:
        nonlocal seen
        seen += 1
        if seen == work.events:
            app.stop()
        delta = decode(value)
        sku = delta.sku
        target, floor, first = listings[sku]
        known = state.get_bytes(sku)
        row = list(unpack(known)) if known else [NO_PRICE, NO_PRICE, NO_PRICE, NO_PRICE, first]
        row[SLOTS[delta.rival]] = delta.price_minor
        wish = price(target, floor, min(row[:4]))
        changed, row[4] = wish != row[4], wish
        state.set_bytes(sku, pack(*row))
        return (sku, wish) if changed else None

    def changed(decided: Any) -> bool:
        return decided is not None

    frame = app.dataframe(source).apply(decide, stateful=True).filter(changed)
    frame.to_topic(sink, key=lambda decided: decided[0])
    app.run()


if __name__ == "__main__":
    main(given())
