"""The comparison with the peers is fair where it can be checked without running them."""

import re
import sys
from pathlib import Path

import pytest

from perf import workload
from perf.owner_run import OtherTopics
from perf.peers import given
from perf.peers.contenders import PEERS
from perf.peers.environments import HERE
from perf.peers.measured import Failed, run_measured
from perf.peers.report import markdown, summary
from perf.peers.rounds import FRAMED_DELTAS, OURS, OURS_BY_FRAMES, Bench, Taken
from persistence.memory_log import MemoryLogs
from persistence.ports import DECISIONS, DELTAS


def test_peers_have_the_reference_s_rule() -> None:
    """Their copy stands alone, since their environments hold nothing of ours."""
    assert given.RATIO_BP == workload.RATIO_BP
    assert tuple(given.SLOTS) == workload.RIVALS
    for target in (1_000, 1_001, 40_000):
        for floor in (625, 1_000, 45_000):
            assert given.price(target, floor, given.NO_PRICE) == workload.rule(target, floor, 0)
            for rival in range(600, 1_200, 7):
                assert given.price(target, floor, rival) == workload.rule(target, floor, rival)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_is_locked_by_hashes(peer) -> None:
    lock = (HERE / f"{peer.name}.txt").read_text()
    entries = re.split(r"\n(?=[A-Za-z0-9])", lock)[1:]
    assert entries and all("--hash=sha256:" in entry for entry in entries)
    assert peer.version
    (program,) = HERE.glob(f"run_{peer.name}.*")
    assert "Tuned" in program.read_text(), "says what was done for its speed"


def taken(cpu_s: float, equal: bool = True) -> Taken:
    return Taken(
        events=1_000_000,
        cpu_s=cpu_s,
        wall_s=4.0,
        start_cpu_s=1.0,
        start_wall_s=1.0,
        peak_rss_mb=100.0,
        emitted=10,
        sha256="",
        equal=equal,
        detail={"durability": "decisions"},
    )


def bench_of(
    tmp_path: Path, ours: list[Taken], theirs: list[Taken], by_frames: list[Taken]
) -> Bench:
    bench = Bench(
        bootstrap="",
        folder=tmp_path,
        events=3_000,
        listings=100,
        partitions=1,
        seed=1,
        peers=PEERS[:1],
        ours=True,
    )
    bench.taken[OURS], bench.taken[OURS_BY_FRAMES] = ours, by_frames
    bench.taken[PEERS[0].name] = theirs
    return bench


def test_ratios_are_of_pairs(tmp_path: Path) -> None:
    ours, theirs = [taken(2.0), taken(4.0), taken(1.0)], [taken(8.0), taken(12.0), taken(9.0)]
    by_frames = [taken(0.5), taken(0.5), taken(0.1)]
    result = summary(bench_of(tmp_path, ours, theirs, by_frames), "4")
    row = result["rows"][2]
    assert row["ratio"] == 4.0
    assert row["ratio_range"] == [3.0, 9.0]
    assert row["ratio_by_frames"] == 24.0
    assert row["ratio_by_frames_range"] == [16.0, 90.0]
    assert "| 4.0 (3.0 - 9.0) | 24.0 (16.0 - 90.0) |" in markdown(result)


@pytest.mark.parametrize(
    ("wrong", "compared"),
    [("ours", {"ratio_by_frames"}), ("by_frames", {"ratio"}), ("theirs", set[str]())],
)
def test_other_work_is_not_compared(tmp_path: Path, wrong: str, compared: set[str]) -> None:
    """One run that ended in another table is enough, and each wire of ours stands for itself."""
    ours = [taken(2.0), taken(2.0, equal=wrong != "ours")]
    theirs = [taken(9.0), taken(9.0, equal=wrong != "theirs")]
    by_frames = [taken(1.0), taken(1.0, equal=wrong != "by_frames")]
    result = summary(bench_of(tmp_path, ours, theirs, by_frames), "4")
    row = result["rows"][2]
    assert {name for name in ("ratio", "ratio_by_frames") if row[name] is not None} == compared
    assert "NO" in markdown(result)


async def test_an_owner_reads_the_lane_that_it_is_told() -> None:
    """The same facts lie there once by JSON and once by frames, and each run decides for itself."""
    logs = MemoryLogs()
    topics = (DELTAS, FRAMED_DELTAS, DECISIONS, "decisions-1")
    await logs.create(dict.fromkeys(topics, 1), retention_ms=1)
    told = OtherTopics(logs, {DELTAS: FRAMED_DELTAS, DECISIONS: "decisions-1"})
    for topic, instead in ((DELTAS, FRAMED_DELTAS), (DECISIONS, "decisions-1")):
        appender = await (await logs.open(instead, 0)).appender()
        await appender.append_many([(b"key", b"value", "")])
        assert await (await told.open(topic, 0)).end() == 1
        assert await (await logs.open(topic, 0)).end() == 0


def test_the_whole_tree_is_counted(tmp_path: Path) -> None:
    """A child's CPU and memory are its parent's, as they would be of a peer that forks."""
    burn = "x = bytearray(64 << 20); import time; e = time.process_time() + .3\n"
    burn += "while time.process_time() < e: pass"
    program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    measured = run_measured(
        [sys.executable, "-c", program],
        log=tmp_path / "log",
        folder=tmp_path,
        environment={},
        limit_s=60,
    )
    assert measured.cpu_s >= 0.3
    assert measured.peak_rss_mb >= 64


@pytest.mark.parametrize(
    ("program", "limit_s", "says"),
    [("raise SystemExit('why')", 60, "why"), ("import time; time.sleep(60)", 0.2, "after 0 s")],
)
def test_who_does_not_end_well_fails(
    tmp_path: Path, program: str, limit_s: float, says: str
) -> None:
    with pytest.raises(Failed, match=says):
        run_measured(
            [sys.executable, "-c", program],
            log=tmp_path / "log",
            folder=tmp_path,
            environment={},
            limit_s=limit_s,
        )
