"""A shard survives a crash at any moment without changing its mind."""

from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pytest import MonkeyPatch, mark

from engine import breaker
from engine.decided import Decided, State
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    FeesChanged,
    ListingChanged,
    ListingRemoved,
    ModeChanged,
    PolicyChanged,
    PriceApproved,
    PricePinned,
    PriceRejected,
    PriceReported,
    PriceUnpinned,
    PublishingHalted,
    PublishingResumed,
    RateChanged,
    RetailerAdded,
    StockCounted,
    UnitsSold,
)
from engine.microbatch import Microbatch
from engine.replay import Agreement
from engine.shard import Shard
from repricer import batch_of
from tests.engine.builders import DAY, HOUR, MINUTE, T, World, moved


def history(seed: int, length: int = 260) -> list[AnyDelta]:
    """Return deltas of every kind about a few listings, many of them late, repeated or refused."""
    random = np.random.default_rng(seed)
    where: dict[str, Any] = {"retailer": "acme", "channel": "shop"}
    deltas: list[AnyDelta] = [
        RetailerAdded(retailer="acme", currency="EUR", mode="live", observed_ms=T),
        RetailerAdded(retailer="other", currency="USD", observed_ms=T),
    ]
    skus = [f"S{number}" for number in range(28)]
    for number, sku in enumerate(skus):
        deltas.append(
            ListingChanged(
                **where,
                sku=sku,
                observed_ms=T,
                price_minor=1500 + 10 * number,
                cost_minor=900 + number,
                kvi=number % 2 == 0,
                tags=("sale",) if number % 5 == 0 else (),
                category=f"c{number % 3}",
            )
        )
    clock = T
    for number in range(length):
        clock += int(random.integers(0, 30 * MINUTE))
        one = {**where, "sku": str(random.choice(skus)), "observed_ms": clock}
        one["observed_ms"] -= int(random.choice([0, 0, 0, 2 * HOUR]))
        command = {"command_id": f"id-{random.integers(0, 20)}", "actor": "ann"}
        price = int(random.choice([40, 1400, 1500, 1600, 1700, 2400]))
        all_of_it: dict[str, Any] = {"retailer": "acme", "observed_ms": clock}
        kind = random.choice(len(KINDS))
        deltas.append(KINDS[kind](one, all_of_it, command, price, number, random))
        if random.random() < 0.1:
            deltas.append(deltas[-1])
    return deltas


