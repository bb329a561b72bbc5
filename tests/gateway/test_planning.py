"""Plans and what-ifs: asked of forks, and a plan is applied where its token says shards stood."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from engine.deltas import PlanApplied
from engine.errors import DeadlinePassed, FailedDependency
from engine.routing import partition_of
from tests.gateway.hand import SHARDS, market, open_shops, outcome
from tests.gateway.test_approvals import answered, given

PLAN, APPLY, WHAT_IF = "/api/v1/policies:plan", "/api/v1/policies:apply", "/api/v1/what-if"
CHANGES = [{"scope": "retailer", "fields": {"min_margin": 0.2}}]


def move(sku: str, change: float) -> dict[str, Any]:
    return {
        "channel": "shop",
        "sku": sku,
        "currency": "EUR",
        "before_minor": 2000,
        "after_minor": round(2000 * (1 + change)),
        "change": change,
        "state": "live",
        "guardrail": "floor",
        "floor_minor": 1500,
        "ceiling_minor": 0,
        "without_minor": 1999,
        "reasons": ["floor"],
    }


def seen(*moves: dict[str, Any]) -> dict[str, Any]:
    return {
        "listings": 10,
        "moved": len(moves),
        "in_force": len(moves),
        "proposed": 0,
        "raised": sum(each["change"] > 0 for each in moves),
        "lowered": sum(each["change"] < 0 for each in moves),
        "change_sum": sum(each["change"] for each in moves),
        "guardrails": {"floor": len(moves)},
        "states": {"live": len(moves)},
        "moves": list(moves),
    }


class HandForks:
    """Forks that answer what a test tells them."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.fails: Exception | None = None
        self.problem: dict[str, str] | None = None
        self.concerned: dict[int, list[int]] = {}  # by shard; not given: ten listings each

    async def ask(self, question: Mapping[str, Any], deadline_ms: int) -> Mapping[str, Any]:
        if self.fails is not None:
            raise self.fails
        if self.problem is not None:
            return {"problem": self.problem}
        self.asked.append(dict(question))
        shard = question["shard"]
        place = {
            "last_command": 3 + shard,
            "last_delta": 9,
            "planned_ms": 5,
            "exact_until_ms": 2**53,
        }
        cases = question.get("cases", [None])
        ten = [10] * len(question.get("changes", ()))
        return {
            "planned": place,
            "concerned": self.concerned.get(shard, ten),
            "seen": [seen(move(f"S{shard}", -0.1 * (shard + 1))) for _ in cases],
        }


async def test_a_plan_is_put_together_and_applied_by_its_token() -> None:
    """Of a retailer in two shards: counts add up, and each shard is told where it stood itself."""
    forks = HandForks()
    async with market(spreads={"acme": 8}, forks=forks.ask) as place:
        await open_shops(place)
        await place.caught_up()
        status, plan = await place.post(PLAN, {"changes": CHANGES})
        assert status == 200
        assert plan["effect"]["listings"] == 10 * SHARDS
        assert plan["effect"]["moved"] == plan["effect"]["lowered"] == SHARDS
        assert plan["effect"]["mean_change"] == pytest.approx(-0.15)
        assert plan["effect"]["guardrails"] == {"floor": SHARDS}
        assert [each["sku"] for each in plan["effect"]["moves"]] == ["S1", "S0"]
        assert plan["effect"]["moves"][0]["after"] == {"amount": "16.00", "currency": "EUR"}
        assert plan["effect"]["moves"][0]["ceiling"] is None
        assert plan["exact_until"] is None
        assert plan["warnings"] == []
        async with answered(place, lambda delta: (outcome(delta, "done"), ())):
            body = {"changes": CHANGES, "plan": plan["plan"]}
            status, answer = await place.post(APPLY, body)
        assert (status, answer["status"], answer["kind"]) == (200, "done", "PlanApplied")
        for shard in range(SHARDS):
            retailer = next(f"r{n}" for n in range(99) if partition_of(f"r{n}", SHARDS) == shard)
            (delta,) = await given(place, retailer)
            assert isinstance(delta, PlanApplied)
            assert delta.planned is not None
            assert delta.planned.last_command == 3 + shard
            assert delta.actor == "acme"
            assert msgspec.to_builtins(delta.changes[0].fields) == {"min_margin": 0.2}


