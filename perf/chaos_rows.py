"""Row e: shard actors are killed and paused while real input is fed.

``python -m perf.chaos_rows --synthetic-oj --kills 10 --pauses 4 --json``; ``--standby`` keeps a
warm successor of every shard. Then the decision log is read once more by rules of its own (not the
reader's): ``seq`` contiguous, nothing doubled, nothing by a replaced owner, every delta consumed.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
from msgspec import Struct

from cluster.assembly import make_logs
from cluster.control import ControlClient, control_token
from cluster.launching import living_owners
from cluster.settings import Settings
from engine.decided import Decided
from engine.errors import FailedDependency, LogFault
from perf.comparison import compare_stores
from perf.real_input import POLICY, feed_words
from perf.real_stack import (
    EngineUnderTest,
    NotReached,
    end_verb,
    engine,
    machine,
    print_line,
)
from persistence.decision_reader import DecisionReader
from persistence.decision_records import DecisionRecord, EpochStarted, decode
from persistence.ports import DECISIONS, DELTAS, Record

PAUSE_S = 6.0
BETWEEN_S = (4.0, 9.0)
RECOVERY_S = 60.0


class Blow(Struct, frozen=True, kw_only=True):
    """One owner killed or paused, and how long its shard then decided nothing."""

    kind: str
    shard: int
    name: str
    next_decision_s: float  # by the log's own times: last before the blow to first of a successor


class Audit(Struct, kw_only=True):
    """What the raw decision log holds, judged by rules written here once more."""

    decisions: int = 0
    gaps: int = 0
    doubled: int = 0
    ignored: int = 0  # appended by owners already replaced: no reader may take them
    by_replaced: int = 0  # of those, taken by the reader that production uses
    read_otherwise: int = 0  # decisions that only one of the two, audit or reader, takes
    lost_deltas: int = 0
    epochs: int = 0


class ShardAudit:
    """Takes one shard's raw records in their order, and the reader's word on each."""

    def __init__(self, found: Audit, *, shard: int, generation: int) -> None:
        self.consumed = -1  # the last delta of a decision that counts
        self._found = found
        self._reader = DecisionReader(None, shard=shard, generation=generation)
        self._epoch, self._owner, self._seq = 0, b"", 0
        self._seen: set[int] = set()

    def take(self, record: Record) -> None:
        """Judge one record, then ask production's reader about the very same one."""
        decoded = decode(record.value)
        stamp = decoded.stamp
        stale = counted = False
        if isinstance(decoded, EpochStarted):
            # Of two starts with one epoch the first in the log reigns; the other is never noticed.
            if stamp.epoch > self._epoch:
                self._epoch, self._owner = stamp.epoch, stamp.owner
                self._found.epochs += 1
        elif isinstance(decoded, DecisionRecord):
            stale = (stamp.epoch, stamp.owner) != (self._epoch, self._owner)
            counted = not stale and self._count(decoded.decided)
            self._found.ignored += stale
        try:
            accepted = self._reader.accept(record)
        except LogFault:
            accepted = None  # a gap, counted above; the reader would stop loudly
        taken = accepted is not None and accepted.decided is not None
        self._found.by_replaced += stale and taken
        self._found.read_otherwise += taken != counted

    def _count(self, decided: Decided) -> bool:
        """Count a decision of who reigns; return whether it is a new one."""
        if decided.seq in self._seen:
            # An append in doubt is looked for before it is repeated, so whoever reigns and writes
            # a decision that already counts has doubled it.
            self._found.doubled += 1
            return False
        self._seen.add(decided.seq)
        self._found.gaps += decided.seq != self._seq + 1
        self._seq, self.consumed = decided.seq, decided.last_delta
        self._found.decisions += 1
        return True


async def audit(settings: Settings) -> Audit:
    """Read every record of every shard, by rules that production's reader does not share."""
    found = Audit()
    logs = make_logs(settings)
    for shard in range(settings.shards.count):
        log, deltas = await logs.open(DECISIONS, shard), await logs.open(DELTAS, shard)
        judge = ShardAudit(found, shard=shard, generation=settings.shards.generation)
        end, after = await log.end(), -1
        while after < end - 1:
            for record in await log.read(after, limit=1000, wait_ms=1000):
                after = record.offset
                judge.take(record)
        found.lost_deltas += await deltas.end() - 1 - judge.consumed
        await log.close()
        await deltas.close()
    await logs.close()
    return found


async def next_decision(
    settings: Settings, shard: int, owner: bytes, since_ms: int, wait_s: float = RECOVERY_S
) -> int:
    """Return when the log took the first decision of another owner after ``since_ms``."""
    logs = make_logs(settings)
    log = await logs.open(DECISIONS, shard)
    try:
        after = max(await log.end() - 50, -1)
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            for record in await log.read(after, limit=500, wait_ms=200):
                after = record.offset
                decoded = decode(record.value)
                if (
                    isinstance(decoded, DecisionRecord)
                    and decoded.stamp.owner != owner
                    and record.appended_ms >= since_ms
                ):
                    return record.appended_ms
        raise NotReached(f"shard {shard}: no decision within {wait_s:.0f} s")
    finally:
        await log.close()
        await logs.close()


