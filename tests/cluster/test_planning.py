"""The verbs plan, apply and what-if against a gateway, its forks, and an owner that decides."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cluster.__main__ import main
from cluster.commands import giving
from cluster.commands.speaking import CONFLICT, OK, UNAVAILABLE, USAGE, NotFound
from cluster.forking import Forks
from cluster.tree import make_keys
from cluster.watching import write_role
from engine.deltas import ScopeChange
from engine.errors import FailedDependency
from gateway.keys import load_keys
from gateway.server import ServerSettings, serve
from tests.cluster.site import site, traded
from training.worlds.market import Market, World

CHANGES = (ScopeChange(fields={"min_margin": 0.4, "step_max": 0.5}),)


async def test_a_plan_is_shown_applied_once_and_then_a_conflict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy, saved = tmp_path / "policy.json", tmp_path / "change.plan"
    policy.write_bytes(msgspec.json.encode(CHANGES))
    async with site(tmp_path / "data") as at:
        market = Market(5, 12, World())
        await at.feed(market.opening())
        await traded(market, at, 1)
        settings, forks = at.settings, Forks(at.settings)
        settings.run_folder.mkdir(exist_ok=True)
        make_keys(settings)
        opened = asyncio.Event()

        def started(port: int) -> None:
            write_role(settings, "gateway", f"http://127.0.0.1:{port}")
            opened.set()

        async def decide() -> None:
            while True:
                await at.actor.step()

        async def verb(*words: str) -> tuple[int, dict[str, Any]]:
            place = ("--folder", str(settings.folder), "--json")
            code = await asyncio.to_thread(main, [*words, *place])
            answer: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
            return code, answer

        # The first question starts the process, which may take longer than a gateway waits.
        warming = {"shard": 0, "retailer": "demo", "kind": "plan", "limit": 0, "changes": CHANGES}
        await forks.ask(msgspec.to_builtins(warming), 120_000)
        serving = asyncio.ensure_future(
            serve(
                ServerSettings(generation=settings.shards.generation, partitions=1, port=0),
                at.logs,
                load_keys(settings.keys_file),
                forks=forks.ask,
                started=started,
            )
        )
        deciding = asyncio.ensure_future(decide())
        try:
            await opened.wait()
            await _until_known(verb)
            code, plan = await verb("plan", str(policy), "--out", str(saved))
            assert code == OK
            assert plan["effect"]["listings"] == 12
            assert plan["effect"]["moved"] > 3
            assert plan["effect"]["moves"][0]["guardrail"]
            assert plan["warnings"] == []
            policy.write_text('[{"scope": "category", "key": "nope", "fields": {"publish": true}}]')
            code, nobody = await verb("plan", str(policy))
            assert (code, nobody["effect"]["listings"]) == (OK, 0)
            assert nobody["warnings"][0]["pointer"] == "/changes/0/key"
            policy.write_bytes(msgspec.json.encode(CHANGES))
            code, supposed = await verb("what-if", "--cost", "1.2", "--channel", "shop")
            assert code == OK
            assert supposed["cases"][0]["listings"] == 6
            code, applied = await verb("apply", str(saved))
            assert (code, applied["applied"]) == (OK, True)
            code, held = await verb("policy")
            fields = {each["scope"]: each["fields"] for each in held["policies"]}["retailer"]
            assert (code, fields["min_margin"], fields["step_max"]) == (OK, 0.4, 0.5)
            code, own = await verb("policy", plan["effect"]["moves"][0]["sku"])
            assert (code, own["fields"]["step_max"]["scope"]) == (OK, "retailer")
            code, refused = await verb("apply", str(saved))
            assert code == CONFLICT
            assert "plan again" in refused["error"]["detail"]
            code, applied = await verb("apply", str(saved), "--anyway")
            assert (code, applied["applied"]) == (OK, True)
            code, shadow = await verb("mode", "demo", "shadow")
            assert (code, shadow["before"]["mode"], shadow["changed"]) == (OK, "live", True)
            code, told = await verb("mode", "demo", "live", "--dry-run")
            assert (code, told["before"]["mode"], told["changed"]) == (OK, "shadow", False)
            code, again = await verb("apply", str(policy), "--dry-run")
            assert (code, again["applied"]) == (OK, False)
            policy.write_text('[{"fields": {"min_margn": 0.4}}]')
            code, wrong = await verb("plan", str(policy))
            assert code == USAGE
            assert "/changes/0/fields/min_margn: is no policy" in wrong["error"]["detail"]
            assert "min_margin" in wrong["error"]["detail"]
        finally:
            for task in (deciding, serving):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await forks.close()


@pytest.mark.parametrize(
    ("becomes", "code"), [("done", OK), ("conflict", CONFLICT), ("refused", USAGE)]
)
def test_applying_waits_for_the_shards_word(
    becomes: str,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gateway answers after two seconds that it knows nothing: that is no success."""
    saved = tmp_path / "change.plan"
    saved.write_bytes(msgspec.json.encode({"retailer": "demo", "plan": "p", "changes": []}))
    asked = []

    async def ask(settings: Any, path: str, *_: Any, **more: Any) -> dict[str, Any]:
        asked.append(path)
        status = becomes if len(asked) > 2 else "pending"
        return {"operation_id": "op", "status": status, "kind": "PlanApplied", "detail": "so"}

    monkeypatch.setattr(giving, "ask", ask)
    monkeypatch.setattr(giving, "ASK_AGAIN_S", 0.0)
    words = ["apply", str(saved), "--folder", str(tmp_path), "--json"]
    assert main(words) == code
    assert asked == ["/policies:apply", "/operations/op", "/operations/op"]
    becomes = "pending"
    monkeypatch.setattr(giving, "ANSWER_S", 0.0)
    assert main(words) == UNAVAILABLE
    assert "op was given" in json.loads(capsys.readouterr().out.splitlines()[-1])["error"]["detail"]


