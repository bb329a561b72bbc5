"""An owner that ends is gone, whatever befell it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

BEGUN = """
import sys
import msgspec
from actors.starts import Start
from cluster.owner import OwnerProcess
from cluster.settings import load

settings = load({"folder": sys.argv[1]}, environment={})
start = Start(shard=0, number=1, owner=bytes(16))
OwnerProcess(settings.model_dump_json(), "it").begin(msgspec.json.encode(start).decode())
"""


def test_an_owner_that_can_write_nothing_ends_all_the_same(tmp_path: Path) -> None:
    """A disk that is full takes neither its log nor its last words; Ray would keep the process."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("logs", "run"):  # no folder can be made where a file stands
        (folder / name).write_text("")
    done = subprocess.run(
        [sys.executable, "-c", BEGUN, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=25,  # less than what its starter waits for it
    )
    assert done.returncode == 1
    assert "leaves no word" in done.stderr
