"""Re-executes what was decided, from the oldest possible point, and compares.

The recorded decision wins: after each comparison the shard goes on from what was recorded, so one
difference is counted once and does not hide the next.
"""

import asyncio
import sys
import time
from collections.abc import Sequence

import msgspec
import numpy as np
from msgspec import Struct

from cluster.assembly import make_logs
from cluster.recording import From, Recording, open_recording
from cluster.settings import Settings
from engine.decided import Decided
from engine.errors import PricingError, RejectedInput
from engine.replay import Agreement
from engine.shard import Shard
from kernels import reasons


class Learning:
    """What learning did in a replay, noted decision by decision."""

    def __init__(self, shard: Shard) -> None:
        self.quotes = 0  # with the reason ``learnt``
        self.periods = 0  # of retailers, that began to close
        self.amid: list[tuple[int, int]] = []  # first and last seq after which a close went on
        self._days = shard.days_of_learning()

    def note(self, shard: Shard, decided: Decided) -> None:
        """Note what a decision quoted and how far its closes came; ``shard`` has recorded it."""
        self.quotes += int(np.count_nonzero(decided.quotes["reasons"] & reasons.LEARNT))
        days = shard.days_of_learning()
        self.periods += sum(day > self._days.get(retailer, 0) for retailer, day in days.items())
        self._days = days
        if shard.closing:
            goes_on = bool(self.amid) and self.amid[-1][1] == decided.seq - 1
            first = self.amid.pop()[0] if goes_on else decided.seq
            self.amid.append((first, decided.seq))


class Replayed(Struct, frozen=True, kw_only=True):
    """What re-executing one shard showed."""

    shard: int
    horizon: str  # where it began, and why not earlier
    from_seq: int  # the last decision before the horizon
    to_seq: int
    decisions: int
    quotes: int
    deltas: int
    differences: int  # inside the replay domain; outside of it they are ``expected``
    expected: int
    learnt_quotes: int  # of ``quotes``, those with the reason ``learnt``
    periods: int  # days of retailers who learn, that began to close
    amid_closes: list[tuple[int, int]]  # first and last seq after which a close was unfinished
    first_difference: int | None
    digest: str  # at ``to_seq``
    domain: str
    seconds: float


async def replay_shard(settings: Settings, shard_number: int, *, begin: From) -> Replayed:
    """Re-execute one shard up to the end its log has now.

    Raises:
        LogTruncated: neither the log nor a checkpoint reaches back far enough.
        RejectedInput: a checkpoint was asked for and there is none.
    """
    began = time.monotonic()
    logs = make_logs(settings)
    try:
        async with open_recording(settings, logs, shard_number, begin) as recording:
            return await _replayed(recording, shard_number, began)
    finally:
        await logs.close()


async def _replayed(recording: Recording, shard_number: int, began: float) -> Replayed:
    shard, from_seq, first_difference = recording.shard, recording.shard.seq, None
    learning = Learning(shard)
    counts = {"decisions": 0, "quotes": 0, "deltas": 0, "differences": 0, "expected": 0}
    async for recorded in recording.microbatches():
        batch, decided = recorded.batch, recorded.decided
        agreement = shard.replay(batch, decided, recorded.artefacts)
        counts["decisions"] += 1
        counts["quotes"] += len(decided.quotes)
        counts["deltas"] += batch.deltas
        learning.note(shard, decided)
        if agreement is not Agreement.EXACT:
            same_domain = recorded.domain in ("", shard.domain)
            counts["differences" if same_domain else "expected"] += 1
            first_difference = first_difference or decided.seq
    return Replayed(
        shard=shard_number,
        horizon=recording.horizon,
        from_seq=from_seq,
        to_seq=shard.seq,
        learnt_quotes=learning.quotes,
        periods=learning.periods,
        amid_closes=learning.amid,
        first_difference=first_difference,
        digest=f"{shard.digest:016x}",
        domain=shard.domain,
        seconds=round(time.monotonic() - began, 2),
        **counts,
    )


def main(arguments: Sequence[str]) -> None:
    """Read the settings from standard input, replay one shard, print one line."""
    settings = Settings.model_validate_json(sys.stdin.buffer.read())
    begin: From = "checkpoint" if arguments[1] == "checkpoint" else "oldest"
    try:
        replayed: object = asyncio.run(replay_shard(settings, int(arguments[0]), begin=begin))
    except PricingError as error:
        replayed = {"problem": str(error), "missing": isinstance(error, RejectedInput)}
    print(msgspec.json.encode(replayed).decode(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
