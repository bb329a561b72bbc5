"""A recorded log is repeated exactly under its own policy, and answers for another one."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.__main__ import main
from cluster.commands.backtesting import _backtest
from cluster.commands.speaking import FAILURE, OK, USAGE, Voice
from cluster.settings import Settings
from engine.deltas import PlanApplied, PolicyChanged, ScopeChange
from engine.errors import RejectedInput
from tests.cluster.site import site, traded
from training.worlds.market import Market, World

DAYS = 12


async def recorded(folder: Path, *, learning: bool = False) -> Settings:
    """Record some days of the demo's market; a plan is applied in the middle of them."""
    async with site(folder) as at:
        market = Market(3, 30, World(volume_median=40.0))
        await at.feed(market.opening())
        await at.feed(
            [
                PolicyChanged(
                    retailer="demo",
                    scope="retailer",
                    fields={"learning": learning},
                    observed_ms=at.shard.decided_ms,
                )
            ]
        )
        await traded(market, at, DAYS // 2)
        applied = PlanApplied(
            retailer="demo",
            command_id="p-1",
            changes=(ScopeChange(fields={"min_margin": 0.1}),),
            observed_ms=at.shard.decided_ms,
            anyway=True,
        )
        await at.command(applied)
        await traded(market, at, DAYS - DAYS // 2)
        return at.settings


async def backtested(settings: Settings, *changes: ScopeChange) -> dict[str, Any]:
    return await _backtest(settings, changes, None, Voice(None))


@pytest.mark.parametrize("learning", [False, True])
async def test_the_recorded_policy_is_repeated_without_a_difference(
    tmp_path: Path, learning: bool
) -> None:
    settings = await recorded(tmp_path, learning=learning)
    result = await backtested(settings)
    assert result["decisions"] > DAYS
    assert result["differences"] == result["expected"] == 0
    assert result["days"] >= DAYS - 1


async def test_another_policy_is_told_with_its_guardrails_and_its_profit(tmp_path: Path) -> None:
    """A higher margin raises proposals to the floor; the model says what that costs or earns."""
    settings = await recorded(tmp_path)
    result = await backtested(settings, ScopeChange(fields={"min_margin": 0.4, "step_max": 0.03}))
    assert result["moved"] > 5
    assert 0 < result["other"] <= result["proposals"]
    assert result["guardrails"]["floor"] + result["guardrails"].get("step", 0) > 0
    assert 0 < result["mean_move"] < 0.5
    (earned,) = result["earned"]
    assert earned["currency"] == "EUR"
    assert earned["recorded_minor"] > 0
    assert earned["low_minor"] < earned["high_minor"]
    assert earned["low_minor"] <= earned["difference_minor"] <= earned["high_minor"]


async def test_the_policy_that_was_recorded_given_by_hand_proposes_the_recorded_prices(
    tmp_path: Path,
) -> None:
    settings = await recorded(tmp_path)
    result = await backtested(
        settings, ScopeChange(scope="tag", key="nobody", fields={"dither": 0.0})
    )
    assert result["proposals"] > 50
    assert result["other"] == result["extrapolated"] == 0
    (earned,) = result["earned"]
    assert earned["difference_minor"] == earned["low_minor"] == earned["high_minor"] == 0


async def test_prices_where_nobody_ever_sold_have_no_support(tmp_path: Path) -> None:
    settings = await recorded(tmp_path)
    far = ScopeChange(fields={"min_margin": 0.8, "step_max": 1.0})
    result = await backtested(settings, far)
    assert result["extrapolation"] > 0.5
    assert not result["supported"]


async def test_what_the_engine_refuses_is_refused(tmp_path: Path) -> None:
    settings = await recorded(tmp_path)
    with pytest.raises(RejectedInput, match="min_margn"):
        await backtested(settings, ScopeChange(fields={"min_margn": 0.2}))


async def test_learning_may_be_switched_on_afterwards(tmp_path: Path) -> None:
    """It learns from the recorded prices, and proposes from what it has learnt."""
    settings = await recorded(tmp_path)
    result = await backtested(settings, ScopeChange(fields={"learning": True}))
    assert result["other"] > 0


def test_the_command_answers_with_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(recorded(tmp_path / "data"))
    one = ["--json", "--set", "shards.count=1"]
    assert main(["backtest", str(tmp_path / "data"), *one]) == OK
    answer = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert answer["differences"] == 0
    policy = tmp_path / "policy.json"
    far = [ScopeChange(fields={"min_margin": 0.8, "step_max": 1.0})]
    policy.write_bytes(msgspec.json.encode(far))
    assert main(["backtest", str(tmp_path / "data"), "--policy", str(policy), *one]) == FAILURE
    assert main(["backtest", str(tmp_path / "nowhere"), *one]) == USAGE
