"""The life of an owner: start, decide, answer, checkpoint, stand by, fall, be replaced."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.attempts import NARROWER
from actors.clock import WallClock
from actors.reign import Recorded
from actors.shard_actor import (
    ATTEMPT_MS_LONG,
    COPIED,
    DEATHS_BEFORE_SKIP,
    GATHER_MS_MAX,
    ShardActor,
)
from cluster.telemetry import OWNER_METRICS
from engine.decided import Decided
from engine.deltas import ModeChanged, PricePinned
from engine.errors import (
    ClockFault,
    DeadlinePassed,
    FailedDependency,
    LogRegressed,
    LogTruncated,
    MurderousBatch,
    RejectedInput,
    SettingsRefused,
    StaleEpoch,
)
from kernels.limits import FEATURES_SLICE_MAX
from persistence.memory_log import MemoryLog, MemoryLogs
from persistence.ports import COMMANDS, DECISIONS, DELTAS
from tests.actors.owned import Home
from tests.sim.feed import KEYS, RETAILER, count, sale
from tests.sim.watched import Killed, Watched

LISTING = KEYS["a"]
SLICE_OF_ONE = 512
"""Rows of a slice which to the toy are one."""


@pytest.fixture
async def place(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    await made.create()
    return made


async def live(owner: ShardActor, steps: int = 1) -> ShardActor:
    """Start an owner and let it decide."""
    await owner.start()
    for _ in range(steps):
        await owner.step()
    return owner


async def stepped(owner: ShardActor, asked: "asyncio.Future[str]") -> str:
    """Let an owner decide until something asked of it is there."""
    while not asked.done():
        await owner.step()
    return asked.result()


class Turned:
    """A clock that is turned on by what is done, and counts slices."""

    def __init__(self) -> None:
        self.turned_ms = self.slices = 0
        self._clock = WallClock()

    def wall_ms(self) -> int:
        return self._clock.wall_ms() + self.turned_ms

    def monotonic_ms(self) -> int:
        return self._clock.monotonic_ms() + self.turned_ms


class Slow:
    """A shard that takes long over everything."""

    APPLY_MS, SLICE_MS = 80_000, 10_000

    def __init__(self, shard: Any, clock: Turned) -> None:
        self._shard = shard
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shard, name)

    def apply(self, *given: Any) -> Decided:
        self._clock.turned_ms += self.APPLY_MS
        decided: Decided = self._shard.apply(*given)
        return decided

    def checkpoint_slice(self, rows_max: int) -> bytes | None:
        self._clock.turned_ms += self.SLICE_MS
        self._clock.slices += 1
        part: bytes | None = self._shard.checkpoint_slice(rows_max)
        return part


def slow(clock: Turned) -> Callable[[Any], Slow]:
    """Return what makes a shard slow by a clock."""
    return lambda shard: Slow(shard, clock)


def murderous(shard: Any) -> Watched:
    """Return a shard that dies of one listing."""
    return Watched(
        shard, murderous=KEYS["m"], on_murder=lambda: None, on_record=lambda decided: None
    )


async def test_a_successor_goes_on_where_its_predecessor_was(place: Home) -> None:
    await place.send(count("a", 5, 1), sale("a", 2, event_id="one"))
    first = await live(place.owner(), 2)
    second = await live(place.owner())
    assert second.different == 0
    assert await second.read(LISTING, 100) == {"in_force_minor": 1018, "seq": 3} | {
        "in_force_minor": (await first.read(LISTING, 100) or {})["in_force_minor"]
    }
    with pytest.raises(StaleEpoch):
        await first.step()


async def test_a_checkpoint_shortens_the_replay(place: Home) -> None:
    await place.send(count("a", 5, 1))
    first = await live(place.owner())
    taking = asyncio.create_task(first.checkpoint())
    while not taking.done():
        await first.step()
    name = taking.result()
    assert name in await place.files.names()
    await first.step()
    starts = [one for one in await place.accepted() if one.started]
    assert [one.started.first_offset for one in starts if one.started] == [-1, 0]
    decisions = await place.logs.open(DECISIONS, 0)
    assert isinstance(decisions, MemoryLog)
    decisions.truncate(3)
    second = await live(place.owner())
    assert second._shard.table(LISTING) == (5, 0)  # type: ignore[attr-defined]


async def test_a_checkpoint_from_elsewhere_is_asked_for_where_none_can_be_used(
    place: Home, tmp_path: Path
) -> None:
    """As on a new machine, of a log whose head retention has cut."""
    await place.send(count("a", 5, 1))
    first = await live(place.owner())
    taking = asyncio.create_task(first.checkpoint())
    while not taking.done():
        await first.step()
    await first.step()
    name, asked = taking.result(), 0
    content = await place.files.content(name)
    (path,) = (path for path in tmp_path.rglob(name))
    path.unlink()

    async def lacking() -> str | None:
        nonlocal asked
        asked += 1
        await place.files.receive(name, content)
        return name

    decisions = await place.logs.open(DECISIONS, 0)
    assert isinstance(decisions, MemoryLog)
    decisions.truncate(3)
    for _ in range(2):
        owner = await live(place.owner(lacking=lacking))
        assert owner._shard.table(LISTING) == (5, 0)  # type: ignore[attr-defined]
    assert asked == 1, "the next start has one"


async def test_a_round_is_copied_while_there_is_nothing_to_decide(place: Home) -> None:
    """A slice a heartbeat would take minutes for a million listings."""
    await place.send(*(count(sku, 5, number) for number, sku in enumerate(KEYS, start=1)))
    owner = await live(place.owner(checkpoint_slice_rows=SLICE_OF_ONE))
    asked = owner._rounds.ask()
    await owner.step()
    assert owner._rounds.copying, "one slice behind a microbatch, and it holds one row"
    await owner.step()
    assert not owner._rounds.copying
    assert await asyncio.wait_for(stepped(owner, asked), 10) in await place.files.names()


async def test_what_comes_is_decided_before_a_round_goes_on(place: Home) -> None:
    """A round ends though each microbatch touches again what was copied first."""
    await place.send(*(count(sku, 5, number) for number, sku in enumerate(KEYS, start=1)))
    owner = await live(place.owner(checkpoint_slice_rows=SLICE_OF_ONE))
    asked = owner._rounds.ask()
    first = min(KEYS, key=KEYS.__getitem__)
    for seen in range(1, 20):
        await place.send(count(first, seen, 100 + seen))
        while owner._inbox.is_quiet():
            await asyncio.sleep(0)
        assert await owner.step() == 1
        assert owner._rounds.copying or seen > 1, "a slice or two behind each"
        if not owner._rounds.copying:
            break
    assert not owner._rounds.copying
    await asyncio.wait_for(stepped(owner, asked), 10)
    successor = await live(place.owner(), steps=0)
    assert successor._shard.digest == owner._shard.digest


async def test_a_long_microbatch_is_followed_by_as_many_slices_as_a_quarter_of_it(
    tmp_path: Path,
) -> None:
    clock = Turned()
    place = Home(tmp_path, clock.wall_ms)
    await place.create()
    owner = place.owner(shard=slow(clock), machine=clock, checkpoint_slice_rows=SLICE_OF_ONE)
    await place.send(*(count(sku, 5, number) for number, sku in enumerate(KEYS, start=1)))
    await live(owner)
    asked = owner._rounds.ask()
    await owner.step()
    assert owner._rounds.copying
    assert clock.slices == Slow.APPLY_MS // COPIED // Slow.SLICE_MS
    await asyncio.wait_for(stepped(owner, asked), 10)


async def test_what_took_long_to_decide_need_not_be_replayed_by_a_successor(
    tmp_path: Path,
) -> None:
    """A million listings are fed in less than the interval between two checkpoints."""
    for interval_ms, hastens in ((10 * Slow.APPLY_MS, True), (100 * Slow.APPLY_MS, False)):
        clock = Turned()
        place = Home(tmp_path / str(interval_ms), clock.wall_ms)
        await place.create()
        owner = place.owner(
            shard=slow(clock),
            machine=clock,
            checkpoint_interval_ms=interval_ms,
        )
        await place.send(count("a", 5, 1))
        await live(owner, steps=3)
        assert bool(clock.slices) == hastens, "but no sooner than a tenth of the interval"


@pytest.mark.parametrize(
    ("apply_ms", "cautious", "hastens"),
    [
        (ATTEMPT_MS_LONG, True, True),
        (ATTEMPT_MS_LONG // 2, True, False),
        (ATTEMPT_MS_LONG, False, False),
    ],
)
async def test_what_a_cautious_owner_tried_for_long_need_not_be_replayed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    apply_ms: int,
    cautious: bool,
    hastens: bool,
) -> None:
    """It may have been given more time for it than a successor has to start."""
    monkeypatch.setattr(Slow, "APPLY_MS", apply_ms)
    clock = Turned()
    place = Home(tmp_path, clock.wall_ms)
    await place.create()
    owner = place.owner(shard=slow(clock), machine=clock, cautious=cautious)
    await place.send(count("a", 5, 1))
    await live(owner)
    assert bool(clock.slices) == hastens


async def test_a_start_that_followed_for_long_checkpoints_at_once(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else owners that fall before their first checkpoint leave ever more to replay."""
    await place.send(count("a", 5, 1))
    first = await live(place.owner())
    await first.step()
    second = await live(place.owner())
    await second.step()
    assert await place.files.names() == [], "it had next to nothing to follow"
    monkeypatch.setattr("actors.shard_actor.FOLLOWED_MS_LONG", -1)
    third = await live(place.owner())
    while not await place.files.names():
        await third.step()


