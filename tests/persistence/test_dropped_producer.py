"""A producer that is dropped leaves no connection, not even one that was being made."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from persistence.kafka_appender import drop_producer


class Client:
    """Connections of a producer, as aiokafka's client holds them."""

    def __init__(self) -> None:
        self.connections = {"bootstrap"}

    async def close(self) -> None:
        self.connections.clear()


async def test_a_connection_made_while_it_was_dropped_is_closed() -> None:
    """A request in flight outlives the first cancellation, and connects once more."""
    client = Client()

    async def send() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.02)
            client.connections.add("broker")
            raise

    sender = asyncio.ensure_future(send())
    await asyncio.sleep(0)
    producer = SimpleNamespace(client=client, _sender=SimpleNamespace(sender_task=sender))
    await drop_producer(cast(Any, producer))
    assert sender.done()
    assert not client.connections
