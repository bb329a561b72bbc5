"""What another policy or model would have proposed on a recorded log, and may have earned.

The very same ``Shard`` decides every recorded microbatch again, in the recorded cuts and at the
recorded times. As recorded it must repeat every decision. Under another policy or model history
stays as it was: after each microbatch the recorded prices are in force again, because sales, rivals
and stock in the log answered those and no others. So each proposal is one step away from what
really happened; a path of steps that nobody took is not followed, and the rate limit, which counts
moves made, does not bind.

What a proposal may have earned is the demand model's word: the units really sold, times
``(proposed / recorded) ** elasticity``. A trained model that is tried is no judge in its own cause:
there the elasticity is what the stream alone believes, so that two models are measured alike.
Nothing in the log can confirm it where a listing's price never was, hence the share of proposals
outside the prices observed: over a fifth, and the backtest says that it must not be believed.

Units. Money in minor units of the listing's currency, times in unix milliseconds.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from engine.artefact import Artefact
from engine.decided import Decided, State
from engine.deltas import PlanApplied, PolicyChanged, RetailerAdded, ScopeChange
from engine.errors import RejectedInput
from engine.learnt import DAY_MS
from engine.memory import Memory
from engine.microbatch import Microbatch, ObjectDelta, Position
from engine.replay import Agreement
from engine.shard import Shard
from kernels import reasons
from kernels.hyperparameters import BACKTEST_DRAWS, EXTRAPOLATED_MAX, FLATTEST
from training.tried_model import PLACE, TriedModel

OURS = 1_000_000
"""The index from which on the deltas that a backtest adds are numbered within their record."""

SEGMENT_DTYPE = np.dtype(
    [
        ("row", "<i8"),
        ("units", "<f8"),  # really sold
        ("recorded_minor", "<f8"),  # at this price
        ("proposed_minor", "<f8"),
        ("elasticity", "<f8"),
        ("elasticity_sd", "<f8"),
        ("cost_minor", "<f8"),
        ("keep", "<f8"),  # what is left of a unit of price after VAT and commission
        ("commission", "<f8"),
        ("fixed_fee_minor", "<f8"),
        ("minimum_fee_minor", "<f8"),
        ("currency", "<i8"),
    ]
)
"""Sales of one listing while neither its price nor the proposal changed."""

TRACK_DTYPE = np.dtype(
    [
        ("recorded_minor", "<i4"),
        ("proposed_minor", "<i4"),
        ("units", "<i8"),  # ever sold, when the segment began
        ("elasticity", "<f4"),
        ("elasticity_sd", "<f4"),
        ("low_minor", "<i4"),  # of the prices that were really in force
        ("high_minor", "<i4"),
        ("moved", "u1"),
        ("state", "u1"),  # of the recorded quotes
    ]
)


class Earned(Struct, frozen=True, kw_only=True):
    """Profit by the demand model, in one currency."""

    currency: str
    recorded_minor: float  # of the units sold, at the recorded prices
    difference_minor: float  # expected, under the other policy
    low_minor: float  # a 90 % interval of it
    high_minor: float


class Tested(Struct, frozen=True, kw_only=True):
    """What a backtest of one shard showed."""

    decisions: int
    deltas: int
    span_ms: int  # of recorded time
    differences: int  # of decisions under the recorded policy, which must be none
    expected: int  # differences of another replay domain
    first_difference: int | None
    listings: int
    moved: int  # listings that were ever proposed another price
    proposals: int  # times at which a price was proposed, or the recorded one anew
    other: int  # of them, those of another price
    mean_move: float  # of those, as a ratio, without its sign
    guardrails: dict[str, int]  # how many proposals of another price each binds
    states: dict[str, int]  # of all looks: infeasible, unpublishable
    extrapolated: int  # proposals outside the prices that were ever in force for their listing
    earned: tuple[Earned, ...]


class Backtest:
    """Decides a recorded life again, microbatch by microbatch."""

    def __init__(
        self,
        shard: Shard,
        changes: Sequence[ScopeChange] = (),
        model: TriedModel | None = None,
    ) -> None:
        self.shard = shard
        self.changes = tuple(changes)
        self.model = model  # None: the models that were recorded
        self._tries = bool(changes) or model is not None
        self.decisions = 0
        self.deltas = 0
        self.differences = 0
        self.expected = 0
        self.first_difference: int | None = None
        self._first_ms = self._last_ms = 0
        self._proposed: list[np.ndarray] = []  # (row, price) of other prices
        self._proposals = 0
        self._move_sum = 0.0
        self._binding = np.zeros(256, dtype=np.int64)
        self._states = np.zeros(len(State) + 1, dtype=np.int64)
        self._segments: list[np.ndarray] = []
        table = shard._memory.listings
        self._tracks = np.zeros(table.capacity, dtype=TRACK_DTYPE)
        self._tracks["state"] = table.listings["state"]
        self._told = set(shard._memory.retailers.ids)

    def decide(
        self,
        batch: Microbatch,
        recorded: Decided,
        artefacts: Sequence[Artefact] = (),
        *,
        same_domain: bool = True,
    ) -> None:
        """Decide one recorded microbatch again, with the models that its promotions found.

        Raises:
            RejectedInput: the shard refuses the policy.
        """
        if not self.decisions:
            self._first_ms = recorded.decided_ms
        if self._tries:
            batch = self._with_policy(batch, recorded)
        if self.model is not None:
            batch = self.model.put_into(batch, self.shard._memory, self.shard.decided_ms)
            tried = self.model.artefact
            artefacts = artefacts if tried is None else (*artefacts, tried)
        ours, agreed = self.shard.follow(batch, recorded, artefacts)
        self.decisions += 1
        self.deltas += batch.deltas
        self._last_ms = recorded.decided_ms
        if self._tries:
            _check_taken(ours)
            if self.model is not None:
                self.model.see(ours)
            self._compare(ours, recorded)
        elif agreed is not Agreement.EXACT:
            self.differences += same_domain
            self.expected += not same_domain
            self.first_difference = self.first_difference or recorded.seq

    def tested(self) -> Tested:
        """Return what it showed."""
        memory = self.shard._memory
        known = np.flatnonzero(self._tracks["recorded_minor"] > 0)
        self._flush(known)
        proposed = np.concatenate([np.empty((0, 2), dtype=np.int64), *self._proposed])
        track = self._tracks[proposed[:, 0]]
        outside = (proposed[:, 1] < track["low_minor"]) | (proposed[:, 1] > track["high_minor"])
        segments = np.concatenate([np.empty(0, dtype=SEGMENT_DTYPE), *self._segments])
        return Tested(
            decisions=self.decisions,
            deltas=self.deltas,
            span_ms=self._last_ms - self._first_ms,
            differences=self.differences,
            expected=self.expected,
            first_difference=self.first_difference,
            listings=memory.listings.live,
            moved=int(self._tracks["moved"].sum()),
            proposals=self._proposals,
            other=len(proposed),
            mean_move=self._move_sum / max(len(proposed), 1),
            guardrails={
                name: int(self._binding[at])
                for at, name in enumerate(reasons.BINDINGS)
                if self._binding[at]
            },
            states={
                state.name.lower(): int(self._states[state])
                for state in (State.INFEASIBLE, State.UNPUBLISHABLE)
                if self._states[state]
            },
            extrapolated=int(outside.sum()),
            earned=earned(segments, memory),
        )

    # ----- inside --------------------------------------------------------------------------------

    def _with_policy(self, batch: Microbatch, recorded: Decided) -> Microbatch:
        """Put the policy behind whatever adds a retailer or sets scopes.

        Publishing is off, so that proposals are made and nothing moves. A plan is applied where it
        was applied: it was exact for the recorded shard, and this one stands elsewhere.
        """
        done = {each.command_id for each in recorded.outcomes if each.status == "done"}
        added: list[Any] = []
        for retailer in sorted(self._told if not self.decisions else ()):
            place = Position(0, max(batch.last_command, 0), 0)
            added.extend(self._policy(retailer, place, self.shard.decided_ms))
        for run in batch.runs:
            if isinstance(run, ObjectDelta) and isinstance(run.delta, PlanApplied):
                if run.delta.command_id not in done:
                    continue
                run = replace(run, delta=replace(run.delta, planned=None, anyway=True))
            added.append(run)
            if not isinstance(run, ObjectDelta):
                continue
            delta = run.delta
            if isinstance(delta, PolicyChanged | PlanApplied):
                added.extend(self._policy(delta.retailer, run.position, delta.observed_ms))
            elif isinstance(delta, RetailerAdded) and delta.retailer not in self._told:
                self._told.add(delta.retailer)
                added.extend(self._policy(delta.retailer, run.position, delta.observed_ms))
        more = len(added) - len(batch.runs)
        return replace(batch, runs=tuple(added), deltas=batch.deltas + more)

    def _policy(self, retailer: str, place: Position, observed_ms: int) -> list[ObjectDelta]:
        quiet = ScopeChange(fields={"publish": False})
        return [
            ObjectDelta(
                Position(place.lane, place.offset, OURS + index),
                PolicyChanged(
                    retailer=retailer,
                    scope=change.scope,
                    key=change.key,
                    priority=change.priority,
                    fields=change.fields,
                    observed_ms=observed_ms,
                ),
            )
            for index, change in enumerate((*self.changes, quiet))
        ]

    def _compare(self, ours: Decided, recorded: Decided) -> None:
        """Note what was proposed beside what was decided, and what is sold meanwhile."""
        table = self.shard._memory.listings
        if len(self._tracks) < table.capacity:
            longer = np.zeros(table.capacity, dtype=TRACK_DTYPE)
            longer[: len(self._tracks)] = self._tracks
            self._tracks = longer
        if not len(ours.quotes) and not len(recorded.quotes):
            return  # of a day four in five microbatches, or more: the marks of a quiet log
        self._take_prices(recorded)
        self._take_states(ours, recorded)
        looked = ours.quotes[ours.quotes["state"] != State.REMOVED]
        rows = table.index.rows(looked["listing"])
        self._states += np.bincount(looked["state"], minlength=len(self._states))
        told = table.index.rows(recorded.quotes["listing"])
        self._flush(np.union1d(rows, told[told >= 0]))
        recorded_minor = table.listings["in_force_minor"]
        self._see(told[told >= 0], recorded_minor)
        self._see(rows, recorded_minor)
        priced = looked["proposed_minor"] > 0
        rows, looked = rows[priced], looked[priced]
        track = self._tracks[rows]
        price = looked["proposed_minor"]
        fresh = price != track["proposed_minor"]
        other = fresh & (recorded_minor[rows] > 0) & (price != recorded_minor[rows])
        self._proposals += int(fresh.sum())
        self._proposed.append(np.stack([rows[other], price[other].astype(np.int64)], axis=1))
        self._move_sum += float(np.abs(price[other] / recorded_minor[rows][other] - 1.0).sum())
        self._binding += np.bincount(looked["binding"][other], minlength=256)
        track["proposed_minor"] = price
        track["elasticity"], track["elasticity_sd"] = self._believed(rows, looked)
        track["moved"] |= other
        self._tracks[rows] = track

    def _believed(self, rows: np.ndarray, looked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the elasticities by which proposals are judged, and their standard deviations."""
        mean, sd = looked["elasticity"], looked["elasticity_sd"]
        learnt = self.shard._memory.learnt
        if self.model is None or not learnt.any:
            return mean, sd
        decided = np.isfinite(learnt.rows["anchor"][rows])
        return (
            np.where(decided, learnt.rows["elasticity"][rows], mean),
            np.where(decided, learnt.rows["elasticity_sd"][rows], sd),
        )

    def _take_prices(self, recorded: Decided) -> None:
        """Let learning know when the recorded prices came in force."""
        quotes = recorded.quotes[recorded.quotes["in_force_minor"] != 0]
        quotes = quotes[quotes["in_force_minor"] != quotes["previous_minor"]]
        table = self.shard._memory.listings
        rows = table.index.rows(quotes["listing"])
        rows = rows[rows >= 0]
        before = table.listings["price_ms"][rows]
        table.listings["price_ms"][rows] = np.maximum(before, recorded.decided_ms)

    def _take_states(self, ours: Decided, recorded: Decided) -> None:
        """Let rows be in the state that was recorded, also those that only we have quoted.

        Publishing is off here, so a listing that only we looked at would pass for one in shadow,
        and its sales for those at a price that somebody else chose: nothing is learnt of its own.
        Its last quote is in that state, too, so that the next look is told and set right again.
        """
        table = self.shard._memory.listings
        told = table.index.rows(recorded.quotes["listing"])
        known = told >= 0
        self._tracks["state"][told[known]] = recorded.quotes["state"][known]
        rows = table.index.rows(ours.quotes["listing"])
        rows = np.setdiff1d(rows[rows >= 0], told)
        rows = rows[self._tracks["state"][rows] > 0]
        table.listings["state"][rows] = self._tracks["state"][rows]
        table.quotes["state"][rows] = self._tracks["state"][rows]

    def _see(self, rows: np.ndarray, in_force: np.ndarray) -> None:
        """Begin a segment at the prices in force, and widen what was observed."""
        track, listings = self._tracks[rows], self.shard._memory.listings.listings
        price = in_force[rows]
        track["recorded_minor"] = price
        track["units"] = listings["units_sold"][rows]
        begun = price > 0
        low = np.where(track["low_minor"] > 0, np.minimum(track["low_minor"], price), price)
        track["low_minor"] = np.where(begun, low, track["low_minor"])
        track["high_minor"] = np.maximum(track["high_minor"], price)
        quo = listings["status_quo_minor"][rows]
        track["low_minor"] = np.where(
            quo > 0, np.minimum(track["low_minor"], quo), track["low_minor"]
        )
        track["high_minor"] = np.maximum(track["high_minor"], quo)
        self._tracks[rows] = track

    def _flush(self, rows: np.ndarray) -> None:
        """End the segments of some rows: what was sold since they began."""
        memory = self.shard._memory
        listings, track = memory.listings.listings.take(rows), self._tracks[rows]
        units = listings["units_sold"] - track["units"]
        sold = (units > 0) & (track["recorded_minor"] > 0) & (listings["cost_minor"] >= 0)
        if not sold.any():
            return
        rows, listings, track = rows[sold], listings[sold], track[sold]
        segment = np.zeros(len(rows), dtype=SEGMENT_DTYPE)
        segment["row"], segment["units"] = rows, units[sold]
        segment["recorded_minor"] = track["recorded_minor"]
        proposed = track["proposed_minor"]
        segment["proposed_minor"] = np.where(proposed > 0, proposed, track["recorded_minor"])
        segment["elasticity"] = track["elasticity"]
        segment["elasticity_sd"] = track["elasticity_sd"]
        segment["cost_minor"] = listings["cost_minor"]
        segment["currency"] = listings["currency"]
        fees = memory.groups.table.take(listings["group"])
        segment["keep"] = 1.0 / (1.0 + fees["vat"])
        for name in ("commission", "fixed_fee_minor", "minimum_fee_minor"):
            segment[name] = fees[name]
        self._segments.append(segment)
        self._tracks["units"][rows] = listings["units_sold"]