async def test_a_head_that_is_gone_stops_the_start(place: Home) -> None:
    await live(place.owner(), 3)
    decisions = await place.logs.open(DECISIONS, 0)
    assert isinstance(decisions, MemoryLog)
    decisions.truncate(2)
    with pytest.raises(LogTruncated):
        await place.owner().start()


async def test_deltas_that_are_gone_stop_the_owner(place: Home) -> None:
    await place.send(count("a", 5, 1), count("a", 6, 2))
    deltas = await place.logs.open(DELTAS, 0)
    assert isinstance(deltas, MemoryLog)
    deltas.truncate(1)
    with pytest.raises(LogTruncated):
        await live(place.owner(), 3)


async def test_a_log_that_lost_what_it_acknowledged_stops_the_owner(place: Home) -> None:
    owner = await live(place.owner(), 3)
    decisions = await place.logs.open(DECISIONS, 0)
    assert isinstance(decisions, MemoryLog)
    decisions.regress(2)
    with pytest.raises(LogRegressed):
        await owner.step()
    assert not owner._gate.is_open


async def test_commands_come_first(place: Home) -> None:
    await place.send(*(count("a", units, units) for units in range(20_000)))
    pin = PricePinned(
        retailer=RETAILER, channel="web", sku="a", price_minor=777, observed_ms=1, command_id="c"
    )
    await place.send(pin, topic=COMMANDS)
    owner = await live(place.owner())
    await asyncio.sleep(0.05)
    await owner.step()
    assert owner._shard.last_command == 0
    assert owner._shard.last_delta < 19_999, "a burst is bounded"


