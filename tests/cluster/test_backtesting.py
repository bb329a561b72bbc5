"""A recorded log is repeated exactly under its own policy, and answers for another one."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from actors.artefacts import artefact_key
from cluster.__main__ import main
from cluster.assembly import make_blobs
from cluster.commands.backtesting import decided_again
from cluster.commands.modelling import make_registry
from cluster.commands.speaking import FAILURE, NOT_FOUND, OK, USAGE, Voice
from cluster.recording import From, open_recording
from cluster.settings import Settings
from engine.artefact import PREDICTION_DTYPE, encode_artefact
from engine.deltas import ModelPromoted, PlanApplied, PolicyChanged, ScopeChange
from engine.errors import RejectedInput
from tests.cluster.site import site, traded
from training.backtest import Backtest
from training.registry import ModelCard
from training.trained import Trained
from training.tried_model import TriedModel
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
    return await decided_again(settings, changes, None, Voice(None))


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


def candidate(settings: Settings, *, elasticity: float, version: str = "m-1") -> ModelCard:
    """Put a model of the demo's listings into the registry: all of one elasticity, and sure."""
    keys = np.array(Market(3, 30, World(volume_median=40.0)).keys, dtype=np.uint64)
    table = np.zeros(len(keys), dtype=PREDICTION_DTYPE)
    table["reference_minor"], table["level"] = 2000, np.log(20.0)
    table["level_sd"], table["elasticity"], table["elasticity_sd"] = 0.3, elasticity, 0.05
    trained = Trained(
        version=version,
        retailer="demo",
        artefact=encode_artefact(version, "demo", keys, table),
        listings=len(keys),
        rows=0,
        first_day=0,
        last_day=0,
        seed=1,
        scores={},
    )
    return asyncio.run(make_registry(settings).add(trained, 1))


def answered(
    capsys: pytest.CaptureFixture[str], settings: Settings, *words: str
) -> tuple[int, dict[str, Any]]:
    one = ["--json", "--set", "shards.count=1"]
    code = main(["backtest", str(settings.folder), *words, *one])
    told = capsys.readouterr()
    return code, json.loads((told.out.strip() or told.err.strip()).splitlines()[-1])


