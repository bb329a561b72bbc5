"""How much of a partition a reader asks for at once: less where a fetch did not come in time.

What does not arrive within the request's deadline is thrown away with its connection, and aiokafka
asks for the same again, for ever, without telling anybody. A reader that waits for a processor, or
stands behind a thin wire, would never get past the first fetch that is too big for it. What is used
of the library that is not public stands in this file.
"""

from typing import Any, Final, final

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError, NodeNotReadyError
from aiokafka.protocol.fetch import FetchRequest

PORTION_BYTES_MIN: Final = 64 * 1024
"""The least that is asked for. Of a batch that is bigger the broker sends the whole: some must come
for reading to go on at all."""

GROW_AFTER: Final = 4
"""So many fetches since the last failure must have shown that more would come before twice as much
is asked for: each growth that is one too many costs a whole deadline."""

GROW_AFTER_MAX: Final = 64
"""Where the first fetch after a growth came to nothing, twice as many must show it the next time,
up to so many: behind a thin wire each growth meets the same wall."""


@final
class Portion:
    """How many bytes one reader asks for; it outlives his consumers."""

    def __init__(self, most: int) -> None:
        self.bytes = self._most = most
        self._proven = 0
        self._grow_after = GROW_AFTER
        self._grown = False  # whether no fetch since has shown that the growth was right

    def failed(self) -> None:
        """Ask for half: a fetch of ours came to nothing."""
        self.bytes = max(self.bytes // 2, PORTION_BYTES_MIN)
        self._proven = 0
        if self._grown:
            self._grow_after = min(2 * self._grow_after, GROW_AFTER_MAX)
            self._grown = False

    def brought(self, size: int) -> None:
        """Note that a fetch brought so many bytes; only one that brought much proves anything.

        At the end of a log a fetch brings a record or none, whatever was asked for.
        """
        if 2 * size < self.bytes:
            return
        if self._grown:
            self._grow_after = GROW_AFTER
            self._grown = False
        self._proven += 1
        if self._proven >= self._grow_after:
            self._grown = self.bytes < self._most
            self.bytes = min(2 * self.bytes, self._most)
            self._proven = 0

    def steer(self, consumer: AIOKafkaConsumer) -> None:
        """Let a consumer that was started ask for as much as this says from now on.

        Its fetcher reads the figure for each request anew.
        """
        client, fetcher = consumer._client, consumer._fetcher
        send = client.send
        fetcher._max_partition_fetch_bytes = self.bytes

        async def sent(node_id: int, request: Any, **how: Any) -> Any:
            if not isinstance(request, FetchRequest):
                return await send(node_id, request, **how)
            try:
                response = await send(node_id, request, **how)
            except NodeNotReadyError:
                raise  # nothing was asked for
            except KafkaError:
                self.failed()
                raise
            else:
                self.brought(_size_of(response))
            finally:
                fetcher._max_partition_fetch_bytes = self.bytes
            return response

        client.send = sent


def _size_of(response: Any) -> int:
    """Return how many bytes of records a fetch brought."""
    return sum(
        len(partition[-1] or b"") for _, partitions in response.topics for partition in partitions
    )
