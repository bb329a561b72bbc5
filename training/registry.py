"""The registry: every trained model of a retailer, where it stands, and which are kept.

A model is a *candidate* until it is promoted, a *canary* on some listings, *champion* on all, and
*retired* when another took its place or it was rolled back. What serves is decided by the shards,
and the log says so; a card repeats it for people and is brought up to date by whoever looks.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.errors import CorruptBlob, RejectedInput
from engine.serving import CANARY, CHAMPION
from persistence.ports import Blobs
from training.trained import Trained

KEPT = 5
"""Versions of a retailer that are kept, those that serve included."""

Stage = Literal["candidate", "canary", "champion", "retired"]
RETAILER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ModelCard(Struct, frozen=True, kw_only=True):
    """What is known of one trained model."""

    model: str
    retailer: str
    checksum: str
    stage: Stage
    trained_ms: int
    stage_ms: int  # since when it stands there
    served_ms: int = 0  # when it last served any listing, 0: never
    listings: int = 0
    rows: int = 0
    first_day: int = 0  # days since 1970
    last_day: int = 0
    seed: int = 0
    scores: dict[str, float] = {}


class Registry:
    """Cards and artefacts in blobs."""

    def __init__(self, blobs: Blobs, *, horizon_ms: int) -> None:
        self._blobs = blobs
        self._horizon_ms = horizon_ms  # so long a replay may need what has served

    async def add(self, trained: Trained, now_ms: int) -> ModelCard:
        """Store a trained model as a candidate, and forget what is no longer kept.

        The same model again changes nothing.
        """
        folder = _folder(trained.retailer, trained.version)
        checksum = sha256(trained.artefact).hexdigest()
        known = await self._card(f"{folder}/card")
        if known is not None and known.checksum == checksum:
            return known
        # First the artefact: a card without one would promise what is not there.
        await self._blobs.put(f"{folder}/artefact", trained.artefact)
        card = ModelCard(
            model=trained.version,
            retailer=trained.retailer,
            checksum=checksum,
            stage="candidate",
            trained_ms=now_ms,
            stage_ms=now_ms,
            listings=trained.listings,
            rows=trained.rows,
            first_day=trained.first_day,
            last_day=trained.last_day,
            seed=trained.seed,
            scores=trained.scores,
        )
        await self._put(card)
        await self.prune(trained.retailer, now_ms)
        return card

    async def cards(self, retailer: str) -> list[ModelCard]:
        """Return a retailer's models, the newest first."""
        _check(retailer)
        found = []
        for blob in await self._blobs.list(f"models/{retailer}"):
            if blob.key.endswith("/card"):
                card = await self._card(blob.key)
                if card is not None:
                    found.append(card)
        return sorted(found, key=lambda card: (-card.trained_ms, card.model))

    async def retailers(self) -> list[str]:
        """Return every retailer who has a model."""
        blobs = await self._blobs.list("models")
        return sorted({blob.key.split("/")[1] for blob in blobs if blob.key.endswith("/card")})

    async def card(self, retailer: str, model: str) -> ModelCard | None:
        """Return one card, ``None`` where there is none."""
        return await self._card(f"{_folder(retailer, model)}/card")

    async def reconcile(
        self, retailer: str, serving: Mapping[str, Mapping[str, Any]], now_ms: int
    ) -> list[ModelCard]:
        """Bring the cards up to date with what the shards say serves, by place."""
        by_model: dict[str, Stage] = {}
        places: tuple[tuple[str, Stage], ...] = ((CANARY, "canary"), (CHAMPION, "champion"))
        for place, stage in places:
            if place in serving:
                by_model[serving[place]["model"]] = stage
        cards = []
        for card in await self.cards(retailer):
            served = card.stage in (CANARY, CHAMPION)
            now_at: Stage = by_model.get(card.model, "retired" if served else card.stage)
            changed = card
            if now_at != card.stage:
                changed = replace(card, stage=now_at, stage_ms=now_ms)
            if served or now_at in (CANARY, CHAMPION):
                changed = replace(changed, served_ms=now_ms)
            if changed != card:
                await self._put(changed)
            cards.append(changed)
        return cards

    async def prune(self, retailer: str, now_ms: int) -> list[str]:
        """Forget models beyond those that are kept; return which.

        What serves is kept, and what served so lately that a replay may need it.
        """
        cards = await self.cards(retailer)
        serving = [card for card in cards if card.stage in (CANARY, CHAMPION)]
        others = [card for card in cards if card.stage not in (CANARY, CHAMPION)]
        gone = []
        for card in others[max(KEPT - len(serving), 1) :]:
            if card.served_ms and card.served_ms + self._horizon_ms > now_ms:
                continue
            folder = _folder(retailer, card.model)
            # First the card, so that a half-forgotten model is no model.
            await self._blobs.delete(f"{folder}/card")
            await self._blobs.delete(f"{folder}/artefact")
            gone.append(card.model)
        return gone

    async def _card(self, key: str) -> ModelCard | None:
        value = await self._blobs.get(key)
        if value is None:
            return None
        try:
            return msgspec.json.decode(value, type=ModelCard)
        except msgspec.MsgspecError as error:
            raise CorruptBlob(f"{key} is no card: {error}") from None

    async def _put(self, card: ModelCard) -> None:
        key = f"{_folder(card.retailer, card.model)}/card"
        await self._blobs.put(key, msgspec.json.encode(card))


def _check(retailer: str) -> None:
    if RETAILER.fullmatch(retailer) is None:
        raise RejectedInput("/retailer", f"{retailer!r} is no retailer's id", "name one")


def _folder(retailer: str, model: str) -> str:
    """Return where a model lies: ``actors.artefacts`` finds its artefact there."""
    _check(retailer)
    return f"models/{retailer}/{model}"
