"""A trial bends clocks and Ray's calls; without its variables nothing is bent."""

import time
from pathlib import Path

import pytest

from actors.clock import ClockWatch, WallClock
from cluster.ray_node import ray_environment
from cluster.settings import load
from cluster.trial import (
    CLOCKS_VARIABLE,
    RAY_VARIABLE,
    clock_of,
    gateway_clock,
    make_clocks,
    shift_clock,
)
from engine.errors import ClockFault


def test_without_a_trial_an_owner_has_the_machines_clock() -> None:
    assert isinstance(clock_of(0, {}), WallClock)
    assert isinstance(gateway_clock(2, {}), WallClock)


def test_a_shifted_clock_jumps_at_once_and_back(tmp_path: Path) -> None:
    file = tmp_path / "clocks"
    make_clocks(file, 2)
    environment = {CLOCKS_VARIABLE: str(file)}
    first, second = clock_of(0, environment), clock_of(1, environment)
    gateway = gateway_clock(2, environment)
    watch = ClockWatch(second)
    shift_clock(file, 1, -3_600_000)
    now_ms = time.time_ns() // 1_000_000
    assert abs(first.wall_ms() - now_ms) < 60_000
    assert abs(second.wall_ms() - now_ms + 3_600_000) < 60_000
    with pytest.raises(ClockFault):
        watch.look()
    shift_clock(file, 2, 8_000)
    assert abs(gateway.wall_ms() - first.wall_ms() - 8_000) < 1_000
    assert abs(gateway.monotonic_ms() - first.monotonic_ms()) < 1_000
    shift_clock(file, 1, 0)
    watch.look()


def test_only_rays_own_settings_for_tests_get_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load({"folder": tmp_path}, environment={})
    file = tmp_path / "ray"
    monkeypatch.setenv(RAY_VARIABLE, str(file))
    assert not [name for name in ray_environment(settings) if "testing" in name]
    file.write_text('RAY_testing_rpc_failure={"*": {}}\nRAY_AUTH_MODE=none\nPATH=\n')
    environment = ray_environment(settings)
    assert environment["RAY_testing_rpc_failure"] == '{"*": {}}'
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["PATH"]
