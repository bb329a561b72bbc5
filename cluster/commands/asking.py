"""``price``, ``explain``, ``features``, ``learning`` and more: what was decided, and why."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote

import aiohttp
import msgspec
from cyclopts import Parameter
from rich.table import Table

from cluster.assembly import make_logs
from cluster.commands.speaking import Common, Conflict, NotFound, Voice, run, settings_of, table
from cluster.ray_node import ONE_THREAD, compiled_kernels
from cluster.settings import Settings
from cluster.tree import make_keys, role_card
from engine.decided import State, quote_id
from engine.errors import FailedDependency, LogFault, RejectedInput
from persistence.decision_reader import Accepted, DecisionReader
from persistence.ports import DECISIONS, Logs

ANSWER_S = 10.0

EXPERIMENT_LINES = (
    *("kind", "design", "metric", "status", "day", "days"),
    *("verdict", "lift", "interval", "interval_at_end", "units", "sample_ratio_ok"),
)


def price(
    sku: Annotated[str, Parameter(help="the retailer's SKU")],
    *,
    channel: Annotated[str | None, Parameter(help="default: the primary channel")] = None,
    retailer: Annotated[str | None, Parameter(help="needed when the key sees several")] = None,
    common: Common | None = None,
) -> int:
    """Show a product's price: recommended, in force, bounds, confidence, how fresh."""
    voice, settings = Voice(common), settings_of(common)
    parameters = {"channel": channel, "retailer": retailer}
    answer = run(ask(settings, f"/products/{quoted(sku)}/recommendation", parameters))
    shown = table(sku, "", "")
    for name, value in answer.items():
        if not isinstance(value, list):
            shown.add_row(name.replace("_", " "), _plain(value))
    voice.answer(answer, shown)
    return 0


def explain(
    sku: Annotated[str, Parameter(help="the retailer's SKU")],
    *,
    channel: Annotated[str | None, Parameter(help="default: the primary channel")] = None,
    retailer: Annotated[str | None, Parameter(help="needed when the key sees several")] = None,
    common: Common | None = None,
) -> int:
    """Say in words why a price is what it is: the binding rule, and the price without it."""
    voice, settings = Voice(common), settings_of(common)
    parameters = {"channel": channel, "retailer": retailer}
    answer = run(ask(settings, f"/products/{quoted(sku)}/explanation", parameters))
    voice.answer(answer, str(answer["text"]))
    warn_of_age(voice, answer)
    return 0


def features(
    sku: Annotated[str, Parameter(help="the retailer's SKU")],
    *,
    channel: Annotated[str | None, Parameter(help="default: the primary channel")] = None,
    retailer: Annotated[str | None, Parameter(help="needed when the key sees several")] = None,
    strong: Annotated[
        bool, Parameter(negative="", help="wait for a decision that comes after the question")
    ] = False,
    common: Common | None = None,
) -> int:
    """Show what is known of a listing as named figures: prices, rivals, stock, sales, demand."""
    voice, settings = Voice(common), settings_of(common)
    parameters = {"channel": channel, "retailer": retailer}
    if strong:
        parameters["consistency"] = "strong"
    answer = run(ask(settings, f"/products/{quoted(sku)}/features", parameters))
    if voice.json:
        voice.answer(answer)
        return 0
    # Only a person is told units and formulas, and waits until the engine is imported.
    from engine.features import FEATURES

    title = f"{answer['sku']} on {answer['channel']}, as of {answer['as_of']}"
    shown = table(title, "feature", "value", "unit", "window", "formula")
    for each in FEATURES:
        value = answer["features"][each.name]
        told = "-" if value is None else f"{value:.6g}"
        shown.add_row(each.name, told, each.unit, each.window, each.formula)
    voice.answer(answer, shown)
    return 0


def learning(
    *,
    retailer: Annotated[str | None, Parameter(help="needed when the key sees several")] = None,
    common: Common | None = None,
) -> int:
    """Show what is learnt of demand by category, and where history contradicts our own prices."""
    voice, settings = Voice(common), settings_of(common)
    answer = run(ask(settings, "/learning", {"retailer": retailer}))
    shown = table(
        f"What is learnt of {answer['retailer']}'s demand",
        *("shard", "category", "listings", "elasticity by history", "by our prices", "apart, sd"),
    )
    for shard in answer["shards"]:
        told = shard["learning"]
        if told is None:
            shown.add_row(str(shard["shard"]), "nothing is learnt", "", "", "", "")
            continue
        for each in told["categories"]:
            apart = "-" if each["apart_sd"] is None else f"{each['apart_sd']:+.1f}"
            shown.add_row(
                str(shard["shard"]),
                each["category"],
                str(each["listings"]),
                _slope(each["from_history"]),
                _slope(each["from_own_prices"]),
                f"{apart} ALARM" if each["alarm"] else apart,
            )
    voice.answer(answer, shown, *answer["alarms"])
    return 0


