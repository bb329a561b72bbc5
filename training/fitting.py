"""A model is trained: from a data set to an artefact, with its scores on days it has not seen."""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import numpy as np
from msgspec import Struct

from engine.artefact import PREDICTION_DTYPE, encode_artefact
from engine.errors import RejectedInput
from kernels.hyperparameters import (
    FORGETTING_SD,
    HEAD_OFFSET_SD,
    HELD_DAYS,
    HISTORY_SD,
    PREDICTED_ELASTICITY_MAX,
    PREDICTED_ELASTICITY_MIN,
    PREDICTED_LEVEL_MAX,
    PREDICTED_SEASON_MAX,
    TRAINING_ROWS_MIN,
)
from training.daily_sales import DailySales
from training.demand_head import WEEKDAY, Head, fit_head, seen_of
from training.levels import Levels
from training.rows import Before, Rows, before, features_of, rows_of
from training.trained import Trained


class _Fitted(Struct, frozen=True, eq=False):
    levels: Levels
    head: Head
    rows: Rows
    base: np.ndarray


def train(
    data: DailySales, *, seed: int = 1, say: Callable[[str], None] = lambda _: None
) -> Trained:
    """Train on all days, and score the same recipe on the last ones.

    The same data and seed give the same bytes on one machine. ``say`` is told what is begun.

    Raises:
        RejectedInput: there is too little to learn from.
    """
    say(f"scoring: fitted without the last {HELD_DAYS} days, and compared with them")
    scores = _scores(data, seed)
    say(f"fitting all {data.days} days")
    fitted = _fit(data, seed)
    keys, predictions = _predictions(data, fitted)
    digest = blake2b(keys.tobytes() + predictions.tobytes(), digest_size=4).hexdigest()
    last_day = data.first_day + data.days - 1
    date = np.datetime64(last_day, "D").astype(str).replace("-", "")
    version = f"m-{date}-{digest}"
    return Trained(
        version=version,
        retailer=data.retailer,
        artefact=encode_artefact(version, data.retailer, keys, predictions),
        listings=len(keys),
        rows=len(fitted.rows.units),
        first_day=data.first_day,
        last_day=last_day,
        seed=seed,
        scores=scores,
    )


def _fit(data: DailySales, seed: int) -> _Fitted:
    rows = rows_of(data)
    if len(rows.units) < TRAINING_ROWS_MIN:
        problem = (
            f"{len(rows.units)} listing-days with a week before them, below {TRAINING_ROWS_MIN}"
        )
        raise RejectedInput("/days", problem, "name more days, or wait for more sales")
    levels = Levels(rows, seed)
    base = levels.log_units(rows.features, rows.recent)
    head = fit_head(rows, base, len(data.keys), len(data.categories), seed)
    return _Fitted(levels, head, rows, base)


def _predictions(data: DailySales, fitted: _Fitted) -> tuple[np.ndarray, np.ndarray]:
    """Return what the model says of each listing for the week after the last day."""
    state = before(data)
    known = np.flatnonzero(state.days[:, -1] >= 1)
    week = _log_units_ahead(data, state, fitted, known, data.days + np.arange(7))
    weekday = (data.first_day + data.days + np.arange(7) + 3) % 7
    average = np.log(np.exp(week).mean(axis=1))
    season = np.empty_like(week)
    season[:, weekday] = week - average[:, None]
    slope = _slopes(data, state, fitted, known)
    information = _information(fitted, len(data.keys))
    table = np.zeros(len(known), dtype=PREDICTION_DTYPE)
    table["reference_minor"] = np.maximum(np.rint(np.exp(state.price_log[known, -1])), 1.0)
    table["level"] = np.clip(average, -PREDICTED_LEVEL_MAX, PREDICTED_LEVEL_MAX)
    table["elasticity"] = np.clip(-slope, PREDICTED_ELASTICITY_MIN, PREDICTED_ELASTICITY_MAX)
    sold = np.maximum(state.recent[known, -1] * state.days[known, -1], 0.5)
    noise = (1.0 / sold + fitted.head.dispersion / state.days[known, -1]) + FORGETTING_SD**2
    table["level_sd"] = np.clip(np.sqrt(noise), 0.05, 3.0)
    variance = 1.0 / (information[known] + 1.0 / HEAD_OFFSET_SD**2) + HISTORY_SD**2
    table["elasticity_sd"] = np.clip(np.sqrt(variance), 0.1, 3.0)
    table["season"] = np.clip(season, -PREDICTED_SEASON_MAX, PREDICTED_SEASON_MAX)
    return data.keys[known], table


