"""A folder on a disk that tears and loses what it acknowledged."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random

from persistence.checkpoints import epoch_of
from tests.sim.faults import Faults


class SimFolder:
    """``persistence.checkpoints.Folder`` in a dictionary."""

    def __init__(self, random: Random, faults: Faults) -> None:
        self.files: dict[str, bytes] = {}
        self.overtaken = 0  # files written though a later owner had written one
        self._unsafe: dict[str, bytes | None] = {}
        self._random = random
        self._faults = faults

    async def names(self) -> list[str]:
        await asyncio.sleep(0)
        return sorted(self.files)

    async def read(self, name: str) -> bytes:
        await asyncio.sleep(0)
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]

    async def write(
        self, name: str, pieces: Sequence[bytes], admit: Callable[[Sequence[str]], None]
    ) -> None:
        await asyncio.sleep(self._random.random() * 0.05)
        admit(sorted(self.files))
        if any(epoch_of(name) < epoch_of(other) for other in self.files):
            self.overtaken += 1
        content = b"".join(pieces)
        fate = self._faults.one_of(("checkpoint_torn", "checkpoint_lost", "checkpoint_refused"))
        if fate == "checkpoint_refused":
            raise OSError("the disk is full")
        self.files[name] = content
        damaged = None
        if fate == "checkpoint_torn":
            at = self._random.randrange(len(content))
            damaged = content[:at] + bytes([content[at] ^ 1 << self._random.randrange(8)])
            if self._random.random() < 0.5:
                damaged += content[at + 1 :]
        if fate and self._random.random() < 0.7:
            self._unsafe[name] = damaged  # what was written is still in memory, and reads well
        elif fate:
            self._damage(name, damaged)

    def lose_power(self) -> None:
        """Show what really reached the disk."""
        unsafe, self._unsafe = self._unsafe, {}
        for name, damaged in unsafe.items():
            self._damage(name, damaged)

    def on_disk(self) -> "SimFolder":
        """Return what a loss of power would leave."""
        left = SimFolder(self._random, self._faults)
        left.files, left._unsafe = dict(self.files), dict(self._unsafe)
        left.lose_power()
        return left

    def _damage(self, name: str, content: bytes | None) -> None:
        if content is None:
            self.files.pop(name, None)
        else:
            self.files[name] = content

    async def remove(self, name: str) -> None:
        self.files.pop(name, None)
