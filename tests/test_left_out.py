"""A run that leaves a test out fails, however it was left out."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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


NOTHING = "nothing"
Runs = dict[str, "Future[subprocess.CompletedProcess[str]]"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Return every run by the way in which it leaves a test out; two at a time, they take long."""
    with ThreadPoolExecutor(2) as pool:
        yield {
            way: pool.submit(run, tmp_path_factory.mktemp("run"), body)
            for way, body in (WAYS | {NOTHING: "def test_it(): pass"}).items()
        }


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_leaves_a_test_out_fails(runs: Runs, way: str) -> None:
    done = runs[way].result()
    assert done.returncode == 1, done.stdout
    assert "left out" in done.stdout
    assert "1 passed" in done.stdout.splitlines()[-1], "pytest's own summary stands last"


def test_a_run_that_leaves_nothing_out_passes(runs: Runs) -> None:
    done = runs[NOTHING].result()
    assert done.returncode == 0, done.stdout
