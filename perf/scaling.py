"""What an event and a listing cost as the table grows, and what a listing weighs.

``python -m perf.scaling [--sizes 10000,100000,1000000] [--full] [--json]``; ``--full`` adds ten
million, which takes about half an hour and 8 GiB. Every size is filled by deltas in a process of
its own. Bytes are the growth of its anonymous memory, so what the allocator wastes counts.
It is measured from a process that has filled and dropped a small shard: what deciding itself takes,
whatever the number of listings, is told apart (``fixed_bytes``), since it is no listing's.
"""

import argparse
import ctypes
import gc
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from engine import pricing
from engine.decided import QUOTE_DTYPE
from engine.deltas import PolicyChanged
from engine.listing_table import LISTING_DTYPE
from engine.rivals import OFFER_DTYPE
from engine.shard import Shard
from perf.filled import PIECE, RETAILER, RIVALS, fill, id_bytes, keys_of
from perf.measuring import Progress, anonymous_bytes, arguments_of, run_command, significant
from perf.shard import Clock, mixed
from repricer import batch_of

COMMAND = "scaling"
SIZES = (10_000, 100_000, 1_000_000)
FULL = 10_000_000
BATCH = 2048
BATCHES = 40
REPRICED_ROWS_MAX = 500_000

RAW_ROW_BYTES = LISTING_DTYPE.itemsize + QUOTE_DTYPE.itemsize + 8 + RIVALS * OFFER_DTYPE.itemsize
"""The columns of one listing: its record, its newest quote, when it falls due, its offers."""


def in_a_process(listings: int, say: Progress) -> dict[str, float]:
    """Fill and measure a shard in a process of its own."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_child, args=(listings, theirs))
    process.start()
    theirs.close()
    say(f"filling {listings:,} listings")
    figures: dict[str, float] = pipe.recv()
    process.join()
    return figures


def _child(listings: int, pipe: Connection) -> None:
    pipe.send(figures_of(listings, Progress(f"{COMMAND} {listings}")))


def settled_bytes() -> int:
    """Return this process' own memory once what is free is given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return anonymous_bytes()


def figures_of(listings: int, say: Progress) -> dict[str, float]:
    """Fill a shard and return what it weighs and what an event costs."""
    shard = Shard()
    shard.warm()
    warmed = settled_bytes()
    fill(Shard(), PIECE, say)
    before = settled_bytes()
    began = time.perf_counter()
    clock = fill(shard, listings, say)
    fill_us = (time.perf_counter() - began) / listings * 1e6
    grown = settled_bytes() - before
    shapes = pricing.compiled_shapes()
    keys = keys_of(listings)
    events = event_ns(clock, keys)
    scan = scan_ns(clock, listings)
    assert pricing.compiled_shapes() == shapes, "a kernel was compiled after warming"
    raw = RAW_ROW_BYTES * listings + id_bytes(listings)
    return {
        "listings": listings,
        "event_ns": significant(events),
        "scan_ns_a_listing": significant(scan),
        "bytes_a_listing": significant(grown / listings),
        "fixed_bytes": significant(before - warmed),
        "raw_bytes_a_listing": significant(raw / listings),
        "of_raw": significant(grown / raw),
        "fill_us_a_listing": significant(fill_us),
    }


def event_ns(clock: Clock, keys: np.ndarray) -> float:
    """Return the median nanoseconds that an event of a full microbatch costs."""
    random = np.random.default_rng(2)
    batches = max(4, BATCHES)
    times = [clock.apply(mixed(keys, BATCH, clock.now_ms, random, RIVALS)) for _ in range(batches)]
    return statistics.median(times) / BATCH * 1e6


def scan_ns(clock: Clock, listings: int) -> float:
    """Return nanoseconds a listing of pricing the table again after a change of policy."""
    shard = clock.shard
    clock.now_ms += 1000
    changed = PolicyChanged(
        retailer=RETAILER,
        scope="retailer",
        fields={"min_margin": 0.06},
        observed_ms=clock.now_ms,
    )
    took = clock.apply(batch_of([changed], after=shard))
    while shard.backlog and listings - shard.backlog < REPRICED_ROWS_MAX:
        took += clock.apply(batch_of([], after=shard))
    return took / (listings - shard.backlog) * 1e6


def compared(found: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Return the figures by size and what grew from the smallest to the largest."""
    first, last = found[0], found[-1]
    heavy = next((each for each in found if each["listings"] >= 100_000), last)
    return {
        "by_size": {str(round(each["listings"])): each for each in found},
        "event_growth": significant(last["event_ns"] / first["event_ns"]),
        "scan_growth": significant(last["scan_ns_a_listing"] / first["scan_ns_a_listing"]),
        "bytes_growth": significant(last["bytes_a_listing"] / first["bytes_a_listing"]),
        "bytes_growth_from_100k": significant(last["bytes_a_listing"] / heavy["bytes_a_listing"]),
    }


def measure(sizes: Sequence[int], say: Progress) -> dict[str, Any]:
    """Return all figures."""
    return compared([in_a_process(listings, say) for listings in sizes])


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    sizes = [int(each) for each in options.sizes.split(",")] + ([FULL] if options.full else [])
    return measure(sizes, say)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--full", action="store_true", help="ten million, too")
    return run_command(COMMAND, parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
