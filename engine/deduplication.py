"""What was heard before, and what is older than what we know: facts come twice and in any order.

Set-type facts (a price, a count, a cost) carry ``observed_ms``, and an older one never overwrites a
newer. Sales add up, so each must be counted once: by a high-water mark a source, or by its id in a
window. What the window can no longer tell apart is refused as late, never counted.
"""

from typing import Any

import numpy as np
from msgspec import Struct

EVENT_WINDOW_MS = 86_400_000
EVENTS_MAX = 1_000_000
SOURCES_MAX = 65_535
MINUTE_MS = 60_000


class Newest(Struct, frozen=True, eq=False):
    """What :func:`newest` found, a boolean a fact."""

    late: np.ndarray  # an earlier fact of the cell was observed later
    duplicate: np.ndarray  # says what the newest fact before it said, at the same time
    effective: np.ndarray  # neither


def newest(
    cells: np.ndarray,
    observed_ms: np.ndarray,
    values: np.ndarray,
    known_ms: np.ndarray,
    known_values: np.ndarray,
) -> Newest:
    """Judge set-type facts in the order of the log, as if each had come in a microbatch of its own.

    Args:
        cells: int64[facts], equal where two facts set the same cell.
        observed_ms: int64[facts].
        values: uint64 or int64[facts], equal where two facts say the same.
        known_ms: int64[facts], when the cell's present value was observed, -1: it has none.
        known_values: like ``values``, the cell's present value.
    """
    count = len(cells)
    order = np.argsort(cells, kind="stable")
    sorted_cells = cells[order]
    starts = np.empty(count, dtype=bool)
    starts[:1] = True
    np.not_equal(sorted_cells[1:], sorted_cells[:-1], out=starts[1:])
    if starts.all():
        late = observed_ms < known_ms
        duplicate = (observed_ms == known_ms) & (values == known_values)
        return Newest(late, duplicate, ~(late | duplicate))
    observed, value = observed_ms[order], values[order]
    known, known_value = known_ms[order], known_values[order]
    # Times are too large to be offset by the segment's number, so their ranks are.
    ranks = np.unique(np.concatenate([observed, known]), return_inverse=True)[1]
    rank, known_rank = ranks[:count], ranks[count:]
    segment = np.cumsum(starts) - 1
    base = segment * (len(ranks) + 1)
    seeded = np.where(starts, np.maximum(rank, known_rank), rank)
    highest = np.maximum.accumulate(base + seeded) - base
    before = np.where(starts, known_rank, np.concatenate([[0], highest[:-1]]))
    late = rank < before
    # The value in force before each fact is that of the last fact that was not late.
    position = np.arange(count)
    first = np.maximum.accumulate(np.where(starts, position, 0))
    holder = np.maximum.accumulate(np.where(late, -1, position))
    holder = np.concatenate([[-1], holder[:-1]])
    held = np.where(holder >= first, value[holder], known_value)
    duplicate = (rank == before) & (value == held) & ~late
    result = np.empty((2, count), dtype=bool)
    result[0, order], result[1, order] = late, duplicate
    return Newest(result[0], result[1], ~(result[0] | result[1]))


