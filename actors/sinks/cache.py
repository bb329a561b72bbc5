"""The price cache: the newest price of each listing, for programs that would rather ask Redis.

Nothing of ours reads it on the price path. An entry's version is the decision's ``seq``, and the
store never puts an older one over a newer. Its life is counted from the *log's* time through which
it is known to be the newest, not from when it was written: so an old entry written again by a
follower that starts anew cannot outlive a newer one that has expired meanwhile. What is older
still, when a follower catches up, is not written at all.

A store may forget everything at any moment. A sentinel that it holds names the follower that last
filled it; when the sentinel is gone, every price is put again, at most ``REFILL_ROWS`` with each
write. So it is after half a life, too: a price that does not change stays there.

Quotes name a listing by its key; who owns it, the catalogue says. A follower that starts in the
middle of the log therefore begins at a checkpoint, whose catalogue it is given.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
from msgspec import Struct

from actors.sinks.newest_prices import NewestPrices
from actors.sinks.rows import IDLE_MS
from engine.checkpoint import read_catalogue
from engine.decided import Decided, State, no_quotes, quote_id
from engine.errors import CursorFenced, FailedDependency
from engine.routing import key64
from persistence.checkpoints import CheckpointFiles, Header, stands_in_log
from persistence.checksums import Tally, tally_quotes
from persistence.decision_reader import Accepted
from persistence.decision_records import LogPosition
from persistence.ports import Cache, Log

NAME = "cache"
TTL_MS = 3_600_000
REFILL_ROWS = 4_096
"""Prices put again with one write at most; a follower writes at least with every heartbeat."""
CHECK_MS = 1_000
"""How often the sentinel is looked for."""
TTL_STEP_MS = 60_000
"""Entries whose remaining life is the same by this much share a call."""


class CachedPrice(Struct, frozen=True, kw_only=True):
    """One entry, as JSON. ``retailer`` is in it so that a reader can tell whose it is."""

    retailer: str
    channel: str
    sku: str
    listing: str  # hexadecimal key
    generation: int
    shard: int
    seq: int
    quote_id: str
    state: str
    price_minor: int  # in force; 0: none yet
    proposed_minor: int
    floor_minor: int
    ceiling_minor: int
    currency: str
    decided_ms: int
    appended_ms: int


class Named(Struct, frozen=True):
    """What the catalogue says of a listing."""

    retailer: str
    channel: str
    sku: str
    currency: str


class Opening(Struct, frozen=True):
    """Where a cache follower begins: a checkpoint's mark and its catalogue."""

    position: LogPosition
    listings: Mapping[int, Named]
    quotes: np.ndarray = msgspec.field(default_factory=no_quotes)
    places: Sequence[tuple[int, int]] = ()  # (seq, index) of each quote


class CacheCursor(Struct, frozen=True):
    """How far the cache has come, stored in it for whoever compares."""

    log_id: str
    seq: int
    appended_ms: int


class Filling:
    """How far a store is filled again from what is known of one shard."""

    def __init__(self) -> None:
        self.prices = NewestPrices()
        self.next: int | None = 0  # row to put next, None: it is full
        self.begun_ms = 0
        self.checked_ms = 0
        self.passes = 0

    def begin(self, now_ms: int) -> None:
        """Put every price again."""
        self.next, self.begun_ms = 0, now_ms


class CacheSummary(Struct, frozen=True):
    """What this follower has taken since it began, and what the store says of its cursor."""

    seq: int  # of the cursor in the store; 0: none
    prices: Tally  # quotes taken
    expired: int  # of them too old to be put
    unnamed: int  # of them of listings that no catalogue named


Opener = Callable[[int], Awaitable[Opening | None]]


