"""``policy``, ``plan``, ``apply``, ``what-if``: what is set, and what a change of it would do."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.table import Table

from cluster.commands.asking import ask, quoted, warn_of_age
from cluster.commands.giving import give
from cluster.commands.speaking import Common, Voice, run, settings_of, table
from cluster.settings import Settings
from engine.deltas import ScopeChange
from engine.errors import RejectedInput

ANSWER_S = 60.0
"""The first question starts a process, and several shards answer one after the other."""

Changes = tuple[ScopeChange, ...]


class SavedPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan as ``repricer plan --out`` writes it: all that applying it needs."""

    retailer: str
    plan: str
    changes: Changes


def policy(
    sku: Annotated[str | None, Parameter(help="one listing's, field by field")] = None,
    *,
    channel: Annotated[str | None, Parameter(help="default: the primary channel")] = None,
    retailer: Annotated[str | None, Parameter(help="needed when the key sees several")] = None,
    common: Common | None = None,
) -> int:
    """Show the policy in force: what is set at each scope, or how it counts for one listing."""
    voice, settings = Voice(common), settings_of(common)
    parameters = {"channel": channel, "retailer": retailer}
    if sku is not None:
        answer = run(ask(settings, f"/products/{quoted(sku)}/policy", parameters))
        shown = table(f"{answer['sku']} on {answer['channel']}", "field", "value", "set by")
        for name, each in answer["fields"].items():
            shown.add_row(name, _value(each["value"]), _place(each))
    else:
        answer = run(_policies(settings, retailer))
        shown = table("policy", "set for", "field", "value")
        for held in answer["policies"]:
            for name, value in held["fields"].items():
                shown.add_row(_place(held), name, _value(value))
    voice.answer(answer, shown)
    warn_of_age(voice, answer)
    return 0


def plan(
    file: Annotated[Path, Parameter(help="a policy file: a list of scopes with their fields")],
    *,
    out: Annotated[Path | None, Parameter(help="write the plan here, for `apply`")] = None,
    limit: Annotated[int, Parameter(help="how many of the largest moves to show")] = 20,
    retailer: Annotated[str | None, Parameter(help="needed when the key sees several")] = None,
    common: Common | None = None,
) -> int:
    """Show which prices a change of policy would move, by how much, against which guardrail.

    Asked of a fork of every shard concerned: nothing is changed, nobody waits.
    """
    voice, settings = Voice(common), settings_of(common)
    changes = changes_in(file)
    answer = _planned(settings, changes, limit, retailer)
    if out is not None:
        saved = SavedPlan(retailer=answer["retailer"], plan=answer["plan"], changes=changes)
        out.write_bytes(msgspec.json.format(msgspec.json.encode(saved)) + b"\n")
        voice.say(f"`repricer apply {out}` does exactly this, if nothing is heard meanwhile")
    _warn(voice, answer)
    voice.answer(answer, *_shown(answer["effect"], "plan", _exact(answer)))
    return 0


def apply(
    file: Annotated[Path, Parameter(help="a plan that `plan --out` wrote, or a policy file")],
    *,
    anyway: Annotated[
        bool, Parameter(negative="", help="although something was decided since the plan")
    ] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="only plan a policy file")] = False,
    limit: Annotated[int, Parameter(help="how many of the largest moves to show")] = 20,
    retailer: Annotated[str | None, Parameter(help="needed when the key sees several")] = None,
    common: Common | None = None,
) -> int:
    """Apply a plan: exactly what it showed. Exits with 4 where something was decided meanwhile.

    A policy file is planned, shown and applied in one go.
    """
    voice, settings = Voice(common), settings_of(common)
    saved, effect = saved_in(file), None
    if saved is None:
        changes = changes_in(file)
        answer = _planned(settings, changes, limit, retailer)
        effect = answer["effect"]
        _warn(voice, answer)
        saved = SavedPlan(retailer=answer["retailer"], plan=answer["plan"], changes=changes)
        if not voice.json:
            voice.answer(None, *_shown(effect, "plan", _exact(answer)))
    if dry_run:
        if voice.json:
            voice.answer({"applied": False, "effect": effect})
        return 0
    body = {"changes": saved.changes, "plan": saved.plan, "anyway": anyway}
    chosen = {"retailer": retailer or saved.retailer}
    done = run(give(settings, "/policies:apply", chosen, body))
    shown = f"{done['status']}: operation {done['operation_id']}"
    voice.answer({"applied": True, "operation": done, "effect": effect}, shown)
    return 0


