"""A shard as bytes: rows that changed, and at the mark all small state. Plain and versioned.

A checkpoint is a base and increments, each a list of *parts*: slices of rows, and a closing part
that holds the last rows and everything else. Later rows win, the last closing part wins. Nothing
here checks a checksum: that is the business of the files they lie in. Imports no jax, so that a
gateway can read the catalogue of a checkpoint.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import blake2b
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from engine.catalogue import listing_fields
from engine.commands import CommandWindow
from engine.currencies import Currencies
from engine.decided import QUOTE_DTYPE
from engine.deduplication import EventWindow, HighWaterMarks
from engine.errors import CorruptCheckpoint, IncompatibleCheckpoint
from engine.groups import Groups
from engine.listing_table import BEFORE_BRAKES, LISTING_DTYPE, REMOVED, listings_of, put
from engine.memory import Memory
from engine.retailers import RETAILER_DTYPE, Retailers
from engine.rivals import OFFER_DTYPE, OFFER_USED
from engine.tiers import Tiers

FORMAT = 2
"""Version of the parts. Whoever changes a layout below raises it.

1 was of no release: its ids of sales cannot be divided among retailers, so it is not read.
"""

PartBytes = bytes | memoryview
"""A part, or a view of it in the file that it was read from."""

ROWS, CLOSE = "rows", "close"
MERGED_ROWS = 4096
"""Rows a part of a merged base holds."""


class Small(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a closing part holds beside rows: each field of it, and nothing else."""

    rows: int
    tombstones: list[tuple[int, int]]
    dirty: bytes
    retailers: dict[str, Any]
    groups: dict[str, Any]
    currencies: dict[str, Any]
    own_names: list[tuple[int, ...]]
    sources: list[tuple[int, list[int]]]
    marks: list[tuple[int, int, int]]
    commands: list[Any]
    events_oldest: int
    events_oldest_of: list[tuple[int, int]]
    events: list[tuple[int, int, bytes]]  # minute, retailer, uint64 ids
    serving: dict[str, Any] = {}  # which models serve whom
    learnt: dict[str, Any] = {}  # what retailers' listings share, by the retailer's number
    experiments: list[Any] = []  # kind, retailer's number, and how it stands


class Part(Struct, frozen=True):
    """One part. ``rows`` and what follows describe listings; the rest only a closing part has."""

    format: int
    kind: str
    layout: bytes
    rows: bytes  # uint32
    listings: bytes
    quotes: bytes
    due_ms: bytes
    texts: list[bytes]
    offer_counts: bytes  # uint16
    offers: bytes
    mark: dict[str, int] = {}
    small: Small | None = None
    learnt: bytes = b""  # of the rows, as Learnt.saved tells; nothing where nobody learns
    arms: bytes = b""  # ARM_DTYPE[kinds, rows], nothing where there is no experiment
    predicted: bytes = b""  # PREDICTION_DTYPE of the rows, by place; nothing where no model serves


class Lead(Struct, frozen=True):
    """What every format's parts begin with: enough to say which it is."""

    format: int = 0
    layout: bytes = b""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Part)
_LEAD_DECODER = msgspec.msgpack.Decoder(Lead)


def layout() -> bytes:
    """Return eight bytes that differ where the layout of a packed record or a field's name does."""
    return _layout(LISTING_DTYPE)


def _layout(listing: np.dtype[np.void]) -> bytes:
    return _layout_of(listing, Part.__struct_fields__, Small.__struct_fields__)


@cache  # it is asked for at every part; a build with other fields has another
def _layout_of(listing: np.dtype[np.void], *fields: tuple[str, ...]) -> bytes:
    described = [repr(dtype.descr) for dtype in (listing, *_DTYPES)]
    described += [repr(names) for names in fields]
    return blake2b("\n".join(described).encode(), digest_size=8).digest()


_DTYPES = (QUOTE_DTYPE, OFFER_DTYPE, RETAILER_DTYPE)
"""Beside a listing's own. What is learnt is left out: a checkpoint from before learning stays
readable."""


def slice_part(memory: Memory, rows: np.ndarray) -> bytes:
    """Return the part that holds ``rows``."""
    return _ENCODER.encode(_part(memory, rows, ROWS, {}, None))


