"""What the logs themselves say: counts and checksums with which every sink is compared."""

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct

from actors.sinks.dead_letters import tally_letters
from actors.sinks.delta_lanes import (
    READ_TRIES,
    DeltaLanes,
    facts_kept,
    refusals_by_position,
)
from actors.sinks.history import FACT_TABLES
from engine.decided import Decided
from engine.errors import FailedDependency
from engine.microbatch import VERDICTS, Refusal
from persistence.checksums import FACT_FIELDS, Tally, tally, tally_quotes
from persistence.decision_reader import DecisionReader
from persistence.ports import Log

READ_RECORDS_MAX = 500
READ_WAIT_MS = 500


class LogSummary(Struct, frozen=True):
    """What one shard's decision log, and the deltas that it consumed, hold up to ``seq``."""

    seq: int
    prices: Tally
    facts: Mapping[str, Tally]  # by table of history
    letters: Tally  # refused deltas
    by_verdict: Mapping[str, int]
    outcomes: int


async def summarize_log(
    log: Log,
    deltas: DeltaLanes | None,
    *,
    shard: int,
    generation: int,
    through_seq: int | None = None,
) -> LogSummary:
    """Read a decision log from its beginning and return what the sinks must hold.

    Without ``deltas`` the facts are not counted. ``through_seq`` stops at a sink's own ``seq``.
    """
    reader = DecisionReader(None, shard=shard, generation=generation)
    prices, outcomes, seq = Tally(), 0, 0
    facts = dict.fromkeys(FACT_TABLES.values(), Tally())
    letters, verdicts = Tally(), Counter[str]()
    reached = (-1, -1)
    end, empty = await log.end(), 0
    while reader.offset + 1 < end and (through_seq is None or seq < through_seq):
        records = await log.read(reader.offset, limit=READ_RECORDS_MAX, wait_ms=READ_WAIT_MS)
        empty = 0 if records else empty + 1
        if empty == READ_TRIES:
            raise FailedDependency(f"shard {shard}: decisions after {reader.offset} did not come")
        for record in records:
            accepted = reader.accept(record)
            if accepted is None or accepted.decided is None:
                continue
            decided = accepted.decided
            if through_seq is not None and decided.seq > through_seq:
                break
            seq = decided.seq
            prices = prices.plus(tally_quotes(generation, shard, seq, decided.quotes))
            outcomes += len(decided.outcomes)
            letters = letters.plus(_letters(generation, shard, decided.exceptions))
            verdicts.update(refusal.verdict for refusal in decided.exceptions)
            if deltas is not None:
                await _add_facts(facts, deltas, generation, shard, decided, reached)
            reached = (decided.last_command, decided.last_delta)
    return LogSummary(seq, prices, facts, letters, dict(verdicts), outcomes)


async def _add_facts(
    facts: dict[str, Tally],
    deltas: DeltaLanes,
    generation: int,
    shard: int,
    decided: Decided,
    reached: tuple[int, int],
) -> None:
    """Add what one decision consumed, by table."""
    refused = refusals_by_position(decided.exceptions)
    rows: dict[str, list[tuple[int, ...]]] = {}
    for lane, through in enumerate((decided.last_command, decided.last_delta)):
        for record in await deltas.read(shard, lane, reached[lane], through):
            for fact, _, _ in facts_kept(lane, record, refused):
                table = FACT_TABLES.get(fact.kind)
                if table is not None:
                    place = (lane, record.offset, fact.index)
                    row = (*place, fact.listing, fact.amount, fact.observed_ms)
                    rows.setdefault(table, []).append(row)
    for table, some in rows.items():
        columns = [generation, shard, *zip(*some, strict=True)]
        assert len(columns) == len(FACT_FIELDS)
        facts[table] = facts[table].plus(tally(columns, len(some)))


def _letters(generation: int, shard: int, refused: tuple[Refusal, ...]) -> Tally:
    assert all(refusal.verdict in VERDICTS for refusal in refused)
    return tally_letters(
        generation,
        shard,
        [
            (each.position.lane, each.position.offset, each.position.index, each.verdict)
            for each in refused
        ],
    )
