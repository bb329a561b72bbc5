"""What a trial may bend from outside: owners' clocks, the gateway's, and Ray's own calls.

Nothing else. Each hangs on a variable of the environment that begins with ``REPRICER_TEST_`` and
that only ``repricer chaos`` sets. Without it a process has the machine's clocks and Ray's own
settings, and nothing is looked at while it runs.
"""

import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from actors.clock import Clock, WallClock

CLOCKS_VARIABLE: Final = "REPRICER_TEST_CLOCKS"
"""Names a file of numbers: by how many milliseconds the clock of each shard's owner is wrong.

The gateway's number comes last, where that of one shard more would stand.
"""

RAY_VARIABLE: Final = "REPRICER_TEST_RAY"
"""Names a file of lines ``RAY_testing_...=value`` for whatever of Ray's is started next."""

RAY_PREFIX: Final = "RAY_testing_"
_SHIFT: Final = struct.Struct("<q")


class ShiftedClock:
    """The machine's clocks, the wall clock off by what stands in the file just now."""

    def __init__(self, file: Path, place: int) -> None:
        with file.open("rb") as opened:
            self._shifts = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        self._place = place * _SHIFT.size
        self._clock = WallClock()

    def wall_ms(self) -> int:
        """Return unix time, off by the shift."""
        shift_ms: int = _SHIFT.unpack_from(self._shifts, self._place)[0]
        return self._clock.wall_ms() + shift_ms

    def monotonic_ms(self) -> int:
        """Return time since some moment; nobody shifts it."""
        return self._clock.monotonic_ms()


def clock_of(shard: int, environment: Mapping[str, str] = os.environ) -> Clock:
    """Return the clock of a shard's owner: the machine's, but in a trial."""
    file = environment.get(CLOCKS_VARIABLE)
    return ShiftedClock(Path(file), shard) if file else WallClock()


def gateway_clock(shards: int, environment: Mapping[str, str] = os.environ) -> Clock:
    """Return the clock of the gateway of so many shards: the machine's, but in a trial."""
    return clock_of(shards, environment)


def make_clocks(file: Path, shards: int) -> None:
    """Write a file in which no clock is wrong."""
    file.write_bytes(bytes(_SHIFT.size * (shards + 1)))


def shift_clock(file: Path, place: int, shift_ms: int) -> None:
    """Let a clock be wrong by so much, from now on: a shard's owner's, or the gateway's, the last.

    Args:
        file: as ``make_clocks`` wrote it.
        place: a shard, or the number of shards for the gateway.
        shift_ms: how far it is ahead.
    """
    with file.open("r+b") as opened:
        opened.seek(place * _SHIFT.size)
        opened.write(_SHIFT.pack(shift_ms))


def ray_trial(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what Ray is to do wrong, by its own settings for tests: nothing, but in a trial."""
    file = environment.get(RAY_VARIABLE)
    if not file or not Path(file).exists():
        return {}
    lines = (line.partition("=") for line in Path(file).read_text().splitlines() if line)
    return {name: value for name, _, value in lines if name.startswith(RAY_PREFIX)}
