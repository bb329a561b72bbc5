"""A backtest's own model: whom it serves, and whose rollback it is told of."""

from hashlib import sha256

import numpy as np
from msgspec.structs import replace

from engine.artefact import PREDICTION_DTYPE, encode_artefact, read_artefact
from engine.decided import CatalogueChange
from engine.deltas import ListingRemoved
from engine.microbatch import Position
from engine.routing import key64
from repricer import batch_of
from tests.engine.builders import World
from training.tried_model import TriedModel

SKUS = ("A", "B", "C")


def tried() -> tuple[World, TriedModel]:
    """Return a shop that learns and lists two of the three listings that a model knows."""
    world = World()
    world.send(world.policy(learning=True))
    world.send(*(world.listing(sku) for sku in SKUS[:2]))
    keys = np.array([key64("acme", "shop", sku) for sku in SKUS], dtype=np.uint64)
    rows = np.zeros(len(keys), dtype=PREDICTION_DTYPE)
    rows["reference_minor"], rows["elasticity"], rows["elasticity_sd"] = 2000, -3.0, 0.5
    value = encode_artefact("m-1", "acme", keys, rows)
    return world, TriedModel(read_artefact(value, sha256(value).hexdigest()))


def promoted(world: World, model: TriedModel) -> int:
    """Return how many promotions the model puts before the next microbatch."""
    batch = batch_of([], after=world.shard)
    return len(model.put_into(batch, world.shard._memory, world.now_ms).runs)


def test_a_listing_that_takes_anothers_place_is_served_too() -> None:
    world, model = tried()
    assert (promoted(world, model), model.known) == (1, 2)
    assert promoted(world, model) == 0
    world.send(world.about(ListingRemoved, "A"))
    world.send(world.listing("C"))
    assert (promoted(world, model), model.known) == (1, 3)


def test_the_rollback_of_anothers_model_of_that_version_is_not_ours() -> None:
    world, model = tried()
    fields = {"stage": "rolled_back", "model": "m-1"}
    for retailer, told in (("bob", None), ("acme", world.shard.decided_ms)):
        change = CatalogueChange(Position(0, 1, 0), "model", retailer, fields)
        model.see(replace(world.decided[-1], catalogue=(change,)))
        assert model.rolled_back_ms == told
