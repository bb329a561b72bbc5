"""What a what-if supposes, and of which listings. Imports no jax, so that a gateway can read it."""

from typing import Annotated

from msgspec import Meta, Struct

from engine.deltas import PLAN_CHANGES_MAX, ScopeChange
from kernels.limits import PRICE_MINOR_MAX

CASES_MAX = 8
"""Most cases that one what-if compares."""

RatioGiven = Annotated[float, Meta(gt=0.0, le=100.0)]
Names = Annotated[tuple[str, ...], Meta(max_length=10_000)]


class Selection(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which listings of a retailer are asked about; what is left out selects all."""

    channel: str | None = None
    category: str | None = None
    tag: str | None = None
    skus: Names | None = None


class Case(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One supposition. Costs and rivals change for the listings selected, a policy for its scopes.

    Neither screening nor the breaker judges a supposition: it is asked what would follow from it.
    """

    name: Annotated[str, Meta(max_length=100)] = ""
    cost_ratio: RatioGiven = 1.0  # 1.05: costs are five percent higher
    rival_ratio: RatioGiven = 1.0  # of every rival's landed price
    rival_minor: Annotated[int, Meta(ge=0, le=PRICE_MINOR_MAX)] = (
        0  # the only rival's; 0: as they are
    )
    changes: Annotated[tuple[ScopeChange, ...], Meta(max_length=PLAN_CHANGES_MAX)] = ()
