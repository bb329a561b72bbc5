"""JSON records that are written alike, read as a table of bytes: no Python a record.

A program writes its facts in one way: the same keys in the same order, only the values differ. So
records of one length that agree in every byte but those of the values have the fields of the one
that was read first, slowly and thoroughly: the same keys, each once, in the same places. What may
differ is judged as columns of bytes: digits without a leading zero, and plain text without a quote,
a backslash or a control character. Whatever differs otherwise is left to ``json_facts``.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from engine.deduplication import stable_order
from engine.microbatch import (
    COMPETITOR_PRICED,
    COST_CHANGED,
    FLAG_CONDITION_NEW,
    FLAG_IN_STOCK,
    STOCK_COUNTED,
    UNITS_SOLD,
    currency_code,
)
from kernels.limits import PRICE_MINOR_MAX

ALIKE_MIN = 24
"""Fewer records of one length are read one by one: columns cost as much however short they are."""

TEMPLATES_A_LENGTH_MAX = 16
TEMPLATES_MAX = 1_024
NEW_TEMPLATES_MAX = 8
"""In one block so many records may be looked at for being the first of their kind."""

ROWS_AT_ONCE = 512
"""So many records are compared at once with how they should be written."""

DIGITS_MAX = 18
"""Longest number read as columns; it fits 63 bits. A longer one is read slowly."""

_POWERS = 10 ** np.arange(DIGITS_MAX - 1, -1, -1, dtype=np.int64)

_FIELD = re.compile(rb'\s*"([a-z_]+)"\s*:\s*("[^"\\\x00-\x1f]*"|[0-9]+|true|false|null)\s*([,}])')
_AMOUNTS = {
    COMPETITOR_PRICED: (b"price_minor", 1, PRICE_MINOR_MAX),
    STOCK_COUNTED: (b"units", 0, 2**31 - 1),
    UNITS_SOLD: (b"units", 0, 2**31 - 1),
    COST_CHANGED: (b"cost_minor", 0, PRICE_MINOR_MAX),
}
_BOUNDS = {
    b"observed_ms": (0, 2**53),
    b"shipping_minor": (0, PRICE_MINOR_MAX),
    b"source_seq": (0, 2**62),
    b"price_minor": (1, PRICE_MINOR_MAX),
}
_TEXTS = frozenset((b"retailer", b"channel", b"sku", b"rival", b"source", b"event_id"))
_LISTING = (b"retailer", b"channel", b"sku")


class Template(Struct, frozen=True, eq=False):
    """One way to write one kind of fact."""

    kind: int
    sample: np.ndarray  # uint8[bytes]
    varies: np.ndarray  # bool[bytes], where a value stands
    numbers: dict[bytes, slice]
    texts: dict[bytes, slice]
    text_bytes: np.ndarray  # int64, places of all bytes of texts
    constants: dict[bytes, bytes]  # values that are part of the way: words, currency, condition

    def fits(self, table: np.ndarray) -> np.ndarray:
        """Return which rows of uint8[rows, bytes] are written this way."""
        found = np.empty(len(table), dtype=bool)
        # Some at a time, so that what is compared stays in the cache: a third of the time.
        for begin in range(0, len(table), ROWS_AT_ONCE):
            piece = slice(begin, begin + ROWS_AT_ONCE)
            same = table[piece] == self.sample
            same |= self.varies
            found[piece] = _whole(same)
        return found


class Judges(Struct, frozen=True):
    """Who looks up the names of a block: asked with uint8 rows, they give numbers and misses."""

    listing: Callable[[Sequence[np.ndarray], np.ndarray], tuple[np.ndarray, np.ndarray]]
    name: Callable[[bytes, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Templates:
    """Remembers the ways in which facts were written; bounded, and nothing depends on it."""

    def __init__(self, kind_of: Callable[[bytes], int | None], judges: Judges) -> None:
        self._kind_of = kind_of
        self._judges = judges
        self._by_length: dict[int, list[Template]] = {}
        self._count = 0

    def fill(self, block: dict[str, np.ndarray], values: Sequence[bytes]) -> np.ndarray:
        """Fill the rows of a block whose records are alike; return which were, boolean[n]."""
        filled = np.zeros(len(values), dtype=bool)
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        order = stable_order(lengths)
        distinct, begins = np.unique(lengths[order], return_index=True)
        ends = [*begins[1:].tolist(), len(values)]
        joined, starts = b"".join(values), lengths.cumsum() - lengths
        odd = b"\\" in joined or not joined.isascii()
        tries = NEW_TEMPLATES_MAX
        for length, begin, end in zip(distinct.tolist(), begins.tolist(), ends, strict=True):
            if end - begin < ALIKE_MIN or length == 0:
                continue
            places = order[begin:end]
            table = _rows(joined, starts[places], length)
            if odd:
                plain = ((table != ord("\\")) & (table < 128)).all(axis=1)
                places, table = places[plain], table[plain]
            known = self._by_length.get(length, [])
            at = 0
            while len(places):
                if at == len(known):
                    if not tries:
                        break
                    tries -= 1
                    known = self._learn(length, table[0].tobytes(), known)
                    if at == len(known):  # this one is read slowly
                        places, table = places[1:], table[1:]
                        continue
                fits = known[at].fits(table)
                at += 1
                fitting = np.count_nonzero(fits)
                if fitting == len(fits):
                    mine, rows = places, table
                    places = places[:0]
                elif fitting:
                    mine, rows = places[fits], table[fits]
                    places, table = places[~fits], table[~fits]
                else:
                    continue
                filled[self._fill(block, known[at - 1], mine, rows)] = True
        return filled

    def _learn(self, length: int, value: bytes, known: list[Template]) -> list[Template]:
        """Return the templates of a length, with that of ``value`` if it has one."""
        template = template_of(value, self._kind_of(value))
        if template is None or len(known) >= TEMPLATES_A_LENGTH_MAX:
            return known
        if self._count >= TEMPLATES_MAX:
            self._by_length, self._count = {}, 0
        self._count += 1
        self._by_length[length] = [*known, template]
        return self._by_length[length]

    def _fill(
        self,
        block: dict[str, np.ndarray],
        template: Template,
        places: np.ndarray,
        table: np.ndarray,
    ) -> np.ndarray:
        """Fill the places whose values are sound, and return them."""
        texts = table.take(template.text_bytes, axis=1)
        sound = _whole((texts >= 32) & (texts != ord('"')))
        columns: dict[str, np.ndarray] = {}
        amount, least, most = _AMOUNTS[template.kind]
        for field, where in template.numbers.items():
            number, digits = _number(table[:, where])
            low, high = (least, most) if field == amount else _BOUNDS[field]
            sound &= digits & (number >= low) & (number <= high)
            if field == amount:
                columns["amount"] = number
            elif field.decode() in block:
                columns[field.decode()] = number
        parts = [table[:, template.texts[field]] for field in _LISTING]
        columns["listing"], missing = self._judges.listing(parts, places)
        sound &= ~missing
        for field in (b"rival", b"source", b"event_id"):
            if field in template.texts:
                number, missing = self._judges.name(field, table[:, template.texts[field]])
                columns["event" if field == b"event_id" else field.decode()] = number
                sound &= ~missing
        if template.kind == COMPETITOR_PRICED:
            currency = template.constants.get(b"currency", b"null")
            if currency != b"null":
                block["currency"][places] = currency_code(currency.decode())
            block["flags"][places] = _flags(template)
        if "source_seq" not in columns:
            block["source_seq"][places] = -1
        block["kind"][places] = template.kind
        for name, column in columns.items():
            block[name][places] = column
        return places if np.count_nonzero(sound) == len(sound) else places[sound]


def template_of(value: bytes, kind: int | None) -> Template | None:
    """Return the way in which a fact is written; ``None`` when it must be read slowly.

    ``kind`` is what the slow way says the value is, ``None`` if no plain fact.
    """
    if kind is None or not value.startswith(b"{"):
        return None
    numbers: dict[bytes, slice] = {}
    texts: dict[bytes, slice] = {}
    constants: dict[bytes, bytes] = {}
    varies = np.zeros(len(value), dtype=bool)
    at, closed = 1, False
    while at < len(value):
        field = None if closed else _FIELD.match(value, at)
        if field is None:
            return None
        name, (begin, end) = field.group(1), field.span(2)
        if value[begin : begin + 1].isdigit():
            if end - begin > DIGITS_MAX:
                return None
            numbers[name] = slice(begin, end)
            varies[begin:end] = True
        elif name in _TEXTS and value[begin : begin + 1] == b'"':
            texts[name] = slice(begin + 1, end - 1)
            varies[begin + 1 : end - 1] = True
        else:
            constants[name] = value[begin:end].strip(b'"')
        at, closed = field.end(), field.group(3) == b"}"
    needed = {b"observed_ms", _AMOUNTS[kind][0]}
    if not closed or not needed <= numbers.keys() or not set(_LISTING) <= texts.keys():
        return None
    return Template(
        kind=kind,
        sample=np.frombuffer(value, dtype=np.uint8),
        varies=varies,
        numbers=numbers,
        texts=texts,
        text_bytes=np.concatenate([np.arange(of.start, of.stop) for of in texts.values()]),
        constants=constants,
    )


def _rows(joined: bytes, starts: np.ndarray, length: int) -> np.ndarray:
    """Return uint8[n, length], the bytes from each of ``starts`` on, copied a row at once."""
    row = np.dtype((np.void, length))
    # Every place where a row may begin, one byte apart; no memory of its own.
    windows = np.ndarray((len(joined) - length + 1,), row, joined, strides=(1,))
    return np.asarray(windows[starts].view(np.uint8).reshape(-1, length))


def _number(digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int64[n], the numbers that rows of ASCII digits write, and which are such numbers."""
    values = digits - np.uint8(ord("0"))
    sound = _whole(values <= 9)
    if digits.shape[1] > 1:
        sound &= values[:, 0] != 0
    return values.astype(np.int64) @ _POWERS[DIGITS_MAX - digits.shape[1] :], sound


def _whole(judged: np.ndarray) -> np.ndarray:
    """Return boolean[n], which rows of boolean[n, bytes] are true throughout.

    Mostly all are, and a matrix is looked through as a whole in a quarter of the time.
    """
    if judged.all():
        return np.ones(len(judged), dtype=bool)
    return np.asarray(judged.all(axis=1))


def _flags(template: Template) -> int:
    in_stock = template.constants.get(b"in_stock", b"true") == b"true"
    new = template.constants.get(b"condition", b"new") == b"new"
    return FLAG_IN_STOCK * in_stock + FLAG_CONDITION_NEW * new
