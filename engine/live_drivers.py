"""What drives a price that no quote holds, told from what the listing's owner knows now.

A quote is small and kept for ever; the model behind it, the form of demand, a season's plan, the
money that exploring takes are the shard's state. It is told when somebody asks, as of the shard's
last recorded microbatch, and a shard that is replayed to that ``seq`` tells the same. Pure, without
jax; ``engine.live_facts`` reads the facts off a shard.
"""

from typing import Literal

import numpy as np
from msgspec import Struct

from engine.amounts import money_text, percent
from engine.drivers import DAY_MS, GOALS, Driver, ListingFacts, objective_of
from kernels import reasons

LIVE_DRIVERS = (
    *("decided", "model", "demand_form", "attributes", "rival_pull", "leash", "brake_time"),
    *("season_plan", "deliveries", "exploration", "barred"),
)
"""Every driver that only the owner of a listing tells, in the order in which they are told."""

Alone = Literal["", "rules", "none", "withdrawn", "unknown", "canary"]
"""Why no trained model speaks: nothing is learnt at all, none was ever promoted, the last one was
taken back, it does not know the listing, or it is a canary that serves others. Empty: one does."""


class ModelFacts(Struct, frozen=True, kw_only=True):
    """The trained model that speaks for a listing, and what it says."""

    version: str
    stage: str  # champion, canary
    units_a_day: float
    elasticity: float
    elasticity_sd: float


class DemandFacts(Struct, frozen=True, kw_only=True):
    """How demand is taken to answer prices, ours and rivals'."""

    form: str  # of kernels.forms.FORMS
    curvature: float  # of log demand, per squared log of the price over the one found at import
    by_attributes: float | None = None  # by brand and tags this much steeper than the category
    rival_pull: float | None  # what one percent of its rival's price moves sales, in percent
    rivals_follow: float  # the share of our cuts that rivals match


class SeasonFacts(Struct, frozen=True, kw_only=True):
    """What a season has told, and the price at which the fluid plan would leave it now."""

    sells_through: bool  # by the objective; else it is cleared in few cuts
    days_left: float
    stock: int  # -1: unknown
    days_watched: float
    units_a_day: float  # at the price found at import, by all days of the season
    wanted_minor: int  # the plan's price, before bounds and before what a cut must be worth
    cuts: int
    cuts_most: int


class DeliveryFacts(Struct, frozen=True, kw_only=True):
    """The deliveries of a listing whose price its stock asks for."""

    days: float  # mean between two of them
    sure_days: float  # what of that is relied on
    passed_days: float  # since the last one
    units: float  # what one brings
    emptied: float  # share of them that found the shelf empty
    stock: int


class ExplorationFacts(Struct, frozen=True, kw_only=True):
    """How far a price strays in order to learn, and what that is expected to cost."""

    strays: float  # ratio, with its sign
    cost_minor: float  # a day, expected
    budget_minor: int | None  # a day, of the whole retailer; None: no bound
    scale: float  # of each dither, what the budget leaves of it


class LeashFacts(Struct, frozen=True, kw_only=True):
    """A reference that nobody confirms, held back from what is told of it."""

    told_minor: int  # 0: that there is no rival any more
    held_minor: int
    per_day: float


class BrakeFacts(Struct, frozen=True, kw_only=True):
    """A brake that is on, whether it binds or not."""

    lets_minor: int  # the lowest that a rival may pull the price to
    ends_ms: int


class BarredFacts(Struct, frozen=True, kw_only=True):
    """Prices that ended a listing's sales, and for how long nothing above is asked."""

    above_minor: int
    days: int


class LiveFacts(Struct, frozen=True, kw_only=True):
    """What the owner of a listing knows of it beside its quote."""

    seq: int  # of the last recorded microbatch, that all of this is as of
    decided_ms: int
    quote: tuple[int, int]  # seq and index of the newest quote: what this is about
    alone: Alone
    asked_minor: int = 0  # what learning asks, 0: nothing, or a position or an arm goes before it
    model: ModelFacts | None = None
    named: str = ""  # the model that does not speak for it
    demand: DemandFacts | None = None
    season: SeasonFacts | None = None
    deliveries: DeliveryFacts | None = None
    exploration: ExplorationFacts | None = None
    leash: LeashFacts | None = None
    brake: BrakeFacts | None = None
    barred: BarredFacts | None = None


def live_drivers(quote: np.void, listing: ListingFacts, live: LiveFacts) -> tuple[Driver, ...]:
    """Return what drives the price as its owner knows it, in the order of :data:`LIVE_DRIVERS`.

    What was learnt is told of a price that comes from it: a position, an arm or a price that waits
    asks nothing of it. A quote is made where a price or a state changes, so learning may have
    decided since that it stays.
    """
    learnt = live.asked_minor > 0
    found = [
        _decided(quote, listing, live) if learnt else None,
        _model(live) if learnt or live.alone == "rules" else None,
        _form(live.demand) if learnt and live.demand else None,
        _attributes(live.demand) if learnt and live.demand else None,
        _pull(live.demand) if learnt and live.demand else None,
        _leash(live.leash, listing.currency) if live.leash else None,
        _brake(live, live.brake, listing.currency) if live.brake else None,
        _season(live.season, listing.currency) if learnt and live.season else None,
        _deliveries(live.deliveries) if learnt and live.deliveries else None,
        _exploration(live.exploration, listing.currency) if learnt and live.exploration else None,
        _barred(live.barred, listing.currency) if learnt and live.barred else None,
    ]
    return tuple(each for each in found if each is not None)


def _now(name: str, value: float | int | None, text: str) -> Driver:
    return Driver(name=name, value=value, text=text, as_of="now")


