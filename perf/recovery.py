"""How long a table takes from local bytes to equal state, against Redis loading the same as hashes.

``python -m perf.recovery [--listings 1000000] [--json]``; recovery of the whole stack, with its
process and its log, is ``python -m perf.chaos_rows``.

Ours is ``CheckpointFiles.load`` (every byte verified) and ``Shard.restore`` (id index included).
Equality is judged by decisions: the restored shard and the one that was saved must decide a
further microbatch alike, digests included. Redis loads an RDB file of one hash a listing
(perf.memory says which fields); its time is what it says of loading alone. Beside both stands a
plain ``read()`` of the same bytes.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import redis
from msgspec import structs

from cluster.servers import installation
from cluster.servers.redis import Redis
from engine.shard import Shard
from perf.filled import RIVALS, filled, keys_of, parts_of, save
from perf.measuring import (
    Progress,
    arguments_of,
    interleaved,
    ratio,
    run_command,
    significant,
    spread,
    timed,
)
from perf.memory import fill_redis
from perf.shard import mixed
from persistence.checkpoints import CheckpointFiles

COMMAND = "recovery"
REDIS_LISTINGS_MAX = 200_000


class RedisTable:
    """Redis with one hash a listing in an RDB file, to be started again and again."""

    def __init__(self, folder: Path, listings: int) -> None:
        self._folder = folder
        self._server = Redis(folder)
        self._listings = listings

    def fill(self) -> None:
        """Write the RDB file and stop."""
        self._server.start()
        with redis.Redis.from_url(self._server.address, socket_timeout=600) as client:
            client.config_set("appendonly", "no")
            fill_redis(client, self._listings)
            client.save()
        self._server.stop()

    def load_s(self) -> float:
        """Start on the file and return the seconds that the server says it loaded."""
        settings = self._folder / "redis.conf"
        text = settings.read_text().replace("appendonly yes", "appendonly no")
        settings.write_text(text)
        return loaded_s(self._folder, settings, self._listings, self._server.address)


def loaded_s(folder: Path, settings: Path, listings: int, address: str) -> float:
    """Run a server on a settings file until it has loaded; return the seconds of loading alone."""
    log = folder / "load.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(installation.redis_program()), str(settings)], stdout=out, stderr=out
        )
        try:
            deadline = time.monotonic() + 300
            while True:
                text = log.read_text(errors="replace")
                found = re.search(r"DB loaded from disk: ([0-9.]+) seconds", text)
                if found:
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"redis did not load: {text[-500:]}")
                time.sleep(0.02)
            with redis.Redis.from_url(address) as client:
                assert client.dbsize() == listings, "redis lost listings"
            return float(found.group(1))
        finally:
            process.terminate()
            process.wait(60)


def decided_alike(one: Shard, other: Shard, keys: np.ndarray, now_ms: int) -> bool:
    """Whether two shards decide a further microbatch alike."""
    batch = mixed(keys, 2048, now_ms, np.random.default_rng(9), RIVALS)
    batch = structs.replace(batch, last_delta=one.last_delta + len(keys))
    first, second = (shard.apply(batch, now_ms) for shard in (one, other))
    one.record(first)
    other.record(second)
    return first.digest == second.digest and bool((first.quotes == second.quotes).all())


def measure(listings: int, pairs: int, say: Progress) -> dict[str, Any]:
    """Return all figures."""
    shard, clock = filled(listings, say)
    shard.checkpoint_restart()
    peers = min(listings, REDIS_LISTINGS_MAX)
    with tempfile.TemporaryDirectory(prefix="repricer-") as name:
        folder = Path(name)
        (folder / "redis").mkdir()
        say("writing the checkpoint")
        parts = parts_of(shard)
        save(shard, folder / "checkpoint", parts)
        del parts
        say(f"filling Redis with {peers:,} hashes")
        table = RedisTable(folder / "redis", peers)
        table.fill()
        stages: dict[str, list[float]] = {"load": [], "restore": []}
        restored: list[Shard] = []

        def ours() -> float:
            restored.clear()
            began = time.perf_counter()
            loaded = asyncio.run(CheckpointFiles(folder / "checkpoint").load())
            assert loaded is not None
            middle = time.perf_counter()
            restored.append(Shard.restore(loaded[0]))
            end = time.perf_counter()
            stages["load"].append(middle - began)
            stages["restore"].append(end - middle)
            return (end - began) / listings * 1e6

        def plain_read() -> float:
            paths = list((folder / "checkpoint").glob("*.checkpoint"))
            return timed(lambda: [path.read_bytes() for path in paths]) / listings * 1e6

        sides = {
            "ours": ours,
            "redis": lambda: table.load_s() / peers * 1e6,
            "read": plain_read,
        }
        took = interleaved(pairs, sides, say)
        size = sum(path.stat().st_size for path in (folder / "checkpoint").glob("*.checkpoint"))
        equal = decided_alike(
            shard, restored[0], keys_of(min(listings, 100_000)), clock.now_ms + 250
        )
        assert equal, "the restored shard decides otherwise"
    return {
        "listings": listings,
        "redis_listings": peers,
        "equal": equal,
        "ours_s_a_million": spread(took["ours"]),
        "of_which_read_and_verify_s": significant(sorted(stages["load"])[len(stages["load"]) // 2]),
        "of_which_restore_s": significant(sorted(stages["restore"])[len(stages["restore"]) // 2]),
        "redis_s_a_million": spread(took["redis"]),
        "read_s_a_million": spread(took["read"]),
        "of_redis": ratio(took["ours"], took["redis"]),
        "of_read": ratio(took["ours"], took["read"]),
        "bytes_a_listing": significant(size / listings),
    }


def _figures(options: argparse.Namespace, say: Progress) -> dict[str, Any]:
    return measure(options.listings, options.pairs, say)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and report."""
    parser = arguments_of(COMMAND, __doc__)
    parser.add_argument("--listings", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=5)
    return run_command(COMMAND, parser, arguments, _figures)


if __name__ == "__main__":
    sys.exit(main())
