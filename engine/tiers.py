"""Which listings are looked at hourly, how far the looks of the hour are, and who ranks when.

Two bits of a listing's ``flags`` belong here: ``BEHIND``, its rank is behind the share that its
retailer has priced in real time, and ``WAITS``, facts changed it since it was last priced. All
else that a successor needs is below. ``engine.hourly`` and ``engine.ranking`` change it.
"""

from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import asdict

HOUR_MS, DAY_MS = 3_600_000, 86_400_000

HOURLY_ROWS_MAX = 512
"""Most rows one microbatch takes because their full hour has come: a whole catalogue's comes at
once, and what is urgent must not wait for it."""


class Walk(Struct):
    """A ranking that goes on: first each listing's revenue is taken, then each is told its side."""

    retailer: int
    at_ms: int  # when it began; all revenues are of this moment
    rows: np.ndarray  # int64[listings], the retailer's when it began
    keys: np.ndarray  # uint64[listings]
    revenue: np.ndarray  # float64[listings], minor units a day
    auto: np.ndarray  # bool[listings], whether its tier leaves it to the rank
    taken: int = 0  # so many have their revenue
    told: int = 0  # so many know their side
    # The last in real time, known once all revenues are: nobody before that.
    least: float = float("inf")
    last_key: int = 0


_COLUMNS: dict[str, str] = {"rows": "<i8", "keys": "<u8", "revenue": "<f8", "auto": "?"}


class Tiers:
    """What a shard remembers of tiers beside its listings' flags."""

    def __init__(self) -> None:
        self.waiting = 0  # rows that wait for a full hour
        self.hour = 0  # number of the last full hour that a microbatch has passed
        self.cursor = -1  # of the hour's looks: rows before it had theirs; -1: all had
        self.next_ms: dict[int, int] = {}  # of retailers with a share below 1, when each ranks next
        self.walk: Walk | None = None

    def turn(self, now_ms: int) -> None:
        """Begin the hour's looks in its first microbatch."""
        hour = now_ms // HOUR_MS
        if hour > self.hour:
            self.hour = hour
            if self.waiting:
                self.cursor = 0

    def due(self, now_ms: int) -> bool:
        """Return whether a row's full hour has come."""
        return self.cursor >= 0 or (self.waiting > 0 and now_ms >= self.next_hour_ms)

    @property
    def next_hour_ms(self) -> int:
        """Return when the rows that wait are looked at."""
        return (self.hour + 1) * HOUR_MS

    def changed(self) -> bytes:
        """Return what stands in the digest, nothing where no listing is hourly."""
        if not self.next_ms and not self.waiting and self.cursor < 0:
            return b""
        walk, ranks_ms = self.walk, sum(self.next_ms.values())
        walked = None if walk is None else (walk.retailer, walk.taken, walk.told, walk.least)
        return repr((self.waiting, self.hour, self.cursor, ranks_ms, walked)).encode()

    def state(self) -> dict[str, Any]:
        """Return everything as plain values. A walk is held whole: it lasts for seconds a day."""
        return {
            "waiting": self.waiting,
            "hour": self.hour,
            "cursor": self.cursor,
            "next_ms": sorted(self.next_ms.items()),
            "walk": None if self.walk is None else _plain(self.walk),
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Tiers":
        """Return what :meth:`state` described; nothing of a checkpoint of before tiers."""
        tiers = cls()
        if not state:
            return tiers
        tiers.waiting, tiers.hour, tiers.cursor = state["waiting"], state["hour"], state["cursor"]
        tiers.next_ms = {number: next_ms for number, next_ms in state["next_ms"]}
        if state["walk"] is not None:
            tiers.walk = _walk_of(state["walk"])
        return tiers


def _plain(walk: Walk) -> dict[str, Any]:
    fields = asdict(walk)
    return fields | {name: fields[name].tobytes() for name in _COLUMNS}


def _walk_of(fields: dict[str, Any]) -> Walk:
    columns = {
        name: np.frombuffer(fields[name], dtype=dtype).copy() for name, dtype in _COLUMNS.items()
    }
    return Walk(**(fields | columns))
