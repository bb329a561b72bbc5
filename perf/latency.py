"""From a delta produced to its price readable at the gateway, and where the time goes.

``python -m perf.latency --listings 100000 --per-s 1000 --seconds 40 --json``. JSON deltas flow in
an open loop: each has a moment at which it is meant to be sent, and all times count from there.
Some are probes: the cost of a listing that nothing else touches, after which a reader asks the
gateway for that product, every ``--poll-ms``, until the answer holds another quote. The reader's
own interval is in the figure. A probe that decided nothing new (the same price again, refused) is
told apart from one that was decided and never readable: the decision log says which.

Stages are told by the clocks of one machine, in whole milliseconds where the log gives the time:
``produced`` intended to appended by the broker, ``decided`` appended to the microbatch's time,
``recorded`` to the decision's append. From there two ways lead on beside each other: ``readable``
to the answer in the hand of a reader, who asks again and again, and ``streamed`` to the arrival of
the same quote at a subscriber of the stream, whom the gateway tells. ``told`` is the whole of the
second way, from intended to the subscriber.

``--find-rate`` asks for the highest rates instead. The own maximum is what the owners decide a
second of a flood that lies ready; then runs at .8 and .95 of it, and more between, until the
highest rate is known at which p99 keeps 50 and 500 ms (``perf.rate_search``). A probe that was lost
is no time, so it is counted beside the percentiles.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import uvloop

from actors.pauses import settle
from cluster.assembly import make_logs
from cluster.feeding import Feed, Router
from cluster.tree import make_keys, role_card
from engine.deltas import (
    AnyDelta,
    CompetitorPriced,
    CostChanged,
    ListingChanged,
    PolicyChanged,
    RetailerAdded,
    StockCounted,
    UnitsSold,
)
from perf.measuring import Progress, arguments_of, run_command
from perf.open_loop import OpenLoop, Planned
from perf.probes import Probe, Reader, judged, recorded, subscribe, watch
from perf.processes import cores_used, family_seconds, machine_seconds
from perf.rate_search import FIRST_OF_MAXIMUM, Run, found_rates, next_rate
from perf.real_stack import EngineUnderTest, engine

COMMAND = "latency"
RETAILER = "store"
"""Its two slots fall on two shards; those of many other names fall on one."""
CHANNEL = "web"
PROBED = "probed"
"""The category of the listings that only probes touch."""

PROBED_COST = 1000
"""At their price of 1700 no guardrail binds. Where the largest step does, another cost leaves the
price as it is, and nothing new is quoted."""

LEARNT_MARGIN = 0.405
"""Of the probed listings' floor where demand is learnt: one that has not decided yet keeps its
price, whatever it costs, so it is its floor that a dearer cost moves."""

SOLD = 0.1
"""Share of sales among the deltas, where demand is learnt."""

SECONDS, TRIED_SECONDS = 60.0, 15.0
"""Of a run, and of one of the eight or so in which a highest rate is searched: at hundred thousands
of deltas a second the load takes several times as long to be encoded as to flow."""

WARM_S = 5.0
"""What the first deltas warm is not the question."""

PROMISED_PER_S = 20_000
"""Deltas a second for which the narrowest p99 is promised."""

LIMITS_MS = (50.0, 500.0)
"""The promises about p99 for which the highest rate is searched."""

FLOOD_NAMED = 50
"""Of a flood the first and the last deltas are looked up in the logs: they tell when it began and
ended, in every shard that it reached."""


def sku_of(number: int) -> str:
    return f"sku-{number:06d}"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def opening(listings: int, probed: int = 0, *, learning: bool = False) -> Iterator[list[AnyDelta]]:
    """Yield the catalogue in pieces; the last ``probed`` listings are the probes'."""
    at_ms = now_ms()
    retailer: list[AnyDelta] = [
        RetailerAdded(retailer=RETAILER, currency="EUR", observed_ms=at_ms, mode="live", spread=2)
    ]
    if learning:
        retailer.append(
            PolicyChanged(
                retailer=RETAILER, scope="retailer", fields={"learning": True}, observed_ms=at_ms
            )
        )
        retailer.append(
            PolicyChanged(
                retailer=RETAILER,
                scope="category",
                key=PROBED,
                fields={"min_margin": LEARNT_MARGIN},
                observed_ms=at_ms,
            )
        )
    yield retailer
    for begin in range(0, listings, 5000):
        numbers = range(begin, min(begin + 5000, listings))
        yield [
            ListingChanged(
                retailer=RETAILER,
                channel=CHANNEL,
                sku=sku_of(number),
                title=f"Thing {number}",
                category=PROBED if number >= listings - probed else f"category-{number % 50}",
                price_minor=1700 if number >= listings - probed else 1500 + number % 700,
                # The others' markup is one at which the default model leaves a price about where it
                # is: of prices that all leap at once the breaker would halt the retailer.
                cost_minor=PROBED_COST
                if number >= listings - probed
                else (1500 + number % 700) * 8 // 13,
                observed_ms=now_ms(),
            )
            for number in numbers
        ]


