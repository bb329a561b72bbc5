"""Each command of the bench at a tiny size: what it compares is equal, and its line is whole."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from perf import (
    backtest,
    checkpoint,
    features,
    foresight,
    kernels,
    memory,
    reads,
    recovery,
    scaling,
    sinks,
    soak,
    spike,
)
from perf.flood import RETAILER, Recorded, Sent, Slot, percentile
from persistence.frames import FRAME, decode_frame
from persistence.lanes import Lanes
from persistence.ports import Record
from tests.sim import __main__ as sim
from tests.sim.campaign import Worlds
from tests.sim.faults import NAMES

Main = Callable[[Sequence[str]], int]


def line_of(
    main: Main,
    words: str,
    capsys: pytest.CaptureFixture[str],
    left_out: frozenset[str] = frozenset({"read_of_ray"}),
) -> dict[str, Any]:
    """Run a command and return its line, whose gates were measured but for those left out."""
    assert main([*words.split(), "--json"]) == 0
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {"command", "arguments", "figures", "gates", "stamp"} <= line.keys()
    measured = [gate["figure"] for gate in line["gates"] if gate["measured"] is None]
    assert not set(measured) - left_out, measured
    return line


def test_kernels_decide_as_numpy_and_the_loop_do(capsys: pytest.CaptureFixture[str]) -> None:
    found = line_of(kernels.main, "--rows 5000 --pairs 1", capsys)["figures"]
    assert found["equal_to_numpy"] == 1.0
    assert found["equal_to_loop"] > 0.999
    assert found["compiles_after_warming"] == 0


def test_kernels_would_notice_another_price() -> None:
    rows = kernels.rows_of(500)
    prices = kernels.plain_numpy(rows)
    rows["rrp_minor"] = 0
    rows["floor_minor"] = rows["cost_minor"] * 2
    assert (kernels.plain_numpy(rows) != prices).any()


@pytest.mark.servers
def test_reads_of_every_peer_are_the_same_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--listings 1100 --seconds 0.1 --pairs 1 --no-ray"
    found = line_of(reads.main, words, capsys)["figures"]
    assert found["body_bytes"] > 500
    assert found["reads_per_s"]["median"] > 0
    assert found["batched_listings_per_s"]["median"] > found["reads_per_s"]["median"]


@pytest.mark.servers
def test_a_restored_shard_decides_as_the_saved_one(capsys: pytest.CaptureFixture[str]) -> None:
    found = line_of(recovery.main, "--listings 1500 --pairs 1", capsys)["figures"]
    assert found["equal"] is True


def test_features_are_told_alone_and_in_slices(capsys: pytest.CaptureFixture[str]) -> None:
    served = frozenset({"p99_of_promised", "reads_failed"})  # by an engine, which is not started
    found = line_of(features.main, "--in-process --listings 600 --pairs 1", capsys, served)
    assert found["figures"]["batch_of_single"]["median"] > 1.0


def test_a_fork_is_asked_and_the_live_shard_is_as_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = line_of(foresight.main, "--listings 1500 --pairs 1", capsys)["figures"]
    assert found["untouched"] is True
    assert found["moved_by_plan"] > 100
    assert found["moved_by_what_if"] > 100


def test_a_recording_is_repeated_and_answers_for_another_policy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Days are told each minute, and marks of quiet time are four a second."""
    words = "--listings 60 --days 0.02 --quiet-hours 0.01 --pairs 1"
    found = line_of(backtest.main, words, capsys)["figures"]
    assert found["differences"] == 0
    assert found["microbatches"] > 28
    assert found["facts"] > 400
    assert found["quiet_microbatches"] >= 144
    assert found["proposals"] >= found["other"] > 0
    assert found["times_real_time"]["median"] > 1
    low, expected, high = found["profit_ratio"]
    assert low <= expected <= high


def test_a_checkpoint_holds_the_rows_that_were_touched(capsys: pytest.CaptureFixture[str]) -> None:
    found = line_of(checkpoint.main, "--listings 3000 --dirty 0.1 --pairs 1", capsys)["figures"]
    assert found["dirty_rows"] == 300
    assert found["written_of_dirty"]["median"] >= 1.0


