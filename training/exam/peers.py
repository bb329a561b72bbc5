"""Parity references on the orange juice: XGBoost and Prophet, on the rows that we are scored on.

They see what our model sees: price, deal, feature, the other brands' prices, and the past up to the
round's last week. XGBoost is given the two aims of the published boards: least absolute error of
log units, and least relative error. Prophet fits a series at a time, so it gets a sample of them,
and the others' scores on the same cells stand beside it.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from engine.errors import RejectedInput
from training.exam.juice import Juice
from training.exam.orange_juice import FIRST_WEEK, MEMORY_WEEKS, MOVED_LOG, ROUNDS

HORIZON_WEEKS = 3
"""A row's past ends so many weeks before it, when a peer learns and when it is asked."""

XGBOOST = {
    "tree_method": "hist",
    "max_depth": 8,
    "eta": 0.06,
    "min_child_weight": 5.0,
    "nthread": 1,
    "seed": 1,
}
XGBOOST_ROUNDS = 500
PROPHET_SERIES = 33
SPARSE_WEEKS = 20
"""A series with fewer weeks is no task for Prophet; it gets its mean."""

Forecasts = list[tuple[np.ndarray, np.ndarray]]
"""For each round its rows, and the units foreseen of them."""


class PeerScore(Struct, frozen=True, kw_only=True):
    """How one forecaster did on some cells."""

    name: str
    cells: int
    mape: float
    wape: float
    bias: float
    moved_cells: int
    moved_wape: float
    slope: float  # of actual on predicted lift, where the price moved


class Past(Struct, frozen=True, eq=False):
    """Every item's weeks as matrices, NaN where nothing was reported."""

    item: np.ndarray  # int64[rows]
    week: np.ndarray  # int64[rows], counted from the first
    log_units: np.ndarray  # [items, weeks]
    log_price: np.ndarray


def past_of(juice: Juice) -> Past:
    """Return a table's matrices."""
    number = {name: at for at, name in enumerate(dict.fromkeys(juice.item))}
    item = np.array([number[name] for name in juice.item], dtype=np.int64)
    week = juice.week - FIRST_WEEK
    shape = (len(number), int(week.max()) + 1)
    log_units, log_price = np.full(shape, np.nan), np.full(shape, np.nan)
    log_units[item, week] = np.log(np.maximum(juice.units, 1.0))
    log_price[item, week] = np.log(juice.price)
    return Past(item, week, log_units, log_price)


def recent(matrix: np.ndarray, item: np.ndarray, last: np.ndarray, weeks: int) -> np.ndarray:
    """Return float64[rows], the mean of an item's weeks up to ``last``; NaN: nothing is there."""
    known = np.isfinite(matrix)
    total = np.concatenate(
        [np.zeros((len(matrix), 1)), np.cumsum(np.where(known, matrix, 0.0), axis=1)], axis=1
    )
    count = np.concatenate([np.zeros((len(matrix), 1)), np.cumsum(known, axis=1)], axis=1)
    first, end = np.maximum(last + 1 - weeks, 0), np.maximum(last + 1, 0)
    found = count[item, end] - count[item, first]
    mean = (total[item, end] - total[item, first]) / np.maximum(found, 1.0)
    return np.asarray(np.where(found > 0, mean, np.nan))


def rounds_of(juice: Juice) -> list[np.ndarray]:
    """Return each round's rows: two and three weeks ahead, of items that were seen before."""
    rows = []
    for week in ROUNDS:
        seen = {juice.item[row] for row in np.flatnonzero(juice.week <= week).tolist()}
        ahead = np.flatnonzero(np.isin(juice.week, (week + 2, week + 3)))
        rows.append(ahead[[juice.item[row] in seen for row in ahead.tolist()]])
    return rows


