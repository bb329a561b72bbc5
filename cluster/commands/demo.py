"""``demo``: everything embedded, a market that answers our prices, a live table."""

import asyncio
import contextlib
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter
from rich.live import Live
from rich.table import Table

from cluster.assembly import make_logs
from cluster.commands.speaking import Common, Voice, flags_of, run, settings_of, table
from cluster.feeding import Feed, Router
from cluster.judging import Judge
from cluster.settings import Settings
from cluster.telemetry import configure_logs
from cluster.tree import Tree, make_keys, role_card, until_told
from engine.decided import State
from engine.errors import FailedDependency
from persistence.decision_reader import DecisionReader
from persistence.ports import DECISIONS, Logs
from training.worlds.market import Market, World

TICK_S = 0.25
SHOWN = 14


def demo(
    *,
    seconds: Annotated[
        float | None, Parameter(help="end after so many seconds of prices; default: Ctrl-C")
    ] = None,
    listings: Annotated[int, Parameter(help="in the market")] = 200,
    seed: Annotated[int, Parameter(help="of the market")] = 1,
    port: Annotated[int, Parameter(help="of the console; 0: any free one")] = 8080,
    common: Common | None = None,
) -> int:
    """Run the whole engine on embedded stores against a market that answers its prices."""
    voice = Voice(common)
    flags = flags_of(common)
    temporary = None
    if "folder" not in flags:
        temporary = Path(tempfile.mkdtemp(prefix="repricer-demo-"))
    chosen = {
        "gateway.port": port,
        "ray.dashboard_port": 0,
        "shards.checkpoint_s": 60,
        "supervisor.spare": False,  # it would take a core while the first prices are decided
    }
    settings = settings_of(common, chosen | ({"folder": temporary} if temporary else {}))
    try:
        result = run(_demo(settings, voice, seconds, Market(seed, listings, lively())))
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    shown = table("demo", "", "")
    for name, value in result.items():
        shown.add_row(name.replace("_", " "), str(value))
    voice.answer(result, shown)
    return 1 if result["prices_outside_guardrails"] or result["first_price_s"] is None else 0


def lively() -> World:
    """Return a market in which enough happens to be watched."""
    return World(
        start_ms=time.time_ns() // 1_000_000 - 1000,
        volume_median=20_000.0,
        rival_reactions_per_day=1500.0,
        rival_looks_per_day=1500.0,
        cost_changes_per_day=30.0,
        shock_sd=0.01,
        stock_days=0.02,
        refill_days=0.002,
    )


class Watcher:
    """Follows the decision logs for the demo: prices in force, counts, what moved last."""

    def __init__(self, settings: Settings, judge: Judge, began: float) -> None:
        self.decisions = 0
        self.marks = 0
        self.quotes = 0
        self.first_price_s: float | None = None
        self.prices: dict[int, int] = {}
        self.moved: deque[np.void] = deque(maxlen=SHOWN)
        self._settings = settings
        self._judge = judge
        self._began = began

    async def follow(self, logs: Logs, shard: int) -> None:
        """Read one shard's decisions for ever."""
        generation = self._settings.shards.generation
        reader = DecisionReader(None, shard=shard, generation=generation)
        log = await logs.open(DECISIONS, shard)
        while True:
            try:
                records = await log.read(reader.offset, limit=500, wait_ms=500)
            except FailedDependency:
                await asyncio.sleep(0.1)
                continue
            for record in records:
                accepted = reader.accept(record)
                if accepted is not None and accepted.decided is not None:
                    self._take(accepted.decided.quotes, has_rows=accepted.decided.has_rows)

    def _take(self, quotes: np.ndarray, *, has_rows: bool) -> None:
        self.marks += 1
        self.decisions += has_rows
        self.quotes += len(quotes)
        self._judge.judge(quotes)
        for quote in quotes:
            price = int(quote["in_force_minor"])
            if price and price != int(quote["previous_minor"]):
                self.moved.append(quote)
            if price:
                self.prices[int(quote["listing"])] = price
            if self.first_price_s is None and int(quote["proposed_minor"]) > 0:
                self.first_price_s = round(time.monotonic() - self._began, 2)


