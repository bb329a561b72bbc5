"""The real-data half on a table made by us: it is read, streamed and scored."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from training.exam.juice import (
    Juice,
    Table,
    juice_of,
    own_spread,
    plain_slope,
    read_table,
    within_slope,
)
from training.exam.off_policy import judge, off_policy_verdicts
from training.exam.orange_juice import juice_verdicts, sit_juice
from training.exam.shelves import LAST_TAUGHT, Shelves, proposals, shelves_of
from training.worlds.orange_juice import synthetic_oj


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Table:
    file = tmp_path_factory.mktemp("juice") / "juice.parquet"
    pq.write_table(synthetic_oj(stores=6), file)
    return read_table(file)


@pytest.fixture(scope="module")
def juice(read: Table) -> Juice:
    return juice_of(read)


@pytest.fixture(scope="module")
def shelves(read: Table) -> Shelves:
    return shelves_of(read)


def test_a_table_like_the_public_one_is_scored(juice: Juice) -> None:
    board = sit_juice(juice)
    assert board.cells > 500
    assert board.wape < 0.5
    assert 0.8 < board.coverage < 0.98
    assert board.largest_elasticity < 0.0 and board.positive_share == 0.0
    assert board.moved_cells > 50 and board.slope > 0.5
    judged = dict(juice_verdicts(board))
    assert len(judged) == 14
    # It is not the published table, and the exam says so.
    assert not any(reached for goal, reached in judged.items() if goal.startswith("self-check"))


def test_a_slope_that_is_positive_is_seen_before_it_is_clipped(juice: Juice) -> None:
    """One store whose sales rise with the price, far and long enough to be believed."""
    mine = np.array([name == juice.item[0] for name in juice.item])
    price = juice.price[mine] / juice.price[mine].mean()
    units = juice.units.copy()
    units[mine] = np.round(9_000.0 * price**9)
    board = sit_juice(replace(juice, units=units, exact=np.maximum(units, 1.0)))
    assert board.largest_elasticity > 0.0 and board.positive_share > 0.0
    (missed,) = [reached for goal, reached in juice_verdicts(board) if "unclipped" in goal]
    assert not missed


def test_regressions_find_slopes_that_are_known(juice: Juice) -> None:
    """Sales made from prices alone; within stores also where stores differ, and alike."""
    exact = juice.exact.copy()
    rows = juice.brand == 3
    shop = np.array([float(name.partition("-")[0]) for name in juice.item])[rows]
    exact[rows] = np.exp(shop - 2.5 * np.log(juice.price[rows]) + 0.3 * juice.covariates[rows, 1])
    made = replace(juice, exact=exact)
    assert within_slope(made, 3) == pytest.approx(-2.5)
    assert own_spread(made, 3) == pytest.approx(0.0, abs=1e-6)
    exact[rows] = np.exp(4.0 - 1.5 * np.log(juice.price[rows]))
    assert plain_slope(replace(juice, exact=exact), 3) == pytest.approx(-1.5)


def test_the_shard_proposes_prices_for_the_weeks_that_it_has_not_heard(shelves: Shelves) -> None:
    of = Shelves(*(getattr(shelves, name)[shelves.brand < 1] for name in Shelves.__struct_fields__))
    found = proposals(of)
    told = np.isfinite(found)
    assert not told[of.week <= LAST_TAUGHT].any() and told[of.week > LAST_TAUGHT].all()
    assert (found[told] > of.cost[told]).all(), "no less than the least margin"
    # What is sold in those weeks is not heard.
    deaf = proposals(replace(of, packages=np.where(of.week > LAST_TAUGHT, 1.0, of.packages)))
    np.testing.assert_array_equal(found, deaf)
    assert 0.0 < judge(of, found, 1).mean_move < 1.0


def drawn(stores: int = 12, weeks: int = 40, seed: int = 3, odd: float = 0.0) -> Shelves:
    """A chain that draws its prices by lot: 2.00 and a sixth below or above it.

    Odd stores sell thrice as much, and are dear; even ones are cheap: who counts each cell alike
    takes what cheap stores sell for what a low price sells.

    Args:
        odd: by how much the log of sales at the middle price is off any line through the others.
    """
    draw = np.random.default_rng(seed)
    store, brand, week = (
        of.ravel() for of in np.meshgrid(range(stores), range(11), range(weeks), indexing="ij")
    )
    habit = np.where(np.arange(stores) % 2, 0.2, 0.6)[:, None, None]
    lot = draw.random((stores, 11, weeks))
    move = np.where(lot < habit, -1, np.where(lot < habit + 0.2, 0, 1)) * np.log(7 / 6)
    price_log = np.log(2.0) + move
    lift = -2.5 * move.ravel() + 0.1 * draw.normal(size=len(week))
    lift += odd * (move.ravel() == 0.0)
    return Shelves(
        item=store * 11 + brand,
        brand=brand,
        cell=store * weeks + week,
        week=week + LAST_TAUGHT + 1,
        packages=np.round(np.where(store % 2, 6_000.0, 2_000.0) * np.exp(lift)),
        price=np.exp(price_log.ravel()),
        cost=np.full(len(week), 1.4),
        ounce_log=price_log.transpose(0, 2, 1)[store, week] - np.log(64.0),
        promotion=np.zeros((len(week), 2)),
    )


def test_judges_know_what_a_price_earns_where_prices_were_drawn_by_lot() -> None:
    """All three, and nobody is sure of a price at which nothing was sold."""
    of = drawn()
    volume = np.where(of.item // 11 % 2, 3.0, 1.0)

    def worth(price: np.ndarray) -> float:
        return float((volume * (price - 1.4) * (price / 2.0) ** -2.5).sum())

    for price in (2.0 * 6 / 7, 2.0, 2.0 * 7 / 6):
        proposed = np.full(len(of.item), price)
        found, truth = judge(of, proposed, 1), worth(proposed) / worth(of.price) - 1.0
        assert found.judge == pytest.approx(truth, abs=0.02)
        assert found.alone == pytest.approx(truth, abs=0.02)
        assert found.doubly_robust == pytest.approx(truth, abs=0.02)
        assert found.propensity == pytest.approx(truth, abs=0.01)
        assert 0.1 < found.matched_share < 0.5
        assert found.effective_cells < found.matched_share * found.cells
        assert found.extrapolated_share == found.unsupported_share == 0.0
    beyond = judge(of, np.full(len(of.item), 1.45), 1)
    assert beyond.extrapolated_share == 1.0 and beyond.matched_share == 0.0
    assert beyond.judge < -0.5
    assert sum(reached for _, reached in off_policy_verdicts(beyond)) < 3


def test_where_demand_has_another_shape_the_regression_is_corrected() -> None:
    odd = drawn(odd=0.4)
    volume = np.where(odd.item // 11 % 2, 3.0, 1.0)
    each = volume * (odd.price - 1.4) * (odd.price / 2.0) ** -2.5
    each *= np.where(odd.price == 2.0, np.exp(0.4), 1.0)
    truth = float((volume * 0.6 * np.exp(0.4)).sum() / each.sum() - 1.0)
    found = judge(odd, np.full(len(odd.item), 2.0), 1)
    assert abs(found.alone - truth) > 0.1, "it knows lines alone"
    assert found.doubly_robust == pytest.approx(truth, abs=0.03)
    assert found.propensity == pytest.approx(truth, abs=0.03)
    assert not [goal for goal, reached in off_policy_verdicts(found)[2:] if reached]


def test_a_gain_beyond_belief_is_a_red_flag() -> None:
    of = drawn(stores=4)
    found = judge(of, np.full(len(of.item), 2.0), 1)
    claimed = replace(found, judge=0.3, judge_low=0.2, judge_high=0.4)
    assert [reached for _, reached in off_policy_verdicts(claimed)][:2] == [True, False]
