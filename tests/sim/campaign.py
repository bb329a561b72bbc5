"""Many worlds and all mutants, on two processes."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

from msgspec import MsgspecError, Struct

from tests.sim.faults import NAMES
from tests.sim.heirs import TOLD
from tests.sim.kinds import KINDS, kind_of
from tests.sim.mutants import MUTANTS, applied
from tests.sim.world import TOY, simulate

PROCESSES = 2
CHUNK = 20
MUTANT_SEEDS = 1_500
"""A mutant that so many worlds do not notice has survived."""


class Worlds(Struct):
    """What some worlds came to."""

    seeds: int
    counts: Counter[str]
    notes: Counter[str]
    violations: list[tuple[int, str]]


class Verdict(Struct):
    """What became of a mutant."""

    name: str
    functions: int
    seed: int  # that killed it, -1: it survived
    violation: str = ""


class Report(Struct):
    """What a campaign found."""

    seeds: int
    faults: dict[str, int]
    learning: dict[str, int]  # what learning did in them
    violations: list[tuple[int, str]]
    mutants: int = 0
    mutants_caught: int = 0
    verdicts: list[Verdict] = []


def live_through(seeds: Sequence[int], kind: str = "") -> Worlds:
    """Let some worlds live, all of one kind or each as its seed says; in a process of its own."""
    logging.disable(logging.CRITICAL)
    found = Worlds(0, Counter(), Counter(), [])
    for seed in seeds:
        world = simulate(seed, KINDS[kind] if kind else kind_of(seed))
        found.seeds += 1
        found.counts.update(world.faults.counts)
        found.notes.update(world.notes)
        found.violations += [(seed, text) for text in world.violations]
    return found


def hunt(number: int) -> Verdict:
    """Look for the first world that notices a mutant; called in a process of its own."""
    logging.disable(logging.CRITICAL)
    mutant = MUTANTS[number]
    with applied(mutant) as functions:
        for seed in range(MUTANT_SEEDS):
            kind = KINDS[mutant.kind]
            if kind is TOY and kind_of(seed) is not TOY:
                continue  # the campaign lives through this one with the real shard
            try:
                world = simulate(seed, kind)
            except MsgspecError as fault:  # nobody verified what a torn file holds
                return Verdict(mutant.name, functions, seed, f"a start fell: {fault}")
            if world.violations:
                return Verdict(mutant.name, functions, seed, world.violations[0])
    return Verdict(mutant.name, functions, -1)


def run_worlds(begin: int, count: int, kind: str = "") -> Iterator[Worlds]:
    """Let ``count`` worlds live, of one kind if it is named; yield what they come to."""
    chunks = [
        range(first, min(first + CHUNK, begin + count))
        for first in range(begin, begin + count, CHUNK)
    ]
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(live_through, kind=kind), chunks)


def run_mutants() -> Iterator[Verdict]:
    """Hunt every mutant, and yield what became of each."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        yield from pool.map(hunt, range(len(MUTANTS)))


def summed(worlds: Sequence[Worlds], verdicts: Sequence[Verdict] = ()) -> Report:
    """Return the whole campaign's report."""
    counts: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for one in worlds:
        counts.update(one.counts)
        notes.update(one.notes)
    return Report(
        seeds=sum(one.seeds for one in worlds),
        faults={name: counts[name] for name in NAMES},
        learning={name: notes[name] for name in TOLD},
        violations=[violation for one in worlds for violation in one.violations],
        mutants=len(verdicts),
        mutants_caught=sum(verdict.seed >= 0 for verdict in verdicts),
        verdicts=list(verdicts),
    )
