"""The shape of the code base: which way imports run, what is pure, and what never appears.

Everything here reads source text with the standard library. To change the shape, change a table
below in the same commit, and say why.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

MAY_IMPORT = {
    "kernels": set(),
    "engine": {"kernels"},
    "persistence": {"engine", "kernels"},
    "training": {"persistence", "engine", "kernels"},
    "actors": {"persistence", "engine", "kernels"},
    "gateway": {"actors", "persistence", "engine", "kernels"},
    "cluster": {"gateway", "actors", "training", "persistence", "engine", "kernels"},
    "perf": {
        *("cluster", "gateway", "actors", "training", "persistence", "engine", "kernels"),
        "repricer",  # a claim about the documented surface is measured through it
    },
    "repricer": {"engine", "kernels"},  # the documented surface: what drives a shard, no more
}
"""Which of our packages each of them may import. None imports perf, and none imports tests."""

OURS = {*MAY_IMPORT, "tests"}

IMPORTED_AS = {"xgboost": "xgboost_cpu"}
"""What is imported by another name than its distribution's, which is told."""

PURE = ("kernels", "engine")
IMPURE_MODULES = {
    *("asyncio", "concurrent", "multiprocessing", "signal", "subprocess", "threading"),
    *("datetime", "time", "random", "secrets", "uuid"),
    *("io", "os", "pathlib", "shutil", "socket", "sqlite3", "tempfile", "urllib", "http"),
    *("logging", "ray", "structlog", "warnings"),
}
"""Clock, chance, files, sockets, environment and log: what the world does to a program."""

PICKLES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}

CATCHES_ALL = {"Exception", "BaseException"}
SWALLOWERS = {
    "cluster/__main__.py": "the top of a command: it says what went wrong and exits non-zero",
    "cluster/owner.py": "the top of an owner's process: it logs, leaves word of its end, and dies",
    "gateway/route.py": "the top of a request: it logs, and the caller learns only a trace id",
    "tests/sim/world.py": "the machine under the actors: an unforeseen end is a violation",
}
"""Files outside actors that may swallow everything, and why."""


def sources(package: str) -> Iterator[tuple[str, ast.Module]]:
    """Give the path and the syntax tree of every file of a package, or of a single module."""
    module = ROOT / f"{package}.py"
    paths = [module] if module.is_file() else sorted((ROOT / package).rglob("*.py"))
    for path in paths:
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(), str(path))


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Give the line and the full name of everything a file imports, wherever in it that stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            # A relative import has no name to check, so it gets one that is nobody's.
            yield node.lineno, "." * node.level + (node.module or "")


def top(name: str) -> str:
    """Return the first part of a dotted name."""
    return name.partition(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    allowed = MAY_IMPORT[package] | {package}
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in sources(package)
        for line, name in imported(tree)
        if top(name) in OURS and top(name) not in allowed
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("package", sorted(OURS))
def test_imports_are_absolute(package: str) -> None:
    """A relative import would slip through every other check here."""
    wrong = [
        f"{path}:{line}"
        for path, tree in sources(package)
        for line, name in imported(tree)
        if name.startswith(".")
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("package", PURE)
def test_the_core_imports_nothing_impure(package: str) -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in sources(package)
        for line, name in imported(tree)
        if top(name) in IMPURE_MODULES
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("package", PURE)
def test_the_core_neither_waits_nor_opens_nor_draws(package: str) -> None:
    """What needs no import: coroutines, built-in files, and the array libraries' random numbers."""
    wrong = [
        f"{path}:{node.lineno} {found}"
        for path, tree in sources(package)
        for node in ast.walk(tree)
        if (found := impure_act(node))
    ]
    assert not wrong, wrong


def impure_act(node: ast.AST) -> str:
    """Name what a node does to the world, or nothing."""
    if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
        return "waits"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return f"calls {node.func.id}" if node.func.id in {"open", "print", "input"} else ""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        arrays = node.value.id in {"np", "numpy", "jnp", "jax"}
        return "draws random numbers" if arrays and node.attr == "random" else ""
    return ""


def test_kernels_know_jax_and_numpy_only() -> None:
    allowed = {"jax", "numpy", "kernels"} | sys.stdlib_module_names
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in sources("kernels")
        for line, name in imported(tree)
        if top(name) not in allowed
    ]
    assert not wrong, wrong


def test_the_oracle_knows_nothing_of_ours() -> None:
    """It computes every price a second time, so a mistake it shares with us is one it cannot see.

    Its package is imported before it, and so has nothing of ours to say, either.
    """
    files = [*sources("perf/oracle"), *sources("perf/__init__")]
    assert len(files) == 2
    allowed = {"numpy"} | sys.stdlib_module_names
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in files
        for line, name in imported(tree)
        if top(name) not in allowed
    ]
    assert not wrong, wrong


