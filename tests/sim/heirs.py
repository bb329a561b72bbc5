"""Shards of checkpoints taken anywhere in a recorded life, and what such a life has seen.

The simulator's own successors start from the files that are left; these start from any mark.
"""

from collections import Counter
from hashlib import sha256
from random import Random
from typing import Any

from engine.artefact import Artefact, read_artefact
from engine.decided import Decided
from engine.learnt import Learnt
from engine.microbatch import Microbatch
from engine.promotion import MISSING
from engine.replay import Agreement
from kernels import reasons
from tests.sim.world import ShardKind

Artefacts = tuple[()] | tuple[tuple[Artefact, ...]]
"""What a replay takes beside batch and record: nothing, or the artefacts that there are."""

SLICE_EVERY = 3

LIVED = (
    "worlds with learning",
    "day turns",
    "closes cut short",
    "heirs amid a close",
    "learnt prices",
    "dithered prices",
    "treated prices",
    "quotes held out",
    "experiments told",
    "models champion",
    "models canary",
    "models missing",
)
"""What a campaign tells of learning, and of which the suite's own must have seen some."""

TOLD = (
    *LIVED,
    "day turns without a delta",
    "models rules",
    "models rolled_back by itself",
    "models champion by itself",
)
"""All that a campaign tells of it: a zero says that its worlds prove nothing of that."""


def artefacts_of(kind: ShardKind) -> Artefacts:
    """Return all artefacts of a kind's worlds."""
    held = kind.artefacts().values()
    if not held:
        return ()
    return (tuple(read_artefact(value, sha256(value).hexdigest()) for value in held),)


def learning_of(shard: Any) -> Learnt:
    """Return what a shard has learnt; a toy nothing."""
    memory = getattr(shard, "_memory", None)
    return Learnt() if memory is None else memory.learnt


class Heirs:
    """Two shards of checkpoints: one of a base, one of that base and an increment.

    Slices are copied on the way to each, so that rows change after their copy.
    """

    def __init__(
        self, kind: ShardKind, decisions: int, random: Random, notes: Counter[str]
    ) -> None:
        self._kind = kind
        self._notes = notes
        self._marks = sorted(random.randint(1, decisions) for _ in range(2))
        self._parts: list[bytes] = []
        self._heirs: list[Any] = []
        self._differing: list[str] = []

    def follow(self, shard: Any, batch: Microbatch, recorded: Decided, had: Artefacts) -> None:
        """Let the heirs that there are repeat a decision; take what makes the next one."""
        for heir, mark in zip(self._heirs, self._marks, strict=False):
            if heir.replay(batch, recorded, *had) is not Agreement.EXACT:
                told = f"an heir of seq {mark} differs from the record at seq {recorded.seq}"
                self._differing.append(told)
        if len(self._heirs) == len(self._marks):
            return
        if recorded.seq % SLICE_EVERY == 0:
            part = shard.checkpoint_slice(2)
            self._parts += [] if part is None else [part]
        while recorded.seq in self._marks[len(self._heirs) : len(self._heirs) + 1]:
            self._notes["heirs amid a close"] += learning_of(shard).closing > 0
            self._parts.append(shard.checkpoint_close())
            self._heirs.append(self._kind.restore(list(self._parts)))

    def faults(self, shard: Any) -> list[str]:
        """Return what differs between the heirs and the shard that decided everything itself."""
        state = self._kind.state(shard)
        forgot = [
            f"an heir of seq {mark} remembers otherwise than its predecessor"
            for heir, mark in zip(self._heirs, self._marks, strict=True)
            if self._kind.state(heir) != state
        ]
        return self._differing[:1] + forgot


class Chronicle:
    """What learning did in a world: nothing of it would prove nothing."""

    def __init__(self, notes: Counter[str]) -> None:
        self._notes = notes
        self._days: dict[int, int] = {}

    def note(self, shard: Any, batch: Microbatch, decided: Decided) -> None:
        """Count what one decision has seen."""
        learnt = learning_of(shard)
        if not learnt.any:
            return
        if not self._days:
            self._notes["worlds with learning"] += 1
        for number, held in learnt.retailers.items():
            turned = held.day > self._days.get(number, 0)
            self._notes["day turns"] += turned
            self._notes["day turns without a delta"] += turned and batch.deltas == 0
            self._days[number] = held.day
        self._notes["closes cut short"] += learnt.closing
        moved = decided.quotes[decided.quotes["in_force_minor"] != decided.quotes["previous_minor"]]
        for name, bit in (
            ("learnt prices", reasons.LEARNT),
            ("dithered prices", reasons.DITHERED),
            ("treated prices", reasons.TREATED),
        ):
            self._notes[name] += int(((moved["reasons"] & bit) != 0).sum())
        held_out = (decided.quotes["reasons"] & reasons.HELD_OUT) != 0
        self._notes["quotes held out"] += int(held_out.sum())
        for change in decided.catalogue:
            if change.what == "model":
                by_itself = "errors" in change.fields
                stage = f"{change.fields['stage']}{' by itself' if by_itself else ''}"
                self._notes[f"models {stage}"] += 1
            elif change.what == "experiment":
                self._notes["experiments told"] += 1
        self._notes["models missing"] += sum(one.reason == MISSING for one in decided.exceptions)
