"""One misfortune at one step: every I/O boundary is numbered, and each is harmed in each way."""

import gc
from random import Random

from msgspec import Struct

from tests.sim.checkers import judge
from tests.sim.faults import Faults
from tests.sim.loop import PROCESS, SimLoop
from tests.sim.world import TOY, World

HARMS = ("crash", "pause", "error_before", "error_after", "absent", "late", "twice", "slow")
"""What happens at a step. A harm that an operation cannot suffer leaves it as it is."""

STARTS = ("fresh", "log", "checkpoint", "zombie")
"""What the steps begin with: nothing, decisions, a checkpoint, too, or a paused predecessor."""

PRELUDE_S = 0.7
STORM_S = 1.9
"""The market goes on for so long: also the heir of a paused owner, 0.7 s later, has much to do."""

FATES = {
    "error_before": ("append_refused", "checkpoint_refused"),
    "error_after": ("append_in_doubt_present", "seal_in_doubt_present"),
    "absent": ("append_in_doubt_absent", "seal_in_doubt_absent", "checkpoint_lost"),
    "late": ("append_in_doubt_late", "seal_in_doubt_late", "checkpoint_torn"),
    "twice": ("append_twice",),
    "slow": ("append_slow",),
}


class Step(Struct, frozen=True):
    """Which boundary is harmed, and how; number -1 harms none and counts them."""

    start: str
    number: int
    harm: str


class Script(Faults):
    """Misfortunes that strike once, at one step."""

    def __init__(self, random: Random, loop: SimLoop, step: Step) -> None:
        super().__init__(random)
        self.steps = 0
        self.struck = ""  # what was harmed, and how
        self._loop = loop
        self._step = step

    def strikes(self, name: str) -> bool:
        if name.endswith("_delta"):
            return False
        if name == "read_slow":  # the second question about the same step
            return self.struck == "read_slow!"
        if not self._is_the_step(name):
            return False
        if name == "read_refused" and self._step.harm in ("error_before", "error_after"):
            return self._strike(name)
        if name == "write_in_doubt" and self._step.harm in ("error_after", "absent"):
            self.counts[name] += self._step.harm == "absent"  # an odd one was not written
            return self._strike(name)
        return name == "follower_death" and self._step.harm == "crash" and self._strike(name)

    def one_of(self, names: tuple[str, ...]) -> str:
        if self._is_the_step(names[0]):
            for fate in FATES.get(self._step.harm, ()):
                if fate in names:
                    self._strike(fate)
                    return fate
        return ""

    def planned(self) -> list[str]:
        return []

    def _is_the_step(self, name: str) -> bool:
        """Count a boundary; let its process die or sleep if it is the one."""
        if self.calm or (self._loop.time() < PRELUDE_S and self._step.start != "fresh"):
            return False
        self.steps += 1
        if self.steps - 1 != self._step.number:
            return False
        process = PROCESS.get()
        if process is None:
            return False
        if self._step.harm == "crash":
            self._strike(f"crash at {name}")
            self._loop.kill(process)
        elif self._step.harm == "pause":
            self._strike(f"pause at {name}")
            self._loop.pause(process)
            self._loop.outside(1.4, self._loop.resume, process)
        return True

    def _strike(self, what: str) -> bool:
        self.struck = what
        self.counts[what] += 1
        return True


def live_step(step: Step) -> tuple[World, Script]:
    """Let one world live in which one step is harmed, and judge it."""
    gc.disable()
    try:
        scripts: list[Script] = []

        def script(random: Random, loop: SimLoop) -> Script:
            scripts.append(Script(random, loop, step))
            return scripts[0]

        world = World(7, TOY, faults=script, storm_s=STORM_S, after_s=0.3)
        if step.start == "log":
            world.checkpoint_interval_ms = 10**9
        if step.start != "fresh":
            world.loop.outside(PRELUDE_S, _end_the_first, world, step.start)
        world.live()
        judge(world, probes=False)
        return world, scripts[0]
    finally:
        gc.enable()


def harmed(start: str, harm: str, steps: int) -> tuple[int, list[str]]:
    """Harm each step in turn; return how many could suffer it, and what went wrong."""
    struck, wrong = 0, []
    for number in range(steps):
        world, script = live_step(Step(start, number, harm))
        struck += bool(script.struck)
        wrong += [f"{start}, {harm} at step {number}: {text}" for text in world.violations]
    return struck, wrong


def _end_the_first(world: World, start: str) -> None:
    first = world.owners[0].process
    if start == "zombie":
        world.loop.pause(first)
        world.loop.outside(0.9, world.loop.resume, first)
    else:
        world.loop.kill(first)
