"""The time of decisions where it goes by events, compared with the facts that they consumed.

An owner whose clock is ``event`` reads no clock: a decision bears the latest time of what was
consumed by then (docs/decisions/0115). Facts move it and nothing else, since a gateway gives a
command the time of what its shard had decided. So a time that nobody told, one that stays behind
what was consumed, and a command that bears the machine's time show in the very decision.
"""

from array import array
from bisect import bisect_right
from collections import Counter, deque

from engine.decided import Decided
from perf.chaos.truth import Found


class EventTime:
    """One shard's decisions, each judged once its facts were heard."""

    def __init__(self, shard: int, found: Found, judged: Counter[str]) -> None:
        self._judged = judged
        self._shard = shard
        self._found = found
        self._waiting: deque[Decided] = deque()
        self._before_ms = 0  # the time of the decision judged last
        self._offsets = array("q")  # of the facts, and the latest time up to each
        self._latest_ms = array("q")

    def fact(self, offset: int, observed_ms: int) -> None:
        """Take the next record of the delta lane."""
        self._offsets.append(offset)
        self._latest_ms.append(max(self._latest(offset), observed_ms))
        self._settle()

    def decided(self, decided: Decided) -> None:
        """Take the next decision that counts."""
        self._waiting.append(decided)
        self._settle()

    def _settle(self) -> None:
        """Judge what can be judged by now.

        Whoever waits at the end consumed what is not in the lane, which ``Checker.finish`` judges.
        """
        heard = self._offsets[-1] if self._offsets else -1
        while self._waiting and self._waiting[0].last_delta <= heard:
            self._judge(self._waiting.popleft())

    def _latest(self, through: int) -> int:
        """Return the latest time of the facts up to and with one, 0 where there is none."""
        place = bisect_right(self._offsets, through, hi=len(self._latest_ms)) - 1
        return self._latest_ms[place] if place >= 0 else 0

    def _judge(self, decided: Decided) -> None:
        self._judged["times of events"] += 1
        told_ms = max(self._before_ms, self._latest(decided.last_delta))
        if max(decided.decided_ms, 0) != told_ms:
            self._found(
                "clock_lied",
                f"shard {self._shard}, seq {decided.seq}: decided at {decided.decided_ms}, the "
                f"latest fact that was consumed is of {told_ms}",
            )
        self._before_ms = max(decided.decided_ms, told_ms)
