"""The rounds: fill the feed once, then run every contender in turn, ours with them."""

import asyncio
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from perf.peers import feed
from perf.peers.contenders import Contender, Run, owner_command
from perf.peers.measured import Failed, Measured, run_measured
from perf.workload import Workload, WorkloadSettings, table_sha256
from persistence.frames import FRAME
from persistence.kafka_log import KafkaLogs
from persistence.ports import COMMANDS, DELTAS
from persistence.wire import encode_delta

START_EVENTS: Final = 1_000
"""The run that is subtracted: process, connections, catalogue, and one thousand messages."""

OURS: Final = "ours"
OURS_BY_FRAMES: Final = "ours_by_frames"
FRAMED_DELTAS: Final = "deltas-in-frames"
"""The engine's own lane once more, the same catalogue and the same facts, in columnar frames."""

LANES: Final = {OURS: DELTAS, OURS_BY_FRAMES: FRAMED_DELTAS}
OWNER_LIMIT_S: Final = 600.0
RETENTION_MS: Final = 14 * 86_400_000


class Taken(Struct, frozen=True, kw_only=True):
    """One run of one contender, net of what starting takes."""

    events: int
    cpu_s: float
    wall_s: float
    start_cpu_s: float
    start_wall_s: float
    peak_rss_mb: float
    emitted: int
    sha256: str
    equal: bool
    detail: dict[str, object] = {}

    @property
    def cpu_s_a_million(self) -> float:
        """Return net CPU seconds a million events."""
        return self.cpu_s / self.events * 1e6


