"""Misfortunes: which there are, how often each strikes in a world, and how often each has."""

from collections import Counter
from random import Random

RATES = {
    # Of one append to the decision log, and of one that starts an epoch.
    "append_refused": 0.025,
    "append_in_doubt_present": 0.025,
    "append_in_doubt_absent": 0.025,
    "append_in_doubt_late": 0.025,
    "append_twice": 0.03,
    "append_slow": 0.03,
    "seal_in_doubt_present": 0.09,
    "seal_in_doubt_absent": 0.09,
    "seal_in_doubt_late": 0.09,
    # Of one read, of one write of a checkpoint, of one write of a sink.
    "read_refused": 0.008,
    "read_slow": 0.008,
    "checkpoint_torn": 0.24,
    "checkpoint_lost": 0.24,
    "checkpoint_refused": 0.2,
    "write_in_doubt": 0.04,
    "follower_death": 0.025,
    # Of one delta.
    "duplicate_delta": 0.08,
    "reordered_delta": 0.08,
}
"""How likely each strikes where it can, before a world makes it its own."""

PLANNED = (
    "crash",
    "pause_and_zombie",
    "zombie_follower",
    "two_successors",
    "clock_jump",
    "murderous_delta",
    "stores_down",
    "retention",
)
"""What a world plans for certain moments."""

PROBED = (
    "log_truncated",
    "log_regressed",
    "bit_flipped",
    "decision_missing",
    "replay_disturbed",
    "checkpoint_forged",
)
"""What is done to the logs of a world that has ended."""

NAMES = (*RATES, *PLANNED, *PROBED)


class Faults:
    """The misfortunes of one world; ``calm`` ends them."""

    def __init__(self, random: Random) -> None:
        self.counts: Counter[str] = Counter()
        self.calm = False
        self._random = random
        self._rates = {
            name: rate * random.uniform(0.4, 2.2) if random.random() < 0.8 else 0.0
            for name, rate in RATES.items()
        }

    def strikes(self, name: str) -> bool:
        """Draw whether this misfortune strikes here and now."""
        if self.calm or self._random.random() >= self._rates[name]:
            return False
        self.counts[name] += 1
        return True

    def one_of(self, names: tuple[str, ...]) -> str:
        """Draw at most one of several misfortunes, ``""`` for none."""
        if self.calm:
            return ""
        draw = self._random.random()
        for name in names:
            draw -= self._rates[name]
            if draw < 0:
                self.counts[name] += 1
                return name
        return ""

    def planned(self) -> list[str]:
        """Draw what will happen to this world, in an order of its own."""
        plan = [name for name in PLANNED for _ in range(self._random.choice((0, 1, 2, 2, 2)))]
        # It needs a checkpoint that is on disk, so it often finds nothing to do.
        plan += ["retention"] * 2
        self._random.shuffle(plan)
        return plan
