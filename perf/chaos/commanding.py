"""Somebody who gives commands: pins, approves, rejects, halts, resumes, sets policies.

He is a good user of the API: every command has an Idempotency-Key of its own, what is in doubt is
asked again under the same key, and what he is told goes to the checker. Whoever halts a retailer
resumes him, also when he was not told whether the halt was taken.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from random import Random
from typing import Any, Final

import aiohttp
import msgspec
from msgspec import Struct

from actors.patience import Patience
from engine.decided import State, quote_id
from engine.routing import partition_of
from gateway.money import rfc3339
from perf.chaos.calendar import Calendar
from perf.chaos.checker import Checker, Told
from perf.chaos.clients import CURRENCY, Gateway, a_listing, now_ms, retailers_of
from perf.chaos.effects import LISTING_KEY
from perf.chaos.truth import ShardTruth, Shown

COMMAND_EVERY_S: Final = 0.8
TOGETHER_MAX: Final = 16
ASK_AGAIN_MAX: Final = 40
ASKED_TWICE_SHARE: Final = 0.15
"""Of the commands: given once more after they were answered, as a user does who lost the answer."""

KINDS: Final = {"pin": 4, "unpin": 4, "approve": 4, "reject": 2, "policy": 3}
"""What is asked about one listing, by weight."""

BETWEEN_HALTS_S: Final = (6.0, 14.0)
HALTED_S: Final = (1.0, 4.0)
RESUME_TRIES: Final = 10
RESUME_AGAIN_S: Final = 2.0
CHANNELS: Final = (None, "shop", "marketplace")
"""What is halted; ``None``: the whole retailer."""

STATUSES: Final = {"conflict": "conflict", "refused": "refused", "not-supported": "not_supported"}
"""Kind of problem -> the outcome that it tells."""

RETRIED: Final = {"in-flight", "unavailable", "deadline"}


class Request(Struct, frozen=True):
    """One command as the API takes it."""

    path: str
    retailer: str
    body: Mapping[str, Any]
    channel: str | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """Return the query string."""
        named = {"retailer": self.retailer}
        return named if self.channel is None else named | {"channel": self.channel}


class Commander:
    """Gives commands until stopped, each under a key of its own."""

    def __init__(
        self, gateway: Gateway, checker: Checker, draw: Random, calendar: Calendar
    ) -> None:
        self.stopped = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self._gateway = gateway
        self._checker = checker
        self._draw = draw
        self._calendar = calendar
        self._keys = itertools.count()
        self._asking: set[asyncio.Task[str]] = set()

    async def run(self) -> None:
        """Give commands until stopped; then wait for the last answers."""
        halting = [
            asyncio.ensure_future(self._halt_and_resume(retailer))
            for retailer in retailers_of(len(self._checker.truths))
        ]
        try:
            while not self.stopped.is_set():
                await self._rest(COMMAND_EVERY_S * self._draw.uniform(0.5, 1.5))
                listing = a_listing(self._checker, self._draw)
                if listing is None or len(self._asking) >= TOGETHER_MAX:
                    continue
                task = asyncio.ensure_future(self._ask(self._request(*listing)))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
            await asyncio.gather(*self._asking, *halting)
        finally:
            for each in (*self._asking, *halting):
                each.cancel()

    async def _rest(self, seconds: float) -> None:
        """Wait so long, or until stopped."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), seconds)

    # ----- halting ------------------------------------------------------------------------------

    async def _halt_and_resume(self, retailer: str) -> None:
        """Halt a retailer or a channel of his now and then, and resume soon after."""
        while not self.stopped.is_set():
            await self._rest(self._draw.uniform(*BETWEEN_HALTS_S))
            known = any(
                owner == retailer for each in self._checker.truths for owner, *_ in each.names
            )
            if self.stopped.is_set() or not known:
                continue
            channel = self._draw.choice(CHANNELS)
            body: dict[str, str] = {"reason": "chaos"} | (
                {} if channel is None else {"channel": channel}
            )
            await self._ask(Request("/publishing:halt", retailer, body))
            await self._rest(self._draw.uniform(*HALTED_S))
            await self._resume(retailer, channel)

    async def _resume(self, retailer: str, channel: str | None) -> None:
        """Resume what was halted; where that is refused, the whole retailer, again and again.

        A gateway whose clock was wrong has halted with a time to come, and what is said before that
        time is refused.
        """
        for _ in range(RESUME_TRIES):
            body = {} if channel is None else {"channel": channel}
            if await self._ask(Request("/publishing:resume", retailer, body)) == "done":
                return
            channel = None
            await asyncio.sleep(RESUME_AGAIN_S)
        self.counts["not resumed"] += 1

    # ----- one listing --------------------------------------------------------------------------

    def _request(self, retailer: str, channel: str, sku: str) -> Request:
        """Return a command about a listing, or about another that waits for an approval."""
        kind = self._draw.choices(list(KINDS), list(KINDS.values()))[0]
        if kind in ("approve", "reject"):
            waiting = self._waiting()
            if waiting is None:
                kind = "policy"
            else:
                (retailer, channel, sku), quote = waiting
                body = {"quote_id": quote} if self._draw.random() < 0.7 else {}
                return Request(f"/products/{sku}/{kind}-price", retailer, body, channel)
        if kind == "policy":
            return self._policy(retailer, channel, sku)
        if kind == "pin" and (price := self._price(retailer, channel, sku)):
            money = {"amount": f"{price // 100}.{price % 100:02d}", "currency": CURRENCY}
            until = rfc3339(self._calendar.after_ms(self._draw.uniform(5, 40)))
            pin = {"price": money, "until": until}
            return Request(f"/products/{sku}/pin-price", retailer, pin, channel)
        return Request(f"/products/{sku}/unpin-price", retailer, {}, channel)

    def _waiting(self) -> tuple[tuple[str, str, str], str] | None:
        """Return a listing whose price waits for a person, and the quote that says so."""
        waiting = [
            (truth, name, shown)
            for truth in self._checker.truths
            for name, listing in truth.names.items()
            if (shown := _newest(truth, listing)) is not None and shown.state == State.PENDING
        ]
        if not waiting:
            return None
        truth, name, shown = self._draw.choice(waiting)
        return name, quote_id(self._checker.generation, truth.shard, shown.seq, shown.index)

    def _policy(self, retailer: str, channel: str, sku: str) -> Request:
        """Let a listing's prices wait for a person, or no longer."""
        change: dict[str, Any] = {
            "scope": "listing",
            "key": f"{channel}{LISTING_KEY}{sku}",
            "fields": {"approval": self._draw.choice(("manual", "manual", "manual", "auto"))},
        }
        return Request("/policies:apply", retailer, {"changes": [change], "anyway": True})

    def _price(self, retailer: str, channel: str, sku: str) -> int:
        """Return the price in force in minor units, 0 where there is none."""
        for truth in self._checker.truths:
            listing = truth.names.get((retailer, channel, sku))
            shown = None if listing is None else _newest(truth, listing)
            if shown is not None:
                return max(shown.in_force_minor, 1)
        return 0

    # ----- asking -------------------------------------------------------------------------------

    async def _ask(self, request: Request) -> str:
        """Ask until told; return the outcome, or the kind of the problem, or that we gave up."""
        headers = {"Idempotency-Key": f"chaos-{next(self._keys)}"}
        asked_ms, patience = now_ms(), Patience()
        asked_twice = self._draw.random() < ASKED_TWICE_SHARE
        for _ in range(ASK_AGAIN_MAX):
            try:
                async with self._gateway.session.post(
                    self._gateway.url(request.path),
                    params=request.parameters,
                    json=request.body,
                    headers=headers,
                ) as response:
                    answer, status = msgspec.json.decode(await response.read()), response.status
            except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError):
                self.counts["unanswered"] += 1
                await patience.wait()
                continue
            told = self._take(request.retailer, asked_ms, status, answer)
            if told:
                if not asked_twice:
                    return told
                asked_twice = False
            await patience.wait()
        self.counts["given up"] += 1
        return "given up"

    def _take(self, retailer: str, asked_ms: int, status: int, answer: Mapping[str, Any]) -> str:
        """Note what was told; return it where that is the end of it, else nothing."""
        shard = partition_of(retailer, len(self._checker.truths))
        operation_id = answer.get("operation_id")
        if status in (200, 202):
            price = answer.get("price")
            price_minor = 0 if price is None else round(float(price["amount"]) * 100)
            outcome = str(answer["status"])
            self.counts[outcome] += 1
            told = Told(str(operation_id), shard, now_ms(), outcome, price_minor, asked_ms)
            self._checker.told(told)
            return outcome if status == 200 else ""
        kind = str(answer.get("type", "")).rpartition(":")[2]
        self.counts[kind] += 1
        if kind in STATUSES and operation_id:
            self._checker.told(
                Told(operation_id, shard, now_ms(), STATUSES[kind], asked_ms=asked_ms)
            )
            return STATUSES[kind]
        return "" if kind in RETRIED else kind


def _newest(truth: ShardTruth, listing: int) -> Shown | None:
    shown = truth.quotes.get(listing)
    return shown[-1] if shown else None
