"""The small HTTP server that every process of ours has on a loopback port of its own.

``/livez``, ``/status`` and ``/metrics`` are open to this machine. What changes something needs the
token of the data folder, which only its owner can read.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from cluster.processes import write_file
from engine.errors import DeadlinePassed, FailedDependency, PricingError

LOOPBACK: Final = "127.0.0.1"
TOKEN_FILE: Final = "control.token"
CALL_DEADLINE_S: Final = 5.0

Act = Callable[[Mapping[str, Any]], Awaitable[Any]]
"""Answers one control call; arguments and answer are plain JSON values."""


def control_token(run_folder: Path) -> str:
    """Return the folder's token, made at the first call."""
    path = run_folder / TOKEN_FILE
    if not path.exists():
        write_file(path, secrets.token_urlsafe(32))
    return msgspec.json.decode(path.read_bytes(), type=str)


class ControlServer:
    """Serves one process's state and accepts what others may tell it."""

    def __init__(
        self,
        token: str,
        *,
        status: Callable[[], Mapping[str, Any]],
        registry: CollectorRegistry,
        acts: Mapping[str, Act],
    ) -> None:
        self._token = token
        self._status = status
        self._registry = registry
        self._acts = acts
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Begin to serve and return the address."""
        app = web.Application(client_max_size=64 * 1024)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/status", self._show_status)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/control/{act}", self._act)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    async def close(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _livez(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _show_status(self, request: web.Request) -> web.Response:
        return _json(self._status())

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry),
            headers={"Content-Type": CONTENT_TYPE_LATEST},
        )

    async def _act(self, request: web.Request) -> web.Response:
        presented = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(presented.encode(), self._token.encode()):
            return _json({"error": "the folder's control token is missing or wrong"}, 401)
        act = self._acts.get(request.match_info["act"])
        if act is None:
            return _json({"error": f"known are {', '.join(self._acts)}"}, 404)
        body = await request.read()
        try:
            arguments = msgspec.json.decode(body, type=dict[str, Any]) if body else {}
            return _json(await act(arguments))
        except msgspec.MsgspecError as error:
            return _json({"error": str(error)}, 400)
        except DeadlinePassed as error:
            return _json({"error": str(error)}, 504)
        except PricingError as error:
            return _json({"error": str(error)}, 503 if error.retry else 409)


def _json(value: object, status: int = 200) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, content_type="application/json")


class ControlClient:
    """Calls the control servers of one data folder."""

    def __init__(self, session: aiohttp.ClientSession, token: str) -> None:
        self._session = session
        self._headers = {"Authorization": f"Bearer {token}"}

    async def status(self, address: str, *, deadline_s: float = CALL_DEADLINE_S) -> dict[str, Any]:
        """Return a process's state.

        Raises:
            FailedDependency: it did not answer in time.
        """
        state: dict[str, Any] = await self._call("GET", f"{address}/status", None, deadline_s)
        return state

    async def act(
        self,
        address: str,
        act: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        deadline_s: float = CALL_DEADLINE_S,
    ) -> Any:
        """Tell a process something and return its answer.

        Raises:
            DeadlinePassed: it answered that it could not in time.
            FailedDependency: it did not answer, or refused.
        """
        body = msgspec.json.encode(dict(arguments or {}))
        return await self._call("POST", f"{address}/control/{act}", body, deadline_s)

    async def _call(self, method: str, url: str, body: bytes | None, deadline_s: float) -> Any:
        timeout = aiohttp.ClientTimeout(total=deadline_s)
        try:
            async with self._session.request(
                method, url, data=body, headers=self._headers, timeout=timeout
            ) as response:
                answer = msgspec.json.decode(await response.read())
                if response.status == 504:
                    raise DeadlinePassed(answer["error"])
                if response.status != 200:
                    raise FailedDependency(f"{url}: {answer.get('error', response.status)}")
                return answer
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as error:
            raise FailedDependency(f"{url}: {type(error).__name__} {error}") from error
