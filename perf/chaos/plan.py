"""Which faults, on what, when: a function of the seed and nothing else.

The plan is an endless sequence; a run takes as much of it as it wants. What the world does
meanwhile changes when a fault can strike, never which one comes next, so a seed repeats a run's
faults and targets in the same order.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Final

from msgspec import Struct

from perf.faultproxy import Mode

SERVERS: Final = ("broker", "postgres", "questdb", "redis")
OURS: Final = ("gateway", "supervisor", "followers", "spare")
RAY: Final = ("raylet", "gcs")

KINDS: Final = {
    "kill": "SIGKILL, at once and without a word",
    "pause": "SIGSTOP, and SIGCONT a while later",
    "cut": "the network between our processes and a server, silently",
    "disk": "the disk below a folder is full for a while",
    "clock": "the wall clock of an owner or of the gateway jumps, and back",
    "ray": "an owner starts while Ray's own calls fail or are slow",
}
"""Every kind of fault, in words."""

WEIGHTS: Final = {"kill": 34, "pause": 26, "cut": 24, "disk": 6, "clock": 6, "ray": 4}

TARGETS: Final = {
    "owner": 34,
    "gateway": 12,
    "supervisor": 9,
    "followers": 8,
    "spare": 3,
    "raylet": 2,
    "gcs": 3,
    "broker": 9,
    "postgres": 9,
    "questdb": 7,
    "redis": 7,
}
"""Weights of what is killed or paused. Ray's death takes all owners with it, so it is rare."""

BROKER_CUTS: Final = tuple(mode for mode in Mode if mode is not Mode.PASS)
OTHER_CUTS: Final = (Mode.DELAY, Mode.DROP, Mode.HALF_OPEN, Mode.RESET, Mode.SLICE)
CUT_OFF: Final = {"everybody": 30, "owner": 40, "gateway": 12, "supervisor": 10, "followers": 8}
"""Who is cut off from the broker, by weight."""

DISKS: Final = ("folder", *SERVERS)
JUMPS_MS: Final = (-3_600_000, -8_000, -1_800, 1_800, 4_000, 8_000, 3_600_000)
GATEWAY_CLOCKS_SHARE: Final = 0.35
"""Of the clocks that are wrong: the gateway's, the others are owners'."""

CALLS: Final = ("requests", "responses", "both", "slow")
"""Which of Ray's calls fail: requests are lost, answers are lost, either, or all are slow."""


class Fault(Struct, frozen=True, kw_only=True):
    """One fault as it was planned."""

    number: int
    kind: str
    target: str  # a component: owner:0, gateway, broker ...
    how: str = ""  # of a cut its mode and whom it concerns, of a jump its size
    seconds: float = 0.0  # how long it lasts; a kill of a server: how long it stays down
    gap: float = 1.0  # of the pace, until the next one

    @property
    def name(self) -> str:
        """Return it in a few words."""
        return f"{self.kind} {self.target}" + (f" {self.how}" if self.how else "")


def hits(faults: Iterable[Fault]) -> dict[str, dict[str, int]]:
    """Count faults by kind and by what they hit, most frequent first."""
    counted: dict[str, Counter[str]] = {}
    for each in faults:
        counted.setdefault(each.kind, Counter())[component(each.kind, each.target)] += 1
    return {kind: dict(counted[kind].most_common()) for kind in KINDS if kind in counted}


def component(kind: str, target: str) -> str:
    """Return what a fault hit, as a person counts it: any shard's owner is a shard."""
    if target.startswith("owner:"):
        return "shard"
    if target == "postgres" and kind in ("kill", "pause"):
        return "postmaster"
    return target


def plan(seed: int, *, shards: int, kinds: Sequence[str] = tuple(KINDS)) -> Iterator[Fault]:
    """Yield the faults of a seed, for ever."""
    unknown = set(kinds) - set(KINDS)
    assert not unknown, unknown
    chosen = [kind for kind in KINDS if kind in kinds]
    draw = Random(f"repricer chaos {seed}")
    # Drawn apart, so that all but the targets of clocks stayed what they were in older versions.
    clocks = Random(f"repricer chaos clocks {seed}")
    number = 0
    while True:
        kind = draw.choices(chosen, [WEIGHTS[each] for each in chosen])[0]
        target, how = _target(draw, kind, shards)
        if kind == "clock" and clocks.random() < GATEWAY_CLOCKS_SHARE:
            target = "gateway"
        yield Fault(
            number=number,
            kind=kind,
            target=target,
            how=how,
            seconds=round(_seconds(draw, kind, target), 2),
            gap=round(draw.uniform(0.4, 1.6), 3),
        )
        number += 1


def _target(draw: Random, kind: str, shards: int) -> tuple[str, str]:
    owner = f"owner:{draw.randrange(shards)}"
    if kind in ("kill", "pause"):
        target = draw.choices(list(TARGETS), list(TARGETS.values()))[0]
        return (owner if target == "owner" else target), ""
    if kind == "cut":
        server = draw.choices(SERVERS, (55, 17, 14, 14))[0]
        if server != "broker":
            return server, draw.choice(OTHER_CUTS).value
        who = draw.choices(list(CUT_OFF), list(CUT_OFF.values()))[0]
        return server, f"{draw.choice(BROKER_CUTS).value} {owner if who == 'owner' else who}"
    if kind == "disk":
        return draw.choice(DISKS), ""
    if kind == "clock":
        return owner, str(draw.choice(JUMPS_MS))
    return owner, draw.choice(CALLS)


def _seconds(draw: Random, kind: str, target: str) -> float:
    if kind == "kill":
        return draw.uniform(0.5, 6.0)
    if kind == "pause" and target.startswith("owner"):
        # On both sides of the 2 s after which a silent owner is replaced.
        return draw.uniform(0.5, 8.0)
    return draw.uniform(1.0, 8.0)
