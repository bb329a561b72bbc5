"""The lies that the poisoning suite tells: each turns what is true of an hour into what is told."""

from collections.abc import Callable

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from engine.deltas import CompetitorPriced, CostChanged, Fact, StockCounted, UnitsSold
from training.worlds.watched import CHANNEL, DAY_HOURS, FEED, HOUR_MS, RETAILER, WatchedMarket


class Scene(Struct, frozen=True):
    """What an attacker knows and holds in one hour."""

    market: WatchedMarket
    rows: tuple[int, ...]  # the listings he attacks
    hour: int  # since he began
    draw: np.random.Generator  # chance of his own

    @property
    def skus(self) -> frozenset[str]:
        """Return the attacked listings' names."""
        return frozenset(self.market.sku(row) for row in self.rows)


Attack = Callable[[list[Fact], Scene], list[Fact]]
"""From what is true of an hour to what the shard is told."""


def _lie(
    facts: list[Fact], scene: Scene, factor: Callable[[], float], rival: str = "rival-0"
) -> list[Fact]:
    """Let the attacker's feed tell other prices of one rival, or with ``""`` of all."""
    skus = scene.skus
    told: list[Fact] = []
    for fact in facts:
        mine = isinstance(fact, CompetitorPriced) and fact.source == FEED and fact.sku in skus
        if mine and isinstance(fact, CompetitorPriced) and rival in ("", fact.rival):
            fact = replace(fact, price_minor=max(round(fact.price_minor * factor()), 1))
        told.append(fact)
    return told


def _always(factor: float, rival: str = "rival-0") -> Attack:
    return lambda facts, scene: _lie(facts, scene, lambda: factor, rival)


def _drift(facts: list[Fact], scene: Scene) -> list[Fact]:
    """Tell of a rival who asks 1 % less every hour."""
    return _lie(facts, scene, lambda: 0.99 ** (scene.hour + 1))


def _climb(facts: list[Fact], scene: Scene) -> list[Fact]:
    return _lie(facts, scene, lambda: 1.01 ** (scene.hour + 1))


def _crash(facts: list[Fact], scene: Scene) -> list[Fact]:
    """Half the price for two hours, twice a day."""
    return _lie(facts, scene, lambda: 0.5 if scene.hour % 12 < 2 else 1.0)


def _flap(facts: list[Fact], scene: Scene) -> list[Fact]:
    return _lie(facts, scene, lambda: 0.75 if scene.hour % 2 else 1.05)


def _penny(facts: list[Fact], scene: Scene) -> list[Fact]:
    """A cent, and a price of nothing at all."""
    told = _lie(facts, scene, lambda: 0.0)
    nothing: list[Fact] = [
        replace(fact, price_minor=0, rival="rival-free")
        for fact in told
        if isinstance(fact, CompetitorPriced) and fact.source == FEED and fact.sku in scene.skus
    ]
    return told + nothing


def _copies(facts: list[Fact], scene: Scene) -> list[Fact]:
    """Every rival that the feed watches, and three that it invents, ask a quarter less."""
    told = _lie(facts, scene, lambda: 0.75, rival="")
    return told + [
        scene.market.offer(row, f"copy-{number}", 0.75 * scene.market.today[row], FEED)
        for row in scene.rows
        for number in range(3)
    ]


def _stale(facts: list[Fact], scene: Scene) -> list[Fact]:
    """Send again, a day late and after the new ones, what was a deal then."""
    ago = scene.market.now_ms - DAY_HOURS * HOUR_MS
    told: list[Fact] = []
    for fact in _lie(facts, scene, lambda: 0.8):
        if isinstance(fact, CompetitorPriced) and fact.source == FEED and fact.sku in scene.skus:
            told.append(replace(fact, observed_ms=ago))
    return facts + told


def _burst(facts: list[Fact], scene: Scene) -> list[Fact]:
    """Ten words on a rival in the past hour, in any order, from 40 % off to the truth."""
    told = list(facts)
    asked = scene.market.rival_prices()
    for row in scene.rows:
        for _ in range(10):
            ago = int(scene.draw.integers(0, HOUR_MS))
            price = asked[row, 0] * scene.draw.uniform(0.6, 1.0)
            at = scene.market.now_ms - ago
            told.append(scene.market.offer(row, "rival-0", price, FEED, observed_ms=at))
    return told