async def test_a_standby_waits_and_is_at_the_end_when_called(place: Home) -> None:
    first = await live(place.owner(), 2)
    standby = place.owner(standby=True)
    starting = asyncio.create_task(standby.start())
    assert first.ready.is_set()
    while standby.phase != "waiting":
        assert not standby.ready.is_set(), "its start comes first"
        await asyncio.sleep(0.001)
    await place.send(count("a", 9, 1))
    await first.step()
    await asyncio.sleep(0.05)
    assert standby._shard.seq == 3
    assert not starting.done()
    assert standby.ready.is_set(), "it has leisure now"
    await standby.take_over()
    await starting
    await standby.step()
    with pytest.raises(StaleEpoch):
        await first.step()


async def test_an_owner_that_does_nothing_still_marks(place: Home) -> None:
    owner = await live(place.owner(), 4)
    decided = [one for one in await place.accepted() if one.decided]
    assert len(decided) == 4
    assert owner.status()["seq"] == 4


async def test_a_live_owner_says_all_that_is_measured(place: Home) -> None:
    owner = await live(place.owner(), 1)
    status = owner.status()
    assert set(OWNER_METRICS) <= set(status), "a metric that never is"
    assert status["listings"] == 0
    assert status["lag_ms"] == 0
    await place.send(count("a", 5, 1))
    while not owner.status()["waiting_deltas"]:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.06)
    assert owner.status()["lag_ms"] >= 50
    await owner.step()
    status = owner.status()
    assert (status["lag_ms"], status["listings"]) == (0, 1)


