"""Which records belong to one shard: the check of a record's key against what it says."""

from collections.abc import Mapping

from msgspec import Struct

from engine.deltas import AnyDelta, PolicyChanged
from engine.routing import ROUTING_SLOT, partition_of, routing_key

EVERY_SHARD = b"*"
"""The key of a delta that names no SKU and is sent to each partition."""


class Lanes(Struct, frozen=True):
    """One shard's place in its generation: its partition of both lanes, and what routing needs."""

    partition: int
    partitions: int
    spreads: Mapping[str, int]  # slots of each retailer too big for one shard; 1 for all others

    def spread(self, retailer: str) -> int:
        """Return into how many slots the retailer is cut."""
        return self.spreads.get(retailer, 1)

    def stray_sku(self, key: bytes | None, retailer: str, sku: str) -> str:
        """Return why a delta of this SKU does not belong here under ``key``, or ``""``."""
        wanted = routing_key(retailer, sku, self.spread(retailer))
        if key != wanted.encode():
            return (
                f"the record's key is {_shown(key)}, this SKU's is {wanted!r} (send it under that)"
            )
        return self._stray_partition(wanted)

    def stray_retailer(self, key: bytes | None, retailer: str) -> str:
        """Return why something of this retailer as a whole does not belong here, or ``""``."""
        spread = self.spread(retailer)
        if spread == 1:
            allowed = {retailer}
        else:
            allowed = {f"{retailer}{ROUTING_SLOT}{slot}" for slot in range(spread)}
        name = None if key is None else key.decode(errors="replace")
        if name not in allowed:
            wanted = repr(retailer) if spread == 1 else f"'{retailer}#0' to '#{spread - 1}'"
            return f"the record's key is {_shown(key)}, this retailer's is {wanted} (send it so)"
        return self._stray_partition(name)

    def stray(self, key: bytes | None, delta: AnyDelta) -> str:
        """Return why the delta does not belong here under ``key``, or ``""``."""
        sku = getattr(delta, "sku", None)
        if sku is not None:
            return self.stray_sku(key, delta.retailer, sku)
        if key == EVERY_SHARD:
            return ""
        if isinstance(delta, PolicyChanged) and delta.scope == "listing":
            return self.stray_sku(key, delta.retailer, delta.key.partition("\x1f")[2])
        return self.stray_retailer(key, delta.retailer)

    def _stray_partition(self, key: str) -> str:
        partition = partition_of(key, self.partitions)
        if partition == self.partition:
            return ""
        return (
            f"key {key!r} belongs to partition {partition} of {self.partitions}, not to"
            f" {self.partition} (partition by murmur2 of the key)"
        )


def _shown(key: bytes | None) -> str:
    return "missing" if key is None else repr(key.decode(errors="replace")[:80])