def xgboost_forecasts(
    juice: Juice, aim: str, *, trees: int = XGBOOST_ROUNDS, told: Callable[[], None] = lambda: None
) -> Forecasts:
    """Return XGBoost's forecasts; ``aim`` is ``log`` (absolute, of logs) or ``relative``.

    Raises:
        RejectedInput: the extra `training` is not installed.
    """
    xgboost = _imported("xgboost", "training")
    past = past_of(juice)
    forecasts: Forecasts = []
    for week, ahead in zip(ROUNDS, rounds_of(juice), strict=True):
        known = np.flatnonzero((juice.week <= week) & (past.week >= HORIZON_WEEKS))
        features, usual = _features(juice, past, known, past.week[known] - HORIZON_WEEKS)
        sound = np.isfinite(usual)
        features, usual, known = features[sound], usual[sound], known[sound]
        actual = np.maximum(juice.units[known], 1.0)
        if aim == "log":
            label, weight = np.log(actual) - usual, None
        else:
            label = actual / np.exp(usual)
            weight = 1.0 / label
        matrix = xgboost.DMatrix(features, label=label, weight=weight)
        settings = {**XGBOOST, "objective": "reg:absoluteerror"}
        booster = xgboost.train(settings, matrix, num_boost_round=trees)
        last = np.full(len(ahead), week - FIRST_WEEK)
        features, usual = _features(juice, past, ahead, last)
        usual = np.where(np.isfinite(usual), usual, np.nanmean(past.log_units))
        found = booster.predict(xgboost.DMatrix(features)).astype(np.float64)
        units = np.exp(usual + found) if aim == "log" else np.exp(usual) * np.maximum(found, 0.0)
        forecasts.append((ahead, units))
        told()
    return forecasts


