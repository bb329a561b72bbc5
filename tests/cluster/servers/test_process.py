"""No server outlives whoever started it, and none dies before."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cluster.servers.ports import free_ports
from cluster.servers.process import NotReady, Process, ServerFailed
from tests.servers import gone

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]

STARTS_A_SLEEPER = """
import sys, time
from pathlib import Path
from cluster.servers.process import Process
process = Process("sleeper", Path(sys.argv[1]))
process.start([sys.executable, "-c", "import time; time.sleep(600)"], lambda: None)
print(process.pid, flush=True)
time.sleep(600 if sys.argv[2] == "wait" else 0)
"""


@pytest.fixture
def parent_of_a_sleeper(tmp_path: Path, request: pytest.FixtureRequest) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STARTS_A_SLEEPER, str(tmp_path / "log"), request.param],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("parent_of_a_sleeper", ["wait"], indirect=True)
def test_a_server_dies_with_a_killed_parent(parent_of_a_sleeper: subprocess.Popen[str]) -> None:
    assert parent_of_a_sleeper.stdout is not None
    pid = int(parent_of_a_sleeper.stdout.readline())
    parent_of_a_sleeper.kill()
    parent_of_a_sleeper.communicate()
    assert gone(pid)


@pytest.mark.parametrize("parent_of_a_sleeper", ["leave"], indirect=True)
def test_a_server_is_stopped_when_its_parent_leaves(
    parent_of_a_sleeper: subprocess.Popen[str],
) -> None:
    said, _ = parent_of_a_sleeper.communicate(timeout=20)
    assert parent_of_a_sleeper.returncode == 0
    assert gone(int(said), wait_s=0.5)


def test_a_server_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    """The kernel's own signal for a parent's death counts the thread; ours must not."""
    process = Process("sleeper", tmp_path / "log")
    thread = threading.Thread(target=process.start, args=(SLEEPER, lambda: None))
    thread.start()
    thread.join()
    time.sleep(0.3)
    assert process.running
    process.stop()


def test_a_server_dies_with_its_launcher(tmp_path: Path) -> None:
    process = Process("sleeper", tmp_path / "log")
    process.start(SLEEPER, lambda: None)
    pid = process.pid
    launcher = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(launcher, signal.SIGKILL)
    assert gone(pid)


def test_a_failed_start_shows_the_log(tmp_path: Path) -> None:
    def never() -> None:
        raise NotReady("not yet")

    process = Process("talker", tmp_path / "log")
    with pytest.raises(ServerFailed, match="the disk is made of cheese"):
        process.start(
            [sys.executable, "-c", "print('the disk is made of cheese')"], never, wait_s=20
        )
    assert not process.running


def test_a_server_that_never_answers_is_killed(tmp_path: Path) -> None:
    pids: list[int] = []
    process = Process("sleeper", tmp_path / "log")

    def never() -> None:
        pids.append(process.pid)
        raise NotReady("not yet")

    with pytest.raises(ServerFailed, match="did not answer"):
        process.start(SLEEPER, never, wait_s=0.3)
    assert gone(pids[0])


def test_a_server_deaf_to_the_stop_is_killed(tmp_path: Path) -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "open('deaf', 'w').close(); time.sleep(600)"
    )

    def ready() -> None:
        if not (tmp_path / "deaf").exists():
            raise NotReady("still hears")

    process = Process("deaf", tmp_path / "log")
    process.start([sys.executable, "-c", deaf], ready)
    pid = process.pid
    process.stop(wait_s=0.3)
    assert gone(pid)


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    process = Process("nothing", tmp_path / "log")

    def never() -> None:
        raise NotReady("not yet")

    with pytest.raises(ServerFailed, match="no-such-program"):
        process.start(["no-such-program"], never, wait_s=20)


def test_ports_are_different_and_never_lent_to_clients() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert max(ports) < lent_from() or lent_from() < 21_000
    assert min(ports) > 19_999, "Ray's workers take theirs up to there"


def lent_from() -> int:
    """Return the lowest port that the kernel lends to clients."""
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
