"""Names found as blocks of bytes: open addressing in arrays, nothing a name in Python.

A feed names the same things again and again. What was checked once is looked up here by its very
bytes, compared whole: a hash only says where to look.
"""

import os
from collections.abc import Callable, Hashable, Sequence

import numpy as np

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
_SEED = np.uint64(int.from_bytes(os.urandom(8), "little"))
"""Names lie elsewhere in each process, so nobody can aim at a place. It decides nothing."""


ONE_BY_ONE_MAX = 8
"""So few names find their places sooner alone than in one more round of array calls."""


class NameTable:
    """A bounded memory from names of equal shape (lengths of their parts) to 64-bit numbers."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._parts: dict[Hashable, _Part] = {}

    def find(
        self,
        shape: Hashable,
        names: np.ndarray,
        admit: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return uint64[n], each name's number, and boolean[n], which have none.

        Args:
            shape: what tells names of one sort from those of another that look alike.
            names: uint8[n, bytes].
            admit: asked for the numbers of names seen first, given where they stand in ``names``;
                it returns uint64[n], and boolean[n], which have one: others are not remembered.
        """
        words = _words(names)
        part = self._parts.get(shape)
        if part is None:
            part = self._parts[shape] = _Part(words.shape[1])
        hashes = _hashes(words)
        numbers, known = part.find(words, hashes)
        if np.count_nonzero(known) == len(known):
            return numbers, ~known
        missing = (~known).nonzero()[0]
        # Each new name once, whatever its hash: the bytes themselves tell names apart.
        first, inverse = _distinct(words[missing], hashes[missing])
        firsts = missing[first]
        new, has = admit(firsts)
        new[~has] = 0
        numbers[missing], known[missing] = new[inverse], has[inverse]
        if self._count + len(firsts) > self._limit:
            self._parts, self._count = {}, 0
            part = self._parts[shape] = _Part(words.shape[1])
        fresh = firsts[has]
        part.insert(words[fresh], hashes[fresh], new[has])
        self._count += len(fresh)
        return numbers, ~known


def rows_alike(rows: np.ndarray) -> list[np.ndarray]:
    """Return where equal rows of uint8[n, bytes] stand: int64[m] for each distinct one."""
    if (rows == rows[0]).all():
        return [np.arange(len(rows))]
    words = _words(rows)
    _, inverse = _distinct(words, _hashes(words))
    order = np.argsort(inverse, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1)


class _Part:
    """The names of one shape."""

    def __init__(self, width: int) -> None:
        self._names = np.zeros((64, width), dtype=np.uint64)
        self._numbers = np.zeros(64, dtype=np.uint64)
        self._taken = np.zeros(64, dtype=bool)
        self._used = 0

    def find(self, words: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of each name, and which are known."""
        mask = len(self._taken) - 1
        place = (hashes & np.uint64(mask)).astype(np.int64)
        same, taken = _equal(self._names, place, words), self._taken[place]
        known = taken & same
        at = (taken & ~same).nonzero()[0]
        while len(at) > ONE_BY_ONE_MAX:
            place[at] = (place[at] + 1) & mask
            same = _equal(self._names, place[at], words[at])
            taken = self._taken[place[at]]
            known[at] = taken & same
            at = at[taken & ~same]
        for one in at.tolist():
            there, name = (int(place[one]) + 1) & mask, words[one].tobytes()
            while self._taken[there] and self._names[there].tobytes() != name:
                there = (there + 1) & mask
            place[one], known[one] = there, self._taken[there]
        return self._numbers[place], known

    def insert(self, words: np.ndarray, hashes: np.ndarray, numbers: np.ndarray) -> None:
        """Remember names that are distinct and not known."""
        while 2 * (self._used + len(words)) > len(self._taken):
            self._grow()
        mask = len(self._taken) - 1
        place = (hashes & np.uint64(mask)).astype(np.int64)
        waiting = np.arange(len(words))
        self._used += len(words)
        claims = np.empty(len(self._taken) if len(words) > ONE_BY_ONE_MAX else 0, dtype=np.int64)
        while len(waiting) > ONE_BY_ONE_MAX:
            # Of several names that want one place one gets it; the others look further.
            want = place[waiting]
            claims[want] = waiting
            wins = (claims[want] == waiting) & ~self._taken[want]
            won, want = waiting[wins], want[wins]
            self._names[want], self._numbers[want] = words[won], numbers[won]
            self._taken[want] = True
            waiting = waiting[~wins]
            place[waiting] = (place[waiting] + 1) & mask
        for one in waiting.tolist():
            there = int(place[one])
            while self._taken[there]:
                there = (there + 1) & mask
            self._names[there], self._numbers[there] = words[one], numbers[one]
            self._taken[there] = True

    def _grow(self) -> None:
        taken = self._taken
        words, numbers = self._names[taken], self._numbers[taken]
        size = 2 * len(taken)
        self._names = np.zeros((size, words.shape[1]), dtype=np.uint64)
        self._numbers = np.zeros(size, dtype=np.uint64)
        self._taken = np.zeros(size, dtype=bool)
        self._used = 0
        self.insert(words, _hashes(words), numbers)


def _distinct(words: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each distinct name stands first, and for each name which of them it is."""
    order = hashes.argsort(kind="stable")
    ordered = hashes[order]
    begins = np.ones(len(order), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    inverse = np.empty(len(order), dtype=np.int64)
    inverse[order] = begins.cumsum() - 1
    first = order[begins]
    if len(first) < len(order) and not (words == words[first[inverse]]).all():
        # Two names have one hash.
        raw = np.ascontiguousarray(words).view(np.dtype((np.void, 8 * words.shape[1])))
        _, first, inverse = np.unique(raw.reshape(-1), return_index=True, return_inverse=True)
    return first, inverse


def _equal(names: np.ndarray, place: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return which words stand at their places; names have few words, so word by word."""
    held = names.take(place, axis=0)
    same = held[:, 0] == words[:, 0]
    for column in range(1, words.shape[1]):
        same &= held[:, column] == words[:, column]
    return np.asarray(same)


def padded(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return uint8[n, bytes] of each row's parts in a row, with zeros up to whole words."""
    length = sum(part.shape[1] for part in parts)
    names = np.zeros((len(parts[0]), max(-(-length // 8), 1) * 8), dtype=np.uint8)
    begin = 0
    for part in parts:
        names[:, begin : begin + part.shape[1]] = part
        begin += part.shape[1]
    return names


def _words(names: np.ndarray) -> np.ndarray:
    """Return the bytes as uint64[n, words], padded with zeros."""
    if names.shape[1] % 8 or not names.shape[1] or not names.flags.c_contiguous:
        names = padded([names])
    return names.view(np.uint64)


def _hashes(words: np.ndarray) -> np.ndarray:
    hashes = np.full(len(words), _SEED, dtype=np.uint64)
    for column in range(words.shape[1]):
        hashes ^= words[:, column]
        hashes *= _MIX
        hashes ^= hashes >> _SHIFT
    return hashes
