"""A loop over confluent-kafka with a dictionary: no framework, and nothing is kept.

Tuned: ``consume`` by the thousands, ``fetch.queue.backoff.ms=2`` (by default the client stalls for
up to a second when its queue is full), ``produce_batch``, typed decoding, the garbage collector
off. A listing is priced once for each batch that touches it.
"""

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition
from given import SLOTS, Given, given
from plain import Delta, opened

RECORDS = 5_000


def main(work: Given) -> None:
    decode = msgspec.json.Decoder(Delta).decode
    state = opened(work)
    consumer = Consumer(
        {
            "bootstrap.servers": work.bootstrap,
            "group.id": "plain",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "fetch.queue.backoff.ms": 2,
            "queued.min.messages": 100_000,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": work.bootstrap,
            "acks": 1,
            "linger.ms": 20,
            "batch.num.messages": 100_000,
            "queue.buffering.max.messages": 1_000_000,
            "partitioner": "murmur2_random",
        }
    )
    consumer.assign([TopicPartition(work.input, number, 0) for number in range(work.partitions)])
    seen = 0
    while seen < work.events:
        messages = consumer.consume(RECORDS, 0.1)
        touched = set()
        for message in messages:
            if message.error() is not None:
                raise RuntimeError(message.error())
            delta = decode(message.value())
            state[delta.sku][SLOTS[delta.rival]] = delta.price_minor
            touched.add(delta.sku)
        seen += len(messages)
        told = []
        for sku in touched:
            r0, r1, r2, r3, target, floor, last = row = state[sku]
            wish = min(r0, r1, r2, r3) * 9_800 // 10_000
            if wish > target:
                wish = target
            if wish < floor:
                wish = floor
            if wish != last:
                row[6] = wish
                told.append({"key": sku, "value": str(wish)})
        if told and producer.produce_batch(work.output, told) != len(told):
            raise RuntimeError("the producer's queue is full")
        producer.poll(0)
    left = producer.flush(30)
    consumer.close()
    if left:
        raise RuntimeError(f"{left} prices were not delivered")


if __name__ == "__main__":
    main(given())
