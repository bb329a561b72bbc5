"""A small exam: the production shard earns more than doing nothing, and harms nobody."""

import numpy as np
import pytest

from training.exam.driving import Driven, sit
from training.exam.simulated import examine, page, plain, verdicts, worlds_named
from training.worlds.priced import PricedWorld
from training.worlds.settings import PERTURBED, SCENARIOS


def test_the_shard_earns_more_than_doing_nothing() -> None:
    """A quarter of the exam's length and an eighth of its listings; goals are for the whole."""
    rows = list(examine(("S1", "S6"), (3,), 250, 56))
    for row in rows:
        assert row.mean("gap_closed") > 0.1, row
        assert row.mean("violations") == 0
        assert row.mean("trips") == 0
        assert row.mean("changes_a_week") < 1.5
        assert row.mean("exploration_cost") < 0.01
    told = page(rows, {}, verdicts(rows), "small")
    assert "| S1 |" in told and "| S6 |" in told
    assert len(plain(rows)["worlds"]) == 2
    assert any(goal.startswith("S1: gap closed") and reached for goal, reached in verdicts(rows))


def test_without_learning_the_world_is_the_same() -> None:
    result = sit(PricedWorld(SCENARIOS["S1"], 3, 60, 7), {"min_margin": 0.05})
    assert result.exploration_cost == 0.0
    assert result.violations == 0


def test_what_others_earn_does_not_hang_on_our_prices() -> None:
    """A rival who follows cuts follows ours in our market alone, not in the clairvoyant's."""
    still, cutting = (
        sit(PricedWorld(SCENARIOS["S2"], 3, 60, 21), policy)
        for policy in ({"min_margin": 0.05, "step_max": 0.0}, {"min_margin": 0.05, "step_max": 1.0})
    )
    assert still.share != cutting.share
    assert still.fixed == cutting.fixed


def test_a_world_repeats_and_policies_meet_the_same_chance() -> None:
    first, again = (PricedWorld(PERTURBED["all_at_once"], 5, 80, 10) for _ in range(2))
    for one, other in zip(first.history(), again.history(), strict=True):
        np.testing.assert_array_equal(one.units, other.units)
    np.testing.assert_array_equal(first.best_price(), again.best_price())
    sold = first.sell(first.today)
    np.testing.assert_array_equal(sold.units, again.sell(again.today).units)


def test_brands_differ_where_a_world_says_so_and_other_worlds_are_as_they_were() -> None:
    plain, alike, told, untold = (
        PricedWorld({**SCENARIOS, **PERTURBED}[name], 5, 2_000, 3)
        for name in ("S1", "brands_alike", "brands", "brands_untold")
    )
    np.testing.assert_array_equal(plain.elasticity, alike.elasticity)
    np.testing.assert_array_equal(told.elasticity, untold.elasticity)
    assert len(np.unique(told.brand)) == 6 and len(np.unique(plain.brand)) == 1

    def between(world: PricedWorld) -> float:
        """Return how far apart the brands of one category are, as a share of all that is apart."""
        one = world.elasticity[world.group == 3], told.brand[world.group == 3]
        means = np.array([one[0][one[1] == brand].mean() for brand in range(6)])
        return float(means.std() / one[0].std())

    assert between(told) > 0.5 > 0.4 > between(alike)
    brands = [
        {change.brand for change in map(Driven(world)._listing, range(50))}  # type: ignore[attr-defined]
        for world in (told, untold)
    ]
    assert brands[1] == {None} and len(brands[0]) == 6


WORLDS = {**SCENARIOS, **PERTURBED}
SCARCE = [name for name, setting in WORLDS.items() if setting.delivery_days > 0]


@pytest.mark.parametrize("name", [name for name in WORLDS if name not in SCARCE])
def test_nobody_beats_the_clairvoyant(name: str) -> None:
    world = PricedWorld({**SCENARIOS, **PERTURBED}[name], 7, 100, 3)
    for _ in world.history():
        pass
    best = kept(world, world.best_price())
    for off in (0.8, 0.9, 1.0, 1.1, 1.25):
        other = np.clip(np.round(world.today * off), world.low, world.high)
        assert (kept(world, other) <= best * (1 + 1e-3) + 1e-6).all()


def kept(world: PricedWorld, price: np.ndarray) -> np.ndarray:
    """Return what prices earn today, or till the end where customers come to expect them."""
    if world.setting.expects_days == 0.0:
        return world.profit(price)
    other = PricedWorld(world.setting, world.seed, world.listings, world.days)
    for _ in other.history():
        pass
    total = np.zeros(world.listings)
    for _ in range(world.days):
        total += other.profit(price)
        other.sell(price)
    return total


