"""What stays is taken out of the collector's sight, and what has become garbage is not kept."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from actors.pauses import Settling, settle


class Node:
    """Something that can stand in a cycle."""

    other: "Node"


@pytest.fixture(autouse=True)
def _thaw() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


def cycle() -> Node:
    one, other = Node(), Node()
    one.other, other.other = other, one
    return one


def test_what_lives_is_out_of_sight_and_garbage_is_gone() -> None:
    kept, gone = cycle(), weakref.ref(cycle())
    settle()
    assert gone() is None
    assert gc.get_freeze_count() > 0
    assert not any(each is kept for each in gc.get_objects())


def test_what_comes_later_is_collected_as_before() -> None:
    settle()
    gone = weakref.ref(cycle())
    gc.collect()
    assert gone() is None


def test_it_settles_when_what_is_kept_has_grown_and_not_each_time() -> None:
    settling = Settling(least=100)
    settling.note(99)
    assert gc.get_freeze_count() == 0
    settling.note(100)
    assert gc.get_freeze_count() > 0
    gc.unfreeze()
    settling.note(124)
    assert gc.get_freeze_count() == 0
    settling.note(125)
    assert gc.get_freeze_count() > 0
