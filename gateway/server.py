"""The gateway process: follows the logs and serves the application until it is told to stop."""

import asyncio
import logging
from collections.abc import Callable

from aiohttp import http_parser, web
from msgspec import Struct

from actors.clock import Clock, ClockKind, WallClock
from engine.errors import SettingsRefused
from gateway.app import make_app
from gateway.commands import CommandSender
from gateway.following import ReadOpening, follow_all
from gateway.history import HistoryReader
from gateway.keys import Keys
from gateway.replica import Replica
from gateway.routed import AskFork, RoutedFacts, RoutedFeatures, RoutedLearning, RoutedReads
from persistence.ports import Logs

logger = logging.getLogger(__name__)

KEEPALIVE_S = 15.0
SHUTDOWN_S = 3.0
HEADERS_MAX = 64
LINE_BYTES_MAX = 8190


class ServerSettings(Struct, frozen=True, kw_only=True):
    """Where the gateway listens and which generation it reads."""

    generation: int
    partitions: int
    spreads: dict[str, int] = {}
    clock: ClockKind = "wall"  # the owners'
    host: str = "127.0.0.1"
    port: int = 8080  # 0: a free one
    origins: tuple[str, ...] = ()


async def serve(
    settings: ServerSettings,
    logs: Logs,
    keys: Keys,
    *,
    clock: Clock | None = None,
    opening: ReadOpening | None = None,
    routed: RoutedReads | None = None,
    features: RoutedFeatures | None = None,
    learning: RoutedLearning | None = None,
    live_facts: RoutedFacts | None = None,
    forks: AskFork | None = None,
    history_reader: HistoryReader | None = None,
    started: Callable[[int], None] | None = None,
) -> None:
    """Follow and serve until cancelled. ``started`` is told the port once it is open.

    The process serves from the first moment: until the logs are read ``/readyz`` says no, and what
    is not known yet is not found. When the kernels' owners, Ray or a store are gone it serves on.
    """
    assert_c_parser()
    clock = clock or WallClock()
    replica = Replica(
        generation=settings.generation, shards=settings.partitions, clock=settings.clock
    )
    commands = CommandSender(logs, partitions=settings.partitions, spreads=settings.spreads)
    app = make_app(
        replica,
        commands,
        keys,
        clock,
        routed=routed,
        routed_features=features,
        routed_learning=learning,
        routed_facts=live_facts,
        forks=forks,
        history_reader=history_reader,
        origins=settings.origins,
    )
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=KEEPALIVE_S,
        shutdown_timeout=SHUTDOWN_S,
        auto_decompress=False,
        max_headers=HEADERS_MAX,
        max_line_size=LINE_BYTES_MAX,
        max_field_size=LINE_BYTES_MAX,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, backlog=1024)
        await site.start()
        port = runner.addresses[0][1]
        logger.info("gateway listens on http://%s:%d", settings.host, port)
        if started is not None:
            started(port)
        await follow_all(replica, logs, clock, opening)
        # Following ended in every shard, each with a fault that was logged: serve what is known.
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
        await commands.close()


def assert_c_parser() -> None:
    """Refuse to serve with aiohttp's parser in Python, which is slow and frames differently."""
    if http_parser.HttpRequestParser is http_parser.HttpRequestParserPy:
        raise SettingsRefused("aiohttp runs without its C extension: install its wheel")