def close_part(
    memory: Memory, rows: np.ndarray, mark: dict[str, int], *, whole: bool = False
) -> bytes:
    """Return the part that holds ``rows`` and all small state at ``mark``.

    With ``whole`` that is the small state itself, and not what the last checkpoint lacks of it.
    """
    listings = memory.listings
    events = memory.events.every() if whole else memory.events.changed()
    small = Small(
        rows=listings.rows,
        tombstones=listings.tombstones(),
        dirty=np.packbits(memory.backlog.dirty[: listings.rows]).tobytes(),
        # In with the retailers: a field of its own would make older checkpoints another layout.
        retailers={**memory.retailers.state(), "tiers": memory.tiers.state()},
        groups=memory.groups.state(),
        currencies=memory.currencies.state(),
        own_names=memory.own_names.state(),
        sources=memory.rivals.sources(),
        marks=memory.marks.state(),
        commands=memory.commands.state(),
        learnt=memory.learnt.state(),
        experiments=memory.experiments.state(),
        serving=memory.serving.state(),
        events_oldest=memory.events.oldest_minute,
        events_oldest_of=memory.events.oldest_minutes(),
        events=[
            (minute, retailer, np.array(ids, dtype=np.uint64).tobytes())
            for minute, retailer, ids in events
        ],
    )
    return _ENCODER.encode(_part(memory, rows, CLOSE, mark, small))


def _part(
    memory: Memory, rows: np.ndarray, kind: str, mark: dict[str, int], small: Small | None
) -> Part:
    listings = memory.listings
    offers = memory.rivals.offers_of(rows)
    taken = offers["flags"] >= OFFER_USED
    return Part(
        format=FORMAT,
        kind=kind,
        layout=layout(),
        rows=rows.astype(np.uint32).tobytes(),
        listings=listings.listings.take(rows).tobytes(),
        quotes=listings.quotes.take(rows).tobytes(),
        due_ms=memory.timers.due_ms[rows].tobytes(),
        texts=listings.texts.of(rows),
        offer_counts=taken.sum(axis=1).astype(np.uint16).tobytes(),
        offers=offers.reshape(-1).take(np.flatnonzero(taken)).tobytes(),
        mark=mark,
        small=small,
        learnt=memory.learnt.saved(rows),
        arms=memory.experiments.taken(rows),
        predicted=memory.serving.saved(rows),
    )


def read_parts(parts: Iterable[PartBytes]) -> tuple[Memory, dict[str, int]]:
    """Return the memory that a base and its increments describe, and the last mark.

    Raises:
        IncompatibleCheckpoint: a part is of a format or layout that this version cannot read.
        CorruptCheckpoint: a part is none, or no closing part is there.
    """
    memory, last, mark = Memory(), None, {}
    events: list[tuple[int, int, list[int]]] = []
    encoded = list(parts)
    # The last part closes the chain and says how many rows there are: room is made at once.
    closing = [_decoded(encoded.pop())] if encoded else []
    for part in closing:
        _reserve(memory, 0 if part.small is None else part.small.rows)
    for part in chain(map(_decoded, encoded), closing):
        _fill(memory, part)
        if part.kind == CLOSE and part.small is not None:
            last, mark = part.small, part.mark
            for minute, retailer, ids in last.events:
                events.append((minute, retailer, np.frombuffer(ids, dtype=np.uint64).tolist()))
    if last is None:
        raise CorruptCheckpoint("a checkpoint without a closing part holds no mark")
    memory.retailers = Retailers.restore(last.retailers)
    memory.tiers = Tiers.restore(last.retailers.get("tiers", {}))
    memory.groups = Groups.restore(last.groups, memory.retailers)
    memory.currencies = Currencies.restore(last.currencies)
    for names in last.own_names:
        memory.own_names.number(names)
    memory.rivals.restore_sources(last.sources)
    memory.marks = HighWaterMarks.restore(last.marks)
    memory.commands = CommandWindow.restore(last.commands)
    memory.learnt.restore(last.learnt, memory.listings.capacity)
    memory.experiments.restore(last.experiments, memory.listings.capacity)
    memory.serving.restore(last.serving, memory.listings.capacity)
    memory.events = EventWindow.restore(last.events_oldest, last.events_oldest_of, events)
    memory.listings.restore(last.rows, last.tombstones)
    dirty = np.unpackbits(np.frombuffer(last.dirty, dtype=np.uint8), count=last.rows)
    memory.backlog.mark(np.flatnonzero(dirty))
    memory.timers.restore()
    return memory, mark


def check_part(encoded: PartBytes) -> None:
    """Find out whether this version reads the part, without its rows.

    Raises:
        IncompatibleCheckpoint: another version wrote it.
        CorruptCheckpoint: it is no part at all.
    """
    try:
        lead = _LEAD_DECODER.decode(encoded)
    except msgspec.DecodeError as error:
        raise CorruptCheckpoint(f"a part cannot be read: {error}") from None
    found = f"format {lead.format} of layout {lead.layout.hex()}"
    wanted = f"format {FORMAT} of layout {layout().hex()}"
    if found != wanted and (lead.format, lead.layout) != (FORMAT, _layout(BEFORE_BRAKES)):
        raise IncompatibleCheckpoint(found=found, wanted=wanted)


def _decoded(encoded: PartBytes) -> Part:
    check_part(encoded)
    try:
        return _DECODER.decode(encoded)
    except msgspec.DecodeError as error:
        raise CorruptCheckpoint(f"a part cannot be read: {error}") from None


