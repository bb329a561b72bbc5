"""A table of sales is refused at the door, by name, before anything is learnt from it."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.demand import Demand, fit_demand
from engine.errors import RejectedInput
from engine.sales_rows import HOW_TO_COUNT

TABLE: dict[str, Any] = {
    "items": ["a", "a", "a", "b", "b", "b"],
    "times": [0, 1, 2, 0, 1, 2],
    "prices": [1.0, 1.1, 1.0, 2.0, 2.2, 2.0],
    "units": [5.0, 4.0, 5.0, 3.0, 2.0, 3.0],
}
DAYS = np.array(["2026-01-01", "2026-01-08", "2026-01-15"] * 2, dtype="datetime64[D]")


def fitted(**columns: Any) -> Demand:
    return fit_demand(**(TABLE | columns))


def promoted() -> Demand:
    return fitted(covariates=np.array([0, 1, 0, 0, 0, 1.0]), covariate_names=["promo"])


def with_cell(column: str, value: object) -> dict[str, Any]:
    return {column: [*TABLE[column][:4], value, TABLE[column][5]]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, None, "5", 1e300])
@pytest.mark.parametrize("column", ["prices", "units"])
def test_one_bad_cell_is_named(column: str, value: object) -> None:
    with pytest.raises(RejectedInput) as refused:
        fitted(**with_cell(column, value))
    assert refused.value.pointer == f"/{column}/4"
    assert repr(value).strip("'")[:3] in refused.value.problem
    assert refused.value.fix


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "on"])
def test_a_bad_covariate_is_named(value: object) -> None:
    with pytest.raises(RejectedInput, match="/covariates/2: "):
        fitted(covariates=[0.0, 1.0, value, 0.0, 0.0, 1.0], covariate_names=["promo"])


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"units": [5.0]}, "/units: it has 1 rows, items have 6"),
        ({"items": ["a"]}, "/times: it has 6 rows, items have 1"),
        ({"items": "aaabbb"}, "/items: 'aaabbb' is no list"),
        ({"items": ["a", None, "a", "b", "b", "b"]}, "/items/1: None is no name"),
        ({"items": ["a", float("nan"), "a", "b", "b", "b"]}, "/items/1: nan is no name"),
        ({"groups": ["g"] * 5}, "/groups: it has 5 rows"),
        ({"groups": ["g", "h", "g", "g", "g", "g"]}, "/groups/1: item 'a' is in group 'h' here"),
        ({"covariate_names": ["promo"]}, "/covariates: they are missing"),
        ({"covariate_names": "promo"}, "/covariate_names: 'promo' is no list"),
        (
            {"covariates": np.zeros((6, 2)), "covariate_names": ["x", "x"]},
            "/covariate_names/1: 'x'",
        ),
        ({"covariates": np.zeros((6, 2)), "covariate_names": ["x"]}, r"their shape is \(6, 2\)"),
        ({"covariates": np.zeros(5), "covariate_names": ["x"]}, r"/covariates: it has 5|shape"),
        ({"prices": np.ones((6, 1))}, r"/prices: its shape is \(6, 1\)"),
        ({"prices": 2.0}, "/prices: 2.0 is no list"),
        ({"times": DAYS}, r"/times/0: .*2026-01-01.* is a date .*datetime64"),
        ({"times": DAYS.astype(str).tolist()}, "/times/0: '2026-01-01' is no number .*datetime64"),
        ({"times": DAYS.tolist()}, "/times/0: datetime.date.* is no number .*datetime64"),
        ({"times": [0, 1.5, 2, 0, 1, 2]}, "/times/1: 1.5 cannot be used .*whole numbers"),
        ({"times": [0, 0, 2, 0, 1, 2]}, "/items/1: 'a' stands twice in period 0"),
        ({"items": [], "times": [], "prices": [], "units": []}, "/items: the table is empty"),
    ],
)
def test_what_a_table_may_not_be(columns: dict[str, Any], told: str) -> None:
    with pytest.raises(RejectedInput, match=told):
        fitted(**columns)


ASKED: list[tuple[Callable[[Demand], object], str]] = [
    (lambda d: d.forecast(["z"], [3], [1.0], [[0.0]]), "/items/0: 'z' was never seen"),
    (lambda d: d.forecast("a", [3], [1.0], [[0.0]]), "/items: 'a' is no list"),
    (lambda d: d.forecast(["a"], 3, [1.0], [[0.0]]), "/times: 3 is no list"),
    (lambda d: d.forecast(["a"], [2], [1.0], [[0.0]]), "/times/0: period 2 of 'a' is known"),
    (lambda d: d.forecast(["a"], [9_999], [1.0], [[0.0]]), "/times/0: .* too far ahead"),
    (lambda d: d.forecast(["a", "b"], [3], [1.0, 2.0], [[0.0]] * 2), "/times: it has 1 rows"),
    (lambda d: d.forecast(["a", "b"], [3, 3], [1.0], [[0.0]] * 2), "/prices: it has 1 rows"),
    (lambda d: d.forecast(["a"], [3], [float("nan")], [[0.0]]), "/prices/0: nan"),
    (lambda d: d.forecast(["a"], [3], [1.0]), "/covariates: they are missing"),
    (lambda d: d.forecast(["a"], [3], [1.0], [[float("nan")]]), "/covariates/0: nan"),
    (lambda d: d.observe(["a"], 1, [1.0], [1.0], [[0.0]]), "/time: 1 is not after the last"),
    (lambda d: d.observe(["q"], 5, [1.0], [1.0], [[0.0]]), "/items/0: 'q' was never seen"),
    (lambda d: d.observe(["a"], 5, [1.0], [-1.0], [[0.0]]), "/units/0: -1.0"),
    (lambda d: d.observe(["a"], 5.5, [1.0], [1.0], [[0.0]]), "/time/0: 5.5"),
    (lambda d: d.calibrate([1.0], "none", ["a"]), "/forecast: 'none' is none"),
]


@pytest.mark.parametrize(("ask", "told"), ASKED)
def test_what_may_not_be_asked(ask: Callable[[Demand], object], told: str) -> None:
    demand = promoted()
    with pytest.raises(RejectedInput, match=told):
        ask(demand)


@pytest.mark.parametrize(
    ("actual", "items", "told"),
    [
        ([float("nan")], ["a"], "/actual/0: nan"),
        ([1.0, 2.0], ["a"], "/actual: it has 2 rows"),
        ([1.0], ["a", "b"], "/items: it has 2 rows"),
        ([1.0], ["z"], "/items/0: 'z'"),
    ],
)
def test_calibration_is_checked_too(actual: list[float], items: list[str], told: str) -> None:
    demand = fitted()
    ahead = demand.forecast(["a"], [3], [1.0])
    with pytest.raises(RejectedInput, match=told):
        demand.calibrate(np.array(actual), ahead, items)
    after = demand.forecast(["a"], [3], [1.0])
    assert after.low == ahead.low
    assert after.high == ahead.high


def test_refused_rows_teach_nothing() -> None:
    demand, same = fitted(), fitted()
    with pytest.raises(RejectedInput):
        demand.observe(["a", "b"], 3, np.array([1.0, 2.0]), np.array([5.0, np.nan]))
    demand.observe(["a", "b"], 3, np.array([1.0, 2.0]), np.array([5.0, 3.0]))
    same.observe(["a", "b"], 3, np.array([1.0, 2.0]), np.array([5.0, 3.0]))
    np.testing.assert_array_equal(demand.elasticities().mean, same.elasticities().mean)


def test_an_item_without_rows_has_no_forecast() -> None:
    demand = Demand(["a", "b"], ["g", "g"])
    demand.observe(["a"], 0, np.ones(1), np.ones(1))
    with pytest.raises(RejectedInput, match="/items/1: 'b' has no rows yet"):
        demand.forecast(["a", "b"], np.array([1, 1]), np.ones(2))


@pytest.mark.parametrize("make", [lambda t: t * 7, lambda t: t * 604_800_000 + 1_767_225_600_000])
def test_what_a_period_is_follows_from_the_times(make: Callable[[np.ndarray], np.ndarray]) -> None:
    """Weeks numbered by their days, or by unix ms, are the same weeks."""
    times = np.array(TABLE["times"])
    counted, stepped = fitted(), fitted(times=make(times))
    np.testing.assert_array_equal(stepped.elasticities().mean, counted.elasticities().mean)
    ahead = [
        demand.forecast(["a"], at(np.array([5])), np.ones(1))
        for demand, at in ((counted, lambda t: t), (stepped, make))
    ]
    assert ahead[0].high == ahead[1].high
    with pytest.raises(RejectedInput, match=r"/times/0: .* is no multiple of"):
        stepped.forecast(["a"], make(np.array([5])) + 1, np.ones(1))


def test_times_that_step_unevenly_need_a_word() -> None:
    """Months in days share a step of a day: nobody but the caller knows what a period is."""
    months = [0, 31, 59, 0, 31, 59]
    with pytest.raises(RejectedInput, match=r"not evenly.*step="):
        fitted(times=[0, 31, 62, 0, 31, 59])
    assert fitted(times=months, step=1).step == 1
    with pytest.raises(RejectedInput, match="/times/1: 31 is no multiple of 30"):
        fitted(times=months, step=30)
    with pytest.raises(RejectedInput, match="/step: 0 is no step"):
        fitted(step=0)


def test_a_single_missing_period_is_a_gap() -> None:
    assert fitted(times=[0, 1, 3, 0, 1, 3]).step == 1


@pytest.mark.parametrize(
    "name", ["demand", "hindsight", "levels", "rhythm", "sales_rows", "slopes", "slow_sellers"]
)
def test_no_check_vanishes_under_optimisation(name: str) -> None:
    """An assert is gone under ``python -O``, so none may guard input."""
    tree = ast.parse((Path(__file__).parents[2] / "engine" / f"{name}.py").read_text())
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]


@pytest.mark.parametrize("dates", [DAYS, DAYS.astype(str).tolist(), DAYS.tolist()])
def test_the_recipe_for_dates_works_on_what_was_refused(dates: object) -> None:
    """Whoever follows the refusal's own words gets periods: dates, texts, or Python's dates."""
    weeks = HOW_TO_COUNT.partition("for dates of weeks, ")[2].partition(";")[0]
    months = HOW_TO_COUNT.partition("of months, ")[2]
    found = eval(weeks, {"np": np, "dates": dates})
    assert (found - found[0]).tolist() == [0, 1, 2, 0, 1, 2]
    assert len(set(eval(months, {"np": np, "dates": dates}).tolist())) == 1
    # Dates of a forecast count alike, for nothing hangs on the table's first one.
    later = eval(weeks, {"np": np, "dates": np.array(["2026-01-22"], dtype="datetime64[D]")})
    assert later[0] - found[0] == 3


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ([202351, 202352, 202401] * 2, "years and weeks: 202352 is followed by 202401"),
        ([11152, 11153, 11201] * 2, "years and weeks: 11153 is followed by 11201"),
        ([202311, 202312, 202401] * 2, "years and months: 202312 is followed by 202401"),
        ([20230130, 20230131, 20230201] * 2, "look like dates, such as 20230130"),
    ],
)
def test_numbers_of_a_calendar_are_no_count(times: list[int], told: str) -> None:
    """Between 202352 and 202401 lie 48 whole numbers and no week."""
    with pytest.raises(RejectedInput, match=told):
        fitted(times=times)
    assert fitted(times=times, step=1).step == 1


@pytest.mark.parametrize("times", [[50, 51, 52], [98, 99, 100], [152, 153, 155], [152, 201, 250]])
def test_a_count_may_look_a_little_like_a_calendar(times: list[int]) -> None:
    assert fitted(times=times * 2).items == ("a", "b")


def test_columns_come_from_arrow_and_frames() -> None:
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    table = arrow.table(TABLE)
    chunked = {name: table.column(name) for name in TABLE}
    frame = pandas.DataFrame(TABLE).sample(frac=1.0, random_state=1)
    series = {name: frame[name] for name in TABLE}
    plain = fitted().elasticities()
    for columns in (chunked, series):
        found = fit_demand(**columns).elasticities()
        order = [found.names.index(name) for name in plain.names]
        np.testing.assert_allclose(found.mean[order], plain.mean, rtol=1e-9)


def test_a_frame_of_covariates_tells_their_names() -> None:
    pandas = pytest.importorskip("pandas")
    rain = pandas.DataFrame({"rain": [0.0, 1.0, 0.0, 0.0, 1.0, 0.0], "ad": [1.0] * 5 + [0.0]})
    assert fitted(covariates=rain).covariates == ("rain", "ad")
    rain.loc[4, "ad"] = float("nan")
    with pytest.raises(RejectedInput, match="/covariates/4: nan cannot be used, in column 'ad'"):
        fitted(covariates=rain)


def test_covariates_on_their_side_are_told_so() -> None:
    with pytest.raises(RejectedInput, match="on their side, for there are 6 rows"):
        fitted(covariates=[[0.0] * 6, [1.0] * 6])


def test_what_stands_there_is_told_in_few_words() -> None:
    with pytest.raises(RejectedInput) as refused:
        fitted(covariates={"ad": np.zeros(10_000), "rain": np.zeros(10_000)})
    assert len(str(refused.value)) < 200
