"""A shard against a small model: what is in force moves only when it may, and every move is told.

The model knows no pricing. It keeps what the quotes told, and the promises: under halt, in shadow,
pinned or rejected the price stays; the engine's own moves keep within bounds and one step; and
a shard restored from its checkpoints is the same shard.
"""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.decided import Decided, State
from engine.deltas import (
    AnyDelta,
    ListingRemoved,
    ModeChanged,
    PriceApproved,
    PricePinned,
    PriceRejected,
    PriceReported,
    PriceUnpinned,
    PublishingHalted,
    PublishingResumed,
)
from engine.shard import Shard
from tests.engine.builders import DAY, HOUR, MINUTE, World

SKUS = ("A", "B", "C")
SKU = st.sampled_from(SKUS)
PRICE = st.integers(900, 2600)


class ShardMachine(RuleBasedStateMachine):
    """Random deltas about three listings, and what must hold after each."""

    @initialize()
    def open(self) -> None:
        self.world = World()
        self.told: dict[str, int] = {}
        self.pinned: dict[str, int] = {}
        self.live, self.halted, self.manual = True, False, False
        self.parts: list[bytes] = []
        for sku in SKUS:
            self.send(self.world.listing(sku, kvi=sku == "A", own_rival_names=("us",)))

    def send(self, delta: AnyDelta | None = None, after_ms: int = MINUTE) -> Decided:
        """Send a delta; check each move that the quotes tell against the promises."""
        before = dict(self.told)
        decided = self.world.send(*([] if delta is None else [delta]), after_ms=after_ms)
        if isinstance(delta, PricePinned) and not decided.exceptions:
            self.pinned[delta.sku] = delta.price_minor
        names = {self.world.key(sku): sku for sku in SKUS}
        for quote in decided.quotes:
            sku = names[int(quote["listing"])]
            state, price = State(int(quote["state"])), int(quote["in_force_minor"])
            if state is State.REMOVED:
                self.told.pop(sku, None)
                self.pinned.pop(sku, None)
                continue
            self.told[sku] = price
            if isinstance(delta, PriceReported) or sku not in before:
                continue
            if price != before[sku]:
                assert self.live
                assert not self.halted
                assert state in (State.LIVE, State.PINNED)
                spoken = isinstance(delta, PriceApproved | PricePinned)
                assert spoken or not self.manual or sku in self.pinned
            if sku in self.pinned and state is State.PINNED:
                assert price == self.pinned[sku]
            elif price != before[sku] and not isinstance(delta, PriceApproved):
                assert quote["floor_minor"] <= price <= quote["ceiling_minor"]
                # A first price has nothing to step from.
                previous = int(quote["previous_minor"])
                assert previous == 0 or abs(price - previous) <= 0.2 * previous
        return decided

    def about(self, kind: type[Any], sku: str, **fields: Any) -> AnyDelta:
        delta: AnyDelta = self.world.about(kind, sku, **fields)
        return delta

    @rule(sku=SKU, price=PRICE, rival=st.sampled_from(["bob", "eve", "us"]))
    def rival(self, sku: str, price: int, rival: str) -> None:
        self.send(self.world.rival(price, sku=sku, rival=rival))

    @rule(sku=SKU, cost=st.integers(900, 1100))
    def cost(self, sku: str, cost: int) -> None:
        self.send(self.world.cost(cost, sku))

    @rule(hours=st.sampled_from([1, 7, 30]))
    def time(self, hours: int) -> None:
        self.send(after_ms=hours * HOUR)

    @rule(manual=st.booleans())
    def approval(self, manual: bool) -> None:
        self.manual = manual
        self.send(self.world.policy(approval="manual" if manual else "auto"))

    @rule(live=st.booleans())
    def mode(self, live: bool) -> None:
        self.live = live
        self.send(self.world.whole(ModeChanged, mode="live" if live else "shadow"))

    @rule(halted=st.booleans())
    def halt(self, halted: bool) -> None:
        self.halted = halted
        self.send(self.world.whole(PublishingHalted if halted else PublishingResumed))

    @rule(sku=SKU, price=st.none() | PRICE)
    def approve(self, sku: str, price: int | None) -> None:
        decided = self.send(self.about(PriceApproved, sku, price_minor=price))
        if not decided.exceptions and price is not None and sku not in self.pinned:
            assert self.told[sku] == price

    @rule(sku=SKU)
    def reject(self, sku: str) -> None:
        self.send(self.about(PriceRejected, sku))

    @rule(sku=SKU, price=PRICE, days=st.none() | st.integers(1, 3))
    def pin(self, sku: str, price: int, days: int | None) -> None:
        until = None if days is None else self.world.now_ms + days * DAY
        self.send(self.about(PricePinned, sku, price_minor=price, until_ms=until))

    @rule(sku=SKU)
    def unpin(self, sku: str) -> None:
        if not self.send(self.about(PriceUnpinned, sku)).exceptions:
            self.pinned.pop(sku, None)

    @rule(sku=SKU, price=PRICE)
    def report(self, sku: str, price: int) -> None:
        self.send(self.about(PriceReported, sku, price_minor=price))

    @rule(sku=SKU)
    def remove(self, sku: str) -> None:
        self.send(self.about(ListingRemoved, sku))

    @rule(sku=SKU)
    def add(self, sku: str) -> None:
        self.send(self.world.listing(sku, price_minor=None))

    @precondition(lambda self: not self.world.shard.backlog)
    @rule()
    def move_to_a_successor(self) -> None:
        self.parts.append(self.world.shard.checkpoint_close())
        digest = self.world.shard.digest
        self.world.shard = Shard.restore(self.parts)
        assert self.world.shard.digest == digest

    @invariant()
    def what_was_told_is_in_force(self) -> None:
        for sku in SKUS:
            live = self.world.shard.live(self.world.key(sku))
            assert (live is None) == (sku not in self.told)
            if live is not None:
                assert live["in_force_minor"] == self.told[sku]
                if live["state"] != "pinned" and sku in self.pinned:
                    states = ("infeasible", "halted", "shadow", "unpublishable", "live", "pending")
                    assert live["state"] in states


ShardMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, print_blob=True
)
test_a_shard_keeps_its_promises = ShardMachine.TestCase
