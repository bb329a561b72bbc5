"""The supervisor replaces the dead and the hung, soon and one at a time, and nobody else."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import pytest
from msgspec import Struct, structs

from actors.starts import Launched, Phase, Start
from actors.supervisor import SPARE_LOOK_MS, Decisions, Supervisor
from actors.watch import (
    BACKOFF_FIRST_MS,
    HEALTHY_MS,
    PARDONED_MAX,
    PATIENCE,
    RECOVERY_MS,
    SETTLED_MS,
    START_STARVED_MS_MAX,
    STARVED_MS_MAX,
    THWARTED,
    THWARTED_MS_MAX,
    Action,
    Kill,
    Launch,
    SupervisorSettings,
    TakeOver,
    Watch,
)
from engine.errors import CorruptRecord, FailedDependency
from persistence.decision_reader import Accepted, DecisionReader
from persistence.decision_records import LogPosition, Stamp, Trying
from persistence.memory_log import MemoryLogs
from persistence.ports import DECISIONS, WATCH, Log

CANARY_MS = 250


def owners() -> Iterator[bytes]:
    """Return ids that differ."""
    number = 0
    while True:
        number += 1
        yield number.to_bytes(16, "big")


def make_watch(shards: int = 1, *, standby: bool = False) -> Watch:
    """Return a watch that has seen nothing yet."""
    names = owners()
    settings = SupervisorSettings(standby=standby)
    return Watch(range(shards), settings, new_owner=lambda: next(names))


def bring_up(watch: Watch, now_ms: int = 0) -> Launched:
    """Start the only shard's owner and let it live."""
    (action,) = watch.plan(now_ms)
    assert isinstance(action, Launch)
    launched = Launched(start=action.start, pid=100, address="")
    watch.launched(launched)
    watch.marked(action.start.shard, action.start.owner, now_ms)
    return launched