def background(
    draw: np.random.Generator,
    listings: int,
    begin_ms: int,
    per_s: int,
    seconds: float,
    *,
    sales: float = 0.0,
) -> list[Planned]:
    """Return what the world says meanwhile: rivals and stock of random listings, evenly.

    ``sales`` is the share of units sold among it, at most .2.
    """
    count = int(per_s * seconds)
    numbers = draw.integers(0, listings, count).tolist()
    kinds = draw.random(count).tolist()
    moves = draw.integers(-60, 60, count).tolist()
    planned: list[Planned] = []
    for place, (number, kind, move) in enumerate(zip(numbers, kinds, moves, strict=True)):
        due_s = place / per_s
        observed_ms = begin_ms + int(due_s * 1000)
        delta: AnyDelta
        if kind < 0.8:
            delta = CompetitorPriced(
                retailer=RETAILER,
                channel=CHANNEL,
                sku=sku_of(number),
                rival=f"rival-{int(kind * 10)}",
                price_minor=1500 + number % 700 + move,
                observed_ms=observed_ms,
            )
        elif kind >= 1.0 - sales:
            delta = UnitsSold(
                retailer=RETAILER,
                channel=CHANNEL,
                sku=sku_of(number),
                units=1,
                source="till",
                source_seq=begin_ms * 1000 + place,
                observed_ms=observed_ms,
            )
        else:
            delta = StockCounted(
                retailer=RETAILER,
                channel=CHANNEL,
                sku=sku_of(number),
                units=int(kind * 100),
                observed_ms=observed_ms,
            )
        planned.append(Planned(due_s, delta))
    return planned


def probing(
    listings: int,
    probed: int,
    begin_ms: int,
    per_s: float,
    seconds: float,
    before: int = 0,
    *,
    learning: bool = False,
) -> tuple[list[Planned], list[Probe]]:
    """Return the probes' deltas, from the end of the warming up on, and the probes.

    ``before`` tells how many went before in earlier runs: one that set the same cost again would
    decide nothing. Where demand is learnt costs only rise, and push prices up by their floor.
    """
    planned, probes = [], []
    for name in range(int(per_s * (seconds - WARM_S))):
        turn = before + name
        number = listings - 1 - turn % probed
        due_s = WARM_S + (name + 0.37) / per_s
        rounds = turn // probed + 1
        rises = rounds if learning else rounds % 2
        delta = CostChanged(
            retailer=RETAILER,
            channel=CHANNEL,
            sku=sku_of(number),
            cost_minor=round(PROBED_COST * 1.04**rises),
            observed_ms=begin_ms + int(due_s * 1000),
        )
        planned.append(Planned(due_s, delta, name))
        probes.append(Probe(sku_of(number), due_s))
    return planned, probes


