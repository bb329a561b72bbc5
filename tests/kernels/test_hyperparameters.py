"""Figures that were chosen stand in one file, each with its reason, and nowhere else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "kernels" / "hyperparameters.py"

PACKAGES = ("kernels", "engine", "training")
"""Those that learn and decide, and may import the file."""

LEARNING = (
    *sorted((ROOT / "kernels").rglob("*.py")),
    *sorted((ROOT / "engine").rglob("*.py")),
    *sorted((ROOT / "training").glob("*.py")),
)
"""Modules that may hold no figure of their own. What is below ``training`` examines the others: its
worlds, goals and rivals' models are no part of what is learnt."""

ELSEWHERE = {
    "kernels/elasticities.py": {"UNKNOWING"},  # stands for no bias at all
    "kernels/kinks.py": {"SDS_MOST", "NATS_MOST"},  # what exponentials bear
    "engine/deltas.py": {"RATE_MIN"},  # a limit of what a delta may say
    "engine/features.py": {"YEAR_MS"},  # a unit
    "engine/legal.py": {"SAME"},  # what arithmetic loses
    "engine/policy.py": {"POSITION_MIN"},  # a limit of what a policy may say
    "engine/pricing.py": {"_PRIOR_PADDING"},  # of rows that nobody reads
    "engine/rivals.py": {"NEAR_RATIO"},  # saves work and changes no answer
    "engine/routing.py": {"EVEN_SHARE_MAX"},  # of keys among shards
    "engine/sales_rows.py": {"NUMBER_MAX"},  # a limit of what a table may hold
    "engine/screening.py": {"HOUR_MS", "SPREAD_UNIT"},  # a unit, and a format
    "engine/slow_sellers.py": {"NORMAL_90"},  # of the normal distribution
}
"""Floats of modules' own that are no hyper-parameters, and why."""


def names_of(node: ast.stmt) -> list[str]:
    """Return the names that a statement assigns to."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return [each.id for of in targets for each in ast.walk(of) if isinstance(each, ast.Name)]


def assigned() -> Iterator[tuple[list[str], ast.stmt | None]]:
    """Give the names of each assignment in the file, and the statement after it."""
    body = ast.parse(FILE.read_text()).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if names := names_of(node):
            yield names, after


def test_each_has_its_reason() -> None:
    without = [
        names
        for names, after in assigned()
        if not (
            isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
            and after.value.value.strip()
        )
    ]
    assert not without, without


def test_each_is_there_once_and_used_elsewhere() -> None:
    """What nobody imports decides nothing, and reads as if it did."""
    names = [name for of, _ in assigned() for name in of]
    assert len(names) == len(set(names))
    imported = {
        alias.name
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "kernels.hyperparameters"
        for alias in node.names
    }
    assert imported == set(names)


def own_floats(path: Path) -> set[str]:
    """Return the upper-case names of a module to which a float, or some, are assigned."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        names, value = names_of(node), getattr(node, "value", None)
        one_each = isinstance(value, ast.Tuple) and len(value.elts) == len(names)
        values = value.elts if one_each else [value] * len(names)
        found |= {name for name, of in zip(names, values, strict=True) if has_float(of)}
    return {name for name in found if name.isupper()}


def has_float(of: ast.expr | None) -> bool:
    """Whether a float stands anywhere in an expression."""
    parts = ast.walk(of) if of is not None else ()
    return any(isinstance(each, ast.Constant) and type(each.value) is float for each in parts)


@pytest.mark.parametrize("path", LEARNING, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_has_figures_of_its_own(path: Path) -> None:
    """A new one belongs in the file. A whole number may be a limit or a size: people look at it."""
    if path != FILE:
        assert own_floats(path) == ELSEWHERE.get(str(path.relative_to(ROOT)), set())


def test_every_exception_is_of_a_module_that_is_there() -> None:
    assert set(ELSEWHERE) <= {str(path.relative_to(ROOT)) for path in LEARNING}


def test_a_figure_of_a_modules_own_is_found(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("A = 1\nB, C = 2, 0.5\nD: float = -1.0\n_E = f([0.5])\nf = 0.5\n")
    assert own_floats(path) == {"C", "D", "_E"}
