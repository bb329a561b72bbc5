"""The example of the documentation runs as an outsider would run it, and finds what is true."""

import ast
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "market.py"


def test_it_uses_nothing_but_the_documented_surface() -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(EXAMPLE.read_text())):
        if isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
    assert imported - set(sys.stdlib_module_names) == {"repricer", "numpy"}


def test_it_drives_a_shard_and_fits_demand(capsys: pytest.CaptureFixture[str]) -> None:
    names = runpy.run_path(str(EXAMPLE))
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert names["profit"][-1] > names["profit"][0], "it earns more than the prices found did"
    found, true = names["demand"].elasticities(), names["elasticity"]
    assert found.names == tuple(names["skus"])
    covered = (found.low <= true) & (true <= found.high)
    assert covered.mean() > 0.75
    assert np.corrcoef(found.mean, true)[0, 1] > 0.5
    ahead = names["ahead"]
    assert (ahead.low <= ahead.units).all() and (ahead.units <= ahead.high).all()
