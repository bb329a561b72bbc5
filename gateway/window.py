"""A bounded window of recent decisions: what a stream resumes from and quotes are looked up in.

Rows lie in one ring for all shards, so that a look-up by listing is one comparison of a column and
the memory is fixed at the start. What falls out of the window is simply no longer known, and
whoever needed it starts again from a snapshot.
"""

from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np
from msgspec import Struct

from engine.decided import QUOTE_DTYPE

WINDOW_ROWS = 131_072
"""Quotes kept, over all shards (about 15 MB)."""

WINDOW_ENTRIES = 32_768
"""Decisions with rows kept, over all shards."""

HISTORY_DTYPE = np.dtype(
    [
        ("decided_ms", "<i8"),
        ("seq", "<i8"),
        ("index", "<i4"),
        ("shard", "<u4"),
        ("quote", QUOTE_DTYPE),
    ]
)
"""A quote with its place and time."""


class Entry(Struct, frozen=True):
    """One decision that changed something which a stream may show."""

    seq: int
    start: int  # of its quotes, counted since the beginning; the ring holds it modulo its size
    count: int
    rows: Mapping[str, tuple[int, ...]]  # by retailer: rows of the replica that changed
    left: Mapping[int, str | None]  # row -> the category it had before its catalogue entry changed


class Window:
    """The last decisions of every shard."""

    def __init__(self, *, rows: int = WINDOW_ROWS, entries: int = WINDOW_ENTRIES) -> None:
        assert rows >= 1
        assert entries >= 1
        self._ring = np.zeros(rows, HISTORY_DTYPE)
        self._head = 0
        self._entries_max = entries
        self._by_seq: dict[int, dict[int, Entry]] = {}
        self._order: deque[tuple[int, int]] = deque()  # (shard, seq) in the order of arrival
        self._forgotten: dict[int, int] = {}  # shard -> highest seq that is no longer known

    def begin(self, shard: int, seq: int) -> None:
        """Know nothing of ``shard`` up to and with ``seq``."""
        self._by_seq[shard] = {}
        self._order = deque(place for place in self._order if place[0] != shard)
        self._forgotten[shard] = seq

    def append(
        self,
        shard: int,
        seq: int,
        decided_ms: int,
        quotes: np.ndarray,
        rows: Mapping[str, tuple[int, ...]],
        left: Mapping[int, str | None],
    ) -> None:
        """Keep a decision; the oldest ones that do not fit any more are forgotten."""
        count, size = len(quotes), len(self._ring)
        assert count <= size
        if count:
            places = np.arange(self._head, self._head + count) % size
            self._ring["quote"][places] = quotes
            self._ring["decided_ms"][places] = decided_ms
            self._ring["seq"][places] = seq
            self._ring["index"][places] = np.arange(count)
            self._ring["shard"][places] = shard
        self._by_seq[shard][seq] = Entry(seq, self._head, count, rows, left)
        self._order.append((shard, seq))
        self._head += count
        self._forget()

    def covers(self, shard: int, after: int) -> bool:
        """Whether every decision of ``shard`` that follows ``after`` is still known."""
        return shard in self._forgotten and after >= self._forgotten[shard]

    def entries(self, shard: int, after: int, through: int) -> Iterator[Entry]:
        """Yield the decisions with rows in ``(after, through]``, oldest first."""
        known = self._by_seq[shard]
        if through - after > len(known):
            yield from (entry for seq, entry in known.items() if after < seq <= through)
            return
        for seq in range(after + 1, through + 1):
            entry = known.get(seq)
            if entry is not None:
                yield entry

    def quote(self, shard: int, seq: int, index: int) -> np.void | None:
        """Return one quote (``HISTORY_DTYPE``), or ``None`` when it is outside the window."""
        entry = self._by_seq.get(shard, {}).get(seq)
        if entry is None or not 0 <= index < entry.count:
            return None
        row: np.void = self._ring[(entry.start + index) % len(self._ring)]
        return row

    def history(self, listing: int) -> np.ndarray:
        """Return the quotes of one listing (``HISTORY_DTYPE``), oldest first."""
        size = len(self._ring)
        kept = self._ring[: min(self._head, size)]
        places = np.flatnonzero(kept["quote"]["listing"] == np.uint64(listing))
        if self._head > size:
            places = np.sort((places - self._head) % size) + self._head
            places %= size
        return kept[places]

    def _forget(self) -> None:
        """Drop the oldest decisions while there are too many, or their quotes are overwritten."""
        while self._order:
            oldest_shard, oldest_seq = self._order[0]
            entry = self._by_seq[oldest_shard][oldest_seq]
            overwritten = entry.start < self._head - len(self._ring)
            if not overwritten and len(self._order) <= self._entries_max:
                return
            self._order.popleft()
            del self._by_seq[oldest_shard][oldest_seq]
            self._forgotten[oldest_shard] = oldest_seq
