"""The arena: the production shard against bots, and against another shard like it.

Both sides choose a period's price from what was asked in the period before. In self-play two
shards, who share nothing, learn for themselves; what they earn between the static equilibrium (0)
and what a cartel would (1) is the collusion index. It is printed whatever it is.
"""

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct

from engine.deltas import AnyDelta, CompetitorPriced
from engine.deltas import UnitsSold as Sold
from engine.routing import key64
from engine.shard import Shard
from training.exam.seasonal import CHANNEL, decide_all, opening
from training.exam.spirals import falls, swings, wars
from training.worlds.bots import BOTS, FLOOR, Bot
from training.worlds.duopoly import COST, UNIT, Duopoly

DAY_MS = 86_400_000
SELF, BOUND = "self", "_bound"
OPPONENTS = (*BOTS, "undercut_bound", "war_bound", "self_bound", SELF)
LISTINGS, PERIODS = 60, 1000

POLICY: dict[str, object] = {"learning": True}
"""The one configuration against everybody: the engine's defaults, and learning switched on."""

BOUND_BRAKE = 0.5
BOUND_RATIO, BOUND_RATIO_SELF = 1.0, 0.99
"""And against some once more, every listing a key value item that may not be dearer than its rival:
the one rule of the engine that follows a rival wherever he goes. Two shards must undercut each
other by one percent; to match would lead them nowhere."""

SETTLING_SHARE = 0.5
"""The first half of the periods is for learning; the second is scored."""


class Bout(Struct, frozen=True, kw_only=True):
    """What became of one pairing; profits and prices of its second half, wars of all of it."""

    against: str
    seed: int
    nash_share: float  # our profit, as a share of that in the static equilibrium
    settling_share: float  # the same of the first half, while the engine learns
    possible_share: float  # what the best reply to the other one earns, as a share of Nash
    best_reply_share: float  # our profit, as a share of the best reply to what the other one asked
    collusion_index: float  # (profit - Nash) / (monopoly - Nash), of both where both are ours
    price: float  # our mean price over the static equilibrium's
    rival_price: float  # and the other one's
    lowest_price: float  # of any listing in any period, over its floor
    changes_a_week: float  # of a listing
    swings_a_year: float  # turns of a listing's price after moves of a tenth or more
    wars: float  # share of listings that were in a war of cuts in some period
    falls: float  # share of listings of which both prices fell together, far below Nash
    ours_weekly: tuple[float, ...]  # mean price over the static equilibrium's, week by week
    theirs_weekly: tuple[float, ...]
    monopoly_price: float  # over the static equilibrium's


class Seller:
    """A shard that sells all listings of one side, a day at a time."""

    def __init__(
        self, retailer: str, price: np.ndarray, policy: dict[str, object], kvi: bool = False
    ) -> None:
        self.shard, self.retailer, self._kvi = Shard(), retailer, kvi
        self.price = price.copy()
        self._skus = [f"d{number}" for number in range(len(price))]
        self._rows = {key64(retailer, CHANNEL, sku): row for row, sku in enumerate(self._skus)}
        self._send(self._opening(policy), 0)

    def hear(self, units: np.ndarray, rival: np.ndarray, period: int) -> None:
        """Hear how a period went, and put the next one's prices in force."""
        now_ms = period * DAY_MS
        facts: list[AnyDelta] = []
        for row, sku in enumerate(self._skus):
            facts.append(
                CompetitorPriced(
                    retailer=self.retailer,
                    channel=CHANNEL,
                    sku=sku,
                    rival="other",
                    price_minor=int(rival[row]),
                    observed_ms=now_ms,
                )
            )
            if units[row]:
                facts.append(
                    Sold(
                        retailer=self.retailer,
                        channel=CHANNEL,
                        sku=sku,
                        units=int(units[row]),
                        source=sku,
                        source_seq=period,
                        observed_ms=now_ms,
                    )
                )
        self._send(facts, now_ms)

    def _opening(self, policy: dict[str, object]) -> list[AnyDelta]:
        cost, names = np.full(len(self.price), COST * UNIT), (self.retailer,)
        return opening(
            self.retailer,
            self._skus,
            self.price,
            cost,
            policy,
            own_rival_names=names,
            kvi=self._kvi,
        )

    def _send(self, deltas: list[AnyDelta], now_ms: int) -> None:
        for quotes in decide_all(self.shard, deltas, now_ms):
            for quote in quotes[quotes["in_force_minor"] > 0]:
                self.price[self._rows[int(quote["listing"])]] = quote["in_force_minor"]


