"""How a command gets into the commands lane: one appender a partition, opened when first needed.

A command is appended again when the first attempt is in doubt. That is safe because it carries an
id, and the shard answers the second one with the first one's outcome.
"""

import asyncio
from collections.abc import Mapping

from msgspec import Struct

from engine.deltas import AnyDelta
from engine.errors import AppendInDoubt
from engine.routing import ROUTING_SLOT, partition_of, routing_key
from persistence.ports import COMMANDS, Appender, Log, Logs
from persistence.wire import JSON, encode_delta

ATTEMPTS = 2
EVERY_SHARD = "*"


class Destination(Struct, frozen=True):
    """A partition and the key under which the command goes there."""

    partition: int
    key: str


class CommandSender:
    """Appends commands to the lane of the shard that they concern."""

    def __init__(self, logs: Logs, *, partitions: int, spreads: Mapping[str, int]) -> None:
        self.partitions = partitions
        self.spreads = spreads
        self._logs = logs
        self._open: dict[int, tuple[Log, Appender]] = {}
        self._locks = [asyncio.Lock() for _ in range(partitions)]

    def spread(self, retailer: str) -> int:
        """Return into how many slots the retailer is cut."""
        return self.spreads.get(retailer, 1)

    def to_sku(self, retailer: str, sku: str) -> tuple[Destination, ...]:
        """Return where a command about one SKU goes."""
        key = routing_key(retailer, sku, self.spread(retailer))
        return (Destination(partition_of(key, self.partitions), key),)

    def to_retailer(self, retailer: str) -> tuple[Destination, ...]:
        """Return where a command about a whole retailer goes: every shard that holds a part."""
        spread = self.spread(retailer)
        if spread == 1:
            return (Destination(partition_of(retailer, self.partitions), retailer),)
        slots = {
            partition_of(f"{retailer}{ROUTING_SLOT}{slot}", self.partitions)
            for slot in range(spread)
        }
        return tuple(Destination(partition, EVERY_SHARD) for partition in sorted(slots))

    async def send(self, destination: Destination, delta: AnyDelta) -> None:
        """Append a command.

        Raises:
            FailedDependency: it was not appended, or nobody knows whether it was.
        """
        assert delta.command_id is not None, "a command is answered by its id"
        value = encode_delta(delta)
        for attempt in range(ATTEMPTS):
            try:
                async with self._locks[destination.partition]:
                    appender = await self._appender(destination.partition)
                    await appender.append(value, key=destination.key.encode(), content_type=JSON)
            except AppendInDoubt:
                self._abandon(destination.partition)
                if attempt + 1 == ATTEMPTS:
                    raise
            else:
                return

    async def close(self) -> None:
        """Close what was opened."""
        for log, appender in self._open.values():
            await appender.close()
            await log.close()
        self._open.clear()

    async def _appender(self, partition: int) -> Appender:
        opened = self._open.get(partition)
        if opened is None:
            log = await self._logs.open(COMMANDS, partition)
            opened = self._open[partition] = (log, await log.appender())
        return opened[1]

    def _abandon(self, partition: int) -> None:
        opened = self._open.pop(partition, None)
        if opened is not None:
            opened[1].abandon()
