"""One server process: started until it answers, stopped in bounded time, broken on demand."""

import atexit
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, final

from cluster.priority import YIELDING, session_stands_back
from cluster.servers import launch
from cluster.servers.launch import family, kill_family

POLL_S: Final = 0.05
LOG_TAIL_LINES: Final = 30


class ServerFailed(RuntimeError):
    """A server did not start, ended by itself, or would not end."""


class NotReady(Exception):
    """A server does not answer yet; asking again may help."""


class Server(Protocol):
    """What a test needs of any server, whoever runs it."""

    @property
    def address(self) -> object:
        """Return where a client finds the server, credentials included."""
        ...

    def version(self) -> str:
        """Ask the server what it is."""
        ...


@final
class Process:
    """A native server process and its whole family.

    ``start`` may be called from any thread: the process lives until it is stopped or until our
    process ends, whichever comes first.
    """

    def __init__(self, name: str, log: Path, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        self._name = name
        self._log = log
        self._stop_signal = stop_signal
        self._launcher: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def running(self) -> bool:
        """Tell whether the process exists; a paused one does."""
        return self._launcher is not None and self._launcher.poll() is None

    @property
    def pid(self) -> int:
        """Return the server's own pid."""
        if not self.running:
            raise ServerFailed(f"{self._name} is not running")
        return self._pid

    def start(
        self,
        command: Sequence[str],
        ready: Callable[[], None],
        *,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        wait_s: float = 60.0,
        yielding: bool = False,
    ) -> None:
        """Start the server and return when ``ready`` does; ``yielding``: behind all others.

        ``ready`` raises `NotReady` or `OSError` for as long as the server does not answer.

        Raises:
            ServerFailed: the server ended or did not answer in time; the message ends with its log.
        """
        if self.running:
            raise ServerFailed(f"{self._name} is running already")
        if yielding:
            command = ["nice", "-n", str(YIELDING), *command]
        self._spawn(command, environment, user)
        atexit.register(self.stop)
        self._wait_ready(ready, wait_s)
        if yielding:  # but its start, which somebody waits for, does not
            assert self._launcher is not None
            session_stands_back(self._launcher.pid)

    def _wait_ready(self, ready: Callable[[], None], wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                ready()
                return
            except (NotReady, OSError) as error:
                reason = error
            if not self.running:
                atexit.unregister(self.stop)
                raise ServerFailed(f"{self._name} ended while starting{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServerFailed(
                    f"{self._name} did not answer within {wait_s:.0f} s ({reason}){self.log_tail()}"
                )
            time.sleep(POLL_S)

    def _spawn(
        self, command: Sequence[str], environment: Mapping[str, str] | None, user: str | None
    ) -> None:
        read_end, write_end = os.pipe()
        try:
            with self._log.open("ab") as log:
                # A session of its own, so that an interrupt at the terminal reaches us alone.
                self._launcher = subprocess.Popen(
                    [
                        *(sys.executable, "-I", "-S", launch.__file__),
                        *(str(os.getpid()), str(write_end), user or "-"),
                        *command,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=None if environment is None else {**os.environ, **environment},
                    cwd=self._log.parent,
                    pass_fds=[write_end],
                    start_new_session=True,
                )
        finally:
            os.close(write_end)
        with open(read_end) as report:
            line = report.readline()
        if not line:
            raise ServerFailed(f"{self._name} could not be launched{self.log_tail()}")
        self._pid = int(line)

    def stop(self, wait_s: float = 20.0) -> None:
        """Ask the server to end, and make it when it does not in time."""
        atexit.unregister(self.stop)
        if not self.running:
            return
        self.resume()  # a paused process hears nothing
        pids = family(self._pid)
        with suppress(ProcessLookupError):
            os.kill(self._pid, self._stop_signal)
        assert self._launcher is not None
        try:
            self._launcher.wait(wait_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._wait_gone(pids)

    def kill(self) -> None:
        """End the server and all its children at once, as a power cut would."""
        atexit.unregister(self.stop)
        if not self.running:
            return
        pids = kill_family(self._pid)
        self._wait_gone(pids)
        assert self._launcher is not None
        self._launcher.wait(10)

    def pause(self) -> None:
        """Freeze the server and its children: connections stay open and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)
        for pid in family(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        for pid in family(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def log_tail(self) -> str:
        """Return the end of the server's log, to stand at the end of an error message."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join([f"; the end of {self._log.name}:", *lines[-LOG_TAIL_LINES:]])

    def _wait_gone(self, pids: Sequence[int], wait_s: float = 10.0) -> None:
        """Return when none of these processes is left."""
        deadline = time.monotonic() + wait_s
        for pid in pids:
            try:
                watched = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                poll = select.poll()
                poll.register(watched, select.POLLIN)
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                    raise ServerFailed(f"{self._name}: process {pid} would not end")
            finally:
                os.close(watched)
