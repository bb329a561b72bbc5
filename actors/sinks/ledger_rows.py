"""The rows that decisions stand for in the ledger: prices, products, approvals, policies, audit."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from msgspec import Struct

from actors.sinks.rows import (
    QUOTE_COLUMNS,
    numbers,
    plain_json,
    signed,
    storable,
)
from engine.decided import QUOTE_DTYPE, CatalogueChange, Cause, Decided, Outcome, quote_id
from engine.microbatch import LANES, Position
from persistence.checksums import PRICE_FIELDS, Tally, tally_quotes
from persistence.decision_reader import Accepted
from persistence.decision_records import LogPosition
from persistence.ports import Statement

FIRST_HASH = "0" * 64
"""What the first entry of an audit chain stands on."""

APPROVAL_KINDS = frozenset({"PriceApproved", "PriceRejected", "PricePinned", "PriceUnpinned"})
HISTORY_COLUMNS = (
    "generation",
    "shard",
    "seq",
    "item",
    "quote_id",
    "listing",
    "decided_ms",
    "appended_ms",
    *QUOTE_COLUMNS,
    "cause_item",
    "model",
    "epoch",
)
_FROM_QUOTE = {name: ("cause_index" if name == "cause_item" else name) for name in HISTORY_COLUMNS}
AUDIT_COLUMNS = (
    "generation",
    "shard",
    "number",
    "seq",
    "decided_ms",
    "lane",
    "log_offset",
    "item",
    "entry",
    "retailer",
    "actor",
    "kind",
    "status",
    "command_id",
    "listing",
    "detail",
    "previous_hash",
    "hash",
)
_APPROVAL_COLUMNS = (
    "generation",
    "shard",
    "lane",
    "log_offset",
    "item",
    "seq",
    "decided_ms",
    "command_id",
    "retailer",
    "listing",
    "kind",
    "status",
    "actor",
    "price_minor",
    "detail",
)


class Stored(Struct, frozen=True):
    """The cursor row as it stands in the store, as far as we know."""

    position: LogPosition | None  # None: there is no row yet
    appended_ms: int = 0
    audit_number: int = 0
    audit_hash: str = FIRST_HASH
    tally: Tally = Tally()


def audit_hash(previous: str, entry: Sequence[Any]) -> str:
    """Return the hash that chains an audit entry to the one before it."""
    text = previous + plain_json(entry)
    return blake2b(text.encode(), digest_size=32).hexdigest()


class Rows:
    """The rows of one transaction, gathered from accepted decisions in the order of the log.

    Of a listing or a price that changed more than once, only the last is put into ``products``.
    """

    def __init__(self, generation: int, shard: int, before: Stored) -> None:
        self._generation = generation
        self._shard = shard
        self.number = before.audit_number
        self.hash = before.audit_hash
        self.tally = before.tally
        self._history: list[tuple[Any, ...]] = []
        self._caused_by_command: list[int] = []  # seq of decisions with quotes that commands caused
        self._listings: dict[int, tuple[Any, ...]] = {}
        self._removed: dict[int, int] = {}
        self._priced: dict[int, tuple[Any, ...]] = {}
        self._retailers: list[Statement] = []
        self._policies: list[tuple[Any, ...]] = []
        self._approvals: list[tuple[Any, ...]] = []
        self._audit: list[tuple[Any, ...]] = []

    def take(self, accepted: Accepted) -> None:
        """Gather one accepted record."""
        decided = accepted.decided
        if decided is None or not decided.has_rows:
            return
        actors = {outcome.position: outcome for outcome in decided.outcomes}
        for change in decided.catalogue:
            self._change(change, decided, actors.get(change.position))
        for outcome in decided.outcomes:
            self._outcome(outcome, decided)
        if len(decided.quotes):
            self._quotes(accepted, decided)

    def statements(self) -> list[Statement]:
        """Return everything that was gathered, in an order that keeps references whole."""
        into = [
            (_UPSERT_PRODUCT, list(self._listings.values())),
            (
                "update products set removed_ms = $2 where listing = $1",
                list(self._removed.items()),
            ),
            (_PRICE_PRODUCT, list(self._priced.values())),
            (_UPSERT_POLICY, self._policies),
        ]
        found = [*self._retailers]
        found += [Statement(sql, many=rows) for sql, rows in into if rows]
        copied = (
            ("price_history", HISTORY_COLUMNS, self._history),
            ("approvals", _APPROVAL_COLUMNS, self._approvals),
            ("audit", AUDIT_COLUMNS, self._audit),
        )
        found += [
            Statement(into=table, columns=columns, many=rows)
            for table, columns, rows in copied
            if rows
        ]
        if self._caused_by_command:
            first, last = self._caused_by_command[0], self._caused_by_command[-1]
            found.append(Statement(_NAME_ACTORS, (self._generation, self._shard, first, last)))
        return found

    def _quotes(self, accepted: Accepted, decided: Decided) -> None:
        generation, shard, seq, quotes = self._generation, self._shard, decided.seq, decided.quotes
        rows = len(quotes)
        self.tally = self.tally.plus(tally_quotes(generation, shard, seq, quotes))
        given: dict[str, list[Any]] = {
            "generation": [generation] * rows,
            "shard": [shard] * rows,
            "seq": [seq] * rows,
            "item": list(range(rows)),
            "quote_id": [quote_id(generation, shard, seq, index) for index in range(rows)],
            "listing": quotes["listing"].astype(np.int64).tolist(),
            "decided_ms": [decided.decided_ms] * rows,
            "appended_ms": [accepted.appended_ms] * rows,
            "model": [decided.model] * rows,
            "epoch": [accepted.stamp.epoch] * rows,
        }
        columns = [
            given[name] if name in given else numbers(quotes[_FROM_QUOTE[name]])
            for name in HISTORY_COLUMNS
        ]
        new = list(zip(*columns, strict=True))
        self._history += new
        lanes, kinds = quotes["cause_lane"], quotes["cause_kind"]
        caused = np.isin(kinds, (Cause.DELTA, Cause.REPRICE))
        if bool(((lanes == LANES.index("commands")) & caused).any()):
            self._caused_by_command.append(seq)
        for row in new:
            quote = dict(zip(HISTORY_COLUMNS, row, strict=True))
            self._priced[quote["listing"]] = tuple(quote[name] for name in _PRICED_FIELDS)

    def _change(self, change: CatalogueChange, decided: Decided, outcome: Outcome | None) -> None:
        if change.what == "listing":
            self._listing(change, decided)
        elif change.what == "listing_removed":
            self._removed[signed(change.listing)] = decided.decided_ms
        elif change.what == "policy":
            self._policy(change, decided, outcome)
        else:
            self._retailers += self._retailer(change, decided)
        if outcome is not None or not change.what.startswith("listing"):
            self._enter(
                decided,
                change.position,
                entry="change",
                retailer=change.retailer,
                actor="" if outcome is None else outcome.actor,
                kind=change.what,
                status="done",
                command_id="" if outcome is None else outcome.command_id,
                listing=change.listing,
                detail=plain_json(change.fields),
            )

    def _listing(self, change: CatalogueChange, decided: Decided) -> None:
        fields, key = change.fields, signed(change.listing)
        self._removed.pop(key, None)
        self._listings.pop(key, None)
        self._listings[key] = (
            key,
            self._generation,
            self._shard,
            change.retailer,
            storable(str(fields.get("channel", ""))),
            storable(str(fields.get("sku", ""))),
            storable(fields.get("title")),
            storable(fields.get("category")),
            storable(fields.get("brand")),
            plain_json(fields.get("tags") or []),
            fields.get("currency"),
            fields.get("rrp_minor"),
            fields.get("map_minor"),
            int(bool(fields.get("kvi"))),
            fields.get("cost_minor"),
            decided.seq,
            decided.decided_ms,
        )

    def _policy(self, change: CatalogueChange, decided: Decided, outcome: Outcome | None) -> None:
        fields = change.fields
        self._policies.append(
            (
                self._generation,
                self._shard,
                change.retailer,
                str(fields.get("scope", "")),
                storable(str(fields.get("key", ""))),
                int(fields.get("priority") or 0),
                plain_json(fields.get("fields") or {}),
                None if outcome is None else storable(outcome.actor),
                decided.seq,
                decided.decided_ms,
            )
        )

    def _retailer(self, change: CatalogueChange, decided: Decided) -> list[Statement]:
        """Return what a change of a retailer's state does to its row; fees and rates only audit."""
        fields = change.fields
        where = (self._generation, self._shard, change.retailer, decided.seq, decided.decided_ms)
        if change.what == "retailer":
            arguments = (
                *where,
                storable(fields.get("name")),
                fields.get("currency"),
                fields.get("mode"),
                fields.get("primary_channel"),
                fields.get("spread"),
                plain_json(fields),
            )
            return [Statement(_UPSERT_RETAILER, arguments)]
        set_to = _RETAILER_STATES.get(change.what)
        if set_to is None:
            return []
        if change.what == "mode":
            return [Statement(_update_retailer(set_to), (*where, fields.get("mode")))]
        if fields.get("channel") is not None:
            return []  # a halt of one channel; the audit has it
        if change.what == "resume":
            return [Statement(_update_retailer(set_to), where)]
        told = fields.get("reason") or "; ".join(fields.get("reasons") or ()) or change.what
        reason = storable(str(told))
        return [Statement(_update_retailer(set_to), (*where, reason))]

    def _outcome(self, outcome: Outcome, decided: Decided) -> None:
        if outcome.kind in APPROVAL_KINDS:
            self._approvals.append(
                (
                    self._generation,
                    self._shard,
                    outcome.position.lane,
                    outcome.position.offset,
                    outcome.position.index,
                    decided.seq,
                    decided.decided_ms,
                    storable(outcome.command_id),
                    outcome.retailer,
                    signed(outcome.listing),
                    outcome.kind,
                    outcome.status,
                    storable(outcome.actor),
                    outcome.price_minor,
                    storable(outcome.detail),
                )
            )
        self._enter(
            decided,
            outcome.position,
            entry="outcome",
            retailer=outcome.retailer,
            actor=outcome.actor,
            kind=outcome.kind,
            status=outcome.status,
            command_id=outcome.command_id,
            listing=outcome.listing,
            detail=plain_json({"detail": outcome.detail, "price_minor": outcome.price_minor}),
        )

    def _enter(
        self,
        decided: Decided,
        position: Position,
        *,
        entry: str,
        retailer: str,
        actor: str,
        kind: str,
        status: str,
        command_id: str,
        listing: int,
        detail: str,
    ) -> None:
        """Add one entry to the audit, chained to the one before it."""
        self.number += 1
        fields = (
            self._generation,
            self._shard,
            self.number,
            decided.seq,
            decided.decided_ms,
            position.lane,
            position.offset,
            position.index,
            entry,
            retailer,
            storable(actor),
            kind,
            status,
            storable(command_id),
            signed(listing),
            detail,
        )
        previous, self.hash = self.hash, audit_hash(self.hash, fields)
        self._audit.append((*fields, previous, self.hash))


