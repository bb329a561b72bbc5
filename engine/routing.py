"""Which shard a delta belongs to: routing keys, partitions and 64-bit listing keys.

``murmur2`` is the default partitioner of the Java client and of aiokafka, so that a producer that
knows nothing of us still reaches the right partition.
"""

from collections.abc import Callable, Iterable
from hashlib import blake2b

import numpy as np

ROUTING_SLOT = "#"
"""Separates the retailer from the slot; a retailer's id may not hold it."""


SLOTS_MAX = 1024

EVEN_SHARE_MAX = 1.25
"""How many times its fair share a partition may own of a retailer that counts as evenly spread."""


def key64(retailer: str, channel: str, sku: str) -> int:
    """Return the 64-bit key of a listing: blake2b-64, little-endian."""
    text = f"{retailer}\x1f{channel}\x1f{sku}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")


def keys_under(retailer: str, channel: str) -> Callable[[Iterable[bytes]], np.ndarray]:
    """Return what gives :func:`key64` of SKUs (in UTF-8) of one channel, as uint64[skus].

    What they share is hashed once, and no number is made in Python.
    """
    begun = blake2b(f"{retailer}\x1f{channel}\x1f".encode(), digest_size=8)

    def keys(skus: Iterable[bytes]) -> np.ndarray:
        digests: list[bytes] = []
        for sku in skus:
            hashed = begun.copy()
            hashed.update(sku)
            digests.append(hashed.digest())
        return np.frombuffer(b"".join(digests), dtype="<u8")

    return keys


def name64(name: str) -> int:
    """Return the 64-bit key of a rival's, source's or event's name; never 0, which means none."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") or 1


def murmur2(data: bytes) -> int:
    """Return Kafka's murmur2 of ``data`` as an unsigned 32-bit number."""
    length = len(data)
    mixer, mask = 0x5BD1E995, 0xFFFFFFFF
    state = (0x9747B28C ^ length) & mask
    whole = length & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little")
        word = (word * mixer) & mask
        word ^= word >> 24
        word = (word * mixer) & mask
        state = ((state * mixer) & mask) ^ word
    rest = length & 3
    if rest:
        state ^= int.from_bytes(data[whole:], "little")
        state = (state * mixer) & mask
    state ^= state >> 13
    state = (state * mixer) & mask
    return state ^ (state >> 15)


def slots_of(skus: np.ndarray, spread: int) -> np.ndarray:
    """Return int64[skus], the slot of each SKU of a retailer that is cut into ``spread`` slots.

    Args:
        skus: uint8[skus, bytes], SKUs of one length in UTF-8.
    """
    count, length = skus.shape
    if spread == 1:
        return np.zeros(count, dtype=np.int64)
    whole = length & ~3
    mixer = np.uint32(0x5BD1E995)
    words = np.ascontiguousarray(skus[:, :whole]).view("<u4").reshape(count, whole // 4)
    state = np.full(count, 0x9747B28C ^ length, dtype=np.uint32)
    for column in range(words.shape[1]):
        word = words[:, column] * mixer
        word ^= word >> 24
        word *= mixer
        state *= mixer
        state ^= word
    if length > whole:
        for place in range(whole, length):
            state ^= skus[:, place].astype(np.uint32) << (8 * (place - whole))
        state *= mixer
    state ^= state >> 13
    state *= mixer
    state ^= state >> 15
    return (state & 0x7FFFFFFF).astype(np.int64) % spread


def partition_of(routing_key: str, partitions: int) -> int:
    """Return the partition, which is the shard, that owns ``routing_key``."""
    assert partitions > 0
    return (murmur2(routing_key.encode()) & 0x7FFFFFFF) % partitions


def routing_key(retailer: str, sku: str, spread: int) -> str:
    """Return the key under which a delta of this SKU is sent.

    ``spread`` is 1 for a retailer that fits one shard; a bigger one is cut into ``spread`` slots
    by SKU, so that all channels of a SKU stay together.
    """
    assert spread >= 1
    if spread == 1:
        return retailer
    return f"{retailer}{ROUTING_SLOT}{(murmur2(sku.encode()) & 0x7FFFFFFF) % spread}"


def shares_of(retailer: str, spread: int, partitions: int) -> list[float]:
    """Return the share of a retailer's SKUs that each partition owns; they add up to 1."""
    shares = [0.0] * partitions
    for slot in range(spread):
        key = retailer if spread == 1 else f"{retailer}{ROUTING_SLOT}{slot}"
        shares[partition_of(key, partitions)] += 1 / spread
    return shares


def even_spread(retailer: str, partitions: int) -> int:
    """Return the fewest slots that spread a retailer evenly, or the most even number of slots.

    Slots are hashed as Kafka hashes keys, so two slots may well fall on one partition.
    """
    slots = [0] * partitions
    best, best_excess = 1, float("inf")
    for spread in range(1, SLOTS_MAX + 1):
        slots[partition_of(f"{retailer}{ROUTING_SLOT}{spread - 1}", partitions)] += 1
        excess = max(slots) * partitions / spread
        if spread >= partitions and excess < best_excess:
            best, best_excess = spread, excess
            if excess <= EVEN_SHARE_MAX:
                break
    return best
