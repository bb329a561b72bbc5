"""Rivals' offers: a table of their own, 32 bytes an offer, a bounded number a listing.

A listing holds up to ``PLACES`` blocks of four offers, an offer being what one source says of one
rival. What may be compared is new, in stock, fresh, not ourselves and in a currency with a fresh
rate; the lowest such landed price (price and shipping) is the reference.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from engine.currencies import Currencies
from engine.deduplication import distinct_of, pairs_of
from engine.listing_table import NEVER, put, taken
from engine.narrow import (
    alike,
    any_in_row,
    count_in_row,
    first_in_row,
    least_in_row,
    most_in_row,
    sorted_rows,
)
from engine.room import grown, room
from kernels.hyperparameters import (
    BORNE_OUT_LOG,
    OUTLIER_LOG_MIN,
    OUTLIER_OFFERS_MIN,
    QUORUM_FEEDS,
    TENURE_DAYS,
)
from kernels.limits import PRICE_MINOR_MAX

OFFERS_A_BLOCK = 4
PLACES = 6
OFFERS_MAX = OFFERS_A_BLOCK * PLACES
"""Most offers a listing remembers; another takes the place of the oldest, if that is stale."""

SOURCES_MAX = 65_535
"""The number that all of a retailer's sources share for which there is no other; it is not
remembered for whom. Numbers are a retailer's own, for an offer is only compared with others of its
listing."""

OFFER_IN_STOCK, OFFER_NEW, OFFER_UNPROVEN, OFFER_USED = 1, 2, 64, 128
OFFER_TENURE, OFFER_TENURE_SHIFT, TENURE_MAX = 60, 2, 15
"""Bits of an offer's ``flags``; the first two as in ``FactColumns``. USED: the place is taken.

UNPROVEN: the only price that was ever seen of it is quarantined; it may not be compared. TENURE:
four bits that count the days on which it was believed, as far as they go.
"""

OFFER_DTYPE = np.dtype(
    [
        ("rival", "<u8"),  # name64
        ("observed_ms", "<i8"),
        ("landed_minor", "<i4"),  # price and shipping, in the offer's currency
        ("suspect", "<f2"),  # log of the quarantined price over the believed one
        ("climb", "<f2"),  # log moves lately, leaking away by the slope limit
        ("source", "<u2"),  # number of the source, 0: none named
        ("suspect_minute", "<u2"),  # when the quarantined price was first seen, modulo 45 days
        ("currency", "u1"),  # number in engine.currencies, 0: the listing's own
        ("flags", "u1"),
        ("spread", "u1"),  # usual size of a log move, in 1/200
        ("suspect_times", "u1"),  # how often it was seen, 0: nothing is quarantined
    ]
)
assert OFFER_DTYPE.itemsize == 32

BLOCK_DTYPE = np.dtype((np.void, 32 * OFFERS_A_BLOCK))
"""A block as raw bytes: copied at once, where records are copied field by field."""

DAY_MS = 86_400_000

OWN_NAMES_MAX = 8
"""Most names under which a listing may appear in rivals' feeds."""


class Reference(Struct, frozen=True, eq=False):
    """What rivals say about some listings, one element a row."""

    landed_minor: np.ndarray  # int32, lowest comparable, in the listing's currency, 0: none
    rivals: np.ndarray  # uint16, distinct comparable rivals
    rate: np.ndarray  # float32, the rate that converted the lowest
    currency: np.ndarray  # uint8, the lowest's currency, 0: the listing's own, or no reference
    stale_rate: np.ndarray  # boolean: a comparable offer waits for a fresh rate
    all_stale: np.ndarray  # boolean: offers are known, none is comparable
    stale_ms: np.ndarray  # int64, when the next comparable offer goes stale, NEVER: none
    borne_out_minor: np.ndarray  # float64, the lowest that another feed bears out; 0: none
    told_minor: np.ndarray  # the lowest before the leash held it, see engine.leash


