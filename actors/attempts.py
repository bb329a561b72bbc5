"""On which records cautious owners fell, as the decision log tells it.

A cautious owner announces what it is about to try. An announcement that no decision followed is a
death, and it counts against one record of one lane, not against the place that both lanes had
reached: between two deaths an heir may record heartbeats or commands, and a count that began again
with each of them would never reach the one at which the record is skipped.
"""

from typing import Final

COMMAND, DELTA, NOTHING = 0, 1, 2
EMPTY: Final = (NOTHING, 0)
"""What is tried where no record is: timers and backlog."""

Place = tuple[int, int]
"""The last command and the last delta up to which something reaches."""


class Attempts:
    """Who announced which record, as long as no decision consumed it."""

    def __init__(self) -> None:
        self._owners: dict[tuple[int, int], set[bytes]] = {}

    def announced(self, place: Place, passed: Place, owner: bytes) -> None:
        """Take note that ``owner`` was about to try what leads from ``passed`` to ``place``."""
        self._owners.setdefault(_record(place, passed), set()).add(owner)

    def decided(self, passed: Place) -> None:
        """Forget what was decided; an empty batch is, with any other that was decided."""
        self._owners = {
            (lane, offset): owners
            for (lane, offset), owners in self._owners.items()
            if lane != NOTHING and offset > passed[lane]
        }

    def deaths(self, place: Place, passed: Place, *, survivor: bytes) -> int:
        """Return how many owners but this one fell on what leads from ``passed`` to ``place``."""
        return len(self._owners.get(_record(place, passed), set()) - {survivor})


def _record(place: Place, passed: Place) -> tuple[int, int]:
    """Return the one record in between, by lane and offset; a cautious batch holds one at most."""
    for lane in (COMMAND, DELTA):
        if place[lane] > passed[lane]:
            return lane, place[lane]
    return EMPTY
