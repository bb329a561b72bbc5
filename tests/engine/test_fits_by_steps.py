"""A large retailer's fit takes steps, so that no microbatch of it takes long."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import evidence, learning
from engine.deltas import ModeChanged
from engine.learnt import RetailerLearning
from engine.replay import Agreement
from engine.shard import Shard
from engine.stated import roots_of, stated_of
from repricer import batch_of
from tests.engine.builders import DAY, World
from tests.engine.test_learning import SKUS, lived, sales, shop

FEW = 6
"""Rows that a fit asks here: half of what the shop has."""


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the shop be too large to be fitted at once."""
    monkeypatch.setattr(evidence, "POOLED_ROWS", FEW)


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> list[Counter[str]]:
    """Return what was asked of the kernels, microbatch by microbatch."""
    spent: list[Counter[str]] = [Counter()]

    def counted(name: str, call: Callable[..., Any], rows: Callable[..., int]) -> None:
        def count(*told: Any, **more: Any) -> Any:
            spent[-1][name] += 1
            spent[-1][f"{name} rows"] += rows(*told)
            return call(*told, **more)

        monkeypatch.setattr(evidence, name, count)

    counted("fit", evidence.fit, lambda part, category, *_: len(category))
    counted("posterior", evidence.posterior, lambda table, told, category, *_: len(category))
    apply = Shard.apply

    def applied(shard: Shard, *told: Any) -> Any:
        spent.append(Counter())
        return apply(shard, *told)

    monkeypatch.setattr(Shard, "apply", applied)
    return spent


def switched_on() -> World:
    """Return a shop that was there before it learnt: its first fit is due at once."""
    world = World()
    listings = (
        world.listing(sku, category=f"c{at % 2}", price_minor=1500) for at, sku in enumerate(SKUS)
    )
    world.send(*listings)
    world.send(world.policy(learning=True))
    return world


def held_of(world: World) -> RetailerLearning:
    """Return what the retailer's listings share."""
    (held,) = world.shard._memory.learnt.retailers.values()
    return held


def test_each_step_asks_for_one_table_and_a_bounded_number_of_rows(
    large: None, spent: list[Counter[str]]
) -> None:
    """With a hundred thousand listings the whole of it took twice the silence an owner may keep."""
    world = shop()
    world.drain()
    for day in range(8):
        lived(world, 1, day)
        world.drain()
    assert held_of(world).fits == 2
    assert max(of["fit"] for of in spent) == 1
    assert max(of["posterior"] for of in spent) == 2
    assert max(of["posterior rows"] for of in spent) == 2 * FEW
    assert max(of["fit rows"] for of in spent) <= FEW


def test_prices_come_right_after_the_steps(large: None) -> None:
    """Nobody has to send anything: the shard has a backlog until they are there."""
    world = switched_on()
    for step in range(3):
        decided = [world.shard.learnt(world.key(sku))["decided"] for sku in SKUS]  # type: ignore[index]
        assert any(decided) is (step == 2)
        assert (world.shard.backlog > 0) is (step < 2)
        world.send()


def test_a_small_retailer_is_fitted_in_one_step(spent: list[Counter[str]]) -> None:
    """What it decides, and in which microbatch, is as it was."""
    world = switched_on()
    assert held_of(world).fits == 1
    assert sum(of["fit"] for of in spent) == max(of["fit"] for of in spent) == 2


def test_steps_arrive_where_one_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all rows are asked, a draft and what follows are the very fit."""
    tables = []
    for by_steps in (False, True):
        monkeypatch.setattr(learning, "is_fitted_by_steps", lambda mine, told=by_steps: told)
        world = shop(mode="shadow")
        lived(world, 8)
        world.send(world.whole(ModeChanged, mode="live"))
        assert (world.shard.backlog > 0) is by_steps
        world.drain()
        held = held_of(world)
        assert held.table is not None
        assert held.draft is None
        tables.append((held.table.parts.tobytes(), held.curvature, held.rival, held.fits))
    assert tables[0] == tables[1]


def test_a_successor_goes_on_with_a_fit_that_is_half_done(large: None) -> None:
    """A checkpoint may fall between any two steps."""
    world = shop()
    world.drain()
    for day in range(7):
        lived(world, 1, day)
        world.drain()
    world.send(*sales(world, 7, np.random.default_rng(7)), after_ms=DAY)
    halves = 0
    while world.shard.backlog:
        held = held_of(world)
        halves += held.draft is not None
        heir = Shard.restore([*_slices(world.shard), world.shard.checkpoint_close()])
        decided = world.send()
        again = batch_of([], after=heir)
        assert heir.replay(again, decided) is Agreement.EXACT
        assert held_of_shard(heir).state() == held.state()
    assert halves == 1


def _slices(shard: Shard) -> list[bytes]:
    shard.checkpoint_restart()
    parts = []
    while (part := shard.checkpoint_slice()) is not None:
        parts.append(part)
    return parts


def held_of_shard(shard: Shard) -> RetailerLearning:
    """Return what the only retailer's listings share."""
    (held,) = shard._memory.learnt.retailers.values()
    return held


