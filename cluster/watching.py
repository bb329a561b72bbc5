"""The supervisor's process: it watches the shards' marks and keeps one live owner of each.

It may die at any time: ``repricer up`` starts another, which finds the living owners by their cards
in the run folder and goes on.
"""

import asyncio
import logging
import os
import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from msgspec import Struct

from actors.patience import patiently
from actors.supervisor import Decisions, Supervisor
from actors.watch import Alarm, SupervisorSettings, Watch
from cluster.assembly import make_logs
from cluster.control import ControlClient, ControlServer, control_token
from cluster.launching import PHASES, RayLauncher, living_owners
from cluster.processes import own_name, write_file
from cluster.settings import Settings
from cluster.telemetry import Sample, make_registry
from engine.errors import FailedDependency, LogFault
from persistence.decision_reader import Accepted, DecisionReader
from persistence.ports import DECISIONS, WATCH, Log, Logs

LOGGER = logging.getLogger("repricer.supervisor")

TAIL_RECORDS: Final = 2_000
"""How far before the end of a decision log we first look for its reigning start."""

STARTS_KEPT: Final = 20


class Generation(Struct, frozen=True, kw_only=True):
    """How the work is cut. Every canary says it, so that a start with another cut is refused."""

    generation: int
    partitions: int
    spreads: dict[str, int]
    clock: str


class Canary(Struct, frozen=True, kw_only=True):
    """What the supervisor writes several times a second to prove that the log answers."""

    cut: Generation
    sent_ms: int
    pid: int


def generation_of(settings: Settings) -> Generation:
    """Return the cut that the settings describe."""
    shards = settings.shards
    return Generation(
        generation=shards.generation,
        partitions=shards.count,
        spreads=dict(shards.spreads),
        clock=shards.clock,
    )


async def reader_near_end(
    log: Log, *, shard: int, generation: int
) -> tuple[DecisionReader, Accepted | None]:
    """Return a reader that has read to the log's end and knows who reigns, if anybody does.

    With it comes the last record that counts.

    Owners repeat their start at each checkpoint, so it is mostly near; otherwise we look ever
    further back.

    Raises:
        FailedDependency: the log did not answer, or not up to its end.
    """
    end, start = await log.end(), await log.start()
    back = TAIL_RECORDS
    while True:
        after = max(end - 1 - back, start - 1)
        reader = DecisionReader(None, shard=shard, generation=generation, after=max(after, -1))
        last: Accepted | None = None
        while reader.offset < end - 1:
            records = await log.read(reader.offset, limit=500, wait_ms=1000)
            if not records:
                # Taken for the end, it would leave a reader that knows nobody who reigns.
                raise FailedDependency(f"shard {shard}: the log, up to {end}, did not answer")
            for record in records:
                last = reader.accept(record) or last
        if reader.started is not None or after < start:
            return reader, last
        back *= 8


def start_numbers(settings: Settings) -> Iterator[tuple[int, int]]:
    """Yield (shard, number) of every start that left a trace."""
    pattern = re.compile(r"^shard-(\d{3})-s(\d{4,})")
    for folder in ("run/owners", "run/ends", "logs"):
        for path in (settings.folder / folder).glob("shard-*"):
            found = pattern.match(path.name)
            if found:
                yield int(found[1]), int(found[2])


def forget_old_starts(settings: Settings) -> None:
    """Remove logs and last words of starts long gone."""
    for shard in range(settings.shards.count):
        for folder, suffix in (("run/ends", ".json"), ("logs", ".log")):
            names = (settings.folder / folder).glob(f"shard-{shard:03d}-s*{suffix}*")
            for path in sorted(names, key=lambda path: path.stat().st_mtime)[:-STARTS_KEPT]:
                path.unlink(missing_ok=True)


