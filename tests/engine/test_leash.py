"""What nobody confirms pulls the reference on a leash; what two of three feeds say moves it."""

import numpy as np
import pytest

from engine.replay import Agreement
from engine.rivals import OFFER_TENURE, OFFER_TENURE_SHIFT, TENURE_MAX
from engine.shard import Shard
from kernels.hyperparameters import TENURE_DAYS
from repricer import batch_of
from tests.engine.builders import DAY, HOUR, MINUTE, World

A_DAY = 0.01


def followed(feeds: tuple[str, ...], days: int = TENURE_DAYS + 1, **policy: object) -> World:
    """Return a KVI that matches one rival, whom feeds have watched for some days."""
    world = World()
    fields = {"kvi_rival_ratio_max": 1.0, "step_max": 1.0, "rival_unconfirmed_per_day": A_DAY}
    world.send(world.policy(**{**fields, **policy}))
    world.send(world.listing(kvi=True, own_rival_names=("us",)))
    for _ in range(days):
        say(world, dict.fromkeys(feeds, 1600), after_ms=DAY)
    return world


def say(world: World, prices: dict[str, int], after_ms: int = HOUR, rival: str = "bob") -> int:
    """Let feeds tell of a rival, and return the reference."""
    world.now_ms += after_ms
    world.send(*(world.rival(price, source=feed, rival=rival) for feed, price in prices.items()))
    # The last quote stands where nothing moved, so ask a fork that must tell everything.
    return int(world.price())


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_a_slow_drift_of_a_lone_rival_goes_no_further_than_the_leash(factor: float) -> None:
    world, price = followed(("a",)), 1600.0
    for hour in range(1, 49):
        price *= factor
        held = say(world, {"a": round(price)})
        assert abs(np.log(held / 1600.0)) <= A_DAY * hour / 24 + 0.5 / 1600 + 1e-6
    assert abs(np.log(world.price() / 1600.0)) >= A_DAY * 1.9  # but as far as that it goes


def test_many_looks_pull_no_further_than_few() -> None:
    often, seldom = followed(("a",)), followed(("a",))
    for _ in range(12 * 30):
        say(often, {"a": 1520}, after_ms=2 * MINUTE)
    for _ in range(12):
        say(seldom, {"a": 1520})
    assert abs(often.price() - seldom.price()) <= 1


def test_two_of_three_old_feeds_move_the_reference_at_once_and_the_third_cannot_keep_it() -> None:
    world = followed(("a", "b", "c"))
    assert say(world, {"a": 1600, "b": 1540, "c": 1540}) == 1540
    assert say(world, {"a": 1600, "b": 1600, "c": 1600}) == 1600
    lied = say(world, {"a": 1540, "b": 1600, "c": 1600})
    assert lied >= 1600 * np.exp(-A_DAY)
    assert say(world, {"a": 1540, "b": 1650, "c": 1650}) >= 1650 * np.exp(-A_DAY)


def test_two_feeds_are_no_quorum() -> None:
    world = followed(("a", "b"))
    assert say(world, {"a": 1540, "b": 1540}) >= 1600 * np.exp(-A_DAY)


def test_new_feeds_bear_out_nobody() -> None:
    world = followed(("a", "b", "c"))
    told = {"a": 1540, "b": 1600, "c": 1600, **{f"new-{n}": 1540 for n in range(9)}}
    for _ in range(5):
        assert say(world, told) >= 1600 * np.exp(-A_DAY)


def test_a_rival_who_is_said_to_have_gone_lets_the_reference_rise_on_the_leash() -> None:
    world = followed(("a",))
    world.send(world.rival(1600, source="a", in_stock=False), after_ms=HOUR)
    for _ in range(24):
        world.send(after_ms=HOUR)
    assert 1600 < world.price() <= 1600 * np.exp(A_DAY * 26 / 24) + 1


def test_without_a_leash_a_lone_rival_is_followed() -> None:
    assert say(followed(("a",), rival_unconfirmed_per_day=1.0), {"a": 1540}) == 1540


def test_nobody_grows_old_by_telling_of_days_gone_by() -> None:
    world = World()
    world.send(world.listing(kvi=True))
    now_ms = world.now_ms + 30 * DAY
    world.now_ms = now_ms
    for day in range(20, 0, -1):
        world.send(world.rival(1600, source="a", observed_ms=now_ms - day * DAY))
    assert tenure(world) == 0
    for _ in range(TENURE_MAX + 3):
        world.now_ms += DAY
        world.send(world.rival(1600, source="a"), world.rival(1600, source="a"))
    assert tenure(world) == TENURE_MAX


def tenure(world: World) -> int:
    flags = world.shard._memory.rivals.offers["flags"].max()
    return int((flags & OFFER_TENURE) >> OFFER_TENURE_SHIFT)


def test_a_leashed_shard_is_restored_and_replays_exactly() -> None:
    """The mooring is state: a successor pulls no further and no less."""
    world = followed(("a", "b", "c"))
    successor = Shard.restore([world.shard.checkpoint_close()])
    draw = np.random.default_rng(4)
    for _ in range(60):
        world.now_ms += int(draw.integers(MINUTE, 3 * HOUR))
        offers = [
            world.rival(int(draw.integers(1500, 1700)), source=feed)
            for feed in ("a", "b", "c")
            if draw.random() < 0.7
        ]
        batch = batch_of(offers, after=world.shard)
        decided = world.shard.apply(batch, world.now_ms)
        world.shard.record(decided)
        assert successor.replay(batch, decided) is Agreement.EXACT
    assert successor.digest == world.shard.digest