def test_what_a_retailer_says_between_the_steps_is_fitted(large: None) -> None:
    """A draft by other roots is of no use; nor does it stay."""
    world = switched_on()
    assert held_of(world).draft is not None
    world.send(world.policy(prior_elasticity=-4.0))
    held = held_of(world)
    assert held.table is not None
    assert held.draft is None
    assert (held.table.roots.mean == -4.0).all()


def test_a_cost_between_the_steps_is_decided(large: None) -> None:
    """A category that is new, too, whichever step of the fit has seen it."""
    world = switched_on()
    world.send(world.listing("new", category="other", price_minor=1500))
    while world.shard.backlog:
        world.send(world.cost(900 + len(world.decided), "S1"))
    world.send(world.cost(1_100, "new"))
    assert all(world.shard.learnt(world.key(sku))["decided"] for sku in SKUS)  # type: ignore[index]


def test_a_retailer_who_leaves_off_between_the_steps_begins_anew(large: None) -> None:
    world = switched_on()
    before = held_of(world).draft
    assert before is not None
    world.send(world.whole(ModeChanged, mode="shadow"))
    world.drain()
    world.send(*sales(world, 1, np.random.default_rng(1)), after_ms=DAY)
    assert held_of(world).draft is None


@settings(deadline=None)
@given(
    said=st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 5), st.sampled_from([-1.5, -2.6, -4.0])),
        min_size=1,
        max_size=8,
    )
)
def test_groups_say_of_categories_what_their_listings_say(
    said: list[tuple[int, int, float]],
) -> None:
    """The middle word of each category, as if every listing were asked."""
    world = World()
    memory = world.shard._memory
    world.send(*(world.listing(f"G{at}", tags=(f"t{at}",)) for at in range(len(said))))
    for at, (_, _, mean) in enumerate(said):
        world.send(world.policy(scope="tag", key=f"t{at}", prior_elasticity=mean))
    rows = [memory.listings.live_row(world.key(f"G{at}")) for at in range(len(said))]
    groups = memory.listings.listings["group"][rows]
    category, sizes = (np.array([of[at] for of in said]) for at in (0, 1))
    found = roots_of(memory, groups, sizes, category, 3)
    mean = stated_of(memory.groups.policy.take(groups)).mean
    for number in range(3):
        words = np.sort(np.repeat(mean, sizes)[np.repeat(category, sizes) == number])
        middle = words[(len(words) - 1) // 2] if len(words) else -2.6
        assert found.mean[number] == middle


@given(
    sizes=st.lists(st.integers(0, 400), min_size=1, max_size=40),
    most=st.integers(1, 300),
)
def test_what_small_categories_leave_large_ones_give(sizes: list[int], most: int) -> None:
    category = np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))
    shares = evidence._shares(category, len(sizes), most)
    asked = evidence._some(category, shares) if len(category) else np.zeros(0, dtype=np.int64)
    assert len(asked) == shares.sum() <= max(most, 0)
    assert (np.diff(asked) > 0).all()
    assert (shares <= sizes).all()
    if sum(sizes) <= most:
        assert shares.tolist() == sizes
        return
    # Nobody who has more gives less, and one more of each would be too many.
    level = int(shares.max())
    full = np.array(sizes) <= level
    if level > 1 or most >= np.count_nonzero(sizes):
        assert (shares[full] == np.array(sizes)[full]).all()
        assert np.minimum(sizes, level + 1).sum() > most
    else:
        assert len(asked) == most


def test_a_catalogue_that_is_still_told_is_fitted_once_a_day(large: None) -> None:
    """Each microbatch of an import may say another thing of a category than the last."""
    world = switched_on()
    for at in range(6):
        world.send(world.policy(prior_elasticity=-3.0 - 0.1 * at))
    assert held_of(world).fits == 1
    assert all(world.shard.learnt(world.key(sku))["decided"] for sku in SKUS)  # type: ignore[index]
    world.drain()
    world.send(after_ms=DAY)
    world.drain()
    assert held_of(world).fits == 2
