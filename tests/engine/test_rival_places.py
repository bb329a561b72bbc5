"""Places of offers are found by columns, and are those that a look at each row finds."""

import numpy as np
import pytest

from engine.rivals import (
    OFFER_DTYPE,
    OFFER_USED,
    OFFERS_MAX,
    RivalTable,
    distinct_rivals,
    median,
    outliers,
    rivals_behind,
    unseen_offers,
)
from kernels.hyperparameters import OUTLIER_LOG_MIN
from tests.engine.builders import World


def naive_offers(table: RivalTable, row: int) -> np.ndarray:
    """Return the offers of one row, with a zero for each place up to the last of a shard."""
    found = np.zeros(OFFERS_MAX, dtype=OFFER_DTYPE)
    for number, block in enumerate(table.blocks_of(np.array([row]))[0].tolist()):
        if block > 0:
            found[4 * number : 4 * number + 4] = table.offers[block]
    return found


@pytest.mark.parametrize("most", [1, 3, 6, 24])
def test_new_offers_take_the_first_free_places_of_their_rows(most: int) -> None:
    """Rows fill up over ten blocks of facts; some are cleared on the way."""
    random, table = np.random.default_rng(most), RivalTable()
    table.fit(300)
    for _ in range(10):
        rows = np.sort(random.integers(0, 260, 40))
        rows = np.repeat(rows[:: random.integers(1, 4)], random.integers(1, most + 1))
        names = random.integers(1, 2**40, len(rows)).astype(np.uint64)
        expected: list[int] = []
        for row in np.unique(rows).tolist():
            wanted = int((rows == row).sum())
            free = np.flatnonzero(naive_offers(table, row)["flags"] < OFFER_USED)
            expected += free[:wanted].tolist() if len(free) >= wanted else [-1] * wanted
        sources = np.zeros(len(rows), dtype=np.int64)
        assert table.take_places(rows, names, sources).tolist() == expected
        asked = random.integers(0, 300, 50)
        offers = table.offers_of(asked)
        width = offers.shape[1]
        for place, row in enumerate(asked.tolist()):
            held = naive_offers(table, row)
            assert (offers[place] == held[:width]).all()
            assert not held[width:]["flags"].any()
        at = table.find(offers, offers["rival"][:, 0] if width else names[:50], np.zeros(50, int))
        for place in range(50):
            same = (offers[place]["rival"] == offers[place]["rival"][:1]) if width else []
            used = np.flatnonzero(np.array(same) & (offers[place]["flags"] >= OFFER_USED))
            assert at[place] == (used[0] if len(used) else -1)
        for row in random.integers(0, 260, 5).tolist():
            table.clear(row)


def test_nobody_has_offers_at_first() -> None:
    table = RivalTable()
    assert table.offers_of(np.array([1, 2])).shape == (2, 0)
    nothing = np.empty(0, dtype=np.int64)
    assert len(table.take_places(nothing, nothing.astype(np.uint64), nothing)) == 0
    assert unseen_offers(nothing.astype(np.uint64), nothing).shape == (0,)


def test_a_quick_look_at_the_spread_leaves_no_outlier_out() -> None:
    random = np.random.default_rng(3)
    landed = np.exp(random.normal(7.0, random.choice([0.02, 0.1, 0.4], (4_000, 1)), (4_000, 5)))
    usable = random.random(landed.shape) < 0.9
    landed[~usable] = np.inf
    logs = np.log(landed)
    middle = median(logs, usable)[:, None]
    apart = np.where(usable, np.abs(logs - middle), 0.0)
    spread = 1.4826 * median(apart, usable)[:, None]
    far = logs < middle - np.maximum(3.0 * spread, OUTLIER_LOG_MIN)
    expected = usable & far & (usable.sum(axis=1) >= 4)[:, None]
    assert expected.any()
    assert (outliers(landed, usable) == expected).all()


@pytest.mark.parametrize("skus", [1, 2, 14])
def test_offers_of_one_block_take_the_places_they_take_one_by_one(skus: int) -> None:
    """One new offer, a few, and more than are put in order all at once; some are told twice."""
    random, names = np.random.default_rng(skus), [f"S{number}" for number in range(skus)]
    told = [(sku, rival) for sku in names for rival in range(1 if skus == 1 else 12)]
    told = [told[at] for at in (*random.permutation(len(told)).tolist(), 0)]
    worlds = World(), World()
    together, alone = worlds
    for world in worlds:
        world.send(*(world.listing(sku) for sku in names))
        world.now_ms += 1_000
    deltas = [
        together.rival(2_000, sku=sku, rival=f"r{rival}", observed_ms=together.now_ms - 500 + at)
        for at, (sku, rival) in enumerate(told)
    ]
    together.send(*deltas)
    for delta in deltas:
        alone.send(delta)
    found = []
    for world in worlds:
        memory = world.shard._memory
        rows = memory.listings.index.rows(np.array([world.key(sku) for sku in names], np.uint64))
        found.append(memory.rivals.offers_of(rows)[["rival", "observed_ms", "landed_minor"]])
    assert (found[0] == found[1]).all()
    assert (found[0]["rival"] > 0).sum() == len(set(told))


@pytest.mark.parametrize("sources", [1, 2])
@pytest.mark.parametrize("rows", [3, 400])
def test_rivals_are_counted_once_however_many_sources_tell_of_them(rows: int, sources: int) -> None:
    """A place is one rival of one source, so without sources each offer is another rival's."""
    random = np.random.default_rng(rows)
    offers = np.zeros((rows, 8), dtype=OFFER_DTYPE)
    for row in offers:
        pairs = random.permutation(5 * sources)[: random.integers(0, 6)]
        row["rival"][: len(pairs)] = 1 + pairs % 5
        row["source"][: len(pairs)] = pairs // 5
    usable = (offers["rival"] > 0) & (random.random(offers.shape) < 0.7)
    found = rivals_behind(offers, usable)
    assert found.dtype == np.uint16
    assert (found == distinct_rivals(offers["rival"], usable)).all()
    expected = [len(set(row["rival"][said])) for row, said in zip(offers, usable, strict=True)]
    assert found.tolist() == expected
