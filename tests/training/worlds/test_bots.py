"""Whom the arena lets us meet: each answers as its name says, and the learner learns."""

import numpy as np
import pytest

from training.worlds.bots import (
    BOTS,
    DISCOUNT,
    FLOOR,
    GAIN,
    POINTS,
    QLearner,
    TitForTat,
    War,
    price_grid,
    profits,
    teach,
    unlearnt,
)
from training.worlds.duopoly import UNIT, Duopoly

MARKET = Duopoly(3, 12)


def asked(name: str, ours: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return what a fresh bot asks at once."""
    return BOTS[name](MARKET, 3, 100)(ours, own)


def test_followers_follow_and_the_floor_holds() -> None:
    ours, own = np.full(12, 1400.0), np.full(12, 1500.0)
    np.testing.assert_array_equal(asked("match", ours, own), ours)
    np.testing.assert_allclose(asked("undercut", ours, own), 0.99 * ours)
    np.testing.assert_array_equal(asked("cost_plus", ours, own), 1450.0)
    for name in ("match", "undercut"):
        np.testing.assert_allclose(asked(name, np.full(12, 900.0), own), FLOOR)


def test_tit_for_tat_answers_a_cut_by_a_cut_and_a_rise_by_a_rise() -> None:
    bot, ours, cartel = TitForTat(MARKET), np.full(12, 1500.0), MARKET.monopoly()
    first = bot(ours, ours)
    np.testing.assert_array_equal(first, cartel)
    cut = bot(0.9 * ours, first)
    np.testing.assert_allclose(cut, 0.9 * cartel)
    np.testing.assert_allclose(bot(ours, cut), cartel)
    assert (bot(1.2 * ours, cartel) <= cartel).all()  # never dearer than a cartel


def test_a_war_lasts_four_weeks_and_ends() -> None:
    bot, peace = War(MARKET), MARKET.nash()
    own = bot(0.98 * peace, peace)
    np.testing.assert_array_equal(own, peace)  # two percent less are no cause
    fought = [bot(0.96 * peace, own)]
    while (fought[-1] < peace).all():
        fought.append(bot(peace, fought[-1]))
    np.testing.assert_allclose(fought[0], np.maximum(0.95 * 0.96 * peace, FLOOR))
    np.testing.assert_allclose(fought[1:-1], np.tile(0.95 * peace, (War.LENGTH - 1, 1)))
    np.testing.assert_array_equal(fought[-1], peace)


def test_the_grid_reaches_from_below_nash_to_above_monopoly() -> None:
    grid = price_grid(MARKET)
    assert grid.shape == (12, POINTS)
    assert (np.diff(grid, axis=1) > 0).all()
    assert (grid[:, 0] < MARKET.nash()).all() and (grid[:, -1] > MARKET.monopoly()).all()
    assert (grid > FLOOR).all()
    np.testing.assert_allclose(
        profits(MARKET, grid)[:, 4, 9], MARKET.profit(grid[:, 4], grid[:, 9])
    )


def test_a_taught_learner_has_learnt_and_an_untaught_one_has_not() -> None:
    """What it learnt is to answer: its best price depends on what was asked before."""
    each = profits(MARKET, price_grid(MARKET))
    ignorant = unlearnt(each).argmax(axis=2)
    assert (ignorant == ignorant[:, :1]).all()
    worth = teach(each, np.random.default_rng(1), periods=4_000, decay=1e-3)
    learnt = worth.argmax(axis=2)
    assert (learnt != learnt[:, :1]).any()
    assert np.isfinite(worth).all()
    again = teach(each, np.random.default_rng(1), periods=4_000, decay=1e-3)
    np.testing.assert_array_equal(worth, again)


def test_a_learner_moves_what_it_asked_towards_what_it_earned() -> None:
    """A step by hand: earnings now, and the best of what it knows of the prices it now sees."""
    market = Duopoly(5, 4)
    bot, grid = QLearner(market, 5, 1000, taught=False), price_grid(market)
    ours, own = grid[:, 3], grid[:, 7]
    asked = bot(ours, own)
    before, chosen = bot.worth.copy(), np.abs(grid - asked[:, None]).argmin(axis=1)
    bot(ours, asked)
    each, seen, then = np.arange(4), 7 * POINTS + 3, chosen * POINTS + 3
    told = market.profit(asked, ours) + DISCOUNT * before[each, then].max(axis=1)
    expected = before[each, seen, chosen] + GAIN * (told - before[each, seen, chosen])
    np.testing.assert_allclose(bot.worth[each, seen, chosen], expected)
    assert (bot.worth != before).sum() == 4


@pytest.mark.parametrize("name", [name for name in BOTS if name != "q_taught"])
def test_bots_repeat(name: str) -> None:
    def course() -> list[np.ndarray]:
        bot, own, path = BOTS[name](MARKET, 3, 50), np.full(12, 1.5 * UNIT), []
        draw = np.random.default_rng(4)
        for _ in range(50):
            own = bot(1450.0 * np.exp(draw.normal(0.0, 0.05, 12)), own)
            path.append(own)
        return path

    first = course()
    np.testing.assert_array_equal(first, course())
    assert (np.array(first) >= FLOOR - 1e-9).all()
