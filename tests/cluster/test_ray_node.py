"""Where an engine's compiled kernels lie, and what a start of Ray leaves that failed."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.ray_node import (
    KERNELS_VARIABLE,
    RayRefused,
    compiled_kernels,
    ray_environment,
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
