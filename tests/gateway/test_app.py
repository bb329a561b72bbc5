"""Every route: what is one's own, another's, absent or malformed, and what is documented of it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.decided import CatalogueChange, Cause, State
from engine.microbatch import Position, Refusal
from gateway.app import OPENAPI, PREFIX, PREFIXES, ROUTES
from gateway.console import FOLDER
from gateway.openapi import problems_of
from gateway.problems import CONTENT_TYPE, KINDS
from gateway.route import Route
from tests.gateway.hand import market, open_shops, quoted

DOCS = Path(__file__).parents[2] / "docs" / "api.md"
PRODUCT_ROUTES = [route for route in ROUTES if "{id}" in route.path]
KEYED_ROUTES = [route for route in ROUTES if route.scope is not None]
BODY_ROUTES = [route for route in ROUTES if route.body is not None]
BODIES: dict[str, Any] = {
    "/products/{id}/pin-price": {"price": {"amount": "12.00", "currency": "EUR"}},
    "/recommendations:batchGet": {"ids": ["A-1"]},
    "/features:batchGet": {"ids": ["A-1"]},
}


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def at(route: Route, **parts: str) -> str:
    """Return a route's path with its parts filled in."""
    path = (PREFIX if route.prefixed else "") + route.path
    parts = {
        "id": "A-1",
        "quote_id": "q7-0-1-0",
        "operation_id": "none",
        "scope": "retailer",
        "file": "console.js",
        **parts,
    }
    for name, value in parts.items():
        path = path.replace("{" + name + "}", value)
    return path


@pytest.mark.parametrize("route", KEYED_ROUTES, ids=named)
async def test_a_route_asks_for_a_key_and_for_its_scope(route: Route) -> None:
    async with market() as place:
        await open_shops(place)
        place.keys["wrong"] = "rp_live_" + "A" * 49
        for who, status, kind in [
            ("", 401, "unauthenticated"),
            ("wrong", 401, "unauthenticated"),
            ("nobody", 403, "forbidden"),
        ]:
            answer = await place.client.request(
                route.method, at(route), headers=place.headers(who), json={}
            )
            assert answer.status == status
            assert answer.content_type == CONTENT_TYPE
            body = await answer.json(content_type=None)
            assert body["type"] == f"urn:repricer:problem:{kind}"
            assert re.fullmatch("[0-9a-f]{32}", body["trace_id"])


@pytest.mark.parametrize("route", PRODUCT_ROUTES, ids=named)
async def test_a_foreign_product_looks_like_none(route: Route) -> None:
    """Byte for byte, so that nobody learns what another sells."""
    async with market() as place:
        await open_shops(place)
        body = BODIES.get(route.path, {})
        answers = []
        for who, sku in [("bolt", "A-1"), ("bolt", "A-9")]:
            answer = await place.client.request(
                route.method,
                at(route, id=sku),
                headers={**place.headers(who), "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"},
                json=body if route.method == "POST" else None,
            )
            assert answer.status == 404
            answers.append((await answer.text()).replace(sku, "?"))
        assert answers[0] == answers[1]
        assert json.loads(answers[0])["trace_id"] == "a" * 32
        chosen = at(route) + "?retailer=acme"
        answer = await place.client.request(
            route.method, chosen, headers=place.headers("bolt"), json=body
        )
        assert answer.status == 404


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_both_prefixes_serve(prefix: str) -> None:
    async with market() as place:
        await open_shops(place)
        assert (await place.get(f"{prefix}/products/A-1"))[0] == 200


@pytest.mark.parametrize("route", ROUTES, ids=named)
async def test_another_method_is_told_which_are_allowed(route: Route) -> None:
    async with market() as place:
        answer = await place.client.request("DELETE", at(route), headers=place.headers("acme"))
        assert answer.status == 405
        assert answer.content_type == CONTENT_TYPE
        assert route.method in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/api", "/api/v1/nothing", "/api/v2/products", "/console/x"])
async def test_an_unknown_path_is_a_problem_document(path: str) -> None:
    async with market() as place:
        status, body = await place.get(path)
        assert (status, body["type"]) == (404, "urn:repricer:problem:not-found")