def test_above_the_expected_price_more_is_lost_than_is_won_below_it() -> None:
    world = PricedWorld(PERTURBED["reference_kink"], 7, 100, 3)
    usual = np.log(world.expected(world.today))
    dearer, cheaper = (np.log(world.expected(world.today * off)) for off in (1.01, 1 / 1.01))
    slopes = (dearer - usual) / np.log(1.01), (usual - cheaper) / np.log(1.01)
    np.testing.assert_allclose(slopes[0] / slopes[1], 2.5)
    np.testing.assert_allclose(slopes[0], world.elasticities() * 10 / 7)


def test_a_price_that_stays_is_expected_in_the_end() -> None:
    """A tenth dearer loses by the steep slope on the first day, and by elasticity after a year."""
    world = PricedWorld(PERTURBED["reference_adaptive"], 7, 100, 400)
    price = world.today * 1.1
    lost = []
    for _ in range(400):
        at = world._expected_log.copy()
        found = world.expected(price)
        world._expected_log = np.zeros(world.listings)
        lost.append(np.log(found / world.expected(world.today)) / np.log(1.1))
        world._expected_log = at
        world.sell(price)
    np.testing.assert_allclose(lost[0], world.elasticity * 10 / 7)
    np.testing.assert_allclose(lost[-1], world.elasticity, rtol=1e-3)
    assert (np.diff(np.array(lost), axis=0) > -1e-9).all()


@pytest.mark.parametrize("name", ["reference_kink", "reference_adaptive"])
def test_the_best_price_may_be_the_very_one_that_is_expected(name: str) -> None:
    world = PricedWorld(PERTURBED[name], 7, 300, 60)
    for _ in world.history():
        pass
    kink = world.today * np.exp(world._expected_log)
    at_kink = np.abs(world.best_price() - kink) < 1e-6
    assert at_kink.mean() > 0.2 if name == "reference_kink" else world._expected_log.std() > 0.01


@pytest.mark.parametrize("name", SCARCE)
def test_where_stock_is_scarce_nobody_beats_the_clairvoyant_for_long(name: str) -> None:
    """On a day who sells all of his stock earns most, and then waits with an empty shelf."""
    earned = {}
    for off in (None, 0.85, 1.0, 1.1, 1.2, 1.35):
        world = PricedWorld(WORLDS[name], 7, 60, 80)
        for _ in world.history():
            pass
        total = 0.0
        for _ in range(world.days):
            asked = world.best_price() if off is None else world.today * off
            price = np.clip(np.round(asked), world.low, world.high)
            total += float(world.profit(price).sum())
            world.sell(price)
        earned[off] = total
    best = earned.pop(None)
    assert max(earned.values()) < best
    assert earned[1.0] < (0.97 if name == "just_enough_weekly" else 0.9) * best


def test_deliveries_do_not_hang_on_what_is_asked() -> None:
    dear, cheap = (PricedWorld(PERTURBED["scarce_irregular"], 7, 60, 60) for _ in range(2))
    came = []
    for world, off in ((dear, 1.4), (cheap, 0.7)):
        sold, begun = np.zeros(60), world.stock().copy()
        for _ in range(world.days):
            sold += world.sell(np.round(world.today * off)).units
        came.append(world.stock() + sold - begun)
        assert (world.stock() >= 0).all()
    np.testing.assert_array_equal(*came)
    assert (came[0] > 0).all()


def test_a_mixed_world_has_the_form_of_each_group() -> None:
    """Even groups sell as a world of constant elasticity does, odd ones as an exponential one."""
    mixed, constant, exponential = (
        PricedWorld(PERTURBED.get(name, SCENARIOS["S1"]), 7, 100, 3)
        for name in ("mixed_forms", "S1", "exponential")
    )
    price = 1.2 * mixed.today
    odd = mixed.group % 2 == 1
    assert 0 < odd.sum() < len(odd)
    expected = np.where(odd, exponential.expected(price), constant.expected(price))
    np.testing.assert_allclose(mixed.expected(price), expected)
    assert (np.abs(constant.expected(price) / exponential.expected(price) - 1.0) > 0.01).all()


def test_prices_in_force_are_what_the_world_sells_at() -> None:
    driven = Driven(PricedWorld(SCENARIOS["S1"], 3, 40, 3))
    driven.open()
    asked = driven.price.copy()
    np.testing.assert_array_equal(driven.day().price, asked)


def test_worlds_are_named() -> None:
    assert worlds_named(("scenarios",)) == tuple(SCENARIOS)
    assert worlds_named(("S1", "all"))[:2] == ("S1", "S2")
    with pytest.raises(KeyError):
        worlds_named(("S11",))
