"""Where an engine's compiled kernels lie, and what a start of Ray leaves that failed."""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.ray_node import (
    KERNELS_VARIABLE,
    START_DEADLINE_S,
    RayRefused,
    compiled_kernels,
    end_node,
    ray_environment,
    ray_gone,
    start_node,
)
from cluster.settings import load


def test_kernels_lie_in_the_data_folder_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load({"folder": str(tmp_path / "data")}, environment={})
    monkeypatch.delenv(KERNELS_VARIABLE)
    assert compiled_kernels(settings)[KERNELS_VARIABLE] == str(tmp_path / "data" / "kernels")
    monkeypatch.setenv(KERNELS_VARIABLE, "elsewhere")
    assert compiled_kernels(settings)[KERNELS_VARIABLE] == "elsewhere"
    assert ray_environment(settings)[KERNELS_VARIABLE] == "elsewhere"


def test_a_raylet_gives_its_agents_as_long_as_a_start_may_take(tmp_path: Path) -> None:
    settings = load({"folder": str(tmp_path / "data")}, environment={})
    given_ms = int(ray_environment(settings)["RAY_agent_register_timeout_ms"])
    assert given_ms == START_DEADLINE_S * 1000


def test_nothing_is_left_of_a_start_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a crowded machine a head comes late, and what there is of it is in the next one's way."""
    values = {"folder": str(tmp_path / "data"), "ray": {"folder": str(tmp_path)}}
    settings = load(values, environment={})
    begun: list[subprocess.Popen[bytes]] = []

    def begin(session: str) -> None:
        (tmp_path / session).mkdir()
        command = [sys.executable, "-c", "import time; time.sleep(60)", session]
        begun.append(subprocess.Popen(command, env=ray_environment(settings)))

    def late(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        begin("session_2")
        return subprocess.CompletedProcess([], 1, stdout="the current node timed out")

    begin("session_1")
    (tmp_path / "session_latest").symlink_to("session_1")
    try:
        with monkeypatch.context() as patched, pytest.raises(RayRefused, match="timed out"):
            patched.setattr("cluster.ray_node.subprocess.run", late)
            start_node(settings)
        owners_node, half_begun = begun
        assert half_begun.wait(10) == -signal.SIGKILL
        assert owners_node.poll() is None, "owners may run under it"
    finally:
        for process in begun:
            process.kill()
            process.wait(10)


SLOW_AGENTS = """
import pathlib, sys, time
for agent in ("dashboard/agent.py", "runtime_env/agent/main.py"):
    if any(word.endswith(agent) for word in sys.orig_argv):
        (pathlib.Path(__file__).parent / agent.replace("/", "-")).touch()
        time.sleep(60)
"""
"""Read by every Python that starts: it makes Ray's agents come after all of a raylet's patience."""


def test_a_head_does_not_wait_for_its_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_AGENTS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with tempfile.TemporaryDirectory(prefix="ray-") as short:  # a socket's name holds 107 bytes
        ray = {"folder": short, "dashboard_port": 0}
        settings = load({"folder": str(tmp_path / "data"), "ray": ray}, environment={})
        node = start_node(settings)
        try:
            assert ray_gone(node) == ""
            asleep = [
                tmp_path / f"{name}.py" for name in ("dashboard-agent", "runtime_env-agent-main")
            ]
            deadline = time.monotonic() + 60
            while not all(path.exists() for path in asleep) and time.monotonic() < deadline:
                time.sleep(0.1)  # on a crowded machine they begin after the head is there
            assert all(path.exists() for path in asleep), "else nothing was slow"
        finally:
            end_node(settings, node)
