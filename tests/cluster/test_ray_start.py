"""Ray's node may come late: it is asked for again, but not for ever, nor after its raylet's end."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.ray_start import LISTEN_PORT, Raylet, RayletDied, patient


def test_a_node_that_comes_late_is_found() -> None:
    answers = iter([False, False, True])

    def ask(address: str) -> str:
        if not next(answers):
            raise RuntimeError("no such node yet")
        return f"the node at {address}"

    assert patient(ask)("here") == "the node at here"


def test_a_node_that_never_comes_is_given_up() -> None:
    def ask() -> None:
        raise RuntimeError("no such node")

    with pytest.raises(RuntimeError, match="no such node"):
        patient(ask, wait_s=0.0)()


def begun(raylet: Raylet, logs: Path, process_type: str, code: str) -> list[str]:
    """Have a process begun as Ray does it; return the command it got, once it has ended."""
    commands: list[list[str]] = []

    def begin(command: list[str], *_: Any, **__: Any) -> SimpleNamespace:
        commands.append(command)
        process = subprocess.Popen([sys.executable, "-c", code])
        process.wait(10)
        return SimpleNamespace(process=process)

    raylet.begun_by(begin)(["it", f"--log_dir={logs}"], process_type, fate_share=False)
    return commands[0]


def nothing_there() -> None:
    raise RuntimeError("no such node yet")


def test_a_raylet_is_told_the_port_that_ray_keeps_back(tmp_path: Path) -> None:
    raylet = Raylet(["start", LISTEN_PORT, "20123"])
    as_given = ["it", f"--log_dir={tmp_path}"]
    assert begun(raylet, tmp_path, "gcs_server", "pass") == as_given
    assert begun(raylet, tmp_path, "raylet", "pass") == [
        *as_given,
        "--dashboard_agent_listen_port=20123",
    ]


def test_a_dead_raylet_is_not_waited_for_and_its_words_are_told(tmp_path: Path) -> None:
    raylet = Raylet(["start"])
    begun(raylet, tmp_path, "gcs_server", "raise SystemExit(1)")
    raylet.refuse_dead()  # another's end is not the raylet's
    begun(raylet, tmp_path, "raylet", "raise SystemExit(3)")
    with pytest.raises(RayletDied, match=r"ended with 3: it left no words in"):
        patient(nothing_there, refuse=raylet.refuse_dead)()
    (tmp_path / "raylet.err").write_text(
        "Check failed: no port\n*** StackTrace Information ***\n0 x"
    )
    with pytest.raises(RayletDied, match=r"ended with 3: Check failed: no port$"):
        patient(nothing_there, refuse=raylet.refuse_dead)()
