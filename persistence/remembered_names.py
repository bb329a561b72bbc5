"""Names that were checked before and their numbers: bounded memories that decide nothing."""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from engine.deltas import Currency, Name
from engine.microbatch import currency_code
from engine.routing import name64
from persistence.name_tables import NameTable, padded, rows_alike
from persistence.names import is_valid

SKUS_AT_ONCE_MIN = 8
"""Fewer new SKUs of one channel are judged one by one: arrays cost as much for two."""


class Remembered:
    """A bounded memory from names to numbers: the newer half is kept when it is full."""

    def __init__(self, admit: Callable[[Any], int | None], limit: int, known: dict[Any, int]):
        self._admit = admit
        self._half = limit // 2
        self._known = known
        self._young: dict[Any, int] = dict(known)
        self._old: dict[Any, int] = {}

    def find(self, names: Sequence[Any], refused: Callable[[int], None]) -> list[int | None]:
        """Return each name's number; call ``refused`` with the index of each that has none."""
        found: list[int | None] = list(map(self._young.get, names))
        if None in found:
            for index, number in enumerate(found):
                if number is None:
                    found[index] = self._look(names[index])
                    if found[index] is None:
                        found[index] = 0
                        refused(index)
        return found

    def _look(self, name: Any) -> int | None:
        number = self._young.get(name)  # it may have come earlier in this very block
        if number is None:
            number = self._old.get(name)
            if number is None:
                number = self._admit(name)
            if number is not None:
                if len(self._young) >= self._half:
                    self._old, self._young = self._young, dict(self._known)
                self._young[name] = number
        return number


class AlikeNames:
    """Looks up the names of records that are written alike, as blocks of bytes."""

    def __init__(
        self,
        admit: Callable[[tuple[bytes | None, str, str, str]], int | None],
        admit_skus: Callable[
            [Sequence[bytes | None], str, str, np.ndarray], tuple[np.ndarray, np.ndarray]
        ],
        limit: int,
    ) -> None:
        """``admit`` judges a listing, ``admit_skus`` uint8[n, bytes] of one channel."""
        self._admit = admit
        self._admit_skus = admit_skus
        self._limit = limit
        self._listings = NameTable(limit)
        self._tables = {b"rival": NameTable(limit), b"source": NameTable(limit)}
        self._key_numbers: dict[bytes | None, int] = {}
        self._keys: list[bytes | None] = []
        self._block_keys = np.empty(0, dtype=np.uint32)

    def begin(self, keys: list[bytes | None]) -> None:
        """Take the records' keys of the block whose names will be asked for."""
        if len(self._key_numbers) > self._limit:
            self._key_numbers, self._listings = {}, NameTable(self._limit)
        self._keys = keys
        known, count = self._key_numbers, len(keys)
        if keys.count(keys[0]) == count:  # mostly: then its number is looked up once
            numbers = np.full(count, known.setdefault(keys[0], len(known)))
        else:
            numbers = np.fromiter(map(known.get, keys, repeat(-1)), np.int64, count)
        if (numbers < 0).any():
            numbers = np.fromiter((known.setdefault(key, len(known)) for key in keys), np.int64)
        self._block_keys = numbers.astype(np.uint32)

    def listings(
        self, parts: Sequence[np.ndarray], places: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return each listing's key, and which have none.

        ``parts`` are retailers, channels and SKUs, each uint8[n, bytes].
        """
        names = padded((*parts, self._block_keys[places].view(np.uint8).reshape(-1, 4)))
        shape = tuple(part.shape[1] for part in parts)
        channel, sku, end = shape[0], shape[0] + shape[1], sum(shape)

        def admit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            numbers, has = np.zeros(len(rows), dtype=np.uint64), np.zeros(len(rows), dtype=bool)
            under = [self._keys[place] for place in places[rows].tolist()]
            heads, skus = names[rows, :sku], names[rows, sku:end]
            for which in rows_alike(heads):
                # Plain ASCII, so that a character is a byte.
                head = heads[which[0]].tobytes().decode("ascii")
                of = (head[:channel], head[channel:])
                mine = [under[one] for one in which.tolist()]
                if len(which) >= SKUS_AT_ONCE_MIN:
                    numbers[which], has[which] = self._admit_skus(mine, *of, skus[which])
                    continue
                for one, key in zip(which.tolist(), mine, strict=True):
                    number = self._admit((key, *of, skus[one].tobytes().decode("ascii")))
                    numbers[one], has[one] = number or 0, number is not None
            return numbers, has

        return self._listings.find(shape, names, admit)

    def names(self, field: bytes, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of rivals, sources or events, and which have none."""
        length = names.shape[1]
        if field == b"event_id":  # each comes once, so there is nothing to remember
            known = 0 < length <= 200
            texts = [row.tobytes().decode() for row in names] if known else [""] * len(names)
            return unsigned([name64(text) for text in texts]), np.full(len(names), not known)

        def admit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found = [admit_name(name.tobytes().decode()) for name in names[rows]]
            has = np.array([number is not None for number in found], dtype=bool)
            return unsigned([number or 0 for number in found]), has

        return self._tables[field].find(length, names, admit)


def unsigned(numbers: list[Any]) -> np.ndarray:
    """Return numbers as uint64[n]."""
    return np.fromiter(numbers, np.uint64, len(numbers))


def admit_name(name: Any) -> int | None:
    """Return a name's number, ``None`` if it is no valid name."""
    return name64(name) if is_valid(name, Name) else None


def admit_currency(name: Any) -> int | None:
    """Return a currency's number, ``None`` if it is none."""
    return currency_code(name) if is_valid(name, Currency) else None
