"""The whole engine on embedded stores: it decides, survives kills, and leaves nothing behind.

One tree serves all of these tests, in their order, because a Ray node takes long to start.
"""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from cluster.launching import living_owners
from cluster.priority import YIELDING
from cluster.processes import leftovers, name_of, tree_mark
from cluster.ray_node import read_node, refuse_open_job_api
from cluster.tree import role_card
from engine.routing import key64, partition_of
from perf.chaos_rows import audit, strike
from perf.real_stack import EngineUnderTest, decisions
from tests.cluster.modelled import LEARNING, LISTINGS, LIVE, RETAILER, shop_files

ROOT = Path(__file__).resolve().parents[2]
EVENT_TIME = {
    "shards.clock": "event",
    "shards.spreads": {"dominicks": 2},
    "shards.checkpoint_s": 5,
    # Other tests keep the cores busy; what is tested is that somebody takes over, not how soon.
    "supervisor.silence_ms": 6000,
}

KEYS = {key64(RETAILER, "shop", f"S{number}") for number in range(LISTINGS)}
SHARD = partition_of(RETAILER, 2)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineUnderTest]:
    under_test = EngineUnderTest(tmp_path_factory.mktemp("engine"), EVENT_TIME)
    under_test.start()
    yield under_test
    under_test.stop()


def feed(engine: EngineUnderTest, weeks: int) -> dict[str, object]:
    words = ["feed", "--synthetic-oj", "--weeks", str(weeks), "--clock", "event"]
    mapping = ROOT / "docs" / "examples" / "oj.json"
    policy = ROOT / "docs" / "examples" / "oj-policy.json"
    return engine.verb(*words, "--mapping", str(mapping), "--policy", str(policy))


def descriptors(pid: int) -> list[str]:
    """Return a process's open descriptors; none when it has ended since it was listed."""
    try:
        return os.listdir(f"/proc/{pid}/fd")
    except (FileNotFoundError, ProcessLookupError):
        return []


