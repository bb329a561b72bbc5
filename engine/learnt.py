"""What is learnt of demand: one packed record a listing, one record a retailer.

A listing's record holds a filter's state, nine sums of history and nine of the prices that the
engine itself drew, and the last decision made from them; DESIGN allows it 192 bytes. A retailer's
record holds what listings share: dispersion, curvature, the pull of rivals, his categories' table
and the form of demand of each.
"""

from typing import Any

import numpy as np

from engine.listing_table import put, records_of
from kernels.attributes import NO_EFFECTS, Effects
from kernels.elasticities import BEFORE_FLAT, BIAS_COLUMNS, Config, Roots, Table, nothing_stated
from kernels.forms import TRIALS, slopes
from kernels.hyperparameters import (
    CURVATURE_PRIOR,
    CURVATURE_PRIOR_SD,
    ELASTICITY_SPREAD,
    MEAN,
    MEANS,
    RIVAL_PRIOR,
)
from kernels.kinks import PRODUCTS
from kernels.whitening import LEADS, SUMS, Level

LEARNT_DTYPE = np.dtype(
    [
        ("closed_ms", "<i8"),  # end of the last period that was counted, -1: none yet
        ("units_closed", "<i8"),  # units ever sold, then
        ("started_minor", "<i4"),  # price in force at the beginning of the running period
        ("due_day", "<i4"),  # on which day of learning the row's next decision is made
        ("turns", "<i4"),  # decisions made
        ("flags", "u1"),
        *((name, "<f4") for name in Level._fields),
        ("history", "<f4", (len(SUMS),)),  # sums over prices that others set
        ("own", "<f4", (len(SUMS),)),  # sums over prices that the engine set
        ("rival_before", "<f4"),  # the filtered rival when the engine began to price
        ("elasticity", "<f4"),  # mean and sd of the belief at the last decision
        ("elasticity_sd", "<f4"),
        ("anchor", "<f4"),  # log price over the reference; NaN: nothing decided yet
        ("dither", "<f4"),  # and how far the price asked strays from it, with its sign
        ("cost", "<f4"),  # effective cost over the reference price, at the decision
        # Of a season: what sold, and the days it lay in the shop, each by its price's demand.
        ("season_units", "<f4"),
        ("season_demand", "<f4"),
        ("season_days", "<f4"),  # and how many days they were
        # Of engine.proven; proven_days 0: nothing is known.
        ("proven", "<f4"),  # the highest log price at which the listing is known to sell
        ("proven_units", "<f4"),  # what it sold there
        ("proven_days", "<f4"),  # in so many days, each by what all sold and by its price's demand
        ("hoped", "<f4"),  # of prices above: units foreseen from there
        ("came", "<f4"),  # and sold
        ("barred_day", "<i2"),  # until when they are barred
    ]
)
"""What is learnt of one listing. The reference is the price found at import."""

assert LEARNT_DTYPE.itemsize <= 192

DELIVERY_DTYPE = np.dtype(
    [
        ("came_ms", "<i8"),  # when the last one was counted, or the stock for the first time
        ("days", "<f4"),  # mean between two of them; 0: fewer than two came
        ("scatter", "<f4"),  # mean square of how far intervals were off it, as shares of it
        ("units", "<f4"),  # what one brings
        ("full", "<f4"),  # and what is on the shelf then
        ("emptied", "<f4"),  # share of them that found the shelf empty
        ("empty_days", "<f4"),  # since the last one
        ("gap", "<f4"),  # mean of days empty before one comes; what is left counts as days less
        ("gap_scatter", "<f4"),  # mean square of how far gaps were off it, as shares of ``days``
        ("stood", "<i4"),  # what was on the shelf at the last close, or after the last one
        ("came", "<u2"),  # how many came
    ]
)
"""A listing's deliveries. ``came_ms`` 0: no count told anything since its retailer learns."""

assert DELIVERY_DTYPE.itemsize <= 48

