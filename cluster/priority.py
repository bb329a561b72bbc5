"""Who comes first where processors are full: owners and gateway before what carries decisions away.

Niceness alone does not say it. Where Linux groups processes by session (``autogroup``, switched on
in most distributions), a processor is shared evenly among the sessions that want it, and niceness
counts inside of one only. Each of our processes and each server that we start has a session of its
own, so that an interrupt at a terminal reaches nobody else; a follower with niceness 10 then takes
as much as before. So the session is given its niceness as well (``man 7 sched``).
"""

import os
from pathlib import Path

YIELDING = 10
"""Niceness of what may be late: a tenth of a processor that a process of niceness 0 wants, too."""


def stand_back() -> None:
    """Let this process, and its session where it leads one, yield to all others."""
    os.nice(YIELDING)
    if os.getsid(0) == os.getpid():
        session_stands_back(os.getpid())


def session_stands_back(pid: int) -> bool:
    """Let the session of a process yield; return whether this kernel groups by session at all."""
    try:
        Path(f"/proc/{pid}/autogroup").write_text(f"{YIELDING}\n")
    except OSError:  # no such file; or a sandbox that lets nobody write it: nothing to share by
        return False
    return True


def stand_alone() -> None:
    """Give this process a session of its own, unless it leads one.

    Ray starts its workers in the session of its node: two owners would share with each other, and
    with all that is Ray's, what one session gets.
    """
    if os.getsid(0) == os.getpid():
        return
    if os.getpgrp() == os.getpid():  # as Ray's workers: who leads a group cannot leave
        os.setpgid(0, os.getpgid(os.getppid()))
    os.setsid()
