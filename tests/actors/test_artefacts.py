"""An owner fetches what a promotion names, waits for it a moment, and replays what it was given."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from actors.artefacts import Artefacts, artefact_key
from actors.clock import WallClock
from actors.shard_actor import OwnerSettings, ShardActor
from engine.artefact import PREDICTION_DTYPE, encode_artefact
from engine.decided import Decided
from engine.deltas import AnyDelta, ListingChanged, ModelPromoted, PolicyChanged, RetailerAdded
from engine.errors import RejectedInput
from engine.promotion import MISSING
from engine.routing import key64
from engine.shard import Shard
from persistence.object_blobs import local_blobs
from persistence.ports import Blobs
from tests.actors.owned import Home

SKUS = [f"S{number}" for number in range(8)]


def table(version: str, retailer: str = "acme") -> bytes:
    rows = np.zeros(len(SKUS), dtype=PREDICTION_DTYPE)
    rows["reference_minor"], rows["level"], rows["elasticity"] = 1500, 2.0, -2.5
    rows["level_sd"], rows["elasticity_sd"] = 0.3, 0.4
    keys = np.array([key64(retailer, "shop", sku) for sku in SKUS], dtype=np.uint64)
    return encode_artefact(version, retailer, keys, rows)


def promoted(version: str, at_ms: int = 1, **fields: object) -> ModelPromoted:
    checksum = sha256(table(version)).hexdigest()
    given = {"checksum": checksum, "stage": "champion", **fields}
    return ModelPromoted(
        retailer="acme", model=version, observed_ms=at_ms, command_id=f"{version}-{at_ms}", **given
    )


OPENING: list[AnyDelta] = [
    RetailerAdded(retailer="acme", currency="EUR", mode="live", observed_ms=0),
    PolicyChanged(retailer="acme", scope="retailer", fields={"learning": True}, observed_ms=0),
    *(
        ListingChanged(
            retailer="acme",
            channel="shop",
            sku=sku,
            price_minor=1500,
            cost_minor=900,
            observed_ms=0,
        )
        for sku in SKUS
    ),
]


class Lagging:
    """A store's ``get`` that answers late, or with other bytes."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.free = asyncio.Event()

    async def get(self, key: str) -> bytes | None:
        await self.free.wait()
        return await self.blobs.get(key)


