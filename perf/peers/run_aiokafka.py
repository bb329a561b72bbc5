"""A loop over aiokafka with a dictionary: no framework, and nothing is kept.

Tuned: uvloop, records fetched by the thousands, typed decoding (msgspec), batches built by hand
(``create_batch``, ``send_batch``), the garbage collector off. A listing is priced once for each
fetch that touches it, as a thoughtful author would.
"""

import asyncio
from typing import Any

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from given import SLOTS, Given, given
from plain import Delta, opened

RECORDS = 5_000


class Output:
    """One partition's records, in batches."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partition: int) -> None:
        self._producer, self._topic, self._partition = producer, topic, partition
        self._batch = producer.create_batch()
        self._sent: list[Any] = []

    async def append(self, key: bytes, value: bytes) -> None:
        if self._batch.append(key=key, value=value, timestamp=None) is None:
            await self.send()
            self._batch.append(key=key, value=value, timestamp=None)

    async def send(self) -> None:
        if self._batch.record_count():
            self._batch.close()
            where = {"partition": self._partition}
            self._sent.append(await self._producer.send_batch(self._batch, self._topic, **where))
            self._batch = self._producer.create_batch()

    async def flush(self) -> None:
        await self.send()
        await asyncio.gather(*self._sent)


async def main(work: Given) -> None:
    decode = msgspec.json.Decoder(Delta).decode
    state = opened(work)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=work.bootstrap, group_id=None, auto_offset_reset="earliest"
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=work.bootstrap, acks=1, linger_ms=5, max_batch_size=262_144
    )
    await consumer.start()
    await producer.start()
    consumer.assign([TopicPartition(work.input, number) for number in range(work.partitions)])
    outputs = [Output(producer, work.output, number) for number in range(work.partitions)]
    seen = 0
    while seen < work.events:
        fetched = await consumer.getmany(timeout_ms=1_000, max_records=RECORDS)
        for partition, records in fetched.items():
            seen += len(records)
            touched = set()
            for record in records:
                delta = decode(record.value)
                state[delta.sku][SLOTS[delta.rival]] = delta.price_minor
                touched.add(delta.sku)
            append = outputs[partition.partition].append
            for sku in touched:
                r0, r1, r2, r3, target, floor, told = row = state[sku]
                wish = min(r0, r1, r2, r3) * 9_800 // 10_000
                if wish > target:
                    wish = target
                if wish < floor:
                    wish = floor
                if wish != told:
                    row[6] = wish
                    await append(sku.encode(), b"%d" % wish)
    for output in outputs:
        await output.flush()
    await consumer.stop()
    await producer.stop()


if __name__ == "__main__":
    uvloop.run(main(given()))