def test_the_extra_of_perf_names_what_its_commands_import() -> None:
    """Who installs ``repricer[perf]`` can start each of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["perf"]]
    installed = {re.split(r"[\[>=<]", each)[0].replace("-", "_") for each in asked}
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in sources("perf")
        if not path.startswith("perf/peers/")  # in environments of their own
        for line, name in imported(tree)
        if IMPORTED_AS.get(top(name), top(name)) not in installed | sys.stdlib_module_names | OURS
    ]
    assert not wrong, wrong


WITHOUT_JAX = (
    *("gateway.app", "cluster.serving", "cluster.roles", "cluster.placement"),
    *("cluster.launching", "cluster.__main__"),
)
"""What the processes of `repricer up` that own no shard begin with, and every verb."""


def test_only_who_decides_loads_jax() -> None:
    """A gateway reads and writes bytes; jax would cost it 140 MB and seconds of start.

    So it would the supervisor, the followers, the child that speaks to Ray, and each command line.
    """
    program = (
        "import importlib, sys\n"
        f"for name in {WITHOUT_JAX!r}:\n"
        "    importlib.import_module(name)\n"
        "    found = {'jax', 'jaxlib'} & set(sys.modules)\n"
        "    assert not found, f'{name} loads {found}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_fake_takes_the_place_of_an_actor_or_a_store() -> None:
    """Tests construct the real classes over real or embedded backends; they never redefine one."""
    real = {
        node.name
        for package in ("actors", "persistence")
        for _, tree in sources(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    wrong = [
        f"{path}:{node.lineno} class {node.name}"
        for path, tree in sources("tests")
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and real & {node.name, *(ast.unparse(base).rpartition(".")[2] for base in node.bases)}
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("package", sorted(OURS))
def test_only_an_actors_loop_catches_everything(package: str) -> None:
    """One place an actor, which logs and dies; anywhere else a bug would become a silence."""
    wrong = [
        f"{path}: lines {lines}"
        for path, tree in sources(package)
        if path not in SWALLOWERS
        and len(lines := list(swallows(tree))) > (1 if package == "actors" else 0)
    ]
    assert not wrong, wrong


def swallows(tree: ast.Module) -> Iterator[int]:
    """Give the lines where a file catches or suppresses every exception.

    A handler that ends with a bare ``raise`` tidies up and swallows nothing.
    """
    for node in ast.walk(tree):
        caught: list[ast.expr] = []
        if isinstance(node, ast.ExceptHandler):
            if isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None:
                continue
            if node.type is None:
                yield node.lineno
            elif isinstance(node.type, ast.Tuple):
                caught = node.type.elts
            else:
                caught = [node.type]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            caught = node.args
        if any(isinstance(each, ast.Name) and each.id in CATCHES_ALL for each in caught):
            yield node.lineno


@pytest.mark.parametrize("package", sorted(OURS))
def test_nothing_is_pickled(package: str) -> None:
    """Reading a pickle runs whatever its writer wished."""
    wrong = [
        f"{path}:{line} imports {name}"
        for path, tree in sources(package)
        for line, name in imported(tree)
        if top(name) in PICKLES
    ]
    assert not wrong, wrong


def test_the_wheel_holds_our_packages_and_no_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    shipped = {each for each in wheel["only-include"] if top(each.replace("/", ".")) != "docs"}
    assert shipped == (set(MAY_IMPORT) - {"repricer"}) | {"config", "repricer.py"}


def test_the_wheel_holds_the_examples_that_commands_of_perf_ask_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    asked = {
        f"docs/examples/{node.args[0].value}"
        for _, tree in sources("perf")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "example"
        and isinstance(node.args[0], ast.Constant)
    }
    assert asked == {each for each in wheel["only-include"] if each.startswith("docs/")}
    assert wheel["sources"] == {"docs/examples": "perf/examples"}
    assert all((ROOT / path).is_file() for path in asked)


def test_the_project_and_the_lock_ask_for_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = (ROOT / "requirements" / "runtime.in").read_text().splitlines()
    asked = {line.strip() for line in lines if line and not line.startswith("#")}
    assert set(project["project"]["dependencies"]) == asked


# --- what no file of the repository may say -------------------------------------------------------

MACHINE_PATH = re.compile(r"(?<![\w.$})\]/*-])/(?:root|home|Users|work|workspace)/[\w.]")
"""A path that exists on the machine of whoever wrote the line, and hardly anywhere else."""

NAMES_A_REGISTRY = re.compile(
    r"https?://|--(?:extra-)?index-url|--find-links|--trusted-host|registry\s*=", re.IGNORECASE
)

LOCKED = {"requirements", "servers", "peers"}
"""The folders that hold locks."""

BINARY = {".arrow", ".bin", ".ico", ".parquet", ".png", ".jpg", ".woff2", ".gz", ".ubj"}


def repository_files() -> list[Path]:
    """Return every file that is or would be committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    wrong = []
    for path in repository_files():
        if path.suffix in BINARY:
            continue
        text = path.read_text(errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if MACHINE_PATH.search(line) or f"{ROOT}/" in line:
                wrong.append(f"{path.relative_to(ROOT)}:{number}")
    assert not wrong, wrong


def test_no_lock_names_a_registry() -> None:
    """Whoever installs chooses the registry; the hashes say whether it served the right thing."""
    locks = [
        path
        for path in repository_files()
        if path.suffix in {".lock", ".sha256"}
        or (path.suffix in {".in", ".txt"} and path.parent.name in LOCKED)
    ]
    assert {path.name for path in locks} >= {"bootstrap.txt", "runtime.txt", "dev.txt", "jre.txt"}
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in locks
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if NAMES_A_REGISTRY.search(line)
    ]
    poms = [path for path in repository_files() if path.match("pom*.xml")]
    wrong += [
        str(path.relative_to(ROOT))
        for path in poms
        if re.search(r"<(?:plugin)?repositor|<url>", path.read_text(), re.IGNORECASE)
    ]
    assert not wrong, wrong


def test_every_requirement_has_a_hash() -> None:
    """The installers insist on it; this says so before they do."""
    for name in ("bootstrap", "runtime", "dev"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        entries = re.split(r"\n(?=[A-Za-z0-9])", text)
        wrong = [entry.split()[0] for entry in entries[1:] if "--hash=sha256:" not in entry]
        assert not wrong, wrong
