"""The engine against its first peers: ``python -m perf.peers --events 1000000 --json``.

Starts a real Kafka, fills one feed, and lets each contender do the same work (``perf.workload``)
in a process and an environment of its own, round by round with ours between them. What a run of
1,000 messages takes is subtracted. A ratio is printed only for who ended with the same table of
prices as the reference.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

from cluster.servers.kafka import Kafka
from perf.peers.contenders import PEERS
from perf.peers.report import markdown, summary
from perf.peers.rounds import Bench


def main() -> None:
    """Measure and print."""
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(names), help="peers, with commas")
    parser.add_argument("--without-ours", action="store_true", help="to develop a peer")
    parser.add_argument("--json", action="store_true", help="one line of JSON, not a table")
    parser.add_argument("--out", type=Path, help="also write the JSON into this file")
    given = parser.parse_args()
    # An end from outside unwinds, too: a peer runs in a session of its own and would live on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("perf.peers: told to end"))
    unknown = set(given.only.split(",")) - set(names)
    if unknown:
        parser.error(f"--only: no such peer: {', '.join(sorted(unknown))}; there are {names}")
    peers = [peer for peer in PEERS if peer.name in given.only.split(",")]
    for peer in peers:
        peer.prepare()
    with tempfile.TemporaryDirectory(prefix="repricer-peers-") as name:
        folder = Path(name)
        kafka = Kafka(folder / "kafka")
        (folder / "kafka").mkdir()
        kafka.start()
        try:
            bench = Bench(
                bootstrap=kafka.address,
                folder=folder,
                events=given.events,
                listings=given.listings,
                partitions=given.partitions,
                seed=given.seed,
                peers=peers,
                ours=not given.without_ours,
            )
            asyncio.run(bench.fill())
            for number in range(given.rounds):
                bench.round(number)
                result = summary(bench, kafka.version())
                if given.out is not None:  # after each round: an hour's work survives an interrupt
                    given.out.write_text(json.dumps(result, indent=1) + "\n")
        finally:
            kafka.stop()
    print(json.dumps(result) if given.json else markdown(result), flush=True)
    if result["failed"]:
        sys.exit(f"perf.peers: did not end: {', '.join(sorted(result['failed']))}")
    if any(row["equal"] is False for row in result["rows"]):
        sys.exit("perf.peers: not everybody did the same work; see equal")


if __name__ == "__main__":
    main()
