"""A real folder of checkpoints that tells what was read of it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from persistence.checkpoints import LocalFolder


class CountedFolder:
    """Passes everything on, and remembers the names that were read since the last look."""

    def __init__(self, path: Path) -> None:
        self._folder = LocalFolder(path)
        self._read_of: list[str] = []

    def looked(self) -> list[str]:
        """Return the names read since the last call, sorted, each as often as it was read."""
        read_of, self._read_of = self._read_of, []
        return sorted(read_of)

    async def names(self) -> list[str]:
        return await self._folder.names()

    async def read(self, name: str) -> bytes:
        self._read_of.append(name)
        return await self._folder.read(name)

    async def write(
        self, name: str, pieces: Sequence[bytes], admit: Callable[[Sequence[str]], None]
    ) -> None:
        await self._folder.write(name, pieces, admit)

    async def remove(self, name: str) -> None:
        await self._folder.remove(name)
