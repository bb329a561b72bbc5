"""A fork in another process is the live shard: what it foresees, the owner then decides."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.forking import ASKED_MAX, Forks, fork_of
from engine.deltas import PlanApplied, Planned, ScopeChange
from engine.errors import DeadlinePassed, FailedDependency
from engine.foresight import plan
from tests.cluster.site import site, traded
from training.worlds.market import Market, World

CHANGES = (ScopeChange(fields={"min_margin": 0.35, "step_max": 0.5}),)


def question(**more: Any) -> dict[str, Any]:
    plain = {"shard": 0, "retailer": "demo", "kind": "plan", "limit": 5, "changes": CHANGES}
    asked: dict[str, Any] = msgspec.to_builtins({**plain, **more})
    return asked


async def test_what_another_process_foresees_is_what_the_owner_decides(tmp_path: Path) -> None:
    """The fork has the live shard's digest; the applied plan's quotes are the plan's, bit for bit.

    A checkpoint lies in the middle, so that the fork is a restored shard that replays a tail.
    """
    async with site(tmp_path) as at:
        market = Market(5, 40, World())
        await at.feed(market.opening())
        await traded(market, at, 2)
        asking = asyncio.ensure_future(at.actor.checkpoint())
        while not asking.done():
            await at.actor.step()
            await asyncio.sleep(0)
        await traded(market, at, 1)
        before = at.shard.digest
        forks = Forks(at.settings)
        try:
            answer = await forks.ask(question(), 60_000)
            again = await forks.ask(question(), 60_000)
        finally:
            await forks.close()
        assert answer["digest"] == again["digest"] == f"{before:016x}"
        assert at.shard.digest == before
        assert answer["seen"] == again["seen"]
        assert answer["seen"][0]["moved"] > 10

        foreseen = plan(await fork_of(at.settings, 0), "demo", CHANGES)
        planned = msgspec.convert(answer["planned"], Planned)
        assert planned == foreseen.planned
        seq = at.shard.seq
        applied = PlanApplied(
            retailer="demo",
            command_id="p-1",
            actor="ada",
            changes=CHANGES,
            observed_ms=at.shard.decided_ms,
            planned=planned,
        )
        await at.command(applied)
        assert (await at.quotes(seq)).tobytes() == foreseen.quotes.tobytes()


async def test_a_fork_refuses_what_the_shard_would_refuse(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        await at.feed(Market(5, 6, World()).opening())
        forks = Forks(at.settings)
        wrong = (ScopeChange(fields={"min_margn": 0.2}),)
        try:
            answer = await forks.ask(question(changes=wrong), 60_000)
            assert answer["problem"]["pointer"] == "/changes/0/fields/min_margn"
            assert answer["problem"]["kind"] == "rejected"
            later = (ScopeChange(fields={"experiments": 1}),)
            answer = await forks.ask(question(changes=later), 60_000)
            assert answer["problem"]["kind"] == "not_supported"
            answer = await forks.ask(question(retailer="nobody"), 60_000)
            assert answer["problem"]["pointer"] == "/retailer"
            asked = question(
                kind="what-if",
                selection={"channel": "shop"},
                cases=[{"name": "dear", "cost_ratio": 1.2}, {"name": "as it is"}],
            )
            answer = await forks.ask(asked, 60_000)
            dear, same = answer["seen"]
            assert dear["moved"] > 0 == same["moved"]
        finally:
            await forks.close()


async def test_a_fork_that_is_late_is_ended_and_the_next_one_answers(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        await at.feed(Market(5, 6, World()).opening())
        forks = Forks(at.settings)
        try:
            with pytest.raises(DeadlinePassed):
                await forks.ask(question(), 1)
            assert (await forks.ask(question(), 60_000))["seen"][0]["listings"] == 6
            asked = [asyncio.ensure_future(forks.ask(question(), 60_000)) for _ in range(ASKED_MAX)]
            await asyncio.sleep(0)
            with pytest.raises(FailedDependency, match="wait already"):
                await forks.ask(question(), 60_000)
            assert len(await asyncio.gather(*asked)) == ASKED_MAX
        finally:
            await forks.close()
