"""A trial in which retailers learn: what their market is like, and what learning did in it.

Each retailer of the trial learns, explores, holds some listings out and begins an experiment. His
catalogue is larger than what one microbatch decides (``engine.learning.DECIDED_ROWS``), and every
listing decides every day, so that the close of each day is spread over several microbatches:
owners fall, and checkpoints are taken, in its midst.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

from cluster.owner import WARM_LEARNING_AFTER_S
from engine.deltas import AnyDelta, ExperimentStarted, PolicyChanged
from engine.learnt import DAY_MS
from perf.chaos.checker import Checker
from perf.chaos.truth import LEARNING, ShardTruth
from persistence.checkpoints import is_checkpoint, place_of
from training.worlds.market import Market, World

LISTINGS: Final = 2_600
"""Of one retailer: two microbatches decide those that are not held out. A larger shop is fitted for
so long that on two crowded cores its owner is taken for hung."""

CHECKPOINT_S: Final = 4.0
"""Between two checkpoints: ten a day, so that some fall amid a close."""

DAYS_MIN: Final = 2
"""A trial goes on until so many days have passed."""

LOOK_S: Final = 0.5
COMPILED_S: Final = 10.0
"""Learning's kernels count as compiled when for so long no owner compiled one more."""

POLICY: Final[dict[str, Any]] = {
    "learning": True,
    "decision_days": 1,
    "holdout_share": 0.1,
    # A learnt price moves in one step: a market's walks are for who does not learn.
    "step_max": 0.2,
    "rival_stale_ms": 30 * DAY_MS,
    # Where a day takes a minute, an outage of seconds brings hours of facts at once.
    "breaker_rate_factor": 1e6,
}

EXPERIMENT: Final[dict[str, Any]] = {
    "experiment": "bolder-steps",
    "treatment": {"learning_step": 0.2},
    "share": 0.3,
    "baseline_days": 1,
    "days": 20,
}


def learning_market(seed: int, retailer: str, start_ms: int) -> Market:
    """Return a large and slow market: each of our seconds it tells some hundred facts."""
    world = World(
        retailer=retailer,
        start_ms=start_ms,
        rivals=1,
        volume_median=0.2,
        rival_reactions_per_day=0.1,
        rival_looks_per_day=0.2,
        cost_changes_per_day=0.01,
        stock_days=20.0,
        refill_days=2.0,
    )
    return Market(seed, LISTINGS, world)


def lessons(retailer: str, observed_ms: int) -> list[AnyDelta]:
    """Return what lets a retailer learn, and what he tries; his market's opening comes before."""
    return [
        PolicyChanged(
            retailer=retailer, scope="retailer", key="", fields=POLICY, observed_ms=observed_ms + 1
        ),
        ExperimentStarted(retailer=retailer, fields=EXPERIMENT, observed_ms=observed_ms + 1),
    ]


class Compiled:
    """Whether every owner has compiled what learning needs, beside what it decides.

    Whoever switches learning on before has it compiled in that very microbatch
    (docs/decisions/0079), which on a crowded machine takes longer than an owner may be silent.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._seen_s: dict[int, float] = {}  # process -> when it was seen first
        self._last: dict[int, tuple[int, float]] = {}  # its kernels, and when they became so many

    def look(self, status: Mapping[str, Any], shards: int) -> bool:
        """Return whether that is so of the owners that live now, by what processes say of it.

        An owner begins so long after it lives, perhaps before anybody looked.
        """
        now_s = self._now_s()
        owners = [each for each in status["shards"] if each.get("phase") == "live"]
        done = 0
        for owner in owners:
            pid, count = owner["pid"], owner["compiled_shapes"]
            self._seen_s.setdefault(pid, now_s)
            if count != self._last.get(pid, (-1, 0.0))[0]:
                self._last[pid] = (count, now_s)
            begun_s = max(self._seen_s[pid] + WARM_LEARNING_AFTER_S, self._last[pid][1])
            done += now_s >= begun_s + COMPILED_S
        return done == len(owners) == shards


@final
class Marks:
    """The marks at which checkpoints were taken: their files' names, as they come and go."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.seqs: list[set[int]] = [set() for _ in folders]  # by shard
        self._folders = folders

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Note what lies in the folders now."""
        for folder, seqs in zip(self._folders, self.seqs, strict=True):
            if folder.is_dir():
                names = [each.name for each in folder.iterdir()]
                seqs.update(place_of(name)[1] for name in names if is_checkpoint(name))


def counted(truths: Sequence[ShardTruth]) -> dict[str, int]:
    """Return how many quotes of the logs learning had a hand in, by its reasons."""
    return {
        f"{name.replace(' ', '_')}_quotes": sum(truth.learnt[name] for truth in truths)
        for name in LEARNING
    }


def judge_learning(checker: Checker, replay: Mapping[str, Any], marks: Marks) -> dict[str, int]:
    """Judge whether anything was learnt at all, and return what a trial lived through of it.

    Args:
        checker: has read the logs to their ends.
        replay: what ``repricer replay`` answered, from the logs' start.
        marks: of the checkpoints that were taken.
    """
    found = dict.fromkeys(
        ("periods", "closes_spread", "checkpoints", "checkpoints_amid", "reigns_amid"), 0
    )
    for truth, shard, seqs in zip(checker.truths, replay["shards"], marks.seqs, strict=True):
        name, amid = f"shard {truth.shard}", shard["amid_closes"]
        if not truth.learnt["learnt"]:
            checker.found("nothing_learnt", f"{name}: no quote has the reason `learnt`")
        if not shard["periods"]:
            checker.found("nothing_learnt", f"{name}: no day of a retailer was closed")
        if shard["learnt_quotes"] != truth.learnt["learnt"]:
            checker.found(
                "replay_differs",
                f"{name}: {shard['learnt_quotes']} learnt quotes, the log holds "
                f"{truth.learnt['learnt']}",
            )
        found["periods"] += shard["periods"]
        found["closes_spread"] += len(amid)
        found["checkpoints"] += len(seqs)
        found["checkpoints_amid"] += sum(_is_amid(amid, seq) for seq in seqs)
        found["reigns_amid"] += sum(_is_amid(amid, seq) for seq in truth.reigns_after)
    return found


def learning_in_words(learning: Mapping[str, int]) -> str:
    """Return what a trial's learning amounts to, in a sentence."""
    if "periods" not in learning:
        return f"{learning['learnt_quotes']:,} learnt quotes, not replayed"
    if not learning["learnt_quotes"] or not learning["periods"]:
        return "NOTHING WAS LEARNT: this trial says nothing of learning"
    counts = {name: f"{count:,}" for name, count in learning.items()}
    return (
        "{learnt_quotes} learnt quotes ({dithered_quotes} strayed to learn), {held_out_quotes} "
        "held out, {treated_quotes} treated; {periods} periods closed, {closes_spread} of their "
        "closes over several microbatches; amid these {checkpoints_amid} of {checkpoints} "
        "checkpoints and {reigns_amid} changes of owner"
    ).format(**counts)


def _is_amid(spans: Sequence[Sequence[int]], seq: int) -> bool:
    return any(first <= seq <= last for first, last in spans)