KINDS: tuple[Any, ...] = (
    *(
        lambda one, whole, command, price, number, random: CompetitorPriced(
            **one,
            rival=f"rival {random.integers(0, 6)}",
            price_minor=price,
            shipping_minor=int(random.integers(0, 50)),
            currency=[None, None, "USD"][random.integers(0, 3)],
            source=[None, "a", "b"][random.integers(0, 3)],
            condition=["new", "new", "used"][random.integers(0, 3)],
        ),
    )
    * 6,
    lambda one, whole, command, price, number, random: StockCounted(
        **one, units=int(random.integers(0, 9))
    ),
    lambda one, whole, command, price, number, random: UnitsSold(
        **one, units=1, event_id=f"e{random.integers(0, 50)}"
    ),
    lambda one, whole, command, price, number, random: UnitsSold(
        **one, units=2, source="till", source_seq=int(random.integers(0, 100))
    ),
    lambda one, whole, command, price, number, random: CostChanged(
        **one, cost_minor=int(random.integers(700, 1300))
    ),
    lambda one, whole, command, price, number, random: FeesChanged(
        **whole, channel="shop", vat=0.19, commission=float(random.choice([0.0, 0.1]))
    ),
    lambda one, whole, command, price, number, random: RateChanged(
        **whole, currency="USD", into="EUR", rate=float(random.choice([0.9, 1.0]))
    ),
    lambda one, whole, command, price, number, random: ModeChanged(
        **whole, **command, mode=["live", "live", "shadow"][random.integers(0, 3)]
    ),
    lambda one, whole, command, price, number, random: PolicyChanged(
        **whole,
        **command,
        scope=["retailer", "category", "tag"][number % 3],  # type: ignore[arg-type]
        key=["", "c1", "sale"][number % 3],
        fields=[
            {"min_margin": 0.1},
            {"approval": "manual"},
            {"approval": "auto"},
            {"endings": ["99", "49"]},
            {"rival_stale_ms": DAY},
            {"breaker_listings_min": 1, "breaker_moved_share": 0.04},
        ][random.integers(0, 6 if number % 3 == 0 else 5)],
    ),
    lambda one, whole, command, price, number, random: PolicyChanged(
        **whole, scope="listing", key=f"shop\x1f{one['sku']}", fields={"step_max": 0.05}
    ),
    lambda one, whole, command, price, number, random: PriceApproved(**one, **command),
    lambda one, whole, command, price, number, random: PriceRejected(**one, **command),
    lambda one, whole, command, price, number, random: PricePinned(
        **one, price_minor=price, until_ms=one["observed_ms"] + 5 * HOUR
    ),
    lambda one, whole, command, price, number, random: PriceUnpinned(**one),
    lambda one, whole, command, price, number, random: PriceReported(**one, price_minor=1500),
    lambda one, whole, command, price, number, random: PublishingHalted(**whole, channel="shop"),
    lambda one, whole, command, price, number, random: PublishingResumed(**whole, **command),
    lambda one, whole, command, price, number, random: ListingRemoved(**one),
    lambda one, whole, command, price, number, random: ListingChanged(
        **one, price_minor=1600, cost_minor=1000
    ),
)


def cut(deltas: list[AnyDelta], cuts: set[int]) -> list[list[AnyDelta]]:
    """Return the deltas in pieces."""
    marks = [*sorted(cuts), len(deltas)]
    return [deltas[start:stop] for start, stop in zip([0, *marks], marks, strict=False)]


def when(deltas: list[AnyDelta], before_ms: int) -> int:
    """Return a time at which the deltas may be decided."""
    latest = max((getattr(delta, "observed_ms", 0) for delta in deltas), default=0)
    return max(latest, before_ms) + 17


def decided_all(
    shard: Shard, pieces: list[list[AnyDelta]], slices_at: set[int] = frozenset()
) -> tuple[list[tuple[Microbatch, Decided]], list[bytes]]:
    """Decide all pieces, taking a slice of a checkpoint after some of them."""
    decided, slices = [], []
    for number, piece in enumerate(pieces):
        batch = batch_of(piece, after=shard)
        decided.append((batch, shard.apply(batch, when(piece, shard.decided_ms))))
        shard.record(decided[-1][1])
        if number in slices_at:
            part = shard.checkpoint_slice(rows_max=5)
            slices += [] if part is None else [part]
    return decided, slices


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    pieces_of=st.integers(1, 40),
    checkpoint_after=st.floats(0.1, 0.9),
    slices=st.integers(0, 6),
)
@example(seed=0, pieces_of=7, checkpoint_after=0.5, slices=3)
@example(seed=4, pieces_of=5, checkpoint_after=0.6, slices=0)
@example(seed=1398, pieces_of=1, checkpoint_after=0.75, slices=0)
def test_a_successor_repeats_every_decision(
    seed: int, pieces_of: int, checkpoint_after: float, slices: int
) -> None:
    """Decide every microbatch; then lose all but a checkpoint, replay, and compare.

    Equality is exact, prices, reasons, times and digests alike. Slices of the checkpoint are taken
    on the way, so that rows change after their copy.
    """
    random = np.random.default_rng(seed)
    deltas = history(seed)
    cuts = set((np.cumsum(random.integers(1, 2 * pieces_of, 400)) + 10).tolist())
    pieces = cut(deltas, {at for at in cuts if at < len(deltas)})
    survives = int(checkpoint_after * len(pieces))
    slices_at = set(random.integers(0, len(pieces), slices).tolist())
    shard = Shard()
    _, first_slices = decided_all(shard, pieces[:survives], slices_at)
    parts = [*first_slices, shard.checkpoint_close()]
    recorded, more_slices = decided_all(shard, pieces[survives:], slices_at)
    increment = [*more_slices, shard.checkpoint_close()]

    successor = Shard.restore(parts)
    for batch, decided in recorded:
        assert successor.replay(batch, decided) is Agreement.EXACT
    assert successor.digest == shard.digest
    assert successor.seq == shard.seq

    # A base and an increment say the same as the shard that wrote them.
    later = Shard.restore([*parts, *increment])
    assert later.digest == shard.digest
    for one in (shard, successor, later):
        one.checkpoint_restart()
    assert shard.checkpoint_close() == later.checkpoint_close() == successor.checkpoint_close()


