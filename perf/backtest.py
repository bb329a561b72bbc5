"""How much faster than life a recorded log is decided again by another policy.

``python -m perf.backtest [--listings 2000] [--days 2] [--quiet-hours 1] [--json]``

A production owner on logs in SQLite decides a shop that learns, and whom a market answers: each
minute of some days it is told what was sold, what rivals ask and what was counted in stock, as JSON
documents. What is recorded is then decided again by the code of ``repricer backtest``, once by the
recorded policy, which must repeat every decision, and some times by another one. Reading the log
and decoding it are part of it, starting the command and compiling kernels are not: the recording
has compiled them.

A second log is of **quiet hours**: nothing is told after the opening, and the owner writes a mark
every 250 ms as a live one does, four microbatches a second that hold nothing.

The owner's clock is the recording's and not the machine's, so days are recorded in a minute; a
decision's time, its cut and the bytes of the log are what they were had it waited.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.shard_actor import OwnerSettings, ShardActor
from cluster.assembly import make_checkpoints
from cluster.commands.backtesting import decided_again
from cluster.commands.speaking import Common, Voice
from cluster.feeding import Feed, Router, Wire
from cluster.settings import LogSettings, Settings, ShardSettings
from cluster.topics import topics_of
from engine.deltas import AnyDelta, PolicyChanged, ScopeChange
from engine.learnt import DAY_MS
from engine.shard import Shard
from engine.shard import ShardSettings as NewShard
from perf.measuring import Progress, arguments_of, ratio, run_command, significant
from persistence.sqlite_log import SqliteLogs
from training.worlds.market import Market, World

COMMAND = "backtest"
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
HEARTBEAT_MS = 250
READ_WAIT_S = 0.0005
NEVER_MS = 10**12
"""No checkpoint is due, and nothing expires: the log is decided again from where it begins."""

POLICY: dict[str, object] = {"learning": True, "step_max": 0.1, "changes_per_hour_max": 60}
OTHER = (ScopeChange(fields={"min_margin": 0.12, "dither": 0.01, "learning_step": 0.02}),)
"""The policy that is tried: another floor, and less courage in learning."""

WORLD = World(volume_median=20.0, rival_looks_per_day=24.0)
"""Every rival's price is told once an hour, which of them each minute; some sell each minute."""


