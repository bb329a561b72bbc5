"""A run of chaos that a signal ends takes everything away first, whenever it comes."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, Signals
from types import SimpleNamespace
from typing import Any

import pytest

from perf.chaos import __main__ as program
from perf.chaos.ending import ENDING, Ended, Ending
from perf.chaos.keeping import Lines
from perf.chaos.run import Wish
from perf.real_stack import EngineUnderTest

TIDIED = ["stopping", "stopped", "closing", "closed"]


class Places:
    """What happened, and which signal comes where."""

    def __init__(self, strikes: dict[str, Signals]) -> None:
        self.happened: list[str] = []
        self._strikes = strikes

    def at(self, place: str, done: str) -> None:
        """Come to a place, perhaps to a signal, and be through with it."""
        self.happened.append(place)
        if place in self._strikes:
            signal.raise_signal(self._strikes[place])
        self.happened.append(done)

    async def live(self) -> SimpleNamespace:
        """Live until it is cancelled, and then undo something, which takes a moment."""
        self.happened.append("living")
        if "living" in self._strikes:
            signal.raise_signal(self._strikes["living"])
            try:
                await asyncio.sleep(60)
            finally:
                self.at("healing", "")
                await asyncio.sleep(0.01)
                self.happened[-1] = "healed"
        return SimpleNamespace(checker=None)


class FakeSite:
    def __init__(self, places: Places) -> None:
        self.root = "somewhere"
        self.not_kept = ""
        self.engine = SimpleNamespace(
            start=lambda: places.at("engine begins", "engine stands"), last_words=lambda: ""
        )
        self._places = places

    def __enter__(self) -> "FakeSite":
        self._places.at("servers begin", "servers stand")
        return self

    def __exit__(self, *_: object) -> None:
        self._places.at("closing", "closed")


class FakeRun:
    def __init__(self, places: Places) -> None:
        self.live = places.live
        self.close = self._close
        self.lines = Lines(None)

    async def _close(self) -> None:
        """Let go of nothing."""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Leave what others do with signals as it was."""
    before = {number: signal.getsignal(number) for number in ENDING}
    signal.signal(SIGHUP, signal.SIG_DFL)  # the suite itself may have been started by nohup
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def lived(monkeypatch: pytest.MonkeyPatch, **strikes: Signals) -> tuple[list[str], list[str]]:
    """Run with faked parts; return what happened, and what was said."""
    places = Places({name.replace("_", " "): number for name, number in strikes.items()})
    said: list[str] = []

    def stop_engine(_: Any) -> int:
        places.at("stopping", "stopped")
        return 0

    monkeypatch.setattr(program, "Site", lambda **_: FakeSite(places))
    monkeypatch.setattr(program, "Run", lambda *_, **__: FakeRun(places))
    monkeypatch.setattr(program, "stop_engine", stop_engine)
    monkeypatch.setattr(program, "judge_left", lambda *_: None)
    with Ending() as ending:
        try:
            program.chaos(Wish(), ending, said.append, lambda _: None)
        except Ended as ended:
            said.append(f"{ended}!")
    return places.happened, said


def test_servers_that_start_are_let_start_and_then_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle, one might start after its stop."""
    happened, said = lived(monkeypatch, servers_begin=SIGINT)
    assert happened == ["servers begin", "servers stand", "closing", "closed"]
    assert said[-1] == "told to end by SIGINT!"


def test_an_engine_that_starts_is_stopped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    happened, said = lived(monkeypatch, engine_begins=SIGTERM)
    assert happened[2:] == ["engine begins", *TIDIED]
    assert any("told to end by SIGTERM; stopping everything" in line for line in said)


@pytest.mark.parametrize("first", [SIGINT, SIGTERM, SIGHUP])
def test_further_signals_do_not_disturb_the_tidying_up(
    first: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever presses Ctrl-C twice must not be left with mounted disks."""
    happened, said = lived(
        monkeypatch, living=first, healing=SIGINT, stopping=SIGTERM, closing=SIGINT
    )
    assert happened[4:] == ["living", "healing", "healed", *TIDIED]
    assert said[-1] == f"told to end by {first.name}!"
    assert any("undoing the faults" in line for line in said)


def test_a_run_that_is_over_is_tidied_up_undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    happened, said = lived(monkeypatch, stopping=SIGTERM, closing=SIGINT)
    assert happened[4:] == ["living", *TIDIED]
    assert not any("told to end" in line for line in said)


def test_what_was_done_with_signals_before_is_done_again() -> None:
    signal.signal(SIGHUP, signal.SIG_IGN)  # by nohup
    before = {number: signal.getsignal(number) for number in ENDING}
    with Ending():
        assert signal.getsignal(SIGHUP) is signal.SIG_IGN, "it shall outlive its terminal"
        assert signal.getsignal(SIGTERM) != before[SIGTERM]
    assert {number: signal.getsignal(number) for number in ENDING} == before


@pytest.mark.parametrize("own", [True, False])
def test_an_engine_under_test_leaves_signals_to_whoever_takes_them(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no process today")

    monkeypatch.setattr("perf.real_stack.subprocess.Popen", refuse)
    taken: Any = signal.default_int_handler if own else signal.SIG_DFL
    signal.signal(SIGTERM, taken)
    with pytest.raises(OSError, match="today"):
        EngineUnderTest(tmp_path, {}).start()
    assert (signal.getsignal(SIGTERM) is taken) is own
