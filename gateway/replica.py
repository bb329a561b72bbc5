"""What the decision logs say, held ready for reading: listings, newest quotes, outcomes.

Quotes lie in one array, a row a listing; beside each row stand its ready response bytes, built at
the first read after a change, because under load far more prices change than are read. Nothing
here waits or reads a clock: whoever answers says what time it is, and judges the age of the answer.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from actors.clock import ClockKind
from engine.decided import QUOTE_DTYPE, CatalogueChange, Decided, Outcome
from engine.deltas import ScopeKind
from engine.policy import PolicyBook
from gateway.documents import (
    STATE_NAMES,
    Listing,
    ListingPrice,
    QuotePlace,
    StateName,
    encode_listings,
    encode_recommendation,
    listing_price,
    quote_columns,
    recommendation,
)
from gateway.opening import Opening
from gateway.retailers import Product, Retailer, change_retailer
from gateway.shard_view import ShardView
from gateway.window import Window
from persistence.decision_reader import Accepted

OUTCOMES_MAX = 100_000
"""Outcomes of commands remembered; an older one is no longer found."""


class Changed(Struct, frozen=True):
    """What a listener is told after each accepted record; the window holds what it changed."""

    shard: int
    has_rows: bool
    outcomes: Sequence[Outcome]


class Replica:
    """Every listing and its newest quote, as far as the decision logs were read."""

    def __init__(
        self,
        *,
        generation: int,
        shards: int,
        window: Window | None = None,
        clock: ClockKind = "wall",
    ) -> None:
        """Hold nothing yet; ``clock`` is by what owners tell time, until a log says it itself."""
        assert shards >= 1
        self.generation = generation
        self.shards = tuple(ShardView(clock) for _ in range(shards))
        self.window = window or Window()
        self.retailers: dict[str, Retailer] = {}
        self.listings: list[Listing | None] = []  # by row; None: no catalogue entry yet
        self.policies = PolicyBook()
        self.exceptions: dict[str, int] = {}  # verdict -> how many were seen
        self.quotes_seen: dict[int, int] = {}  # State -> how many quotes were seen
        self.listeners: list[Callable[[Changed], None]] = []
        self._rows: dict[int, int] = {}  # key64 -> row
        self._bodies: list[bytes | None] = []
        self._products: list[Product | None] = []
        self._table = np.zeros(1024, QUOTE_DTYPE)
        self._places = np.zeros(1024, [("seq", "<i8"), ("decided_ms", "<i8"), ("index", "<i4")])
        self._shard_of: list[int] = []
        self._outcomes: OrderedDict[str, dict[int, Outcome]] = OrderedDict()
        for shard in range(shards):
            self.window.begin(shard, 0)

    # ----- writing: the followers of the logs, one a shard ---------------------------------------

    def begin(self, shard: int, opening: Opening) -> None:
        """Take over what a checkpoint holds of ``shard``."""
        for change in opening.catalogue:
            self._apply_change(shard, change)
        rows = self._rows_of(shard, opening.quotes["listing"].tolist())
        self._table[rows] = opening.quotes
        for row, (seq, index) in zip(rows, opening.places, strict=True):
            self._places[row] = (seq, 0, index)
        self._invalidate(rows)
        self.window.begin(shard, opening.position.seq)
        self.shards[shard].position = opening.position
        self.shards[shard].decided_ms = opening.decided_ms

    def accept(self, shard: int, accepted: Accepted, *, read_ms: int) -> None:
        """Take one record that counts; ``read_ms`` is the monotonic time at which it was read."""
        view = self.shards[shard]
        decided = accepted.decided
        if decided is not None:
            if decided.seq != view.position.seq + 1:  # begun in the middle of a log
                self.window.begin(shard, decided.seq - 1)
            if decided.has_rows:
                self._take(shard, decided)
            view.decided_ms = decided.decided_ms
        elif accepted.started is not None:
            view.clock = accepted.started.clock
        view.heard(accepted.position, accepted.appended_ms, read_ms)
        if accepted.offset >= view.target - 1:
            view.caught_up = True
        told = Changed(
            shard,
            has_rows=decided is not None and decided.has_rows,
            outcomes=decided.outcomes if decided is not None else (),
        )
        for listener in self.listeners:
            listener(told)

    def _take(self, shard: int, decided: Decided) -> None:
        left: dict[int, str | None] = {}
        changed: dict[int, Retailer] = {}
        for change in decided.catalogue:
            row, category = self._apply_change(shard, change)
            if row is not None:
                changed[row] = self.retailers[change.retailer]
                left.setdefault(row, category)
        quotes = decided.quotes
        rows = self._rows_of(shard, quotes["listing"].tolist())
        self._table[rows] = quotes
        self._places["seq"][rows] = decided.seq
        self._places["decided_ms"][rows] = decided.decided_ms
        self._places["index"][rows] = np.arange(len(rows))
        self._invalidate(rows)
        self._invalidate(changed)
        by_retailer: dict[str, list[int]] = {}
        for row, retailer in changed.items():
            by_retailer.setdefault(retailer.id, []).append(row)
        for row in rows:
            listing = self.listings[row]
            if listing is not None and row not in changed:
                by_retailer.setdefault(listing.retailer, []).append(row)
        frozen = {retailer: tuple(touched) for retailer, touched in by_retailer.items()}
        self.window.append(shard, decided.seq, decided.decided_ms, quotes, frozen, left)
        self._count(decided)
        for outcome in decided.outcomes:
            self._remember(shard, outcome)

    def _count(self, decided: Decided) -> None:
        for refusal in decided.exceptions:
            self.exceptions[refusal.verdict] = self.exceptions.get(refusal.verdict, 0) + 1
        states, counts = np.unique(decided.quotes["state"], return_counts=True)
        for state, count in zip(states.tolist(), counts.tolist(), strict=True):
            self.quotes_seen[state] = self.quotes_seen.get(state, 0) + count

    def _remember(self, shard: int, outcome: Outcome) -> None:
        # The first one counts: the same id again gets the same answer.
        self._outcomes.setdefault(outcome.command_id, {}).setdefault(shard, outcome)
        if len(self._outcomes) > OUTCOMES_MAX:
            self._outcomes.popitem(last=False)

    def _apply_change(self, shard: int, change: CatalogueChange) -> tuple[int | None, str | None]:
        """Apply one change; return the row that it touched and the category it had before."""
        retailer = self.retailers.get(change.retailer)
        if retailer is None:
            retailer = self.retailers[change.retailer] = Retailer(change.retailer)
        if change.what == "listing":
            return self._change_listing(shard, retailer, change)
        if change.what == "listing_removed":
            return self._remove_listing(retailer, change)
        if change.what == "policy":
            fields = change.fields
            self.policies.change(
                change.retailer,
                fields["scope"],
                fields.get("key", ""),
                fields.get("fields", {}),
                fields.get("priority", 0),
            )
        else:
            change_retailer(shard, retailer, change)
        if change.what == "retailer":
            retailer.ready.clear()  # the primary channel may be another one now
        return None, None

    def _change_listing(
        self, shard: int, retailer: Retailer, change: CatalogueChange
    ) -> tuple[int, str | None]:
        fields = change.fields
        row = self._rows_of(shard, [change.listing])[0]
        before = self.listings[row]
        listing = Listing(
            key=change.listing,
            retailer=change.retailer,
            channel=fields["channel"],
            sku=fields["sku"],
            currency=fields.get("currency") or retailer.currency or "EUR",
            title=fields.get("title"),
            category=fields.get("category"),
            tags=tuple(fields.get("tags") or ()),
            rrp_minor=fields.get("rrp_minor"),
            map_minor=fields.get("map_minor"),
            kvi=bool(fields.get("kvi")),
            brand=fields.get("brand"),
        )
        self.listings[row] = listing
        product = retailer.product(listing.sku, shard)
        if row not in product.rows:
            product.rows.append(row)
            product.rows.sort(key=self._channel_of)
        self._products[row] = product
        return row, before.category if before is not None else None

    def _remove_listing(
        self, retailer: Retailer, change: CatalogueChange
    ) -> tuple[int | None, str | None]:
        row = self._rows.get(change.listing)
        product = self._products[row] if row is not None else None
        if row is None or product is None:
            return None, None
        product.rows.remove(row)
        product.ready.pop(product.sku, None)
        if not product.rows:
            retailer.drop(product)
        self._products[row] = None
        self._table[row] = np.zeros((), QUOTE_DTYPE)
        listing = self.listings[row]  # stays, so that a stream can say what was removed
        return row, listing.category if listing is not None else None

    def _rows_of(self, shard: int, keys: Sequence[int]) -> list[int]:
        """Return the row of each key, which is added if it is new."""
        known = self._rows
        rows = []
        for key in keys:
            row = known.get(key)
            if row is None:
                row = known[key] = len(self.listings)
                self.listings.append(None)
                self._bodies.append(None)
                self._products.append(None)
                self._shard_of.append(shard)
            rows.append(row)
        if len(self.listings) > len(self._table):
            size = max(2 * len(self._table), len(self.listings))
            self._table = _grown(self._table, size)
            self._places = _grown(self._places, size)
        return rows

    def _invalidate(self, rows: Iterable[int]) -> None:
        bodies, products = self._bodies, self._products
        for row in rows:
            bodies[row] = None
            product = products[row]
            if product is not None:
                product.ready.pop(product.sku, None)

    def _channel_of(self, row: int) -> str:
        listing = self.listings[row]
        assert listing is not None
        return listing.channel

    # ----- reading: whoever answers ---------------------------------------------------------------

    def product(self, retailer: str, sku: str) -> Product | None:
        """Return a product by its retailer and SKU."""
        view = self.retailers.get(retailer)
        return view.products.get(sku) if view is not None else None

    def missing(
        self, retailer: str, places: Iterable[tuple[ScopeKind, str]]
    ) -> set[tuple[ScopeKind, str]]:
        """Return those of the places (scope, key) where a retailer has no listing now.

        Where he has one it is usually found early; all are looked at to say that there is none.
        """
        view = self.retailers.get(retailer) or Retailer(retailer)
        missing = {place for place in places if place[0] != "retailer"}
        for scope, key in [place for place in missing if place[0] == "listing"]:
            channel, _, sku = key.partition("\x1f")
            product = view.products.get(sku)
            if product is not None and self.row_of(retailer, product, channel) is not None:
                missing.discard((scope, key))
        wanted = {place for place in missing if place[0] != "listing"}
        for product in view.products.values() if wanted else ():
            for row in product.rows:
                listing = self.listing(row)
                wanted.discard(("channel", listing.channel))
                wanted.discard(("category", listing.category or ""))
                wanted.difference_update(("tag", tag) for tag in listing.tags)
            if not wanted:
                break
        return {place for place in missing if place[0] == "listing" or place in wanted}

    def is_live(self, row: int) -> bool:
        """Whether the row's listing is in the catalogue now."""
        return self._products[row] is not None

    def listing(self, row: int) -> Listing:
        """Return what the catalogue says, or said last, of a row that has an entry."""
        listing = self.listings[row]
        assert listing is not None
        return listing

    def listing_of_key(self, key: int) -> Listing | None:
        """Return the same by the listing's key; ``None`` where nothing was said of it."""
        row = self._rows.get(key)
        return self.listings[row] if row is not None else None

    def row_of(self, retailer: str, product: Product, channel: str | None = None) -> int | None:
        """Return the row of a product on ``channel``; of its primary listing when ``None``."""
        wanted = channel or self.retailers[retailer].primary_channel
        for row in product.rows:
            if self.listing(row).channel == wanted:
                return row
        # Rows are sorted by channel, so a product that is not on the primary one has a first one.
        return product.rows[0] if channel is None else None

    def quote(self, row: int) -> np.void | None:
        """Return the newest quote of a row (``QUOTE_DTYPE``), ``None`` before the first."""
        quote: np.void = self._table[row]
        return quote if quote["state"] else None

    def place(self, row: int) -> QuotePlace:
        """Return where the newest quote of a row was decided."""
        seq, decided_ms, index = self._places[row].item()
        return QuotePlace(self.generation, self._shard_of[row], seq, index, decided_ms)

    def state_name(self, row: int) -> StateName:
        """Return what the price of a row is doing."""
        return STATE_NAMES[int(self._table[row]["state"])]

    def shard_of(self, row: int) -> int:
        """Return the shard that owns a row's listing."""
        return self._shard_of[row]

    def shard_of_key(self, key: int) -> int:
        """Return the shard that owns a listing that was seen, by its key."""
        return self._shard_of[self._rows[key]]

    def body(self, row: int) -> bytes:
        """Return the JSON of a row's recommendation."""
        body = self._bodies[row]
        if body is None:
            quote = self.quote(row)
            columns = quote_columns(quote) if quote is not None else None
            place = self.place(row) if quote is not None else None
            body = encode_recommendation(recommendation(self.listing(row), columns, place))
            self._bodies[row] = body
        return body

    def answer(self, retailer: str, product: Product, channel: str | None = None) -> bytes | None:
        """Return a product's recommendation up to its age, or ``None``: not on that channel.

        What is returned lacks its end, which :meth:`ShardView.tail` gives when answering.
        """
        if channel is None:
            ready = product.ready.get(product.sku)
            if ready is not None:
                return ready
        row = self.row_of(retailer, product, channel)
        if row is None:
            return None
        short = encode_listings([self.price_in_short(each) for each in product.rows])
        answer = self.body(row)[:-1] + b',"listings":' + short
        if channel is None:
            product.ready[product.sku] = answer
        return answer

    def price_in_short(self, row: int) -> ListingPrice:
        """Return the short form of a row's newest quote."""
        quote = self.quote(row)
        return listing_price(self.listing(row), quote_columns(quote) if quote is not None else None)

    def find_quote(self, place: tuple[int, int, int, int]) -> "FoundQuote | None":
        """Return a quote by (generation, shard, seq, index).

        Found are those of the window and, however old, the newest of each listing.
        """
        generation, shard, seq, index = place
        if generation != self.generation or shard >= len(self.shards):
            return None
        if seq > self.shards[shard].position.seq or index > 2**31 - 1:
            return None
        kept = self.window.quote(shard, seq, index)
        if kept is not None:
            row = self._rows[int(kept["quote"]["listing"])]
            decided_ms, quote = int(kept["decided_ms"]), kept["quote"]
        else:
            used = self._places[: len(self.listings)]
            same = np.flatnonzero((used["seq"] == seq) & (used["index"] == index))
            mine = [row for row in same.tolist() if self._shard_of[row] == shard]
            if not mine or self.quote(mine[0]) is None:
                return None
            row = mine[0]
            decided_ms, quote = int(self._places[row]["decided_ms"]), self._table[row]
        listing = self.listings[row]
        if listing is None:
            return None
        found = QuotePlace(generation, shard, seq, index, decided_ms)
        return FoundQuote(row, listing, quote, found)

    def outcomes(self, command_id: str) -> Mapping[int, Outcome]:
        """Return the outcomes of a command, by the shard that gave each."""
        return self._outcomes.get(command_id, {})

    def position(self) -> tuple[int, ...]:
        """Return the ``seq`` up to which each shard was read."""
        return tuple(view.position.seq for view in self.shards)

    def is_caught_up(self) -> bool:
        """Whether every shard was read to where its log ended when following began."""
        return all(view.caught_up for view in self.shards)


class FoundQuote(Struct, frozen=True):
    """A quote looked up by its id."""

    row: int
    listing: Listing
    quote: np.void
    place: QuotePlace


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    bigger = np.zeros(size, array.dtype)
    bigger[: len(array)] = array
    return bigger
