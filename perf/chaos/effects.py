"""What commands that were done must show in every later quote.

A model of its own of what a person's word does to a price, from the bodies of the commands and
nothing of the engine's. Quotes are judged by how things stand at the end of a decision's commands:
the engine prices a microbatch when all of it was applied (docs/engine.md).
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from engine.decided import Decided, Outcome, State
from perf.chaos.truth import Found, ShardTruth

COMMANDS_LANE: Final = 0
LISTING_KEY: Final = "\x1f"
"""Between channel and SKU in the key of a listing's policy."""

UNPINNED: Final = (State.LIVE, State.PENDING, State.HELD)
"""States that a listing whose price is pinned cannot have."""

FREE: Final = (State.LIVE, State.PENDING)
"""States in which nothing but a person's word or the engine's wish makes the price."""


class Order(Struct, frozen=True):
    """A command as it stands in the lane."""

    offset: int
    first: int  # offset of the first record of the same command
    command_id: str
    body: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Return the type of its delta."""
        return str(self.body["type"])

    @property
    def name(self) -> str:
        """Return it in a few words."""
        return f"{self.kind} {self.command_id} at offset {self.offset}"

    def changes(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the accepted changes that a decision must tell when it is done, in order."""
        channel = self.body.get("channel")
        if self.kind == "PublishingHalted":
            return [("halt", {"channel": channel})]
        if self.kind == "PublishingResumed":
            return [("resume", {"channel": channel})]
        if self.kind == "PlanApplied":
            names = ("scope", "key", "fields")
            changes = self.body["changes"]
            return [("policy", {name: each[name] for name in names}) for each in changes]
        return []


class Pin(Struct, frozen=True):
    """A price that a person fixed."""

    price_minor: int
    until_ms: int | None


