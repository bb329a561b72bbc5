"""Commands that concern a whole retailer are written to the log, and their outcomes awaited."""

import asyncio
import secrets
import time
from typing import Any

import aiohttp
from msgspec.structs import replace

from cluster.assembly import make_checkpoints
from cluster.control import ControlClient, control_token
from cluster.feeding import Router
from cluster.launching import living_owners
from cluster.settings import Settings
from engine.decided import Outcome
from engine.deltas import ModelPromoted
from engine.errors import FailedDependency
from engine.promotion import MISSING
from persistence.checkpoints import stands_in_log
from persistence.decision_reader import DecisionReader
from persistence.ports import COMMANDS, DECISIONS, Log, Logs
from persistence.wire import encode_delta

ANSWER_S = 15.0
TRIES = 3
"""An artefact that was not there in time is asked for again: by then it has come."""


async def promote(settings: Settings, logs: Logs, delta: ModelPromoted) -> list[Outcome]:
    """Give a promotion to every shard that holds a part of the retailer; return their answers.

    Raises:
        FailedDependency: a shard did not answer in time. The command stays given.
    """
    router = Router(settings.shards.count, settings.shards.spreads)
    places = router.of_delta(delta)
    for tried in range(TRIES):
        named = replace(
            delta, command_id=f"model-{secrets.token_hex(8)}", observed_ms=_now_ms(), actor="cli"
        )
        outcomes = await asyncio.gather(
            *(_give(settings, logs, named, key, partition) for key, partition in places)
        )
        if not any(outcome.detail == MISSING for outcome in outcomes) or tried == TRIES - 1:
            return list(outcomes)
        await asyncio.sleep(1.0)
    raise AssertionError("unreachable")


async def _give(
    settings: Settings, logs: Logs, delta: ModelPromoted, key: str, partition: int
) -> Outcome:
    decisions = await logs.open(DECISIONS, partition)
    commands = await logs.open(COMMANDS, partition)
    try:
        reader = await _reader(settings, partition, decisions)
        appender = await commands.appender()
        await appender.append(
            encode_delta(delta), key=key.encode(), content_type="application/json"
        )
        await appender.close()
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            for record in await decisions.read(reader.offset, limit=500, wait_ms=250):
                accepted = reader.accept(record)
                if accepted is None or accepted.decided is None:
                    continue
                for outcome in accepted.decided.outcomes:
                    if outcome.command_id == delta.command_id:
                        return outcome
        raise FailedDependency(f"shard {partition} did not answer: is `repricer up` running?")
    finally:
        await commands.close()
        await decisions.close()


async def _reader(settings: Settings, shard: int, decisions: Log) -> DecisionReader:
    """Return a reader that begins at the newest checkpoint: the log may hold weeks."""
    generation = settings.shards.generation
    async for chain in make_checkpoints(settings, shard).candidates():
        if await stands_in_log(chain.position, decisions, shard=shard, generation=generation):
            return DecisionReader(chain.position, shard=shard, generation=generation)
    start = await decisions.start()
    return DecisionReader(None, shard=shard, generation=generation, after=start - 1)


async def serving(settings: Settings) -> dict[str, dict[str, Any]] | None:
    """Return what living owners say serves, by retailer and place; ``None``: no owner is up."""
    owners = living_owners(settings.run_folder)
    if not owners:
        return None
    found: dict[str, dict[str, Any]] = {}
    async with aiohttp.ClientSession() as session:
        control = ControlClient(session, control_token(settings.run_folder))
        for owner in owners:
            told: dict[str, dict[str, Any]] = await control.act(owner.address, "models")
            for retailer, places in told.items():
                found.setdefault(retailer, {}).update(places)
    return found


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
