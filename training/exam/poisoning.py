"""The poisoning suite: how far lies about the market move our prices.

A shard hears a market (``training.worlds.watched``) for some weeks and is forked. One fork goes on
hearing the truth; each of the others hears the same market, the same chance, and one attack. What
their prices differ by is the displacement, over the attacked listings: the attack's hours and a day
after it. One policy for all attacks; nothing knows which it is, and whoever attacks owns one feed,
or may invent new ones, but never all that watch a listing where there are several.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial

import numpy as np
from msgspec import Struct

from engine.decided import Decided
from engine.deltas import CompetitorPriced, Fact
from engine.routing import key64
from engine.shard import Shard
from training.exam.attacks import ATTACKS, Attack, Scene
from training.exam.seasonal import decisions
from training.worlds.watched import CHANNEL, DAY_HOURS, RETAILER, WatchedMarket

POLICY: dict[str, object] = {
    "learning": True,
    "min_margin": 0.05,
    "kvi_rival_ratio_max": 1.0,
    "rival_unconfirmed_per_day": 0.0035,
}
"""The one configuration for all attacks: the engine's defaults, learning, KVIs that match, and a
leash. What nobody confirms moves the reference by no more than that ratio a day, and a lie is
forgotten a day after it was told last; so lies of three days, against truth that goes the other
way, come to eight times the ratio."""

LISTINGS, HISTORY_DAYS, CALM_HOURS, ATTACK_HOURS, AFTER_HOURS = 96, 28, 48, 72, 24
DISPLACEMENT_GOAL, QUARANTINE_GOAL = 0.03, 0.01


class Poisoned(Struct, frozen=True, kw_only=True):
    """What one attack came to."""

    attack: str
    median: float  # of the attacked listings' displacements, at the worst hour
    worst: float  # of any attacked listing, at any hour
    median_end: float  # and a day after it ended
    worst_end: float
    displaced: float  # share of the attacked listings that were ever displaced beyond the goal
    beside: float  # worst displacement of a listing that was not attacked
    through_floor: int  # prices below what the true cost allows
    trips: int  # times that the breaker stopped publishing
    quarantined: float  # share of rivals' prices told to this fork, lies and truth


class Suite(Struct, frozen=True, kw_only=True):
    """A whole suite: one clean run, and every attack."""

    seed: int
    false_quarantine: float  # share of rivals' prices quarantined in the clean run
    clean_through_floor: int
    attacks: tuple[Poisoned, ...]


class _Run:
    """A shard that goes on hearing a market, and what it asked hour by hour."""

    def __init__(self, shard: Shard, market: WatchedMarket, price: np.ndarray) -> None:
        self.shard, self.market, self.price = shard, market, price
        keys = [key64(RETAILER, CHANNEL, market.sku(row)) for row in range(market.listings)]
        self._row = {key: row for row, key in enumerate(keys)}
        self.offers = self.quarantined = self.through = self.trips = 0
        self.path: list[np.ndarray] = []

    def fork(self) -> "_Run":
        """Return another that has heard the same."""
        return _Run(self.shard.fork(), deepcopy(self.market), self.price.copy())

    def step(self, hours: int, told: Callable[[list[Fact]], list[Fact]] = list) -> None:
        """Let some hours pass."""
        facts = told(self.market.step(self.price, hours))
        offered = {at for at, fact in enumerate(facts) if isinstance(fact, CompetitorPriced)}
        first = self.shard.last_delta + 1
        self.offers += len(offered)
        for decided in decisions(self.shard, facts, self.market.now_ms):
            self._take(decided, first, offered)
        self.through += int((self.price < self.market.floor()).sum())
        self.path.append(self.price.copy())

    def open(self, policy: dict[str, object]) -> None:
        """Tell the shard what there is."""
        for decided in decisions(self.shard, self.market.opening(policy), 0):
            self._take(decided, 0, set())

    def _take(self, decided: Decided, first: int, offered: set[int]) -> None:
        self.trips += sum(change.what == "breaker" for change in decided.catalogue)
        self.quarantined += sum(
            refusal.verdict == "quarantined" and refusal.position.offset - first in offered
            for refusal in decided.exceptions
        )
        for quote in decided.quotes[decided.quotes["in_force_minor"] > 0]:
            self.price[self._row[int(quote["listing"])]] = quote["in_force_minor"]


def poison(
    seed: int,
    listings: int = LISTINGS,
    attacks: dict[str, Attack] = ATTACKS,
    policy: dict[str, object] = POLICY,
    attack_hours: int = ATTACK_HOURS,
    history_days: int = HISTORY_DAYS,
    told: Callable[[], None] = lambda: None,
) -> Suite:
    """Run the clean market and every attack on it; ``told`` is called after each run."""
    market = WatchedMarket(seed, listings)
    opened = _Run(Shard(), market, market.today.astype(np.int64))
    opened.open(policy)
    for _ in range(history_days):
        opened.step(DAY_HOURS)
    for _ in range(CALM_HOURS):
        opened.step(1)
    clean = opened.fork()
    for _ in range(attack_hours + AFTER_HOURS):
        clean.step(1)
    told()
    found = []
    for name, attack in attacks.items():
        found.append(_attacked(name, attack, opened.fork(), clean.path, seed, attack_hours))
        told()
    offers, quarantined = opened.offers + clean.offers, opened.quarantined + clean.quarantined
    return Suite(
        seed=seed,
        false_quarantine=quarantined / offers,
        clean_through_floor=opened.through + clean.through,
        attacks=tuple(found),
    )


def attacked_rows(listings: int) -> tuple[int, ...]:
    """Return every second dozen: as many of each layout, KVIs and others."""
    return tuple(row for row in range(listings) if row // 12 % 2 == 0)


def _told(attack: Attack, scene: Scene, facts: list[Fact]) -> list[Fact]:
    return attack(facts, scene)


def _attacked(
    name: str, attack: Attack, run: _Run, clean: list[np.ndarray], seed: int, attack_hours: int
) -> Poisoned:
    rows = attacked_rows(run.market.listings)
    draw = np.random.default_rng([seed, 22])
    for hour in range(attack_hours):
        scene = Scene(run.market, rows, hour, draw)
        run.step(1, partial(_told, attack, scene))
    for _ in range(AFTER_HOURS):
        run.step(1)
    off = np.abs(np.log(np.array(run.path) / np.array(clean)))
    hit = off[:, list(rows)]
    return Poisoned(
        attack=name,
        median=float(np.median(hit, axis=1).max()),
        worst=float(hit.max()),
        median_end=float(np.median(hit[-1])),
        worst_end=float(hit[-1].max()),
        displaced=float((hit.max(axis=0) > DISPLACEMENT_GOAL).mean()),
        beside=float(np.delete(off, list(rows), axis=1).max()),
        through_floor=run.through,
        trips=run.trips,
        quarantined=run.quarantined / max(run.offers, 1),
    )


def poisoning_verdicts(suites: list[Suite]) -> list[tuple[str, bool]]:
    """Return the suite's goals, and whether they are reached."""
    judged = []
    for name in (poisoned.attack for poisoned in suites[0].attacks):
        of = [one for suite in suites for one in suite.attacks if one.attack == name]
        worst, median = max(one.worst for one in of), max(one.median for one in of)
        judged.append(
            (
                f"poisoning: {name}: worst displacement {worst:.3f} (median {median:.3f}) "
                f"<= {DISPLACEMENT_GOAL}",
                worst <= DISPLACEMENT_GOAL,
            )
        )
    false = max(suite.false_quarantine for suite in suites)
    judged.append(
        (
            f"poisoning: clean false quarantine {false:.4f} <= {QUARANTINE_GOAL}",
            false <= QUARANTINE_GOAL,
        )
    )
    through = sum(one.through_floor for suite in suites for one in suite.attacks)
    through += sum(suite.clean_through_floor for suite in suites)
    judged.append((f"poisoning: prices through the floor {through} = 0", through == 0))
    return judged


def rows_of(suites: list[Suite]) -> Iterator[tuple[str, ...]]:
    """Give a row of the table for each attack and seed."""
    for suite in suites:
        for one in suite.attacks:
            yield (
                one.attack,
                str(suite.seed),
                f"{one.median:.4f}",
                f"{one.worst:.4f}",
                f"{one.median_end:.4f}",
                f"{one.worst_end:.4f}",
                f"{one.displaced:.2f}",
                f"{one.beside:.4f}",
                str(one.through_floor),
                str(one.trips),
                f"{one.quarantined:.3f}",
            )


COLUMNS = (
    "attack", "seed", "median", "worst", "median, a day after", "worst, a day after",
    "listings beyond 3 %", "worst beside", "through the floor", "trips", "quarantined",
)  # fmt: skip
