"""Drive a pricing shard from Python: the documented surface of the engine, and nothing else.

A shard is a pure state machine. Feed it deltas, read what it decided, feed it the next::

    from repricer import CostChanged, ListingChanged, RetailerAdded, Shard, batch_of

    shard = Shard()
    batch = batch_of([
        RetailerAdded(retailer="acme", currency="EUR", mode="live", observed_ms=1),
        ListingChanged(
            retailer="acme", channel="shop", sku="A1", price_minor=1999, observed_ms=1
        ),
        CostChanged(retailer="acme", channel="shop", sku="A1", cost_minor=900, observed_ms=2),
    ], after=shard)
    decided = shard.apply(batch, now_ms=3)
    shard.record(decided)
    decided.quotes["in_force_minor"]  # what is in force now, a row a listing that changed

``docs/engine.md`` has a whole simulation in thirty lines, and tells the life of a microbatch.
"""

import warnings
from collections.abc import Iterable, Sequence

from engine.checking import checked
from engine.decided import (
    QUOTE_DTYPE,
    Cause,
    Decided,
    Given,
    Outcome,
    State,
    parse_quote_id,
    quote_id,
)
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    ExperimentStarted,
    ExperimentStopped,
    FeesChanged,
    ListingChanged,
    ListingRemoved,
    ModeChanged,
    ModelPromoted,
    PlanApplied,
    Planned,
    PolicyChanged,
    PriceApproved,
    PricePinned,
    PriceRejected,
    PriceReported,
    PriceUnpinned,
    PromotionScheduled,
    PublishingHalted,
    PublishingResumed,
    RateChanged,
    RetailerAdded,
    ScopeChange,
    StockCounted,
    UnitsSold,
)
from engine.demand import Demand, Elasticities, Forecast, fit_demand
from engine.errors import NotSupported, Overlooked, PricingError, RejectedInput
from engine.foresight import Foreseen, plan, what_if
from engine.microbatch import (
    FactColumns,
    Microbatch,
    ObjectDelta,
    Position,
    Refusal,
    microbatch_of,
)
from engine.policy import Policy, PolicyFields
from engine.replay import Agreement
from engine.routing import key64
from engine.shard import Shard, ShardSettings
from engine.suppositions import Case, Selection
from kernels.reasons import names as reason_names

__all__ = [
    "QUOTE_DTYPE",
    "Agreement",
    "AnyDelta",
    "Case",
    "Cause",
    "CompetitorPriced",
    "CostChanged",
    "Decided",
    "Demand",
    "Elasticities",
    "ExperimentStarted",
    "ExperimentStopped",
    "FactColumns",
    "FeesChanged",
    "Forecast",
    "Foreseen",
    "Given",
    "ListingChanged",
    "ListingRemoved",
    "Microbatch",
    "ModeChanged",
    "ModelPromoted",
    "NotSupported",
    "ObjectDelta",
    "Outcome",
    "Overlooked",
    "PlanApplied",
    "Planned",
    "Policy",
    "PolicyChanged",
    "PolicyFields",
    "Position",
    "PriceApproved",
    "PricePinned",
    "PriceRejected",
    "PriceReported",
    "PriceUnpinned",
    "PricingError",
    "PromotionScheduled",
    "PublishingHalted",
    "PublishingResumed",
    "RateChanged",
    "Refusal",
    "RejectedInput",
    "RetailerAdded",
    "ScopeChange",
    "Selection",
    "Shard",
    "ShardSettings",
    "State",
    "StockCounted",
    "UnitsSold",
    "batch_of",
    "decide",
    "fit_demand",
    "key64",
    "parse_quote_id",
    "plan",
    "quote_id",
    "reason_names",
    "what_if",
]


def batch_of(
    deltas: Iterable[AnyDelta], *, after: Shard | None = None, lane: int = 1
) -> Microbatch:
    """Return a microbatch of deltas, one record each, that follows what ``after`` has consumed.

    Facts that stand together become one block of columns, as they do when they come from a log.

    Raises:
        RejectedInput: a delta would be refused on the wire, too: a field is missing, of another
            type, or out of its bounds. It names the delta's place and the field. No shard has taken
            anything of the batch.
    """
    consumed = (-1, -1) if after is None else (after.last_command, after.last_delta)
    return microbatch_of(checked(deltas), *consumed, lane=lane)


def decide(shard: Shard, deltas: Iterable[AnyDelta], now_ms: int) -> Decided:
    """Apply deltas as one microbatch and record it: for simulations, without a log.

    What a simulation would not see by its prices it is warned of (``Overlooked``): deltas that were
    not taken, and a retailer whom the breaker halts. Prices are the same with and without.

    Raises:
        RejectedInput: as :func:`batch_of`; then the shard has taken nothing.
    """
    told = list(deltas)
    batch = batch_of(told, after=shard)
    first = shard.last_delta + 1
    decided = shard.apply(batch, now_ms)
    shard.record(decided)
    for warning in _overlooked(told, first, decided):
        warnings.warn(warning, Overlooked, stacklevel=2)
    return decided


def _overlooked(told: Sequence[AnyDelta], first: int, decided: Decided) -> list[str]:
    """Return what a simulation must hear of: one text of all refusals, and one a halt.

    Left out are rivals' prices that the screening sets aside, which is its work, and facts that
    say what is known. A duplicate of sales stays in: its units are not counted.
    """
    found = []
    for refusal in decided.exceptions:
        delta = told[refusal.position.offset - first]
        screened = refusal.verdict == "quarantined" and isinstance(delta, CompetitorPriced)
        known = refusal.verdict == "duplicate" and not isinstance(delta, UnitsSold)
        if not screened and not known:
            found.append(f"a {type(delta).__name__}, {refusal.verdict}: {refusal.reason}")
    texts = []
    if found:
        texts.append(f"{len(found)} of {len(told)} deltas were not taken, the first {found[0]}")
    for change in decided.catalogue:
        if change.what == "breaker":
            why = "; ".join(change.fields["reasons"])
            texts.append(
                f"the breaker halted {change.retailer}: {why}. Prices stay until PublishingResumed"
            )
    return texts