class Owned:
    """A real shard's owner on logs in memory, with blobs."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "checkpoints")
        self.blobs = local_blobs(folder / "blobs")

    def owner(self, artefacts: Artefacts) -> ShardActor:
        self.home.owners += 1
        return ShardActor(
            0,
            logs=self.home.logs,
            checkpoints=self.home.files,
            clock=WallClock(),
            settings=OwnerSettings(heartbeat_ms=20, checkpoint_interval_ms=10**9),
            new_shard=Shard,
            restore=Shard.restore,
            owner=self.home.owners.to_bytes(16, "big"),
            artefacts=artefacts,
        )

    async def decided(self) -> list[Decided]:
        return [of.decided for of in await self.home.accepted() if of.decided is not None]

    async def outcome(self, delta: ModelPromoted) -> tuple[str, str]:
        found = [
            (outcome.status, outcome.detail)
            for decided in await self.decided()
            for outcome in decided.outcomes
            if outcome.command_id == delta.command_id
        ]
        assert len(found) == 1
        return found[0]


@pytest.fixture
async def owned(tmp_path: Path) -> AsyncIterator[Owned]:
    place = Owned(tmp_path)
    await place.home.create()
    await place.home.send(*OPENING)
    for version in ("m-1", "m-2"):
        await place.blobs.put(artefact_key("acme", version), table(version))
    yield place


async def living(owner: ShardActor, steps: int = 3) -> None:
    for _ in range(steps):
        await owner.step()


async def test_a_promotion_serves_and_a_successor_replays_it(owned: Owned) -> None:
    first = owned.owner(Artefacts(owned.blobs))
    await first.start()
    await owned.home.send(promoted("m-1"))
    await living(first)
    assert (await owned.outcome(promoted("m-1")))[0] == "done"
    assert first.models()["acme"]["champion"]["model"] == "m-1"
    second = owned.owner(Artefacts(owned.blobs))
    await second.start()
    assert second.different == 0
    assert second.models() == first.models()


@pytest.mark.parametrize("lost", [False, True])
async def test_a_promotion_refused_for_another_reason_stops_no_successor(
    owned: Owned, lost: bool
) -> None:
    """It is not newer than the last, and nobody has its artefact: a successor asks for none."""
    first = owned.owner(Artefacts(owned.blobs))
    await first.start()
    await owned.home.send(promoted("m-1", at_ms=5))
    await living(first)
    late = promoted("m-0" if lost else "m-2", at_ms=4)
    await owned.home.send(late)
    await living(first)
    assert (await owned.outcome(late))[0] == "refused"
    assert (await owned.outcome(late))[1] != MISSING
    second = owned.owner(Artefacts(owned.blobs))
    await second.start()
    assert second.different == 0
    assert second.models() == first.models()


async def test_a_model_that_served_is_needed_for_replay(owned: Owned, tmp_path: Path) -> None:
    """Without its bytes nobody can decide what was decided: better no owner than another price."""
    first = owned.owner(Artefacts(owned.blobs))
    await first.start()
    await owned.home.send(promoted("m-1"))
    await living(first)
    (tmp_path / "blobs" / artefact_key("acme", "m-1")).unlink()
    with pytest.raises(RejectedInput, match="no artefact"):
        await owned.owner(Artefacts(owned.blobs)).start()


async def test_what_comes_late_is_missing_and_there_when_it_is_given_again(owned: Owned) -> None:
    """The microbatch does not wait for it; the fetch goes on, and the next promotion finds it."""
    lagging = Lagging(owned.blobs)
    owner = owned.owner(Artefacts(lagging, wait_ms=30))  # type: ignore[arg-type]
    await owner.start()
    await owned.home.send(promoted("m-1"))
    await living(owner)
    assert await owned.outcome(promoted("m-1")) == ("refused", MISSING)
    assert owner.models() == {}
    lagging.free.set()
    await asyncio.sleep(0.1)
    await owned.home.send(promoted("m-1", at_ms=2))
    await living(owner)
    assert (await owned.outcome(promoted("m-1", at_ms=2)))[0] == "done"
    successor = owned.owner(Artefacts(owned.blobs))
    await successor.start()
    assert successor.different == 0
    assert successor.models() == owner.models()


async def test_a_lost_or_spoilt_artefact_leaves_the_champion_in_place(
    owned: Owned, tmp_path: Path
) -> None:
    owner = owned.owner(Artefacts(owned.blobs))
    await owner.start()
    await owned.home.send(promoted("m-1"))
    await living(owner)
    file = tmp_path / "blobs" / artefact_key("acme", "m-2")
    whole = file.read_bytes()
    for at_ms, spoil in ((2, whole[:-1]), (3, b""), (4, None)):
        if spoil is None:
            file.unlink()
        else:
            file.write_bytes(spoil)
        await owned.home.send(promoted("m-2", at_ms=at_ms))
        await living(owner)
        assert await owned.outcome(promoted("m-2", at_ms=at_ms)) == ("refused", MISSING)
        assert owner.models()["acme"]["champion"]["model"] == "m-1"


async def test_another_models_bytes_under_its_name_are_not_what_was_promoted(owned: Owned) -> None:
    owner = owned.owner(Artefacts(owned.blobs))
    await owner.start()
    await owned.blobs.put(artefact_key("acme", "m-2"), table("m-1"))
    await owned.home.send(promoted("m-2"))
    await living(owner)
    assert await owned.outcome(promoted("m-2")) == ("refused", MISSING)