def _decided(quote: np.void, listing: ListingFacts, live: LiveFacts) -> Driver | None:
    """Tell of a decision that the quote does not know of: it was made later."""
    asked = live.asked_minor
    if int(quote["reasons"]) & reasons.LEARNT and int(quote["target_minor"]) == asked:
        return None
    goal = GOALS[objective_of(listing, live.decided_ms)]
    text = (
        f"Learning has decided since then, and asks {money_text(asked, listing.currency)}, {goal}."
    )
    return _now("decided", asked, text)


def _model(live: LiveFacts) -> Driver:
    said = live.model
    if said is not None:
        text = (
            f"The trained model {said.version} ({said.stage}) is counted beside what was learnt in"
            f" the stream: it says {said.units_a_day:.3g} units a day and an elasticity of"
            f" {said.elasticity:.2f} (give or take {said.elasticity_sd:.2f})."
        )
        return _now("model", None, text)
    alone = {
        "rules": "No demand is learnt: the price comes from rules and from what was stated of it.",
        "none": "No trained model was promoted (why one was refused, its command's outcome says)",
        "withdrawn": "No trained model serves: the last was taken back, or rules were asked for",
        "unknown": f"The trained model {live.named} says nothing of this listing",
        "canary": f"The trained model {live.named} is a canary and serves other listings",
    }[live.alone]
    if live.alone != "rules":
        alone += ": the price comes from what was learnt in the stream."
    return _now("model", None, alone)


def _form(demand: DemandFacts) -> Driver:
    curved = f"(curvature {demand.curvature:.2f})"
    text = {
        "constant": f"Its elasticity is taken to be the same at every price {curved}",
        "exponential": f"Each cent is taken to cost the same share of its sales {curved}",
        "pooled": f"Its elasticity is taken to change with the price as all listings' {curved}",
    }[demand.form]
    chosen = ", which has foreseen its category's sales best."
    if demand.form == "pooled":
        chosen = ", since no fixed form has foreseen its category's sales better."
    return _now("demand_form", round(demand.curvature, 4), text + chosen)


def _attributes(demand: DemandFacts) -> Driver | None:
    steeper = demand.by_attributes
    if steeper is None:
        return None
    more = "more" if steeper > 0 else "less"
    text = (
        f"By its brand and tags its customers are taken to be {percent(abs(steeper))} {more}"
        " sensitive to prices than its category's."
    )
    return _now("attributes", round(steeper, 4), text)


def _pull(demand: DemandFacts) -> Driver | None:
    if demand.rival_pull is None:
        return None
    text = (
        f"A rival who is one percent cheaper is taken to move its sales by"
        f" {-demand.rival_pull:+.2f} %, and rivals to match {percent(demand.rivals_follow)} of a"
        " cut."
    )
    return _now("rival_pull", round(demand.rival_pull, 4), text)


def _leash(leash: LeashFacts, currency: str) -> Driver:
    told = f"{money_text(leash.told_minor, currency)}" if leash.told_minor else "no rival any more"
    text = (
        f"Rivals tell of {told}, which nobody confirms: their reference goes at most"
        f" {percent(leash.per_day)} a day and stands at {money_text(leash.held_minor, currency)}."
    )
    return _now("leash", leash.told_minor, text)


def _brake(live: LiveFacts, brake: BrakeFacts, currency: str) -> Driver:
    days = (brake.ends_ms - live.decided_ms) / DAY_MS
    text = (
        f"A brake is on for another {days:.3g} days, and eases in its second half: its"
        " rival pulls the price no lower than"
        f" {money_text(brake.lets_minor, currency)}."
    )
    return _now("brake_time", brake.lets_minor, text)


def _season(season: SeasonFacts, currency: str) -> Driver | None:
    if season.stock < 0 or not season.days_watched:
        return None
    text = (
        f"In {season.days_watched:.3g} days of its season it has sold as if"
        f" {season.units_a_day:.3g} a day at the price found at import, and {season.stock} are left"
        f" for {season.days_left:.3g} days:"
        f" they last just so long at {money_text(season.wanted_minor, currency)}"
    )
    if not season.sells_through:
        text = text.replace("they last just so long", "the plan would clear them")
        text += f"; {season.cuts} of {season.cuts_most} cuts are made"
    return _now("season_plan", season.wanted_minor, f"{text}.")


def _deliveries(told: DeliveryFacts) -> Driver:
    text = (
        f"It is dearer than its best price would be without regard to stock, so that stock lasts:"
        f" a delivery brings {told.units:.3g} units every {told.days:.3g} days, of which"
        f" {told.sure_days:.3g} are relied on and {told.passed_days:.3g} have passed;"
        f" {told.stock} are in stock, and {percent(told.emptied)} of deliveries found next to none."
    )
    return _now("deliveries", round(told.units, 4), text)


def _exploration(told: ExplorationFacts, currency: str) -> Driver:
    way = f"It strays by {told.strays * 100:+.2g} %, which is expected to cost"
    text = f"{way} {told.cost_minor:.3g} minor units of {currency} a day"
    if told.budget_minor is None:
        text += "; exploring has no budget but what pays back."
    elif told.budget_minor:
        share, budget = told.cost_minor / told.budget_minor, money_text(told.budget_minor, currency)
        text += f", {percent(share)} of the {budget} that the retailer gives to exploring"
        text += f"; that budget leaves {percent(told.scale)} of each listing's straying."
    else:
        text += "."
    return _now("exploration", round(told.cost_minor, 4), text)


def _barred(barred: BarredFacts, currency: str) -> Driver:
    days = "a day" if barred.days == 1 else f"{barred.days} days"
    text = (
        f"A dearer price has ended its sales, so nothing above"
        f" {money_text(barred.above_minor, currency)} is asked for {days}."
    )
    return _now("barred", barred.above_minor, text)
