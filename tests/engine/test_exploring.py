"""A bias that all of a category's prices share is found, because untested categories stray."""

from typing import Any

import numpy as np
import pytest

from engine.deltas import AnyDelta
from engine.learnt import RetailerLearning
from kernels import choice
from kernels.hyperparameters import OTHERS_TESTED_SHARE
from kernels.whitening import SUMS
from tests.engine.builders import DAY, World
from tests.engine.test_learning import lived, shop

SKUS = [f"B{number}" for number in range(40)]
CATEGORIES = 2
COST = 1000
SURE = ({"status_quo_sigma": 0.03}, {"prior_elasticity": -2.6, "prior_elasticity_sd": 0.1})


class Biased:
    """A shop all of whose prices are too dear or too cheap by the same share."""

    def __init__(self, bias: float, units: float = 20.0, **policy: Any) -> None:
        draw = np.random.default_rng(7)
        mean = np.array([-2.2, -3.0])[np.arange(len(SKUS)) % CATEGORIES]
        self.elasticity = np.minimum(mean + draw.normal(0.0, 0.2, len(SKUS)), -1.4)
        self.best = COST * self.elasticity / (1.0 + self.elasticity)
        self.units = units
        self.days = 0
        self.world = World()
        self.world.send(self.world.policy(learning=True, holdout_share=0.0, **policy))
        asked = self.best * np.exp(bias + draw.normal(0.0, 0.08, len(SKUS)))
        self.world.send(
            *(
                self.world.listing(
                    sku,
                    category=f"c{at % CATEGORIES}",
                    price_minor=round(float(asked[at])),
                    cost_minor=COST,
                )
                for at, sku in enumerate(SKUS)
            )
        )

    def live(self, days: int) -> None:
        """Let days pass."""
        for _ in range(days):
            self.days += 1
            draw = np.random.default_rng(self.days)
            sold = draw.poisson(self.units * (self.prices() / self.best) ** self.elasticity)
            deltas: list[AnyDelta] = [
                self.world.sold(int(sold[at]), sku, source=f"till {sku}", source_seq=self.days)
                for at, sku in enumerate(SKUS)
                if sold[at]
            ]
            self.world.send(*deltas, after_ms=DAY)

    def prices(self) -> np.ndarray:
        """Return float64[listings], in minor units."""
        return np.array([self.world.price(sku) for sku in SKUS], dtype=np.float64)

    def off(self) -> float:
        """Return how far prices are from the best ones on average, in logs."""
        return float(np.log(self.prices() / self.best).mean())

    def dithers(self) -> np.ndarray:
        """Return float64[listings], how far prices stray."""
        return np.abs(self.world.shard._memory.learnt.rows["dither"][: len(SKUS)])

    def held(self) -> RetailerLearning:
        """Return what the listings share."""
        return next(iter(self.world.shard._memory.learnt.retailers.values()))


def test_a_shop_that_is_too_dear_all_over_finds_out(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Biased(0.2)
    shop.live(1)
    assert shop.off() > 0.14
    shop.live(61)
    assert abs(shop.off()) < 0.06
    monkeypatch.setattr(choice, "HIDDEN_BIAS_SD", 1e-6)
    blind = Biased(0.2)
    blind.live(62)
    assert blind.off() > 0.1, "with nothing hidden it is as dear after two months"


def test_a_category_that_was_never_tried_strays_and_then_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = Biased(0.0)
    shop.live(22)
    assert shop.dithers().mean() > 0.04
    shop.live(68)
    assert (shop.held().tested > 8.0).all()
    assert shop.dithers().mean() < 0.01, "as if nothing were hidden"
    monkeypatch.setattr(choice, "HIDDEN_BIAS_SD", 1e-6)
    blind = Biased(0.0)
    blind.live(22)
    assert blind.dithers().mean() < 0.005, "a belief alone is sure of itself"


@pytest.mark.parametrize("word", SURE)
def test_who_knows_his_demand_is_not_asked_again(word: dict[str, float]) -> None:
    shop = Biased(0.0, **word)
    shop.live(22)
    assert shop.dithers().mean() < 0.02


@pytest.mark.parametrize("word", SURE)
def test_a_listing_whose_demand_is_known_is_not_asked_for_its_category(
    word: dict[str, float],
) -> None:
    shop = Biased(0.0)
    key = f"shop\x1f{SKUS[0]}"
    shop.world.send(shop.world.policy(scope="listing", key=key, **word))
    shop.live(22)
    assert shop.dithers()[0] < 0.02
    assert shop.dithers()[1:].mean() > 0.04


def test_what_was_tested_counts_others_in_part_and_is_kept() -> None:
    shop = Biased(0.0)
    shop.live(1)
    assert (shop.held().tested == 0.0).all()
    before = shop.held().tested
    for _ in range(20):
        shop.live(1)
        assert (shop.held().tested >= before).all(), "by the day"
        before = shop.held().tested
    learnt = shop.world.shard._memory.learnt.rows[: len(SKUS)]
    told = learnt["own"][:, SUMS.index("xx")].astype(np.float64)
    own = np.bincount(np.arange(len(SKUS)) % CATEGORIES, told)
    assert own.min() > 1.0
    assert before == pytest.approx(own + OTHERS_TESTED_SHARE * own[::-1])
    again = RetailerLearning.restore(shop.held().state())
    assert again.tested.tobytes() == before.tobytes()


def test_a_checkpoint_of_before_it_was_kept_hides_nothing_for_a_day() -> None:
    world = shop()
    lived(world, 9)
    held = next(iter(world.shard._memory.learnt.retailers.values()))
    state = held.state()
    del state["arrays"]["tested"]
    old = RetailerLearning.restore(state)
    assert old.tested.tolist() == [np.inf] * len(held.categories)
    state["table"] = None
    assert len(RetailerLearning.restore(state).tested) == 0
    # And its shop goes on.
    number = next(iter(world.shard._memory.learnt.retailers))
    world.shard._memory.learnt.retailers[number] = old
    lived(world, 30, 9)
    assert np.isfinite(old.tested).all()
