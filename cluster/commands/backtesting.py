"""``backtest``: a recorded log decided again by another policy or model, by the very same shard."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from msgspec.structs import asdict

from cluster.assembly import make_logs
from cluster.commands.planning import Changes, changes_in
from cluster.commands.speaking import (
    FAILURE,
    OK,
    Common,
    NotFound,
    Voice,
    progress_of,
    run,
    settings_of,
    table,
)
from cluster.settings import Settings
from cluster.topics import recorded_generation
from engine.deltas import ScopeChange
from engine.errors import RejectedInput
from engine.serving import RULES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cluster.recording import Recording
    from engine.artefact import Artefact
    from training.backtest import Backtest
    from training.tried_model import TriedModel


def backtest(
    log_folder: Annotated[Path, Parameter(help="the data folder whose logs are decided again")],
    *,
    policy: Annotated[
        Path | None, Parameter(help="a policy file; default: the recorded policy, to compare")
    ] = None,
    model: Annotated[
        str | None, Parameter(help="a trained model as champion; `rules`: none; default: recorded")
    ] = None,
    retailer: Annotated[str | None, Parameter(help="whose model; default: who has it")] = None,
    learning: Annotated[
        bool | None, Parameter(help="learn demand (or not), whatever was recorded")
    ] = None,
    shard: Annotated[int | None, Parameter(help="one shard; default: all")] = None,
    common: Common | None = None,
) -> int:
    """Decide a recorded log again: what another policy or model would have proposed and earned.

    Exits with 1 when what was recorded is not repeated exactly, or when more than a fifth of the
    other prices lie where nobody ever sold.
    """
    voice = Voice(common)
    if not log_folder.is_dir():
        raise RejectedInput("/log_folder", f"{log_folder} is no folder", "name a data folder")
    settings = settings_of(common, {"folder": log_folder})
    changes: Changes = () if policy is None else changes_in(policy)
    if learning is not None:
        changes = (*changes, ScopeChange(fields={"learning": learning}))
    tried = None if model is None else new_model(run(artefact_of(settings, model, retailer)))
    result = run(decided_again(settings, changes, shard, voice, tried))
    shown = table("backtest", "", "")
    for name, value in result.items():
        if name not in ("earned", "shards"):
            shown.add_row(name.replace("_", " "), _plain(value))
    for each in result["earned"]:
        shown.add_row(
            f"profit, {each['currency']} minor units",
            f"{each['difference_minor']:+,.0f} ({each['low_minor']:+,.0f} to "
            f"{each['high_minor']:+,.0f}) on {each['recorded_minor']:,.0f}",
        )
    what = "this policy" if tried is None else "this model"
    verdict = "" if result["supported"] else f"REJECTED: the log does not support {what}"
    voice.answer(result, shown, *([verdict] if verdict else []))
    return FAILURE if result["differences"] or not result["supported"] else OK


async def decided_again(
    settings: Settings,
    changes: Changes,
    only: int | None,
    voice: Voice,
    new: "Callable[[], TriedModel] | None" = None,
) -> dict[str, Any]:
    from cluster.recording import open_recording
    from training.backtest import Backtest, joined

    began = time.monotonic()
    logs = make_logs(settings)
    tested, horizons, models = [], [], []
    try:
        settings = await as_recorded(settings)
        shards = range(settings.shards.count) if only is None else (only,)
        if only is not None and not 0 <= only < settings.shards.count:
            problem = f"there is no shard {only} among {settings.shards.count}"
            raise RejectedInput("/shard", problem, "leave it out for all")
        for number in shards:
            voice.say(f"deciding shard {number} again")
            async with open_recording(settings, logs, number, "oldest") as recording:
                model = None if new is None else new()
                testing = Backtest(recording.shard, changes, model)
                models += [] if model is None else [model]
                await _decide_again(testing, recording, number, voice)
                tested.append(testing.tested())
                horizons.append(recording.horizon)
    finally:
        await logs.close()
    seconds = time.monotonic() - began
    recorded_s = max(each.span_ms for each in tested) / 1000
    return {
        **joined(tested),
        "earned": [asdict(each) for part in tested for each in part.earned],
        **_models_told(models),
        "seconds": round(seconds, 2),
        "times_real_time": round(recorded_s / max(seconds, 1e-3)),
        "shards": [
            {"shard": number, "horizon": horizon, "first_difference": part.first_difference}
            for number, horizon, part in zip(shards, horizons, tested, strict=True)
        ],
    }


def _models_told(models: "Sequence[TriedModel]") -> dict[str, Any]:
    """Return which model was tried, how many listings it served, and whether it was rolled back.

    Raises:
        RejectedInput: it never served: its retailer learns nothing, or has none of its listings.
    """
    if not models:
        return {}
    first, known = models[0], sum(each.known for each in models)
    if first.artefact is None:
        return {"model": first.version}
    if not known:
        problem = f"{first.version} of {first.artefact.retailer} never served in this log"
        fix = "the retailer must learn (--learning) and have listings that it knows"
        raise RejectedInput("/model", problem, fix)
    return {
        "model": first.version,
        "model_listings": known,
        "model_rolled_back": sum(each.rolled_back_ms is not None for each in models),
    }


def new_model(artefact: "Artefact | None") -> "Callable[[], TriedModel]":
    """Return what makes a shard's model under test; each shard judges its own."""
    from training.tried_model import TriedModel

    return lambda: TriedModel(artefact)


