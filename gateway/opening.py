"""What a replica begins with: the newest checkpoint of a shard, read without jax."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from engine.checkpoint import Catalogue, PartBytes, read_catalogue
from engine.decided import CatalogueChange, no_quotes
from engine.microbatch import Position
from persistence.checkpoints import CheckpointFiles
from persistence.decision_records import LogPosition

_NOWHERE = Position(0, -1, 0)
"""The position of what a checkpoint says: its delta is no longer known."""


class Opening(Struct, frozen=True):
    """What a checkpoint says of one shard."""

    position: LogPosition
    catalogue: Sequence[CatalogueChange]
    quotes: np.ndarray  # QUOTE_DTYPE, the newest of each listing
    places: Sequence[tuple[int, int]] = ()  # (seq, index) of each quote
    decided_ms: int = 0  # time of its mark, by the owner's clock


class CheckpointOpenings:
    """Reads openings from the checkpoint files of each shard."""

    def __init__(self, files: Mapping[int, CheckpointFiles]) -> None:
        self._files = files

    async def __call__(self, shard: int) -> Opening | None:
        """Return the newest checkpoint of ``shard``; ``None`` when there is no valid one."""
        files = self._files.get(shard)
        loaded = await files.load() if files is not None else None
        if loaded is None:
            return None
        parts, position = loaded
        # A big one takes seconds to read, and somebody may ask for /livez meanwhile.
        return await asyncio.to_thread(opening_of, parts, position)


def opening_of(parts: Iterable[PartBytes], position: LogPosition) -> Opening:
    """Return a checkpoint's parts as changes and quotes."""
    catalogue = read_catalogue(parts)
    priced = [listing for listing in catalogue.listings if listing.quote is not None]
    quotes = [listing.quote for listing in priced if listing.quote is not None]
    return Opening(
        position=position,
        catalogue=_changes(catalogue),
        quotes=np.concatenate(quotes) if quotes else no_quotes(),
        places=[(listing.quote_seq, listing.quote_index) for listing in priced],
        decided_ms=catalogue.mark["decided_ms"],
    )


def _changes(catalogue: Catalogue) -> list[CatalogueChange]:
    """Return the changes that lead to a checkpoint's catalogue."""
    changes = []
    for held in catalogue.retailers:
        changes.append(CatalogueChange(_NOWHERE, "retailer", held.retailer, held.fields))
        if held.halted:
            changes.append(CatalogueChange(_NOWHERE, "halt", held.retailer, {}))
        if held.tripped:
            changes.append(CatalogueChange(_NOWHERE, "breaker", held.retailer, {}))
        changes += [
            CatalogueChange(_NOWHERE, "halt", held.retailer, {"channel": channel})
            for channel in held.halted_channels
        ]
        changes += [
            CatalogueChange(_NOWHERE, "experiment", held.retailer, told)
            for told in held.experiments
        ]
    for retailer, scope, key, priority, fields in catalogue.policies:
        place = {"scope": scope, "key": key, "priority": priority, "fields": fields}
        changes.append(CatalogueChange(_NOWHERE, "policy", retailer, place))
    for listing in catalogue.listings:
        changes.append(
            CatalogueChange(_NOWHERE, "listing", listing.retailer, listing.fields, listing.listing)
        )
    return changes
