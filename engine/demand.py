"""Fit demand on a table of (item, time, price, units, covariates), one period after the other.

The same idea as in the shard, for whoever has a table and no stream: a local level an item, prices
and covariates filtered with the level's own gain, slopes from surprises alone, and slopes of alike
items (a group: a brand, a category) drawn towards each other as far as the data say they are alike.
How fast levels move is chosen a group by how well the next period was foreseen.

Units. Sales are modelled in logs of ``units + 0.5``, and those of slow sellers as counts
(``engine.slow_sellers``); prices enter as logs; covariates as given. Elasticity is negative. Times
are integers that step evenly, one a period (a day, a week); where a period is missing, an item's
level is trusted less, as after so many periods in which it moved unseen. All that comes in is
checked first (``engine.sales_rows``).
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from engine.errors import RejectedInput
from engine.hindsight import Hindsight, look_back, unripe
from engine.levels import NEVER, Levels
from engine.rhythm import columns_of, season_of, season_told
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
from engine.slopes import Regressions, fit_slopes
from engine.slow_sellers import NORMAL_90, Counted, Counts, Period, fit_counts, quantiles
from kernels.hyperparameters import FLATTEST, GAINS, SLOW_UNITS

AHEAD_MAX = 1_000
"""Periods ahead that a forecast may be asked for: further on it would say nothing."""


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
        season: after how many periods sales repeat: 7 for days, 1 where they do not.

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
        season: int = 1,
    ) -> None:
        items = once_each("items", items)
        groups = names_of("groups", groups, len(items))
        covariates = once_each("covariates", covariates)
        if not items:
            raise RejectedInput("/items", "there are none", "give at least one item")
        self.step = step_of(np.zeros(1, dtype=np.int64), step)
        self.season = season_told(season)
        self.items = tuple(items)
        self.groups = tuple(dict.fromkeys(groups))
        self.covariates = tuple(covariates)
        of_group = {name: at for at, name in enumerate(self.groups)}
        self._group = np.array([of_group[name] for name in groups], dtype=np.int64)
        self._at = {name: at for at, name in enumerate(self.items)}
        count, width = len(items), len(covariates) + self.season
        self._levels = Levels(count, width)
        self._origin: int | None = None
        self._scale = np.ones((2, len(self.groups)))  # conformal: widths below and above
        self._slow = np.zeros(count, dtype=bool)
        self._history: list[Period] = []  # passed over again at every fit
        self._counted: Counted | None = None
        self._fitted = False
        self._slopes = np.zeros((count, width))
        self._slope_covariance = np.zeros((count, width, width))
        self._means = np.zeros((len(self.groups), width))
        self._mean_variance = np.zeros((len(self.groups), width))
        self._noise = np.ones(len(self.groups))
        self._gain = np.zeros(len(self.groups), dtype=np.int64)
        self._scatter = np.ones(count)
        self._hindsight = self._look_back()

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
        late = np.flatnonzero(period <= self._levels.last[at])
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
        phase = columns_of(np.full(len(at), period), self.season)
        regressors = np.concatenate([regressors, phase], axis=1)
        taken = Period(period, at, regressors, units)
        self._history.append(taken)
        self._levels.take(taken)
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
        return self._slopes[:, : 1 + len(self.covariates)].copy()

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
        phase = columns_of(self._levels.last[at] + ahead, self.season)
        regressors = np.concatenate([regressors, phase], axis=1)
        self._fit()
        centre, spread = self._predict(at, ahead, regressors)
        lower, upper = self._scale[:, self._group[at]]
        grain = self._levels.grain[at]
        skew = self._hindsight.above(self._group[at], ahead)
        found = Forecast(
            units=_units(centre, grain),
            mean=_units(centre + 0.5 * skew * np.square(spread), grain),
            least_relative=_units(centre - np.square(spread), grain),
            low=_units(centre - NORMAL_90 * spread * lower, grain),
            high=_units(centre + NORMAL_90 * spread * upper, grain),
        )
        slow = np.flatnonzero(self._slow[at])
        if self._counted is not None and len(slow):
            number = (np.cumsum(self._slow) - 1)[at[slow]]
            mean, variance = self._counted.foresee(
                number, ahead[slow], regressors[slow], self._slope_covariance[at[slow]]
            )
            found.mean[slow] = mean
            for column, told in zip(
                (found.units, found.least_relative, found.low, found.high),
                quantiles(mean, variance),
                strict=True,
            ):
                column[slow] = told
        return found

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
        at = positions_of(items, self._at)
        actual = units_of("actual", actual, len(items))
        self._fit()
        # A count is missed below by hardly anybody: that says nothing about anybody else's width.
        fast = np.flatnonzero(~self._slow[at])
        group = self._group[at[fast]]
        told = np.bincount(group, minlength=len(self.groups))
        low, high, actual = forecast.low[fast], forecast.high[fast], actual[fast]
        for side, missed in enumerate((actual < low, actual > high)):
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
        for row in np.flatnonzero(self._levels.last[at] == NEVER)[:1]:
            raise RejectedInput(
                f"/items/{row}", f"{self.items[at[row]]!r} has no rows yet", "observe it first"
            )
        ahead = np.asarray(self._periods(times) - self._levels.last[at])
        for row in np.flatnonzero((ahead < 1) | (ahead > AHEAD_MAX))[:1]:
            last = self._origin + self._levels.last[at[row]] * self.step
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
        group = self._group[at]
        gain = self._hindsight.level(group, ahead)
        moved = regressors - self._levels.filtered[gain, at]
        centre = self._levels.level[gain, at] + (moved * self._slopes[at]).sum(axis=1)
        noise = self._hindsight.spread(group, ahead) * self._scatter[at]
        noise = noise * unripe(np.array(GAINS)[gain], self._levels.rows[at])
        slopes = np.einsum("ni,nij,nj->n", moved, self._slope_covariance[at], moved)
        return centre, np.sqrt(noise + slopes)

    def _fit(self) -> None:
        if self._fitted:
            return
        groups = len(self.groups)
        self._levels.weigh(self._history)
        # Whole units only: a count's noise follows from its mean, that of kilograms does not.
        levels = self._levels
        self._slow = levels.whole & (levels.sold < SLOW_UNITS * levels.rows)
        best = np.full(groups, np.inf)
        for index in range(len(GAINS)):
            found = fit_slopes(
                self._sums(np.full(groups, index, dtype=np.int64)), self._group, groups
            )
            better = np.log(np.maximum(found.noise, 1e-12)) < best
            best = np.where(better, np.log(np.maximum(found.noise, 1e-12)), best)
            rows = better[self._group]
            self._slopes[rows] = found.items[rows]
            self._slope_covariance[rows] = found.covariance[rows]
            self._means[better] = found.means[better]
            self._mean_variance[better] = found.mean_variance[better]
            self._noise[better], self._gain[better] = found.noise[better], index
            self._scatter[rows] = found.scatter[rows]
        self._counted = None
        if self._slow.any():
            counts = Counts(self._history, self._slow, self._slopes.shape[1])
            begin = self._slopes[self._slow]
            found, self._counted = fit_counts(
                counts, self._sums(self._gain), begin, GAINS, self._group, groups
            )
            self._slopes, self._slope_covariance = found.items, found.covariance
            self._means, self._mean_variance = found.means, found.mean_variance
            self._noise, self._scatter = found.noise, found.scatter
        self._hindsight = self._look_back()
        self._fitted = True

    def _look_back(self) -> Hindsight:
        return look_back(
            self._history,
            [self._levels.logs(period.at, period.units) for period in self._history],
            self._levels.usual(),
            self._slopes,
            ~self._slow,
            self._group,
            self._noise,
            self._gain,
        )

    def _sums(self, gain: np.ndarray) -> Regressions:
        """Return items' own regressions at their groups' gains; those of slow sellers empty."""
        return self._levels.sums(gain[self._group], ~self._slow)


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
    season: int | None = None,
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
        season: after how many periods sales repeat. Left out it is 7 where the table shows that
            clearly, as days do, and 1 otherwise, which is none.

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
    grouped = [of_item[name] for name in named]
    step = step_of(times, step)
    if season is None:
        group = _numbered(grouped)
        numbers = (times - times.min()) // step
        season = season_of(at, numbers, units, group, int(group.max()) + 1)
    demand = Demand(named, grouped, names, step=step, season=season)
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


def _units(log: np.ndarray, grain: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(np.exp(log) - 0.5 * grain, 0.0))