@pytest.mark.parametrize("route", BODY_ROUTES, ids=named)
@pytest.mark.parametrize(
    ("raw", "content_type", "status", "kind"),
    [
        (b"{", "application/json", 400, "malformed-body"),
        (b"[]", "application/json", 400, "invalid-request"),
        (b"NaN", "application/json", 400, "malformed-body"),
        (b'{"a":' * 50_000, "application/json", 400, "malformed-body"),
        (b"[" * 100_000, "application/json", 400, "malformed-body"),
        (b'{"unknown_field": 1}', "application/json", 400, "invalid-request"),
        (b"\xff\xfe", "application/json", 400, "malformed-body"),
        (b"{}", "text/plain", 415, "unsupported-media-type"),
        (b" " * (256 * 1024 + 1), "application/json", 413, "too-large"),
    ],
    ids=["cut", "array", "nan", "deep", "deeper", "unknown", "not-utf8", "text", "large"],
)
async def test_a_malformed_body_is_a_problem_document(
    route: Route, raw: bytes, content_type: str, status: int, kind: str
) -> None:
    async with market() as place:
        await open_shops(place)
        headers = {**place.headers("acme"), "Content-Type": content_type}
        answer = await place.client.request(route.method, at(route), headers=headers, data=raw)
        body = await answer.json(content_type=None)
        assert (answer.status, body["type"]) == (status, f"urn:repricer:problem:{kind}")


async def test_a_key_that_stands_twice_is_refused() -> None:
    async with market() as place:
        await open_shops(place)
        raw = b'{"price":{"amount":"19.99","amount":"0.01","currency":"EUR"}}'
        headers = {**place.headers("acme"), "Content-Type": "application/json"}
        path = "/api/v1/products/A-1/pin-price"
        async with place.client.post(path, headers=headers, data=raw) as answer:
            body = await answer.json(content_type=None)
            assert answer.status == 400
            assert body["errors"][0]["pointer"] == "/price/amount"


async def test_a_compressed_body_is_not_unpacked() -> None:
    async with market() as place:
        await open_shops(place)
        headers = {
            **place.headers("acme"),
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
        }
        path = "/api/v1/recommendations:batchGet"
        async with place.client.post(path, headers=headers, data=b"\x1f\x8b") as answer:
            assert answer.status in (400, 415)


@pytest.mark.parametrize(
    ("query", "parameter", "fix"),
    [
        ("limit=0", "limit", "within the bounds"),
        ("limit=many", "limit", "whole number"),
        ("limit=501", "limit", "within the bounds"),
        ("cursor=%FF%FE", "cursor", "that we gave"),
        ("cursor=cHJvZHVjdHMfc2t1LTE!", "cursor", "send next_cursor as it came"),
        ("cursor=cHJvZH.VjdHMfc2t1LTE", "cursor", "that we gave"),
        ("cursor=cHJvZHVjdHMfc2t1LTF", "cursor", "that we gave"),
        ("cursor=", "cursor", "none for the first page"),
        ("cursor=c2t1LTE", "cursor", "that we gave"),  # it names no list
        (
            "cursor=cG9saWNpZXMfY2F0ZWdvcnkfanVpY2U",
            "cursor",
            "that we gave",
        ),  # of the policies' list
        ("state=asleep", "state", "there are halted, held, "),
        ("fields=id,colour", "fields", "there are id, "),
        ("colour=red", "colour", "there are retailer, "),
        ("limit=1&limit=2", "limit", "more than once"),
    ],
)
async def test_a_wrong_parameter_is_named_with_what_would_be_right(
    query: str, parameter: str, fix: str
) -> None:
    async with market() as place:
        await open_shops(place)
        status, body = await place.get(f"/api/v1/products?{query}")
        assert (status, body["errors"][0]["parameter"]) == (400, parameter)
        assert fix in body["errors"][0]["detail"]


