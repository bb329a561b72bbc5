"""Everything a shard remembers, and what one microbatch does to it on the way."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.artefact import Artefact
from engine.commands import CommandWindow
from engine.currencies import Currencies
from engine.decided import CatalogueChange, Outcome
from engine.deduplication import SOURCES_MAX, EventWindow, HighWaterMarks, lasts
from engine.experiments import Experiments
from engine.groups import Groups
from engine.learnt import Learnt
from engine.listing_table import REMOVED, ListingTable, ListingText
from engine.microbatch import Position, Refusal
from engine.retailers import Retailers
from engine.rivals import OWN_NAMES_MAX, RivalTable
from engine.room import grown, room
from engine.routing import name64
from engine.serving import Serving
from engine.tiers import Tiers
from engine.timers import Backlog, Timers

SOURCES_LEAST = 64
"""Sources that each retailer may name, however many share the shard."""


class OwnNames:
    """Sets of names under which listings appear in rivals' feeds. Number 0: nobody told us."""

    def __init__(self) -> None:
        self.names = np.zeros((4, OWN_NAMES_MAX), dtype=np.uint64)
        self._numbers: dict[tuple[int, ...], int] = {}

    def number(self, names: tuple[int, ...]) -> int:
        """Return the number of a set of ``name64``, giving it one."""
        assert len(names) <= OWN_NAMES_MAX
        number = self._numbers.get(names)
        if number is None:
            number = self._numbers[names] = len(self._numbers) + 1
            if number == len(self.names):
                self.names = grown(self.names)
            self.names[number, : len(names)] = names
        return number

    def number_of_names(self, names: tuple[str, ...]) -> int:
        """Return the number of a set of names."""
        return self.number(tuple(sorted({name64(name) for name in names})))

    def state(self) -> list[tuple[int, ...]]:
        """Return the sets in the order of their numbers."""
        return list(self._numbers)


class Memory:
    """The state of one shard. Parts refer to each other by row, group and retailer numbers."""

    def __init__(self) -> None:
        self.listings = ListingTable()
        self.rivals = RivalTable()
        self.timers = Timers()
        self.backlog = Backlog()
        self.retailers = Retailers()
        self.groups = Groups(self.retailers)
        self.currencies = Currencies()
        self.own_names = OwnNames()
        self.marks = HighWaterMarks()
        self.events = EventWindow()
        self.commands = CommandWindow()
        self.learnt = Learnt()
        self.experiments = Experiments()
        self.serving = Serving()
        self.tiers = Tiers()
        self.unsaved = room(self.listings.capacity, bool)  # rows the next checkpoint needs

    @property
    def sources_max(self) -> int:
        """Return how many sources each retailer may name."""
        return self.retailers.share(SOURCES_MAX, SOURCES_LEAST)

    def changed(self) -> bytes:
        """Return what changed since last asked beside the rows that were looked at, for the digest.

        Retailers' counters as they are; of what only grows and shrinks by deltas, how much there
        is.
        """
        sizes = (
            self.listings.rows,
            self.listings.live,
            self.backlog.rows,
            len(self.retailers.channels),
            len(self.currencies),
            len(self.marks),
            len(self.events),
            self.events.oldest_minute,
            len(self.commands),
        )
        return repr(sizes).encode() + self.tiers.changed() + self.retailers.changed()

    def fit(self, rows: int) -> None:
        """Make room beside the listing table, of which ``rows`` are in use."""
        self.timers.fit(rows)
        rows = self.listings.capacity
        if len(self.unsaved) == rows:
            return
        self.rivals.fit(rows)
        self.backlog.fit(rows)
        self.learnt.fit(rows)
        self.experiments.fit(rows)
        self.serving.fit(rows)
        self.unsaved = grown(self.unsaved, rows)

    def group_of(self, retailer: int, text: ListingText) -> int:
        """Return the number of the group that a listing belongs to, making one if needed."""
        if self.groups.full:
            used = self.listings.listings[: self.listings.rows]
            self.groups.free(np.unique(used["group"][used["flags"] & REMOVED == 0]))
        return self.groups.number(retailer, text)

    def rows_of(self, retailer: int) -> np.ndarray:
        """Return int64[n], the rows of a retailer's listings, ascending, tombstones left out."""
        used = self.listings.listings[: self.listings.rows]
        return np.flatnonzero((used["retailer"] == retailer) & (used["flags"] & REMOVED == 0))

    def mark(self, rows: np.ndarray) -> None:
        """Put rows into the backlog."""
        rows = rows[~self.backlog.dirty[rows]]
        self.backlog.mark(rows)
        self.unsaved[rows] = True
        retailers = self.listings.listings["retailer"][rows]
        np.add.at(self.retailers.table["waiting"], retailers, 1)

    def unmark(self, rows: np.ndarray) -> None:
        """Take rows out of the backlog."""
        if self.backlog.rows:
            rows = rows[self.backlog.dirty[rows]]
            self.backlog.clear(rows)
            retailers = self.listings.listings["retailer"][rows]
            np.subtract.at(self.retailers.table["waiting"], retailers, 1)


