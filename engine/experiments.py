"""Experiments: what is tried on which listings, and what is known of it so far.

A retailer has at most one *experiment*, which somebody starts, and a *holdout*, which is always on
where demand is learnt: a small share of listings whose prices stay, so that what the engine earns
is measured and not claimed. Both are the same record with other terms. Of each listing there is
one small record a kind: its arm, what it earned before, and its sums.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from msgspec.structs import replace

from engine.errors import RejectedInput
from engine.listing_table import put
from engine.policy import RETAILER_ONLY, Policy, decode_fields, policy_row
from engine.routing import name64
from kernels.assignment import PRODUCT, TREATED
from kernels.lift import SUMS, Totals, no_totals

HOLDOUT, EXPERIMENT = 0, 1
"""Kinds, and the first index of :attr:`Experiments.rows`."""

KINDS = ("holdout", "experiment")

WAITING, BASELINE, RUNNING, ENDED, STOPPED = "waiting", "baseline", "running", "ended", "stopped"
"""Before its first midnight; watched before anything differs; running; over as planned; stopped."""

ARM_DTYPE = np.dtype(
    [
        ("arm", "u1"),  # kernels.assignment: CONTROL, TREATED; 0: takes no part
        ("counted", "u1"),  # whether the sample-ratio check has counted it
        ("base_minor", "<i4"),  # price in force when the arms parted
        ("weight", "<f4"),  # what it earned a day before, over what a listing earns on average
        ("before", "<f8"),  # earned in the baseline
        ("before_days", "<i4"),
        ("sums", "<f8", (SUMS,)),  # kernels.lift: of the running pair of blocks, or of all
    ]
)


class Terms(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody asks for with ``ExperimentStarted.fields``."""

    experiment: Annotated[
        str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$(?!\\n)")
    ]
    design: Literal["product", "crossover", "switchback"] = "product"
    treatment: dict[str, Any] = {}  # policy fields of the treated
    price_ratio: Annotated[float, Meta(ge=0.5, le=2.0)] | None = None  # of the price at the start
    metric: Literal["profit", "revenue", "units"] = "profit"
    share: Annotated[float, Meta(ge=0.05, le=0.999)] = 0.5
    days: Annotated[int, Meta(ge=2, le=366)] = 28
    baseline_days: Annotated[int, Meta(ge=0, le=90)] = 14
    block_days: Annotated[int, Meta(ge=1, le=28)] = 4
    washout_days: Annotated[int, Meta(ge=0, le=14)] = 2
    scope: Literal["retailer", "channel", "category"] = "retailer"
    key: Annotated[str, Meta(max_length=200)] = ""


def decode_terms(fields: Mapping[str, object]) -> Terms:
    """Return checked terms.

    Raises:
        RejectedInput, NotSupported: the pointer begins ``/fields/``.
    """
    try:
        terms = msgspec.convert(dict(fields), Terms)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$.")
        pointer = "/fields/" + where.rstrip("`")
        raise RejectedInput(pointer, problem, "see docs/experiments.md") from None
    if not terms.treatment and terms.price_ratio is None:
        raise RejectedInput("/fields/treatment", "is empty", "name policy fields or price_ratio")
    if None in terms.treatment.values():
        raise RejectedInput("/fields/treatment", "unsets a field", "name the value to try")
    decode_fields(terms.treatment)
    whole = sorted(RETAILER_ONLY & set(terms.treatment))
    if whole:
        problem = "counts over a whole retailer, so arms cannot differ in it"
        raise RejectedInput(f"/fields/treatment/{whole[0]}", problem, "leave it out")
    if (terms.scope == "retailer") == bool(terms.key):
        raise RejectedInput("/fields/key", "does not fit the scope", "name a channel or category")
    if terms.design != PRODUCT:
        if terms.washout_days >= terms.block_days:
            problem = "leaves nothing of a block to count"
            raise RejectedInput("/fields/washout_days", problem, "make it less than block_days")
        if terms.days < 8 * terms.block_days or terms.days % (2 * terms.block_days):
            problem = "does not hold whole pairs of blocks, four or more"
            raise RejectedInput("/fields/days", problem, "make it a multiple of 2 x block_days")
    return terms


