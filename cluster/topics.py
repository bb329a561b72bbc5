"""The topics of both logs: made where they are missing, refused where they were cut otherwise."""

import time
from typing import Final

import msgspec

from actors.patience import Patience
from cluster.settings import Settings
from cluster.watching import Canary, Generation, generation_of
from engine.errors import FailedDependency, SettingsRefused
from persistence.ports import COMMANDS, DEAD_LETTERS, DECISIONS, DELTAS, WATCH, Logs

DAY_MS: Final = 86_400_000


def topics_of(settings: Settings) -> dict[str, int]:
    """Return every topic and its number of partitions."""
    count = settings.shards.count
    return {DELTAS: count, COMMANDS: count, DECISIONS: count, DEAD_LETTERS: count, WATCH: 1}


async def prepare_logs(settings: Settings, logs: Logs, *, patience_s: float = 60.0) -> None:
    """Create the topics that are missing, and refuse settings that contradict those that exist.

    Raises:
        SettingsRefused: partitions, retention, generation, spreads or clock differ.
        FailedDependency: the log did not answer for ``patience_s``.
    """
    deadline = time.monotonic() + patience_s
    patience = Patience(first_ms=100)
    while True:
        try:
            await logs.create(
                topics_of(settings), retention_ms=int(settings.log.retention_days * DAY_MS)
            )
            recorded = await recorded_generation(logs)
            break
        except FailedDependency:
            if time.monotonic() > deadline:
                raise
            await patience.wait()
    if recorded is not None:
        refuse_another_cut(recorded, generation_of(settings))


async def recorded_generation(logs: Logs) -> Generation | None:
    """Return the cut that the log's last canary names, ``None`` when nobody supervised yet.

    Raises:
        FailedDependency: the log holds a canary and did not give it in time.
    """
    log = await logs.open(WATCH, 0)
    try:
        end = await log.end()
        if end <= await log.start():
            return None
        records = await log.read(end - 2, limit=1, wait_ms=1000)
    finally:
        await log.close()
    if not records:
        raise FailedDependency(f"{WATCH}: the log did not give its last canary in time")
    return msgspec.json.decode(records[-1].value, type=Canary).cut


def refuse_another_cut(recorded: Generation, wanted: Generation) -> None:
    """Raise unless the settings cut the work as the log was cut.

    Raises:
        SettingsRefused: they do not; the message names the key and both values.
    """
    for key in ("generation", "partitions", "spreads"):
        before, now = getattr(recorded, key), getattr(wanted, key)
        if before != now:
            name = "count" if key == "partitions" else key
            raise SettingsRefused(
                f"shards.{name}: the log was written with {before}, the settings say {now}: set "
                f"it back, or begin a new generation with a new folder or new topics"
            )
    if recorded.clock == "wall" and wanted.clock == "event":
        raise SettingsRefused(
            "shards.clock: the log was decided by the wall clock, so event time would stand still: "
            "set it back to 'wall', or begin a new generation"
        )
