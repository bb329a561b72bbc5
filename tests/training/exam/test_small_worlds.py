"""Each kind of world at a tiny size: nothing breaks a guardrail, and every score is one."""

import numpy as np
import pytest

from training.exam.simulated import Row, cells, examine, page, plain, published_page, verdicts

WORLDS = ("S3", "S4", "S5", "S7", "S9", "S10", "brands", "all_at_once")
"""Those that no other test sits; goals are for the whole size."""


@pytest.fixture(scope="module", params=WORLDS)
def row(request: pytest.FixtureRequest) -> Row:
    (row,) = examine((request.param,), (4,), 60, 14)
    return row


def test_guardrails_hold_and_scores_are_sound(row: Row) -> None:
    (result,) = row.results
    assert result.violations == 0
    assert result.trips == 0
    assert 0.8 < result.share < 1.1 and 0.8 < result.fixed < 1.0
    assert result.worst_listings < 0.5
    assert np.isfinite(result.gap_closed)


def test_beliefs_are_held_against_what_came(row: Row) -> None:
    found = row.calibration
    assert found is not None and 0 < found.forecasts <= 120
    # A week of a tiny shop in which five times as much is sold is foreseen by nobody.
    assert 0.4 < found.demand <= 1.0 and 0.5 < found.elasticity <= 1.0
    assert sum(each.count for each in found.bins) == 120
    assert all(0.0 <= each.stated <= 1.0 and 0.0 < each.came <= 1.001 for each in found.bins)


def test_rules_of_shops_are_beside_it_and_goals_are_told(row: Row) -> None:
    (found,) = row.published
    assert all(0.5 < share < 1.1 for share in found.values())
    goals = [goal for goal, _ in verdicts([row])]
    assert sum(goal.startswith(f"{row.world}:") for goal in goals) >= 5
    told = page([row], {"who_earns_what": published_page([row])}, verdicts([row]), "small")
    assert told.count(f"| {row.world} |") == 2
    assert cells(row)[0] == row.world
    (world,) = plain([row])["worlds"]
    assert world["calibration"]["forecasts"] == row.calibration.forecasts  # type: ignore[union-attr]