def holdout_terms(share: float) -> Terms:
    """Return the terms of a holdout: nearly all listings are treated, by the engine."""
    return Terms(experiment="holdout", share=1.0 - share, days=366, baseline_days=0)


class Told(Struct, frozen=True, kw_only=True):
    """What the last look said."""

    day: int = 0  # of the running part
    lift: float | None = None
    low: float | None = None  # interval that holds at every look
    high: float | None = None
    end_low: float | None = None  # interval that holds once, at the planned end
    end_high: float | None = None
    units: int = 0
    listings: tuple[int, int] = (0, 0)  # counted by the sample-ratio check: control, treated
    sample_ratio_ok: bool = True
    verdict: str = "open"  # better, harmful, undecided (over, and nothing found)


class Experiment:
    """One experiment or holdout of one retailer, and how far it has come."""

    def __init__(self, kind: int, retailer: str, terms: Terms, now_ms: int, day_ms: int) -> None:
        self.kind, self.terms = kind, terms
        self.salt = name64(f"{retailer}\x1f{terms.experiment}")
        self.started_ms = self.observed_ms = now_ms
        self.next_ms = (now_ms // day_ms + 1) * day_ms
        self.status = WAITING
        self.run_days = self.baseline_days = 0
        self.counting = False  # whether sales count now: not before it runs, nor in a wash-out
        self.cursor = -1  # rows before it are through with the running walk; -1: none is running
        self.elapsed = 0  # days that the walk accounts for
        self.parts = False  # whether the arms part in this walk
        self.before, self.before_days = 0.0, 0
        self.mean = 0.0  # earned a listing and day in the baseline
        self.counts = [0, 0]  # control, treated
        self.known, self.partial = no_totals(), no_totals()
        self.together = np.zeros(SUMS)  # of all listings, for a switchback
        self.told = Told()

    @property
    def paired(self) -> bool:
        """Whether blocks of time decide the arm."""
        return self.terms.design != PRODUCT

    @property
    def block(self) -> int:
        """Return which time block it is, from 0."""
        return self.run_days // self.terms.block_days if self.paired else 0

    @property
    def open(self) -> bool:
        """Whether it still goes on."""
        return self.status in (WAITING, BASELINE, RUNNING)

    def treated_policy(self, policy: Policy) -> np.ndarray:
        """Return the row of a policy with the treatment's fields over it."""
        fields = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.terms.treatment.items()
        }
        return policy_row(replace(policy, **fields))

    def state(self) -> dict[str, Any]:
        """Return everything as plain values."""
        plain: dict[str, Any] = dict(vars(self))
        for name in ("known", "partial"):
            sums, products, units = plain.pop(name)
            plain[name] = [sums.tobytes(), products.tobytes(), units]
        plain["together"] = self.together.tobytes()
        plain["terms"] = msgspec.to_builtins(self.terms)
        plain["told"] = msgspec.to_builtins(self.told)
        return plain

    @classmethod
    def restore(cls, state: dict[str, Any]) -> "Experiment":
        """Return what :meth:`state` described."""
        terms = msgspec.convert(state["terms"], Terms)
        experiment = cls(state["kind"], "", terms, 0, 1)
        for name, value in state.items():
            setattr(experiment, name, value)
        experiment.terms, experiment.told = terms, msgspec.convert(state["told"], Told)
        for name in ("known", "partial"):
            sums, products, units = state[name]
            square = np.frombuffer(products, dtype=np.float64).reshape(SUMS, SUMS).copy()
            whole = Totals(np.frombuffer(sums, dtype=np.float64).copy(), square, units)
            setattr(experiment, name, whole)
        experiment.together = np.frombuffer(state["together"], dtype=np.float64).copy()
        experiment.counts = list(state["counts"])
        return experiment

    def document(self) -> dict[str, Any]:
        """Return what followers and people are told, in values that JSON gives back as they are."""
        terms = msgspec.to_builtins(self.terms)
        planned = {} if self.kind == HOLDOUT else {"treatment": terms["treatment"]}
        if self.terms.price_ratio is not None:
            planned["price_ratio"] = self.terms.price_ratio
        return {
            "experiment": self.terms.experiment,
            "kind": KINDS[self.kind],
            "design": self.terms.design,
            "metric": self.terms.metric,
            "status": self.status,
            "started_ms": self.started_ms,
            "days": None if self.kind == HOLDOUT else self.terms.days,
            "share": self.terms.share,
            **planned,
            **msgspec.to_builtins(self.told),
            "listings": list(self.told.listings),
        }