def _sold_out(facts: list[Fact], scene: Scene) -> list[Fact]:
    """Say that every rival has sold out."""
    skus = scene.skus
    return [
        replace(fact, in_stock=False)
        if isinstance(fact, CompetitorPriced) and fact.source == FEED and fact.sku in skus
        else fact
        for fact in facts
    ]


def _ghosts(facts: list[Fact], scene: Scene) -> list[Fact]:
    """Invent a seller who undercuts everybody by a fifth and always has stock."""
    asked = scene.market.rival_prices()
    return facts + [
        scene.market.offer(row, "ghost", 0.8 * asked[row, 0], FEED) for row in scene.rows
    ]


def _sybils(facts: list[Fact], scene: Scene) -> list[Fact]:
    """Twelve new sources at once confirm what the feed says of the first rival."""
    asked = scene.market.rival_prices()
    return _lie(facts, scene, lambda: 0.7) + [
        scene.market.offer(row, "rival-0", 0.7 * asked[row, 0], f"sybil-{number}")
        for row in scene.rows
        for number in range(12)
    ]


def _sybil_sellers(facts: list[Fact], scene: Scene) -> list[Fact]:
    """Twelve new sellers, each in a feed of his own, ask a quarter less than the first rival."""
    asked = scene.market.rival_prices()
    return facts + [
        scene.market.offer(row, f"sybil-{number}", 0.75 * asked[row, 0], f"sybil-{number}")
        for row in scene.rows
        for number in range(12)
    ]


def _fake_stock(facts: list[Fact], scene: Scene) -> list[Fact]:
    """Count our own shelves empty and overfull in turns."""
    market, units = scene.market, 0 if scene.hour % 2 else 1_000_000
    return facts + [
        StockCounted(
            retailer=RETAILER,
            channel=CHANNEL,
            sku=market.sku(row),
            units=units,
            observed_ms=market.now_ms,
        )
        for row in scene.rows
    ]


def _inflated_sales(facts: list[Fact], scene: Scene) -> list[Fact]:
    """Report five units every hour that nobody bought."""
    market = scene.market
    return facts + [
        UnitsSold(
            retailer=RETAILER,
            channel=CHANNEL,
            sku=market.sku(row),
            units=5,
            event_id=f"fake {market.sku(row)} {market.hour}",
            observed_ms=market.now_ms,
        )
        for row in scene.rows
    ]


def _costs(factor: float) -> Attack:
    """Tell other costs of all attacked listings, every hour."""

    def attack(facts: list[Fact], scene: Scene) -> list[Fact]:
        skus = scene.skus
        honest = [f for f in facts if not (isinstance(f, CostChanged) and f.sku in skus)]
        return honest + [
            scene.market.costs(row, round(int(scene.market.cost[row]) * factor))
            for row in scene.rows
        ]

    return attack


ATTACKS: dict[str, Attack] = {
    "lone liar, 30 % less": _always(0.7),
    "lone liar, 40 % more": _always(1.4),
    "slow drift, -1 % an hour": _drift,
    "slow climb, +1 % an hour": _climb,
    "coordinated copies in one feed": _copies,
    "cents for units": _always(0.01, ""),
    "units for cents": _always(100.0, ""),
    "another currency": _always(0.86, ""),
    "flash crash and back": _crash,
    "a penny, and nothing": _penny,
    "flapping": _flap,
    "stale replay": _stale,
    "out-of-order bursts": _burst,
    "rivals told sold out": _sold_out,
    "ghost seller": _ghosts,
    "sybil sources": _sybils,
    "sybil sellers": _sybil_sellers,
    "our stock miscounted": _fake_stock,
    "sales inflated": _inflated_sales,
    "costs tripled": _costs(3.0),
    "costs a tenth": _costs(0.1),
}
"""All attacks by name, in the order in which they are printed."""
