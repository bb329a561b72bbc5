"""Every policy field matters: two worlds that differ only there are decided differently.

A row names a value, a story that both worlds live through, and what must show in one and not in
the other. A field without a row fails.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine.decided import Decided, State
from engine.deltas import RateChanged
from engine.policy import FIELDS
from kernels import reasons
from tests.engine.builders import DAY, HOUR, MINUTE, T, World, moved, verdicts

Story = Callable[[World], list[Decided]]
Shows = Callable[[list[Decided]], bool]


def one_listing(world: World) -> list[Decided]:
    return [world.send(world.listing(rrp_minor=2000, kvi=True, own_rival_names=("us",)))]


def rival(world: World) -> list[Decided]:
    return [
        *one_listing(world),
        world.send(world.rival(1500)),
        world.send(world.stock(1), after_ms=2 * HOUR),
        world.send(world.rival(1900), after_ms=2 * HOUR),
    ]


def spiral(world: World) -> list[Decided]:
    """A rival answers five cuts, and a day later he is where he was, but for a little."""
    decided = one_listing(world)
    for _ in range(5):
        decided.append(world.send(world.rival(world.price() * 97 // 100), after_ms=HOUR))
    same = int(world.live()["rival_minor"])
    decided.append(world.send(world.rival(same), after_ms=HOUR))
    decided.append(world.send(world.rival(same + 6), after_ms=20 * HOUR))
    return decided


def braked(at: int) -> Shows:
    """Whether the brake bound the price of the quote that far from the end."""
    return lambda story: any(q["binding"] == reasons.BRAKE for d in story[at:] for q in d.quotes)


def meets(world: World) -> list[Decided]:
    """A rival whom no rule binds us to, and the time of a few steps."""
    decided = [world.send(world.listing(own_rival_names=("us",)))]
    world.now_ms += HOUR
    decided.append(world.send(world.rival(1900)))
    return [*decided, *(world.send(after_ms=10 * MINUTE) for _ in range(6))]


def comes_to(price_minor: int) -> Shows:
    """Whether the newest price is that."""
    return lambda story: [q["in_force_minor"] for d in story for q in d.quotes][-1] == price_minor


def rival_low(world: World) -> list[Decided]:
    return [*one_listing(world), world.send(world.rival(900))]


def rival_high(world: World) -> list[Decided]:
    return [*one_listing(world), world.send(world.rival(4800))]


def rival_jumps(world: World) -> list[Decided]:
    return [*rival(world), world.send(world.rival(1400), after_ms=3 * HOUR)]


def rival_climbs(world: World) -> list[Decided]:
    return [*rival(world), world.send(world.rival(2150), after_ms=MINUTE)]


def two_sources(world: World) -> list[Decided]:
    world.send(world.listing(kvi=True))
    world.send(world.rival(1500, source="a"), world.rival(1500, source="b"))
    return [world.send(world.rival(1400, source="a"), after_ms=HOUR)]


def foreign_rival(world: World) -> list[Decided]:
    world.send(world.whole(RateChanged, currency="USD", into="EUR", rate=1.0))
    world.send(world.listing(kvi=True))
    return [world.send(world.rival(1500, currency="USD"), after_ms=2 * HOUR)]


def again(world: World) -> list[Decided]:
    decided = one_listing(world)
    for cost in (1100, 1200):
        decided.append(world.send(world.cost(cost), after_ms=MINUTE))
    return decided


def waits(world: World) -> list[Decided]:
    world.send(world.policy(approval="manual"))
    world.send(world.listing())
    return [world.send(after_ms=2 * HOUR)]


def all_reprice(world: World) -> list[Decided]:
    """Thirty listings whose ceiling falls by a third, an hour after a few moved for once."""
    world.send(*(world.listing(f"S{number}") for number in range(30)))
    world.send(world.policy(step_max=1.0, ceiling_minor=1890))
    world.drain()
    return [world.send(world.policy(ceiling_minor=1300), after_ms=20 * MINUTE)]


def many_floors(world: World) -> list[Decided]:
    world.send(*(world.listing(f"S{number}") for number in range(30)))
    return [world.send(world.policy(floor_minor=2000), after_ms=20 * MINUTE)]


def many_changes(world: World) -> list[Decided]:
    """One change a window for two hours, then thirty at once, all of them small."""
    world.send(*(world.listing(f"S{number}") for number in range(30)))
    for _ in range(15):
        world.send(world.cost(1000 + world.now_ms % 97, "S0"), after_ms=8 * MINUTE)
    return [world.send(world.policy(ceiling_minor=1850), after_ms=8 * MINUTE)]


def two_halves(world: World) -> list[Decided]:
    """Half of the listings fall, and two minutes later the other half."""
    world.send(*(world.listing(f"S{number}", category=f"c{number % 2}") for number in range(30)))
    world.send(world.policy(step_max=1.0))
    decided = [
        world.send(
            world.policy(scope="category", key=f"c{half}", ceiling_minor=1300),
            after_ms=2 * MINUTE,
        )
        for half in (0, 1)
    ]
    return [*decided, *world.drain()]


def costs(world: World) -> list[Decided]:
    world.send(*(world.listing(f"S{number}") for number in range(30)))
    return [world.send(*(world.cost(1300, f"S{number}") for number in range(30)))]


def costs_twice(world: World) -> list[Decided]:
    world.send(*(world.listing(f"S{number}") for number in range(30)))
    first = world.send(*(world.cost(1300, f"S{number}") for number in range(15)))
    second = world.send(
        *(world.cost(1300, f"S{number}") for number in range(15, 30)), after_ms=2 * MINUTE
    )
    return [first, second]


def a_leap(world: World) -> list[Decided]:
    return [world.send(world.listing()), world.send(world.cost(10_000))]


def reason(bit: int) -> Shows:
    return lambda story: any(((decided.quotes["reasons"] & bit) != 0).any() for decided in story)


def state(expected: State) -> Shows:
    return lambda story: any((decided.quotes["state"] == expected).any() for decided in story)


def quarantined(story: list[Decided]) -> bool:
    return any("quarantined" in verdicts(decided) for decided in story)


def stands_at(step: int, price_minor: int) -> Shows:
    return lambda story: story[step].quotes["in_force_minor"].tolist() == [price_minor]


def nothing_at_once(story: list[Decided]) -> bool:
    return not len(story[1].quotes)


def target_below(price_minor: int) -> Shows:
    return lambda story: int(story[0].quotes["target_minor"][0]) < price_minor


def sd_below(sd: float) -> Shows:
    return lambda story: float(story[0].quotes["elasticity_sd"][0]) < sd


def not_(shows: Shows) -> Shows:
    return lambda story: not shows(story)


def tight(**fields: Any) -> dict[str, Any]:
    """Return thresholds that only the share in question can exceed."""
    loose = {
        "breaker_moved_share": 1.0,
        "breaker_floor_share": 1.0,
        "breaker_rate_factor": 1e6,
        "breaker_listings_min": 10,
    }
    return {**loose, **fields}


HELD = state(State.HELD)

BRAKED = {"kvi_rival_ratio_max": 1.0, "kvi_brake": 0.5}

ROWS: dict[str, tuple[Any, Story, Shows, dict[str, Any]]] = {
    # field: value, story, what shows with it and not without, what both worlds set before
    "min_margin": (0.6, one_listing, reason(1 << reasons.FLOOR), {}),
    "floor_minor": (2100, one_listing, reason(1 << reasons.FLOOR), {}),
    "ceiling_minor": (1700, one_listing, reason(1 << reasons.CEILING), {}),
    "max_discount": (0.01, one_listing, reason(1 << reasons.MAX_DISCOUNT), {}),
    "step_max": (0.01, one_listing, reason(1 << reasons.STEP), {}),
    "changes_per_hour_max": (1, again, lambda story: not len(story[-1].quotes), {}),
    "kvi_rival_ratio_max": (1.0, rival, stands_at(1, 1500), {}),
    "kvi_brake": (0.5, spiral, braked(-3), {"kvi_rival_ratio_max": 1.0}),
    "kvi_brake_ms": (12 * HOUR, spiral, not_(braked(-1)), BRAKED),
    "endings": (["99"], one_listing, reason(1 << reasons.ENDING), {}),
    "rival_position": (0.9, meets, comes_to(1710), {}),
    "rival_damping": (0.0, meets, stands_at(1, 1710), {"rival_position": 0.9}),
    "approval": ("manual", one_listing, state(State.PENDING), {}),
    "approval_valid_ms": (HOUR, waits, state(State.PENDING), {}),
    "publish": (False, one_listing, reason(reasons.UNPUBLISHED), {}),
    "tier": ("hourly", rival, nothing_at_once, {}),
    "realtime_share": (0.0, rival, nothing_at_once, {}),
    "prior_elasticity": (-8.0, one_listing, target_below(1750), {}),
    "prior_elasticity_sd": (0.05, one_listing, sd_below(0.1), {}),
    "status_quo_sigma": (0.01, one_listing, sd_below(0.1), {}),
    "rival_stale_ms": (HOUR, rival, reason(reasons.STALE_RIVALS), {}),
    "rate_stale_ms": (HOUR, foreign_rival, reason(reasons.STALE_RATE), {}),
    "rival_unconfirmed_per_day": (
        0.01,
        rival_jumps,
        stands_at(3, 1501),
        {"kvi_rival_ratio_max": 1.0},
    ),
    "screening_low": (0.2, rival_low, not_(quarantined), {}),
    "screening_high": (3.0, rival_high, not_(quarantined), {}),
    "screening_mad_factor": (1.0, rival_jumps, quarantined, {}),
    "screening_sources": (1, two_sources, not_(quarantined), {}),
    "screening_sources_move": (0.1, two_sources, not_(quarantined), {}),
    "screening_slope_per_hour": (0.05, rival_climbs, quarantined, {}),
    "breaker_move": (0.6, all_reprice, not_(HELD), tight(breaker_moved_share=0.02)),
    "breaker_moved_share": (0.02, all_reprice, HELD, tight()),
    "breaker_floor_share": (0.005, many_floors, HELD, tight()),
    "breaker_rate_factor": (2.0, many_changes, HELD, tight(breaker_moved_share=0.02)),
    "breaker_listings_min": (40, all_reprice, not_(HELD), tight(breaker_moved_share=0.02)),
    "breaker_window_ms": (
        MINUTE,
        two_halves,
        not_(HELD),
        tight(breaker_listings_min=20, breaker_moved_share=0.02),
    ),
    "breaker_history_ms": (
        DAY,
        many_changes,
        not_(HELD),
        tight(breaker_moved_share=0.02, breaker_rate_factor=2.0),
    ),
    "cost_shock_move": (0.5, costs, not_(quarantined), {}),
    "cost_shock_share": (1.0, costs, not_(quarantined), {}),
    "cost_shock_window_ms": (MINUTE, costs_twice, not_(quarantined), {}),
    "cost_shock_factor": (20.0, a_leap, not_(quarantined), {}),
}


def learns(world: World) -> list[Decided]:
    """Six listings that sell for three weeks at prices of their own, whoever sets them."""
    world.send(*(world.listing(f"S{number}", price_minor=1500) for number in range(6)))
    decided = []
    for day in range(21):
        sales = [
            world.sold(
                3 + (day + number) % 3, f"S{number}", source=f"till {number}", source_seq=day
            )
            for number in range(6)
        ]
        decided.append(world.send(*sales, after_ms=DAY))
    return decided


def learnt(decided: list[Decided]) -> bool:
    return any(
        bool((of.quotes["reasons"] & reasons.LEARNT).any()) for of in decided if len(of.quotes)
    )


def dithered(decided: list[Decided]) -> bool:
    return any(
        bool((of.quotes["reasons"] & reasons.DITHERED).any()) for of in decided if len(of.quotes)
    )


def large_step(decided: list[Decided]) -> bool:
    """A learnt price that moved by more than two per cent at once."""
    return any(
        abs(quote["in_force_minor"] / quote["previous_minor"] - 1.0) > 0.02
        for of in decided
        for quote in of.quotes
        if quote["reasons"] & reasons.LEARNT and quote["previous_minor"] > 0
    )


def many_decisions(decided: list[Decided]) -> bool:
    """Learnt prices moved more often than six listings do in three weeks by weekly decisions."""
    masks = [of.quotes["reasons"] & reasons.LEARNT for of in decided if len(of.quotes)]
    return sum(int((mask != 0).sum()) for mask in masks) > 40


def season(world: World) -> list[Decided]:
    """The same shop, with a hundred times the stock that it sells."""
    world.send(*(world.listing(f"S{number}", price_minor=1500) for number in range(6)))
    world.send(*(world.stock(9000, f"S{number}") for number in range(6)))
    return learns(world)


def cheap(decided: list[Decided]) -> bool:
    """A learnt price a tenth below the one found."""
    return any(bool((of.quotes["in_force_minor"] < 1350).any()) for of in decided)


def dear(decided: list[Decided]) -> bool:
    """A learnt price a twentieth above the one found."""
    return any(
        bool(((of.quotes["in_force_minor"] > 1575) & learnt_mask(of)).any()) for of in decided
    )


def asks(price_minor: int) -> Shows:
    """Whether a learnt price in force was ever this."""
    return lambda decided: any(
        bool(((of.quotes["in_force_minor"] == price_minor) & learnt_mask(of)).any())
        for of in decided
    )


def learnt_mask(of: Decided) -> np.ndarray:
    return np.asarray((of.quotes["reasons"] & reasons.LEARNT) != 0)


def held_out(decided: list[Decided]) -> bool:
    return any(bool((of.quotes["reasons"] & reasons.HELD_OUT).any()) for of in decided)


def deep_cut(decided: list[Decided]) -> bool:
    """A price that fell by more than a fifth at once."""
    return any(
        bool((of.quotes["in_force_minor"] < 0.8 * of.quotes["previous_minor"]).any())
        for of in decided
        if len(of.quotes)
    )


SEASON = {"learning": True, "dither": 0.0, "step_max": 1.0, "season_end_ms": T + 40 * DAY}
LEARNS = {"learning": True}
ENDS = {**LEARNS, "dither": 0.0, "endings": ["00", "50", "99"], "learning_step": 0.001}
ROWS |= {
    "learning": (True, learns, learnt, {}),
    "dither": (0.0, learns, not_(dithered), LEARNS),
    "exploration_budget_minor": (0, learns, not_(dithered), LEARNS),
    "learning_step": (
        0.01,
        learns,
        not_(large_step),
        {**LEARNS, "dither": 0.0, "prior_elasticity": -1.8, "prior_elasticity_sd": 0.1},
    ),
    "season_end_ms": (
        SEASON["season_end_ms"],
        season,
        deep_cut,
        {"learning": True, "dither": 0.0, "step_max": 1.0},
    ),
    "salvage_share": (0.95, season, not_(deep_cut), SEASON),
    "markdowns_max": (0, season, not_(deep_cut), SEASON),
    "cannibalised_share": (0.6, learns, dear, {**LEARNS, "dither": 0.0}),
    "objective": ("revenue", learns, cheap, {**LEARNS, "dither": 0.0}),
    "left_digit_bias": (0.3, learns, asks(1499), ENDS),
    "holdout_share": (0.5, learns, held_out, LEARNS),
    "decision_days": (1, learns, many_decisions, {**LEARNS, "dither": 0.06}),
}


@pytest.mark.parametrize("field", ROWS)
def test_a_policy_field_changes_what_is_decided(field: str) -> None:
    value, story, shows, before = ROWS[field]
    without, with_it = World(), World()
    for world in (without, with_it):
        world.send(world.policy(**before))
    without.send()
    with_it.send(with_it.policy(**{field: value}))
    told, shown = story(without), story(with_it)
    assert shows(shown), [decided.quotes for decided in shown]
    assert not shows(told), [decided.quotes for decided in told]
    assert with_it.shard.digest != without.shard.digest


def test_every_policy_field_has_a_row() -> None:
    assert set(ROWS) == set(FIELDS)


def test_a_policy_for_less_than_a_retailer_moves_only_that() -> None:
    world = World()
    world.send(
        world.listing("A", category="juice"),
        world.listing("B", category="milk", tags=("sale",)),
        world.listing("C", channel="store"),
    )
    decided = world.send(world.policy(scope="category", key="juice", ceiling_minor=1500))
    assert decided.quotes["listing"].tolist() == [world.key("A")]
    decided = world.send(world.policy(scope="tag", key="sale", ceiling_minor=1500))
    assert decided.quotes["listing"].tolist() == [world.key("B")]
    decided = world.send(world.policy(scope="channel", key="store", ceiling_minor=1500))
    assert decided.quotes["listing"].tolist() == [world.key("C", "store")]
    decided = world.send(world.policy(scope="listing", key="shop\x1fA", ceiling_minor=1450))
    assert decided.quotes["listing"].tolist() == [world.key("A")]
    assert len(moved(decided)) == 1


def test_a_policy_that_names_a_listing_waits_for_it() -> None:
    world = World()
    world.send(world.policy(scope="listing", key="shop\x1fA", ceiling_minor=1450))
    world.send(world.listing("A"), world.listing("B"))
    assert (world.price("A"), world.price("B")) == (1450, 1871)
    assert "ceiling" in world.live("A")["reasons"]
    assert "ceiling" not in world.live("B")["reasons"]


def test_what_is_not_built_is_refused_by_name() -> None:
    world = World()
    decided = world.send(world.policy(strategy="match"))
    assert verdicts(decided) == ["not_supported"]
    decided = world.send(world.policy(min_margni=0.2))
    assert verdicts(decided) == ["rejected"]
    assert "min_margin" in decided.exceptions[0].reason