class RivalTable:
    """All offers of a shard. Block numbers are memory, never state: they decide nothing."""

    def __init__(self, capacity: int = 256) -> None:
        self.offers = room((capacity, OFFERS_A_BLOCK), OFFER_DTYPE)
        # The block in each listing's first place, second place and so on, as far as any has one;
        # 0: none. A listing's places are taken in order.
        self._places = [room(capacity, np.int32)]
        self._next = 1  # block 0 stays empty
        self._free: list[int] = []
        self._sources: dict[int, dict[int, int]] = {}  # retailer -> name64 -> number, from 1

    def fit(self, rows: int) -> None:
        """Make room for ``rows`` listings."""
        if len(self._places[0]) < rows:
            self._places = [grown(blocks, rows) for blocks in self._places]

    def known(self, rows: np.ndarray) -> np.ndarray:
        """Return boolean[rows], whether any offer of a listing was ever told."""
        return np.asarray(self._places[0][rows] > 0)

    def blocks_of(self, rows: np.ndarray) -> np.ndarray:
        """Return int32[rows, places], the blocks of each listing as far as any has one; 0: none."""
        found: list[np.ndarray] = []
        for blocks in self._places:
            of_rows = blocks.take(rows)
            if not np.count_nonzero(of_rows):
                break
            found.append(of_rows)
        if len(found) == 1:
            return found[0].reshape(-1, 1)
        return np.stack(found, axis=1) if found else np.zeros((len(rows), 0), dtype=np.int32)

    def source_numbers(
        self, retailers: np.ndarray, sources: np.ndarray, sources_max: int = SOURCES_MAX
    ) -> np.ndarray:
        """Return int64[n], the number of each source; beyond ``sources_max``, all share one."""
        if not np.count_nonzero(sources):
            return np.zeros(len(sources), dtype=np.int64)
        pairs, inverse = pairs_of(retailers, sources)
        numbers = [self._source_number(*pair, sources_max) for pair in pairs]
        return np.asarray(np.array(numbers, dtype=np.int64)[inverse])

    def offers_of(self, rows: np.ndarray) -> np.ndarray:
        """Return OFFER_DTYPE[rows, offers]; places that are not taken are zero."""
        places = self.blocks_of(rows)
        blocks = self.offers.view(BLOCK_DTYPE).reshape(-1)
        # Block 0 stays empty, for the places that are not taken.
        offers = blocks.take(places).reshape(-1).view(OFFER_DTYPE)
        return np.asarray(offers.reshape(len(rows), places.shape[1] * OFFERS_A_BLOCK))

    def find(self, offers: np.ndarray, rivals: np.ndarray, sources: np.ndarray) -> np.ndarray:
        """Return int64[n], where in its row of ``offers`` each offer stands, -1: nowhere."""
        if offers.shape[1] == 0:
            return np.full(len(offers), -1, dtype=np.int64)
        found = np.full(len(offers), -1, dtype=np.int64)
        for column in range(offers.shape[1] - 1, -1, -1):
            held = offers[:, column]
            same = held["rival"] == rivals
            if self._sources:
                same &= held["source"] == sources
            same &= held["flags"] >= OFFER_USED
            found = np.where(same, column, found)
        return found

    @property
    def sourced(self) -> bool:
        """Whether any offer may name a source."""
        return bool(self._sources)

    def held(self, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return OFFER_DTYPE[n], the offer that stands in place ``at`` of each row."""
        return taken(self.offers.reshape(-1), self._cells(rows, at))

    def put(self, rows: np.ndarray, at: np.ndarray, offers: np.ndarray) -> None:
        """Write ``offers`` into place ``at`` of each row."""
        put(self.offers.reshape(-1), self._cells(rows, at), offers)

    def take_places(self, rows: np.ndarray, rivals: np.ndarray, sources: np.ndarray) -> np.ndarray:
        """Give each new offer a place of its row, int64[n], in order; -1 for all of a crowded row.

        ``rows`` must be sorted. A row is crowded when its offers do not find free places.
        """
        if not len(rows):
            return np.empty(0, dtype=np.int64)
        distinct, inverse = distinct_of(rows)
        counts = np.bincount(inverse)
        blocks = self.offers.view(BLOCK_DTYPE).reshape(-1)
        known = self.blocks_of(distinct)
        # Whoever finds no room in the blocks that there are finds it in the next ones.
        more = -(-int(counts.max()) // OFFERS_A_BLOCK)
        width = min(known.shape[1] + more, PLACES)
        block = np.zeros((len(distinct), width), dtype=np.int32)
        block[:, : known.shape[1]] = known
        held = blocks.take(block).reshape(-1).view(OFFER_DTYPE)
        free = (held["flags"] < OFFER_USED).reshape(len(distinct), width * OFFERS_A_BLOCK)
        found = free.cumsum(axis=1)
        crowded = found[:, -1] < counts
        # The first free places of each row, as many as it has new offers, row by row.
        free &= (found <= counts[:, None]) & ~crowded[:, None]
        of_row, places = free.nonzero()
        wanted = distinct[of_row]
        made = (block[of_row, places // OFFERS_A_BLOCK] == 0).nonzero()[0]
        if len(made):
            pairs = distinct_of(wanted[made] * PLACES + places[made] // OFFERS_A_BLOCK)[0]
            self._set_places(pairs // PLACES, pairs % PLACES, self._new_blocks(len(pairs)))
        given = np.full(len(rows), -1, dtype=np.int64)
        roomy = ~crowded[inverse]
        given[roomy] = places
        self.put(wanted, places, unseen_offers(rivals[roomy], sources[roomy]))
        return given

    def room(self, row: int, older_than_ms: int) -> int:
        """Return a place of ``row`` for another offer; -1 when all hold offers that are fresh."""
        blocks = self._blocks(row)
        held = self.offers[blocks].reshape(-1)
        free = np.flatnonzero(held["flags"] < OFFER_USED)
        if len(free):
            return int(free[0])
        if len(blocks) < PLACES:
            self._set_places(np.array([row]), np.array([len(blocks)]), self._new_blocks(1))
            return len(blocks) * OFFERS_A_BLOCK
        oldest = int(held["observed_ms"].argmin())
        return oldest if held["observed_ms"][oldest] < older_than_ms else -1

    def clear(self, row: int) -> None:
        """Forget the offers of a listing that was removed."""
        blocks = self._blocks(row)
        self.offers[blocks] = np.zeros((), dtype=OFFER_DTYPE)
        self._free.extend(blocks)
        for places in self._places[: len(blocks)]:
            places[row] = 0

    def fill(self, rows: np.ndarray, counts: np.ndarray, offers: np.ndarray) -> None:
        """Replace all offers of ``rows`` by ``counts`` offers each, as a checkpoint holds them."""
        for row in rows[self.known(rows)].tolist():
            self.clear(row)
        counts = counts.astype(np.int64)
        widths = -(-counts // OFFERS_A_BLOCK)
        blocks = self._new_blocks(int(widths.sum()))
        first = np.cumsum(widths) - widths  # the first of each row's blocks
        row_of_block = np.repeat(np.arange(len(rows)), widths)
        places = np.arange(len(blocks)) - first[row_of_block]
        self._set_places(rows[row_of_block], places, blocks)
        row_of_offer = np.repeat(np.arange(len(rows)), counts)
        at = np.arange(len(offers)) - (np.cumsum(counts) - counts)[row_of_offer]
        block = blocks[first[row_of_offer] + at // OFFERS_A_BLOCK]
        put(self.offers.reshape(-1), block * OFFERS_A_BLOCK + at % OFFERS_A_BLOCK, offers)

    def sources(self) -> list[tuple[int, list[int]]]:
        """Return (retailer, names of his sources in the order of their numbers)."""
        return [(retailer, list(names)) for retailer, names in sorted(self._sources.items())]

    def restore_sources(self, sources: Iterable[tuple[int, Sequence[int]]]) -> None:
        """Number the sources as :meth:`sources` told."""
        self._sources = {
            retailer: {name: number for number, name in enumerate(names, start=1)}
            for retailer, names in sources
        }

    def _source_number(self, retailer: int, source: int, sources_max: int) -> int:
        if source == 0:
            return 0
        names = self._sources.setdefault(retailer, {})
        number = names.get(source)
        if number is None:
            number = len(names) + 1
            if number > min(sources_max, SOURCES_MAX - 1):
                return SOURCES_MAX
            names[source] = number
        return number

    def _new_blocks(self, count: int) -> np.ndarray:
        """Return the numbers of so many blocks that were free or never used, all of them empty."""
        reused = [self._free.pop() for _ in range(min(count, len(self._free)))]
        fresh = count - len(reused)
        if self._next + fresh > len(self.offers):
            self.offers = grown(self.offers, self._next + fresh)
        blocks = np.empty(count, dtype=np.int32)
        blocks[: len(reused)] = reused
        blocks[len(reused) :] = np.arange(self._next, self._next + fresh)
        self._next += fresh
        return blocks

    def _cells(self, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return int64[n], where in all offers place ``at`` of each row stands."""
        place = at // OFFERS_A_BLOCK
        block = self._places[0][rows].astype(np.int64)
        for further in range(1, len(self._places)):
            there = (place == further).nonzero()[0]
            if len(there):
                block[there] = self._places[further][rows[there]]
        assert np.count_nonzero(block) == len(block)
        return np.asarray(block * OFFERS_A_BLOCK + at % OFFERS_A_BLOCK)

    def _blocks(self, row: int) -> list[int]:
        return [int(blocks[row]) for blocks in self._places if blocks[row]]

    def _set_places(self, rows: np.ndarray, places: np.ndarray, blocks: np.ndarray) -> None:
        """Let each block stand in a place of a row."""
        for place in range(int(places.max(initial=-1)) + 1):
            if place == len(self._places):
                self._places.append(room(len(self._places[0]), np.int32))
            there = places == place
            self._places[place][rows[there]] = blocks[there]


def unseen_offers(rivals: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Return offers that hold a place and say nothing yet, OFFER_DTYPE[n]."""
    unseen = np.zeros(len(rivals), dtype=OFFER_DTYPE)
    unseen["rival"], unseen["source"], unseen["observed_ms"] = rivals, sources, -1
    unseen["flags"] = OFFER_USED | OFFER_UNPROVEN
    return unseen


def converted(
    offers: np.ndarray, currencies: Currencies, retailers: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rate (float64, 0: missing) of each offer into its listing's currency, and when.

    Args:
        offers: OFFER_DTYPE[rows, offers].
        retailers, own: int[rows], the listings' retailers and currencies.
    """
    shape = offers.shape
    if not np.count_nonzero(offers["currency"]):  # mostly: one number, and no memory for it
        return np.broadcast_to(1.0, shape), np.broadcast_to(np.int64(NEVER), shape)
    currency = offers["currency"].astype(np.int64)
    return currencies.rates(
        np.broadcast_to(retailers[:, None], shape),
        currency,
        np.broadcast_to(own.astype(np.int64)[:, None], shape),
    )


def tenured(held: np.ndarray, stored: np.ndarray, believed: np.ndarray, now_ms: int) -> np.ndarray:
    """Return the flags of ``stored`` with the days on which the offer was believed, as of now.

    A day counts once it is decided on and observed: nobody gets old by telling of days gone by.

    Args:
        held, stored: OFFER_DTYPE[n], before and after an offer was screened.
        believed: boolean[n], whether what is stored was just told and is believed.
    """
    today_ms = now_ms // DAY_MS * DAY_MS
    proven = (held["flags"] & (OFFER_USED | OFFER_UNPROVEN)) == OFFER_USED
    # A lie does not make an offer young again: its owner could silence a listing's feeds by it.
    days = (held["flags"] & OFFER_TENURE) >> OFFER_TENURE_SHIFT
    another = believed & proven & (held["observed_ms"] < today_ms)
    another &= (stored["observed_ms"] >= today_ms) & (stored["observed_ms"] < today_ms + DAY_MS)
    days = np.minimum(days + another, TENURE_MAX) << OFFER_TENURE_SHIFT
    return np.asarray(stored["flags"] & (255 - OFFER_TENURE) | days, dtype=np.uint8)


class Comparable(NamedTuple):
    """What some listings' offers are worth, an element an offer."""

    landed: np.ndarray  # float64[rows, offers], in the listing's currency, infinite: not usable
    usable: np.ndarray  # bool: may be compared
    waits: np.ndarray  # bool: could be, with a fresh rate
    rate_expiry: np.ndarray  # int64, when its rate goes stale


def comparable(
    offers: np.ndarray,
    own_names: np.ndarray,
    rate: np.ndarray,
    rate_ms: np.ndarray,
    now_ms: int,
    stale_ms: np.ndarray,
    rate_stale_ms: np.ndarray,
) -> Comparable:
    """Return which offers may be compared, and at what landed price: see :func:`reference`."""
    wanted = offers["flags"] & (255 - OFFER_TENURE) == OFFER_USED | OFFER_IN_STOCK | OFFER_NEW
    # Most listings do not say how they appear themselves, and then there is nothing to compare.
    for column in range(OWN_NAMES_MAX):
        names = own_names[:, column]
        if not np.count_nonzero(names):
            break
        wanted &= offers["rival"] != names[:, None]
    fresh = wanted & (offers["observed_ms"] > now_ms - alike(stale_ms))
    rate_expiry = rate_ms + alike(rate_stale_ms)
    fresh_rate = (rate > 0.0) & (rate_expiry > now_ms)
    usable = fresh & fresh_rate
    landed = np.rint(offers["landed_minor"] * rate)
    landed = np.where(usable, np.maximum(landed, 1.0), np.inf)
    usable &= ~outliers(landed, usable)
    landed = np.where(usable, landed, np.inf)
    return Comparable(landed, usable, fresh & ~fresh_rate, rate_expiry)


def reference(
    offers: np.ndarray,
    own_names: np.ndarray,
    rate: np.ndarray,
    rate_ms: np.ndarray,
    now_ms: int,
    stale_ms: np.ndarray,
    rate_stale_ms: np.ndarray,
    leashed: np.ndarray,
) -> Reference:
    """Return what the comparable offers of each row say.

    Args:
        offers: OFFER_DTYPE[rows, offers].
        own_names: uint64[rows, OWN_NAMES_MAX], how we appear ourselves, 0: nothing.
        rate, rate_ms: see :func:`converted`.
        stale_ms, rate_stale_ms: int64[rows], how old an offer and a rate may be.
        leashed: boolean[rows], whether it matters who bears out an offer.
    """
    rows, width = offers.shape
    if width == 0:
        nothing = np.zeros(rows, dtype=bool)
        return Reference(
            landed_minor=np.zeros(rows, dtype=np.int32),
            rivals=np.zeros(rows, dtype=np.uint16),
            rate=np.zeros(rows, dtype=np.float32),
            currency=np.zeros(rows, dtype=np.uint8),
            stale_rate=nothing,
            all_stale=nothing,
            stale_ms=np.full(rows, NEVER, dtype=np.int64),
            borne_out_minor=np.zeros(rows),
            told_minor=np.zeros(rows, dtype=np.int32),
        )
    landed, usable, waits, rate_expiry = comparable(
        offers, own_names, rate, rate_ms, now_ms, stale_ms, rate_stale_ms
    )
    landed = np.minimum(landed, PRICE_MINOR_MAX)
    least = least_in_row(landed)
    lowest = np.arange(rows), np.maximum(first_in_row(landed == least[:, None]), 0)
    any_usable = any_in_row(usable)
    told = np.where(any_usable, least, 0.0).astype(np.int32)
    expiry = np.minimum(offers["observed_ms"] + alike(stale_ms), rate_expiry)
    expiry = least_in_row(np.where(usable, expiry, NEVER))
    return Reference(
        landed_minor=told,
        told_minor=told,
        rivals=rivals_behind(offers, usable),
        rate=np.where(any_usable, rate[lowest], 0.0).astype(np.float32),
        currency=np.where(any_usable, offers["currency"][lowest], 0).astype(np.uint8),
        stale_rate=any_in_row(waits),
        all_stale=any_in_row(offers["flags"] >= OFFER_USED) & ~any_usable,
        stale_ms=expiry,
        borne_out_minor=lowest_borne_out(landed, usable, offers, leashed),
    )


def lowest_borne_out(
    landed: np.ndarray, usable: np.ndarray, offers: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Return float64[rows], the lowest offer that another feed bears out; 0: none, or not asked.

    Nobody is borne out where fewer than ``QUORUM_FEEDS`` feeds of long standing watch the listing,
    whatever they say just now: silence must not change who is believed.

    Args:
        landed: float64[rows, offers], in the listing's currency, infinite where not usable.
        asked: boolean[rows].
    """
    found = np.zeros(len(landed))
    if not np.count_nonzero(asked):
        return found
    old = (offers["flags"] & OFFER_TENURE) >> OFFER_TENURE_SHIFT >= TENURE_DAYS
    rows = (asked & (count_in_row(old) >= QUORUM_FEEDS)).nonzero()[0]
    if len(rows):
        feeds = distinct_rivals(offers["source"][rows], old[rows])
        rows = rows[feeds >= QUORUM_FEEDS]
    if not len(rows):
        return found
    price, source, said = landed[rows], offers["source"][rows], usable[rows]
    near = price[:, None, :] <= price[:, :, None] * np.exp(BORNE_OUT_LOG)
    witness = (said & old[rows])[:, None, :] & (source[:, None, :] != source[:, :, None])
    # The one that is borne out must be of long standing, too: else a liar needs only a new name.
    borne = said & old[rows] & (near & witness).any(axis=2)
    lowest = least_in_row(np.where(borne, price, np.inf))
    found[rows] = np.where(np.isfinite(lowest), lowest, 0.0)
    return found


NEAR_RATIO = 1.4
"""Where the greatest is no more than so many times the least, the logs lie 0.34 apart at most: less
than ``OUTLIER_LOG_MIN``, so nobody need look."""
assert np.log(NEAR_RATIO) < OUTLIER_LOG_MIN


def outliers(landed: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return which usable offers lie 3 sigma (by MAD of logs) or more below their row's median.

    Only where at least four rivals say something: of fewer, nobody can tell who is wrong. An offer
    that lies too high does no harm, because the lowest is the reference.
    """
    found = np.zeros(usable.shape, dtype=bool)
    apart = count_in_row(usable) >= OUTLIER_OFFERS_MIN
    if not np.count_nonzero(apart):
        return found
    apart &= most_in_row(np.where(usable, landed, 0.0)) > NEAR_RATIO * least_in_row(landed)
    many = apart.nonzero()[0]
    if len(many):
        logs, said = np.log(landed[many]), usable[many]
        middle = median(logs, said)[:, None]
        spread = 1.4826 * median(np.abs(logs - middle), said)[:, None]
        found[many] = said & (logs < middle - np.maximum(3.0 * spread, OUTLIER_LOG_MIN))
    return found


def median(values: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Return float64[rows], the (lower) median of the values that were said; 0 where none was."""
    count = count_in_row(said)
    ordered = sorted_rows(np.where(said, values, np.inf))
    middle = ordered[np.arange(len(values)), np.maximum(count - 1, 0) // 2]
    return np.where(count > 0, middle, 0.0)


def rivals_behind(offers: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return uint16[rows], how many rivals stand behind the usable offers, OFFER_DTYPE[rows, n].

    Where no offer names its source, each is of another rival.
    """
    if np.count_nonzero(offers["source"]):
        return distinct_rivals(offers["rival"], usable)
    return count_in_row(usable & (offers["rival"] != 0)).astype(np.uint16)


def distinct_rivals(rival: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Return uint16[rows], how many rivals stand behind the usable offers (of several sources)."""
    names = sorted_rows(np.where(usable, rival, 0))
    changes = count_in_row(names[:, 1:] != names[:, :-1])
    return np.asarray((changes + (names[:, 0] != 0)).astype(np.uint16))
