"""Inject bugs into the engine and count the wrong prices that get past the breaker.

``python -m perf.bugs --json``

A retailer with 20,000 listings is priced by the real shard until nothing moves any more, and is
then followed for some hours of ordinary changes. From that checkpoint each bug is met twice: by
a full reprice, and by rows that trickle in, 25 a second for five minutes. A price in force is
wrong if the same deltas leave another one in force without the bug. The breaker must keep a full
reprice to 0.1 % of the listings; where rows trickle, its thresholds are what may pass. A bug whose
wrong prices stay below every threshold is not seen, and is reported as such: that is no violation.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from engine.decided import Decided, State
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    Fact,
    FeesChanged,
    ListingChanged,
    PolicyChanged,
    RateChanged,
    RetailerAdded,
    StockCounted,
)
from engine.microbatch import Microbatch, ObjectDelta, Position, facts_of
from engine.policy import Policy
from engine.routing import key64
from engine.shard import Shard
from perf.injected import BUGS, Bug, injected

RETAILER = "acme"
START_MS = 1_767_225_600_000
SECOND_MS, MINUTE_MS, DAY_MS = 1_000, 60_000, 86_400_000
WRONG_SHARE_MAX = 0.001
TRICKLE_ROWS, TRICKLE_SECONDS = 25, 300
KVI_EVERY, TIGHT_EVERY = 10, 10
HISTORY_MINUTES = 200
POUND, DOLLAR = 1.2, 0.9  # in euros


class Met(Struct, frozen=True, kw_only=True):
    """What a bug did on one path."""

    wrong: int  # prices in force that differ from those without the bug
    proposed_wrong: int  # prices proposed that differ: the bug was there
    withheld: int  # listings that the bug left without a proposal: failed closed
    halted: bool  # the breaker stopped the retailer
    why: str  # in its words
    allowed: int  # what may be wrong at most
    above: bool  # what went wrong exceeds a threshold of the breaker

    @property
    def missed(self) -> bool:
        """Whether more went wrong than may, though the thresholds are there to see it."""
        return self.wrong > self.allowed and self.above

    @property
    def seen(self) -> bool:
        """Whether an operator learns of it: a halt, or listings that cannot be published."""
        return self.halted or self.withheld > 0


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 1 if more prices went wrong than may."""
    parser = argparse.ArgumentParser(prog="python -m perf.bugs", description=__doc__)
    parser.add_argument("--listings", type=int, default=20_000)
    parser.add_argument("--history-minutes", type=int, default=HISTORY_MINUTES)
    parser.add_argument("--bugs", nargs="*", default=[bug.name for bug in BUGS])
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    options = parser.parse_args(arguments)
    began = time.monotonic()
    bugs = [bug for bug in BUGS if bug.name in options.bugs]
    answer = measured(options.listings, bugs, options.history_minutes, talk=not options.json)
    answer["seconds"] = round(time.monotonic() - began, 1)
    print(json.dumps(answer))
    return 0 if answer["violations"] == 0 else 1


def measured(
    listings: int, bugs: Sequence[Bug], history_minutes: int = HISTORY_MINUTES, talk: bool = False
) -> dict[str, Any]:
    """Meet every bug on both paths and return the figures."""
    world = _World(listings)
    parts = world.settled(history_minutes)
    sound = {path: _run(world, parts, path, None) for path in PATHS}
    told: dict[str, Any] = {}
    violations = 0
    for bug in bugs:
        met = {
            path: _compared(world, path, sound[path], _run(world, parts, path, bug))
            for path in PATHS
        }
        violations += sum(one.missed for one in met.values())
        violations += sum(one.proposed_wrong + one.withheld == 0 for one in met.values())
        told[bug.name] = {path: _figures(one, listings) for path, one in met.items()}
        if talk:
            print(f"{bug.name}: {told[bug.name]}", file=sys.stderr)
    return {
        "listings": listings,
        "bugs": len(bugs),
        "violations": violations,
        "full_reprice_wrong_share_max": max(
            (of["reprice"]["wrong_share"] for of in told.values()), default=0.0
        ),
        "missed": sorted(
            f"{name} ({path})" for name, of in told.items() for path in PATHS if of[path]["missed"]
        ),
        "not_seen": sorted(
            f"{name} ({path})"
            for name, of in told.items()
            for path in PATHS
            if not of[path]["seen"]
        ),
        "met": told,
    }


PATHS = ("reprice", "trickle")


def _figures(met: Met, listings: int) -> dict[str, Any]:
    return {
        "wrong": met.wrong,
        "wrong_share": round(met.wrong / listings, 6),
        "allowed": met.allowed,
        "proposed_wrong": met.proposed_wrong,
        "withheld": met.withheld,
        "seen": met.seen,
        "above_thresholds": met.above,
        "missed": met.missed,
        "halted": met.halted,
        "why": met.why,
    }


