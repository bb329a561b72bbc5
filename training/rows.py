"""From a dense data set to the rows that models are fitted on."""

import numpy as np
from msgspec import Struct

from kernels.hyperparameters import KNOWN_DAYS_MIN, RECENT_DAYS
from training.daily_sales import DailySales

FEATURES = (
    "recent_log",
    "weekday",
    "day_of_year",
    "category",
    "usual_price_log",
    "known_days",
)
"""What level and season are foreseen from: never the day's own price, and no shorter memory than
the usual price has. Last week's sales at last week's price would tell a tree what the price did."""


class Rows(Struct, frozen=True, kw_only=True, eq=False):
    """Listings' days, one element a row."""

    listing: np.ndarray  # int64, index in the data set
    day: np.ndarray  # int64, counted from the first
    units: np.ndarray
    moved: np.ndarray  # log of the day's price over the usual one, the mean of the days before
    recent: np.ndarray  # units a day in the days before
    features: np.ndarray  # float32[rows, FEATURES]


def rows_of(data: DailySales) -> Rows:
    """Return the rows of a data set whose days before are known."""
    state = before(data)
    known = np.isfinite(data.units) & np.isfinite(data.price)
    known &= state.days[:, :-1] >= KNOWN_DAYS_MIN
    listing, day = np.nonzero(known)
    usual = state.price_log[listing, day]
    return Rows(
        listing=listing,
        day=day,
        units=data.units[listing, day],
        moved=np.clip(np.log(data.price[listing, day]) - usual, -1.5, 1.5),
        recent=state.recent[listing, day],
        features=features_of(data, state, listing, day),
    )


class Before(Struct, frozen=True, kw_only=True, eq=False):
    """What is known before each day, [listings, days + 1]; the last column is after all of them."""

    recent: np.ndarray
    price_log: np.ndarray
    days: np.ndarray


def before(data: DailySales) -> Before:
    """Return trailing means, each without its own day."""
    known = np.isfinite(data.units) & np.isfinite(data.price)
    units = np.where(known, data.units, 0.0)
    price_log = np.where(known, np.log(np.where(known, data.price, 1.0)), 0.0)
    count = _trailing(known.astype(np.float64), RECENT_DAYS)
    safe = np.maximum(count, 1.0)
    return Before(
        recent=_trailing(units, RECENT_DAYS) / safe,
        price_log=_trailing(price_log, RECENT_DAYS) / safe,
        days=count,
    )


def features_of(
    data: DailySales,
    state: Before,
    listing: np.ndarray,
    day: np.ndarray,
    at: np.ndarray | None = None,
) -> np.ndarray:
    """Return float32[rows, FEATURES]; ``at`` is the column of ``state``, by default the day's."""
    column = day if at is None else at
    absolute = data.first_day + day
    return np.stack(
        [
            np.log1p(state.recent[listing, column]),
            (absolute + 3) % 7,  # 0 is Monday
            absolute % 365.25,
            data.category[listing],
            state.price_log[listing, column],
            state.days[listing, column],
        ],
        axis=1,
    ).astype(np.float32)


def _trailing(values: np.ndarray, days: int) -> np.ndarray:
    """Return [listings, days + 1], each column the sum of at most ``days`` columns before it."""
    total = np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)
    lagged = np.concatenate([np.zeros((len(values), days)), total], axis=1)[:, : total.shape[1]]
    return np.asarray(total - lagged)
