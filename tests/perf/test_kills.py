"""What the command about killed owners tells of its strikes and of the reads meanwhile."""

import json
from typing import Any

import pytest

from perf import kills
from perf.bench import COMMANDS
from perf.flood import Flood
from perf.measuring import gates
from perf.starved import weeks_for


def test_of_a_hundred_strikes_one_may_take_longer_than_the_p99() -> None:
    found = kills.told([1.0] * 99 + [9.0])
    assert found["strikes"] == 100
    assert (found["p50_s"], found["max_s"]) == (1.0, 9.0)
    assert kills.told([1.0, 2.0, 3.0])["p99_s"] == 3.0, "of few it is the greatest"
    assert kills.told([]) == {"strikes": 0}


def test_an_old_answer_must_say_that_it_is_stale() -> None:
    reads = kills.JudgedReads("", "", 1, 1.0)
    as_of = {"as_of": "1970-01-01T00:00:10.000Z"}
    reads.judge(12_000, json.dumps({**as_of, "stale": False}).encode())
    reads.judge(12_001, json.dumps({**as_of, "stale": True}).encode())
    assert reads.unmarked == 0
    reads.judge(12_001, json.dumps({**as_of, "stale": False}).encode())
    assert reads.unmarked == 1


@pytest.mark.parametrize("heir", kills.PROMISED_S)
def test_each_heir_has_gates_of_its_own(heir: str) -> None:
    """A standby promises what a new process cannot."""
    (command,) = (each for each in COMMANDS if each.name == f"{kills.COMMAND}-{heir}")
    assert command.arguments == ("--heir", heir)
    (gate,) = (each for each in gates(command.name) if each.figure == "p99_of_promised")
    assert gate.most == 1
    assert f"/ {kills.PROMISED_S[heir]:g} s, {heir}" in gate.claim
    judged = [each.claim for each in gates(command.name) if each.figure == "hangs_late"]
    promised = [f"hung owners replaced after {kills.HANGS_LATE_S:g} s, standby"]
    assert judged == (promised if heir == "standby" else [])


def test_the_starved_feed_outlasts_the_watching() -> None:
    assert weeks_for(3600, 2000) * 10_000 >= 3600 * 2000


class Doubtful:
    """An appender that is in doubt once."""

    def __init__(self, doubts: list[Any], log: list[Any]) -> None:
        self._doubts = doubts
        self._log = log

    async def append_many(self, records: Any) -> Any:
        if self._doubts:
            raise self._doubts.pop()
        self._log.append(records)
        return ["appended"]

    def abandon(self) -> None:
        self._log.append("abandoned")


async def test_a_flood_goes_on_after_a_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.errors import AppendInDoubt

    doubts, log = [AppendInDoubt("no acknowledgement")], []

    class Opened:
        async def appender(self) -> Doubtful:
            return Doubtful(doubts, log)

    flood = Flood.__new__(Flood)
    flood.doubts = 0
    monkeypatch.setattr(flood, "_logs_of", {0: Opened()}, raising=False)
    sent = await flood._append_surely({0: None}, 0, [(b"k", b"v", "")])
    assert sent == ["appended"]
    assert log == ["abandoned", [(b"k", b"v", "")]]
    assert flood.doubts == 1