def _slope(told: dict[str, float] | None) -> str:
    return "-" if told is None else f"{told['elasticity']:.2f} +- {told['sd']:.2f}"


def experiments(
    *,
    retailer: Annotated[str | None, Parameter(help="needed when the key sees several")] = None,
    common: Common | None = None,
) -> int:
    """Show how experiments and the holdout stand: lift, interval, verdict."""
    voice, settings = Voice(common), settings_of(common)
    answer = run(ask(settings, "/experiments", {"retailer": retailer}))
    shown: list[Table | str] = []
    for each in answer["experiments"]:
        one = table(f"{each['experiment']}, shard {each['shard']}", "", "")
        for name in EXPERIMENT_LINES:
            one.add_row(name.replace("_", " "), _plain(each[name]))
        shown.append(one)
    voice.answer(answer, *shown or ["no experiment and no holdout"])
    warn_of_age(voice, answer)
    return 0


async def ask(
    settings: Settings,
    path: str,
    parameters: Mapping[str, str | None],
    body: object = None,
    *,
    deadline_s: float = ANSWER_S,
) -> dict[str, Any]:
    """Get a path of the gateway, or post a body to it; return the answer.

    Raises:
        NotFound, Conflict, RejectedInput, FailedDependency: by the answer's status.
    """
    card = role_card(settings, "gateway")
    if card is None:
        raise FailedDependency(f"no gateway runs on {settings.folder}: `repricer up` starts it")
    key = make_keys(settings)
    if not key:
        raise RejectedInput("/gateway/keys_file", "the key itself is not in the folder", "use curl")
    timeout = aiohttp.ClientTimeout(total=deadline_s)
    chosen = {name: value for name, value in parameters.items() if value is not None}
    headers = {"Authorization": f"Bearer {key}"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(
                "GET" if body is None else "POST",
                f"{card.address}/api/v1{path}",
                params=chosen,
                data=None if body is None else msgspec.json.encode(body),
                headers=headers,
            ) as response,
        ):
            answer: dict[str, Any] = msgspec.json.decode(await response.read())
    except (aiohttp.ClientError, TimeoutError) as error:
        raise FailedDependency(f"the gateway at {card.address} does not answer: {error}") from error
    detail = str(answer.get("detail") or answer.get("title") or answer)
    if response.status == 404:
        raise NotFound(detail)
    if response.status == 409:
        raise Conflict(detail)
    if response.status >= 500:
        raise FailedDependency(detail)
    if response.status >= 400:
        raise rejected(answer, detail)
    return answer


def rejected(problem: Mapping[str, Any], detail: str) -> RejectedInput:
    """Return a problem document's detail with the place of its first fault, named once."""
    error = (problem.get("errors") or [{}])[0]
    name = str(error.get("pointer") or error.get("parameter") or error.get("header") or "")
    place = f"?{name}" if "parameter" in error else name
    return RejectedInput(place, detail.removeprefix(f"{name}: "))


def warn_of_age(voice: Voice, answer: Mapping[str, Any]) -> None:
    """Tell a person that what he sees is old; who reads JSON has it there."""
    if answer["stale"]:
        voice.say(f"stale: the gateway has heard nothing newer than {answer['as_of']}")


def quoted(sku: str) -> str:
    """Return a SKU as it stands in a path: a slash in it is no step."""
    return quote(sku, safe="")


