"""What a fact costs in each stage of a microbatch: ``python -m perf.stages``.

The owner's own parts in one process and in memory: decode the records of the lane, apply them,
encode the decision. The facts are those of ``perf.throughput`` (``--work mixed``, JSON or frames)
or of ``perf.peers`` (``--work peers``). CPU seconds, all threads, in microseconds a fact; what the
log's client takes comes on top (``perf.throughput`` measures the whole). The last digest and the
hash of all decisions tell whether two versions of the engine decide the same.
"""

import argparse
import cProfile
import gc
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from engine.microbatch import FactColumns
from engine.routing import partition_of
from engine.shard import Shard
from perf import throughput
from perf.workload import START_MS, Workload, WorkloadSettings
from persistence.decision_records import DecisionRecord, Stamp, encode
from persistence.ports import Record
from persistence.wire import JSON, Decoder, encode_delta

STAGES = ("decode", "apply", "encode")
NOW_MS = 1_764_000_000_000
STAMP = Stamp(bytes(16), 1, 0, 1, bytes(16))


class Feed(Struct, frozen=True):
    """Records of one lane: the catalogue, then the facts."""

    opening: list[Record]
    records: list[Record]
    shard: int = 0
    partitions: int = 1
    now_ms: int = NOW_MS
    event_time: bool = False


def mixed_feed(events: int, listings: int, wire: str) -> Feed:
    """Return the facts of ``perf.throughput``, all of them of one shard."""
    world = throughput.World(listings, 1)
    observed_ms = NOW_MS - 3_600_000
    facts = throughput.draw(world, events, observed_ms + 1_000)
    make = throughput.json_records if wire == "json" else throughput.frame_records
    opening = [
        (key, encode_delta(delta), JSON) for key, delta in throughput.catalogue(world, observed_ms)
    ]
    return Feed(*_records(opening, make(world, facts)))


def peers_feed(events: int, listings: int) -> Feed:
    """Return the facts of ``perf.peers``, all of them of one shard."""
    work = Workload(WorkloadSettings(events=events, listings=listings))
    key = work.retailers[0].encode()
    opening = [(key, encode_delta(delta), JSON) for delta in work.opening(0)]
    facts = [(key, value, JSON) for _, key, value in work.messages()]
    return Feed(
        *_records(opening, facts),
        shard=partition_of(work.retailers[0], 1),
        now_ms=START_MS,
        event_time=True,
    )


def _records(
    opening: Sequence[throughput.Outgoing], facts: Sequence[throughput.Outgoing]
) -> tuple[list[Record], list[Record]]:
    records = [
        Record(offset, NOW_MS, key, value, content_type)
        for offset, (key, value, content_type) in enumerate([*opening, *facts])
    ]
    return records[: len(opening)], records[len(opening) :]


def cut(records: list[Record], size: int) -> Iterator[list[Record]]:
    """Yield so many records at a time."""
    for start in range(0, len(records), size):
        yield records[start : start + size]


def opened(feed: Feed) -> bytes:
    """Return the checkpoint of a shard that has decided the catalogue."""
    shard, decoder = Shard(), Decoder(feed.shard, feed.partitions, {})
    for records in (*cut(feed.opening, 4_096), []):
        while True:
            batch = decoder.decode(
                [], records, last_command=shard.last_command, last_delta=shard.last_delta
            )
            shard.record(shard.apply(batch, feed.now_ms + shard.seq))
            records = []
            if not shard.backlog:
                break
    return shard.checkpoint_close()


def run(
    feed: Feed, checkpoint: bytes, size: int, profile: cProfile.Profile | None = None
) -> dict[str, Any]:
    """Decide all facts, ``size`` records a microbatch; return what each stage took."""
    shard, decoder = Shard.restore([checkpoint]), Decoder(feed.shard, feed.partitions, {})
    spent = dict.fromkeys(STAGES, 0)
    told = hashlib.sha256()
    facts = microbatches = quotes = refused = 0
    gc.collect()
    if profile is not None:
        profile.enable()
    for records in cut(feed.records, size):
        began = time.process_time_ns()
        batch = decoder.decode(
            [], records, last_command=shard.last_command, last_delta=shard.last_delta
        )
        decoded = time.process_time_ns()
        now_ms = shard.decided_ms + 1
        if feed.event_time:
            now_ms = max(
                int(run.observed_ms.max())
                for run in batch.runs
                if isinstance(run, FactColumns) and len(run)
            )
        applied_from = time.process_time_ns()
        decided = shard.apply(batch, now_ms)
        applied = time.process_time_ns()
        value = encode(DecisionRecord(STAMP, decided))
        ended = time.process_time_ns()
        shard.record(decided)
        for stage, ns in zip(
            STAGES, (decoded - began, applied - applied_from, ended - applied), strict=True
        ):
            spent[stage] += ns
        told.update(value)
        facts += batch.deltas
        microbatches += 1
        quotes += len(decided.quotes)
        refused += len(decided.exceptions)
    if profile is not None:
        profile.disable()
    return {
        "facts": facts,
        "microbatches": microbatches,
        "quotes": quotes,
        "refused": refused,
        "us": {stage: ns / facts / 1000.0 for stage, ns in spent.items()},
        "decided_sha256": told.hexdigest(),
        "digest": f"{shard.digest:016x}",
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", choices=("mixed", "peers"), default="peers")
    parser.add_argument("--wire", choices=("json", "frames"), default="json")
    parser.add_argument("--events", type=int, default=250_000)
    parser.add_argument("--listings", type=int, default=25_000)
    parser.add_argument("--batch", type=int, default=0, help="records a microbatch")
    parser.add_argument("--repeat", type=int, default=5, help="the least of so many counts")
    parser.add_argument("--profile", default="", help="also write a profile into this file")
    given = parser.parse_args()
    if given.work == "peers":
        feed = peers_feed(given.events, given.listings)
    else:
        feed = mixed_feed(given.events, given.listings, given.wire)
    size = given.batch or (2 if given.wire == "frames" else 4_096)
    Shard().warm()
    checkpoint = opened(feed)
    gc.freeze()
    if given.profile:
        profile = cProfile.Profile()
        run(feed, checkpoint, size, profile)
        profile.dump_stats(given.profile)
        return
    runs = [run(feed, checkpoint, size) for _ in range(given.repeat)]
    assert len({one["decided_sha256"] for one in runs}) == 1, (
        "the same facts were decided otherwise"
    )
    least = {stage: round(min(one["us"][stage] for one in runs), 3) for stage in STAGES}
    line = {"what": "stages", "work": given.work, "wire": given.wire, "batch": size}
    print(json.dumps(line | runs[-1] | {"us": least, "all_us": round(sum(least.values()), 3)}))


if __name__ == "__main__":
    main()
