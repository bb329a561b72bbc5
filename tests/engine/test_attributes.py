"""Brands and tags move what is believed of a listing inside its category, and nothing else does."""

from typing import Any

import numpy as np
import pytest

from engine.attributes import TAGS_MAX, attributes_of, worn
from engine.checkpoint import merge_parts
from engine.deltas import AnyDelta, ListingChanged, ModeChanged, PriceReported
from engine.learnt import RetailerLearning
from engine.replay import Agreement
from engine.shard import Shard
from kernels.attributes import BRAND, TAG
from repricer import batch_of
from tests.engine.builders import DAY, World
from tests.engine.receipts import driver, receipt

SKUS = [f"S{number}" for number in range(48)]
NEW = ("S100", "S101", "S102")
BRANDS = ("Rossi", "Bianchi", "Verdi")
ELASTICITIES = {"Rossi": -1.9, "Bianchi": -2.8, "Verdi": -3.9}
"""Each of a listing's brand; costs are such that nobody's markup tells."""


def brand_of(sku: str) -> str:
    return BRANDS[int(sku[1:]) % len(BRANDS)]


def shop(told: str = "brand", category: str = "coffee") -> World:
    """Return a shop in shadow that learns; ``told`` names the field that holds brands, or none."""
    world = World(mode="shadow")
    world.send(world.policy(learning=True, holdout_share=0.0))
    world.send(*(listing(world, sku, told, category) for sku in SKUS))
    return world


def listing(world: World, sku: str, told: str, category: str = "coffee") -> AnyDelta:
    name: Any = (brand_of(sku),) if told == "tags" else brand_of(sku)
    fields: dict[str, Any] = {told: name} if told else {}
    return world.listing(sku, category=category, price_minor=1500, cost_minor=900, **fields)


def lived(world: World, days: int, first: int = 0) -> None:
    """Let managers move prices at random each day, and customers answer by their brand."""
    for day in range(first, first + days):
        draw = np.random.default_rng(day)
        prices = np.rint(1500 * np.exp(draw.normal(0.0, 0.1, len(SKUS)))).astype(int)
        slopes = np.array([ELASTICITIES[brand_of(sku)] for sku in SKUS])
        units = draw.poisson(60.0 * (prices / 1500) ** slopes).tolist()
        deltas: list[AnyDelta] = []
        for sku, price, sold in zip(SKUS, prices.tolist(), units, strict=True):
            deltas.append(world.about(PriceReported, sku, price_minor=price))
            if sold:
                deltas.append(world.sold(sold, sku, source=f"till {sku}", source_seq=day))
        world.send(*deltas, after_ms=DAY)


def believed(world: World, sku: str) -> float:
    told = world.shard.learnt(world.key(sku))
    assert told is not None
    return float(told["elasticity"])


def live(world: World) -> None:
    world.send(world.whole(ModeChanged, mode="live"))
    world.send(after_ms=DAY)


def grown(told: str) -> World:
    """Return a live shop with a new listing of each brand, priced as all are and never sold."""
    world = shop(told)
    lived(world, 30)
    live(world)
    world.send(*(listing(world, sku, told) for sku in NEW))
    world.send(after_ms=DAY)
    return world


@pytest.fixture(scope="module")
def plain() -> World:
    return grown("")


@pytest.mark.parametrize("told", ["brand", "tags"])
def test_a_new_listing_begins_with_what_its_brand_or_tag_is_known_for(
    told: str, plain: World
) -> None:
    world = grown(told)
    bianchi, verdi, rossi = (believed(world, sku) for sku in NEW)
    assert rossi > bianchi + 0.3 > verdi + 0.7
    assert len({believed(plain, sku) for sku in NEW}) == 1
    slopes = np.array([ELASTICITIES[brand_of(sku)] for sku in SKUS])
    with_it, without = (
        np.sqrt(np.mean(np.square([believed(of, sku) for sku in SKUS] - slopes)))
        for of in (world, plain)
    )
    assert with_it < 0.75 * without
    assert world.price("S102") > world.price("S101"), "who is less elastic is dearer"