class Effects:
    """How one shard's retailers and listings stand by the commands that were done."""

    def __init__(self, truth: ShardTruth, found: Found, judged: Counter[str]) -> None:
        self.halted: dict[str, set[str]] = {}  # retailer -> channels, "" for all of them
        self.policies: dict[tuple[str, str, str], dict[str, Any]] = {}  # retailer, scope, key
        self._truth = truth
        self._found = found
        self._judged = judged
        self._tripped: set[str] = set()
        self._pins: dict[int, Pin] = {}
        self._manual: set[int] = set()
        self._approved: dict[int, int] = {}
        self._in_force: dict[int, int] = {}  # by the newest quote

    def take(self, decided: Decided, done: list[Order], outcomes: list[Outcome]) -> None:
        """Let a decision's commands take effect, then judge its quotes."""
        prices = {each.position.offset: each for each in outcomes}
        approvals: dict[int, int] = {}
        for order in done:
            outcome = prices[order.offset]
            self._apply(order, outcome)
            approvals.pop(outcome.listing, None)
            if order.kind == "PriceApproved":
                approvals[outcome.listing] = outcome.price_minor
        self._expire(decided.decided_ms)
        states = self._judge_quotes(decided)
        for listing, price_minor in approvals.items():
            self._judge_approval(decided.seq, listing, price_minor, states.get(listing))
        for change in decided.catalogue:
            if change.what == "breaker":
                self._tripped.add(change.retailer)

    def approvals(self, retailer: str) -> dict[str, str]:
        """Return what was said of who approves the prices of a retailer's listings, by key."""
        return {
            key: fields["approval"]
            for (owner, scope, key), fields in self.policies.items()
            if (owner, scope) == (retailer, "listing") and "approval" in fields
        }

    # ----- what was said ------------------------------------------------------------------------

    def _apply(self, order: Order, outcome: Outcome) -> None:
        body, listing = order.body, outcome.listing
        retailer = body["retailer"]
        if order.kind == "PublishingHalted":
            self.halted.setdefault(retailer, set()).add(body.get("channel") or "")
        elif order.kind == "PublishingResumed":
            self._resume(retailer, body.get("channel") or "")
        elif order.kind == "PricePinned":
            self._pins[listing] = Pin(body["price_minor"], body.get("until_ms"))
            self._approved.pop(listing, None)
        elif order.kind == "PriceUnpinned":
            self._pins.pop(listing, None)
        elif order.kind == "PriceApproved":
            self._approved[listing] = outcome.price_minor
        elif order.kind == "PlanApplied":
            for change in body["changes"]:
                self._set(retailer, change)

    def _resume(self, retailer: str, channel: str) -> None:
        held = self.halted.setdefault(retailer, set())
        if channel:
            held.discard(channel)
        else:
            held.clear()
            self._tripped.discard(retailer)

    def _set(self, retailer: str, change: Mapping[str, Any]) -> None:
        place = (retailer, change["scope"], change["key"])
        self.policies.setdefault(place, {}).update(change["fields"])
        if change["scope"] != "listing" or "approval" not in change["fields"]:
            return
        channel, _, sku = change["key"].partition(LISTING_KEY)
        listing = self._truth.names.get((retailer, channel, sku))
        if listing is not None:
            is_manual = change["fields"]["approval"] == "manual"
            (self._manual.add if is_manual else self._manual.discard)(listing)

    def _expire(self, decided_ms: int) -> None:
        ended = [
            listing
            for listing, pin in self._pins.items()
            if pin.until_ms is not None and pin.until_ms <= decided_ms
        ]
        for listing in ended:
            del self._pins[listing]

    # ----- what quotes show ---------------------------------------------------------------------

    def _judge_quotes(self, decided: Decided) -> dict[int, int]:
        """Judge every quote of a decision; return the states that they show, by listing."""
        quotes = decided.quotes
        if not len(quotes):
            return {}
        states: dict[int, int] = {}
        names = ("listing", "state", "in_force_minor")
        for listing, state, in_force in zip(
            *(quotes[each].tolist() for each in names), strict=True
        ):
            before = self._in_force.get(listing, in_force)
            name = f"shard {self._truth.shard}, seq {decided.seq}, listing {listing}"
            self._judge_halt(name, listing, state, moves=in_force != before)
            self._judge_pin(name, listing, state, in_force)
            self._judge_manual(name, listing, state, before, in_force)
            self._in_force[listing] = in_force
            states[listing] = state
        return states

    def _judge_halt(self, name: str, listing: int, state: int, *, moves: bool) -> None:
        retailer = self._truth.retailers.get(listing, "")
        halts = self.halted.get(retailer, set())
        stopped = bool(halts & {"", self._truth.channels.get(listing, "")})
        stopped |= retailer in self._tripped
        self._judged["quotes while halted"] += stopped
        if state == State.REMOVED:
            return
        if stopped != (state == State.HALTED):
            said = "is halted" if stopped else "is not halted"
            self._differs(f"{name}: {said}, and its quote is {State(state).name.lower()}")
        elif stopped and moves:
            self._differs(f"{name}: its price moves while it is halted")

    def _judge_pin(self, name: str, listing: int, state: int, in_force_minor: int) -> None:
        pin = self._pins.get(listing)
        if state == State.PINNED:
            self._judged["quotes while pinned"] += 1
            if pin is None:
                self._differs(f"{name}: shows a pin that nobody gave, or that ended")
            elif pin.price_minor != in_force_minor:
                self._differs(f"{name}: pinned at {pin.price_minor}, in force {in_force_minor}")
        elif pin is not None and state in UNPINNED:
            self._differs(f"{name}: pinned, and its quote is {State(state).name.lower()}")

    def _judge_manual(
        self, name: str, listing: int, state: int, before: int, in_force_minor: int
    ) -> None:
        if listing not in self._manual:
            return
        self._judged["quotes while approvals are manual"] += 1
        is_said = state == State.PINNED or in_force_minor == self._approved.get(listing)
        if in_force_minor != before and not is_said:
            self._differs(
                f"{name}: its prices wait for a person, and it went from {before} to "
                f"{in_force_minor} without one"
            )

    def _judge_approval(self, seq: int, listing: int, price_minor: int, state: int | None) -> None:
        """Judge an approval by the decision that answers it.

        Where its quote tells of a halt or another hindrance, the price waits. Where there is no
        quote nothing has changed, so the price was in force.
        """
        if state is not None and state not in FREE:
            return
        self._judged["approvals in force"] += 1
        if self._in_force.get(listing) != price_minor:
            self._differs(
                f"shard {self._truth.shard}, seq {seq}, listing {listing}: {price_minor} was "
                f"approved, in force is {self._in_force.get(listing)}"
            )

    def _differs(self, detail: str) -> None:
        self._found("effect_differs", detail)
