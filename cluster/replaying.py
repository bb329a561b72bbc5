"""Re-executes what was decided, from the oldest possible point, and compares.

The recorded decision wins: after each comparison the shard goes on from what was recorded, so one
difference is counted once and does not hide the next.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec import Struct

from actors.artefacts import Artefacts
from actors.inbox import Inbox, InboxLimits
from cluster.assembly import fetch_pinned, make_blobs, make_checkpoints, make_logs
from cluster.settings import Settings
from engine.errors import (
    CorruptCheckpoint,
    FailedDependency,
    LogTruncated,
    PricingError,
    RejectedInput,
)
from engine.replay import Agreement
from engine.shard import Shard, ShardSettings
from persistence.checkpoints import Chain, stands_in_log
from persistence.decision_reader import DecisionReader
from persistence.ports import COMMANDS, DECISIONS, DELTAS, Log, Logs
from persistence.wire import Decoder

From = Literal["oldest", "checkpoint"]

READ_RECORDS = 256

LOGGER = logging.getLogger("repricer.replaying")


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
    first_difference: int | None
    digest: str  # at ``to_seq``
    domain: str
    seconds: float


async def replay_shard(
    settings: Settings,
    shard_number: int,
    *,
    begin: From,
    progress: Callable[[int], None] = lambda decisions: None,
) -> Replayed:
    """Re-execute one shard up to the end its log has now.

    Raises:
        LogTruncated: neither the log nor a checkpoint reaches back far enough.
        RejectedInput: a checkpoint was asked for and there is none.
    """
    logs = make_logs(settings)
    try:
        return await _replay(settings, logs, shard_number, begin, progress)
    finally:
        await logs.close()


async def _replay(
    settings: Settings,
    logs: Logs,
    shard_number: int,
    begin: From,
    progress: Callable[[int], None],
) -> Replayed:
    began = time.monotonic()
    generation = settings.shards.generation
    opened = [await logs.open(topic, shard_number) for topic in (DECISIONS, COMMANDS, DELTAS)]
    decisions, commands, deltas = opened
    try:
        end = await decisions.end()
        chain, horizon = await horizon_of(
            settings, shard_number, begin, decisions, [commands, deltas]
        )
    except BaseException:
        for log in opened:
            await log.close()
        raise
    shard_settings = ShardSettings(shard=shard_number, generation=generation)
    shard = Shard(shard_settings) if chain is None else Shard.restore(chain.parts, shard_settings)
    reader = DecisionReader(
        None if chain is None else chain.position, shard=shard_number, generation=generation
    )
    decoder = Decoder(shard_number, settings.shards.count, settings.shards.spreads)
    inbox = Inbox(commands, deltas, decoder, InboxLimits())
    inbox.begin(shard.last_command, shard.last_delta)
    counts = {"decisions": 0, "quotes": 0, "deltas": 0, "differences": 0, "expected": 0}
    fetched = Artefacts(make_blobs(settings))
    from_seq, first_difference = shard.seq, None
    domain = "" if chain is None else chain.header.replay_domain
    try:
        while reader.offset < end - 1:
            records = await decisions.read(reader.offset, limit=READ_RECORDS, wait_ms=1000)
            for record in records:
                if record.offset >= end:
                    break
                accepted = reader.accept(record)
                if accepted is None:
                    continue
                if accepted.started is not None:
                    domain = accepted.started.replay_domain
                if accepted.decided is None:
                    continue
                decided = accepted.decided
                batch = await inbox.read_exactly(decided.last_command, decided.last_delta)
                artefacts = await fetched.again(batch, decided)
                agreement = shard.replay(batch, decided, artefacts)
                counts["decisions"] += 1
                counts["quotes"] += len(decided.quotes)
                counts["deltas"] += batch.deltas
                if agreement is not Agreement.EXACT:
                    kind = "differences" if domain in ("", shard.domain) else "expected"
                    counts[kind] += 1
                    first_difference = first_difference or decided.seq
            progress(counts["decisions"])
            if not records or records[-1].offset >= end - 1:
                break
    finally:
        await inbox.close()
        for log in opened:
            await log.close()
    return Replayed(
        shard=shard_number,
        horizon=horizon,
        from_seq=from_seq,
        to_seq=shard.seq,
        first_difference=first_difference,
        digest=f"{shard.digest:016x}",
        domain=shard.domain,
        seconds=round(time.monotonic() - began, 2),
        **counts,
    )


async def horizon_of(
    settings: Settings, shard_number: int, begin: From, decisions: Log, lanes: list[Log]
) -> tuple[Chain | None, str]:
    """Return where to begin: the log's start if all of it is there, else a checkpoint."""
    starts = [await log.start() for log in (decisions, *lanes)]
    if begin == "oldest" and not any(starts):
        return None, "the start of the log"
    if begin == "oldest":
        try:
            await fetch_pinned(settings, shard_number)
        except (FailedDependency, CorruptCheckpoint) as error:
            LOGGER.warning("shard %d: no pinned checkpoint fetched: %s", shard_number, error)
    chains = []
    files = make_checkpoints(settings, shard_number)
    async for chain in files.candidates():
        if await stands_in_log(
            chain.position, decisions, shard=shard_number, generation=settings.shards.generation
        ):
            chains.append(chain)
            if begin == "checkpoint":
                break
    fitting = [
        chain
        for chain in chains
        if chain.position.offset >= starts[0] - 1
        and chain.header.last_command >= starts[1] - 1
        and chain.header.last_delta >= starts[2] - 1
    ]
    if fitting:
        chosen = fitting[-1]  # newest first: the last one reaches back furthest
        decided = datetime.fromtimestamp(chosen.header.decided_ms / 1000, UTC)
        when = decided.isoformat(timespec="seconds").replace("+00:00", "Z")
        return chosen, f"checkpoint {chosen.name}, decided {when}"
    refused = "".join(f"; {error}" for error in files.incompatible.values())
    if begin == "checkpoint":
        raise RejectedInput(
            "/from",
            f"shard {shard_number} has no valid checkpoint{refused}",
            "`repricer checkpoint` takes one",
        )
    raise LogTruncated(
        f"shard {shard_number}: the log's head was removed by retention and no checkpoint reaches "
        f"back to what is left{refused}"
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
