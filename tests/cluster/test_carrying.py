"""What carries decisions away goes on after whatever befell it once."""

import asyncio
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster import roles
from cluster.settings import Settings, load
from engine.errors import PricingError, RejectedInput, SettingsRefused


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings with a folder of their own."""
    return load({"folder": str(tmp_path)}, environment={})


async def goes_on(work: Any, caplog: pytest.LogCaptureFixture, *told: str) -> None:
    """Let it work until the log tells all this, and see that it still does."""
    working = asyncio.ensure_future(work)
    async with asyncio.timeout(20):
        while not all(text in caplog.text for text in told) and not working.done():
            await asyncio.sleep(0.01)
    assert not working.done()
    working.cancel()
    await asyncio.wait({working})


async def test_merging_outlives_a_fork_that_is_refused_and_looks_at_what_came_of_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fork, refused = asyncio.create_subprocess_exec, ["once"]

    async def begin(*_: str, **words: Any) -> Any:
        if refused:
            refused.pop()
            raise OSError(12, "Cannot allocate memory")
        return await fork(sys.executable, "-c", "raise SystemExit(3)", **words)

    monkeypatch.setattr(roles, "MERGE_EVERY_CHECKPOINTS", 0.0)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", begin)
    with caplog.at_level(logging.ERROR):
        told = ("merge did not begin: OSError(12", "merge ended with 3")
        await goes_on(roles._merge(settings), caplog, *told)


@pytest.mark.parametrize(
    "error", [SettingsRefused("a password is being changed"), RejectedInput("/", "no such column")]
)
async def test_shipping_outlives_a_store_that_refuses_once(
    error: PricingError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = 0

    async def run(every_ms: int) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise error
        logging.getLogger("test").error("shipping again")
        await asyncio.Event().wait()

    monkeypatch.setattr(roles, "SHIP_EVERY_MS", 1)
    shipping = cast(Any, SimpleNamespace(run=run))
    await goes_on(roles._ship(shipping), caplog, "was not shipped", "shipping again")
