"""The registry keeps five versions, says where each stands, and forgets nothing that is needed."""

from pathlib import Path

import pytest

from actors.artefacts import artefact_key
from engine.errors import CorruptBlob, RejectedInput
from persistence.object_blobs import ObjectBlobs, local_blobs
from training.registry import KEPT, Registry
from training.trained import Trained

HORIZON_MS = 1_000


def trained(number: int, retailer: str = "acme") -> Trained:
    return Trained(
        version=f"m-{number}",
        retailer=retailer,
        artefact=f"the bytes of {retailer} {number}".encode(),
        listings=3,
        rows=9,
        first_day=1,
        last_day=2,
        seed=1,
        scores={"wape": 0.2},
    )


@pytest.fixture
def blobs(tmp_path: Path) -> ObjectBlobs:
    return local_blobs(tmp_path / "blobs")


@pytest.fixture
def registry(blobs: ObjectBlobs) -> Registry:
    return Registry(blobs, horizon_ms=HORIZON_MS)


def stages(cards: list) -> dict[str, str]:  # type: ignore[type-arg]
    return {card.model: card.stage for card in cards}


async def test_a_candidate_lies_where_owners_look_for_it(
    registry: Registry, blobs: ObjectBlobs
) -> None:
    card = await registry.add(trained(1), 10)
    assert (card.stage, card.scores) == ("candidate", {"wape": 0.2})
    value = await blobs.get(artefact_key("acme", "m-1"))
    assert value == trained(1).artefact
    assert await registry.card("acme", "m-1") == card
    assert await registry.add(trained(1), 99) == card
    assert await registry.retailers() == ["acme"]
    assert await registry.card("acme", "m-2") is None


async def test_five_are_kept_and_never_one_that_serves(registry: Registry) -> None:
    for number in range(3):
        await registry.add(trained(number), number)
    await registry.reconcile("acme", {"champion": {"model": "m-0"}}, 5)
    for number in range(3, 12):
        await registry.add(trained(number), 10 + number)
    await registry.add(trained(1, "bob"), 30)
    kept = stages(await registry.cards("acme"))
    assert len(kept) == KEPT
    assert kept["m-0"] == "champion"
    assert set(kept) == {"m-0", "m-8", "m-9", "m-10", "m-11"}
    assert len(await registry.cards("bob")) == 1


async def test_what_a_replay_may_need_is_kept_for_its_horizon(
    registry: Registry, blobs: ObjectBlobs
) -> None:
    await registry.add(trained(0), 0)
    await registry.reconcile("acme", {"canary": {"model": "m-0"}}, 100)
    await registry.reconcile("acme", {}, 200)
    for number in range(1, 9):
        await registry.add(trained(number), 300 + number)
    assert stages(await registry.cards("acme"))["m-0"] == "retired"
    assert await registry.prune("acme", 200 + HORIZON_MS) == ["m-0"]
    assert await blobs.get(artefact_key("acme", "m-0")) is None


async def test_stages_follow_what_the_shards_say(registry: Registry) -> None:
    for number in range(3):
        await registry.add(trained(number), number)
    serving = {"champion": {"model": "m-0"}, "canary": {"model": "m-1"}}
    found = stages(await registry.reconcile("acme", serving, 10))
    assert found == {"m-0": "champion", "m-1": "canary", "m-2": "candidate"}
    found = stages(await registry.reconcile("acme", {"champion": {"model": "m-1"}}, 20))
    assert found == {"m-0": "retired", "m-1": "champion", "m-2": "candidate"}
    assert stages(await registry.cards("acme")) == found


async def test_a_card_that_cannot_be_read_is_corrupt(
    registry: Registry, blobs: ObjectBlobs
) -> None:
    await blobs.put("models/acme/m-1/card", b"{")
    with pytest.raises(CorruptBlob):
        await registry.cards("acme")
    with pytest.raises(RejectedInput):
        await registry.cards("../other")