def test_another_model_serves_as_champion_and_is_told_as_a_policy_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is sure of steep demand asks for less than one that is sure of flat demand."""
    settings = asyncio.run(recorded(tmp_path / "data", learning=True))
    steep = candidate(settings, elasticity=-6.0)
    flat = candidate(settings, elasticity=-1.5, version="m-2")
    _, cheap = answered(capsys, settings, "--model", steep.model)
    _, dear = answered(capsys, settings, "--model", flat.model)
    _, rules = answered(capsys, settings, "--model", "rules")
    assert (cheap["model"], cheap["model_listings"]) == ("m-1", 30)
    assert cheap["other"] > 0 and dear["other"] > 0
    for each in (cheap, dear):
        assert each["differences"] == 0
        assert {"extrapolation", "supported", "times_real_time"} <= set(each)
        (earned,) = each["earned"]
        assert earned["low_minor"] <= earned["difference_minor"] <= earned["high_minor"]
    assert cheap["earned"] != dear["earned"]
    assert rules["model"] == "rules"
    assert rules["other"] == rules["extrapolated"] == 0, "none was recorded, so all is the same"


@pytest.mark.parametrize("begin", ["oldest", "checkpoint"])
async def test_a_log_that_knew_no_model_teaches_the_same_without_one(
    tmp_path: Path, begin: From
) -> None:
    """Also of listings that only the backtest quotes: in force is what was recorded, and whose."""
    async with site(tmp_path) as at:
        market = Market(3, 30, World(volume_median=40.0))
        await at.feed(market.opening())
        now_ms = at.shard.decided_ms
        learns = PolicyChanged(
            retailer="demo", scope="retailer", fields={"learning": True}, observed_ms=now_ms
        )
        await at.feed([learns])
        await traded(market, at, 2)
        saving = asyncio.ensure_future(at.actor.checkpoint())
        while not saving.done():
            await at.actor.step()
        await traded(market, at, 4)
        settings, logs = at.settings, at.logs
        async with open_recording(settings, logs, 0, begin) as recording:
            testing = Backtest(recording.shard, (), TriedModel(None))
            async for each in recording.microbatches():
                testing.decide(each.batch, each.decided, each.artefacts)
            rows = at.shard.listings
            learnt = (of._memory.learnt.rows[:rows].tobytes() for of in (at.shard, testing.shard))
            assert len(set(learnt)) == 1
            # From a checkpoint on every listing is looked at once more, which nobody recorded.
            assert begin == "checkpoint" or testing.tested().other == 0


def test_a_model_that_is_not_whole_or_not_there_is_told_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = asyncio.run(recorded(tmp_path / "data", learning=True))
    card = candidate(settings, elasticity=-3.0)
    assert answered(capsys, settings, "--model", "m-9")[0] == NOT_FOUND
    code, told = answered(capsys, settings, "--model", "m-1", "--retailer", "acme")
    assert code == NOT_FOUND and "acme has no model m-1" in json.dumps(told)
    blobs = make_blobs(settings)
    key = artefact_key("demo", card.model)
    other = encode_artefact("m-1", "demo", np.zeros(0, np.uint64), np.zeros(0, PREDICTION_DTYPE))
    asyncio.run(blobs.put(key, other))
    code, told = answered(capsys, settings, "--model", "m-1")
    assert code == USAGE and "another checksum" in json.dumps(told)
    asyncio.run(blobs.delete(key))
    code, told = answered(capsys, settings, "--model", "m-1")
    assert code == NOT_FOUND and "the artefact of m-1 of demo is gone" in json.dumps(told)


def test_a_model_of_a_retailer_who_does_not_learn_never_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = asyncio.run(recorded(tmp_path / "data"))
    candidate(settings, elasticity=-3.0)
    code, told = answered(capsys, settings, "--model", "m-1")
    assert code == USAGE and "never served" in json.dumps(told)
    _, result = answered(capsys, settings, "--model", "m-1", "--learning")
    assert result["model_listings"] == 30


def test_recorded_promotions_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same model again proposes what was recorded; without it other prices are proposed."""

    async def lived() -> tuple[Settings, bool]:
        async with site(tmp_path / "data") as at:
            market = Market(3, 30, World(volume_median=40.0))
            await at.feed(market.opening())
            fields = {"learning": True}
            now_ms = at.shard.decided_ms
            learns = PolicyChanged(
                retailer="demo", scope="retailer", fields=fields, observed_ms=now_ms
            )
            await at.feed([learns])
            card = await asyncio.to_thread(candidate, at.settings, elasticity=-6.0)
            await at.command(
                ModelPromoted(
                    retailer="demo",
                    command_id="m-1",
                    model=card.model,
                    checksum=card.checksum,
                    stage="champion",
                    observed_ms=now_ms + 1,
                )
            )
            assert at.shard.models()["demo"]["champion"]["model"] == "m-1"
            await traded(market, at, 6)
            return at.settings, not at.shard.models()

    settings, rolled_back = asyncio.run(lived())
    code, same = answered(capsys, settings)
    assert (code, same["differences"]) == (OK, 0)
    _, again = answered(capsys, settings, "--model", "m-1")
    _, rules = answered(capsys, settings, "--model", "rules")
    assert rules["other"] > again["other"]
    assert again["model_rolled_back"] == rolled_back
    asyncio.run(make_blobs(settings).delete(artefact_key("demo", "m-1")))
    _, without = answered(capsys, settings, "--model", "rules")
    assert without["proposals"] == rules["proposals"], "what is left out is not fetched either"
    assert answered(capsys, settings)[0] not in (OK, FAILURE), "but a replay needs it"
