"""Probes of latency: what a reader of the gateway saw, and what the decision log says of it.

A reader asks for a probe's product until the answer holds another quote, and a subscriber of the
stream notes when the same quote was told to him. What a probe's delta decided is read from the
decision log afterwards, so a price that stayed the same is never taken for one that did not come.
"""

import asyncio
import itertools
import json
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from msgspec import Struct

from cluster.assembly import make_logs
from cluster.settings import Settings
from engine.decided import Decided, quote_id
from engine.microbatch import LANES
from perf.histogram import Histogram
from perf.open_loop import Sent
from persistence.decision_reader import Accepted, DecisionReader
from persistence.ports import DECISIONS

PROBE_WAIT_S = 5.0
STAGES = ("produced", "decided", "recorded", "readable")


class Probe(Struct):
    """One probe: when it was meant to be sent, and what became of it."""

    sku: str
    due_s: float  # after the timetable's begin
    seen_ms: float | None = None  # unix time at which its new quote was in the reader's hand
    quote: str = ""  # the new quote's id


class Reader:
    """Asks the gateway for one product at a time over kept connections, as cheaply as it can."""

    def __init__(self, address: str, key: str) -> None:
        place = urlsplit(address)
        self.asked = 0
        self._host, self._port = str(place.hostname), int(place.port or 0)
        self._rest = f"Host: {place.netloc}\r\nAuthorization: Bearer {key}\r\n\r\n"
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def quote_id(self, sku: str) -> str:
        """Return the id of the product's present quote, ``""`` when there is none."""
        reader, writer = await self._connection()
        self.asked += 1
        line = f"GET /api/v1/products/{sku}/recommendation HTTP/1.1\r\n"
        writer.write((line + self._rest).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        body = await reader.readexactly(length)
        self._free.append((reader, writer))
        if head.split(b" ", 2)[1] != b"200":
            return ""
        return str(json.loads(body).get("quote_id", ""))

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a kept connection that the gateway has not closed meanwhile, or a new one."""
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)

    def close(self) -> None:
        """Close every connection."""
        for _, writer in self._free:
            writer.close()


async def watch(reader: Reader, probe: Probe, begin_s: float, poll_s: float) -> None:
    """Ask for one probe's product from the moment it was meant to be sent until it is new."""
    await asyncio.sleep(max(begin_s + probe.due_s - 0.25 - time.monotonic(), 0))
    before = await reader.quote_id(probe.sku)
    await asyncio.sleep(max(begin_s + probe.due_s - time.monotonic(), 0))
    deadline_s = begin_s + probe.due_s + PROBE_WAIT_S
    while (now_s := time.monotonic()) < deadline_s:
        # Later on 2 % of the time is exact enough, and a probe that is lost must not load anybody.
        await asyncio.sleep(max(poll_s, (now_s - begin_s - probe.due_s) / 50))
        found = await reader.quote_id(probe.sku)
        if found != before:
            probe.seen_ms, probe.quote = time.time() * 1000, found
            return


async def subscribe(
    address: str, key: str, told: dict[str, float], subscription: Mapping[str, str]
) -> None:
    """Note when each quote arrives at a subscriber of the stream."""
    frames: list[tuple[float, str]] = []
    try:
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
            session.ws_connect(f"{address}/api/v1/stream", protocols=("prices.v1",)) as socket,
        ):
            await socket.send_json({"type": "subscribe", **subscription})
            async for message in socket:
                frames.append((time.time() * 1000, message.data))
    finally:
        for at_ms, text in frames:
            frame = json.loads(text)
            if frame["type"] == "delta":
                for price in frame["prices"]:
                    told.setdefault(str(price.get("quote_id", "")), at_ms)


class Recorded(Struct, frozen=True):
    """What the decision log says of one probe's delta."""

    decided_ms: int
    appended_ms: int
    quote: str  # "" when it decided nothing new
    refused: str = ""


async def recorded(settings: Settings, probes: Mapping[int, Sent]) -> dict[int, Recorded]:
    """Return the decision of every probe, by its name, as the logs hold it for ever."""
    logs = make_logs(settings)
    generation = settings.shards.generation
    found: dict[int, Recorded] = {}
    for shard in range(settings.shards.count):
        wanted = deque(
            sorted((sent.offset, name) for name, sent in probes.items() if sent.partition == shard)
        )
        log = await logs.open(DECISIONS, shard)
        end = await log.end()
        reader = DecisionReader(None, shard=shard, generation=generation)
        while reader.offset < end - 1 and wanted:
            for record in await log.read(reader.offset, limit=500, wait_ms=1000):
                accepted = reader.accept(record)
                if accepted is None or accepted.decided is None:
                    continue
                if wanted and wanted[0][0] <= accepted.decided.last_delta:
                    _take_recorded(found, wanted, accepted, accepted.decided)
        await log.close()
    await logs.close()
    return found


def _take_recorded(
    found: dict[int, Recorded],
    wanted: deque[tuple[int, int]],
    accepted: Accepted,
    decided: Decided,
) -> None:
    """Take from ``wanted`` what one decision consumed, and note what it made of it."""
    quotes, lane = decided.quotes, LANES.index("deltas")
    places = zip(quotes["cause_lane"].tolist(), quotes["cause_offset"].tolist(), strict=True)
    items = {offset: item for item, (of, offset) in enumerate(places) if of == lane}
    refused = {
        each.position.offset: each.verdict
        for each in decided.exceptions
        if each.position.lane == lane
    }
    stamp = accepted.stamp
    while wanted and wanted[0][0] <= decided.last_delta:
        offset, name = wanted.popleft()
        item = items.get(offset)
        found[name] = Recorded(
            decided.decided_ms,
            accepted.appended_ms,
            quote_id(stamp.generation, stamp.shard, decided.seq, item) if item is not None else "",
            refused.get(offset, ""),
        )


def judged(
    probes: Sequence[Probe],
    sent: Mapping[int, Sent],
    decisions: Mapping[int, Recorded],
    told: Mapping[str, float],
    begin_ms: float,
) -> dict[str, Any]:
    """Return percentiles of the whole and of every stage, and what became of every probe."""
    whole, told_ms, streamed = Histogram(), Histogram(), Histogram()
    stages = {name: Histogram() for name in STAGES}
    fates: Counter[str] = Counter()
    for name, probe in enumerate(probes):
        decision = decisions.get(name)
        if decision is None:
            fates["never_decided"] += 1
            continue
        if not decision.quote:
            fates[f"refused_{decision.refused}" if decision.refused else "same_price"] += 1
            continue
        if probe.seen_ms is None:
            fates["never_readable"] += 1
            continue
        fates["readable"] += 1
        due_ms = begin_ms + probe.due_s * 1000
        whole.add(probe.seen_ms - due_ms)
        marks = (
            due_ms,
            sent[name].appended_ms,
            decision.decided_ms,
            decision.appended_ms,
            probe.seen_ms,
        )
        for stage, (begin, end) in zip(STAGES, itertools.pairwise(marks), strict=True):
            stages[stage].add(end - begin)
        if decision.quote in told:
            told_ms.add(told[decision.quote] - due_ms)
            streamed.add(told[decision.quote] - decision.appended_ms)
    return {
        "probes": dict(fates),
        **whole.percentiles(),
        "probes_lost": fates["never_decided"] + fates["never_readable"],
        "stages_ms": {name: each.percentiles() for name, each in stages.items()}
        | {"streamed": streamed.percentiles()},
        "told_ms": told_ms.percentiles() | {"count": told_ms.count},
    }
