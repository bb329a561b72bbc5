"""Keeps the garbage collector from stopping a process that others wait for.

A full collection looks at every object there is. In an owner those are the libraries (a compiler
among them), in a gateway the whole catalogue as well: a tenth of a second and more, in which
nothing is decided or answered. What was built to stay is taken out of the collector's sight; what
comes and goes afterwards is collected as before, in well under a millisecond.
"""

import gc

GROWN_BY = 1.25


def settle() -> None:
    """Take all objects that live now out of the collector's sight, garbage excepted."""
    gc.collect()
    gc.freeze()


def keep() -> None:
    """Take all objects that live now out of the collector's sight, in no time: garbage, too."""
    gc.freeze()


class Settling:
    """Settles again whenever what is kept has grown by a quarter; the sum of the pauses is small.

    It does not collect first, since whoever grows is at work: a little garbage may be kept for
    good, at most as often as the size can grow by a quarter.
    """

    def __init__(self, least: int = 10_000) -> None:
        self._next = least

    def note(self, size: int) -> None:
        """Say how much is kept now."""
        if size >= self._next:
            keep()
            self._next = int(size * GROWN_BY)
