"""What drove a price's wish, told from its quote and its listing's policy. Pure, without jax.

All of it was kept with the decision, but for the policy, which is told as it says now: a receipt of
last week reads the same today unless the policy has changed. What only the owner of the listing
knows is in ``engine.live_drivers``.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from msgspec import Struct

from engine.amounts import money_text, percent
from engine.policy import Winner
from kernels import reasons
from kernels.hyperparameters import LEFT_DIGIT_PART

DAY_MS = 86_400_000


class ListingFacts(Struct, frozen=True, kw_only=True):
    """What the catalogue knows of a listing, as far as an explanation needs it."""

    channel: str
    sku: str
    currency: str
    title: str = ""
    category: str = ""
    rrp_minor: int = 0
    map_minor: int = 0
    kvi: bool = False
    policy: Mapping[str, Winner] = {}  # PolicyBook.winners of the listing; may be empty


class Driver(Struct, frozen=True, kw_only=True):
    """One thing that the price's wish was made of; ``docs/api.md`` has the table of names."""

    name: str  # of DRIVERS, or of engine.live_drivers.LIVE_DRIVERS
    value: float | int | None
    text: str
    as_of: Literal["decision", "now"] = "decision"  # now: as the owner knows it when asked


DRIVERS = (
    *("cost", "elasticity", "waits", "objective", "season", "ending", "cannibalisation", "dither"),
    *("experiment", "holdout", "rival", "position", "brake", "stock"),
)
"""Every driver that a quote and its policy tell, in the order in which they are told."""


# ----- where it asks to stand --------------------------------------------------------------------


def position_of(quote: np.void, listing: ListingFacts) -> Winner | None:
    """Return the position that the price follows, ``None`` where none holds it.

    As the policy says now: no bit of the quote tells it. One that holds leaves learning no say, and
    an arm leaves a position none.
    """
    winner = listing.policy.get("rival_position")
    others = reasons.LEARNT | reasons.HELD_OUT
    holds = int(quote["rival_minor"]) > 0 and not int(quote["reasons"]) & others
    return winner if winner is not None and winner.value and holds else None


def _position_sentence(winner: Winner, quote: np.void, listing: ListingFacts) -> str:
    rival = money_text(int(quote["rival_minor"]), listing.currency)
    damping = listing.policy.get("rival_damping")
    part = "a part" if damping is None else percent(1.0 - damping.value)
    part = {"100 %": "all", "50 %": "half"}.get(part, part)
    return (
        f"It asks to stand at {percent(winner.value)} of its reference rival ({rival}), {part} of"
        f" the way at a step: {winner}."
    )


# ----- what the model looked at ------------------------------------------------------------------


GOALS: Mapping[str, str] = {
    "profit": "a step towards the greatest expected profit",
    "revenue": "a step towards the greatest expected revenue",
    "units": "a step towards the most units that are expected to sell",
    "sell_through": (
        "a step towards the price at which its stock is expected to last just to the season's end"
    ),
    "clearance": "which is to clear its stock by the season's end, in few cuts and without a rise",
}
"""What a learnt price is asked for: by the policy's ``objective``, or by its season."""


def objective_of(listing: ListingFacts, decided_ms: int) -> str:
    """Return what a learnt price was asked to achieve, a name of :data:`GOALS`.

    A season that runs clears its stock whatever the objective, but for the objective that has a use
    of its own for the season's end, and which without a season is profit.

    Args:
        decided_ms: when it was decided; 0: unknown, and no season is told.
    """
    winner = listing.policy.get("objective")
    named = "profit" if winner is None else str(winner.value)
    if not decided_ms:
        return named
    runs = season_of(listing, decided_ms) is not None
    if named == "sell_through":
        return named if runs else "profit"
    return "clearance" if runs else named


def season_of(listing: ListingFacts, decided_ms: int) -> Winner | None:
    """Return who set the end of the season that ran at ``decided_ms``, ``None`` where none did."""
    winner = listing.policy.get("season_end_ms")
    return winner if winner is not None and winner.value > decided_ms > 0 else None


def waits(quote: np.void, listing: ListingFacts) -> bool:
    """Return whether the price stays only because learning has not decided on it yet."""
    learning = listing.policy.get("learning")
    others = reasons.LEARNT | reasons.SHADOW | reasons.TREATED | reasons.HELD_OUT
    if learning is None or not learning.value or int(quote["reasons"]) & others:
        return False
    found = int(quote["previous_minor"]) or int(quote["in_force_minor"])
    stays = int(quote["target_minor"]) == found > 0
    return stays and position_of(quote, listing) is None


def drivers_of(quote: np.void, listing: ListingFacts, decided_ms: int) -> tuple[Driver, ...]:
    """Return what drove the price's wish, in the order of :data:`DRIVERS`."""
    return (
        _cost(quote, listing),
        *_demand(quote, listing, decided_ms),
        *_arms(quote),
        *_rivals(quote, listing),
        *_stock(quote),
    )


def _cost(quote: np.void, listing: ListingFacts) -> Driver:
    cost = int(quote["cost_minor"])
    if cost < 0:
        return Driver(name="cost", value=None, text="Its cost is unknown.")
    text = f"A unit costs {money_text(cost, listing.currency)}."
    return Driver(name="cost", value=cost, text=text)


