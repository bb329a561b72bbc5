"""On what cautious owners fell, as the decision log tells it, and how far the next may reach.

A cautious owner announces how far it is about to reach. An announcement that no decision followed
is a death, and it counts against the records in between, lane by lane, not against the place that
both lanes had reached: between two deaths an heir may record heartbeats or commands, and a count
that began again with each of them would never come to the record that is to be skipped.

The first attempt is a whole microbatch, since most owners die of something else. Where one fell the
next reaches less far, so that deaths close in on the record that kills.
"""

from collections.abc import Set
from typing import Final

COMMAND, DELTA = 0, 1
NARROWER: Final = 64
"""After a death the next attempt holds so many times fewer records, one at least.

A whole microbatch of 4,096 records comes down to 64 and then to one. Halving would take twelve
deaths, and single records at once take 8,192 appends (docs/decisions/0072).
"""

Place = tuple[int, int]
"""The last command and the last delta up to which something reaches."""

Reach = tuple[tuple[int, int, int], ...]
"""The records that an attempt holds: lane, offset before the first, and offset of the last.

Empty where no record is: timers and backlog are tried alone.
"""


class Attempts:
    """Who announced which records, as long as no decision consumed them all."""

    def __init__(self) -> None:
        self._owners: dict[Reach, set[bytes]] = {}

    def announced(self, place: Place, passed: Place, owner: bytes) -> None:
        """Take note that ``owner`` was about to try what leads from ``passed`` to ``place``."""
        self._owners.setdefault(_reach(place, passed), set()).add(owner)

    def decided(self, passed: Place) -> None:
        """Forget what was decided; an empty batch is, with any other that was decided."""
        self._owners = {
            reach: owners
            for reach, owners in self._owners.items()
            if any(last > passed[lane] for lane, _, last in reach)
        }

    def deaths(
        self, place: Place, passed: Place, *, survivor: bytes, pardoned: Set[bytes] = frozenset()
    ) -> int:
        """Return how many owners but this one fell on just what leads from ``passed`` to ``place``.

        Two never fall on the same microbatch of several records: the second reaches less far. The
        ``pardoned`` were ended by their supervisor for a silence that may have been no hang.
        """
        return len(self._owners.get(_reach(place, passed), set()) - {survivor} - pardoned)

    def records_max(self, *, survivor: bytes) -> int | None:
        """Return how many records the next attempt may hold, ``None`` for a whole microbatch."""
        fallen = [
            sum(last - before for _, before, last in reach)
            for reach, owners in self._owners.items()
            if reach and owners - {survivor}
        ]
        return -(-min(fallen) // NARROWER) if fallen else None


def _reach(place: Place, passed: Place) -> Reach:
    return tuple(
        (lane, passed[lane], place[lane]) for lane in (COMMAND, DELTA) if place[lane] > passed[lane]
    )
