"""Who stands back does so where niceness alone says nothing: between sessions."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.priority import YIELDING, session_stands_back

GROUP = Path("/proc/self/autogroup")

TOLD = """
import os
from pathlib import Path
from cluster.priority import stand_alone, stand_back
{what}()
group = Path("/proc/self/autogroup")
words = group.read_text().split() if group.exists() else []
print(os.getpriority(os.PRIO_PROCESS, 0), int(os.getsid(0) == os.getpid()))
print(words[-1] if words else "none")
"""


def child(what: str, *, session: bool = False, group: int | None = None) -> list[str]:
    """Run a child, perhaps in a session of its own; return niceness, leads, the session's."""
    done = subprocess.run(
        [sys.executable, "-c", TOLD.format(what=what)],
        start_new_session=session,
        process_group=group,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def group_niceness() -> str:
    """Return our session's niceness; "none" where it is in no group, as what init itself starts."""
    words = GROUP.read_text().split() if GROUP.exists() else []
    return words[-1] if words else "none"


def test_who_leads_a_session_stands_back_with_it() -> None:
    begun_with = os.getpriority(os.PRIO_PROCESS, 0)
    told = child("stand_back", session=True)
    assert told[:2] == [str(min(begun_with + YIELDING, 19)), "1"]
    assert told[2] == (str(YIELDING) if GROUP.exists() else "none")


def test_who_leads_none_leaves_the_others_of_it_alone() -> None:
    begun_with, group = os.getpriority(os.PRIO_PROCESS, 0), group_niceness()
    assert child("stand_back", session=False) == [str(min(begun_with + YIELDING, 19)), "0", group]
    assert group_niceness() == group


@pytest.mark.parametrize("begun", [{"session": True}, {"session": False}, {"group": 0}])
def test_who_stands_alone_leads_a_session(begun: dict[str, Any]) -> None:
    """Who led one, who led nothing, and who led a group, as Ray's workers do."""
    assert child("stand_alone", **begun)[1] == "1"


def test_another_session_is_told_to_stand_back() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as sleeper:
        try:
            assert session_stands_back(sleeper.pid) == GROUP.exists()
            if GROUP.exists():
                told = Path(f"/proc/{sleeper.pid}/autogroup").read_text()
                assert told.split()[-1] == str(YIELDING)
        finally:
            sleeper.kill()
