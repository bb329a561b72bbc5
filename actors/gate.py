"""The gate between ``apply`` and ``record``.

A shard has one state, and while a decision is on its way to the log that state holds prices that
were never quoted. Whoever wants to read waits at the gate, a few milliseconds, or until a deadline.
"""

import asyncio

from engine.errors import DeadlinePassed


class Gate:
    """Open while everything a shard knows is recorded."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._opened.set()

    @property
    def is_open(self) -> bool:
        return self._opened.is_set()

    def close(self) -> None:
        """Let nobody in: something is decided and not recorded."""
        assert self._opened.is_set(), "one decision at a time"
        self._opened.clear()

    def open(self) -> None:
        """Let in who waits: all that was decided is recorded."""
        assert not self._opened.is_set()
        self._opened.set()

    async def opened(self, deadline_ms: int) -> None:
        """Wait until the gate is open.

        Raises:
            DeadlinePassed: it stayed closed for ``deadline_ms``.
        """
        # More than once: between the opening and our turn it may have closed again.
        try:
            async with asyncio.timeout(deadline_ms / 1000):
                while not self._opened.is_set():
                    await self._opened.wait()
        except TimeoutError:
            raise DeadlinePassed(f"nothing was recorded for {deadline_ms} ms; ask again") from None