def _check_taken(ours: Decided) -> None:
    """Raise where the shard refused the policy that a backtest added."""
    for refusal in ours.exceptions:
        if OURS <= refusal.position.index < PLACE and refusal.verdict in (
            "rejected",
            "not_supported",
        ):
            pointer, _, problem = refusal.reason.partition(": ")
            raise RejectedInput(f"/policy{pointer}", problem)


def unit_profit(segments: np.ndarray, price: np.ndarray) -> np.ndarray:
    """Return float64[n], what one unit at a price leaves after VAT, fees and cost."""
    fee = np.maximum(segments["commission"] * price, segments["minimum_fee_minor"])
    net = segments["keep"] * price - fee - segments["fixed_fee_minor"]
    return np.asarray(net - segments["cost_minor"])


def earned(segments: np.ndarray, memory: Memory) -> tuple[Earned, ...]:
    """Return the profit by currency, and how sure the demand model can be of the difference.

    The interval lets every listing's elasticity be off by the same number of its own standard
    deviations, which is wider than letting each err by itself: what they share (a prior, a season)
    is what goes wrong. Listings are drawn anew as well.
    """
    return tuple(
        _earned(segments[segments["currency"] == currency], memory.currencies.name(currency))
        for currency in np.unique(segments["currency"]).tolist()
    )


