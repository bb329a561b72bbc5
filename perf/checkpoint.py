"""What an incremental checkpoint writes, for how long it holds up deciding, and how fast it goes.

``python -m perf.checkpoint [--listings 200000] [--dirty 0.01] [--json]``

A filled shard is checkpointed whole; then deltas touch a share of its rows, and the increment is
taken as an owner takes it: a slice between two microbatches, then the closing part, then one file
that is verified after writing. Bytes are compared with those of the dirty rows' own columns, the
longest slice with the longest of as many full microbatches, the writing with a plain write and
``fsync`` of the same bytes.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.checkpoint import Part, PartBytes
from engine.microbatch import STOCK_COUNTED
from engine.shard import Shard
from perf.filled import RIVALS, SLICE_ROWS, filled, keys_of, parts_of, save
from perf.measuring import Progress, arguments_of, ratio, run_command, significant, spread
from perf.shard import Clock, block, mixed
from persistence.checkpoints import stem_of

COMMAND = "checkpoint"
BATCH = 2048


def touch(clock: Clock, keys: np.ndarray, rows: int) -> int:
    """Have deltas touch that many distinct listings."""
    random = np.random.default_rng(rows)
    chosen = random.permutation(len(keys))[:rows]
    for first in range(0, rows, BATCH):
        part = keys[chosen[first : first + BATCH]]
        kinds = np.full(len(part), STOCK_COUNTED)
        units = random.integers(1, 90, len(part))
        clock.apply(block(kinds, part, units, np.zeros(len(part), int), clock.now_ms))
    return rows


def slices(shard: Shard) -> tuple[list[bytes], list[float]]:
    """Take the increment slice by slice; return parts and milliseconds of each."""
    parts, took = [], []
    while True:
        began = time.perf_counter()
        part = shard.checkpoint_slice(SLICE_ROWS)
        closing = part is None
        parts.append(shard.checkpoint_close() if part is None else part)
        took.append((time.perf_counter() - began) * 1e3)
        if closing:
            return parts, took


def dirty_bytes(parts: Sequence[PartBytes]) -> tuple[int, int]:
    """Return how many rows the parts hold, and the bytes of these rows' own columns."""
    rows = total = 0
    for encoded in parts:
        part = msgspec.msgpack.decode(encoded, type=Part)
        rows += len(part.rows) // 4
        total += len(part.rows) + len(part.listings) + len(part.quotes) + len(part.due_ms)
        total += sum(map(len, part.texts)) + len(part.offers)
    return rows, total


def raw_write_s(folder: Path, size: int) -> float:
    """Return the seconds of a plain write and ``fsync`` of so many bytes."""
    content = os.urandom(min(size, 1 << 20)) * (size // min(size, 1 << 20) + 1)
    path = folder / "raw"
    began = time.perf_counter()
    with path.open("wb") as file:
        file.write(content[:size])
        file.flush()
        os.fsync(file.fileno())
    took = time.perf_counter() - began
    path.unlink()
    return took


def measure(listings: int, dirty: float, pairs: int, say: Progress) -> dict[str, Any]:
    """Return all figures."""
    shard, clock = filled(listings, say)
    keys = keys_of(listings)
    written: list[float] = []
    pauses: list[float] = []
    batches: list[float] = []
    speeds: list[float] = []
    raw: list[float] = []
    with tempfile.TemporaryDirectory(prefix="repricer-", dir=".") as name:
        folder = Path(name)
        say("the base")
        shard.checkpoint_restart()
        tip = save(shard, folder / "files", parts_of(shard))
        random = np.random.default_rng(3)
        for turn in range(pairs + 1):
            say(f"increment {turn} of {pairs}")
            touch(clock, keys, max(1, round(dirty * listings)))
            parts, took = slices(shard)
            rows, own = dirty_bytes(parts)
            began = time.perf_counter()
            tip = save(shard, folder / "files", parts, stem_of(tip))
            seconds = time.perf_counter() - began
            size = (folder / "files" / tip).stat().st_size
            applied = [clock.apply(mixed(keys, BATCH, clock.now_ms, random, RIVALS)) for _ in took]
            plain = raw_write_s(folder, size)
            parts_of(shard)  # what those microbatches touched is not the next increment's
            if turn == 0:
                continue  # the first warms
            written.append(size / own)
            pauses.append(max(took))
            batches.append(max(applied))
            speeds.append(size / seconds / 1e6)
            raw.append(size / plain / 1e6)
    return {
        "listings": listings,
        "dirty_rows": rows,
        "written_of_dirty": spread(written),
        "pause_ms": spread(pauses),
        "microbatch_ms": spread(batches),
        "pause_of_microbatch": ratio(pauses, batches),
        "mb_per_s": spread(speeds),
        "raw_mb_per_s": spread(raw),
        "speed_of_raw": ratio(speeds, raw),
        "bytes_a_dirty_row": significant(size / rows),
    }


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    return measure(options.listings, options.dirty, options.pairs, say)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--listings", type=int, default=200_000)
    parser.add_argument("--dirty", type=float, default=0.01, help="share of rows touched")
    parser.add_argument("--pairs", type=int, default=5)
    return run_command(COMMAND, parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