async def _demo(
    settings: Settings, voice: Voice, seconds: float | None, market: Market
) -> dict[str, Any]:
    level = settings.telemetry.level
    configure_logs("up", settings.folder / "logs", level=level, as_json=False, aside=False)
    began = time.monotonic()
    told = asyncio.ensure_future(until_told(signal.SIGTERM, signal.SIGINT))
    judge = Judge()
    watcher = Watcher(settings, judge, began)
    facts = 0
    voice.say("starting Ray, the shards, the gateway and the followers")
    async with Tree(settings, say=voice.say) as tree:
        logs = make_logs(settings)
        sender = Feed(logs, Router(settings.shards.count, settings.shards.spreads))
        following = [
            asyncio.ensure_future(watcher.follow(logs, shard))
            for shard in range(settings.shards.count)
        ]
        opening = market.opening()
        judge.learn(opening)
        await sender.send(opening)
        await tree.until_live()
        for line in _where(tree):
            voice.say(line)
        live_from = time.monotonic()
        with _table(voice) as live:
            while not told.done() and not _over(live_from, seconds):
                deltas = market.advance(watcher.prices, time.time_ns() // 1_000_000)
                judge.learn(deltas)
                facts += len(deltas)
                await sender.send(deltas)
                if live is not None:
                    live.update(_shown(watcher, judge))
                _raise_if_ended(following)
                await asyncio.wait({told}, timeout=TICK_S)
        for task in following:
            task.cancel()
        await asyncio.wait(following)
        await sender.close()
        await logs.close()
        told.cancel()
        voice.say("stopping")
    return {
        "first_price_s": watcher.first_price_s,
        "decisions": watcher.decisions,
        "prices_outside_guardrails": judge.outside,
        "prices_judged": judge.judged,
        "outside": judge.found[:5],
        "quotes": watcher.quotes,
        "marks": watcher.marks,
        "listings_priced": len(watcher.prices),
        "facts": facts,
        "seconds": round(time.monotonic() - began, 2),
    }


def _over(live_from: float, seconds: float | None) -> bool:
    return seconds is not None and time.monotonic() - live_from >= seconds


def _raise_if_ended(tasks: "Sequence[asyncio.Future[None]]") -> None:
    for task in tasks:
        if task.done():
            task.result()


def _where(tree: Tree) -> list[str]:
    card = role_card(tree.settings, "gateway")
    lines = [
        f"console  {card.address if card else '(starting)'}/console",
        f"API key  {make_keys(tree.settings)}",
    ]
    if tree.node and tree.node.dashboard:
        lines.append(f"Ray      {tree.node.dashboard}   token: {tree.node.token_file}")
    return lines


@contextlib.contextmanager
def _table(voice: Voice) -> Any:
    """Show a live table where somebody watches."""
    if voice.json or not voice.aside.is_terminal:
        yield None
        return
    with Live(console=voice.aside, refresh_per_second=4, transient=True) as live:
        yield live


def _shown(watcher: Watcher, judge: Judge) -> Table:
    title = (
        f"{len(watcher.prices)} listings priced, {watcher.decisions} decisions, "
        f"{judge.judged} prices judged, {judge.outside} outside the guardrails"
    )
    shown = table(title, "SKU", "channel", "was", "now", "floor", "rival", "state")
    for quote in reversed(watcher.moved):
        terms = judge.terms[int(quote["listing"])]
        shown.add_row(
            terms.sku,
            terms.channel,
            f"{int(quote['previous_minor']) / 100:.2f}",
            f"{int(quote['in_force_minor']) / 100:.2f}",
            f"{int(quote['floor_minor']) / 100:.2f}",
            f"{int(quote['rival_minor']) / 100:.2f}",
            State(int(quote["state"])).name.lower(),
        )
    return shown
