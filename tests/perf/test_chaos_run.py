"""``repricer chaos`` for real and in small: a storm whose rules hold, and an interrupt in one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "cluster", "chaos", *words]


def site_of(told: str) -> str:
    """Return the folder that a run said it works in."""
    found = re.search(r"proxies in (\S+)", told)
    assert found is not None, told
    return found[1]


def left_of(site: str) -> list[str]:
    """Return the processes and mounts that still speak of a run's folder."""
    left = [line for line in Path("/proc/mounts").read_text().splitlines() if site in line]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if site.encode() in words:
                    left.append(f"{entry.name}: {words[:200]!r}")
    return left


def test_a_small_storm_breaks_no_rule(tmp_path: Path) -> None:
    report = tmp_path / "chaos.html"
    words = command("--seed", "2132", "--faults", "6", "--pace", "4", "--report", str(report))
    done = subprocess.run([*words, "--json"], cwd=ROOT, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, (found, done.stderr[-4000:])
    assert found["verdict"] == "holds"
    assert sum(found["fired"].values()) == 6
    for judged in ("reads", "commands", "stream messages", "final prices"):
        assert found["judged"][judged] > 0, judged
    assert found["replayed"] > 0
    assert found["prices_stored"] > 0
    assert "<svg" in report.read_text()
    site = site_of(done.stderr)
    assert not Path(site).exists()
    assert left_of(site) == []


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    told = tmp_path / "told"
    with told.open("wb") as out:
        running = subprocess.Popen(
            command("--seed", "2132", "--minutes", "9", "--pace", "2"), cwd=ROOT, stderr=out
        )
        deadline = time.monotonic() + 240
        while "the storm begins" not in told.read_text() and time.monotonic() < deadline:
            assert running.poll() is None, told.read_text()
            time.sleep(0.5)
        time.sleep(4)  # some faults are in force
        os.kill(running.pid, signal.SIGINT)
        assert running.wait(180) == 1, told.read_text()
    site = site_of(told.read_text())
    assert not Path(site).exists()
    assert left_of(site) == []