_PRICED_FIELDS = (
    "listing",
    "state",
    "in_force_minor",
    "proposed_minor",
    "floor_minor",
    "ceiling_minor",
    "confidence",
    "quote_id",
    "seq",
    "decided_ms",
)

_PRICE_PRODUCT = (
    "update products set state = $2, in_force_minor = $3, proposed_minor = $4, floor_minor = $5,"
    " ceiling_minor = $6, confidence = $7, quote_id = $8, priced_seq = $9, priced_ms = $10"
    " where listing = $1"
)

_UPSERT_PRODUCT = (
    "insert into products (listing, generation, shard, retailer, channel, sku, title, category,"
    " brand, tags, currency, rrp_minor, map_minor, kvi, cost_minor, changed_seq, changed_ms)"
    " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
    " on conflict (listing) do update set generation = excluded.generation,"
    " shard = excluded.shard, title = excluded.title, category = excluded.category,"
    " brand = excluded.brand, tags = excluded.tags, currency = excluded.currency,"
    " rrp_minor = excluded.rrp_minor, map_minor = excluded.map_minor, kvi = excluded.kvi,"
    " cost_minor = excluded.cost_minor,"
    " changed_seq = excluded.changed_seq, changed_ms = excluded.changed_ms, removed_ms = null"
)

