"""The checksum is what docs/stores.md says, sees every difference, and ignores order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.decided import QUOTE_DTYPE
from persistence.checksums import (
    NULL_LONG,
    PRICE_FIELDS,
    SEED,
    Tally,
    as_uint64,
    mix,
    price_checksum,
    tally,
    tally_quotes,
    tally_rows,
)

MASK = 2**64 - 1


def plain_mix(value: int) -> int:
    """Return splitmix64's output function, written from its definition in plain integers."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def plain_hash(fields: list[int]) -> int:
    state = 0x9E3779B97F4A7C15
    for field in fields:
        state = plain_mix(state ^ (field & MASK))
    return state


words = st.integers(-(2**63), 2**64 - 1)


@given(st.lists(st.lists(words, min_size=3, max_size=3), max_size=20))
def test_it_is_the_sum_of_hashes_written_in_plain_integers(rows: list[list[int]]) -> None:
    columns = [[row[place] for row in rows] for place in range(3)]
    expected = Tally(len(rows), sum(plain_hash(row) for row in rows) & MASK)
    assert tally(columns, len(rows)) == expected
    assert tally(columns, len(rows)) == sum_of_halves(rows)


def sum_of_halves(rows: list[list[int]]) -> Tally:
    """Tally the rows in two parts and another order."""
    total = Tally()
    for part in (rows[::2][::-1], rows[1::2]):
        columns = [[row[place] for row in part] for place in range(3)]
        total = total.plus(tally(columns, len(part)))
    return total


def test_the_seed_and_the_mixer_do_not_change() -> None:
    """Checksums are compared between stores and versions: these numbers are for ever."""
    assert SEED == 0x9E3779B97F4A7C15
    assert mix(np.array([0, 1], np.uint64)).tolist() == [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1]
    assert tally([[1], [2], [3]], 1).checksum == plain_hash([1, 2, 3])


def test_signed_and_unsigned_keys_are_the_same_number() -> None:
    key = 2**64 - 5
    unsigned = as_uint64(np.array([key], np.uint64), 1)
    for same in ([key], [-5], np.array([-5]), np.array([-5], np.int32)):
        assert as_uint64(same, 1).tolist() == unsigned.tolist()
    assert as_uint64(7, 3).tolist() == [7, 7, 7]


def test_quotes_and_their_fetched_rows_agree_and_every_field_counts() -> None:
    quotes = np.zeros(3, QUOTE_DTYPE)
    quotes["listing"] = [5, 2**63, 2**64 - 1]
    quotes["in_force_minor"] = [1, 2, 3]
    quotes["reasons"] = 2**32 - 1
    told = tally_quotes(7, 1, 9, quotes)
    rows = [
        {
            "generation": 7,
            "shard": 1,
            "seq": 9,
            "item": item,
            **{
                name: int(quotes[name][item])
                for name in PRICE_FIELDS
                if name in (QUOTE_DTYPE.names or ())
            },
        }
        for item in range(3)
    ]
    rows[1]["listing"] = None  # what QuestDB makes of 2**63
    rows[2]["listing"] = -1
    assert NULL_LONG & MASK == 2**63
    assert tally_rows(reversed(rows), PRICE_FIELDS) == told
    assert price_checksum(quotes, 9, generation=7, shard=1) == told.checksum
    for field in PRICE_FIELDS:
        changed = [dict(row) for row in rows]
        changed[0][field] += 1
        assert tally_rows(changed, PRICE_FIELDS).checksum != told.checksum, field
    assert tally_rows(rows[:2], PRICE_FIELDS) != told
    assert tally_rows([*rows, rows[0]], PRICE_FIELDS) != told
    assert tally_quotes(7, 1, 9, quotes[:0]) == Tally()