class PriceCache:
    """``actors.follower.Sink`` over a cache."""

    name = NAME

    def __init__(
        self,
        cache: Cache,
        *,
        generation: int,
        opening: Opener | None = None,
        ttl_ms: int = TTL_MS,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._cache = cache
        self._generation = generation
        self._opening = opening
        self._ttl_ms = ttl_ms
        self._wall_ms = wall_ms
        self._listings: dict[int, dict[int, Named]] = {}
        self._taken: dict[int, LogPosition | None] = {}
        self._summary: dict[int, CacheSummary] = {}
        self._told_ms: dict[int, int] = {}  # log's time of the cursor put last
        self._filling: dict[int, Filling] = {}
        self._writer = uuid4().hex.encode()  # what our sentinel says

    async def position(self, shard: int) -> LogPosition | None:
        """Return the newest checkpoint's mark, or the beginning of the log.

        Not the cursor that is stored: behind it the listings would have no names. Putting again
        what is there already changes nothing.
        """
        opening = None if self._opening is None else await self._opening(shard)
        self._listings[shard] = {} if opening is None else dict(opening.listings)
        self._taken[shard] = None if opening is None else opening.position
        self._summary[shard] = CacheSummary(0, Tally(), 0, 0)
        filling = self._filling[shard] = Filling()
        filling.begin(self._wall_ms())
        if opening is not None and len(opening.quotes):
            seqs, indices = np.array(opening.places, dtype=np.int64).T
            filling.prices.take(opening.quotes, seqs, indices)
        return self._taken[shard]

    async def write(
        self, shard: int, accepted: Sequence[Accepted], expected: LogPosition | None
    ) -> None:
        """Put the newest price of each listing that ``accepted`` decided, then the cursor.

        Raises:
            CursorFenced: the caller does not go on where this sink stands.
            FailedDependency: call again with the same.
        """
        if not accepted:
            return
        if shard not in self._taken:
            await self.position(shard)
        if expected != self._taken[shard]:
            raise CursorFenced(f"cache of shard {shard} is at {self._taken[shard]}, not {expected}")
        listings: dict[int, Named] = {}
        newest: dict[int, CachedPrice] = {}
        summary = self._summary[shard]
        for each in accepted:
            if each.decided is not None:
                self._learn(shard, each.decided, listings)
                summary = self._gather(shard, each, each.decided, listings, newest, summary)
        await self._put(newest.values())
        last = accepted[-1]
        if newest or last.appended_ms - self._told_ms.get(shard, 0) >= IDLE_MS:
            await self._put_cursor(shard, last)
        self._remember(shard, listings)
        await self._fill(shard, last)
        self._taken[shard] = last.position
        self._summary[shard] = summary

    async def summary(self, shard: int) -> CacheSummary:
        """Return what was put since the start, after checking that the store has the cursor.

        Raises:
            FailedDependency: the store lost what was put: entries come back as prices change.
        """
        stored = await self._cache.get_versioned(self._cursor_key(shard))
        summary = self._summary.get(shard, CacheSummary(0, Tally(), 0, 0))
        taken = self._taken.get(shard)
        if taken is not None and summary.prices.rows and stored is None:
            raise FailedDependency(f"cache of shard {shard}: the store lost what was put")
        return msgspec.structs.replace(summary, seq=0 if stored is None else stored[0])

    def _learn(self, shard: int, decided: Decided, listings: dict[int, Named]) -> None:
        for change in decided.catalogue:
            if change.what != "listing":
                continue  # a removed one keeps its name: its last quote says that it is removed
            known = listings.get(change.listing) or self._listings[shard].get(change.listing)
            fields: dict[str, Any] = change.fields
            listings[change.listing] = Named(
                change.retailer,
                str(fields.get("channel") or (known.channel if known else "")),
                str(fields.get("sku") or (known.sku if known else "")),
                str(fields.get("currency") or (known.currency if known else "")),
            )

    def _gather(
        self,
        shard: int,
        accepted: Accepted,
        decided: Decided,
        listings: Mapping[int, Named],
        newest: dict[int, CachedPrice],
        summary: CacheSummary,
    ) -> CacheSummary:
        """Remember what was decided, and collect what is to be put of it."""
        quotes = decided.quotes
        if not len(quotes):
            return summary
        packed = self._filling[shard].prices.take(
            quotes,
            decided.seq,
            np.arange(len(quotes)),
            decided.decided_ms,
            accepted.appended_ms,
        )
        tallied = tally_quotes(self._generation, shard, decided.seq, quotes)
        summary = msgspec.structs.replace(summary, prices=summary.prices.plus(tallied))
        if accepted.appended_ms + self._ttl_ms <= self._wall_ms():
            return msgspec.structs.replace(summary, expired=summary.expired + len(quotes))
        unnamed = 0
        for item, key in enumerate(quotes["listing"].tolist()):
            named = listings.get(key) or self._listings[shard].get(key)
            if named is None:
                unnamed += 1
                continue
            newest[key] = self._entry(shard, packed[item], named)
        return msgspec.structs.replace(summary, unnamed=summary.unnamed + unnamed)

    def _entry(self, shard: int, price: np.void, named: Named) -> CachedPrice:
        seq, index = int(price["seq"]), int(price["index"])
        return CachedPrice(
            retailer=named.retailer,
            channel=named.channel,
            sku=named.sku,
            listing=f"{int(price['listing']):016x}",
            generation=self._generation,
            shard=shard,
            seq=seq,
            quote_id=quote_id(self._generation, shard, seq, index),
            state=State(int(price["state"])).name.lower(),
            price_minor=int(price["in_force_minor"]),
            proposed_minor=int(price["proposed_minor"]),
            floor_minor=int(price["floor_minor"]),
            ceiling_minor=int(price["ceiling_minor"]),
            currency=named.currency,
            decided_ms=int(price["decided_ms"]),
            appended_ms=int(price["appended_ms"]),
        )

    async def _fill(self, shard: int, last: Accepted) -> None:
        """Put some prices again, if the store is not known to hold them all.

        What is put is the newest through ``last``, and lives as long as if it were decided then. A
        follower that is behind puts nothing: its entries would be dead.
        """
        filling, now_ms = self._filling[shard], self._wall_ms()
        if last.appended_ms + self._ttl_ms <= now_ms:
            return
        key = f"filled:{self._generation}:{shard}"
        if filling.next is None and now_ms - filling.checked_ms >= CHECK_MS:
            filling.checked_ms = now_ms
            aged = now_ms - filling.begun_ms >= self._ttl_ms // 2
            if aged or await self._cache.get(key) != self._writer:
                filling.begin(now_ms)
        if filling.next is None:
            return
        if filling.next == 0:
            # Before the prices: a store that forgets from here on shows it.
            await self._cache.put(key, self._writer, ttl_ms=self._ttl_ms)
        known = self._listings[shard]
        block = filling.prices.block(filling.next, REFILL_ROWS)
        entries = [
            self._entry(shard, price, named)
            for price in block
            if (named := known.get(int(price["listing"]))) is not None
        ]
        await self._put(entries, through_ms=last.appended_ms)
        filling.next += REFILL_ROWS
        if filling.next >= filling.prices.rows:
            filling.next = None
            filling.passes += 1

    async def _put(self, prices: Collection[CachedPrice], through_ms: int = 0) -> None:
        """Put the prices, those that die at about the same time in one call."""
        by_life: dict[int, list[tuple[str, int, bytes]]] = {}
        now_ms = self._wall_ms()
        for price in prices:
            left_ms = max(price.appended_ms, through_ms) + self._ttl_ms - now_ms
            step = max(min(left_ms, self._ttl_ms) // TTL_STEP_MS, 0)
            key = price_key(price.retailer, price.channel, price.sku)
            by_life.setdefault(step, []).append((key, version(price), msgspec.json.encode(price)))
        for step, entries in by_life.items():
            # Rounded down: an entry may die early, never late.
            await self._cache.put_versioned(entries, ttl_ms=max(step * TTL_STEP_MS, 1_000))

    async def _put_cursor(self, shard: int, last: Accepted) -> None:
        cursor = CacheCursor(last.position.log_id.hex(), last.position.seq, last.appended_ms)
        entry = (self._cursor_key(shard), last.position.seq, msgspec.json.encode(cursor))
        await self._cache.put_versioned([entry], ttl_ms=self._ttl_ms)
        self._told_ms[shard] = last.appended_ms

    def _remember(self, shard: int, listings: Mapping[int, Named]) -> None:
        self._listings[shard].update(listings)

    def _cursor_key(self, shard: int) -> str:
        return f"cursor:{self._generation}:{shard}"


async def opening_at_checkpoint(
    files: CheckpointFiles, log: Log, *, shard: int, generation: int
) -> Opening | None:
    """Return the newest local checkpoint that verifies and stands in the log, as a beginning.

    Decoding the catalogue of a million listings takes seconds, so it happens on a thread.
    """

    async def counts(name: str, mark: Header) -> bool:
        return await stands_in_log(
            mark.position, log, shard=shard, generation=generation, digest=mark.digest
        )

    chain = await files.newest(counts)
    if chain is None:
        return None
    catalogue = await asyncio.to_thread(read_catalogue, chain.parts)
    priced = [each for each in catalogue.listings if each.quote is not None]
    quotes = [each.quote for each in priced if each.quote is not None]
    return Opening(
        chain.position,
        {
            each.listing: Named(
                each.retailer,
                str(each.fields.get("channel") or ""),
                str(each.fields.get("sku") or ""),
                str(each.fields.get("currency") or ""),
            )
            for each in catalogue.listings
        },
        np.concatenate(quotes) if quotes else no_quotes(),
        [(each.quote_seq, each.quote_index) for each in priced],
    )


def price_key(retailer: str, channel: str, sku: str) -> str:
    """Return an entry's key: the tenant in clear, so that access can be granted by prefix."""
    return f"price:{retailer}:{key64(retailer, channel, sku):016x}"


def version(price: CachedPrice) -> int:
    """Return an entry's version: a new generation of topics counts ``seq`` anew and is newer."""
    assert price.seq < 2**40
    assert price.generation < 2**22
    return (price.generation << 40) | price.seq


async def cached_price(cache: Cache, retailer: str, channel: str, sku: str) -> CachedPrice | None:
    """Return a listing's cached price, or ``None`` when the cache does not know it.

    Raises:
        FailedDependency: the cache did not answer, or answered with somebody else's value.
    """
    found = await cache.get_versioned(price_key(retailer, channel, sku))
    if found is None:
        return None
    try:
        price = msgspec.json.decode(found[1], type=CachedPrice)
    except msgspec.MsgspecError as error:
        raise FailedDependency(f"cache: the entry is unreadable: {error}") from error
    if (price.retailer, price.channel, price.sku) != (retailer, channel, sku):
        raise FailedDependency("cache: the entry is another listing's; it is not shown")
    return price