_UPSERT_POLICY = (
    "insert into policies (generation, shard, retailer, scope, scope_key, priority, fields, actor,"
    " seq, changed_ms) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    " on conflict (generation, shard, retailer, scope, scope_key) do update set"
    " priority = excluded.priority, fields = excluded.fields, actor = excluded.actor,"
    " seq = excluded.seq, changed_ms = excluded.changed_ms"
)

_UPSERT_RETAILER = (
    "insert into retailers (generation, shard, retailer, seq, changed_ms, name, currency, mode,"
    " primary_channel, spread, fields) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
    " on conflict (generation, shard, retailer) do update set seq = excluded.seq,"
    " changed_ms = excluded.changed_ms, name = excluded.name, currency = excluded.currency,"
    " mode = excluded.mode, primary_channel = excluded.primary_channel, spread = excluded.spread,"
    " fields = excluded.fields"
)

_RETAILER_STATES = {
    "mode": "mode = $6",
    "halt": "halted = 1, halt_reason = $6",
    "breaker": "halted = 1, halt_reason = $6",
    "resume": "halted = 0, halt_reason = null",
}

_NAME_ACTORS = (
    "update price_history set actor = audit.actor, command_id = audit.command_id from audit"
    " where price_history.generation = $1 and price_history.shard = $2"
    " and price_history.seq between $3 and $4 and price_history.cause_lane = 0"
    f" and price_history.cause_kind in ({int(Cause.DELTA)}, {int(Cause.REPRICE)})"
    " and audit.generation = price_history.generation and audit.shard = price_history.shard"
    " and audit.entry = 'outcome' and audit.lane = price_history.cause_lane"
    " and audit.log_offset = price_history.cause_offset and audit.item = price_history.cause_item"
)


def _update_retailer(set_to: str) -> str:
    return (
        f"update retailers set seq = $4, changed_ms = $5, {set_to}"
        " where generation = $1 and shard = $2 and retailer = $3"
    )


assert set(PRICE_FIELDS) <= set(HISTORY_COLUMNS)
assert {_FROM_QUOTE[name] for name in HISTORY_COLUMNS} >= set(QUOTE_DTYPE.names or ()), (
    "a lost field"
)
