"""What the checker says of commands, against a shard that is given hundreds of them.

The model in ``perf.chaos.effects`` knows no engine. Here the engine itself decides a market that
moves while people halt, pin, approve and set policies, many a microbatch and some twice; whatever
the model finds against it would be a false alarm in a storm.
"""

from random import Random
from typing import Any

import msgspec

from engine.decided import State
from engine.deltas import (
    AnyDelta,
    PlanApplied,
    PriceApproved,
    PricePinned,
    PriceRejected,
    PriceUnpinned,
    PublishingHalted,
    PublishingResumed,
    ScopeChange,
)
from engine.shard import Shard
from perf.chaos.checker import Checker
from perf.chaos.clients import in_order, world
from persistence.decision_records import DecisionRecord, EpochStarted, Stamp, encode
from persistence.ports import Record
from persistence.wire import Decoder, encode_delta
from training.worlds.market import Market

STAMP = Stamp(bytes(16), 1, 0, 1, b"a" * 16)
SHOP = "shop-0"
MICROBATCHES = 120
STEP_MS = 700


class Storm:
    """A shard with its market, decided microbatch by microbatch and heard by the checker."""

    def __init__(self, seed: int) -> None:
        self.checker = Checker(1, generation=1, now_ms=lambda: 0)
        self.draw = Random(seed)
        self.market = Market(seed, 20, world(SHOP))
        self.now_ms = self.market.world.start_ms
        self.shard = Shard()
        self._decoder = Decoder(0, 1, {})
        self._ends = [0, 0]
        self._offset = 0
        self._names = iter(range(1_000_000))
        self._given: list[AnyDelta] = []
        sealed = EpochStarted(STAMP, self.now_ms, "here", "wall", -1, 0, -1, 1)
        self.checker.logged(0, Record(0, self.now_ms, None, encode(sealed)))

    def decide(self, commands: list[AnyDelta], deltas: list[AnyDelta]) -> None:
        """Apply a microbatch, and let the checker hear its decision before its commands."""
        lanes = [self._records(0, commands), self._records(1, deltas)]
        batch = self._decoder.decode(
            *lanes, last_command=self.shard.last_command, last_delta=self.shard.last_delta
        )
        decided = self.shard.apply(batch, self.now_ms)
        self._offset += 1
        value = encode(DecisionRecord(STAMP, decided))
        self.checker.logged(0, Record(self._offset, self.now_ms, None, value))
        self.shard.record(decided)
        for record in lanes[0]:
            self.checker.command_logged(0, record)
        for record in lanes[1]:
            self.checker.delta_logged(0, record)

    def go_on(self, commands: int) -> None:
        """Let time pass, and decide what the market did and people said meanwhile."""
        self.now_ms += STEP_MS
        said = [self._command() for _ in range(commands)]
        prices = {
            listing: shown[-1].in_force_minor
            for listing, shown in self.checker.truths[0].quotes.items()
            if shown[-1].in_force_minor > 0
        }
        self.decide(said, in_order(self.market.advance(prices, self.now_ms)))

    def _records(self, lane: int, deltas: list[AnyDelta]) -> list[Record]:
        first = self._ends[lane]
        self._ends[lane] += len(deltas)
        return [
            Record(first + at, self.now_ms, SHOP.encode(), encode_delta(each))
            for at, each in enumerate(deltas)
        ]

    def _command(self) -> AnyDelta:
        """Return a command, now and then one that was given before."""
        if self._given and self.draw.random() < 0.1:
            again = self.draw.choice(self._given[-20:])
            return msgspec.structs.replace(again, observed_ms=self.now_ms)
        given = msgspec.structs.replace(
            self._any(), command_id=f"c{next(self._names)}", actor="people"
        )
        self._given.append(given)
        return given

    def _any(self) -> AnyDelta:
        truth = self.checker.truths[0]
        said: dict[str, Any] = {"retailer": SHOP, "observed_ms": self.now_ms}
        channel = self.draw.choice((None, "shop", "marketplace"))
        _, of, sku = self.draw.choice(sorted(truth.names))
        listing = truth.names[SHOP, of, sku]
        price = truth.quotes[listing][-1].in_force_minor if listing in truth.quotes else 0
        pending = [
            name
            for name, key in sorted(truth.names.items())
            if key in truth.quotes and truth.quotes[key][-1].state == State.PENDING
        ]
        kind = self.draw.choices(
            ("halt", "resume", "pin", "unpin", "approve", "reject", "policy"), (1, 2, 4, 4, 6, 2, 5)
        )[0]
        if kind == "halt":
            return PublishingHalted(**said, channel=channel, reason="a test")
        if kind == "resume":
            return PublishingResumed(**said, channel=channel)
        if kind == "policy":
            approval = self.draw.choice(("manual", "auto"))
            change = ScopeChange(
                scope="listing", key=f"{of}\x1f{sku}", fields={"approval": approval}
            )
            return PlanApplied(**said, changes=(change,), anyway=True)
        if kind in ("approve", "reject") and pending:
            _, of, sku = self.draw.choice(pending)
        named = said | {"channel": of, "sku": sku}
        if kind == "approve":
            return PriceApproved(**named)
        if kind == "reject":
            return PriceRejected(**named)
        if kind == "pin" and price:
            until_ms = self.now_ms + self.draw.choice((2_000, 20_000, 60_000))
            return PricePinned(**named, price_minor=price, until_ms=until_ms)
        return PriceUnpinned(**named)


def test_what_the_engine_does_on_a_persons_word_is_no_violation() -> None:
    life = Storm(2)
    life.decide([], life.market.opening())
    for _ in range(MICROBATCHES):
        life.go_on(life.draw.choice((0, 0, 1, 1, 2, 6)))
    checker, lane = life.checker, life.checker.commands[0]
    checker.finish()
    assert checker.violations == []
    assert checker.judged["command records"] == checker.judged["command outcomes"] > 100
    assert lane.repeated > 5
    assert set(lane.done) >= {
        *("PublishingHalted", "PublishingResumed", "PricePinned", "PriceUnpinned"),
        *("PriceApproved", "PlanApplied"),
    }
    for judged in ("halted", "pinned", "approvals are manual"):
        assert checker.judged[f"quotes while {judged}"] > 10, judged
    assert checker.judged["approvals in force"] > 3
