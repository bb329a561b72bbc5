"""One route as data, and the one place where a request begins and ends.

Handlers return an answer or raise a :class:`Problem`; everything around that stands here once:
who is asking, what he may do, how long it took, and the problem document when it failed.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, cast

from aiohttp import web
from aiohttp.hdrs import AUTHORIZATION
from msgspec import Struct

from gateway.call import Call, Gateway
from gateway.keys import Credential
from gateway.problems import (
    FORBIDDEN,
    INTERNAL,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    UNAUTHENTICATED,
    Kind,
    Problem,
    response,
    trace_id,
)
from gateway.ready import Answer

logger = logging.getLogger(__name__)

Handler = Callable[[Gateway, Call], Awaitable[Answer]]
AiohttpHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]

NOBODY = Credential("nobody", frozenset(), frozenset())
"""Whose call it is where no key is asked for."""

REALM = 'Bearer realm="repricer"'


class Route(Struct, frozen=True, kw_only=True):
    """A path, what it takes and what it answers: served by it and documented from it."""

    method: str
    path: str  # without the prefix, where it has one
    handler: Handler
    summary: str
    scope: str | None = None  # what the key must be allowed; None: open to everybody
    query: type[Struct] | None = None
    body: type[Struct] | None = None
    body_required: bool = False
    answers: Mapping[int, Any] = {}  # status -> type of the document, or a content type
    problems: tuple[Kind, ...] = ()  # besides those that every such route may answer
    prefixed: bool = True
    headers: tuple[str, ...] = ()  # request headers it understands
    upgrades: bool = False  # a WebSocket, which asks for its key by itself


def serving(route: Route, gateway: Gateway) -> AiohttpHandler:
    """Return the aiohttp handler of a route."""
    handler, scope = route.handler, route.scope
    observe = gateway.metrics.observer(route.method, route.path)

    async def serve(request: web.Request) -> Answer:
        began = perf_counter()
        try:
            credential = NOBODY if scope is None else authenticate(gateway, request, scope)
            answer: Answer = await handler(gateway, Call(request, credential))
        except Problem as problem:
            answer = response(problem, trace_id(request))
        except web.HTTPException:
            raise
        except Exception:
            # The top of a request, as of an actor's loop: told to the log, never to the caller.
            trace = trace_id(request)
            logger.exception("%s %s failed, trace %s", request.method, route.path, trace)
            answer = response(Problem(INTERNAL), trace)
        observe(answer.status, perf_counter() - began)
        return answer

    # The server asks of an answer what ReadyAnswer has; its types name the class that has it all.
    return cast(AiohttpHandler, serve)


def authenticate(gateway: Gateway, request: web.Request, scope: str) -> Credential:
    """Return the credential in the request's header.

    Raises:
        Problem: there is none, it is not one of ours, or it lacks ``scope``.
    """
    header = request.headers.get(AUTHORIZATION, "")
    presented = header[7:].strip()
    if header[:7].lower() != "bearer " or not presented:
        detail = "send the header Authorization: Bearer rp_live_..."
        raise Problem(UNAUTHENTICATED, detail, headers={"WWW-Authenticate": REALM})
    return allowed(gateway, presented, scope)


def allowed(gateway: Gateway, presented: str, scope: str) -> Credential:
    """Return the credential of a presented key, which must have ``scope``."""
    credential = gateway.keys.find(presented)
    if credential is None:
        raise Problem(UNAUTHENTICATED, "this key is not valid", headers={"WWW-Authenticate": REALM})
    if scope not in credential.scopes:
        raise Problem(FORBIDDEN, f"this key lacks the scope {scope}")
    return credential


def add_routes(
    app: web.Application, gateway: Gateway, routes: tuple[Route, ...], prefixes: tuple[str, ...]
) -> None:
    """Register every route under its paths, and what answers for all other paths and methods."""
    paths: dict[str, dict[str, AiohttpHandler]] = {}
    for route in routes:
        for prefix in prefixes if route.prefixed else ("",):
            methods = paths.setdefault(prefix + route.path, {})
            assert route.method not in methods, f"{route.method} {route.path} stands twice"
            methods[route.method] = serving(route, gateway)
    for path, methods in paths.items():
        resource = app.router.add_resource(path)
        for method, handler in methods.items():
            resource.add_route(method, handler)
            if method == "GET":
                resource.add_route("HEAD", handler)
        resource.add_route("*", _refusing(METHOD_NOT_ALLOWED, gateway, tuple(methods)))
    app.router.add_resource("/{path:.*}").add_route("*", _refusing(NOT_FOUND, gateway, ()))


def _refusing(kind: Kind, gateway: Gateway, methods: tuple[str, ...]) -> AiohttpHandler:
    """Return a handler that always answers with the same problem."""
    known = [*methods, "HEAD"] if "GET" in methods else list(methods)
    headers = {"Allow": ", ".join(known)} if methods else {}
    detail = f"allowed here: {headers['Allow']}" if methods else "no such path; see /openapi.json"
    observe = gateway.metrics.observer("*", kind.name)

    async def refuse(request: web.Request) -> web.StreamResponse:
        observe(kind.status, 0.0)
        return response(Problem(kind, detail, headers=headers), trace_id(request))

    return refuse
