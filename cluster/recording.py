"""One shard's recorded life: a shard where its log or a checkpoint begins, and what came then.

For whoever decides it again: a replay compares, a fork takes over what is recorded up to the end, a
backtest decides it by another policy. The owner is neither asked nor disturbed.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Literal

from msgspec import Struct

from actors.artefacts import Artefacts
from actors.inbox import Inbox, InboxLimits
from cluster.assembly import fetch_pinned, make_blobs, make_checkpoints
from cluster.settings import Settings
from engine.artefact import Artefact
from engine.decided import Decided
from engine.deltas import ModelPromoted
from engine.errors import CorruptCheckpoint, FailedDependency, LogTruncated, RejectedInput
from engine.microbatch import Microbatch
from engine.shard import Shard, ShardSettings
from persistence.checkpoints import Chain, stands_in_log
from persistence.decision_reader import DecisionReader
from persistence.ports import COMMANDS, DECISIONS, DELTAS, Log, Logs
from persistence.wire import Decoder

From = Literal["oldest", "checkpoint", "newest"]
"""As far back as all of it reaches; at the newest checkpoint; there, or else as far back."""

READ_RECORDS = 256
SILENCE_S = 30.0
"""So long may a log that holds more give nothing, before it counts as one that cannot be read."""

LOGGER = logging.getLogger("repricer.recording")


class Recorded(Struct, frozen=True):
    """One microbatch and what was decided about it, in which replay domain, with which models."""

    batch: Microbatch
    decided: Decided
    domain: str
    artefacts: tuple[Artefact, ...] = ()


class Recording:
    """What lies between a shard's beginning and the end that its log had when it was opened."""

    def __init__(
        self,
        shard: Shard,
        horizon: str,
        domain: str,
        decisions: Log,
        reader: DecisionReader,
        inbox: Inbox,
        artefacts: Artefacts,
        end: int,
    ) -> None:
        self.shard = shard
        self.horizon = horizon
        self._domain = domain
        self._decisions = decisions
        self._reader = reader
        self._inbox = inbox
        self._artefacts = artefacts
        self._end = end

    @property
    def progress(self) -> tuple[int, int]:
        """Return how far it is read, and how far it goes: offsets of the decision log."""
        return self._reader.offset + 1, self._end

    async def microbatches(
        self, wanted: Callable[[ModelPromoted], bool] = lambda delta: True
    ) -> AsyncIterator[Recorded]:
        """Yield what was decided, in order; the shard stays as it is until the caller decides.

        Artefacts come with it of promotions that are ``wanted``; the others may be gone.

        Raises:
            FailedDependency: the log gives no more although it holds more. What ended here would
                be taken for all there is: a replay without differences, a fork of the past.
        """
        heard_at = time.monotonic()
        while self._reader.offset < self._end - 1:
            records = await self._decisions.read(
                self._reader.offset, limit=READ_RECORDS, wait_ms=1000
            )
            for record in records:
                if record.offset >= self._end:
                    return
                accepted = self._reader.accept(record)
                if accepted is None:
                    continue
                if accepted.started is not None:
                    self._domain = accepted.started.replay_domain
                decided = accepted.decided
                if decided is None:
                    continue
                batch = await self._inbox.read_exactly(decided.last_command, decided.last_delta)
                artefacts = await self._artefacts.again(batch, decided, wanted)
                yield Recorded(batch, decided, self._domain, artefacts)
            # An empty read says that nothing came in time: a fetch that fails is repeated inside.
            if records:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > SILENCE_S:
                raise FailedDependency(
                    f"shard {self._reader.shard}: the decision log ends at "
                    f"{self._end - 1} and gives nothing behind {self._reader.offset}"
                )


@asynccontextmanager
async def open_recording(
    settings: Settings, logs: Logs, number: int, begin: From
) -> AsyncIterator[Recording]:
    """Open a shard's log where it begins, or at its newest checkpoint.

    Raises:
        LogTruncated: neither the log nor a checkpoint reaches back far enough.
        RejectedInput: a checkpoint was asked for and there is none.
    """
    generation = settings.shards.generation
    opened = [await logs.open(topic, number) for topic in (DECISIONS, COMMANDS, DELTAS)]
    decisions, commands, deltas = opened
    inbox = Inbox(
        commands,
        deltas,
        Decoder(number, settings.shards.count, settings.shards.spreads),
        InboxLimits(),
    )
    try:
        end = await decisions.end()
        chain, horizon = await horizon_of(settings, number, begin, decisions, [commands, deltas])
        born = ShardSettings(shard=number, generation=generation)
        shard = Shard(born) if chain is None else Shard.restore(chain.parts, born)
        reader = DecisionReader(
            None if chain is None else chain.position, shard=number, generation=generation
        )
        inbox.begin(shard.last_command, shard.last_delta)
        domain = "" if chain is None else chain.header.replay_domain
        artefacts = Artefacts(make_blobs(settings))
        yield Recording(shard, horizon, domain, decisions, reader, inbox, artefacts, end)
    finally:
        await inbox.close()
        for log in opened:
            await log.close()


async def horizon_of(
    settings: Settings, shard_number: int, begin: From, decisions: Log, lanes: list[Log]
) -> tuple[Chain | None, str]:
    """Return where to begin: the log's start if all of it is there, else a checkpoint.

    Raises:
        LogTruncated: neither the log nor a checkpoint reaches back far enough.
        RejectedInput: a checkpoint was asked for and there is none.
    """
    if begin == "newest":
        try:
            return await horizon_of(settings, shard_number, "checkpoint", decisions, lanes)
        except RejectedInput:
            begin = "oldest"  # none was taken yet: the log holds everything
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
    async for chain in files.heads():
        if await stands_in_log(
            chain.position,
            decisions,
            shard=shard_number,
            generation=settings.shards.generation,
            digest=chain.header.digest,
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
        try:
            whole = await files.whole(chosen)
        except (CorruptCheckpoint, OSError) as error:
            raise FailedDependency(
                f"checkpoint {chosen.name} went while it was read; try again: {error}"
            ) from error
        return whole, f"checkpoint {chosen.name}, decided {when}"
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
