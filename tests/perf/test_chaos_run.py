"""``repricer chaos`` for real and in small: a storm whose rules hold, and an interrupt in one."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cluster.ray_node import KERNELS_VARIABLE

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "cluster", "chaos", *words]


@contextmanager
def running(*words: str, told: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run chaos; end it as it wants to be ended, also when the test is interrupted or too late.

    ``subprocess.run`` would kill it, and a process that was killed tidies nothing up. It compiles
    into the folder of its own engine, as everywhere but in our tests: faults befall that, too.
    """
    apart = {name: value for name, value in os.environ.items() if name != KERNELS_VARIABLE}
    with told.open("wb") as out:
        process = subprocess.Popen(
            command(*words), cwd=ROOT, env=apart, stdout=subprocess.PIPE, stderr=out
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(240)
            assert process.stdout is not None
            process.stdout.close()


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
    report, told = tmp_path / "chaos.html", tmp_path / "told"
    words = ("--seed", "2132", "--faults", "6", "--pace", "4", "--report", str(report))
    with running(*words, "--json", told=told) as process:
        out, _ = process.communicate()
    found = json.loads(out.decode().splitlines()[-1])
    # As one text: pytest shortens everything else, and the rule that broke is what matters.
    broken = "\n".join(found.get("violations", [])) or "nothing was judged"
    assert process.returncode == 0, f"{broken}\n{found}\n{told.read_text()[-4000:]}"
    assert found["verdict"] == "holds"
    assert sum(found["fired"].values()) == 6
    for judged in ("reads", "commands", "stream messages", "final prices"):
        assert found["judged"][judged] > 0, judged
    assert found["replayed"] > 0
    assert found["prices_stored"] > 0
    assert found["commands_followed"]["commands"] > 0
    assert found["commands_followed"]["outcomes"] >= found["commands_followed"]["commands"]
    assert sum(sum(each.values()) for each in found["hits"].values()) == 6
    assert "<svg" in report.read_text()
    written = json.loads(report.with_suffix(".json").read_text())
    assert written["hits"] == found["hits"]
    assert set(written["stamp"]["servers"]) == {"broker", "postgres", "questdb", "redis"}
    site = site_of(told.read_text())
    assert "Unclosed" not in told.read_text(), "a client that nobody closed"
    assert not Path(site).exists()
    assert left_of(site) == []


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    told, report = tmp_path / "told", tmp_path / "chaos.html"
    words = ("--seed", "2132", "--minutes", "9", "--pace", "2", "--report", str(report))
    with running(*words, told=told) as process:
        deadline = time.monotonic() + 240
        while "the storm begins" not in told.read_text() and time.monotonic() < deadline:
            assert process.poll() is None, told.read_text()
            time.sleep(0.5)
        time.sleep(4)  # some faults are in force
        process.send_signal(signal.SIGINT)
        while "undoing the faults" not in told.read_text():
            assert process.poll() is None, told.read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)  # whoever is in a hurry presses it twice
        process.send_signal(signal.SIGTERM)
        assert process.wait(180) == 1, told.read_text()
    assert json.loads(report.with_suffix(".json").read_text())["ended"] == "told to end by SIGINT"
    site = site_of(told.read_text())
    assert not Path(site).exists()
    assert left_of(site) == []