def what_if(
    *,
    cost: Annotated[float, Parameter(help="ratio of costs: 1.05 is 5 % more")] = 1.0,
    rival: Annotated[float, Parameter(help="ratio of rivals' landed prices")] = 1.0,
    rival_price: Annotated[
        str | None, Parameter(help="one rival remains, at this landed price: 19.99")
    ] = None,
    currency: Annotated[str, Parameter(help="of --rival-price")] = "EUR",
    policy: Annotated[Path | None, Parameter(help="a policy file to suppose")] = None,
    channel: Annotated[str | None, Parameter(help="only its listings")] = None,
    category: Annotated[str | None, Parameter(help="only its listings")] = None,
    tag: Annotated[str | None, Parameter(help="only its listings")] = None,
    sku: Annotated[tuple[str, ...], Parameter(help="only these; may be repeated")] = (),
    limit: Annotated[int, Parameter(help="how many of the largest moves to show")] = 20,
    retailer: Annotated[str | None, Parameter(help="needed when the key sees several")] = None,
    common: Common | None = None,
) -> int:
    """Show what would follow if costs, rivals or the policy were others. Nothing is changed."""
    voice, settings = Voice(common), settings_of(common)
    case: dict[str, Any] = {"name": "what if", "cost_ratio": cost, "rival_ratio": rival}
    if rival_price is not None:
        case["rival_price"] = {"amount": rival_price, "currency": currency}
    if policy is not None:
        case["changes"] = changes_in(policy)
    named = {"channel": channel, "category": category, "tag": tag, "skus": sku or None}
    body = {
        "cases": [case],
        "listings": {name: value for name, value in named.items() if value is not None},
        "limit": limit,
    }
    answer = run(ask(settings, "/what-if", {"retailer": retailer}, body, deadline_s=ANSWER_S))
    voice.answer(answer, *_shown(answer["cases"][0], "what if", f"as of {answer['as_of']}"))
    return 0


def changes_in(file: Path) -> Changes:
    """Read a policy file: a list of {scope, key, priority, fields}.

    Raises:
        RejectedInput: it is missing or wrong.
    """
    fix = "a list of {scope, key, priority, fields}, as in docs/examples/oj-policy.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=Changes)
    except OSError as error:
        raise RejectedInput("/file", f"{file}: {error.strerror}", "name a policy file") from None
    except msgspec.MsgspecError as error:
        raise RejectedInput("/file", f"{file}: {error}", fix) from None


def saved_in(file: Path) -> SavedPlan | None:
    """Return the plan in a file, ``None`` where it holds a policy.

    Raises:
        RejectedInput: it is missing, or neither.
    """
    try:
        content = file.read_bytes()
        if not content.lstrip().startswith(b"{"):
            return None
        return msgspec.json.decode(content, type=SavedPlan)
    except OSError as error:
        raise RejectedInput("/file", f"{file}: {error.strerror}", "name a plan") from None
    except msgspec.MsgspecError as error:
        raise RejectedInput(
            "/file", f"{file} is no plan: {error}", "`repricer plan FILE --out PLAN` writes one"
        ) from None


async def _policies(settings: Settings, retailer: str | None) -> dict[str, Any]:
    """Return all scopes in one answer, however many pages they are."""
    parameters = {"retailer": retailer, "limit": "500"}
    answer = await ask(settings, "/policies", parameters)
    while answer["next_cursor"] is not None:
        more = await ask(settings, "/policies", {**parameters, "cursor": answer["next_cursor"]})
        answer = {**more, "policies": answer["policies"] + more["policies"]}
    return answer


def _place(held: dict[str, Any]) -> str:
    return f"{held['scope']} {held['key']}".rstrip().replace("\x1f", " / ")


def _value(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _planned(
    settings: Settings, changes: Changes, limit: int, retailer: str | None
) -> dict[str, Any]:
    body = {"changes": changes, "limit": limit}
    return run(ask(settings, "/policies:plan", {"retailer": retailer}, body, deadline_s=ANSWER_S))


def _warn(voice: Voice, answer: dict[str, Any]) -> None:
    """Tell a person which changes are about no listing; who reads JSON has it there."""
    for each in answer["warnings"]:
        voice.say(f"{each['pointer']}: {each['detail']}")


def _exact(answer: dict[str, Any]) -> str:
    until = answer["exact_until"]
    return f"exact until {until}" if until else "exact until something is heard"


def _shown(effect: dict[str, Any], title: str, note: str) -> list[Table | str]:
    """Return a table of counts and one of the largest moves, for people."""
    counts = table(f"{title} ({note})", "", "")
    for name in ("listings", "moved", "in_force", "proposed", "raised", "lowered"):
        counts.add_row(name.replace("_", " "), f"{effect[name]:,}")
    counts.add_row("mean change", f"{effect['mean_change']:+.2%}")
    for name, number in effect["guardrails"].items():
        counts.add_row(f"bound by {name}", f"{number:,}")
    for name, number in effect["states"].items():
        counts.add_row(f"then {name}", f"{number:,}")
    moves = table(
        "largest moves", "channel", "sku", "before", "after", "change", "guardrail", "without it"
    )
    for each in effect["moves"]:
        moves.add_row(
            each["channel"],
            each["sku"],
            _amount(each["before"]),
            _amount(each["after"]),
            f"{each['change']:+.2%}",
            each["guardrail"] or each["state"],
            _amount(each["without"]) if each["guardrail"] else "",
        )
    return [counts, moves] if effect["moves"] else [counts]


def _amount(money: dict[str, str] | None) -> str:
    return "" if money is None else f"{money['amount']} {money['currency']}"
