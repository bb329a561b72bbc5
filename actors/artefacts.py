"""What promotions name is fetched and verified before the microbatch that holds them is decided.

Deciding waits for it a moment and no longer: what is not there by then is missing, the promotion is
refused, and prices go on without it. The fetch goes on meanwhile, so that the promotion, given
again, finds it.
"""

import asyncio
import logging
from collections.abc import Callable

from actors.patience import Patience
from engine.artefact import Artefact, read_artefact
from engine.decided import Decided
from engine.deltas import ModelPromoted
from engine.errors import CorruptBlob, FailedDependency, RejectedInput
from engine.microbatch import Microbatch
from engine.promotion import MISSING, promotions
from persistence.ports import Blobs

LOGGER = logging.getLogger("repricer.shard")

WAIT_MS = 150
"""Longest that a microbatch waits for artefacts: with it, a mark is still written in time."""

KEPT = 4
"""Artefacts held in memory beside those that are being fetched."""


def artefact_key(retailer: str, version: str) -> str:
    """Return under which name a model's artefact lies in the blobs."""
    return f"models/{retailer}/{version}/artefact"


class Artefacts:
    """Artefacts of one shard's retailers, fetched as promotions ask for them."""

    def __init__(self, blobs: Blobs, *, wait_ms: int = WAIT_MS) -> None:
        self._blobs = blobs
        self._wait_s = wait_ms / 1000
        self._fetches: dict[str, asyncio.Task[Artefact]] = {}

    async def of(self, batch: Microbatch) -> tuple[Artefact, ...]:
        """Return what can be had in a moment of what a microbatch's promotions name."""
        named = [delta for _, delta in promotions(batch)]
        if not named:
            return ()
        fetches = {delta.checksum: self._fetch(delta) for delta in named}
        await asyncio.wait(fetches.values(), timeout=self._wait_s)
        had = []
        for checksum, fetch in fetches.items():
            if not fetch.done():
                LOGGER.warning("artefact %s did not come in time", checksum)
            elif fetch.exception() is None:
                had.append(fetch.result())
            else:
                LOGGER.error("artefact %s cannot be had: %s", checksum, fetch.exception())
                del self._fetches[checksum]
        return tuple(had)

    async def again(
        self,
        batch: Microbatch,
        recorded: Decided,
        wanted: Callable[[ModelPromoted], bool] = lambda delta: True,
    ) -> tuple[Artefact, ...]:
        """Return what a recorded microbatch was decided with; without it there is no replay.

        What is not ``wanted`` is not fetched: whoever puts another model there needs it not.

        What was refused may have been refused before anybody looked for its artefact, so that may
        never have been there: a promotion that served nothing must stop no successor.

        Raises:
            CorruptBlob, RejectedInput: it is not there any more, or not what it was.
        """
        reasons = {refusal.position: refusal.reason for refusal in recorded.exceptions}
        had = []
        for position, delta in promotions(batch):
            if reasons.get(position) == MISSING or not wanted(delta):
                continue
            try:
                had.append(await self._read_patiently(delta))
            except (CorruptBlob, RejectedInput) as error:
                if position not in reasons:
                    raise
                LOGGER.warning("replay goes on without a refused artefact: %s", error)
        return tuple(had)

    async def close(self) -> None:
        """Stop fetching."""
        for fetch in self._fetches.values():
            fetch.cancel()
        await asyncio.gather(*self._fetches.values(), return_exceptions=True)
        self._fetches.clear()

    def _fetch(self, delta: ModelPromoted) -> "asyncio.Task[Artefact]":
        found = self._fetches.get(delta.checksum)
        if found is None:
            done = [checksum for checksum, fetch in self._fetches.items() if fetch.done()]
            for checksum in done[: len(done) - KEPT + 1]:
                del self._fetches[checksum]
            found = self._fetches[delta.checksum] = asyncio.create_task(self._read(delta))
        return found

    async def _read_patiently(self, delta: ModelPromoted) -> Artefact:
        patience = Patience()
        while True:
            try:
                return await self._read(delta)
            except FailedDependency as error:
                LOGGER.warning("replay waits for an artefact: %s", error)
                await patience.wait()

    async def _read(self, delta: ModelPromoted) -> Artefact:
        key = artefact_key(delta.retailer, delta.model)
        value = await self._blobs.get(key)
        if value is None:
            raise RejectedInput("/model", f"there is no artefact {key}", "`repricer models list`")
        return await asyncio.to_thread(read_artefact, value, delta.checksum)