def _plain(value: object) -> str:
    """Return a value of an answer as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, dict) and set(value) == {"amount", "currency"}:
        return f"{value['amount']} {value['currency']}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def tail(
    *,
    shard: Annotated[int | None, Parameter(help="one shard; default: all")] = None,
    lines: Annotated[int, Parameter(help="how many decisions back to begin, a shard")] = 10,
    follow: Annotated[bool, Parameter(help="go on with what comes")] = True,
    heartbeats: Annotated[bool, Parameter(help="show decisions without rows too")] = False,
    common: Common | None = None,
) -> int:
    """Show decisions as they are made, one JSON line each."""
    voice, settings = Voice(common), settings_of(common)

    async def show() -> None:
        shards = range(settings.shards.count) if shard is None else (shard,)
        logs = make_logs(settings)
        try:
            async with asyncio.TaskGroup() as group:
                for number in shards:
                    group.create_task(_show(logs, number))
        finally:
            await logs.close()

    async def _show(logs: Logs, number: int) -> None:
        async for accepted in _decisions(logs, number, settings, lines, follow):
            if accepted.decided is not None and (heartbeats or accepted.decided.has_rows):
                voice.line(decision_line(accepted))

    try:
        run(show())
    except KeyboardInterrupt:
        voice.say("")
    return 0


async def _decisions(
    logs: Logs, shard: int, settings: Settings, lines: int, follow: bool
) -> AsyncIterator[Accepted]:
    generation = settings.shards.generation
    log = await logs.open(DECISIONS, shard)
    end, start = await log.end(), await log.start()
    # Read from well before, so that the reigning start is seen; show only the last ones.
    reader = DecisionReader(None, shard=shard, generation=generation)
    if start > 0:
        reader = DecisionReader(None, shard=shard, generation=generation, after=start - 1)
    while follow or reader.offset < end - 1:
        for record in await log.read(reader.offset, limit=500, wait_ms=500):
            accepted = reader.accept(record)
            if accepted is not None and record.offset >= end - lines:
                yield accepted
    await log.close()


def decision_line(accepted: Accepted) -> dict[str, Any]:
    """Return one decision as plain values, short enough for a line."""
    decided, stamp = accepted.decided, accepted.stamp
    assert decided is not None
    quotes = [
        {
            "quote_id": quote_id(stamp.generation, stamp.shard, decided.seq, index),
            "listing": f"{int(quote['listing']):016x}",
            "state": State(int(quote["state"])).name.lower(),
            "in_force_minor": int(quote["in_force_minor"]),
            "proposed_minor": int(quote["proposed_minor"]),
            "floor_minor": int(quote["floor_minor"]),
            "ceiling_minor": int(quote["ceiling_minor"]),
        }
        for index, quote in enumerate(decided.quotes)
    ]
    return {
        "shard": stamp.shard,
        "seq": decided.seq,
        "epoch": stamp.epoch,
        "offset": accepted.offset,
        "decided_ms": decided.decided_ms,
        "appended_ms": accepted.appended_ms,
        "last_command": decided.last_command,
        "last_delta": decided.last_delta,
        "digest": f"{decided.digest:016x}",
        "quotes": quotes,
        "catalogue": len(decided.catalogue),
        "exceptions": [
            {
                "verdict": each.verdict,
                "reason": each.reason,
                "position": list(_place(each.position)),
            }
            for each in decided.exceptions
        ],
        "outcomes": [
            {"command_id": each.command_id, "status": each.status, "detail": each.detail}
            for each in decided.outcomes
        ],
    }


def _place(position: Any) -> tuple[int, int, int]:
    return position.lane, position.offset, position.index


def replay(
    *,
    shard: Annotated[int | None, Parameter(help="one shard; default: all")] = None,
    begin: Annotated[
        Literal["oldest", "checkpoint"],
        Parameter(name="--from", help="the oldest possible point, or the newest checkpoint"),
    ] = "oldest",
    common: Common | None = None,
) -> int:
    """Re-execute every decision in another process, and count the differences."""
    voice, settings = Voice(common), settings_of(common)
    shards = list(range(settings.shards.count)) if shard is None else [shard]
    replayed = []
    for number in shards:
        voice.say(f"replaying shard {number}")
        replayed.append(_replay_apart(settings, number, begin))
    counted = ("decisions", "quotes", "deltas", "differences", "expected")
    totals = {
        key: sum(each[key] for each in replayed) for key in (*counted, "learnt_quotes", "periods")
    }
    shown = table("replay", "shard", "horizon", "decisions", "quotes", "differences", "digest")
    for each in replayed:
        shown.add_row(
            str(each["shard"]),
            f"{each['horizon']}, after seq {each['from_seq']}",
            str(each["decisions"]),
            str(each["quotes"]),
            str(each["differences"]),
            each["digest"],
        )
    voice.answer({**totals, "shards": replayed}, shown)
    return 1 if totals["differences"] else 0


def _replay_apart(settings: Settings, shard: int, begin: str) -> dict[str, Any]:
    """Re-execute one shard in a process of its own, which imports jax and nothing of ours before.

    Raises:
        FailedDependency: it ended without an answer.
    """
    done = subprocess.run(
        [sys.executable, "-m", "cluster.replaying", str(shard), begin],
        input=settings.model_dump_json().encode(),
        env={**os.environ, **ONE_THREAD, **compiled_kernels(settings)},
        capture_output=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        told = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        why = " ".join(told) or f"it ended with {done.returncode}"
        raise FailedDependency(f"shard {shard} was not replayed: {why}")
    answer: dict[str, Any] = msgspec.json.decode(lines[-1])
    if "problem" in answer:
        kind = NotFound if answer["missing"] else LogFault
        raise kind(answer["problem"])
    return answer
