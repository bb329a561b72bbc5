"""Recomputes the guardrails of decided prices, for the demo, without the engine's help.

Plain fractions over what the market itself told: costs, fees, VAT, MAP and the policy. Nothing of
``engine`` or ``kernels`` computes here, so that a mistake there does not hide itself.
"""

from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from msgspec import Struct

from engine.deltas import (
    AnyDelta,
    CostChanged,
    FeesChanged,
    ListingChanged,
    PolicyChanged,
)
from engine.routing import key64

STEP_MAX = "0.2"
"""The documented default of ``step_max``; ``MIN_MARGIN`` likewise."""

MIN_MARGIN = "0.05"


class Terms(Struct):
    """What is known of one listing."""

    channel: str
    sku: str
    map_minor: int = 0
    costs_minor: set[int] = set()  # every cost that was ever told: a decision may precede the last


class Judge:
    """Learns the market's deltas and says which decided prices break a guardrail."""

    def __init__(self) -> None:
        self.judged = 0
        self.outside = 0
        self.found: list[str] = []
        self.terms: dict[int, Terms] = {}
        self._fees: dict[str, FeesChanged] = {}
        self._policy: dict[str, Any] = {}
        self._waiting: dict[int, list[Any]] = defaultdict(list)

    def learn(self, deltas: Iterable[AnyDelta]) -> None:
        """Take in what was sent to the engine."""
        for delta in deltas:
            if isinstance(delta, FeesChanged):
                self._fees[delta.channel] = delta
            elif isinstance(delta, PolicyChanged) and delta.scope == "retailer":
                self._policy |= delta.fields
            elif isinstance(delta, ListingChanged):
                terms = self._terms(delta.retailer, delta.channel, delta.sku)
                terms.map_minor = delta.map_minor or terms.map_minor
                if delta.cost_minor is not None:
                    terms.costs_minor.add(delta.cost_minor)
            elif isinstance(delta, CostChanged):
                terms = self._terms(delta.retailer, delta.channel, delta.sku)
                terms.costs_minor.add(delta.cost_minor)

    def judge(self, quotes: Iterable[Any]) -> None:
        """Judge every quote that put a new price in force."""
        for quote in quotes:
            price, before = int(quote["in_force_minor"]), int(quote["previous_minor"])
            if price == before or price == 0:
                continue
            self.judged += 1
            problem = self._problem(quote, price, before)
            if problem:
                self.outside += 1
                self.found.append(f"listing {int(quote['listing']):016x}: {problem}")

    def _terms(self, retailer: str, channel: str, sku: str) -> Terms:
        key = key64(retailer, channel, sku)
        if key not in self.terms:
            self.terms[key] = Terms(channel, sku)
        return self.terms[key]

    def _problem(self, quote: Any, price: int, before: int) -> str:
        terms = self.terms.get(int(quote["listing"]))
        if terms is None:
            return "a price for a listing that nobody named"
        cost = int(quote["cost_minor"])
        if cost not in terms.costs_minor:
            return f"decided on a cost of {cost} that nobody told"
        fees = self._fees.get(terms.channel)
        margin = Fraction(str(self._policy.get("min_margin", MIN_MARGIN)))
        if not earns(price, cost, fees, margin):
            return f"{price} does not earn the margin over {cost}"
        if price < terms.map_minor:
            return f"{price} is below the MAP of {terms.map_minor}"
        ceiling = int(self._policy.get("ceiling_minor", 0) or 0)
        if ceiling and price > ceiling and earns(ceiling, cost, fees, margin):
            return f"{price} is above the ceiling of {ceiling}"
        step = Fraction(str(self._policy.get("step_max", STEP_MAX)))
        forced = price == terms.map_minor or not earns(price - 1, cost, fees, margin)
        if before and abs(price - before) > step * before and not forced:
            return f"{before} -> {price} is more than one step"
        return ""


def earns(price: int, cost: int, fees: FeesChanged | None, margin: Fraction) -> bool:
    """Whether a sale at this price leaves the margin, of net revenue, after cost and fees."""
    vat = Fraction(str(fees.vat)) if fees else Fraction(0)
    net = Fraction(price) / (1 + vat)
    taken = Fraction(0)
    if fees:
        share = Fraction(str(fees.commission)) * price
        taken = max(share, Fraction(fees.minimum_fee_minor)) + fees.fixed_fee_minor
    return net - taken - cost >= margin * net
