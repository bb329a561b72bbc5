"""A listing goes to where it is asked to stand, step by step, as far as guardrails let it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.decided import State
from engine.deltas import ExperimentStarted, PolicyChanged, PriceReported, RateChanged
from engine.drivers import ListingFacts
from engine.explanation import explain
from engine.policy import POLICY_DTYPE, Policy, PolicyBook, policy_row
from engine.replay import Agreement
from engine.rival_position import nearest, stepped, under_way
from engine.shard import Shard
from kernels import reasons
from kernels.hyperparameters import REST_LOG
from repricer import batch_of
from tests.engine.builders import DAY, HOUR, MINUTE, World, moved
from tests.engine.test_brake import undercut

WISH, FLOOR = 1988, 1053
"""What the model asks of this listing, and its floor."""


def positioned(ratio: float = 1.0, *, own: bool = True, kvi: bool = False, **policy: Any) -> World:
    """Return a world with one listing that shall stand at ``ratio`` of its rival."""
    world = World()
    fields = {"status_quo_sigma": 0.01, "changes_per_hour_max": 255, **policy}
    world.send(world.policy(rival_position=ratio, **fields))
    world.send(world.listing(kvi=kvi, own_rival_names=("us",) if own else None))
    assert world.price() == WISH
    return world


def watched(world: World, lasts_ms: int, every_ms: int = 10 * MINUTE, sku: str = "A") -> list[int]:
    """Let time pass and nothing happen; return the prices of one listing."""
    prices = [world.price(sku)]
    for _ in range(lasts_ms // every_ms):
        world.send(after_ms=every_ms)
        prices.append(world.price(sku))
    return prices


def met(world: World, rival_minor: int, lasts_ms: int = 2 * HOUR) -> list[int]:
    """Let a rival ask a price, and time pass; return the distinct prices on the way."""
    prices = [world.price()]
    world.send(world.rival(rival_minor))
    prices += watched(world, lasts_ms)
    return list(dict.fromkeys(prices))


# ----- steps -------------------------------------------------------------------------------------

ENDINGS = st.sampled_from([(), ("99",), ("9",), ("99", "95"), ("0", "5"), ("999",)])


@settings(deadline=None)
@given(
    price=st.integers(1, 400_000),
    ratio=st.floats(0.3, 3.0),
    damping=st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.95]),
    endings=ENDINGS,
)
def test_steps_lead_to_the_goal_and_stay_there(
    price: int, ratio: float, damping: float, endings: tuple[str, ...]
) -> None:
    """From any price to any other: never past it, each step a move, and a rest at the end."""
    policy = policy_row(Policy(rival_damping=damping, endings=endings)).reshape(1)
    assert policy.dtype == POLICY_DTYPE
    terms = policy["rival_damping_bp"] / 10_000, policy["endings"]
    codes, goal = policy["endings"], np.array([max(float(round(price * ratio)), 1.0)])
    now = nearest(np.array([float(price)]), codes)
    aim, gaps = nearest(goal, codes), []
    while under_way(now, goal, codes)[0]:
        gaps.append(abs(float(np.log(aim[0] / now[0]))))
        step = stepped(now, goal, *terms)
        assert min(now[0], goal[0], aim[0]) <= step[0] <= max(now[0], goal[0], aim[0])
        after = nearest(step, codes)
        assert after != now, "a step that rounding undoes"
        now = after
        assert len(gaps) < 400
    assert stepped(now, goal, *terms) == now
    assert now == aim or abs(np.log(now / goal))[0] <= REST_LOG
    assert all(np.diff(gaps) < 0)


@given(
    price=st.integers(5_000, 400_000),
    ratio=st.floats(0.5, 2.0),
    damping=st.sampled_from([0.0, 0.3, 0.5, 0.95]),
)
def test_a_step_leaves_its_share_of_the_gap(price: int, ratio: float, damping: float) -> None:
    policy = policy_row(Policy(rival_damping=damping)).reshape(1)
    terms = policy["rival_damping_bp"] / 10_000, policy["endings"]
    now, goal = np.array([float(price)]), np.array([price * ratio])
    left = np.log(stepped(now, goal, *terms) / goal)[0]
    whole = np.log(now / goal)[0]
    if abs(whole) <= REST_LOG:
        assert left == pytest.approx(whole, abs=1e-12)
    elif abs(damping * whole) <= REST_LOG:
        assert left == pytest.approx(0.0, abs=1e-12)
    else:
        # At least a minor unit, or it would be no step.
        assert left == pytest.approx(damping * whole, abs=1.01 / min(price, price * ratio))


def test_the_listings_own_timer_brings_the_next_step() -> None:
    world = positioned()
    world.send(world.rival(1800))
    prices = watched(world, HOUR, MINUTE)
    assert list(dict.fromkeys(prices)) == [1988, 1892, 1845, 1822, 1811, 1800]
    changes = [at for at in range(60) if prices[at] != prices[at + 1]]
    assert changes == [9, 19, 29, 39, 49]  # ten minutes apart, to the minute


def test_at_its_position_nobody_looks_at_it() -> None:
    world = positioned()
    world.send(world.rival(1800))
    while world.price() != 1800:
        world.send(after_ms=MINUTE)
    due = world.shard._memory.timers.due_ms[0]
    assert due >= world.now_ms + 20 * HOUR  # when the rival goes stale
    kept = positioned(floor_minor=1850)
    met(kept, 1800)
    assert kept.price() == 1850
    assert kept.shard._memory.timers.due_ms[0] >= kept.now_ms + 20 * HOUR


def test_a_bot_that_answers_within_seconds_drives_one_step() -> None:
    world = positioned(0.99)
    for _ in range(300):
        world.send(world.rival(max(world.price() * 99 // 100, 1000)), after_ms=1000)
    assert world.price() > 0.985 * WISH


@settings(deadline=None, max_examples=20)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["rival", "report", "stock", "nothing", "cost"]),
            st.integers(1700, 2200),
            st.sampled_from([1, 30_000, 4 * MINUTE, 11 * MINUTE]),
        ),
        min_size=10,
        max_size=40,
    ),
    st.sampled_from([0.0, 0.5, 0.9]),
)
def test_no_two_steps_within_ten_minutes(
    events: list[tuple[str, int, int]], damping: float
) -> None:
    """Whatever happens in between, and however often the channel confirms the price."""
    world = positioned(rival_damping=damping, rival_stale_ms=30 * DAY)
    world.send(world.rival(2000))
    stepped_ms, before = [], world.price()
    for kind, number, after_ms in events:
        world.now_ms += after_ms
        reported = world.about(PriceReported, price_minor=world.price())
        delta = {
            "rival": world.rival(number),
            "report": reported,
            "stock": world.stock(number),
            "cost": world.cost(1000 + number % 7),
        }.get(kind)
        world.send(*([] if delta is None else [delta]))
        if world.price() != before:
            stepped_ms.append(world.now_ms)
            before = world.price()
    assert all(np.diff(stepped_ms) >= 10 * MINUTE)


def test_a_channel_that_confirms_prices_all_the_time_stops_no_step() -> None:
    world = positioned()
    world.send(world.rival(1800))
    for _ in range(40):
        world.now_ms += 4 * MINUTE
        world.send(world.about(PriceReported, price_minor=world.price()))
    assert world.price() == 1800


def test_a_first_price_stands_there_at_once() -> None:
    world = positioned()
    world.send(world.listing("B", price_minor=None, own_rival_names=("us",)))
    # Told in one microbatch, before any price of its own.
    other = World()
    other.send(other.policy(rival_position=0.95))
    other.send(
        other.listing("B", price_minor=None, own_rival_names=("us",)), other.rival(2000, sku="B")
    )
    assert other.price("B") == 1900


def test_up_as_well_as_down_and_a_little_off_is_no_reason_to_move() -> None:
    world = positioned(1.05)
    assert met(world, 2000) == [1988, 2043, 2071, 2085, 2100]
    assert met(world, 2009) == [2100]
    assert met(world, 2020)[-1] == 2121


# ----- without a rival, as without the field -----------------------------------------------------


def test_without_a_rival_everything_is_as_without_the_field() -> None:
    with_it, without = positioned(), World()
    without.send(without.policy(status_quo_sigma=0.01, changes_per_hour_max=255))
    without.send(without.listing(own_rival_names=("us",)))
    for world in (with_it, without):
        world.send(world.cost(1100), after_ms=HOUR)
        world.send(world.rival(1500, condition="used"), after_ms=HOUR)
        world.send(world.rival(1500, rival="us"), after_ms=HOUR)
        watched(world, 2 * HOUR)
    told = [np.concatenate([d.quotes for d in world.decided]) for world in (with_it, without)]
    names = [name for name in told[0].dtype.names or () if name not in ("cause_offset",)]
    assert all((told[0][name] == told[1][name]).all() for name in names)


def test_when_the_rival_goes_stale_the_model_asks_again() -> None:
    world = positioned(rival_stale_ms=6 * HOUR)
    met(world, 1800)
    assert world.price() == 1800
    watched(world, 6 * HOUR)
    assert world.price() == WISH
    assert "stale_rivals" in world.live()["reasons"]


# ----- guardrails --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    ratio=st.sampled_from([0.5, 0.9, 0.99, 1.0, 1.1, 2.0]),
    rivals=st.lists(st.integers(1100, 3900), min_size=1, max_size=6),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "floor_minor": st.integers(1100, 1900),
            "ceiling_minor": st.integers(2000, 2600),
            "max_discount": st.sampled_from([0.05, 0.2]),
            "step_max": st.sampled_from([0.01, 0.1]),
            "endings": st.sampled_from([["99"], ["9"], ["00", "50"]]),
            "kvi_rival_ratio_max": st.sampled_from([0.9, 1.0]),
            "rival_damping": st.sampled_from([0.0, 0.9]),
            "kvi_brake": st.just(0.5),
        },
    ),
)
def test_guardrails_hold_whatever_a_position_asks(
    ratio: float, rivals: list[int], fields: dict[str, Any]
) -> None:
    world = World()
    world.send(world.policy(screening_low=0.01, screening_high=100.0, screening_slope_per_hour=9.0))
    world.send(world.policy(rival_position=ratio, **fields))
    world.send(world.listing(kvi=True, own_rival_names=("us",), rrp_minor=2100, map_minor=1150))
    step = fields.get("step_max", 0.2)
    least = max(1150, FLOOR, fields.get("floor_minor", 0))
    for rival in rivals:
        for delta in ([world.rival(rival)], [], [], []):
            before = world.price()
            world.send(*delta, after_ms=15 * MINUTE)
            price = world.price()
            assert least <= price <= fields.get("ceiling_minor", 2**30)
            assert abs(price - before) <= int(step * before)


def test_a_key_value_item_keeps_its_bound() -> None:
    world = positioned(1.2, kvi=True, kvi_rival_ratio_max=1.0)
    assert met(world, 1800)[-1] == 1800
    assert met(world, 1850)[-1] == 1850


@pytest.mark.parametrize("ratio", [0.9, 1.1])
def test_a_rival_who_may_be_ourselves_moves_nothing(ratio: float) -> None:
    """Down it would be a fall, and up a climb: both against nobody but ourselves."""
    world = positioned(ratio, own=False)
    for price in (1988, 1900, 2050, 1988):
        world.send(world.rival(price, rival="who knows"), after_ms=HOUR)
        watched(world, HOUR)
        assert world.price() == WISH
    world.send(world.stock(0))  # news, so that a quote tells of it
    assert "unknown_own_identity" in world.live()["reasons"]
    # It waits for no time, but for the name.
    assert world.shard._memory.timers.due_ms[0] >= world.now_ms + 20 * HOUR
    world.send(world.listing(own_rival_names=("us",)))
    watched(world, 2 * HOUR)
    assert world.price() == pytest.approx(ratio * 1988, rel=REST_LOG)


def test_a_missing_rate_fails_closed() -> None:
    world = positioned()
    met(world, 1900)
    world.send(world.rival(1500, rival="abroad", currency="USD"), after_ms=HOUR)
    assert world.state() is State.UNPUBLISHABLE
    assert "stale_rate" in world.live()["reasons"]
    assert world.price() == 1900
    world.send(world.whole(RateChanged, currency="USD", into="EUR", rate=1.2))
    world.drain()
    watched(world, 2 * HOUR)
    assert world.price() == 1800


def test_a_leash_holds_what_a_position_goes_by() -> None:
    world = positioned(rival_unconfirmed_per_day=0.01)
    met(world, 1988)
    assert met(world, 1700)[-1] >= 1970


def test_a_person_goes_before_it() -> None:
    world = positioned()
    world.send(world.policy(approval="manual"))
    world.send(world.rival(1800), after_ms=HOUR)
    assert world.state() is State.PENDING
    assert watched(world, 3 * HOUR)[-1] == WISH


# ----- the breaker -------------------------------------------------------------------------------


def many(**policy: Any) -> tuple[World, list[str]]:
    world = World()
    fields = {"step_max": 1.0, "rival_damping": 0.0, "rate_stale_ms": 30 * DAY, **policy}
    assert not world.send(world.policy(rival_position=1.0, **fields)).exceptions
    skus = [f"S{number}" for number in range(100)]
    world.send(*(world.listing(sku, price_minor=1800, own_rival_names=("us",)) for sku in skus))
    return world, skus


def test_the_breaker_lets_pass_what_a_rate_explains() -> None:
    world, skus = many()
    world.send(world.whole(RateChanged, currency="USD", into="EUR", rate=1.0))
    offers = [world.rival(1800, sku=sku, currency="USD") for sku in skus]
    world.send(*offers, after_ms=HOUR)
    world.send(after_ms=20 * MINUTE)
    decided = world.send(world.whole(RateChanged, currency="USD", into="EUR", rate=0.75))
    assert len(moved(decided)) == 100
    assert world.price("S7") == 1350


def test_the_breaker_stops_a_feed_that_moves_everything() -> None:
    world, skus = many()
    world.send(*(world.rival(1800, sku=sku) for sku in skus), after_ms=HOUR)
    decided = world.send(*(world.rival(1400, sku=sku) for sku in skus), after_ms=20 * HOUR)
    assert (decided.quotes["state"] == State.HELD).all()


def test_the_breaker_counts_how_many_positions_move_at_once() -> None:
    """Small moves of all at once are a fault of a feed, too: no calendar brings them."""
    world, skus = many(breaker_rate_factor=2.0)
    world.send(*(world.rival(1800, sku=sku) for sku in skus), after_ms=HOUR)
    for _ in range(15):
        world.send(world.rival(1800 - world.now_ms % 97, sku="S0"), after_ms=11 * MINUTE)
    decided = world.send(*(world.rival(1770, sku=sku) for sku in skus), after_ms=11 * MINUTE)
    assert State.HELD in decided.quotes["state"]


# ----- learning, and what is tried ---------------------------------------------------------------


def learning(position: float) -> World:
    """Return a shop of six that learns; where asked, its first three stand among rivals."""
    world = World()
    world.send(world.policy(learning=True, holdout_share=0.0))
    if position:
        world.send(world.policy(scope="category", key="c0", rival_position=position))
    world.send(
        *(
            world.listing(
                f"S{n}", category=f"c{n // 3}", price_minor=1400 + 60 * n, own_rival_names=("us",)
            )
            for n in range(6)
        )
    )
    return world


def traded(world: World, days: int, rival_minor: int = 1400) -> None:
    for _ in range(days):
        number = len(world.decided)
        sales = [
            world.sold(4 + (number + n) % 3, f"S{n}", source=f"till {n}", source_seq=number)
            for n in range(6)
        ]
        world.send(*sales, after_ms=DAY - 2 * HOUR)
        world.now_ms += HOUR
        world.send(*(world.rival(rival_minor, sku=f"S{n}") for n in range(3)))
        watched(world, HOUR, sku="S0")


def test_it_goes_before_what_was_learnt_and_learning_goes_on() -> None:
    world = learning(1.0)
    traded(world, 15)
    assert all(world.price(f"S{n}") == pytest.approx(1400, rel=REST_LOG) for n in range(3))
    assert all("learnt" not in world.live(f"S{n}")["reasons"] for n in range(3))
    assert all("learnt" in world.live(f"S{n}")["reasons"] for n in range(3, 6))
    told = world.shard.learnt(world.key("S0"))
    assert told is not None and told["decided"] and told["days"] > 10
    # What sold at prices that rivals set is no experiment of ours.
    assert told["own_evidence"] == 0.0
    # The quote tells the learnt elasticity, and what the position costs.
    assert world.live("S0")["elasticity"] == pytest.approx(told["elasticity"], rel=1e-5)
    world.send(world.policy(scope="category", key="c0", rival_position=None))
    traded(world, 8)
    assert all("learnt" in world.live(f"S{n}")["reasons"] for n in range(3))


def test_a_held_out_listing_stays_where_it_is() -> None:
    world = World()
    world.send(world.policy(learning=True, holdout_share=0.5, rival_position=1.0))
    skus = ["A", *(f"S{n}" for n in range(19))]
    world.send(*(world.listing(sku, price_minor=1500, own_rival_names=("us",)) for sku in skus))
    world.send(after_ms=DAY)
    world.send(*(world.rival(1350, sku=sku) for sku in skus))
    watched(world, 2 * HOUR)
    arms = {sku: (world.shard.arm(world.key(sku)) or {}).get("holdout") for sku in skus}
    assert set(arms.values()) == {"control", "treated"}
    for sku, arm in arms.items():
        assert world.price(sku) == (1500 if arm == "control" else 1350)
    # Nor does a rate that only the position would need close a held-out listing.
    world.send(*(world.rival(1300, sku=sku, rival="b", currency="USD") for sku in skus))
    for sku, arm in arms.items():
        assert (world.state(sku) is State.UNPUBLISHABLE) == (arm == "treated")


@pytest.mark.parametrize(
    "tried", [{"price_ratio": 1.1}, {"treatment": {"rival_position": 0.9}, "price_ratio": None}]
)
def test_an_experiment_goes_before_it(tried: dict[str, Any]) -> None:
    world = World()
    world.send(world.policy(rival_position=1.0, step_max=1.0, breaker_listings_min=100))
    skus = ["A", *(f"S{n}" for n in range(19))]
    world.send(*(world.listing(sku, price_minor=1500, own_rival_names=("us",)) for sku in skus))
    world.send(*(world.rival(1500, sku=sku) for sku in skus), after_ms=HOUR)
    watched(world, 2 * HOUR)
    assert {world.price(sku) for sku in skus} == {1500}
    world.send(
        world.whole(ExperimentStarted, fields={"experiment": "e", "baseline_days": 0, **tried})
    )
    world.now_ms += DAY
    world.send(*(world.rival(1500, sku=sku) for sku in skus))
    watched(world, 3 * HOUR)
    expected = {"treated": 1650 if tried["price_ratio"] else 1350, "control": 1500}
    for sku in skus:
        assert world.price(sku) == expected[(world.shard.arm(world.key(sku)) or {})["experiment"]]


# ----- spirals -----------------------------------------------------------------------------------

ROUNDS = 168
"""A week of hours."""


def fought(world: World, rounds: int = ROUNDS, share: float = 0.01) -> list[int]:
    """Let a bot undercut us every hour, and return our prices."""
    prices = []
    for _ in range(rounds):
        world.send(world.rival(undercut(share)(world.price(), 0)))
        prices.append(watched(world, HOUR)[-1])
    return prices


def paired(rounds: int = ROUNDS, **policy: Any) -> list[int]:
    """Let two shops stand one per cent below each other; return the lower of their prices."""
    ours, theirs = positioned(0.99, **policy), positioned(0.99, **policy)
    prices = []
    for _ in range(rounds):
        told = theirs.price(), ours.price()
        for world, price in zip((ours, theirs), told, strict=True):
            world.send(world.rival(price))
            watched(world, HOUR)
        prices.append(min(ours.price(), theirs.price()))
    return prices


def test_two_who_undercut_each_other_come_to_rest_by_the_brake() -> None:
    prices = paired(kvi_brake=0.5)
    assert min(prices) > 0.96 * WISH
    assert prices[-1] > 0.97 * WISH


def test_without_brake_and_damping_two_who_undercut_each_other_fall() -> None:
    assert paired(rival_damping=0.0)[-1] == FLOOR


@pytest.mark.parametrize("damping", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.05])
def test_against_a_bot_that_undercuts_it_comes_to_rest(share: float, damping: float) -> None:
    prices = fought(positioned(0.99, kvi_brake=0.5, rival_damping=damping), share=share)
    assert min(prices) > 0.82 * WISH
    # Nor does it creep.
    assert min(prices[100:]) > 0.985 * min(prices[20:60])


def test_without_brake_and_damping_it_falls_with_the_bot() -> None:
    assert fought(positioned(0.99, rival_damping=0.0))[-1] == FLOOR


def test_damping_alone_is_slower() -> None:
    """By itself it is a pace and no end: who shall stand below a bot that undercuts him falls."""
    fast, slow = (fought(positioned(0.99, rival_damping=damping), 24) for damping in (0.0, 0.95))
    assert FLOOR < fast[-1] < 0.75 * WISH < slow[-1]


def test_the_brake_gives_back_and_its_receipt_says_so() -> None:
    world = positioned(0.99, kvi_brake=0.5)
    fought(world, 6)
    quotes = np.concatenate([decided.quotes for decided in world.decided])
    braked = quotes[quotes["binding"] == reasons.BRAKE]
    assert len(braked)
    assert (braked["without_minor"] < braked["proposed_minor"]).all()
    book = PolicyBook()
    book.change("r", "retailer", "", {"rival_position": 0.99, "kvi_brake": 0.5})
    facts = ListingFacts(
        channel="shop", sku="A", currency="EUR", policy=book.winners("r", "shop", "", (), "")
    )
    explained = explain(braked[-1], facts)
    assert explained.binding is not None and explained.binding.rule == "brake"
    assert "gives back up to 50 % of the way to where its position asks" in explained.text
    assert "key value" not in explained.text


def test_a_rival_who_is_merely_cheap_is_met_in_full() -> None:
    world = positioned(kvi_brake=0.5)
    for price in (1900, 1805, 1805, 1805):
        assert met(world, price, DAY // 2)[-1] == price


# ----- replay ------------------------------------------------------------------------------------


def test_replay_and_checkpoints_are_exact() -> None:
    world = positioned(0.99, kvi_brake=0.5)
    fought(world, 3)
    world.send(world.rival(world.price() * 98 // 100), after_ms=11 * MINUTE)  # on its way
    successor = Shard.restore([world.shard.checkpoint_close()])
    for step in range(60):
        world.now_ms += 5 * MINUTE
        deltas = [world.rival(round(0.99 * world.price()))] if step % 7 == 0 else []
        batch = batch_of(deltas, after=world.shard)
        decided = world.shard.apply(batch, world.now_ms)
        world.shard.record(decided)
        assert successor.replay(batch, decided) is Agreement.EXACT
    assert successor.digest == world.shard.digest


def test_a_position_may_be_set_for_any_scope() -> None:
    world = World()
    world.send(
        world.listing("A", category="juice", own_rival_names=("us",)),
        world.listing("B", category="milk", own_rival_names=("us",)),
    )
    before = world.price("B")
    world.send(
        PolicyChanged(
            retailer="acme",
            scope="category",
            key="juice",
            fields={"rival_position": 1.0, "rival_damping": 0.0},
            observed_ms=world.now_ms,
        )
    )
    world.send(world.rival(1700), world.rival(1700, sku="B"), after_ms=HOUR)
    assert (world.price("A"), world.price("B")) == (1700, before)
