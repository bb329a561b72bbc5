"""Why a price is what it is: rules in order of priority, and one bit a reason. Imports nothing.

The first eight bits are the rules themselves: bit ``k`` of a mask says that ``RULES[k]`` moved the
price. The higher bits say what else happened to the row. Bits are stored in every quote, so a
number once released never changes its meaning.
"""

RULES = (
    "legal",
    "floor",
    "ceiling",
    "max_discount",
    "step",
    "rate",
    "kvi",
    "ending",
)
"""In this order rules narrow the interval of allowed prices; a later one yields to an earlier."""

LEGAL, FLOOR, CEILING, MAX_DISCOUNT, STEP, RATE, KVI, ENDING = range(8)
"""Indices in ``RULES``, as ``binding`` of a quote holds them."""

BRAKE = 8
"""``binding`` of a quote whose KVI rule was braked: its rival answers every cut."""

BINDINGS = (*RULES, "brake")
"""All that may bind. The brake has no bit of its own: it is the rule for KVIs that it moderates,
and what that rule gave up shows in the bit ``overridden``."""

BINDING_NONE = 255
"""``binding`` of a quote whose price no rule moved."""

OVERRIDDEN = 1 << 8
"""A rule would have emptied the interval and yielded to the rules before it."""

INFEASIBLE = 1 << 9
"""Legal, floor and ceiling leave no price; the price in force stays."""

NO_COST = 1 << 10
"""The cost is unknown: fails closed, nothing is proposed."""

NO_FLOOR = 1 << 11
"""No floor could be computed: fails closed, nothing is proposed."""

STALE_RATE = 1 << 12
"""A currency rate that the row needs is stale or missing: fails closed."""

MODEL_INVALID = 1 << 13
"""The model's output was not a number or not plausible: nothing is proposed."""

FIRST_PRICE = 1 << 14
"""No price was in force, so step and rate had nothing to measure against."""

STATUS_QUO_USED = 1 << 15
"""The price found at import and its cost were taken as evidence on the elasticity."""

STALE_RIVALS = 1 << 16
"""Rivals are known, and all of them are stale or not comparable."""

HELD_BY_BREAKER = 1 << 17
"""The breaker holds the move back until a command resumes."""

HALTED = 1 << 18
"""Publishing is halted; the price in force stays."""

PINNED = 1 << 19
"""A person fixed the price."""

NEEDS_APPROVAL = 1 << 20
"""The proposal waits for a person."""

SHADOW = 1 << 21
"""The retailer is in shadow mode: proposed and shown, never put in force."""

CLAMPED = 1 << 22
"""The engine's integer clamp changed what the kernel returned; always worth an alarm."""

UNKNOWN_OWN_IDENTITY = 1 << 23
"""We may be our own rival in a feed, so the price was not lowered."""

UNPUBLISHED = 1 << 24
"""The policy says not to publish this listing."""

APPROVED = 1 << 25
"""A person approved this price."""

REJECTED = 1 << 26
"""A person rejected the proposal; the price in force stays."""

PIN_OUT_OF_BOUNDS = 1 << 27
"""The pinned price fell outside legal, floor or ceiling after it was pinned."""

LEARNT = 1 << 28
"""The price comes from demand learnt in the stream."""

DITHERED = 1 << 29
"""The price strays a little from the best one, to learn from what sells."""

TREATED = 1 << 30
"""An experiment treats the listing: the treatment's policy, or price, holds."""

HELD_OUT = 1 << 31
"""The listing is held out: its price stays, so that the engine's others can be compared with it."""

REASONS: dict[int, str] = {
    **{1 << index: rule for index, rule in enumerate(RULES)},
    OVERRIDDEN: "overridden",
    INFEASIBLE: "infeasible",
    NO_COST: "no_cost",
    NO_FLOOR: "no_floor",
    STALE_RATE: "stale_rate",
    MODEL_INVALID: "model_invalid",
    FIRST_PRICE: "first_price",
    STATUS_QUO_USED: "status_quo_used",
    STALE_RIVALS: "stale_rivals",
    HELD_BY_BREAKER: "held_by_breaker",
    HALTED: "halted",
    PINNED: "pinned",
    NEEDS_APPROVAL: "needs_approval",
    SHADOW: "shadow",
    CLAMPED: "clamped",
    UNKNOWN_OWN_IDENTITY: "unknown_own_identity",
    UNPUBLISHED: "unpublished",
    APPROVED: "approved",
    REJECTED: "rejected",
    PIN_OUT_OF_BOUNDS: "pin_out_of_bounds",
    LEARNT: "learnt",
    DITHERED: "dithered",
    TREATED: "treated",
    HELD_OUT: "held_out",
}
"""Every bit and its name, in the order of the bits."""


def names(mask: int) -> tuple[str, ...]:
    """Return the names of the bits set in ``mask``, lowest bit first."""
    return tuple(name for bit, name in REASONS.items() if mask & bit)
