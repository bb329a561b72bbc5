"""Wars, falls and swings are told from each other, and from prices that merely move."""

import numpy as np

from training.exam.spirals import ROUNDS, falls, swings, wars

NASH = np.array([1473.0])


def column(*prices: float) -> np.ndarray:
    """Return the path of one listing."""
    return np.array(prices, dtype=np.float64)[:, None]


def undercutting(days: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Return two sellers who each ask a little less than the other did the day before."""
    ours, theirs = [1500.0], [1490.0]
    for _ in range(days):
        ours, theirs = [*ours, factor * theirs[-1]], [*theirs, factor * ours[-1]]
    return column(*ours), column(*theirs)


def test_cuts_in_turns_are_a_war_and_a_fall() -> None:
    ours, theirs = undercutting(40, 0.99)
    at_war = wars(ours, theirs)[:, 0]
    assert not at_war[:ROUNDS].any() and at_war[ROUNDS + 1 :].any()
    assert falls(ours, theirs, NASH).any()


def test_a_war_of_two_who_answer_at_once_goes_up_and_down() -> None:
    """Each follows the other's price of the day before: two ladders down, taken in turns."""
    ours, theirs = [1500.0, 1480.0], [1470.0, 1485.0]
    for _ in range(30):
        ours, theirs = [*ours, theirs[-1]], [*theirs, 0.99 * ours[-1]]
    assert (np.diff(ours) > 0).any()
    assert wars(column(*ours), column(*theirs)).any()


def test_one_who_falls_alone_is_in_no_war() -> None:
    ours = column(*1500.0 * 0.99 ** np.arange(40))
    theirs = np.full_like(ours, 1500.0)
    assert not wars(ours, theirs).any()
    assert not falls(ours, theirs, NASH).any()


def test_a_rise_of_either_ends_the_count() -> None:
    """Dithers go up as often as down, and a bot that follows them fights no war."""
    pattern = np.tile([1500.0, 1440.0, 1500.0, 1560.0], 12)
    ours, theirs = column(*pattern), column(*0.99 * np.roll(pattern, 1))
    assert not wars(ours, theirs).any()


def test_slow_cuts_are_no_war() -> None:
    ours, theirs = undercutting(80, 0.99)
    slow = [np.repeat(path, 10, axis=0) for path in (ours, theirs)]
    assert not wars(*slow).any()


def test_falling_together_above_the_equilibrium_is_no_fall() -> None:
    """From a cartel's prices to competition: that is what competition is."""
    ours = column(*np.linspace(1900.0, 1480.0, 20))
    assert not falls(ours, ours, NASH).any()
    assert falls(0.85 * ours, 0.85 * ours, NASH).any()


def test_swings_count_turning_points() -> None:
    up_and_down = np.tile([1300.0, 1500.0], 5)
    assert swings(column(*up_and_down)).tolist() == [8]
    assert swings(column(*np.linspace(1000.0, 2000.0, 30))).tolist() == [0]
    assert swings(column(*np.tile([1450.0, 1500.0], 9))).tolist() == [0]
