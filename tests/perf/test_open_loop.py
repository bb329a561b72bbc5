"""The timetable's sender: what is due is sent, and what was opened is closed."""

import asyncio
import time

import pytest

from cluster.feeding import Router
from engine.deltas import StockCounted
from perf.open_loop import OpenLoop, Planned
from persistence.memory_log import MemoryAppender, MemoryLog, MemoryLogs
from persistence.ports import DELTAS


def counted(due_s: float, name: int) -> Planned:
    delta = StockCounted(retailer="r", channel="shop", sku="s", units=name, observed_ms=name)
    return Planned(due_s, delta, name)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every session and every log that is closed."""
    told: list[str] = []
    for each in (MemoryAppender, MemoryLog):

        async def close(self: object) -> None:
            told.append(type(self).__name__)

        monkeypatch.setattr(each, "close", close)
    return told


async def test_who_is_cancelled_closes_what_he_opened(closed: list[str]) -> None:
    """A command that has seen enough cancels its load; a consumer left open warns at exit."""
    logs = MemoryLogs()
    await logs.create({DELTAS: 1}, retention_ms=10**9)
    load = OpenLoop(logs, Router(1, {}), linger_s=0.0)
    load.plan([counted(0.0, 1), counted(3600.0, 2)])
    sending = asyncio.ensure_future(load.run(time.monotonic()))
    while not load.sent:
        await asyncio.sleep(0.01)
    sending.cancel()
    await asyncio.wait([sending])
    assert closed == ["MemoryAppender", "MemoryLog"]
    assert set(load.probes) == {1}
