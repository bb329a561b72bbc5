"""The gateway's process: its replica, its keys, and its way to the owners for strong reads.

A strong read goes to the owner over his own loopback port. Through Ray it would need a driver in
this process, and a driver dies with its raylet: a gateway must survive every part of Ray
(docs/decisions/strong-reads.md).
"""

import asyncio
import contextlib
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from actors.pauses import settle
from cluster.assembly import make_checkpoints, make_history_reader, make_logs, make_series
from cluster.control import ControlClient, control_token
from cluster.forking import Forks
from cluster.owner import OwnerCard, owner_cards
from cluster.processes import lives
from cluster.settings import Settings
from cluster.trial import gateway_clock
from cluster.watching import write_role
from engine.errors import FailedDependency
from gateway.keys import load_keys
from gateway.opening import CheckpointOpenings
from gateway.routed import RoutedFacts, RoutedFeatures, RoutedLearning, RoutedReads
from gateway.server import ServerSettings, serve


class OwnerReads:
    """Asks the living owner of a shard about its listings."""

    def __init__(self, settings: Settings, control: ControlClient) -> None:
        self._run_folder = settings.run_folder
        self._control = control
        self._owners: dict[int, OwnerCard] = {}

    async def ask(self, shard: int, listing: int, deadline_ms: int) -> Mapping[str, Any]:
        """Return the listing's state after a mark appended after this call.

        Raises:
            FailedDependency: there is no owner, or it did not answer.
        """
        answer = await self._act(shard, "strong-read", deadline_ms, listing=listing)
        state: Mapping[str, Any] = answer["listing"] or {}
        return state

    async def features(
        self, shard: int, listings: Sequence[int], deadline_ms: int, strong: bool
    ) -> Mapping[str, Any]:
        """Return the features of a slice of listings and the mark that they are as of.

        Raises:
            DeadlinePassed: the owner answered that it could not in time.
            FailedDependency: there is no owner, or it did not answer.
        """
        return await self._act(shard, "features", deadline_ms, listings=listings, strong=strong)

    async def learning(self, shard: int, retailer: str, deadline_ms: int) -> Mapping[str, Any]:
        """Return what is learnt of a retailer's demand and the mark that it is as of.

        Raises:
            DeadlinePassed: the owner answered that it could not in time.
            FailedDependency: there is no owner, or it did not answer.
        """
        return await self._act(shard, "learning", deadline_ms, retailer=retailer)

    async def live_facts(self, shard: int, listing: int, deadline_ms: int) -> Mapping[str, Any]:
        """Return what explains a listing's price now and the mark that it is as of.

        Raises:
            DeadlinePassed: the owner answered that it could not in time.
            FailedDependency: there is no owner, or it did not answer.
        """
        return await self._act(shard, "live-facts", deadline_ms, listing=listing)

    async def _act(self, shard: int, act: str, deadline_ms: int, **asked: Any) -> Mapping[str, Any]:
        card = self._owners.get(shard)
        if card is None or not lives(card.process):
            card = self._find(shard)
        arguments = {**asked, "deadline_ms": deadline_ms}
        answer: Mapping[str, Any] = await self._control.act(
            card.address, act, arguments, deadline_s=deadline_ms / 1000
        )
        return answer

    def _find(self, shard: int) -> OwnerCard:
        try:
            told = owner_cards(self._run_folder)
        except OSError as error:  # who ends takes his card away, also while it is looked for
            raise FailedDependency(f"owners come and go just now; ask again: {error}") from error
        cards = [card for card in told if card.start.shard == shard and lives(card.process)]
        if not cards:
            raise FailedDependency(f"shard {shard} has no owner just now; ask again")
        # A standby answers that it is not live; the lower number is the owner, until it dies.
        card = min(cards, key=lambda card: card.start.number)
        self._owners[shard] = card
        return card


def server_settings(settings: Settings) -> ServerSettings:
    """Return what the gateway needs to know of its cluster."""
    return ServerSettings(
        generation=settings.shards.generation,
        partitions=settings.shards.count,
        spreads=dict(settings.shards.spreads),
        clock=settings.shards.clock,
        host=settings.gateway.host,
        port=settings.gateway.port,
    )


async def run_gateway(settings: Settings) -> None:
    """Serve until SIGTERM."""
    settle()  # the libraries are here to stay
    logs = make_logs(settings)
    server = server_settings(settings)

    def started(port: int) -> None:
        write_role(settings, "gateway", f"http://{settings.gateway.host}:{port}")

    async with aiohttp.ClientSession() as session:
        control = ControlClient(session, control_token(settings.run_folder))
        owners = OwnerReads(settings, control)
        forks = Forks(settings)
        series = make_series(settings)
        serving = asyncio.ensure_future(
            serve(
                server,
                logs,
                load_keys(settings.keys_file),
                clock=gateway_clock(settings.shards.count),
                opening=CheckpointOpenings(
                    {
                        shard: make_checkpoints(settings, shard)
                        for shard in range(settings.shards.count)
                    }
                ),
                routed=RoutedReads(owners.ask),
                features=RoutedFeatures(owners.features),
                learning=RoutedLearning(owners.learning),
                live_facts=RoutedFacts(owners.live_facts),
                forks=forks.ask,
                history_reader=make_history_reader(series),
                started=started,
            )
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, serving.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        await forks.close()
        await series.close()
        await logs.close()
