"""The doctor runs on a bare Python and names what is not there."""

import os
import subprocess
import sys
from pathlib import Path

DOCTOR = Path(__file__).parent.parent.parent / "cluster" / "doctor.py"


def consult(path: str) -> subprocess.CompletedProcess[str]:
    """Run the doctor as `make doctor` does, isolated from every installed package."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(DOCTOR)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": path},
    )


def test_it_needs_nothing_but_the_standard_library() -> None:
    done = consult(os.environ["PATH"])
    assert done.stderr == ""
    assert "python" in done.stdout


def test_what_is_not_there_is_named_last(tmp_path: Path) -> None:
    """On an empty path there is no Redis, and no apt to fetch one, whoever asks."""
    done = consult(str(tmp_path))
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith("missing: ")
    assert "redis-server" in last