async def fill(
    under_test: EngineUnderTest, listings: int, probed: int = 0, *, learning: bool = False
) -> float:
    """Send the catalogue and wait until every listing is priced; return the seconds it took."""
    began = time.monotonic()
    settings = under_test.settings
    logs = make_logs(settings)
    sender = Feed(logs, Router(settings.shards.count, settings.shards.spreads))
    for piece in opening(listings, probed, learning=learning):
        await sender.send(piece)
    await sender.close()
    await logs.close()
    await under_test.until_decided()
    return time.monotonic() - began


async def measure(
    under_test: EngineUnderTest, options: argparse.Namespace, say: Progress, before: int = 0
) -> dict[str, Any]:
    """Let the timetable run and return what was found; ``before``: probes of earlier runs."""
    settings = under_test.settings
    seconds = options.seconds + WARM_S
    logs = make_logs(settings)
    router = Router(settings.shards.count, settings.shards.spreads)
    load = OpenLoop(logs, router, options.linger_ms / 1000, WARM_S)
    # Encoding takes about ten microseconds each; the moments lie behind it.
    ahead_s = 2.0 + options.per_s * seconds * 30e-6
    begin_s, begin_ms = time.monotonic() + ahead_s, time.time() * 1000 + ahead_s * 1000
    touched = options.listings - options.probed
    planned, probes = probing(
        options.listings,
        options.probed,
        int(begin_ms),
        options.probes_per_s,
        seconds,
        before,
        learning=options.learning,
    )
    noise = background(
        np.random.default_rng(options.seed + before),
        touched,
        int(begin_ms),
        options.per_s,
        seconds,
        sales=SOLD if options.learning else 0.0,
    )
    load.plan(sorted([*noise, *planned], key=lambda each: each.due_s))
    del noise, planned
    say(f"{options.per_s} deltas a second for {seconds:.0f} s")
    settle()  # a collection of a million records would stall the sender
    card = role_card(settings, "gateway")
    assert card is not None
    key = make_keys(settings)
    reader, told = Reader(card.address, key), dict[str, float]()
    listening = asyncio.ensure_future(
        subscribe(card.address, key, told, {"category": PROBED, "retailer": RETAILER})
    )
    flowing = asyncio.ensure_future(load.run(begin_s))
    watching = [
        asyncio.ensure_future(watch(reader, probe, begin_s, options.poll_ms / 1000))
        for probe in probes
    ]
    await asyncio.sleep(max(begin_s + WARM_S - time.monotonic(), 0))
    spent, busy, since_s = family_seconds(os.getpid()), machine_seconds(), time.monotonic()
    await flowing
    after, wall_s = family_seconds(os.getpid()), time.monotonic() - since_s
    cores = cores_used(spent, after, wall_s)
    everybody, stolen = (
        (now - then) / wall_s for then, now in zip(busy, machine_seconds(), strict=True)
    )
    await asyncio.gather(*watching)
    listening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await listening
    reader.close()
    await logs.close()
    decisions = await recorded(settings, load.probes)
    return judged(probes, load.probes, decisions, told, begin_ms) | {
        "deltas": load.sent,
        "deltas_by_shard": load.planned(),
        "sender_late_ms": round(load.late_s * 1000, 1),
        "reads": reader.asked,
        "cores": cores,
        "cores_of_others": round(max(everybody - sum(cores.values()), 0.0), 3),
        "cores_stolen": round(stolen, 3),
    }


async def flood(under_test: EngineUnderTest, options: argparse.Namespace, deltas: int) -> float:
    """Return how many deltas a second are decided of a flood that lies ready, and wait for all."""
    settings = under_test.settings
    logs = make_logs(settings)
    load = OpenLoop(logs, Router(settings.shards.count, settings.shards.spreads), 0.0)
    planned = background(
        np.random.default_rng(options.seed + deltas),
        options.listings - options.probed,
        now_ms(),
        deltas,
        1.0,
    )
    named = {*range(FLOOD_NAMED), *range(deltas - FLOOD_NAMED, deltas)}
    load.plan(
        [
            Planned(0.0, each.delta, place if place in named else -1)
            for place, each in enumerate(planned)
        ]
    )
    settle()
    await load.run(time.monotonic())
    await under_test.until_decided()
    await logs.close()
    decisions = await recorded(settings, load.probes)
    begin_ms = min(sent.appended_ms for sent in load.probes.values())
    end_ms = max(decision.appended_ms for decision in decisions.values())
    return deltas * 1000 / max(end_ms - begin_ms, 1)


