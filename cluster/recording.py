"""One shard's recorded life: a shard where its log or a checkpoint begins, and what came then.

For whoever decides it again: a fork takes over what is recorded up to the end, a backtest decides
it by another policy. The owner is neither asked nor disturbed.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from actors.artefacts import Artefacts
from actors.inbox import Inbox, InboxLimits
from cluster.assembly import make_blobs
from cluster.replaying import READ_RECORDS, From, horizon_of
from cluster.settings import Settings
from engine.artefact import Artefact
from engine.decided import Decided
from engine.errors import RejectedInput
from engine.microbatch import Microbatch
from engine.shard import Shard, ShardSettings
from persistence.checkpoints import Chain
from persistence.decision_reader import DecisionReader
from persistence.ports import COMMANDS, DECISIONS, DELTAS, Log, Logs
from persistence.wire import Decoder


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

    async def microbatches(self) -> AsyncIterator[Recorded]:
        """Yield what was decided, in order; the shard stays as it is until the caller decides."""
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
                artefacts = await self._artefacts.again(batch, decided)
                yield Recorded(batch, decided, self._domain, artefacts)
            if not records:
                return


@asynccontextmanager
async def open_recording(
    settings: Settings, logs: Logs, number: int, begin: From
) -> AsyncIterator[Recording]:
    """Open a shard's log where it begins, or at its newest checkpoint (if there is one).

    Raises:
        LogTruncated: neither the log nor a checkpoint reaches back far enough.
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
        chain, horizon = await _begin(settings, number, begin, decisions, [commands, deltas])
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


async def _begin(
    settings: Settings, number: int, begin: From, decisions: Log, lanes: list[Log]
) -> tuple[Chain | None, str]:
    if begin == "checkpoint":
        try:
            return await horizon_of(settings, number, begin, decisions, lanes)
        except RejectedInput:
            pass  # none was taken yet: the log holds everything
    return await horizon_of(settings, number, "oldest", decisions, lanes)
