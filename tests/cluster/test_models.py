"""``train`` and ``models``: from a file to a model that serves, with an owner in this process."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from actors.shard_actor import ShardActor
from actors.starts import Start
from cluster import promoting
from cluster.__main__ import main
from cluster.assembly import make_logs, make_owner
from cluster.commands.modelling import _answer, make_registry
from cluster.commands.speaking import FAILURE, Common, Voice
from cluster.control import ControlServer, control_token
from cluster.launching import Launched
from cluster.roles import seconds_to_hour
from cluster.settings import Settings, load
from cluster.topics import prepare_logs
from engine.deltas import ListingChanged, ModelPromoted, PolicyChanged, RetailerAdded
from engine.errors import FailedDependency
from engine.promotion import MISSING
from persistence.ports import DELTAS
from persistence.wire import encode_delta
from tests.cluster.site import site
from tests.training.shops import shop
from training.worlds.market import Market, World


def sales_file(path: Path) -> Path:
    data, _ = shop(listings=16, days=60)
    rows = [
        {
            "sku": f"S{listing}",
            "day": data.first_day + day,
            "price_minor": int(data.price[listing, day]),
            "units": int(data.units[listing, day]),
            "category": data.categories[data.category[listing]],
        }
        for listing in range(16)
        for day in range(60)
    ]
    path.write_bytes(msgspec.json.encode(rows))
    return path


def answered(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = main([*words, "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


def settings_at(folder: Path) -> Settings:
    return load({"folder": folder, "shards": {"count": 1}})


def test_a_file_becomes_a_candidate_that_is_listed_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ("--folder", str(tmp_path / "data"))
    file = str(sales_file(tmp_path / "sales.json"))
    code, trained = answered(capsys, "train", file, "--retailer", "acme", *folder)
    assert code == 0
    model = trained[0]["model"]
    assert trained[0]["listings"] == 16
    assert trained[0]["scores"]["wape"] < trained[0]["scores"]["wape_without_price"]
    again = answered(capsys, "train", file, "--retailer", "acme", *folder)[1]
    assert again[0]["model"] == model, "the same data and seed give the same model"
    code, listed = answered(capsys, "models", "list", *folder)
    assert (code, listed["fresh"]) == (0, False)
    assert [(card["model"], card["stage"]) for card in listed["models"]] == [(model, "candidate")]
    code, shown = answered(capsys, "models", "show", model, "--retailer", "acme", *folder)
    assert (code, shown["checksum"], shown["serving"]) == (0, trained[0]["checksum"], {})
    assert answered(capsys, "models", "show", "m-0", "--retailer", "acme", *folder)[0] == 3
    assert answered(capsys, "train", file, *folder)[0] == 2, "whose sales are they?"


async def until_decided(owner: ShardActor, deltas: int) -> None:
    """Wait for the deltas: no order holds between them and a command, which has its own lane."""
    async with asyncio.timeout(60):
        while owner.status().get("last_delta", -1) < deltas - 1:
            await asyncio.sleep(0.01)


async def test_a_promotion_goes_through_the_log_and_its_outcome_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refused one as well: nothing but its outcome says why."""
    settings = settings_at(tmp_path / "data")
    settings.folder.mkdir()
    logs = make_logs(settings)
    await prepare_logs(settings, logs)
    deltas = [
        RetailerAdded(retailer="acme", currency="EUR", mode="live", observed_ms=0),
        PolicyChanged(retailer="acme", scope="retailer", fields={"learning": True}, observed_ms=0),
        *(
            ListingChanged(
                retailer="acme",
                channel="shop",
                sku=f"S{n}",
                price_minor=1500,
                cost_minor=900,
                observed_ms=0,
            )
            for n in range(16)
        ),
    ]
    appender = await (await logs.open(DELTAS, 0)).appender()
    for delta in deltas:
        await appender.append(encode_delta(delta), key=b"acme", content_type="application/json")
    start = Start(shard=0, number=1, owner=bytes(16), standby=False, cautious=False)
    owner = await make_owner(settings, start, logs)
    living = asyncio.create_task(owner.run())
    try:
        from training.fitting import train

        card = await make_registry(settings).add(train(shop(listings=16, days=60)[0]), 1)
        named = ModelPromoted(
            retailer="acme", model=card.model, checksum=card.checksum, observed_ms=0
        )
        given = msgspec.structs.replace(named, stage="champion")
        await until_decided(owner, len(deltas))
        gone = msgspec.structs.replace(given, model="m-gone", checksum="0" * 64)
        (refused,) = await promoting.promote(settings, logs, gone)
        assert (refused.status, refused.detail, refused.kind) == (
            "refused",
            MISSING,
            "ModelPromoted",
        )
        assert _answer(Voice(Common(json=True)), "m-gone", [refused]) == FAILURE
        told = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert told["outcomes"][0]["detail"] == MISSING
        outcomes = await promoting.promote(settings, logs, given)
        assert [of.status for of in outcomes] == ["done"], outcomes
        assert owner.models()["acme"]["champion"]["model"] == card.model
        rules = ModelPromoted(retailer="acme", model="rules", stage="champion", observed_ms=0)
        assert [of.status for of in await promoting.promote(settings, logs, rules)] == ["done"]
        assert owner.models() == {}
    finally:
        living.cancel()
        await asyncio.wait({living})
        await logs.close()


