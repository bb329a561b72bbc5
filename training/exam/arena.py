"""The arena: the production shard against bots, and against itself.

Bots see our price and answer on the next day. In self-play both sellers are retailers of one shard
who learn for themselves; what they earn between the static equilibrium (0) and what a cartel would
(1) is the collusion index. It is printed whatever it is.
"""

from collections.abc import Callable

import numpy as np
from msgspec import Struct

from engine.deltas import AnyDelta, CompetitorPriced, ListingChanged, PolicyChanged, RetailerAdded
from engine.deltas import UnitsSold as Sold
from engine.routing import key64
from engine.shard import Shard
from training.exam.seasonal import decide_all
from training.worlds.duopoly import COST, UNIT, Duopoly

DAY_MS, CHANNEL = 86_400_000, "shop"
SETTLING_SHARE = 0.5
"""The first half of the periods is for learning; the second is scored."""

NASH_GOAL, COLLUSION_GOAL = 0.95, 0.10

Bot = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""From our price, its own last price and the period to its next price."""


def match(ours: np.ndarray, own: np.ndarray, period: int) -> np.ndarray:
    """Ask what we ask, but no less than 5 % margin."""
    return np.asarray(np.maximum(ours, COST * UNIT / 0.95))


def undercut(ours: np.ndarray, own: np.ndarray, period: int) -> np.ndarray:
    """Ask one percent less than we do, but no less than 5 % margin."""
    return np.asarray(np.maximum(0.99 * ours, COST * UNIT / 0.95))


def cost_plus(ours: np.ndarray, own: np.ndarray, period: int) -> np.ndarray:
    """Ask a fixed markup."""
    return np.full_like(own, 1.45 * UNIT)


BOTS: dict[str, Bot] = {"match": match, "undercut": undercut, "cost_plus": cost_plus}


class Bout(Struct, frozen=True, kw_only=True):
    """What became of one pairing, over its second half."""

    against: str
    nash_share: float  # our profit, as a share of that in the static equilibrium
    best_reply_share: float  # and of the best reply to what the bot asked
    mean_price: float  # over the static equilibrium's
    lowest_price: float  # of any listing at the end, over its floor
    collusion_index: float  # (profit - Nash) / (monopoly - Nash), of both where both are ours


def fight(name: str, seed: int, listings: int, periods: int) -> Bout:
    """Let the shard sell against one bot, or with ``self`` against itself."""
    market = Duopoly(seed, listings)
    retailers = ("left", "right") if name == "self" else ("left",)
    shard = Shard()
    skus = [f"d{number}" for number in range(listings)]
    rows = {
        key64(retailer, CHANNEL, sku): (side, row)
        for side, retailer in enumerate(retailers)
        for row, sku in enumerate(skus)
    }
    draw = np.random.default_rng([seed, 6])
    price = np.round(1.5 * UNIT * np.exp(draw.normal(0.0, 0.05, (2, listings))))
    _take(price, rows, decide_all(shard, _opening(retailers, skus, price), 0))
    earned, joint, reply, ratio = [], [], [], []
    nash, cartel = market.nash(), market.monopoly()
    for period in range(1, periods + 1):
        mine, other = price[0].copy(), price[1].copy()
        if period > SETTLING_SHARE * periods:
            earned.append(market.profit(mine, other).sum())
            joint.append(market.profit(other, mine).sum())
            reply.append(_best_reply(market, other).sum())
            ratio.append(float((mine / nash).mean()))
        units = market.sell(mine, other)
        facts = _facts(retailers, skus, price, units, period)
        if name != "self":
            price[1] = np.round(BOTS[name](mine, other, period))
        _take(price, rows, decide_all(shard, facts, period * DAY_MS))
    at_nash = float(market.profit(nash, nash).sum())
    at_cartel = float(market.profit(cartel, cartel).sum())
    both = 0.5 * (np.mean(earned) + np.mean(joint)) if name == "self" else np.mean(earned)
    return Bout(
        against=name,
        nash_share=float(np.mean(earned)) / at_nash,
        best_reply_share=float(np.sum(earned) / np.sum(reply)),
        mean_price=float(np.mean(ratio)),
        lowest_price=float(price[0].min() / (COST * UNIT / 0.95)),
        collusion_index=(float(both) - at_nash) / (at_cartel - at_nash),
    )


def arena_verdicts(bouts: list[Bout]) -> list[tuple[str, bool]]:
    """Return the arena's goals, and whether they are reached."""
    judged = []
    for bout in bouts:
        if bout.against == "undercut":
            judged.append(
                (
                    f"arena: {bout.nash_share:.3f} of Nash against undercutting >= {NASH_GOAL}",
                    bout.nash_share >= NASH_GOAL,
                )
            )
            judged.append(
                (
                    f"arena: lowest price {bout.lowest_price:.2f} of its floor > 1.1",
                    bout.lowest_price > 1.1,
                )
            )
        if bout.against == "self":
            judged.append(
                (
                    f"arena: collusion index {bout.collusion_index:+.3f} within 0.10",
                    abs(bout.collusion_index) <= COLLUSION_GOAL,
                )
            )
    return judged


def _best_reply(market: Duopoly, other: np.ndarray) -> np.ndarray:
    grid = np.linspace(1.02, 2.4, 277)[None, :] * UNIT
    return np.asarray(market.profit(grid, other[:, None]).max(axis=1))


def _opening(retailers: tuple[str, ...], skus: list[str], price: np.ndarray) -> list[AnyDelta]:
    deltas: list[AnyDelta] = []
    for side, retailer in enumerate(retailers):
        fields: dict[str, object] = {"learning": True}
        deltas.append(RetailerAdded(retailer=retailer, currency="EUR", mode="live", observed_ms=0))
        deltas.append(
            PolicyChanged(retailer=retailer, scope="retailer", key="", fields=fields, observed_ms=0)
        )
        deltas += [
            ListingChanged(
                retailer=retailer,
                channel=CHANNEL,
                sku=sku,
                price_minor=int(price[side, row]),
                cost_minor=int(COST * UNIT),
                own_rival_names=(retailer,),
                observed_ms=0,
            )
            for row, sku in enumerate(skus)
        ]
    return deltas


def _facts(
    retailers: tuple[str, ...],
    skus: list[str],
    price: np.ndarray,
    units: tuple[np.ndarray, np.ndarray],
    period: int,
) -> list[AnyDelta]:
    now_ms = period * DAY_MS
    facts: list[AnyDelta] = []
    for side, retailer in enumerate(retailers):
        for row, sku in enumerate(skus):
            facts.append(
                CompetitorPriced(
                    retailer=retailer,
                    channel=CHANNEL,
                    sku=sku,
                    rival="other",
                    price_minor=int(price[1 - side, row]),
                    observed_ms=now_ms,
                )
            )
            if units[side][row]:
                facts.append(
                    Sold(
                        retailer=retailer,
                        channel=CHANNEL,
                        sku=sku,
                        units=int(units[side][row]),
                        source=sku,
                        source_seq=period,
                        observed_ms=now_ms,
                    )
                )
    return facts


def _take(price: np.ndarray, rows: dict[int, tuple[int, int]], quotes: list[np.ndarray]) -> None:
    for quoted in quotes:
        for quote in quoted[quoted["in_force_minor"] > 0]:
            price[rows[int(quote["listing"])]] = quote["in_force_minor"]
