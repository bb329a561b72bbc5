"""What was heard before, and what is older than what we know: facts come twice and in any order.

Set-type facts (a price, a count, a cost) carry ``observed_ms``, and an older one never overwrites a
newer. Sales add up, so each must be counted once: by a high-water mark a source, or by its id in a
window. What the window can no longer tell apart is refused as late, never counted.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

EVENT_WINDOW_MS = 86_400_000
EVENTS_MAX = 1_000_000
"""Ids of sales a shard remembers; of more, the retailer who holds most forgets first."""

SOURCES_MAX = 65_535
"""Sources of sales a shard remembers; :meth:`engine.retailers.Retailers.share` divides them."""

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
    newer = np.count_nonzero(observed_ms > known_ms) == count
    if newer and np.count_nonzero(observed_ms[1:] > observed_ms[:-1]) >= count - 1:
        return _all_effective(count)  # each is newer than all before it, whatever its cell
    order = stable_order(cells)
    sorted_cells = cells[order]
    starts = np.empty(count, dtype=bool)
    starts[:1] = True
    np.not_equal(sorted_cells[1:], sorted_cells[:-1], out=starts[1:])
    if starts.all():
        late = observed_ms < known_ms
        duplicate = (observed_ms == known_ms) & (values == known_values)
        return Newest(late, duplicate, ~(late | duplicate))
    observed = observed_ms[order]
    if newer and ((observed[1:] > observed[:-1]) | starts[1:]).all():
        return _all_effective(count)
    value = values[order]
    known, known_value = known_ms[order], known_values[order]
    rank, known_rank, ranks = _ranks(observed, known)
    segment = np.cumsum(starts) - 1
    base = segment * (ranks + 1)
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


def _all_effective(count: int) -> Newest:
    nothing = np.zeros(count, dtype=bool)
    return Newest(nothing, nothing, np.ones(count, dtype=bool))


def _ranks(observed: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return numbers in the order of both times, and how many numbers there may be.

    Offset by the number of a segment they must fit 63 bits. Times that lie near each other are such
    numbers themselves; only of others the ranks are sorted out.
    """
    least = min(int(observed.min()), int(known.min()))
    span = max(int(observed.max()), int(known.max())) - least + 1
    if span < 2**62 // (len(observed) + 1):
        return observed - least, known - least, span
    ranks = np.unique(np.concatenate([observed, known]), return_inverse=True)[1]
    return ranks[: len(observed)], ranks[len(observed) :], len(ranks)


FEW_CELLS = 128
"""So many cells are sorted sooner as they are."""


def stable_order(cells: np.ndarray) -> np.ndarray:
    """Return int64[n], the order that sorts ``cells`` (int64[n]) and keeps equal ones in theirs.

    As ``argsort`` does, and of many in a quarter of the time: each place rides along in its cell's
    low bits, so that plain numbers are sorted.
    """
    if len(cells) <= FEW_CELLS:
        return cells.argsort(kind="stable")
    if (cells[1:] >= cells[:-1]).all():  # times mostly come in order
        return np.arange(len(cells))
    bits = len(cells).bit_length()
    least = int(cells.min())
    if (int(cells.max()) - least) >> (62 - bits):
        return np.argsort(cells, kind="stable")
    keyed = ((cells - least) << bits) | np.arange(len(cells))
    keyed.sort()
    return np.asarray(keyed & ((1 << bits) - 1))


def lasts(cells: np.ndarray) -> np.ndarray:
    """Return int64[n], where the last of each cell stands, by ascending cell."""
    order = stable_order(cells)
    ordered = cells[order]
    ends = np.empty(len(cells), dtype=bool)
    ends[-1:] = True
    np.not_equal(ordered[1:], ordered[:-1], out=ends[:-1])
    return order[ends]


