"""``config`` and ``servers``: what is set, and the real servers for a trial."""

import os
import sys
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from cluster.commands.speaking import Common, Voice, flags_of, settings_of, table
from cluster.settings import Settings, flatten, known_keys, origins


def show(
    *,
    origin: Annotated[bool, Parameter(negative="", help="say where each value comes from")] = False,
    common: Common | None = None,
) -> int:
    """Show every setting with its value."""
    voice, settings = Voice(common), settings_of(common)
    values = flatten(settings.model_dump(mode="json"))
    found = origins(settings, flags_of(common), (common or Common()).config)
    shown = table("settings", "key", "value", *(["origin"] if origin else []))
    for key in known_keys():
        row = [key, msgspec.json.encode(values.get(key)).decode()]
        shown.add_row(*row, *([found[key]] if origin else []))
    answer: dict[str, Any] = {
        key: {"value": values.get(key), "origin": found[key]} if origin else values.get(key)
        for key in known_keys()
    }
    voice.answer(answer, shown)
    return 0


def schema(*, common: Common | None = None) -> int:
    """Print the JSON Schema of `repricer.toml`."""
    Voice(common).answer(Settings.model_json_schema())
    return 0


def servers(*, common: Common | None = None) -> int:
    """Start the real Kafka, Postgres, QuestDB and Redis for a trial, until interrupted."""
    Voice(common).say("starting Kafka, Postgres, QuestDB and Redis; Ctrl-C ends them")
    # In place of this process: whoever ends it by a signal ends the servers, too.
    os.execv(sys.executable, [sys.executable, "-m", "cluster.servers", "up"])
