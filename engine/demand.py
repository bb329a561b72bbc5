"""Fit demand on a table of (item, time, price, units, covariates), one period after the other.

The same idea as in the shard, for whoever has a table and no stream: a local level an item, prices
and covariates filtered with the level's own gain, slopes from surprises alone, and slopes of alike
items (a group: a brand, a category) drawn towards each other as far as the data say they are alike.
How fast levels move is chosen a group by how well the next period was foreseen.

Units. Sales are modelled in logs of ``units + 0.5``; prices enter as logs; covariates as given.
Elasticity is negative. Times are integers that step evenly, one a period (a day, a week); where
a period is missing, an item's level is trusted less, as after so many periods in which it moved
unseen. All that comes in is checked first (``engine.sales_rows``).
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from engine.errors import RejectedInput
from engine.sales_rows import (
    HOW_TO_COUNT,
    covariate_names_of,
    covariates_of,
    groups_of,
    names_of,
    once_each,
    periods_of,
    positions_of,
    prices_of,
    refuse_doubles,
    step_of,
    units_of,
)

GAINS = (0.02, 0.05, 0.1, 0.2, 0.35)
"""How much of a surprise a level takes over; one is chosen a group."""

ELASTICITY, ELASTICITY_SD = -2.6, 1.2
"""Prior of a group's mean elasticity."""

COVARIATE_SD = 1.0
"""Prior standard deviation of a group's mean effect of a covariate, around nothing."""

SPREAD_SDS = (0.6, 0.3)
"""Of items' elasticities and of their covariates' effects in a group, before the data speak."""

FLATTEST = -0.05
"""No item sells more because it is dearer."""

ROUNDS = 12
"""Rounds of fitting means and spreads; more do not change the third decimal."""

AHEAD_MAX = 1_000
"""Periods ahead that a forecast may be asked for: further on it would say nothing."""

NEVER = np.iinfo(np.int32).min
"""Stands for the last period of an item that was never seen."""

NORMAL_90 = 1.6448536


class Elasticities(Struct, frozen=True, eq=False):
    """What is believed of own-price elasticities, one element an item (or a group)."""

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    low: np.ndarray  # a 90 % interval
    high: np.ndarray


class Forecast(Struct, frozen=True, eq=False):
    """What is expected to be sold in a period, float64, one element a row asked for."""

    units: np.ndarray  # median: as often too high as too low; of least absolute error
    mean: np.ndarray  # what adds up: take it for totals, orders and profit
    least_relative: np.ndarray  # of least expected relative error: lower, for MAPE punishes above
    low: np.ndarray  # a 90 % interval, widened or narrowed by ``calibrate``
    high: np.ndarray


