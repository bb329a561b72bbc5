"""How many deltas the next microbatch takes while more of them wait.

A microbatch makes the same hundreds of array calls whatever it holds, so under a flood bigger ones
are cheaper. But a decision has rows for 4,096 listings: what touches more leaves the rest to a
later microbatch, and a flood whose every microbatch fills its decision would leave them for ever.
So more is taken only as long as all rows find room, and less as soon as they do not.
"""

from kernels.limits import ROWS_PER_DECISION_MAX

GROWTH, FALL = 2, 8
"""The pace grows by half and falls by an eighth: growing too far costs one wait in the backlog."""


class Pace:
    """Follows how many rows the deltas touch. Replay cuts where decisions say and asks no pace."""

    def __init__(self, deltas_max: int) -> None:
        self._most = deltas_max
        # So many touch no more rows than a decision has, whatever they are.
        self._least = min(ROWS_PER_DECISION_MAX, deltas_max)
        self._deltas = self._least
        self._deltas_a_record = 1.0

    def records_max(self) -> int:
        """Return how many records the next microbatch may hold, one at least."""
        return max(int(self._deltas / self._deltas_a_record), 1)

    def took(self, records: int, deltas: int) -> None:
        """Take note of how many deltas so many records held: a frame holds thousands."""
        if records:
            self._deltas_a_record = max(deltas / records, 1.0)

    def grow(self) -> None:
        """Take more: all that was touched found room, and more waits."""
        self._deltas = min(self._deltas + max(self._deltas // GROWTH, 1), self._most)

    def fall(self) -> None:
        """Take less: rows wait for room."""
        self._deltas = max(self._deltas - self._deltas // FALL, self._least)