def test_what_differs_is_noticed_and_the_record_wins() -> None:
    pieces = cut(history(3), {40, 60, 80})
    shard = Shard()
    recorded, _ = decided_all(shard, pieces)
    successor = Shard()
    for number, (batch, decided) in enumerate(recorded):
        told = decided
        if number == 1:
            quotes = decided.quotes.copy()
            quotes["in_force_minor"][0] += 1
            told = Decided(
                **{name: getattr(decided, name) for name in decided.__struct_fields__}
                | {"quotes": quotes}
            )
        agreed = successor.replay(batch, told)
        if number == 1:
            assert agreed is Agreement.DIFFERENT
            quote = successor.quote(int(quotes["listing"][0]))
            assert quote is not None
            assert quote["in_force_minor"] == quotes["in_force_minor"][0]
            break
        assert agreed is Agreement.EXACT
    assert successor.digest == recorded[1][1].digest


@mark.parametrize("recorded_trips", [True, False])
def test_the_recorded_trip_of_the_breaker_wins(
    recorded_trips: bool, monkeypatch: MonkeyPatch
) -> None:
    """A successor that judges otherwise stops whom the record stopped, and nobody else."""
    worlds = World(), World()
    for world in worlds:
        world.send(world.policy(step_max=1.0))
        world.send(*(world.listing(f"S{number}", price_minor=1871) for number in range(100)))
        world.send(after_ms=20 * MINUTE)
    owner, successor = worlds
    honest = breaker.judge

    def lax(*arguments: Any) -> Any:
        return honest(*arguments)[0][:0], []

    owner.now_ms = successor.now_ms = owner.now_ms + 1
    batch = batch_of([owner.policy(ceiling_minor=1300)], after=owner.shard)
    with monkeypatch.context() as patched:
        if not recorded_trips:
            patched.setattr(breaker, "judge", lax)
        recorded = owner.shard.apply(batch, owner.now_ms)
        owner.shard.record(recorded)
    with monkeypatch.context() as patched:
        if recorded_trips:
            patched.setattr(breaker, "judge", lax)
        assert successor.shard.replay(batch, recorded) is Agreement.DIFFERENT
    for world in worlds:
        assert world.shard._memory.retailers.table["tripped"][0] == recorded_trips
    held = [world.shard._memory.listings.listings["held_minor"][:100].tolist() for world in worlds]
    assert held[0] == held[1]
    for world in worlds:
        world.drain()
        decided = world.send(world.stock(3, "S1"), after_ms=HOUR)
        assert not len(moved(decided))
        state = State.HALTED if recorded_trips else State.LIVE
        assert world.state("S1") is state
        assert world.price("S1") == (1770 if recorded_trips else 1300)


def test_what_the_breaker_has_counted_is_in_the_digest() -> None:
    digests = set()
    for counted in (0, 1):
        world = World()
        world.send(world.listing())
        world.shard._memory.retailers.table["moved"][0, 0] += counted
        digests.add(world.send(world.cost(1100)).digest)
    assert len(digests) == 2