class Demand:
    """Demand of many items, learnt in one pass. ``observe`` periods in order, then ask.

    Args:
        items: names, each once.
        groups: each item's group.
        covariates: their names, if any.
        step: by how much ``time`` goes up a period: 1 where periods are numbered one by one.

    Raises:
        RejectedInput: here and from every method, for what cannot be used: it names the field, the
            first bad row, what stands there and the fix. Nothing is learnt from refused input.
    """

    def __init__(
        self,
        items: Sequence[str],
        groups: Sequence[str],
        covariates: Sequence[str] = (),
        *,
        step: int = 1,
    ) -> None:
        items = once_each("items", items)
        groups = names_of("groups", groups, len(items))
        covariates = once_each("covariates", covariates)
        if not items:
            raise RejectedInput("/items", "there are none", "give at least one item")
        self.step = step_of(np.zeros(1, dtype=np.int64), step)
        self.items = tuple(items)
        self.groups = tuple(dict.fromkeys(groups))
        self.covariates = tuple(covariates)
        of_group = {name: at for at, name in enumerate(self.groups)}
        self._group = np.array([of_group[name] for name in groups], dtype=np.int64)
        self._at = {name: at for at, name in enumerate(self.items)}
        count, width, gains = len(items), 1 + len(covariates), len(GAINS)
        self._level = np.zeros((gains, count))
        self._filtered = np.zeros((gains, count, width))
        self._seen = np.zeros(count)
        self._last = np.full(
            count, NEVER, dtype=np.int64
        )  # in periods, counted from the first time observed
        self._origin: int | None = None
        self._gram = np.zeros((gains, count, width, width))
        self._moment = np.zeros((gains, count, width))
        self._square = np.zeros((gains, count))
        self._scale = np.ones((2, len(self.groups)))  # conformal: widths below and above
        self._fitted = False
        self._slopes = np.zeros((count, width))
        self._slope_covariance = np.zeros((count, width, width))
        self._means = np.zeros((len(self.groups), width))
        self._mean_variance = np.zeros((len(self.groups), width))
        self._noise = np.ones(len(self.groups))
        self._gain = np.zeros(len(self.groups), dtype=np.int64)

    def observe(
        self,
        items: Sequence[str],
        time: int,
        prices: np.ndarray,
        units: np.ndarray,
        covariates: np.ndarray | None = None,
    ) -> None:
        """Learn from one period; its items each once, and periods in order.

        Args:
            time: the period, ``step`` (or a multiple: a gap) after the one before.
            prices: float[n], positive.
            units: float[n], not negative.
            covariates: float[n, covariates].
        """
        items = names_of("items", items)
        at = positions_of(items, self._at)
        period = self._periods(periods_of("time", [time]))
        refuse_doubles(at, np.broadcast_to(period, len(at)), self.items)
        late = np.flatnonzero(period <= self._last[at])
        if len(late):
            raise RejectedInput(
                "/time",
                f"{time} is not after the last period of {items[late[0]]!r}",
                "observe periods in order, each once",
            )
        regressors = _regressors(
            prices_of("prices", prices, len(items)),
            covariates_of(covariates, self.covariates, len(items)),
        )
        sales = units_of("units", units, len(items))
        self._origin = int(time) if self._origin is None else self._origin
        self._learn(at, int(period[0]), regressors, sales)

    def learn_rows(
        self, at: np.ndarray, times: np.ndarray, regressors: np.ndarray, units: np.ndarray
    ) -> None:
        """Learn from a table that was checked before: rows' items by number, in any order."""
        self._origin = int(times.min())
        order = np.argsort(times, kind="stable")
        ends = np.flatnonzero(np.diff(times[order])) + 1
        for rows in np.split(order, ends):
            period = (int(times[rows[0]]) - self._origin) // self.step
            self._learn(at[rows], period, regressors[rows], units[rows])

    def _learn(
        self, at: np.ndarray, period: int, regressors: np.ndarray, units: np.ndarray
    ) -> None:
        sales = np.log(units + 0.5)
        gap = np.where(self._seen[at] > 0, period - self._last[at], 1).astype(np.float64)
        for index, steady in enumerate(GAINS):
            keep = (1.0 - steady) ** np.minimum(gap, 400.0)
            gain = np.maximum(1.0 - keep, 1.0 / (self._seen[at] + 1.0))
            moved = regressors - self._filtered[index, at]
            surprise = sales - self._level[index, at]
            self._level[index, at] += gain * surprise
            self._filtered[index, at] += gain[:, None] * moved
            # The first periods have no level yet; long gaps and young levels weigh less.
            weight = np.where(self._seen[at] >= 1, (1.0 - gain) / (1.0 - steady), 0.0)
            self._gram[index, at] += weight[:, None, None] * moved[:, :, None] * moved[:, None, :]
            self._moment[index, at] += (weight * surprise)[:, None] * moved
            self._square[index, at] += weight * np.square(surprise)
        self._seen[at] += 1.0
        self._last[at] = period
        self._fitted = False

    def elasticities(self) -> Elasticities:
        """Return each item's own-price elasticity with a 90 % interval."""
        self._fit()
        mean = np.minimum(self._slopes[:, 0], FLATTEST)
        return _elasticities(self.items, mean, np.sqrt(self._slope_covariance[:, 0, 0]))

    def group_elasticities(self) -> Elasticities:
        """Return each group's mean elasticity with a 90 % interval."""
        self._fit()
        mean = np.minimum(self._means[:, 0], FLATTEST)
        return _elasticities(self.groups, mean, np.sqrt(self._mean_variance[:, 0]))

    def effects(self) -> np.ndarray:
        """Return float64[items, 1 + covariates], all slopes: price's first."""
        self._fit()
        return self._slopes.copy()

    def forecast(
        self,
        items: Sequence[str],
        times: np.ndarray,
        prices: np.ndarray,
        covariates: np.ndarray | None = None,
    ) -> Forecast:
        """Return what will be sold at these prices; items and times in any order.

        Args:
            times: int[n], periods after the last one of their items, ``AHEAD_MAX`` at most.
            prices: float[n], positive.
            covariates: float[n, covariates], as they will be.
        """
        items = names_of("items", items)
        at = positions_of(items, self._at)
        times = periods_of("times", times, len(items))
        regressors = _regressors(
            prices_of("prices", prices, len(items)),
            covariates_of(covariates, self.covariates, len(items)),
        )
        ahead = self._ahead(at, times)
        self._fit()
        centre, spread = self._predict(at, ahead, regressors)
        lower, upper = self._scale[:, self._group[at]]
        return Forecast(
            units=_units(centre),
            mean=_units(centre + 0.5 * np.square(spread)),
            least_relative=_units(centre - np.square(spread)),
            low=_units(centre - NORMAL_90 * spread * lower),
            high=_units(centre + NORMAL_90 * spread * upper),
        )

    def calibrate(self, actual: np.ndarray, forecast: Forecast, items: Sequence[str]) -> None:
        """Widen or narrow intervals by what was missed: adaptive conformal, a group and side.

        Call it with each forecast once what it foresaw has happened, before the next ``observe``;
        without it intervals rest on the model alone.

        Args:
            actual: float[n], units sold.
            forecast: what ``forecast`` returned for the same rows.
            items: the forecast's.
        """
        if not isinstance(forecast, Forecast):
            raise RejectedInput("/forecast", f"{forecast!r} is none", "give what forecast returned")
        items = names_of("items", items, len(forecast.units))
        group = self._group[positions_of(items, self._at)]
        actual = units_of("actual", actual, len(items))
        told = np.bincount(group, minlength=len(self.groups))
        for side, missed in enumerate((actual < forecast.low, actual > forecast.high)):
            misses = np.bincount(group, weights=missed, minlength=len(self.groups))
            share = misses / np.maximum(told, 1)
            step = np.where(told > 0, 2.0 * (share - 0.05), 0.0)
            self._scale[side] = np.clip(self._scale[side] * np.exp(step), 0.3, 4.0)

    # ----- inside --------------------------------------------------------------------------------

    def _periods(self, times: np.ndarray, field: str = "times") -> np.ndarray:
        """Return int64[n], times in periods since the first."""
        after = times - (times[:1] if self._origin is None else self._origin)
        off = np.flatnonzero(after % self.step)
        if len(off):
            raise RejectedInput(
                f"/{field}/{off[0]}",
                f"{times[off[0]]} is no multiple of {self.step} after {self._origin}",
                f"periods step by {self.step} here; {HOW_TO_COUNT}",
            )
        return np.asarray(after // self.step)

    def _ahead(self, at: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Return int64[n], how many periods after an item's last one the times are."""
        for row in np.flatnonzero(self._last[at] == NEVER)[:1]:
            raise RejectedInput(
                f"/items/{row}", f"{self.items[at[row]]!r} has no rows yet", "observe it first"
            )
        ahead = np.asarray(self._periods(times) - self._last[at])
        for row in np.flatnonzero((ahead < 1) | (ahead > AHEAD_MAX))[:1]:
            last = self._origin + self._last[at[row]] * self.step
            raise RejectedInput(
                f"/times/{row}",
                f"period {times[row]} of {self.items[at[row]]!r} is "
                + ("known already" if ahead[row] < 1 else "too far ahead"),
                f"ask for {last + self.step} to {last + AHEAD_MAX * self.step}",
            )
        return ahead

    def _predict(
        self, at: np.ndarray, ahead: np.ndarray, regressors: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        gain_index = self._gain[self._group[at]]
        moved = regressors - self._filtered[gain_index, at]
        centre = self._level[gain_index, at] + (moved * self._slopes[at]).sum(axis=1)
        gain = np.array(GAINS)[gain_index]
        noise = self._noise[self._group[at]]
        # A level that takes over K of a surprise wanders by about K^2 of its variance a period.
        wander = np.square(gain) * (ahead - 1)
        slopes = np.einsum("ni,nij,nj->n", moved, self._slope_covariance[at], moved)
        return centre, np.sqrt(noise * (1.0 + wander) + slopes)

    def _fit(self) -> None:
        if self._fitted:
            return
        best = np.full(len(self.groups), np.inf)
        for index in range(len(GAINS)):
            slopes, covariance, means, mean_variance, noise = self._fitted_with(index)
            better = np.log(np.maximum(noise, 1e-12)) < best
            best = np.where(better, np.log(np.maximum(noise, 1e-12)), best)
            rows = better[self._group]
            self._slopes[rows], self._slope_covariance[rows] = slopes[rows], covariance[rows]
            self._means[better], self._mean_variance[better] = means[better], mean_variance[better]
            self._noise[better], self._gain[better] = noise[better], index
        self._fitted = True

    def _fitted_with(
        self, index: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return items' slopes and their covariances, groups' means and theirs, and the noise."""
        gram, moment, square = self._gram[index], self._moment[index], self._square[index]
        count, width = moment.shape
        groups = len(self.groups)
        prior = np.zeros(width)
        prior[0] = ELASTICITY
        prior_precision = np.full(width, 1.0 / COVARIATE_SD**2)
        prior_precision[0] = 1.0 / ELASTICITY_SD**2
        spread = np.full((groups, width), SPREAD_SDS[1] ** 2)
        spread[:, 0] = SPREAD_SDS[0] ** 2
        start = spread.copy()
        noise = np.full(groups, 0.2)
        means = np.tile(prior, (groups, 1))
        told = np.maximum(self._seen - 2.0, 0.0)
        weight = np.maximum(_by_group(told, self._group, groups), 1.0)
        members = np.maximum(_by_group(np.ones(count), self._group, groups), 1.0)
        eye = np.eye(width)
        mean_covariance = np.tile(np.diag(1.0 / prior_precision), (groups, 1, 1))
        slopes, covariance = np.tile(prior, (count, 1)), np.zeros((count, width, width))
        for _ in range(ROUNDS):
            of_noise, of_spread = noise[self._group], spread[self._group]
            inverse = eye[None] / of_spread[:, :, None]
            covariance = np.linalg.inv(gram / of_noise[:, None, None] + inverse)
            # The group's mean, items' own slopes integrated out.
            shrink = inverse - inverse @ covariance @ inverse
            pull = (inverse @ covariance @ (moment / of_noise[:, None])[:, :, None])[:, :, 0]
            precision = _by_group(shrink.reshape(count, -1), self._group, groups)
            precision = precision.reshape(groups, width, width) + np.diag(prior_precision)
            total = _by_group(pull, self._group, groups) + prior * prior_precision
            mean_covariance = np.linalg.inv(precision)
            means = (mean_covariance @ total[:, :, None])[:, :, 0]
            own = moment / of_noise[:, None] + means[self._group] / of_spread
            slopes = (covariance @ own[:, :, None])[:, :, 0]
            off = np.square(slopes - means[self._group])
            off = off + np.diagonal(covariance, axis1=1, axis2=2)
            # A few items' worth of what was thought before, so that no spread collapses.
            spread = (_by_group(off, self._group, groups) + 3.0 * start) / (members + 3.0)[:, None]
            fitted = (slopes * moment).sum(axis=1) * 2.0
            fitted = fitted - np.einsum("ni,nij,nj->n", slopes, gram, slopes)
            left = square - fitted + np.einsum("nij,nij->n", gram, covariance)
            noise = np.maximum(_by_group(left, self._group, groups), 1e-6) / weight
            noise = np.maximum(noise, 1e-4)
        # An item is drawn to a mean that is itself known only so well. What prices and covariates
        # do alike (a promotion that always comes with the cut) nobody can tell apart, in no item.
        drawn = covariance / of_spread[:, None, :]
        covariance = covariance + drawn @ mean_covariance[self._group] @ drawn.transpose(0, 2, 1)
        return slopes, covariance, means, np.diagonal(mean_covariance, axis1=1, axis2=2), noise


def fit_demand(
    items: Sequence[str],
    times: np.ndarray,
    prices: np.ndarray,
    units: np.ndarray,
    *,
    groups: Sequence[str] | None = None,
    covariates: np.ndarray | None = None,
    covariate_names: Sequence[str] = (),
    step: int | None = None,
) -> Demand:
    """Return demand fitted on a whole table, one row an item and time, in any order.

    Args:
        items: an item's name a row.
        times: int[rows], the period. Rows may be missing; see ``step``.
        prices: float[rows], positive.
        units: float[rows], not negative.
        groups: the group of each row's item; all items are one group where it is left out.
        covariates: float[rows, n], best of a size around 1, and their names.
        step: by how much times go up a period. Left out it is what all differences share, 7 for
            0, 7, 14, as long as most periods that follow each other are that far apart.

    Raises:
        RejectedInput: the table cannot be used; it names the column, the first bad row, what stands
            there and the fix. Nothing is learnt then.
    """
    items = names_of("items", items)
    if not items:
        raise RejectedInput("/items", "the table is empty", "give at least one row")
    times = periods_of("times", times, len(items))
    prices = prices_of("prices", prices, len(items))
    units = units_of("units", units, len(items))
    named = list(dict.fromkeys(items))
    of_item = dict.fromkeys(named, "all")
    if groups is not None:
        of_item = groups_of(items, names_of("groups", groups, len(items)))
    names = covariate_names_of(covariate_names, covariates)
    regressors = _regressors(prices, covariates_of(covariates, names, len(items)))
    at = _numbered(items)
    refuse_doubles(at, times, named)
    demand = Demand(named, [of_item[name] for name in named], names, step=step_of(times, step))
    demand.learn_rows(at, times, regressors, units)
    return demand


def _numbered(names: Sequence[str]) -> np.ndarray:
    """Return int64[rows]: each name's number, in the order in which they first stand there."""
    number = {name: at for at, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], dtype=np.int64)


def _regressors(prices: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    return np.concatenate([np.log(prices)[:, None], covariates], axis=1)


def _elasticities(names: tuple[str, ...], mean: np.ndarray, sd: np.ndarray) -> Elasticities:
    wide = NORMAL_90 * sd
    return Elasticities(names, mean, sd, mean - wide, np.minimum(mean + wide, 0.0))


def _units(log: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(np.exp(log) - 0.5, 0.0))


def _by_group(columns: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Add up rows by group, in the order of the rows."""
    total = np.zeros((groups, *columns.shape[1:]))
    np.add.at(total, group, columns)
    return total
