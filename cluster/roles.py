"""The processes that ``repricer up`` starts: ``python -m cluster.roles ROLE SETTINGS``."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop

from actors.follower import Follower
from actors.shipping import Shipping
from cluster.assembly import make_followers, make_logs, make_shipping, make_sinks, merge_bases
from cluster.control import ControlServer, control_token
from cluster.owner import memory_bytes
from cluster.priority import stand_back
from cluster.settings import Settings
from cluster.telemetry import configure_logs, follower_samples, make_registry
from cluster.watching import run_supervisor, write_role
from engine.errors import (
    CursorFenced,
    FailedDependency,
    LogFault,
    PricingError,
    SettingsRefused,
)

LOGGER = logging.getLogger("repricer.roles")

CATCH_UP_S = 10.0
SHIP_EVERY_MS = 15_000
MERGE_EVERY_CHECKPOINTS = 12
CAUGHT_UP_MS = 1_000


async def run_followers(settings: Settings) -> None:
    """Carry the decisions into every store until SIGTERM, and then up to the log's end."""
    logs = make_logs(settings)
    stores, sinks = make_sinks(settings, logs)
    followers = await _patiently_make(settings, logs, sinks)
    server = ControlServer(
        control_token(settings.run_folder),
        status=lambda: followers_status(followers),
        registry=make_registry(
            "followers", lambda: follower_samples(each.status() for each in followers)
        ),
        acts={},
    )
    write_role(settings, "followers", await server.start())
    tasks = [asyncio.ensure_future(_follow(follower)) for follower in followers]
    tasks += [
        asyncio.ensure_future(_ship(shipping)) for shipping in make_shipping(settings, stores)
    ]
    tasks.append(asyncio.ensure_future(_merge(settings)))
    if settings.training.nightly_hour >= 0:
        tasks.append(asyncio.ensure_future(_train_by_night(settings)))
    await _told_to_stop()
    for follower in followers:
        follower.hurry()
    await _catch_up(followers)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=5)
    await server.close()
    await stores.close()
    await logs.close()


def followers_status(followers: list[Follower]) -> dict[str, Any]:
    """Return how far every follower has come."""
    return {
        "pid": os.getpid(),
        "memory_bytes": memory_bytes(),
        "followers": [follower.status() for follower in followers],
    }


async def _patiently_make(settings: Settings, logs: Any, sinks: Any) -> list[Follower]:
    while True:
        try:
            return await make_followers(settings, logs, sinks)
        except FailedDependency as error:
            LOGGER.warning("followers wait for the log: %s", error)
            await asyncio.sleep(0.5)


async def _follow(follower: Follower) -> None:
    """Run one follower; one that stops loudly leaves the others alone, and its state says why."""
    try:
        await follower.run()
    except (LogFault, CursorFenced, SettingsRefused) as error:
        LOGGER.critical("a follower stopped: %s", error)


async def _ship(shipping: Shipping) -> None:
    """Ship one shard's checkpoints; a replaced owner's or a torn one stops nothing else.

    Nor does a store that refuses us for a while, as with a password that is being changed.
    """
    while True:
        try:
            await shipping.run(SHIP_EVERY_MS)
        except (PricingError, OSError) as error:
            LOGGER.warning("a checkpoint was not shipped: %s", error)
        await asyncio.sleep(SHIP_EVERY_MS / 1000)


async def _merge(settings: Settings) -> None:
    """Merge bases now and then, in a process of its own: a million rows at once take seconds."""
    while True:
        await asyncio.sleep(MERGE_EVERY_CHECKPOINTS * settings.shards.checkpoint_s)
        await _apart("merge", settings)


async def _train_by_night(settings: Settings) -> None:
    """Train every retailer's model at its hour, in a process of its own that yields to all others.

    One that fails is told in the log and tried again the next night: nothing waits for it.
    """
    while True:
        await asyncio.sleep(seconds_to_hour(settings.training.nightly_hour, time.time()))
        await _apart("train", settings)


async def _apart(role: str, settings: Settings) -> None:
    """Do a role's work in a process of its own; what fails of it is told in the log."""
    file = settings.run_folder / "settings.json"
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cluster.roles", role, str(file), stdout=sys.stderr
        )
    except OSError as error:
        LOGGER.error("%s did not begin: %r; it is tried again when its time comes", role, error)
        return
    code = await child.wait()
    if code:
        LOGGER.error("%s ended with %d; the log of this process says why", role, code)


def seconds_to_hour(hour: int, now_s: float) -> float:
    """Return how long it is to the next time that a day (UTC) reaches an hour."""
    return (hour * 3600 - now_s) % 86_400 or 86_400.0


async def _catch_up(followers: list[Follower]) -> None:
    """Wait a little until every follower that still runs has written what its owner left."""
    deadline = time.monotonic() + CATCH_UP_S
    seen: list[int] = []
    while time.monotonic() < deadline:
        now = [follower.status()["seq"] for follower in followers]
        lags = [follower.lag_ms() for follower in followers if not follower.stopped_by]
        if now == seen and (not lags or max(lags) < CAUGHT_UP_MS):
            return
        seen = now
        await asyncio.sleep(0.3)


async def _told_to_stop() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()


def main(role: str, settings_file: Path) -> int:
    """Run one role until it is told to stop."""
    settings = Settings.model_validate_json(settings_file.read_bytes())
    telemetry = settings.telemetry
    configure_logs(
        role, settings.folder / "logs", level=telemetry.level, as_json=telemetry.json_logs
    )
    if role in ("merge", "train", "followers"):
        stand_back()  # owners, and starts, come first
    if role == "train":
        from cluster.commands.modelling import train_all

        return train_all(settings)
    if role == "merge":
        for name in merge_bases(settings):
            LOGGER.info("merged into %s", name)
        return 0
    work: Coroutine[Any, Any, None]
    if role == "supervisor":
        work = run_supervisor(settings, settings_file)
    elif role == "followers":
        work = run_followers(settings)
    else:
        assert role == "gateway", role
        from cluster.serving import run_gateway

        work = run_gateway(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
