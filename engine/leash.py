"""A leash on rivals whom nobody confirms: how far they may pull the reference within a day.

What one feed says of one rival cannot be told from a lie that is repeated or grows slowly, so no
screening of single prices holds it. The leash bounds what all such words together do: from where
the reference stood it goes at most ``rival_unconfirmed_per_day`` a day, down or up, also when every
rival is said to have gone. Where three feeds of long standing watch a listing, the lowest price on
which two agree moves it at once, and the leash holds what lies below that. Of two feeds nobody can
say which lies, and whoever owns one could keep the other from being heard: two count as one.
"""

import numpy as np
from msgspec.structs import replace

from engine.rivals import Reference
from kernels.hyperparameters import LEASH_DAYS_MAX, MOORED_MS
from kernels.limits import PRICE_MINOR_MAX

DAY_MS, HOUR_MS = 86_400_000, 3_600_000


def leashed(seen: Reference, listings: np.ndarray, policy: np.ndarray, now_ms: int) -> Reference:
    """Return what rivals say, no further than the leash reaches by now.

    Args:
        listings: LISTING_DTYPE[rows].
        policy: POLICY_DTYPE[rows].
    """
    on = (policy["rival_unconfirmed_per_day"] < 1.0) & (listings["leash_ms"] > 0)
    if not np.count_nonzero(on):
        return seen
    held = np.exp(_held_log(seen, listings, policy, now_ms))
    held = np.clip(np.rint(held), 1, PRICE_MINOR_MAX).astype(np.int32)
    taut = on & (held != seen.landed_minor)
    # Time alone lets a taut leash go on, so somebody must look.
    due = np.where(taut, np.minimum(seen.stale_ms, now_ms + HOUR_MS), seen.stale_ms)
    return replace(
        seen,
        landed_minor=np.where(on, held, seen.landed_minor),
        told_minor=seen.landed_minor,
        stale_ms=due,
    )


def moor(listings: np.ndarray, seen: Reference, policy: np.ndarray, now_ms: int) -> None:
    """Write into ``listings`` where the reference stands by now, for the next look.

    Args:
        seen: what :func:`leashed` returned for the same listings and time.
    """
    on = policy["rival_unconfirmed_per_day"] < 1.0
    listings["leash_ms"][~on] = 0
    if not np.count_nonzero(on):
        return
    known = on & (seen.landed_minor > 0)
    if not np.count_nonzero(known):
        return
    begun = listings["leash_ms"] > 0
    # Not what is rounded to minor units: it would lose the way of an hour.
    held = _held_log(replace(seen, landed_minor=seen.told_minor), listings, policy, now_ms)
    held = np.where(begun, held, np.log(np.maximum(seen.landed_minor, 1)))
    borne = np.where(seen.borne_out_minor > 0.0, np.log(np.maximum(seen.borne_out_minor, 1.0)), 0.0)
    moved = np.abs(borne - listings["leash_borne_log"]) > 1e-6
    since = now_ms - listings["leash_ms"]
    anew = np.flatnonzero(known & (moved | ~begun | (since >= MOORED_MS)))
    listings["leash_log"][anew] = held[anew]
    listings["leash_borne_log"][anew] = borne[anew]
    listings["leash_ms"][anew] = now_ms


def _held_log(seen: Reference, listings: np.ndarray, policy: np.ndarray, now_ms: int) -> np.ndarray:
    """Return float64[rows], the logarithm of the reference on its leash."""
    days = np.clip((now_ms - listings["leash_ms"]) / DAY_MS, 0.0, LEASH_DAYS_MAX)
    way = days * policy["rival_unconfirmed_per_day"].astype(np.float64)
    moored = listings["leash_log"].astype(np.float64)
    told = np.where(seen.landed_minor > 0, np.log(np.maximum(seen.landed_minor, 1)), np.inf)
    held = np.clip(told, moored - way, moored + way)
    # With a price that is borne out the leash goes along, and holds the pull below that price.
    borne_before = listings["leash_borne_log"].astype(np.float64)
    pulled = np.where(borne_before > 0.0, np.maximum(borne_before - moored, 0.0), 0.0)
    borne = np.log(np.maximum(seen.borne_out_minor, 1.0))
    pull = np.minimum(np.maximum(borne - told, 0.0), pulled + way)
    return np.asarray(np.where(seen.borne_out_minor > 0.0, borne - pull, held))