async def test_products_are_paged_filtered_and_thinned() -> None:
    async with market() as place:
        await open_shops(place)
        path, seen, cursor = "/api/v1/products?limit=2&fields=id,listings", [], ""
        while True:
            status, page = await place.get(path + cursor)
            assert status == 200
            assert all(set(each) == {"id", "listings"} for each in page["products"])
            seen += [each["id"] for each in page["products"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert seen == ["A-1", "A-2", "A-3"]
        for query, expected in [
            ("category=food", ["A-2", "A-3"]),
            ("channel=market", ["A-1", "A-3"]),
            ("tag=kvi", ["A-1"]),
            ("state=pending", ["A-2"]),
            ("state=unpriced", ["A-3"]),
            ("category=food&channel=shop", ["A-2"]),
            ("category=none", []),
            ("brand=Rossi", ["A-1"]),
            ("brand=rossi", []),
        ]:
            _, page = await place.get(f"/api/v1/products?{query}")
            assert [each["id"] for each in page["products"]] == expected


async def test_a_product_shows_all_its_listings() -> None:
    async with market() as place:
        await open_shops(place)
        _, body = await place.get("/api/v1/products/A-2")
        assert body["rrp"] == {"amount": "30.00", "currency": "EUR"}
        assert body["listings"][0]["recommended_price"]["amount"] == "16.00"
        assert body["brand"] is None
        _, body = await place.get("/api/v1/products/A-1")
        assert body["brand"] == "Rossi"


@pytest.mark.parametrize("sku", ["a/b c", "ü%20", "q?x=1", "..", "%2e%2e"])
async def test_any_sku_is_found_again(sku: str) -> None:
    from urllib.parse import quote

    from tests.gateway.hand import listed, retailer_added

    async with market() as place:
        await place.owner("acme").decide(
            catalogue=[retailer_added("acme"), listed("acme", "shop", sku)]
        )
        await place.caught_up()
        from yarl import URL

        path = f"/api/v1/products/{quote(sku, safe='').replace('.', '%2E')}/recommendation"
        url = URL(str(place.client.make_url("/")).rstrip("/") + path, encoded=True)
        async with place.client.session.get(url, headers=place.headers("acme")) as answer:
            assert (await answer.json(content_type=None))["sku"] == sku


async def test_an_explanation_is_the_receipt_in_words() -> None:
    async with market() as place:
        await open_shops(place)
        quote = quoted("acme", "shop", "A-1", 1850, binding=1, reasons=2, without_minor=1700)
        await place.owner("acme").decide(quotes=[quote])
        await place.caught_up()
        _, body = await place.get("/api/v1/products/A-1/explanation")
        assert body["binding"]["rule"] == "floor"
        assert body["binding"]["without"] == {"amount": "17.00", "currency": "EUR"}
        assert "18.50 EUR" in body["text"]
        assert "17.00 EUR" in body["text"]
        assert body["cause"] == {"kind": "delta", "lane": "deltas", "offset": 41, "index": 0}
        quote_id = body["recommendation"]["quote_id"]
        _, receipt = await place.get(f"/api/v1/quotes/{quote_id}")
        assert receipt == body
        status, _ = await place.get("/api/v1/products/A-3/explanation")
        assert status == 404


async def test_a_receipt_says_that_the_full_hour_caused_it_and_who_made_it_hourly() -> None:
    async with market() as place:
        await open_shops(place)
        fields = {"scope": "retailer", "key": "", "priority": 0, "fields": {"tier": "hourly"}}
        told = CatalogueChange(Position(0, 90, 0), "policy", "acme", fields)
        quote = quoted("acme", "shop", "A-1", 1850, cause_kind=Cause.HOUR, cause_lane=0)
        await place.owner("acme").decide(quotes=[quote], catalogue=[told])
        await place.caught_up()
        _, body = await place.get("/api/v1/products/A-1/explanation")
        assert body["cause"] == {"kind": "hour", "lane": None, "offset": None, "index": None}
        assert "looked at hourly, set by the retailer's policy" in body["text"]


async def test_a_quote_is_found_while_it_is_kept_and_only_by_its_retailer() -> None:
    async with market() as place:
        await open_shops(place)
        _, first = await place.get("/api/v1/products/A-1/recommendation")
        await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", 1850)])
        await place.caught_up()
        path = f"/api/v1/quotes/{first['quote_id']}"
        _, body = await place.get(path)
        assert body["recommendation"]["current_price"]["amount"] == "19.99"
        foreign = await place.get(path, who="bolt")
        absent = await place.get("/api/v1/quotes/q7-0-99-0", who="bolt")
        assert foreign[0] == absent[0] == 404
        for wrong in ["q7-9-1-0", "q8-0-1-0", "q7-0-1-99", "nonsense", "q7-0-1", f"q7-0-1-{2**70}"]:
            assert (await place.get(f"/api/v1/quotes/{wrong}"))[0] == 404


async def test_a_history_is_read_from_the_window() -> None:
    async with market() as place:
        await open_shops(place)
        for price in (1850, 1860):
            place.clock.pass_ms(1000)
            await place.owner("acme").decide(quotes=[quoted("acme", "shop", "A-1", price)])
        await place.caught_up()
        _, body = await place.get("/api/v1/products/A-1/history")
        assert body["source"] == "window"
        assert [point["current"] for point in body["points"]] == ["19.99", "18.50", "18.60"]
        since = body["points"][1]["at"]
        _, body = await place.get(f"/api/v1/products/A-1/history?since={since}")
        assert len(body["points"]) == 2
        status, body = await place.get("/api/v1/products/A-1/history?since=yesterday")
        assert (status, body["errors"][0]["parameter"]) == (400, "since")


async def test_routing_names_only_retailers_that_the_key_sees() -> None:
    async with market(spreads={"acme": 4, "bolt": 2}) as place:
        _, body = await place.get("/api/v1/routing")
        assert body["generation"] == 7
        assert (body["partitions"], body["partitioner"]) == (2, "murmur2")
        assert body["spreads"] == {"acme": 4}
        _, body = await place.get("/api/v1/routing", who="everybody")
        assert body["spreads"] == {"acme": 4, "bolt": 2}


async def test_a_key_that_sees_several_retailers_names_one() -> None:
    async with market() as place:
        await open_shops(place)
        status, body = await place.get("/api/v1/products/A-1", who="everybody")
        assert (status, body["type"]) == (400, "urn:repricer:problem:retailer-required")
        assert "acme, bolt" in body["detail"]
        assert (await place.get("/api/v1/products/A-1?retailer=acme", who="everybody"))[0] == 200
        _, body = await place.get("/api/v1/retailers", who="everybody")
        assert [each["retailer"] for each in body["retailers"]] == ["acme", "bolt"]
        _, body = await place.get("/api/v1/retailers")
        assert [each["retailer"] for each in body["retailers"]] == ["acme"]


async def test_metrics_count_without_naming_anybody() -> None:
    async with market() as place:
        await open_shops(place)
        await place.get("/api/v1/products/A-1/recommendation")
        await place.owner("acme").decide(
            quotes=[quoted("acme", "shop", "A-2", 1700, state=State.HELD)],
            exceptions=[Refusal(Position(1, 5, 0), "quarantined", "odd")],
        )
        await place.caught_up()
        async with place.client.get("/metrics") as answer:
            text = await answer.text()
        assert 'repricer_decisions_total{outcome="held"} 1.0' in text
        assert 'repricer_exceptions_total{verdict="quarantined"} 1.0' in text
        assert 'route="/products/{id}/recommendation",status="200"} 1.0' in text
        assert "A-1" not in text
        assert "acme" not in text
        samples = [line for line in text.splitlines() if not line.startswith("#")]
        assert all(line.startswith("repricer_") for line in samples)


async def test_readiness_names_what_is_not_ready() -> None:
    async with market() as place:
        await open_shops(place)
        status, body = await place.get("/readyz?verbose", who="")
        assert (status, body["ready"]) == (200, True)
        place.replica.shards[1].failure = "LogTruncated: gone"
        status, body = await place.get("/readyz?verbose", who="")
        assert (status, body["not_ready"]) == (503, ["shard-001"])
        assert body["shards"][1]["failure"] == "LogTruncated: gone"
        async with place.client.get("/livez") as answer:
            assert answer.status == 200
        async with place.client.get("/startupz") as answer:
            assert answer.status == 200


def test_openapi_lists_each_route_with_its_problems() -> None:
    document = json.loads(OPENAPI)
    assert document["openapi"].startswith("3.1")
    for route in ROUTES:
        path = (PREFIX if route.prefixed else "") + route.path
        operation = document["paths"][path][route.method.lower()]
        answered = {int(status) for status in operation["responses"]}
        assert {kind.status for kind in problems_of(route)} | set(route.answers) == answered
        parts = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert parts == set(re.findall(r"\{(\w+)\}", route.path))
    operations = [
        operation["operationId"]
        for methods in document["paths"].values()
        for operation in methods.values()
    ]
    assert len(operations) == len(set(operations))
    references = set(re.findall(r'"\$ref":"#/components/schemas/([^"]+)"', OPENAPI.decode()))
    assert references <= set(document["components"]["schemas"])


def test_the_documentation_names_every_route_and_every_problem() -> None:
    text = DOCS.read_text()
    missing = [
        f"{route.method} {route.path}"
        for route in ROUTES
        if f"`{route.method} {(PREFIX if route.prefixed else '') + route.path}`" not in text
    ]
    missing += [kind.name for kind in KINDS if f"| `{kind.name}` | {kind.status} |" not in text]
    assert not missing, missing


def test_the_application_imports_neither_jax_nor_ray() -> None:
    code = (
        "import sys, gateway.app, gateway.server, gateway.opening;"
        "print([name for name in ('jax', 'jaxlib', 'ray') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_the_bare_address_leads_to_the_console() -> None:
    async with market() as place:
        async with place.client.get("/", allow_redirects=False) as answer:
            assert answer.status == 307
        async with place.client.get("/") as answer:
            assert (answer.status, answer.url.path) == (200, "/console")
            assert "<html" in (await answer.text()).lower()


def test_the_console_loads_nothing_from_elsewhere() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text()
        outside = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text)
        assert [url for url in outside if "www.w3.org" not in url] == []
        assert " style=" not in text
        assert "innerHTML" not in text
