"""Ray's node may come late: it is asked for again, but not for ever."""

import pytest

from cluster.ray_start import patient


def test_a_node_that_comes_late_is_found() -> None:
    answers = iter([False, False, True])

    def ask(address: str) -> str:
        if not next(answers):
            raise RuntimeError("no such node yet")
        return f"the node at {address}"

    assert patient(ask)("here") == "the node at here"


def test_a_node_that_never_comes_is_given_up() -> None:
    def ask() -> None:
        raise RuntimeError("no such node")

    with pytest.raises(RuntimeError, match="no such node"):
        patient(ask, wait_s=0.0)()
