"""Rules about the whole, the report, and how a run ends: judged without a run."""

import inspect
import json
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from cluster.commands import doubting
from engine.errors import RejectedInput
from engine.learnt import DAY_MS
from perf.chaos.__main__ import parse, place_of
from perf.chaos.calendar import Calendar, machine_calendar
from perf.chaos.checker import Checker
from perf.chaos.clients import Gateway, Producer, in_order, retailers_of, world
from perf.chaos.commanding import Commander
from perf.chaos.following import Following
from perf.chaos.injuries import Struck
from perf.chaos.plan import KINDS, Fault
from perf.chaos.report import report, write_report
from perf.chaos.rules import RULES
from perf.chaos.run import Told, Wish
from perf.chaos.summary import command_of, examples, in_words, summary
from perf.chaos.verdict import (
    judge_left,
    judge_replay,
    judge_status,
    judge_stores,
    until_back,
)
from perf.real_stack import NotReached
from persistence.memory_log import MemoryLogs
from training.worlds.market import Market

ROOT = Path(__file__).resolve().parents[2]
HEALTHY: dict[str, Any] = {
    "supervisor": {"shards": [{"shard": 0, "stopped": ""}]},
    "followers": [{"follower": "ledger", "shard": 0, "stopped_by": ""}],
    "shards": [{"shard": 0, "phase": "live"}],
}


def make_checker() -> Checker:
    return Checker(1, generation=1, now_ms=lambda: 0)


def broken_by(status: dict[str, Any]) -> set[str]:
    checker = make_checker()
    judge_status(checker, HEALTHY | status)
    return set(checker.broken)


def test_what_stopped_for_a_person_is_a_violation() -> None:
    assert broken_by({}) == set()
    stopped = {"shards": [{"shard": 0, "stopped": "log_fault"}]}
    assert broken_by({"supervisor": stopped}) == {"stopped_for_good"}
    follower = {"follower": "ledger", "shard": 0, "stopped_by": "CursorFenced"}
    assert broken_by({"followers": [follower]}) == {"stopped_for_good"}
    assert broken_by({"shards": [{"shard": 0, "phase": "starting"}]}) == {"not_recovered"}


def test_stores_replay_and_leftovers_are_judged() -> None:
    checker = make_checker()
    judge_stores(checker, [])
    judge_replay(checker, {"differences": 0})
    judge_left(checker, 0)
    assert not checker.broken
    judge_stores(checker, ["history: prices 3, the log 4"])
    judge_replay(checker, {"differences": 2})
    judge_replay(checker, {"error": {"kind": "LogFault"}})
    judge_left(checker, 1)
    assert checker.broken == {"store_differs": 1, "replay_differs": 2, "process_left": 1}


def test_a_market_tells_its_sales_in_their_sources_order() -> None:
    market = Market(5, 60, world("shop-0"))
    deltas = market.advance({}, market.world.start_ms + 3_600_000)
    ordered = in_order(deltas)
    numbers = [each.source_seq for each in ordered if type(each).__name__ == "UnitsSold"]  # type: ignore[union-attr]
    assert len(numbers) > 10
    assert numbers == sorted(numbers)
    assert Counter(map(id, ordered)) == Counter(map(id, deltas))


def a_run(*, violated: bool) -> Told:
    checker = make_checker()
    if violated:
        checker.found("stale_unmarked", "<tea> 2,001 ms old")
    logs = MemoryLogs()
    gateway = Gateway("http://127.0.0.1:1", "key", checker)
    following = Following(checker, logs)
    following.heard.mark(0, 5_000)
    gateway.latencies_ms.append((6_000, 1.5))
    gateway.stale.append((6_000, 180))
    strikes = [
        Fault(number=number, kind=kind, target="owner:0", seconds=2.0)
        for number, kind in enumerate(KINDS)
    ]
    struck = [
        Struck(fault=fault, planned_ms=4_000, fired_ms=4_500 + fault.number, over_ms=6_000)
        for fault in strikes
    ]
    missed = Struck(fault=Fault(number=9, kind="kill", target="gcs"), planned_ms=1)
    market, calendar = Market(1, 4, world(retailers_of(1)[0])), machine_calendar()
    return Told(
        wish=Wish(seed=3, faults=6, pace_s=4.0),
        calendar=calendar,
        began_ms=4_000,
        storm_ms=4_200,
        over_ms=9_000,
        ended_ms=11_000,
        struck=[*struck, missed],
        checker=checker,
        following=following,
        gateway=gateway,
        commander=Commander(gateway, checker, Random(1), calendar),
        producers=[Producer(checker, logs, 0, market, calendar)],
        servers={"broker": "4.1"},
    )


