"""How a run ends before its time: by one signal, after which nothing keeps it from tidying up.

A storm holds mounted disks, servers and an engine of its own, and half of them are broken on
purpose. A run that is ended in the middle leaves all of it to whoever uses the machine next.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final, Self, final

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""From a terminal, from whoever started us, and from a terminal that is gone."""


class Ended(BaseException):
    """A signal told us to end."""


@final
class Ending:
    """Takes the first of these signals; those that follow change nothing. Use it in a ``with``.

    The signal is raised as :class:`Ended` where the program stands, or told to a loop's task, or
    noted until what must not be interrupted is done.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._hold = False
        self._deaf = False
        self._tell: Callable[[], object] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in ENDING:
            before = signal.getsignal(number)
            if number is signal.SIGHUP and before is signal.SIG_IGN:
                continue  # started to outlive its terminal
            self._before[number] = before
            signal.signal(number, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __str__(self) -> str:
        assert self.signal is not None
        return f"told to end by {self.signal.name}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let a signal wait until this is done."""
        self._hold = True
        try:
            yield
        finally:
            self._hold = False
        self._raise()

    @contextmanager
    def told(self, tell: Callable[[], object]) -> Iterator[None]:
        """Tell a loop of a signal instead of raising it there; it is raised afterwards."""
        self._tell = tell
        try:
            if self.signal is not None:
                tell()
            yield
        finally:
            self._tell = None
        self._raise()

    def deafen(self) -> None:
        """Let no signal interrupt what follows: it is the tidying up."""
        self._deaf = True

    def _heard(self, number: int, _: FrameType | None) -> None:
        if self._deaf or self.signal is not None:
            return
        self.signal = signal.Signals(number)
        if self._tell is not None:
            self._tell()
        elif not self._hold:
            self._raise()

    def _raise(self) -> None:
        if self.signal is not None:
            raise Ended(str(self))
