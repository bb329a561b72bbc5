"""Short byte strings by row, in one buffer: what people call each listing.

A list of ``bytes`` costs 41 bytes and the allocator's rounding beside each text; here a text costs
sixteen. A text keeps the room that it was given, and one that outgrows it gets twice as much at
the end: so whoever renames a listing for ever wastes a bounded number of bytes, and nothing is ever
packed again while a microbatch waits. A restored table is tight.
"""

from collections.abc import Sequence

import numpy as np

from engine.room import grown, room


class Texts:
    """Texts by row number; a row that was never set is empty."""

    def __init__(self, capacity: int = 256) -> None:
        self._begins = room(capacity, np.int64)
        self._sizes = room(capacity, np.int32)
        self._rooms = room(capacity, np.int32)
        self._buffer = bytearray()

    @property
    def buffer_bytes(self) -> int:
        """Return how long the buffer is."""
        return len(self._buffer)

    def fit(self, rows: int) -> None:
        """Make room for ``rows`` rows."""
        if len(self._begins) < rows:
            self._begins = grown(self._begins, rows)
            self._sizes = grown(self._sizes, rows)
            self._rooms = grown(self._rooms, rows)

    def __getitem__(self, row: int) -> bytes:
        begin, size = int(self._begins[row]), int(self._sizes[row])
        return bytes(self._buffer[begin : begin + size])

    def __setitem__(self, row: int, text: bytes) -> None:
        size, room = len(text), int(self._rooms[row])
        if size > room:
            self._begins[row] = len(self._buffer)
            self._rooms[row] = room = max(size, 2 * room)
            self._buffer += text.ljust(room, b"\0")
        else:
            begin = int(self._begins[row])
            self._buffer[begin : begin + size] = text
        self._sizes[row] = size

    def of(self, rows: np.ndarray) -> list[bytes]:
        """Return the texts of some rows."""
        begins, sizes = self._begins[rows].tolist(), self._sizes[rows].tolist()
        with memoryview(self._buffer) as buffer:
            return [
                bytes(buffer[begin : begin + size])
                for begin, size in zip(begins, sizes, strict=True)
            ]

    def put(self, rows: np.ndarray, texts: Sequence[bytes]) -> None:
        """Set the texts of distinct rows, all at once if they are new."""
        if self._rooms[rows].any():
            for row, text in zip(rows.tolist(), texts, strict=True):
                self[row] = text
            return
        sizes = np.fromiter(map(len, texts), dtype=np.int32, count=len(texts))
        ends = np.cumsum(sizes, dtype=np.int64) + len(self._buffer)
        self._begins[rows] = ends - sizes
        self._sizes[rows] = self._rooms[rows] = sizes
        self._buffer += b"".join(texts)
