"""``mode``: whether a retailer's prices are put in force; and how any command is given."""

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter

from cluster.commands.asking import ask, warn_of_age
from cluster.commands.speaking import Common, Conflict, NotFound, Voice, run, settings_of, table
from cluster.settings import Settings
from engine.errors import FailedDependency, RejectedInput

ANSWER_S = 60.0
"""As long as a shard may be without an owner, and some more."""

ASK_AGAIN_S = 0.5

MEANING: Final = {
    "live": "the engine's prices are put in force",
    "shadow": "prices are proposed and shown, and nothing is put in force",
    "mixed": "shards differ, as while a change is under way: some put prices in force",
}


def mode(
    retailer: Annotated[str, Parameter(help="whose prices")],
    to: Annotated[
        Literal["live", "shadow"] | None, Parameter(help="what he shall be; without it, what he is")
    ] = None,
    *,
    dry_run: Annotated[
        bool, Parameter(negative="", help="only show what he is, and what stands in the way")
    ] = False,
    common: Common | None = None,
) -> int:
    """Put a retailer's prices in force (live), or only propose them (shadow); or say which it is.

    Given to every shard that holds a part of him, and answered when all of them have decided it.
    """
    voice, settings = Voice(common), settings_of(common)
    chosen = {"retailer": retailer}
    before = run(ask(settings, "/publishing", chosen))
    answer = {"retailer": retailer, "before": before, "changed": False, "operation": None}
    if to is None or dry_run:
        voice.answer({**answer, "wanted": to}, *_shown(before, to))
        warn_of_age(voice, before)
        return 0
    # Given also where it is so already, as far as is known here: that may be old.
    done = run(give(settings, "/publishing:mode", chosen, {"mode": to}))
    answer |= {"wanted": to, "changed": before["mode"] != to, "operation": done}
    voice.answer(answer, f"{retailer} is {to}: {MEANING[to]} (was {before['mode']})")
    for stop in _stops(before) if to == "live" else ():
        voice.say(f"nothing goes out meanwhile: {stop}")
    return 0


async def give(
    settings: Settings,
    path: str,
    chosen: Mapping[str, str | None],
    body: Mapping[str, Any],
) -> dict[str, Any]:
    """Give a command and wait for what the shards say, also while an owner is being replaced.

    A question that fails is asked again: a gateway that was just started knows no operation until
    it has read the shard's decision, and none answers while it is replaced itself.

    Raises:
        Conflict, RejectedInput: they refuse it.
        FailedDependency: nobody said in time what became of it. It stays given.
    """
    done = await ask(settings, path, chosen, body, deadline_s=ANSWER_S)
    operation, deadline = done["operation_id"], time.monotonic() + ANSWER_S
    heard = done["status"]
    while done["status"] == "pending":
        if time.monotonic() > deadline:
            raise FailedDependency(
                f"operation {operation} was given, and no shard decided it yet; last heard: {heard}"
            )
        await asyncio.sleep(ASK_AGAIN_S)
        try:
            done = await ask(settings, f"/operations/{operation}", {})
            heard = done["status"]
        except (FailedDependency, NotFound) as error:
            heard = str(error)
    if done["status"] == "done":
        return done
    detail = done.get("detail") or done["status"]
    raise Conflict(detail) if done["status"] == "conflict" else RejectedInput("", detail)


def _shown(state: Mapping[str, Any], to: str | None) -> list[Any]:
    """Return a table of a retailer's state, for people."""
    shown = table(state["retailer"], "", "")
    shown.add_row("mode", f"{state['mode']}: {MEANING[state['mode']]}")
    for each in state["modes"]:
        shown.add_row(f"  shard {each['shard']}", each["mode"])
    if to is not None:
        same = state["mode"] == to
        shown.add_row("would be", f"{to}, as it is" if same else f"{to}: {MEANING[to]}")
    shown.add_row("products", f"{state['products']:,}")
    for stop in _stops(state):
        shown.add_row("stopped by", stop)
    return [shown]


def _stops(state: Mapping[str, Any]) -> list[str]:
    """Return what keeps prices from going out whatever the mode is."""
    halts = [
        f"a halt of {each['channel'] or 'all channels'}"
        + (f" ({each['reason']})" if each["reason"] else "")
        for each in state["halts"]
    ]
    return halts + [f"the breaker of shard {each['shard']}" for each in state["breakers"]]
