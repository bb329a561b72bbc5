"""Every listing of a shard in memory: one dense row each, found by its 64-bit key.

Struct of arrays, grouped: what a microbatch reads and writes together stands together in a packed
record, because rows are touched at random and one cache miss a group beats one a column. Texts,
which only people read, are msgpack bytes beside.

Row numbers never leave a shard. A removed row is a tombstone, and is reused only a day of decided
time later: a reuse that waited for a checkpoint instead would make decisions depend on when
checkpoints were taken, and replay could not repeat them.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import astuple

from engine.decided import QUOTE_DTYPE, State
from engine.room import grown, room
from engine.texts import Texts

SALES_KEPT = 4
"""Newest sales a row remembers one by one, to subtract them again from a count that comes late."""

SLOT_MS = 600_000
"""Price changes are counted in slots of ten minutes."""

CHANGE_SLOTS = 8
"""Slots in which a row counts its changes: an hour, the running one, and a spare."""

REMOVED, KVI, RELEASED, PLANNED, BEHIND, WAITS, RETURNS = 1, 2, 4, 8, 16, 32, 64
"""Bits of ``flags``. RELEASED: a person resumed after the breaker had held ``held_minor``. PLANNED:
a person saw the row's next price in a plan and applied it. BEHIND: by revenue it is behind the
share priced in real time. WAITS: facts changed it, and it is looked at at the next full hour.
RETURNS: its pin has ended, and its price is on the way back, however long that is cut short
or withheld."""

REUSE_AFTER_MS = 86_400_000
"""How long a removed row stays a tombstone."""

LISTING_DTYPE = np.dtype(
    [
        ("key", "<u8"),
        ("retailer", "<u4"),  # number in engine.retailers
        ("group", "<u4"),  # number in engine.groups: policy and fees
        ("own", "<u4"),  # number of the set of names under which we appear as a rival, 0: unknown
        ("currency", "<u2"),  # number in engine.currencies
        ("flags", "u1"),
        ("state", "u1"),  # State, 0 before the first decision
        ("listing_ms", "<i8"),  # observed_ms of the newest fact of each kind
        ("cost_ms", "<i8"),
        ("stock_ms", "<i8"),
        (
            "price_ms",
            "<i8",
        ),  # newest word on the price in force: import, report or our own decision
        ("approval_ms", "<i8"),  # newest approval, rejection, pin or unpin
        ("cost_minor", "<i4"),  # -1: unknown
        ("counted", "<i4"),  # units at the last count, -1: never
        ("sold_since", "<i4"),  # units sold after it
        ("rrp_minor", "<i4"),
        ("map_minor", "<i4"),
        ("in_force_minor", "<i4"),  # 0: none
        ("proposed_minor", "<i4"),  # 0: nothing
        ("status_quo_minor", "<i4"),  # the price found at import and the cost then
        ("status_quo_cost_minor", "<i4"),
        (
            "approved_minor",
            "<i4",
        ),  # a person's price, in force until the engine's proposal moves on
        ("approved_over_minor", "<i4"),  # the proposal it stands over, 0: none yet
        ("held_minor", "<i4"),  # what the breaker held back, 0: nothing
        ("rejected_minor", "<i4"),  # the proposal that a person rejected, 0: none
        ("pinned_minor", "<i4"),  # 0: none
        ("pin_until_ms", "<i8"),  # NEVER: until unpinned
        ("proposed_ms", "<i8"),  # since when the proposal waits
        ("basis_unit", "<f4"),  # unit cost, fees included, behind the price in force; 0: unknown
        ("basis_rate", "<f4"),  # currency rate behind the reference rival then; 0: none
        ("basis_currency", "u1"),  # and that currency's number, 0: the listing's own
        ("window_minor", "<i4"),  # price at the beginning of the row's breaker window
        ("window_ms", "<i8"),
        ("window_flags", "u1"),  # what the row has counted for in its window
        ("change_slot", "<i4"),  # ten-minute slot of changes[0]
        ("changes", "u1", (CHANGE_SLOTS,)),  # price changes, newest slot first
        ("units_sold", "<i8"),  # ever
        ("sale_ms", "<i8", (SALES_KEPT,)),  # newest first, -1: none
        ("sale_units", "<i4", (SALES_KEPT,)),
        ("leash_ms", "<i8"),  # when engine.leash moored the reference rival, 0: never
        ("leash_log", "<f4"),  # and where, as a logarithm
        ("leash_borne_log", "<f4"),  # and what was borne out then, 0: nothing
        ("quote_seq", "<i8"),  # where the row's last quote stands in the decision log
        ("quote_index", "<i4"),
        # Of engine.brake, in slots of ten minutes; 0: nothing to remember.
        ("war_slot", "<i4"),  # when the first cut was followed that counts
        ("brake_slot", "<i4"),  # when the newest brake ends
        ("war_top_minor", "<i4"),  # the price in force before the first of them, or of those before
        ("war_before_minor", "<i4"),  # the price in force before the last of them
        ("war_rival_minor", "<i4"),  # the reference that asked for it
        ("war_fall", "<f4"),  # what followed cuts took, the first apart, as a logarithm
        ("war_rounds", "u1"),  # cuts followed since a rival last regained what he had cut
        ("war_turns", "u1"),  # deep cuts that were taken back
    ]
)

BEFORE_BRAKES = np.dtype(LISTING_DTYPE.descr[:-8])
"""What checkpoints held before wars were counted."""


def listings_of(encoded: bytes, rows: int) -> np.ndarray:
    """Return LISTING_DTYPE[rows] as a checkpoint holds them, of before wars were counted, too."""
    return records_of(encoded, rows, LISTING_DTYPE, BEFORE_BRAKES)


NEVER = 2**62
"""A time that does not come."""


class ListingText(Struct, frozen=True, array_like=True):
    """What people call a listing."""

    channel: str
    sku: str
    title: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()
    brand: str = ""


def new_row() -> np.ndarray:
    """Return a listing of which nothing is known, not even its key: LISTING_DTYPE[1]."""
    row = np.zeros(1, dtype=LISTING_DTYPE)
    for name in ("listing_ms", "cost_ms", "stock_ms", "price_ms", "approval_ms"):
        row[name] = -1
    row["cost_minor"] = row["counted"] = row["status_quo_cost_minor"] = -1
    row["sale_ms"] = -1
    row["pin_until_ms"] = NEVER
    return row


EMPTY, FORGOTTEN = -1, -2
"""What a place of the key index holds that names no row; a forgotten one is probed past."""

ONE_BY_ONE_MAX = 8
"""So few keys are faster looked for alone than in one more round of array calls."""


class KeyIndex:
    """Row numbers by 64-bit key: open addressing in one array, looked up as a block.

    Keys are blake2b, hence already mixed. They are compared with the column that holds them anyway:
    a second copy would weigh twice as much as the numbers, and its cache lines, too, would have to
    come from memory. A dictionary would take ten times as much.
    """

    def __init__(self, keys: np.ndarray, capacity: int = 1024) -> None:
        assert capacity & (capacity - 1) == 0
        self.keys = keys  # uint64[rows], the owner's column; he sets it again when his table moves
        self._rows = _no_rows(capacity)
        self._used = 0  # places that are not empty
        self._forgotten = False  # whether any place was forgotten

    def rows(self, keys: np.ndarray) -> np.ndarray:
        """Return int32[n], the row of each key or -1."""
        mask = len(self._rows) - 1
        place = (keys & np.uint64(mask)).astype(np.int64)
        found = self._rows.take(place)
        at = self._others(found, keys)
        place, wanted = place[at], keys[at]
        while len(at) > ONE_BY_ONE_MAX:
            place = (place + 1) & mask
            found[at] = there = self._rows.take(place)
            on = self._others(there, wanted)
            at, place, wanted = at[on], place[on], wanted[on]
        for last, key in zip(at.tolist(), wanted.tolist(), strict=True):
            found[last] = self.row(key)
        return found

    def row(self, key: int) -> int:
        """Return the row of one key, or -1."""
        return int(self._rows[self._place(key)])

    def insert(self, row: int) -> None:
        """Let the key that the column holds for ``row`` name it."""
        assert row >= 0
        if 2 * (self._used + 1) > len(self._rows):
            taken = self._rows[self._rows >= 0]
            self.rebuild(taken[taken != row])
        place = self._place(int(self.keys[row]))
        self._used += int(self._rows[place] == EMPTY)
        self._rows[place] = row

    def forget(self, key: int) -> None:
        """Let ``key`` name no row. The column must hold it still."""
        place = self._place(key)
        assert self._rows[place] >= 0
        self._rows[place] = FORGOTTEN
        self._forgotten = True

    def rebuild(self, rows: np.ndarray) -> None:
        """Forget everything and let the keys of these rows name them: int32[n], distinct keys."""
        capacity = 1024
        while capacity <= 2 * len(rows):
            capacity *= 2
        self._rows = _no_rows(capacity)
        self._used, self._forgotten = len(rows), False
        mask = capacity - 1
        place = (self.keys[rows] & np.uint64(mask)).astype(np.int64)
        waiting = np.arange(len(rows))
        claims = np.empty(capacity, dtype=np.int32)
        while len(waiting):
            # Of several keys that want one place one gets it; the others look further.
            want = place[waiting]
            claims[want] = waiting
            wins = (claims[want] == waiting) & (self._rows[want] < 0)
            self._rows[want[wins]] = rows[waiting[wins]]
            waiting = waiting[~wins]
            place[waiting] = (place[waiting] + 1) & mask

    def _others(self, found: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return which places hold something else than was looked for there, int64[n]."""
        other = self.keys[found] != keys  # of a place without a row that says nothing
        if self._forgotten:
            other |= found == FORGOTTEN
        other &= found != EMPTY
        return np.asarray(other.nonzero()[0])

    def _place(self, key: int) -> int:
        mask = len(self._rows) - 1
        place = key & mask
        while (row := self._rows[place]) != EMPTY:
            if row >= 0 and int(self.keys[row]) == key:
                break
            place = (place + 1) & mask
        return place


