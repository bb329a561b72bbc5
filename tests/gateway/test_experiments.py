"""Experiments over HTTP: what shards told last is read, and verbs become deltas."""

from typing import Any

import numpy as np
import pytest

from engine.decided import CatalogueChange
from engine.deltas import ExperimentStarted, ExperimentStopped, ModeChanged
from gateway.opening import opening_of
from kernels import reasons
from persistence.decision_records import LogPosition
from tests.engine.builders import DAY, World
from tests.gateway.hand import COMMAND, LOG_ID, OWNER, market, open_shops, outcome, quoted
from tests.gateway.test_approvals import answered, given

PATH = "/api/v1/experiments"


def lived() -> World:
    """Return a shop that tried something for a while."""
    world = World()
    world.send(world.policy(learning=True, holdout_share=0.3, step_max=1.0))
    world.send(*(world.listing(f"A-{number}") for number in range(40)))
    fields = {"experiment": "dearer", "treatment": {"ceiling_minor": 1500}, "baseline_days": 0}
    world.send(world.whole(ExperimentStarted, fields={**fields, "days": 12}))
    for day in range(13):
        sales = [
            world.sold(3 + (number + day) % 4, f"A-{number}", source=f"{number}", source_seq=day)
            for number in range(40)
        ]
        world.send(*sales, after_ms=DAY)
        world.drain()
    return world


async def test_what_shards_tell_is_read() -> None:
    world = lived()
    told = {
        change.fields["kind"]: change
        for of in world.decided
        for change in of.catalogue
        if change.what == "experiment"
    }
    async with market() as place:
        await open_shops(place)
        age = {"as_of": "2027-01-15T08:00:00.000Z", "stale": False}
        assert (await place.get(PATH))[1] == {"retailer": "acme", "experiments": [], **age}
        owner = place.owner("acme")
        await owner.decide(
            catalogue=[
                CatalogueChange(COMMAND, "experiment", "acme", each.fields)
                for each in told.values()
            ]
        )
        await place.caught_up()
        _, body = await place.get(PATH)
        tried, held = body["experiments"]
        assert (tried["experiment"], tried["kind"], tried["status"]) == (
            "dearer",
            "experiment",
            "stopped",
        )
        assert tried["verdict"] == "harmful"  # it sells as much, and for less
        assert tried["treatment"] == {"ceiling_minor": 1500}
        assert tried["interval"]["low"] <= tried["lift"] <= tried["interval"]["high"]
        _, impact = await place.get("/api/v1/analytics/revenue-impact")
        assert impact == {"retailer": "acme", "holdouts": [held], **age}
        assert (await place.get(PATH, who="bolt"))[1]["experiments"] == []


async def test_a_replica_that_begins_at_a_checkpoint_knows_them() -> None:
    world = lived()
    parts = [world.shard.checkpoint_close()]
    opening = opening_of(parts, LogPosition(LOG_ID, 1, 1, OWNER, 1))
    told = [change.fields for change in opening.catalogue if change.what == "experiment"]
    assert told == world.shard.experiments("acme")
    assert [fields["kind"] for fields in told] == ["holdout", "experiment"]


async def test_verbs_become_deltas() -> None:
    async with market() as place:
        await open_shops(place)
        async with answered(place, lambda delta: (outcome(delta, "done"), ())):
            body = {"experiment": "dearer", "price_ratio": 1.05}
            assert (await place.post(PATH, body))[0] == 200
            assert (await place.post(f"{PATH}:stop", {"experiment": "dearer"}))[0] == 200
            assert (await place.post(f"{PATH}:stop", {}))[0] == 200
        begun, named, any_ = await given(place)
        assert isinstance(begun, ExperimentStarted) and isinstance(named, ExperimentStopped)
        assert begun.fields == body
        assert isinstance(any_, ExperimentStopped)
        assert (named.fields, any_.fields) == ({"experiment": "dearer"}, {})


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"experiment": "e"}, 400, "/treatment"),
        ({"experiment": "e", "price_ratio": 7}, 400, "/price_ratio"),
        ({"experiment": "e", "treatment": {"min_margni": 1}}, 400, "/treatment/min_margni"),
        ({"experiment": "e", "treatment": {"min_margin": 7}}, 400, "/treatment/min_margin"),
        ({"experiment": "e", "treatment": {"markdown": 1}}, 422, "/treatment/markdown"),
        ({"experiment": "e", "visitors": 1}, 400, None),
    ],
)
async def test_terms_that_make_no_experiment_go_no_further(
    body: dict[str, Any], status: int, pointer: str | None
) -> None:
    async with market() as place:
        await open_shops(place)
        found, problem = await place.post(PATH, body)
        assert found == status, problem
        if pointer is not None:
            assert problem["errors"][0]["pointer"] == pointer
        assert await given(place) == []


async def test_a_receipt_names_the_experiment_that_set_a_guardrail() -> None:
    async with market() as place:
        await open_shops(place)
        fields = {
            "experiment": "cheap",
            "kind": "experiment",
            "treatment": {"ceiling_minor": 1500},
        }
        mask = reasons.TREATED | 1 << reasons.CEILING
        quote = quoted(
            "acme",
            "shop",
            "A-2",
            1500,
            reasons=np.uint32(mask),
            binding=reasons.CEILING,
            target_minor=1900,
            without_minor=1900,
        )
        told = CatalogueChange(COMMAND, "experiment", "acme", fields)
        await place.owner("acme").decide(catalogue=[told], quotes=[quote])
        await place.caught_up()
        _, receipt = await place.get("/api/v1/products/A-2/explanation")
        assert receipt["binding"]["set_by"] == "the experiment cheap"
        assert receipt["binding"]["value"] == 1500
        assert "treated" in receipt["recommendation"]["reasons"]
        assert "experiment" in receipt["text"]


def test_shadow_tries_nothing() -> None:
    world = World(mode="shadow")
    fields = {"experiment": "e", "price_ratio": 1.1}
    decided = world.send(world.whole(ExperimentStarted, fields=fields))
    assert "shadow" in decided.exceptions[0].reason
    world.send(world.whole(ModeChanged, mode="live"))
    assert not world.send(world.whole(ExperimentStarted, fields=fields)).exceptions


@pytest.mark.parametrize(("scope", "key"), [("category", "nope"), ("channel", "drinks")])
async def test_an_experiment_on_nobody_is_refused(scope: str, key: str) -> None:
    async with market() as place:
        await open_shops(place)
        body = {"experiment": "x", "price_ratio": 1.05, "scope": scope, "key": key}
        async with answered(place, lambda delta: (outcome(delta, "done"), ())):
            status, problem = await place.post(PATH, body)
            assert status == 404
            assert problem["errors"][0]["pointer"] == "/key"
            assert f"{scope} {key!r}" in problem["detail"]
            assert problem["stale"] is False
            for there in (("category", "drinks"), ("channel", "market")):
                named = dict(zip(("scope", "key"), there, strict=True))
                assert (await place.post(PATH, {**body, **named}))[0] == 200
        assert len(await given(place)) == 2