class Bench:
    """One feed and all runs over it."""

    def __init__(
        self,
        *,
        bootstrap: str,
        folder: Path,
        events: int,
        listings: int,
        partitions: int,
        seed: int,
        peers: Sequence[Contender],
        ours: bool,
    ) -> None:
        self.work = Workload(
            WorkloadSettings(events=events, listings=listings, partitions=partitions, seed=seed)
        )
        self.bootstrap, self.folder, self.peers, self.ours = bootstrap, folder, peers, ours
        self.taken: dict[str, list[Taken]] = defaultdict(list)
        self.failures: dict[str, str] = {}
        self._openings: dict[int, int] = {}
        self._references: dict[int, str] = {}
        self._runs = 0
        self.catalogue = folder / "catalogue.csv"

    def events_of(self, peer: Contender) -> int:
        """Return how many of the feed's messages a peer gets."""
        return max(int(self.work.settings.events * peer.share), 2 * START_EVENTS)

    def reference(self, events: int) -> str:
        """Return the sum of the table after so many events."""
        if events not in self._references:
            self._references[events] = table_sha256(self.work.final_prices(events))
        return self._references[events]

    # ----- filling ---------------------------------------------------------------------------

    async def fill(self) -> None:
        """Write the catalogue, and fill the topics of all lengths."""
        self.catalogue.write_text("".join(self.work.catalogue_lines()))
        partitions = self.work.settings.partitions
        lengths = {self.events_of(peer) for peer in self.peers} | {START_EVENTS}
        for events in sorted(lengths):
            note(f"filling {events:,} messages")
            topic = f"feed-{events}"
            await feed.create(self.bootstrap, topic, partitions)
            await feed.fill(self.bootstrap, topic, self.work.messages(events), partitions)
        if self.ours:
            await self._fill_ours()

    async def _fill_ours(self) -> None:
        """Fill the engine's own lane: catalogue and feed."""
        note("filling the engine's lanes, by JSON and by frames")
        partitions = self.work.settings.partitions
        logs = KafkaLogs(self.bootstrap)
        try:
            topics = dict.fromkeys((DELTAS, FRAMED_DELTAS, COMMANDS), partitions)
            await logs.create(topics, retention_ms=RETENTION_MS)
        finally:
            await logs.close()

        def opening() -> Iterator[tuple[int, bytes, bytes]]:
            for partition, retailer in enumerate(self.work.retailers):
                for delta in self.work.opening(partition):
                    yield partition, retailer.encode(), encode_delta(delta)

        for topic in LANES.values():
            counts = await feed.fill(self.bootstrap, topic, opening(), partitions)
            self._openings = {partition: count - 1 for partition, count in enumerate(counts)}
        await feed.fill(self.bootstrap, DELTAS, self.work.messages(), partitions)
        await feed.fill(self.bootstrap, FRAMED_DELTAS, self.work.frames(), partitions, FRAME)

    # ----- running ---------------------------------------------------------------------------

    def round(self, number: int) -> None:
        """Run everybody once; who begins moves on from round to round."""
        names = [*(LANES if self.ours else ()), *(peer.name for peer in self.peers)]
        peers = {peer.name: peer for peer in self.peers}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if name in self.failures:
                continue
            try:
                taken = self._run_ours(name) if name in LANES else self._run_peer(peers[name])
            except Failed as error:
                self.failures[name] = str(error)
                note(f"{name} failed: {error}")
                continue
            self.taken[name].append(taken)
            note(
                f"round {number + 1}, {name}: {taken.cpu_s_a_million:.2f} CPU-s a million, "
                f"{taken.events / taken.wall_s:,.0f} events/s"
                + ("" if taken.equal else ", NOT EQUAL")
            )

    def _run_peer(self, peer: Contender) -> Taken:
        start, _ = self._run_once(peer, START_EVENTS)
        events = self.events_of(peer)
        whole, found = self._run_once(peer, events)
        sha256 = table_sha256(self.work.table(found.prices))
        return Taken(
            events=events - START_EVENTS,
            cpu_s=whole.cpu_s - start.cpu_s,
            wall_s=max(whole.wall_s - start.wall_s, 1e-9),
            start_cpu_s=start.cpu_s,
            start_wall_s=start.wall_s,
            peak_rss_mb=whole.peak_rss_mb,
            emitted=found.messages,
            sha256=sha256,
            equal=sha256 == self.reference(events),
        )

    def _run_once(self, peer: Contender, events: int) -> tuple[Measured, feed.Emitted]:
        """Run a peer over a whole topic; return what it took and what it wrote."""
        self._runs += 1
        output = f"prices-{self._runs}-{peer.name}"
        folder = self.folder / output
        folder.mkdir()
        partitions = self.work.settings.partitions
        asyncio.run(feed.create(self.bootstrap, output, partitions))
        run = Run(
            bootstrap=self.bootstrap,
            input=f"feed-{events}",
            output=output,
            catalogue=self.catalogue,
            events=events,
            partitions=partitions,
            folder=folder,
        )
        measured = run_measured(
            peer.command(run),
            log=self.folder / f"{output}.log",
            folder=folder,
            environment=peer.environment(run),
            limit_s=peer.limit_s,
        )
        found = asyncio.run(feed.emitted(self.bootstrap, output, partitions))
        shutil.rmtree(folder)
        return measured, found

    def _run_ours(self, name: str) -> Taken:
        """Run the owners over one of their lanes; they count from the end of their catalogue."""
        self._runs += 1
        folder = self.folder / f"{name}-{self._runs}"
        folder.mkdir()
        log, prices = self.folder / f"{name}-{self._runs}.log", folder / "prices"
        command = owner_command(
            self.bootstrap,
            self.work.settings.partitions,
            json.dumps(self._openings),
            LANES[name],
            f"decisions-{self._runs}",
            prices,
        )
        measured = run_measured(
            command,
            log=log,
            folder=Path(__file__).resolve().parents[2],
            environment={"JAX_PLATFORMS": "cpu"},
            limit_s=OWNER_LIMIT_S,
        )
        told = json.loads(log.read_text().splitlines()[-1])
        lines = (line.split("\t") for line in prices.read_text().splitlines())
        sha256 = table_sha256({sku: int(price) for _, _, sku, price in lines})
        return Taken(
            events=told["events"],
            cpu_s=told["cpu_s"],
            wall_s=told["wall_s"],
            start_cpu_s=measured.cpu_s - told["cpu_s"],
            start_wall_s=measured.wall_s - told["wall_s"],
            peak_rss_mb=measured.peak_rss_mb,
            emitted=told["decisions"],
            sha256=sha256,
            equal=sha256 == self.reference(self.work.settings.events),
            detail=told,
        )


def note(text: str) -> None:
    """Tell the person who waits."""
    print(f"peers: {text}", file=sys.stderr, flush=True)