def _no_rows(capacity: int) -> np.ndarray:
    return np.full(capacity, EMPTY, dtype=np.int32)


class ListingTable:
    """The listings of one shard. Arrays grow by doubling; ``rows`` of them are in use."""

    def __init__(self, capacity: int = 256) -> None:
        self.listings = room(capacity, LISTING_DTYPE)
        self.quotes = room(capacity, QUOTE_DTYPE)
        self.texts = Texts(capacity)
        self.rows = 0
        self.live = 0  # rows that are not tombstones
        self.index = KeyIndex(self.listings["key"])
        self._tombstones: list[tuple[int, int]] = []  # (removed at, row), oldest first
        self._text_encoder = msgspec.msgpack.Encoder()
        self._new_row = new_row()
        self._text_decoder = msgspec.msgpack.Decoder(ListingText)

    @property
    def capacity(self) -> int:
        """How many rows fit before the arrays double."""
        return len(self.listings)

    def add(self, key: int, text: ListingText, now_ms: int) -> int:
        """Return the row of a new listing; the caller fills it and grows what stands beside."""
        row = self.index.row(key)
        if row >= 0:
            assert self.listings["flags"][row] & REMOVED, "the listing is there already"
            self._tombstones = [entry for entry in self._tombstones if entry[1] != row]
        elif self._tombstones and self._tombstones[0][0] + REUSE_AFTER_MS <= now_ms:
            row = self._tombstones.pop(0)[1]
            self.index.forget(int(self.listings["key"][row]))
        else:
            if self.rows == self.capacity:
                self.reserve(self.rows + 1)
            row = self.rows
            self.rows += 1
        put(self.listings, np.array([row]), self._new_row)
        self.listings["key"][row] = key
        put(self.quotes, np.array([row]), np.zeros(1, dtype=QUOTE_DTYPE))
        self.set_text(row, text)
        self.index.insert(row)
        self.live += 1
        return row

    def remove(self, row: int, now_ms: int) -> None:
        """Make ``row`` a tombstone. Its key stays known, so that old facts find it removed."""
        assert not self.listings["flags"][row] & REMOVED
        self.listings["flags"][row] |= REMOVED
        self.listings["state"][row] = State.REMOVED
        self._tombstones.append((now_ms, row))
        self.live -= 1

    def live_rows(self, keys: np.ndarray) -> np.ndarray:
        """Return int32[n], the row of each key; -1 where it is unknown or removed."""
        rows = self.index.rows(keys)
        if self.live == self.rows:
            return rows
        removed = (self.listings["flags"][rows] & REMOVED) != 0
        rows[removed & (rows >= 0)] = -1
        return rows

    def live_row(self, key: int) -> int:
        """Return the row of one key; -1 if it is unknown or removed."""
        row = self.index.row(key)
        return -1 if row >= 0 and self.listings["flags"][row] & REMOVED else row

    def text(self, row: int) -> ListingText:
        """Return what people call the listing."""
        return self._text_decoder.decode(self.texts[row])

    def texts_of(self, rows: np.ndarray) -> Iterator[ListingText]:
        """Give what people call some listings, one after the other."""
        return map(self._text_decoder.decode, self.texts.of(rows))

    def set_text(self, row: int, text: ListingText) -> None:
        """Remember what people call the listing. A brand that was not told takes no byte."""
        told = text if text.brand else astuple(text)[:-1]
        self.texts[row] = self._text_encoder.encode(told)

    def tombstones(self) -> list[tuple[int, int]]:
        """Return (removed at, row), oldest first."""
        return list(self._tombstones)

    def restore(self, rows: int, tombstones: list[Any]) -> None:
        """Index what a checkpoint has filled in."""
        self.rows = rows
        self._tombstones = [(int(at), int(row)) for at, row in tombstones]
        self.live = rows - len(self._tombstones)
        self.index.rebuild(np.arange(rows, dtype=np.int32))

    def reserve(self, rows: int) -> None:
        """Make room for ``rows`` rows."""
        if self.capacity < rows:
            self.listings = grown(self.listings, rows)
            self.index.keys = self.listings["key"]
            self.quotes = grown(self.quotes, rows)
            self.texts.fit(self.capacity)


