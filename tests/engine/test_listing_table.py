"""The listing table finds rows by key, grows, and keeps tombstones for a day."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.listing_table import (
    LISTING_DTYPE,
    REUSE_AFTER_MS,
    KeyIndex,
    ListingTable,
    ListingText,
    put,
    taken,
)
from engine.texts import Texts

# Few distinct low bits, so that places collide.
KEYS = st.integers(0, 2**64 - 1).map(lambda key: key & 0xFFFFFFFF00000007)


@given(
    st.lists(st.tuples(st.sampled_from(["insert", "forget", "look"]), KEYS), max_size=60),
)
def test_the_index_is_a_dictionary(steps: list[tuple[str, int]]) -> None:
    column = np.zeros(64, dtype=np.uint64)
    index, model, rows = KeyIndex(column, 16), dict[int, int](), 0
    for what, key in steps:
        if what == "insert" and key not in model:
            column[rows] = key
            index.insert(rows)
            model[key], rows = rows, rows + 1
        elif what == "insert":
            index.insert(model[key])
        elif what == "forget" and key in model:
            index.forget(key)
            column[model.pop(key)] = 3  # the row may be another's from now on
        assert index.row(key) == model.get(key, -1)
    asked = [key for _, key in steps] + [1, 2**63]
    found = index.rows(np.array(asked, dtype=np.uint64)).tolist()
    assert found == [model.get(key, -1) for key in asked]
    index.rebuild(np.array(list(model.values()), dtype=np.int32))
    found = index.rows(np.array(asked, dtype=np.uint64)).tolist()
    assert found == [model.get(key, -1) for key in asked]


def test_rows_grow_and_keep_their_texts() -> None:
    table = ListingTable(capacity=4)
    for number in range(50):
        assert table.add(number + 1, ListingText("shop", f"S{number}", tags=("a",)), 0) == number
    assert table.capacity == 64
    assert table.text(49) == ListingText("shop", "S49", tags=("a",))
    keys = np.arange(1, 51, dtype=np.uint64)
    assert table.live_rows(keys).tolist() == list(range(50))


def test_a_tombstone_is_found_by_nobody_and_reused_after_a_day() -> None:
    table = ListingTable()
    for number in range(3):
        table.add(number + 1, ListingText("shop", f"S{number}"), 0)
    table.remove(1, now_ms=1000)
    assert table.live_row(2) == -1
    assert table.live_rows(np.array([2], dtype=np.uint64)).tolist() == [-1]
    assert table.live == 2
    assert table.add(77, ListingText("shop", "S77"), 1000 + REUSE_AFTER_MS - 1) == 3
    assert table.add(78, ListingText("shop", "S78"), 1000 + REUSE_AFTER_MS) == 1
    assert table.index.row(2) == -1
    assert table.live_row(78) == 1


def test_a_listing_that_comes_back_gets_its_row_again() -> None:
    table = ListingTable()
    table.add(5, ListingText("shop", "S"), 0)
    table.listings["cost_minor"][0] = 7
    table.remove(0, 10)
    assert table.add(5, ListingText("shop", "S"), 20) == 0
    assert table.listings["cost_minor"][0] == -1
    assert table.tombstones() == []


def test_put_writes_what_assignment_writes() -> None:
    table = np.zeros(8, dtype=LISTING_DTYPE)
    records = np.zeros(2, dtype=LISTING_DTYPE)
    records["key"], records["changes"] = [3, 4], 9
    put(table, np.array([6, 1]), records)
    assert table[6] == records[0]
    assert table[1] == records[1]
    assert not table[[0, 2, 3, 4, 5, 7]]["key"].any()


@given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=40)), max_size=60))
def test_texts_are_a_list_of_bytes(steps: list[tuple[int, bytes]]) -> None:
    texts, model = Texts(4), [b""] * 12
    texts.fit(12)
    for row, text in steps:
        texts[row] = text
        model[row] = text
    assert [texts[row] for row in range(12)] == model
    for rows in (np.array([7, 2, 5]), np.array([11, 10])):
        texts.put(rows, [b"seven", b"", b"five"][: len(rows)])
        for row, text in zip(rows.tolist(), (b"seven", b"", b"five"), strict=False):
            model[row] = text
        assert texts.of(np.arange(12)) == model


def test_whoever_renames_for_ever_wastes_a_bounded_number_of_bytes() -> None:
    texts = Texts(4)
    for size in [*range(200), *([1, 199] * 500)]:
        texts[1] = b"x" * size
        assert texts[1] == b"x" * size
    assert texts.buffer_bytes < 4 * 200


def test_records_are_taken_as_take_takes_them() -> None:
    """Of a table as it is, and of rows named by a column of records."""
    table = np.zeros(9, dtype=LISTING_DTYPE)
    table["key"], table["group"] = np.arange(1, 10), np.arange(9)[::-1]
    table["changes"] = np.arange(72).reshape(9, 8)
    for rows in (np.array([8, 0, 8]), np.arange(0), table["group"]):
        found = taken(table, rows)
        assert found.dtype == LISTING_DTYPE
        assert found.tobytes() == table.take(rows).tobytes()
        found["key"] = 0
        assert table["key"].all()
