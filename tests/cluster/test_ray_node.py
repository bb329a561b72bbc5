"""Where an engine's compiled kernels lie."""

from pathlib import Path

import pytest

from cluster.ray_node import KERNELS_VARIABLE, compiled_kernels, ray_environment
from cluster.settings import load


def test_kernels_lie_in_the_data_folder_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load({"folder": str(tmp_path / "data")}, environment={})
    monkeypatch.delenv(KERNELS_VARIABLE)
    assert compiled_kernels(settings)[KERNELS_VARIABLE] == str(tmp_path / "data" / "kernels")
    monkeypatch.setenv(KERNELS_VARIABLE, "elsewhere")
    assert compiled_kernels(settings)[KERNELS_VARIABLE] == "elsewhere"
    assert ray_environment(settings)[KERNELS_VARIABLE] == "elsewhere"