def _features(
    juice: Juice, past: Past, rows: np.ndarray, last: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return float32[rows, features] and each row's usual log units, from weeks up to ``last``."""
    item, week = past.item[rows], past.week[rows]
    whole = last.max(initial=0) + 1
    usual = recent(past.log_units, item, last, int(whole))
    usual_price = recent(past.log_price, item, last, int(whole))
    log_price = np.log(juice.price[rows])
    columns = [
        usual,
        recent(past.log_units, item, last, MEMORY_WEEKS) - usual,
        recent(past.log_units, item, last, 3) - usual,
        log_price,
        log_price - usual_price,
        log_price - recent(past.log_price, item, last, MEMORY_WEEKS),
        juice.brand[rows],
        (week + FIRST_WEEK) % 52,
        week - last,
    ]
    features = np.concatenate([np.stack(columns, axis=1), juice.covariates[rows]], axis=1)
    return features.astype(np.float32), usual


def prophet_forecasts(
    juice: Juice, series: int = PROPHET_SERIES, *, told: Callable[[], None] = lambda: None
) -> Forecasts:
    """Return Prophet's forecasts of a sample of series, evenly taken.

    Raises:
        RejectedInput: the extra `exam` is not installed.
    """
    prophet = _imported("prophet", "exam")
    # It tells of the beginning and the end of every fit; what fails is raised.
    logging.getLogger("cmdstanpy").disabled = True
    past = past_of(juice)
    items = np.unique(np.linspace(0, len(past.log_units) - 1, series).astype(np.int64))
    forecasts: Forecasts = []
    for week, ahead in zip(ROUNDS, rounds_of(juice), strict=True):
        kept = ahead[np.isin(past.item[ahead], items)]
        units = np.zeros(len(kept))
        for item in np.unique(past.item[kept]).tolist():
            train = np.flatnonzero((past.item == item) & (juice.week <= week))
            at = np.flatnonzero(past.item[kept] == item)
            units[at] = _prophet(prophet, juice, train, kept[at])
            told()
        forecasts.append((kept, units))
    return forecasts


def _prophet(prophet: Any, juice: Juice, train: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """Return one series' forecast: log units by trend, season, price, deal and feature."""
    import pandas

    usual = np.full(len(ahead), np.log(np.maximum(juice.units[train], 1.0)).mean())
    if len(train) < SPARSE_WEEKS:
        return np.asarray(np.exp(usual))
    regressors = {
        "price": np.log(juice.price),
        "deal": juice.covariates[:, 0],
        "feature": juice.covariates[:, 1],
    }

    def frame(rows: np.ndarray) -> Any:
        days = np.datetime64("1989-09-14") + (juice.week[rows] * 7).astype("timedelta64[D]")
        columns = {name: column[rows] for name, column in regressors.items()}
        logs = np.log(np.maximum(juice.units[rows], 1.0))
        return pandas.DataFrame({"ds": days, "y": logs, **columns})

    model = prophet.Prophet(weekly_seasonality=False, daily_seasonality=False)
    for name in regressors:
        model.add_regressor(name)
    model.fit(frame(train), seed=1)
    found = model.predict(frame(ahead))["yhat"].to_numpy()
    return np.asarray(np.exp(np.clip(found, -2.0, 14.0)))


def _imported(name: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise RejectedInput(
            "/peers", f"{name} is not installed", f"pip install 'repricer[{extra}]'"
        ) from None


def score(name: str, juice: Juice, past: Past, forecasts: Forecasts) -> PeerScore:
    """Return how forecasts did, on all of their cells and on those whose price moved."""
    rows = np.concatenate([of for of, _ in forecasts])
    units = np.concatenate([found for _, found in forecasts])
    last = np.concatenate(
        [
            np.full(len(of), week - FIRST_WEEK)
            for (of, _), week in zip(forecasts, ROUNDS, strict=True)
        ]
    )
    actual, item = juice.units[rows], past.item[rows]
    move = np.log(juice.price[rows]) - recent(past.log_price, item, last, MEMORY_WEEKS)
    sales = recent(past.log_units, item, last, MEMORY_WEEKS)
    moved = np.isfinite(move) & (np.abs(move) > MOVED_LOG)
    off = units - actual
    lift = np.log(np.maximum(actual, 1.0))[moved] - sales[moved]
    foreseen = np.log(np.maximum(units, 1.0))[moved] - sales[moved]
    centred = foreseen - foreseen.mean() if len(foreseen) else foreseen
    spread = float(np.square(centred).sum())
    slope = float((centred * (lift - lift.mean())).sum() / spread) if spread > 0.0 else 0.0
    return PeerScore(
        name=name,
        cells=len(rows),
        mape=float(100.0 * (np.abs(off) / actual).mean()),
        wape=float(np.abs(off).sum() / actual.sum()),
        bias=float(off.sum() / actual.sum()),
        moved_cells=int(moved.sum()),
        moved_wape=float(np.abs(off)[moved].sum() / max(actual[moved].sum(), 1e-9)),
        slope=slope,
    )


def compared(
    juice: Juice,
    ours: Sequence[tuple[str, Forecasts]],
    *,
    prophet_series: int = PROPHET_SERIES,
    trees: int = XGBOOST_ROUNDS,
    told: Callable[[], None] = lambda: None,
) -> list[PeerScore]:
    """Return our scores and those of the peers; with Prophet, everybody's on its cells too."""
    past = past_of(juice)
    named = [
        *ours,
        ("XGBoost, absolute log error", xgboost_forecasts(juice, "log", trees=trees, told=told)),
        ("XGBoost, relative error", xgboost_forecasts(juice, "relative", trees=trees, told=told)),
    ]
    scores = [score(name, juice, past, forecasts) for name, forecasts in named]
    if prophet_series == 0:
        return scores
    theirs = prophet_forecasts(juice, prophet_series, told=told)
    scores.append(score(f"Prophet, {prophet_series} series", juice, past, theirs))
    for name, forecasts in named:
        same = [
            (rows[kept], units[kept])
            for (rows, units), (sample, _) in zip(forecasts, theirs, strict=True)
            for kept in [np.isin(rows, sample)]
        ]
        scores.append(score(f"{name}, the same series", juice, past, same))
    return scores
