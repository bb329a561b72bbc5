"""One chaos run: begin, storm, let everything come back, judge the whole."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from msgspec import Struct

from cluster.assembly import checkpoint_folder, make_logs
from cluster.tree import make_keys
from engine.learnt import DAY_MS
from perf.chaos.calendar import DAY_S, Calendar, learning_calendar, machine_calendar
from perf.chaos.checker import Checker
from perf.chaos.clients import (
    LISTINGS,
    READERS,
    Gateway,
    Producer,
    Reader,
    Subscriber,
    retailers_of,
    world,
)
from perf.chaos.commanding import Commander
from perf.chaos.following import Following
from perf.chaos.injuries import BREATHER, Injuries, Struck
from perf.chaos.keeping import Lines
from perf.chaos.learning import DAYS_MIN, Compiled, Marks, learning_market, lessons
from perf.chaos.plan import KINDS, Fault, plan
from perf.chaos.site import Site
from perf.chaos.verdict import BACK_S, judge_status, judge_whole, until_back
from persistence.kafka_log import KafkaLogs
from persistence.ports import COMMANDS, DECISIONS, DELTAS
from training.worlds.market import Market

BREATH_S: Final = 60.0
HANGS_UP_S: Final = 15.0
SETTLE_S: Final = 0.5
WARM_S: Final = 8.0
"""How long everything runs unharmed before the first fault."""


class Wish(Struct, frozen=True, kw_only=True):
    """What was asked for."""

    seed: int = 1
    faults: int = 0  # 0: as many as the minutes hold
    minutes: float = 0.0  # 0: until so many faults fired
    kinds: tuple[str, ...] = tuple(KINDS)
    pace_s: float = 5.0
    shards: int = 2
    standby: bool = False
    learning: bool = False  # retailers learn, and days pass
    head_down_s: float = 0.0


class Told(Struct, kw_only=True):
    """Everything that a report needs."""

    wish: Wish
    calendar: Calendar
    began_ms: int = 0
    storm_ms: int = 0
    over_ms: int = 0
    ended_ms: int = 0
    struck: list[Struck] = []
    left_out: dict[str, str] = {}
    servers: dict[str, str] = {}  # their versions
    checker: Checker
    following: Following
    gateway: Gateway
    producers: list[Producer] = []
    commander: Commander
    subscribers: list[Subscriber] = []
    end: dict[str, Any] = {}
    back_s: float = 0.0
    head_down: dict[str, Any] = {}


class Run:
    """Puts a site, its clients and its faults together for one wish."""

    def __init__(
        self,
        site: Site,
        wish: Wish,
        *,
        say: Callable[[str], None],
        shown: Callable[[Told], None],
        keep: Path | None = None,
    ) -> None:
        self._site = site
        self._wish = wish
        self._say = say
        self._shown = shown
        # Straight to the broker: what the network does to the engine must not blind the judge.
        self._logs = KafkaLogs(site.broker.address)
        self._sending = make_logs(site.settings)  # the producer's, through the proxy as all others
        generation = site.settings.shards.generation
        checker = Checker(wish.shards, generation=generation, now_ms=_now_ms)
        self._checker = checker
        self.lines = Lines(keep)
        following = Following(checker, self._logs, self.lines)
        self._retailers = retailers_of(wish.shards)
        address = f"http://127.0.0.1:{site.settings.gateway.port}"
        truths = checker.truths
        self.injuries = Injuries(site, lambda shard: truths[shard].reigns)
        behind = partial(self.injuries.clock_behind, "gateway")
        gateway = Gateway(address, make_keys(site.settings), checker, behind)
        draw = Random(f"clients {wish.seed}")
        self._marks: Marks | None = None
        self._last_midnight = 0  # before it no trial in which prices are learnt ends
        if wish.learning:
            shards = range(wish.shards)
            self._marks = Marks([checkpoint_folder(site.settings, each) for each in shards])
        calendar = learning_calendar() if wish.learning else machine_calendar()
        self.told = Told(
            wish=wish,
            calendar=calendar,
            checker=checker,
            servers=site.versions,
            following=following,
            gateway=gateway,
            commander=Commander(gateway, checker, draw, calendar),
            producers=[
                self._producer(shard, retailer, calendar)
                for shard, retailer in enumerate(self._retailers)
            ],
            subscribers=[
                Subscriber(
                    f"stream {number} of {retailer}",
                    gateway,
                    checker,
                    retailer,
                    hangs_up_s=HANGS_UP_S * number,
                )
                for retailer in self._retailers
                for number in (0, 1)
            ],
        )
        if site.why_no_disks:
            self.told.left_out["disk"] = site.why_no_disks
        self._draw = draw

    def _producer(self, shard: int, retailer: str, calendar: Calendar) -> Producer:
        """Return who tells a retailer's market, in which he learns or not."""
        seed = self._wish.seed + shard
        if self._wish.learning:
            market = learning_market(seed, retailer, calendar.now_ms())
        else:
            market = Market(seed, LISTINGS, world(retailer))
        return Producer(self._checker, self._sending, shard, market, calendar)

    async def live(self) -> Told:
        """Run to the end and return all that was heard."""
        told = self.told
        told.began_ms = _now_ms()
        await told.gateway.open()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(told.gateway.close)
            watching = self._begin(self._watchers())
            stack.push_async_callback(_end, watching)
            sending = self._begin(producer.run() for producer in told.producers)
            asking = self._begin([told.commander.run()])
            stack.push_async_callback(_end, [*sending, *asking])
            stack.push_async_callback(self.injuries.heal)
            await self._guarded(self._storm(), [*watching, *sending, *asking])
            for producer in told.producers:
                producer.stopped.set()
            told.commander.stopped.set()
            await self._ended(sending, "the producers were not acknowledged")
            await self._ended(asking, "commands were not answered")
            await self._guarded(self._judge_end(), watching)
        told.ended_ms = _now_ms()
        return told

    async def close(self) -> None:
        """Let go of the logs."""
        await self._sending.close()
        await self._logs.close()

    # ----- living -------------------------------------------------------------------------------

    def _watchers(self) -> Iterable[Any]:
        told = self.told
        for shard in range(self._wish.shards):
            yield told.following.decisions(shard)
            yield told.following.deltas(shard)
            yield told.following.commands(shard)
        for _ in range(READERS):
            yield Reader(told.gateway, told.checker, self._draw).run()
        for subscriber in told.subscribers:
            yield subscriber.run()
        if self._marks is not None:
            yield self._marks.watch()
        yield self._settle()

    async def _settle(self) -> None:
        while True:
            self.told.checker.settle()
            self._shown(self.told)
            await asyncio.sleep(SETTLE_S)

    async def _storm(self) -> None:
        told, wish = self.told, self._wish
        told.struck = self.injuries.struck
        await asyncio.sleep(WARM_S)
        await self._all_live("before the first fault")
        if wish.learning:
            await self._teach()
        told.storm_ms = _now_ms()
        self._say("every shard lives; the storm begins")
        if wish.head_down_s:
            await self._head_down(wish.head_down_s)
        deadline = time.monotonic() + wish.minutes * 60 if wish.minutes else None
        for fault in self._faults():
            fired = sum(each.fired for each in told.struck)
            if (wish.faults and fired >= wish.faults) or (deadline and time.monotonic() > deadline):
                break
            await self._midnight(fault)
            struck = await self.injuries.strike(fault)
            if struck.fired and (fired + 1) % BREATHER == 0:
                await self.injuries.over()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._all_live("a breather"), BREATH_S)
                broken = sum(told.checker.broken.values())
                self._say(f"{fired + 1} faults, {broken} violations")
            await asyncio.sleep(fault.gap * wish.pace_s)
        await self.injuries.over()
        if wish.learning:
            await asyncio.sleep(told.calendar.seconds_to(self._last_midnight))
        told.over_ms = _now_ms()

    async def _teach(self) -> None:
        """Let retailers learn as soon as their owners have compiled what that takes."""
        self._say("waiting until every owner has compiled what learning needs")
        compiled, deadline = Compiled(), time.monotonic() + BACK_S
        while not compiled.look(await self._site.engine.status(), self._wish.shards):
            if time.monotonic() > deadline:
                self._say("not every owner has; retailers learn all the same")
                break
            await asyncio.sleep(1)
        for producer, retailer in zip(self.told.producers, self._retailers, strict=True):
            producer.also = lessons(retailer, self.told.calendar.now_ms())
        self._last_midnight = self.told.calendar.next_midnight + DAYS_MIN - 1

    async def _midnight(self, fault: Fault) -> None:
        """Where prices are learnt, let what befalls an owner wait until his shard's day turns."""
        struck = fault.kind in ("kill", "pause") and fault.target.startswith("owner:")
        if not self._wish.learning or not struck:
            return
        truth = self.told.checker.truths[int(fault.target.partition(":")[2])]
        day, deadline = truth.decided_ms // DAY_MS, time.monotonic() + 2 * DAY_S
        while truth.decided_ms // DAY_MS == day and time.monotonic() < deadline:
            await asyncio.sleep(0.002)

    def _faults(self) -> Iterable[Fault]:
        if not self._wish.faults and not self._wish.minutes:
            return ()
        kinds = [kind for kind in self._wish.kinds if kind not in self.told.left_out]
        return plan(self._wish.seed, shards=self._wish.shards, kinds=kinds) if kinds else ()

    async def _head_down(self, seconds: float) -> None:
        """Kill Ray's head, and every head that is started, for so long."""
        told, site = self.told, self._site
        truths = told.checker.truths
        before, reads = [truth.seq for truth in truths], told.gateway.counts["answered"]
        struck = Struck(
            fault=Fault(number=-1, kind="kill", target="gcs", how="again and again"),
            planned_ms=_now_ms(),
            fired_ms=_now_ms(),
        )
        told.struck.append(struck)
        killed, deadline = 0, time.monotonic() + seconds
        quiet_s = [0.0] * len(truths)
        seen = [(truth.seq, time.monotonic()) for truth in truths]
        while time.monotonic() < deadline:
            killed += await asyncio.to_thread(site.kill_heads)
            for shard, truth in enumerate(truths):
                now = time.monotonic()
                if truth.seq > seen[shard][0]:
                    seen[shard] = (truth.seq, now)
                quiet_s[shard] = max(quiet_s[shard], now - seen[shard][1])
            await asyncio.sleep(0.25)
        struck.over_ms = _now_ms()
        told.head_down = {
            "seconds": seconds,
            "heads_killed": killed,
            "decisions_meanwhile": [
                truth.seq - start for truth, start in zip(truths, before, strict=True)
            ],
            "reads_meanwhile": told.gateway.counts["answered"] - reads,
            "longest_without_a_decision_s": [round(each, 1) for each in quiet_s],
        }
        # Control is back when an owner that dies gets a successor, which only a head can start.
        kill = Fault(number=-2, kind="kill", target="owner:0", gap=0.0)
        began = time.monotonic()
        reigns = truths[0].reigns
        await self.injuries.strike(kill)
        while truths[0].reigns == reigns and time.monotonic() - began < BACK_S:
            await asyncio.sleep(0.2)
        told.head_down["successor_after_s"] = round(time.monotonic() - began, 1)
        told.head_down["returned"] = truths[0].reigns > reigns
        if truths[0].reigns == reigns:
            told.checker.found("not_recovered", "no owner was started after Ray's head was away")
        await self.injuries.over()

    async def _all_live(self, when: str) -> None:
        """Wait until every shard has a live owner, and the gateway answers freshly."""
        wanted = range(self._wish.shards)
        while True:
            status = await self._site.engine.status()
            live = {each["shard"] for each in status["shards"] if each.get("phase") == "live"}
            if live >= set(wanted):
                return
            await asyncio.sleep(1)

    # ----- the end ------------------------------------------------------------------------------

    async def _judge_end(self) -> None:
        """Wait until everything came back, then compare everything with the log."""
        told, site = self.told, self._site
        began = time.monotonic()
        self._say("the faults are over; waiting until everything is decided and written")
        status = await until_back(told.checker, site.engine)
        told.back_s = round(time.monotonic() - began, 1)
        await self._catch_up()
        for shard, retailer in enumerate(self._retailers):
            await self._compare_gateway(shard, retailer)
        await asyncio.sleep(3)
        told.checker.streams.compare_at_end()
        judge_status(told.checker, status)
        told.checker.finish()
        self._say("comparing the stores with the log, and replaying every decision")
        told.end |= await judge_whole(told.checker, site, self._marks)

    async def _catch_up(self) -> None:
        """Let the checker read to the logs' present ends: nobody gives a command any more."""
        checker = self.told.checker
        for shard in range(self._wish.shards):
            for topic in (COMMANDS, DELTAS, DECISIONS):
                log = await self._logs.open(topic, shard)
                try:
                    end = await log.end()
                finally:
                    await log.close()
                deadline = time.monotonic() + 30
                while checker.reached(topic, shard) < end and time.monotonic() < deadline:
                    await asyncio.sleep(0.1)
                if checker.reached(topic, shard) < end:
                    checker.found("not_recovered", f"the checker could not read {topic} to its end")

    async def _compare_gateway(self, shard: int, retailer: str) -> None:
        checker = self.told.checker
        truth = checker.truths[shard]
        by_channel: dict[str, list[str]] = {}
        for owner, channel, sku in truth.names:
            if owner == retailer:
                by_channel.setdefault(channel, []).append(sku)
        documents = []
        for channel, skus in by_channel.items():
            documents += await self.told.gateway.all_prices(retailer, skus, channel)
        publishing = await self.told.gateway.publishing(retailer)
        policies = await self.told.gateway.listing_policies(retailer)
        await asyncio.sleep(1.5)  # a heartbeat later the log was read beyond them
        checker.compare_gateway(retailer, documents)
        checker.compare_standing(retailer, publishing, policies)

    # ----- tasks --------------------------------------------------------------------------------

    async def _ended(self, tasks: "Sequence[asyncio.Future[Any]]", otherwise: str) -> None:
        """Wait until these ended by themselves; say what it means when they do not."""
        done, late = await asyncio.wait(tasks, timeout=BACK_S)
        for task in done:
            task.result()
        if late:
            self.told.checker.found("not_recovered", f"after {BACK_S:.0f} s {otherwise}")
            await _end(list(late))

    def _begin(self, works: Iterable[Any]) -> "list[asyncio.Future[Any]]":
        return [asyncio.ensure_future(work) for work in works]

    async def _guarded(self, work: Any, others: "Sequence[asyncio.Future[Any]]") -> None:
        """Do something while others run; what one of them raises ends it."""
        task = asyncio.ensure_future(work)
        try:
            pending = {task, *(each for each in others if not each.done())}
            while not task.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for each in done - {task}:
                    each.result()
            task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})


async def _end(tasks: "Sequence[asyncio.Future[Any]]") -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
