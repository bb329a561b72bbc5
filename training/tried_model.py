"""The trained model that a backtest puts in the place of those that were recorded, or none of them.

It is promoted to champion by a delta of the backtest's own, as soon as its retailer learns and the
shard holds listings that it knows, and again where more of them have come. Promotions that were
recorded for the retailer are left out. What the shard does then, it does by itself: a model that
foresees worse than the stream alone is rolled back, and stays so.
"""

from typing import Any

import numpy as np
from msgspec.structs import replace

from engine.artefact import Artefact
from engine.decided import Decided
from engine.deltas import ModelPromoted
from engine.errors import RejectedInput
from engine.listing_table import REMOVED
from engine.memory import Memory
from engine.microbatch import Microbatch, ObjectDelta, Position
from engine.serving import RULES

PLACE = 2_000_000
"""The index within a record at which the backtest's own promotions stand."""


class TriedModel:
    """One retailer's model under test; without an artefact, every retailer's rules."""

    def __init__(self, artefact: Artefact | None) -> None:
        self.artefact = artefact
        self._served = np.empty(0, dtype=np.uint64)  # keys of listings that it was promoted with
        self.rolled_back_ms: int | None = None

    @property
    def known(self) -> int:
        """Return how many listings it serves, or served until it was rolled back."""
        return len(self._served)

    @property
    def version(self) -> str:
        """Return what is tried, as the command line names it."""
        return RULES if self.artefact is None else self.artefact.version

    def leaves(self, delta: ModelPromoted) -> bool:
        """Return whether a promotion that was recorded holds: that of another retailer."""
        return self.artefact is not None and delta.retailer != self.artefact.retailer

    def put_into(self, batch: Microbatch, memory: Memory, decided_ms: int) -> Microbatch:
        """Return the microbatch with this model's promotion in the place of recorded ones."""
        kept = [run for run in batch.runs if not self._is_recorded(run)]
        ours = self._promotions(batch, memory, decided_ms)
        more = len(ours) + len(kept) - len(batch.runs)
        return replace(batch, runs=(*ours, *kept), deltas=batch.deltas + more)

    def see(self, ours: Decided) -> None:
        """Note what became of the model in a microbatch.

        Raises:
            RejectedInput: the shard refuses it.
        """
        for refusal in ours.exceptions:
            if refusal.position.index >= PLACE:
                raise RejectedInput("/model", refusal.reason.partition(": ")[2])
        for change in ours.catalogue:
            rolled_back = change.what == "model" and change.fields["stage"] == "rolled_back"
            ours_is = self.artefact is not None and change.retailer == self.artefact.retailer
            if rolled_back and ours_is and change.fields["model"] == self.version:
                self.rolled_back_ms = ours.decided_ms

    def _is_recorded(self, run: Any) -> bool:
        if not isinstance(run, ObjectDelta) or not isinstance(run.delta, ModelPromoted):
            return False
        return not self.leaves(run.delta)

    def _promotions(
        self, batch: Microbatch, memory: Memory, decided_ms: int
    ) -> tuple[ObjectDelta, ...]:
        place = Position(0, max(batch.last_command, 0), PLACE)
        if self.artefact is None:
            # A recording may begin at a checkpoint, in which models serve already.
            numbers = sorted(memory.serving.retailers)
            return tuple(
                ObjectDelta(
                    replace(place, index=PLACE + at),
                    ModelPromoted(
                        retailer=memory.retailers.ids[number],
                        model=RULES,
                        stage="champion",
                        observed_ms=max(decided_ms, memory.serving.told_ms.get(number, -1) + 1),
                    ),
                )
                for at, number in enumerate(numbers)
            )
        if self.rolled_back_ms is not None:
            return ()
        more = np.setdiff1d(self._known(memory, self.artefact), self._served)
        if not len(more):
            return ()
        self._served = np.union1d(self._served, more)
        number = memory.retailers.numbers[self.artefact.retailer]
        delta = ModelPromoted(
            retailer=self.artefact.retailer,
            model=self.artefact.version,
            checksum=self.artefact.checksum,
            stage="champion",
            observed_ms=max(decided_ms, memory.serving.told_ms.get(number, -1) + 1),
        )
        return (ObjectDelta(place, delta),)

    def _known(self, memory: Memory, artefact: Artefact) -> np.ndarray:
        """Return uint64[n], the listings there are that the model knows, once he learns."""
        number = memory.retailers.numbers.get(artefact.retailer, -1)
        if number not in memory.learnt.retailers:
            return np.empty(0, dtype=np.uint64)
        rows = memory.listings.index.rows(artefact.keys)
        listings = memory.listings.listings.take(rows[rows >= 0])
        mine = (listings["retailer"] == number) & (listings["flags"] & REMOVED == 0)
        return np.asarray(listings["key"][mine])
