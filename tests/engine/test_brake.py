"""A KVI whose rival answers every cut is braked; one whose rival is merely cheap follows him."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.checkpoint import Part, _layout, check_part, layout
from engine.drivers import ListingFacts
from engine.explanation import explain
from engine.listing_table import BEFORE_BRAKES, LISTING_DTYPE
from engine.replay import Agreement
from engine.shard import Shard
from kernels import reasons
from repricer import batch_of
from tests.engine.builders import DAY, HOUR, MINUTE, World

WISH, FLOOR = 1988, 1053
"""What the engine asks of this listing where no rival binds it, and its floor."""

Answer = Callable[[int, int], int]
"""From our price and the rival's last to the rival's next."""


def bound(ratio: float = 1.0, **policy: object) -> World:
    """Return a world with one KVI that asks ``WISH``."""
    world = World()
    fields: dict[str, object] = {"kvi_rival_ratio_max": ratio, "kvi_brake": 0.5}
    fields["changes_per_hour_max"] = 255
    world.send(world.policy(**{**fields, "status_quo_sigma": 0.01, **policy}))
    world.send(world.listing(kvi=True, own_rival_names=("us",)))
    assert world.price() == WISH
    return world


def undercut(share: float) -> Answer:
    return lambda ours, theirs: max(min(round((1.0 - share) * ours), ours - 1), 500)


def fought(world: World, answer: Answer, rounds: int, after_ms: int = DAY) -> list[int]:
    """Let a rival answer us so often, and return our prices."""
    prices, theirs = [world.price()], world.price()
    for _ in range(rounds):
        theirs = answer(prices[-1], theirs)
        world.now_ms += after_ms
        world.send(world.rival(theirs))
        prices.append(world.price())
    return prices


def is_braked(world: World) -> bool:
    return int(world.live()["binding"]) == reasons.BRAKE


@settings(deadline=None, max_examples=25)
@given(
    share=st.sampled_from([0.0005, 0.002, 0.01, 0.02, 0.05, 0.08]),
    ratio=st.sampled_from([0.97, 1.0, 1.03]),
    after_ms=st.sampled_from([5 * MINUTE, HOUR, DAY, 2 * DAY]),
    brake=st.sampled_from([0.3, 0.5, 0.8]),
)
def test_a_bound_kvi_does_not_fall_to_its_floor(
    share: float, ratio: float, after_ms: int, brake: float
) -> None:
    """Whatever the rival cuts, however often, and over many times the brake's own time.

    Only what takes less than .8 % in four weeks is no war: a cent of twenty euros every other day.
    """
    assume(share > 0.001 or after_ms <= DAY)
    world = bound(ratio, kvi_brake=brake)
    prices = fought(world, undercut(share), 150, after_ms)
    # Where a braked KVI comes to rest; before it, the rounds after which the brake sees a war.
    pull = min(ratio * (1.0 - share), 1.0)
    rest = brake / (1.0 - (1.0 - brake) * pull)
    followed = pull ** (2 if pull < 0.92 else 3)
    assert min(prices) > min(rest, followed) * 0.96 * WISH
    assert min(prices) > 1.15 * FLOOR
    # Nor does it creep: the last weeks are as the first.
    assert min(prices[100:]) > 0.985 * min(prices[10:60])


def test_without_the_brake_it_falls() -> None:
    assert fought(bound(kvi_brake=0.0), undercut(0.01), 90)[-1] == FLOOR


def test_a_war_is_followed_for_three_rounds_and_then_braked() -> None:
    world = bound()
    prices = fought(world, undercut(0.01), 3)
    assert prices == [1988, 1968, 1948, 1929]
    assert not is_braked(world)
    prices = fought(world, undercut(0.01), 8)
    assert is_braked(world)
    # Half of the way back to where it began, again and again: a percent below, and no further.
    assert prices[-1] == pytest.approx(0.99 * WISH, abs=4)


def test_deep_cuts_are_braked_sooner() -> None:
    prices = fought(bound(), undercut(0.1), 3)
    assert prices[1:3] == [1789, 1610]
    assert prices[3] > prices[2]


def test_who_cuts_and_stays_is_followed_in_full() -> None:
    world = bound()
    for price in (1900, 1805, 1805, 1805):
        fought(world, lambda ours, theirs, price=price: price, 4)
        assert world.price() == price
    assert not is_braked(world)


def test_who_trembles_is_followed_up_and_down() -> None:
    world = bound()
    for price in [1850, 1830, 1800, 1840, 1820, 1860, 1810] * 8:
        fought(world, lambda ours, theirs, price=price: price, 1)
        assert world.price() == price


def test_several_steps_towards_one_price_are_one_cut() -> None:
    world = bound(step_max=0.02)
    prices = fought(world, lambda ours, theirs: 1500, 40, HOUR)
    assert prices[-1] == 1500
    assert world.shard._memory.listings.listings["war_rounds"][0] == 1


def test_the_brake_eases_and_ends_where_the_rival_does_not_answer() -> None:
    world = bound()
    fought(world, undercut(0.01), 6)
    assert is_braked(world)
    assert fought(world, lambda ours, theirs: 1800, 1)[-1] == 1894
    eased = fought(world, lambda ours, theirs: 1800, 20, DAY // 2)
    assert eased[-1] == 1800 and not is_braked(world)
    assert max(-np.diff(eased)) < 30  # and not at a stroke


def test_it_ends_by_itself_when_nobody_says_anything() -> None:
    world = bound(rival_stale_ms=30 * DAY)
    fought(world, undercut(0.01), 6)
    rival = world.live()["rival_minor"]
    for _ in range(24 * 8):
        world.send(after_ms=HOUR)
    assert world.price() == rival


def test_whoever_goes_on_finds_the_brake_on_at_once() -> None:
    """A week later the rule holds again; one cut that is answered is enough then."""
    world = bound()
    prices = fought(world, undercut(0.01), 120)
    assert min(prices[12:]) >= 0.975 * WISH


def test_a_war_of_last_month_is_forgotten() -> None:
    world = bound()
    fought(world, undercut(0.01), 6)
    fought(world, lambda ours, theirs: 1990, 45)
    assert fought(world, undercut(0.01), 3)[1:] == [1968, 1948, 1929]


def test_deep_cuts_that_are_taken_back_and_made_again_are_braked() -> None:
    world = bound()
    prices = fought(world, lambda ours, theirs: 1700 if theirs > 1900 else 1990, 12)
    assert prices[1:9] == [1700, 1988] * 4
    assert min(prices[9:]) > 1800


def test_a_promotion_a_week_is_no_oscillation() -> None:
    world = bound(rival_stale_ms=30 * DAY)
    for _ in range(8):
        assert fought(world, lambda ours, theirs: 1700, 1, 4 * DAY)[-1] == 1700
        assert fought(world, lambda ours, theirs: 1990, 1, 4 * DAY)[-1] == WISH


def test_it_rewards_nobody_for_raising_his_price() -> None:
    """Of two rivals who fought alike, whoever raises finds us braked no longer than who does not.

    Our price may rise with his only by what the rule gives back, less than without a brake.
    """
    raised, stayed = bound(), bound()
    for world in (raised, stayed):
        fought(world, undercut(0.01), 6)
    stays = stayed.live()["rival_minor"]
    fought(raised, lambda ours, theirs: stays + 15, 2, HOUR)
    fought(stayed, lambda ours, theirs: stays, 2, HOUR)
    ends = [w.shard._memory.listings.listings["brake_slot"][0] for w in (raised, stayed)]
    assert ends[0] == ends[1]
    assert 0 <= raised.price() - stayed.price() <= 15


def test_two_shards_who_must_undercut_each_other_come_to_rest() -> None:
    ours, theirs = bound(0.98), bound(0.98)
    for _ in range(120):
        prices = ours.price(), theirs.price()
        for world, price in ((ours, prices[1]), (theirs, prices[0])):
            world.send(world.rival(price), after_ms=DAY)
        assert min(ours.price(), theirs.price()) > 0.9 * WISH


def test_what_is_not_put_in_force_is_no_round() -> None:
    world = bound()
    world.send(world.policy(approval="manual"))
    fought(world, undercut(0.01), 10)
    assert world.shard._memory.listings.listings["war_rounds"][0] == 0


def test_the_way_to_somebody_cheaper_is_not_undone() -> None:
    """He asks a fifth less from the first day on; later he begins to answer our cuts."""
    world = bound()
    assert fought(world, lambda ours, theirs: 1600, 3)[-1] == 1600
    prices = fought(world, undercut(0.01), 40)
    assert min(prices) > 0.94 * 1600 and prices[-1] > 0.97 * 1600
    assert max(prices) == 1600


def test_the_receipt_names_the_brake() -> None:
    world = bound()
    fought(world, undercut(0.01), 4)
    quote = world.decided[-1].quotes[0]
    assert quote["binding"] == reasons.BRAKE
    assert quote["without_minor"] == quote["rival_minor"] < quote["proposed_minor"] < WISH
    assert {"kvi", "overridden"} <= set(reasons.names(int(quote["reasons"])))
    explained = explain(quote, ListingFacts(channel="shop", sku="A", currency="EUR", kvi=True))
    assert explained.binding is not None and explained.binding.rule == "brake"
    assert "answers its cuts" in explained.text and "without it" in explained.text
    assert "brake" in [driver.name for driver in explained.drivers]


def test_a_war_is_restored_and_replays_exactly() -> None:
    world = bound()
    fought(world, undercut(0.01), 3)
    successor = Shard.restore([world.shard.checkpoint_close()])
    for _ in range(40):
        world.now_ms += 5 * HOUR
        batch = batch_of([world.rival(round(0.99 * world.price()))], after=world.shard)
        decided = world.shard.apply(batch, world.now_ms)
        world.shard.record(decided)
        assert successor.replay(batch, decided) is Agreement.EXACT
    assert successor.digest == world.shard.digest


def test_a_checkpoint_of_before_the_brake_is_read() -> None:
    """It remembers no war, and everything else."""
    world = bound()
    fought(world, undercut(0.01), 2)
    part = msgspec.msgpack.decode(world.shard.checkpoint_close(), type=Part)
    rows = np.frombuffer(part.listings, dtype=LISTING_DTYPE)
    before = np.zeros(len(rows), dtype=BEFORE_BRAKES)
    for name in BEFORE_BRAKES.names or ():
        before[name] = rows[name]
    old = msgspec.structs.replace(part, listings=before.tobytes(), layout=_layout(BEFORE_BRAKES))
    assert old.layout != layout()
    encoded = msgspec.msgpack.encode(old)
    check_part(encoded)
    restored = Shard.restore([encoded])
    assert restored._memory.listings.listings["war_rounds"][0] == 0
    assert restored.live(world.key()) == world.live()


def test_the_layout_of_before_is_the_released_one() -> None:
    """Eight bytes that parts in stores begin with; what they were must not move."""
    assert _layout(BEFORE_BRAKES).hex() == "92cce86b6f022dd5"