class _Outcome(Struct, frozen=True, eq=False):
    """How a run ended: one element a listing."""

    in_force: np.ndarray
    proposed: np.ndarray
    state: np.ndarray
    tripped: tuple[str, ...]


def _compared(world: "_World", path: str, sound: _Outcome, run: _Outcome) -> Met:
    policy = Policy()
    if path == "reprice":
        allowed = int(WRONG_SHARE_MAX * world.listings)
    else:
        # The widest threshold, for what the rate counts is bounded by the share of large moves.
        allowed = int(max(policy.breaker_moved_share * world.listings, policy.breaker_listings_min))
    ratio = np.abs(run.in_force / np.maximum(sound.in_force, 1) - 1.0)
    wrong = run.in_force != sound.in_force
    large = int((ratio > policy.breaker_move).sum())
    least = policy.breaker_listings_min
    above = large > max(policy.breaker_moved_share * world.listings, least)
    # A world as quiet as this one may change so many prices in a window, and no more.
    above |= int(wrong.sum()) > max(policy.breaker_moved_share * world.listings, least)
    withheld = (run.state == State.UNPUBLISHABLE) & (sound.state != State.UNPUBLISHABLE)
    differs = (run.proposed != sound.proposed) & (run.proposed > 0)
    return Met(
        wrong=int(wrong.sum()),
        proposed_wrong=int(differs.sum()),
        withheld=int(withheld.sum()),
        halted=bool(run.tripped),
        why="; ".join(run.tripped),
        allowed=allowed,
        above=above,
    )


def _run(world: "_World", parts: Sequence[bytes], path: str, bug: Bug | None) -> _Outcome:
    shard = Shard.restore(parts)
    tripped: list[str] = []
    with injected(bug):
        for deltas, now_ms in world.reprice() if path == "reprice" else world.trickle():
            for decided in _decide(shard, deltas, now_ms):
                for change in decided.catalogue:
                    if change.what == "breaker":
                        tripped += change.fields["reasons"]
    quotes = [shard.quote(key) for key in world.keys]
    assert all(quote is not None for quote in quotes)
    in_force, proposed, state = (
        np.array([quote[name] for quote in quotes if quote is not None])
        for name in ("in_force_minor", "proposed_minor", "state")
    )
    return _Outcome(in_force, proposed, state, tuple(tripped))


def _decide(shard: Shard, deltas: Iterable[AnyDelta], now_ms: int) -> list[Decided]:
    """Apply deltas as one microbatch, and empty microbatches until no row waits any more."""
    told, pending = [], list(deltas)
    while True:
        decided = shard.apply(_batch(shard, pending), now_ms)
        shard.record(decided)
        told.append(decided)
        pending = []
        if not shard.backlog:
            return told


def _batch(shard: Shard, deltas: Sequence[AnyDelta]) -> Microbatch:
    first = shard.last_delta + 1
    placed = [(Position(1, first + index, 0), delta) for index, delta in enumerate(deltas)]
    facts = [(place, delta) for place, delta in placed if isinstance(delta, Fact)]
    objects = [ObjectDelta(place, delta) for place, delta in placed if not isinstance(delta, Fact)]
    return Microbatch(
        runs=(*objects, *([facts_of(facts)] if facts else [])),
        last_command=shard.last_command,
        last_delta=shard.last_delta + len(deltas),
        deltas=len(deltas),
    )