def _reserve(memory: Memory, rows: int) -> None:
    memory.listings.reserve(rows)
    memory.fit(rows)


def _fill(memory: Memory, part: Part) -> None:
    """Write a part's rows into memory, over what earlier parts wrote."""
    rows = np.frombuffer(part.rows, dtype=np.uint32).astype(np.int64)
    if not len(rows):
        return
    used = int(rows.max()) + 1
    _reserve(memory, used)
    capacity = memory.listings.capacity
    put(memory.listings.listings, rows, listings_of(part.listings, len(rows)))
    put(memory.listings.quotes, rows, np.frombuffer(part.quotes, dtype=QUOTE_DTYPE))
    if part.learnt:
        memory.learnt.fill(rows, part.learnt, capacity)
    if part.arms:
        memory.experiments.fill(rows, part.arms, capacity)
    if part.predicted:
        memory.serving.fill(rows, part.predicted, capacity)
    memory.timers.due_ms[rows] = np.frombuffer(part.due_ms, dtype=np.int64)
    memory.listings.texts.put(rows, part.texts)
    memory.rivals.fill(
        rows,
        np.frombuffer(part.offer_counts, dtype=np.uint16),
        np.frombuffer(part.offers, dtype=OFFER_DTYPE),
    )


def merge_parts(parts: Iterable[PartBytes]) -> list[bytes]:
    """Return the parts of one base that says what a base and its increments say."""
    return whole_parts(*read_parts(parts))


def whole_parts(memory: Memory, mark: dict[str, int]) -> list[bytes]:
    """Return the parts of a base that says all that ``memory`` holds, and leave it as it is."""
    rows = np.arange(memory.listings.rows)
    slices = [
        slice_part(memory, rows[start : start + MERGED_ROWS])
        for start in range(0, len(rows), MERGED_ROWS)
    ]
    return [*slices, close_part(memory, rows[:0], mark, whole=True)]


class CatalogueListing(Struct, frozen=True):
    """One listing of a checkpoint, for a gateway's replica."""

    listing: int
    retailer: str
    fields: dict[str, Any]  # as in a CatalogueChange of a listing
    quote: np.ndarray | None  # QUOTE_DTYPE record, None: not priced yet
    quote_seq: int  # where its last quote stands in the decision log
    quote_index: int


class CatalogueRetailer(Struct, frozen=True):
    """One retailer of a checkpoint."""

    retailer: str
    fields: dict[str, Any]  # as in a CatalogueChange of a retailer
    halted: bool
    tripped: bool  # halted by the breaker
    halted_channels: tuple[str, ...]
    experiments: tuple[dict[str, Any], ...] = ()  # how each stands, as it is told


class Catalogue(Struct, frozen=True):
    """What a gateway's replica begins with."""

    mark: dict[str, int]  # seq, last_command, last_delta, decided_ms, digest
    retailers: tuple[CatalogueRetailer, ...]
    listings: tuple[CatalogueListing, ...]
    policies: tuple[tuple[str, str, str, int, dict[str, Any]], ...]  # PolicyBook.state()
    fees: tuple[Sequence[Any], ...]  # retailer, channel, category, observed_ms, vat, ...


def read_catalogue(parts: Iterable[PartBytes]) -> Catalogue:
    """Return listings, quotes, retailers and policies of a checkpoint, without jax."""
    memory, mark = read_parts(parts)
    table, retailers = memory.listings, memory.retailers
    listings = []
    for row in range(table.rows):
        held = table.listings[row]
        if held["flags"] & REMOVED:
            continue
        quoted = table.quotes["listing"][row] != 0
        listings.append(
            CatalogueListing(
                listing=int(held["key"]),
                retailer=retailers.ids[held["retailer"]],
                fields=listing_fields(memory, row),
                quote=table.quotes[row : row + 1] if quoted else None,
                quote_seq=int(held["quote_seq"]),
                quote_index=int(held["quote_index"]),
            )
        )
    return Catalogue(
        mark=mark,
        retailers=tuple(
            _catalogue_retailer(memory, number) for number in range(len(retailers.ids))
        ),
        listings=tuple(listings),
        policies=tuple(memory.groups.book.state()),
        fees=tuple(
            (retailers.ids[retailer], *rest) for retailer, *rest in memory.groups.state()["fees"]
        ),
    )


def _catalogue_retailer(memory: Memory, number: int) -> CatalogueRetailer:
    retailers = memory.retailers
    row = retailers.table[number]
    return CatalogueRetailer(
        retailer=retailers.ids[number],
        fields={**retailers.facts[number], "mode": "live" if row["live"] else "shadow"},
        halted=bool(row["halted"]),
        tripped=bool(row["tripped"]),
        halted_channels=tuple(
            channel
            for (of, channel), place in retailers.channels.items()
            if of == number and retailers.halted_channels[place]
        ),
        experiments=memory.experiments.documents(number),
    )
