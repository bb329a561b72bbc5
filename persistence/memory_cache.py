"""The cache in this process's memory: the embedded mode's, bounded, gone with the process."""

import time
from collections.abc import Callable, Sequence

from msgspec import Struct

ENTRIES_MAX = 1_000_000
"""Most entries kept; beyond it the oldest put goes first, as any cache may forget."""


class Entry(Struct, frozen=True):
    """One value and the moment from which it counts as gone."""

    value: bytes
    version: int
    until_s: float


class MemoryCache:
    """``persistence.ports.Cache`` in a dictionary."""

    def __init__(
        self,
        *,
        entries_max: int = ENTRIES_MAX,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        assert entries_max > 0
        self._entries: dict[str, Entry] = {}
        self._entries_max = entries_max
        self._monotonic_s = monotonic_s

    async def get(self, key: str) -> bytes | None:
        entry = self._live(key)
        return None if entry is None else entry.value

    async def put(self, key: str, value: bytes, *, ttl_ms: int) -> None:
        self._set(key, Entry(value, 0, self._until_s(ttl_ms)))

    async def put_versioned(self, entries: Sequence[tuple[str, int, bytes]], *, ttl_ms: int) -> int:
        won = 0
        for key, version, value in entries:
            if self._is_newer(key, version):
                continue
            self._set(key, Entry(value, version, self._until_s(ttl_ms)))
            won += 1
        return won

    async def get_versioned(self, key: str) -> tuple[int, bytes] | None:
        entry = self._live(key)
        return None if entry is None else (entry.version, entry.value)

    async def add(self, key: str, amount: int, *, ttl_ms: int) -> int:
        entry = self._live(key)
        if entry is None:
            entry = Entry(b"0", 0, self._until_s(ttl_ms))
        total = int(entry.value) + amount
        self._set(key, Entry(str(total).encode(), 0, entry.until_s))
        return total

    async def close(self) -> None:
        self._entries.clear()

    def _is_newer(self, key: str, version: int) -> bool:
        """Whether what is there is newer than ``version``."""
        entry = self._live(key)
        return entry is not None and entry.version > version

    def _live(self, key: str) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None and entry.until_s <= self._monotonic_s():
            del self._entries[key]
            return None
        return entry

    def _until_s(self, ttl_ms: int) -> float:
        assert ttl_ms > 0
        return self._monotonic_s() + ttl_ms / 1000

    def _set(self, key: str, entry: Entry) -> None:
        self._entries.pop(key, None)  # a new put is the youngest
        while len(self._entries) >= self._entries_max:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = entry
