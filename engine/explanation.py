"""Why a price is what it is, for a program and for a person. Pure, and without jax.

A quote carries what its explanation needs but for names; those come from the catalogue
(:class:`engine.drivers.ListingFacts`). The explanation names the rule that set the price, its
figure and the scope that set it, what the price would be without it, and what drove the wish. Which
model speaks, which form demand has, what a season's plan wants and more no quote holds: whoever can
ask the owner passes what he knows now (:class:`engine.live_drivers.LiveFacts`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import asdict

from engine.amounts import money_text, percent
from engine.decided import Cause, State
from engine.drivers import Driver, ListingFacts, drivers_of, position_of, waits
from engine.live_drivers import LiveFacts, live_drivers
from kernels import reasons
from kernels.limits import PRICE_MINOR_MAX
from kernels.reasons import BINDINGS, RULES

AT_PEAK = "at which the model expects most profit"

SETTING: Mapping[str, str] = {
    "floor": "min_margin",
    "ceiling": "ceiling_minor",
    "max_discount": "max_discount",
    "step": "step_max",
    "rate": "changes_per_hour_max",
    "kvi": "kvi_rival_ratio_max",
    "brake": "kvi_brake",
    "ending": "endings",
}
"""The policy field behind each rule and the brake; MAP is the listing's own."""


class Binding(Struct, frozen=True, kw_only=True):
    """The rule that set the price, or the brake on the rule for key value items."""

    rule: str
    price_minor: int  # where it put the price
    without_minor: int  # what the price would be if it were absent
    setting: str  # policy field, or map_minor of the listing
    value: Any  # of the setting; None where the policy is not known
    set_by: str  # "the policy of category juice", "the listing", ""


class Explanation(Struct, frozen=True, kw_only=True):
    """An explanation; ``text`` says all of it in sentences."""

    state: str
    in_force_minor: int
    previous_minor: int
    proposed_minor: int
    target_minor: int
    floor_minor: int
    ceiling_minor: int
    binding: Binding | None
    moved_by: tuple[str, ...]  # every rule that moved the price, strongest first
    reasons: tuple[str, ...]
    confidence: float
    profit_change_minor: float
    drivers: tuple[Driver, ...]
    text: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        plain = asdict(self)
        plain["binding"] = None if self.binding is None else asdict(self.binding)
        plain["drivers"] = [asdict(driver) for driver in self.drivers]
        return plain


def explain(
    quote: np.void, listing: ListingFacts, decided_ms: int = 0, live: LiveFacts | None = None
) -> Explanation:
    """Explain one quote.

    Args:
        quote: a row of ``QUOTE_DTYPE``.
        listing: what the catalogue says of it now.
        decided_ms: when it was decided; 0: unknown, and no season is told.
        live: what the owner knows now, of the same quote; ``None``: nobody was asked.
    """
    mask = int(quote["reasons"])
    binding = _binding(quote, listing)
    drivers = drivers_of(quote, listing, decided_ms)
    now = () if live is None else live_drivers(quote, listing, live)
    sentences = [_state_sentence(quote, listing)]
    if binding is not None:
        sentences.append(_binding_sentence(binding, quote, listing))
    elif int(quote["proposed_minor"]) > 0 and not mask & reasons.MODEL_INVALID:
        wish = AT_PEAK
        if mask & reasons.LEARNT:
            wish = "that the last decision asks"
        elif position_of(quote, listing) is not None:
            wish = "to which its position takes it for now"
        elif waits(quote, listing):
            wish = "that was in force before"
        sentences.append(f"No rule moved it: it is the price {wish}.")
    if mask & reasons.OVERRIDDEN:
        sentences.append("Not every rule could be met; the stronger went before the weaker.")
    sentences += _remarks(quote, mask, position_of(quote, listing) is not None)
    sentences += _tier(quote, listing)
    sentences += [driver.text for driver in drivers]
    if now:
        sentences += ["As of now:", *(driver.text for driver in now)]
    return Explanation(
        state=State(int(quote["state"])).name.lower(),
        in_force_minor=int(quote["in_force_minor"]),
        previous_minor=int(quote["previous_minor"]),
        proposed_minor=int(quote["proposed_minor"]),
        target_minor=int(quote["target_minor"]),
        floor_minor=int(quote["floor_minor"]),
        ceiling_minor=int(quote["ceiling_minor"]),
        binding=binding,
        moved_by=rules_of(quote),
        reasons=reasons.names(mask),
        confidence=float(quote["confidence"]),
        profit_change_minor=float(quote["profit_change"]),
        drivers=(*drivers, *now),
        text=" ".join(sentences),
    )


