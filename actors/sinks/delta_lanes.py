"""The delta log as followers may read it: only up to a mark that was accepted."""

from collections.abc import Sequence

from engine.errors import FailedDependency, LogRegressed
from engine.microbatch import LANES, Position, Refusal
from persistence.ports import COMMANDS, DELTAS, Log, Logs, Record
from persistence.wire import NamedFact, read_facts

TOPICS = {"commands": COMMANDS, "deltas": DELTAS}
READ_RECORDS_MAX = 500
READ_WAIT_MS = 500
READ_TRIES = 10
"""So often a read may come back empty although the log holds more: a slow broker is no hole."""


class DeltaLanes:
    """Both lanes of every shard, opened when first read."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self._open: dict[tuple[int, int], Log] = {}

    async def read(self, shard: int, lane: int, after: int, through: int) -> list[Record]:
        """Return the records with ``after`` < offset <= ``through`` of one lane.

        Raises:
            LogTruncated: some of them are gone.
            LogRegressed: the log ends before ``through``, which a decision says was consumed.
            FailedDependency: the log did not answer in time.
        """
        records: list[Record] = []
        empty = 0
        while after < through:
            log = await self._log(shard, lane)
            limit = min(READ_RECORDS_MAX, through - after)
            found = await log.read(after, limit=limit, wait_ms=READ_WAIT_MS)
            if not found:
                if await log.end() <= through:
                    raise LogRegressed(
                        f"shard {shard}: {LANES[lane]} end before {through}, which was consumed"
                    )
                empty += 1
                if empty == READ_TRIES:
                    raise FailedDependency(
                        f"shard {shard}: {LANES[lane]} after {after} did not come"
                    )
                continue
            empty = 0
            after = found[-1].offset
            records += [record for record in found if record.offset <= through]
        return records

    async def close(self) -> None:
        """Close what was opened."""
        for log in self._open.values():
            await log.close()
        self._open.clear()

    async def _log(self, shard: int, lane: int) -> Log:
        if (shard, lane) not in self._open:
            self._open[shard, lane] = await self._logs.open(TOPICS[LANES[lane]], shard)
        return self._open[shard, lane]


def facts_kept(
    lane: int, record: Record, refused: dict[Position, Refusal]
) -> list[tuple[NamedFact, str, str]]:
    """Return a record's facts with verdict and reason: accepted ones, and the quarantined.

    What was refused for any other reason never counted, and is left out: a duplicate sale would be
    summed twice. It stands among the dead letters.
    """
    first = refused.get(Position(lane, record.offset, 0))
    if first is not None and first.verdict == "wrong_shard":
        return []  # of a frame, too, this one refusal stands for all facts
    kept = []
    for fact in read_facts(record):
        refusal = refused.get(Position(lane, record.offset, fact.index))
        if refusal is None:
            kept.append((fact, "accepted", ""))
        elif refusal.verdict == "quarantined":
            kept.append((fact, refusal.verdict, refusal.reason))
    return kept


def refusals_by_position(exceptions: Sequence[Refusal]) -> dict[Position, Refusal]:
    """Return a decision's exceptions by the place of their delta."""
    return {refusal.position: refusal for refusal in exceptions}
