"""The newest price of every listing of a shard, packed: a cache that lost all is filled from it."""

import numpy as np

from engine.decided import State
from engine.listing_table import KeyIndex, put
from engine.room import grown

PRICE_DTYPE = np.dtype(
    [
        ("listing", "<u8"),
        ("state", "u1"),
        ("in_force_minor", "<i4"),
        ("proposed_minor", "<i4"),
        ("floor_minor", "<i4"),
        ("ceiling_minor", "<i4"),
        ("seq", "<i8"),
        ("index", "<i4"),  # in its decision record
        ("decided_ms", "<i8"),  # 0: before the checkpoint that the follower began at
        ("appended_ms", "<i8"),
    ]
)

_FROM_QUOTE = (
    "listing",
    "state",
    "in_force_minor",
    "proposed_minor",
    "floor_minor",
    "ceiling_minor",
)


class NewestPrices:
    """One row a listing, about 60 bytes with its index, in the order of their first price."""

    def __init__(self) -> None:
        self.rows = 0
        self._table = np.zeros(256, dtype=PRICE_DTYPE)
        self._index = KeyIndex(self._table["listing"])

    def take(
        self,
        quotes: np.ndarray,
        seq: int | np.ndarray,
        indices: np.ndarray,
        decided_ms: int = 0,
        appended_ms: int = 0,
    ) -> np.ndarray:
        """Remember quotes; return them packed.

        Args:
            quotes: QUOTE_DTYPE[n].
            indices: int[n], where in its decision each stands.
        """
        packed = np.zeros(len(quotes), dtype=PRICE_DTYPE)
        for name in _FROM_QUOTE:
            packed[name] = quotes[name]
        packed["seq"], packed["index"] = seq, indices
        packed["decided_ms"], packed["appended_ms"] = decided_ms, appended_ms
        rows = self._index.rows(packed["listing"]).astype(np.int64)
        for at in np.flatnonzero(rows < 0).tolist():
            if (row := self._index.row(int(packed["listing"][at]))) >= 0:
                rows[at] = row  # twice in one decision
                continue
            if self.rows == len(self._table):
                self._table = grown(self._table)
                self._index.keys = self._table["listing"]
            rows[at] = self.rows
            self._table["listing"][self.rows] = packed["listing"][at]
            self._index.insert(self.rows)
            self.rows += 1
        put(self._table, rows, packed)
        return packed

    def block(self, start: int, rows_max: int) -> np.ndarray:
        """Return the prices from row ``start`` on, at most ``rows_max``, without removed ones."""
        block = self._table[start : min(start + rows_max, self.rows)]
        return np.asarray(block[block["state"] != State.REMOVED])
