"""A shard with a witness beside it: who notes what was recorded, and what kills.

It delegates and overrides nothing: what decides is the shard inside.
"""

from collections.abc import Callable, Sequence
from typing import Any

from engine.artefact import Artefact
from engine.decided import Decided, Given
from engine.microbatch import FactColumns, Microbatch
from engine.replay import Agreement


class Killed(BaseException):
    """The process died inside ``apply``, as by a segmentation fault."""


class Watched:
    """Delegates to a shard, and tells the world."""

    def __init__(
        self,
        shard: Any,
        *,
        murderous: int,
        on_murder: Callable[[], None],
        on_record: Callable[[Decided], None],
    ) -> None:
        self.shard = shard
        self._murderous = murderous
        self._on_murder = on_murder
        self._on_record = on_record

    def __getattr__(self, name: str) -> Any:
        return getattr(self.shard, name)

    def apply(self, batch: Microbatch, now_ms: int, given: Given) -> Decided:
        skipped = {(place.lane, place.offset) for place in given.skipped}
        for run in batch.runs:
            if isinstance(run, FactColumns):
                for at in (run.listing == self._murderous).nonzero()[0].tolist():
                    if (int(run.lane[at]), int(run.offset[at])) not in skipped:
                        self._on_murder()
                        raise Killed
        decided: Decided = self.shard.apply(batch, now_ms, given)
        return decided

    def record(self, decided: Decided) -> None:
        self.shard.record(decided)
        self._on_record(decided)

    def replay(
        self, batch: Microbatch, recorded: Decided, artefacts: Sequence[Artefact] = ()
    ) -> Agreement:
        # The toy knows no artefacts, and only a promotion has any.
        more = (artefacts,) if artefacts else ()
        found: Agreement = self.shard.replay(batch, recorded, *more)
        return found
