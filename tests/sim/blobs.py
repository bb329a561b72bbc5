"""The store of models' artefacts, slow and refusing."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from random import Random

from engine.errors import FailedDependency, RejectedInput
from persistence.ports import Blob
from tests.sim.faults import Faults

SLOW, REFUSED = 0.15, 0.15
"""How often a read takes longer than a microbatch waits for it, and how often it is refused."""

SLOW_S = 0.4


class SimBlobs:
    """``persistence.ports.Blobs`` in a dictionary, behind a network that fails."""

    def __init__(self, held: Mapping[str, bytes], random: Random, faults: Faults) -> None:
        self.counts: Counter[str] = Counter()
        self._held = dict(held)
        self._random = random
        self._faults = faults

    async def put(self, key: str, value: bytes, *, new: bool = False) -> str:
        await self._travel()
        if new and key in self._held:
            raise RejectedInput("/key", f"{key} is taken")
        self._held[key] = value
        return sha256(value).hexdigest()

    async def get(self, key: str) -> bytes | None:
        await self._travel()
        return self._held.get(key)

    async def list(self, prefix: str) -> Sequence[Blob]:
        await self._travel()
        return [
            Blob(key, len(value), sha256(value).hexdigest())
            for key, value in sorted(self._held.items())
            if key.startswith(prefix)
        ]

    async def delete(self, key: str) -> bool:
        await self._travel()
        return self._held.pop(key, None) is not None

    async def close(self) -> None:
        pass

    async def _travel(self) -> None:
        await asyncio.sleep(self._random.random() * 0.03)
        draw = 1.0 if self._faults.calm else self._random.random()
        if draw < SLOW:
            self.counts["blob slow"] += 1
            await asyncio.sleep(SLOW_S)
        elif draw < SLOW + REFUSED:
            self.counts["blob refused"] += 1
            raise FailedDependency("the blobs do not answer")