def test_scaling_measures_every_size(capsys: pytest.CaptureFixture[str]) -> None:
    found = line_of(scaling.main, "--sizes 600,1200", capsys)["figures"]
    assert set(found["by_size"]) == {"600", "1200"}
    assert all(each["raw_bytes_a_listing"] > 400 for each in found["by_size"].values())


@pytest.mark.servers
def test_memory_counts_ours_and_the_peers(capsys: pytest.CaptureFixture[str]) -> None:
    found = line_of(memory.main, "--listings 1500", capsys)["figures"]
    assert found["redis_bytes_a_listing"] > found["raw_columns_bytes"]
    assert found["struct_bytes_a_listing"] > found["raw_columns_bytes"]


@pytest.mark.servers
def test_sinks_hold_what_the_log_says(capsys: pytest.CaptureFixture[str]) -> None:
    """The command itself compares count and checksum before it counts a rate."""
    found = line_of(sinks.main, "--quotes 1500 --pairs 1", capsys)["figures"]
    assert found["quotes"] >= 1500


@pytest.mark.parametrize("violations", [[], [(7, "doubled")]], ids=["clean", "a violation"])
def test_a_campaign_of_the_simulator_is_judged_by_its_gates(
    violations: list[tuple[int, str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no mutant was hunted none has escaped, and that is not measured."""
    told = [Worlds(5, Counter({name: 1 for name in NAMES}), Counter(), violations)]
    monkeypatch.setattr(sim, "run_worlds", lambda begin, count, kind: told)
    assert sim.main(["--seeds", "5", "--json"]) == len(violations)
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["figures"]["seeds"] == 5
    reached = {gate["figure"]: gate["reached"] for gate in line["gates"]}
    assert reached == {"violations": not violations, "mutants_escaped": None}


def test_a_flood_is_about_its_own_listings_and_nothing_is_refused() -> None:
    listings = np.arange(1, 50, dtype=np.uint64) * 7
    slot = Slot(RETAILER, 0, listings, np.full(49, 2000))
    frame = slot.frame(np.random.default_rng(1), 300)
    facts, refused = decode_frame(1, Record(5, 0, RETAILER.encode(), frame, FRAME), Lanes(0, 1, {}))
    assert not refused
    assert len(facts.kind) == 300
    assert set(facts.listing.tolist()) <= set(listings.tolist())


def test_delays_are_weighted_by_facts() -> None:
    delays = (np.array([5.0, 100.0, 7.0]), np.array([98, 1, 1]))
    assert percentile(delays, 0.5) == 5.0
    assert percentile(delays, 0.99) == 7.0
    assert percentile(delays, 1.0) == 100.0


def test_a_spike_that_is_decided_late_is_not_called_sustained() -> None:
    sent = {(0, 0): Sent(0.0, 10, 1), (0, 1): Sent(60_000.0, 10, 1)}
    phase = {number: (np.array([10.0]), np.array([5])) for number in (0, 2)}
    late = {**phase, 1: (np.array([10.0, 60_000.0]), np.array([10, 10]))}

    class Flooded:
        def __init__(self) -> None:
            self.sent = sent
            self.late_ms_max = 0.0

    found = spike.figures_of(Recorded(20, 9, 2, 0, late), Flooded(), {"owner": 1.0}, 1.0)  # type: ignore[arg-type]
    assert found["of_wanted"] == pytest.approx(0.5, rel=0.01)
    assert found["lost"] == 0


def test_what_grows_is_told_from_what_is_flat() -> None:
    seconds = [10.0 * each for each in range(200)]
    noise = np.random.default_rng(1).normal(0, 1, 200)
    assert soak.slope(seconds, list(300 + noise)).flat
    grown = soak.slope(seconds, list(300 + noise + np.arange(200) * 0.5))
    assert not grown.flat
    assert grown.low > 0
    assert soak.slope(seconds, [4.0] * 200).flat
    assert not soak.slope([0.0, 1.0], [4.0, 4.0]).flat, "two samples prove nothing"
