"""The window keeps the newest decisions and never claims to know what it forgot."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.decided import QUOTE_DTYPE, no_quotes
from gateway.window import Window


def quotes(seq: int, count: int) -> np.ndarray:
    rows = np.zeros(count, QUOTE_DTYPE)
    rows["listing"] = np.arange(count) % 3 + 1
    rows["in_force_minor"] = seq * 100 + np.arange(count)
    return rows


@given(
    steps=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 7), st.booleans()), max_size=60),
    rows=st.integers(7, 40),
    entries=st.integers(1, 20),
)
def test_what_is_kept_is_right_and_what_is_not_is_not_claimed(
    steps: list[tuple[int, int, bool]], rows: int, entries: int
) -> None:
    window = Window(rows=rows, entries=entries)
    seqs = [0, 0]
    everything: list[tuple[int, int, int]] = []
    for shard in (0, 1):
        window.begin(shard, 0)
    for shard, count, quiet in steps:
        seqs[shard] += 1
        if quiet:
            continue
        seq = seqs[shard]
        changed = {"acme": tuple(range(count))}
        window.append(shard, seq, seq, quotes(seq, count) if count else no_quotes(), changed, {})
        everything.append((shard, seq, count))
    for shard in (0, 1):
        for after in range(seqs[shard] + 1):
            if window.covers(shard, after):
                expected = [seq for of, seq, _ in everything if of == shard and seq > after]
                found = [entry.seq for entry in window.entries(shard, after, seqs[shard])]
                assert found == expected
        assert window.covers(shard, seqs[shard])
    for shard, seq, count in everything:
        for index in range(count):
            row = window.quote(shard, seq, index)
            if row is not None:
                assert row["quote"]["in_force_minor"] == seq * 100 + index
            else:
                assert not window.covers(shard, seq - 1)
        assert window.quote(shard, seq, count) is None
    if everything and everything[-1][2]:
        shard, seq, _ = everything[-1]
        assert window.quote(shard, seq, 0) is not None


def test_a_history_is_in_order_also_when_the_ring_has_gone_round() -> None:
    window = Window(rows=10)
    window.begin(0, 0)
    for seq in range(1, 9):
        window.append(0, seq, 1000 + seq, quotes(seq, 3), {"acme": (0, 1, 2)}, {})
    found = window.history(2)
    assert found["seq"].tolist() == [6, 7, 8]
    assert found["quote"]["in_force_minor"].tolist() == [601, 701, 801]
