"""When an owner's clock is trusted, and what time a decision bears."""

import pytest

from actors.clock import ClockWatch, decision_ms
from engine.deltas import ModeChanged
from engine.errors import ClockFault
from engine.microbatch import Microbatch, ObjectDelta, Position

EMPTY = Microbatch(last_command=-1, last_delta=-1)


class HandClock:
    """Two clocks that a test moves."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000_000
        self.monotonic = 5_000

    def wall_ms(self) -> int:
        return self.wall

    def monotonic_ms(self) -> int:
        return self.monotonic

    def pass_time(self, milliseconds: int, *, wall: int | None = None) -> None:
        self.monotonic += milliseconds
        self.wall += milliseconds if wall is None else wall


def test_time_that_passes_alike_is_trusted() -> None:
    clock = HandClock()
    watch = ClockWatch(clock)
    for _ in range(10):
        clock.pass_time(60_000)
        assert watch.look() == clock.wall


@pytest.mark.parametrize("jump_ms", [5_100, -5_100, 3_600_000])
def test_a_jump_stops_the_owner(jump_ms: int) -> None:
    clock = HandClock()
    watch = ClockWatch(clock)
    clock.pass_time(10, wall=10 + jump_ms)
    with pytest.raises(ClockFault, match="jumped"):
        watch.look()


def test_jumps_that_add_up_stop_the_owner() -> None:
    """Three of two seconds are one of six."""
    clock = HandClock()
    watch = ClockWatch(clock)
    with pytest.raises(ClockFault):
        for _ in range(3):
            clock.pass_time(250, wall=2_250)
            watch.look()


def test_a_clock_that_is_slewed_for_weeks_is_no_fault() -> None:
    """NTP may run a clock 0.05 % faster for as long as it likes."""
    clock = HandClock()
    watch = ClockWatch(clock)
    for _ in range(20_000):
        clock.pass_time(100_000, wall=100_050)
        watch.look()


@pytest.mark.parametrize("difference_ms", [-1_001, 1_002])
def test_a_difference_from_the_log_stops_the_owner(difference_ms: int) -> None:
    clock = HandClock()
    watch = ClockWatch(clock)
    sent_ms = clock.wall
    clock.pass_time(1)
    with pytest.raises(ClockFault, match="the log appended"):
        watch.compare(sent_ms + difference_ms, sent_ms)


def test_a_slow_append_is_no_difference() -> None:
    """The log's time lies between sending and acknowledgement, however far these are apart."""
    clock = HandClock()
    watch = ClockWatch(clock)
    sent_ms = clock.wall
    clock.pass_time(30_000)
    watch.compare(sent_ms + 29_000, sent_ms)
    watch.compare(sent_ms + 999, sent_ms)


def test_a_decision_is_never_earlier_than_the_last() -> None:
    assert decision_ms("wall", previous_ms=100, wall_ms=90, batch=EMPTY) == 100
    assert decision_ms("wall", previous_ms=100, wall_ms=110, batch=EMPTY) == 110


def test_event_time_is_that_of_the_newest_delta() -> None:
    delta = ModeChanged(retailer="acme", mode="live", observed_ms=700)
    batch = Microbatch(
        runs=(ObjectDelta(Position(0, 0, 0), delta),), last_command=0, last_delta=-1, deltas=1
    )
    assert decision_ms("event", previous_ms=100, wall_ms=10**12, batch=batch) == 700
    assert decision_ms("event", previous_ms=900, wall_ms=10**12, batch=batch) == 900
    assert decision_ms("event", previous_ms=900, wall_ms=10**12, batch=EMPTY) == 900
