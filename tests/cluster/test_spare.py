"""A spare has done everything that a cold start spends its time on."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.starts import Start
from cluster.launching import RayLauncher
from cluster.owner import spare_cards, spare_file
from cluster.placement import Order, Placed, Where, begin_once
from cluster.processes import ProcessName, gone, lives, name_of, write_file
from cluster.settings import load
from engine.errors import FailedDependency
from kernels.ladder import LADDER

ROOT = Path(__file__).resolve().parents[2]

PREPARED = """
import json, sys
from cluster.owner import warm_process
from cluster.settings import Settings
from engine import pricing
from engine.shard import Shard, ShardSettings

warm_process(Settings())
compiled = pricing.compiled_shapes()
Shard(ShardSettings(shard=1, generation=1)).warm()
print(json.dumps({
    "compiled": compiled,
    "ladder": len(pricing.LADDER),
    "compiled_later": pricing.compiled_shapes() - compiled,
    "pandas": "pandas" in sys.modules,
}))
"""


def test_after_a_spare_was_prepared_no_shard_compiles_or_imports_pandas() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PREPARED], cwd=ROOT, capture_output=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["compiled"] == found["ladder"]
    assert found["compiled_later"] == 0
    assert not found["pandas"]


WAITING = """
import json, sys
import cluster.owner
from cluster.owner import OwnerProcess, spare_cards
from cluster.settings import load
from engine import learning

cluster.owner.WARM_LEARNING_AFTER_S = 0.5  # test_owner.py holds it to its twenty seconds
settings = load({"folder": sys.argv[1]}, environment={})
spare = OwnerProcess(settings.model_dump_json(), "spare-it")
spare.prepare()
warming = spare._warming
spare._warm_learning()  # as an owner does once it is live
cards = list(spare_cards(settings.run_folder))
print(json.dumps({"cards": cards, "alike": spare._warming is warming}))
warming.join()
print(json.dumps(learning.compiled_shapes()))
"""


def test_a_spare_compiles_what_learning_needs_while_it_waits(tmp_path: Path) -> None:
    """A policy may switch learning on in an owner's first microbatch."""
    done = subprocess.run(
        [sys.executable, "-c", WAITING, str(tmp_path / "data")],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    prepared, compiled = (json.loads(line) for line in done.stdout.splitlines())
    assert prepared == {"cards": ["spare-it"], "alike": True}
    assert compiled == 3 * len(LADDER)


async def test_a_supervisor_that_begins_anew_ends_the_spares_it_finds(tmp_path: Path) -> None:
    settings = load({"folder": str(tmp_path)})
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    process = name_of(left.pid)
    assert process is not None
    write_file(spare_file(settings.run_folder, "spare-left"), process)
    write_file(spare_file(settings.run_folder, "spare-gone"), ProcessName(left.pid, 1))
    launcher = RayLauncher(settings, tmp_path / "settings.json", None)  # type: ignore[arg-type]
    launcher.clear_spares()
    left.wait(30)
    assert not lives(process)
    assert spare_cards(settings.run_folder) == {}
    assert not launcher.has_spare()


@pytest.fixture
def spare() -> Iterator[ProcessName]:
    """Return a process that stands for a spare."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    process = name_of(child.pid)
    assert process is not None
    yield process
    child.kill()
    child.wait()


START = Start(shard=0, number=7, owner=b"o" * 16)


def test_a_start_is_begun_anew_only_when_its_spare_is_gone(spare: ProcessName) -> None:
    """A spare that answered too late has begun it, and two of one name are told apart by nobody."""
    order = Order(spare="spare-1", spare_process=spare, start=START)
    assert begin_once(order, lambda: {"pid": 1}, lambda: {"pid": 2}) == {"pid": 1}
    assert lives(spare)

    def anew() -> Where:
        assert not lives(spare)
        return {"pid": 2}

    assert begin_once(order, lambda: None, anew) == {"pid": 2}


async def test_a_spare_goes_with_the_start_that_was_given_up(
    tmp_path: Path, spare: ProcessName, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load({"folder": str(tmp_path)})
    launcher = RayLauncher(settings, tmp_path / "settings.json", None)  # type: ignore[arg-type]
    orders: list[Order] = []

    async def answer(order: Order) -> Placed:
        orders.append(order)
        if order.start is None:
            return Placed(name=order.spare, pid=spare.pid)
        raise FailedDependency("Ray did not answer")

    monkeypatch.setattr(launcher, "_order", answer)
    await launcher.prepare()
    with pytest.raises(FailedDependency):
        await launcher.launch(START)
    assert orders[-1].spare_process == spare
    await gone(spare)
    assert not launcher.has_spare()


@pytest.mark.parametrize("name", ["pandas", "pandas.core"])
def test_only_pandas_is_missing(name: str) -> None:
    code = (
        "import sys\nfrom cluster.owner import do_without_pandas\ndo_without_pandas()\n"
        "do_without_pandas()\nimport pyarrow, numpy\n"
        f"try:\n    import {name}\nexcept ModuleNotFoundError:\n    print(len(sys.meta_path))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.strip().isdigit(), "it was imported"