class _World:
    """A retailer whose prices are right: with VAT and fees, floors that bind, rivals in pounds."""

    def __init__(self, listings: int) -> None:
        self.listings = listings
        draw = np.random.default_rng(11)
        self.cost = np.rint(np.exp(draw.normal(7.5, 0.8, listings))).astype(np.int64) + 100
        number = np.arange(listings)
        self.market = number % 2 == 1
        self.kvi = number // 2 % KVI_EVERY == 0
        self.tight = number // 2 % TIGHT_EVERY == 1
        self.keys = [key64(RETAILER, self.channel(row), f"S{row}") for row in number.tolist()]
        # The price at which the default prior sees no reason to move.
        kept = np.where(self.market, 1 / 1.2 - 0.12, 1 / 1.2)
        owed = self.cost + np.where(self.market, 30, 0)
        right = owed / kept * 2.6 / 1.6
        # Half of what remains after VAT must stay: such a floor lies above the model's wish.
        floor = owed / (0.5 / 1.2 - np.where(self.market, 0.12, 0.0))
        self.price = np.ceil(np.where(self.tight, floor, right)).astype(np.int64)
        self.now_ms = START_MS

    def channel(self, row: int) -> str:
        return "market" if row % 2 else "shop"

    def settled(self, history_minutes: int) -> list[bytes]:
        """Return the checkpoint of a shard that has priced everything and seen ordinary hours."""
        shard = Shard()
        shard.warm()
        at_ms = self.now_ms
        _decide(shard, self._opening(at_ms), at_ms)
        for start in range(0, self.listings, 2_000):
            rows = range(start, min(start + 2_000, self.listings))
            _decide(shard, [self._listing(row, at_ms) for row in rows], at_ms)
            _decide(shard, [self._rival(row, 1.0, at_ms) for row in rows if self.kvi[row]], at_ms)
        kvi = np.flatnonzero(self.kvi)
        for minute in range(1, history_minutes + 1):
            self.now_ms = START_MS + minute * MINUTE_MS
            looked = kvi[(7 * minute + np.arange(1)) % len(kvi)].tolist()
            moved = [self._rival(row, 0.93 + 0.01 * (minute % 5), self.now_ms) for row in looked]
            _decide(shard, moved, self.now_ms)
        # Days later only the pound's rate is told again: what needs the dollar's fails closed.
        self.now_ms += 4 * DAY_MS
        later = [self._rate("GBP", POUND, self.now_ms)]
        rivals = [self._rival(row, 0.85 if row % 2 else 1.0, self.now_ms) for row in kvi.tolist()]
        _decide(shard, [*later, *rivals], self.now_ms)
        return [shard.checkpoint_close()]

    def reprice(self) -> list[tuple[list[AnyDelta], int]]:
        """Return what has every row priced again: a policy change that changes no price."""
        at_ms = self.now_ms + SECOND_MS
        neutral = PolicyChanged(
            retailer=RETAILER,
            scope="retailer",
            fields={"approval_valid_ms": DAY_MS - 1},
            observed_ms=at_ms,
        )
        return [([neutral], at_ms)]

    def trickle(self) -> list[tuple[list[AnyDelta], int]]:
        """Return a few rows a second, each looked at because its stock was counted."""
        draw = np.random.default_rng(12)
        order = draw.permutation(self.listings)
        steps: list[tuple[list[AnyDelta], int]] = []
        for second in range(TRICKLE_SECONDS):
            at_ms = self.now_ms + (second + 1) * SECOND_MS
            rows = order[(second * TRICKLE_ROWS + np.arange(TRICKLE_ROWS)) % self.listings]
            steps.append(
                ([self._counted(row, 100 + second, at_ms) for row in rows.tolist()], at_ms)
            )
        return steps

    def _opening(self, at_ms: int) -> list[AnyDelta]:
        return [
            RetailerAdded(retailer=RETAILER, currency="EUR", mode="live", observed_ms=at_ms),
            FeesChanged(retailer=RETAILER, channel="shop", vat=0.2, observed_ms=at_ms),
            FeesChanged(
                retailer=RETAILER,
                channel="market",
                vat=0.2,
                commission=0.12,
                fixed_fee_minor=30,
                minimum_fee_minor=10,
                observed_ms=at_ms,
            ),
            self._rate("GBP", POUND, at_ms),
            self._rate("USD", DOLLAR, at_ms),
            PolicyChanged(
                retailer=RETAILER,
                scope="category",
                key="tight",
                fields={"min_margin": 0.5},
                observed_ms=at_ms,
            ),
        ]

    def _rate(self, currency: str, rate: float, at_ms: int) -> RateChanged:
        return RateChanged(
            retailer=RETAILER, currency=currency, into="EUR", rate=rate, observed_ms=at_ms
        )

    def _listing(self, row: int, at_ms: int) -> ListingChanged:
        return ListingChanged(
            retailer=RETAILER,
            channel=self.channel(row),
            sku=f"S{row}",
            category="tight" if self.tight[row] else "plain",
            currency="EUR",
            price_minor=int(self.price[row]),
            cost_minor=int(self.cost[row]),
            kvi=bool(self.kvi[row]),
            own_rival_names=(RETAILER,),
            observed_ms=at_ms,
        )

    def _rival(self, row: int, share: float, at_ms: int) -> CompetitorPriced:
        return CompetitorPriced(
            retailer=RETAILER,
            channel=self.channel(row),
            sku=f"S{row}",
            rival="other",
            price_minor=max(round(self.price[row] * share / (DOLLAR if row % 2 else POUND)), 1),
            currency="USD" if row % 2 else "GBP",
            source="watch",
            observed_ms=at_ms,
        )

    def _counted(self, row: int, units: int, at_ms: int) -> StockCounted:
        return StockCounted(
            retailer=RETAILER,
            channel=self.channel(row),
            sku=f"S{row}",
            units=units,
            observed_ms=at_ms,
        )


if __name__ == "__main__":
    sys.exit(main())
