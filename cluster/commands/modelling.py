"""``train`` and ``models``: learn from history, and say which model serves."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from cluster.assembly import make_blobs, make_logs, make_series
from cluster.commands.speaking import FAILURE, OK, Common, NotFound, Voice, run, settings_of, table
from cluster.promoting import promote as give
from cluster.promoting import serving
from cluster.settings import Settings, forgotten_history
from engine.decided import Outcome
from engine.deltas import ModelPromoted
from engine.errors import FailedDependency, RejectedInput
from engine.serving import ERRORS, RULES
from training.registry import ModelCard, Registry

DAY_MS = 86_400_000


def train(
    file: Annotated[
        Path | None,
        Parameter(help="CSV, Parquet or JSON: sku, day, price_minor, units; else history"),
    ] = None,
    *,
    retailer: Annotated[str | None, Parameter(help="default: every one that history knows")] = None,
    channel: Annotated[str, Parameter(help="of the file's listings")] = "shop",
    days: Annotated[int | None, Parameter(help="of history; default: training.days")] = None,
    until_day: Annotated[
        str | None, Parameter(help="the last day of history, 2026-11-24; default: yesterday")
    ] = None,
    seed: Annotated[int, Parameter(help="the same data and seed give the same model")] = 1,
    promote: Annotated[
        Literal["never", "canary"], Parameter(help="let it serve a tenth of the listings at once")
    ] = "never",
    common: Common | None = None,
) -> int:
    """Train a retailer's demand model and keep it as a candidate."""
    voice, settings = Voice(common), settings_of(common)
    refuse_untrainable()
    # A shard's owner leaves accelerators alone; so does what is trained beside it.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if file is not None and retailer is None:
        raise RejectedInput("/retailer", "a file belongs to one retailer", "--retailer ID")
    until_ms = _until_ms(until_day)
    for warning in () if file else forgotten_history(settings.series, settings.training, days):
        voice.say(warning)
    answers = run(_train(settings, voice, file, retailer, channel, days, until_ms, seed, promote))
    shown = table("trained", "retailer", "model", "listings", "WAPE", "without price", "naive", "")
    for each in answers:
        scores = each.get("scores", {})
        shown.add_row(
            each["retailer"],
            each.get("model", "-"),
            str(each.get("listings", "-")),
            *(f"{scores[of]:.3f}" if of in scores else "-" for of in SHOWN_SCORES),
            each.get("problem", each.get("stage", "")),
        )
    voice.answer(answers, shown)
    return FAILURE if any("problem" in each for each in answers) else OK


def train_all(settings: Settings) -> int:
    """Train every retailer's model as the settings say; return an exit code."""
    refuse_untrainable()
    voice = Voice(None)
    promoted = settings.training.promote
    answers = run(_train(settings, voice, None, None, "", None, _until_ms(None), 1, promoted))
    for each in answers:
        voice.say(msgspec.json.encode(each).decode())
    return FAILURE if any("problem" in each for each in answers) else OK


SHOWN_SCORES = ("wape", "wape_without_price", "wape_naive")


def refuse_untrainable() -> None:
    """Raise where the extra `training` is not installed.

    Raises:
        RejectedInput: it is not.
    """
    try:
        import optax  # noqa: F401
        import xgboost  # noqa: F401
    except ImportError as error:
        raise RejectedInput(
            "/train", f"{error.name} is missing", "pip install 'repricer[training]'"
        ) from None


