"""Crash at every step, enumerated: each I/O boundary, each harm, each start."""

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.sim.campaign import PROCESSES
from tests.sim.steps import HARMS, STARTS, Step, harmed, live_step


@pytest.mark.parametrize("start", STARTS)
def test_nothing_breaks_at_any_step(start: str) -> None:
    """Harm one boundary a world, and judge every world."""
    calm, script = live_step(Step(start, -1, "none"))
    assert calm.violations == []
    assert script.steps > 40
    struck: Counter[str] = Counter()
    wrong: list[str] = []
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        tries = {harm: pool.submit(harmed, start, harm, script.steps) for harm in HARMS}
        for harm, found in tries.items():
            struck[harm] += found.result()[0]
            wrong += found.result()[1]
    assert not wrong, "\n".join(wrong[:10])
    assert struck["crash"] > script.steps * 0.7, "most steps belong to some process"
    assert set(struck) == set(HARMS)
    assert all(struck.values()), struck
    print(f"{start}: {script.steps} steps, {dict(struck)} harmed")
