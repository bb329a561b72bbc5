"""Run one server as a child that cannot outlive whoever asked for it.

This file is run as a script, by path, with nothing but the standard library: it is a small process
between us and the server. The kernel can kill a child when its parent dies, but it counts the
parent *thread*, and a server started from a worker thread would die with that thread. So the
server's parent is this process, which has one thread, and this process watches ours.

    python launch.py <parent's pid> <descriptor for the pid> <user or -> <command> ...
"""

import ctypes
import os
import pwd
import select
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1


def family(root: int) -> list[int]:
    """Return a process and all its descendants, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it ended while we looked
            # The name stands in brackets and may hold blanks; the parent is the second word after.
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def kill_family(root: int) -> list[int]:
    """Kill a process and its descendants, and return their pids.

    The root is stopped first, so that it cannot start another child while we count them.
    """
    with suppress(ProcessLookupError):
        os.kill(root, signal.SIGSTOP)
    pids = family(root)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return pids


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; end now if it has ended already.

    The kernel counts the parent's *thread*: it must have been started from one that stays.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def become(launcher: int, user: str, command: Sequence[str]) -> NoReturn:
    """Turn this forked child into the server."""
    if user != "-":
        entry = pwd.getpwnam(user)
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    end_with_parent(launcher)  # after the change of user, which would clear it
    os.execvp(command[0], list(command))


def main(arguments: Sequence[str]) -> int:
    """Start the server, report its pid, and wait until it or our parent ends."""
    parent, report, user, *command = arguments
    watched_parent = os.pidfd_open(int(parent))
    if os.getppid() != int(parent):
        return 1
    launcher = os.getpid()
    server = os.fork()
    if server == 0:
        try:
            os.close(int(report))
            become(launcher, user, command)
        except OSError as error:
            print(f"launch: {command[0]}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(127)
    os.write(int(report), f"{server}\n".encode())
    os.close(int(report))

    poll = select.poll()
    watched_server = os.pidfd_open(server)
    poll.register(watched_server, select.POLLIN)
    poll.register(watched_parent, select.POLLIN)
    if watched_server not in [descriptor for descriptor, _ in poll.poll()]:
        kill_family(server)
    return os.waitstatus_to_exitcode(os.waitpid(server, 0)[1]) & 0xFF


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
