"""Retailers share a shard's memory, and what one sends never changes what another's deltas get."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    ListingChanged,
    PricePinned,
    RetailerAdded,
    UnitsSold,
)
from engine.replay import Agreement
from engine.shard import Shard
from repricer import batch_of
from tests.engine.builders import MINUTE, T, World, only

QUIET, NOISY = "quiet", "noisy"
TURNS = 6

SALE = st.tuples(
    st.sampled_from(["event", "source", "offer", "currency", "command", "pin"]),
    st.integers(0, 12),
    st.integers(0, 3),
)
SENT = st.lists(st.lists(SALE, max_size=4), min_size=TURNS, max_size=TURNS)


@pytest.fixture(scope="module", autouse=True)
def small_shares() -> Any:
    """Let a few deltas be a flood."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.deduplication.EVENTS_MAX", 24)
        patch.setattr("engine.commands.COMMANDS_MAX", 24)
        patch.setattr("engine.memory.SOURCES_MAX", 26)
        patch.setattr("engine.memory.SOURCES_LEAST", 4)
        patch.setattr("engine.currencies.CURRENCIES_A_RETAILER_MAX", 5)
        yield


def delta_of(retailer: str, what: str, number: int, late: int, now_ms: int) -> AnyDelta:
    at = {"retailer": retailer, "channel": "shop", "sku": "A"}
    seen = {"observed_ms": now_ms - late * MINUTE}
    if what == "event":
        return UnitsSold(**at, **seen, units=1, event_id=f"e{number}")
    if what == "source":
        return UnitsSold(**at, **seen, units=1, source=f"s{number}", source_seq=late)
    if what == "offer":
        return CompetitorPriced(
            **at, **seen, rival=f"r{late}", price_minor=1900 + number, source=f"s{number}"
        )
    if what == "currency":
        currency = f"{'QX'[retailer == NOISY]}A{chr(65 + number)}"
        return CompetitorPriced(**at, **seen, rival="r", price_minor=1900, currency=currency)
    if what == "command":
        return ListingChanged(
            **at, **seen, title=f"title {late}", command_id=f"c{number}", actor="ann"
        )
    return PricePinned(**at, **seen, price_minor=2100 + late, command_id=f"p{number}", actor="ann")


def born() -> Shard:
    world = World(retailer=QUIET)
    world.add_retailer(NOISY)
    for retailer in (QUIET, NOISY):
        world.retailer = retailer
        world.send(world.listing(), world.policy(breaker_listings_min=1000))
    return world.shard


def decide(shard: Shard, deltas: list[AnyDelta], now_ms: int, twin: Shard | None) -> list[Any]:
    """Decide one microbatch; return what it said of the quiet retailer, positions left out."""
    batch = batch_of(deltas, after=shard)
    decided = shard.apply(batch, now_ms)
    shard.record(decided)
    if twin is not None:
        assert twin.replay(batch, decided) is Agreement.EXACT
    quiet = shard._memory.listings.index.row(World(retailer=QUIET).key())
    key = shard._memory.listings.listings["key"][quiet]
    quotes = decided.quotes[decided.quotes["listing"] == key]
    names = [name for name in quotes.dtype.names or () if not name.startswith("cause_")]
    return [
        sorted((one.verdict, one.reason) for one in decided.exceptions if one.listing == key),
        sorted((one.command_id, one.status) for one in decided.outcomes if one.retailer == QUIET),
        quotes[names].tolist(),
    ]


def flood(turn: int, now_ms: int) -> list[AnyDelta]:
    """Far more of everything than a share: always other ids, sources, currencies, commands."""
    kinds = ("event", "source", "offer", "currency", "command", "pin")
    return [
        delta_of(NOISY, what, number, number % 3, now_ms)
        for what in kinds
        for number in range(turn * 50, turn * 50 + 50)
        if what != "currency" or number < 20
    ]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(sent=SENT)
def test_a_flood_of_one_never_changes_what_another_gets(
    sent: list[list[tuple[str, int, int]]],
) -> None:
    """The same deltas with and without a neighbour's flood, and the flood replayed exactly.

    The quiet retailer stays within an equal share of each memory, which is what he is promised.
    """
    alone, crowded = born(), born()
    twin = Shard.restore([crowded.checkpoint_close()])
    for turn, kinds in enumerate(sent):
        now_ms = T + (turn + 1) * MINUTE
        mine = [delta_of(QUIET, *kind, now_ms) for kind in kinds]
        expected = decide(alone, mine, now_ms, None)
        assert decide(crowded, [*flood(turn, now_ms), *mine], now_ms, twin) == expected
        if turn == TURNS // 2:
            crowded.checkpoint_restart()
            twin = Shard.restore([crowded.checkpoint_close()])
    assert twin.digest == crowded.digest


def test_what_all_share_stays_within_its_limit() -> None:
    shard = born()
    for turn in range(3):
        decide(shard, flood(turn, T + (turn + 1) * MINUTE), T + (turn + 1) * MINUTE, None)
    decide(shard, [], T + 4 * MINUTE, None)
    memory = shard._memory
    assert len(memory.events) <= 24
    assert len(memory.commands) <= 24
    assert len(memory.marks) == 13
    assert len(memory.currencies) <= 2 + 5


def test_one_retailer_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.catalogue.RETAILERS_MAX", 2)
    world = World()
    assert not world.add_retailer("second").exceptions
    refusal = only(world.add_retailer("third").exceptions)
    assert (refusal.verdict, refusal.reason.split(":")[0]) == ("rejected", "/retailer")
    world.send(RetailerAdded(retailer="second", currency="EUR", observed_ms=world.now_ms))
