"""What time it is in the market of a trial: the machine's, or that of days that pass in a minute.

A price is learnt by the day, so a trial in which prices are learnt must live through days. Its
owners then go by the times of events (``shards.clock``), as they do when history is fed, and the
market tells history: it begins a year ago, half a day before a midnight
(docs/decisions/0115-chaos-learns-by-the-time-of-its-events.md).
"""

import time
from collections.abc import Callable, Iterator
from typing import Final, final

from engine.learnt import DAY_MS

DAY_S: Final = 40.0
"""How long a day of a trial in which prices are learnt takes."""

DAYS_AGO: Final = 360
"""So many days before the machine's its first midnight lies: four hours pass before it comes near.

Far below the 400 days by which one event may lie ahead of another (``actors.clock``), so that a
command that bore the machine's time would count, and carry its shard there for all to see.
"""


def machine_ms() -> int:
    """Return the machine's unix time in milliseconds."""
    return time.time_ns() // 1_000_000


@final
class Calendar:
    """Tells the market's time and how it goes by the machine's."""

    def __init__(
        self, *, start_ms: int, pace: float, now_ms: Callable[[], int] = machine_ms
    ) -> None:
        """Let the market's time be ``start_ms`` now, and pass ``pace`` times as fast."""
        self._start_ms = start_ms
        self._pace = pace
        self._machine_ms = now_ms
        self._begun_ms = now_ms()

    def now_ms(self) -> int:
        """Return the market's time, in unix milliseconds."""
        return self._start_ms + round((self._machine_ms() - self._begun_ms) * self._pace)

    def after_ms(self, seconds: float) -> int:
        """Return the market's time when so many of our seconds have passed."""
        return self.now_ms() + round(seconds * 1000 * self._pace)

    def seconds_to(self, midnight: int) -> float:
        """Return in how many of our seconds the market's ``midnight`` comes, 0 when it is past.

        The first after the beginning is midnight 0.
        """
        left_ms = self._midnight_ms(midnight) - self.now_ms()
        return max(left_ms / self._pace / 1000, 0.0)

    @property
    def next_midnight(self) -> int:
        """Return the number of the midnight that comes next."""
        return self.now_ms() // DAY_MS - self._start_ms // DAY_MS

    def midnights(self, until_ms: int) -> Iterator[int]:
        """Yield when, by the machine's time, each midnight came that came before ``until_ms``."""
        number = 0
        while (at_ms := self._by_machine(self._midnight_ms(number))) < until_ms:
            yield at_ms
            number += 1

    def _midnight_ms(self, number: int) -> int:
        return (self._start_ms // DAY_MS + 1 + number) * DAY_MS

    def _by_machine(self, market_ms: int) -> int:
        return self._begun_ms + round((market_ms - self._start_ms) / self._pace)


def machine_calendar() -> Calendar:
    """Return the calendar of a market that lives by the machine's time."""
    return Calendar(start_ms=machine_ms(), pace=1.0)


def learning_calendar(now_ms: Callable[[], int] = machine_ms) -> Calendar:
    """Return that of a market in which prices are learnt."""
    midnight_ms = (now_ms() // DAY_MS - DAYS_AGO) * DAY_MS
    return Calendar(start_ms=midnight_ms - DAY_MS // 2, pace=DAY_MS / (DAY_S * 1000), now_ms=now_ms)
