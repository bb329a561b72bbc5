"""A trial in which prices are learnt: its days, its market, and what its verdict rests on."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.clock import EVENT_JUMP_MS
from cluster.owner import WARM_LEARNING_AFTER_S
from engine import learning as closing
from engine.learnt import DAY_MS
from engine.shard import Shard
from kernels import reasons
from perf.chaos import clients, learning
from perf.chaos.calendar import DAY_S, DAYS_AGO, Calendar, learning_calendar, machine_calendar
from perf.chaos.checker import Checker
from perf.chaos.clients import Producer, in_order
from perf.chaos.learning import Compiled, Marks, counted, judge_learning, learning_in_words, lessons
from perf.chaos.rules import RULES
from persistence.memory_log import MemoryLogs
from persistence.ports import DELTAS
from persistence.wire import encode_delta
from repricer import decide
from training.worlds.market import Market, World

SPANS = [(10, 12), (30, 30)]


class Machine:
    """A clock that goes as it is told to."""

    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now_ms

    def wait(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)


def test_a_day_of_the_market_passes_in_less_than_a_minute() -> None:
    machine = Machine()
    calendar = learning_calendar(machine)
    begun_ms = calendar.now_ms()
    assert begun_ms % DAY_MS == DAY_MS // 2
    assert calendar.seconds_to(0) == pytest.approx(DAY_S / 2)
    assert calendar.seconds_to(2) == pytest.approx(2.5 * DAY_S)
    assert calendar.next_midnight == 0
    machine.wait(DAY_S)
    assert calendar.next_midnight == 1
    assert calendar.now_ms() == begun_ms + DAY_MS
    assert calendar.after_ms(DAY_S / 4) == begun_ms + 5 * DAY_MS // 4
    assert calendar.seconds_to(0) == 0.0
    machine.wait(DAY_S)
    half_ms = round(DAY_S * 500)
    first_ms = machine.now_ms - round(2 * DAY_S * 1000) + half_ms
    assert list(calendar.midnights(machine.now_ms)) == [first_ms, first_ms + 2 * half_ms]


async def test_a_catalogue_is_told_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it in its order, however many one append takes, and what else is to be said after."""
    monkeypatch.setattr(clients, "SENT_TOGETHER", 7)
    monkeypatch.setattr(clients, "TICK_S", 0.01)
    checker, logs = Checker(1, generation=1, now_ms=lambda: 0), MemoryLogs()
    await logs.create({DELTAS: 1}, retention_ms=10**12)
    market, also = Market(1, 4, World(retailer="shop-0")), lessons("shop-0", 1)
    opening = market.opening()
    producer = Producer(checker, logs, 0, market, Calendar(start_ms=market.world.start_ms, pace=1))
    producer.also = also
    running = asyncio.ensure_future(producer.run())
    while producer.also:
        await asyncio.sleep(0.01)
    producer.stopped.set()
    await running
    log = await logs.open(DELTAS, 0)
    records = await log.read(-1, limit=1_000, wait_ms=0)
    told = [each.value for each in records]
    assert told[: len(opening)] == [encode_delta(each) for each in opening]
    assert told[len(opening) :][: len(also)] == [encode_delta(each) for each in also]
    assert producer.acknowledged == len(told) > 7


def test_retailers_learn_when_every_owner_has_compiled() -> None:
    seconds = [0.0]
    compiled = Compiled(lambda: seconds[0])

    def looks(at_s: float, *counts: int, phase: str = "live") -> bool:
        shards = [
            {"pid": pid, "compiled_shapes": count, "phase": phase}
            for pid, count in enumerate(counts)
        ]
        seconds[0] = at_s
        return compiled.look({"shards": shards}, 2)

    settled_s = WARM_LEARNING_AFTER_S + learning.COMPILED_S
    assert not looks(0, 5, 5)
    assert not looks(settled_s - 1, 5, 5), "they may not have begun yet"
    assert not looks(settled_s, 5, 9), "more were compiled just now"
    assert not looks(settled_s + learning.COMPILED_S, 5, 9, phase="starting")
    assert not looks(settled_s + learning.COMPILED_S, 5)
    assert looks(settled_s + learning.COMPILED_S, 5, 9), "the first had them when it was seen"


def test_its_days_are_history_and_the_machines_time_is_within_a_jump() -> None:
    """So a command that bore the machine's time would count, and the rule would see it."""
    machine = Machine()
    behind_ms = machine() - learning_calendar(machine).now_ms()
    assert 0 < behind_ms < EVENT_JUMP_MS
    assert behind_ms > (DAYS_AGO - 1) * DAY_MS
    assert abs(machine_calendar().now_ms() - Calendar(start_ms=0, pace=1).now_ms()) > DAY_MS


