"""Whatever the system refuses meanwhile, the processes are tended, and in the end all gone."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.starts import Start
from cluster import tree as of_tree
from cluster.owner import OwnerCard, owner_card_file, owner_cards, spare_cards, spare_file
from cluster.processes import own_name, write_file
from cluster.ray_node import RayNode
from cluster.settings import load
from cluster.tree import ROLES, Child, Tree

LASTS = (sys.executable, "-c", "import time; time.sleep(60)")


async def no_ray() -> None:
    """Stand in for the tending of a node that was never started."""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Return a tree whose processes only last, and that has no Ray."""
    tree = Tree(load({"folder": str(tmp_path)}, environment={}))
    (tmp_path / "logs").mkdir()
    tree._children = {role: Child(role, LASTS, dict(os.environ)) for role in ROLES}
    monkeypatch.setattr(tree, "_tend_ray", no_ray)
    return tree


async def until(holds: Callable[[], bool]) -> None:
    """Return when something holds, and raise if it does not soon."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.02)


def running(tree: Tree) -> list[str]:
    """Return the roles that have a process."""
    return [role for role, child in tree._children.items() if child.pid is not None]


async def test_a_fork_that_is_refused_is_tried_again(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And meanwhile it is in nobody else's way."""
    fork, refused = subprocess.Popen, ["twice", "once"]

    def popen(*arguments: Any, **words: Any) -> Any:
        if refused and words["stdout"].name.endswith("supervisor.out"):
            refused.pop()
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return fork(*arguments, **words)

    monkeypatch.setattr(subprocess, "Popen", popen)
    tending = tree._tending = asyncio.ensure_future(tree._tend())
    await until(lambda: bool(running(tree)))
    assert running(tree) == ["gateway", "followers"]
    await until(lambda: len(running(tree)) == 3)
    assert not refused
    assert not tending.done()
    await tree.stop()
    assert running(tree) == []


async def test_who_replaces_ray_and_fails_is_followed_by_another(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = 0

    async def tend_ray() -> None:
        nonlocal passes
        passes += 1
        await Tree._tend_ray(tree)

    async def refused() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tree, "_tend_ray", tend_ray)
    monkeypatch.setattr(of_tree, "ray_gone", lambda node: "head" if passes == 1 else "")
    monkeypatch.setattr(tree, "_replace_ray", lambda gone: refused())
    tree.node = RayNode(address="", dashboard="", token_file="", folder="")
    tree._children = {}
    tending = tree._tending = asyncio.ensure_future(tree._tend())
    await until(lambda: passes == 3)
    assert not tending.done()
    assert tree._replacing is None
    await tree.stop()


async def test_what_fails_at_the_end_keeps_nothing_else_from_its_end(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    async def failed() -> None:
        raise BlockingIOError(11, "it ended long ago")

    async def drain() -> None:
        done.append("drained")
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(tree, "_drain_owners", drain)
    monkeypatch.setattr(tree, "_clear", lambda: done.append("cleared"))
    for role, child in tree._children.items():
        child.tend(tree._output(role))
    tree._tending = asyncio.ensure_future(failed())
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="Too many open files") as raised:
        await tree.stop()
    assert "it ended long ago" in str(raised.value.__context__)
    assert done == ["drained", "cleared"]
    assert running(tree) == []


async def test_an_end_that_is_interrupted_still_clears(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared = asyncio.Event()
    draining = asyncio.Event()

    async def drain() -> None:
        draining.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(tree, "_drain_owners", drain)
    monkeypatch.setattr(tree, "_clear", cleared.set)
    stopping = asyncio.ensure_future(tree.stop())
    await draining.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert cleared.is_set()


def test_a_card_that_went_after_it_was_listed_is_none(tmp_path: Path) -> None:
    """Whoever ends takes it away; the listing was true a moment ago."""
    start = Start(shard=0, number=1, owner=bytes(16))
    card = OwnerCard(start=start, process=own_name(), address="")
    write_file(owner_card_file(tmp_path, start.name), card)
    write_file(spare_file(tmp_path, "spare-1"), own_name())
    for gone in (owner_card_file(tmp_path, "shard-000-s0000"), spare_file(tmp_path, "spare-0")):
        gone.symlink_to(tmp_path / "nowhere")  # listed like any other, and not to be read
    assert owner_cards(tmp_path) == [card]
    assert spare_cards(tmp_path) == {"spare-1": own_name()}