async def test_a_shard_that_moved_on_is_a_conflict() -> None:
    async with market(forks=HandForks().ask) as place:
        await open_shops(place)
        await place.caught_up()
        _, plan = await place.post(PLAN, {"changes": CHANGES})
        told = "/planned: the shard has moved on"
        async with answered(place, lambda delta: (outcome(delta, "conflict", detail=told), ())):
            status, problem = await place.post(APPLY, {"changes": CHANGES, "plan": plan["plan"]})
        assert status == 409
        assert problem["detail"] == "/plan: the shard has moved on"
        assert problem["errors"][0]["pointer"] == "/plan"


async def test_a_plan_warns_of_what_no_shard_has() -> None:
    """Of a retailer in two shards: what one of them has is not misspelt."""
    forks = HandForks()
    forks.concerned = {0: [3, 0, 0, 0, 0], 1: [0, 4, 0, 0, 0]}
    keys = (("category", "food"), ("category", "drinks"), ("listing", "shop\x1fX"), ("tag", "k"))
    changes = [{"scope": scope, "key": key, "fields": {"publish": True}} for scope, key in keys]
    async with market(spreads={"acme": 8}, forks=forks.ask) as place:
        await open_shops(place)
        # A retailer without listings is not misspelt.
        status, plan = await place.post(PLAN, {"changes": [*changes, *CHANGES]})
    assert status == 200
    listing, tag = plan["warnings"]
    assert listing["pointer"] == "/changes/2/key"
    assert listing["detail"].startswith("there is no listing 'shop / X' among the listings now")
    assert tag["pointer"] == "/changes/3/key"


@pytest.mark.parametrize(
    ("change", "expected", "pointer"),
    [
        ({"fields": {"min_margn": 0.3}}, 400, "/fields/min_margn"),
        ({"fields": {"min_margin": "a lot"}}, 400, "/fields/min_margin"),
        ({"fields": {"min_margn": None}}, 400, "/fields/min_margn"),
        ({"fields": {"experiments": 1}}, 422, "/fields/experiments"),
        (
            {"scope": "category", "key": "food", "fields": {"learning": True}},
            400,
            "/fields/learning",
        ),
        ({"scope": "category", "fields": {"publish": True}}, 400, "/key"),
    ],
)
async def test_what_no_shard_would_take_is_refused_before_one_is_forked(
    change: dict[str, Any], expected: int, pointer: str
) -> None:
    forks = HandForks()
    async with market(forks=forks.ask) as place:
        await open_shops(place)
        for path, body, where in (
            (PLAN, {"changes": [*CHANGES, change]}, "/changes/1"),
            (WHAT_IF, {"cases": [{}, {"changes": [change]}]}, "/cases/1/changes/0"),
        ):
            status, problem = await place.post(path, body)
            assert status == expected
            assert problem["errors"][0]["pointer"] == where + pointer
    assert not forks.asked


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"plan": None}, "is missing"),
        ({"plan": "bm9uc2Vuc2U"}, "is no plan"),
        ({"plan": "!"}, "is no plan"),
        ({"changes": [{"fields": {"min_margin": 0.3}}]}, "of other changes"),
    ],
)
async def test_a_plan_of_something_else_is_refused(change: dict[str, Any], says: str) -> None:
    async with market(forks=HandForks().ask) as place:
        await open_shops(place)
        await place.caught_up()
        _, plan = await place.post(PLAN, {"changes": CHANGES})
        body = {"changes": CHANGES, "plan": plan["plan"], **change}
        status, problem = await place.post(APPLY, body)
        assert status == 400
        assert problem["errors"][0]["pointer"] == "/plan"
        assert says in problem["detail"]
        assert not await given(place)