@pytest.mark.parametrize("violated", [False, True])
def test_the_report_says_all_and_is_one_page(violated: bool) -> None:
    told = a_run(violated=violated)
    stamp = {"cpu": "a processor", "cores": 2, "memory_gib": 8, "versions": {"ray": "2.1"}}
    found = summary(told, left=0, stamp=stamp)
    page = report(told, found)
    assert found["verdict"] == ("broken" if violated else "holds")
    assert found["faults"] == 6
    assert found["missed"] == 1
    assert found["fired"] == dict.fromkeys(KINDS, 1)
    assert found["hits"] == {kind: {"shard": 1} for kind in KINDS}
    assert found["stamp"]["servers"] == {"broker": "4.1"}
    assert all(said in page for said in ("a processor", "ray 2.1", "broker 4.1", in_words(found)))
    assert "<td>shard (its owner)</td><td>1</td><td>1</td>" in page
    assert "<tea>" not in page
    assert ("&lt;tea&gt;" in page) == violated
    assert all(rule in page for rule in RULES)
    assert "repricer chaos --seed 3 --faults 6 --pace 4 --shards 2" in page
    assert "src=" not in page
    assert "href=" not in page
    drawn = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    bars = [each for each in drawn if each.tag == "rect"]
    assert len(bars) == 6


def test_the_report_is_written_for_programs_too(tmp_path: Path) -> None:
    told = a_run(violated=True)
    for name in ("storm.html", "storm.json"):
        write_report(tmp_path / name, told, summary(told, left=0, stamp={"cores": 2}))
    document = json.loads((tmp_path / "storm.json").read_text())
    assert "<svg" in (tmp_path / "storm.html").read_text()
    assert document["verdict"] == "broken"
    assert document["stamp"]["cores"] == 2
    assert document["hits"]["kill"] == {"shard": 1}
    assert document["violations"][0]["rule"] == "stale_unmarked"
    assert len(document["timeline"]) == len(KINDS) + 1
    assert document["timeline"][0]["fault"]["target"] == "owner:0"


def test_a_run_that_ended_early_has_no_verdict_but_its_violations() -> None:
    told = a_run(violated=False)
    found = summary(told, left=0, ended="told to end by SIGINT")
    assert found["verdict"] == "ended early"
    assert "told to end by SIGINT" in report(told, found)
    assert summary(a_run(violated=True), left=0, ended="it failed")["verdict"] == "broken"


def test_a_verdict_names_the_commands_that_were_followed() -> None:
    told = a_run(violated=False)
    told.checker.judged |= {"commands followed": 12, "command outcomes": 13}
    told.checker.judged["quotes while halted"] = 7
    told.checker.commands[0].done["PricePinned"] = 5
    told.checker.commands[0].repeated = 1
    words = in_words(summary(told, left=0))
    assert "12 commands followed from the lane to their outcomes" in words
    assert "1 stood there again, 13 outcomes" in words
    assert "5 PricePinned" in words
    assert "7 quotes while halted" in words


