"""Timers give rows by time and number; the backlog by what they earn; both in bounded portions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.listing_table import NEVER
from engine.timers import Backlog, Timers


@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 50), st.booleans()), max_size=60),
    st.integers(1, 40),
)
def test_timers_give_what_a_sorted_list_gives(
    steps: list[tuple[int, int, bool]], rows_max: int
) -> None:
    timers, model = Timers(), dict[int, int]()
    timers.fit(3001)
    for row, time, look in steps:
        timers.set(np.array([row]), np.array([time]))
        model[row] = time
        if look:
            expected = sorted((at, of) for of, at in model.items() if at <= 25)[:rows_max]
            found = timers.due(25, rows_max)
            assert found.tolist() == [of for _, of in expected]
            timers.pause(found)
            for _, of in expected:
                model[of] = NEVER
    assert timers.any_due(25) == any(at <= 25 for at in model.values())
    timers.restore()
    assert timers.any_due(25) == any(at <= 25 for at in model.values())


def test_rows_that_come_later_fall_due_when_they_are_set_and_not_before() -> None:
    timers = Timers()
    timers.fit(1025)
    timers.set(np.array([1024]), np.array([9]))
    timers.fit(5000)
    assert timers.due(10, 10).tolist() == [1024]
    assert (timers.due_ms[1025:5000] == NEVER).all()
    timers.set(np.array([4999]), np.array([8]))
    timers.restore()
    assert timers.due(10, 10).tolist() == [4999, 1024]


def test_the_backlog_takes_the_best_sellers_first_and_survives_marks_between() -> None:
    backlog = Backlog()
    revenue = np.array([0.0, 5000.0, 4100.0, 70.0, 0.0, 1e9])
    backlog.mark(np.array([0, 1, 2, 3]))
    first = backlog.take(2, revenue.__getitem__)
    assert first.tolist() == [1, 2]  # of equal standing: by number
    backlog.clear(first)
    backlog.mark(np.array([5, 4]))
    backlog.clear(np.array([3]))
    assert backlog.rows == 3
    rest = backlog.take(10, revenue.__getitem__)
    assert rest.tolist() == [5, 0, 4]


def test_a_row_cleared_while_it_waits_is_passed_over() -> None:
    backlog = Backlog()
    backlog.mark(np.arange(10))
    backlog.clear(backlog.take(3, lambda rows: np.zeros(len(rows))))
    backlog.clear(np.array([3, 5]))
    taken = backlog.take(3, lambda rows: np.zeros(len(rows)))
    assert taken.tolist() == [4, 6, 7]
