"""An owner that ends is gone, whatever befell it."""

import asyncio
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import msgspec
import pytest

from actors.starts import Start
from cluster.launching import living_owners
from cluster.owner import (
    WARM_LEARNING_AFTER_S,
    End,
    OwnerCard,
    OwnerProcess,
    end_of,
    owner_card_file,
)
from cluster.processes import own_name, write_file
from cluster.settings import load
from engine import learning
from engine.errors import FailedDependency, StaleEpoch
from kernels.ladder import LADDER

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


def test_a_log_that_does_not_answer_is_told_from_a_death_that_nobody_explains() -> None:
    """The supervisor blames a shard for the one and not for the other."""
    assert end_of(FailedDependency("kafka did not answer")).end == "no_answer"
    assert end_of(StaleEpoch(0, 1, 2)).end == "fenced"
    assert end_of(ValueError("a bug")) == End(end=None, detail="ValueError: a bug")


async def test_a_standby_that_takes_over_keeps_on_its_card_whom_it_was_told_to_pardon(
    tmp_path: Path,
) -> None:
    """A supervisor that begins anew knows of the pardons only what living owners' cards say."""
    settings = load({"folder": str(tmp_path / "data")}, environment={})
    process = OwnerProcess(settings.model_dump_json(), "it")
    process._start = Start(shard=0, number=7, owner=bytes(16), pardoned=(b"a" * 16,))
    told: list[bytes] = []

    async def take_over(pardoned: Iterable[bytes]) -> None:
        told.extend(pardoned)

    actor = cast(Any, SimpleNamespace(take_over=take_over, phase="waiting"))
    arguments = {"pardoned": [(b"b" * 16).hex()]}
    await process._take_over(actor, "127.0.0.1:1", arguments)
    assert told == [b"a" * 16, b"b" * 16]
    (living,) = living_owners(settings.run_folder)
    assert living.start == msgspec.structs.replace(process._start, pardoned=tuple(told))
    assert living.address == "127.0.0.1:1"


def test_living_owners_come_in_the_order_of_their_starts(tmp_path: Path) -> None:
    """The latest knows most of whom to pardon, and names sort by their digits."""
    for number in (10_000, 9_999):
        start = Start(shard=0, number=number, owner=bytes(16))
        card = OwnerCard(start=start, process=own_name(), address="127.0.0.1:1")
        write_file(owner_card_file(tmp_path, start.name), card)
    assert [living.start.number for living in living_owners(tmp_path)] == [9_999, 10_000]


async def test_a_full_disk_lets_a_standby_take_over_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")  # no folder can be made where a file stands
    settings = load({"folder": str(tmp_path)}, environment={})
    process = OwnerProcess(settings.model_dump_json(), "it")
    process._start = Start(shard=0, number=7, owner=bytes(16))
    told: list[bytes] = []

    async def take_over(pardoned: Iterable[bytes]) -> None:
        told.extend(pardoned)

    actor = cast(Any, SimpleNamespace(take_over=take_over, phase="waiting"))
    arguments = {"pardoned": [(b"b" * 16).hex()]}
    assert await process._take_over(actor, "127.0.0.1:1", arguments) == {"phase": "waiting"}
    assert told == [b"b" * 16]


async def test_what_learning_needs_is_compiled_once_an_owner_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before, as somebody waits for it; nor first when a retailer's learning is switched on.

    Nor at once: twenty seconds later, of which this test waits a half.
    """
    assert WARM_LEARNING_AFTER_S == 20
    monkeypatch.setattr("cluster.owner.WARM_LEARNING_AFTER_S", 0.5)
    settings = load({"folder": str(tmp_path / "data")}, environment={})
    process = OwnerProcess(settings.model_dump_json(), "it")
    process._start = Start(shard=0, number=1, owner=bytes(16))
    actor = cast(Any, SimpleNamespace(ready=asyncio.Event()))
    jax.clear_caches()
    warming = asyncio.create_task(process._warm_once_ready(actor))
    await asyncio.sleep(0.05)
    assert process._warming is None
    actor.ready.set()
    await warming
    assert process._warming is not None
    assert process._warming.interval == 0.5
    process._warming.join(120)
    assert learning.compiled_shapes() == 3 * len(LADDER)
    assert process._warming.daemon, "who ends does not wait for it"
