"""What an owner asks of the shard it owns; ``engine.shard.Shard`` is one."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from engine.artefact import Artefact
from engine.checkpoint import PartBytes
from engine.decided import Decided, Given
from engine.live_drivers import LiveFacts
from engine.microbatch import Microbatch
from engine.replay import Agreement


class OwnedShard(Protocol):
    """A pure state machine with a gate of its own: between ``apply`` and ``record`` it is mute."""

    @property
    def seq(self) -> int: ...

    @property
    def last_command(self) -> int: ...

    @property
    def last_delta(self) -> int: ...

    @property
    def decided_ms(self) -> int: ...

    @property
    def digest(self) -> int: ...

    @property
    def domain(self) -> str:
        """Return the replay domain: inside it, replay is exact."""
        ...

    @property
    def backlog(self) -> int:
        """Return how many rows wait for a later microbatch."""
        ...

    @property
    def listings(self) -> int:
        """Return how many listings there are."""
        ...

    def apply(self, batch: Microbatch, now_ms: int, given: Given = ...) -> Decided: ...

    def record(self, decided: Decided) -> None: ...

    def replay(
        self, batch: Microbatch, recorded: Decided, artefacts: Sequence[Artefact] = ...
    ) -> Agreement: ...

    def due(self, now_ms: int) -> bool: ...

    def live(self, listing: int) -> dict[str, Any] | None:
        """Return one listing's live state in plain values, for a strong read."""
        ...

    def live_facts(self, listing: int) -> LiveFacts | None:
        """Return what explains a listing's price now and its quote does not hold."""
        ...

    def features(self, listings: Sequence[int]) -> list[dict[str, float | None] | None]:
        """Return the named features of listings, ``None`` for one that is not known."""
        ...

    def learning(self, retailer: str, *, fit: bool = ...) -> dict[str, Any] | None:
        """Return what is learnt of a retailer's demand as a whole, ``None`` where nothing is."""
        ...

    def models(self) -> dict[str, Any]:
        """Return which models serve whom, by retailer and place."""
        ...

    def checkpoint_slice(self, rows_max: int = ...) -> bytes | None: ...

    def checkpoint_close(self) -> bytes: ...

    def checkpoint_restart(self) -> None:
        """Let the next checkpoint be a base: what was copied so far is lost."""
        ...

    def warm(self) -> None: ...


NewShard = Callable[[], OwnedShard]
RestoreShard = Callable[[Iterable[PartBytes]], OwnedShard]
