"""Pairs, gates, the machine's stamp and the page that they end in."""

import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from cluster.settings import load
from perf import bench, benchmarks_page, filled, measuring
from perf.measuring import Gate, Machine, Progress, figure_at, interleaved, judged, ratio, spread

ROOT = Path(__file__).parent.parent.parent


def test_a_ratio_is_the_median_of_the_pairs_and_not_of_the_sides() -> None:
    found = ratio([1.0, 8.0, 9.0], [1.0, 2.0, 9.0])
    assert (found.median, found.least, found.most, found.of) == (1.0, 1.0, 4.0, 3)


def test_versions_are_told_although_somebody_elses_distribution_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted removal leaves such a folder."""
    (tmp_path / "left-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    found = measuring.versions()
    assert found["numpy"] == metadata.version("numpy")
    assert set(found) <= set(measuring.PACKAGES)


def test_sides_are_measured_in_turns_and_the_first_round_only_warms() -> None:
    called: list[str] = []

    def side(name: str) -> Any:
        def measured() -> float:
            called.append(name)
            return float(len(called))

        return measured

    figures = interleaved(2, {"a": side("a"), "b": side("b")}, Progress("test"))
    assert called == ["a", "b"] * 3
    assert figures == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_a_figure_is_found_by_its_name_in_spreads_and_lists() -> None:
    figures = {"x": {"median": 2.5, "least": 1}, "rows": [{"name": "quix", "ratio": 7}], "n": None}
    assert figure_at(figures, "x") == 2.5
    assert figure_at(figures, "rows.quix.ratio") == 7.0
    assert figure_at(figures, "rows.flink.ratio") is None
    assert figure_at(figures, "n") is None


@pytest.mark.parametrize(
    ("gate", "value", "reached"),
    [
        (Gate(figure="f", claim="c", least=2), 2.0, True),
        (Gate(figure="f", claim="c", least=2), 1.99, False),
        (Gate(figure="f", claim="c", most=2), 2.01, False),
        (Gate(figure="f", claim="c", least=1, most=2), 1.5, True),
    ],
)
def test_a_gate_keeps_its_bound(gate: Gate, value: float, reached: bool) -> None:
    assert gate.reached(value) is reached


def test_every_gate_belongs_to_a_command_and_has_a_bound() -> None:
    names = {command.name for command in bench.COMMANDS}
    budgets = measuring.tomllib.loads(measuring.BUDGETS.read_text())
    assert set(budgets) <= names
    for name in budgets:
        for gate in measuring.gates(name):
            assert gate.bound(), gate
    assert judged("reads", {"read_of_constant": {"median": 0.5}})[0]["reached"] is False
    assert judged("reads", {})[0]["reached"] is None


def test_a_stranger_that_works_is_named_and_what_we_start_is_not() -> None:
    busy = "import time; end = time.time() + 3\nwhile time.time() < end: pass"
    machine = Machine()
    ours = subprocess.Popen([sys.executable, "-c", busy])
    unmarked = {name: value for name, value in os.environ.items() if name != measuring.MARK}
    # Forked away, it descends from us no more, and it does not carry our mark.
    subprocess.run(["setsid", "--fork", sys.executable, "-c", busy], env=unmarked, check=True)
    try:
        deadline = time.monotonic() + 20
        while not (found := machine.others()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not measuring.is_ours(1) or measuring.lineage(os.getpid())[-1] == 1
        assert measuring.is_ours(ours.pid)
        assert all(each["share"] > measuring.OTHERS_SHARE_MAX for each in found)
    finally:
        ours.kill()
        ours.wait()


def line_of(**figures: Any) -> dict[str, Any]:
    machine = Machine()
    return {"figures": figures, "stamp": machine.stamp() | {"disturbed_by": []}, "on": "today"}


def test_the_page_shows_every_bound_and_says_what_is_not_reached() -> None:
    by_size = {
        "10": {"listings": 10, "event_ns": 5.0, "scan_ns_a_listing": 1.0, "bytes_a_listing": 9.0},
        "100": {"listings": 100, "event_ns": 9.0, "scan_ns_a_listing": 1.1, "bytes_a_listing": 9.0},
    }
    lines = {
        "reads": line_of(read_of_constant={"median": 0.5, "least": 0.4, "most": 0.6}),
        "scaling": line_of(by_size=by_size, event_growth=1.8),
        "kernels": {"failure": "exit 1 without a line of JSON"},
    }
    words = {command.name: command.words() for command in bench.COMMANDS}
    drawn = benchmarks_page.plots(lines)
    text = benchmarks_page.page(lines, words, sorted(drawn))
    assert "| d | price read / constant bytes | >= 0.85 | 0.5 | **not reached** |" in text
    assert "| ns an event, largest / smallest table | <= 2 | 1.8 | reached |" in text
    assert "Failed: exit 1 without a line of JSON." in text
    assert text.count("not measured") >= 10
    assert set(drawn) == {"bounds.svg", "scaling.svg"}
    for svg in drawn.values():
        assert len(svg) < 20_000
        assert svg.startswith("<svg")


def test_a_figure_stands_beside_the_command_that_printed_it() -> None:
    """The bench may run it otherwise today."""
    lines = {"soak": line_of(lost=0) | {"words": "python -m perf.soak --minutes 7"}}
    text = benchmarks_page.page(lines, {"soak": "python -m perf.soak --minutes 60"}, [])
    assert text.count("`python -m perf.soak --minutes 7`") == 4, "three gates, and its own part"
    assert "60`" not in text


def test_a_plot_shows_what_may_not_be_and_was() -> None:
    drawn = benchmarks_page.bounds_plot(
        [("reads failed", 3.0, "<= 0", False), ("ratio", 8.0, ">= 2", True)]
    )
    assert drawn.count(benchmarks_page.BAD) == drawn.count(benchmarks_page.GOOD) == 1
    assert "inf" not in drawn


def test_the_page_of_the_repository_is_made_from_its_lines() -> None:
    """Nobody writes a figure into the page by hand."""
    lines = json.loads(bench.LINES.read_text())
    words = {command.name: command.words() for command in bench.COMMANDS}
    drawn = benchmarks_page.plots(lines)
    assert bench.PAGE.read_text() == benchmarks_page.page(lines, words, sorted(drawn))


def test_a_spread_has_no_digits_that_nobody_measured() -> None:
    assert spread([1.23456789, 1.23456789]).median == 1.235


def test_what_the_bench_leaves_in_the_environment_is_no_setting() -> None:
    """Whoever starts an engine under it would be refused for a setting that does not exist."""
    Machine()
    assert not measuring.MARK.startswith("REPRICER_")
    assert not filled.FOLDER.startswith("REPRICER_")
    load()


def test_the_bench_is_measured_to_last_no_longer_than_is_asked() -> None:
    by_default = [command.minutes for command in bench.COMMANDS if command.by_default]
    assert sum(by_default) <= bench.MINUTES