class RecordedClock:
    """A clock that stands where the recording puts it."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def wall_ms(self) -> int:
        """Return unix time."""
        return self.now_ms

    def monotonic_ms(self) -> int:
        """Return the same: this clock never jumps."""
        return self.now_ms


class Recording:
    """An owner and what it is told, at the times of a clock of its own."""

    def __init__(self, settings: Settings, listings: int, wire: Wire) -> None:
        self.settings = settings
        self.market = Market(1, listings, WORLD)
        self.clock = RecordedClock(WORLD.start_ms)
        self._logs = SqliteLogs(settings.folder / "log", now_ms=self.clock.wall_ms)
        self._feed = Feed(self._logs, Router(1, {}), wire)
        self._actor = self._owner()

    def _owner(self) -> ShardActor:
        born = NewShard(shard=0, generation=self.settings.shards.generation)
        return ShardActor(
            0,
            logs=self._logs,
            checkpoints=make_checkpoints(self.settings, 0),
            clock=self.clock,
            settings=OwnerSettings(
                generation=born.generation,
                heartbeat_ms=HEARTBEAT_MS,
                checkpoint_interval_ms=NEVER_MS,
            ),
            new_shard=lambda: Shard(born),
            restore=lambda parts: Shard.restore(parts, born),
            owner=b"o" * 16,
        )

    @property
    def shard(self) -> Shard:
        """Return what the owner owns."""
        shard = self._actor._shard
        assert isinstance(shard, Shard)
        return shard

    async def begin(self) -> None:
        """Start the owner and tell it the market as it opens."""
        await self._logs.create(topics_of(self.settings), retention_ms=NEVER_MS)
        await self._actor.start()
        opening = self.market.opening()
        retailer, policy = WORLD.retailer, POLICY
        learns = PolicyChanged(
            retailer=retailer, scope="retailer", fields=policy, observed_ms=self.clock.now_ms
        )
        await self._told([opening[0], learns, *opening[2:]])

    async def live_minute(self) -> None:
        """Let a minute pass, and tell what it brought."""
        listings = self.shard._memory.listings
        held = listings.listings[: listings.rows]
        prices = dict(zip(held["key"].tolist(), held["in_force_minor"].tolist(), strict=True))
        self.clock.now_ms += MINUTE_MS
        await self._told(self.market.advance(prices, self.clock.now_ms))

    async def be_quiet(self, heartbeats: int) -> None:
        """Let the owner write marks, as it does where nothing is told."""
        for _ in range(heartbeats):
            self.clock.now_ms += HEARTBEAT_MS
            await self._actor.step()

    async def close(self) -> None:
        """Let the owner go, as a crash would."""
        await self._feed.close()
        await self._actor._let_go()
        await self._logs.close()

    async def _told(self, deltas: Sequence[AnyDelta]) -> None:
        """Tell deltas and have them decided, with all work that follows."""
        if not deltas:
            return
        await self._feed.send(deltas)
        last = self._feed.records - 1
        while self.shard.last_delta < last or self.shard.backlog:
            if self.shard.last_delta < last and self._actor._inbox.is_quiet():
                await asyncio.sleep(READ_WAIT_S)
                continue
            await self._actor.step()


async def recorded(folder: Path, options: argparse.Namespace, say: Progress) -> Settings:
    """Record some days of a shop, minute by minute; return the settings that read its log."""
    settings = settings_of(folder)
    recording = Recording(settings, options.listings, options.wire)
    await recording.begin()
    minutes = round(options.days * DAY_MS / MINUTE_MS)
    for minute in range(minutes):
        if minute % 360 == 0:
            say(f"recording minute {minute:,} of {minutes:,}")
        await recording.live_minute()
    await recording.close()
    return settings


async def recorded_quiet(folder: Path, options: argparse.Namespace, say: Progress) -> Settings:
    """Record a shop to which nothing is told but itself."""
    settings = settings_of(folder)
    recording = Recording(settings, options.listings, options.wire)
    await recording.begin()
    say(f"recording {options.quiet_hours:g} quiet hours")
    await recording.be_quiet(round(options.quiet_hours * HOUR_MS / HEARTBEAT_MS))
    await recording.close()
    return settings


def settings_of(folder: Path) -> Settings:
    """Return the settings of a data folder with one shard on logs in SQLite."""
    log = LogSettings(backend="sqlite")
    return Settings(folder=folder, log=log, shards=ShardSettings(count=1))


def tried(
    settings: Settings, changes: tuple[ScopeChange, ...], what: str, say: Progress
) -> dict[str, Any]:
    """Decide a recording again as the command does, and return what it answers."""
    voice = Voice(Common(json=True))
    began_s = time.process_time()
    result = asyncio.run(decided_again(settings, changes, None, voice))
    result["processor_s"] = time.process_time() - began_s
    say(f"{what}: {result['times_real_time']:,} times real time")
    return result


def spreads_of(results: Sequence[dict[str, Any]], prefix: str = "") -> dict[str, Any]:
    """Return the speed of several tries of one recording."""
    recorded_s = [result["days"] * DAY_MS / 1000 for result in results]
    seconds = [result["seconds"] for result in results]
    processor_s = [result["processor_s"] for result in results]
    microbatches = [float(result["decisions"]) for result in results]
    return {
        f"{prefix}times_real_time": ratio(recorded_s, seconds),
        f"{prefix}times_real_time_by_processor": ratio(recorded_s, processor_s),
        f"{prefix}microbatches_per_s": ratio(microbatches, seconds),
    }


def figures_of(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    """Record, decide again, and return all figures."""
    with tempfile.TemporaryDirectory(prefix="repricer-", dir=".") as name:
        days = asyncio.run(recorded(Path(name) / "days", options, say))
        quiet = asyncio.run(recorded_quiet(Path(name) / "quiet", options, say))
        same = tried(days, (), "as recorded", say)
        tries = [tried(days, OTHER, "another policy", say) for _ in range(options.pairs)]
        rests = [tried(quiet, OTHER, "quiet hours", say) for _ in range(options.pairs)]
    first, facts = tries[0], [float(each["deltas"]) for each in tries]
    assert all(each["earned"] == first["earned"] for each in tries), "a backtest repeats itself"
    (earned,) = first["earned"]
    return {
        "listings": first["listings"],
        "days": round(first["days"], 3),
        "microbatches": first["decisions"],
        "facts": first["deltas"],
        **spreads_of(tries),
        "facts_per_s": ratio(facts, [each["seconds"] for each in tries]),
        **spreads_of([same], "as_recorded_"),
        "differences": same["differences"] + same["expected"],
        "proposals": first["proposals"],
        "other": first["other"],
        "extrapolated": significant(first["extrapolation"]),
        "supported": first["supported"],
        "profit_ratio": [
            significant(earned[name] / earned["recorded_minor"])
            for name in ("low_minor", "difference_minor", "high_minor")
        ],
        "quiet_microbatches": rests[0]["decisions"],
        **spreads_of(rests, "quiet_"),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--listings", type=int, default=2_000)
    parser.add_argument("--days", type=float, default=2.0)
    parser.add_argument("--quiet-hours", type=float, default=1.0)
    parser.add_argument("--wire", choices=["json", "frames"], default="json")
    parser.add_argument("--pairs", type=int, default=3)
    return run_command(COMMAND, parser, arguments, figures_of)


if __name__ == "__main__":
    sys.exit(main())