async def test_a_promotion_is_given_at_the_shards_own_time(tmp_path: Path) -> None:
    """On event time one of today would carry the shard years ahead, or be refused for it."""
    async with site(tmp_path / "data") as at:
        await at.feed(Market(5, 4, World()).opening())
        before_ms = at.shard.decided_ms

        async def decide() -> None:
            while True:
                await at.actor.step()

        deciding = asyncio.create_task(decide())
        rules = ModelPromoted(retailer="demo", model="rules", stage="champion", observed_ms=0)
        for _ in range(2):  # nothing comes between them that would move the time
            outcomes = await promoting.promote(at.settings, at.logs, rules)
            assert [of.status for of in outcomes] == ["done"], outcomes
        deciding.cancel()
        await asyncio.wait({deciding})
        assert before_ms < at.shard.decided_ms < before_ms + 1000


async def test_what_serves_is_known_only_when_every_shard_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A standby does not answer, and no model looks retired because its owner just died."""
    settings = load({"folder": tmp_path, "shards": {"count": 2}})
    champion = {"acme": {"champion": {"model": "m-1"}}}

    async def live() -> dict[str, Any]:
        return champion

    async def idle() -> dict[str, Any]:
        return {}

    async def standing_by() -> dict[str, Any]:
        raise FailedDependency("the shard is standing by, not live; ask again")

    servers, owners = [], []
    for shard, act in ((0, live), (0, standing_by), (1, idle)):
        server = ControlServer(
            control_token(settings.run_folder),
            status=dict,
            registry=CollectorRegistry(),
            acts={"models": lambda _, act=act: act()},
        )
        start = Start(shard=shard, number=len(servers) + 1, owner=bytes(16))
        servers.append(server)
        owners.append(Launched(start=start, pid=0, address=await server.start()))
    monkeypatch.setattr(promoting, "living_owners", lambda _: owners)
    assert await promoting.serving(settings) == champion
    del owners[0]
    assert await promoting.serving(settings) is None
    for server in servers:
        await server.close()


async def test_without_an_owner_nobody_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_at(tmp_path / "data")
    settings.folder.mkdir()
    logs = make_logs(settings)
    await prepare_logs(settings, logs)
    monkeypatch.setattr(promoting, "ANSWER_S", 0.3)
    rules = ModelPromoted(retailer="acme", model="rules", stage="champion", observed_ms=0)
    with pytest.raises(FailedDependency, match="repricer up"):
        await promoting.promote(settings, logs, rules)
    assert await promoting.serving(settings) is None
    await logs.close()


def test_the_night_comes_once_a_day() -> None:
    midnight = 20_000 * 86_400.0
    assert seconds_to_hour(3, midnight) == 3 * 3600
    assert seconds_to_hour(3, midnight + 3 * 3600) == 86_400
    assert seconds_to_hour(0, midnight + 1) == 86_399
    for now_s in np.linspace(midnight, midnight + 86_400, 50):
        assert 0 < seconds_to_hour(7, float(now_s)) <= 86_400
