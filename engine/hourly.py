"""What of a microbatch waits for the full hour, and the looks that follow when it comes.

Facts about an hourly listing are applied at once like all others; only the look at its price waits.
A whole catalogue's hour comes at once, so the looks walk over the rows in their order, so many a
microbatch: a timer of each row would have all of them sorted each time, and hold up the timers of
others.
"""

import numpy as np

from engine.arms import policies_of
from engine.listing_table import BEHIND, WAITS
from engine.memory import Memory, Work
from engine.policy import TIERS
from engine.tiers import HOURLY_ROWS_MAX

WALKED_ROWS_MAX = 65_536
"""Most rows that one microbatch searches for those that wait."""

AUTO, HOURLY = TIERS.index("auto"), TIERS.index("hourly")


def tiers_of(memory: Memory, rows: np.ndarray) -> np.ndarray:
    """Return uint8[rows], what policy says of each row, its arm's treatment included."""
    listings = memory.listings.listings
    running = memory.experiments.of.values()
    if running and any("tier" in each.terms.treatment for each in running):
        return np.asarray(policies_of(memory, rows, listings.take(rows))["tier"])
    return np.asarray(memory.groups.policy["tier"][listings["group"][rows]])


def is_hourly(memory: Memory, rows: np.ndarray) -> np.ndarray:
    """Return bool[rows], which are looked at hourly."""
    tier = tiers_of(memory, rows)
    behind = (memory.listings.listings["flags"][rows] & BEHIND) != 0
    return np.asarray((tier == HOURLY) | ((tier == AUTO) & behind))


def defer(memory: Memory, work: Work, rows: np.ndarray) -> np.ndarray:
    """Let touched rows wait that are hourly and not urgent; return bool[rows], which do.

    Urgent is what a person, the retailer or a cost said, and a row without a price. So is a dirty
    row: what marked it is urgent, and its place in the backlog goes by what it has sold, which must
    not change while it waits there.
    """
    waits = is_hourly(memory, rows)
    if not np.count_nonzero(waits):
        return waits
    listings = memory.listings.listings
    waits &= ~np.isin(rows, work.urgent(), assume_unique=True)
    waits &= ~memory.backlog.dirty[rows] & (listings["in_force_minor"][rows] > 0)
    waiting = rows[waits]
    if len(waiting):
        fresh = waiting[listings["flags"][waiting] & WAITS == 0]
        listings["flags"][fresh] |= WAITS
        memory.tiers.waiting += len(fresh)
        # They are looked at later, but have changed now.
        work.changed.append(listings.take(waiting).tobytes())
        memory.unsaved[waiting] = True
    return waits


def looked_at(memory: Memory, rows: np.ndarray) -> None:
    """Let rows wait no more: they are priced now, or are gone."""
    if not memory.tiers.waiting:
        return
    flags = memory.listings.listings["flags"]
    waited = rows[flags[rows] & WAITS != 0]
    flags[waited] &= 255 - WAITS
    memory.tiers.waiting -= len(waited)


def take(memory: Memory, rows_max: int) -> np.ndarray:
    """Return the next rows whose full hour has come, at most ``rows_max``, ascending."""
    tiers, rows = memory.tiers, memory.listings.rows
    if tiers.cursor < 0:
        return np.empty(0, dtype=np.int64)
    stop = min(tiers.cursor + WALKED_ROWS_MAX, rows)
    flags = memory.listings.listings["flags"][tiers.cursor : stop]
    found = tiers.cursor + np.flatnonzero(flags & WAITS)
    rows_max = min(rows_max, HOURLY_ROWS_MAX)
    if len(found) > rows_max:
        stop = int(found[rows_max])
    tiers.cursor = stop if stop < rows else -1
    return found[:rows_max]