async def strike(settings: Settings, shard: int, kind: str) -> Blow:
    """Kill, pause or overthrow a shard's owner, and wait for its successor's first decision.

    ``zombie`` lets the standby seal while the owner is stopped but not dead, and then lets it go
    on: what it appends until it meets the seal must be taken by nobody. The supervisor would have
    killed a paused one first, so ``pause`` makes no zombie.
    """
    owners = [each for each in living_owners(settings.run_folder) if each.start.shard == shard]
    owner, *standbys = sorted(owners, key=lambda each: each.start.number)
    struck_ms = time.time_ns() // 1_000_000
    os.kill(owner.pid, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
    if kind == "zombie":
        async with aiohttp.ClientSession() as session:
            control = ControlClient(session, control_token(settings.run_folder))
            await control.act(standbys[0].address, "take-over")
    waiting = asyncio.ensure_future(next_decision(settings, shard, owner.start.owner, struck_ms))
    if kind == "pause":
        await asyncio.sleep(PAUSE_S)
    decided_ms = await waiting
    if kind != "kill":
        with contextlib.suppress(ProcessLookupError):  # it was replaced, and killed for it
            os.kill(owner.pid, signal.SIGCONT)
    return Blow(
        kind=kind,
        shard=shard,
        name=owner.start.name,
        next_decision_s=round((decided_ms - struck_ms) / 1000, 3),
    )


async def storm(under_test: EngineUnderTest, kinds: list[str], draw: random.Random) -> list[Blow]:
    """Strike at random moments, one after the other."""
    settings = under_test.settings
    blows = []
    for kind in kinds:
        await asyncio.sleep(draw.uniform(*BETWEEN_S))
        await until_all_live(settings)
        blows.append(await strike(settings, draw.randrange(settings.shards.count), kind))
    return blows


async def until_all_live(settings: Settings, wait_s: float = 120) -> None:
    """Return once every shard has a live owner and, if there are to be any, a warm standby.

    Only the owners are asked: what ``repricer status`` asks besides takes much of a core.
    """
    wanted = {"live"} | ({"waiting"} if settings.shards.standby else set())
    needed = {(shard, phase) for shard in range(settings.shards.count) for phase in wanted}
    deadline = time.monotonic() + wait_s
    async with aiohttp.ClientSession() as session:
        control = ControlClient(session, control_token(settings.run_folder))
        while time.monotonic() < deadline:
            found = set()
            for owner in living_owners(settings.run_folder):
                with contextlib.suppress(FailedDependency):
                    state = await control.status(owner.address, deadline_s=2)
                    found.add((owner.start.shard, state["phase"]))
            if needed <= found:
                return
            await asyncio.sleep(0.5)
    raise NotReached(f"not all shards live, standbys warm: {sorted(found)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Feed, strike, count."""
    parser = argparse.ArgumentParser(prog="python -m perf.chaos_rows", description=__doc__)
    parser.add_argument("--oj", type=Path)
    parser.add_argument("--synthetic-oj", action="store_true")
    parser.add_argument("--weeks", type=int, default=121)
    parser.add_argument("--wire", choices=("json", "frames"), default="frames")
    parser.add_argument("--speed", type=float, default=5000.0, help="deltas a second")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--pauses", type=int, default=4)
    parser.add_argument("--zombies", type=int, default=0, help="with --standby: see ``strike``")
    parser.add_argument("--standby", action="store_true")
    parser.add_argument("--no-spare", dest="spare", action="store_false")
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one line of JSON (it always is)")
    options = parser.parse_args(arguments)
    draw = random.Random(options.seed)
    kinds = ["kill"] * options.kills + ["pause"] * options.pauses
    if options.zombies and not options.standby:
        parser.error("--zombies needs --standby")
    kinds += ["zombie"] * options.zombies
    draw.shuffle(kinds)
    with engine(
        options.embedded,
        **{
            "shards.clock": "event",
            "shards.spreads": {"dominicks": 2},
            "shards.standby": options.standby,
            "supervisor.spare": options.spare,
            "shards.checkpoint_s": 15,
        },
    ) as under_test:
        under_test.start()
        try:
            words = [*feed_words(options, POLICY), "--speed", str(options.speed)]
            feeding = under_test.begin_verb(*words)
            try:
                blows = asyncio.run(storm(under_test, kinds, draw))
            except NotReached:
                print(under_test.last_words(), file=sys.stderr)
                feeding.kill()
                raise
            still_feeding = feeding.poll() is None
            fed = end_verb(feeding)
            asyncio.run(under_test.until_decided())
            found = asyncio.run(audit(under_test.settings))
            compared = asyncio.run(compare_stores(under_test.settings))
            replayed = under_test.verb("replay")
        finally:
            left = under_test.stop()
    times = {
        kind: sorted(blow.next_decision_s for blow in blows if blow.kind == kind)
        for kind in ("kill", "pause", "zombie")
    }
    print_line(
        {
            "row": "e",
            "machine": machine(),
            "standby": options.standby,
            "kills": options.kills,
            "pauses": options.pauses,
            "zombies": options.zombies,
            "spare": options.spare,
            "fed_during_all": still_feeding,
            "deltas": fed["deltas"],
            "decisions": found.decisions,
            "epochs": found.epochs,
            "gaps": found.gaps,
            "doubled": found.doubled,
            "lost_deltas": found.lost_deltas,
            "stale_records": found.ignored,
            "by_a_replaced_owner": found.by_replaced,
            "read_otherwise": found.read_otherwise,
            "next_decision_s": times,
            "stores_equal": compared.equal,
            "stores_unequal": compared.unequal,
            "stores_counted_again": compared.counted_again,
            "replay_differences": replayed["differences"],
            "processes_left": left,
        }
    )
    wrong = found.gaps + found.doubled + found.lost_deltas
    wrong += found.by_replaced + found.read_otherwise
    return 0 if wrong == 0 and compared.equal and replayed["differences"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