class Counts(NamedTuple):
    """Rows that were counted, int64[n], and what is there before and after, int64[n].

    Before it may be less than nothing: sales went on, of what nobody had counted.
    """

    rows: np.ndarray
    before: np.ndarray
    found: np.ndarray
    since_ms: np.ndarray  # when the stock before was counted
    unknown: np.ndarray  # bool: never
    sure: np.ndarray  # bool: all that was sold later than the count is remembered


class Work:
    """What one microbatch has done so far: rows touched and why, and what will be told."""

    def __init__(
        self,
        now_ms: int,
        after: tuple[int, int] = (-1, -1),
        alone: bool = False,
        artefacts: Sequence[Artefact] = (),
    ) -> None:
        self.now_ms = now_ms
        self.after = after  # the offsets that the last microbatch ended with, commands' first
        self.alone = alone  # whether a single delta is all that is decided about
        self.artefacts = {artefact.checksum: artefact for artefact in artefacts}
        self.refusals: list[Refusal] = []
        self.catalogue: list[CatalogueChange] = []
        self.outcomes: list[Outcome] = []
        self.changed: list[bytes | np.ndarray] = []  # of global state, for the digest
        self.counts: Counts | None = None  # of the block that is being applied
        self.recounted: list[np.ndarray] = []  # rows with another stock than sales had left
        self.delivered: list[np.ndarray] = []  # rows that got a delivery
        self._rows: list[np.ndarray] = []
        self._lanes: list[np.ndarray] = []
        self._offsets: list[np.ndarray] = []
        self._indices: list[np.ndarray] = []
        self._urgent: list[np.ndarray] = []

    def touch(
        self,
        rows: np.ndarray,
        lane: np.ndarray,
        offset: np.ndarray,
        index: np.ndarray,
        urgent: np.ndarray | None = None,
    ) -> None:
        """Note that facts changed ``rows``, in the order of the log.

        Args:
            urgent: bool[rows], which an hourly tier must not keep waiting; ``None``: all.
        """
        self._rows.append(rows)
        self._urgent.append(rows if urgent is None else rows[urgent])
        self._lanes.append(lane)
        self._offsets.append(offset)
        self._indices.append(index)

    def touch_row(self, row: int, position: Position) -> None:
        """Note that one delta changed one row."""
        self.touch(
            np.array([row], dtype=np.int64),
            np.array([position.lane], dtype=np.uint8),
            np.array([position.offset], dtype=np.int64),
            np.array([position.index], dtype=np.int32),
        )

    def refuse(self, position: Position, verdict: str, reason: str, listing: int = 0) -> None:
        """Note that a delta changed nothing, or was set aside."""
        self.refusals.append(Refusal(position, verdict, reason, listing))

    def urgent(self) -> np.ndarray:
        """Return the rows touched by what is urgent, ascending."""
        nothing = np.empty(0, dtype=np.int64)
        return np.unique(np.concatenate([nothing, *self._urgent]))

    def touched(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the rows touched, ascending, and for each the last position that touched it."""
        if not self._rows:
            nothing = np.empty(0, dtype=np.int64)
            return nothing, nothing.astype(np.uint8), nothing, nothing.astype(np.int32)
        noted = (self._rows, self._lanes, self._offsets, self._indices)
        # Mostly all facts come in one block.
        rows, lanes, offsets, indices = (
            pieces[0] if len(pieces) == 1 else np.concatenate(pieces) for pieces in noted
        )
        last = lasts(rows)
        return rows[last], lanes[last], offsets[last], indices[last]