def _log_units_ahead(
    data: DailySales, state: Before, fitted: _Fitted, listings: np.ndarray, days: np.ndarray
) -> np.ndarray:
    """Return float64[listings, days], log units at each listing's usual price."""
    columns = []
    end = np.full(len(listings), state.days.shape[1] - 1)
    for day in days.tolist():
        features = features_of(data, state, listings, np.full(len(listings), day), end)
        base = fitted.levels.log_units(features, state.recent[listings, -1])
        weekday = features[:, WEEKDAY].astype(np.int32)
        category = data.category[listings].astype(np.int32)
        columns.append(base + fitted.head.correction(seen_of(features), category, weekday))
    return np.stack(columns, axis=1)


def _slopes(data: DailySales, state: Before, fitted: _Fitted, listings: np.ndarray) -> np.ndarray:
    end = np.full(len(listings), state.days.shape[1] - 1)
    features = features_of(data, state, listings, end, end)
    category = data.category[listings].astype(np.int32)
    return fitted.head.slope(seen_of(features), category, listings.astype(np.int32))


def _information(fitted: _Fitted, listings: int) -> np.ndarray:
    """Return what each listing's own moves of price say of its slope: a precision."""
    rows = fitted.rows
    expected = np.exp(fitted.base)
    weight = expected / (1.0 + fitted.head.dispersion * expected)
    return np.bincount(rows.listing, weights=np.square(rows.moved) * weight, minlength=listings)


def _scores(data: DailySales, seed: int) -> dict[str, float]:
    """Return errors on the last days of a model fitted to those before, and of naive ones.

    Nothing where those before are too few to fit one.
    """
    held = data.days - HELD_DAYS
    if held < 2 * HELD_DAYS:
        return {}
    past = data.until(held)
    if len(rows_of(past).units) < TRAINING_ROWS_MIN:
        return {}
    fitted, state = _fit(past, seed), before(past)
    listings = np.flatnonzero(state.days[:, -1] >= 1)
    ahead = np.arange(held, data.days)
    log_units = _log_units_ahead(past, state, fitted, listings, ahead)
    price = data.price[listings][:, ahead]
    sold = data.units[listings][:, ahead]
    moved = np.clip(np.log(price) - state.price_log[listings, -1][:, None], -1.5, 1.5)
    slope = _slopes(past, state, fitted, listings)
    known = np.isfinite(sold) & np.isfinite(moved)
    blind = np.exp(log_units)
    aware = np.exp(log_units - slope[:, None] * np.where(known, moved, 0.0))
    naive = np.repeat(state.recent[listings, -1][:, None], len(ahead), axis=1)
    return {
        "wape": _wape(aware, sold, known),
        "wape_without_price": _wape(blind, sold, known),
        "wape_naive": _wape(naive, sold, known),
        "bias": float((aware - sold)[known].sum() / max(sold[known].sum(), 1e-9)),
        "cells": float(known.sum()),
    }


def _wape(forecast: np.ndarray, actual: np.ndarray, known: np.ndarray) -> float:
    return float(np.abs(forecast - actual)[known].sum() / max(actual[known].sum(), 1e-9))


def told(trained: Trained) -> dict[str, Any]:
    """Return what a person is told of a trained model."""
    return {
        "model": trained.version,
        "retailer": trained.retailer,
        "listings": trained.listings,
        "rows": trained.rows,
        "first_day": str(np.datetime64(trained.first_day, "D")),
        "last_day": str(np.datetime64(trained.last_day, "D")),
        "seed": trained.seed,
        "scores": {name: round(score, 4) for name, score in trained.scores.items()},
    }
