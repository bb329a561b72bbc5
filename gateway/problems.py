"""Every way a request can fail, as RFC 9457 problem documents.

The ``type`` of a problem is stable and documented in ``docs/api.md``; a test compares the two.
``errors`` names each field at fault by its JSON pointer (a parameter or header by its name), and
the fix.
"""

import re
import secrets
from collections.abc import Sequence

import msgspec
from aiohttp import web
from msgspec import Struct

from gateway.shard_view import Age

PROBLEM_PREFIX = "urn:repricer:problem:"
CONTENT_TYPE = "application/problem+json"


class FieldError(Struct, frozen=True, omit_defaults=True):
    """One field at fault: where it stands and what would be right."""

    detail: str
    pointer: str | None = None  # RFC 6901, into the body
    parameter: str | None = None  # of the path or the query string
    header: str | None = None


class ProblemDocument(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every answer that is not a success.

    ``as_of`` and ``stale`` are there where something was not found in what this gateway had read.
    """

    type: str
    title: str
    status: int
    trace_id: str
    detail: str = ""
    errors: tuple[FieldError, ...] = ()
    operation_id: str | None = None
    as_of: str | None = None
    stale: bool | None = None


class Kind(Struct, frozen=True):
    """A kind of problem: its stable name, its status and its title."""

    name: str
    status: int
    title: str

    @property
    def type(self) -> str:
        """Return the URI that stands in ``type``."""
        return PROBLEM_PREFIX + self.name


BAD_REQUEST = Kind("bad-request", 400, "The request cannot be read as HTTP")
MALFORMED_BODY = Kind("malformed-body", 400, "The body is not the JSON that was expected")
INVALID_REQUEST = Kind("invalid-request", 400, "A field or parameter breaks a stated rule")
RETAILER_REQUIRED = Kind("retailer-required", 400, "The key sees several retailers: name one")
UNAUTHENTICATED = Kind("unauthenticated", 401, "A valid API key is required")
FORBIDDEN = Kind("forbidden", 403, "The key does not have the scope for this")
ORIGIN_REFUSED = Kind("origin-refused", 403, "Pages of this origin may not open a stream")
NOT_FOUND = Kind("not-found", 404, "There is nothing of that name that you may see")
METHOD_NOT_ALLOWED = Kind("method-not-allowed", 405, "This path does not know that method")
REQUEST_TIMEOUT = Kind("request-timeout", 408, "The body did not arrive in time")
CONFLICT = Kind("conflict", 409, "What is asked does not fit how things stand")
IN_FLIGHT = Kind("in-flight", 409, "The same operation is still being decided")
TOO_LARGE = Kind("too-large", 413, "The body is larger than allowed")
UNSUPPORTED_MEDIA_TYPE = Kind("unsupported-media-type", 415, "The body must be application/json")
REFUSED = Kind("refused", 422, "The engine refused the command")
NOT_SUPPORTED = Kind("not-supported", 422, "This version does not build that yet")
KEY_REUSED = Kind("idempotency-key-reused", 422, "This Idempotency-Key came with another request")
UPGRADE_REQUIRED = Kind("upgrade-required", 426, "This path speaks WebSocket, prices.v1")
INTERNAL = Kind("internal", 500, "A fault of ours, which was logged under the trace id")
UNAVAILABLE = Kind("unavailable", 503, "What is needed for this cannot be reached just now")
DEADLINE = Kind("deadline", 504, "The owner of the listing did not answer in time")

KINDS: tuple[Kind, ...] = (
    BAD_REQUEST,
    MALFORMED_BODY,
    INVALID_REQUEST,
    RETAILER_REQUIRED,
    UNAUTHENTICATED,
    FORBIDDEN,
    ORIGIN_REFUSED,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    REQUEST_TIMEOUT,
    CONFLICT,
    IN_FLIGHT,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    REFUSED,
    NOT_SUPPORTED,
    KEY_REUSED,
    UPGRADE_REQUIRED,
    INTERNAL,
    UNAVAILABLE,
    DEADLINE,
)
"""Every kind there is, in the order of their status."""

_TRACEPARENT = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")
_encode = msgspec.json.Encoder().encode


class Problem(Exception):
    """Ends a request with a problem document; raised by routes, answered in one place."""

    def __init__(
        self,
        kind: Kind,
        detail: str = "",
        *,
        errors: Sequence[FieldError] = (),
        operation_id: str | None = None,
        headers: dict[str, str] | None = None,
        age: Age | None = None,
    ) -> None:
        super().__init__(f"{kind.name}: {detail}")
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.operation_id = operation_id
        self.headers = headers or {}
        self.age = age  # of what was looked at in vain


def trace_id(request: web.BaseRequest) -> str:
    """Return the caller's trace id (W3C ``traceparent``), or a new one."""
    match = _TRACEPARENT.match(request.headers.get("traceparent", ""))
    return match.group(1) if match else secrets.token_hex(16)


def document(problem: Problem, trace: str) -> ProblemDocument:
    """Return the document that tells the caller about ``problem``."""
    age = problem.age
    return ProblemDocument(
        type=problem.kind.type,
        title=problem.kind.title,
        status=problem.kind.status,
        trace_id=trace,
        detail=problem.detail,
        errors=problem.errors,
        operation_id=problem.operation_id,
        as_of=age.as_of if age is not None else None,
        stale=age.stale if age is not None else None,
    )


def response(problem: Problem, trace: str) -> web.Response:
    """Return the answer for ``problem``."""
    return web.Response(
        body=_encode(document(problem, trace)),
        status=problem.kind.status,
        headers={"Cache-Control": "no-store", **problem.headers},
        content_type=CONTENT_TYPE,
    )