async def test_anyway_needs_no_plan() -> None:
    async with market() as place:
        await open_shops(place)
        await place.caught_up()
        async with answered(place, lambda delta: (outcome(delta, "done"), ())):
            status, _ = await place.post(APPLY, {"changes": CHANGES, "anyway": True})
        assert status == 200
        (delta,) = await given(place)
        assert isinstance(delta, PlanApplied)
        assert delta.planned is None
        assert delta.anyway


async def test_what_is_applied_for_nobody_is_warned_of() -> None:
    """As the plan does, where nobody planned; what this gateway has read is what it knows."""
    there = (
        ("category", "food"),
        ("channel", "market"),
        ("tag", "kvi"),
        ("listing", "shop\x1fA-1"),
    )
    absent = (("category", "nope"), ("channel", "food"), ("tag", "k"), ("listing", "shop\x1fA-3"))
    changes = [
        {"scope": scope, "key": key, "fields": {"publish": True}} for scope, key in there + absent
    ]
    async with market() as place:
        await open_shops(place)
        async with answered(place, lambda delta: (outcome(delta, "done"), ())):
            body = {"changes": [*CHANGES, *changes], "anyway": True}
            status, answer = await place.post(APPLY, body)
            assert status == 200
            pointers = [each["pointer"] for each in answer["warnings"]]
            assert pointers == [f"/changes/{at}/key" for at in range(5, 9)]
            _, answer = await place.post(APPLY, {"changes": CHANGES, "anyway": True})
            assert "warnings" not in answer


async def test_what_ifs_are_told_by_case() -> None:
    forks = HandForks()
    async with market(forks=forks.ask) as place:
        await open_shops(place)
        await place.caught_up()
        rival = {"amount": "18.50", "currency": "EUR"}
        body = {
            "cases": [
                {"name": "dear", "cost_ratio": 1.05},
                {"name": "rival", "rival_price": rival},
            ],
            "listings": {"category": "food"},
            "limit": 0,
        }
        status, answer = await place.post(WHAT_IF, body)
        assert status == 200
        assert [case["name"] for case in answer["cases"]] == ["dear", "rival"]
        assert answer["cases"][0]["moves"] == []
        (question,) = forks.asked
        assert question["cases"][1]["rival_minor"] == 1850
        assert question["selection"]["category"] == "food"
        body["cases"][1]["rival_price"]["currency"] = "USD"  # type: ignore[index]
        status, problem = await place.post(WHAT_IF, body)
        assert status == 400
        assert problem["errors"][0]["pointer"] == "/cases/1/rival_price/currency"


@pytest.mark.parametrize(
    ("fails", "status"), [(DeadlinePassed("late"), 504), (FailedDependency("nobody"), 503)]
)
async def test_forks_that_do_not_answer(fails: Exception, status: int) -> None:
    forks = HandForks()
    forks.fails = fails
    async with market(forks=forks.ask) as place:
        await open_shops(place)
        await place.caught_up()
        for path, body in ((PLAN, {"changes": CHANGES}), (WHAT_IF, {"cases": [{}]})):
            assert (await place.post(path, body))[0] == status


async def test_what_the_engine_would_refuse_is_refused_with_its_pointer() -> None:
    forks = HandForks()
    async with market(forks=forks.ask) as place:
        await open_shops(place)
        await place.caught_up()
        for kind, expected in (("rejected", 400), ("not_supported", 422)):
            forks.problem = {"kind": kind, "pointer": "/changes/0/fields/x", "detail": "is wrong"}
            status, problem = await place.post(PLAN, {"changes": CHANGES})
            assert status == expected
            assert problem["errors"][0]["pointer"] == "/changes/0/fields/x"


async def test_planning_needs_its_scope_and_tells_nothing_of_strangers() -> None:
    async with market(forks=HandForks().ask) as place:
        await open_shops(place)
        await place.caught_up()
        await asyncio.sleep(0)
        for path, body in (
            (PLAN, {"changes": CHANGES}),
            (APPLY, {"changes": CHANGES, "anyway": True}),
            (WHAT_IF, {"cases": [{}]}),
        ):
            assert (await place.post(path, body, "reader"))[0] == 403
            assert (await place.post(path + "?retailer=bolt", body))[0] == 404