class Experiments:
    """All experiments and holdouts of a shard. Empty, and without memory, until there is one."""

    def __init__(self) -> None:
        self.rows = np.zeros((2, 0), dtype=ARM_DTYPE)
        self.of: dict[tuple[int, int], Experiment] = {}  # (kind, retailer's number)

    @property
    def any(self) -> bool:
        """Whether there is one, be it over."""
        return bool(self.of)

    @property
    def walking(self) -> int:
        """How many walks wait for the next microbatch to go on with."""
        return sum(each.cursor >= 0 for each in self.of.values())

    def documents(self, number: int) -> tuple[dict[str, Any], ...]:
        """Return how a retailer's holdout and experiment stand."""
        return tuple(each.document() for (_, of), each in sorted(self.of.items()) if of == number)

    def fit(self, rows: int) -> None:
        """Make room for ``rows`` rows; they take no part."""
        if self.any:
            self._grow(rows)

    def _grow(self, rows: int) -> None:
        before = self.rows.shape[1]
        if before < rows:
            longer = np.zeros((2, rows), dtype=ARM_DTYPE)
            longer[:, :before] = self.rows
            self.rows = longer

    def begin(self, key: tuple[int, int], experiment: Experiment, capacity: int) -> None:
        """Take a new one in place of an old; its rows begin anew by :meth:`forget`.

        In the order of the keys, which is a checkpoint's: sales go through all of them, and each
        adds to the digest.
        """
        every = {**self.of, key: experiment}
        self.of = {of: every[of] for of in sorted(every)}
        self._grow(capacity)

    def forget(self, rows: np.ndarray, kinds: tuple[int, ...] = (HOLDOUT, EXPERIMENT)) -> None:
        """Let rows take no part."""
        if self.rows.shape[1]:
            for kind in kinds:
                self.rows[kind][rows] = np.zeros(1, dtype=ARM_DTYPE)

    def taken(self, rows: np.ndarray) -> bytes:
        """Return rows as bytes, for a checkpoint; nothing where there is no experiment."""
        return b"" if not self.any else self.rows.take(rows, axis=1).tobytes()

    def fill(self, rows: np.ndarray, taken: bytes, capacity: int) -> None:
        """Take rows from a checkpoint, making room for all that will come."""
        self._grow(capacity)
        held = np.frombuffer(taken, dtype=ARM_DTYPE).reshape(2, -1)
        for kind in (HOLDOUT, EXPERIMENT):
            put(self.rows[kind], rows, held[kind].copy())

    def state(self) -> list[list[Any]]:
        """Return everything but the rows, as plain values."""
        return [[*key, each.state()] for key, each in sorted(self.of.items())]

    def restore(self, state: list[list[Any]], capacity: int) -> None:
        """Take what :meth:`state` described; the rows were filled in before."""
        for kind, number, held in state:
            self.of[kind, number] = Experiment.restore(held)
        if self.any:
            self._grow(capacity)
        else:
            self.rows = np.zeros((2, 0), dtype=ARM_DTYPE)


assert ARM_DTYPE.itemsize <= 64
assert TREATED == 2