async def run_supervisor(settings: Settings, settings_file: Path) -> None:
    """Watch and replace until SIGTERM; owners live on."""
    shards = range(settings.shards.count)
    limits = settings.supervisor
    rules = SupervisorSettings(
        silence_ms=limits.silence_ms,
        start_ms=limits.start_ms,
        canary_ms=limits.canary_ms,
        canary_deadline_ms=limits.canary_deadline_ms,
        backoff_ms_max=limits.backoff_ms_max,
        standby=settings.shards.standby,
        spare=limits.spare,
    )
    forget_old_starts(settings)
    watch = Watch(shards, rules, new_owner=lambda: os.urandom(16))
    for shard, number in start_numbers(settings):
        if shard in watch.places:
            watch.numbered(shard, number)
    logs = make_logs(settings)
    token = control_token(settings.run_folder)
    decisions, faults = await open_decisions(logs, shards, settings)
    async with aiohttp.ClientSession() as session:
        launcher = RayLauncher(settings, settings_file, ControlClient(session, token))
        supervisor = Supervisor(
            watch,
            launcher,
            decisions,
            await patiently(lambda: logs.open(WATCH, 0)),
            rules,
            canary=lambda: _canary(settings),
            alarm=_alarm,
        )
        for shard, fault in faults.items():
            supervisor.blinded(shard, fault)
        launcher.clear_spares()
        for launched in living_owners(settings.run_folder):
            if launched.start.shard in watch.places:
                launcher.know(launched)
                status = await _status_of(launched.address, session, token)
                phase = PHASES.get(str(status.get("phase")), "starting")
                supervisor.adopt(launched, phase)
        server = ControlServer(
            token,
            status=lambda: supervisor_status(supervisor),
            registry=make_registry("supervisor", lambda: _samples(supervisor)),
            acts={},
        )
        address = await server.start()
        write_role(settings, "supervisor", address)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, supervisor.stop)
        loop.add_signal_handler(signal.SIGINT, supervisor.stop)
        try:
            await supervisor.run()
        finally:
            await launcher.close()
            await server.close()
            await logs.close()


def write_role(settings: Settings, role: str, address: str) -> None:
    """Say in the run folder where a process of ours is."""
    card = {"process": own_name(), "address": address}
    write_file(settings.run_folder / "processes" / f"{role}.json", card)


def supervisor_status(supervisor: Supervisor) -> dict[str, Any]:
    """Return what the supervisor knows of every shard."""
    places = []
    for place in supervisor.watch.places.values():
        places.append(
            {
                "shard": place.shard,
                "owner": place.owner.start.name if place.owner else None,
                "phase": place.owner.phase if place.owner else "none",
                "standby": place.standby.start.name if place.standby else None,
                "standby_phase": place.standby.phase if place.standby else None,
                "silence_ms": round(place.silence_ms),
                "starved_ms": round(place.starved_ms),
                "deaths": place.deaths,
                "cautious": place.cautious,
                "stopped": place.stopped,
                "log_fault": supervisor.log_faults.get(place.shard, ""),
                "ends": place.ends[-5:],
            }
        )
    return {
        "pid": os.getpid(),
        "proven_ms": round(supervisor.watch.proven_ms),
        "spare": supervisor.has_spare,
        "shards": places,
    }


def _samples(supervisor: Supervisor) -> Iterator[Sample]:
    yield (
        "proven_seconds_total",
        "time in which the log answered canaries quickly",
        {},
        supervisor.watch.proven_ms / 1000,
    )
    for place in supervisor.watch.places.values():
        labels = {"shard": str(place.shard)}
        yield "shard_silence_seconds", "proven time without a mark", labels, place.silence_ms / 1000
        yield "shard_stopped", "1 when a person must look", labels, float(bool(place.stopped))
        yield "shard_starts_total", "starts of owners", labels, float(place.next_number - 1)


def _canary(settings: Settings) -> bytes:
    sent_ms = time.time_ns() // 1_000_000
    return msgspec.json.encode(
        Canary(cut=generation_of(settings), sent_ms=sent_ms, pid=os.getpid())
    )


def _alarm(alarm: Alarm) -> None:
    LOGGER.warning("alarm %s, shard %d: %s", alarm.what, alarm.shard, alarm.detail)


async def open_decisions(
    logs: Logs, shards: Iterable[int], settings: Settings
) -> tuple[dict[int, Decisions], dict[int, LogFault]]:
    """Return what to read of each shard, and why nothing of the others: they stop nobody else."""
    decisions, faults = {}, {}
    for shard in shards:
        try:
            decisions[shard] = await _open_decisions(logs, shard, settings)
        except LogFault as fault:
            faults[shard] = fault
    return decisions, faults


async def _open_decisions(logs: Logs, shard: int, settings: Settings) -> Decisions:
    generation = settings.shards.generation
    log = await patiently(lambda: logs.open(DECISIONS, shard))
    reader, last = await patiently(lambda: reader_near_end(log, shard=shard, generation=generation))
    return Decisions(log, reader, last)


async def _status_of(address: str, session: aiohttp.ClientSession, token: str) -> Mapping[str, Any]:
    try:
        return await ControlClient(session, token).status(address, deadline_s=2.0)
    except FailedDependency:
        return {}
