"""A replay decides everything again, and finds what another decision would have been."""

import asyncio
from pathlib import Path

import pytest

from cluster.replaying import replay_shard
from engine.deltas import PolicyChanged
from engine.errors import RejectedInput
from kernels import reasons
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


async def test_a_replay_counts_what_was_learnt_and_where_closes_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.learning.DECIDED_ROWS", 5)  # of twelve: three microbatches a day
    async with site(tmp_path) as at:
        market = Market(5, 12, World())
        await at.feed(market.opening())
        nothing = await replay_shard(at.settings, 0, begin="oldest")
        assert (nothing.learnt_quotes, nothing.periods, nothing.amid_closes) == (0, 0, [])
        learns = PolicyChanged(
            retailer=market.world.retailer,
            scope="retailer",
            fields={"learning": True, "decision_days": 1, "holdout_share": 0.0},
            observed_ms=at.shard.decided_ms + 1,
        )
        await at.feed([learns])
        begun_at = at.shard.seq
        await traded(market, at, 3)
        replayed = await replay_shard(at.settings, 0, begin="oldest")
        assert replayed.differences == 0
        assert replayed.periods == 3
        quotes = await at.quotes(0)
        assert replayed.learnt_quotes == ((quotes["reasons"] & reasons.LEARNT) != 0).sum() > 0
        closes = [each for each in replayed.amid_closes if each[0] > begun_at]
        assert len(closes) == 3
        assert all(last - first == 1 for first, last in closes)