async def find_rate(
    under_test: EngineUnderTest, options: argparse.Namespace, say: Progress
) -> dict[str, Any]:
    """Search the highest rates that keep the limits, beside the own maximum."""
    say(f"the own maximum, by a flood of {options.flood} deltas")
    await flood(under_test, options, max(options.flood // 4, 2 * FLOOD_NAMED))  # warms
    maximum = await flood(under_test, options, options.flood)
    say(f"{maximum:.0f} a second")
    runs: list[Run] = []
    before = 0

    async def run_at(per_s: int) -> None:
        nonlocal before
        tried = argparse.Namespace(**{**vars(options), "per_s": per_s})
        found = await measure(under_test, tried, say, before)
        before += int(options.probes_per_s * options.seconds)
        runs.append(Run(per_s, whole_p99_ms(found), found["probes_lost"]))
        say(f"{per_s} a second: p99 {runs[-1].p99_ms} ms")
        await under_test.until_decided()

    for of in FIRST_OF_MAXIMUM:
        await run_at(int(of * maximum))
    for limit_ms in LIMITS_MS:
        while (rate := next_rate(runs, limit_ms, maximum)) is not None:
            await run_at(rate)
    return found_rates(runs, LIMITS_MS, maximum)


def whole_p99_ms(found: dict[str, Any]) -> float:
    """Return the p99 of a run; infinite when a probe was lost or could not be read in time."""
    p99 = found["p99_ms"]
    return math.inf if found["probes_lost"] or p99 is None else float(p99)


def name_of(options: argparse.Namespace) -> str:
    """Return what the command is called in the bench and in the budgets: gates go by the load."""
    if options.find_rate:
        return "find-rate"
    return "latency-20000" if options.per_s == PROMISED_PER_S else COMMAND


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    """Fill, flow, probe."""
    if options.seconds is None:
        options.seconds = TRIED_SECONDS if options.find_rate else SECONDS
    tried = {
        key: json.loads(value) for key, _, value in (each.partition("=") for each in options.set)
    }
    with engine(options.embedded, **{"shards.spreads": {RETAILER: 2}, **tried}) as under_test:
        say("starting the stack")
        under_test.start()
        try:
            say(f"live; filling {options.listings} listings")
            filled_s = asyncio.run(
                fill(under_test, options.listings, options.probed, learning=options.learning)
            )
            if options.find_rate:
                found = uvloop.run(find_rate(under_test, options, say))
            else:
                found = uvloop.run(measure(under_test, options, say))
            state: dict[str, Any] = asyncio.run(under_test.status())
        finally:
            left = under_test.stop()
    return {
        "fill_s": round(filled_s, 1),
        **found,
        "follower_lag_ms": max((each["lag_ms"] for each in state["followers"]), default=None),
        "processes_left": left,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument(
        "--seconds", type=float, help=f"{SECONDS:g}, and {TRIED_SECONDS:g} a rate with --find-rate"
    )
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--per-s", type=int, default=1000, help="deltas a second")
    parser.add_argument("--probes-per-s", type=float, default=25.0)
    parser.add_argument("--probed", type=int, default=1000, help="listings only probes touch")
    parser.add_argument("--poll-ms", type=float, default=2.0, help="the reader's interval")
    parser.add_argument("--linger-ms", type=float, default=5.0, help="the sender gathers so long")
    parser.add_argument("--find-rate", action="store_true", help="the highest rates within limits")
    parser.add_argument("--flood", type=int, default=200_000, help="deltas of the own maximum")
    parser.add_argument("--learning", action="store_true", help="learn demand, from sales too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--set", action="append", default=[], help="a setting: key=JSON value")
    return run_command(name_of, parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