def records_of(encoded: bytes, rows: int, dtype: np.dtype, before: np.dtype) -> np.ndarray:
    """Return dtype[rows] from its bytes, or from those of ``before``; what that lacks is zero."""
    if len(encoded) != rows * before.itemsize:
        return np.frombuffer(encoded, dtype=dtype)
    known = np.frombuffer(encoded, dtype=before)
    records = np.zeros(rows, dtype=dtype)
    for name in before.names or ():
        records[name] = known[name]
    return records


def put(table: np.ndarray, rows: np.ndarray, records: np.ndarray) -> None:
    """Write packed records into ``rows``: twenty times faster than assigning them as records.

    (numpy copies a structured element field by field, and raw bytes at once; ``take`` knows that,
    assignment does not.)
    """
    assert table.dtype == records.dtype
    raw = raw_dtype(table.dtype.itemsize)
    table.view(raw)[rows] = records.view(raw)


def taken(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return copies of packed records (one dimension), as ``table.take(rows)`` in half its time."""
    return table.view(raw_dtype(table.dtype.itemsize)).take(rows).view(table.dtype)


def copied(records: np.ndarray) -> np.ndarray:
    """Return a copy of packed records (contiguous), as raw bytes for the same reason."""
    raw = raw_dtype(records.dtype.itemsize)
    return np.asarray(records.view(raw).copy().view(records.dtype))


@cache
def raw_dtype(size: int) -> np.dtype:
    """Return the type of a record of ``size`` bytes that nobody looks into."""
    return np.dtype((np.void, size))