def test_a_close_takes_several_microbatches() -> None:
    deciding = learning.LISTINGS * (1.0 - learning.POLICY["holdout_share"])
    assert deciding > closing.DECIDED_ROWS


def test_a_market_is_learnt_tried_and_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the trial says to its engine is taken, and has the effects that a verdict counts."""
    monkeypatch.setattr(learning, "LISTINGS", 60)
    start_ms = 20_000 * DAY_MS - DAY_MS // 2
    market = learning.learning_market(3, "shop-0", start_ms)
    shard = Shard()
    opening = [*market.opening(), *lessons("shop-0", start_ms)]
    assert decide(shard, opening, start_ms + 1).exceptions == ()
    quoted = 0
    for day in range(5):
        for part in range(1, 4):
            now_ms = start_ms + day * DAY_MS + part * DAY_MS // 3
            live = {key: shard.live(key) for key in market.keys}
            prices = {key: each["in_force_minor"] for key, each in live.items() if each}
            decided = decide(shard, in_order(market.advance(prices, now_ms)), now_ms)
            quoted |= int(np.bitwise_or.reduce(decided.quotes["reasons"], initial=0))
    assert shard.days_of_learning() == {"shop-0": 5}
    wanted = (reasons.LEARNT, reasons.DITHERED, reasons.HELD_OUT, reasons.TREATED)
    assert [bool(quoted & each) for each in wanted] == [True] * 4


def a_trial(tmp_path: Path) -> tuple[Checker, Marks, dict[str, Any]]:
    """Return a checker that heard of learnt quotes, checkpoints, and a replay that agrees."""
    checker = Checker(1, generation=1, now_ms=lambda: 0)
    checker.truths[0].learnt |= {"learnt": 7, "held out": 2}
    checker.truths[0].reigns_after = [0, 9, 11, 31]
    marks = Marks([tmp_path / "shard-000"])
    marks.seqs[0] |= {9, 10, 30}
    shard = {"learnt_quotes": 7, "periods": 3, "amid_closes": SPANS}
    return checker, marks, {"shards": [shard]}


def test_what_a_trial_lived_through_is_counted(tmp_path: Path) -> None:
    checker, marks, replay = a_trial(tmp_path)
    found = counted(checker.truths) | judge_learning(checker, replay, marks)
    assert not checker.broken
    assert found == {
        **{"learnt_quotes": 7, "dithered_quotes": 0, "held_out_quotes": 2, "treated_quotes": 0},
        **{"periods": 3, "closes_spread": 2, "checkpoints": 3, "checkpoints_amid": 2},
        "reigns_amid": 1,
    }
    words = learning_in_words(found)
    assert words.startswith("7 learnt quotes (0 strayed to learn), 2 held out")
    assert "3 periods closed, 2 of their closes over several microbatches" in words
    assert "amid these 2 of 3 checkpoints and 1 changes of owner" in words
    assert "not replayed" in learning_in_words(counted(checker.truths))


@pytest.mark.parametrize("lacks", ["learnt_quotes", "periods"])
def test_a_trial_that_learnt_nothing_says_so_and_fails(tmp_path: Path, lacks: str) -> None:
    checker, marks, replay = a_trial(tmp_path)
    replay["shards"][0][lacks] = 0
    if lacks == "learnt_quotes":
        checker.truths[0].learnt.clear()
    found = counted(checker.truths) | judge_learning(checker, replay, marks)
    assert checker.broken == {"nothing_learnt": 1}
    assert "nothing_learnt" in RULES
    assert learning_in_words(found).startswith("NOTHING WAS LEARNT")


def test_a_replay_that_learnt_something_else_differs(tmp_path: Path) -> None:
    checker, marks, replay = a_trial(tmp_path)
    replay["shards"][0]["learnt_quotes"] = 6
    judge_learning(checker, replay, marks)
    assert checker.broken == {"replay_differs": 1}


def test_checkpoints_are_seen_while_they_lie_there(tmp_path: Path) -> None:
    marks = Marks([tmp_path, tmp_path / "not-yet-there"])
    marks.look()
    assert marks.seqs == [set(), set()]
    names = [f"{2:010d}-{seq:014d}-{seq:014d}-i.checkpoint" for seq in (17, 21)]
    for name in (*names, "another.file"):
        (tmp_path / name).touch()
    marks.look()
    (tmp_path / names[0]).unlink()
    marks.look()
    assert marks.seqs[0] == {17, 21}