BEFORE_PROVEN = np.dtype(LEARNT_DTYPE.descr[:-6])
BEFORE_SEASONS = np.dtype(BEFORE_PROVEN.descr[:-3])
"""What checkpoints held before prices were proven, and before seasons were counted."""


def learnt_of(encoded: bytes, rows: int) -> np.ndarray:
    """Return LEARNT_DTYPE[rows] as a checkpoint holds them, of before it held as much, too."""
    of_seasons = len(encoded) == rows * BEFORE_SEASONS.itemsize
    before = BEFORE_SEASONS if of_seasons else BEFORE_PROVEN
    return records_of(encoded, rows, LEARNT_DTYPE, before)


DAY_MS = 86_400_000

FOLLOWS = 5

OUT_OF_STOCK, BEGUN, TOLD_AHEAD, OTHERS, LASTS, LASTED = 1, 2, 16, 32, 64, 128
"""Bits of ``flags``: at the last close nothing was left; rival_before is noted; a price was
reported before anything of the running period was sold, so the period's sales were made at it; a
price that others chose since the row began still shows in what its sales are compared with; its
price is the one at which its stock lasts until the next delivery; such a price still shows in what
its sales are compared with."""

FORM_SHIFT = 2
"""Two bits of ``flags`` from here on: the form of demand that the row's belief was found under."""


def new_learnt() -> np.ndarray:
    """Return LEARNT_DTYPE[1], a listing of which nothing is learnt."""
    row = np.zeros(1, dtype=LEARNT_DTYPE)
    row["closed_ms"] = -1
    row["variance"], row["anchor"], row["level"] = 4.0, np.nan, -1.0
    row["rival"] = row["rival_before"] = np.nan
    row["elasticity"], row["elasticity_sd"] = MEAN, ELASTICITY_SPREAD
    return row


IDLE, SUMMING, UPDATING, DECIDING = "idle", "summing", "updating", "deciding"