async def artefact_of(settings: Settings, version: str, retailer: str | None) -> "Artefact | None":
    """Return the artefact of a trained model, ``None`` for ``rules``.

    Raises:
        NotFound: no such model is in the registry, or its artefact is gone.
        RejectedInput: several retailers have one, or the artefact is not what its card says.
    """
    if version == RULES:
        return None
    from actors.artefacts import artefact_key
    from cluster.assembly import make_blobs
    from cluster.commands.modelling import make_registry
    from engine.artefact import read_artefact

    registry = make_registry(settings)
    named = [retailer] if retailer is not None else await registry.retailers()
    found = [card for each in named if (card := await registry.card(each, version)) is not None]
    if not found:
        whose = "nobody has a" if retailer is None else f"{retailer} has no"
        raise NotFound(f"{whose} model {version}: `repricer models list` names them")
    if len(found) > 1:
        owners = " and ".join(card.retailer for card in found)
        raise RejectedInput("/retailer", f"{owners} each have a model {version}", "--retailer ID")
    card = found[0]
    value = await make_blobs(settings).get(artefact_key(card.retailer, version))
    if value is None:
        raise NotFound(f"the artefact of {version} of {card.retailer} is gone: train it again")
    return read_artefact(value, card.checksum)


async def _decide_again(
    testing: "Backtest", recording: "Recording", number: int, voice: Voice
) -> None:
    domain = recording.shard.domain
    with progress_of(voice) as progress:
        bar = progress.add_task(f"shard {number}", total=recording.progress[1])
        # What the model under test replaces is not fetched: it may be gone, and nobody misses it.
        model = testing.model
        recorded = (
            recording.microbatches() if model is None else recording.microbatches(model.leaves)
        )
        async for each in recorded:
            same = each.domain in ("", domain)
            testing.decide(each.batch, each.decided, each.artefacts, same_domain=same)
            progress.update(bar, completed=recording.progress[0])


async def as_recorded(settings: Settings) -> Settings:
    """Return the settings with the cut that the log's own supervisor noted, if one did."""
    logs = make_logs(settings)
    try:
        cut = await recorded_generation(logs)
    finally:
        await logs.close()
    if cut is None:
        return settings
    update = {"count": cut.partitions, "spreads": cut.spreads, "generation": cut.generation}
    shards = settings.shards.model_copy(update=update)
    return settings.model_copy(update={"shards": shards})


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:,}" for name, number in value.items()) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