def test_a_report_tells_what_was_learnt_and_when_days_turned() -> None:
    told = a_run(violated=False)
    assert "learning" not in summary(told, left=0)
    told.wish = replace(told.wish, learning=True)
    # Half a day before the first midnight when it begins, and two in the seven seconds of the run.
    told.calendar = Calendar(start_ms=DAY_MS // 2, pace=DAY_MS / 4_000, now_ms=lambda: 4_000)
    told.checker.truths[0].learnt["learnt"] = 31
    early = summary(told, left=None, ended="it failed")
    assert early["learning"]["learnt_quotes"] == 31
    assert "31 learnt quotes, not replayed" in report(told, early)
    lived = ("periods", "closes_spread", "checkpoints", "checkpoints_amid", "reigns_amid")
    told.end = {"learning": dict(zip(lived, range(1, 6), strict=True))}
    found = summary(told, left=0)
    assert found["learning"]["learnt_quotes"] == 31
    assert found["learning"]["reigns_amid"] == 5
    page = report(told, found)
    assert "1 periods closed, 2 of their closes over several microbatches" in page
    assert page.count('stroke="#9e9e9e"') == 2
    told.checker.truths[0].learnt.clear()
    assert "NOTHING WAS LEARNT" in report(told, summary(told, left=0))


def test_a_report_has_a_place_before_the_storm_begins(tmp_path: Path) -> None:
    now = datetime(2026, 11, 27, 10, 30, tzinfo=UTC)
    assert place_of(parse(["--seed", "7"]), now) == Path("chaos-seed-7-20261127-103000.html")
    keep = tmp_path / "kept"
    words = ["--seed", "7", "--keep", str(keep)]
    assert place_of(parse(words), now) == keep / "chaos-seed-7-20261127-103000.html"
    (keep / "older.log").touch()
    with pytest.raises(RejectedInput, match="is not empty"):
        place_of(parse(words), now)
    with pytest.raises(RejectedInput, match="/report"):
        place_of(parse(["--report", str(keep / "older.log" / "x.html")]), now)


def test_the_command_repeats_the_run() -> None:
    wish = Wish(
        seed=9,
        minutes=2.5,
        kinds=("kill",),
        standby=True,
        learning=True,
        head_down_s=600,
        shards=3,
    )
    assert command_of(wish) == (
        "repricer chaos --seed 9 --minutes 2.5 --only kill --pace 5 --shards 3 --standby "
        "--learning --head-down-s 600"
    )


def test_a_machine_without_the_servers_is_told_so(tmp_path: Path) -> None:
    """It refuses before anything runs, with the next command, and leaves nothing behind."""
    environment = {"PATH": "/nowhere", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "perf.chaos", "--faults", "1", "--json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 5, done.stderr
    assert '"error"' in done.stdout.splitlines()[-1]


def test_the_verb_has_the_programs_flags() -> None:
    """They are written twice (decision 0030), so somebody has to compare them."""
    documented = (ROOT / "docs" / "chaos.md").read_text()
    verb = inspect.signature(doubting.chaos).parameters
    program = vars(parse([]))
    assert set(verb) == set(program)
    assert {name: each.default for name, each in verb.items()} == program
    assert all(f"`--{name.replace('_', '-')}" in documented for name in verb)


def test_every_rule_and_kind_is_documented() -> None:
    documented = (ROOT / "docs" / "chaos.md").read_text()
    assert not [rule for rule in RULES if f"| `{rule}` |" not in documented]
    assert not [kind for kind in KINDS if f"| `{kind}` |" not in documented]


class Slow:
    """An engine that has everything decided after so many calls, and says so."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    async def until_decided(self, wait_s: float) -> dict[str, Any]:
        self.left -= 1
        if self.left > 0:
            raise NotReached(f"not within {wait_s:.0f} s", "x" * 5_000 + " the end of it")
        return {"decided": True}

    async def status(self) -> dict[str, Any]:
        return {"decided": False}


@pytest.mark.parametrize(
    ("calls", "decided", "broken"),
    [
        (1, True, {}),
        (2, True, {"not_recovered": 1}),  # late: one rule broken, and judged when it is there
        (3, False, {"not_recovered": 1}),
    ],
)
async def test_who_comes_back_late_is_judged_when_it_is_back(
    calls: int, decided: bool, broken: dict[str, int]
) -> None:
    checker = Checker(1, generation=1, now_ms=lambda: 0)
    assert await until_back(checker, Slow(calls)) == {"decided": decided}
    assert dict(checker.broken) == broken
    # What is known of it is kept whole, and cut for people only.
    assert all(each.detail.endswith("the end of it") for each in checker.violations)
    assert all(len(line) < 1_600 for line in examples(checker))
