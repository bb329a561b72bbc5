"""``up``, ``status``, ``checkpoint``: the processes and what they are doing."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import aiohttp
from cyclopts import Parameter

from cluster.assembly import make_cache, make_logs, make_series, make_tables
from cluster.commands.speaking import Common, NotFound, Voice, run, settings_of, table
from cluster.control import ControlClient, control_token
from cluster.launching import living_owners
from cluster.ray_node import read_node, session_folder
from cluster.settings import Settings
from cluster.telemetry import configure_logs
from cluster.tree import Tree, make_keys, role_card, until_told
from engine.errors import FailedDependency, PricingError
from persistence.ports import DECISIONS, DELTAS

Stop = Callable[[], Awaitable[object]]


def up(
    *,
    shards: Annotated[int | None, Parameter(help="shards.count")] = None,
    port: Annotated[int | None, Parameter(help="gateway.port; 0: any free one")] = None,
    clock: Annotated[Literal["wall", "event"] | None, Parameter(help="shards.clock")] = None,
    standby: Annotated[bool | None, Parameter(help="shards.standby")] = None,
    common: Common | None = None,
) -> int:
    """Run the engine until it is told to stop: Ray, shards, gateway, followers.

    SIGTERM and Ctrl-C drain: every shard takes a last checkpoint, the followers catch up, and no
    process is left behind.
    """
    flags = {
        "shards.count": shards,
        "gateway.port": port,
        "shards.clock": clock,
        "shards.standby": standby,
    }
    return run(_up(settings_of(common, flags), Voice(common)))


async def _up(settings: Settings, voice: Voice) -> int:
    telemetry = settings.telemetry
    configure_logs("up", settings.folder / "logs", level=telemetry.level, as_json=voice.json)
    began = time.monotonic()
    told = asyncio.ensure_future(until_told(signal.SIGTERM, signal.SIGINT))
    async with contextlib.AsyncExitStack() as stack:
        entering = asyncio.ensure_future(stack.enter_async_context(Tree(settings, say=voice.say)))
        await asyncio.wait({told, entering}, return_when=asyncio.FIRST_COMPLETED)
        tree = await entering
        ready = asyncio.ensure_future(tree.until_live())
        await asyncio.wait({told, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            voice.answer(_ready(tree, time.monotonic() - began), *_ready_lines(tree))
            await told
        ready.cancel()
        voice.say("stopping: last checkpoints, followers, then everything")
    return 0


def _ready(tree: Tree, ready_s: float) -> dict[str, Any]:
    card = role_card(tree.settings, "gateway")
    return {
        "ready_s": round(ready_s, 2),
        "gateway": card.address if card else None,
        "dashboard": tree.node.dashboard if tree.node else None,
        "folder": str(tree.settings.folder),
        "shards": tree.settings.shards.count,
    }


def _ready_lines(tree: Tree) -> list[str]:
    card = role_card(tree.settings, "gateway")
    address = card.address if card else "(starting)"
    key = make_keys(tree.settings)
    lines = [
        f"console    {address}/console",
        f"API        {address}/api/v1   docs: {address}/openapi.json",
        f"API key    {key or 'in the file you named'}",
    ]
    if tree.node and tree.node.dashboard:
        lines.append(f"Ray        {tree.node.dashboard}   token: {tree.node.token_file}")
    lines.append(f"folder     {tree.settings.folder}; stop with Ctrl-C")
    return lines


def status(*, common: Common | None = None) -> int:
    """Show shards with owner, epoch, seq and lag; followers; stores; addresses."""
    voice = Voice(common)
    found = run(gather_status(settings_of(common)))
    voice.answer(found, *_status_tables(found))
    return 0 if found["running"] else 5


async def gather_status(settings: Settings) -> dict[str, Any]:
    """Return what every process says of itself, and whether the stores answer."""
    found: dict[str, Any] = {"folder": str(settings.folder), "shards": [], "followers": []}
    if not settings.run_folder.is_dir():
        return found | {"running": False, "stores": {}, "processes": {}}
    async with aiohttp.ClientSession() as session:
        control = ControlClient(session, control_token(settings.run_folder))
        supervisor = await _ask(control, settings, "supervisor")
        followers = await _ask(control, settings, "followers")
        gateway = role_card(settings, "gateway")
        for launched in living_owners(settings.run_folder):
            state: dict[str, Any] = {"name": launched.start.name, "phase": "silent"}
            with contextlib.suppress(FailedDependency):
                state = await control.status(launched.address, deadline_s=2)
            found["shards"].append(state)
    logs = make_logs(settings)
    try:
        for state in found["shards"]:
            await _add_ends(logs, state)
    finally:
        await logs.close()
    node = read_node(settings.run_folder)
    found["shards"].sort(key=lambda state: state["name"])
    found["followers"] = followers.get("followers", [])
    found["supervisor"] = supervisor
    found["stores"] = await store_states(settings)
    found["processes"] = {
        "gateway": gateway.address if gateway else None,
        "dashboard": node.dashboard if node else None,
    }
    found["running"] = any(state.get("phase") == "live" for state in found["shards"])
    return found


async def _add_ends(logs: Any, state: dict[str, Any]) -> None:
    if "shard" not in state:
        return
    with contextlib.suppress(FailedDependency):
        for key, topic in (("delta_end", DELTAS), ("decision_end", DECISIONS)):
            log = await logs.open(topic, state["shard"])
            try:
                state[key] = await log.end()
            finally:
                await log.close()
        state["lag_records"] = state["delta_end"] - 1 - state.get("last_delta", -1)


async def _ask(control: ControlClient, settings: Settings, role: str) -> dict[str, Any]:
    card = role_card(settings, role)
    if card is None:
        return {}
    try:
        return await control.status(card.address, deadline_s=2)
    except FailedDependency:
        return {"pid": card.process.pid, "silent": True}


async def store_states(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return for each store whether it answers within two seconds."""

    async def ask(store: Any, question: Callable[[], Awaitable[object]]) -> dict[str, Any]:
        began = time.monotonic()
        try:
            await asyncio.wait_for(question(), 2)
            return {"up": True, "answer_ms": round((time.monotonic() - began) * 1000, 1)}
        except (PricingError, TimeoutError) as error:
            return {"up": False, "why": str(error) or type(error).__name__}
        finally:
            with contextlib.suppress(PricingError, TimeoutError):
                await asyncio.wait_for(store.close(), 2)

    tables, series, cache = make_tables(settings), make_series(settings), make_cache(settings)
    states = await asyncio.gather(
        ask(tables, lambda: tables.fetch("select 1 as one")),
        ask(series, lambda: series.fetch("select 1 as one")),
        ask(cache, lambda: cache.get("status")),
    )
    backends = (settings.tables.backend, settings.series.backend, settings.cache.backend)
    return {
        name: {"backend": backend, **state}
        for name, backend, state in zip(
            ("tables", "series", "cache"), backends, states, strict=True
        )
    }


