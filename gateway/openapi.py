"""The OpenAPI 3.1 document, generated from the route table and the types that serve."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from gateway.problems import (
    BAD_REQUEST,
    CONTENT_TYPE,
    FORBIDDEN,
    INTERNAL,
    INVALID_REQUEST,
    MALFORMED_BODY,
    REQUEST_TIMEOUT,
    RETAILER_REQUIRED,
    TOO_LARGE,
    UNAUTHENTICATED,
    UNSUPPORTED_MEDIA_TYPE,
    Kind,
    ProblemDocument,
)
from gateway.route import Route

_TEMPLATE = "#/components/schemas/{name}"
_PART = re.compile(r"\{([a-z_]+)\}")


def openapi(routes: Sequence[Route], *, prefix: str, version: str) -> dict[str, Any]:
    """Return the document; only the canonical prefix is described, its alias is the same."""
    types: list[type] = [ProblemDocument]
    for route in routes:
        types += [kind for kind in (route.query, route.body) if kind is not None]
        types += [kind for kind in route.answers.values() if not isinstance(kind, str)]
    types = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(types, ref_template=_TEMPLATE)
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = (prefix if route.prefixed else "") + route.path
        described = _operation(route, by_type, components)
        paths.setdefault(path, {})[route.method.lower()] = described
    queries = {route.query.__name__ for route in routes if route.query is not None}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "repricer",
            "version": version,
            "summary": "Prices as they are decided, with their reasons.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in queries},
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key: rp_live_...",
                }
            },
        },
    }


def problems_of(route: Route) -> tuple[Kind, ...]:
    """Return every kind of problem that a route may answer with."""
    kinds: list[Kind] = [BAD_REQUEST]
    if route.query is not None:
        kinds.append(INVALID_REQUEST)
    if route.scope is not None:
        kinds += [UNAUTHENTICATED, FORBIDDEN]
        if not route.upgrades:
            kinds.append(RETAILER_REQUIRED)
    if route.body is not None:
        kinds += [
            MALFORMED_BODY,
            INVALID_REQUEST,
            TOO_LARGE,
            UNSUPPORTED_MEDIA_TYPE,
            REQUEST_TIMEOUT,
        ]
    return tuple(dict.fromkeys([*kinds, *route.problems, INTERNAL]))


def _operation(
    route: Route, by_type: dict[type, Any], components: dict[str, Any]
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "parameters": [*_parameters(route, components)],
        "responses": _responses(route, by_type),
    }
    if route.scope is not None:
        described["security"] = [{"apiKey": []}]
        described["description"] = f"Needs the scope `{route.scope}`."
    if route.body is not None:
        described["requestBody"] = {
            "required": route.body_required,
            "content": {"application/json": {"schema": by_type[route.body]}},
        }
    return described


def _parameters(route: Route, components: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in _PART.findall(route.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    if route.query is not None:
        schema = components[route.query.__name__]
        required = schema.get("required", [])
        for name, kind in schema["properties"].items():
            yield {"name": name, "in": "query", "required": name in required, "schema": kind}
    for name in route.headers:
        yield {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}


def _responses(route: Route, by_type: dict[type, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, kind in route.answers.items():
        if isinstance(kind, str):
            content = {kind: {"schema": {"type": "string"}}} if kind else None
        else:
            content = {"application/json": {"schema": by_type[kind]}}
        described: dict[str, Any] = {"description": route.summary}
        if content is not None:
            described["content"] = content
        responses[str(status)] = described
    by_status: dict[int, list[Kind]] = {}
    for problem in problems_of(route):
        by_status.setdefault(problem.status, []).append(problem)
    for status, kinds in sorted(by_status.items()):
        if str(status) in responses:
            continue
        responses[str(status)] = {
            "description": "; ".join(f"{kind.name}: {kind.title}" for kind in kinds),
            "content": {CONTENT_TYPE: {"schema": by_type[ProblemDocument]}},
        }
    return responses
