"""A replay decides everything again, and finds what another decision would have been."""

import asyncio
from pathlib import Path

import pytest

from cluster.replaying import replay_shard
from engine.errors import RejectedInput
from tests.cluster.site import site, traded
from training.worlds.market import Market, World


async def test_a_replay_agrees_from_the_start_and_from_a_checkpoint(tmp_path: Path) -> None:
    async with site(tmp_path) as at:
        market = Market(5, 12, World())
        await at.feed(market.opening())
        with pytest.raises(RejectedInput, match="no valid checkpoint"):
            await replay_shard(at.settings, 0, begin="checkpoint")
        asking = asyncio.ensure_future(at.actor.checkpoint())
        while not asking.done():
            await at.actor.step()
            await asyncio.sleep(0)
        taken_at = at.shard.seq
        await traded(market, at, 1)
        whole = await replay_shard(at.settings, 0, begin="oldest")
        tail = await replay_shard(at.settings, 0, begin="checkpoint")
        digest = f"{at.shard.digest:016x}"
        for replayed in (whole, tail):
            assert replayed.to_seq == at.shard.seq
            assert replayed.digest == digest
            assert replayed.differences == replayed.expected == 0
            assert replayed.decisions == replayed.to_seq - replayed.from_seq
        assert whole.quotes > tail.quotes > 0
        assert whole.horizon == "the start of the log"
        assert 0 <= tail.from_seq <= taken_at
        assert tail.horizon.startswith("checkpoint ")
