"""Let random shops learn for some days, and have an oracle judge every price that they decide.

``python -m perf.learnt_precedence --shops 100 --days 8 --json``

Each shop has policies of any kind, one a category, and an objective for each; its customers answer
its prices. The proposals come from what the shop has learnt by then, the bounds from the policies
as they were written. The oracle (``perf/oracle.py``) knows neither engine nor brain; a
quote's own columns tell it cost, rival and wish, and the shop tells it the rest.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from engine.decided import Decided, State
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    FeesChanged,
    ListingChanged,
    PolicyChanged,
    RetailerAdded,
    StockCounted,
    UnitsSold,
)
from engine.microbatch import microbatch_of
from engine.objectives import OBJECTIVES
from engine.routing import key64
from engine.shard import Shard
from kernels import reasons
from perf import oracle
from perf.precedence import random_policy

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
LISTINGS, CATEGORIES = 48, 6
DECIDED = (State.LIVE, State.SHADOW, State.PENDING, State.HELD, State.HALTED)
PRICE_MINOR = 1000.0


class Shop:
    """A retailer who learns, his customers, and all that the oracle must be told of him."""

    def __init__(self, draw: np.random.Generator) -> None:
        self.violations: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self._draw = draw
        self._shard = Shard()
        self._now_ms = 0
        self._day = 0
        self._changed_ms: dict[int, list[int]] = defaultdict(list)
        self._fees: dict[str, Any] = {
            "vat": float(draw.choice([0.0, 0.07, 0.2])),
            "commission": float(draw.choice([0.0, 0.08, 0.1525])),
            "fixed_fee_minor": int(draw.integers(0, 30)),
            "minimum_fee_minor": int(draw.integers(0, 30)),
        }
        self._policies = [self._policy() for _ in range(CATEGORIES)]
        self._price = (PRICE_MINOR * np.exp(draw.normal(0.0, 0.3, LISTINGS))).astype(np.int64)
        self._reference = self._price.astype(np.float64)
        self._cost = np.maximum(self._price * draw.uniform(0.3, 0.9, LISTINGS), 1).astype(np.int64)
        self._rrp = self._maybe(0.5, 1.0, 1.6)
        self._map = self._maybe(0.8, 0.7, 1.0)
        self._kvi = draw.random(LISTINGS) < 0.3
        self._elasticity = draw.uniform(-4.0, -1.3, LISTINGS)
        self._rows = {key64("acme", "shop", f"s{at}"): at for at in range(LISTINGS)}
        self._open()

    def _policy(self) -> dict[str, Any]:
        draw = self._draw
        return {
            **random_policy(draw, PRICE_MINOR),
            "objective": str(draw.choice(OBJECTIVES[:3])),
            "dither": float(draw.choice([0.0, 0.06, 0.1])),
            "decision_days": int(draw.integers(1, 3)),
            "learning_step": float(draw.choice([0.05, 0.1, 0.5])),
            "left_digit_bias": float(draw.choice([0.0, 0.0, 0.2])),
            "rival_position": float(draw.choice([0.0, 0.0, 0.98])),
        }

    def _maybe(self, absent: float, low: float, high: float) -> np.ndarray:
        value = self._price * self._draw.uniform(low, high, LISTINGS)
        return np.where(self._draw.random(LISTINGS) < absent, 0, value).astype(np.int64)

    def _open(self) -> None:
        whole: dict[str, Any] = {
            "learning": True,
            "holdout_share": 0.1,
            "breaker_listings_min": LISTINGS,
        }
        deltas: list[AnyDelta] = [
            RetailerAdded(retailer="acme", currency="EUR", mode="live", observed_ms=0),
            PolicyChanged(retailer="acme", scope="retailer", fields=whole, observed_ms=0),
            FeesChanged(retailer="acme", channel="shop", observed_ms=0, **self._fees),
        ]
        for number, fields in enumerate(self._policies):
            deltas.append(
                PolicyChanged(
                    retailer="acme",
                    scope="category",
                    key=f"c{number}",
                    fields=fields,
                    observed_ms=0,
                )
            )
        for at in range(LISTINGS):
            deltas.append(
                ListingChanged(
                    **self._where(at),
                    category=f"c{at % CATEGORIES}",
                    price_minor=int(self._price[at]),
                    cost_minor=int(self._cost[at]),
                    rrp_minor=int(self._rrp[at]) or None,
                    map_minor=int(self._map[at]) or None,
                    kvi=bool(self._kvi[at]),
                    own_rival_names=("acme",),
                )
            )
        self._decide(deltas)

    def _where(self, at: int) -> dict[str, Any]:
        return {
            "retailer": "acme",
            "channel": "shop",
            "sku": f"s{at}",
            "observed_ms": self._now_ms,
        }

    def live(self, days: int) -> None:
        """Let days pass: rivals move, costs change, and what the prices in force sell is sold."""
        for _ in range(days):
            self._now_ms += DAY_MS // 2
            self._decide(self._news())
            self._now_ms += DAY_MS // 2
            self._day += 1
            self._decide(self._sales())

    def _news(self) -> list[AnyDelta]:
        draw = self._draw
        deltas: list[AnyDelta] = []
        for at in np.flatnonzero(draw.random(LISTINGS) < 0.5).tolist():
            rival = max(int(self._reference[at] * draw.uniform(0.7, 1.2)), 1)
            deltas.append(CompetitorPriced(**self._where(at), rival="bob", price_minor=rival))
        for at in np.flatnonzero(draw.random(LISTINGS) < 0.05).tolist():
            cost = max(int(self._cost[at] * draw.uniform(0.9, 1.1)), 1)
            deltas.append(CostChanged(**self._where(at), cost_minor=cost))
        for at in np.flatnonzero(draw.random(LISTINGS) < 0.1).tolist():
            units = int(draw.choice([0, 5, 500]))
            deltas.append(StockCounted(**self._where(at), units=units))
        return deltas

    def _sales(self) -> list[AnyDelta]:
        ratio = np.maximum(self._price, 1) / self._reference
        units = self._draw.poisson(np.minimum(8.0 * ratio**self._elasticity, 1e6))
        return [
            UnitsSold(
                **self._where(at), units=int(units[at]), source=f"till {at}", source_seq=self._day
            )
            for at in np.flatnonzero(units).tolist()
        ]

    def _decide(self, deltas: list[AnyDelta]) -> None:
        while True:
            shard = self._shard
            batch = microbatch_of(deltas, shard.last_command, shard.last_delta, lane=1)
            decided = shard.apply(batch, self._now_ms)
            shard.record(decided)
            self._judge(decided)
            deltas = []
            if not shard.backlog:
                return

    def _judge(self, decided: Decided) -> None:
        quotes = decided.quotes
        if not len(quotes):
            return
        at = np.array([self._rows[key] for key in quotes["listing"].tolist()])
        decidable = np.isin(quotes["state"], DECIDED)
        columns = self._columns(quotes, at)
        proposed = np.where(decidable, quotes["proposed_minor"].astype(np.int64), 0)
        for kind, wrong in oracle.judge(columns, proposed).items():
            self.violations[kind] += int((wrong & (decidable | (kind != "undecided"))).sum())
        moved = quotes["in_force_minor"] != quotes["previous_minor"]
        self.seen["judged"] += int(decidable.sum())
        for name, bit in (("learnt", reasons.LEARNT), ("dithered", reasons.DITHERED)):
            told = decidable & ((quotes["reasons"] & bit) != 0)
            self.seen[name] += int(told.sum())
            self.seen[f"{name}, moved"] += int((told & moved).sum())
        for bit, name in enumerate(reasons.RULES):
            learnt = decidable & ((quotes["reasons"] & reasons.LEARNT) != 0)
            bound = learnt & ((quotes["reasons"] & (1 << bit)) != 0)
            self.seen[f"learnt, bound by {name}"] += int(bound.sum())
        for row, now_minor, changed in zip(
            at.tolist(), quotes["in_force_minor"].tolist(), moved.tolist(), strict=True
        ):
            self._price[row] = now_minor
            if changed:
                self._changed_ms[row].append(decided.decided_ms)

    def _columns(self, quotes: np.ndarray, at: np.ndarray) -> dict[str, np.ndarray]:
        policies = [self._policies[row % CATEGORIES] for row in at.tolist()]

        def of(name: str) -> np.ndarray:
            return np.array([fields.get(name, 0) for fields in policies])

        endings = np.empty(len(at), dtype=object)
        endings[:] = [tuple(fields["endings"]) for fields in policies]
        hour = [
            sum(when > self._now_ms - HOUR_MS for when in self._changed_ms[row])
            for row in at.tolist()
        ]
        fees = {name: np.full(len(at), value) for name, value in self._fees.items()}
        return {
            **fees,
            "cost_minor": quotes["cost_minor"],
            "in_force_minor": quotes["previous_minor"],
            "rrp_minor": self._rrp[at],
            "map_minor": self._map[at],
            "ceiling_minor": of("ceiling_minor"),
            "explicit_floor_minor": of("floor_minor"),
            "rival_minor": quotes["rival_minor"],
            "changes_last_hour": np.array(hour),
            "changes_per_hour_max": of("changes_per_hour_max"),
            "kvi": self._kvi[at],
            "floor_known": quotes["cost_minor"] >= 0,
            "min_margin": of("min_margin"),
            "max_discount": of("max_discount"),
            "step_max": of("step_max"),
            "kvi_rival_ratio_max": of("kvi_rival_ratio_max"),
            "endings": endings,
            "wish_minor": quotes["target_minor"],
        }


def judged(seed: int, shops: int, days: int) -> tuple[Counter[str], Counter[str]]:
    """Let shops live; return (violations by kind, what was judged by name)."""
    violations: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for number in range(shops):
        shop = Shop(np.random.default_rng([seed, number]))
        shop.live(days)
        violations += shop.violations
        seen.update(shop.seen)
    return violations, seen


def main(arguments: list[str] | None = None) -> int:
    """Run and print; 1 if anything was violated or nothing was learnt."""
    parser = argparse.ArgumentParser(prog="python -m perf.learnt_precedence", description=__doc__)
    parser.add_argument("--shops", type=int, default=100)
    parser.add_argument("--days", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one line of JSON (it always is)")
    options = parser.parse_args(arguments)
    violations, seen = judged(options.seed, options.shops, options.days)
    answer = {
        "shops": options.shops,
        "days": options.days,
        "seed": options.seed,
        "violations": violations.total(),
        "violations_by_kind": dict(violations),
        "counted": dict(sorted(seen.items())),
    }
    print(json.dumps(answer))
    return 1 if violations.total() or not seen["learnt"] else 0


if __name__ == "__main__":
    sys.exit(main())
