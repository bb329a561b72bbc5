"""A small arena: every opponent is met, scores mean what they say, and failures are told."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from training.exam.arena import BOUND, OPPONENTS, Bout, _scored, fight, sit_arena
from training.exam.standings import (
    arena_page,
    arena_plot,
    arena_verdicts,
    cells,
    interval,
    narrow_cells,
)
from training.worlds.duopoly import Duopoly


def scored(ours: np.ndarray, theirs: np.ndarray, against: str = "self") -> Bout:
    """Return the scores of prices that stay, float64[listings]."""
    paths = [np.tile(price, (40, 1)) for price in (ours, theirs)]
    return _scored(against, 3, Duopoly(3, len(ours)), *paths)


def test_nash_and_cartel_are_the_ends_of_the_index() -> None:
    market = Duopoly(3, 8)
    nash, cartel = market.nash(), market.monopoly()
    at_nash, at_cartel = scored(nash, nash), scored(cartel, cartel)
    assert at_nash.nash_share == pytest.approx(1.0)
    assert at_nash.collusion_index == pytest.approx(0.0, abs=1e-9)
    assert at_nash.best_reply_share == pytest.approx(1.0, abs=1e-4)
    assert at_nash.possible_share == pytest.approx(1.0, abs=1e-4)
    assert at_cartel.collusion_index == pytest.approx(1.0)
    assert at_cartel.price == pytest.approx(at_cartel.monopoly_price)
    assert scored(0.9 * nash, 0.9 * nash).collusion_index < -0.3


def test_against_ourselves_both_sides_count() -> None:
    """Who undercuts a cartel earns more than its share; together they earn less."""
    market = Duopoly(3, 8)
    cut, cartel = 0.9 * market.monopoly(), market.monopoly()
    assert scored(cut, cartel, "match").collusion_index > 1.0
    assert scored(cut, cartel).collusion_index < 1.0
    assert scored(cut, cartel).collusion_index == pytest.approx(scored(cartel, cut).collusion_index)


def test_verdicts_tell_a_spiral_a_floor_and_a_cartel() -> None:
    market = Duopoly(3, 8)
    nash, cartel = market.nash(), market.monopoly()
    assert all(reached for _, reached in arena_verdicts([scored(nash, nash)]))
    missed = [goal for goal, reached in arena_verdicts([scored(cartel, cartel)]) if not reached]
    assert len(missed) == 1 and "collusion index +1.000" in missed[0]
    path = np.maximum(nash * 0.985 ** np.arange(60)[:, None], 1053.0)
    spiral = _scored("undercut", 3, market, path, np.maximum(0.99 * np.roll(path, 1, 0), 1053.0))
    assert spiral.wars == 1.0 and spiral.falls == 1.0
    assert not any(reached for _, reached in arena_verdicts([spiral]))


def test_the_interval_widens_with_the_spread_of_seeds() -> None:
    assert interval([0.04]) == (0.04, 0.04)
    low, high = interval([0.0, 0.02, 0.04])
    assert low == pytest.approx(0.02 - 4.303 * 0.02 / 3**0.5, abs=0.003)
    assert high == pytest.approx(0.04 - low)
    nearly = [scored(*(Duopoly(3, 8).nash(),) * 2) for _ in range(2)]
    assert all(reached for _, reached in arena_verdicts(nearly))


def test_a_small_arena() -> None:
    """A few weeks of few listings: the engine keeps its price up whoever it meets.

    The goals are for a thousand days; what must hold on every day is that nobody drags it down.
    """
    met: list[str] = []
    names = tuple(name for name in OPPONENTS if name != "q_taught" and not name.endswith(BOUND))
    bouts = sit_arena((2,), 12, 42, names, told=lambda bout: met.append(bout.against))
    assert met == list(names)
    for bout in bouts:
        assert bout.lowest_price > 1.1, bout
        assert bout.best_reply_share > 0.85, bout
        assert bout.wars == 0.0 and bout.falls == 0.0, bout
        assert bout.changes_a_week < 1.5, bout
        assert len(bout.ours_weekly) == len(bout.theirs_weekly) == 6
    page, plot = arena_page(bouts, "arena.svg"), arena_plot(bouts)
    assert all(f"| {name} | 1 |" in page for name in names) and "(arena.svg)" in page
    assert len(ElementTree.fromstring(plot).findall(".//{*}polyline")) == 2 * len(names)
    assert cells("self", bouts[-1:])[:2] == ["self", "1"]
    assert narrow_cells("self", bouts[-1:])[3] == f"{bouts[-1].collusion_index:+.3f}"


@pytest.mark.parametrize("against", ["undercut_bound", "self_bound"])
def test_who_must_match_is_braked_before_it_falls(against: str) -> None:
    bout = fight(against, 2, 12, 84)
    assert bout.lowest_price > 1.15, bout
    # Some rounds of cuts are a war to the judge, even where prices come to rest at Nash's, and so
    # are they where prices stray that were never tried.
    assert bout.wars < 0.5 and bout.falls < 0.1, bout
    assert bout.nash_share > 0.9, bout
    assert bout.best_reply_share > 0.95, bout
    assert bout.swings_a_year < 1.0, bout


def test_without_the_brake_the_judge_sees_a_fall() -> None:
    """The rule for key value items obeys its retailer down to the floor."""
    bout = fight("undercut_bound", 2, 12, 56, {"kvi_brake": 0.0})
    assert bout.lowest_price < 1.1
    assert bout.wars == 1.0 and bout.falls == 1.0
    assert not any(reached for _, reached in arena_verdicts([bout]))


def test_a_bout_repeats() -> None:
    assert fight("q_learner", 4, 6, 21) == fight("q_learner", 4, 6, 21)