def listening(pids: set[int]) -> list[str]:
    """Return the addresses on which any of these processes listens beyond loopback."""
    inodes = set()
    for pid in pids:
        for number in descriptors(pid):
            with suppress(FileNotFoundError, ProcessLookupError):  # closed since it was listed
                link = os.readlink(f"/proc/{pid}/fd/{number}")
                if link.startswith("socket:["):
                    inodes.add(link[8:-1])
    found = []
    for table, loopback in (("tcp", "0100007F"), ("tcp6", "0000000000000000FFFF00000100007F")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address = fields[1].rpartition(":")[0]
            local = {loopback, "00000000000000000000000001000000"}
            if fields[3] == "0A" and fields[9] in inodes and address not in local:
                found.append(fields[1])
    return found


def test_everything_listens_on_loopback_only(engine: EngineUnderTest) -> None:
    pids = leftovers(tree_mark(engine.settings.folder))
    assert len(pids) > 5
    assert listening(pids) == []


def test_ray_turns_strangers_away(engine: EngineUnderTest) -> None:
    node = read_node(engine.settings.run_folder)
    assert node is not None
    assert node.dashboard.startswith("http://127.0.0.1:")
    refuse_open_job_api(node)
    assert Path(node.token_file).stat().st_mode & 0o077 == 0


def test_a_second_engine_on_the_folder_is_refused(engine: EngineUnderTest) -> None:
    answer = engine.verb("up")
    assert answer["exit_code"] == 4
    assert "another `repricer up`" in answer["error"]["detail"]


def test_a_killed_actor_is_followed_by_another_and_nothing_is_lost(
    engine: EngineUnderTest,
) -> None:
    fed = feed(engine, weeks=2)
    assert fed["rejected"] == 0
    asyncio.run(strike(engine.settings, 0, "kill"))
    asyncio.run(engine.until_decided())
    found = asyncio.run(audit(engine.settings))
    assert (found.gaps, found.doubled, found.lost_deltas) == (0, 0, 0)
    assert found.epochs >= 3


def test_a_paused_actor_is_replaced(engine: EngineUnderTest) -> None:
    asyncio.run(strike(engine.settings, 1, "pause"))
    found = asyncio.run(audit(engine.settings))
    assert (found.gaps, found.doubled) == (0, 0)


def test_prices_are_served_and_explained(engine: EngineUnderTest) -> None:
    name = "Grove 64"
    price = engine.verb("price", name, "--retailer", "dominicks")
    assert price["exit_code"] == 0, price
    explained = engine.verb("explain", name, "--retailer", "dominicks")
    assert explained["exit_code"] == 0, explained
    told = engine.verb("features", name, "--retailer", "dominicks", "--strong")
    assert told["exit_code"] == 0, told
    assert told["features"]["price"] > 0
    learnt = engine.verb("learning", "--retailer", "dominicks")
    assert learnt["exit_code"] == 0, learnt
    assert learnt["shards"]
    assert engine.verb("price", "no such thing", "--retailer", "dominicks")["exit_code"] == 3


async def standing(engine: EngineUnderTest) -> tuple[str, dict[int, tuple[int, int]]]:
    """Return the model that the modelled retailer's shard names, and his prices as recorded."""
    model, prices = "", {}
    async for accepted in decisions(engine.settings, SHARD):
        if accepted.decided is not None:
            model = accepted.decided.model
            for quote in accepted.decided.quotes:
                if int(quote["listing"]) in KEYS:
                    price = (int(quote["in_force_minor"]), int(quote["proposed_minor"]))
                    prices[int(quote["listing"])] = price
    return model, prices


def test_a_model_is_trained_serves_through_a_kill_and_is_rolled_back(
    engine: EngineUnderTest,
) -> None:
    """From a file of before to prices, by the command lines of docs/models.md."""
    words = shop_files(engine.folder, "first", range(60, 61), LEARNING, asked=True)
    assert engine.verb(*words)["rejected"] == 0
    table = shop_files(engine.folder, "before", range(60), LEARNING, asked=True)[1]
    process = engine.begin_verb("train", table, "--retailer", RETAILER)
    told, _ = process.communicate(timeout=600)
    assert process.returncode == 0, told
    (trained,) = json.loads(told.splitlines()[-1])
    model = trained["model"]
    assert (trained["listings"], trained["rows"]) == (LISTINGS, LISTINGS * 53)

    for stage in ("canary", "champion"):
        words = ["models", "promote", model, "--retailer", RETAILER, "--stage", stage]
        promoted = engine.verb(*words)
        assert promoted["exit_code"] == 0, promoted
        assert f"is {stage}; it knows {LISTINGS} listings" in promoted["outcomes"][0]["detail"]
    words = shop_files(engine.folder, "days", range(61, 67), LIVE, asked=False)
    assert engine.verb(*words)["rejected"] == 0
    asyncio.run(engine.until_decided())
    before = asyncio.run(standing(engine))
    assert before[0] == model
    assert set(before[1]) == KEYS

    asyncio.run(strike(engine.settings, SHARD, "kill"))
    assert asyncio.run(standing(engine)) == before
    shown = engine.verb("models", "show", model, "--retailer", RETAILER)
    assert (shown["stage"], shown["serving"]["champion"]["model"]) == ("champion", model)

    rolled_back = engine.verb("models", "rollback", "--retailer", RETAILER)
    assert rolled_back["exit_code"] == 0, rolled_back
    listed = engine.verb("models", "list")
    assert listed["fresh"]
    assert [card["stage"] for card in listed["models"]] == ["retired"]
    assert asyncio.run(standing(engine))[0] != model


def test_a_plan_foresees_exactly_what_applying_it_moves(engine: EngineUnderTest) -> None:
    policy, saved = engine.folder / "policy.json", engine.folder / "change.plan"
    policy.write_text('[{"scope": "category", "key": "flat", "fields": {"min_margin": 0.5}}]')
    _, before = asyncio.run(standing(engine))
    words = ("--retailer", RETAILER, "--limit", "100")
    planned = engine.verb("plan", str(policy), "--out", str(saved), *words)
    assert planned["exit_code"] == 0, planned
    foreseen = {
        key64(RETAILER, each["channel"], each["sku"]): round(100 * float(each["after"]["amount"]))
        for each in planned["effect"]["moves"]
    }
    assert len(foreseen) == planned["effect"]["moved"] > 0
    applied = engine.verb("apply", str(saved))
    assert applied["applied"], applied
    _, after = asyncio.run(standing(engine))
    moved = {key: now[0] for key, now in after.items() if now[0] != before[key][0]}
    assert moved == foreseen
    assert engine.verb("apply", str(saved))["exit_code"] == 4


def test_replay_agrees_from_the_start_and_from_a_checkpoint(engine: EngineUnderTest) -> None:
    taken = engine.verb("checkpoint")
    assert set(taken) >= {"0", "1"}
    for begin in ("oldest", "checkpoint"):
        replayed = engine.verb("replay", "--from", begin)
        assert replayed["differences"] == 0
        assert replayed["exit_code"] == 0


def test_processors_are_shared_by_who_decides_and_who_may_be_late(
    engine: EngineUnderTest,
) -> None:
    """Niceness counts inside of a session only: each owner leads its own, and followers yield."""
    settings = engine.settings
    owners = living_owners(settings.run_folder)
    assert owners
    assert [os.getsid(each.pid) for each in owners] == [each.pid for each in owners]
    card = role_card(settings, "followers")
    assert card is not None
    assert os.getsid(card.process.pid) == card.process.pid
    group = Path(f"/proc/{card.process.pid}/autogroup")
    assert not group.exists() or group.read_text().split()[-1] == str(YIELDING)


def test_a_killed_gateway_and_supervisor_come_back(engine: EngineUnderTest) -> None:
    settings = engine.settings
    owners = {each.start.name for each in living_owners(settings.run_folder)}
    before = {}
    for role in ("gateway", "supervisor"):
        card = role_card(settings, role)
        assert card is not None
        before[role] = card.process
        os.kill(card.process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        cards = {role: role_card(settings, role) for role in before}
        if all(card is not None and card.process != before[role] for role, card in cards.items()):
            break
        time.sleep(0.2)
    assert all(card is not None for card in cards.values())
    assert {each.start.name for each in living_owners(settings.run_folder)} == owners, (
        "a supervisor that begins anew adopts who lives"
    )


def of_ray(engine: EngineUnderTest, command: str) -> list[int]:
    """Return the processes of Ray with this command that the engine runs."""
    return whose(engine, "comm", lambda name: name.startswith(command.encode()))


def whose(engine: EngineUnderTest, file: str, holds: Callable[[bytes], bool]) -> list[int]:
    """Return the engine's processes of which a file under ``/proc`` says so."""
    found = []
    for pid in leftovers(tree_mark(engine.settings.folder)):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended since it was listed
            if holds(Path(f"/proc/{pid}/{file}").read_bytes()):
                found.append(pid)
    return found


def test_who_speaks_to_ray_ends_with_its_supervisor_though_the_head_hangs(
    engine: EngineUnderTest,
) -> None:
    """Ray would take leave of its head first: a process would stay that nobody asks any more."""
    settings = engine.settings
    (head,) = of_ray(engine, "gcs_server")
    (speaker,) = whose(engine, "cmdline", lambda words: b"cluster.placement" in words)
    card = role_card(settings, "supervisor")
    assert card is not None
    os.kill(head, signal.SIGSTOP)
    try:
        os.kill(card.process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 15
        while name_of(speaker) is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert name_of(speaker) is None
    finally:
        os.kill(head, signal.SIGCONT)


def test_ray_heads_death_stops_no_shard(engine: EngineUnderTest) -> None:
    settings = engine.settings
    owners = {each.start.name for each in living_owners(settings.run_folder)}
    before = asyncio.run(engine.status())
    (head,) = of_ray(engine, "gcs_server")
    os.kill(head, signal.SIGKILL)
    seqs = {each["shard"]: each["seq"] for each in before["shards"]}

    def went_on(state: dict[str, list[dict[str, int]]]) -> bool:
        return all(each.get("seq", 0) > seqs[each["shard"]] + 8 for each in state["shards"])

    asyncio.run(engine.until(went_on, "the shards decide on without Ray's head", 120))
    assert {each.start.name for each in living_owners(settings.run_folder)} == owners


def test_a_node_without_a_head_ends_when_no_owner_runs_under_it(engine: EngineUnderTest) -> None:
    settings = engine.settings

    async def when(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(240):
            while not holds():
                await asyncio.sleep(0.25)

    def count(wanted: int) -> bool:
        return len(of_ray(engine, "raylet")) == wanted

    asyncio.run(when(partial(count, 2)))
    first, second = sorted(living_owners(settings.run_folder), key=lambda each: each.start.shard)
    for owner, left in ((first, 2), (second, 1)):
        assert len(of_ray(engine, "raylet")) == 2, "the owners of the first node need it"
        os.kill(owner.pid, signal.SIGKILL)

        def is_replaced(shard: int = owner.start.shard, name: str = owner.start.name) -> bool:
            return any(
                each.start.shard == shard and each.start.name != name
                for each in living_owners(settings.run_folder)
            )

        asyncio.run(when(is_replaced))
        asyncio.run(when(partial(count, left)))


def test_a_raylets_death_ends_its_owners_and_others_start(engine: EngineUnderTest) -> None:
    """Its head lives on and starts nobody any more, so another must be started."""
    settings = engine.settings
    owners = {each.start.name for each in living_owners(settings.run_folder)}
    for raylet in of_ray(engine, "raylet"):
        os.kill(raylet, signal.SIGKILL)

    def replaced(state: dict[str, list[dict[str, object]]]) -> bool:
        live = {each["shard"]: each["name"] for each in state["shards"] if each["phase"] == "live"}
        return len(live) == settings.shards.count and not owners & set(live.values())

    asyncio.run(engine.until(replaced, "every shard has another owner, under another Ray", 240))


def test_it_drains_and_leaves_nothing_behind(engine: EngineUnderTest) -> None:
    assert engine.stop() == 0
    assert living_owners(engine.settings.run_folder) == []
    checkpoints = engine.settings.folder / "checkpoints"
    assert len(list(checkpoints.glob("*/*.checkpoint"))) >= 2