def fight(
    against: str,
    seed: int,
    listings: int = LISTINGS,
    periods: int = PERIODS,
    policy: dict[str, object] | None = None,
) -> Bout:
    """Let a shard sell against one of ``OPPONENTS``."""
    market = Duopoly(seed, listings)
    draw = np.random.default_rng([seed, 6])
    opening = np.round(1.5 * UNIT * np.exp(draw.normal(0.0, 0.05, (2, listings))))
    bound = against.endswith(BOUND)
    rule = against.removesuffix(BOUND)
    terms = {**POLICY, **(policy or {})}
    if bound:
        ratio = BOUND_RATIO_SELF if rule == SELF else BOUND_RATIO
        terms = {"kvi_rival_ratio_max": ratio, "kvi_brake": BOUND_BRAKE, **terms}
    left = Seller("left", opening[0], terms, kvi=bound)
    other: Seller | Bot
    if rule == SELF:
        other = Seller("right", opening[1], terms, kvi=bound)
        theirs = other.price.copy()
    else:
        other, theirs = BOTS[rule](market, seed, periods), opening[1]
    paths = np.zeros((2, periods, listings))
    for period in range(periods):
        mine = left.price.copy()
        paths[:, period] = mine, theirs
        units = market.sell(mine, theirs)
        left.hear(units[0], theirs, period + 1)
        if isinstance(other, Seller):
            other.hear(units[1], mine, period + 1)
            theirs = other.price.copy()
        else:
            theirs = np.round(other(mine, theirs))
    return _scored(against, seed, market, paths[0], paths[1])


def _scored(against: str, seed: int, market: Duopoly, ours: np.ndarray, theirs: np.ndarray) -> Bout:
    """Return what two price paths, float64[periods, listings], came to."""
    periods = len(ours)
    settled = int(SETTLING_SHARE * periods)
    nash, cartel = market.nash(), market.monopoly()
    at_nash = float(market.profit(nash, nash).sum())
    at_cartel = float(market.profit(cartel, cartel).sum())
    earned = np.array([market.profit(*pair).sum() for pair in zip(ours, theirs, strict=True)])
    mine = float(earned[settled:].mean())
    joint = mine
    if against.removesuffix(BOUND) == SELF:
        reverse = zip(theirs[settled:], ours[settled:], strict=True)
        joint = 0.5 * (mine + float(np.mean([market.profit(*pair).sum() for pair in reverse])))
    reply = float(np.mean([_best_reply(market, price).sum() for price in theirs[settled:]]))
    weeks = [
        (path / nash).mean(axis=1)[: periods // 7 * 7].reshape(-1, 7).mean(axis=1)
        for path in (ours, theirs)
    ]
    changes = (np.diff(ours[settled:], axis=0) != 0).mean()
    return Bout(
        against=against,
        seed=seed,
        nash_share=mine / at_nash,
        settling_share=float(earned[:settled].mean()) / at_nash,
        possible_share=reply / at_nash,
        best_reply_share=mine / reply,
        collusion_index=(joint - at_nash) / (at_cartel - at_nash),
        price=float((ours[settled:] / nash).mean()),
        rival_price=float((theirs[settled:] / nash).mean()),
        lowest_price=float(ours.min() / FLOOR),
        changes_a_week=float(changes) * 7.0,
        swings_a_year=float(swings(ours[settled:]).mean()) * 365.0 / (periods - settled),
        wars=float(wars(ours, theirs).any(axis=0).mean()),
        falls=float(falls(ours, theirs, nash).any(axis=0).mean()),
        ours_weekly=tuple(np.round(weeks[0], 4).tolist()),
        theirs_weekly=tuple(np.round(weeks[1], 4).tolist()),
        monopoly_price=float((cartel / nash).mean()),
    )


def _best_reply(market: Duopoly, other: np.ndarray) -> np.ndarray:
    grid = np.linspace(1.02, 2.4, 277)[None, :] * UNIT
    return np.asarray(market.profit(grid, other[:, None]).max(axis=1))


def sit_arena(
    seeds: Sequence[int],
    listings: int = LISTINGS,
    periods: int = PERIODS,
    opponents: Sequence[str] = OPPONENTS,
    told: Callable[[Bout], None] = lambda bout: None,
) -> list[Bout]:
    """Meet each opponent on every seed; ``told`` hears of each bout when it is over."""
    bouts = []
    for against in opponents:
        for seed in seeds:
            bouts.append(fight(against, seed, listings, periods))
            told(bouts[-1])
    return bouts