def be_silent(watch: Watch, proven_ms: int) -> None:
    """Let so much proven time pass without a mark."""
    for _ in range(proven_ms // CANARY_MS):
        watch.proven(CANARY_MS, {shard: True for shard in watch.places})


def only(actions: list[Action], kind: type) -> list[Action]:
    return [action for action in actions if isinstance(action, kind)]


def test_a_start_is_named_by_its_number() -> None:
    watch = make_watch()
    watch.numbered(0, 11)
    (action,) = watch.plan(0)
    assert isinstance(action, Launch)
    assert action.start.name == "shard-000-s0012"


def test_two_seconds_of_proven_silence_replace_an_owner() -> None:
    watch = make_watch()
    launched = bring_up(watch)
    be_silent(watch, 1750)
    assert watch.plan(1750) == []
    be_silent(watch, 250)
    kill, launch = watch.plan(2000)
    assert isinstance(kill, Kill)
    assert kill.name == launched.start.name
    assert isinstance(launch, Launch)
    assert launch.start.cautious, "whatever hung it may stand in the log"


def silent_until_killed(watch: Watch, start: Start, now_ms: int, waits: float) -> tuple[int, Start]:
    """Return for how long one may say nothing until it is killed, and who is started then.

    Args:
        waits: for which share of the time it waits for a processor.
    """
    actions: list[Action] = []
    silent_ms = 0
    while not only(actions, Kill):
        silent_ms += CANARY_MS
        watch.proven(CANARY_MS, {0: True}, {start.name: waits * CANARY_MS})
        actions = watch.plan(now_ms)
    (launch,) = only(actions, Launch) or only(watch.plan(now_ms + 40_000), Launch)
    assert isinstance(launch, Launch)
    return silent_ms, launch.start


def ended_for_silence(
    watch: Watch, trying: list[bool], waits: float = 0.0
) -> tuple[list[Start], list[int]]:
    """Let owners be silent from their last record on, one after the other.

    Returns all that were started, one more than were ended, and how long each of these was silent.

    Args:
        trying: of each, whether that record announces an attempt.
        waits: for which share of the time they wait for a processor.
    """
    starts, silences = [bring_up(watch).start], []
    for number, tries in enumerate(trying):
        start, now_ms = starts[-1], 40_000 * number  # longer than any back-off
        watch.launched(Launched(start=start, pid=1, address=""))
        watch.marked(0, start.owner, now_ms, trying=tries)
        silent_ms, heir = silent_until_killed(watch, start, now_ms, waits)
        silences.append(silent_ms)
        starts.append(heir)
    return starts, silences


def test_who_tries_what_others_were_ended_on_is_given_more_time() -> None:
    """A microbatch that takes longer than a silence may last would end every owner it meets."""
    starts, silences = ended_for_silence(make_watch(), [False, True, True, True, True])
    assert silences == [2_000, 2_000, 8_000, 32_000, 32_000]
    names = [start.owner for start in starts]
    assert (
        [list(start.pardoned) for start in starts]
        == [
            [],
            names[:1],
            names[:2],
            names[:3],
            names[:3],  # the last two had all the time they needed
            names[:3],
        ]
    )


def test_patience_is_for_what_is_tried() -> None:
    """Whoever falls silent elsewhere hangs, whatever became of those before."""
    _, silences = ended_for_silence(make_watch(), [False, False, True, False, False])
    assert silences == [2_000, 2_000, 8_000, 2_000, 2_000]


def test_the_most_patience_is_patience_with_a_crowded_machine_too() -> None:
    """Of such an end a record may be skipped."""
    waits = 31 / 32
    _, silences = ended_for_silence(make_watch(), [True] * 4, waits)
    # 20 s of waiting are excused as ever, then 80 s, then 320 s: beside a thread that hangs another
    # may wait for ever.
    assert silences == [22_000, 22_000, 88_000, 352_000]


def test_a_long_try_is_no_health() -> None:
    """An owner who has tried one thing for a minute has not shown that the next will pass it."""
    watch = make_watch()
    (place,) = watch.places.values()
    place.hangs, place.cautious = 3, True
    launched = bring_up(watch)
    watch.marked(0, launched.start.owner, 0, trying=True)
    watch.plan(10**6)
    assert (place.hangs, place.cautious) == (3, True)
    watch.marked(0, launched.start.owner, 10**6)
    watch.plan(10**6 + 20)
    assert (place.hangs, place.cautious) == (3, True), "it has lived through one try, and no more"
    watch.plan(10**6 + HEALTHY_MS)
    assert (place.hangs, place.cautious) == (0, False)


def test_short_tries_are_health() -> None:
    watch = make_watch()
    (place,) = watch.places.values()
    place.hangs, place.cautious = 3, True
    launched = bring_up(watch)
    for now_ms in range(0, HEALTHY_MS + 1, 1_000):
        watch.marked(0, launched.start.owner, now_ms, trying=True)
        watch.marked(0, launched.start.owner, now_ms + 500)
    watch.plan(HEALTHY_MS + 500)
    assert (place.hangs, place.cautious) == (0, False)


@pytest.mark.parametrize("trying", [False, True])
def test_a_hang_is_found_though_the_log_is_away_now_and_then(trying: bool) -> None:
    """With the most patience each absence began the silence anew, and none ever was long enough."""
    watch = make_watch()
    launched = bring_up(watch)
    watch.places[0].hangs = 3
    watch.marked(0, launched.start.owner, 0, trying=trying)
    actions: list[Action] = []
    for away in range(3):
        watch.answered_again(2_100)
        for _ in range(36_000 // CANARY_MS):
            watch.proven(CANARY_MS, {0: True})
            actions += watch.plan(0)
        if only(actions, Kill):
            assert away == (1 if trying else 0)
            return
    raise AssertionError("never found")


def ended_without_progress(
    watch: Watch, count: int, waits: float = 0.0
) -> tuple[list[Start], list[int]]:
    """Let so many starts show no progress, one after the other.

    Returns all that were started, one more than were ended, and how long each of these could.
    """
    (launch,) = watch.plan(0)
    assert isinstance(launch, Launch)
    starts, times = [launch.start], []
    for number in range(count):
        start, now_ms = starts[-1], 40_000 * number  # longer than any back-off
        watch.launched(Launched(start=start, pid=1, address=""))
        silent_ms, heir = silent_until_killed(watch, start, now_ms, waits)
        times.append(silent_ms)
        starts.append(heir)
    return starts, times


def test_a_start_is_given_more_time_where_starts_were_ended_for_no_progress() -> None:
    """What patience let be decided takes a successor as long to replay, and it says nothing."""
    watch = make_watch()
    starts, times = ended_without_progress(watch, 4)
    assert times == [30_000, 120_000, 480_000, 480_000]
    assert starts[4].pardoned == tuple(start.owner for start in starts[:4]), "they tried nothing"
    assert [alarm.what for alarm in watch.alarms].count("most_patience") == 1


def test_who_decides_again_has_replayed_what_took_long() -> None:
    watch = make_watch()
    starts, _ = ended_without_progress(watch, 3)
    for marked_ms in (10**6, 10**6 + SETTLED_MS):
        assert watch.places[0].stalls == 3
        watch.marked(0, starts[3].owner, marked_ms)
    assert watch.places[0].stalls == 0


def test_a_start_on_a_crowded_machine_is_given_as_many_times_more() -> None:
    _, times = ended_without_progress(make_watch(), 4, 249 / 250)
    for took_ms, patience in zip(times, (1, 4, 16, 16), strict=True):
        most_ms = (START_STARVED_MS_MAX + 30_000) * patience
        assert most_ms - CANARY_MS <= took_ms <= most_ms + CANARY_MS


def test_what_patience_lets_an_owner_do_a_start_has_time_to_repeat() -> None:
    most_ms = (SupervisorSettings().silence_ms + STARVED_MS_MAX) * PATIENCE[-1]
    assert SupervisorSettings().start_ms * PATIENCE[-1] > most_ms


def test_others_need_not_wait_for_a_start_that_is_given_more_time() -> None:
    """One at a time they start, and this one may take eight minutes."""
    watch = make_watch(shards=2)
    watch.places[0].stalls = 2
    (first,) = watch.plan(0)
    assert isinstance(first, Launch)
    watch.launched(Launched(start=first.start, pid=1, address=""))
    for _ in range(30_000 // CANARY_MS):
        assert watch.plan(0) == []
        watch.proven(CANARY_MS, {0: True})
    (second,) = watch.plan(0)
    assert isinstance(second, Launch)
    assert second.start.shard == 1


def test_a_person_is_told_when_a_shard_comes_to_the_most_patience() -> None:
    watch = make_watch()
    ended_for_silence(watch, [True] * 4)
    told = [alarm for alarm in watch.alarms if alarm.what == "most_patience"]
    assert len(told) == 1
    assert "16 times" in told[0].detail


def test_adopted_pardons_are_the_latest_ones() -> None:
    watch = make_watch()
    for number in range(2):
        pardoned = tuple(bytes([number, each] + [0] * 14) for each in range(PARDONED_MAX))
        start = Start(shard=0, number=number, owner=bytes(16), pardoned=pardoned)
        watch.adopt(Launched(start=start, pid=1, address=""), "live", 0)
    assert tuple(watch.places[0].pardoned) == pardoned


def test_a_supervisor_that_begins_anew_knows_whom_its_owners_were_told_to_pardon() -> None:
    watch = make_watch()
    start = Start(shard=0, number=4, owner=bytes(16), cautious=True, pardoned=(b"a" * 16,))
    watch.adopt(Launched(start=start, pid=1, address=""), "live", 0)
    watch.died(start.name, None, "SIGKILL", 0)
    (launch,) = only(watch.plan(0), Launch)
    assert isinstance(launch, Launch)
    assert launch.start.pardoned == (b"a" * 16,)


def test_nobody_is_replaced_while_canaries_are_not_acknowledged() -> None:
    """Kafka is slow: an hour passes, nothing is proven, nobody is blamed."""
    watch = make_watch()
    bring_up(watch)
    for now_ms in range(0, 3_600_000, 1000):
        assert watch.plan(now_ms) == []


def test_after_an_outage_owners_have_time_to_seal_again() -> None:
    """Their appends were in doubt too; whoever cannot recover is replaced a little later."""
    watch = make_watch()
    bring_up(watch)
    watch.answered_again(10_000)
    be_silent(watch, RECOVERY_MS + 1750)
    assert watch.plan(0) == []
    be_silent(watch, 250)
    assert only(watch.plan(0), Kill)


def test_a_short_hiccup_earns_no_grace() -> None:
    watch = make_watch()
    bring_up(watch)
    watch.answered_again(700)
    be_silent(watch, 2000)
    assert only(watch.plan(0), Kill)


def test_a_watcher_that_slept_proves_little() -> None:
    watch = make_watch()
    bring_up(watch)
    watch.proven(60_000, {0: True})
    assert watch.plan(60_000) == []


def test_a_log_that_was_not_read_to_its_end_is_not_silent() -> None:
    watch = make_watch()
    bring_up(watch)
    for _ in range(100):
        watch.proven(CANARY_MS, {0: False})
    assert watch.plan(25_000) == []


def test_a_death_is_answered_at_once_and_then_with_back_off() -> None:
    watch = make_watch()
    now_ms = 0
    waits = []
    launched = bring_up(watch)
    for _ in range(5):
        watch.died(launched.start.name, None, "SIGKILL", now_ms)
        died_ms = now_ms
        while not (actions := watch.plan(now_ms)):
            now_ms += 10
        waits.append(now_ms - died_ms)
        (action,) = actions
        assert isinstance(action, Launch)
        launched = Launched(start=action.start, pid=1, address="")
        watch.launched(launched)
    assert waits == [0, BACKOFF_FIRST_MS, 500, 1000, 2000]


def wait_after(watch: Watch, now_ms: int) -> int:
    """Return how long it takes until another is started."""
    (place,) = watch.places.values()
    assert place.owner is None
    return max(place.not_before_ms - now_ms, 0)


def live_for(watch: Watch, lived_ms: int, now_ms: int) -> int:
    """Start an owner, let it mark for so long and be killed; return when that was."""
    launched = bring_up(watch, now_ms)
    for marked_ms in range(0, lived_ms + 1, 250):
        watch.marked(0, launched.start.owner, now_ms + marked_ms)
        assert watch.plan(now_ms + marked_ms) == []
    watch.died(launched.start.name, None, "SIGKILL", now_ms + lived_ms)
    return now_ms + lived_ms


def test_an_owner_that_decided_for_a_while_is_replaced_at_once_however_often() -> None:
    """Whoever kills owners now and then must not make their shard wait longer and longer."""
    watch = make_watch()
    now_ms = 0
    for _ in range(12):
        now_ms = live_for(watch, SETTLED_MS, now_ms)
        assert wait_after(watch, now_ms) == 0
        assert watch.places[0].cautious


def test_owners_that_fall_soon_after_their_seal_are_a_crash_loop() -> None:
    watch = make_watch()
    now_ms, waits = 0, []
    for _ in range(10):
        now_ms = live_for(watch, SETTLED_MS - 250, now_ms)
        waits.append(wait_after(watch, now_ms))
        now_ms += waits[-1]
    assert waits == [0, 250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
    now_ms = live_for(watch, SETTLED_MS, now_ms)
    assert wait_after(watch, now_ms) == 0


@pytest.mark.parametrize("end", sorted(THWARTED))
def test_what_a_shard_has_no_part_in_is_not_counted_against_it(end: str) -> None:
    """What caused it passes by itself, and then every second of waiting is ours."""
    watch = make_watch()
    now_ms, waits = 0, []
    for _ in range(10):
        (action,) = watch.plan(now_ms)
        assert isinstance(action, Launch)
        if end == "launch_failed":
            watch.launch_failed(action.start.name, "Ray did not answer", now_ms)
        else:
            watch.launched(Launched(start=action.start, pid=1, address=""))
            watch.died(action.start.name, end, "it is what it says", now_ms)
        waits.append(wait_after(watch, now_ms))
        now_ms += waits[-1]
    assert waits == [0, 250, 500, 1000, *[THWARTED_MS_MAX] * 6]
    assert watch.places[0].cautious is (end == "no_answer"), "it may have been trying something"
    launched = bring_up(watch, now_ms)
    watch.died(launched.start.name, None, "SIGKILL", now_ms)
    assert wait_after(watch, now_ms) == 0, "the first death that is its own"


def test_a_long_life_clears_back_off_and_caution() -> None:
    watch = make_watch()
    launched = bring_up(watch)
    watch.died(launched.start.name, None, "", 10)
    second = bring_up(watch, 10)
    assert second.start.cautious
    assert watch.plan(60_010) == []
    watch.died(second.start.name, "fenced", "", 60_020)
    (action,) = watch.plan(60_020)
    assert isinstance(action, Launch)
    assert not action.start.cautious


def test_an_explained_death_makes_nobody_cautious() -> None:
    watch = make_watch()
    launched = bring_up(watch)
    watch.died(launched.start.name, "clock_fault", "the clock jumped", 10)
    (action,) = watch.plan(10)
    assert isinstance(action, Launch)
    assert not action.start.cautious


@pytest.mark.parametrize("end", ["log_fault", "settings_refused", "murderous_batch"])
def test_a_wall_is_not_run_against_twice(end: str) -> None:
    watch = make_watch()
    launched = bring_up(watch)
    watch.died(launched.start.name, end, "the log was truncated", 10)
    assert watch.plan(1_000_000) == []
    assert [alarm.what for alarm in watch.alarms] == ["shard_stopped", "owner_ended"]


def test_one_start_at_a_time() -> None:
    watch = make_watch(shards=4)
    started = []
    for now_ms in range(4):
        (action,) = watch.plan(now_ms)
        assert isinstance(action, Launch)
        assert watch.plan(now_ms) == []
        watch.launched(Launched(start=action.start, pid=1, address=""))
        watch.progressed(action.start.name, "starting", 1)
        assert watch.plan(now_ms) == []
        watch.marked(action.start.shard, action.start.owner, now_ms)
        started.append(action.start.shard)
    assert started == [0, 1, 2, 3]


def test_a_start_without_progress_is_given_up_and_one_with_progress_is_not() -> None:
    watch = make_watch()
    (action,) = watch.plan(0)
    assert isinstance(action, Launch)
    watch.launched(Launched(start=action.start, pid=1, address=""))
    for step in range(10):
        be_silent(watch, 20_000)
        watch.progressed(action.start.name, "starting", step)
        assert watch.plan(20_000 * step) == []
    be_silent(watch, 30_000)
    watch.progressed(action.start.name, "starting", 9)
    kill, _ = watch.plan(400_000)
    assert isinstance(kill, Kill)


def test_a_standby_takes_over_without_waiting() -> None:
    watch = make_watch(standby=True)
    launched = bring_up(watch)
    (action,) = watch.plan(1)
    assert isinstance(action, Launch)
    assert action.start.standby
    watch.launched(Launched(start=action.start, pid=2, address=""))
    watch.progressed(action.start.name, "standby", 1)
    assert watch.plan(2) == []
    watch.died(launched.start.name, None, "", 3)
    (take_over,) = watch.plan(3)
    assert take_over == TakeOver(action.start.name)
    watch.marked(0, action.start.owner, 4)
    (again,) = watch.plan(4)
    assert isinstance(again, Launch)
    assert again.start.standby, "the next one is warmed at once"


def test_a_standby_may_wait_for_ever() -> None:
    watch = make_watch(standby=True)
    launched = bring_up(watch)
    (action,) = watch.plan(1)
    assert isinstance(action, Launch)
    watch.launched(Launched(start=action.start, pid=2, address=""))
    watch.progressed(action.start.name, "standby", 1)
    for step in range(1000):
        be_silent(watch, 1000)
        watch.marked(0, launched.start.owner, step)
        assert watch.plan(step) == []


def test_one_that_was_told_to_take_over_has_no_patience_to_stand_by() -> None:
    watch = make_watch(standby=True)
    launched = bring_up(watch)
    (action,) = watch.plan(1)
    assert isinstance(action, Launch)
    watch.launched(Launched(start=action.start, pid=2, address=""))
    watch.died(launched.start.name, None, "", 2)
    assert only(watch.plan(2), TakeOver)
    watch.progressed(action.start.name, "standby", 1)
    be_silent(watch, 30_000)
    watch.progressed(action.start.name, "standby", 1)
    assert only(watch.plan(3), Kill)


def test_an_adopted_owner_is_watched_and_not_started_again() -> None:
    watch = make_watch()
    other = make_watch()
    launched = bring_up(other)
    watch.adopt(launched, "live", 0)
    assert watch.plan(0) == []
    watch.died(launched.start.name, None, "", 1)
    (action,) = watch.plan(1)
    assert isinstance(action, Launch)
    assert action.start.number == 2


# ----- seeded worlds ------------------------------------------------------------------------------


class Process(Struct):
    """A process of the simulated world."""

    launched: Launched
    phase: Phase
    seals_ms: int
    told: bool = False  # to take over
    hung: bool = False
    dead: bool = False


class World:
    """Processes that start, hang and die, and a broker that is sometimes slow; time is a number."""

    def __init__(self, seed: int, shards: int, standby: bool) -> None:
        self.random = random.Random(seed)
        self.watch = make_watch(shards, standby=standby)
        self.now_ms = 0
        self.processes: dict[str, Process] = {}
        self.reigns: dict[int, str] = {}
        self.slow_until_ms = 0
        self.slept_until_ms = 0
        self.replaced_healthy: list[str] = []
        self.kills = 0
        self.faults = 0

    def run(self, until_ms: int, faults_until_ms: int) -> None:
        while self.now_ms < until_ms:
            if self.now_ms < faults_until_ms:
                self.break_something()
            if self.now_ms % CANARY_MS == 0:
                self.live()
            self.check_one_start()
            for action in self.watch.plan(self.now_ms):
                self.act(action)
            self.now_ms += 50

    def break_something(self) -> None:
        living = [each for each in self.processes.values() if not each.dead]
        if self.random.random() < 0.004 and living:
            self.die(self.random.choice(living), None)
            self.faults += 1
        if self.random.random() < 0.002 and living:
            self.random.choice(living).hung = True
            self.faults += 1
        if self.random.random() < 0.001:
            self.slow_until_ms = self.now_ms + self.random.randrange(60_000)
            self.faults += 1

    def live(self) -> None:
        fast = self.now_ms >= self.slow_until_ms
        for process in self.processes.values():
            if process.dead or process.hung or not fast:
                continue
            start = process.launched.start
            if process.phase == "starting" and self.now_ms >= process.seals_ms:
                process.phase = "standby" if start.standby else "live"
            if process.phase == "standby" and process.told:
                process.phase = "live"
            self.watch.progressed(start.name, process.phase, self.now_ms)
            if process.phase == "live":
                self.reigns[start.shard] = start.name
                self.watch.marked(start.shard, start.owner, self.now_ms)
        if fast:
            self.watch.proven(CANARY_MS, {shard: True for shard in self.watch.places})

    def act(self, action: Action) -> None:
        if isinstance(action, Launch):
            launched = Launched(start=action.start, pid=1, address="")
            seals_ms = self.now_ms + self.random.randrange(500, 9000)
            self.processes[action.start.name] = Process(launched, "starting", seals_ms)
            self.watch.launched(launched)
        elif isinstance(action, TakeOver):
            self.processes[action.name].told = True
        else:
            process = self.processes[action.name]
            self.kills += 1
            if not process.hung and not process.dead:
                self.replaced_healthy.append(f"{action.name} at {self.now_ms}: {action.why}")
            process.dead = True

    def die(self, process: Process, end: str | None) -> None:
        process.dead = True
        self.watch.died(process.launched.start.name, end, "", self.now_ms)

    def check_one_start(self) -> None:
        starting = [
            each.launched.start.name
            for each in self.processes.values()
            if each.phase == "starting" and not each.dead
        ]
        assert len(starting) <= 1 + sum(life_was_promoted(self.watch)), starting


def life_was_promoted(watch: Watch) -> list[bool]:
    """Return for each shard whether its owner was a standby that is not yet live."""
    return [
        place.owner is not None and place.owner.start.standby and place.owner.phase != "live"
        for place in watch.places.values()
    ]


@pytest.mark.parametrize("standby", [False, True])
def test_in_every_seeded_world_each_shard_lives_again_and_no_healthy_owner_falls(
    standby: bool,
) -> None:
    faults = kills = 0
    for seed in range(150):
        world = World(seed, shards=3, standby=standby)
        world.run(until_ms=240_000, faults_until_ms=120_000)
        assert not world.replaced_healthy, (seed, world.replaced_healthy)
        for place in world.watch.places.values():
            assert place.owner is not None, (seed, place)
            assert place.owner.phase == "live", (seed, place)
        faults += world.faults
        kills += world.kills
    assert faults > 1000
    assert kills > 100, "the worlds must hang processes, or the test shows nothing"


def starve(watch: Watch, proven_ms: int, waited_ms: float) -> None:
    """Let so much time pass without a mark, in each canary's part of it waiting for a processor."""
    owner = watch.places[0].owner
    assert owner is not None
    for _ in range(proven_ms // CANARY_MS):
        watch.proven(CANARY_MS, {0: True}, {owner.start.name: waited_ms})


def test_an_owner_that_waits_for_a_processor_is_not_silent() -> None:
    watch = make_watch()
    bring_up(watch)
    starve(watch, 15_000, CANARY_MS)
    assert watch.plan(15_000) == []


def test_a_hung_owner_is_replaced_whatever_others_do() -> None:
    """A stopped or deadlocked thread is not ready to run, so it never waits for a processor."""
    watch = make_watch()
    bring_up(watch)
    starve(watch, 2000, 0.0)
    assert only(watch.plan(2000), Kill)


def test_who_gets_half_a_processor_has_twice_the_time() -> None:
    watch = make_watch()
    bring_up(watch)
    starve(watch, 3750, CANARY_MS / 2)
    assert watch.plan(3750) == []
    starve(watch, 250, CANARY_MS / 2)
    assert only(watch.plan(4000), Kill)


def test_starving_excuses_nobody_for_ever() -> None:
    watch = make_watch()
    bring_up(watch)
    starve(watch, STARVED_MS_MAX + 1750, CANARY_MS)
    assert watch.plan(0) == []
    starve(watch, 250, CANARY_MS)
    assert only(watch.plan(0), Kill)


def test_a_mark_clears_what_was_excused() -> None:
    watch = make_watch()
    launched = bring_up(watch)
    for _ in range(3):
        starve(watch, STARVED_MS_MAX, CANARY_MS)
        watch.marked(0, launched.start.owner, 0)
    assert watch.plan(0) == []


def test_a_start_that_waits_for_a_processor_has_its_time_to_start() -> None:
    """Ending it would only make the next one wait as long; but for ever it may not take either."""
    watch = make_watch()
    (action,) = watch.plan(0)
    assert isinstance(action, Launch)
    watch.launched(Launched(start=action.start, pid=100, address=""))
    starve(watch, START_STARVED_MS_MAX, CANARY_MS)
    assert watch.plan(0) == []
    assert [life.start for life in watch.suspects()] == [action.start]
    starve(watch, 29_750, CANARY_MS)
    assert watch.plan(0) == []
    starve(watch, 250, CANARY_MS)
    assert only(watch.plan(0), Kill)


def test_progress_clears_what_a_start_was_excused() -> None:
    watch = make_watch()
    (action,) = watch.plan(0)
    assert isinstance(action, Launch)
    for number in range(3):
        watch.progressed(action.start.name, "starting", number)
        assert watch.suspects() == []
        starve(watch, START_STARVED_MS_MAX, CANARY_MS)
    assert watch.plan(0) == []


def test_only_a_silent_owner_is_looked_at() -> None:
    watch = make_watch()
    launched = bring_up(watch)
    be_silent(watch, 250)
    assert watch.suspects() == []
    be_silent(watch, 250)
    assert [life.start for life in watch.suspects()] == [launched.start]


def test_a_spare_is_made_when_everybody_has_what_he_needs() -> None:
    watch = make_watch(2)
    assert not watch.is_calm()
    bring_up(watch)
    assert not watch.is_calm(), "the second shard has no owner yet"
    (action,) = watch.plan(0)
    assert isinstance(action, Launch)
    watch.marked(1, action.start.owner, 0)
    assert watch.is_calm()
    watch.drain()
    assert not watch.is_calm()


def test_a_spare_comes_after_the_standbys() -> None:
    watch = make_watch(standby=True)
    bring_up(watch)
    assert not watch.is_calm()
    (action,) = watch.plan(0)
    assert isinstance(action, Launch)
    assert action.start.standby
    assert not watch.is_calm()
    watch.progressed(action.start.name, "standby", 1)
    assert watch.is_calm()


class Hands:
    """A launcher of processes that exist only here; ``Supervisor`` moves them."""

    def __init__(self) -> None:
        self.launched: list[Start] = []
        self.killed: list[str] = []
        self.prepared = 0
        self.spare = False
        self.looks = 0  # how often it was asked for a spare
        self.waited_ms = 0.0

    async def launch(self, start: Start) -> Launched:
        self.launched.append(start)
        self.spare = False
        return Launched(start=start, pid=1, address="")

    async def prepare(self) -> None:
        self.prepared += 1
        self.spare = True

    def has_spare(self) -> bool:
        self.looks += 1
        return self.spare

    def starved_ms(self, launched: Launched) -> float:
        return self.waited_ms

    async def take_over(self, launched: Launched, pardoned: Sequence[bytes]) -> None:
        raise AssertionError("there is no standby here")

    def kill(self, launched: Launched) -> None:
        self.killed.append(launched.start.name)

    async def gone(self, launched: Launched) -> tuple[str | None, str]:
        await asyncio.Event().wait()
        raise AssertionError

    async def progress(self, launched: Launched) -> tuple[Phase, object]:
        return "live", 1


def now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


async def supervised(
    hands: Hands,
    *,
    silence_ms: int,
    shards: int = 1,
    canary_deadline_ms: int = 500,
    monotonic_ms: Callable[[], int] = now_ms,
) -> Supervisor:
    """Return a supervisor on logs in memory, with shards whose owners never mark."""
    logs = MemoryLogs()
    await logs.create({DECISIONS: shards, WATCH: 1}, retention_ms=10**12)
    rules = SupervisorSettings(
        silence_ms=silence_ms, canary_ms=20, canary_deadline_ms=canary_deadline_ms, spare=True
    )
    names = owners()
    watch = Watch(range(shards), rules, new_owner=lambda: next(names))
    decisions = {
        shard: Decisions(
            await logs.open(DECISIONS, shard), DecisionReader(None, shard=shard, generation=1)
        )
        for shard in range(shards)
    }
    return Supervisor(
        watch,
        hands,
        decisions,
        await logs.open(WATCH, 0),
        rules,
        canary=lambda: b"{}",
        alarm=lambda alarm: None,
        monotonic_ms=monotonic_ms,
    )


async def until(holds: Callable[[], bool]) -> None:
    """Return when something holds; the test's own time limit ends a wait for ever."""
    while not holds():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("phase", ["starting", "live"])
async def test_an_adopted_owner_that_is_busy_trying_something_reigns(phase: Phase) -> None:
    """Busy, it does not say so itself, and as a start it would be ended without a pardon."""
    supervisor = await supervised(Hands(), silence_ms=2_000)
    start = Start(shard=0, number=5, owner=b"o" * 16, cautious=True)
    stamp = Stamp(log_id=b"l" * 16, generation=1, shard=0, epoch=4, owner=start.owner)
    last = Accepted(
        position=LogPosition(log_id=b"l" * 16, offset=7, epoch=4, owner=start.owner, seq=3),
        appended_ms=1,
        stamp=stamp,
        trying=Trying(stamp=stamp, last_command=1, last_delta=1),
    )
    supervisor._decisions = {0: structs.replace(supervisor._decisions[0], last=last)}
    supervisor.adopt(Launched(start=start, pid=1, address=""), phase)
    other = Start(shard=0, number=6, owner=b"p" * 16, standby=True)
    supervisor.adopt(Launched(start=other, pid=2, address=""), "standby")
    place = supervisor.watch.places[0]
    assert place.owner is not None
    assert (place.owner.start, place.owner.phase, place.trying) == (start, "live", True)
    assert place.standby is not None
    assert place.standby.phase == "standby", "it is another's record"
    be_silent(supervisor.watch, 2_000)
    assert only(supervisor.watch.plan(0), Kill)
    assert place.pardoned == [start.owner]
    supervisor.stop()
    await supervisor.run()


async def test_the_supervisor_makes_a_spare_and_another_when_it_was_used() -> None:
    hands = Hands()
    supervisor = await supervised(hands, silence_ms=10**9)
    running = asyncio.ensure_future(supervisor.run())
    try:
        await until(lambda: bool(hands.launched))
        assert hands.prepared == 0, "nobody is live yet"
        supervisor.watch.marked(0, hands.launched[0].owner, 0)
        await until(lambda: hands.prepared == 1)
        supervisor.watch.died(hands.launched[0].name, None, "SIGKILL", 0)
        await until(lambda: len(hands.launched) == 2)
        supervisor.watch.marked(0, hands.launched[1].owner, 0)
        await until(lambda: hands.prepared == 2)
    finally:
        supervisor.stop()
        await running


async def test_a_spare_that_waits_is_not_looked_for_all_the_time() -> None:
    """Each look reads a file of the system, and fifty a second were a fifth of its work."""
    at_ms = 0
    hands = Hands()
    supervisor = await supervised(hands, silence_ms=10**9, monotonic_ms=lambda: at_ms)
    running = asyncio.ensure_future(supervisor.run())
    try:
        await until(lambda: bool(hands.launched))
        supervisor.watch.marked(0, hands.launched[0].owner, 0)
        await until(lambda: hands.prepared == 1)
        at_ms = 2 * SPARE_LOOK_MS
        before = hands.looks
        await until(lambda: hands.looks > before)
        await asyncio.sleep(0.2)
        assert hands.looks == before + 1, "no time passed, so nothing was to be seen"
        hands.spare = False  # it died
        at_ms += SPARE_LOOK_MS
        await until(lambda: hands.prepared == 2)
    finally:
        supervisor.stop()
        await running


async def test_the_supervisor_asks_whether_a_silent_owner_starves() -> None:
    hands = Hands()
    hands.waited_ms = 10**6
    supervisor = await supervised(hands, silence_ms=700)
    running = asyncio.ensure_future(supervisor.run())
    try:
        await until(lambda: bool(hands.launched))
        supervisor.watch.marked(0, hands.launched[0].owner, 0)
        place = supervisor.watch.places[0]
        await until(lambda: place.starved_ms > 400)
        assert hands.killed == []
        hands.waited_ms = 0.0  # it gets its processor, and is silent all the same
        await until(lambda: bool(hands.killed))
    finally:
        supervisor.stop()
        await running


class SlowToOpen:
    """A canary's log whose sessions take their time to open and then answer at once."""

    def __init__(self, opens_s: float) -> None:
        self.opens_s = opens_s
        self.begun = 0
        self.cancelled = 0
        self.refusals = 0

    async def appender(self) -> "SlowToOpen":
        self.begun += 1
        try:
            await asyncio.sleep(self.opens_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.refusals:
            self.refusals -= 1
            raise FailedDependency("the broker did not answer")
        return self

    async def append(self, value: bytes, **_: object) -> None:
        """Acknowledge."""

    def abandon(self) -> None:
        raise AssertionError("nothing was in doubt")


async def test_a_session_that_takes_long_to_open_proves_once_it_is_open() -> None:
    """Were it begun anew at every canary, no time would be proven, and no hung owner replaced."""
    hands = Hands()
    supervisor = await supervised(hands, silence_ms=200, canary_deadline_ms=50)
    log = SlowToOpen(0.3)
    log.refusals = 1
    supervisor._canary_log = cast(Log, log)
    running = asyncio.ensure_future(supervisor.run())
    try:
        await until(lambda: bool(hands.launched))
        supervisor.watch.marked(0, hands.launched[0].owner, 0)
        await asyncio.wait_for(until(lambda: bool(hands.killed)), 20)
        assert supervisor.watch.proven_ms >= 200
        assert log.begun == 2, "one was refused"
    finally:
        supervisor.stop()
        await running
    assert log.cancelled == 0


async def test_who_stops_watching_stops_opening() -> None:
    supervisor = await supervised(Hands(), silence_ms=10**9, canary_deadline_ms=50)
    log = SlowToOpen(10**6)
    supervisor._canary_log = cast(Log, log)
    running = asyncio.ensure_future(supervisor.run())
    await until(lambda: log.begun == 1)
    await asyncio.sleep(0.3)
    assert (log.begun, log.cancelled) == (1, 0)
    supervisor.stop()
    await running
    assert log.cancelled == 1


async def test_a_shard_that_cannot_be_watched_keeps_no_other_from_its_owner() -> None:
    """Nobody sees its owner's marks, so what the owner says of itself must do."""
    hands = Hands()
    supervisor = await supervised(hands, silence_ms=200, shards=2)
    supervisor.blinded(0, CorruptRecord("no decision"))
    running = asyncio.ensure_future(supervisor.run())
    try:
        await asyncio.wait_for(until(lambda: len(hands.launched) == 2), 20)
        supervisor.watch.marked(1, hands.launched[1].owner, 0)
        await asyncio.wait_for(until(lambda: bool(hands.killed)), 20)
        assert hands.killed == [hands.launched[1].name], "silence says nothing of the first"
    finally:
        supervisor.stop()
        await running
