"""Facts may come twice, late and in any order, and in any cut: the judgement is the same."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.deduplication import (
    EVENT_WINDOW_MS,
    FEW_CELLS,
    MINUTE_MS,
    NEW,
    NO_ROOM,
    SEEN,
    TOO_OLD,
    EventWindow,
    HighWaterMarks,
    distinct_of,
    last_of,
    lasts,
    newest,
    stable_order,
)

FACTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=30
)
KNOWN = st.lists(st.tuples(st.integers(-1, 5), st.integers(0, 2)), min_size=4, max_size=4)


@given(facts=FACTS, known=KNOWN)
def test_a_block_is_judged_as_if_its_facts_came_one_by_one(
    facts: list[tuple[int, int, int]], known: list[tuple[int, int]]
) -> None:
    held = dict(enumerate(known))
    late, duplicate = [], []
    for cell, observed, value in facts:
        at, said = held[cell]
        late.append(observed < at)
        duplicate.append((observed, value) == (at, said))
        if not late[-1]:
            held[cell] = (observed, value)
    cells, observed, values = (np.array(column) for column in zip(*facts, strict=True))
    known_ms = np.array([known[cell][0] for cell in cells])
    known_values = np.array([known[cell][1] for cell in cells])
    judged = newest(cells, observed, values, known_ms, known_values)
    assert judged.late.tolist() == late
    assert judged.duplicate.tolist() == duplicate
    winners = last_of(cells, judged.effective)
    for cell in range(4):
        mine = [at for at in winners.tolist() if cells[at] == cell]
        assert len(mine) <= 1
        result = (int(observed[mine[0]]), int(values[mine[0]])) if mine else known[cell]
        assert result == held[cell]


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(1, 2), st.integers(0, 6)), min_size=1, max_size=40
    ),
    st.sets(st.integers(1, 39)),
)
def test_a_mark_counts_each_sequence_once_in_any_cut(
    sales: list[tuple[int, int, int]], cuts: set[int]
) -> None:
    marks, expected, highest = HighWaterMarks(), [], dict[tuple[int, int], int]()
    for retailer, source, sequence in sales:
        expected.append(sequence > highest.get((retailer, source), -1))
        if expected[-1]:
            highest[retailer, source] = sequence
    found: list[bool] = []
    bounds = [0, *sorted(cut for cut in cuts if cut < len(sales)), len(sales)]
    for start, stop in pairwise(bounds):
        part = sales[start:stop]
        if part:
            columns = [np.array(column) for column in zip(*part, strict=True)]
            found += marks.take(columns[0], columns[1].astype(np.uint64), columns[2])[0].tolist()
        marks = HighWaterMarks.restore(marks.state())
    assert found == expected


def test_a_source_too_many_is_refused_and_takes_nobody_elses_room() -> None:
    marks = HighWaterMarks()
    many = np.arange(1, 70_000, dtype=np.uint64)
    first = np.zeros(len(many), np.int64)
    fresh, met = marks.take(first, many, first)
    assert fresh.sum() == 65_535
    assert (met[~fresh] == NO_ROOM).all()
    fresh, _ = marks.take(first[:10] + 1, many[:10], first[:10], sources_max=10)
    assert fresh.all()
    fresh, met = marks.take(first[:1] + 1, many[10:11], first[:1], sources_max=10)
    assert met.tolist() == [NO_ROOM]


def test_the_window_tells_new_from_seen_and_from_too_old() -> None:
    window = EventWindow()
    now_ms = 100 * EVENT_WINDOW_MS
    window.expire(now_ms)
    assert window.take(0, 7, now_ms) == NEW
    assert window.take(0, 7, now_ms) == SEEN
    assert window.take(1, 7, now_ms) == NEW  # another retailer's id
    assert window.take(0, 8, now_ms - EVENT_WINDOW_MS - MINUTE_MS) == TOO_OLD
    window.expire(now_ms + 2 * EVENT_WINDOW_MS)
    assert window.take(0, 7, now_ms) == TOO_OLD  # never counted again


def test_a_full_window_forgets_its_oldest_minutes_and_refuses_them(monkeypatch) -> None:
    monkeypatch.setattr("engine.deduplication.EVENTS_MAX", 10)
    window = EventWindow()
    now_ms = 100 * EVENT_WINDOW_MS
    for minute in range(12):
        window.take(0, minute, now_ms + minute * MINUTE_MS)
    window.expire(now_ms)
    assert window.take(0, 0, now_ms) == TOO_OLD
    assert window.take(0, 11, now_ms + 11 * MINUTE_MS) == SEEN


def test_more_sources_than_the_first_array_holds_come_back() -> None:
    marks, count = HighWaterMarks(), 300
    marks.take(np.zeros(count, dtype=np.int64), np.arange(1, count + 1), np.arange(count))
    assert HighWaterMarks.restore(marks.state()).state() == marks.state()


def test_a_full_window_forgets_of_the_one_who_holds_most(monkeypatch) -> None:
    monkeypatch.setattr("engine.deduplication.EVENTS_MAX", 10)
    window = EventWindow()
    now_ms = 100 * EVENT_WINDOW_MS
    for event in range(4):
        assert window.take(1, event, now_ms - event * MINUTE_MS) == NEW
    for event in range(50):
        window.take(0, event, now_ms + event * MINUTE_MS)
        window.expire(now_ms)
    assert [window.take(1, event, now_ms - event * MINUTE_MS) for event in range(4)] == [SEEN] * 4
    assert window.take(0, 60, now_ms) == TOO_OLD
    assert len(window) == 10
    restored = EventWindow.restore(window.oldest_minute, window.oldest_minutes(), window.changed())
    assert restored.take(0, 60, now_ms) == TOO_OLD
    assert restored.take(1, 0, now_ms) == SEEN


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 40)), max_size=60))
def test_increments_of_a_window_add_up(events: list[tuple[int, int]]) -> None:
    window, saved = EventWindow(), list[tuple[int, int, list[int]]]()
    for number, (event, minute) in enumerate(events):
        window.take(0, event, minute * MINUTE_MS)
        if number % 7 == 0:
            saved += window.changed()
    saved += window.changed()
    restored = EventWindow.restore(window.oldest_minute, (), saved)
    for event, minute in events:
        assert restored.take(0, event, minute * MINUTE_MS) == SEEN
    restored.forget_checkpoint()
    window.forget_checkpoint()
    assert restored.changed() == window.changed()


def test_more_marks_than_an_array_begins_with_come_back() -> None:
    marks = HighWaterMarks()
    sources = np.arange(1, 1001, dtype=np.uint64)
    marks.take(np.zeros(1000, dtype=np.int64), sources, np.arange(1000))
    again = HighWaterMarks.restore(marks.state())
    assert again.state() == marks.state()
    assert [mark for _, _, mark in again.state()] == list(range(1000))


@pytest.mark.parametrize("count", [0, 1, 2, FEW_CELLS, FEW_CELLS + 1, 2_000])
def test_cells_are_sorted_alike_however_many_there_are(count: int) -> None:
    random = np.random.default_rng(count)
    for most in (1, 40, 2**61):
        cells = random.integers(-most, most, count)
        assert stable_order(cells).tolist() == np.argsort(cells, kind="stable").tolist()
        distinct, inverse = distinct_of(cells)
        expected = np.unique(cells, return_inverse=True)
        assert (distinct.tolist(), inverse.tolist()) == tuple(each.tolist() for each in expected)
        seen = {cell: place for place, cell in enumerate(cells.tolist())}
        assert lasts(cells).tolist() == [seen[cell] for cell in distinct.tolist()]