class RetailerLearning:
    """What a retailer's listings share, and how far the close of a period has come."""

    def __init__(self, now_ms: int, day_ms: int) -> None:
        self.next_ms = (now_ms // day_ms + 1) * day_ms
        self.day = 0  # days of learning so far
        self.live_day = -1  # on which day the engine began to price, -1: not yet
        self.fits = 0  # how often the table was fitted since
        self.fit_day = 0  # when it is to be fitted next
        self.refit_day = -1  # when it was fitted last
        self.phase = IDLE
        self.cursor = 0  # rows before it are through with the phase
        self.period_days = 1.0
        self.units_closed = 0
        self.sold = False  # whether anything was sold in the period
        self.curvature, self.curvature_sd = CURVATURE_PRIOR, CURVATURE_PRIOR_SD
        self.rival = RIVAL_PRIOR
        self.follow = 0.0  # beta: how much of our cuts rivals match
        self.dispersion = 0.2  # 1/k
        self.large_moves = 0  # of the running day's decisions
        self.dither_scale = 1.0  # what the exploration budget leaves of each dither
        # By category: units a day, and what they earn. Without columns where nobody asks for it.
        self.earned = np.zeros((2, 0))
        self.history_trusted = True
        self.moments = np.array([10.0, 50.0])
        self.lead = np.zeros(LEADS)
        # Of engine.deliveries: intervals, and sums of their and their gaps' squared deviations.
        self.regular = np.zeros(3)
        # Of days at our prices: their number, cuts, rivals' moves, cuts squared, moves times cuts.
        self.follows = np.zeros(FOLLOWS)
        self.categories: list[str] = []
        self.sums = np.zeros((3, 0))  # of the running close, a column a category
        self.forms: list[int] = []  # of demand, one a category: a place in FORMS
        # [history and own prices, trials, categories]: log-likelihoods, and slopes of their own.
        self.form_scores = np.zeros((2, TRIALS, 0))
        self.form_moments = np.zeros((2, TRIALS, 0))
        self.form_precisions = np.zeros((2, TRIALS, 0))
        self.form_slopes = np.zeros((2, TRIALS, 0))  # as they stood when the running close began
        self.kink = 0.0  # of demand at the usual price, 0: none is believed
        # How much demand bends beside it: by itself, and of what exponential demand does.
        self.kink_curvature, self.kink_bend = CURVATURE_PRIOR, 0.0
        self.kink_sums = np.zeros((2, PRODUCTS))  # of history and own prices
        self.pooled_sd = np.zeros(0)  # of each category's mean
        # The precision that moves of prices gave each category's slopes, others' moves in part.
        self.tested: np.ndarray = np.zeros(0)
        self.explored = np.zeros(2)  # profit given up to dithers, and all of it, as expected
        self.piled_log = -1.0  # markups up to it are bounds and no choices
        self.ruled: list[int] = []  # markups that are rules of thumb, in steps
        self.table: Table | None = None
        self.draft: Table | None = None  # of a fit that is half done
        self.effects = NO_EFFECTS  # of brands and tags, as the table was fitted with them

    def state(self) -> dict[str, Any]:
        """Return everything as plain values."""
        plain = {
            name: value
            for name, value in vars(self).items()
            if not isinstance(value, np.ndarray) and name not in ("table", "draft", "effects")
        }
        arrays = {
            name: value.tobytes()
            for name, value in vars(self).items()
            if isinstance(value, np.ndarray)
        }
        table = None if self.table is None else _state_of(self.table)
        state: dict[str, Any] = {"plain": plain, "arrays": arrays, "table": table}
        if self.draft is not None:
            state["draft"] = _state_of(self.draft)
        if len(self.effects.names):
            state["effects"] = [column.tobytes() for column in self.effects]
        return state

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "RetailerLearning":
        """Return what :meth:`state` described."""
        learning = cls(0, 1)
        for name, value in state["plain"].items():
            setattr(learning, name, value)
        for name, value in state["arrays"].items():
            setattr(learning, name, np.frombuffer(value, dtype=np.float64).copy())
        learning.sums = learning.sums.reshape(3, -1)
        learning.earned = learning.earned.reshape(2, -1)
        if len(learning.follows) != FOLLOWS:  # of before it was told with a constant
            learning.follows = np.zeros(FOLLOWS)
        learning.kink_sums = learning.kink_sums.reshape(2, PRODUCTS)
        for name in ("form_scores", "form_moments", "form_precisions", "form_slopes"):
            setattr(learning, name, getattr(learning, name).reshape(2, TRIALS, -1))
        if learning.form_slopes.shape != learning.form_moments.shape:  # of before they were kept
            learning.form_slopes = slopes(learning.form_moments, learning.form_precisions)
        table = state["table"]
        if table is not None:
            learning.table = _table_of(table)
            if "tested" not in state["arrays"]:  # of before it was kept: nothing hides for a day
                learning.tested = np.full(learning.table.parts.shape[1], np.inf)
        if "draft" in state:
            learning.draft = _table_of(state["draft"])
        if "effects" in state:  # where attributes say something
            names, shares = state["effects"]
            learning.effects = Effects(np.frombuffer(names, "<u8"), np.frombuffer(shares, "<f8"))
        return learning


def _state_of(table: Table) -> dict[str, Any]:
    """Return a table as a checkpoint holds it."""
    return {
        "configs": [list(config) for config in table.configs],
        "weights": table.weights.tobytes(),
        "parts": table.parts.tobytes(),
        "roots": [column.tobytes() for column in table.roots],
    }


def _table_of(state: dict[str, Any]) -> Table:
    """Return a table as a checkpoint holds it, of before inelastic demand and roots, too."""
    configs = tuple(Config(*config) for config in state["configs"])
    weights = np.frombuffer(state["weights"], dtype=np.float64)
    parts = np.frombuffer(state["parts"], dtype=np.float64)
    if "roots" in state:
        roots = Roots(*(np.frombuffer(column, dtype=np.float64) for column in state["roots"]))
        return Table(
            configs, weights, parts.reshape(len(configs), -1, BIAS_COLUMNS, len(MEANS)), roots
        )
    biases, means = (len(range(*columns.indices(99))) for columns in BEFORE_FLAT)
    before = parts.reshape(len(configs), -1, biases, means)
    longer = np.zeros((*before.shape[:2], BIAS_COLUMNS, len(MEANS)))
    longer[:, :, BEFORE_FLAT[0], BEFORE_FLAT[1]] = before
    return Table(configs, weights, longer, nothing_stated(before.shape[1]))


def sums_of(held: RetailerLearning, learnt: np.ndarray) -> dict[str, np.ndarray]:
    """Return each row's sums: the engine's own prices, and history's where it is trusted."""
    total = learnt["own"].astype(np.float64)
    if held.history_trusted:
        total = total + learnt["history"]
    return {name: total[:, at] for at, name in enumerate(SUMS)}


class Learnt:
    """All that a shard has learnt. Empty, and without memory, until a policy switches it on."""

    def __init__(self) -> None:
        self.rows = np.zeros(0, dtype=LEARNT_DTYPE)
        self.deliveries = np.zeros(0, dtype=DELIVERY_DTYPE)  # of the same rows
        self.retailers: dict[int, RetailerLearning] = {}
        self.beliefs: dict[int, Any] = {}  # worked out for who asked; no part of the state

    @property
    def any(self) -> bool:
        """Whether any retailer learns."""
        return bool(self.retailers)

    @property
    def closing(self) -> int:
        """How many retailers' periods wait for the next microbatch to go on with."""
        return sum(held.phase != IDLE for held in self.retailers.values())

    def fit(self, rows: int) -> None:
        """Make room for ``rows`` rows; they have learnt nothing."""
        if self.any:
            self._grow(rows)

    def _grow(self, rows: int) -> None:
        before = len(self.rows)
        if before < rows:
            longer = np.repeat(new_learnt(), rows)
            longer[:before] = self.rows
            self.rows = longer
            deliveries = np.zeros(rows, dtype=DELIVERY_DTYPE)
            deliveries[:before] = self.deliveries
            self.deliveries = deliveries

    def report(self, row: int, units_sold: int) -> None:
        """Note whether a price that is reported now came before the running period's sales."""
        if row < len(self.rows):
            ahead = TOLD_AHEAD if units_sold <= self.rows["units_closed"][row] else 0
            self.rows["flags"][row] = self.rows["flags"][row] & (255 - TOLD_AHEAD) | ahead

    def forget(self, row: int) -> None:
        """Forget one listing: its row begins anew."""
        if row < len(self.rows):
            self.rows[row : row + 1] = new_learnt()
            self.deliveries[row] = 0

    def state(self) -> dict[str, Any]:
        """Return what the retailers share, as plain values."""
        return {str(number): held.state() for number, held in sorted(self.retailers.items())}

    def saved(self, rows: np.ndarray) -> bytes:
        """Return rows as a checkpoint holds them, nothing where nobody learns."""
        if not self.any:
            return b""
        return self.rows.take(rows).tobytes() + self.deliveries.take(rows).tobytes()

    def fill(self, rows: np.ndarray, encoded: bytes, capacity: int) -> None:
        """Take rows from a checkpoint, making room for all that will come."""
        self._grow(capacity)
        size, deliveries = len(encoded), len(rows) * DELIVERY_DTYPE.itemsize
        told = size == len(rows) * LEARNT_DTYPE.itemsize + deliveries
        at = size - deliveries if told else size
        put(self.rows, rows, learnt_of(encoded[:at], len(rows)))
        if told:  # else of before deliveries were noted
            put(self.deliveries, rows, np.frombuffer(encoded[at:], dtype=DELIVERY_DTYPE))

    def restore(self, state: dict[str, Any], capacity: int) -> None:
        """Take what :meth:`state` described; the rows were filled in before."""
        for number, held in state.items():
            self.retailers[int(number)] = RetailerLearning.restore(held)
        if self.any:
            self._grow(capacity)
        else:
            self.rows = np.zeros(0, dtype=LEARNT_DTYPE)
            self.deliveries = np.zeros(0, dtype=DELIVERY_DTYPE)
