"""More deltas a microbatch while all rows find room, fewer as soon as they do not."""

from actors.pace import Pace
from kernels.limits import ROWS_PER_DECISION_MAX


def test_it_begins_with_what_certainly_finds_room() -> None:
    assert Pace(3 * ROWS_PER_DECISION_MAX).records_max() == ROWS_PER_DECISION_MAX
    assert Pace(4).records_max() == 4


def test_it_grows_to_the_limit_and_falls_to_where_it_began() -> None:
    pace = Pace(2 * ROWS_PER_DECISION_MAX)
    for _ in range(20):
        pace.grow()
    assert pace.records_max() == 2 * ROWS_PER_DECISION_MAX
    pace.fall()
    assert ROWS_PER_DECISION_MAX < pace.records_max() < 2 * ROWS_PER_DECISION_MAX
    for _ in range(20):
        pace.fall()
    assert pace.records_max() == ROWS_PER_DECISION_MAX


def test_a_record_of_many_deltas_weighs_as_many() -> None:
    pace = Pace(2 * ROWS_PER_DECISION_MAX)
    pace.took(3, 3 * 2_048)
    assert pace.records_max() == 2
    pace.took(0, 0)
    assert pace.records_max() == 2, "what took nothing tells nothing"
    pace.took(2, 2 * 10_000)
    assert pace.records_max() == 1, "a record is taken whole"
    pace.took(8, 0)
    assert pace.records_max() == ROWS_PER_DECISION_MAX
