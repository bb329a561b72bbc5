"""Published rules in our worlds: they earn what they are known to, and nobody cheats."""

from functools import partial

import numpy as np
import pytest
from msgspec.structs import replace

from training.exam.published_rules import PUBLISHED, Past, listing_ols, match_rival, shares
from training.worlds.priced import PricedWorld
from training.worlds.settings import SCENARIOS


@pytest.mark.parametrize("name", ["S1", "S3"])
def test_they_earn_what_papers_say(name: str) -> None:
    """Below the clairvoyant; least squares pooled over groups does harm, most with bad history."""
    found = shares(partial(PricedWorld, SCENARIOS[name], 3, 300, 70))
    assert set(found) == set(PUBLISHED)
    assert all(0.8 < share < 1.0 for share in found.values()), found
    assert found["group_ols"] < 0.95
    assert found == shares(partial(PricedWorld, SCENARIOS[name], 3, 300, 70)), "it repeats"


def test_a_learner_finds_slopes_where_nothing_scatters() -> None:
    """Without shocks, and with sales by the thousand, the mark-up rule is nearly clairvoyant."""
    calm = replace(
        SCENARIOS["S1"], volume_median=3_000.0, volume_sd=0.1, dispersion=0.0, shock_sd=0.0,
        season=0.0, history_sd=0.3, rival_pull=0.0,
    )  # fmt: skip
    assert shares(partial(PricedWorld, calm, 3, 100, 56))["listing_ols"] > 0.99


def test_rules_see_what_the_shard_sees() -> None:
    world = PricedWorld(SCENARIOS["S10"], 3, 50, 7)
    past = Past([], [], world.rival_price())
    for day in world.history():
        past.add(day)
    told = match_rival(world, past)
    np.testing.assert_array_equal(told, day.rival)
    # A listing whose price never moved has told nothing: it stays.
    past.log_price = [np.log(world.today)] * len(past.log_units)
    np.testing.assert_array_equal(listing_ols(world, past), world.today)
