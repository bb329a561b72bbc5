"""Commands that concern a whole retailer are written to the log, and their outcomes awaited."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
from msgspec.structs import replace

from cluster.assembly import make_checkpoints
from cluster.control import ControlClient, control_token
from cluster.feeding import Router
from cluster.launching import living_owners
from cluster.settings import Settings
from engine.decided import Decided, Outcome
from engine.deltas import ModelPromoted
from engine.errors import FailedDependency
from engine.promotion import MISSING
from persistence.checkpoints import stands_in_log
from persistence.decision_reader import DecisionReader
from persistence.ports import COMMANDS, DECISIONS, Log, Logs
from persistence.wire import encode_delta

ANSWER_S = 15.0
REACH_S = 60.0
"""How long the decisions since the newest checkpoint may take to read: minutes of a busy shard."""

TRIES = 3
"""An artefact that was not there in time is asked for again: by then it has come."""


async def promote(settings: Settings, logs: Logs, delta: ModelPromoted) -> list[Outcome]:
    """Give a promotion to every shard that holds a part of the retailer; return their answers.

    It is given at each shard's own time, just after what it decided last: a cluster that is fed
    with history lives at its event time, and a promotion of today would carry it years ahead. One
    shard may be far ahead of another, so the time of the fastest would carry the slower ones, too.

    Raises:
        FailedDependency: a shard's log could not be read to its end in time: nothing was given. Or
            a shard did not answer in time: the command stays given.
    """
    router = Router(settings.shards.count, settings.shards.spreads)
    places = router.of_delta(delta)
    async with AsyncExitStack() as opened:
        ends = [await _end_of(settings, logs, partition, opened) for _, partition in places]
        for tried in range(TRIES):
            for end in ends:
                await end.reach()
            named = replace(delta, command_id=f"model-{secrets.token_hex(8)}", actor="cli")
            # Every shard is waited for, also when another one fails: until all of them have ended,
            # their logs stay open, and what is told is told after the last of them.
            outcomes = await asyncio.gather(
                *(_give(logs, named, key, end) for (key, _), end in zip(places, ends, strict=True)),
                return_exceptions=True,
            )
            answered = _unless_failed(outcomes)
            if not any(outcome.detail == MISSING for outcome in answered) or tried == TRIES - 1:
                return answered
            await asyncio.sleep(1.0)
    raise AssertionError("unreachable")


def _unless_failed(outcomes: Sequence[Outcome | BaseException]) -> list[Outcome]:
    """Return outcomes, or raise the first error among them."""
    answered = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        answered.append(outcome)
    return answered


class _End:
    """The end of one shard's decision log, and how far it is read."""

    def __init__(self, log: Log, reader: DecisionReader, decided_ms: int) -> None:
        self.log = log
        self.decided_ms = decided_ms
        self._reader = reader

    @property
    def shard(self) -> int:
        """Return whose it is."""
        return self._reader.shard

    async def reach(self) -> None:
        """Read what was decided until now.

        Raises:
            FailedDependency: the log did not hand it out in time.
        """
        end = await self.log.end()
        deadline = time.monotonic() + REACH_S
        while self._reader.offset < end - 1:
            if time.monotonic() > deadline:
                raise FailedDependency(
                    f"shard {self.shard}: its decisions were read to offset {self._reader.offset} "
                    f"of {end - 1} in {REACH_S:g} s; nothing was given, try again"
                )
            await self._read()

    async def outcome(self, command_id: str) -> Outcome:
        """Wait for a command's outcome.

        Raises:
            FailedDependency: it did not come in time.
        """
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            for decided in await self._read():
                for outcome in decided.outcomes:
                    if outcome.command_id == command_id:
                        return outcome
        raise FailedDependency(f"shard {self.shard} did not answer: is `repricer up` running?")

    async def _read(self) -> list[Decided]:
        found = []
        for record in await self.log.read(self._reader.offset, limit=500, wait_ms=250):
            accepted = self._reader.accept(record)
            if accepted is not None and accepted.decided is not None:
                found.append(accepted.decided)
                self.decided_ms = accepted.decided.decided_ms
        return found


async def _give(logs: Logs, named: ModelPromoted, key: str, end: _End) -> Outcome:
    """Give a command to one shard just after what it decided last, and wait for its outcome."""
    assert named.command_id
    delta = replace(named, observed_ms=end.decided_ms + 1)
    commands = await logs.open(COMMANDS, end.shard)
    try:
        appender = await commands.appender()
        try:
            await appender.append(
                encode_delta(delta), key=key.encode(), content_type="application/json"
            )
        finally:
            await appender.close()
        return await end.outcome(named.command_id)
    finally:
        await commands.close()


async def _end_of(settings: Settings, logs: Logs, shard: int, opened: AsyncExitStack) -> _End:
    """Return a shard's end, to be read from the newest checkpoint on: the log may hold weeks.

    Its log is closed with ``opened``.
    """
    generation = settings.shards.generation
    decisions = await logs.open(DECISIONS, shard)
    opened.push_async_callback(decisions.close)
    async for chain in make_checkpoints(settings, shard).heads():
        mark = chain.header
        if await stands_in_log(
            mark.position, decisions, shard=shard, generation=generation, digest=mark.digest
        ):
            reader = DecisionReader(chain.position, shard=shard, generation=generation)
            return _End(decisions, reader, chain.header.decided_ms)
    start = await decisions.start()
    reader = DecisionReader(None, shard=shard, generation=generation, after=start - 1)
    return _End(decisions, reader, 0)


async def serving(settings: Settings) -> dict[str, dict[str, Any]] | None:
    """Return what the shards say serves, by retailer and place; ``None``: not all of them answer.

    A standby does not answer, nor does an owner that still starts. Without the word of every shard
    nobody knows what serves a retailer: a model must not look retired because its owner just died.
    """
    found: dict[str, dict[str, Any]] = {}
    heard = set()
    async with aiohttp.ClientSession() as session:
        for owner in living_owners(settings.run_folder):
            control = ControlClient(session, control_token(settings.run_folder))
            try:
                told: dict[str, dict[str, Any]] = await control.act(owner.address, "models")
            except FailedDependency:
                continue
            heard.add(owner.start.shard)
            for retailer, places in told.items():
                found.setdefault(retailer, {}).update(places)
    return found if heard == set(range(settings.shards.count)) else None