def _demand(quote: np.void, listing: ListingFacts, decided_ms: int) -> list[Driver]:
    """Return what demand is believed to be, and what is asked of it."""
    learnt = bool(int(quote["reasons"]) & reasons.LEARNT)
    drivers = _elasticity(quote, listing, decided_ms)
    if waits(quote, listing):
        text = "Learning had decided nothing for it yet, so its price stayed."
        drivers.append(Driver(name="waits", value=None, text=text))
    if not learnt:
        return drivers
    objective = objective_of(listing, decided_ms)
    drivers += _objective(objective, listing)
    drivers += _season(quote, listing, decided_ms)
    drivers += _ending(quote, listing, objective)
    shared = listing.policy.get("cannibalised_share")
    if objective == "profit" and shared is not None and shared.value > 0.0:
        text = (
            f"Of what it loses by being dearer, {percent(shared.value)} goes to other listings of"
            f" its category, by {shared}: what those earn on it is counted."
        )
        drivers.append(Driver(name="cannibalisation", value=shared.value, text=text))
    if int(quote["reasons"]) & reasons.DITHERED:
        text = "It strays a little from the best price, by lot, to learn from what sells."
        drivers.append(Driver(name="dither", value=None, text=text))
    return drivers


def _elasticity(quote: np.void, listing: ListingFacts, decided_ms: int) -> list[Driver]:
    elasticity, sd = float(quote["elasticity"]), float(quote["elasticity_sd"])
    target = int(quote["target_minor"])
    if target <= 0:
        return []
    known = f"With an elasticity of {elasticity:.2f} (give or take {sd:.2f})"
    sells = f"one percent dearer sells about {-elasticity:.1f} % less"
    asked = money_text(target, listing.currency)
    if int(quote["reasons"]) & reasons.LEARNT:
        goal = GOALS[objective_of(listing, decided_ms)]
        text = (
            f"{known}, learnt from what sold, from alike listings and from the price found at"
            f" import, {sells}; the last decision asks {asked}, {goal}."
        )
    elif position_of(quote, listing) is not None or waits(quote, listing):
        text = f"{known}, {sells}."  # neither asks for an optimum
    else:
        text = f"{known}, {sells}, and profit peaks at {asked}."
    return [Driver(name="elasticity", value=round(elasticity, 4), text=text)]


def _objective(objective: str, listing: ListingFacts) -> list[Driver]:
    winner = listing.policy.get("objective")
    if winner is None:
        return []
    name = str(winner.value).replace("_", "-")
    text = f"What it is to achieve is {name}, by {winner}"
    if objective == "clearance":
        text += "; until its season ends, clearing its stock goes before that."
    elif objective != winner.value:
        text += ", and without a season that still runs this is profit."
    else:
        text += "."
    return [Driver(name="objective", value=None, text=text)]


def _season(quote: np.void, listing: ListingFacts, decided_ms: int) -> list[Driver]:
    """Tell of a season with the days and the stock that were left at the decision."""
    ends = season_of(listing, decided_ms)
    if ends is None:
        return []
    days, stock = (ends.value - decided_ms) / DAY_MS, int(quote["stock"])
    left = "an unknown stock, so it waits for a count," if stock < 0 else f"{stock} in stock"
    text = f"Its season ends {_days(days)} after this decision, set by {ends}, with {left} then:"
    if objective_of(listing, decided_ms) == "sell_through":
        text += " its price moves both ways, so that the stock lasts just as long."
    else:
        most = listing.policy.get("markdowns_max")
        cuts = "few cuts" if most is None else f"at most {most.value} cuts"
        text += f" its stock is cleared by {cuts}, and its price never rises."
    return [Driver(name="season", value=round(days, 2), text=text)]


def _ending(quote: np.void, listing: ListingFacts, objective: str) -> list[Driver]:
    """Tell how a price that customers read from the left was chosen among its endings."""
    bias, endings = listing.policy.get("left_digit_bias"), listing.policy.get("endings")
    if bias is None or endings is None or objective == "sell_through":
        return []
    if bias.value <= 0.0 or not endings.value or int(quote["target_minor"]) <= 0:
        return []
    target = int(quote["target_minor"])
    seen = round(target - bias.value * (target % LEFT_DIGIT_PART))
    text = (
        f"Customers are taken to overlook {percent(bias.value)} of a price's last two digits, by"
        f" {bias}: {money_text(target, listing.currency)} sells as"
        f" {money_text(seen, listing.currency)} would, and among prices that end in"
        f" {' or '.join(endings.value)} the best by that is asked."
    )
    return [Driver(name="ending", value=bias.value, text=text)]


def _arms(quote: np.void) -> list[Driver]:
    drivers = []
    if int(quote["reasons"]) & reasons.TREATED:
        text = "An experiment treats it: another policy or price is tried on it than on others."
        drivers.append(Driver(name="experiment", value=None, text=text))
    if int(quote["reasons"]) & reasons.HELD_OUT:
        text = "It is held out: its price stays, so that what others earn can be compared with it."
        drivers.append(Driver(name="holdout", value=None, text=text))
    return drivers


def _rivals(quote: np.void, listing: ListingFacts) -> list[Driver]:
    rival, rivals = int(quote["rival_minor"]), int(quote["rivals"])
    position, drivers = position_of(quote, listing), []
    if rival > 0:
        many = "one rival" if rivals == 1 else f"{rivals} rivals"
        text = f"The reference of {many} stands at {money_text(rival, listing.currency)}."
        drivers.append(Driver(name="rival", value=rival, text=text))
    if position is not None:
        text = _position_sentence(position, quote, listing)
        drivers.append(Driver(name="position", value=position.value, text=text))
    if int(quote["binding"]) == reasons.BRAKE:
        text = "Cuts in turns with its rivals were seen: by the clock, the brake eases and ends."
        drivers.append(Driver(name="brake", value=None, text=text))
    return drivers


def _stock(quote: np.void) -> list[Driver]:
    stock = int(quote["stock"])
    if stock < 0:
        return []
    text = "It is out of stock." if stock == 0 else f"{stock} in stock."
    return [Driver(name="stock", value=stock, text=text)]


def _days(days: float) -> str:
    return "a day" if round(days, 1) == 1.0 else f"{round(days, 1):g} days"
