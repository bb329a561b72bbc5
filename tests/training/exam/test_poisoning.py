"""A small poisoning suite: lies move prices by little, and the truth is seldom doubted."""

import numpy as np
import pytest

from training.exam.attacks import ATTACKS
from training.exam.poisoning import (
    DISPLACEMENT_GOAL,
    POLICY,
    QUARANTINE_GOAL,
    attacked_rows,
    poison,
    poisoning_verdicts,
    rows_of,
)
from training.worlds.watched import WatchedMarket

SMALL = ("slow drift, -1 % an hour", "coordinated copies in one feed", "sybil sources")


def test_lies_move_prices_by_little_and_the_truth_is_seldom_doubted() -> None:
    told = []
    suite = poison(
        7,
        listings=24,
        attacks={name: ATTACKS[name] for name in SMALL},
        attack_hours=24,
        history_days=9,
        told=lambda: told.append(1),
    )
    assert len(told) == 1 + len(SMALL)
    assert suite.false_quarantine <= QUARANTINE_GOAL
    for one in suite.attacks:
        assert one.worst <= DISPLACEMENT_GOAL, one
        assert one.through_floor == 0
        assert one.worst > 0.0, "an attack that moves nothing at all was not heard"
    judged = poisoning_verdicts([suite])
    assert all(reached for _, reached in judged), judged
    assert len(list(rows_of([suite]))) == len(SMALL)


def test_without_the_leash_the_suite_fails_and_says_so() -> None:
    """The suite can tell: the same drift against the same market, and no leash."""
    suite = poison(
        7,
        listings=24,
        attacks={SMALL[0]: ATTACKS[SMALL[0]]},
        policy={**POLICY, "rival_unconfirmed_per_day": 1.0},
        attack_hours=24,
        history_days=9,
    )
    assert suite.attacks[0].worst > 0.1
    assert not all(reached for _, reached in poisoning_verdicts([suite]))


def test_there_are_a_dozen_attacks_and_more() -> None:
    assert len(ATTACKS) >= 12


def test_half_of_each_layout_is_attacked() -> None:
    rows = attacked_rows(96)
    assert len(rows) == 48
    assert np.bincount([row % 4 for row in rows]).tolist() == [12] * 4


@pytest.mark.parametrize("price", [0.8, 1.0, 1.3])
def test_chance_is_the_same_whatever_we_ask(price: float) -> None:
    """Rivals do what they do, and whoever buys at a price buys at a lower one, too."""
    one, other = WatchedMarket(3, 24), WatchedMarket(3, 24)
    today = one.today.astype(np.int64)
    for _ in range(30):
        at = one.step(today)
        off = other.step(np.rint(price * today).astype(np.int64))
        np.testing.assert_array_equal(one.rival_prices(), other.rival_prices())
        sold, sold_off = (
            {f.sku: f.units for f in of if hasattr(f, "source_seq")} for of in (at, off)
        )
        for sku in sold.keys() | sold_off.keys():
            difference = sold.get(sku, 0) - sold_off.get(sku, 0)
            assert difference * (price - 1.0) >= 0
