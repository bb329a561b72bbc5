"""A run that leaves a test out fails, however it was left out."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

WAYS = {
    "skipped": "@pytest.mark.skip\ndef test_it(): pass",
    "skipped inside": "def test_it(): pytest.skip('no')",
    "skipped module": "pytest.skip('no', allow_module_level=True)",
    "xfailed": "@pytest.mark.xfail\ndef test_it(): assert False",
    "xpassed": "@pytest.mark.xfail\ndef test_it(): pass",
}


def run(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run two tests, one of them ordinary, under the plugin that every test here runs under."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_it.py").write_text(f"import pytest\n{body}\n")
    (folder / "test_good.py").write_text("def test_good(): pass\n")
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.conftest", "--rootdir", str(folder)),
            *("-c", str(folder / "pytest.ini"), str(folder)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_leaves_a_test_out_fails(tmp_path: Path, way: str) -> None:
    done = run(tmp_path, WAYS[way])
    assert done.returncode == 1, done.stdout
    assert "left out" in done.stdout
    assert "1 passed" in done.stdout.splitlines()[-1], "pytest's own summary stands last"


def test_a_run_that_leaves_nothing_out_passes(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_it(): pass")
    assert done.returncode == 0, done.stdout