def distinct_of(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct ``cells`` (int64[n]), ascending, and which of them each one is."""
    order = stable_order(cells)
    ordered = cells[order]
    begins = np.empty(len(cells), dtype=bool)
    begins[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    inverse = np.empty(len(cells), dtype=np.int64)
    inverse[order] = begins.cumsum() - 1
    return ordered[begins], inverse


def last_of(cells: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return the positions, ascending, of each cell's last fact among ``candidates`` (boolean)."""
    positions = candidates.nonzero()[0]
    if len(positions) < 2:
        return positions
    return np.sort(positions[lasts(cells[positions])])


def pairs_of(retailers: np.ndarray, names: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Return the distinct (retailer, name) and, for each element, which of them it is.

    Of one retailer they come by name, whoever else is there: his numbers depend on nobody.
    """
    count = len(names)
    if (
        count
        and np.count_nonzero(names == names[0]) == count
        and np.count_nonzero(retailers == retailers[0]) == count
    ):
        return [(int(retailers[0]), int(names[0]))], np.zeros(len(names), dtype=np.int64)
    # A pair as one number, because sorting records costs ten times as much.
    distinct, name = np.unique(names, return_inverse=True)
    several = int(retailers.max(initial=0)) + 1
    pairs, inverse = np.unique(name * several + retailers, return_inverse=True)
    return [(pair % several, int(distinct[pair // several])) for pair in pairs.tolist()], inverse


class HighWaterMarks:
    """The highest ``source_seq`` counted of each source of each retailer."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {}  # (retailer, source) -> number
        self._held: dict[int, int] = {}  # sources a retailer
        self._marks = np.full(64, -1, dtype=np.int64)

    def __len__(self) -> int:
        """Return how many sources are remembered."""
        return len(self._numbers)

    def take(
        self,
        retailers: np.ndarray,
        sources: np.ndarray,
        sequences: np.ndarray,
        sources_max: int = SOURCES_MAX,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Raise the marks; return which facts are new (boolean), and the mark each met.

        A mark of ``NO_ROOM`` says that the retailer has ``sources_max`` sources already.
        """
        pairs, inverse = pairs_of(retailers, sources)
        numbers = [self._number(*pair, sources_max) for pair in pairs]
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
            # First the number: giving it may put a longer array in the place of the marks.
            number = marks._number(retailer, source, len(state))
            marks._marks[number] = mark
        return marks

    def _number(self, retailer: int, source: int, sources_max: int) -> int:
        number = self._numbers.get((retailer, source))
        if number is None:
            held = self._held.get(retailer, 0)
            if held >= sources_max:
                return -1
            number = len(self._numbers)
            self._numbers[retailer, source] = number
            self._held[retailer] = held + 1
            if number >= len(self._marks):
                self._marks = np.concatenate([self._marks, np.full_like(self._marks, -1)])
        return number


NO_ROOM = -2
"""The mark of a source beyond its retailer's share."""

NEW, SEEN, TOO_OLD = 0, 1, 2
"""What :meth:`EventWindow.take` says of an event."""


class EventWindow:
    """The ids of sales of the last 24 hours, by the minute in which they were observed.

    When there are too many, the retailer who holds most forgets his oldest minutes: whoever holds
    no more than an equal share of ``EVENTS_MAX`` loses nothing, whatever the others send. Nothing
    of a minute that went can be told from a duplicate any more.
    """

    def __init__(self) -> None:
        self._minutes: dict[int, dict[int, set[int]]] = {}  # minute -> retailer -> ids
        self._held: dict[int, int] = {}  # ids a retailer
        self._count = 0
        self._oldest = 0  # minutes before this one are gone
        self._oldest_of: dict[int, int] = {}  # and for these retailers, before this later one
        self._changed: set[tuple[int, int]] = set()  # (minute, retailer) since a checkpoint

    def __len__(self) -> int:
        """Return how many ids are remembered."""
        return self._count

    def take(self, retailer: int, event: int, observed_ms: int) -> int:
        """Remember one event, and say whether it is NEW, SEEN or TOO_OLD to tell."""
        minute = observed_ms // MINUTE_MS
        if minute < self._oldest or minute < self._oldest_of.get(retailer, 0):
            return TOO_OLD
        events = self._minutes.setdefault(minute, {}).setdefault(retailer, set())
        if event in events:
            return SEEN
        events.add(event)
        self._held[retailer] = self._held.get(retailer, 0) + 1
        self._count += 1
        self._changed.add((minute, retailer))
        return NEW

    def expire(self, now_ms: int) -> None:
        """Forget what the window no longer holds."""
        oldest = (now_ms - EVENT_WINDOW_MS) // MINUTE_MS
        if oldest > self._oldest:
            self._forget_before(oldest)
        while self._count > EVENTS_MAX:
            most = max(self._held, key=lambda retailer: (self._held[retailer], retailer))
            minute = min(at for at, events in self._minutes.items() if most in events)
            self._forget(minute, most)
            self._oldest_of[most] = minute + 1

    @property
    def oldest_minute(self) -> int:
        """Return the minute before which an event can no longer be told from a duplicate."""
        return self._oldest

    def oldest_minutes(self) -> list[tuple[int, int]]:
        """Return (retailer, minute) of those who had to forget more than time did."""
        return sorted(self._oldest_of.items())

    def changed(self) -> list[tuple[int, int, list[int]]]:
        """Return (minute, retailer, ids) of what changed since the last call, sorted."""
        changed = sorted(self._changed)
        self._changed.clear()
        return [
            (minute, retailer, sorted(self._minutes[minute][retailer]))
            for minute, retailer in changed
            if retailer in self._minutes.get(minute, ())
        ]

    def every(self) -> list[tuple[int, int, list[int]]]:
        """Return (minute, retailer, ids) of all that is remembered, sorted."""
        return [
            (minute, retailer, sorted(ids))
            for minute, events in sorted(self._minutes.items())
            for retailer, ids in sorted(events.items())
        ]

    def forget_checkpoint(self) -> None:
        """Let the next checkpoint hold every minute again."""
        self._changed.update(
            (minute, retailer) for minute, events in self._minutes.items() for retailer in events
        )

    @classmethod
    def restore(
        cls,
        oldest: int,
        oldest_of: Iterable[Sequence[int]],
        events: Iterable[tuple[int, int, Iterable[int]]],
    ) -> "EventWindow":
        """Return the window that checkpoints described; of a (minute, retailer) the last counts."""
        window = cls()
        window._oldest = oldest
        window._oldest_of = {retailer: minute for retailer, minute in oldest_of}
        latest = {(minute, retailer): ids for minute, retailer, ids in events}
        for minute, retailer in sorted(latest):
            if minute >= max(oldest, window._oldest_of.get(retailer, 0)):
                ids = set(latest[minute, retailer])
                window._minutes.setdefault(minute, {})[retailer] = ids
                window._held[retailer] = window._held.get(retailer, 0) + len(ids)
                window._count += len(ids)
        return window

    def _forget_before(self, oldest: int) -> None:
        for minute in [minute for minute in self._minutes if minute < oldest]:
            for retailer in list(self._minutes[minute]):
                self._forget(minute, retailer)
        self._oldest = oldest
        self._oldest_of = {of: minute for of, minute in self._oldest_of.items() if minute > oldest}

    def _forget(self, minute: int, retailer: int) -> None:
        events = self._minutes[minute]
        count = len(events.pop(retailer))
        if not events:
            del self._minutes[minute]
        self._count -= count
        self._held[retailer] -= count
        if not self._held[retailer]:
            del self._held[retailer]
