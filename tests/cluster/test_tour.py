"""docs/tour.sh: every verb once, its output checked."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tour_runs_to_its_end() -> None:
    environment = {**os.environ, "REPRICER": f"{sys.executable} -m cluster"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        ["sh", str(ROOT / "docs" / "tour.sh")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout.strip().splitlines()[-1]) == {"tour": "done"}