@pytest.mark.parametrize("error", [FailedDependency, NotFound])
def test_a_question_that_fails_does_not_end_the_waiting(
    error: type[Exception],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A gateway that was just started knows no operation; the plan is given all the same."""
    saved = tmp_path / "change.plan"
    saved.write_bytes(msgspec.json.encode({"retailer": "demo", "plan": "p", "changes": []}))
    asked = 0

    async def ask(settings: Any, path: str, *_: Any, **more: Any) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if 2 <= asked <= fails + 1:
            raise error("who is that?")
        status = "done" if asked > 5 else "pending"
        return {"operation_id": "op", "status": status, "kind": "PlanApplied", "detail": "so"}

    monkeypatch.setattr(giving, "ask", ask)
    monkeypatch.setattr(giving, "ASK_AGAIN_S", 0.01)
    words = ["apply", str(saved), "--folder", str(tmp_path), "--json"]
    fails = 2
    assert main(words) == OK
    assert asked == 6
    asked, fails = 0, 10**9
    monkeypatch.setattr(giving, "ANSWER_S", 0.1)
    assert main(words) == UNAVAILABLE
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["error"]["detail"]
    assert "op was given" in told
    assert told.endswith("last heard: who is that?")


async def _until_known(verb: Any) -> None:
    """Wait until the gateway knows a product that was priced."""
    async with asyncio.timeout(60):
        while (await verb("price", "SKU-000000"))[0] != OK:
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("content", ["{}", '{"plan": 1}', "[1]", "nothing"])
def test_a_file_that_is_neither_plan_nor_policy_is_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    assert main(["apply", str(file), "--folder", str(tmp_path), "--json"]) == USAGE
    assert "/file" in json.loads(capsys.readouterr().out.strip())["error"]["detail"]
    assert main(["plan", str(tmp_path / "none"), "--folder", str(tmp_path)]) == USAGE