def rules_of(quote: np.void) -> tuple[str, ...]:
    """Return every rule that moved the price, strongest first."""
    return tuple(rule for k, rule in enumerate(RULES) if int(quote["reasons"]) & 1 << k)


# ----- the rule that set the price ---------------------------------------------------------------


def _binding(quote: np.void, listing: ListingFacts) -> Binding | None:
    index = int(quote["binding"])
    price = int(quote["proposed_minor"]) or int(quote["in_force_minor"])
    if index >= len(BINDINGS) or price <= 0:
        return None
    rule = BINDINGS[index]
    setting, value, set_by = "map_minor", listing.map_minor or None, "the listing"
    if rule != "legal":
        setting = SETTING[rule]
        explicit = listing.policy.get("floor_minor")
        if rule == "floor" and explicit is not None and explicit.value == price:
            setting = "floor_minor"
        winner = listing.policy.get(setting)
        value, set_by = (None, "") if winner is None else (winner.value, str(winner))
    return Binding(
        rule=rule,
        price_minor=price,
        without_minor=int(quote["without_minor"]),
        setting=setting,
        value=value,
        set_by=set_by,
    )


def _binding_sentence(binding: Binding, quote: np.void, listing: ListingFacts) -> str:
    currency = listing.currency
    price, value = money_text(binding.price_minor, currency), binding.value
    by = f", set by {binding.set_by}," if binding.set_by else ""  # ends a clause
    held = money_text(int(quote["previous_minor"]) or int(quote["in_force_minor"]), currency)
    up = binding.price_minor > int(quote["target_minor"])
    moved = f"{'raised' if up else 'lowered'} it to {price}"
    match binding.rule:
        case "legal":
            said = f"The minimum advertised price {moved}"
        case "floor" if binding.setting == "floor_minor":
            said = f"The floor{by} {moved}"
        case "floor":
            margin = "" if value is None else f" for a margin of {percent(value)}"
            said = f"The floor{margin}{by} {moved}"
        case "ceiling":
            said = f"The ceiling{by} {moved}"
        case "max_discount":
            share = "" if value is None else f" of {percent(value)}"
            rrp = (
                f" off the RRP of {money_text(listing.rrp_minor, currency)}"
                if listing.rrp_minor
                else ""
            )
            said = f"The largest discount{share}{rrp}{by} {moved}"
        case "step":
            share = "" if value is None else f" of {percent(value)}"
            said = f"The largest step{share} from {held}{by} {moved}"
        case "rate":
            count = "" if value is None else f" of {value}"
            said = f"The limit{count} on changes within an hour{by} kept it at {price}"
        case "kvi":
            share = "" if value is None else f" {percent(value)} of"
            rival = f"its rival's {money_text(int(quote['rival_minor']), currency)}{by}"
            said = f"As a key value item it may cost at most{share} {rival} which {moved}"
        case "brake" if position_of(quote, listing) is not None and "kvi" not in rules_of(quote):
            back = "a part" if value is None else f"up to {percent(value)}"
            rival = money_text(int(quote["rival_minor"]), currency)
            said = (
                f"Its rival answers its cuts, so for now a brake{by} gives back {back} of the way"
                f" to where its position asks it to stand because of {rival}, and leaves it at"
                f" {price}"
            )
        case "brake":
            rival = money_text(int(quote["rival_minor"]), currency)
            back = "a part" if value is None else f"up to {percent(value)}"
            said = (
                f"Its rival answers its cuts, so for now a brake{by} gives back {back} of what the"
                f" rule for key value items takes because of {rival}, and leaves it at {price}"
            )
        case _:
            digits = "" if not value else " " + " or ".join(value)
            said = f"Prices end in{digits or ' certain digits'}{by} which {moved}"
    without = money_text(binding.without_minor, currency)
    if binding.without_minor == binding.price_minor:
        return f"{said}; without it another rule would leave the price where it is."
    return f"{said}; without it the price would be {without}."


# ----- states and remarks ------------------------------------------------------------------------


