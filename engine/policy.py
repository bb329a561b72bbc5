"""What a retailer asks for: fields by scope, resolved field by field to one policy a listing.

Scopes, strongest first: listing, tag, category, channel, retailer, and last the defaults of
:class:`Policy`. A field that is not set at a scope falls through to the next, so a category may
set a margin and leave the step to the retailer. Of two tags the higher number wins.

Units. Money is an integer in minor units, times are ``*_ms``, a ratio is a float (0.2 is 20 %)
with at most four decimals, because the kernel counts in basis points so as to be exact.
``docs/policy.md`` tells every field's meaning; a test compares the two.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from heapq import nsmallest
from math import isfinite
from typing import Annotated, Any, Literal, get_args

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict
from msgspec.structs import fields as struct_fields

from engine.deltas import PRIORITY_MAX, ScopeKind
from engine.errors import NotSupported, RejectedInput
from engine.objectives import OBJECTIVES
from kernels.limits import PRICE_MINOR_MAX

SCOPES: tuple[ScopeKind, ...] = ("listing", "tag", "category", "channel", "retailer")
"""Strongest first."""

ENDINGS_MAX = 8
"""Most legal price endings a policy may name."""

CHANGES_MAX = 255
"""Most changes an hour that a policy may allow: what a row's slot counts in a byte."""

SCOPES_PER_RETAILER_MAX = 200_000
"""Most scopes that may hold fields for one retailer: one more is refused."""

POSITION_MIN = 0.5
"""Least share of its rival's price at which a listing may be asked to stand; 0 asks for nothing."""

BASIS_POINTS = 10_000
"""Parts of one: a ratio of 0.15 is 1,500 basis points, exactly."""

TIERS = ("auto", "realtime", "hourly")
"""How soon a listing's price answers facts; ``auto`` leaves it to its revenue rank."""

Ratio01 = Annotated[float, Meta(ge=0.0, le=1.0)]
Margin = Annotated[float, Meta(ge=0.0, le=0.95)]
RivalRatio = Annotated[float, Meta(gt=0.0, le=2.0)]
RivalPosition = Annotated[float, Meta(ge=0.0, le=2.0)]
Damping = Annotated[float, Meta(ge=0.0, le=0.95)]
Money = Annotated[int, Meta(gt=0, le=PRICE_MINOR_MAX)]
Duration = Annotated[int, Meta(gt=0, le=366 * 86_400_000)]
Ending = Annotated[str, Meta(pattern="^[0-9]{1,4}$(?!\\n)")]
Endings = Annotated[tuple[Ending, ...], Meta(max_length=ENDINGS_MAX)]
Elasticity = Annotated[float, Meta(ge=-20.0, le=-1.05)]