async def test_nobody_reads_between_apply_and_record(place: Home) -> None:
    """A reader waits at the gate, sees what was recorded, or is told to come again."""
    owner = await live(place.owner())
    await place.send(count("a", 50, 1))
    assert owner._reign is not None
    appender = owner._reign._appender
    assert appender is not None
    held = asyncio.Event()
    append = appender.append

    async def slowly(value: bytes, **given: Any) -> Any:
        held.set()
        await asyncio.sleep(0.1)
        return await append(value, **given)

    appender.append = slowly  # type: ignore[method-assign]
    stepping = asyncio.create_task(owner.step())
    await held.wait()
    with pytest.raises(DeadlinePassed):
        await owner.read(LISTING, 10)
    reading = asyncio.create_task(owner.read(LISTING, 5_000))
    await asyncio.sleep(0.01)
    assert not reading.done()
    await stepping
    assert await reading == {"in_force_minor": 1050, "seq": 2}


async def test_a_strong_read_wants_a_later_mark(place: Home) -> None:
    owner = place.owner(heartbeat_ms=60_000)
    await owner.start()
    reading = asyncio.create_task(owner.strong_read(LISTING, 5_000))
    await asyncio.sleep(0.01)
    assert not reading.done()
    await owner.step()  # woken at once, long before its heartbeat
    await reading
    with pytest.raises(DeadlinePassed):
        await owner.strong_read(LISTING, 10)


async def test_a_zombie_answers_no_strong_read(place: Home) -> None:
    zombie = await live(place.owner())
    await live(place.owner())
    reading = asyncio.create_task(zombie.strong_read(LISTING, 100))
    with pytest.raises(StaleEpoch):
        while True:
            await zombie.step()
    with pytest.raises(DeadlinePassed):
        await reading


async def test_features_wait_at_the_gate_and_a_strong_one_for_a_later_mark(place: Home) -> None:
    await place.send(count("a", 50, 1))
    owner = await live(place.owner(heartbeat_ms=60_000))
    told = await owner.features([LISTING, 7], 100, strong=False)
    assert (told["seq"], told["features"]) == (1, [{"price": 1050.0}, None])
    owner._gate.close()
    with pytest.raises(DeadlinePassed):
        await owner.features([LISTING], 10, strong=False)
    owner._gate.open()
    reading = asyncio.create_task(owner.features([LISTING], 5_000, strong=True))
    await asyncio.sleep(0.01)
    assert not reading.done()
    await owner.step()
    assert (await reading)["seq"] == 2
    with pytest.raises(RejectedInput):
        await owner.features([LISTING] * (FEATURES_SLICE_MAX + 1), 100, strong=False)


async def test_what_explains_a_price_waits_at_the_gate(place: Home) -> None:
    await place.send(count("a", 50, 1))
    owner = await live(place.owner(heartbeat_ms=60_000))
    told = await owner.live_facts(LISTING, 100)
    assert told["facts"] is None, "the toy shard knows none"
    assert (told["seq"], told["decided_ms"]) == (owner._shard.seq, owner._shard.decided_ms)
    owner._gate.close()
    with pytest.raises(DeadlinePassed):
        await owner.live_facts(LISTING, 10)


async def test_slices_of_features_take_turns_with_everybody_else(place: Home) -> None:
    """However many ask at once, no turn of the loop holds more than one slice."""
    await place.send(count("a", 50, 1))
    owner = await live(place.owner())
    turn, slices = 0, []
    told_of = owner._shard.features

    def noted(listings: Any) -> Any:
        slices.append(turn)
        return told_of(listings)

    owner._shard.features = noted  # type: ignore[method-assign]
    asked = [asyncio.create_task(owner.features([LISTING], 5_000, strong=False)) for _ in range(9)]
    while not all(each.done() for each in asked):
        await asyncio.sleep(0)
        turn += 1
    assert len(slices) == len(set(slices)) == 9


async def test_before_it_lives_it_answers_nobody(place: Home) -> None:
    with pytest.raises(FailedDependency, match="not live"):
        await place.owner().read(LISTING, 100)


async def test_what_murders_two_cautious_owners_is_skipped_and_nothing_else(place: Home) -> None:
    await place.send(count("a", 1, 1), count("m", 1, 2), count("b", 3, 3))
    with pytest.raises(Killed):
        await live(place.owner(shard=murderous), 5)
    for _ in range(1 + DEATHS_BEFORE_SKIP):  # on all three together, then on the one
        with pytest.raises(Killed):
            await live(place.owner(shard=murderous, cautious=True), 9)
    survivor = await live(place.owner(shard=murderous, cautious=True), 9)
    assert survivor.skipped == 1
    assert survivor.status()["cautious"] is False, "it has passed the place"
    refused = [
        (one.position.offset, one.verdict)
        for found in await place.accepted()
        if found.decided
        for one in found.decided.exceptions
    ]
    assert refused == [(1, "skipped")]
    later = await live(place.owner(shard=murderous))
    assert later.different == 0
    assert [later._shard.table(KEYS[sku])[0] for sku in "amb"] == [1, -1, 3]  # type: ignore[attr-defined]


