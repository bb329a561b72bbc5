"""The soak's own course against a gateway that is not ours: it reads, listens, samples and ends."""

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from perf import soak
from perf.flood import Recorded

Monkey = pytest.MonkeyPatch


class Brief:
    """A flood that lasts as long as it is told and says that it sent something."""

    def __init__(self, *_: Any) -> None:
        self.facts, self.doubts, self.sent = 10, 0, {}

    async def run(self, phases: list[tuple[float, float]]) -> None:
        await asyncio.sleep(phases[0][1])


class Engine:
    """As much of an engine as the soak asks."""

    settings = SimpleNamespace(folder="nowhere")

    async def status(self) -> dict[str, Any]:
        return {"shards": [{"shard": 0, "pid": os.getpid(), "tasks": 3, "compiled_shapes": 5}]}


async def read(_: web.Request) -> web.Response:
    return web.json_response({"stale": False})


async def stream(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=("prices.v1",))
    await socket.prepare(request)
    await socket.receive_json()
    await socket.receive()  # until it is closed
    return socket


@pytest.fixture
async def gateway(monkeypatch: Monkey) -> TestServer:
    application = web.Application()
    application.router.add_get("/api/v1/products/{sku}/recommendation", read)
    application.router.add_get("/api/v1/stream", stream)
    server = TestServer(application)
    await server.start_server()

    async def nothing(*_: Any) -> None: ...

    async def drained(*_: Any) -> float:
        return 0.25

    async def found(*_: Any) -> Recorded:
        return Recorded(10, 4, 3, 0, {0: (np.array([5.0, 9.0]), np.array([5, 5]))})

    card = SimpleNamespace(address=str(server.make_url("/")).rstrip("/"))
    monkeypatch.setattr(soak, "fill", nothing)
    monkeypatch.setattr(soak, "role_card", lambda _, role: card if role == "gateway" else None)
    monkeypatch.setattr(soak, "make_keys", lambda _: "key")
    monkeypatch.setattr(soak, "Flood", Brief)
    monkeypatch.setattr(soak, "until_consumed", drained)
    monkeypatch.setattr(soak, "recorded", found)
    monkeypatch.setattr(soak, "names_of", lambda *_: {os.getpid(): "owner 0"})
    return server


def options() -> Any:
    return SimpleNamespace(
        listings=100, facts_per_s=10.0, reads_per_s=200.0, streams=3, every_s=0.2, minutes=0.03
    )


async def test_a_soak_runs_to_its_end(gateway: TestServer) -> None:
    engine: Any = Engine()
    found = await soak.measure(engine, options(), lambda _: None)
    await gateway.close()
    assert found["reads"] > 100
    assert found["reads_failed"] == found["streams_cut"] == found["lost"] == 0
    assert found["drained_after_s"] == 0.25
    assert found["reads_p99_ms"] > 0
    assert {"owner 0: rss_mb", "owner 0: files", "owner 0: tasks"} <= found["slopes"].keys()
    assert found["flat_share_an_hour"] == soak.FLAT_SHARE


def test_flat_allows_what_it_says_and_no_more() -> None:
    """What surely grows by less than the share an hour is flat, and the command says the share."""
    hour = list(range(0, 3600, 10))

    def grown(share: float) -> soak.Slope:
        return soak.slope(hour, [1000.0 * (1 + share * second / 3600) for second in hour])

    assert grown(0.9 * soak.FLAT_SHARE).low > 0
    assert grown(0.9 * soak.FLAT_SHARE).flat
    assert not grown(1.2 * soak.FLAT_SHARE).flat
    assert f"{soak.FLAT_SHARE:.0%}".replace("%", " %") in (soak.__doc__ or "")


async def test_a_flood_that_fails_ends_the_soak_and_its_tasks(
    gateway: TestServer, monkeypatch: Monkey
) -> None:
    async def fail(*_: Any) -> None:
        raise OSError("no broker")

    monkeypatch.setattr(Brief, "run", fail)
    engine: Any = Engine()
    before = asyncio.all_tasks()
    with pytest.raises(OSError, match="no broker"):
        await soak.measure(engine, options(), lambda _: None)
    await gateway.close()
    assert len(asyncio.all_tasks() - before) <= 1
