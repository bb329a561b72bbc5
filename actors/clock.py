"""The owner's clock, and when it must not be trusted.

A decision's time is part of what replay repeats, so a clock that lies does lasting harm: limits by
the hour open early, rivals never go stale. An owner whose clock jumped, or disagrees with the
broker's, stops; its successor starts with a look at the clock as it then is.
"""

import time
from typing import Literal, Protocol

from engine.errors import ClockFault
from engine.microbatch import FactColumns, Microbatch

ClockKind = Literal["wall", "event"]

JUMP_MS = 5_000
"""How far wall minus monotonic time may move before the wall clock has jumped."""

BROKER_DIFFERENCE_MS = 1_000
"""How far the wall clock may stand from the time at which the log says it appended."""

SLEW = 0.001
"""How much faster or slower than real time a disciplined clock may run; NTP slews half of this."""

EVENT_JUMP_MS = 400 * 86_400_000
"""How far one event time may lie ahead of the last decision; a longer gap in history is fed to a
new generation, or bridged by a delta in between."""

EVENT_MS_MAX = 4_102_444_800_000
"""The year 2100: no event is later."""


class Clock(Protocol):
    """What time it is, in milliseconds."""

    def wall_ms(self) -> int:
        """Return unix time; it may jump."""
        ...

    def monotonic_ms(self) -> int:
        """Return time since some moment; it never goes back."""
        ...


class WallClock:
    """The machine's clocks."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000


class ClockWatch:
    """Notices that a wall clock jumped, or disagrees with the log's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._looked_ms = clock.monotonic_ms()
        self._difference_ms = float(clock.wall_ms() - self._looked_ms)

    def wall_ms(self) -> int:
        """Return the wall clock's time as it is, trusted or not."""
        return self._clock.wall_ms()

    def look(self) -> int:
        """Return the wall clock's time.

        Raises:
            ClockFault: it moved against the monotonic clock by more than ``JUMP_MS``.
        """
        wall_ms, monotonic_ms = self._clock.wall_ms(), self._clock.monotonic_ms()
        moved_ms = wall_ms - monotonic_ms - self._difference_ms
        if abs(moved_ms) > JUMP_MS:
            raise ClockFault(f"the wall clock jumped by {moved_ms / 1000:.1f} s")
        # A disciplined clock is slewed for ever; over months that is no jump.
        allowed_ms = (monotonic_ms - self._looked_ms) * SLEW
        self._difference_ms += max(-allowed_ms, min(allowed_ms, moved_ms))
        self._looked_ms = monotonic_ms
        return wall_ms

    def compare(self, appended_ms: int, sent_ms: int) -> None:
        """Compare the log's time of an append with the wall clock before and after it.

        Raises:
            ClockFault: they differ by more than ``BROKER_DIFFERENCE_MS``.
        """
        acknowledged_ms = self._clock.wall_ms()
        earliest_ms = min(sent_ms, acknowledged_ms) - BROKER_DIFFERENCE_MS
        latest_ms = max(sent_ms, acknowledged_ms) + BROKER_DIFFERENCE_MS
        if not earliest_ms <= appended_ms <= latest_ms:
            raise ClockFault(
                f"the log appended at {appended_ms}, our clock says between {sent_ms} and "
                f"{acknowledged_ms}"
            )


def decision_ms(kind: ClockKind, *, previous_ms: int, wall_ms: int, batch: Microbatch) -> int:
    """Return the time at which a microbatch is decided; it never goes back.

    A successor's clock may stand behind its predecessor's, and a step back of under five seconds
    is no fault; the shard's time stands still meanwhile.
    """
    if kind == "wall":
        return max(previous_ms, wall_ms)
    # The first event time of a shard is where its history begins, however long ago that is.
    bound_ms = previous_ms + EVENT_JUMP_MS if previous_ms > 0 else EVENT_MS_MAX
    return max(previous_ms, event_ms(batch, min(bound_ms, EVENT_MS_MAX)))


def event_ms(batch: Microbatch, bound_ms: int) -> int:
    """Return the largest event time in ``batch`` that is no later than ``bound_ms``, 0 if none.

    A later one is a mistake, such as microseconds, and time that it moved would never come back.
    The shard then refuses it, for it lies ahead of the clock.
    """
    latest_ms = 0
    for run in batch.runs:
        if isinstance(run, FactColumns):
            possible = run.observed_ms[run.observed_ms <= bound_ms]
            latest_ms = max(latest_ms, int(possible.max(initial=0)))
        elif run.delta.observed_ms <= bound_ms:
            latest_ms = max(latest_ms, run.delta.observed_ms)
    return latest_ms