def last_of(cells: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return the positions, ascending, of each cell's last fact among ``candidates`` (boolean)."""
    positions = np.flatnonzero(candidates)
    if len(positions) < 2:
        return positions
    backwards = positions[::-1]
    _, first = np.unique(cells[backwards], return_index=True)
    return np.sort(backwards[first])


class HighWaterMarks:
    """The highest ``source_seq`` counted of each source of each retailer."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {}  # (retailer, source) -> number
        self._marks = np.full(64, -1, dtype=np.int64)

    def take(
        self, retailers: np.ndarray, sources: np.ndarray, sequences: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Raise the marks; return which facts are new (boolean), and the mark each met.

        A mark of ``NO_ROOM`` says that there are too many sources to remember another.
        """
        # A pair as one number, because sorting records costs ten times as much.
        names, name = np.unique(sources, return_inverse=True)
        several = int(retailers.max(initial=0)) + 1
        pairs, inverse = np.unique(name * several + retailers, return_inverse=True)
        numbers = [
            self._number(pair % several, int(names[pair // several])) for pair in pairs.tolist()
        ]
        number = np.array(numbers, dtype=np.int64)[inverse]
        known = np.where(number < 0, NO_ROOM, self._marks[number])
        # Equal sequences say the same, whatever else they hold: the second is a duplicate.
        same = np.zeros(len(number), dtype=np.int64)
        fresh = newest(number, sequences, same, known, same).effective & (known > NO_ROOM)
        np.maximum.at(self._marks, number[fresh], sequences[fresh])
        return fresh, known

    def state(self) -> list[tuple[int, int, int]]:
        """Return (retailer, source, mark) in the order in which the sources appeared."""
        return [(*pair, int(self._marks[number])) for pair, number in self._numbers.items()]

    @classmethod
    def restore(cls, state: list[Any]) -> "HighWaterMarks":
        """Return the marks that :meth:`state` described."""
        marks = cls()
        for retailer, source, mark in state:
            marks._marks[marks._number(retailer, source)] = mark
        return marks

    def _number(self, retailer: int, source: int) -> int:
        number = self._numbers.get((retailer, source))
        if number is None:
            number = len(self._numbers)
            if number >= SOURCES_MAX:
                return -1
            self._numbers[retailer, source] = number
            if number >= len(self._marks):
                self._marks = np.concatenate([self._marks, np.full_like(self._marks, -1)])
        return number


NO_ROOM = -2
"""The mark of a source beyond ``SOURCES_MAX``."""

NEW, SEEN, TOO_OLD = 0, 1, 2
"""What :meth:`EventWindow.take` says of an event."""


class EventWindow:
    """The ids of events of the last 24 hours, by the minute in which they were observed.

    When there are too many, the oldest minutes go first; nothing of a minute that went can be told
    from a duplicate any more.
    """

    def __init__(self) -> None:
        self._minutes: dict[int, set[int]] = {}
        self._count = 0
        self._oldest = 0  # minutes before this one are gone
        self._changed: set[int] = set()  # since the last checkpoint

    def take(self, retailer: int, event: int, observed_ms: int) -> int:
        """Remember one event, and say whether it is NEW, SEEN or TOO_OLD to tell."""
        minute = observed_ms // MINUTE_MS
        if minute < self._oldest:
            return TOO_OLD
        # The same id may be used by two retailers; their numbers are mixed into it.
        event ^= (retailer * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        events = self._minutes.get(minute)
        if events is None:
            events = self._minutes[minute] = set()
        elif event in events:
            return SEEN
        events.add(event)
        self._count += 1
        self._changed.add(minute)
        return NEW

    def expire(self, now_ms: int) -> None:
        """Forget what the window no longer holds."""
        oldest = (now_ms - EVENT_WINDOW_MS) // MINUTE_MS
        if oldest > self._oldest:
            self._forget(oldest)
        while self._count > EVENTS_MAX:
            self._forget(min(self._minutes) + 1)

    @property
    def oldest_minute(self) -> int:
        """Return the minute before which an event can no longer be told from a duplicate."""
        return self._oldest

    def changed(self) -> dict[int, list[int]]:
        """Return the minutes that changed since the last call, sorted, for a checkpoint."""
        minutes = sorted(minute for minute in self._changed if minute in self._minutes)
        self._changed.clear()
        return {minute: sorted(self._minutes[minute]) for minute in minutes}

    def forget_checkpoint(self) -> None:
        """Let the next checkpoint hold every minute again."""
        self._changed.update(self._minutes)

    @classmethod
    def restore(cls, oldest: int, minutes: dict[int, Any]) -> "EventWindow":
        """Return the window that checkpoints described."""
        window = cls()
        window._oldest = oldest
        for minute in sorted(minutes):
            if minute >= oldest:
                window._minutes[minute] = set(minutes[minute])
                window._count += len(window._minutes[minute])
        return window

    def _forget(self, oldest: int) -> None:
        for minute in sorted(minute for minute in self._minutes if minute < oldest):
            self._count -= len(self._minutes.pop(minute))
        self._oldest = oldest
