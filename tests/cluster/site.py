"""A data folder with one owner in this process, whom a market of its own tells what happens."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from actors.shard_actor import ShardActor
from actors.starts import Start
from cluster.assembly import make_logs, make_owner
from cluster.feeding import Feed, Router
from cluster.settings import LogSettings, Settings, ShardSettings
from cluster.topics import topics_of
from engine.deltas import AnyDelta
from engine.shard import Shard
from gateway.commands import CommandSender
from persistence.decision_reader import DecisionReader
from persistence.ports import COMMANDS, DECISIONS, DELTAS, Logs
from training.worlds.market import DAY_MS, Market


class Site:
    """A data folder with one owner that decides what is fed, at event time."""

    def __init__(self, settings: Settings, logs: Logs, actor: ShardActor) -> None:
        self.settings = settings
        self.logs = logs
        self.actor = actor
        self._feed = Feed(logs, Router(1, {}))
        self._commands = CommandSender(logs, partitions=1, spreads={})

    @property
    def shard(self) -> Shard:
        shard = self.actor._shard
        assert isinstance(shard, Shard)
        return shard

    async def feed(self, deltas: Sequence[AnyDelta]) -> None:
        """Send deltas and let them be decided, with all work that follows."""
        await self._feed.send(deltas)
        await self._decide_all()

    async def command(self, delta: AnyDelta) -> None:
        """Send a command and let it be decided, with all work that follows."""
        (to,) = self._commands.to_retailer(delta.retailer)
        await self._commands.send(to, delta)
        await self._decide_all()

    async def close(self) -> None:
        """Close what was opened for sending."""
        await self._feed.close()
        await self._commands.close()

    async def _decide_all(self) -> None:
        lanes = [await self.logs.open(topic, 0) for topic in (COMMANDS, DELTAS)]
        while True:
            await self.actor.step()
            ends = [await lane.end() - 1 for lane in lanes]
            if [self.shard.last_command, self.shard.last_delta] == ends and not self.shard.backlog:
                break
        for lane in lanes:
            await lane.close()

    async def quotes(self, after_seq: int) -> np.ndarray:
        """Return the quotes of all decisions after one."""
        log = await self.logs.open(DECISIONS, 0)
        reader, found = DecisionReader(None, shard=0, generation=1), []
        for record in await log.read(-1, limit=100_000, wait_ms=0):
            accepted = reader.accept(record)
            decided = None if accepted is None else accepted.decided
            if decided is not None and decided.seq > after_seq:
                found.append(decided.quotes)
        await log.close()
        return np.concatenate(found)


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    settings = Settings(
        folder=folder,
        log=LogSettings(backend="sqlite"),
        shards=ShardSettings(count=1, clock="event"),
    )
    logs = make_logs(settings)
    await logs.create(topics_of(settings), retention_ms=10**12)
    actor = await make_owner(settings, Start(shard=0, number=1, owner=b"o" * 16), logs)
    await actor.start()
    try:
        at = Site(settings, logs, actor)
        yield at
        await at.close()
    finally:
        await actor._let_go()
        await logs.close()


async def traded(market: Market, at: Site, days: int) -> None:
    """Let the market live for some days with the prices that the owner decides."""
    for _ in range(days):
        prices = {}
        for key in market.keys:
            live = at.shard.live(key)
            if live is not None and live["in_force_minor"] > 0:
                prices[key] = live["in_force_minor"]
        await at.feed(market.advance(prices, at.shard.decided_ms // DAY_MS * DAY_MS + DAY_MS))