def _status_tables(found: dict[str, Any]) -> list[Any]:
    shards = table("shards", "name", "phase", "epoch", "seq", "mark age", "lag", "memory")
    for state in found["shards"]:
        shards.add_row(
            str(state.get("name", "")),
            str(state.get("phase", "")),
            str(state.get("epoch", "")),
            str(state.get("seq", "")),
            f"{state.get('last_mark_age_ms', '')} ms",
            f"{state.get('lag_records', '')} records",
            f"{state.get('memory_bytes', 0) // 2**20} MiB",
        )
    followers = table("followers", "sink", "shard", "seq", "lag", "repeats", "stopped by")
    for state in found["followers"]:
        followers.add_row(
            state["follower"],
            str(state["shard"]),
            str(state["seq"]),
            f"{state['lag_ms']} ms",
            str(state["failures"]),
            state["stopped_by"],
        )
    stores = table("stores", "store", "backend", "state")
    for name, state in found["stores"].items():
        stores.add_row(name, state["backend"], "up" if state["up"] else f"down: {state['why']}")
    where = [f"{name}: {address}" for name, address in found["processes"].items() if address]
    running = [] if found["running"] else ["nothing runs here: `repricer up` starts it"]
    return [shards, followers, stores, *where, *running]


def checkpoint(
    shard: Annotated[int | None, Parameter(help="one shard; default: all")] = None,
    *,
    common: Common | None = None,
) -> int:
    """Have every shard, or one, take a checkpoint now."""
    voice = Voice(common)
    taken = run(_checkpoint(settings_of(common), shard))
    voice.answer(taken, *(f"shard {number}: {name}" for number, name in taken.items()))
    return 0


async def _checkpoint(settings: Settings, shard: int | None) -> dict[str, str]:
    taken: dict[str, str] = {}
    async with aiohttp.ClientSession() as session:
        control = ControlClient(session, control_token(settings.run_folder))
        for launched in living_owners(settings.run_folder):
            if shard is not None and launched.start.shard != shard:
                continue
            state = await control.status(launched.address)
            if state.get("phase") != "live":
                continue
            answer = await control.act(launched.address, "checkpoint", deadline_s=60)
            taken[str(launched.start.shard)] = answer["name"]
    if not taken:
        which = "no shard" if shard is None else f"shard {shard} is not"
        raise NotFound(f"{which} live in {settings.folder}")
    return taken


def doctor(*, common: Common | None = None) -> int:
    """Say what is missing or wrong, and the fix."""
    from cluster.doctor import examine
    from cluster.tree import refuse_shadowed_packages

    voice = Voice(common)
    findings = [
        {
            "needed_by": each.needed_by,
            "what": each.what,
            "verdict": each.verdict,
            "detail": each.detail,
        }
        for each in examine()
    ]
    findings += _own_findings(common, refuse_shadowed_packages)
    shown = table("doctor", "needed by", "what", "verdict", "detail")
    for each in findings:
        shown.add_row(each["needed_by"], each["what"], each["verdict"], each["detail"])
    healthy = all(each["verdict"] != "missing" for each in findings)
    voice.answer({"healthy": healthy, "findings": findings}, shown)
    return 0 if healthy else 1


def _own_findings(common: Common | None, refuse: Callable[[Any], None]) -> list[dict[str, str]]:
    from pathlib import Path

    findings = []

    def note(what: str, verdict: str, detail: str) -> None:
        findings.append(
            {"needed_by": "repricer up", "what": what, "verdict": verdict, "detail": detail}
        )

    try:
        refuse(Path(__file__).resolve().parent.parent.parent)
        note("our packages", "ok", "none is shadowed")
    except PricingError as error:
        note("our packages", "missing", str(error))
    try:
        settings = settings_of(common)
        note("settings", "ok", f"folder {settings.folder}")
    except PricingError as error:
        note("settings", "missing", str(error))
        return findings
    if len(str(session_folder(settings))) > 40:
        note("Ray's folder", "missing", "its path is too long for sockets: set ray.folder")
    for name, state in run(store_states(settings)).items():
        verdict = "ok" if state["up"] else "missing"
        detail = f"{state['backend']}: " + ("answers" if state["up"] else state["why"])
        note(name, verdict, detail)
    return findings