async def test_deaths_close_in_on_what_murders_among_many(place: Home) -> None:
    """From all there is to a few records to one: few deaths, and few records alone."""
    many, murderer = 200, 100
    await place.send(*(count("a", units, units) for units in range(murderer)))
    await place.send(count("m", 1, murderer))
    await place.send(*(count("b", units, units) for units in range(murderer + 1, many)))
    announced = []
    for _ in range(2 + DEATHS_BEFORE_SKIP):
        with pytest.raises(Killed):
            await live(place.owner(shard=murderous, cautious=True), many)
        announced.append(await widths(place))
    few = -(-many // NARROWER)
    assert announced[0] == [many]
    assert announced[1][1:] == [few] * (murderer // few + 1)
    assert announced[-1][len(announced[1]) :] == [1] * DEATHS_BEFORE_SKIP
    survivor = await live(place.owner(shard=murderous, cautious=True), many // few)
    assert survivor.skipped == 1
    assert (await widths(place)).count(1) < 2 * few + DEATHS_BEFORE_SKIP
    assert [survivor._shard.table(KEYS[sku])[0] for sku in "amb"] == [99, -1, 199]  # type: ignore[attr-defined]


async def widths(place: Home) -> list[int]:
    """Return how many records of the deltas lane each announcement held, but for empty ones."""
    passed, found = -1, []
    for one in await place.accepted():
        if one.decided:
            passed = one.decided.last_delta
        elif one.trying and one.trying.last_delta > passed:
            found.append(one.trying.last_delta - passed)
    return found


async def test_an_owner_that_inherits_an_innocent_death_soon_loses_its_caution(place: Home) -> None:
    await place.send(*(count("a", units, units) for units in range(1_000)))
    heir = await live(place.owner(cautious=True), 2)
    assert heir.status()["cautious"] is False
    assert await widths(place) == [1_000]


async def test_what_an_heir_decides_before_it_falls_too_saves_no_murderer(place: Home) -> None:
    """Heartbeats before the first read, and commands, come between two deaths on one record."""
    await place.send(count("m", 1, 1))
    command = ModeChanged(retailer=RETAILER, mode="live", observed_ms=1)
    await place.send(command, topic=COMMANDS)
    with pytest.raises(Killed):
        await live(place.owner(shard=murderous, cautious=True), 9)
    for number in range(DEATHS_BEFORE_SKIP):
        command = ModeChanged(retailer=RETAILER, mode="live", observed_ms=number + 2)
        await place.send(command, topic=COMMANDS)
        heir = await live(place.owner(shard=murderous, cautious=True), 2 - min(number, 1))
        assert heir.status()["cautious"] is True
        with pytest.raises(Killed):
            await heir.step()
    await place.send(ModeChanged(retailer=RETAILER, mode="live", observed_ms=9_999), topic=COMMANDS)
    survivor = await live(place.owner(shard=murderous, cautious=True), 3)
    assert survivor.skipped == 1


async def test_an_empty_batch_that_kills_twice_stops_the_shard(place: Home) -> None:
    """There is no record to blame, so nothing can be skipped."""

    class Dying:
        def __init__(self, shard: Any) -> None:
            self._shard = shard

        def __getattr__(self, name: str) -> Any:
            return getattr(self._shard, name)

        def apply(self, *_: Any) -> Any:
            raise Killed

    for _ in range(DEATHS_BEFORE_SKIP):
        with pytest.raises(Killed):
            await live(place.owner(shard=Dying, cautious=True))
    with pytest.raises(MurderousBatch, match="empty batch"):
        await live(place.owner(shard=Dying, cautious=True))


async def test_settings_that_contradict_the_log_are_refused(place: Home) -> None:
    await live(place.owner())
    with pytest.raises(SettingsRefused, match="partitions"):
        await place.owner(partitions=2).start()
    with pytest.raises(SettingsRefused, match="generation"):
        await place.owner(generation=2).start()
    with pytest.raises(SettingsRefused, match="clock"):
        await place.owner(clock="event").start()


async def test_event_time_is_what_the_deltas_say(place: Home) -> None:
    owner = await live(place.owner(clock="event"))
    assert owner._shard.decided_ms == 0
    await place.send(ModeChanged(retailer=RETAILER, mode="live", observed_ms=4_200), topic=COMMANDS)
    await asyncio.sleep(0.05)
    await owner.step()
    assert owner._shard.decided_ms == 4_200


async def test_a_clock_that_differs_from_the_logs_stops_the_start(tmp_path: Path) -> None:
    """Wrong from the beginning, it never jumps; the seal's own time tells."""
    place = Home(tmp_path, wall_ms=lambda: 1_000_000)
    await place.create()
    with pytest.raises(ClockFault):
        await place.owner().start()
    assert [one for one in await place.accepted() if one.decided] == []


async def test_an_owner_that_ends_says_so(place: Home) -> None:
    owner = place.owner()
    running = asyncio.create_task(owner.run())
    while owner.phase != "live":
        await asyncio.sleep(0.001)
    await live(place.owner())
    with pytest.raises(StaleEpoch):
        await running
    assert owner.phase == "stopped"


async def test_a_start_waits_for_a_broker_that_does_not_answer(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, refused = MemoryLogs.open, []

    async def answers_the_second_time(self: MemoryLogs, topic: str, partition: int) -> MemoryLog:
        if topic not in refused:
            refused.append(topic)
            raise FailedDependency(f"topic {topic} is not ready")
        return await opened(self, topic, partition)

    monkeypatch.setattr(MemoryLogs, "open", answers_the_second_time)
    owner = await live(place.owner(cautious=True))
    assert owner.phase == "live"
    assert sorted(refused) == sorted([COMMANDS, DECISIONS, DELTAS])


async def test_within_the_interval_what_comes_is_gathered_into_one_microbatch(place: Home) -> None:
    """A heartbeat far off proves that the second step waits for the interval, not for a timer."""
    owner = await live(place.owner(interval_ms=300, heartbeat_ms=1_000), 1)
    await place.send(count("a", 5, 1))
    deciding = asyncio.ensure_future(owner.step())
    await asyncio.sleep(0.02)
    await place.send(count("a", 6, 2), count("b", 7, 3))
    assert await deciding == 3


@pytest.mark.parametrize(
    ("interval_ms", "took_ms", "rests_ms"),
    [(0, 8, None), (5, 0, 5), (5, 8, 24), (50, 8, 50), (5, 9_000, GATHER_MS_MAX)],
)
async def test_what_a_microbatch_took_says_how_long_the_next_gathers(
    place: Home,
    monkeypatch: pytest.MonkeyPatch,
    interval_ms: int,
    took_ms: int,
    rests_ms: int | None,
) -> None:
    owner = await live(place.owner(interval_ms=interval_ms, heartbeat_ms=50), 1)
    gathered: list[int] = []

    async def gather(rest_ms: int) -> None:
        gathered.append(rest_ms)

    monkeypatch.setattr(owner._inbox, "gather", gather)
    now_ms = owner._clock.monotonic_ms()
    monkeypatch.setattr(owner._clock, "monotonic_ms", lambda: now_ms)
    owner._begun_ms, owner._took_ms, owner._last_mark_ms = now_ms, took_ms, now_ms
    await owner.step()
    assert gathered == ([] if rests_ms is None else [rests_ms])


async def test_how_long_a_microbatch_took_is_told_with_its_append(
    place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await live(place.owner(interval_ms=5, heartbeat_ms=50), 1)
    reign = owner._reign
    assert reign is not None
    appended = reign.append
    now_ms = owner._clock.monotonic_ms()

    async def slowly(decided: Decided) -> Recorded:
        nonlocal now_ms
        now_ms += 70
        return await appended(decided)

    monkeypatch.setattr(owner._clock, "monotonic_ms", lambda: now_ms)
    monkeypatch.setattr(reign, "append", slowly)
    await owner.step()
    assert owner._took_ms == 70


async def test_an_owner_at_rest_decides_the_first_delta_at_once(place: Home) -> None:
    """Without news it waits in the inbox; there the first delta ends the wait, whatever follows."""
    owner = await live(place.owner(interval_ms=20, heartbeat_ms=1_000), 1)
    deciding = asyncio.ensure_future(owner.step())
    await asyncio.sleep(0.1)
    await place.send(count("a", 5, 1))
    await asyncio.sleep(0.05)
    await place.send(count("a", 6, 2))
    assert await deciding == 1
    assert await owner.step() == 1
