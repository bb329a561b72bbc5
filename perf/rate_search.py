"""The highest rate that keeps a limit of latency, found in few runs.

Pure arithmetic over runs already made, so that it is tested without an engine. A run is kept or not
kept; what lies above the lowest rate that was not kept is believed no more, whatever it showed: a
lucky run proves nothing.
"""

import math
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

FIRST_OF_MAXIMUM = (0.8, 0.95)
"""Shares of the own maximum that are measured in any case: the promises are about them."""

STEP_OF_MAXIMUM = 0.05
"""The search ends when kept and not kept are no further apart."""


class Run(Struct, frozen=True):
    """What one rate showed."""

    per_s: int
    p99_ms: float  # infinite when a probe was lost, or not readable within its wait
    probes_lost: int = 0


def bounds(runs: Sequence[Run], limit_ms: float) -> tuple[int, int | None]:
    """Return the highest rate kept below the lowest that was not, and that one (``None``: none)."""
    not_kept = min((run.per_s for run in runs if not run.p99_ms <= limit_ms), default=None)
    kept = max(
        (
            run.per_s
            for run in runs
            if run.p99_ms <= limit_ms and (not_kept is None or run.per_s < not_kept)
        ),
        default=0,
    )
    return kept, not_kept


def next_rate(runs: Sequence[Run], limit_ms: float, maximum_per_s: float) -> int | None:
    """Return the rate to measure next for a limit, ``None`` when its highest rate is found."""
    kept, not_kept = bounds(runs, limit_ms)
    if not_kept is None:
        return None if kept >= int(maximum_per_s) else int(maximum_per_s)
    if not_kept - kept <= STEP_OF_MAXIMUM * maximum_per_s + 1:
        return None
    return (kept + not_kept) // 2


def share(per_s: float, maximum_per_s: float) -> float:
    """Return a rate as a share of the own maximum."""
    return round(per_s / maximum_per_s, 3) if maximum_per_s else math.nan


def found_rates(
    runs: Sequence[Run], limits_ms: Sequence[float], maximum_per_s: float
) -> dict[str, Any]:
    """Return what the runs say of every limit, with each run as a share of the maximum."""
    found = {f"{limit:g}": bounds(runs, limit)[0] for limit in limits_ms}
    first = {of: int(of * maximum_per_s) for of in FIRST_OF_MAXIMUM}
    p99 = {run.per_s: run.p99_ms if math.isfinite(run.p99_ms) else None for run in runs}
    lost = {run.per_s: run.probes_lost for run in runs}
    loaded = first[FIRST_OF_MAXIMUM[0]]
    return {
        "own_maximum_per_s": round(maximum_per_s),
        "highest_per_s_with_p99_ms": found,
        "highest_of_maximum": {
            limit: share(per_s, maximum_per_s) for limit, per_s in found.items()
        },
        "p99_ms_at_of_maximum": {
            f"{of:g}": p99[per_s] for of, per_s in first.items() if per_s in p99
        },
        "loaded": {
            "of_maximum": FIRST_OF_MAXIMUM[0],
            "p99_ms": p99.get(loaded),
            "probes_lost": lost.get(loaded),
        },
        "runs": [
            {
                "per_s": run.per_s,
                "of_maximum": share(run.per_s, maximum_per_s),
                "p99_ms": p99[run.per_s],
            }
            for run in sorted(runs, key=lambda run: run.per_s)
        ],
    }
