"""What one microbatch caused, and nothing about who decided it.

Equality and replay concern the decided. The stamp (log, generation, shard, epoch, owner) is put on
by the actor when it appends, perhaps twice, and lives in ``persistence.decision_records``.
"""

from enum import IntEnum
from typing import Any

import numpy as np
from msgspec import Struct

from engine.artefact import Artefact
from engine.microbatch import Position, Refusal


class State(IntEnum):
    """What a listing's price is doing. One a row."""

    SHADOW = 1  # proposed and shown, never put in force
    LIVE = 2  # in force is what we decided
    PENDING = 3  # a proposal waits for a person
    PINNED = 4  # a person fixed it
    HELD = 5  # the breaker holds the move back
    INFEASIBLE = 6  # legal, floor and ceiling leave nothing; the price in force stays
    UNPUBLISHABLE = 7  # no cost, no floor, no price, or a stale rate: fails closed
    HALTED = 8  # publishing stopped; the price in force stays
    REMOVED = 9


QUOTE_DTYPE = np.dtype(
    [
        ("listing", "<u8"),  # engine.routing.key64; row numbers never leave a shard
        ("state", "u1"),  # State
        ("in_force_minor", "<i4"),  # after this decision; 0: none yet
        ("previous_minor", "<i4"),  # in force before it
        ("proposed_minor", "<i4"),  # what the engine wants; 0: nothing
        ("target_minor", "<i4"),  # the model's optimum before any rule
        ("floor_minor", "<i4"),  # effective bounds after all rules
        ("ceiling_minor", "<i4"),
        ("cost_minor", "<i4"),  # -1: unknown
        ("reasons", "<u4"),  # mask, kernels.reasons
        (
            "binding",
            "u1",
        ),  # index in kernels.reasons.BINDINGS of what set the price, 255: none
        ("without_minor", "<i4"),  # what the price would be without the binding rule
        ("elasticity", "<f4"),  # posterior mean, negative
        ("elasticity_sd", "<f4"),
        ("rival_minor", "<i4"),  # reference rival, landed, in the listing's currency; 0: none
        ("rivals", "<u2"),  # how many fresh, comparable rivals stood behind it
        ("stock", "<i4"),  # -1: unknown
        ("profit_change", "<f4"),  # expected, in minor units per unit of today's demand
        ("confidence", "<f4"),  # 0..1, expected share of the attainable profit
        ("cause_kind", "u1"),  # Cause
        ("cause_lane", "u1"),
        ("cause_offset", "<i8"),
        ("cause_index", "<i4"),
    ]
)
"""One quote, packed. A decision holds ``np.ndarray[QUOTE_DTYPE]``; a format version fixes it."""


class Cause(IntEnum):
    """Why a row was looked at."""

    DELTA = 1  # cause_lane, cause_offset, cause_index name it
    TIMER = 2
    REPRICE = 3  # big work: a policy change, a mode change
    HOUR = 4  # its full hour: it is looked at hourly, and facts have changed it


def no_quotes() -> np.ndarray:
    """Return an empty array of quotes."""
    return np.empty(0, dtype=QUOTE_DTYPE)


class CatalogueChange(Struct, frozen=True, array_like=True):
    """An accepted change of a listing, a policy, a retailer or the breaker, for followers.

    ``what`` is ``listing``, ``listing_removed``, ``retailer``, ``policy``, ``fees``, ``rate``,
    ``mode``, ``halt``, ``resume``, ``breaker`` or ``experiment``. ``fields`` holds plain JSON
    values: for a listing its whole state after the change (channel, sku, title, category, tags,
    currency, rrp_minor, map_minor, kvi, cost_minor, and brand where it has one), for others the
    delta's own fields; an experiment's are how it stands.
    """

    position: Position
    what: str
    retailer: str
    fields: dict[str, Any]
    listing: int = 0


class Outcome(Struct, frozen=True, array_like=True):
    """The answer to one command."""

    command_id: str
    position: Position
    retailer: str
    actor: str
    status: str  # done, refused, conflict, not_supported, duplicate
    kind: str  # the delta's type
    detail: str = ""  # for people: names the field and the fix
    listing: int = 0
    price_minor: int = 0  # in force (or pinned) after it, where it concerns one listing


class Decided(Struct, frozen=True, kw_only=True, eq=False):
    """Everything one microbatch caused, and all that replay needs to cut the logs in one place.

    Two deltas to one SKU make one quote when they share a microbatch and two when they do not, so a
    successor must cut where its predecessor did, and at the same ``decided_ms``.
    """

    seq: int  # contiguous within a shard, across epochs, from 1
    last_command: int  # offsets of the last records consumed, of either lane; -1 before the first
    last_delta: int
    decided_ms: int  # unix time, handed to the engine, never read by it
    model: str  # version of the demand model that was in fact used, at most 24 bytes
    digest: int  # 64 bits, chained over what changed; equal on replay within one replay domain
    quotes: np.ndarray  # QUOTE_DTYPE
    catalogue: tuple[CatalogueChange, ...] = ()
    exceptions: tuple[Refusal, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    @property
    def has_rows(self) -> bool:
        """Whether anything but the mark must be written."""
        return bool(len(self.quotes) or self.catalogue or self.exceptions or self.outcomes)


class Given(Struct, frozen=True, kw_only=True):
    """Facts from outside the log that replay must repeat; they stand in the decided."""

    skipped: tuple[Position, ...] = ()  # positions isolated because they killed two owners
    artefacts: tuple[Artefact, ...] = ()  # of promotions in the batch; what is not here is missing


DIGITS_MAX = 19
"""Most digits a part of a quote's id has: an int64's. Python refuses to read thousands."""


def quote_id(generation: int, shard: int, seq: int, index: int) -> str:
    """Return the public name of a quote."""
    return f"q{generation}-{shard}-{seq}-{index}"


def parse_quote_id(text: str) -> tuple[int, int, int, int] | None:
    """Return (generation, shard, seq, index), or ``None`` when ``text`` is no quote id."""
    parts = text[1:].split("-") if text.startswith("q") else []
    if len(parts) != 4 or not all(
        part.isascii() and part.isdigit() and len(part) <= DIGITS_MAX for part in parts
    ):
        return None
    generation, shard, seq, index = (int(part) for part in parts)
    return generation, shard, seq, index
