"""Waiting longer each time, up to a limit."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from engine.errors import FailedDependency

Answer = TypeVar("Answer")

FIRST_MS = 10
LONGEST_MS = 1_000


class Patience:
    """How long to wait before the same thing is tried again: doubles, capped, starts anew."""

    def __init__(self, first_ms: int = FIRST_MS, longest_ms: int = LONGEST_MS) -> None:
        self._first_ms = first_ms
        self._longest_ms = longest_ms
        self._next_ms = first_ms

    async def wait(self) -> None:
        """Wait, and longer the next time."""
        wait_ms, self._next_ms = self._next_ms, min(self._next_ms * 2, self._longest_ms)
        await asyncio.sleep(wait_ms / 1000)

    def renew(self) -> None:
        """Begin with the shortest wait again, after a success."""
        self._next_ms = self._first_ms


async def patiently(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask again, more and more slowly, until what is asked answers."""
    patience = Patience()
    while True:
        try:
            return await ask()
        except FailedDependency:
            await patience.wait()