def _until_ms(until_day: str | None) -> int:
    if until_day is None:
        return time.time_ns() // 1_000_000 // DAY_MS * DAY_MS
    from datetime import UTC, datetime

    try:
        day = datetime.strptime(until_day, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise RejectedInput("/until_day", f"{until_day!r} is no day", "2026-11-24") from None
    return int(day.timestamp()) * 1000 + DAY_MS


async def _train(
    settings: Settings,
    voice: Voice,
    file: Path | None,
    retailer: str | None,
    channel: str,
    days: int | None,
    until_ms: int,
    seed: int,
    promote: str,
) -> list[dict[str, Any]]:
    from training.daily_sales import from_file, from_history
    from training.fitting import told
    from training.fitting import train as fit

    registry = make_registry(settings)
    series = make_series(settings)
    answers: list[dict[str, Any]] = []
    try:
        named = [retailer] if retailer is not None else await _known(series)
        for each in named:
            try:
                data = (
                    from_file(file, each, channel)
                    if file is not None
                    else await from_history(
                        series,
                        each,
                        first_ms=until_ms - (days or settings.training.days) * DAY_MS,
                        until_ms=until_ms,
                    )
                )
                voice.say(f"training {each}: {len(data.keys)} listings, {data.days} days")
                trained = fit(data, seed=seed, say=voice.say)
            except RejectedInput as error:
                if retailer is not None:
                    raise
                answers.append({"retailer": each, "problem": str(error)})
                continue
            card = await registry.add(trained, _now_ms())
            answer = {**told(trained), "checksum": card.checksum, "stage": card.stage}
            if promote == "canary":
                answer |= await _begun(settings, card)
            answers.append(answer)
    finally:
        await series.close()
    return answers


async def _begun(settings: Settings, card: ModelCard) -> dict[str, Any]:
    """Let a new model serve; what is wrong is told of this one: others are trained all the same."""
    try:
        outcomes = await _promote(settings, card, "canary", 0.1, 7)
    except FailedDependency as error:
        return {"problem": f"trained, not promoted: {error}"}
    refused = [of.detail for of in outcomes if of.status != "done"]
    return {"problem": refused[0]} if refused else {"stage": "canary"}


async def _known(series: Any) -> list[str]:
    rows = await series.fetch("select distinct retailer from listings order by retailer")
    return [str(row["retailer"]) for row in rows if row["retailer"]]


def make_registry(settings: Settings) -> Registry:
    """Return the registry of models in the configured blobs."""
    horizon_ms = int(settings.log.retention_days * DAY_MS)
    return Registry(make_blobs(settings), horizon_ms=horizon_ms)


# ----- which model serves ------------------------------------------------------------------------


def listed(
    *,
    retailer: Annotated[str | None, Parameter(help="default: all")] = None,
    common: Common | None = None,
) -> int:
    """List models, the newest first, and where each stands."""
    voice, settings = Voice(common), settings_of(common)
    cards, fresh = run(_listed(settings, retailer))
    shown = table("models", "retailer", "model", "stage", "listings", "trained", "WAPE")
    for card in cards:
        shown.add_row(
            card.retailer,
            card.model,
            card.stage,
            str(card.listings),
            _day(card.trained_ms),
            f"{card.scores['wape']:.3f}" if "wape" in card.scores else "-",
        )
    note = "" if fresh else "not every shard has a live owner: stages are as they were last seen"
    voice.answer(
        {"models": msgspec.to_builtins(cards), "fresh": fresh}, shown, *([note] if note else [])
    )
    return OK


async def _listed(settings: Settings, retailer: str | None) -> tuple[list[ModelCard], bool]:
    registry = make_registry(settings)
    told = await serving(settings)
    named = [retailer] if retailer is not None else await registry.retailers()
    cards: list[ModelCard] = []
    for each in named:
        if told is None:
            cards += await registry.cards(each)
        else:
            cards += await registry.reconcile(each, told.get(each, {}), _now_ms())
    return cards, told is not None


def show(
    model: Annotated[str, Parameter(help="its version")],
    *,
    retailer: Annotated[str, Parameter(help="whose")],
    common: Common | None = None,
) -> int:
    """Show one model's card, and how it fares where it serves."""
    voice, settings = Voice(common), settings_of(common)
    card, places = run(_shown(settings, retailer, model))
    answer = {**msgspec.to_builtins(card), "serving": places}
    shown = table(model, "", "")
    for name, value in _told(card, places).items():
        shown.add_row(name, value)
    voice.answer(answer, shown)
    return OK


def _told(card: ModelCard, places: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return what a person is told of a model and its places."""
    told = {
        "retailer": card.retailer,
        "stage": f"{card.stage}, since {_day(card.stage_ms)}",
        "trained": f"{_day(card.trained_ms)}, seed {card.seed}",
        "on": f"{card.listings:,} listings, {card.rows:,} listing-days, "
        f"{_day(card.first_day * DAY_MS)[:10]} to {_day(card.last_day * DAY_MS)[:10]}",
        "last served": _day(card.served_ms) if card.served_ms else "never",
        "checksum": card.checksum,
    }
    told |= {name.replace("_", " "): f"{score:.3f}" for name, score in card.scores.items()}
    for place, of in places.items():
        errors = dict(zip(ERRORS, of["errors"], strict=True))
        told[f"as {place}"] = (
            f"{of['share']:.0%} of the listings since {_day(of['since_ms'])}; foreseen for "
            f"{errors['row_days']:.0f} listing-days, wrong by {errors['with']:.1f} units with it "
            f"and {errors['without']:.1f} without"
        )
    return told


async def _shown(settings: Settings, retailer: str, model: str) -> tuple[ModelCard, dict[str, Any]]:
    await _listed(settings, retailer)
    card = await _card(settings, retailer, model)
    told = await serving(settings) or {}
    places = {place: of for place, of in told.get(retailer, {}).items() if of.get("model") == model}
    return card, places


def promote(
    model: Annotated[str, Parameter(help="its version")],
    *,
    retailer: Annotated[str, Parameter(help="whose")],
    stage: Annotated[Literal["canary", "champion"], Parameter(help="a share, or all")] = "canary",
    share: Annotated[float, Parameter(help="of the listings that a canary serves")] = 0.1,
    days: Annotated[int, Parameter(help="until the canary becomes the champion")] = 7,
    common: Common | None = None,
) -> int:
    """Let a model serve; the answer is the shards' own."""
    voice, settings = Voice(common), settings_of(common)

    async def work() -> list[Outcome]:
        card = await _card(settings, retailer, model)
        return await _promote(settings, card, stage, share, days)

    return _answer(voice, model, run(work()))


def rollback(
    *,
    retailer: Annotated[str, Parameter(help="whose")],
    to: Annotated[str, Parameter(help="a version, or `rules`: no model at all")] = RULES,
    common: Common | None = None,
) -> int:
    """Take a retailer's models away, or put an earlier one in their place."""
    voice, settings = Voice(common), settings_of(common)

    async def work() -> list[Outcome]:
        if to != RULES:
            card = await _card(settings, retailer, to)
            return await _promote(settings, card, "champion", 1.0, 7)
        logs = make_logs(settings)
        try:
            delta = ModelPromoted(retailer=retailer, model=RULES, observed_ms=0, stage="champion")
            outcomes = await give(settings, logs, delta)
        finally:
            await logs.close()
        await _listed(settings, retailer)
        return outcomes

    return _answer(voice, to, run(work()))


async def _card(settings: Settings, retailer: str, model: str) -> ModelCard:
    """Return one model's card.

    Raises:
        NotFound: there is none.
    """
    card = await make_registry(settings).card(retailer, model)
    if card is None:
        raise NotFound(f"{retailer} has no model {model}: `repricer models list` names them")
    return card


async def _promote(
    settings: Settings,
    card: ModelCard,
    stage: Literal["canary", "champion"],
    share: float,
    days: int,
) -> list[Outcome]:
    if not 0.0 < share <= 1.0:
        raise RejectedInput("/share", f"{share} is no share", "above 0 and at most 1: --share 0.1")
    if not 1 <= days <= 365:
        raise RejectedInput("/days", f"{days} is out of bounds", "1 to 365: --days 7")
    delta = ModelPromoted(
        retailer=card.retailer,
        model=card.model,
        checksum=card.checksum,
        observed_ms=0,
        stage=stage,
        share=share,
        canary_days=days,
    )
    logs = make_logs(settings)
    try:
        outcomes = await give(settings, logs, delta)
    finally:
        await logs.close()
    await _listed(settings, card.retailer)
    return outcomes


def _answer(voice: Voice, model: str, outcomes: list[Outcome]) -> int:
    answers = [
        {"status": of.status, "detail": of.detail, "command_id": of.command_id} for of in outcomes
    ]
    lines = [f"{of.status}: {of.detail or model}" for of in outcomes]
    voice.answer({"model": model, "outcomes": answers}, *lines)
    return OK if all(of.status == "done" for of in outcomes) else FAILURE


def _day(at_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
