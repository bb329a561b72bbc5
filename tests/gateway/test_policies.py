"""The policy in force can be read: scope by scope, and as it counts for one listing."""

from typing import Any

from engine.decided import CatalogueChange
from engine.policy import FIELDS, Policy
from gateway.cursors import write_cursor
from kernels import reasons
from tests.gateway.hand import COMMAND, Market, market, open_shops, quoted

PATH = "/api/v1/policies"


def policy(scope: str, key: str = "", priority: int = 0, **fields: Any) -> CatalogueChange:
    """Return an accepted change of acme's policy."""
    facts = {"scope": scope, "key": key, "priority": priority, "fields": fields}
    return CatalogueChange(COMMAND, "policy", "acme", facts)


async def set_up(place: Market) -> None:
    """Give acme policies at every scope, and take one field back."""
    await open_shops(place)
    changes = [
        policy("retailer", min_margin=0.1, step_max=0.1, endings=["99"]),
        policy("channel", "shop", step_max=0.2),
        policy("category", "drinks", floor_minor=500, ceiling_minor=9000),
        policy("category", "drinks", ceiling_minor=None),
        policy("tag", "kvi", 3, publish=False),
        policy("listing", "shop\x1fA-1", min_margin=0.3),
    ]
    await place.owner("acme").decide(catalogue=changes)
    await place.caught_up()


async def test_every_scope_is_listed_as_it_is_set() -> None:
    async with market() as place:
        await set_up(place)
        status, body = await place.get(PATH)
        assert status == 200
        assert (body["retailer"], body["next_cursor"], body["stale"]) == ("acme", None, False)
        assert body["policies"] == [
            {
                "scope": "category",
                "key": "drinks",
                "priority": 0,
                "fields": {"floor_minor": 500},
            },
            {"scope": "channel", "key": "shop", "priority": 0, "fields": {"step_max": 0.2}},
            {
                "scope": "listing",
                "key": "shop\x1fA-1",
                "priority": 0,
                "fields": {"min_margin": 0.3},
            },
            {
                "scope": "retailer",
                "key": "",
                "priority": 0,
                "fields": {"min_margin": 0.1, "step_max": 0.1, "endings": ["99"]},
            },
            {"scope": "tag", "key": "kvi", "priority": 3, "fields": {"publish": False}},
        ]
        _, tags = await place.get(f"{PATH}?scope=tag")
        assert [each["key"] for each in tags["policies"]] == ["kvi"]
        assert (await place.get(f"{PATH}?scope=shelf"))[0] == 400
        for cursor in ("_w", write_cursor("products", "category\x1fjuice"), ""):
            status, refused = await place.get(f"{PATH}?cursor={cursor}")
            assert (status, refused["errors"][0]["parameter"]) == (400, "cursor")
        assert (await place.get(PATH, who="bolt"))[1]["policies"] == []
        assert (await place.get(f"{PATH}?retailer=bolt"))[0] == 404


async def test_scopes_are_paged() -> None:
    async with market() as place:
        await set_up(place)
        _, whole = await place.get(PATH)
        seen, cursor = [], ""
        while cursor is not None:
            _, page = await place.get(f"{PATH}?limit=2" + (f"&cursor={cursor}" if cursor else ""))
            assert len(page["policies"]) <= 2
            seen += page["policies"]
            cursor = page["next_cursor"]
        assert seen == whole["policies"]
        path = f"{PATH}?limit=2"
        async with place.client.get(path, headers=place.headers("acme")) as answer:
            link, cursor = answer.headers["Link"], (await answer.json())["next_cursor"]
        assert link == f'<{path}&cursor={cursor}>; rel="next"'


async def test_one_scope_is_read_by_its_name() -> None:
    async with market() as place:
        await set_up(place)
        status, body = await place.get(f"{PATH}/category?key=drinks")
        assert status == 200
        assert (body["scope"], body["key"], body["fields"]) == (
            "category",
            "drinks",
            {"floor_minor": 500},
        )
        assert body["stale"] is False
        assert (await place.get(f"{PATH}/retailer"))[1]["fields"]["min_margin"] == 0.1
        for absent in ("category?key=nope", "category", "shelf?key=drinks"):
            status, problem = await place.get(f"{PATH}/{absent}")
            assert status == 404
            assert problem["stale"] is False
            assert "scopes are listing, tag" in problem["detail"]


async def test_a_listings_policy_names_the_scope_of_each_field() -> None:
    async with market() as place:
        await set_up(place)
        status, body = await place.get("/api/v1/products/A-1/policy")
        assert status == 200
        assert (body["sku"], body["channel"]) == ("A-1", "shop")
        fields = body["fields"]
        assert tuple(fields) == FIELDS
        assert fields["min_margin"] == {"value": 0.3, "scope": "listing", "key": "shop\x1fA-1"}
        assert fields["step_max"] == {"value": 0.2, "scope": "channel", "key": "shop"}
        assert fields["publish"] == {"value": False, "scope": "tag", "key": "kvi"}
        assert fields["floor_minor"] == {"value": 500, "scope": "category", "key": "drinks"}
        assert fields["endings"] == {"value": ["99"], "scope": "retailer", "key": ""}
        ceiling = {"value": Policy().ceiling_minor, "scope": "default", "key": ""}
        assert fields["ceiling_minor"] == ceiling
        _, other = await place.get("/api/v1/products/A-1/policy?channel=market")
        assert other["fields"]["step_max"]["scope"] == "retailer"


async def test_what_an_experiment_treats_follows_the_experiment() -> None:
    tried = {
        "kind": "experiment",
        "experiment": "dearer",
        "treatment": {"min_margin": 0.4},
        "price_ratio": 1.1,
    }
    async with market() as place:
        await set_up(place)
        await place.owner("acme").decide(
            catalogue=[CatalogueChange(COMMAND, "experiment", "acme", tried)],
            quotes=[quoted("acme", "shop", "A-1", 1999, reasons=reasons.TREATED)],
        )
        await place.caught_up()
        _, treated = await place.get("/api/v1/products/A-1/policy")
        _, control = await place.get("/api/v1/products/A-2/policy")
        # A price that is tried leaves a position no say.
        won = {"value": 0.0, "scope": "experiment", "key": "dearer"}
        assert treated["fields"]["rival_position"] == won
        won = {"value": 0.4, "scope": "experiment", "key": "dearer"}
        assert treated["fields"]["min_margin"] == won
        assert control["fields"]["min_margin"]["scope"] == "retailer"