def _state_sentence(quote: np.void, listing: ListingFacts) -> str:
    currency, mask = listing.currency, int(quote["reasons"])
    now, before = int(quote["in_force_minor"]), int(quote["previous_minor"])
    proposed = money_text(int(quote["proposed_minor"]), currency)
    stays = f"{money_text(now, currency)} stays in force" if now > 0 else "no price is in force"
    match State(int(quote["state"])):
        case State.LIVE if now <= 0:
            return "No price is in force yet."
        case State.LIVE if before in (0, now):
            return f"{money_text(now, currency)} is in force."
        case State.LIVE:
            was = money_text(before, currency)
            return f"{money_text(now, currency)} is in force, {was} was before."
        case State.SHADOW if mask & reasons.UNPUBLISHED:
            return (
                f"The policy says not to publish this listing: {proposed} is a proposal, {stays}."
            )
        case State.SHADOW:
            return f"In shadow mode nothing is put in force: {proposed} is a proposal, {stays}."
        case State.PENDING:
            return f"{proposed} waits for a person to approve it; until then {stays}."
        case State.PINNED:
            return f"A person pinned the price: {stays}."
        case State.HELD:
            return (
                f"The breaker holds back {proposed}, because too many prices would have moved too"
                f" far at once; {stays} until a person resumes."
            )
        case State.INFEASIBLE:
            return f"{_contradiction(quote, listing)}; {stays}."
        case State.UNPUBLISHABLE:
            return f"{_missing(mask)}, so no price may be published; {stays}."
        case State.HALTED:
            return f"Publishing is halted: {stays} until a person resumes."
        case State.REMOVED:
            return "The listing was removed."


def _contradiction(quote: np.void, listing: ListingFacts) -> str:
    """Say why legal, floor and ceiling leave no price."""
    least, most = int(quote["floor_minor"]), int(quote["ceiling_minor"])
    if int(quote["reasons"]) & reasons.PIN_OUT_OF_BOUNDS:
        return "The pinned price now lies outside of what is legal, the floor and the ceiling"
    if least > PRICE_MINOR_MAX:
        return "No price earns the margin that the policy asks for, after VAT and fees"
    if least > most:
        whose = "minimum advertised price" if least == listing.map_minor else "floor"
        return (
            f"The {whose} of {money_text(least, listing.currency)} lies above the ceiling of"
            f" {money_text(most, listing.currency)}, which leaves no price"
        )
    return "The minimum advertised price, the floor and the ceiling leave no price"


def _missing(mask: int) -> str:
    """Say what a listing lacks that cannot be published."""
    for bit, text in (
        (reasons.NO_COST, "The cost is unknown"),
        (reasons.STALE_RATE, "A currency rate that it needs is missing or too old"),
        (reasons.NO_FLOOR, "There is no floor"),
        (reasons.MODEL_INVALID, "The model gave no usable figure"),
    ):
        if mask & bit:
            return text
    return "Nothing could be decided"


def _remarks(quote: np.void, mask: int, positioned: bool) -> list[str]:
    """Say what else happened, a sentence each."""
    state = State(int(quote["state"]))
    # A KVI is kept from falling only; a position goes neither way.
    doubted = "moved towards its rival" if positioned else "lowered"
    said = [
        text
        for bit, text in (
            (reasons.FIRST_PRICE, "It is the first price, so step and rate had no say."),
            (reasons.STALE_RIVALS, "All rivals' prices are too old to count."),
            (reasons.APPROVED, "A person approved it."),
            (reasons.REJECTED, "A person rejected the proposal."),
            (
                reasons.UNKNOWN_OWN_IDENTITY,
                f"It was not {doubted}, because a rival may be ourselves under another name.",
            ),
            (reasons.CLAMPED, "The engine corrected the kernel's figure, which is worth an alarm."),
        )
        if mask & bit
    ]
    if mask & reasons.MODEL_INVALID and state is not State.UNPUBLISHABLE:
        said.append("The model gave no usable figure, so nothing new is proposed.")
    if mask & reasons.HALTED and state is not State.HALTED:
        said.append("Publishing is halted.")
    return said


def _tier(quote: np.void, listing: ListingFacts) -> list[str]:
    """Say that a listing is looked at hourly, and why.

    A quote tells the rank of its listing only where the full hour has caused it; of another the
    rule is told that holds for all of its retailer's listings.
    """
    tier, share = listing.policy.get("tier"), listing.policy.get("realtime_share")
    at_hour = int(quote["cause_kind"]) == Cause.HOUR
    waits = "what rivals ask and what is sold moves it at each full hour"
    if tier is not None and tier.value == "hourly":
        return [f"It is looked at hourly, set by {tier}: {waits}."]
    if tier is not None and tier.value == "auto" and share is not None and share.value < 1.0:
        first = f"the first {percent(share.value)} of its retailer's listings"
        if not share.value:
            return [f"It is looked at hourly, like all of its retailer's listings: {waits}."]
        if at_hour:
            return [
                f"It is looked at hourly, because by revenue it is not among {first}, which are"
                f" priced in real time: {waits}."
            ]
        return [f"By revenue, {first} are priced in real time and the others hourly."]
    if at_hour:
        return ["It was looked at hourly then."]
    return []