def _earned(segments: np.ndarray, currency: str) -> Earned:
    before, after = segments["recorded_minor"], segments["proposed_minor"]
    base = segments["units"] * unit_profit(segments, before)
    other = np.flatnonzero(before != after)
    some = segments[other]
    gain_at, log = unit_profit(some, after[other]), np.log(after[other] / before[other])
    listings, listing = np.unique(some["row"], return_inverse=True)
    random = np.random.default_rng(len(listings))
    off = np.array(
        [NormalDist().inv_cdf((at + 0.5) / BACKTEST_DRAWS) for at in range(BACKTEST_DRAWS)]
    )

    def difference(z: float, weight: np.ndarray | None) -> float:
        slope = np.minimum(some["elasticity"] + z * some["elasticity_sd"], FLATTEST)
        each = some["units"] * np.exp(slope * log) * gain_at - base[other]
        return float(each.sum() if weight is None else (each * weight[listing]).sum())

    drawn = [
        difference(float(z), random.poisson(1.0, len(listings)).astype(np.float64))
        for z in random.permutation(off)
    ]
    low, high = np.quantile(drawn, [0.05, 0.95]).tolist()
    return Earned(
        currency=currency,
        recorded_minor=float(base.sum()),
        difference_minor=difference(0.0, None),
        low_minor=low,
        high_minor=high,
    )


def joined(parts: Sequence[Tested]) -> dict[str, Any]:
    """Return the sums over all shards, as plain values, with the verdict."""
    counted = {
        name: sum(getattr(part, name) for part in parts)
        for name in (
            *("decisions", "deltas", "differences", "expected", "listings", "moved"),
            *("proposals", "other", "extrapolated"),
        )
    }
    extrapolation = counted["extrapolated"] / max(counted["proposals"], 1)
    moves = sum(part.mean_move * part.other for part in parts)
    return {
        **counted,
        "days": max((part.span_ms for part in parts), default=0) / DAY_MS,
        "mean_move": moves / max(counted["other"], 1),
        "guardrails": _added([part.guardrails for part in parts]),
        "states": _added([part.states for part in parts]),
        "extrapolation": extrapolation,
        "supported": extrapolation <= EXTRAPOLATED_MAX,
    }


def _added(parts: Sequence[dict[str, int]]) -> dict[str, int]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0) for part in parts) for name in names}
