"""What the hostile row does to its own environment: a patch for its children, and nothing left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perf.hostile import murderous

LOADED = "import sys; print('Patch' in [type(each).__name__ for each in sys.meta_path])"


@pytest.mark.parametrize("before", [None, "/somewhere"])
def test_the_patch_goes_with_the_command(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", before)
    with pytest.raises(KeyError), murderous():
        folder, *others = os.environ["PYTHONPATH"].split(os.pathsep)
        assert others == ([] if before is None else [before])
        said = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, check=True)
        assert said.stdout.split() == [b"True"]
        raise KeyError
    assert os.environ.get("PYTHONPATH") == before
    assert not Path(folder).exists()
