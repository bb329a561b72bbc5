"""The engine against its first peers: ``python -m perf.peers --events 1000000 --json``.

Starts a real Kafka, fills one feed, and lets each contender do the same work (``perf.workload``)
in a process and an environment of its own, round by round with ours between them: once by JSON, as
everybody gets it, and once by columnar frames. What a run of 1,000 messages takes is subtracted. A
ratio is printed only for who ended with the same table of prices as the reference.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.servers.kafka import Kafka
from perf.measuring import Machine, Progress, arguments_of, report
from perf.peers.contenders import PEERS
from perf.peers.report import markdown, summary
from perf.peers.rounds import Bench

COMMAND = "peers"


def measure(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    """Prepare everybody, run all rounds, and return the summary."""
    peers = [peer for peer in PEERS if peer.name in options.only.split(",")]
    for peer in peers:
        peer.prepare()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="repricer-peers-") as name:
        folder = Path(name)
        kafka = Kafka(folder / "kafka")
        (folder / "kafka").mkdir()
        say("starting Kafka")
        kafka.start()
        try:
            bench = Bench(
                bootstrap=kafka.address,
                folder=folder,
                events=options.events,
                listings=options.listings,
                partitions=options.partitions,
                seed=options.seed,
                peers=peers,
                ours=not options.without_ours,
            )
            asyncio.run(bench.fill())
            for number in range(options.rounds):
                bench.round(number)
                result = summary(bench, kafka.version())
                if options.out:  # after each round: an hour's work survives an interrupt
                    Path(options.out).write_text(json.dumps(result, indent=1) + "\n")
        finally:
            kafka.stop()
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report; 1 if somebody did not end, or did other work."""
    names = [peer.name for peer in PEERS]
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--listings", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(names), help="peers, with commas")
    parser.add_argument("--without-ours", action="store_true", help="to develop a peer")
    parser.add_argument("--out", help="also write the figures into this file, after each round")
    options = parser.parse_args(arguments)
    unknown = set(options.only.split(",")) - set(names)
    if unknown:
        parser.error(f"--only: no such peer: {', '.join(sorted(unknown))}; there are {names}")
    # An end from outside unwinds, too: a peer runs in a session of its own and would live on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("perf.peers: told to end"))
    machine = Machine()
    result = measure(options, Progress(COMMAND))
    if not options.json:
        print(markdown(result), file=sys.stderr)
    status = report(COMMAND, options, machine, result)
    if result["failed"]:
        print(f"perf.peers: did not end: {', '.join(sorted(result['failed']))}", file=sys.stderr)
        return 1
    if not all(row["equal"] for row in result["rows"]):
        print("perf.peers: not everybody did the same work; see equal", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
