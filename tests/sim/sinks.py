"""Two kinds of sink: one writes rows and cursor at once, one repeats itself harmlessly."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from actors.follower import check_cursor
from engine.errors import FailedDependency, WriteInDoubt
from persistence.decision_reader import Accepted
from persistence.decision_records import LogPosition
from persistence.memory_cache import MemoryCache
from tests.sim.faults import Faults
from tests.sim.loop import PROCESS, SimLoop


class Store:
    """What may be down, and how slow it is."""

    def __init__(self, loop: SimLoop, random: Random, faults: Faults) -> None:
        self.is_down = False
        self.refused = 0
        self.loop = loop
        self.faults = faults
        self._random = random

    async def travel(self) -> None:
        await asyncio.sleep(self._random.random() * 0.01)
        if self.is_down:
            self.refused += 1
            raise FailedDependency("the store is down")


class Ledger:
    """Rows and cursor in one transaction, with the fence of ``actors.follower``."""

    def __init__(self, store: Store) -> None:
        self.name = "ledger"
        self.rows: list[tuple[int, int, int]] = []  # seq, listing, price
        self.marks: list[int] = []  # every seq, in the order in which it was written
        self.cursor: LogPosition | None = None
        self._store = store

    async def position(self, shard: int) -> LogPosition | None:
        await self._store.travel()
        return self.cursor

    async def write(
        self, shard: int, accepted: Sequence[Accepted], expected: LogPosition | None
    ) -> None:
        await self._store.travel()
        doubt = self._store.faults.strikes("write_in_doubt")
        if doubt and self._store.faults.counts["write_in_doubt"] % 2:
            raise WriteInDoubt("no answer, and nothing was written")
        check_cursor(self.cursor, expected)
        for one in accepted:
            if one.decided is not None:
                self.marks.append(one.decided.seq)
                self.rows.extend(priced(one))
        self.cursor = accepted[-1].position
        if doubt:
            await asyncio.sleep(0.05)
            raise WriteInDoubt("no answer, and it was written")


class CacheSink:
    """Prices versioned by ``seq`` in production's cache; the cursor is written after them."""

    def __init__(self, store: Store, cache: MemoryCache, on_death: Callable[[], None]) -> None:
        self.name = "cache"
        self.cursor: LogPosition | None = None
        self.went_back = 0  # entries that an older version replaced
        self._highest: dict[str, int] = {}
        self._store = store
        self._cache = cache
        self._on_death = on_death

    async def position(self, shard: int) -> LogPosition | None:
        await self._store.travel()
        return self.cursor

    async def write(
        self, shard: int, accepted: Sequence[Accepted], expected: LogPosition | None
    ) -> None:
        await self._store.travel()
        entries = [
            (str(listing), seq, str(price).encode())
            for one in accepted
            for seq, listing, price in priced(one)
        ]
        await self._cache.put_versioned(entries, ttl_ms=3_600_000)
        for key, _, _ in entries:
            found = await self._cache.get_versioned(key)
            assert found is not None
            self.went_back += found[0] < self._highest.get(key, 0)
            self._highest[key] = max(found[0], self._highest.get(key, 0))
        if self._store.faults.strikes("follower_death"):
            process = PROCESS.get()
            assert process is not None
            self._store.loop.kill(process)
            self._store.loop.outside(0.0, self._on_death)
        await asyncio.sleep(0.001)
        self.cursor = accepted[-1].position


def priced(accepted: Accepted) -> list[tuple[int, int, int]]:
    """Return (seq, listing, price) of each quote."""
    decided = accepted.decided
    if decided is None or not len(decided.quotes):
        return []
    return [
        (decided.seq, listing, price)
        for listing, price in zip(
            decided.quotes["listing"].tolist(),
            decided.quotes["in_force_minor"].tolist(),
            strict=True,
        )
    ]