class PolicyFields(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The fields set at one scope; what is unset falls through to the next scope."""

    # guardrails
    min_margin: Margin | UnsetType = UNSET
    floor_minor: Money | UnsetType = UNSET
    ceiling_minor: Money | UnsetType = UNSET
    max_discount: Ratio01 | UnsetType = UNSET
    step_max: Ratio01 | UnsetType = UNSET
    changes_per_hour_max: Annotated[int, Meta(ge=0, le=CHANGES_MAX)] | UnsetType = UNSET
    kvi_rival_ratio_max: RivalRatio | UnsetType = UNSET
    kvi_brake: Annotated[float, Meta(ge=0.0, le=0.9)] | UnsetType = UNSET
    kvi_brake_ms: Duration | UnsetType = UNSET
    endings: Endings | UnsetType = UNSET
    left_digit_bias: Annotated[float, Meta(ge=0.0, le=0.5)] | UnsetType = UNSET
    # where a listing stands among its rivals
    rival_position: RivalPosition | UnsetType = UNSET
    rival_damping: Damping | UnsetType = UNSET
    # publishing
    objective: Literal["profit", "revenue", "units", "sell_through"] | UnsetType = UNSET
    approval: Literal["auto", "manual"] | UnsetType = UNSET
    approval_valid_ms: Duration | UnsetType = UNSET
    publish: bool | UnsetType = UNSET
    tier: Literal["auto", "realtime", "hourly"] | UnsetType = UNSET
    realtime_share: Ratio01 | UnsetType = UNSET
    # the model's prior
    prior_elasticity: Elasticity | UnsetType = UNSET
    prior_elasticity_sd: Annotated[float, Meta(ge=0.01, le=5.0)] | UnsetType = UNSET
    status_quo_sigma: Annotated[float, Meta(ge=0.01, le=2.0)] | UnsetType = UNSET
    # learning
    learning: bool | UnsetType = UNSET
    learning_step: Annotated[float, Meta(gt=0.0, le=0.5)] | UnsetType = UNSET
    decision_days: Annotated[int, Meta(ge=1, le=28)] | UnsetType = UNSET
    dither: Annotated[float, Meta(ge=0.0, le=0.1)] | UnsetType = UNSET
    cannibalised_share: Annotated[float, Meta(ge=0.0, le=0.9)] | UnsetType = UNSET
    exploration_budget_minor: Annotated[int, Meta(ge=0, le=2**53)] | UnsetType = UNSET
    season_end_ms: Annotated[int, Meta(ge=0, le=2**53)] | UnsetType = UNSET
    salvage_share: Ratio01 | UnsetType = UNSET
    markdowns_max: Annotated[int, Meta(ge=0, le=100)] | UnsetType = UNSET
    holdout_share: Annotated[float, Meta(ge=0.0, le=0.5)] | UnsetType = UNSET
    # rivals and rates: how old a fact may be, and which facts are believed
    rival_stale_ms: Duration | UnsetType = UNSET
    rate_stale_ms: Duration | UnsetType = UNSET
    rival_unconfirmed_per_day: Annotated[float, Meta(gt=0.0, le=1.0)] | UnsetType = UNSET
    screening_low: Annotated[float, Meta(gt=0.0, lt=1.0)] | UnsetType = UNSET
    screening_high: Annotated[float, Meta(gt=1.0, le=100.0)] | UnsetType = UNSET
    screening_mad_factor: Annotated[float, Meta(gt=0.0, le=100.0)] | UnsetType = UNSET
    screening_sources: Annotated[int, Meta(ge=1, le=16)] | UnsetType = UNSET
    screening_sources_move: Ratio01 | UnsetType = UNSET
    screening_slope_per_hour: Annotated[float, Meta(gt=0.0, le=100.0)] | UnsetType = UNSET
    # the breaker, of the whole retailer
    breaker_move: Annotated[float, Meta(gt=0.0, le=100.0)] | UnsetType = UNSET
    breaker_moved_share: Ratio01 | UnsetType = UNSET
    breaker_floor_share: Ratio01 | UnsetType = UNSET
    breaker_rate_factor: Annotated[float, Meta(ge=1.0, le=1e6)] | UnsetType = UNSET
    breaker_listings_min: Annotated[int, Meta(ge=0, le=1_000_000)] | UnsetType = UNSET
    breaker_window_ms: Duration | UnsetType = UNSET
    breaker_history_ms: Duration | UnsetType = UNSET
    cost_shock_move: Annotated[float, Meta(gt=0.0, le=100.0)] | UnsetType = UNSET
    cost_shock_share: Ratio01 | UnsetType = UNSET
    cost_shock_window_ms: Duration | UnsetType = UNSET
    cost_shock_factor: Annotated[float, Meta(gt=1.0, le=1e6)] | UnsetType = UNSET


class Policy(Struct, frozen=True, kw_only=True):
    """One listing's policy, fully resolved. The defaults here are the engine's; 0 money is none."""

    min_margin: float = 0.05
    floor_minor: int = 0
    ceiling_minor: int = 0
    max_discount: float = 1.0
    step_max: float = 0.2
    changes_per_hour_max: int = 10
    kvi_rival_ratio_max: float = 1.05
    kvi_brake: float = 0.0
    kvi_brake_ms: int = 7 * 86_400_000
    endings: tuple[str, ...] = ()
    left_digit_bias: float = 0.0
    rival_position: float = 0.0
    rival_damping: float = 0.5
    objective: str = "profit"
    approval: str = "auto"
    approval_valid_ms: int = 86_400_000
    publish: bool = True
    tier: str = "auto"
    realtime_share: float = 1.0
    prior_elasticity: float = -2.6
    prior_elasticity_sd: float = 0.7
    status_quo_sigma: float = 0.2
    learning: bool = False
    learning_step: float = 0.1
    decision_days: int = 7
    dither: float = 0.06
    cannibalised_share: float = 0.0
    exploration_budget_minor: int = 2**53
    season_end_ms: int = 0
    salvage_share: float = 0.0
    markdowns_max: int = 3
    holdout_share: float = 0.02
    rival_stale_ms: int = 86_400_000
    rate_stale_ms: int = 4 * 86_400_000
    rival_unconfirmed_per_day: float = 1.0
    screening_low: float = 0.5
    screening_high: float = 2.0
    screening_mad_factor: float = 5.0
    screening_sources: int = 2
    screening_sources_move: float = 0.05
    screening_slope_per_hour: float = 0.2
    breaker_move: float = 0.15
    breaker_moved_share: float = 0.02
    breaker_floor_share: float = 0.005
    breaker_rate_factor: float = 10.0
    breaker_listings_min: int = 20
    breaker_window_ms: int = 300_000
    breaker_history_ms: int = 3_600_000
    cost_shock_move: float = 0.15
    cost_shock_share: float = 0.2
    cost_shock_window_ms: int = 300_000
    cost_shock_factor: float = 4.0


FIELDS: tuple[str, ...] = tuple(field.name for field in struct_fields(Policy))
"""Every policy field, in the order of the documentation."""

NUMBER_MAX = 2**53
"""Beyond every field's range, and what float64 and JSON readers count exactly."""

RETAILER_ONLY: frozenset[str] = frozenset(
    name
    for name in FIELDS
    if name.startswith(("breaker_", "cost_shock_"))
    or name in ("learning", "exploration_budget_minor", "holdout_share", "realtime_share")
)
"""Fields that count over a whole retailer and may be set at its scope only."""

RATIOS: frozenset[str] = frozenset(
    {
        "min_margin",
        "max_discount",
        "step_max",
        "kvi_rival_ratio_max",
        "kvi_brake",
        "rival_position",
        "rival_damping",
        "screening_sources_move",
    }
)
"""Fields that are counted in basis points, hence at most four decimals."""

NOT_YET: Mapping[str, str] = {
    "strategy": "use objective: profit, revenue, units or sell_through within the guardrails",
    "endings_by_demand": "use left_digit_bias, with endings for the list to choose from",
    "exploration_budget": "use exploration_budget_minor, money a day for the whole retailer",
    "experiments": "send ExperimentStarted: an experiment is an event and no field",
    "markdown": "use season_end_ms, salvage_share and markdowns_max, with learning",
    "ladder": "the engine does not relate sizes yet",
    "channel_parity": "the engine does not relate channels yet",
}
"""Fields known by name and refused with ``not_supported``: what to do instead."""


POLICY_DTYPE = np.dtype(
    [
        ("floor_minor", "<i4"),  # explicit floor, 0: none
        ("ceiling_minor", "<i4"),  # 0: none
        ("min_margin_bp", "<i4"),
        ("max_discount_bp", "<i4"),  # 10,000: no bound
        ("step_max_bp", "<i4"),
        ("changes_per_hour_max", "<i4"),
        ("kvi_rival_ratio_bp", "<i4"),
        ("kvi_brake_bp", "<i4"),  # 0: none
        ("kvi_brake_ms", "<i8"),
        ("endings", "<i4", (ENDINGS_MAX,)),  # ending_code, 0: none
        ("left_digit_bias", "<f4"),
        ("objective", "u1"),  # index into engine.objectives.OBJECTIVES
        ("rival_position_bp", "<i4"),  # 0: none
        ("rival_damping_bp", "<i4"),
        ("manual", "u1"),  # 1: approval is manual
        ("publish", "u1"),
        ("tier", "u1"),  # place in TIERS
        ("approval_valid_ms", "<i8"),
        ("prior_elasticity", "<f4"),
        ("prior_elasticity_sd", "<f4"),
        ("status_quo_sigma", "<f4"),
        ("learning_step", "<f4"),
        ("decision_days", "<i4"),
        ("dither", "<f4"),
        ("cannibalised_share", "<f4"),
        ("season_end_ms", "<i8"),  # 0: none
        ("salvage_share", "<f4"),
        ("markdowns_max", "<i4"),
        ("rival_stale_ms", "<i8"),
        ("rate_stale_ms", "<i8"),
        ("rival_unconfirmed_per_day", "<f4"),
        ("screening_low", "<f4"),
        ("screening_high", "<f4"),
        ("screening_mad_factor", "<f4"),
        ("screening_sources", "<i4"),
        ("screening_sources_move", "<f4"),
        ("screening_slope_per_hour", "<f4"),
    ]
)
"""One resolved policy a row; what counts over a whole retailer stays in :class:`Policy`."""


def basis_points(ratio: float) -> int:
    """Return ``ratio`` in ten-thousandths; exact for what :func:`decode_fields` accepts."""
    return round(ratio * BASIS_POINTS)


def ending_code(ending: str) -> int:
    """Return ``ending`` as one number: its digits' count times 10,000, plus its value.

    ``"09"`` and ``"9"`` differ: the first asks for two digits. Never 0, which means none.
    """
    return len(ending) * 10_000 + int(ending)


def policy_row(policy: Policy) -> np.ndarray:
    """Return ``policy`` as one row of ``POLICY_DTYPE`` (shape ``()``)."""
    row = np.zeros((), dtype=POLICY_DTYPE)
    row["floor_minor"] = policy.floor_minor
    row["ceiling_minor"] = policy.ceiling_minor
    row["min_margin_bp"] = basis_points(policy.min_margin)
    row["max_discount_bp"] = basis_points(policy.max_discount)
    row["step_max_bp"] = basis_points(policy.step_max)
    row["changes_per_hour_max"] = policy.changes_per_hour_max
    row["kvi_rival_ratio_bp"] = basis_points(policy.kvi_rival_ratio_max)
    row["kvi_brake_bp"] = basis_points(policy.kvi_brake)
    codes = [ending_code(ending) for ending in policy.endings]
    row["endings"] = codes + [0] * (ENDINGS_MAX - len(codes))
    row["objective"] = OBJECTIVES.index(policy.objective)
    row["rival_position_bp"] = basis_points(policy.rival_position)
    row["rival_damping_bp"] = basis_points(policy.rival_damping)
    row["manual"] = policy.approval == "manual"
    row["publish"] = policy.publish
    row["tier"] = TIERS.index(policy.tier)
    for name in (
        "left_digit_bias",
        "kvi_brake_ms",
        "approval_valid_ms",
        "prior_elasticity",
        "prior_elasticity_sd",
        "status_quo_sigma",
        "learning_step",
        "decision_days",
        "dither",
        "cannibalised_share",
        "season_end_ms",
        "salvage_share",
        "markdowns_max",
        "rival_stale_ms",
        "rate_stale_ms",
        "rival_unconfirmed_per_day",
        "screening_low",
        "screening_high",
        "screening_mad_factor",
        "screening_sources",
        "screening_sources_move",
        "screening_slope_per_hour",
    ):
        row[name] = getattr(policy, name)
    return row


# ----- reading what a person wrote --------------------------------------------------------------


def decode_fields(fields: Mapping[str, object], scope: ScopeKind = "retailer") -> PolicyFields:
    """Return the checked fields of one scope.

    Raises:
        NotSupported: a field that a later version builds.
        RejectedInput: an unknown field, a value of the wrong type or out of range, or a field
            that counts over a whole retailer at another scope. The pointer begins ``/fields/``.
    """
    for name, value in fields.items():
        _check_name(name, scope)
        _check_value(name, value)
    try:
        decoded = msgspec.convert(dict(fields), PolicyFields)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$.")
        pointer = "/fields/" + where.rstrip("`").replace("[", "/").replace("]", "")
        raise RejectedInput(pointer, problem, "see docs/policy.md for type and range") from None
    _check_together(decoded)
    return decoded


def _check_name(name: str, scope: ScopeKind) -> None:
    pointer = f"/fields/{name}"
    if name in NOT_YET:
        raise NotSupported(pointer, "is not built in this version", NOT_YET[name])
    if name not in FIELDS:
        nearest = get_close_matches(name, (*FIELDS, *NOT_YET), n=1, cutoff=0.0)[0]
        raise RejectedInput(pointer, "is no policy field", f"did you mean {nearest}?")
    if name in RETAILER_ONLY and scope != "retailer":
        raise RejectedInput(
            pointer,
            f"counts over a whole retailer and may not be set for a {scope}",
            "set it at the retailer's scope",
        )


def _check_value(name: str, value: object) -> None:
    pointer = f"/fields/{name}"
    if isinstance(value, float) and not isfinite(value):
        raise RejectedInput(pointer, "is not a finite number", "give a number")
    # What lies far outside is refused by its range; a huge number has no decimals to count.
    if isinstance(value, int | float) and abs(value) > NUMBER_MAX:
        raise RejectedInput(
            pointer, "is larger than any policy field may be", "see docs/policy.md for its range"
        )
    if name in RATIOS and isinstance(value, float):
        parts = value * BASIS_POINTS
        if abs(parts - round(parts)) > 1e-6 * BASIS_POINTS / 1000:
            raise RejectedInput(
                pointer, f"{value!r} has more than four decimals", "round it, 0.15 is 15 %"
            )


def _check_together(fields: PolicyFields) -> None:
    floor, ceiling = fields.floor_minor, fields.ceiling_minor
    if floor is not UNSET and ceiling is not UNSET and floor > ceiling:
        raise RejectedInput(
            "/fields/floor_minor", f"{floor} lies above ceiling_minor {ceiling}", "lower it"
        )
    position = fields.rival_position
    if position is not UNSET and 0.0 < position < POSITION_MIN:
        raise RejectedInput(
            "/fields/rival_position",
            f"{position!r} is below {POSITION_MIN}",
            f"use {POSITION_MIN} to 2, 1 to match a rival, or 0 for no position",
        )


# ----- the book ---------------------------------------------------------------------------------


class Winner(Struct, frozen=True):
    """Which scope gave a field its value. ``scope`` is ``default`` where none did."""

    field: str
    value: Any
    scope: str
    key: str = ""

    def __str__(self) -> str:
        if self.scope == "default":
            return "the engine's default"
        if self.scope == "retailer":
            return "the retailer's policy"
        if self.scope == "experiment":
            return f"the experiment {self.key}"
        return f"the policy of {self.scope} {self.key.replace(chr(31), ' / ')}"


class _Scope(Struct, frozen=True):
    priority: int
    fields: PolicyFields


class PolicyBook:
    """All retailers' policies of one shard. Changes with deltas, resolves from memory.

    Policies resolved equal are the same object, so that a shard can intern them by identity.
    """

    def __init__(self) -> None:
        self._scopes: dict[str, dict[tuple[ScopeKind, str], _Scope]] = {}
        self._resolved: dict[tuple[str, str, str, tuple[str, ...], str], Policy] = {}
        self._interned: dict[Policy, Policy] = {}

    def change(
        self,
        retailer: str,
        scope: ScopeKind,
        key: str,
        fields: Mapping[str, object],
        priority: int = 0,
    ) -> PolicyFields:
        """Set the named fields of one scope, unset those that are null, and return all it holds.

        Nothing changes when anything is refused.

        Raises:
            NotSupported, RejectedInput: see :func:`decode_fields`.
        """
        decoded = self.checked(retailer, scope, key, fields, priority)
        self._scopes.setdefault(retailer, {})[scope, key] = _Scope(priority, decoded)
        self._resolved.clear()
        return decoded

    def checked(
        self,
        retailer: str,
        scope: ScopeKind,
        key: str,
        fields: Mapping[str, object],
        priority: int = 0,
    ) -> PolicyFields:
        """Return what :meth:`change` would let the scope hold; nothing changes.

        Raises:
            NotSupported, RejectedInput: see :func:`decode_fields`.
        """
        assert scope in SCOPES
        _check_key(scope, key)
        if not 0 <= priority <= PRIORITY_MAX:
            raise RejectedInput("/priority", "is out of range", f"use 0 to {PRIORITY_MAX}")
        scopes = self._scopes.get(retailer, {})
        before = scopes.get((scope, key))
        merged: dict[str, object] = {} if before is None else _plain(before.fields)
        for name, value in fields.items():
            if value is None:
                _check_name(name, scope)
                merged.pop(name, None)
            else:
                merged[name] = value
        decoded = decode_fields(merged, scope)
        if before is None and len(scopes) >= SCOPES_PER_RETAILER_MAX:
            raise RejectedInput(
                "/key", f"more than {SCOPES_PER_RETAILER_MAX} scopes hold fields", "use tags"
            )
        return decoded

    def resolve(
        self, retailer: str, channel: str, category: str, tags: Iterable[str], listing: str
    ) -> Policy:
        """Return the policy of one listing, every field resolved.

        ``listing`` is ``"channel\\x1fsku"``, the key of the listing's own scope.
        """
        scopes = self._scopes.get(retailer)
        if not scopes:
            return self._intern(Policy())
        # Only what holds fields enters the signature, so that the cache stays small.
        signature = (
            retailer,
            channel if ("channel", channel) in scopes else "",
            category if ("category", category) in scopes else "",
            tuple(sorted(tag for tag in tags if ("tag", tag) in scopes)),
            listing if ("listing", listing) in scopes else "",
        )
        policy = self._resolved.get(signature)
        if policy is None:
            values: dict[str, Any] = {}
            for layer in reversed(self._layers(*signature)):
                values.update(_plain(layer[2].fields))
            policy = self._intern(Policy(**values))
            self._resolved[signature] = policy
        return policy

    def retailer_policy(self, retailer: str) -> Policy:
        """Return what the retailer's own scope says: the breaker and cost-shock thresholds."""
        return self.resolve(retailer, "", "", (), "")

    def winners(
        self, retailer: str, channel: str, category: str, tags: Iterable[str], listing: str
    ) -> dict[str, Winner]:
        """Return, for every field, its value and the scope that set it."""
        won = {name: Winner(name, value, "default") for name, value in asdict(Policy()).items()}
        for scope, key, held in reversed(
            self._layers(retailer, channel, category, tuple(sorted(tags)), listing)
        ):
            for name, value in _plain(held.fields).items():
                won[name] = Winner(name, value, scope, key)
        return won

    def fields_at(self, retailer: str, scope: ScopeKind, key: str = "") -> PolicyFields | None:
        """Return what one scope holds, or ``None``."""
        held = self._scopes.get(retailer, {}).get((scope, key))
        return None if held is None else held.fields

    def at(self, retailer: str, scope: ScopeKind, key: str) -> tuple[int, dict[str, Any]] | None:
        """Return the priority and the fields of one scope, or ``None``."""
        held = self._scopes.get(retailer, {}).get((scope, key))
        return None if held is None else (held.priority, _plain(held.fields))

    def page(
        self, retailer: str, after: tuple[str, str], limit: int, scope: ScopeKind | None = None
    ) -> list[tuple[ScopeKind, str, int, dict[str, Any]]]:
        """Return the first ``limit`` scopes behind ``after``: (scope, key, priority, fields)."""
        scopes = self._scopes.get(retailer, {})
        found = (place for place in scopes if place > after and scope in (None, place[0]))
        return [
            (*place, scopes[place].priority, _plain(scopes[place].fields))
            for place in nsmallest(limit, found)
        ]

    def state(self) -> list[tuple[str, str, str, int, dict[str, Any]]]:
        """Return everything as plain values (retailer, scope, key, priority, fields), sorted."""
        return sorted(
            (retailer, scope, key, held.priority, _plain(held.fields))
            for retailer, scopes in self._scopes.items()
            for (scope, key), held in scopes.items()
        )

    @classmethod
    def restore(cls, state: Iterable[Sequence[Any]]) -> "PolicyBook":
        """Return the book that :meth:`state` described."""
        book = cls()
        for retailer, scope, key, priority, fields in state:
            book.change(retailer, scope, key, fields, priority)
        return book

    def _layers(
        self, retailer: str, channel: str, category: str, tags: tuple[str, ...], listing: str
    ) -> list[tuple[ScopeKind, str, _Scope]]:
        """Return the scopes that concern a listing, strongest first."""
        scopes = self._scopes.get(retailer, {})
        # Ties between tags of one number go to the name, so that the order of tags cannot matter.
        tagged = sorted(
            (tag for tag in tags if ("tag", tag) in scopes),
            key=lambda tag: (-scopes["tag", tag].priority, tag),
        )
        keys: list[tuple[ScopeKind, str]] = [
            ("listing", listing),
            *(("tag", tag) for tag in tagged),
            ("category", category),
            ("channel", channel),
            ("retailer", ""),
        ]
        return [(*place, scopes[place]) for place in keys if place in scopes]

    def _intern(self, policy: Policy) -> Policy:
        return self._interned.setdefault(policy, policy)


def _check_key(scope: ScopeKind, key: str) -> None:
    if scope == "retailer" and key:
        raise RejectedInput("/key", "must be empty for the retailer's scope", "leave it out")
    if scope != "retailer" and not key:
        raise RejectedInput("/key", f"is empty, so it names no {scope}", f"name the {scope}")
    if scope == "listing" and key.count("\x1f") != 1:
        raise RejectedInput("/key", "does not name a listing", "join channel and SKU with U+001F")


def _plain(fields: PolicyFields) -> dict[str, Any]:
    return {name: value for name, value in asdict(fields).items() if value is not UNSET}


assert set(SCOPES) == set(get_args(ScopeKind))
