"""When an owner's clock is trusted, and what time a decision bears."""

import pytest

from actors.clock import EVENT_JUMP_MS, EVENT_MS_MAX, ClockWatch, decision_ms
from engine.deltas import ModeChanged, StockCounted
from engine.errors import ClockFault
from engine.microbatch import Microbatch, ObjectDelta, Position, facts_of
from repricer import batch_of
from tests.engine.builders import World, only

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


def event_time(*observed_ms: int, previous_ms: int) -> int:
    facts = [
        StockCounted(retailer="acme", channel="shop", sku="A", units=1, observed_ms=at_ms)
        for at_ms in observed_ms
    ]
    positions = [Position(1, 0, index) for index in range(len(facts))]
    columns = facts_of(list(zip(positions, facts, strict=True)))
    objects = tuple(
        ObjectDelta(
            position, ModeChanged(retailer="acme", mode="live", observed_ms=fact.observed_ms)
        )
        for position, fact in zip(positions, facts, strict=True)
    )
    times = {
        decision_ms(
            "event",
            previous_ms=previous_ms,
            wall_ms=0,
            batch=Microbatch(runs=runs, last_command=-1, last_delta=0),
        )
        for runs in ((columns,), objects)
    }
    assert len(times) == 1
    return times.pop()


def test_a_wrong_event_time_does_not_move_the_clock() -> None:
    """Microseconds for milliseconds, once, would leave every later fact 55,000 years late."""
    begun = 1_700_000_000_000
    assert event_time(begun * 1000, previous_ms=begun) == begun
    assert event_time(begun + 5, begun * 1000, begun + 3, previous_ms=begun) == begun + 5
    assert event_time(begun + EVENT_JUMP_MS, previous_ms=begun) == begun + EVENT_JUMP_MS
    assert event_time(begun + EVENT_JUMP_MS + 1, previous_ms=begun) == begun
    assert event_time(begun * 1000, previous_ms=0) == 0
    assert event_time(begun, begun * 1000, previous_ms=0) == begun
    assert event_time(EVENT_MS_MAX + 1, EVENT_MS_MAX - 1, previous_ms=EVENT_MS_MAX - 2) == (
        EVENT_MS_MAX - 1
    )


def test_what_does_not_move_the_clock_is_refused_and_the_next_fact_counts() -> None:
    world = World()
    world.send(world.listing())
    wrong = world.stock(1, observed_ms=world.now_ms * 1000)
    batch = batch_of([wrong], after=world.shard)
    now_ms = decision_ms("event", previous_ms=world.now_ms, wall_ms=0, batch=batch)
    world.now_ms = now_ms
    refusal = only(world.send(wrong, after_ms=0).exceptions)
    assert refusal.verdict == "rejected"
    assert refusal.reason.startswith("/observed_ms")
    assert not world.send(world.stock(2)).exceptions
    assert world.live()["stock"] == 2