def test_a_receipt_tells_what_a_brand_says(plain: World) -> None:
    world = grown("brand")
    bianchi, verdi, rossi = (driver(receipt(world, sku), "attributes") for sku in NEW)
    assert rossi is not None
    assert verdi is not None
    assert rossi.value is not None
    assert verdi.value is not None
    assert rossi.value < -0.1 < 0.1 < verdi.value
    assert "less sensitive to prices than its category's" in rossi.text
    assert "more sensitive to prices than its category's" in verdi.text
    assert verdi.as_of == "now"
    assert driver(receipt(plain, "S100"), "attributes") is None
    assert bianchi is None or abs(bianchi.value or 0.0) < verdi.value


def test_where_no_brand_is_told_nothing_is_worked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests are those of an engine that knows of no attributes."""
    world = shop("")
    lived(world, 20)
    live(world)
    for name in ("engine.evidence.factors_of", "engine.learning.factors_of"):
        monkeypatch.setattr(name, lambda *of: None)
    monkeypatch.setattr("engine.evidence.learnt_effects", None)
    other = shop("")
    lived(other, 20)
    live(other)
    assert other.shard.digest == world.shard.digest
    assert "effects" not in world.shard._memory.learnt.retailers[0].state()


def test_a_brand_told_later_counts_at_the_next_decision() -> None:
    world = shop()
    lived(world, 30)
    live(world)
    world.send(listing(world, "S102", "brand"))  # Rossi's
    world.send(after_ms=DAY)
    before = believed(world, "S102")
    world.send(world.about(ListingChanged, "S102", brand="Verdi"))
    assert believed(world, "S102") == before
    for _ in range(10):
        world.send(after_ms=DAY)
    assert believed(world, "S102") < before - 0.7


def test_in_shadow_a_brand_told_later_is_told_at_once() -> None:
    world = shop()
    lived(world, 30)
    sku = next(each for each in SKUS if brand_of(each) == "Rossi")
    before = believed(world, sku)
    world.send(world.about(ListingChanged, sku, brand="Verdi"))
    assert believed(world, sku) < before - 0.1


@pytest.mark.parametrize("merged", [False, True])
def test_a_checkpoint_holds_what_brands_say(merged: bool) -> None:
    world = shop()
    lived(world, 30)
    live(world)
    parts = [world.shard.checkpoint_close()]
    twin = World()
    twin.shard, twin.now_ms = Shard.restore(merge_parts(parts) if merged else parts), world.now_ms
    effects = twin.shard._memory.learnt.retailers[0].effects
    assert len(effects.names) == len(BRANDS)
    for _ in range(9):
        batch = batch_of([], after=twin.shard)
        decided = world.send(after_ms=DAY)
        assert twin.shard.replay(batch, decided) is Agreement.EXACT
    assert twin.shard.digest == world.shard.digest


def test_a_checkpoint_of_before_brands_says_nothing_of_them() -> None:
    world = shop()
    lived(world, 3)
    live(world)
    state = world.shard._memory.learnt.retailers[0].state()
    assert len(RetailerLearning.restore(state).effects.names) == len(BRANDS)
    del state["effects"]
    assert len(RetailerLearning.restore(state).effects.names) == 0


def test_names_are_a_categorys_own_and_tags_are_no_brands() -> None:
    world = World()
    tags = tuple(f"t{number}" for number in range(9, 0, -1))
    world.send(
        world.listing("A", category="a", brand="Rossi"),
        world.listing("B", category="b", brand="Rossi"),
        world.listing("C", category="a", tags=("Rossi",)),
        world.listing("D", category="a", tags=tags),
        world.listing("E"),
    )
    found = attributes_of(world.shard._memory, np.arange(5))
    assert found.shape == (5, 1 + TAGS_MAX)
    assert found[4].tolist() == [0] * (1 + TAGS_MAX)
    names = [found[0, 0], found[1, 0], found[2, 1]]
    assert len({int(name) for name in names}) == 3 and 0 not in names
    assert (found[3, 1:] != 0).all(), "the first by name"


def test_what_one_listing_alone_has_tells_no_other() -> None:
    attributes = np.array([[7, 1, 0], [7, 1, 2], [8, 1, 3], [9, 4, 0]], dtype=np.uint64)
    what, names = worn(attributes, np.array([0, 0, 0, 1]))
    assert names.tolist() == [1, 7]
    assert what.kinds.tolist() == [TAG, BRAND]
    assert what.places.tolist() == [0, 1], "the commonest first"
    assert what.attributes.tolist() == [[1, 0, -1], [1, 0, -1], [-1, 0, -1], [-1, -1, -1]]
